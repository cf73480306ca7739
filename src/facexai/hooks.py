"""Captures tensors inside a network during one call, and leaves it unchanged.

A hook sees the calls of its own thread only, so that the user's forward beside an explanation is neither seen nor
changed. Modes, random state and whose turn it is: :mod:`facexai.turns`, whose names are here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from threading import get_ident
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from facexai import _row_passes
from facexai._locks import in_children
from facexai.turns import eval_mode, eval_scope, exclusive, grad_scope, in_training, no_graph, seeded, unwrapped

__all__ = [
    "Call",
    "Seen",
    "as_weights",
    "capture",
    "eval_mode",
    "eval_scope",
    "exclusive",
    "grad_scope",
    "in_training",
    "no_graph",
    "replacing",
    "seeded",
    "trace",
    "unwrapped",
]


class _Ear:
    """The hooks of one block: they act in the thread that began it, until the block ends."""

    def __init__(self) -> None:
        self.thread: int | None = get_ident()
        self.hooks: list[RemovableHandle] = []

    def hears(self) -> bool:
        return get_ident() == self.thread and not _row_passes.is_hidden()

    def end(self) -> None:
        self.thread = None  # a copy that the user made of the network meanwhile has the hooks for ever
        for hook in self.hooks:
            hook.remove()
        _ears.discard(self)


_ears: set[_Ear] = set()


def _forked() -> None:
    """Removes all hooks in a forked child: those of other threads, whose identifiers a new thread may get, and its own.

    A child that is forked inside a block, such as a worker that the network starts, is another program with the same
    network.
    """
    for ear in list(_ears):
        ear.end()


in_children(_forked)


@contextmanager
def _hearing() -> Iterator[_Ear]:
    ear = _Ear()
    _ears.add(ear)
    try:
        yield ear
    finally:
        try:
            ear.end()
        except KeyboardInterrupt:
            ear.end()
            raise


@dataclass(eq=False)
class Seen:
    """The record of :func:`capture`: the tensor of the layer's latest call and the number of calls."""

    layer: str
    calls: int = 0
    value: Tensor | None = field(default=None, repr=False)
    parts: list[Tensor] = field(default_factory=list, repr=False)  # where the network runs on one image at a time

    @property
    def last(self) -> Tensor:
        """Returns the tensor of the latest call, (N, ...), untouched by whatever ran after the layer.

        Raises:
            ValueError: the layer did not run in this forward pass.
        """
        if self.value is None and self.parts:
            self.value = torch.cat(self.parts)
        if self.value is None:
            raise ValueError(
                f"layer {self.layer!r} did not run in the forward pass, or in another thread; name one that runs, and "
                "in the thread that called the network"
            )
        return self.value

    @property
    def tensor(self) -> Tensor:
        """Returns the tensor of the only call.

        Raises:
            ValueError: the layer did not run, or ran more than once, in this forward pass.
        """
        if self.calls > 1:
            raise ValueError(
                f"layer {self.layer!r} ran {self.calls} times in one forward pass, so its map is ambiguous; "
                "name a module that runs once, such as the block around it (a hook of yours that asks the network "
                "counts, too)"
            )
        return self.last


