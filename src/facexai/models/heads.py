"""Folding the head: from the last spatial map to the output as one affine map, found by watching two images.

Nearly all face networks end in pieces that are affine in eval mode (normalisation, dropout, flattening or
averaging, linear). Composed, they give each cell and channel of the last map a weight for every output, so a
class activation map exists although the network has no global average pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from facexai.functional import at_least_float32
from facexai.hooks import Call

Link = Literal["same", "flatten", "flatten-last", "mean"]

_PASSIVE = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.Flatten,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
)


class HeadDoesNotFold(ValueError):
    """The end of the network is not an affine map of a spatial map, so CAM does not exist for it."""


@final
@dataclass(frozen=True, eq=False)
class Step:
    """One affine piece of a head: a module, or a mere re-arrangement or average of the values before it."""

    name: str
    module: nn.Module | None
    link: Link
    shape: tuple[int, ...]  # of the values before it, without the batch axis


@final
@dataclass(frozen=True, eq=False)
class Head:
    """The affine map from a spatial map A (C, h, w) to the output, module by module.

    Attributes:
        layer: name of the module that holds A.
        side: whether A is that module's ``"input"`` or its ``"output"``.
        last: name of the last module of the head; its output is e.
        unit: whether the network's own output is e divided by its length.
        shape: (C, h, w) of A.
        steps: the pieces in the order in which they run.
        names: the modules that belong to the head; ``layer`` is among them only as ``"input"``.
    """

    layer: str
    side: Literal["input", "output"]
    last: str
    unit: bool
    shape: tuple[int, int, int]
    steps: tuple[Step, ...]
    names: frozenset[str]

    def pull(self, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of A for directions r of the output: ``<r, e> = sum(weights * A) + constant``.

        Args:
            directions: (M, D).

        Returns:
            Weights (M, C, h, w) and constants (M,), in the dtype of ``directions``.

        Source: ours; an affine map composed from the back, exact up to rounding.
        """
        weights, constant = directions, directions.new_zeros(len(directions))
        for step in reversed(self.steps):
            weights, added = _pull_module(step.module, weights)
            constant = constant + added
            weights = _pull_link(step.link, weights, step.shape)
        return weights, constant


def _pull_module(module: nn.Module | None, r: Tensor) -> tuple[Tensor, Tensor]:
    zero = r.new_zeros(len(r))
    if isinstance(module, nn.Linear):
        constant = zero if module.bias is None else r @ module.bias.to(r)
        return r @ module.weight.to(r), constant
    if isinstance(module, _BatchNorm):
        alpha, beta = _normalisation(module, r)
        shape = (1, -1) + (1,) * (r.ndim - 2)
        return r * alpha.view(shape), (r * beta.view(shape)).flatten(1).sum(1)
    return r, zero


