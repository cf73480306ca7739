"""Locks of a run's folder, one for each rank, so that a second run is refused."""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from facexai.evaluate._disk import READ_ONLY

_BEAT = 30.0  # seconds between signs of life
_STALE = 600.0  # seconds without one after which a run on another machine is given up
_POLL = 0.05

_mine: set[Path] = set()


@contextmanager
def locked(folder: Path, rank: int, run: str = "") -> Iterator[None]:
    """Locks the folder for this rank of a run; stale locks of a run that was killed are taken over.

    Args:
        folder: of the run; it is created where it is missing.
        rank: number of this worker.
        run: what all ranks of the run have in common, and other runs have not.

    Raises:
        ValueError: another run is at work in the folder.
        OSError: the folder cannot be written.
    """
    file = (folder / f"lock-{rank}.json").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(file, run)
    except OSError as error:
        if error.errno in READ_ONLY and folder.is_dir():
            yield  # on a disk that is only read nobody can write into the folder, nor do we
            return
        raise OSError(f"cannot write into {folder} ({error.strerror or error}); choose another folder") from error
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(file, ended), name="facexai-lock", daemon=True)
    try:
        _check_others(file, run)
        beat.start()
        yield
    finally:
        ended.set()
        _mine.discard(file)
        file.unlink(missing_ok=True)


def _take(file: Path, run: str) -> None:
    while True:
        try:
            made = open(file, "x", encoding="utf-8")  # noqa: SIM115 (what was there before is not ours to remove)
        except FileExistsError:
            _remove_stale(file)
            continue
        try:
            with made:
                made.write(json.dumps({"host": platform.node(), "pid": os.getpid(), "run": run}))
        except OSError:  # the disk is full
            file.unlink(missing_ok=True)
            raise
        _mine.add(file)
        return


def _check_others(file: Path, run: str) -> None:
    """Refuses if a rank of another run is at work, and removes stale locks."""
    for other in sorted({path.absolute() for path in file.parent.glob("lock-*.json")} - {file}):
        owner = _owner(other, other)
        while owner is not None and owner.run is None:  # it is being written: in a moment it says whose it is
            time.sleep(_POLL)
            owner = _owner(other, other)
        if owner is None:
            _remove_stale(other)
        elif owner.run != run:
            raise _refused(other, owner)


def _remove_stale(file: Path) -> None:
    """Removes a stale lock; if two runs do so at once, the second meets the lock of the first.

    Raises:
        ValueError: the run that it belongs to is at work.
    """
    if (owner := _owner(file, file)) is not None:
        raise _refused(file, owner)
    aside = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        os.replace(file, aside)
    except FileNotFoundError:
        return
    if (owner := _owner(aside, file)) is not None:  # another run took the place of the stale lock in this moment
        os.replace(aside, file)
        raise _refused(file, owner)
    aside.unlink(missing_ok=True)


def _refused(file: Path, owner: _Owner) -> ValueError:
    return ValueError(
        f"another run ({owner.name}) is at work in {file.parent}; wait until it ends, or choose another folder. If "
        f"none is, delete {file.name} there"
    )


@final
@dataclass(frozen=True)
class _Owner:
    """The owner of a lock.

    Attributes:
        name: process and machine, in words.
        run: as in :func:`locked`; None if it is not known yet.
    """

    name: str
    run: str | None


def _owner(file: Path, lock: Path) -> _Owner | None:
    """Returns the owner of a lock, whose content ``file`` holds; None for a stale lock."""
    try:
        age = time.time() - file.stat().st_mtime
        written = json.loads(file.read_text(encoding="utf-8"))
        host, pid, run = str(written["host"]), int(written["pid"]), str(written.get("run", "of another version"))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):  # cut off while it was written, or being written now
        return _Owner("which has only begun", None) if age < _BEAT else None
    if host != platform.node():
        return _Owner(f"process {pid} on {host}", run) if age < _STALE else None
    if pid == os.getpid():
        return _Owner("in this process", run) if lock in _mine else None
    return _Owner(f"process {pid}", run) if _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    """Returns whether a process of this machine is running; True where the system cannot tell."""
    if os.name == "nt":  # there os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT):
        with suppress(OSError):
            os.utime(file)
