"""
What do small probes lose?
==========================

Small probes against large references: which bands of frequencies stop mattering? The default is changed copies of two
portraits in the public domain, which illustrate and evaluate nothing.

Your own::

    python examples/cross_resolution.py --faces FOLDER     # FOLDER/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facexai import FrequencyHeatPlot, images, plots, zoo
from facexai.demo.people import people, portraits

parser = argparse.ArgumentParser(
    description="Small probes against large references: which bands of frequencies stop mattering?"
)
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: copies of two portraits")
parser.add_argument("--people", type=int, default=10)
parser.add_argument("--out", type=Path, default=Path("cross_resolution.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# Two photos of each person: a probe, which loses resolution, and a reference, which does not.
model = zoo.load("dlib-resnet29")
faces = people(options.faces, model.spec, options.people, 2) if options.faces else portraits(model.spec, 2)
probes, references = (torch.stack([own[i] for own in faces.values()]) for i in (0, 1))
height, width = model.spec.height_width

# %%
# The same question at every resolution.
explainer = FrequencyHeatPlot(model, mode="hybrid")
shown, curves = [], []
for factor in (1, 2, 4, 8):
    small = images.resize(probes, (height // factor, width // factor)) if factor > 1 else probes
    again = images.resize(small, (height, width)).clamp(0, 1)
    heat = explainer(again, references)
    mean = heat.absolute.mean(0)
    fine = float(mean[heat.face_edges[:-1] >= 8].sum() / mean.sum())
    told = f"{width // factor} px: mean cosine {float(heat.scores.mean()):.2f}"
    shown.append((again[0], told))
    curves.append((f"{width // factor} px", mean))
    print(f"{told}, {fine:.0%} of the influence from 8 cycles")

# %%
# Above: one of the probes as the network sees it. Below: mean magnitude of the influence, band by band. What a small
# probe does not have, it cannot lose.
figure = plots.figure(10.0, 6.4)
grid = figure.add_gridspec(2, len(shown), height_ratios=(1.0, 1.2))
for column, (probe, told) in enumerate(shown):
    axes = figure.add_subplot(grid[0, column])
    plots.photo(axes, probe)
    axes.set_title(told, fontsize=10)
axes = figure.add_subplot(grid[1, :])
middle = (heat.edges[1:] + heat.edges[:-1]) / 2 * heat.face
for (name, mean), colour in zip(curves, ("#0072B2", "#009E73", "#E69F00", "#D55E00"), strict=True):
    axes.plot(middle, mean, color=colour, linewidth=1.8, label=name)
axes.set_xscale("log")
axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
axes.minorticks_off()
axes.set_xlabel("cycles per breadth of the face")
axes.set_ylabel("influence (cosine, mean magnitude)")
axes.grid(color="#dddddd", linewidth=0.6)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, title="width of the probe")
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
