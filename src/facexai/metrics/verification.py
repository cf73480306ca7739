"""Verification: ROC, equal error rate, TAR at FAR, and thresholds by named rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from facexai._errors import warn
from facexai.functional import auc, equal_error, sweep
from facexai.functional._decision import placements
from facexai.functional.verification import finite_scores, labelled_scores
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Roc", "Rule", "auc", "roc", "threshold"]

Rule = float | Literal["eer", "accuracy"] | str
"""``"eer"``, ``"accuracy"``, ``"far=1e-3"`` with any rate, or the threshold itself."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Roc:
    """Errors at every threshold; a pair is accepted if its score >= threshold.

    Attributes:
        thresholds: (K,) infinity, then every score that occurs, falling.
        far: (K,) share of the impostor pairs that are accepted (false accept rate, FMR), rising from 0 to 1.
        tar: (K,) share of the genuine pairs that are accepted (true accept rate, 1 - FNMR), rising from 0 to 1.
        impostor: number of impostor pairs.
        genuine: number of genuine pairs.
    """

    thresholds: NDArray[np.float64]
    far: NDArray[np.float64]
    tar: NDArray[np.float64]
    impostor: int
    genuine: int

    def __repr__(self) -> str:
        kinds = f"{self.genuine} genuine and {self.impostor} impostor pairs"
        return f"Roc({kinds}, AUC {self.auc:.4f}, EER {self.eer:.4f} at {self.eer_threshold:.4f})"

    @property
    def auc(self) -> float:
        """Returns the area under the curve by trapezoids, which is the chance that a genuine pair scores
        above an impostor pair.
        """
        impostors, genuines = self._accepted()
        twice = (np.diff(impostors) * (genuines[1:] + genuines[:-1])).sum()
        return int(twice) / (2 * self.impostor * self.genuine)

    @property
    def eer(self) -> float:
        """Returns the equal error rate: the mean of FMR and FNMR where they differ least, at the highest such score."""
        return equal_error(*self._accepted())[1]

    @property
    def eer_threshold(self) -> float:
        """Returns the threshold of the score at which :attr:`eer` is taken, placed as by :func:`threshold`."""
        return self._placed(equal_error(*self._accepted())[0]).threshold

    def tar_at(self, far: float) -> float:
        """Returns the largest share of genuine pairs that any threshold with at most this FAR accepts.

        Args:
            far: in [0, 1]. Below one over the number of impostor pairs it is FAR 0 that is measured, with a
                :class:`FaceXAIWarning`.

        Raises:
            ValueError: outside [0, 1].

        >>> roc([0.9, 0.5, 0.5, 0.1], [True, True, False, False]).tar_at(0.0)
        0.5
        """
        return float(self.tar[self._within(far)])

    def threshold_at(self, far: float) -> float:
        """Returns the threshold of the lowest score with at most this FAR, where :meth:`tar_at` is
        taken; warns as it does.

        It is placed as by :func:`threshold`, and never lower than that score allows, so that this FAR is kept.

        Raises:
            ValueError: outside [0, 1], or no score is good enough: impostor pairs have the highest.
        """
        return self._highest(self._within(far), far).threshold

    def _highest(self, place: int, far: float) -> Placed:
        if place == 0:
            raise ValueError(
                f"no threshold that accepts anybody has FAR <= {far:g}: impostor pairs have the highest scores; "
                "ask for a higher FAR, or look at the labels of those pairs"
            )
        return self._placed(place, upward=True)

    def _placed(self, place: int, *, upward: bool = False) -> Placed:
        """Returns the threshold at a place of the sweep (not the first), and the pairs that it decides otherwise."""
        limit = float(placements(self.thresholds[1:], upward=upward)[place - 1])
        reached = int((self.thresholds >= limit).sum()) - 1
        moved = sum(abs(int(kind[reached] - kind[place])) for kind in self._accepted())
        return Placed(limit, moved)

    def plot(self, *, name: str = "", others: Mapping[str, Roc] | None = None) -> Figure:
        """Returns the curve over a logarithmic FAR, from one impostor pair (at most 0.1) on, with the equal
        error rate marked.

        Args:
            name: what the legend calls this curve.
            others: more curves by name, drawn into the same axes.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        named = {name: self, **(others or {})}
        curves = {}
        for label, curve in named.items():
            place, rate = equal_error(*curve._accepted())
            mark = (float(curve.far[place]), float(curve.tar[place]))
            curves[", ".join(filter(None, [label, f"EER {100 * rate:.2f} %"]))] = (curve.far, curve.tar, mark)
        finest = 1 / max(curve.impostor for curve in named.values())
        return plots.rocs(curves, finest=min(finest, 0.1))

    def _repr_html_(self) -> str:
        return pictured(self.plot, repr(self), "")

    def _accepted(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the accepted pairs as whole numbers, so that rounding decides nothing."""
        impostors, genuines = np.rint(self.far * self.impostor), np.rint(self.tar * self.genuine)
        return impostors.astype(np.int64), genuines.astype(np.int64)

    def _within(self, far: float) -> int:
        """Returns the last place of the sweep with at most this FAR."""
        if not 0 <= far <= 1:
            raise ValueError(f"expected a false accept rate from 0 to 1, got {far}")
        if 0 < far < 1 / self.impostor:
            warn(
                f"FAR {far:g} cannot be resolved with {self.impostor} impostor pairs, it takes {math.ceil(1 / far)}; "
                "this is the threshold without a single false accept"
            )
        return int(np.searchsorted(self.far, far, "right")) - 1


