"""The structure of a network as found by a few forward passes of noise: its layers with maps, and its head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from facexai._errors import suggest, warn
from facexai.hooks import Call, capture, exclusive, grad_scope, no_graph, replacing, trace
from facexai.models._given_layouts import Layouts
from facexai.models._map_layers import find_maps, swapped
from facexai.models._token_order import PART, corner_changed
from facexai.models.blackbox import BlackBox
from facexai.models.heads import Head, HeadDoesNotFold, find_head
from facexai.models.layout import Layout
from facexai.models.memory import peak_bytes

_CELLS = (14, 7)
_TOKENS = ("tokens", "given")
_SCRATCH = 8  # tensors of the largest size that convolutions need besides, as measured on a CPU
GIVE = "FaceModel(..., layouts={layer: function})"


@final
@dataclass(frozen=True, eq=False)
class Structure:
    """The layers and the head of a network, as found by a few forward passes.

    Attributes:
        head: the affine head, or why it does not fold.
        readings: of layers that run once, in the order in which they run: how they give a map, or why not, where their
            tensor might be one.
        idle: those of them whose map decides nothing, since only a class token is read.
        decides: whether a layer decides alone: with another image's map in it the network outputs the
            other image's output.
        reach: what share of the cells of each of these layers a change of one cell of the picture moves; the first of
            them has the cells.
        memory: bytes that one image needs on its way through the network, roughly.
    """

    head: Head | HeadDoesNotFold
    readings: dict[str, Layout | str]
    idle: frozenset[str]
    decides: Callable[[str], bool]
    reach: Callable[[Sequence[str]], dict[str, float]]
    memory: int

    @cached_property
    def layers(self) -> dict[str, Layout]:
        """Returns the layers that give a map, by name."""
        return {name: layout for name, layout in self.readings.items() if isinstance(layout, Layout)}

    @cached_property
    def default(self) -> str:
        """Returns the layer that ``"auto"`` takes: the deepest before the head that alone decides, of
        14x14 cells, else 7x7.

        A layer decides alone if, with another image's map in it, the network outputs the other
        image's output. That leaves out the inside of residual and parallel branches; where no layer decides alone,
        every layer counts. A layer before tokens are mixed, such as a patch embedding, gives way to those behind it.

        Raises:
            ValueError: there is none of 7x7.

        Source: ours. The number of cells is a compromise that was measured, ``benchmarks/layers.py``: under black fill
        deeper maps find much less in deletion, and finer ones mark speckle that harms any image; under blur no
        resolution wins everywhere.
        """
        name = self._deepest(self.layers)
        if name is None:
            unread = [f"; {name!r} is none: {why}" for name, why in self.readings.items() if isinstance(why, str)]
            raise ValueError(
                f"no layer gives a map of at least {_CELLS[-1]}x{_CELLS[-1]} cells; name one of {list(self.layers)}"
                + "".join(unread[-1:])
            )
        tokens = [n for n in self._mixed(name) or () if self.layers[n].order in _TOKENS]
        return self._deepest(tokens, deciding_only=True) or name

    def _deepest(self, names: Collection[str], *, deciding_only: bool = False) -> str | None:
        """Returns the deepest layer by the rule of :attr:`default`, or None; ``deciding_only``: one that decides."""
        skip = frozenset() if isinstance(self.head, HeadDoesNotFold) else self.head.names
        large = [[n for n in names if max(self.layers[n].grid) >= cells and n not in skip] for cells in _CELLS]
        deciding = (name for some in large for name in reversed(some) if self.decides(name))
        rest = (some[-1] for some in large if some and not deciding_only)
        return next(deciding, None) or next(rest, None)

    def _mixed(self, name: str) -> list[str] | None:
        """Returns the maps behind a layer whose locations have a receptive field of most of the picture.

        None where the layer's own cells have seen more than a part of it, or where everything behind it is the map of a
        convolution: those mix their cells step by step, so that no layer is before all mixing.
        """
        names = list(self.readings)
        later = [n for n in names[names.index(name) + 1 :] if n not in self.idle]
        maps = [n for n in later if n in self.layers]
        if len(maps) == len(later) and all(self.layers[n].order not in _TOKENS for n in maps):
            return None
        reach = self.reach([name, *maps])
        return None if reach[name] > PART else [n for n in maps if reach[n] > 1 - PART]

    @cached_property
    def missing(self) -> str | None:
        """Returns why :attr:`default` is a layer before the network mixes its cells, such as a patch
        embedding; else None.
        """
        mixed, names = self._mixed(self.default), list(self.readings)
        if mixed is None or self._deepest(mixed, deciding_only=True) is not None:
            return None
        for name in names[names.index(self.default) + 1 :]:
            if name not in self.layers and name not in self.idle:
                return f"{name!r} could not be read as a map: {self.readings[name]}"
        tokens = [name for name in mixed if self.layers[name].order in _TOKENS]
        if not tokens:
            return None
        h, w = self.layers[tokens[-1]].grid
        why = "is not all that the output depends on" if max(h, w) >= _CELLS[-1] else f"has {h}x{w} cells only"
        return f"the map of {tokens[-1]!r} {why}"

    def auto(self) -> str:
        """Returns :attr:`default`, with a warning where something is :attr:`missing`."""
        if self.missing is not None:
            warn(
                f"layer='auto' took {self.default!r}, where no cell has seen more than a part of the picture: the "
                f"network mixes them later, but {self.missing}; name a layer, or describe its tensor with {GIVE}"
            )
        return self.default

    def layout(self, name: str) -> Layout:
        """Returns the layout of a layer's map.

        Raises:
            ValueError: the layer gives no map of the images, with the reason.
        """
        if name not in self.layers:
            raise ValueError(f"layer {name!r} gives no map of the images{self.why_not(name)}")
        return self.layers[name]

    def why_not(self, name: str) -> str:
        """Returns the end of a refusal of a layer: why it is no map, and which are."""
        way = "" if name in self.idle else f"; {GIVE} describes it"
        why = f" ({self.readings[name]}{way})" if name in self.readings else ""
        return f"{why}; layers with maps end in {list(self.layers)[-3:]}"


def layer_named(net: nn.Module, name: str, layers: Collection[str]) -> str:
    """Returns the name, if the network has a layer of that name; ``layers`` are those to propose where it has not.

    Raises:
        TypeError, ValueError: no name, or no such layer.
    """
    if not isinstance(name, str):
        raise TypeError(f"expected the name of a layer, got {type(name).__name__}; names are in model.layers")
    modules = dict(net.named_modules())
    if name not in modules or not name:
        raise ValueError(f"the network has no layer {name!r}; {suggest(name, layers or modules)}")
    return name


def same_objects(a: Sequence[object], b: Sequence[object]) -> bool:
    """Returns whether two sequences hold the very same objects."""
    return len(a) == len(b) and all(one is other for one, other in zip(a, b, strict=True))


def look(
    net: nn.Module,
    core: nn.Module,
    tried: Callable[[], Callable[[Tensor], Tensor] | None],
    images: Tensor,
    given: Layouts = None,
) -> Structure:
    """Traces every module during one forward pass.

    Args:
        net: the user's network, whose names count.
        core: the network inside a wrapper such as DataParallel.
        tried: a weak reference to what gives the network's output for images: its owner keeps the structure.
        images: (2, 3, H, W).
        given: layouts that the user gives.

    Raises:
        ValueError: a ScriptModule or a function, whose modules take no hooks; a given layout that is invalid.
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

    def again(images: Tensor, names: Collection[str]) -> list[Call]:
        return trace(lambda: run(images), {name: modules[name] for name in names})[0]

    with exclusive(net), no_graph():
        calls, outputs = trace(lambda: run(images), modules)
        maps = find_maps(calls, len(outputs), images, again, given)
        peak, largest = peak_bytes(lambda: run(images))
    layouts = {name: layout for name, layout in maps.readings.items() if isinstance(layout, Layout)}
    idle = _idle(net, run, images, {name: layout for name, layout in layouts.items() if layout.extra})
    readings = maps.readings | dict.fromkeys(idle, "its cells do not reach the output")

    def decides(layer: str) -> bool:
        return _decides(net, run, images, layer, layouts[layer])

    def reach(names: Sequence[str]) -> dict[str, float]:
        return _reach(net, run, images, {name: layouts[name] for name in names})

    try:
        head: Head | HeadDoesNotFold = find_head(calls, outputs, maps.of)
    except HeadDoesNotFold as refusal:
        head = refusal.with_traceback(None)
    return Structure(head, readings, idle, decides, reach, (peak + _SCRATCH * largest) // len(images))


def _uneven(images: Tensor) -> Tensor:
    """Returns a factor (1, 1, H, W) that makes one corner bright: a weighted average of even noise would
    pass for its mean.
    """
    rows, columns = (torch.linspace(1, 0.2, size).to(images) for size in images.shape[2:])
    return (rows[:, None] * columns)[None, None]


def _idle(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layers: dict[str, Layout]) -> frozenset[str]:
    """Returns the layers with extra tokens whose extra tokens alone are read: their other locations decide nothing."""
    if not layers:
        return frozenset()
    with ExitStack() as stack:
        stack.enter_context(grad_scope(net))
        seen = {n: stack.enter_context(capture(net, n, graph="keep", batch=x.batch)) for n, x in layers.items()}
        outputs = run(images.clone().requires_grad_())
        tensors = {name: record.last for name, record in seen.items() if record.last.requires_grad}
        if not outputs.requires_grad or not tensors:  # a frozen part of the network: nothing can be told
            return frozenset()
        gradients = torch.autograd.grad(outputs.square().sum(), list(tensors.values()), allow_unused=True)
    pairs = zip(tensors, gradients, strict=True)
    return frozenset(name for name, g in pairs if g is None or not bool(layers[name].map(g).any()))


def _decides(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layer: str, layout: Layout) -> bool:
    """Returns whether two images swap their outputs when they swap this layer's maps."""
    with no_graph():
        expected = swapped(run(images))
        with replacing(net, layer, lambda tensor: swapped(tensor, layout.batch)):
            outputs = run(images)
    apart = (outputs - expected).norm(dim=1) / (expected - swapped(expected)).norm(dim=1).clamp(min=1e-12)
    return bool(apart.max() < 1e-2)


def _reach(
    net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layers: dict[str, Layout]
) -> dict[str, float]:
    """Returns the share of spatial locations of each layer that changes when the picture changes in the first location
    of the first layer.
    """
    grid = next(iter(layers.values())).grid
    with no_graph(), ExitStack() as stack:
        seen = {n: stack.enter_context(capture(net, n, batch=layout.batch)) for n, layout in layers.items()}
        run(corner_changed(images, grid))
    maps = {name: layout.map(seen[name].last) for name, layout in layers.items()}
    return {name: float((a[0] != a[1]).any(0).float().mean()) for name, a in maps.items()}
