"""Drawing maps on faces. Takes tensors, gives matplotlib figures; never touches pyplot's global state."""

from facexai.plots.charts import bars, curves, rocs
from facexai.plots.counterfactual import counterfactuals
from facexai.plots.drawing import bar, colours, figure, html, overlay, photo, png, save
from facexai.plots.frequency import discs, group_spectra, lines, strip
from facexai.plots.maps import matches, overlays, pairs, rival_grid

__all__ = [
    "bar",
    "bars",
    "colours",
    "counterfactuals",
    "curves",
    "discs",
    "figure",
    "group_spectra",
    "html",
    "lines",
    "matches",
    "overlay",
    "overlays",
    "pairs",
    "photo",
    "png",
    "rival_grid",
    "rocs",
    "save",
    "strip",
]
