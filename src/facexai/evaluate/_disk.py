"""What to do about a disk that does not take what a run writes."""

from __future__ import annotations

import errno
from pathlib import Path

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