@contextmanager
def capture(
    net: nn.Module,
    layer: str,
    *,
    side: Literal["output", "input"] = "output",
    graph: Literal["none", "start", "keep"] = "none",
    batch: int = 0,
) -> Iterator[Seen]:
    """Keeps what a layer gives (or takes) during the forward passes inside the ``with`` block.

    The network goes on with a copy, so an in-place operation after the layer (``ReLU(inplace=True)``,
    ``out += identity``) cannot change what was captured. Calls by other threads are not seen.

    Args:
        net: the module that will be called.
        layer: a name of ``net.named_modules()``.
        side: the layer's ``"output"`` or its first ``"input"``.
        graph: ``"start"`` makes the captured tensor a leaf that requires gradients and records the graph from here
            on, even inside ``no_grad`` and with frozen weights; what ran before the layer is not recorded.
            ``"keep"`` leaves the captured tensor in the graph that is being recorded. ``"none"`` detaches it.
        batch: the axis of the images in the layer's tensor; what is captured has it first.

    Yields:
        A :class:`Seen`; its ``.tensor`` is set by the forward pass.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    >>> with capture(net, "0") as seen:
    ...     _ = net(torch.ones(1, 2))
    >>> torch.equal(seen.tensor, net[0](torch.ones(1, 2)))
    True
    """
    seen, module = Seen(layer), net.get_submodule(layer)

    def store(value: Tensor) -> Tensor:
        if graph == "start":
            seen.value = value.detach().requires_grad_(True)
        else:
            seen.value = value if graph == "keep" else value.detach()
        return seen.value

    def keep(value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise ValueError(
                f"layer {layer!r} gives a {type(value).__name__}, expected one tensor; name a layer inside or after it"
            )
        rows = _row_passes.current()
        seen.calls += rows is None or rows.first
        value = value.movedim(batch, 0) if batch else value
        if graph == "start":
            torch.set_grad_enabled(True)  # undone by the grad mode context around the forward pass
        if rows is None:
            copy = store(value).clone()
        elif graph == "none":
            seen.value, seen.parts[rows.row :] = None, [value.detach()]
            copy = seen.parts[-1].clone()
        else:
            copy = rows.through(seen, value, store)
        return copy.movedim(0, batch) if batch else copy

    def after(_: nn.Module, __: Any, output: Any) -> Tensor | None:
        return keep(output) if ear.hears() else None

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if not ear.hears():  # torch gives another thread no kwargs where the hook is removed in that moment
            return None
        if args:
            return (keep(args[0]), *args[1:]), kwargs
        kwargs = kwargs or {}
        name = next(iter(kwargs), "")
        return args, {**kwargs, name: keep(kwargs.get(name))}

    with exclusive(net), _hearing() as ear:
        if side == "output":
            ear.hooks.append(module.register_forward_hook(after))
        else:
            ear.hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
        yield seen


@contextmanager
def replacing(net: nn.Module, layer: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Replaces the output of a layer inside, for passes of this thread.

    >>> net = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> with replacing(net, "0", lambda output: -output):
    ...     net(torch.tensor([-2.0, 3.0]))
    tensor([2., 0.])
    """

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if not ear.hears():
            return None
        rows = _row_passes.current()
        return change(output) if rows is None else rows.through(ear, output, change)

    with exclusive(net), _hearing() as ear:
        ear.hooks.append(net.get_submodule(layer).register_forward_hook(after))
        yield


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module: its name, and copies of its first input and its output where they are tensors."""

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor | None


def trace(run: Callable[[], Tensor], modules: dict[str, nn.Module]) -> tuple[list[Call], Tensor]:
    """Returns every module call of one run, in the order in which the calls ended, and what the run returned.

    Args:
        run: a function without arguments that performs one forward pass.
        modules: the modules to record, by name.

    Meant for one or two images: it copies every tensor.
    """
    rows: dict[int, list[Call]] = {}  # by image, where the network runs on one at a time; else all under 0
    inputs: dict[int, Tensor | None] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if ear.hears():
            first = next(chain(args, (kwargs or {}).values()), None)
            inputs[id(module)] = first.detach().clone() if isinstance(first, Tensor) else None

    with _hearing() as ear:
        for name, module in modules.items():

            def after(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
                if ear.hears():
                    kept = output.detach().clone() if isinstance(output, Tensor) else None
                    passes = _row_passes.current()
                    calls = rows.setdefault(0 if passes is None else passes.row, [])
                    calls.append(Call(name, module, inputs.pop(id(module), None), kept))

            ear.hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            ear.hooks.append(module.register_forward_hook(after))
        result = run()
    return _joined(list(rows.values())), result


def _joined(rows: list[list[Call]]) -> list[Call]:
    """Joins the calls of a network that ran once for each image into calls for all of them."""
    if len(rows) < 2:
        return rows[0] if rows else []
    if len({tuple(call.name for call in calls) for calls in rows}) > 1:
        raise ValueError("the network runs other modules for another image, so its layers cannot be joined")

    def whole(parts: Sequence[Tensor | None]) -> Tensor | None:
        tensors = [part for part in parts if part is not None and part.ndim > 0]
        alike = len(tensors) == len(parts) and len({part.shape[1:] for part in tensors}) == 1
        return torch.cat(tensors) if alike else None

    return [
        Call(same[0].name, same[0].module, whole([call.input for call in same]), whole([call.output for call in same]))
        for same in zip(*rows, strict=True)
    ]


def as_weights(x: Tensor, net: nn.Module) -> Tensor:
    """Returns images in the precision of a network's weights.

    Raises:
        ValueError: the network is on another device.
    """
    weight = next((p for p in net.parameters() if p.is_floating_point()), None)
    if weight is None:
        return x
    if weight.device != x.device:
        raise ValueError(
            f"images are on {x.device}, the network on {weight.device}; move the network with .to({str(x.device)!r})"
        )
    return x.to(weight.dtype)
