"""A small network, random faces, and every pair method once."""

from __future__ import annotations

import torch
from torch import nn

from facexai import FGGB, XSSAB, CorrRISE, PairCAM


class Small(nn.Module):
    def __init__(self, dim=12, size=20):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 6, 3, 2), nn.Softplus()
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(6 * ((size - 1) // 2) ** 2, dim)

    def forward(self, x):
        return self.fc(torch.flatten(self.norm(self.act(self.conv(x))), 1))


def faces(model, count=3, seed=0):
    size = model.spec.height_width
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=model.dtype)


METHODS = {
    "FGGB": lambda m: FGGB(m, 0.2),
    "XSSAB": lambda m: XSSAB(m, 0.2),
    "CorrRISE": lambda m: CorrRISE(m, count=20),
    "PairCAM": PairCAM,
    "PairCAM-fine": lambda m: PairCAM(m, layer="conv", table=False),
}