def _normalisation(norm: _BatchNorm, like: Tensor) -> tuple[Tensor, Tensor]:
    """Batch normalisation in eval mode as ``alpha * x + beta`` per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    alpha = (norm.running_var.to(like) + norm.eps).rsqrt()
    if norm.weight is not None:
        alpha = alpha * norm.weight.to(like)
    beta = -norm.running_mean.to(like) * alpha
    return alpha, beta if norm.bias is None else beta + norm.bias.to(like)


def _pull_link(link: Link, r: Tensor, shape: tuple[int, ...]) -> Tensor:
    if link == "flatten":
        return r.reshape(len(r), *shape)
    if link == "flatten-last":
        c, h, w = shape
        return r.reshape(len(r), h, w, c).permute(0, 3, 1, 2)
    if link == "mean":
        return r.reshape(len(r), shape[0], 1, 1).expand(-1, *shape) / (shape[1] * shape[2])
    return r


def _link(before: Tensor | None, after: Tensor | None) -> Link | None:
    """How ``after`` follows from ``before`` without any arithmetic but averaging, judged by values."""
    if before is None or after is None or before.dtype != after.dtype or len(before) != len(after):
        return None
    if before.shape == after.shape:
        return "same" if torch.equal(before, after) else None
    if before.ndim != 4 or after.flatten(1).ndim != 2 or after.numel() != after.flatten(1).shape[0] * after.shape[1]:
        return None
    flat = after.flatten(1)
    if before[0].numel() == flat.shape[1]:
        if torch.equal(before.flatten(1), flat):
            return "flatten"
        return "flatten-last" if torch.equal(before.permute(0, 2, 3, 1).flatten(1), flat) else None
    if before.shape[1] == flat.shape[1]:
        mean = at_least_float32(before).mean((2, 3))
        tolerance = 64 * torch.finfo(before.dtype).eps * at_least_float32(before).abs().mean((2, 3)).amax()
        return "mean" if bool(((mean - at_least_float32(flat)).abs() <= tolerance).all()) else None
    return None


def _affine(call: Call) -> bool:
    if isinstance(call.module, nn.Linear):
        return call.input is not None and call.input.ndim == 2
    return isinstance(call.module, _BatchNorm) and call.module.running_mean is not None


def _passive(call: Call) -> Link | None:
    """The link a parameterless module is, if it is one: pooling, flattening and dropout, also home-made."""
    ours = type(call.module).__module__.startswith("torch.nn.")
    if (ours and not isinstance(call.module, _PASSIVE)) or any(True for _ in call.module.parameters()):
        return None
    return _link(call.input, call.output)


def _where(call: Call) -> str:
    return f"{call.name!r} ({type(call.module).__name__})"


def find_head(calls: Sequence[Call], output: Tensor) -> Head:
    """The affine head of a network, from the record of one forward pass of noise.

    Args:
        calls: every module call in the order in which it ended.
        output: (N, D), what the network returned.

    Raises:
        HeadDoesNotFold: with the place where the network stops to be affine.
    """
    leaves = [call for call in calls if not any(True for _ in call.module.children())]
    if not leaves:
        raise HeadDoesNotFold(_refusal("the network has no submodules to look at"))
    unit, end = False, leaves[-1]
    bare = not any(True for _ in end.module.parameters())
    if len(leaves) > 1 and bare and end.input is not None and _is_unit(end.input, end.output):
        _ends_in(end, output)  # a module that normalises is the network's last act
        leaves, output, unit = leaves[:-1], end.input, True
    unit = _ends_in(leaves[-1], output) or unit
    steps: list[Step] = []
    wanted = leaves[-1].output
    for call in reversed(leaves):
        link = _link(call.output, wanted)
        affine, passive = _affine(call), _passive(call)
        if link is None or call.output is None or call.input is None or not (affine or passive):
            break
        steps.append(Step(call.name, None, link, tuple(call.output.shape[1:])))
        module = call.module if affine else None
        steps.append(Step(call.name, module, "same" if affine else passive or "same", tuple(call.input.shape[1:])))
        wanted = call.input
    if not steps:
        raise HeadDoesNotFold(_refusal(_why(leaves[-1])))
    return _with_map(calls, leaves, steps, wanted, unit)


def _with_map(
    calls: Sequence[Call], leaves: Sequence[Call], steps: list[Step], first: Tensor | None, unit: bool
) -> Head:
    """The head, once the module that holds its spatial map is known: one that gives it, else the one that takes it."""
    last, earliest = leaves[-1].name, steps[-1].name
    own = frozenset(step.name for step in steps)
    moves = tuple(step for step in reversed(steps) if step.module is not None or step.link != "same")
    seen: set[str] = set()
    for call in reversed(calls):
        latest = call.name not in seen  # of a module that runs several times only the last output is captured
        seen.add(call.name)
        link = _link(call.output, first) if latest and call.name not in own else None
        if link is not None and call.output is not None and call.output.ndim == 4 and call.output.shape[-2:] != (1, 1):
            c, h, w = (int(s) for s in call.output.shape[1:])
            bridge = () if link == "same" else (Step(call.name, None, link, (c, h, w)),)
            return Head(call.name, "output", last, unit, (c, h, w), (*bridge, *moves), own)
    if first is not None and first.ndim == 4 and first.shape[-2:] != (1, 1):
        c, h, w = (int(s) for s in first.shape[1:])
        return Head(earliest, "input", last, unit, (c, h, w), moves, own)
    why = f"the input of {earliest!r} is neither the flattened nor the averaged map of a layer"
    index = next(i for i, call in enumerate(leaves) if call.name == earliest)
    if index > 0 and not _affine(leaves[index - 1]):
        why += f"; before it runs {_where(leaves[index - 1])}"
    raise HeadDoesNotFold(_refusal(why))


def _ends_in(last: Call, output: Tensor) -> bool:
    """Whether the network divides its last module's output by its length; refuses any other last step."""
    e = last.output
    if e is not None and e.flatten(1).shape == output.shape:
        eps = torch.finfo(output.dtype).eps
        if torch.allclose(e.flatten(1).to(output), output, rtol=64 * eps, atol=64 * eps * float(output.abs().max())):
            return False
        if _is_unit(e, output):
            return True
    raise HeadDoesNotFold(_refusal(f"the network's output is not the output of its last module {_where(last)}"))


def _is_unit(e: Tensor | None, output: Tensor | None) -> bool:
    """Whether ``output`` is ``e`` divided by its length."""
    if e is None or output is None or e.flatten(1).shape != output.shape:
        return False
    unit = F.normalize(at_least_float32(e.flatten(1)))
    return torch.allclose(unit, at_least_float32(output), rtol=1e-3, atol=1e-5)


def _why(last: Call) -> str:
    if isinstance(last.module, _BatchNorm) and last.module.running_mean is None:
        return f"{_where(last)} uses the statistics of the batch also in eval mode"
    return f"{_where(last)} at its end is not affine"


def _refusal(why: str) -> str:
    return f"the head does not fold: {why}. Use HiResCAM(..., layer=...), which needs no folding"
