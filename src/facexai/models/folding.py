"""Folds batch norms into the layer before them: the pairs are found by values, and every fold can be undone."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from facexai.hooks import Call, trace
from facexai.models.heads import normalisation

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MAGNITUDES = (1e-3, 1.0, 1e3, 1e6)  # at which a home-made module has to scale and shift alike


@final
@dataclass(frozen=True, eq=False)
class Pair:
    """A layer and the norm that takes its output: ``norm(x) = factor * x + shift`` per channel.

    Attributes:
        layer, norm: names of the two modules.
        factor, shift: (C,), float64, on the CPU.
    """

    layer: str
    norm: str
    factor: Tensor
    shift: Tensor


def hooked(module: nn.Module) -> bool:
    """Returns whether the module has hooks, which may change its input or output."""
    return any(getattr(module, hooks) for hooks in _HOOKS)


def pairs(net: nn.Module, run: Callable[[], Tensor]) -> list[Pair]:
    """Returns layers whose output is exactly the input of a norm, in the order in which the norms run.

    Args:
        net: in eval mode.
        run: one forward pass of a few images through it.

    Both modules run once, have one name, are no subclass and carry no hook. A norm is a batch norm of torch with
    fixed statistics, or a home-made module that does no more than scale and shift each channel (frozen batch norms).
    That the layer's output goes nowhere else cannot be seen here: compare the network's outputs after folding.
    """
    names = Counter(id(module) for _, module in net.named_modules(remove_duplicate=False))
    calls, _ = trace(run, {name: module for name, module in net.named_modules() if name and _plain(module)})
    runs = Counter(call.name for call in calls)
    once = [call for call in calls if runs[call.name] == 1 and names[id(call.module)] == 1]
    result = []
    for k, call in enumerate(once):
        if type(call.module) in _LAYERS or (type(call.module) not in _NORMS and _from_torch(call.module)):
            continue
        before = [layer for layer in once[:k] if type(layer.module) in _LAYERS and _feeds(layer, call)]
        affine = _scale_and_shift(call) if len(before) == 1 else None
        if affine is not None:
            result.append(Pair(before[0].name, call.name, *affine))
    return result


def fold(net: nn.Module, pair: Pair) -> Callable[[], None]:
    """Folds a norm into its layer, in float64 and rounded once; an Identity takes the norm's place and name.

    Returns:
        A function that undoes it; undo several in reverse order.

    Source: ours; the algebra of an affine map after a linear one.
    """
    layer: Any = net.get_submodule(pair.layer)
    path, _, leaf = pair.norm.rpartition(".")
    parent = net.get_submodule(path)
    weight, bias, norm = layer.weight, layer.bias, parent.get_submodule(leaf)
    factor = pair.factor.view(-1, *(1 for _ in weight.shape[1:]))
    moved = pair.shift if bias is None else bias.detach().cpu().double() * pair.factor + pair.shift
    layer.weight = nn.Parameter((weight.detach().cpu().double() * factor).to(weight), weight.requires_grad)
    layer.bias = nn.Parameter(moved.to(weight), weight.requires_grad)
    setattr(parent, leaf, nn.Identity().train(norm.training))

    def undo() -> None:
        layer.weight, layer.bias = weight, bias
        setattr(parent, leaf, norm)

    return undo


def _plain(module: nn.Module) -> bool:
    """Returns whether a module is a leaf whose class alone says what it does."""
    leaf = not any(True for _ in module.children())  # a parametrised layer has children
    return (
        leaf and not hooked(module) and "forward" not in vars(module) and not isinstance(module, torch.jit.ScriptModule)
    )


def _from_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _feeds(layer: Call, norm: Call) -> bool:
    """Returns whether the layer's output is the norm's input, with the channels where the layer puts them."""
    y, x, weight = layer.output, norm.input, layer.module.weight
    if y is None or x is None or norm.output is None or y.shape != x.shape or y.dtype != x.dtype:
        return False
    return y.ndim == weight.ndim and norm.output.shape == x.shape and torch.equal(y, x)


def _scale_and_shift(norm: Call) -> tuple[Tensor, Tensor] | None:
    """Returns factor and shift (C,) of a norm in float64, or None where it is none."""
    assert norm.input is not None
    twin = copy.deepcopy(norm.module).cpu().double()
    if not isinstance(twin, _NORMS) or type(twin) not in _NORMS:
        return _probed(twin, norm.input.shape[1], norm.input.ndim)
    if twin.training or twin.running_mean is None:
        return None
    return normalisation(twin, torch.empty(0, dtype=torch.float64))


def _probed(module: nn.Module, channels: int, ndim: int) -> tuple[Tensor, Tensor] | None:
    """Returns factor and shift of a home-made module with numbers for each channel, if it does no more than
    that, judged by values.
    """
    if not any(tensor.numel() == channels for tensor in chain(module.parameters(), module.buffers())):
        return None
    zeros = torch.zeros(2, channels, *(3 for _ in range(ndim - 2)), dtype=torch.float64)
    along, generator = (-1, *(1 for _ in range(ndim - 2))), torch.Generator().manual_seed(0)
    try:
        shift = module(zeros.clone())[0].reshape(channels, -1)[:, 0]
        factor = module(zeros + 1)[0].reshape(channels, -1)[:, 0] - shift
        for magnitude in _MAGNITUDES:
            x = magnitude * torch.randn(zeros.shape, generator=generator, dtype=torch.float64)
            expected = factor.view(along) * x + shift.view(along)
            if not torch.allclose(module(x.clone()), expected, rtol=1e-9, atol=1e-9 * magnitude):
                return None
    except Exception:  # whatever a home-made module raises for an input that is not its own
        return None
    return factor.detach(), shift.detach()
