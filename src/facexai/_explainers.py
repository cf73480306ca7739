"""The classes of the explainers, imported when they are first used; the stub beside this file is for type checkers."""

from __future__ import annotations

from typing import Any

from facexai._registry import EXPLAINERS

__all__ = [row.cls for row in EXPLAINERS]


def __getattr__(name: str) -> Any:
    for row in EXPLAINERS:
        if row.cls == name:
            return row.load()
    raise AttributeError(f"module 'facexai._explainers' has no attribute {name!r}")
