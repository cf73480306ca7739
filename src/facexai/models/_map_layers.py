"""Finds the layers that give feature maps, and their layout, from the values of one or two forward passes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor, nn

from facexai.functional import at_least_float32
from facexai.hooks import Call
from facexai.models._given_layouts import Layouts, given_layout
from facexai.models._token_order import PART, Again, corner_changed, disordered
from facexai.models.layout import Grids, Layout, grid_of, layout_of, readings

_STILL = 8  # units of rounding by which a row may differ that does not follow the picture


@final
@dataclass(frozen=True)
class MapLayers:
    """Layers that run once for the whole batch.

    Attributes:
        image: (H, W) of the network's input.
        grids: (h, w) of the maps of convolutions, which are channels first beyond doubt.
        places: by number of rows of tokens: the grid of those that follow the picture, and the rows that do not.
        counts: all numbers of rows of tokens.
        certain: numbers of rows of tokens of which a layer shows that they are tokens.
        local: for shapes that could be tokens or a flattened map: ``"tokens"`` or ``"flat"``, whichever follows a
            change of one spot of the picture in few places; for tokens by their number of rows, too.
        jumbled: numbers of rows of tokens that some layer gives in another order than the picture's.
        readings: of the layers, in the order in which they run: how they give a map, or why not, where they might.
    """

    image: tuple[int, int]
    grids: frozenset[tuple[int, int]]
    places: dict[int, tuple[tuple[int, int], tuple[int, ...]]]
    counts: frozenset[int]
    certain: set[int] = field(default_factory=set)
    local: dict[tuple[int, ...], str] = field(default_factory=dict)
    jumbled: set[int] = field(default_factory=set)
    readings: dict[str, Layout | str] = field(default_factory=dict)

    def of(self, name: str, tensor: Tensor) -> Layout | None:
        """Returns the layout of a tensor with its images first, that the layer of that name gave; "" for no layer's."""
        layout = self.readings.get(name) or self.read(tuple(tensor.shape[1:]))
        odd = name not in self.readings and tensor.ndim == 3 and int(tensor.shape[1]) in self.jumbled
        return layout if isinstance(layout, Layout) and not odd else None

    def read(self, shape: tuple[int, ...]) -> Layout | str | None:
        """Returns the layout of a tensor of this shape, without its batch axis; or why it has none; or None: no map."""
        if len(shape) == 3:
            layout = layout_of(shape, self.image, self.grids)
            # tensors of attention, (heads, n, n) or (heads, n, head_dim), look like maps and are none
            odd = layout is not None and layout.grid not in self.grids and not self.counts.isdisjoint(shape)
            return None if odd else layout
        if len(shape) != 2 or 1 in shape:
            return None
        layouts = self.ways(shape)
        if not layouts:
            return f"its {shape} are not as many tokens as a grid with the image's proportions has cells"
        if len(layouts) > 1:
            return f"its {shape} can be read as {' or as '.join(str(layout) for layout in layouts)}"
        if layouts[0].extra and shape[0] not in self.places:
            return f"its {shape} may be {layouts[0]}, but no layer before tokens are mixed shows which rows are extra"
        return layouts[0]

    def note(self, shape: tuple[int, ...]) -> None:
        """Records the number of tokens where it is certain: tensors of another width can be read in one way only."""
        layouts = self.ways(shape)
        if len(layouts) == 1 and layouts[0].order == "tokens" and not layouts[0].extra:
            self.certain.add(shape[0])

    def ways(self, shape: tuple[int, ...]) -> list[Layout]:
        """Returns the layouts that a tensor of two axes can have, by its values."""
        layouts = readings(shape, self.image, self.grids)
        flat = [layout for layout in layouts if layout.order == "flat" and layout.grid in self.grids]
        if shape[0] in self.places:  # rows seen in values count for more than a width that happens to be a square
            grid, extra = self.places[shape[0]]
            layouts = [*flat, Layout(shape[1], grid, "tokens", extra)]
        elif flat:
            layouts = [layout for layout in layouts if not layout.extra]
        elif shape[0] in self.certain:
            layouts = [layout for layout in layouts if layout.order == "tokens"]
        order = self.local.get(shape, self.local.get(shape[:1]))
        return [layout for layout in layouts if layout.order == order] or layouts