def roc(scores: Any, labels: Any) -> Roc:
    """Computes the error rates at every threshold.

    Args:
        scores: (P,) finite similarities, as a cosine is; higher means more similar. Negate distances.
        labels: (P,) True or 1 for pairs of one person (genuine), False or 0 for pairs of two (impostor), as a sequence,
            an array or a tensor. Numbers must be exactly 0 or 1, of whole or floating type. Text (also "1"), None,
            NaN, -1 and every other value are refused. All functions that take labels of pairs take these.

    Returns:
        The curve, one point per score that occurs and one that accepts no pair.

    Raises:
        ValueError: lengths that differ, NaN or infinity, other labels (the message names the first and its row), or
            pairs of one kind only.

    >>> curve = roc([0.9, 0.5, 0.5, 0.1], [True, True, False, False])
    >>> curve.far, curve.tar
    (array([0. , 0. , 0.5, 1. ]), array([0. , 0.5, 1. , 1. ]))
    >>> curve.auc, curve.eer, curve.eer_threshold
    (0.875, 0.25, 0.7)
    """
    thresholds, impostors, genuines = sweep(scores, labels)
    many, few = int(impostors[-1]), int(genuines[-1])
    return Roc(thresholds, impostors / many, genuines / few, many, few)


def threshold(scores: Any, labels: Any, rule: Rule = "eer") -> float:
    """Returns a decision threshold from labelled pairs; a pair is accepted if its score >= threshold.

    The rule names a score that occurs. The threshold lies in the middle between it and the next lower one, so that
    rounding, which changes with batch size and device, changes no decision. Where these two are less than 1e-5 apart,
    the nearest gap of at least 1e-5 is taken, of ``"far=..."`` the nearest one above: scores are cosines, scale others
    to about 1. A number is returned as it is.

    Args:
        scores, labels: (P,), as in :func:`roc`. Where the rule is a number they are only checked: labels may be
            of one kind, and labels, or both, may be None.
        rule: ``"eer"``: where false matches and false non-matches are as frequent, see :attr:`Roc.eer`.
            ``"far=1e-3"``: the lowest score with at most this false accept rate, see :meth:`Roc.threshold_at`.
            ``"accuracy"``: most pairs right, the highest such score. Or a number, also as text.

    Returns:
        The threshold.

    Raises:
        ValueError: another rule, bad scores or labels, or no score that the rule can take.

    Warns:
        FaceXAIWarning: genuine pairs score clearly lower than impostor pairs; so few pairs cannot resolve that FAR.

    >>> scores, labels = [0.9, 0.5, 0.4, 0.1], [True, True, False, False]
    >>> threshold(scores, labels), threshold(scores, labels, "far=0.5"), threshold(scores, labels, 0.31)
    (0.45, 0.25, 0.31)
    """
    return placed(scores, labels, rule).threshold


class Placed(NamedTuple):
    """A threshold.

    Attributes:
        threshold: from which a pair is accepted.
        moved: pairs that the score which the rule names decides otherwise; of a number of the user's 0.
    """

    threshold: float
    moved: int


def placed(scores: Any, labels: Any, rule: Rule = "eer") -> Placed:
    """Returns the threshold of :func:`threshold`, and how many decisions the gap that it lies in has changed."""
    kind, number = parsed_rule(rule)
    if kind == "number":
        if labels is not None:
            labelled_scores(scores, labels)
        elif scores is not None:
            finite_scores(scores)
        return Placed(number, 0)
    curve = roc(scores, labels)
    chance = math.sqrt((curve.genuine + curve.impostor + 1) / (12 * curve.genuine * curve.impostor))
    if curve.auc < 0.5 - 3 * chance:  # three standard errors of an AUC without any signal
        warn(
            f"genuine pairs score lower than impostor pairs (AUC {curve.auc:.3f}): higher must mean more similar, "
            "negate distances"
        )
    if kind == "eer":
        return curve._placed(equal_error(*curve._accepted())[0])
    return curve._highest(curve._within(number), number) if kind == "far" else _most_accurate(curve)


def parsed_rule(rule: object) -> tuple[Literal["eer", "accuracy", "far", "number"], float]:
    """Returns the kind of a rule, and its false accept rate or the number that it is.

    Raises:
        ValueError: no rule.
    """
    if rule == "eer":
        return "eer", 0.0
    if rule == "accuracy":
        return "accuracy", 0.0
    far = isinstance(rule, str) and rule.startswith("far=")
    try:
        number = float(rule[4:] if far else rule)  # type: ignore[index, arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(rule, bool) or not math.isfinite(number):
        raise ValueError(f"expected the rule 'eer', 'accuracy', 'far=1e-3' or a finite number, got {rule!r}")
    return ("far" if far else "number"), number


def _most_accurate(curve: Roc) -> Placed:
    impostors, genuines = curve._accepted()
    right = genuines + (curve.impostor - impostors)
    place = 1 + int(np.argmax(right[1:]))
    if right[place] < right[0]:
        raise ValueError(
            f"no threshold is right more often than accepting nobody, with {curve.genuine} genuine and "
            f"{curve.impostor} impostor pairs; use rule='eer' or 'far=...'"
        )
    return curve._placed(place)
