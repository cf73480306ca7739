"""The shape of maps: how narrow they are, and how much those of different classes overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from facexai._html import table
from facexai.functional import at_least_float32, sdd, upsample
from facexai.metrics._ties import Array, Ordered, Rows, Ties
from facexai.metrics.statistic import Statistic
from facexai.perturb import check_items, check_maps
from facexai.perturb.regions import check_area
from facexai.results import Saliency


@final
@dataclass(frozen=True, eq=False)
class Narrowness:
    """The share of the picture that holds a share of a map's mass.

    Attributes:
        above_half: statistic of the share of pixels at or above half of the map's maximum.
        half_mass: of the smallest share of pixels that holds half of the map's positive part.
    """

    above_half: Statistic
    half_mass: Statistic

    def columns(self) -> dict[str, Any]:
        """Returns means and intervals, as columns of a table."""
        return _columns({"above half of the maximum": self.above_half, "half of the mass": self.half_mass})

    def rows(self) -> list[dict[str, Any]]:
        """Returns the same as the only row of a table."""
        return [{"map": "own", **self.columns()}]

    def _repr_html_(self) -> str:
        return table([self.columns()])

    def __add__(self, other: Narrowness) -> Narrowness:
        return Narrowness(self.above_half + other.above_half, self.half_mass + other.half_mass)


def _columns(statistics: Mapping[str, Statistic]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, statistic in statistics.items():
        result |= {name: statistic.mean, f"{name} interval": statistic.interval}
    return result


def narrowness(
    saliency: Saliency | Tensor, *, identities: Sequence[str | None] | None = None, items: Sequence[int] | None = None
) -> Narrowness:
    """Returns how narrow maps are, of their positive parts; 1 for a map without any.

    Args:
        saliency: a Saliency or maps (N, H, W).
        identities, items: as in :func:`facexai.metrics.deletion`.

    Raises:
        ValueError: wrong shape or NaN.

    Source: ours, for the claim of Shadman et al. 2025 that SDD's regions are narrow.

    >>> narrow = narrowness(torch.tensor([[[4.0, 1.0], [1.0, 2.0]]]))
    >>> narrow.above_half.mean, narrow.half_mass.mean
    (0.5, 0.25)
    """
    maps = saliency.maps if isinstance(saliency, Saliency) else saliency
    check_maps(maps)
    positive = maps.double().clamp(min=0).flatten(1)
    top, total = positive.amax(1, keepdim=True), positive.sum(1, keepdim=True)
    above = torch.where(top > 0, positive >= top / 2, True).double().mean(1)
    mass = positive.sort(1, descending=True).values.cumsum(1)
    needed = (mass < total / 2).sum(1) + 1
    half = torch.where(total[:, 0] > 0, needed.double() / positive.shape[1], 1.0)
    return Narrowness(
        Statistic.of(above.cpu().numpy(), items=items, identities=identities),
        Statistic.of(half.cpu().numpy(), items=items, identities=identities),
    )


@final
@dataclass(frozen=True, eq=False)
class Overlap:
    """The overlap of the regions of different classes, before and after SDD.

    Attributes:
        before: statistic of the mean intersection over union of the class maps' top areas, over all pairs.
        after: the same for the SDD map of each class against the others.
        ties: how much of these SDD maps' regions their ties decide, as for :class:`~facexai.metrics.Drop`; they are
            broken in the same way in all classes, so that equal maps overlap fully.
    """

    before: Statistic
    after: Statistic
    ties: Ties | None = None

    def columns(self) -> dict[str, Any]:
        """Returns means and intervals, as columns of a table."""
        return _columns({"overlap before": self.before, "overlap after": self.after})

    def rows(self) -> list[dict[str, Any]]:
        """Returns the same as the only row of a table."""
        return [{"map": "own", **self.columns()}]

    def _repr_html_(self) -> str:
        return table([self.columns()])

    def __add__(self, other: Overlap) -> Overlap:
        ties = None if self.ties is None or other.ties is None else self.ties + other.ties
        return Overlap(self.before + other.before, self.after + other.after, ties)


def class_overlap(
    saliency: Saliency,
    area: float = 0.2,
    *,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    seed: int = 0,
) -> Overlap:
    """Measures the overlap of the top classes' regions, before and after SDD.

    Args:
        saliency: an SDD result; its class maps of target and rivals are compared. Each class in turn is the target
            of an SDD against the others, with the recipe of the result. The network does not run.
        area: share of the pixels that makes a region.
        identities, items: as in :func:`facexai.metrics.deletion`.
        seed: of the fields that break ties, as in :func:`facexai.metrics.deletion`.

    Raises:
        ValueError: the result is not SDD's, or an area outside 0 to 1.

    Source: ours, for the main claim of Verenich et al. 2021.
    """
    if saliency.class_cells is None:
        raise ValueError("class overlap needs an SDD result, with the class maps of target and rivals")
    check_area(area)
    cells = at_least_float32(saliency.class_cells)
    choices = saliency.recipe.get("sdd", {})
    options = {name: choices[name] for name in ("power", "scale", "amplify", "divergence") if name in choices}
    apart = []
    for k in range(cells.shape[1]):
        rivals = [j for j in range(cells.shape[1]) if j != k]
        apart.append(sdd(cells[:, k], cells[:, rivals], **options))
    numbers = check_items(items, len(cells))

    def overlap(classes: Sequence[Tensor]) -> tuple[Statistic, Ties | None]:
        maps = torch.stack([upsample(one, saliency.size) for one in classes], 1)
        ordered = Ordered(maps, np.repeat(numbers, maps.shape[1]).tolist(), seed)
        values, ties = ordered.measured([area], _overlap, lambda shares: shares[:, 0])
        statistic = Statistic.of(values[:, 0, 0], items=numbers, identities=identities)
        return statistic, Ties.of(ties, items=numbers, identities=identities)

    return Overlap(overlap(cells.unbind(1))[0], *overlap(apart))


def _overlap(regions: Tensor, _rows: Rows) -> Array:
    """Returns the mean intersection over union of all pairs of regions (N, K, H, W), (N, 1)."""
    shares = []
    for a, b in combinations(regions.unbind(1), 2):
        common, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
        shares.append(common.double() / either.clamp(min=1))
    return torch.stack(shares).mean(0)[:, None].cpu().numpy()
