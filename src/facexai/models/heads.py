"""Finds the affine head, from the last feature map to the output, by values of two images.

Nearly all face networks end in pieces that are affine in eval mode (normalisation, dropout, flattening or
averaging, linear). Composed, they give each cell and channel of the last map a weight for every output, so a
class activation map exists although the network has no global average pooling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.nn.modules.batchnorm import _BatchNorm

from facexai.functional import at_least_float32
from facexai.hooks import Call
from facexai.models.layout import Layout

_PASSIVE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.Flatten,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
)
_ADAPTERS = ("lora_A", "base_layer", "adapter_layer_names")  # attributes of layers that PEFT has wrapped
_ORDERS = {  # axes, without the batch's, in the orders in which networks read them; how many of the last are averaged
    1: (((0,), 0),),
    2: (((0, 1), 0), ((1, 0), 0), ((0, 1), 1), ((1, 0), 1)),
    3: (((0, 1, 2), 0), ((1, 2, 0), 0), ((2, 0, 1), 0), ((0, 1, 2), 2), ((2, 0, 1), 2)),
}


class HeadDoesNotFold(ValueError):
    """The end of the network is not an affine map of a spatial map, so CAM does not exist for it."""


def completeness_limit(dtype: torch.dtype) -> float:
    """Returns the completeness error that is allowed for a map of this type: rounding, and no more.

    >>> completeness_limit(torch.float32)
    0.0001
    """
    return {torch.float64: 1e-10, torch.float32: 1e-4}.get(dtype, 2e-2)


@final
@dataclass(frozen=True)
class Link:
    """A re-arrangement of values: axes read in this order, the last ``mean`` of them averaged, then reshaped."""

    order: tuple[int, ...]
    mean: int

    def pull(self, r: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Returns directions of the values after it as directions of the values before it, which have this shape."""
        read = [shape[axis] for axis in self.order]
        kept, averaged = read[: len(read) - self.mean], read[len(read) - self.mean :]
        r = r.reshape(len(r), *kept, *(1 for _ in averaged)).expand(-1, *read) / math.prod(averaged)
        return r.permute(0, *(1 + self.order.index(axis) for axis in range(len(shape))))


@final
@dataclass(frozen=True, eq=False)
class Step:
    """One affine piece of a head: a module, or a link between the values of two modules."""

    name: str
    what: nn.Module | Link
    shape: tuple[int, ...]  # of the values before it, without the batch axis


