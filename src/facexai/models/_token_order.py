"""Checks by values whether tokens are in the order of the picture's rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from facexai.functional import at_least_float32
from facexai.hooks import Call
from facexai.models.layout import Layout

Again = Callable[[Tensor, Collection[str]], Sequence[Call]]
PART = 0.25  # of the cells: a change of one that moves no more has not been mixed into the rest
_FIRST = 32  # layers of tokens that are looked at: networks re-order them before the first block or in it
_ALIKE = 0.5  # correlation of where rows look and where they should


def corner_changed(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Returns the first image twice, the second time with another first cell."""
    pair = images[:1].repeat(2, 1, 1, 1)
    corner = pair[1, :, : images.shape[2] // grid[0], : images.shape[3] // grid[1]]
    corner.copy_(1 - corner)
    return pair


def disordered(tokens: Mapping[str, Layout], images: Tensor, again: Again) -> frozenset[str]:
    """Returns the layers whose tokens are in another order than the picture's, such as window by window.

    The first image is blended with the second, evenly, more and more downwards, and more and more to the right: how
    much a row of tokens moves then, compared with the even blend, says where it looks. Layers whose tokens have been
    mixed are taken to have the order of those before them.

    Args:
        tokens: layers of tokens by name, in the order in which they run.
        images: (2, 3, H, W).
        again: gives the calls of the modules of some names in a pass of two images.
    """
    first = list(tokens)[:_FIRST]
    a, b = images[:1], images[1:2]
    down, right = (torch.linspace(0, 1, size).to(images) for size in images.shape[2:])
    shares = (torch.zeros(()).to(images), torch.ones(()).to(images), down[:, None].expand(images.shape[2:]), right)
    blends = [torch.lerp(a, b, 0.5 * share) for share in shares]
    pairs = (torch.cat(blends[:2]), torch.cat(blends[2:]), corner_changed(images, (7, 7)))
    seen = [{call.name: call.output for call in again(pair, first)} for pair in pairs]
    wrong, names = False, set()
    for name, layout in tokens.items():
        outputs = [outputs.get(name) for outputs in seen]
        if all(isinstance(y, Tensor) for y in outputs):
            even, ramps, corner = (
                layout.map(at_least_float32(y.movedim(layout.batch, 0))) for y in outputs if y is not None
            )
            if float((corner[0] != corner[1]).any(0).float().mean()) <= PART:
                wrong = not _in_order(even[0], even[1], ramps[:2])
        if wrong:
            names.add(name)
    return frozenset(names)


def _in_order(base: Tensor, even: Tensor, ramps: Tensor) -> bool:
    """Returns whether the cells of a map (C, h, w) look at where they are, from the map of an even
    blend and of two ramps.
    """
    way = even - base
    weight = way.square().sum(0).flatten()  # where a cell hardly moves, rounding and chance would decide
    if not bool(weight.any()):
        return True
    looks = ((ramps - base) * way).sum(1).flatten(1) / weight.clamp(min=1e-12)  # (2, h*w): down, to the right
    h, w = base.shape[1:]
    places = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")).to(looks).flatten(1)
    spread = torch.cov(torch.cat([looks, places]), aweights=weight)
    lengths = spread.diag().sqrt()
    return bool((spread[[0, 1], [2, 3]] >= _ALIKE * lengths[:2] * lengths[2:]).all())
