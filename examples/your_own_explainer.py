"""
Write your own explainer
========================

An explainer is a frozen dataclass that you call. ``observe`` is the only part that runs the network, ``answer`` is
algebra, and ``class_maps`` gives a map for any class. That is all it takes: SDD can wrap it, metrics can judge it, and
its answers draw and save themselves.

This one puts a grey tile over one place after the other: where the score falls, there was evidence.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facexai import SDD, Gallery, HiResCAM, metrics, plots, zoo
from facexai.demo.people import portraits
from facexai.explainers import answer, check_evidence, explain

parser = argparse.ArgumentParser(description="Write your own explainer.")
parser.add_argument("--tiles", type=int, default=10, help="per side")
parser.add_argument("--out", type=Path, default=Path("your_own_explainer.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line


# %%
# What one look at the images leaves behind. ``outputs``, ``layer`` and ``fingerprint`` are what every evidence has:
# the scores follow from the first, and evidence of another network, or of changed weights, is refused by the last.
@dataclass(frozen=True, eq=False)
class Hidden:
    """What the network said about each image, and about its copies with one tile hidden."""

    outputs: Tensor  # (N, D), of the images as they are
    covered: Tensor  # (N, tiles * tiles, D), of the copies
    fingerprint: str  # of the model that was asked
    layer: str = "pixels"
    kind: str = "tiles"


# %%
# The explainer. ``explain`` and ``answer`` are the functions that all explainers of facexai share: the first calls
# ``observe`` and ``answer``, the second turns ``class_maps`` and ``recipe`` into a Saliency.
@dataclass(frozen=True, eq=False)
class Tiles:
    """The drop of a class's logit when a grey tile covers a place."""

    classifier: Gallery
    tiles: int = 10
    grey: float = 0.5
    relu: bool = False  # keep the positive part only; ``answer`` asks

    __call__ = explain
    answer = answer

    def observe(self, images: Tensor) -> Hidden:
        """Network passes: one for the images, one for each tile."""
        model, covered = self.classifier.model, []
        height, width = model.spec.height_width
        rows, columns = torch.arange(height) * self.tiles // height, torch.arange(width) * self.tiles // width
        with torch.no_grad():
            for tile in range(self.tiles**2):
                here = (rows == tile // self.tiles)[:, None] & (columns == tile % self.tiles)
                covered.append(model.outputs(torch.where(here.to(images.device), self.grey, images)))
            outputs = model.outputs(images)
        return Hidden(outputs, torch.stack(covered, 1), model.fingerprint)

    def class_maps(self, evidence: Hidden, classes: Tensor) -> Tensor:
        """Maps (N, K, tiles, tiles) of classes (N, K); no network pass."""
        check_evidence(self.classifier, evidence)
        model, (n, k) = self.classifier.model, classes.shape
        before = self.classifier.score(model.features(evidence.outputs))
        after = self.classifier.score(model.features(evidence.covered.flatten(0, 1))).view(n, -1, before.shape[1])
        drops = (before[:, None] - after).gather(2, classes[:, None].expand(-1, after.shape[1], -1))
        return drops.mT.reshape(n, k, self.tiles, self.tiles)

    def recipe(self, evidence: Hidden) -> dict[str, Any]:
        """Every choice that changes a number; it travels with the answer."""
        return {"method": "Tiles", "layer": evidence.layer, "tiles": self.tiles, "grey": self.grey}


# %%
# It is called like any other. The same evidence answers for everybody.
model = zoo.load("dlib-resnet29")
copies = portraits(model.spec)
people = model.gallery({name: faces[:1] for name, faces in copies.items()})
probes = torch.cat([faces[3:] for faces in copies.values()])

tiles = Tiles(people, options.tiles)
seen = tiles.observe(probes)
whys = {"Tiles": tiles.answer(seen), "SDD(Tiles)": SDD(tiles, rivals=1).answer(seen)}
print(whys["SDD(Tiles)"])

# %%
# ... and judged like any other: hide the marked 20 %, and see what is left of the decision. Two faces prove nothing,
# and the controls need more people; the call is the point.
whys |= {"HiResCAM": HiResCAM(people)(probes)}
for name, why in whys.items():
    gone = metrics.deletion(people, probes, why)
    print(f"{name}: {gone.score_drop:.2f} of cosine lost, the centre {gone.controls['centre'].score_drop:.2f}")

# %%
# Beside HiResCAM, which looks inside the network.
figure = plots.figure(2.5 * (1 + len(whys)), 5.4)
grid = figure.subplots(len(probes), 1 + len(whys))
for i, row in enumerate(grid):
    plots.photo(row[0], probes[i])
    row[0].set_title(people.names[int(whys["Tiles"].targets[i])], fontsize=10)
    for axes, (name, why) in zip(row[1:], whys.items(), strict=True):
        drawn = plots.overlay(axes, probes[i], why.maps[i], **plots.colours(why.maps[i]))
        plots.bar(figure, axes, drawn)
        axes.set_title(name, fontsize=10)
figure.supxlabel(
    "Tiles, HiResCAM: logits, red adds to the score; SDD: 0 to 1, for this person and not the other", fontsize=9
)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
