"""Was a network left as it was found?"""

from __future__ import annotations

import torch
from torch import nn


def snapshot(net: nn.Module, images: torch.Tensor):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "state": {k: v.clone() for k, v in net.state_dict().items()},
        "grads": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "requires": [p.requires_grad for p in net.parameters()],
        "modes": [m.training for m in net.modules()],
        "hooks": [tuple(len(getattr(m, h)) for h in hooks) for m in net.modules()],
        "strides": [p.stride() for p in net.parameters()],
        "rng": torch.get_rng_state(),
        "grad_mode": torch.is_grad_enabled(),
        "images": images.clone(),
        "images_grad": (images.requires_grad, images.grad),
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def mixed_modes(net):
    """A network as a user may have it: half in train mode, some weights frozen, gradients lying around."""
    net.layer4.train()
    net.stem.weight.requires_grad_(False)
    net.fc.weight.grad = torch.ones_like(net.fc.weight)
    net.register_forward_hook(lambda *_: None)
    return net
