"""Verification deletion and insertion: how many pairs are still decided rightly while pixels go or come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from facexai._errors import suggest
from facexai._html import table
from facexai.functional._decision import accepted
from facexai.functional._dyads import Error
from facexai.metrics import _merge
from facexai.metrics._batch import explained_by
from facexai.metrics._pair_decision import PairDecision
from facexai.metrics._ties import Array, Ordered, Rows, Ties, columns_of, tied_phrase
from facexai.metrics.pair_orders import CONTROLS, control_order, directed, numbers_of, ordered
from facexai.metrics.pair_protocol import Part, Protocol
from facexai.metrics.pair_subject import PairBatch, PairOptions, pair_subject
from facexai.metrics.statistic import Statistic
from facexai.models.protocols import Embedder
from facexai.results import PairSaliency
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scheme = Literal["deletion", "insertion"]


@final
@dataclass(frozen=True, eq=False)
class PairCurve:
    """The share of correct decisions about pairs as pixels of their images are removed or inserted.

    Attributes:
        shares: (S + 1,) share of the pixels that went or came, 0 to 1.
        correct: (P, S + 1) 1.0 where the decision is right, else 0.0, for each pair that the protocol chose; where ties
            decide, the mean over ways to break them.
        cosines: (P, S + 1).
        area: statistic of the area under each pair's row of ``correct`` (trapezoid), in per cent; its items are the
            numbers of the pairs. The mean is the area under the accuracy.
        controls: the same with the controls' orders of pixels.
        reasons: why a control is None.
        recipe: scheme, the whole protocol, the threshold found, part, seed, the method of the interval, and what made
            the maps, if they record it.
        decision: the pairs that the threshold was found on, for intervals and tests that determine it again in every
            draw of people; None: it counts as given.
        ties: how much of the regions ties of the maps decide, as for :class:`~facexai.metrics.Drop`; the mean over the
            images that are changed.

    Curves of two parts of a data set add, where the threshold of the protocol is a number and both have their
    ``items``; the controls ``mean-map`` and ``other-pair`` are then those of each part.
    """

    shares: NDArray[np.float64]
    correct: NDArray[np.float64]
    cosines: NDArray[np.float64]
    area: Statistic
    controls: Mapping[str, PairCurve | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    decision: PairDecision | None = field(default=None, repr=False)
    ties: Ties | None = None

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Returns (S + 1,) share of right decisions, 0 to 1."""
        mean: NDArray[np.float64] = self.correct.mean(0)
        return mean

    @property
    def cosine(self) -> NDArray[np.float64]:
        """Returns (S + 1,) mean cosine."""
        mean: NDArray[np.float64] = self.cosines.mean(0)
        return mean

    @property
    def auc(self) -> float:
        """Returns the area under the accuracy in per cent."""
        return self.area.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % interval of :attr:`auc` by both people of each pair, see :attr:`Statistic.interval`.

        If a rule determined the threshold on these pairs, it is determined again in each of 400 draws of people (fewer
        of large sets), and the standard error counts how that moves the area.
        """
        return self.area.pair_interval(self._error(None)) if self.area.partners else self.area.interval

    @property
    def cosine_area(self) -> Statistic:
        """Returns the area under each pair's cosine (trapezoid). It distinguishes maps that all lead to
        the same decisions.

        Where the similar part goes or comes, less is better in deletion and more in insertion; where the dissimilar
        part does, the other way round.
        """
        areas = np.asarray(np.trapezoid(self.cosines, self.shares, axis=1))
        return Statistic(areas, self.area.items, self.area.identities, self.area.partners)

    def p_value(self, control: str) -> float | None:
        """Returns the paired test of the areas against a control, see :meth:`Statistic.p_value`; None where the
        control is missing.

        The threshold is determined again in draws of people, as for the interval.

        Raises:
            KeyError: no control has this name.
        """
        other = _merge.control(self, control)
        return None if other is None else self.area.p_value(other.area, self._error(other))

    def _error(self, other: PairCurve | None) -> Error | None:
        """Returns the standard error of the area, or of its difference from another's, with the
        threshold's; None: given.
        """
        if self.decision is None:
            return None
        limit = float(self.recipe["accepted from"])
        same = accepted(self.cosines[:, 0], limit) == (self.correct[:, 0] == 1)

        def area(cosines: NDArray[np.float64], at: float) -> NDArray[np.float64]:
            right = (accepted(cosines, at) == same[:, None]).astype(np.float64)
            areas: NDArray[np.float64] = 100 * np.trapezoid(right, self.shares, axis=1)
            return areas

        def measure(at: float) -> NDArray[np.float64]:
            return area(self.cosines, at) - (0 if other is None else area(other.cosines, at))

        return self.decision.error(limit, measure)

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        items: Sequence[int],
        identities: Sequence[str | None] | None,
        partners: Sequence[str | None] | None = None,
        ties: Array | None = None,
        **rest: Any,
    ) -> PairCurve:
        """Builds a curve from correct decisions and cosines (P, S + 1, 2) at equal steps, and rows for :meth:`Ties.of`.

        ``rest``: the other attributes.
        """
        correct, cosines = np.moveaxis(np.asarray(values, dtype=np.float64), 2, 0)
        shares = np.linspace(0, 1, correct.shape[1])
        areas = np.clip(100 * np.trapezoid(correct, shares, axis=1), 0, 100)  # beyond by rounding only
        area = Statistic.of(areas, items=items, identities=identities, partners=partners, bounds=(0.0, 100.0))
        record = Ties.of(ties, items=items, identities=identities)
        return cls(shares, correct, cosines, area, ties=record, **rest)

    @property
    def values(self) -> NDArray[np.float64]:
        """Returns (P, S + 1, 2): right decisions and cosines, as :meth:`of` takes them."""
        return np.stack([self.correct, self.cosines], 2)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the area and those of the controls as rows of a table, with accuracy and mean
        cosine at each share.
        """

        def row(one: PairCurve) -> dict[str, Any]:
            made = {"area": one.auc, "interval": one.interval, "cosine area": one.cosine_area.mean}
            made |= columns_of(one.ties)
            return made | {"accuracy": one.accuracy.tolist(), "cosine": one.cosine.tolist()}

        return _merge.rows(self, row)

    def __add__(self, other: PairCurve) -> PairCurve:
        rest = _merge.joined(self, other)
        order = np.argsort(np.concatenate([self.area.items, other.area.items]), kind="stable")
        correct, cosines = (
            np.concatenate([getattr(part, name) for part in (self, other)])[order] for name in ("correct", "cosines")
        )
        decision = self.decision if self.decision is other.decision else None
        return PairCurve(self.shares, correct, cosines, self.area + other.area, **rest, decision=decision)

    def plot(self) -> Figure:
        """Returns the share of right decisions over the share of changed pixels, and that of the controls.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        named = {"the map": self, **{name: one for name, one in self.controls.items() if one is not None}}
        curves = {f"{name}, area {one.auc:.3g}": one.accuracy for name, one in named.items()}
        return plots.curves(
            self.shares, curves, f"share of the pixels, {self.recipe.get('scheme', 'changed')}", "accuracy"
        )

    def _repr_html_(self) -> str:
        shown = [{k: v for k, v in row.items() if k not in ("accuracy", "cosine")} for row in self.rows()]
        return pictured(self.plot, repr(self), table(shown))

    def __repr__(self) -> str:
        held = ", ".join(f"{n} {c.auc:.1f}" for n, c in self.controls.items() if c is not None)
        told = f"{self.recipe.get('scheme')}, {self.recipe.get('protocol')}, {self.recipe.get('part')}"
        tied = tied_phrase(self.ties, "regions")
        return f"PairCurve({told}: area {self.auc:.1f} % of {len(self.correct)} pairs; {held}{tied})"


def verification_deletion(
    model: Embedder,
    first: Tensor,
    second: Tensor,
    maps: PairSaliency | Tensor,
    same: Any,
    protocol: str | Protocol = "fame",
    part: Part = "similar",
    controls: Sequence[str] = CONTROLS,
    **options: Unpack[PairOptions],
) -> PairCurve:
    """Returns the share of right decisions while pixels are removed, those with the largest values first.

    On genuine pairs, the smaller the area, the more faithful a map of what is similar: without it the match fails. The
    same holds for what is dissimilar on impostor pairs, if its loss makes the network accept them. On other
    combinations, and over all pairs, compare the area with the controls: an empty image is no match, so impostor pairs
    remain right whatever is removed.

    Args:
        model: a :class:`~facexai.FaceModel` that embeds.
        first, second: (P, 3, H, W) RGB in [0, 1]; the first is the probe.
        maps: the PairSaliency of these pairs, or signed maps (P, 2, H, W).
        same: (P,) True for pairs of one person; labels as in :func:`facexai.metrics.roc`.
        protocol: name of one of :data:`PROTOCOLS`, or a :class:`Protocol`.
        part: ``"similar"``: pixels go from the most positive value; ``"dissimilar"``: from the most negative;
            ``"auto"``: similar on genuine and dissimilar on impostor pairs, the evidence for the label.
        controls: those to measure, of ``random`` (pixels in random order: speckle destroys pictures, so this does well
            in deletion), ``random-region`` (the order of the map, shifted cyclically), ``centre`` (from the middle
            outwards), ``mean-map`` (mean over the chosen pairs of the maps scaled to [0, 1], by part), ``other-pair``
            (the next chosen pair's map, of another identity where known).
        options: see :class:`~facexai.metrics.pair_subject.PairOptions`: identities, items, seed, batch_size.

    Definitions. A pair is accepted if its cosine is at least the threshold; that is determined once by the
    protocol's rule from the unchanged scores of all pairs given, before any are chosen, and stays. Both ends of a
    curve are measured
    once: the unchanged pair, and nothing but fill; with ``perturb="both"`` the latter are two equal images for black
    fill, and a match. ``round(share * H * W)`` pixels are changed. Pixels in which the explained part of the map is 0
    come last, by the signed map; ties in that are broken as in :func:`facexai.metrics.deletion`, by the same fields at
    all steps, until the standard error of the area under a pair's cosine is at most 0.01.

    Warns:
        FaceXAIWarning: a constant map.

    Raises:
        TypeError: a model that does not embed, or maps that are none.
        ValueError: what does not belong together; maps of another network; an unknown protocol, part or control; no
            pair that the protocol is about; pairs of one kind only, where the threshold is not a number.

    Cost: two passes for every pair, and ``steps - 1`` for each order of pixels, twice that with ``perturb="both"``; 3
    to 31 more for each pair, order and step of which ties cut the region.

    Source: threshold and steps of ``fame`` as published; the curve as RISE's (Petsiuk et al. 2018, arXiv:1806.07421)
    with accuracy in the place of a probability; the controls are ours.
    """
    who = pair_subject(model, first, second, same, protocol, part, **options)
    return measured(who, "deletion", maps, controls)


def verification_insertion(
    model: Embedder,
    first: Tensor,
    second: Tensor,
    maps: PairSaliency | Tensor,
    same: Any,
    protocol: str | Protocol = "fame",
    part: Part = "similar",
    controls: Sequence[str] = CONTROLS,
    **options: Unpack[PairOptions],
) -> PairCurve:
    """Returns the share of right decisions while pixels replace the fill, those with the largest values first.

    On genuine pairs, the larger the area, the more faithful a map of what is similar. Impostor pairs start correct if
    an empty image is no match. Arguments, definitions, errors, cost and source are those of
    :func:`verification_deletion`.
    """
    who = pair_subject(model, first, second, same, protocol, part, **options)
    return measured(who, "insertion", maps, controls)


def measured(
    who: PairBatch,
    scheme: Scheme,
    maps: PairSaliency | Tensor,
    controls: Sequence[str] = CONTROLS,
    known: Mapping[str, PairCurve | None] | None = None,
) -> PairCurve:
    """Returns the curve of these maps with its controls.

    Args:
        known: controls that were measured already on the same pairs and do not depend on the maps.
    """
    for name in controls:
        if name not in CONTROLS:
            raise ValueError(f"no control is called {name!r}; {suggest(str(name), CONTROLS)}")
    turned = directed(who, maps)
    own = ordered(who, turned)
    found: dict[str, PairCurve | None] = {}
    reasons = {}
    for name in controls:
        if known is not None and name in known:
            found[name] = known[name]
            continue
        order = control_order(who, name, turned, own)
        found[name] = None if isinstance(order, str) else _curve(who, scheme, order)
        if isinstance(order, str):
            reasons[name] = order
    mine = _curve(who, scheme, own)
    return replace(mine, controls=found, reasons=reasons, recipe={**mine.recipe, **explained_by(maps)})


def _curve(who: PairBatch, scheme: Scheme, maps: Tensor) -> PairCurve:
    """Returns the curve of an order of pixels (P, S, H, W), as :func:`ordered` gives it."""
    shares = np.linspace(0, 1, who.protocol.steps + 1)
    ends = (who.whole, who.empty) if scheme == "deletion" else (who.empty, who.whole)

    def decided(cosines: Array, rows: Rows) -> Array:
        """Returns (R, 2): whether the decision is right, and the cosine."""
        return np.stack([accepted(cosines, who.threshold) == who.same[rows], cosines], 1)

    def between(early: Tensor, rows: Rows) -> Array:
        return decided(who.cosines(early if scheme == "insertion" else ~early, rows), rows)

    values, rows = np.empty((len(maps), len(shares), 2)), np.zeros((len(maps), 2))
    values[:, 0], values[:, -1] = (decided(end, slice(None)) for end in ends)
    rows[:, 1] = 1
    if len(shares) > 2:
        order = Ordered(maps, numbers_of(who, maps), who.seed, who.batch_size)
        values[:, 1:-1], rows = order.measured(
            shares[1:-1].tolist(), between, lambda curves: curves[..., 1].sum(1) / who.protocol.steps
        )
    recipe = {"scheme": scheme, **who.recipe}
    people = {"identities": who.identities, "partners": who.partners}
    return PairCurve.of(values, items=who.items, **people, recipe=recipe, decision=who.decision, ties=rows)
