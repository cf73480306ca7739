"""What is left behind by calls: memory, hooks, open files, threads, temporary files."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PAGE = os.sysconf("SC_PAGE_SIZE")
MOST_OBJECTS, MOST_MIB = 10, 32.0


@dataclass(frozen=True)
class Left:
    """How much more there is after the calls than before them.

    ``objects`` are those that Python's garbage collector knows, ``tensors`` those of them that hold numbers, ``nets``
    the entries that the library keeps about networks.
    """

    calls: int
    objects: int
    tensors: int
    hooks: int
    files: int
    threads: int
    temporary: int
    nets: int
    resident: float

    @property
    def clean(self) -> bool:
        """Nothing grew but caches of Python and of torch by a few objects, and what the process keeps to use again."""
        counted = (self.tensors, self.hooks, self.files, self.threads, self.temporary, self.nets)
        return max(counted) <= 0 and self.objects <= MOST_OBJECTS and self.resident <= MOST_MIB


def resident() -> int:
    """Bytes of the process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def _counts(net: nn.Module, places: Iterable[Path]) -> tuple[int, ...]:
    from facexai import turns
    from facexai.explainers import jacobian
    from facexai.models import fingerprint

    gc.collect()
    known = gc.get_objects()
    tensors = 0
    for one in known:
        with contextlib.suppress(ReferenceError):  # a weak proxy whose object is gone
            tensors += issubclass(type(one), torch.Tensor)  # asking the object may run code of its own
    hooks = sum(len(getattr(module, kind)) for module in net.modules() for kind in HOOKS)
    kept = sum(len(table) for table in (turns._turns, turns._held, fingerprint._known, jacobian._best))
    temporary = sum(len(os.listdir(place)) for place in places)
    count = len(known)
    del known
    return count, tensors, hooks, len(os.listdir("/proc/self/fd")), threading.active_count(), temporary, kept


@contextlib.contextmanager
def own_temporary_files() -> Iterator[Path]:
    """A folder for temporary files that no other process writes to."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def growth(call: Callable[[], Any], net: nn.Module, calls: int, folder: Path | None = None, *, warm: int = 3) -> Left:
    """Run a call some times to warm up and then many times; what the latter left behind, also in a folder."""
    with own_temporary_files() as temporary_files:
        places = {temporary_files, folder or temporary_files}
        for _ in range(max(warm, calls // 10)):
            call()
        before, held = _counts(net, places), resident()
        for _ in range(calls):
            call()
        after = _counts(net, places)
    objects, tensors, hooks, files, threads, temporary, kept = (b - a for a, b in zip(before, after, strict=True))
    return Left(calls, objects, tensors, hooks, files, threads, temporary, kept, (resident() - held) / 2**20)
