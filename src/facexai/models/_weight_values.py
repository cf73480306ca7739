"""Checks whether the values in a file can become those of a network: shapes, kinds, ranges, and shared memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from facexai._errors import short_repr
from facexai.hooks import no_graph
from facexai.models._weight_fit import plain, same_values

_SHOWN = 4  # names in an error


def some(items: Sequence[str]) -> str:
    """Returns the first few items and the number of the others."""
    return ", ".join(items[:_SHOWN]) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def few(names: Sequence[str]) -> str:
    """Returns the first few names, quoted, and the number of the others."""
    return some([short_repr(name) for name in names])


def check_initialised(net: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuses a network with parameters or buffers that have no shape yet.

    Raises:
        ValueError: lazy modules that have not been run.
    """
    lazy = [name for name, tensor in tensors.items() if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{len(lazy)} weights of {net} have no shape yet (lazy modules): {few(lazy)}; expected a network that has "
            "run once: call it on a batch of images, net(torch.zeros(2, 3, 112, 112)), then load; nothing was loaded"
        )


def unfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Returns a line about tensors of another shape, and one about those of another kind of numbers.

    Args:
        wanted: the network's tensors by name; only their shapes and types count.
        given: the file's tensors by the same names.
    """
    shapes = [
        f"{short_repr(name)} expected {tuple(wanted[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in given.items()
        if tensor.shape != wanted[name].shape
    ]
    types = [
        f"{short_repr(name)} expected {wanted[name].dtype}, got {_described(tensor)}"
        for name, tensor in given.items()
        if not _alike(tensor, wanted[name])
    ]
    lines = [f"{len(shapes)} of another shape: {some(shapes)}"] if shapes else []
    return (
        [*lines, f"{len(types)} of another type, whose values cannot be taken over: {some(types)}"] if types else lines
    )


def beyond_range(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Returns a line about finite values that would become infinite, or other whole numbers, in the network's type.

    Args:
        wanted, given: as for :func:`unfit`.
    """
    beyond = [
        f"{short_repr(name)} holds {value} in {tensor.dtype}, expected what {wanted[name].dtype} can hold"
        for name, tensor in given.items()
        if _alike(tensor, wanted[name]) and (value := _beyond(tensor, wanted[name].dtype))
    ]
    hint = "load them into a network of the file's type"
    return [f"{len(beyond)} out of the range of the network's type: {some(beyond)}; {hint}"] if beyond else []


def unwritable(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Returns lines about the network's own tensors: those without memory of their own, and those that share it.

    Names that share memory must be given values that agree there, or the last one written would win. That is tried on
    a copy of the memory.
    """
    lines = []
    closed = [f"{short_repr(name)} ({_described(wanted[name])})" for name in given if not _open(wanted[name])]
    if closed:
        hint = "expected plain tensors; net.to_empty(device='cpu') gives memory to those on the meta device"
        lines.append(f"{len(closed)} of the network's cannot be written: {some(closed)}; {hint}")
    groups: dict[int, list[str]] = defaultdict(list)
    for name in given:
        tensor = wanted[name]
        if _open(tensor) and tensor.numel() and tensor.shape == given[name].shape and _alike(given[name], tensor):
            groups[tensor.untyped_storage().data_ptr()].append(name)
    torn = [few(names) for names in groups.values() if len(names) > 1 and not _agree(names, wanted, given)]
    if torn:
        hint = "save one set of values for them, or untie them in the network"
        lines.append(f"{len(torn)} tied in the network whose values differ in the file: {'; '.join(torn)}; {hint}")
    return lines


def tied_to(missing: Sequence[str], wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> set[str]:
    """Returns the missing names that are further names of tensors which the file does set."""
    set_by = {_memory(wanted[name]) for name in given if _open(wanted[name])}
    return {name for name in missing if _open(wanted[name]) and _memory(wanted[name]) in set_by}


def _open(tensor: Tensor) -> bool:
    """Says whether each value of a tensor can be written on its own."""
    spread = any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, _strides(tensor), strict=True))
    return plain(tensor) and not spread


def _strides(tensor: Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout is torch.strided else tensor.shape


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def _agree(names: Sequence[str], wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> bool:
    """Says whether all names of one piece of memory read what the file gives them after all of them were written."""
    with no_graph():
        memory = wanted[names[0]].untyped_storage().clone()  # type: ignore[no-untyped-call]
        for read in (False, True):
            for name in names:
                own = wanted[name]
                view = torch.empty(0, dtype=own.dtype, device=own.device)
                view.set_(memory, own.storage_offset(), own.shape, own.stride())
                value = given[name].to(own)
                if not read:
                    view.copy_(value)
                elif not same_values(view, value):
                    return False
    return True


def _alike(given: Tensor, wanted: Tensor) -> bool:
    """Says whether the file's values are plain numbers of the network's kind."""
    return plain(given) and _kind(given) == _kind(wanted)


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


def _described(tensor: Tensor) -> str:
    """Returns the type, and the way of storing it where that is not the plain one."""
    odd = "meta" if tensor.is_meta else "" if tensor.layout is torch.strided else str(tensor.layout)
    if not odd and any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        odd = "expanded"
    return f"{tensor.dtype}, {odd}" if odd else str(tensor.dtype)


def _beyond(tensor: Tensor, dtype: torch.dtype) -> str:
    """Returns the value of largest magnitude, as text, that a type of the same kind cannot hold; else nothing.

    Infinite values and NaN of the file stay what they are. The cast to a float is monotone, so the largest finite
    magnitude decides for all.
    """
    if tensor.dtype == dtype or not tensor.numel():
        return ""
    if not (dtype.is_floating_point or dtype.is_complex):
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        array = tensor.cpu().numpy()
        return next((str(v) for v in (int(array.max()), int(array.min())) if not low <= v <= high), "")
    target, source = torch.finfo(dtype), torch.finfo(tensor.dtype)
    if target.max >= source.max:
        return ""
    parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    sizes = (parts.float() if parts.dtype.itemsize == 1 else parts).abs()
    largest = float(torch.where(torch.isfinite(sizes), sizes, 0).max())
    if largest <= target.max:
        return ""
    kept = float(torch.tensor(largest, dtype=torch.float64).to(dtype.to_real()).double())
    return "" if abs(kept - largest) <= target.eps * largest else f"{largest:.3g}"