def find_maps(calls: Sequence[Call], rows: int, images: Tensor, again: Again, given: Layouts) -> MapLayers:
    """Returns the layers that give maps.

    Args:
        calls: of one forward pass of two images, in the order in which they ended.
        rows: of the network's output.
        images: (2, 3, H, W), two different ones.
        again: gives the calls of the modules of some names in a pass of two other images.
        given: layouts that the user gives.

    Raises:
        ValueError: a given layout does more than to re-arrange values, or its layer does not run once.
    """
    image = (int(images.shape[2]), int(images.shape[3]))
    tensors = list(_batch_first(calls, rows, lambda names: again(images.flip(0), names)))
    grids = frozenset(_grids(calls))
    rows_of = [tensor for _, tensor, _ in tensors if tensor.ndim == 3]
    counts = frozenset(int(tensor.shape[1]) for tensor in rows_of)
    maps = MapLayers(image, grids, _places(rows_of, image, grids), counts)
    for tensor in rows_of:
        maps.note(tuple(tensor.shape[1:]))
    runs = Counter(call.name for call in calls)
    once = [(call, tensor, batch) for call, tensor, batch in tensors if runs[call.name] == 1]
    open_ways = {call.name: batch for call, y, batch in once if y.ndim == 3 and len(maps.ways(tuple(y.shape[1:]))) > 1}
    for call in again(corner_changed(images, (7, 7)), open_ways) if open_ways else ():
        if call.output is not None:
            maps.local.update(_local(call.output.movedim(open_ways[call.name], 0), maps.local))
    for call, tensor, batch in once:
        function = (given or {}).get(call.name)
        if function is not None and call.output is not None:
            maps.readings[call.name] = given_layout(call.name, function, call.output, batch, rows)
            continue
        layout = maps.read(tuple(tensor.shape[1:]))
        if layout is not None:
            maps.readings[call.name] = replace(layout, batch=batch) if isinstance(layout, Layout) else layout
    tokens = {n: x for n, x in maps.readings.items() if isinstance(x, Layout) and x.order == "tokens"}
    for name in disordered(tokens, images, again) if tokens else ():
        maps.readings[name] = "its tokens are in another order than the rows and columns of the picture"
        maps.jumbled.add(math.prod(tokens[name].grid) + len(tokens[name].extra))
    for name in given or {}:
        if name not in maps.readings:
            raise ValueError(
                f"layouts: layer {name!r} runs {runs[name]} times for a batch and gives no tensor of the images that "
                "could be a map; name a layer that runs once and returns one tensor"
            )
    return maps


def _grids(calls: Sequence[Call]) -> Iterator[tuple[int, int]]:
    """Yields (h, w) of the maps of convolutions, which are channels first beyond doubt."""
    for call in calls:
        if isinstance(call.module, nn.Conv2d) and call.output is not None and call.output.ndim == 4:
            yield int(call.output.shape[2]), int(call.output.shape[3])


def _local(pair: Tensor, before: Mapping[tuple[int, ...], str]) -> dict[tuple[int, ...], str]:
    """Says which axis of (2, n, c) has the cells: along it the first cell of the picture moves few; see MapLayers."""
    shape, moved = tuple(pair.shape[1:]), pair[0] != pair[1]
    rows, columns = float(moved.any(1).float().mean()), float(moved.any(0).float().mean())
    if shape in before or shape[:1] in before or max(rows, columns) <= 1 - PART:
        return {}
    if rows <= PART:
        return {shape[:1]: "tokens"}
    return {shape: "flat"} if columns <= PART else {}


def swapped(tensor: Tensor, batch: int = 0) -> Tensor:
    """Returns the tensor with the two images of each branch in the other order."""
    return tensor.unflatten(batch, (-1, 2)).flip(batch + 1).flatten(batch, batch + 1)  # type: ignore[no-untyped-call, no-any-return]


def _batch_first(
    calls: Sequence[Call], rows: int, again: Callable[[Collection[str]], Sequence[Call]]
) -> Iterator[tuple[Call, Tensor, int]]:
    """Yields calls that give a tensor with a row for each image: the tensor with its images first, and their axis.

    Where the images could be along another axis than the first, their values decide: two images in the other order give
    the same rows in the other order.
    """

    def axes(call: Call) -> list[int]:
        y = call.output
        if y is None or not y.is_floating_point() or y.ndim not in (3, 4):
            return []
        return [axis for axis, size in enumerate(y.shape) if size == rows]

    doubtful = frozenset(call.name for call in calls if axes(call) not in ([], [0]))
    others: dict[str, list[Tensor | None]] = {}
    for call in again(doubtful) if doubtful else ():
        others.setdefault(call.name, []).append(call.output)
    for call in calls:
        possible, y = axes(call), call.output
        if y is not None and call.name in others:
            other = next(iter(others[call.name]), None)
            others[call.name] = others[call.name][1:]
            possible = [axis for axis in possible if _same(swapped(y, axis), other)]
        if y is not None and possible:
            yield call, y.movedim(possible[0], 0), possible[0]


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    if other is None or other.shape != tensor.shape:
        return False
    near = 1e-3 * float(at_least_float32(tensor).abs().max())
    return torch.allclose(at_least_float32(tensor), at_least_float32(other), rtol=1e-2, atol=near)


def _places(
    tokens: Sequence[Tensor], image: tuple[int, int], grids: Grids
) -> dict[int, tuple[tuple[int, int], tuple[int, ...]]]:
    """Returns, by number of rows, the grid of those that follow the picture, and the rows that do not.

    Before tokens are mixed, those of the cells differ between two images, and class tokens and registers do not. The
    first layer counts in which as many rows as a grid has cells differ.
    """
    places: dict[int, tuple[tuple[int, int], tuple[int, ...]]] = {}
    for tensor in tokens:
        count = int(tensor.shape[1])
        if count in places:
            continue
        a, b = at_least_float32(tensor[0]), at_least_float32(tensor[1])
        moved = ((a - b).abs() > _STILL * torch.finfo(tensor.dtype).eps * (a.abs() + b.abs())).any(1)
        cells = int(moved.sum())
        grid = grid_of(cells, image, grids) or grid_of(cells, image, ()) if cells < count else None
        if grid is not None:
            places[count] = grid, tuple((~moved).nonzero().flatten().tolist())
    return places
