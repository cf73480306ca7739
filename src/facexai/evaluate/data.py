"""The data set of a run: photos, identities and labelled pairs."""

from __future__ import annotations

import hashlib
import io as text_io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai import _csv_cells, images, io, metrics
from facexai._errors import short_repr
from facexai._photo_names import folder_names, photo_names
from facexai.images.files import decode, people_folders
from facexai.images.pairs import text_of

Source = str | bytes


@final
@dataclass(frozen=True, eq=False)
class DataSet:
    """The photos of a run, their identities, and the labelled pairs.

    Attributes:
        sources: paths, or encoded pictures from a packed file; millions of them as text take a third of the memory.
        names: of the photos, below the folder that they are in; of others the shortest unambiguous end of their path.
        identities: the person in each photo, or None if the data set has no identities.
        index: (P, 2) photos of each pair, for pairs.
        same: (P,) one person, for pairs.
    """

    sources: Sequence[Source]
    names: Sequence[str]
    identities: Sequence[str] | None
    index: NDArray[np.int64] | None = None
    same: NDArray[np.bool_] | None = None

    def photo(self, number: int) -> Tensor:
        """Returns a photo as (1, 3, H, W) RGB in [0, 1], of any size.

        Raises:
            FileNotFoundError, ValueError: it is gone, or not readable.
        """
        source = self.sources[number]
        if isinstance(source, str):
            return images.load(source)
        return decode(text_io.BytesIO(source), self.names[number])[None]

    def sha256(self, number: int) -> bytes:
        """Returns the SHA-256 of the encoded photo, 32 bytes.

        Raises:
            FileNotFoundError: it is gone.
        """
        source = self.sources[number]
        return bytes.fromhex(io.sha256_of(Path(source))) if isinstance(source, str) else hashlib.sha256(source).digest()

    def first_pairs(self, count: int | None) -> DataSet:
        """Returns the first ``count`` pairs, with their photos only."""
        if self.index is None or self.same is None or count is None:
            return self
        used, index = np.unique(self.index[:count], return_inverse=True)
        sources, names = ([part[photo] for photo in used.tolist()] for part in (self.sources, self.names))
        people = None if self.identities is None else [self.identities[photo] for photo in used.tolist()]
        return DataSet(sources, names, people, index.reshape(-1, 2), self.same[:count])

    @property
    def digest(self) -> str:
        """The SHA-256 of the list of names, identities, file sizes and pairs."""
        sha256 = hashlib.sha256()
        for number, (name, source) in enumerate(zip(self.names, self.sources, strict=True)):
            size = os.stat(source).st_size if isinstance(source, str) else len(source)
            identity = "" if self.identities is None else self.identities[number]
            sha256.update(f"{name}\t{identity}\t{size}\n".encode("utf-8", "surrogateescape"))
        if self.index is not None and self.same is not None:
            sha256.update(self.index.tobytes() + self.same.tobytes())
        return sha256.hexdigest()


def opened(path: Path, root: Path | None) -> DataSet:
    """Returns the data set at a path; see :class:`~facexai.evaluate.Config`.

    Raises:
        FileNotFoundError: no such folder or file, or a photo that it names.
        ValueError: no photo, or a file of an unknown format.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"no folder or file {path}")
    root = path.parent if root is None else root
    if path.suffix.lower() == ".csv" and (rows := _listed(path)) is not None:
        return _table(path, root, rows)
    pairs = metrics.read_pairs(path, root)
    photos: Sequence[Path | bytes] = pairs.images
    names = photo_names(photos, root)
    people = _folders(folder_names(photos, root), pairs.index, pairs.same)
    sources = [image if isinstance(image, bytes) else str(image) for image in photos]
    return DataSet(sources, names, people, pairs.index, pairs.same)


def _folders(folders: list[str], index: NDArray[np.int64], same: NDArray[np.bool_]) -> list[str] | None:
    """Returns each photo's folder as its identity if that agrees with the labels of all pairs, else None."""
    labels = zip(index.tolist(), same.tolist(), strict=True)
    agreed = all((folders[i] == folders[j]) == label for (i, j), label in labels)
    return folders if agreed and len(set(folders)) > 1 else None


def _folder(path: Path) -> DataSet:
    files = [(name, photo) for name, photos in people_folders(path).items() for photo in photos]
    if files:
        names = [f"{name}/{photo.name}" for name, photo in files]
        return DataSet([str(photo) for _, photo in files], names, [name for name, _ in files])
    photos = images.photo_files(path)
    if not photos:
        raise ValueError(f"{path} holds no photos; expected NAME/*.jpg (or png, webp, bmp), or photos")
    return DataSet([str(photo) for photo in photos], [photo.name for photo in photos], None)


def _listed(path: Path) -> list[dict[str, str]] | None:
    """Returns the rows of a CSV with a column ``image``; None for another one."""
    listed = []
    with _csv_cells.table(text_of(path), path.name) as rows:
        columns = [name.lower() for name in next(rows, [])]
        if "image" not in columns:
            return None
        for cells in rows:
            if not cells:
                continue
            row = dict(zip(columns, cells, strict=False))
            if len(cells) != len(columns) or not row["image"]:
                raise ValueError(f"expected {len(columns)} cells, the image among them")
            listed.append(row)
    return listed


def _table(path: Path, root: Path, rows: list[dict[str, str]]) -> DataSet:
    if not rows:
        raise ValueError(f"{path.name} names no photos")
    files = [root / row["image"] for row in rows]
    # os.path says no to names that no file system takes, where Path raises
    missing = [row["image"] for row, file in zip(rows, files, strict=True) if not os.path.isfile(file)]
    if missing:
        example = short_repr(missing[0])[1:-1]
        raise FileNotFoundError(f"{path.name}: {len(missing)} photos are not in {root}, such as {example}")
    if len(set(files)) < len(files):
        raise ValueError(f"{path.name} names a photo twice")
    people = [row["identity"] for row in rows] if "identity" in rows[0] else None
    return DataSet([str(file) for file in files], photo_names(files, root), people)
