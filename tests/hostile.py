"""Hostile input: seeded generators of malformed files, and the check that a reader survives them.

A reader survives an input if it gives a whole answer or one clear error of a documented type, in bounded time and
memory, runs nothing that the input asks for and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

try:
    import resource
except ImportError:  # Windows: without limits of memory
    resource = None  # type: ignore[assignment]

Mutate = Callable[[Random], bytes]

_STARTS = ("subprocess.", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.system", "pty.", "webbrowser.")
_EVENTS = ("pickle.find_class", "socket.connect", "socket.bind", "socket.getaddrinfo", "os.startfile", "urllib.Request")
_VIRTUAL = 4 * 2**30  # bytes of addresses that one input may ask for; more is an error of memory
_DRAWS = 20  # for each input that is wanted
_LONGEST = 2000  # characters of a clear message
_watched: list[str] | None = None


# ---- malformed bytes --------------------------------------------------------------------------------------------

_SIZES = (0, 1, 2, 127, 128, 255, 2**15 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def truncated(data: bytes, rng: Random) -> bytes:
    """Cut at a place of some class: nothing left, inside the header, anywhere, just before the end."""
    places = (0, 1, rng.randrange(16), rng.randrange(len(data) + 1), len(data) - 1, len(data) - 1 - rng.randrange(64))
    return data[: max(0, rng.choice(places))]


def flipped(data: bytes, rng: Random) -> bytes:
    """One to eight bits the other way round."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def overwritten(data: bytes, rng: Random) -> bytes:
    """A few bytes, or a stretch, of extreme values."""
    made, at = bytearray(data), rng.randrange(len(data))
    stretch = rng.choice((1, 1, 2, 4, 16, 256))
    made[at : at + stretch] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2E, rng.randrange(256)))]) * len(
        made[at : at + stretch]
    )
    return bytes(made)


def lying(data: bytes, rng: Random) -> bytes:
    """A number of 2, 4 or 8 bytes, of either order, at a place where a length may stand."""
    width = rng.choice((2, 4, 4, 8))
    if len(data) < width:
        return data * 2
    at = rng.choice((rng.randrange(min(len(data) - width + 1, 128)), rng.randrange(len(data) - width + 1)))
    value = rng.choice((*_SIZES, len(data), len(data) + 1, len(data) - at, rng.getrandbits(64)))
    number = (value % 2 ** (8 * width)).to_bytes(width, rng.choice(("little", "big")))
    return data[:at] + number + data[at + width :]


def spliced(data: bytes, other: bytes, rng: Random) -> bytes:
    """The head of one file and the tail of another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def shuffled(data: bytes, rng: Random) -> bytes:
    """A chunk that is doubled, dropped, moved, repeated or followed by noise."""
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    chunk, at = data[a:b], rng.randrange(len(data) + 1)
    kind = rng.randrange(5)
    if kind == 0:
        return data[:b] + chunk + data[b:]
    if kind == 1:
        return data[:a] + data[b:]
    if kind == 2:
        return data[:at] + chunk + data[at:]
    if kind == 3:
        return data[:b] + data[a : a + 16] * rng.choice((2, 50, 1000)) + data[b:]
    return data + rng.randbytes(rng.choice((1, 7, 300)))


def noise(data: bytes, rng: Random) -> bytes:
    """Random bytes, also behind the first bytes of a good file."""
    return data[: rng.choice((0, 2, 4, 8, 12, 16, 64))] + rng.randbytes(rng.choice((1, 10, 100, 1000)))


def any_of(seeds: Sequence[bytes], *own: Mutate) -> Mutate:
    """Malformed versions of good files: of the generators for any format, and of those that know the format."""
    simple = (truncated, flipped, overwritten, lying, shuffled, noise)

    def mutate(rng: Random) -> bytes:
        if own and rng.random() < 0.5:
            made = rng.choice(own)(rng)
            return rng.choice(simple)(made, rng) if made and rng.random() < 0.1 else made
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            data = data or rng.choice(seeds)
            kind = rng.randrange(len(simple) + 1)
            data = spliced(data, rng.choice(seeds), rng) if kind == len(simple) else simple[kind](data, rng)
        return data

    return mutate


# ---- malformed values -------------------------------------------------------------------------------------------

WORDS = (
    "", " ", "0", "-1", "1", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "0x10", "1_000", "9" * 400, "9" * 5000,
    "18446744073709551616", "٣", "true", "null", "None", "..", ".", "/", "../../etc/passwd", "/etc/passwd", "a/../../b",
    "C:\\x", "\\\\host\\share", "a\x00b", "\x00", "\n", "\r", "\r\n", "a\tb", "\x1b[2J", "\u202egpj.exe", "\u2028",
    "😀", "<script>alert(1)</script>", "'; DROP TABLE x; --", "=cmd|' /C calc'!A0", "{0.__class__}", "%s%n", "${x}",
    "`id`", "$(id)", '"', "''", '"""', ",", ";", "[" * 50, "{" * 50, "a" * 300, "b" * 5000, "x" * 140_000, "é" * 200,
    "\ufeff", "os:system", "builtins:exec", "__import__('os').system('id')", "__reduce__", "__class__", "\xed\xa0\x80",
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 0.5, 1e308, 1e-320, float("nan"),
    float("inf"), -float("inf"), [], {}, [[]], [1], [1, 2], [-1, -1], [0, 0], [2**40, 2**40], [None], ["a"],
    [float("nan")], {"a": 1}, {"": {}}, [[[[[]]]]], "@deep@", *WORDS,
)  # fmt: skip


