"""Runs a network on the images of a batch one after the other, with hooks that see one run on the whole batch.

Hooks of this library get the present pass from :func:`current`: :func:`one_by_one` runs the network once for each row,
and what a layer gives in these passes is joined to one tensor in the order of the rows. A layer whose output is
replaced, or whose gradient is wanted, needs that joined tensor before the network goes on: then the rows run again,
once for each such layer, and the network goes on from the rows of the joined tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import local
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


@dataclass(eq=False)
class Joined:
    """The outputs of one layer for all rows; ``whole`` replaces them in the network, split by rows."""

    change: Callable[[Tensor], Any]
    parts: list[Tensor] = field(default_factory=list)
    whole: tuple[Tensor, ...] | None = None

    def finish(self) -> None:
        """Joins the outputs of all rows and splits what ``change`` makes of them."""
        sizes = [len(part) for part in self.parts]
        with torch.enable_grad():
            changed = self.change(torch.cat(self.parts))
            if not isinstance(changed, Tensor) or len(changed) != sum(sizes):
                raise ValueError(f"expected a tensor of {sum(sizes)} rows in the place of the layer's output")
            self.whole = torch.split(changed, sizes)


@dataclass(eq=False)
class Rows:
    """The passes of one batch: which row runs, which layer is being joined, and the layers that are done."""

    row: int = 0
    pending: object | None = None
    layers: dict[object, Joined] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Returns whether this is the first pass of the first row."""
        return self.row == 0 and all(layer.whole is None for layer in self.layers.values())

    def through(self, key: object, value: Any, change: Callable[[Tensor], Any]) -> Any:
        """Returns the output with which the network goes on after a layer that is replaced or has a gradient.

        Args:
            key: identifies the watcher of the layer.
            value: the layer's output for the present row.
            change: is called once, with the outputs of all rows; the network goes on from the rows of what it returns.

        Raises:
            ValueError: the output is no tensor, or the layer ran more than once.
        """
        layer = self.layers.get(key)
        if layer is not None and layer.whole is not None:
            return layer.whole[self.row].clone()
        self.pending = key if self.pending is None else self.pending
        if self.pending is key:
            layer = self.layers.setdefault(key, Joined(change))
            if not isinstance(value, Tensor) or len(layer.parts) != self.row:
                raise ValueError(
                    "the network mixes the images of a batch and so runs on one at a time, where only a layer that "
                    "gives one tensor and runs once can be replaced or have a gradient"
                )
            layer.parts.append(value)
        return value


class _State(local):
    def __init__(self) -> None:
        self.rows: Rows | None = None
        self.hidden = False


_state = _State()


def current() -> Rows | None:
    """Returns the passes of a batch that this thread runs one image at a time, or None where it runs whole batches."""
    return _state.rows


def is_hidden() -> bool:
    """Returns whether hooks of this library ignore the present pass of this thread."""
    return _state.hidden


@contextmanager
def hidden() -> Iterator[None]:
    """Hides passes from the hooks of this library."""
    before = _state.hidden, _state.rows
    _state.hidden, _state.rows = True, None
    try:
        yield
    finally:
        try:
            _state.hidden, _state.rows = before
        except KeyboardInterrupt:
            _state.hidden, _state.rows = before
            raise


def one_by_one(run: Callable[[int], Result], count: int) -> list[Result]:
    """Returns ``run(row)`` for every row, while hooks see the layers' outputs of all rows joined.

    >>> one_by_one(lambda row: row * row, 3)
    [0, 1, 4]
    """
    rows, outer, grad = Rows(), _state.rows, torch.is_grad_enabled()
    _state.rows = rows
    try:
        while True:
            rows.pending, results = None, []
            for row in range(count):
                rows.row = row
                torch.set_grad_enabled(grad)  # a hook may have begun to record a graph in the row before
                results.append(run(row))
            if rows.pending is None:
                return results
            rows.layers[rows.pending].finish()
    finally:
        try:
            _state.rows = outer
        except KeyboardInterrupt:
            _state.rows = outer
            raise
