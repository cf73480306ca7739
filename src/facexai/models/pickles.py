"""What a program of pickle asks for, looked at before torch reads it. Nothing is unpickled here.

torch's reader for weights makes tensors and plain values only, but a small file can keep it busy for ever: tuples of
tuples of the same tuples have a hash that takes time without end, and names of classes without end fill its messages.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from facexai._messages import clipped

_LONGEST = 300  # characters of the name of a class
_MOST = 10_000_000  # values in a tuple, those of tuples in it counted as often as they are in it
_PROGRAMS = 5  # one after the other in torch's old format
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


TORCHSCRIPT = "constants.pkl"
"""A file that only archives of TorchScript have."""


def checked(path: Path) -> list[str]:
    """Names in a file of ``torch.save``, none in the old format; refuses what would fill the memory or keep torch busy.

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
            programs = [archive.read(entry) for entry in entries if entry.filename.endswith("data.pkl")]
    except _Refused:
        raise
    except Exception as error:  # of many types: a damaged directory, an unknown version, a checksum
        raise ValueError(
            f"{path.name!r} cannot be read ({clipped(error)}): truncated, or another kind of file? "
            "copy or download it again"
        ) from None
    for program in programs:
        _look(io.BytesIO(program), path.name)
    return [entry.filename for entry in entries]


class _Refused(ValueError):
    """A file that can be read and is not wanted."""


def _check_size(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
    if unpacked > size:
        raise _Refused(
            f"{path.name!r} unpacks from {size} to {unpacked} bytes, expected an archive that is not compressed, as "
            "torch.save writes it; zip it again without compression if you trust it"
        )


def _look(file: Any, name: str) -> bool:
    """Whether a program was followed to its end."""
    machine, codes = _Machine(), pickletools.genops(file)
    while True:
        try:
            code, given, _ = next(codes)
        except StopIteration:
            return True
        except Exception:  # a damaged program, which torch's reader refuses at the same place
            return False
        if code.name in ("GLOBAL", "INST") and len(str(given)) > _LONGEST:
            raise ValueError(
                f"{name!r} asks for a class whose name has {len(str(given))} characters; it is no checkpoint"
            )
        try:
            machine.step(code, given)
        except IndexError:  # something is taken that was never put there
            return False
        if machine.stack and (machine.stack[-1] or 0) > _MOST:
            raise ValueError(
                f"{name!r} holds tuples in tuples that unpack to more than {_MOST} values; it is no checkpoint"
            )


@final
class _Machine:
    """The stack of a program: of every value only how many values are in it, None for a mark."""

    def __init__(self) -> None:
        self.stack: list[int | None] = []
        self.memo: dict[int, int | None] = {}

    def step(self, code: pickletools.OpcodeInfo, given: Any) -> None:
        if code.name == "MARK":
            self.stack.append(None)
        elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if given is None else given] = self.stack[-1]
        elif code.name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(given, 1))
        elif code.name == "TUPLE":
            self.stack.append(1 + sum(self.marked()))
        elif code.name in _TUPLES:
            self.stack.append(1 + sum(self.stack.pop() or 0 for _ in range(_TUPLES[code.name])))
        else:
            self.other(code)

    def other(self, code: pickletools.OpcodeInfo) -> None:
        """Take what the code takes and put what it puts, which holds no more than the largest of what was taken."""
        before = list(code.stack_before)
        taken = []
        if pickletools.markobject in before:
            taken = self.marked()
            before = before[: before.index(pickletools.markobject)]
        taken += [self.stack.pop() or 0 for _ in before]
        after = [kind for kind in code.stack_after if kind is not pickletools.markobject]
        self.stack += [max(taken, default=1) for _ in after]

    def marked(self) -> list[int]:
        """The values above the last mark, taken away with it."""
        taken: list[int] = []
        while (value := self.stack.pop()) is not None:
            taken.append(value)
        return taken