def altered(value: Any, rng: Random) -> Any:
    """A tree of lists and dictionaries with one node changed."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        made, key = dict(value), rng.choice(list(value))
        kind = rng.random()
        if kind < 0.15:
            del made[key]
        elif kind < 0.25:
            made[rng.choice(WORDS[:-1])] = made.pop(key)
        elif kind < 0.3:
            made[rng.choice(WORDS[:-1])] = rng.choice(VALUES)
        else:
            made[key] = altered(made[key], rng)
        return made
    if isinstance(value, list) and value and rng.random() < 0.7:
        made, at = list(value), rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.15:
            del made[at]
        elif kind < 0.3:
            made = made * rng.choice((2, 100))
        else:
            made[at] = altered(made[at], rng)
        return made
    return rng.choice(VALUES)


def as_json(value: Any) -> bytes:
    """JSON with NaN, and with what Python itself would not write: brackets in brackets without end."""
    text = json.dumps(value, ensure_ascii=False)
    for depth in (60, 100_000):
        text = text.replace('"@deep@"', "[" * depth + "]" * depth, 1)
    return text.encode("utf-8", "surrogatepass")


def json_of(seed: Any) -> Mutate:
    """JSON of an altered tree."""

    def mutate(rng: Random) -> bytes:
        value = altered(seed, rng)
        return as_json(altered(value, rng) if rng.random() < 0.3 else value)

    return mutate


def words_of(seeds: Sequence[bytes], separators: bytes) -> Mutate:
    """Text in which some of the words between the separators are hostile ones."""

    def mutate(rng: Random) -> bytes:
        text = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 2, 5))):
            ends = [i for i in range(len(text)) if text[i : i + 1] in separators] or [0]
            a = rng.choice(ends)
            b = min((i for i in ends if i > a), default=len(text))
            text = text[: a + 1] + rng.choice(WORDS).encode() + text[b:]
        return text

    return mutate


# ---- a reader ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Something that reads files of others.

    Attributes:
        name: what it reads.
        mutate: a malformed input from random numbers.
        read: reads it; raises AssertionError where an answer is not whole or something was changed.
        good: inputs that must be read.
        says: one of these must be in an error's message.
        errors: the documented types, exactly; or a type of the library's own.
        few: inputs of a quick test.
        seconds, mib: what one input may take.
    """

    name: str
    mutate: Mutate
    read: Callable[[bytes], object]
    good: Sequence[bytes]
    says: tuple[str, ...]
    errors: tuple[type[Exception], ...] = (ValueError,)
    few: int = 300
    seconds: float = 5.0
    mib: float = 300.0


def count_of(reader: Reader) -> int:
    """How many inputs a test gives: few, or as many as FACEXAI_FUZZ says."""
    return int(os.environ.get("FACEXAI_FUZZ", reader.few))


@dataclass
class Tally:
    """What happened to the inputs of a reader."""

    name: str
    inputs: int = 0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: float = 0.0
    executed: int = 0
    hung: int = 0
    left: int = 0
    broken: list[tuple[str, bytes]] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """One line of a table."""
        told = ", ".join(f"{name} {count}" for name, count in self.errors.most_common())
        row: dict[str, Any] = {"reader": self.name, "inputs": self.inputs, "errors by type": told}
        row |= {"answers": self.answers, "slowest ms": round(1000 * self.slowest, 1), "peak MiB": round(self.peak, 1)}
        row |= {"executed": self.executed, "hung": self.hung, "files left": self.left}
        return row | {"contract broken": len(self.broken)}


