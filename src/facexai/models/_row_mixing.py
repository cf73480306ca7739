"""Finds out, once per network, whether its output for an image depends on the other images of the batch.

A norm or an attention over the batch, or a network that exchanges rows on its way, gives an image another output, or
its layers' rows another place, when it is batched with another image. The network runs on (a, b) and on (a, c): the
rows of a have to be alike, at the output and at every layer. Batches of the same shape run the same arithmetic, so that
the rows of an ordinary network are equal to the last bit; what is allowed besides is rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from facexai import _row_passes
from facexai.models.blackbox import BlackBox
from facexai.turns import eval_scope

_ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-5}  # of a row's length
_ALLOWED_IN_HALF = 2e-2
_SAMPLE = 4096  # numbers of a layer's row that are compared

_known: WeakKeyDictionary[nn.Module, tuple[tuple[ref[nn.Module], ...], bool]] = WeakKeyDictionary()


def known_to_mix(core: nn.Module) -> bool | None:
    """Returns whether the network mixes the images of a batch; None: not known, or a module was exchanged since."""
    modules, verdict = _known.get(core, ((), None))
    if verdict is None:
        return None
    present = list(core.modules())
    same = len(modules) == len(present) and all(kept() is it for kept, it in zip(modules, present, strict=True))
    return verdict if same else None


def mixes(
    core: nn.Module,
    run: Callable[..., Tensor],
    x: Tensor,
    other: Callable[[], Tensor],
    kwargs: Mapping[str, Any],
) -> bool:
    """Returns whether the output for an image, or a layer's row, depends on the other images of the batch.

    Args:
        core: the network.
        run: gives the output (N, D) for an input and ``kwargs``.
        x: (N, C, H, W), N > 1, the network's input.
        other: gives (1, C, H, W), the input that takes the place of the others.
        kwargs: the network's other arguments; tensors have N rows.

    Raises:
        Exception: what the network raises. One that does not run on two images is tried on all N.

    Cost: two forward passes of two images, once per network; a third where the rows differ.
    """
    result = known_to_mix(core)
    if result is not None:
        return result

    def depends(rows: int) -> bool:
        a = x[:rows]  # with its graph: hooks such as captum's want gradients
        c = torch.cat([a[:1], other().to(a).expand(rows - 1, *a.shape[1:])])
        return _depends(core, partial(run, kwargs=row_arguments(kwargs, slice(0, rows))), a, c)

    try:
        verdict = depends(2)
    except Exception:
        if len(x) == 2:
            raise
        verdict = depends(len(x))
        with suppress(Exception):
            depends(2)
            result = True
        if result:  # two images run: what was raised has another cause
            raise
    _known[core] = tuple(ref(module) for module in core.modules()), verdict
    return verdict


def row_arguments(kwargs: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """Returns a network's other arguments for some rows of a batch: tensors hold a row for each image."""
    return {k: v[rows] if isinstance(v, Tensor) and v.ndim > 0 else v for k, v in kwargs.items()}


def _depends(core: nn.Module, run: Callable[[Tensor], Tensor], a: Tensor, c: Tensor) -> bool:
    with _row_passes.hidden():
        before, after = (_first_rows(core, run, batch) for batch in (a, c))
        if not _differ(before, after):
            return False
        return not _differ(before, _first_rows(core, run, a))  # else it is random, which doctor looks for


def _first_rows(core: nn.Module, run: Callable[[Tensor], Tensor], batch: Tensor) -> list[Tensor]:
    """Returns a sample of the numbers in the first row of the output and of every layer, in the order of the calls."""
    samples: list[Tensor] = []

    def sample(value: object) -> None:
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and len(value) == len(batch):
            row = value[0].detach().reshape(-1)
            samples.append(row[:: max(1, len(row) // _SAMPLE)].clone())

    def after(_: nn.Module, __: Any, output: Any) -> None:
        sample(output)

    seen = not isinstance(core, BlackBox | torch.jit.ScriptModule)
    hooks = [module.register_forward_hook(after) for module in core.modules() if seen and module is not core]
    try:
        with eval_scope(core):
            sample(run(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return samples


def _differ(first: list[Tensor], second: list[Tensor]) -> bool:
    if len(first) != len(second):
        return True
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return True
        if torch.equal(a, b):
            continue
        allowed = _ALLOWED.get(a.dtype, _ALLOWED_IN_HALF)
        a, b = a.nan_to_num().double(), b.nan_to_num().double()
        if bool((a - b).norm() > allowed * a.norm().clamp(min=1e-30)):
            return True
    return False
