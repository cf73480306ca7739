"""Labelled pairs of photos from the files they are passed around in: LFW's pairs.txt, tables, packed ``.bin``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai import _csv_cells
from facexai._errors import short_repr, suggest, truncate
from facexai._html import words
from facexai.images.files import decode, load
from facexai.images.packed import read_packed

Kind = Literal["auto", "lfw", "csv", "bin"]

_KINDS = {".txt": "lfw", ".csv": "csv", ".bin": "bin"}
_MAX_BYTES = 2**30
_LABELS = {"1": True, "true": True, "same": True, "0": False, "false": False, "different": False}
_COLUMNS = ("first", "second", "same")
_ENDINGS = (".jpg", ".png", ".jpeg")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Pairs of photos and whether each shows one person.

    Attributes:
        images: n files, each once; or 2 P encoded pictures as bytes, from a packed file.
        index: (P, 2) places in ``images``.
        same: (P,) True for one person.
        folds: (P,) fold of each pair, or None where the file names no folds.
    """

    images: tuple[Path, ...] | tuple[bytes, ...]
    index: NDArray[np.int64]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.same)

    _repr_html_ = words

    def __repr__(self) -> str:
        kinds = f"{int(self.same.sum())} genuine and {int((~self.same).sum())} impostor pairs"
        return f"Pairs({kinds} of {len(self.images)} images)"

    def load(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Returns images ``start`` to ``stop`` (without it) as RGB in [0, 1]; in parts, since a data set may not fit.

        Returns:
            (n, 3, H, W).

        Raises:
            ValueError: no image there, one that cannot be read, or sizes that differ.
        """
        start, stop, _ = slice(start, stop).indices(len(self.images))
        chosen = self.images[start:stop]
        if not chosen:
            raise ValueError(f"expected images from 0 to {len(self.images)}, got {start} to {stop}")
        files = [image for image in chosen if isinstance(image, Path)]
        if files:
            return load(files)
        packed = [image for image in chosen if isinstance(image, bytes)]
        photos = [decode(io.BytesIO(image), f"image {start + i}") for i, image in enumerate(packed)]
        if len({photo.shape for photo in photos}) > 1:
            raise ValueError("photos of different sizes; load them one by one and align or resize them")
        return torch.stack(photos)


def read_pairs(
    path: str | Path,
    root: str | Path | None = None,
    *,
    kind: Kind = "auto",
    pattern: str = "{name}/{name}_{number:04d}.jpg",
    max_bytes: int = _MAX_BYTES,
) -> Pairs:
    """Returns labelled pairs from a file. Nothing in the file is run, and every named photo must exist.

    Args:
        path: the file.
        root: folder of the photos; None: that of the file. Paths of a table may lead elsewhere, also absolute ones;
            they are opened for reading, as photos.
        kind: ``"lfw"``: lines ``name number number`` and ``name number name number``, after a line with the number of
            folds and of pairs of each kind in a fold, or that number alone, or none. ``"csv"``: columns first, second,
            same, in this order or named by a first row; same is 1, true or same, else 0, false or different. Names that
            begin with an apostrophe because :func:`facexai.io.write_csv` put it there are read without it.
            ``"bin"``: the packed files of insightface. ``"auto"``: by the ending, .txt, .csv or .bin.
        pattern: where LFW's photo of a name and a number lies in ``root``; jpg, png and jpeg are tried.
        max_bytes: refuse larger files.

    Raises:
        FileNotFoundError: no such file, or photos that it names are missing.
        ValueError: empty, too large, truncated, of another form, or one that refers to code.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in "ab":
    ...         _ = Path(folder, f"{name}.png").write_bytes(b"a photo")
    ...     _ = Path(folder, "pairs.csv").write_text("first,second,same\\na.png,b.png,different\\n")
    ...     read_pairs(f"{folder}/pairs.csv")
    Pairs(0 genuine and 1 impostor pairs of 2 images)
    """
    path = Path(path)
    form = _KINDS.get(path.suffix.lower()) if kind == "auto" else kind
    if form not in _KINDS.values():
        raise ValueError(
            f"{path}: expected a .txt, .csv or .bin file, or kind='lfw', 'csv' or 'bin', got kind={kind!r}"
        )
    if form == "bin":
        images, labels = read_packed(path, max_bytes)
        return Pairs(images, np.arange(len(images)).reshape(-1, 2), np.array(labels))
    text = text_of(path, max_bytes)
    root = path.parent if root is None else Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}, which should hold the photos")
    if form == "csv":
        rows, folds = list(_table(path, text)), None
    else:
        _check_pattern(pattern)
        rows, folds = _lfw(path, text, pattern)
    return _found(path, root, rows, folds)


Row = tuple[str, str, bool]


def text_of(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    """Returns the text of a file in UTF-8, refused where it is missing, too large, empty or no text."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than max_bytes={max_bytes}")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error}") from error
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def _lfw(path: Path, text: str, pattern: str) -> tuple[list[Row], NDArray[np.int64] | None]:
    lines = [(i, line.split("\t" if "\t" in line else None)) for i, line in enumerate(text.splitlines(), 1)]
    lines = [(i, [cell.strip() for cell in cells]) for i, cells in lines if cells and any(c.strip() for c in cells)]
    head = lines[0][1] if len(lines[0][1]) < 3 else []
    if head and not all(cell.isdecimal() and len(cell) < 10 and int(cell) > 0 for cell in head):
        told = short_repr(" ".join(head))
        raise ValueError(f"{path}: expected the number of folds and of pairs first, or a pair, got {told}")
    rows = [_lfw_row(f"{path}, line {i}", cells, pattern) for i, cells in lines[1 if head else 0 :]]
    if not head:
        return rows, None
    folds, each = (1, int(head[0])) if len(head) == 1 else (int(head[0]), int(head[1]))
    promised = 2 * each * folds  # compared before anything of that length is made
    if len(rows) != promised or [row[2] for row in rows] != ([True] * each + [False] * each) * folds:
        raise ValueError(
            f"{path}: the first line promises {folds} x ({each} genuine, then {each} impostor) pairs, "
            f"got {len(rows)} pairs, {sum(r[2] for r in rows)} genuine"
        )
    return rows, np.repeat(np.arange(folds), 2 * each) if len(head) == 2 else None


