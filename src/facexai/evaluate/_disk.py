"""Errors about full or read-only disks and about a lack of memory, with a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from facexai._errors import truncate
from facexai.explainers._masked_forward import is_out_of_memory

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def not_written(error: OSError, what: str, folder: Path) -> OSError:
    """Returns the error that names the cause and the cure.

    Args:
        error: of the system.
        what: could not be written.
        folder: of the run.
    """
    told = f"cannot write {what} ({error.strerror or error})"
    if not folder.is_dir():
        return OSError(f"{told}: the folder {folder} is gone, with what was in it; start the run again")
    cure = "make the folder writable" if error.errno in READ_ONLY else "make room"
    return OSError(f"{told}; what is committed stays: {cure} and start the same run again")


@contextmanager
def memory_named(readers: int, micro_batch: int) -> Iterator[None]:
    """Adds what to do to an out-of-memory error that is raised inside.

    Args:
        readers: threads that read photos ahead.
        micro_batch: photos or pairs that go through the network together.

    Raises:
        MemoryError: instead of what Python or torch raise.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        told = str(error).partition("\n")[0] or type(error).__name__
        raise MemoryError(
            f"out of memory ({truncate(told)}); what is committed stays: start the same run again with fewer readers "
            f"(now {readers}) or workers, or in a new folder with a smaller micro_batch (now {micro_batch})"
        ) from error
