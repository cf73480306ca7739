"""Objects that a forked process replaces, such as locks, whose owner does not exist there."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import RLock


def in_children(action: Callable[[], object]) -> None:
    """Has every process that is forked from now on begin with an action."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


class ForkSafeLock:
    """A lock that is replaced in forked children, ``with fork_safe.lock:``.

    Args:
        forked: what else to put in order in a forked process.
    """

    def __init__(self, forked: Callable[[], object] = lambda: None) -> None:
        self.lock = RLock()
        self._forked = forked
        in_children(self._renew)

    def _renew(self) -> None:
        self.lock = RLock()
        self._forked()