def _check_pattern(pattern: str) -> None:
    try:
        pattern.format(name="a", number=1)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"expected a pattern of {{name}} and {{number}}, such as '{{name}}/{{name}}_{{number:04d}}.jpg', got "
            f"{short_repr(pattern)} ({truncate(error)})"
        ) from error


def _lfw_row(where: str, cells: list[str], pattern: str) -> Row:
    if len(cells) not in (3, 4):
        raise ValueError(
            f"{where}: expected 'name number number' or 'name number name number', got {len(cells)} columns"
        )
    same = len(cells) == 3
    people = (cells[0], cells[0]) if same else (cells[0], cells[2])
    numbers = (cells[1], cells[-1])
    for name in people:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise ValueError(f"{where}: expected the plain name of a person, got {short_repr(name)}")
    if not all(n.isdecimal() and len(n) < 10 for n in numbers):
        told = " and ".join(map(short_repr, numbers))
        raise ValueError(f"{where}: expected numbers of photos, got {told}")
    if not same and people[0] == people[1]:
        raise ValueError(f"{where}: four columns stand for two people, got {short_repr(people[0])} twice")
    first, second = (pattern.format(name=p, number=int(n)) for p, n in zip(people, numbers, strict=True))
    return first, second, same


def _table(path: Path, text: str) -> Iterator[Row]:
    places: tuple[int, ...] = (0, 1, 2)
    started = False
    with _csv_cells.table(text, str(path)) as rows:
        for cells in rows:
            if not any(cells):
                continue
            names = [cell.lower() for cell in cells]
            if not started and set(_COLUMNS) <= set(names):
                places, started = tuple(names.index(column) for column in _COLUMNS), True
                continue
            plain, started = not started and len(cells) != 3, True
            if plain or len(cells) <= max(places):
                raise ValueError(f"expected the columns first, second, same, got {','.join(cells)[:80]!r}")
            first, second, label = (cells[place] for place in places)
            if label.lower() not in _LABELS or not first or not second:
                raise ValueError(f"expected two photos and one of {', '.join(_LABELS)}, got {short_repr(cells)}")
            yield first, second, _LABELS[label.lower()]


def _found(path: Path, root: Path, rows: list[Row], folds: NDArray[np.int64] | None) -> Pairs:
    if not rows:
        raise ValueError(f"{path} names no pairs")
    files: dict[str, Path | None] = {}
    for name in (name for row in rows for name in row[:2]):
        if name not in files:
            files[name] = _photo(root / name)
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} photos that are not in {root}, the first is {short_repr(missing[0])}; "
            f"{_neighbours(root, missing[0])}"
        )
    images = list(dict.fromkeys(file for file in files.values() if file is not None))
    place = {file: i for i, file in enumerate(images)}
    index = np.array([[place[file] for name in row[:2] if (file := files[name])] for row in rows], dtype=np.int64)
    return Pairs(tuple(images), index, np.array([row[2] for row in rows]), folds)


def _photo(path: Path) -> Path | None:
    """Returns the file, or the same photo in another format."""
    candidates = (path, *(path.with_suffix(ending) for ending in _ENDINGS if path.suffix in _ENDINGS))
    # os.path says no to names that no file system takes, where Path raises
    return next((candidate for candidate in candidates if os.path.isfile(candidate)), None)


def _neighbours(root: Path, name: str) -> str:
    """Lists files near a missing photo: those of its folder, else the folders beside it."""
    folder, wanted = (root / name).parent, Path(name).name
    while not os.path.isdir(folder) and folder != root and folder != folder.parent:
        folder, wanted = folder.parent, folder.name
    if not os.path.isdir(folder):
        return "the folder is missing too"
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return suggest(wanted, there) if there else f"{folder} is empty"
