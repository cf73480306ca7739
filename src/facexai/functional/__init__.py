"""The mathematics: tensors in, tensors out. Nothing here knows a network, a file or a plot."""

from facexai.functional.cam import (
    at_least_float32,
    completeness_error,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    minmax,
    share,
    upsample,
)
from facexai.functional.diffusion import Schedule, linear_alphas, respaced, strongest, unchanged
from facexai.functional.frequency import Bands, agreement, bands, energies, first_order, in_cells, spectra
from facexai.functional.pairs import (
    agreeing,
    centred,
    correlation_maps,
    correspondences,
    fggb,
    ranks,
    steady,
    through_length,
    unit_gradients,
)
from facexai.functional.scorecam import scorecam, scorecam_weights
from facexai.functional.sdd import sdd
from facexai.functional.verification import auc, equal_error, sweep

__all__ = [
    "Bands",
    "Schedule",
    "agreeing",
    "agreement",
    "at_least_float32",
    "auc",
    "bands",
    "centred",
    "completeness_error",
    "correlation_maps",
    "correspondences",
    "energies",
    "equal_error",
    "fggb",
    "first_order",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "in_cells",
    "layercam",
    "linear_alphas",
    "minmax",
    "ranks",
    "respaced",
    "scorecam",
    "scorecam_weights",
    "sdd",
    "share",
    "spectra",
    "steady",
    "strongest",
    "sweep",
    "through_length",
    "unchanged",
    "unit_gradients",
    "upsample",
]
