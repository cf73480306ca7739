"""Formats numbers and names for a page."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from facexai._errors import printable, truncate

NONE = "\u2013"
"""The sign for an unknown number."""

_DIGITS = 3
_MOST_DIGITS = 17  # tell any two doubles apart
_LONGEST = 120  # characters of a name inside a sentence
_START, _END = "\u2068", "\u2069"  # of a text whose direction is its own
_ISOLATED = re.compile(f"{_START}[^{_START}{_END}]*{_END}")


def number(value: float | None, digits: int = _DIGITS, *, full: float = 1.0) -> str:
    """Returns a number as text; a number below ``full`` is never rounded up to it.

    >>> number(0.123456), number(1234567.0), number(-0.0), number(42)
    ('0.123', '1,234,567', '0', '42')
    >>> number(0.999999), number(99.96, full=100.0)
    ('0.999999', '99.96')
    """
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    while abs(value) < full <= abs(float(f"{value:.{digits}g}")):
        digits += 1
    if abs(float(f"{value:.{digits}g}")) >= 10**digits:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.{max(digits - 2, 1)}e}"
    return f"{value:.{digits}g}"


def percent(share: float | None, digits: int = _DIGITS) -> str:
    """Returns a share as text in per cent; 100 is all of it.

    >>> percent(0.12345), percent(0.9996), percent(1.0), percent(None)
    ('12.3', '99.96', '100', '\u2013')
    """
    return NONE if share is None else number(100 * float(share), digits, full=100.0)


def rough(share: float) -> str:
    """Returns a share for a sentence, in whole per cent where that is enough; nearly all is not all.

    >>> rough(0.347), rough(0.0043), rough(0.9964), rough(1e-9), rough(0.0)
    ('35 %', '0.4 %', 'over 99 %', 'under 0.1 %', '0 %')
    """
    if 0.995 <= share < 1:
        return "over 99 %"
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.0095 else f"{100 * share:.0f} %"


def apart(some: float | Sequence[float | None] | None, others: float | Sequence[float | None] | None) -> int:
    """Returns the number of digits at which compared numbers read differently wherever they differ.

    >>> apart(0.9881, [0.9884, 0.2]), number(0.9881, 4), number(0.9884, 4)
    (4, '0.9881', '0.9884')
    >>> apart(0.5, 0.5), apart(None, 0.1)
    (3, 3)
    """
    left, right = ({float(v) for v in (held if isinstance(held, Sequence) else [held]) if v is not None}
                   for held in (some, others))  # fmt: skip
    digits = _DIGITS
    while digits < _MOST_DIGITS and any(a != b and number(a, digits) == number(b, digits) for a in left for b in right):
        digits += 1
    return digits


def name_of(value: object) -> str:
    """Returns a name as a field of the record: direction and control characters become escapes.

    >>> name_of("eve\\u202e 0.9"), name_of("a\\nb")
    ('eve\\\\u202e 0.9', 'a b')
    """
    return printable("".join(" " if c.isspace() else c for c in str(value)))


def inside(name: object) -> str:
    """Returns a name for a sentence: truncated, and isolated so that it cannot reorder the numbers that follow.

    >>> inside("Ann"), inside("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"
    ('Ann', True)
    """
    told = truncate(name_of(name), _LONGEST)
    turned = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in told)
    return f"{_START}{told}{_END}" if turned else told


def clean(value: Any) -> Any:
    """Returns a record without control or direction characters in its texts."""
    if isinstance(value, Mapping):
        return {clean(name): clean(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [clean(held) for held in value]
    if not isinstance(value, str):
        return value
    kept = _ISOLATED.findall(value)
    return "".join(
        name_of(part) + (f"{_START}{name_of(kept[k][1:-1])}{_END}" if k < len(kept) else "")
        for k, part in enumerate(_ISOLATED.split(value))
    )
