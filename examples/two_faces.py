"""
Why do these two faces match?
=============================

Four methods on one pair, and what matched what.

A pair of your own::

    python examples/two_faces.py --first a.jpg --second b.jpg --threshold 0.4

By default the pair is a portrait and a changed copy of it, so nearly everything speaks for a match. Maps with one sign
everywhere say so in a warning: their shape is hardly about this pair.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facexai import FGGB, XSSAB, CorrRISE, PairCAM, images, perturb, plots, zoo
from facexai.demo.portraits import COLLINS, mirrored, relit

parser = argparse.ArgumentParser(description="Why do these two faces match, or not?")
parser.add_argument("--first", type=Path, help="photo of a face; default: a portrait")
parser.add_argument("--second", type=Path, help="photo of a face; default: a changed copy of the portrait")
parser.add_argument("--threshold", type=float, default=0.4, help="cosine from which a pair is accepted")
parser.add_argument("--out", type=Path, default=Path("two_faces.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# A network and two aligned faces.
model = zoo.load("dlib-resnet29")
face = images.align(images.load(options.first) if options.first else COLLINS.load(), model.spec).image
other = images.align(images.load(options.second), model.spec).image if options.second else mirrored(relit(face))

# %%
# Four answers. Each looks at a face once; what it saw answers for any partner. FGGB and xSSAB follow gradients,
# CorrRISE hides patches and needs none, PairCAM adds up exactly to the cosine.
methods = {
    "FGGB": FGGB(model, options.threshold),
    "xSSAB": XSSAB(model, options.threshold),
    "CorrRISE": CorrRISE(model, count=200),
    "PairCAM": PairCAM(model, layer="stage2", threshold=options.threshold),
}
whys = {name: explainer(face, other) for name, explainer in methods.items()}
for why in whys.values():
    print(why)

# %%
# The maps of both faces, red for a match and blue against it, each map on its own scale. FGGB and xSSAB have a value
# for every pixel; they are blurred here for the eye, as published, and only here.
figure = plots.figure(2.3 * (1 + len(whys)), 5.2)
grid = figure.subplots(2, 1 + len(whys))
for row, image, name in ((0, face, "first"), (1, other, "second")):
    plots.photo(grid[row, 0], image[0])
    grid[row, 0].set_title(name, fontsize=10)
for column, (name, why) in enumerate(whys.items(), start=1):
    maps = perturb.gaussian_blur(why.maps, 5 / 112 * why.size[1]) if name in ("FGGB", "xSSAB") else why.maps
    for row, image in ((0, face), (1, other)):
        limit = float(maps[0, row].abs().max())
        plots.overlay(grid[row, column], image[0], maps[0, row], cmap="RdBu_r", vmin=-limit, vmax=limit)
        grid[row, column].set_title(name, fontsize=10)
figure.suptitle(f"cosine {float(whys['FGGB'].scores[0]):.3f}, accepted from {options.threshold:g}", fontsize=11)
figure.supxlabel("red: speaks for a match; blue: against it; each map on its own scale", fontsize=9)
plots.save(figure, options.out.with_stem(f"{options.out.stem}_maps"))
figure

# %%
# What matched what: PairCAM's table of cells. The copy is mirrored, so left and right have changed places.
why = whys["PairCAM"]
for (y, x), (v, u), value in why.strongest(3):
    print(f"({y:.0f}, {x:.0f}) matched ({v:.0f}, {u:.0f}) and adds {value:.4f} to the cosine")
figure = why.plot_matches(8)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
