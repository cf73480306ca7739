"""Deletion and retention: the change of the decision when the marked area is removed, or kept alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from facexai._errors import warn
from facexai._html import table
from facexai.metrics import _merge
from facexai.metrics._batch import CONTROLS, EvaluationBatch, Options, control_maps, subject
from facexai.metrics._ties import Array, Ordered, Rows, Ties, columns_of, tied_phrase
from facexai.metrics.statistic import Statistic
from facexai.models import Classifier
from facexai.perturb import Fill, make_fill, shift_mask
from facexai.perturb.regions import check_area
from facexai.results import Saliency
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scheme = Literal["deletion", "retention"]

_FLOOR = 1e-6  # probabilities below this are no base for percentages
_VISIBLE = 0.05  # points that a printed drop shows


@final
@dataclass(frozen=True, eq=False)
class Drop:
    """The effect of changed images on the decision; one number for each image in every statistic.

    Attributes:
        probability: statistic of the drop of the target's probability, in points (0 to 100).
        relative: of the same drop in per cent of the probability before (of 1e-6 where that is smaller).
        score: of the drop of the target's score: cosine for a gallery, else logit.
        margin: of the drop of the margin to the best other class, in units of the score.
        change: 1 where the predicted class changed, else 0.
        controls: the same for ``random``, ``centre``, ``mean-map`` and ``other-image``; None with a reason.
        reasons: why a control is None.
        recipe: scheme, area, fill, seed, score unit, how ties were broken, and how the maps were made,
            if they record it.
        ties: how much of each region ties of the map decide, and how often they were broken: the numbers of an image
            are means over that. None where it was not recorded.

    Drops of two parts of a data set add to that of the whole (give both the whole set's ``reference`` and ``items``).
    """

    probability: Statistic
    relative: Statistic
    score: Statistic
    margin: Statistic
    change: Statistic
    controls: Mapping[str, Drop | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ties: Ties | None = None

    @property
    def drop(self) -> float:
        """Returns the mean drop of the target's probability in points."""
        return self.probability.mean

    @property
    def relative_drop(self) -> float:
        """Returns the mean drop in per cent of the probability before."""
        return self.relative.mean

    @property
    def score_drop(self) -> float:
        """Returns the mean drop of the score: cosine for a gallery, else logit."""
        return self.score.mean

    @property
    def margin_drop(self) -> float:
        """Returns the mean drop of the margin to the best other class, in units of the score."""
        return self.margin.mean

    @property
    def changed(self) -> float:
        """Returns the share of images whose predicted class changed, 0 to 1."""
        return self.change.mean

    @property
    def saturated(self) -> bool:
        """Returns True if the probability cannot show a difference: neither the map nor a control costs 0.05 points,
        though margins change. Read the margin or the score then.
        """
        drops = [self, *(control for control in self.controls.values() if control is not None)]
        moves = any(drop.margin.values.any() for drop in drops)
        return moves and all(abs(drop.drop) < _VISIBLE for drop in drops)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of :attr:`drop`, by identity where known; None for a single one."""
        return self.probability.interval

    @property
    def specificity(self) -> float | None:
        """Returns ``drop`` minus the drop of another image's map, which is specific to this image; None
        without such a control.
        """
        specific = self.specific
        return None if specific is None else specific.mean

    @property
    def specific(self) -> Statistic | None:
        """Returns the statistic behind :attr:`specificity`, with its interval."""
        other = self.controls.get("other-image")
        if other is None:
            return None
        own = self.probability
        return Statistic(own.values - other.probability.values, own.items, own.identities)

    def p_value(self, control: str) -> float | None:
        """Returns the paired test of the probability drop against a control; None where the control is missing.

        Raises:
            KeyError: no control has this name.
        """
        other = _merge.control(self, control)
        return None if other is None else self.probability.p_value(other.probability)

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        items: Sequence[int],
        identities: Sequence[str | None] | None,
        ties: Array | None = None,
        **rest: Any,
    ) -> Drop:
        """Builds the result from a row of numbers for each image, in the order of :data:`STATISTICS`.

        ``ties``: rows for :meth:`Ties.of`; ``rest``: controls and so on.
        """
        rows = (Statistic.of(column, items=items, identities=identities) for column in np.asarray(values).T)
        made: dict[str, Any] = dict(zip(STATISTICS, rows, strict=True))
        return cls(**made, ties=Ties.of(ties, items=items, identities=identities), **rest)

    @property
    def values(self) -> NDArray[np.float64]:
        """Returns (N, 5): the numbers of each image, as :meth:`of` takes them."""
        return np.stack([getattr(self, name).values for name in STATISTICS], 1)

    def __add__(self, other: Drop) -> Drop:
        rest = _merge.joined(self, other)
        return Drop(**{name: getattr(self, name) + getattr(other, name) for name in STATISTICS}, **rest)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the drop and its controls as rows of a table."""
        return _merge.rows(self, _row)

    def plot(self) -> Figure:
        """Draws the drop of the map in percentage points, and those of the controls in grey.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        title = f"{self.recipe.get('scheme', 'drop')}: points lost"
        return _merge.plotted(self, lambda one: one.probability, title, plots.bars)

    def _repr_html_(self) -> str:
        return pictured(self.plot, repr(self), table(self.rows()))

    def __repr__(self) -> str:
        measured, scheme, count = {"": self, **self.controls}, self.recipe.get("scheme"), len(self.probability)
        if self.saturated:
            own, *others = [f"{n} {c.margin_drop:.3f}".strip() for n, c in measured.items() if c is not None]
            unit = f"margin ({self.recipe.get('score')}) of {count} images, whose probabilities are saturated"
        else:
            own, *others = [f"{n} {c.drop:.1f}".strip() for n, c in measured.items() if c is not None]
            unit = f"points of {count} images"
        return f"Drop({scheme}: {own} {unit}; {', '.join(others)}{tied_phrase(self.ties, 'regions')})"


STATISTICS = ("probability", "relative", "score", "margin", "change")


def _row(drop: Drop) -> dict[str, Any]:
    row: dict[str, Any] = {"drop": drop.drop, "interval": drop.interval, "relative": drop.relative_drop}
    return row | {"score": drop.score_drop, "margin": drop.margin_drop, "changed": drop.changed} | columns_of(drop.ties)


def deletion(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    area: float = 0.2,
    fill: Fill = "black",
    seed: int = 0,
    **options: Unpack[Options],
) -> Drop:
    """Measures the drop of the decision when the area that a map marks is removed; a faithful map has a large drop.

    Args:
        classifier: gives logits: a gallery, or a network with ``output="logits"``.
        images: (N, 3, H, W) RGB in [0, 1].
        saliency: the maps: a Saliency (its targets are measured) or raw (N, H, W) (the predicted classes are).
        area: share of the pixels, those with the largest values, exact by rank. Among equal values no order of pixels
            decides, see below.
        fill: what replaces them; see :func:`facexai.perturb.make_fill`.
        seed: of the random control and of noise.
        options: see :class:`~facexai.metrics._batch.Options`: identities, items, reference, batch_size.

    Returns:
        :class:`Drop` with the controls: the same region at a random place, the centre of the picture, the mean map of
        the set, another image's map. On aligned faces the last three are hard to beat; the first proves little.

    Ties: where the border of the area cuts through equal values, the numbers of an image are means over seeded Gaussian
    random fields that order these pixels: groups of a field and its three mirror images, until the standard error of
    its probability and, of a gallery, its cosine is at most 0.01, or 32 fields were taken. A map's mirror image on the
    mirrored photo thus gets the same numbers, and a constant map those of random regions. Others are measured once.

    Warns:
        FaceXAIWarning: the probabilities are saturated, see :attr:`Drop.saturated`; a map is constant.

    Raises:
        ValueError: shapes that differ, NaN maps, one class, an area outside 0 to 1, an unknown fill.

    Cost: one pass for the images, one for each of the five changed sets, and 3 to 31 more for each image and map of
    which ties cut the area (:attr:`Drop.ties`).

    Source: Shadman et al. 2025, arXiv:2505.03837 (top 20 % removed, random control); the other controls are ours.
    """
    who = subject(classifier, images, saliency, **options)
    return _warned(measured(who, "deletion", regions_of(who, area, seed), fill))


def retention(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    area: float = 0.2,
    fill: Fill = "black",
    seed: int = 0,
    **options: Unpack[Options],
) -> Drop:
    """Measures the drop of the decision when only the area that a map marks is kept; a faithful map has a small drop.

    It is the deletion of the complement; arguments, controls, errors and source are those of :func:`deletion`.
    """
    who = subject(classifier, images, saliency, **options)
    return _warned(measured(who, "retention", regions_of(who, area, seed), fill))


def _warned(drop: Drop) -> Drop:
    if drop.saturated:
        warn(
            f"probabilities are saturated: neither the map nor a control costs {_VISIBLE} points. Read .margin_drop "
            "and .score_drop, or enrol with scale='calibrated'"
        )
    return drop


def prediction_change(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    area: float = 0.2,
    fill: Fill = "black",
    seed: int = 0,
    **options: Unpack[Options],
) -> Statistic:
    """Returns the share of images whose predicted class changes when the marked area is removed:
    :attr:`Drop.change` of deletion.

    Arguments and errors are those of :func:`deletion`.

    Source: Shadman et al. 2025, arXiv:2505.03837 (prediction change percentage, over 100).
    """
    return deletion(classifier, images, saliency, area, fill, seed, **options).change


@final
@dataclass(frozen=True, eq=False)
class Regions:
    """The maps whose largest values are marked: each image's own, and those of the controls.

    Attributes:
        own: (N, H, W), in the order of whose values pixels are taken.
        controls: the same for each control that there is.
        reasons: why another there is not.
        area: share of the pixels.
        seed: of the control ``random``, and of the fields that break ties.
    """

    own: Tensor
    controls: Mapping[str, Tensor]
    reasons: Mapping[str, str]
    area: float
    seed: int


def regions_of(who: EvaluationBatch, area: float, seed: int) -> Regions:
    """Returns the maps of a subject and of the controls; deletion and retention share them."""
    check_area(area)
    own = who.ordered
    maps, reasons = control_maps(who, seed)
    return Regions(own, {"random": shift_mask(own, seed=seed, items=who.items), **maps}, reasons, area, seed)


def measured(
    who: EvaluationBatch,
    scheme: Scheme,
    regions: Regions,
    fill: Fill,
    known: Mapping[str, Drop | None] | None = None,
) -> Drop:
    """Returns deletion or retention of these areas with the controls.

    Args:
        known: controls that were measured already on the same images and do not depend on the maps.
    """
    stand_in = make_fill(who.images, fill, seed=regions.seed, items=who.items)
    recipe = {"scheme": scheme, "area": regions.area, "fill": fill, "seed": regions.seed, "score": who.score_unit}
    recipe["ties"] = who.ties

    def changed(marked: Tensor, rows: Rows) -> Array:
        gone = marked if scheme == "deletion" else ~marked
        return _changes(who, rows, who.run(torch.where(gone, stand_in[rows], who.images[rows])))

    def of(maps: Tensor) -> Drop:
        ordered = Ordered(maps[:, None], who.items, regions.seed, who.batch_size)
        values, ties = ordered.measured([regions.area], changed, lambda drops: _decisions(who, drops[:, 0]))
        return Drop.of(values[:, 0], items=who.items, identities=who.identities, recipe=recipe, ties=ties)

    def control(name: str) -> Drop | None:
        return of(regions.controls[name]) if name in regions.controls else None

    controls = _merge.with_known(CONTROLS, known, control)
    return replace(of(regions.own), controls=controls, reasons=regions.reasons, recipe={**recipe, **who.explained})


def _decisions(who: EvaluationBatch, drops: Array) -> Array:
    """Returns the quantities that the rule for ties is about: probabilities and, for a gallery,
    cosines, (F, 1 or 2).
    """
    return drops[:, (0, 2)] / (100, 1) if who.score_unit == "cosine" else drops[:, :1] / 100


def _changes(who: EvaluationBatch, rows: Rows, after: Tensor) -> Array:
    """Returns numbers (R, 5), in the order of :data:`STATISTICS`, of the logits of these images before and after."""
    before, targets = who.logits[rows], who.targets[rows]
    target = targets[:, None]
    p, q = (logits.softmax(1).gather(1, target)[:, 0] for logits in (before, after))
    s, t = (logits.gather(1, target)[:, 0] / who.scale for logits in (before, after))
    m, n = (margin(logits, targets) / who.scale for logits in (before, after))
    changed = before.argmax(1) != after.argmax(1)
    columns = (100 * (p - q), 100 * (p - q) / p.clamp(min=_FLOOR), s - t, m - n, changed)
    return torch.stack([column.double() for column in columns], 1).cpu().numpy()


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the target's logit minus the best other's, (N,).

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([1.])
    """
    own = logits.gather(1, targets[:, None])[:, 0]
    return own - logits.scatter(1, targets[:, None], -torch.inf).amax(1)
