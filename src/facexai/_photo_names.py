"""Names photos in reports and tables by their path below a folder, or by the shortest unambiguous part of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path


def photo_names(images: Sequence[Path | bytes], root: Path | None = None) -> list[str]:
    """Returns the name of each photo.

    Args:
        images: paths of photos, or encoded photos of a packed file.
        root: folder of the photos; None: there is none.

    Returns:
        For a photo in ``root`` its path below it; for any other the shortest end of its path with which no other of
        these photos ends, an absolute path only where nothing shorter is unambiguous; for an encoded photo its number.
        A photo that is given twice has one name. A link keeps the name that it has where it lies.

    >>> photo_names([Path("/x/a/00.jpg"), Path("/x/b/00.jpg"), Path("/x/b/01.jpg")])
    ['a/00.jpg', 'b/00.jpg', '01.jpg']
    >>> photo_names([Path("/x/a/00.jpg"), Path("/x/b/00.jpg")], root=Path("/x/a"))
    ['00.jpg', 'b/00.jpg']
    """
    paths = [None if isinstance(image, bytes) else _absolute(image) for image in images]
    below = None if root is None else _absolute(root)
    names: dict[Path | None, str] = {}
    if below is not None:
        names = {path: path.relative_to(below).as_posix() for path in paths if path and path.is_relative_to(below)}
    if any(path is not None and path not in names for path in paths):
        names = _ends(path for path in paths if path is not None) | names
    return [str(number) if path is None else names[path] for number, path in enumerate(paths)]


def folder_names(images: Sequence[Path | bytes], root: Path) -> list[str]:
    """Returns the name of each photo's folder, as :func:`photo_names` has it; "" where a photo lies in none.

    Args:
        images, root: as for :func:`photo_names`. Photos directly in ``root`` and encoded ones are in no folder.

    >>> folder_names([Path("/x/ann/00.jpg"), Path("/x/00.jpg"), Path("/y/bo/00.jpg")], root=Path("/x"))
    ['ann', '', 'bo']
    """
    names = photo_names([image if isinstance(image, bytes) else _absolute(image).parent for image in images], root)
    return ["" if isinstance(image, bytes) or name == "." else name for image, name in zip(images, names, strict=True)]


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _ends(paths: Iterable[Path]) -> dict[Path | None, str]:
    """Returns the shortest end of each path with which no other one ends."""
    turned = sorted({path.parts[::-1] for path in paths})  # what ends alike stands side by side
    ends: dict[Path | None, str] = {}
    for before, own, after in zip([(), *turned[:-1]], turned, [*turned[1:], ()], strict=True):
        shared = max(_shared(own, other) for other in (before, after))
        ends[Path(*own[::-1])] = Path(*own[: shared + 1][::-1]).as_posix()
    return ends


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns how many parts two paths have in common at their beginnings."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
