"""Converts targets that a user gave, numbers or names, into class indices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from facexai._errors import suggest

Targets = int | str | Sequence[int | str] | Tensor | None


def indices(targets: Targets, names: tuple[str, ...] | None, logits: Tensor) -> Tensor:
    """Returns class indices (N,) for targets given as index, name, one of them per image, or None for
    the predicted class.

    Args:
        targets: the user's targets.
        names: class names, where known.
        logits: (N, C), for the number of classes and the prediction; ties go to the lowest index.

    Raises:
        ValueError: unknown name, index out of range, or a number of targets other than one or N.
        TypeError: neither index nor name.

    >>> indices("bo", ("ann", "bo"), torch.zeros(2, 2))
    tensor([1, 1])
    """
    n = len(logits)
    if targets is None:
        return ranking(logits)[:, 0]
    if isinstance(targets, Tensor):
        if targets.is_floating_point() or targets.dtype == torch.bool or targets.ndim > 1:
            raise TypeError(
                f"expected class indices (N,) as integers, got {targets.dtype} of shape {tuple(targets.shape)}"
            )
        listed: list[int | str] = [int(t) for t in targets.reshape(-1).tolist()]
    elif isinstance(targets, int | str):
        listed = [targets]
    elif isinstance(targets, Sequence):
        listed = list(targets)
    else:
        raise TypeError(f"expected a class index, a name or a list of them, got {targets!r}")
    found = [index(target, names, logits.shape[1]) for target in listed]
    if len(found) == 1:
        found = found * n
    if len(found) != n:
        raise ValueError(f"expected one target, or one for each of the {n} images, got {len(found)}")
    return torch.tensor(found, device=logits.device)


def index(target: int | str, names: tuple[str, ...] | None, classes: int) -> int:
    """Returns a class index from an index or a name."""
    if isinstance(target, str):
        if names is None:
            raise ValueError(
                f"this classifier has no names, so {target!r} is unknown; give a class index below {classes}"
            )
        if target not in names:
            raise ValueError(f"no class is called {target!r}; {suggest(target, names)}")
        return names.index(target)
    if isinstance(target, bool) or not isinstance(target, int):
        raise TypeError(f"expected a class index or a name, got {target!r}")
    if not 0 <= target < classes:
        raise ValueError(f"expected a class index from 0 to {classes - 1}, got {target}")
    return target


def ranking(logits: Tensor) -> Tensor:
    """Returns the classes from most to least probable, (N, C); equal ones in the order of their index.

    >>> ranking(torch.tensor([[1.0, 3.0, 3.0]]))
    tensor([[1, 2, 0]])
    """
    return logits.sort(dim=1, descending=True, stable=True).indices
