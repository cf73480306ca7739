"""Your own network, unchanged: which layer shows what, and is the explanation complete?

The network here has the structure of most face networks and random weights, so its maps mean nothing: put yours in
its place. Nothing is subclassed, patched or re-trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facexai import CAM, FaceModel, HeadDoesNotFold, HiResCAM


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


torch.manual_seed(0)
model = FaceModel(YourNetwork(), "arcface", take=0)  # the first of the two outputs
people = model.gallery({name: torch.rand(3, 3, 112, 112) for name in ("ann", "bo", "cleo")})
faces = torch.rand(2, 3, 112, 112)

print("layers with a map:", model.layers)
try:
    why = CAM(people)(faces, targets="bo")
    print(
        "CAM at", why.recipe["layer"], "- sum of cells:", why.cells.sum((1, 2)).tolist(), "logits:", why.scores.tolist()
    )
except HeadDoesNotFold as reason:
    print(reason)

exact = HiResCAM(people, layer=why.recipe["layer"])(faces, "bo")
finer = HiResCAM(people)(faces, "bo")
print("HiResCAM at the head's input equals CAM:", torch.allclose(exact.cells, why.cells, atol=1e-4))
print("the default layer is finer and first order:", finer.recipe["layer"], tuple(finer.cells.shape[1:]), "cells")
