"""One run at a time in a folder: a lock for each rank, which another run finds."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from facexai.evaluate._disk import READ_ONLY

_BEAT = 30.0  # seconds between signs of life
_STALE = 600.0  # seconds without one after which a run on another machine is given up

_mine: set[Path] = set()


@contextmanager
def locked(folder: Path, rank: int) -> Iterator[None]:
    """The folder is this rank's; a run that was killed leaves a lock that the next one takes.

    Raises:
        ValueError: another run is at work in the folder.
    """
    file = (folder / f"lock-{rank}.json").absolute()
    try:
        _take(file)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        yield  # on a disk that is only read nobody can write into the folder, nor do we
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(file, ended), name="facexai-lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        _mine.discard(file)
        file.unlink(missing_ok=True)


def _take(file: Path) -> None:
    content = json.dumps({"host": platform.node(), "pid": os.getpid()})
    while True:
        with suppress(FileExistsError), open(file, "x", encoding="utf-8") as made:
            made.write(content)
            _mine.add(file)
            return
        owner = _owner(file)
        if owner is not None:
            raise ValueError(
                f"another run ({owner}) is at work in {file.parent}; wait until it ends, or choose another folder. If "
                f"none is, delete {file.name} there"
            )
        file.unlink(missing_ok=True)


def _owner(file: Path) -> str | None:
    """Who works there, in words; None for a lock that was left behind."""
    try:
        age = time.time() - file.stat().st_mtime
        written = json.loads(file.read_text(encoding="utf-8"))
        host, pid = str(written["host"]), int(written["pid"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # cut off while it was written, or being written now
        return "which has only begun" if age < _BEAT else None
    if host != platform.node():
        return f"process {pid} on {host}" if age < _STALE else None
    if pid == os.getpid():
        return "in this process" if file in _mine else None
    return f"process {pid}" if _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine runs; where the system cannot say, it does."""
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
