"""Looking inside a network during one call, and leaving it as it was found."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(eq=False)
class Seen:
    """What :func:`capture` saw: the tensor of the layer's latest call and the number of calls."""

    layer: str
    calls: int = 0
    value: Tensor | None = field(default=None, repr=False)

    @property
    def last(self) -> Tensor:
        """The tensor of the latest call, (N, ...), untouched by whatever ran after the layer.

        Raises:
            ValueError: the layer did not run in this forward pass.
        """
        if self.value is None:
            raise ValueError(f"layer {self.layer!r} did not run in the forward pass; name one that does")
        return self.value

    @property
    def tensor(self) -> Tensor:
        """The tensor of the only call.

        Raises:
            ValueError: the layer did not run, or ran more than once, in this forward pass.
        """
        if self.calls > 1:
            raise ValueError(
                f"layer {self.layer!r} ran {self.calls} times in one forward pass, so its map is ambiguous; "
                "name a module that runs once, such as the block around it"
            )
        return self.last


@contextmanager
def capture(
    net: nn.Module,
    layer: str,
    *,
    side: Literal["output", "input"] = "output",
    graph: Literal["none", "start", "keep"] = "none",
) -> Iterator[Seen]:
    """Keep what a layer gives (or takes) during the forward passes inside the ``with`` block.

    The network goes on with a copy, so an in-place operation after the layer (``ReLU(inplace=True)``,
    ``out += identity``) cannot change what was captured.

    Args:
        net: the module that will be called.
        layer: a name of ``net.named_modules()``.
        side: the layer's ``"output"`` or its first ``"input"``.
        graph: ``"start"`` makes the captured tensor a leaf that requires gradients and records the graph from here
            on, even inside ``no_grad`` and with frozen weights; what ran before the layer is not recorded.
            ``"keep"`` leaves the captured tensor in the graph that is being recorded. ``"none"`` detaches it.

    Yields:
        A :class:`Seen`; its ``.tensor`` is set by the forward pass.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    >>> with capture(net, "0") as seen:
    ...     _ = net(torch.ones(1, 2))
    >>> torch.equal(seen.tensor, net[0](torch.ones(1, 2)))
    True
    """
    seen = Seen(layer)
    module = net.get_submodule(layer)

    def keep(value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise ValueError(
                f"layer {layer!r} gives a {type(value).__name__}, expected one tensor; name a layer inside or after it"
            )
        seen.calls += 1
        if graph == "start":
            torch.set_grad_enabled(True)  # undone by the grad mode context around the forward pass
            seen.value = value.detach().requires_grad_(True)
        else:
            seen.value = value if graph == "keep" else value.detach()
        return seen.value.clone()

    def after(_: nn.Module, __: Any, output: Any) -> Tensor:
        return keep(output)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (keep(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs), "")
        return args, {**kwargs, name: keep(kwargs.get(name))}

    with ExitStack() as stack:
        if side == "output":
            stack.callback(module.register_forward_hook(after).remove)
        else:
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
        yield seen


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode inside, and afterwards everything as before: the mode of every submodule and the random state.

    >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    >>> with evaluating(net):
    ...     print(net[0].training)
    False
    >>> net[0].training, net[1].training
    (True, False)
    """
    modes = [(module, module.training) for module in net.modules()]
    training = any(mode for _, mode in modes)
    on_gpu = {p.device.index for p in net.parameters() if p.is_cuda} if torch.cuda.is_available() else set()
    with torch.random.fork_rng(devices=sorted(on_gpu)):
        try:
            if training:
                net.eval()
            yield
        finally:
            if training:
                for module, mode in modes:
                    module.training = mode


@contextmanager
def quiet_grad() -> Iterator[None]:
    """No graph inside, also where the caller is in inference mode: then tensors can still take part in a graph.

    >>> with torch.inference_mode(), quiet_grad():
    ...     torch.zeros(1).is_inference()
    False
    """
    with torch.inference_mode(False), torch.no_grad():
        yield


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module: its name, and copies of its first input and its output where they are tensors."""

    name: str
    module: nn.Module
    input: Tensor | None
    output: Tensor | None


def trace(run: Callable[[], Tensor], modules: dict[str, nn.Module]) -> tuple[list[Call], Tensor]:
    """Every module call of one run, in the order in which the calls ended, and what the run returned.

    Args:
        run: a function without arguments that performs one forward pass.
        modules: the modules to record, by name.

    Meant for one or two images: it copies every tensor.
    """
    calls: list[Call] = []
    inputs: dict[int, Tensor | None] = {}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = next(chain(args, kwargs.values()), None)
        inputs[id(module)] = first.detach().clone() if isinstance(first, Tensor) else None

    with ExitStack() as stack:
        for name, module in modules.items():

            def after(module: nn.Module, _: Any, output: Any, name: str = name) -> None:
                kept = output.detach().clone() if isinstance(output, Tensor) else None
                calls.append(Call(name, module, inputs.pop(id(module), None), kept))

            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        result = run()
    return calls, result


def _strided(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor) and value.layout == torch.strided]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations made and that are still referred to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.users: Counter[int] = Counter()
        self.outside: set[int] = set()
        self.now = self.peak = self.largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for this, which takes longer than the rest of a first call

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {_place(tensor) for tensor in _strided((args, kwargs))}
        self.outside |= {place for place in given if self.users[place] == 0}  # weights, of which views are made
        out = func(*args, **(kwargs or {}))
        for tensor in _strided(out):
            if _place(tensor) not in self.outside:
                self._made(tensor)
        return out

    def _made(self, tensor: Tensor) -> None:
        place, size = _place(tensor), tensor.untyped_storage().nbytes()
        if self.users[place] == 0:
            self.now, self.largest = self.now + size, max(self.largest, size)
            self.peak = max(self.peak, self.now)
        self.users[place] += 1
        weakref.finalize(tensor, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self.users[place] -= 1
        if self.users[place] == 0:
            self.now -= size


def peak_bytes(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes of the tensors that operations inside a run made: the most that were alive at once, and of the largest.

    What an operation needs as scratch space is not counted.

    >>> peak_bytes(lambda: torch.zeros(8) + torch.ones(8))
    (96, 32)
    """
    live = _Live()
    with live:
        run()
    return live.peak, live.largest


def as_weights(x: Tensor, net: nn.Module) -> Tensor:
    """Images in the precision of a network's weights.

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
