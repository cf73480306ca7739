"""Networks with something planted, for the tests of acceleration, and how far two models' outputs are apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from nets import shaken
from torch import Tensor, nn

from facexai import InputSpec

SPEC = InputSpec(16)


def apart(fast, model, images):
    """The largest distance of an output row, in lengths of the original's."""
    rows, expected = fast.outputs(images).detach().double(), model.outputs(images).detach().double()
    return float(((rows - expected).norm(dim=1) / expected.norm(dim=1)).max())


class Net(nn.Module):
    """A convolution and its norm with a forward of one's own."""

    def __init__(self, forward=None, **parts):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 6)
        self.own = forward
        for name, part in parts.items():
            setattr(self, name, part)
        shaken(self)

    def forward(self, x: Tensor) -> Tensor:
        if self.own is not None:
            return self.own(self, x)
        return self.end(self.norm(self.conv(x)))

    def end(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(x).mean((2, 3)))


class Scale(nn.Module):
    """A frozen batch norm of one's own, with an end that may not be affine."""

    def __init__(self, end=lambda x: x):
        super().__init__()
        self.end = end
        self.register_buffer("factor", torch.rand(4) - 0.5)
        self.register_buffer("shift", torch.randn(4))

    def forward(self, x):
        return self.end(x * self.factor[:, None, None] + self.shift[:, None, None])
