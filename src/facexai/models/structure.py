"""What a network looks like from outside: its layers with maps, and its head, from one forward pass of noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from facexai.hooks import Call, alone, capture, quiet_grad, recording, replacing, trace
from facexai.models.blackbox import BlackBox
from facexai.models.heads import Head, HeadDoesNotFold, find_head
from facexai.models.layout import Layout, layout_of
from facexai.models.memory import peak_bytes

_CELLS = (14, 7)
_SCRATCH = 8  # tensors of the largest size that convolutions need besides, as measured on a CPU


@final
@dataclass(frozen=True, eq=False)
class Structure:
    """What one forward pass shows.

    Attributes:
        head: the affine head, or why it does not fold.
        layers: those that run once and give a map, by name, in the order in which they run.
        decides: whether nothing gets past a layer: with another image's map in it the other image's output comes out.
        memory: bytes that one image needs on its way through the network, roughly.
    """

    head: Head | HeadDoesNotFold
    layers: dict[str, Layout]
    decides: Callable[[str], bool]
    memory: int

    @cached_property
    def default(self) -> str:
        """The layer that ``"auto"`` takes: the deepest before the head that alone decides, of 14x14 cells, else 7x7.

        A layer decides alone if nothing gets past it: with another image's map in it the network gives the other
        image's output. That leaves out the inside of residual and parallel branches; where no layer decides alone,
        every layer counts.

        Raises:
            ValueError: there is none of 7x7.

        Source: ours. The number of cells is a compromise that was measured, ``benchmarks/layers.py``: under black fill
        deeper maps find much less in deletion, and finer ones mark speckle that harms any image; under blur no
        resolution wins everywhere.
        """
        skip = frozenset() if isinstance(self.head, HeadDoesNotFold) else self.head.names
        large = {
            cells: [n for n, layout in self.layers.items() if max(layout.grid) >= cells and n not in skip]
            for cells in _CELLS
        }
        for names in large.values():
            for name in reversed(names):
                if self.decides(name):
                    return name
        for names in large.values():
            if names:
                return names[-1]
        raise ValueError(
            f"no layer gives a map of at least {_CELLS[-1]}x{_CELLS[-1]} cells; name one of {list(self.layers)}"
        )


def same_objects(a: Sequence[object], b: Sequence[object]) -> bool:
    """Whether two sequences hold the very same objects."""
    return len(a) == len(b) and all(one is other for one, other in zip(a, b, strict=True))


def look(
    net: nn.Module, core: nn.Module, tried: Callable[[], Callable[[Tensor], Tensor] | None], images: Tensor
) -> Structure:
    """Watch every module during one forward pass.

    Args:
        net: the user's network, whose names count.
        core: the network inside a wrapper such as DataParallel.
        tried: a weak reference to what gives the network's output for images: its owner keeps the structure.
        images: (2, 3, H, W).

    Raises:
        ValueError: a ScriptModule or a function, whose modules cannot be watched.
    """
    if isinstance(core, torch.jit.ScriptModule):
        raise ValueError(
            "a ScriptModule can be asked, not looked into: it has no layers to explain; wrap the eager module it came "
            "from, or use methods that only change pixels"
        )
    if isinstance(core, BlackBox):
        raise ValueError(core.refusal)
    modules = {name: module for name, module in net.named_modules() if name and module is not core}
    images = images * _uneven(images)

    def run(images: Tensor) -> Tensor:
        function = tried()
        assert function is not None
        return function(images)

    with alone(net), quiet_grad():
        calls, outputs = trace(lambda: run(images), modules)
        peak, largest = peak_bytes(lambda: run(images))
    image = (int(images.shape[2]), int(images.shape[3]))
    grids = frozenset(_grids(calls))
    layers = _placed(net, run, images, _maps(calls, len(outputs), image, grids))
    unread = _unread(net, run, images, {name: layout for name, layout in layers.items() if any(layout.extra)})
    layers = {name: layout for name, layout in layers.items() if name not in unread}

    def decides(layer: str) -> bool:
        return _decides(net, run, images, layer)

    memory = (peak + _SCRATCH * largest) // len(images)
    try:
        return Structure(find_head(calls, outputs, image, grids), layers, decides, memory)
    except HeadDoesNotFold as refusal:
        return Structure(refusal.with_traceback(None), layers, decides, memory)


def _uneven(images: Tensor) -> Tensor:
    """A factor (1, 1, H, W) that makes one corner bright: a weighted average of even noise would pass for its mean."""
    rows, columns = (torch.linspace(1, 0.2, size).to(images) for size in images.shape[2:])
    return (rows[:, None] * columns)[None, None]


def _grids(calls: Sequence[Call]) -> Iterator[tuple[int, int]]:
    """(h, w) of the maps of convolutions, which are channels first beyond doubt."""
    for call in calls:
        if isinstance(call.module, nn.Conv2d) and call.output is not None and call.output.ndim == 4:
            yield int(call.output.shape[2]), int(call.output.shape[3])


def _maps(
    calls: Sequence[Call], rows: int, image: tuple[int, int], grids: Collection[tuple[int, int]]
) -> dict[str, Layout]:
    """Layers that run once for all rows of the batch and give a map, in the order in which they run."""
    runs, layers = Counter(call.name for call in calls), {}
    tokens: set[int] = set()
    for call in calls:
        y = call.output
        if y is None or not y.is_floating_point() or y.ndim not in (3, 4) or len(y) != rows:
            continue
        tokens |= {int(y.shape[1])} if y.ndim == 3 else set()
        layout = layout_of(tuple(y.shape[1:]), image, grids)
        if layout is not None and runs[call.name] == 1:
            layers[call.name] = layout
    # attention of tokens to tokens, (heads, n, n), looks like a map and is none
    return {name: layout for name, layout in layers.items() if layout.grid in grids or not set(layout.grid) <= tokens}


def _placed(
    net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layers: dict[str, Layout]
) -> dict[str, Layout]:
    """Layers with an extra token, once it is known whether it stands before the cells or behind; else without them.

    The first cell of the image is changed: where tokens have not been mixed yet, the first token of the cells changes.
    """
    doubtful = {name: layout for name, layout in layers.items() if any(layout.extra)}
    extra = None
    if doubtful:
        grid = next(iter(doubtful.values())).grid
        pair = images[:1].repeat(2, 1, 1, 1)
        corner = pair[1, :, : images.shape[2] // grid[0], : images.shape[3] // grid[1]]
        corner.copy_(1 - corner)
        with quiet_grad(), ExitStack() as stack:
            seen = [stack.enter_context(capture(net, name)) for name in doubtful]
            run(pair)
        for one in seen:
            changed = (one.last[0] != one.last[1]).any(1)
            if bool(changed[0] != changed[-1]) or bool(changed[1] and not changed[0]):
                extra = (0, 1) if bool(changed[0]) else (1, 0)
                break
    kept = {name: replace(layout, extra=extra) for name, layout in doubtful.items()} if extra else {}
    return {name: kept.get(name, layout) for name, layout in layers.items() if name not in doubtful or name in kept}


def _unread(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layers: dict[str, Layout]) -> set[str]:
    """Those of the layers with an extra token of which only that token is read: their cells decide nothing."""
    if not layers:
        return set()
    with ExitStack() as stack:
        stack.enter_context(recording(net))
        seen = {name: stack.enter_context(capture(net, name, graph="keep")) for name in layers}
        outputs = run(images.clone().requires_grad_())
        known = {name: one.last for name, one in seen.items() if one.last.requires_grad}
        if not outputs.requires_grad or not known:  # a frozen part of the network: nothing can be told
            return set()
        gradients = torch.autograd.grad(outputs.square().sum(), list(known.values()), allow_unused=True)
    found = zip(known, gradients, strict=True)
    return {name for name, g in found if g is None or not bool(layers[name].map(g).any())}


def _decides(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layer: str) -> bool:
    """Whether two images swap their outputs when they swap this layer's maps."""

    def swapped(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # type: ignore[no-untyped-call, no-any-return]

    with quiet_grad():
        expected = swapped(run(images))
        with replacing(net, layer, swapped):
            found = run(images)
    apart = (found - expected).norm(dim=1) / (expected - swapped(expected)).norm(dim=1).clamp(min=1e-12)
    return bool(apart.max() < 1e-2)
