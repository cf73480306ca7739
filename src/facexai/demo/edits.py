"""Drawn faces that lose their glasses: what would have to change for a classifier to see none?"""

from __future__ import annotations

import torch

from facexai import decisions
from facexai.demo import synthetic, synthetic_networks
from facexai.explainers import FastDiME


def question(count: int) -> tuple[torch.Tensor, FastDiME]:
    """Returns drawn faces with glasses, and the explainer that removes these, with the packaged networks.

    Args:
        count: how many faces.

    Returns:
        (N, 3, 32, 32) RGB in [0, 1], and a :class:`facexai.FastDiME` that changes only where glasses can be.

    Needs the extra ``diffusion``.
    """
    bare = torch.zeros(count, dtype=torch.bool)
    faces = synthetic.faces(count, seed=3, attributes={"glasses": ~bare, "mask": bare})
    decision = decisions.binary(synthetic_networks.classifier("glasses"))
    return faces.images, FastDiME(decision, synthetic_networks.denoiser(), region=faces.regions["glasses"])
