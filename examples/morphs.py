"""
Do the bands that decide give a morph away?
===========================================

Blends of two people against photos of one: do the bands that decide tell morphs from bona fide pairs? The default is
changed copies of two portraits in the public domain, which illustrate and evaluate nothing: an AUROC takes four people.

Your own::

    python examples/morphs.py --faces FOLDER     # FOLDER/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facexai import FrequencyHeatPlot, metrics, plots, zoo
from facexai.demo.people import people, portraits

parser = argparse.ArgumentParser(description="Do the bands that decide tell morphs from bona fide pairs?")
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: copies of two portraits")
parser.add_argument("--people", type=int, default=12)
parser.add_argument("--out", type=Path, default=Path("morphs.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# Bona fide: two photos of a person. Morph: the aligned photo blended with the next person's, against that person.
model = zoo.load("dlib-resnet29")
faces = people(options.faces, model.spec, options.people, 2) if options.faces else portraits(model.spec, 2)
first, second = (torch.stack([own[i] for own in faces.values()]) for i in (0, 1))
morphs = (first + first.roll(1, 0)) / 2

# %%
# Bands that decide about each pair; the first image loses them.
explainer = FrequencyHeatPlot(model, mode="hybrid")
heat = explainer(torch.cat([first, morphs]), second.repeat(2, 1, 1, 1))
shares = heat.absolute / heat.absolute.sum(1, keepdim=True)
bona_fide, morphed = shares[: len(faces)], shares[len(faces) :]

# %%
# A detector: how far a pair leans towards the morphs' mean; that pair's people are left out of the means.
scores, labels = [], []
for i in range(len(faces) if len(faces) > 3 else 0):
    others = [k for k in range(len(faces)) if k not in (i, (i - 1) % len(faces), (i + 1) % len(faces))]
    direction = morphed[others].mean(0) - bona_fide[others].mean(0)
    scores += [float(bona_fide[i] @ direction), float(morphed[i] @ direction)]
    labels += [False, True]
if labels:
    cosines = torch.stack([heat.scores[: len(faces)], heat.scores[len(faces) :]], 1).flatten()
    print(f"AUROC of the bands {metrics.auc(scores, labels):.2f}, of the cosine {metrics.auc(-cosines, labels):.2f}")
else:
    print("an AUROC needs at least four people; two portraits illustrate")

# %%
# Above: one pair of each kind, with its cosine. Below: the share of each band in what decides, on average.
figure = plots.figure(10.0, 6.4)
grid = figure.add_gridspec(2, 4, height_ratios=(1.0, 1.2))
cosine, blend = float(heat.scores[0]), float(heat.scores[len(faces)])
pictures = [("bona fide", first[0]), (f"against, cosine {cosine:.2f}", second[0])]
pictures += [("morph", morphs[0]), (f"against, cosine {blend:.2f}", second[0])]
for column, (name, picture) in enumerate(pictures):
    axes = figure.add_subplot(grid[0, column])
    plots.photo(axes, picture)
    axes.set_title(name, fontsize=10)
axes = figure.add_subplot(grid[1, :])
middle = (heat.edges[1:] + heat.edges[:-1]) / 2 * heat.face
for name, rows, colour in (("bona fide", bona_fide, "#0072B2"), ("morphs", morphed, "#D55E00")):
    axes.plot(middle, 100 * rows.mean(0), color=colour, linewidth=1.8, label=name)
axes.set_xscale("log")
axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
axes.minorticks_off()
axes.set_xlabel("cycles per breadth of the face")
axes.set_ylabel("share of the influence, %")
axes.grid(color="#dddddd", linewidth=0.6)
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
