"""Words the library says to its users: warnings, near matches, missing extras."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class FaceXAIWarning(UserWarning):
    """Something works, but not the way its user may think. Every warning of this library is one."""


def near_matches(name: str, options: Iterable[str], *, most: int = 3) -> str:
    """The end of an error message: names like the one that was typed, else the first few there are.

    >>> near_matches("layr3", ["layer1", "layer3", "fc"])
    "did you mean 'layer3' or 'layer1'?"
    >>> near_matches("x", ["ann", "bo"])
    "there are: 'ann', 'bo'"
    """
    known = list(options)
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(repr(k) for k in known[:12])
    return f"there are: {shown}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it.

    >>> require("no_such_module", extra="plot", purpose="drawing")
    Traceback (most recent call last):
    ImportError: drawing needs the package 'no_such_module': pip install "facexai[plot]"
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        raise ImportError(f"{purpose} needs the package '{top}': pip install \"facexai[{extra}]\"") from error


def told(error: BaseException) -> str:
    """An error's text and notes on one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())]).replace("\n", " ")
