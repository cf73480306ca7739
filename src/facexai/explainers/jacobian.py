"""The gradient of every number of an embedding by the pixels, a group of numbers per backward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facexai.functional import at_least_float32
from facexai.hooks import grad_scope, no_graph
from facexai.models import FaceModel

Differentiate = Literal["unit", "raw"]

UNREACHED = "no gradient reaches the image: the network detaches (no_grad, numpy, quantised weights) on the way"
INSTEAD = "CorrRISE(model) asks without gradients"
_TRIED = (4, 8, 16)
_BUDGET = {"cpu": 2**30, "cuda": 2**33}  # bytes for the graph of all copies
_best: WeakKeyDictionary[nn.Module, dict[str, int]] = WeakKeyDictionary()


def jacobian_rows(
    model: FaceModel,
    image: Tensor,
    index: int,
    numbers: Sequence[int],
    *,
    differentiate: Differentiate,
    chunk: int,
    reduce: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Yields gradients of dimensions of one image's embedding, each reduced as soon as it is computed.

    One forward pass of ``chunk`` copies of the image; its graph serves every group of numbers, each copy giving the
    gradient of one number per backward pass. Parameters are not differentiated.

    Args:
        model: the network.
        image: (3, H, W).
        index: which row of ``forward_kwargs`` it takes.
        numbers: K positions in the embedding.
        differentiate: the embedding scaled to length 1, or as the network gives it.
        chunk: copies.
        reduce: from gradients (k, 3, H, W) to what is kept of them, (k, ...).

    Returns:
        (K, ...) reduced gradients, and the network's outputs (B, D) for the image.

    Raises:
        ValueError: no gradient reaches the image.
    """
    size = min(chunk, len(numbers))
    found = []
    with grad_scope(model.net):
        copies = at_least_float32(image.detach()).expand(size, -1, -1, -1).clone().requires_grad_()
        outputs = model.outputs(copies, torch.full((size,), index))
        features = model.features(outputs)
        embedding = F.normalize(features) if differentiate == "unit" else features
        if not embedding.requires_grad:
            raise ValueError(f"{UNREACHED}; {INSTEAD}")
        for start in range(0, len(numbers), size):
            group = torch.tensor(numbers[start : start + size], device=embedding.device)
            asked = embedding[: len(group)].gather(1, group[:, None]).sum()
            gradients = gradient(asked, copies, keep=start + size < len(numbers))
            found.append(reduce(gradients[: len(group)]))
    return torch.cat(found), outputs.detach()[::size]


def gradient(of: Tensor, by: Tensor, *, keep: bool, instead: str = INSTEAD) -> Tensor:
    """Returns the gradient of a dimension with respect to the pixels, or raises an error that says what to do if
    none reaches them.
    """
    if not of.requires_grad:
        raise ValueError(f"{UNREACHED}; {instead}")
    try:
        result = torch.autograd.grad(of, by, retain_graph=keep, allow_unused=True)[0]
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise ValueError(
            "no gradient reaches the image through torch.utils.checkpoint with use_reentrant=True; set "
            f"use_reentrant=False in the network; {instead}"
        ) from None
    if result is None:
        raise ValueError(f"{UNREACHED}; {instead}")
    return result


def chunk_size(model: FaceModel, chunk: int | Literal["auto"]) -> int:
    """Returns copies per backward pass: as given, or the fastest of 4, 8 and 16 whose graph fits
    into 1 GiB (8 on a GPU).

    Timed once per network and device. The choice changes the last bits of the result, as every batch size does.
    """
    if chunk != "auto":
        return chunk
    known = _best.setdefault(model.core, {})
    device = str(model.device)
    if device not in known:
        known.setdefault(device, _fastest(model))  # another thread may have timed it first: one choice for all
    return known[device]


def _fastest(model: FaceModel) -> int:
    budget = _BUDGET.get(model.device.type, _BUDGET["cpu"])
    seconds: dict[int, float] = {}
    with no_graph():
        image = model.noise(1)[0]
    largest = _graph_bytes(model, image)
    for size in _TRIED:
        if seconds and size * largest > budget:
            break
        numbers = [0] * (2 * size)  # one forward pass, two backward passes
        taken = []
        for _ in range(2):
            start = time.perf_counter()
            _, outputs = jacobian_rows(
                model, image, 0, numbers, differentiate="raw", chunk=size, reduce=lambda g: g.abs().sum(1)
            )
            float(outputs.sum())  # waits for the device
            taken.append(time.perf_counter() - start)
        seconds[size] = min(taken) / size
    return min(seconds, key=lambda size: seconds[size])


def _graph_bytes(model: FaceModel, image: Tensor) -> int:
    """Returns bytes that autograd keeps for one image."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    with grad_scope(model.net), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.outputs(image[None].clone().requires_grad_(), torch.zeros(1, dtype=torch.long))
    weights = sum(p.numel() * p.element_size() for p in model.net.parameters())
    return max(1, kept - weights)
