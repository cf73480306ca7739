"""The parts of saved answers: writing them, and checking kinds, shapes and text when they are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai import io
from facexai._errors import short_repr

FORMAT = 1
_MOST_PIXELS = 2**15  # on a side

Kind = str
Parts = Mapping[str, tuple[Kind, tuple[int | None, ...]]]


class Recorded(Protocol):
    """An answer with its recipe."""

    @property
    def recipe(self) -> Mapping[str, Any]: ...
    def __len__(self) -> int: ...


def save_answer(path: str | Path, answer: Recorded, arrays: Iterable[str], manifest: Mapping[str, Any]) -> None:
    """Writes those attributes of an answer that are not None, its recipe and other metadata, as ``.npz``."""
    held = {name: getattr(answer, name) for name in arrays}
    content = {name: _array(tensor) for name, tensor in held.items() if tensor is not None}
    told = {"format": FORMAT, "kind": type(answer).__name__, **manifest, "recipe": dict(answer.recipe)}
    io.save(path, content, told)


def _array(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; float32 holds the very same numbers
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def parts_of(arrays: Mapping[str, Tensor], parts: Parts, optional: Sequence[str] = ()) -> dict[str, Tensor]:
    """Returns the arrays of an answer by name, those left out that it does not have.

    Args:
        arrays: of the file.
        parts: by name the kind (``"float"``, ``"int"`` or ``"bool"``) and the shape; None: any size.
        optional: names that need not be there.

    Raises:
        ValueError: a part is missing, or of another kind or shape.
    """
    result = {}
    for name, (kind, shape) in parts.items():
        if name not in arrays and name in optional:
            continue
        if name not in arrays:
            raise ValueError(f"it has no {name}")
        part = arrays[name]
        fits = part.ndim == len(shape) and all(a in (None, b) for a, b in zip(shape, part.shape, strict=True))
        if not fits or kind != _kind(part):
            wanted = tuple("any" if side is None else side for side in shape)
            raise ValueError(f"expected {name} {wanted} as {kind}, got {tuple(part.shape)} of {part.dtype}")
        result[name] = part
    return result


def _kind(part: Tensor) -> Kind:
    if part.is_floating_point():
        return "float"
    return {torch.int64: "int", torch.bool: "bool"}.get(part.dtype, "other")


def size_of(manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Returns (H, W) of the images.

    Raises:
        ValueError: no such size, or one that no image has.
    """
    size = manifest.get("size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(s) is int and 1 <= s <= _MOST_PIXELS for s in size):
        raise ValueError(f"expected size [H, W] of 1 to {_MOST_PIXELS} pixels, got {short_repr(size)}")
    return size[0], size[1]


def names_of(manifest: Mapping[str, Any], *indices: Tensor | None) -> tuple[str, ...] | None:
    """Returns names of the classes, or None.

    Args:
        manifest: of the file.
        indices: classes that must have a name.

    Raises:
        ValueError: no list of texts, or fewer names than classes.
    """
    names = manifest.get("names")
    if not (names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))):
        raise ValueError(f"expected names as a list of texts, got {short_repr(names)}")
    for index in indices:
        if index is None or not index.numel():
            continue
        low, high = (int(v) for v in index.aminmax())
        if low < 0 or (names is not None and high >= len(names)):
            raise ValueError(f"expected classes among the names, got {low} to {high}")
    return None if names is None else tuple(names)


PER_ITEM = ("bound", "dropped_numbers", "rounding_floor")
"""Entries of recipes that hold a list with a value for each item."""


def common(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe without the entries about single items."""
    return {name: value for name, value in recipe.items() if name not in PER_ITEM}


def cut_recipe(recipe: Mapping[str, Any], which: slice | Tensor) -> dict[str, Any]:
    """Returns the recipe of some of the items."""
    each = {n: v for n, v in recipe.items() if n in PER_ITEM and isinstance(v, list)}
    if isinstance(which, Tensor) and each:
        places = torch.arange(len(next(iter(each.values()))))[which.cpu()].tolist()
        return {**recipe, **{n: [v[i] for i in places] for n, v in each.items()}}
    return {**recipe, **{n: v[which] for n, v in each.items()}}


def joined_recipe(answers: Sequence[Recorded]) -> dict[str, Any]:
    """Returns the recipe of several answers as one; an answer whose recipe marks no item of a kind has none marked.

    Raises:
        ValueError: recipes that differ in more than entries about single items.
    """
    first = common(answers[0].recipe)
    odd = next((answer for answer in answers if common(answer.recipe) != first), None)
    if odd is not None:
        raise ValueError(f"answers by different recipes do not join: {first} and {common(odd.recipe)}")
    names = [name for name in PER_ITEM if any(name in answer.recipe for answer in answers)]
    return {**first, **{n: [v for a in answers for v in a.recipe.get(n, [False] * len(a))] for n in names}}


def recipe_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how the answer was made.

    Raises:
        ValueError: no table, or one that says something else about SDD than choices.
    """
    recipe = manifest.get("recipe")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("sdd", {}), dict):
        raise ValueError(f"expected a recipe, got {short_repr(recipe)}")
    return recipe
