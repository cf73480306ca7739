"""Ten-fold accuracy by the protocol of a named code base: its embedding, its distance, its grid, its folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai._errors import warn
from facexai._html import table
from facexai.functional._labels import labels_of

Array = NDArray[np.float64]
Protocol = Literal["insightface", "facenet"]

_PROTOCOLS = ("insightface", "facenet")
_FOLDS = 10
_GRID = np.arange(0, 4, 0.01)


@final
@dataclass(frozen=True, eq=False, repr=False)
class TenFold:
    """Accuracy of each tenth of the pairs, at the threshold that is best on the other nine.

    Attributes:
        protocol: whose.
        accuracies: (10,) share of right decisions.
        thresholds: (10,) squared distances; a pair is accepted if its distance < threshold, as both code bases do.
        distances: (P,) squared distances of unit embeddings, in [0, 4].
    """

    protocol: Protocol
    accuracies: Array
    thresholds: Array
    distances: Array

    def __repr__(self) -> str:
        return f"TenFold({self.protocol}: {100 * self.mean:.2f} % +- {100 * self.std:.2f} over ten folds)"

    def _repr_html_(self) -> str:
        folds = zip(self.accuracies.tolist(), self.cosines.tolist(), strict=True)
        rows = [{"fold": k, "accuracy": right, "threshold, cosine": at} for k, (right, at) in enumerate(folds, start=1)]
        return table(rows, repr(self))

    @property
    def mean(self) -> float:
        """Returns the mean accuracy of the folds, the number that is published."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Returns the standard deviation over the folds, divided by ten and not by nine: the published spread."""
        return float(self.accuracies.std())

    @property
    def scores(self) -> Array:
        """Returns (P,) cosines of the same embeddings, ``1 - distance / 2``, for :func:`facexai.metrics.roc`."""
        return 1 - self.distances / 2

    @property
    def cosines(self) -> Array:
        """Returns (10,) the thresholds as cosines; with these a pair is accepted if its score > threshold."""
        return 1 - self.thresholds / 2


def ten_fold(
    embeddings: Any, index: Any, same: Any, *, flipped: Any = None, protocol: Protocol = "insightface"
) -> TenFold:
    """Computes the ten-fold verification accuracy, as it is published for LFW and its relatives.

    Both protocols: rows divided by their length in float64, squared Euclidean distance, accepted if < threshold; folds
    of neighbouring pairs (the first ones one larger where ten does not divide P); for each fold the first threshold of
    0, 0.01, ..., 3.99 that is most accurate on the other nine.

    Args:
        embeddings: (n, D) outputs of the network, before any normalisation of yours, a tensor or an array.
        index: (P, 2) rows of the two images of each pair, in the order of the pair file.
        same: (P,) True or 1 for pairs of one person; labels as in :func:`facexai.metrics.roc`.
        flipped: (n, D) outputs for the mirrored images; ``"insightface"`` needs them, ``"facenet"`` takes none.
        protocol: ``"insightface"``: plain and mirrored outputs are added before the length is divided out.
            ``"facenet"``: the plain output alone.

    Raises:
        ValueError: another protocol, shapes that do not fit, fewer than ten pairs, rows out of range, labels of other
            values, NaN, or an embedding whose length is zero or overflows.

    Warns:
        FaceXAIWarning: a fold holds pairs of one kind only; the file is sorted, which these protocols do not expect.

    Source: folds of Huang et al. 2007 (LFW, view 2); the rest is what the evaluation scripts of the two code bases
    compute.

    >>> rows = np.tile([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], (10, 1))
    >>> index = [(3 * i, 3 * i + j) for i in range(10) for j in (1, 2)]
    >>> ten_fold(rows, index, [True, False] * 10, protocol="facenet")
    TenFold(facenet: 100.00 % +- 0.00 over ten folds)
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(f"expected protocol one of {_PROTOCOLS}, got {protocol!r}")
    if (flipped is None) == (protocol == "insightface"):
        need = "needs flipped=, the outputs for the mirrored images" if flipped is None else "takes no flipped="
        raise ValueError(f"the protocol {protocol!r} {need}")
    rows = _rows(embeddings, "embeddings")
    if flipped is not None:
        mirrored = _rows(flipped, "flipped")
        if mirrored.shape != rows.shape:
            raise ValueError(f"expected flipped of shape {rows.shape} as the embeddings, got {mirrored.shape}")
        rows = rows + mirrored
    pairs, labels = _pairs(index, same, len(rows))
    with np.errstate(over="ignore"):  # refused below
        length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (length > 0).all():
        raise ValueError(f"embedding {int(np.argmin(length))} is zero and has no direction")
    if not np.isfinite(length).all():
        raise ValueError(
            f"embedding {int(np.argmax(length))} is too long for float64; divide all embeddings by a number"
        )
    unit = rows / length
    distances = np.square(unit[pairs[:, 0]] - unit[pairs[:, 1]]).sum(1)
    accuracies, thresholds = _folds(distances, labels)
    return TenFold(protocol, accuracies, thresholds, distances)


def _numbers(values: Any) -> NDArray[Any]:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _rows(values: Any, name: str) -> Array:
    rows = _numbers(values)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
        raise ValueError(f"expected {name} (n, D) as numbers, got shape {rows.shape} of {rows.dtype}")
    if not np.isfinite(rows).all():
        raise ValueError(f"expected finite {name}, got NaN or infinity")
    return rows.astype(np.float64)


def _pairs(index: Any, same: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    pairs, labels = _numbers(index), labels_of(same, name="same")
    if pairs.ndim != 2 or pairs.shape[1:] != (2,) or labels.shape != pairs.shape[:1]:
        raise ValueError(f"expected index (P, 2) and same (P,), got shapes {pairs.shape} and {labels.shape}")
    if len(pairs) < _FOLDS:
        raise ValueError(f"expected at least {_FOLDS} pairs for {_FOLDS} folds, got {len(pairs)}")
    if not np.isin(pairs, np.arange(count)).all():
        raise ValueError(f"expected index from 0 to {count - 1}")
    return pairs.astype(np.int64), labels


def _folds(distances: Array, labels: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Returns the accuracy and threshold of each fold. Correct decisions add up, so every fold is counted once."""
    parts = np.array_split(np.arange(len(labels)), _FOLDS)
    lonely = sum(bool(labels[part].all() or not labels[part].any()) for part in parts)
    if lonely:
        warn(
            f"{lonely} of {_FOLDS} folds hold pairs of one kind only: folds are neighbouring pairs, "
            "so a sorted list gives another number than the published ones"
        )
    right = np.stack([_right(distances[part], labels[part]) for part in parts])
    best = np.argmax(right.sum(0) - right, axis=1)
    sizes = np.array([len(part) for part in parts])
    return right[np.arange(_FOLDS), best] / sizes, _GRID[best]


def _right(distances: Array, labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Counts the correct decisions at every threshold of the grid, (400,)."""
    near = [np.searchsorted(np.sort(distances[kind]), _GRID, "left") for kind in (labels, ~labels)]
    return np.asarray(near[0] + (~labels).sum() - near[1], dtype=np.int64)
