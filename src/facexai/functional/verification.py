"""Scores of pairs against their labels: AUC, and what every threshold accepts. Counts stay whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai.functional._labels import Labels, labels_of

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def labelled_scores(scores: Any, labels: Any) -> tuple[Floats, Labels]:
    """Returns scores of pairs as float64 and their labels as booleans, checked.

    Args:
        scores: (P,) finite numbers, a tensor, an array or a sequence; higher means more similar.
        labels: (P,) True or 1 for pairs of one person, False or 0 for pairs of two: booleans, or numbers that are
            exactly 0 or 1.

    Raises:
        ValueError: lengths that differ, a score that is NaN or infinite, or a label of another value, such as text,
            None, NaN or -1; the message names the first one and its row.
    """
    values, same = finite_scores(scores), labels_of(labels)
    if values.shape != same.shape:
        raise ValueError(f"expected scores (P,) and as many labels, got shapes {values.shape} and {same.shape}")
    return values, same


def finite_scores(scores: Any) -> Floats:
    """Returns scores (P,) of pairs as float64.

    Raises:
        ValueError: another shape, no numbers, or a score that is NaN or infinite.
    """
    values = _row(scores)
    if values.ndim != 1:
        raise ValueError(f"expected scores (P,), one for each pair, got shape {values.shape}")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"expected finite scores, got NaN or infinity in {count} of {len(values)} pairs")
    return values


def genuine_and_impostor(scores: Any, labels: Any) -> tuple[Floats, Floats]:
    """Returns the scores of the genuine pairs and those of the impostor pairs, float64, in their order.

    Args:
        scores, labels: (P,), as in :func:`labelled_scores`.

    Raises:
        ValueError: as in :func:`labelled_scores`, or pairs of one kind only.

    >>> genuine_and_impostor([0.9, 0.1, 0.4], [True, False, True])
    (array([0.9, 0.4]), array([0.1]))
    """
    values, same = labelled_scores(scores, labels)
    genuine, impostor = values[same], values[~same]
    if len(genuine) == 0 or len(impostor) == 0:
        raise ValueError(
            f"expected pairs of both kinds, got {len(genuine)} pairs of one person and {len(impostor)} pairs of two"
        )
    return genuine, impostor


def _row(values: Any) -> Floats:
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # None where masked, which is NaN below
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected one number per pair: {error}") from error


def auc(scores: Any, labels: Any) -> float:
    """Returns chance that a genuine pair scores above an impostor pair, ties counted half.

    Args:
        scores, labels: (P,), as in :func:`facexai.metrics.roc`.

    Returns:
        In [0, 1]: the Mann-Whitney statistic over the number of its comparisons, counted in whole numbers.

    Raises:
        ValueError: as in :func:`genuine_and_impostor`.

    Source: Mann and Whitney 1947; the area under the ROC curve equals it (Hanley and McNeil 1982).

    >>> auc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    0.875
    """
    genuine, impostor = genuine_and_impostor(scores, labels)
    ordered = np.sort(impostor)
    # both sides count what lies below; a tie is in one of them only, so it counts half
    twice = np.searchsorted(ordered, genuine, "left") + np.searchsorted(ordered, genuine, "right")
    return int(twice.sum()) / (2 * len(genuine) * len(impostor))


def sweep(scores: Any, labels: Any) -> tuple[Floats, Counts, Counts]:
    """Counts the accepted pairs as the threshold falls; a pair is accepted if its score >= threshold.

    Args:
        scores, labels: (P,), as in :func:`facexai.metrics.roc`.

    Returns:
        Three arrays (K,). Thresholds are infinity, which accepts no pair, then every score that occurs, falling; then
        the impostor pairs and the genuine pairs that each accepts. The last threshold accepts all.

    Raises:
        ValueError: as in :func:`genuine_and_impostor`.

    >>> sweep([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    (array([inf, 0.9, 0.5, 0.1]), array([0, 0, 1, 2]), array([0, 1, 2, 2]))
    """
    genuine, impostor = genuine_and_impostor(scores, labels)
    rising = np.unique(np.concatenate([genuine, impostor]))
    thresholds = np.concatenate([[np.inf], rising[::-1]])
    accepted = [len(kind) - np.searchsorted(np.sort(kind), thresholds, "left") for kind in (impostor, genuine)]
    return thresholds, accepted[0].astype(np.int64), accepted[1].astype(np.int64)


def equal_error(impostors: Counts, genuines: Counts) -> tuple[int, float]:
    """Returns where false matches and false non-matches are most nearly as frequent, and how frequent.

    Args:
        impostors, genuines: (K,) accepted pairs of a :func:`sweep`.

    Returns:
        Position in the sweep, the first among equals from the highest score downwards (infinity is no score), and the
        mean of both error rates there.

    Source: first minimum of ``|FMR - FNMR|`` over the scores that occur, compared in whole numbers.

    >>> equal_error(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2]))
    (1, 0.25)
    """
    many, few = int(impostors[-1]), int(genuines[-1])
    missed = few - genuines
    gap = np.abs(impostors * few - missed * many)
    place = 1 + int(np.argmin(gap[1:]))
    return place, float(impostors[place] / many + missed[place] / few) / 2
