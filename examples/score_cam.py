"""
Score-CAM without gradients
===========================

One masked pass, and every variant and every person from it. The default is two portraits in the public domain and a
changed copy of one.

Your own::

    python examples/score_cam.py --gallery enrolled --photo who.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facexai import SDD, ScoreCAM, images, plots, zoo
from facexai.demo.portraits import COLLINS, HOPPER, mirrored, relit

parser = argparse.ArgumentParser(description="Score-CAM without gradients: one masked pass, and every variant from it.")
parser.add_argument("--gallery", type=Path, help="folder NAME/*.jpg; default: the two portraits")
parser.add_argument("--photo", type=Path, help="photo to explain; default: a changed copy of a portrait")
parser.add_argument("--out", type=Path, default=Path("score_cam.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# A network, people, a face. A scale of 64 would saturate the probabilities that weigh the channels.
model = zoo.load("dlib-resnet29")
if options.gallery:
    people = model.gallery(options.gallery, align="auto", scale=10.0)
else:
    portraits = {p.name: images.align(p.load(), model.spec).image for p in (COLLINS, HOPPER)}
    people = model.gallery(portraits, scale=10.0)
if options.photo:
    face = images.align(images.load(options.photo), model.spec).image
else:
    face = mirrored(relit(images.align(COLLINS.load(), model.spec).image))

# %%
# The only network passes: the face, and the face seen through each channel of the layer.
explainer = ScoreCAM(people, layer="stage2")
evidence = explainer.observe(face)
print(f"{1 + len(evidence.channel)} images through the network")

# %%
# Everything else is algebra: the three variants, any person, SDD.
whys = {
    weights: ScoreCAM(people, layer="stage2", weights=weights).answer(evidence)
    for weights in ("probability", "softmax-probability", "softmax-logit")
}
whys["SDD"] = SDD(explainer, rivals=min(4, len(people) - 1)).answer(evidence)
for name, why in whys.items():
    alike = torch.corrcoef(torch.stack([why.cells.flatten(), whys["probability"].cells.flatten()]))[0, 1]
    print(f"{name}: {why.name(int(why.targets[0]))}, correlation with the default {float(alike):.2f}")

# %%
# The face, the three variants, and SDD over the first.
figure = plots.figure(2.4 * (1 + len(whys)), 2.9)
axes = figure.subplots(1, 1 + len(whys))
plots.photo(axes[0], face[0])
axes[0].set_title("photo", fontsize=10)
for place, (name, why) in zip(axes[1:], whys.items(), strict=True):
    plots.overlay(place, face[0], why.maps[0], **plots.colours(why.maps[0]))
    place.set_title(name, fontsize=10)
figure.supxlabel(
    f"why {people.names[int(whys['SDD'].targets[0])]}? each map on its own scale, from 0 (clear)", fontsize=9
)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
