"""TOML files read into dataclasses, checked key by key."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from facexai._errors import short_repr, suggest, truncate

Made = TypeVar("Made")

_MOST_BYTES = 2**17
_MOST_DOTS = 200  # on a line; the time for a key of n parts grows with n * n


def read(
    path: Path, kind: type[Made], needs: Sequence[str], example: str, instead: Mapping[str, Any] | None = None
) -> Made:
    """Returns a TOML file as a dataclass; lists become tuples.

    Args:
        path: the file.
        kind: the dataclass.
        needs: keys that the file must have.
        example: the shortest file that works, for messages.
        instead: values that take the place of the file's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TOML, an unknown key, a missing one, a value of another type, a NaN, or more than 128 KiB.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; it needs at least\n{example}")
    content = _parsed(path)
    made = checked(content, kind, path.name) | dict(instead or {})
    missing = [name for name in needs if name not in made]
    if missing:
        raise ValueError(f"{path.name} lacks {missing[0]!r}; it needs at least\n{example}")
    try:
        return kind(**made)
    except ValueError as error:
        raise ValueError(f"{path.name}: {truncate(error)}") from error


def _parsed(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file whose size, keys and brackets are bounded."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than the {_MOST_BYTES} that are read")
    try:
        text = path.read_text("utf-8-sig")
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"expected at most {_MOST_DOTS} dots on a line")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of integers with thousands of digits
        raise ValueError(f"{path.name} is no TOML file: {truncate(error)}") from None


def checked(content: dict[str, Any], kind: type, where: str) -> dict[str, Any]:
    """Returns values by name of a field, lists as tuples; refuses unknown names and other types."""
    hints, names = get_type_hints(kind), {field.name: str(field.type) for field in fields(kind)}
    result = {}
    for name, value in content.items():
        if name not in names:
            raise ValueError(f"{where}: unknown key {short_repr(name)}; {suggest(name, names)}")
        value = tuple(value) if isinstance(value, list) else value
        if not _fits(value, hints[name]):
            raise ValueError(f"{where}: expected {name} as {names[name]}, got {short_repr(value)}")
        if _useless(value):
            raise ValueError(
                f"{where}: expected {name} as a finite number or as text without NUL, got {short_repr(value)}"
            )
        result[name] = value
    return result


def _useless(value: Any) -> bool:
    """Returns whether it is a number that compares with nothing, or a text that no path and no name can be."""
    if isinstance(value, tuple):
        return any(map(_useless, value))
    return (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, str) and "\0" in value)


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(v, get_args(hint)[0]) for v in value)
    if get_origin(hint) is not None:
        hint = get_origin(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or (value is None if hint is NoneType else isinstance(value, hint))
