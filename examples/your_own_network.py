"""
Your own network, unchanged
===========================

Which of its layers show what, and is the explanation complete? The network here has the structure of most face networks
and random weights, so **its maps mean nothing**: put yours in its place. Nothing is subclassed, patched or re-trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from facexai import CAM, FaceModel, HeadDoesNotFold, HiResCAM, doctor, plots
from facexai.demo.people import portraits

parser = argparse.ArgumentParser(description="A network of your own: which layers show what, and is it complete?")
parser.add_argument("--out", type=Path, default=Path("your_own_network.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line


class YourNetwork(nn.Module):
    """A backbone, then BN2d, dropout, flatten, linear and BN1d."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.PReLU(32))
        self.stage = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.PReLU(64))
        self.bn, self.dropout = nn.BatchNorm2d(64), nn.Dropout(0.4)
        self.fc, self.features = nn.Linear(64 * 49, 128), nn.BatchNorm1d(128)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn(self.stage(self.stem(x)))
        embedding = self.features(self.fc(self.dropout(x.flatten(1))))
        return embedding, embedding.norm(dim=1)


# %%
# Wrap it: what does it want to see, and which of its outputs is the embedding? The doctor looks it over.
torch.manual_seed(0)
model = FaceModel(YourNetwork(), "arcface", take=0)  # the first of the two outputs
print("layers with a map:", model.layers)
doctor(model)

# %%
# Two people, enrolled. Behind the map there are only affine layers, so CAM is exact: its cells and a constant that no
# cell holds add up to the score. Where a head does not fold, CAM says why, and HiResCAM explains it.
faces = {name: copies[:1] for name, copies in portraits(model.spec).items()}
people = model.gallery(faces)
probes = torch.cat(list(faces.values()))
try:
    why = CAM(people)(probes, targets=people.names[0])
    print("CAM at", why.recipe["layer"])
    print("cells + constant:", [f"{value:.4f}" for value in (why.cells.sum((1, 2)) + why.constant).tolist()])
    print("score:           ", [f"{value:.4f}" for value in why.scores.tolist()])
except HeadDoesNotFold as reason:
    raise SystemExit(f"{reason}") from None

# %%
# HiResCAM at the input of the head is the same map. At an earlier layer it is finer, and first order.
exact = HiResCAM(people, layer=why.recipe["layer"])(probes, people.names[0])
finer = HiResCAM(people)(probes, people.names[0])
print("HiResCAM at the head's input equals CAM:", torch.allclose(exact.cells, why.cells, atol=1e-4))
print("the default layer is finer and first order:", finer.recipe["layer"], tuple(finer.cells.shape[1:]), "cells")

# %%
# Three maps of each face, and what their cells add up to.
figure = plots.figure(11.0, 4.9)
grid = figure.subplots(2, 5, width_ratios=(1, 1, 1, 1, 0.75))
maps = {"CAM": why, "HiResCAM, same layer": exact, f"HiResCAM at {finer.recipe['layer']}": finer}
for i, (row, name) in enumerate(zip(grid, faces, strict=True)):
    plots.photo(row[0], probes[i])
    row[0].set_title(name, fontsize=9)
    for place, (title, found) in zip(row[1:4], maps.items(), strict=True):
        drawn = plots.overlay(place, probes[i], found.maps[i], **plots.colours(found.maps[i]))
        height, width = found.cells.shape[1:]
        place.set_title(f"{title}\n{height}x{width} cells", fontsize=9)
    sums = {"cells": why.cells[i].sum(), "constant": why.constant[i], "score": why.scores[i]}
    row[4].barh(list(sums), [float(value) for value in sums.values()], color=("#0072B2", "#0072B2", "#555555"))
    row[4].invert_yaxis()
    row[4].set_title(f"what adds up, in logits of\n{people.names[0]}", fontsize=9)
    row[4].spines[["top", "right"]].set_visible(False)
    row[4].tick_params(labelsize=8)
figure.suptitle("a network of random weights: the sums are exact, the maps mean nothing", fontsize=10)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
