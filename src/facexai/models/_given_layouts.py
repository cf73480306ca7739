"""Layouts that a user gives as functions, such as the ``reshape_transform`` of other libraries, checked by values."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from facexai._errors import suggest
from facexai.models.layout import Layout

Layouts = Mapping[str, Callable[[Tensor], Tensor]] | None


def check_layouts(layouts: Layouts, names: Collection[str]) -> None:
    """Refuses what is no {layer: function}, and layers that the network does not have."""
    if layouts is None:
        return
    if not isinstance(layouts, Mapping) or not all(callable(function) for function in layouts.values()):
        raise TypeError(
            f"expected layouts as {{layer: function}}, got {layouts!r}; a function takes the layer's tensor and "
            "returns its map (N, C, h, w)"
        )
    for name in layouts:
        if name not in names or not name:
            raise ValueError(f"layouts: the network has no layer {name!r}; {suggest(name, names)}")


def given_layout(name: str, function: Callable[[Tensor], Tensor], tensor: Tensor, batch: int, rows: int) -> Layout:
    """Returns the layout that a function describes.

    The function is called with two random orders of distinct numbers in the shape of the layer's tensor: what it
    returns has to be numbers out of these, each at most once, from the same places both times, and of one image in
    each row.

    Args:
        name: of the layer, for errors.
        function: takes a tensor in the shape of the layer's, returns (N, C, h, w).
        tensor: of the layer, for a batch.
        batch: its axis of images.
        rows: images in the batch.

    Raises:
        ValueError: the function fails, or does more than to select and re-arrange values.

    >>> layout = given_layout("norm", lambda x: x[:, 1:].mT.unflatten(2, (2, 3)), torch.zeros(2, 7, 5), 0, 2)
    >>> layout.shape, bool((layout.map(torch.arange(7.0).view(1, 7, 1).expand(1, 7, 5))[0, 0, 1, 2] == 6).all())
    ((5, 2, 3), True)
    """
    shape = tuple(tensor.shape)
    first, second = (_positions(name, function, shape, rows, seed, tensor.device) for seed in (0, 1))
    if not torch.equal(first, second):
        raise _refusal(name, "takes other values when the numbers change", shape, rows)
    if len(set(first.flatten().tolist())) != first.numel():
        raise _refusal(name, "takes a value more than once", shape, rows)
    axes = list(torch.unravel_index(first, shape))
    if bool((axes[batch] != torch.arange(rows).view(-1, 1, 1, 1)).any()):
        raise _refusal(name, f"mixes images, which are along axis {batch}", shape, rows)
    places = torch.zeros_like(first)
    for axis, where in enumerate(axes):
        if axis != batch:
            places = places * shape[axis] + where
    if not torch.equal(places, places[:1].expand_as(places)):
        raise _refusal(name, "treats the images of a batch differently", shape, rows)
    c, h, w = first.shape[1:]
    return Layout(c, (h, w), "given", batch=batch, places=places[0].flatten())


def _positions(
    name: str,
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    rows: int,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Returns the places (N, C, h, w), in the flattened tensor, of what the function returns."""
    count = math.prod(shape)
    random = torch.Generator().manual_seed(seed)
    # distinct numbers of either sign, with digits that arithmetic would change
    values = torch.randperm(count, generator=random) - count / 2 + 0.5 * torch.rand(count, generator=random)
    try:
        result = function(values.view(shape).to(device))
    except Exception as error:
        raise _refusal(name, f"raises {type(error).__name__}: {error}", shape, rows) from error
    if not isinstance(result, Tensor) or result.ndim != 4 or len(result) != rows or result[0, 0].numel() < 2:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise _refusal(name, f"returns {got}", shape, rows)
    ordered, order = values.sort()
    places = torch.searchsorted(ordered, result.to(ordered).contiguous()).clamp(max=count - 1)
    if not torch.equal(ordered[places], result.to(ordered)):
        raise _refusal(name, "computes: what it returns are not the layer's values", shape, rows)
    return order[places]


def _refusal(name: str, why: str, shape: tuple[int, ...], rows: int) -> ValueError:
    return ValueError(
        f"layouts[{name!r}] {why}; expected a function that only selects and re-arranges the values of the layer's "
        f"tensor, here {shape}, into a map ({rows}, C, h, w) of more than one cell"
    )
