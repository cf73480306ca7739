"""Small packaged networks of drawn faces: classifiers, with and without a shortcut, and a denoiser."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from facexai._errors import suggest
from facexai.models import load_weights

if TYPE_CHECKING:
    from facexai.denoisers.diffusers import DiffusersDenoiser

WEIGHTS = Path(__file__).with_name("drawn_weights")
NAMES = ("glasses", "smile", "smile_50", "smile_75", "smile_90", "smile_100")
"""What :func:`classifier` knows: two that learned well, from 2,000 faces, and four from 1,000. In the faces that
``"smile_100"`` learned from, all who smile wear glasses, and nobody else; in those of ``"smile_75"`` 75 % of them do,
and 25 % of the others; ``"smile_50"`` saw no connection."""


class DrawnClassifier(nn.Module):
    """Four convolutions and a linear layer with one logit, for 32-pixel faces.

    >>> import torch
    >>> DrawnClassifier()(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 1])
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 24, 32, 40)
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, after) for after in widths[1:])
        self.linear = nn.Linear(widths[-1] * 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Returns one logit for each image (N, 3, 32, 32) in [0, 1], as (N, 1)."""
        x = images * 2 - 1
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.silu(norm(convolution(x)))  # smooth, since counterfactuals follow the gradient
            x = F.avg_pool2d(x, 2) if number < 3 else x
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def classifier(name: str) -> DrawnClassifier:
    """Returns a trained classifier of drawn faces, in eval mode; positive logits mean yes.

    Args:
        name: of :data:`NAMES`. ``examples/studies/shortcut_study.py`` trained them, with seed 0.

    Raises:
        ValueError: an unknown name.

    >>> import torch
    >>> from facexai.demo import synthetic
    >>> faces = synthetic.faces(2, attributes={"glasses": torch.tensor([True, False])})
    >>> classifier("glasses")(faces.images)[:, 0] > 0
    tensor([ True, False])
    """
    if name not in NAMES:
        raise ValueError(f"expected one of {list(NAMES)}, got {name!r}; {suggest(str(name), NAMES)}")
    net = DrawnClassifier().eval().requires_grad_(False)
    load_weights(net, WEIGHTS / f"{name}.safetensors")
    return net


def denoiser() -> DiffusersDenoiser:
    """Returns the diffusion model of ``examples/studies/train_denoiser.py``; needs the extra ``diffusion``."""
    from facexai import denoisers

    return denoisers.from_diffusers(WEIGHTS / "denoiser")
