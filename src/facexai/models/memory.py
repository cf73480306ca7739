"""Measures the peak memory of the tensors of one run."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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
    """Returns the bytes of the tensors that operations inside a run made: the most that were alive at once,
    and of the largest.

    What an operation needs as scratch space is not counted.

    >>> peak_bytes(lambda: torch.zeros(8) + torch.ones(8))
    (96, 32)
    """
    live = _Live()
    with live:
        run()
    return live.peak, live.largest
