"""Packed pair files (``.bin``): the few byte codes of pickle that lists of bytes need, read as data.

Nothing is unpickled. No code of a file can reach a class, a function or a module: one that refers to them ends the
reading with its name in the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, final

_MOST_STEPS = 2_000_000  # a set of 14,000 images takes about 50,000
_MARK = object()
_ENCODE = object()  # stands for _codecs.encode, with which Python 3 writes bytes for Python 2; never called

_QUOTED = re.compile(rb"""(['"])(?:[^\\]|\\(?:x[0-9a-f]{2}|[\\'"nrt]))*\1""", re.S)  # as Python 2 writes a str

_BYTES = {"U": 1, "T": 4, "C": 1, "B": 4, "\x8e": 8, "\x96": 8}  # code: bytes of the length before the content
_TEXT = {"\x8c": 1, "X": 4, "\x8d": 8}
_SKIPPED = {"\x80": 1, "\x95": 8}  # the version, and the length of a frame
_INTEGERS = {"K": 1, "M": 2, "J": 4}
_STORE, _FETCH = {"q": 1, "r": 4, "p": 0}, {"h": 1, "j": 4, "g": 0}  # 0: a number on a line of its own
_FIXED: dict[str, Any] = {"(": _MARK, "\x88": True, "\x89": False, ")": ()}
_LENGTHS = {"\x85": 1, "\x86": 2, "\x87": 3}
_OBJECTS = "ioRb\x81\x92\x93\x82\x83\x84PQ"  # codes that make an object, by a class, a call or a number
_NUMBERS = "GFLN\x8a\x8b"


def read_packed(path: Path, max_bytes: int) -> tuple[tuple[bytes, ...], tuple[bool, ...]]:
    """Reads the encoded images and labels of a ``.bin`` file: a pickled pair (list of 2 P byte
    strings, list of P bools).

    Args:
        path: written by Python 2 or 3, in any version of pickle.
        max_bytes: refuse larger files.

    Returns:
        2 P images as they are in the file (JPEG or PNG; images 2 i and 2 i + 1 are pair i), and P labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: too large, truncated, damaged, of another content, or one that refers to code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than max_bytes={max_bytes}")
    try:
        return _checked(_Reader(path.read_bytes()).read())
    except _Bad as error:
        raise ValueError(f"{path}: {error}") from error


class _Bad(ValueError):
    """Says what is wrong with the file."""


def _checked(content: object) -> tuple[tuple[bytes, ...], tuple[bool, ...]]:
    if (
        not isinstance(content, list | tuple)
        or len(content) != 2
        or not all(isinstance(c, list | tuple) for c in content)
    ):
        raise _Bad("expected a pair of lists, (encoded images, labels), got something else")
    images, labels = content
    if len(images) % 2:
        raise _Bad(f"expected two images per pair, got the odd number of {len(images)} images")
    if len(images) != 2 * len(labels) or not images:
        raise _Bad(f"expected two images per label, got {len(images)} images and {len(labels)} labels")
    for i, image in enumerate(images):
        if not isinstance(image, bytes) or not image:
            raise _Bad(f"expected image {i} as the bytes of a picture, got {_kind(image)}")
    for i, label in enumerate(labels):
        if not isinstance(label, int) or label not in (0, 1):
            raise _Bad(f"expected label {i} as True or False, got {_kind(label)}")
    return tuple(images), tuple(bool(label) for label in labels)


def _kind(value: object) -> str:
    if isinstance(value, bytes | str | list | tuple) and not value:
        return f"an empty {type(value).__name__}"
    return str(value) if isinstance(value, int) else f"a {type(value).__name__}"


@final
class _Reader:
    """A stack machine over the bytes of the file. Every length is checked against what is left before it is used."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place, self.encoded = data, 0, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[], None]] = {
            "S": self._quoted,
            "V": lambda: self.stack.append(self._decoded(self._line(), "raw-unicode-escape")),
            "I": lambda: self.stack.append(self._number()),  # 00 and 01 are False and True
            "]": lambda: self.stack.append([]),
            "a": lambda: self._extend(self._pop(1)),
            "e": lambda: self._extend(self._marked()),
            "t": lambda: self.stack.append(tuple(self._marked())),
            "l": lambda: self.stack.append(self._marked()),
            "\x94": lambda: self._keep(len(self.memo)),
            "c": lambda: self._name(*(self._decoded(self._line(), "utf-8") for _ in range(2))),
            "\x93": self._name_of_texts,
            "R": self._call,
        }

    def read(self) -> object:
        if not self.data:
            raise _Bad("the file is empty")
        for _ in range(_MOST_STEPS):
            code = chr(self._take(1)[0])
            if code == ".":
                return self._result()
            self._step(code)
        raise _Bad(f"more than {_MOST_STEPS} steps, which no list of images takes")

    def _step(self, code: str) -> None:
        if code in _BYTES:
            self.stack.append(self._take(self._integer(_BYTES[code])))
        elif code in _TEXT:
            self.stack.append(self._decoded(self._take(self._integer(_TEXT[code])), "utf-8"))
        elif code in _FIXED:
            self.stack.append(_FIXED[code])
        elif code in _INTEGERS:
            self.stack.append(self._integer(_INTEGERS[code]))
        elif code in _STORE:
            self._keep(self._integer(_STORE[code]) if _STORE[code] else self._number())
        elif code in _FETCH:
            self._fetch(self._integer(_FETCH[code]) if _FETCH[code] else self._number())
        elif code in _LENGTHS:
            self.stack.append(tuple(self._pop(_LENGTHS[code])))
        elif code in _SKIPPED:
            self._take(_SKIPPED[code])
        elif code in self.steps:
            self.steps[code]()
        else:
            self._refuse(code)

    def _refuse(self, code: str) -> NoReturn:
        where = f"at byte {self.place - 1}"
        if code in _OBJECTS:
            raise _Bad(f"{where} it asks for an object to be made; nothing but lists of bytes and bools is read")
        if code in _NUMBERS:
            raise _Bad(f"{where} stands a number, None or NaN; expected images as bytes and labels as True or False")
        raise _Bad(f"{where} stands {code!r}, which no list of bytes needs; the file is damaged or of another kind")

    def _result(self) -> object:
        if len(self.stack) != 1:
            raise _Bad(f"it ends with {len(self.stack)} values, expected one; the file is damaged")
        if self.place != len(self.data):
            raise _Bad(f"{len(self.data) - self.place} bytes follow its end; the file is damaged")
        return self.stack[0]

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self.place:
            raise _Bad(f"truncated: {count} bytes expected at byte {self.place} of {len(self.data)}")
        self.place += count
        return self.data[self.place - count : self.place]

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.place)
        if end < 0:
            raise _Bad(f"truncated: a line expected at byte {self.place} of {len(self.data)}")
        line, self.place = self.data[self.place : end], end + 1
        return line

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _number(self) -> int:
        line = self._line()
        if not line.isdigit() or len(line) > 10:
            raise _Bad(f"expected a number before byte {self.place}")
        return int(line)

    def _decoded(self, raw: bytes, encoding: str) -> str:
        try:
            return raw.decode(encoding)
        except ValueError as error:
            raise _Bad(f"text before byte {self.place} is not {encoding}: {error}") from error

    def _quoted(self) -> None:
        line = self._line()
        if not _QUOTED.fullmatch(line):
            raise _Bad(f"expected quoted text before byte {self.place}")
        self.stack.append(self._latin(self._decoded(line[1:-1], "unicode_escape")))

    def _latin(self, text: str) -> bytes:
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise _Bad(f"text before byte {self.place} does not stand for bytes") from error

    def _pop(self, count: int) -> list[Any]:
        values = self.stack[len(self.stack) - count :] if len(self.stack) >= count else [_MARK]
        if any(value is _MARK for value in values):
            raise _Bad(f"a value is missing before byte {self.place}; the file is damaged")
        del self.stack[len(self.stack) - count :]
        return values

    def _marked(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise _Bad(f"a mark is missing before byte {self.place}; the file is damaged")

    def _extend(self, values: list[Any]) -> None:
        if not self.stack or not isinstance(self.stack[-1], list):
            raise _Bad(f"expected a list before byte {self.place}; the file is damaged")
        self.stack[-1].extend(values)

    def _keep(self, number: int) -> None:
        (value,) = self._pop(1)
        self.stack.append(value)
        self.memo[number] = value

    def _fetch(self, number: int) -> None:
        if number not in self.memo:
            raise _Bad(f"value {number} is used before byte {self.place} and was never stored; the file is damaged")
        self.stack.append(self.memo[number])

    def _name_of_texts(self) -> None:
        module, name = self._pop(2)
        if not (isinstance(module, str) and isinstance(name, str)):  # the text of lists in lists can be without end
            self._refuse("\x93")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        if (module, name) != ("_codecs", "encode"):
            shown = f"{module[:40]}.{name[:40]}"
            hint = "; save the labels as a list of plain bools" if module.startswith("numpy") else ""
            raise _Bad(f"it asks for {shown!r}, nothing but lists of bytes and bools is read{hint}")
        self.stack.append(_ENCODE)

    def _call(self) -> None:
        """Evaluates the one call that is accepted, ``_codecs.encode(text, "latin1")``, without calling anything."""
        function, given = self._pop(2)
        if function is not _ENCODE or not isinstance(given, tuple) or len(given) != 2 or given[1] != "latin1":
            self._refuse("R")
        if not isinstance(given[0], str):
            self._refuse("R")
        self.encoded += len(given[0])
        if self.encoded > len(self.data):  # the same text again and again: a small file that fills the memory
            raise _Bad("it unpacks to more bytes than it has")
        self.stack.append(self._latin(given[0]))
