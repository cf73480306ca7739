"""Inspects a pickle program before torch reads it. Nothing is unpickled here.

torch's reader for weights makes tensors and plain values only, but a small file can keep it busy without end or fill
the memory: tuples of tuples of the same tuples have a hash that takes time without end, keys whose hashes are equal are
compared each with each, and some of the types that it knows can have any size.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickletools
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from facexai._errors import truncate

_LONGEST = 300  # characters of the name of a class
_MOST = 3_000_000  # steps of hashing: values in keys, those of tuples in them counted as often as they are in them
_COLLISION = 1_000  # steps that a key may cost whose hash its author can choose
_WIDE = 2**61 - 1  # Python hashes integers modulo this
_PROGRAMS = 5  # one after the other in torch's old format
_ROOTS = ("torch", "collections", "builtins", "_codecs")
"""Packages of the names that torch's reader accepts. It stops at any other name that the user did not add."""
_ANY_SIZE = re.compile(r"_codecs\.encode|builtins\.bytearray|torch\.(.*\.)?\w*(Tensor|Storage)")
"""What makes as many bytes, or takes as much time, as a file says."""

TORCHSCRIPT = "constants.pkl"
"""A file that only archives of TorchScript have."""


def checked(path: Path) -> list[str]:
    """Returns names in a file of ``torch.save``, none in the old format; refuses what would fill the memory
    or keep torch busy.

    Raises:
        ValueError: an archive that is damaged or unpacks to more than it has; a name or a tuple without end.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            for _ in range(_PROGRAMS):
                if not _look(file, path.name):
                    break
            return []
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith(TORCHSCRIPT) for entry in entries):
                return [entry.filename for entry in entries]  # nobody will unpack it
            _check_size(entries, path)
            # torch finds its program whatever the case of its name
            programs = [archive.read(entry) for entry in entries if entry.filename.lower().endswith("data.pkl")]
    except _Refused:
        raise
    except Exception as error:  # of many types: a damaged directory, an unknown version, a checksum
        raise _damaged(path.name, error) from None
    for program in programs:
        _look(io.BytesIO(program), path.name)
    return [entry.filename for entry in entries]


class _Refused(ValueError):
    """A readable file that is refused."""


def _check_size(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size:
        raise _Refused(
            f"{path.name!r} unpacks from {size} to {unpacked} bytes, expected an archive that is not compressed, as "
            "torch.save writes it; zip it again without compression if you trust it"
        )


def _damaged(name: str, why: object) -> ValueError:
    return ValueError(
        f"{name!r} cannot be read ({truncate(why)}): truncated, or another kind of file? copy or download it again"
    )


def _look(file: Any, name: str) -> bool:
    """Returns whether a program was followed to its end: torch stops at a name that it does not know."""
    machine, codes = _Machine(name), pickletools.genops(file)
    while True:
        try:
            code, given, _ = next(codes)
        except StopIteration:
            return True
        except Exception as error:  # of many types
            raise _damaged(name, error) from None
        step = _STEPS.get(code.name)
        if step is None:
            raise _damaged(name, f"the code {code.name} of pickle, which torch.save does not write")
        try:
            if step(machine, given) is _STRANGE:
                return False
        except IndexError:
            raise _damaged(name, "something is taken that was never put there") from None


_STRANGE = object()


def _added() -> set[str]:
    """Returns the globals that the user told torch to trust."""
    added = torch.serialization.get_safe_globals()
    return {one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in added}


@final
@dataclass(eq=False, slots=True)
class _Value:
    """The known facts about a value.

    Attributes:
        parts: the values in it. Lists and dictionaries get theirs later, also where others hold them already.
        chosen: whether the author of the file can choose its hash.
        name: of a class or a function.
    """

    parts: list[_Value] = field(default_factory=list)
    chosen: bool = False
    name: str = ""


_PLAIN, _WIDE_INTEGER, _MARK = _Value(), _Value(chosen=True), _Value()
_FIXED = (_PLAIN, _WIDE_INTEGER, _MARK)


@final
class _Machine:
    """The stack of a program, and its number of hashing steps."""

    def __init__(self, file: str) -> None:
        self.file, self.work = file, 0
        self.stack: list[_Value] = []
        self.memo: dict[int, _Value] = {}

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def plain(self, _: Any) -> None:
        self.stack.append(_PLAIN)

    def empty(self, _: Any) -> None:
        self.stack.append(_Value())

    def integer(self, given: int) -> None:
        self.stack.append(_WIDE_INTEGER if abs(given) >= _WIDE else _PLAIN)

    def named(self, given: str) -> object:
        """Returns a class or a function."""
        if len(given) > _LONGEST:
            raise ValueError(
                f"{self.file!r} asks for a class whose name has {len(given)} characters; it is no checkpoint"
            )
        module, _, name = given.partition(" ")
        module, name = _compat_pickle.NAME_MAPPING.get(
            (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
        )
        self.stack.append(_Value(name=f"{module}.{name}"))
        return None if module.split(".")[0] in _ROOTS or f"{module}.{name}" in _added() else _STRANGE

    def put(self, given: int) -> None:
        self.memo[given] = self.stack[-1]

    def get(self, given: int) -> None:
        self.stack.append(self.memo.get(given, _PLAIN))

    def marked(self) -> list[_Value]:
        """Returns the values above the last mark, taken away with it."""
        taken: list[_Value] = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]

    def taken(self, count: int) -> list[_Value]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def tuple_of(self, values: list[_Value]) -> None:
        self.stack.append(_Value(values, chosen=True))

    def filled(self, values: Sequence[_Value], keys: Sequence[_Value] = ()) -> None:
        """Appends values to a list or a dictionary."""
        self.hashed(keys)
        if self.stack[-1] in _FIXED:
            raise IndexError
        self.stack[-1].parts.extend(values)

    def called(self, _: Any) -> None:
        """Replaces a class or function and its tuple of arguments by a description of the call."""
        called, given = self.taken(2)
        if _ANY_SIZE.fullmatch(called.name):
            raise ValueError(
                f"{self.file!r} asks for {called.name} with values of its own, which weights do not need and which can "
                "fill the memory; load it where its own code is and save its state dict alone"
            )
        if called.name.startswith("torch._"):  # makes a tensor
            self.stack.append(_Value())
        else:  # what it holds may become keys
            self.hashed(given.parts)
            self.stack.append(_Value(given.parts, chosen=True))

    def built(self, _: Any) -> None:
        """Applies a state to the described object, into its dictionary."""
        self.hashed([self.stack.pop()])

    def stored(self, _: Any) -> None:
        """Replaces a storage by its description."""
        self.hashed(self.stack.pop().parts)
        self.stack.append(_PLAIN)

    def hashed(self, keys: Sequence[_Value]) -> None:
        rest = list(keys)
        while rest:
            value = rest.pop()
            rest += value.parts
            self.work += _COLLISION if value.chosen else 1
            if self.work > _MOST:
                raise ValueError(
                    f"{self.file!r} holds keys that take more than {_MOST} steps to compare, such as tuples in tuples; "
                    "it is no checkpoint"
                )


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("NONE", "NEWFALSE", "NEWTRUE", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"), _Machine.plain),
    **dict.fromkeys(("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), _Machine.empty),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _Machine.integer),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.called),
    "MARK": _Machine.mark,
    "GLOBAL": _Machine.named,
    "BINPERSID": _Machine.stored,
    "BUILD": _Machine.built,
    "TUPLE": lambda machine, _: machine.tuple_of(machine.marked()),
    "TUPLE1": lambda machine, _: machine.tuple_of(machine.taken(1)),
    "TUPLE2": lambda machine, _: machine.tuple_of(machine.taken(2)),
    "TUPLE3": lambda machine, _: machine.tuple_of(machine.taken(3)),
    "APPEND": lambda machine, _: machine.filled(machine.taken(1)),
    "APPENDS": lambda machine, _: machine.filled(machine.marked()),
    "SETITEM": lambda machine, _: machine.filled(pair := machine.taken(2), pair[:1]),
    "SETITEMS": lambda machine, _: machine.filled(pairs := machine.marked(), pairs[::2]),
}
"""The opcodes that torch's reader accepts."""
