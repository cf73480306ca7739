"""What a network looks like from outside: its layers with maps, and its head, from one forward pass of noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

from facexai.hooks import Call, capture, peak_bytes, quiet_grad, trace
from facexai.models.blackbox import BlackBox
from facexai.models.heads import Head, HeadDoesNotFold, find_head
from facexai.models.layout import Layout, layout_of

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
            cells: [n for n, layout in self.layers.items() if min(layout.grid) >= cells and n not in skip]
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


def unwrapped(net: nn.Module) -> nn.Module:
    """The network without a wrapper of DataParallel or ``torch.compile``."""
    if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(net.module)
    original = getattr(net, "_orig_mod", None)  # torch.compile keeps the network under this name
    return unwrapped(original) if isinstance(original, nn.Module) else net


def look(net: nn.Module, core: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> Structure:
    """Watch every module during one forward pass.

    Args:
        net: the user's network, whose names count.
        core: the network inside a wrapper such as DataParallel.
        run: gives the network's output for images.
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
    with quiet_grad():
        calls, outputs = trace(lambda: run(images), modules)
    image = (int(images.shape[2]), int(images.shape[3]))
    layers = _maps(calls, len(outputs), image)
    unread = _unread(net, run, images, [name for name, layout in layers.items() if layout.prefix])
    layers = {name: layout for name, layout in layers.items() if name not in unread}

    def decides(layer: str) -> bool:
        return _decides(net, run, images, layer)

    with quiet_grad():
        peak, largest = peak_bytes(lambda: run(images))
    memory = (peak + _SCRATCH * largest) // len(images)
    try:
        return Structure(find_head(calls, outputs, image), layers, decides, memory)
    except HeadDoesNotFold as refusal:
        return Structure(refusal.with_traceback(None), layers, decides, memory)


def _maps(calls: Sequence[Call], rows: int, image: tuple[int, int]) -> dict[str, Layout]:
    """Layers that run once for all rows of the batch and give a map, in the order in which they run."""
    runs, layers = Counter(call.name for call in calls), {}
    for call in calls:
        y = call.output
        if y is not None and y.is_floating_point() and y.ndim in (3, 4) and len(y) == rows and runs[call.name] == 1:
            layout = layout_of(tuple(y.shape[1:]), image)
            if layout is not None:
                layers[call.name] = layout
    tokens = {layout.prefix + layout.grid[0] * layout.grid[1] for layout in layers.values() if layout.order == "tokens"}
    # attention of tokens to tokens, (heads, n, n), looks like a map and is none
    return {name: layout for name, layout in layers.items() if not (set(layout.grid) <= tokens)}


def _unread(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layers: Sequence[str]) -> set[str]:
    """Those of the layers with a class token of which only that token is read: their cells decide nothing."""
    if not layers:
        return set()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        seen = {name: stack.enter_context(capture(net, name, graph="keep")) for name in layers}
        outputs = run(images.clone().requires_grad_())
        found = [one.last for one in seen.values()]
        gradients = torch.autograd.grad(outputs.square().sum(), found, allow_unused=True)
    return {name for name, g in zip(layers, gradients, strict=True) if g is None or not bool(g[:, 1:].any())}


def _decides(net: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor, layer: str) -> bool:
    """Whether two images swap their outputs when they swap this layer's maps."""

    def swapped(rows: Tensor) -> Tensor:
        return rows.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # type: ignore[no-untyped-call, no-any-return]

    with quiet_grad(), ExitStack() as stack:
        expected = swapped(run(images))
        hook = net.get_submodule(layer).register_forward_hook(lambda _, __, output: swapped(output))
        stack.callback(hook.remove)
        found = run(images)
    apart = (found - expected).norm(dim=1) / (expected - swapped(expected)).norm(dim=1).clamp(min=1e-12)
    return bool(apart.max() < 1e-2)