class Hung(BaseException):
    """An input took longer than it may."""


def tried(reader: Reader, count: int, folder: Path, seed: int = 0) -> Tally:
    """Give a reader so many inputs, no two alike and none a good one; the same ones for the same seed."""
    tally, rng = Tally(reader.name), Random(f"{reader.name}, {seed}")
    for data in reader.good:
        reader.read(data)
    if not reader.good:
        with contextlib.suppress(*reader.errors):
            reader.read(b"none")
    before = _listed(folder)
    with _watching() as events, _temporary(folder), contextlib.chdir(folder), _alarm():
        seen = set(map(hash, reader.good))
        for _ in range(_DRAWS * count):
            data = reader.mutate(rng)
            if hash(data) not in seen:
                seen.add(hash(data))
                survives(reader, data, tally, events)
            if tally.inputs == count:
                break
    left = sorted(_listed(folder) - before)
    tally.left = len(left)
    if left:
        tally.broken.append((f"files left: {left[:3]}", b""))
    return tally


def survives(reader: Reader, data: bytes, tally: Tally, events: list[str]) -> None:
    """Read one input and count what happened; what breaks the contract is kept."""
    tally.inputs += 1
    del events[:]
    told, (resident, limits) = "", _bounded()
    start = time.process_time()  # of the processor: other programs do not count
    signal.setitimer(signal.ITIMER_REAL, 4 * reader.seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(data)
        tally.answers += 1
    except Hung:
        tally.hung += 1
        told = "it hangs"
    except AssertionError as error:
        told = f"a wrong answer: {error}"
    except Exception as error:
        documented = next((kind for kind in reader.errors if isinstance(error, kind)), type(error))
        tally.errors[documented.__name__] += 1
        told = _unclear(error, reader)
    except BaseException as error:  # such as a panic of Rust, or SystemExit
        if isinstance(error, KeyboardInterrupt):
            raise
        told = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.process_time() - start
        peak = _released(resident, limits)
    tally.slowest, tally.peak = max(tally.slowest, took), max(tally.peak, peak)
    if events:
        tally.executed += 1
        told = f"it executed {events[:3]}"
    elif not told and took > reader.seconds:
        tally.hung += 1
        told = f"it took {took:.1f} s"
    elif not told and peak > reader.mib:
        told = f"it took {peak:.0f} MiB"
    if told:
        tally.broken.append((told, data))


def _unclear(error: Exception, reader: Reader) -> str:
    """What is wrong with an error; nothing where it is a clear one."""
    name, text = f"{type(error).__module__}.{type(error).__name__}", str(error)
    if type(error) not in reader.errors and not type(error).__module__.startswith("facexai"):
        return f"{name}: {text[:200]}"
    if not any(word in text for word in reader.says):
        return f"{name} does not say what was read: {text[:200]!r}"
    if len(text) > _LONGEST:
        return f"{name} of {len(text)} characters: {text[:80]!r}"
    return ""


# ---- limits -----------------------------------------------------------------------------------------------------


def _status(name: str) -> int:
    """KiB that the system reports about this process; 0 where it does not."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return 0


def _bounded() -> tuple[int, Any]:
    """KiB in use, after the mark of the most was set back and the addresses were limited; and the limits before."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    size = _status("VmSize")
    if resource is None or not size:
        return 0, None
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1024 * size + _VIRTUAL, limits[1]))
    return _status("VmRSS"), limits


def _released(resident: int, limits: Any) -> float:
    """MiB that were in use at most, above what was in use before; and no limits any more."""
    if resource is None or limits is None:
        return 0.0
    resource.setrlimit(resource.RLIMIT_AS, limits)
    return max(0, _status("VmHWM") - resident) / 1024


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """Temporary files go where those that are left are seen."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _watching() -> Iterator[list[str]]:
    """What Python is about to do: start a process, open a connection, look a class up for a pickle."""
    global _watched
    if not getattr(sys, "_facexai_watched", False):  # hooks stay for ever
        sys.addaudithook(_hook)
        sys._facexai_watched = True  # type: ignore[attr-defined]
    _watched = events = []
    try:
        yield events
    finally:
        _watched = None


def _hook(event: str, given: tuple[Any, ...]) -> None:
    if _watched is not None and (event.startswith(_STARTS) or event in _EVENTS):
        _watched.append(f"{event} {given[:2]!r:.80}")


def _listed(folder: Path) -> set[str]:
    return {os.path.join(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)}