@final
@dataclass(frozen=True, eq=False)
class Head:
    """The affine map from a spatial map A to the output, module by module.

    Attributes:
        layer: name of the module that holds A.
        side: whether A is that module's ``"input"`` or its ``"output"``.
        last: name of the last module of the head; its output is e.
        unit: whether the network's own output is e divided by its length.
        layout: how A is a map (C, h, w).
        steps: the pieces in the order in which they run.
        names: the modules that belong to the head; ``layer`` is among them only as ``"input"``.
    """

    layer: str
    side: Literal["input", "output"]
    last: str
    unit: bool
    layout: Layout
    steps: tuple[Step, ...]
    names: frozenset[str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns (C, h, w) of A."""
        return self.layout.shape

    def pull(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the weights of A for directions r of the output: ``<r, e> = sum(weights * A) + constant``.

        Args:
            directions: (M, D).

        Returns:
            Weights (M, C, h, w) and constants (M,), in the dtype of ``directions``.

        Source: ours; an affine map composed from the back, exact up to rounding.
        """
        weights, constant = directions, directions.new_zeros(len(directions))
        for step in reversed(self.steps):
            if isinstance(step.what, Link):
                weights = step.what.pull(weights, step.shape)
            else:
                weights, added = _pull_module(step.what, weights, step.shape)
                constant = constant + added
        return self.layout.map(weights), constant


def _pull_module(module: nn.Module, r: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns directions of a module's output as directions of its input, of this shape, and the
    constants they leave.
    """
    zero = r.new_zeros(len(r))
    if isinstance(module, nn.Linear):
        return r @ module.weight.to(r), zero if module.bias is None else r @ module.bias.to(r)
    if isinstance(module, nn.Conv2d):
        constant = zero if module.bias is None else r.flatten(1) @ module.bias.to(r)
        place = (module.stride, _padding(module), module.dilation, module.groups)
        pulled: Tensor = conv2d_input((len(r), *shape), module.weight.to(r), r, *place)  # type: ignore[no-untyped-call]
        return pulled, constant
    assert isinstance(module, _BatchNorm)
    alpha, beta = normalisation(module, r)
    along = (1, -1) + (1,) * (r.ndim - 2)
    return r * alpha.view(along), (r * beta.view(along)).flatten(1).sum(1)


def _padding(conv: nn.Conv2d) -> tuple[int, ...] | None:
    """Returns the zeros that a convolution adds on both sides, or None where it pads in another way."""
    if isinstance(conv.padding, str):
        return (0, 0) if conv.padding == "valid" else None
    return tuple(conv.padding) if conv.padding_mode == "zeros" or not any(conv.padding) else None


def normalisation(norm: _BatchNorm, like: Tensor) -> tuple[Tensor, Tensor]:
    """Expresses batch normalisation in eval mode as ``alpha * x + beta`` per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    alpha = (norm.running_var.to(like) + norm.eps).rsqrt()
    if norm.weight is not None:
        alpha = alpha * norm.weight.to(like)
    beta = -norm.running_mean.to(like) * alpha
    return alpha, beta if norm.bias is None else beta + norm.bias.to(like)


def _link(before: Tensor | None, after: Tensor | None) -> Link | None:
    """Returns how ``after`` follows from ``before`` without any arithmetic but averaging, judged by values."""
    if before is None or after is None or len(before) != len(after):
        return None
    if before.dtype != after.dtype:
        if torch.promote_types(before.dtype, after.dtype) != after.dtype:
            return None
        before = before.to(after.dtype)  # a cast upwards changes no value
    flat = after.flatten(1)
    for order, mean in _ORDERS.get(before.ndim - 1, ()):
        read = before.permute(0, *(1 + axis for axis in order))
        if mean == 0:
            if read[0].numel() == flat[0].numel() and torch.equal(read.flatten(1), flat):
                return Link(order, mean)
            continue
        axes = tuple(range(read.ndim - mean, read.ndim))
        if read.shape[1 : read.ndim - mean] != flat.shape[1:]:
            continue
        values = at_least_float32(read)
        eps = torch.finfo(before.dtype).eps  # a mean in half precision is summed in float32 and rounded once
        tolerance = (64 if eps < 1e-6 else 2) * eps * values.abs().mean(axes).amax()
        if bool(((values.mean(axes) - at_least_float32(flat)).abs() <= tolerance).all()):
            return Link(order, mean)
    return None


def _affine(call: Call) -> bool:
    module = call.module
    if isinstance(module, nn.Linear):
        return call.input is not None and call.input.ndim == 2
    if isinstance(module, nn.Conv2d):  # one that sees the whole map, such as a depth-wise one as large as the map
        whole = call.output is not None and call.output.ndim == 4 and call.output.shape[-2:] == (1, 1)
        return whole and call.input is not None and call.input.ndim == 4 and _padding(module) is not None
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _passive(call: Call) -> Link | None:
    """Returns the link a parameterless module is, if it is one: pooling, flattening and dropout, also home-made."""
    ours = type(call.module).__module__.startswith("torch.nn.")
    if (ours and not isinstance(call.module, _PASSIVE)) or any(True for _ in call.module.parameters()):
        return None
    return _link(call.input, call.output)


def _where(call: Call) -> str:
    return f"{call.name!r} ({type(call.module).__name__})"


def find_head(calls: Sequence[Call], output: Tensor, read: Callable[[str, Tensor], Layout | None]) -> Head:
    """Returns the affine head as :func:`_find_head` has it; where it does not fold and adapters are
    there, they are named.
    """
    try:
        return _find_head(calls, output, read)
    except HeadDoesNotFold as refusal:
        adapted = [call.name for call in calls if any(hasattr(call.module, name) for name in _ADAPTERS)]
        if not adapted:
            raise
        raise HeadDoesNotFold(
            f"{refusal}. The network has LoRA or other PEFT adapters, the last in {adapted[-1]!r}: "
            "net = net.merge_and_unload() merges them into plain layers"
        ) from None


def _find_head(calls: Sequence[Call], output: Tensor, read: Callable[[str, Tensor], Layout | None]) -> Head:
    """Returns the affine head of a network, from the record of one forward pass of noise.

    Args:
        calls: every module call in the order in which it ended.
        output: (N, D), what the network returned.
        read: gives the layout of a module's tensor, or None where it is no map of the images.

    Raises:
        HeadDoesNotFold: with the place where the network stops to be affine.
    """
    leaves = [call for call in calls if not any(True for _ in call.module.children())]
    if not leaves:
        raise HeadDoesNotFold(_refusal("the network has no submodules to look at"))
    ends = [k for k, call in enumerate(leaves) if call.output is not None and _equal(call.output, output)]
    leaves = leaves[: ends[-1] + 1] if ends else leaves  # what runs after the output is another head's
    unit, end = False, leaves[-1]
    bare = not any(True for _ in end.module.parameters())
    if len(leaves) > 1 and bare and end.input is not None and _is_unit(end.input, end.output):
        _ends_in(end, output)  # a module that normalises is the network's last act
        leaves, output, unit = leaves[:-1], end.input, True
    unit = _ends_in(leaves[-1], output) or unit
    steps: list[Step] = []
    wanted = leaves[-1].output
    for call in reversed(leaves):
        link, what = _link(call.output, wanted), call.module if _affine(call) else _passive(call)
        if link is None or what is None or call.output is None or call.input is None:
            break
        steps.append(Step(call.name, link, tuple(call.output.shape[1:])))
        steps.append(Step(call.name, what, tuple(call.input.shape[1:])))
        wanted = call.input
    if not steps:
        raise HeadDoesNotFold(_refusal(_why(leaves[-1])))
    return _with_map(calls, leaves, steps, wanted, unit, read)


def _with_map(
    calls: Sequence[Call],
    leaves: Sequence[Call],
    steps: list[Step],
    first: Tensor | None,
    unit: bool,
    read: Callable[[str, Tensor], Layout | None],
) -> Head:
    """Returns the head, once the module that holds its spatial map is known: one that gives it, else the
    one that takes it.
    """
    last, earliest = leaves[-1].name, steps[-1].name
    own = frozenset(step.name for step in steps)
    moves = tuple(reversed(steps))
    seen: set[str] = set()
    for call in reversed(calls):
        latest = call.name not in seen  # of a module that runs several times only the last output is captured
        seen.add(call.name)
        link = _link(call.output, first) if latest and call.name not in own else None
        layout = None if link is None or call.output is None else _cells(read(call.name, call.output), call.output)
        if link is not None and layout is not None and call.output is not None:
            bridge = Step(call.name, link, tuple(call.output.shape[1:]))
            return Head(call.name, "output", last, unit, layout, (bridge, *moves), own)
    layout = None if first is None else _cells(read("", first), first)
    if layout is not None:
        return Head(earliest, "input", last, unit, layout, moves, own)
    token = next((call.name for call in reversed(calls) if _is_token(call.output, first)), None)
    if token is not None:
        why = f"the input of {earliest!r} is a single token of {token!r}, so no cell of a map enters it directly"
        raise HeadDoesNotFold(_refusal(why))
    why = f"the input of {earliest!r} is neither the flattened nor the averaged map of a layer"
    index = next(i for i, call in enumerate(leaves) if call.name == earliest)
    if index > 0 and not _affine(leaves[index - 1]):
        why += f"; before it runs {_where(leaves[index - 1])}"
    raise HeadDoesNotFold(_refusal(why))


def _cells(layout: Layout | None, value: Tensor) -> Layout | None:
    """Returns the layout, if it is that of a map of more than one cell and leaves nothing of the tensor out."""
    if layout is None or layout.batch != 0 or layout.grid == (1, 1):
        return None
    return layout if math.prod(layout.shape) == value[0].numel() else None


def _equal(value: Tensor, output: Tensor) -> bool:
    return value.flatten(1).shape == output.shape and torch.equal(value.flatten(1).to(output), output)


def _is_token(output: Tensor | None, first: Tensor | None) -> bool:
    """Returns whether ``first`` is one of the tokens of ``output``, such as the class token."""
    if output is None or first is None or output.ndim != 3 or first.ndim != 2 or output.shape[2] != first.shape[1]:
        return False
    ways = (output, output.transpose(0, 1))  # images along the first axis, or the second
    return any(torch.equal(row, first) for tokens in ways for row in tokens.unbind(1))


def _ends_in(last: Call, output: Tensor) -> bool:
    """Returns whether the network divides its last module's output by its length; refuses any other last step."""
    e = last.output
    if e is not None and e.flatten(1).shape == output.shape:
        eps = torch.finfo(output.dtype).eps
        if torch.allclose(e.flatten(1).to(output), output, rtol=64 * eps, atol=64 * eps * float(output.abs().max())):
            return False
        if _is_unit(e, output):
            return True
    raise HeadDoesNotFold(_refusal(f"the network's output is not the output of its last module {_where(last)}"))


def _is_unit(e: Tensor | None, output: Tensor | None) -> bool:
    """Returns whether ``output`` is ``e`` divided by its length."""
    if e is None or output is None or e.flatten(1).shape != output.shape:
        return False
    unit, eps = F.normalize(at_least_float32(e.flatten(1))), torch.finfo(output.dtype).eps
    return torch.allclose(unit, at_least_float32(output), rtol=max(1e-3, 4 * eps), atol=max(1e-5, eps / 16))


def _why(last: Call) -> str:
    if isinstance(last.module, _BatchNorm) and last.module.running_mean is None:
        return f"{_where(last)} uses the statistics of the batch also in eval mode"
    return f"{_where(last)} at its end is not affine"


def _refusal(why: str) -> str:
    return f"the head does not fold: {why}. Use HiResCAM(..., layer=...), which needs no folding"
