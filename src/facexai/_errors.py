"""Words the library says to its users: warnings, near matches, missing extras."""

from __future__ import annotations

import difflib
import importlib
import reprlib
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from facexai._locks import ForkSafeLock

_PACKAGE = __name__.partition(".")[0]
_LONGEST = 300  # characters of a name that is compared with others
_JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts and emojis are written
_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 3, 120, 120
_short.maxlist = _short.maxtuple = _short.maxdict = _short.maxset = 12


class FaceXAIWarning(UserWarning):
    """A warning of this library: a call works, but its result may not be what the user expects."""


def warn(text: str, category: type[Warning] = FaceXAIWarning) -> None:
    """Warns, and names the line outside this library that called it, however deep the warning arises."""
    frame, level, outermost = sys._getframe(1), 1, 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:  # dataclasses run code without a file
            outermost = level
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(text, category, stacklevel=outermost + 2)


_filters = ForkSafeLock()


@contextmanager
def suppress_warnings(category: type[Warning] = FaceXAIWarning, message: str = "") -> Iterator[None]:
    """Hides warnings of a category inside.

    Python has one list of filters for all threads: blocks that overlapped would leave each other's filters behind.
    """
    with _filters.lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


def short_repr(value: object) -> str:
    """Returns the repr of a value that came from a file, cut where it is long or deep, for an error message.

    >>> short_repr("a person"), len(short_repr("x" * 10**6)), short_repr([[[[[[]]]]]])
    ("'a person'", 120, '[[[[...]]]]')
    """
    return _short.repr(value)


def truncate(text: object, most: int = 400) -> str:
    """Returns a text that came from a file or from another library, cut where it is long, for an error message.

    >>> truncate("abc"), len(truncate("x" * 10**6))
    ('abc', 403)
    """
    told = str(text)
    return told if len(told) <= most else f"{told[:most]}..."


def printable(line: str) -> str:
    """Returns text that is safe on one line of a terminal: line breaks, control and direction characters and
    undecodable bytes are escaped.

    >>> printable("\\u00e9 \\x1b[2J\\n")
    '\u00e9 \\\\x1b[2J\\\\n'
    """
    return "".join(c if c.isprintable() or c in _JOINERS or _is_space(c) else ascii(c)[1:-1] for c in line)


def _is_space(c: str) -> bool:
    """Says whether a character only leaves room, such as the wide space between two names in Japanese."""
    return unicodedata.category(c) == "Zs"


def suggest(name: str, options: Iterable[str], *, most: int = 3) -> str:
    """Returns the end of an error message: names like the one that was typed, else the first few there are.

    >>> suggest("layr3", ["layer1", "layer3", "fc"])
    "did you mean 'layer3' or 'layer1'?"
    >>> suggest("x", ["ann", "bo"])
    "there are: 'ann', 'bo'"
    """
    known = list(options)
    if len(name) > _LONGEST:  # nothing that anybody typed; comparing it would take long
        name = name[:_LONGEST]
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(short_repr(c) for c in close) + "?"
    shown = ", ".join(short_repr(k) for k in known[:12])
    return f"there are: {shown}" + (f" and {len(known) - 12} more" if len(known) > 12 else "")


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports an optional dependency, or names the extra that installs it.

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
    """Returns an error's text and notes on one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())]).replace("\n", " ")
