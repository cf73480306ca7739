"""Insertion and deletion curves: pixels come or go in the order of the map, and the area under the probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from facexai._html import table
from facexai.metrics import _merge
from facexai.metrics._batch import CONTROLS, EvaluationBatch, Options, control_maps, subject
from facexai.metrics._ties import Array, Ordered, Rows, Ties, columns_of, tied_phrase
from facexai.metrics.statistic import Statistic
from facexai.models import Classifier
from facexai.perturb import Fill, generator, make_fill
from facexai.results import Saliency
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False)
class Curve:
    """The target's probability as pixels are inserted or removed.

    Attributes:
        shares: (S + 1,) share of pixels changed, 0 to 1.
        values: (N, S + 1) probability of the target at each share.
        area: statistic of the area under each curve (trapezoid), 0 to 1.
        controls: the same with the controls' order of pixels; ``random`` is a random order.
        reasons: why a control is None.
        recipe: scheme, steps, fill, seed, how ties were broken, and how the maps were made, if they record it.
        ties: how much of the regions ties of the map decide, as for :class:`~facexai.metrics.Drop`.
    """

    shares: NDArray[np.float64]
    values: NDArray[np.float64]
    area: Statistic
    controls: Mapping[str, Curve | None] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ties: Ties | None = None

    @classmethod
    def of(
        cls,
        values: Any,
        *,
        items: Sequence[int],
        identities: Sequence[str | None] | None,
        ties: Array | None = None,
        **rest: Any,
    ) -> Curve:
        """Builds a curve from the probabilities (N, S + 1) at equal steps, and rows for :meth:`Ties.of`;
        ``rest``: controls.
        """
        rows = np.asarray(values, dtype=np.float64)
        shares = np.linspace(0, 1, rows.shape[1])
        area = Statistic.of(np.trapezoid(rows, shares, axis=1), items=items, identities=identities)
        return cls(shares, rows, area, ties=Ties.of(ties, items=items, identities=identities), **rest)

    @property
    def auc(self) -> float:
        """Returns the mean area under the curve."""
        return self.area.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of :attr:`auc`, by identity where known."""
        return self.area.interval

    def p_value(self, control: str) -> float | None:
        """Returns the paired test of the areas against a control; None where the control is missing.

        Raises:
            KeyError: no control has this name.
        """
        other = _merge.control(self, control)
        return None if other is None else self.area.p_value(other.area)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the area and those of the controls as rows of a table."""

        def row(one: Curve) -> dict[str, Any]:
            return {"area": one.auc, "interval": one.interval, **columns_of(one.ties)}

        return _merge.rows(self, row)

    def __add__(self, other: Curve) -> Curve:
        rest = _merge.joined(self, other)
        order = np.argsort(np.concatenate([self.area.items, other.area.items]), kind="stable")
        values = np.concatenate([self.values, other.values])[order]
        return Curve(self.shares, values, self.area + other.area, **rest)

    def plot(self) -> Figure:
        """Returns the mean curve over the share of changed pixels, and those of the controls.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        named = {"the map": self, **{name: one for name, one in self.controls.items() if one is not None}}
        curves = {f"{name}, area {one.auc:.3g}": one.values.mean(0) for name, one in named.items()}
        return plots.curves(
            self.shares,
            curves,
            f"share of the pixels, {self.recipe.get('scheme', 'changed')}",
            "probability of the target",
        )

    def _repr_html_(self) -> str:
        return pictured(self.plot, repr(self), table(self.rows()))

    def __repr__(self) -> str:
        held = ", ".join(f"{n} {c.auc:.3f}" for n, c in self.controls.items() if c is not None)
        tied = tied_phrase(self.ties, "regions")
        return f"Curve({self.recipe.get('scheme')}: area {self.auc:.3f} of {len(self.values)} images; {held}{tied})"


def insertion(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    steps: int = 20,
    fill: Fill = "blur",
    seed: int = 0,
    **options: Unpack[Options],
) -> Curve:
    """Inserts pixels of the image into the fill, the most salient first; the larger the area, the
    more faithful the map.

    Args:
        classifier: gives logits.
        images: (N, 3, H, W) RGB in [0, 1].
        saliency: a Saliency (its targets are measured) or raw maps (N, H, W) (the predicted classes are).
        steps: number of equal steps.
        fill: what the image starts from.
        seed: of the random order and of noise.
        options: see :class:`~facexai.metrics._batch.Options`: identities, items, reference, batch_size.

    Raises:
        ValueError: as :func:`facexai.metrics.deletion`, or no step.

    Ties are broken as in :func:`facexai.metrics.deletion`, by the same fields at all steps, until the standard error of
    the area under an image's curve is at most 0.01.

    Cost: ``5 * (steps + 1)`` passes, and 3 to 31 more for each image, map and step of which ties cut the region.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421, sec. 4.1.
    """
    who = subject(classifier, images, saliency, **options)
    return measured(who, "insertion", steps, fill, seed)


def deletion_curve(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    steps: int = 20,
    fill: Fill = "black",
    seed: int = 0,
    **options: Unpack[Options],
) -> Curve:
    """Replaces pixels of the image by the fill, the most salient first; the smaller the area, the
    more faithful the map.

    Speckle scores well here: compare with the control ``random``, a random order of pixels. Arguments, errors, cost and
    source are those of :func:`insertion`.
    """
    who = subject(classifier, images, saliency, **options)
    return measured(who, "deletion", steps, fill, seed)


def measured(
    who: EvaluationBatch,
    scheme: str,
    steps: int,
    fill: Fill,
    seed: int,
    known: Mapping[str, Curve | None] | None = None,
) -> Curve:
    """Measures insertion or deletion curves with the controls.

    Args:
        known: controls that were measured already on the same images and do not depend on the maps.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    stand_in = make_fill(who.images, fill, seed=seed, items=who.items)
    recipe = {"scheme": scheme, "steps": steps, "fill": fill, "seed": seed, "ties": who.ties}
    shares = np.linspace(0, 1, steps + 1)

    def probability(first: Tensor, rows: Rows) -> Array:
        shown = first if scheme == "insertion" else ~first
        logits = who.run(torch.where(shown, who.images[rows], stand_in[rows]))
        p: Array = logits.softmax(1).gather(1, who.targets[rows][:, None]).cpu().numpy()
        return p

    def areas(values: Array) -> Array:
        return np.asarray(np.trapezoid(values[..., 0], shares))

    def along(maps: Tensor) -> Curve:
        ordered = Ordered(maps[:, None], who.items, seed, who.batch_size)
        values, ties = ordered.measured(shares.tolist(), probability, areas)
        return Curve.of(values[..., 0], items=who.items, identities=who.identities, recipe=recipe, ties=ties)

    maps, reasons = control_maps(who, seed)
    maps["random"] = _noise(who, seed)
    controls = _merge.with_known(CONTROLS, known, lambda name: along(maps[name]) if name in maps else None)
    return replace(along(who.ordered), controls=controls, reasons=reasons, recipe={**recipe, **who.explained})


def _noise(who: EvaluationBatch, seed: int) -> Tensor:
    drawn = [torch.rand(who.maps.shape[1:], generator=generator(seed, i, "order")) for i in who.items]
    return torch.stack(drawn).to(who.maps)
