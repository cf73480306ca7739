"""Localisation: maps against a known region, such as a pasted patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from facexai.metrics._batch import mean_map, next_others
from facexai.metrics._identities import pairs_of
from facexai.metrics.faithfulness import Table
from facexai.metrics.pair_subject import both_people
from facexai.metrics.statistic import INTERVALS, Statistic
from facexai.perturb import centre_prior, check_items, check_maps, shift_mask
from facexai.results import PairSaliency

Array = NDArray[np.float64]
_DRAWS = 8  # random places of a map, averaged
_CONTROLS = ("random", "centre", "mean-map", "other-pair")
_PANELS = {
    "top share": "top area inside the region",
    "pointing": "pointing game",
    "average precision": "average precision",
}


def top_share(
    maps: Tensor,
    masks: Tensor,
    area: float | None = None,
    *,
    items: Sequence[int] | None = None,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
) -> Statistic:
    """Returns the share of a map's top area that lies inside the known region.

    Args:
        maps: (N, H, W), larger where the region should be.
        masks: (N, H, W) boolean, the region.
        area: share of the picture; None: as large as the region, so that 1 is perfect and the region's own share of
            the picture is chance.
        items, identities, partners: (N,), for the statistic; see :meth:`Statistic.of`.

    Returns:
        One number from 0 to 1 for each map. Where equal values cross the border of the top area, it is the mean over
        all ways to choose among them: a constant map is at chance.

    Raises:
        ValueError: shapes that differ, NaN, a region that is empty or all of the picture, an area outside 0 to 1.

    Source: ours; the area is exact by rank, as in :func:`deletion`.

    >>> top_share(torch.tensor([[[3.0, 2.0], [1.0, 1.0]]]), torch.tensor([[[True, False], [True, False]]])).mean
    0.5
    """
    if area is not None and not 0 < area <= 1:
        raise ValueError(f"expected an area above 0 and up to 1, got {area}")
    rows = []
    for values, inside in _each(maps, masks):
        count = int(inside.sum()) if area is None else max(1, round(area * len(values)))
        border = np.partition(values, len(values) - count)[len(values) - count]
        above, tied = values > border, values == border
        rows.append((inside[above].sum() + (count - above.sum()) * inside[tied].mean()) / count)
    return Statistic.of(rows, items=items, identities=identities, partners=partners, bounds=(0.0, 1.0))


def pointing(
    maps: Tensor,
    masks: Tensor,
    tolerance: float = 0,
    *,
    items: Sequence[int] | None = None,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
) -> Statistic:
    """Returns the result of the pointing game: whether the largest value lies inside the known region.

    Args:
        maps, masks: (N, H, W), as in :func:`top_share`.
        tolerance: pixels by which it may lie outside, measured between centres of pixels.
        items, identities, partners: (N,), for the statistic; see :meth:`Statistic.of`.

    Returns:
        1 or 0 for each map; where several pixels share the largest value, the share of them that hit.

    Raises:
        ValueError: as :func:`top_share`, or a negative tolerance.

    Source: Zhang et al. 2016, arXiv:1608.00507, who allow 15 pixels; one region per picture, ties are ours.

    >>> pointing(torch.tensor([[[3.0, 2.0], [1.0, 1.0]]]), torch.tensor([[[True, False], [True, False]]])).mean
    1.0
    """
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of at least 0 pixels, got {tolerance}")
    rows = []
    for (values, inside), mask in zip(_each(maps, masks), masks, strict=True):
        near = inside
        if tolerance > 0:
            near = distance_transform_edt(~mask.cpu().numpy()).ravel() <= tolerance
        rows.append(near[values == values.max()].mean())
    return Statistic.of(rows, items=items, identities=identities, partners=partners, bounds=(0.0, 1.0))


def average_precision(
    maps: Tensor,
    masks: Tensor,
    *,
    items: Sequence[int] | None = None,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
) -> Statistic:
    """Computes the average precision of the pixels of each map as a detector of the known region.

    Args:
        maps, masks: (N, H, W), as in :func:`top_share`.
        items, identities, partners: (N,), for the statistic; see :meth:`Statistic.of`.

    Returns:
        For each map the sum, over its distinct values from the largest, of the gain in recall times the precision
        there, in (0, 1]: equal values count as one step. A constant map has the region's share of the picture.

    Raises:
        ValueError: as :func:`top_share`.

    Source: the step-wise area under precision and recall, without interpolation.

    >>> average_precision(torch.tensor([[[3.0, 2.0], [1.0, 1.0]]]), torch.tensor([[[True, False], [True, False]]])).mean
    0.75
    """
    rows = []
    for values, inside in _each(maps, masks):
        order = np.argsort(-values, kind="stable")
        ranked, hits = values[order], np.cumsum(inside[order])
        last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of every run of equal values
        found = hits[last]
        rows.append((np.diff(found, prepend=0) * (found / (last + 1))).sum() / found[-1])
    return Statistic.of(rows, items=items, identities=identities, partners=partners, bounds=(0.0, 1.0))


def _each(maps: Tensor, masks: Tensor) -> list[tuple[Array, NDArray[np.bool_]]]:
    """Returns values and region of each picture, flat."""
    check_maps(maps)
    if masks.shape != maps.shape or masks.dtype != torch.bool:
        raise ValueError(
            f"expected one boolean mask of {tuple(maps.shape[1:])} for each of the {len(maps)} maps, got "
            f"{tuple(masks.shape)}, {masks.dtype}"
        )
    share = masks.flatten(1).double().mean(1)
    bad = ((share == 0) | (share == 1)).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(f"expected regions with an inside and an outside, the mask of item {bad[:8]} has only one")
    flat = maps.detach().cpu().double().flatten(1).numpy(), masks.cpu().flatten(1).numpy()
    return list(zip(*flat, strict=True))


# ---- methods and controls side by side ---------------------------------------------------------------------------


def localisation(
    methods: Mapping[str, PairSaliency | Tensor],
    masks: Tensor,
    *,
    part: Literal["similar", "dissimilar"] = "similar",
    side: Literal["first", "second"] = "first",
    area: float | None = None,
    tolerance: float = 0,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    seed: int = 0,
) -> Table:
    """Measures how well methods localise a known region, and whether an uninformed map would do too?

    Args:
        methods: name -> PairSaliency, or maps (N, H, W), larger where the region should be.
        masks: (N, H, W) boolean, the region, as :func:`facexai.perturb.patch_swap` gives it.
        part: of a PairSaliency: ``"dissimilar"`` for another person's patch in a pair of one person, ``"similar"`` for
            the partner's patch in a pair of two. Where this part is 0 all pixels are equal; a map without it is at
            chance.
        side: of a PairSaliency: the image that holds the patch.
        area: of :func:`top_share`; tolerance: of :func:`pointing`.
        identities: (N,), for intervals, tests and the control ``other-pair``; see :meth:`Statistic.of`.
        partners: (N,) the person in the other image of each pair, for intervals and tests. Default: where a
            PairSaliency is given, those of the patches that ``part`` is about: the same person for ``"dissimilar"``,
            for ``"similar"`` an unknown one, with a warning; else rows are about one person each.
        items: (N,) numbers in the data set, on which random places depend.
        seed: of the random places.

    Returns:
        :class:`Table`: one row per method, then the centre prior, then each method's controls: ``random`` (its map
        shifted cyclically, mean of 8 places), ``mean-map``, ``other-pair``. ``beats ...``: a higher average precision
        than the control, with p < 0.05, paired, not corrected for their number.

    Raises:
        ValueError: no method, an unknown part or side; else as :func:`top_share`.
    """
    if not methods:
        raise ValueError("expected at least one method")
    if part not in ("similar", "dissimilar") or side not in ("first", "second"):
        raise ValueError(
            f"expected part 'similar' or 'dissimilar' and side 'first' or 'second', got {part!r} and {side!r}"
        )
    numbers = check_items(items, len(masks))
    pairs = any(isinstance(method, PairSaliency) for method in methods.values())
    people, others = pairs_of(identities, partners, numbers, "images")
    if pairs and partners is None:
        people, others = both_people(identities, None, np.full(len(masks), part == "dissimilar"), numbers, "images")

    given: dict[str, Any] = {"identities": people, "partners": others, "bounds": (0.0, 1.0)}

    def score(maps: Sequence[Tensor]) -> dict[str, Statistic]:
        """Returns the mean over several maps of each item."""
        made: list[dict[str, Statistic]] = []
        for one in maps:
            found = top_share(one, masks, area), pointing(one, masks, tolerance), average_precision(one, masks)
            made.append(dict(zip(_PANELS, found, strict=True)))
        return {
            name: Statistic.of(np.mean([m[name].values for m in made], 0), items=numbers, **given) for name in _PANELS
        }

    rows, below = [], []
    for name, method in methods.items():
        maps = _directed(method, part, side)
        own = score([maps])
        controls = {c: None if made is None else score(made) for c, made in _controls(maps, people, numbers, seed)}
        rows.append({**_row(name, own, control=False), **_tests(own, controls)})
        if len(rows) == 1:
            below.append(_row("centre prior", controls["centre"], control=True))
        below += [
            _row(f"{c} of {name}", found, control=True)
            for c, found in controls.items()
            if c != "centre" and found is not None
        ]
    recipe: dict[str, Any] = {
        "part": part,
        "side": side,
        "area": area,
        "tolerance": tolerance,
        "seed": seed,
        "places": _DRAWS,
    }
    recipe |= {"interval": INTERVALS[others is not None]}
    recipe |= {"items": len(masks), "region": float(masks.double().mean())}
    return Table(tuple(rows + [{**dict.fromkeys(rows[0]), **row} for row in below]), recipe, _PANELS)


def _directed(method: PairSaliency | Tensor, part: str, side: str) -> Tensor:
    if not isinstance(method, PairSaliency):
        return method
    maps = method.similar if part == "similar" else method.dissimilar
    return maps[:, 0 if side == "first" else 1]


def _controls(
    maps: Tensor, people: Sequence[str] | None, numbers: Sequence[int], seed: int
) -> list[tuple[str, list[Tensor] | None]]:
    """Returns name and maps of each control."""
    check_maps(maps)
    n, (height, width) = len(maps), maps.shape[1:]
    partners = next_others(n, people) if n > 1 else None
    made: dict[str, list[Tensor] | None] = {
        "random": [shift_mask(maps, seed=_DRAWS * seed + draw, items=numbers) for draw in range(_DRAWS)],
        "centre": [centre_prior((height, width)).to(maps).expand(n, -1, -1)],
        "mean-map": [mean_map(maps).expand(n, -1, -1)] if n > 1 else None,
        "other-pair": None if partners is None else [maps[partners]],
    }
    return [(name, made[name]) for name in _CONTROLS]


def _row(name: str, found: Mapping[str, Statistic] | None, *, control: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"map": name, "control": control}
    for panel, statistic in (found or {}).items():
        row |= {panel: statistic.mean, f"{panel} interval": statistic.interval}
    return row


def _tests(own: Mapping[str, Statistic], controls: Mapping[str, Mapping[str, Statistic] | None]) -> dict[str, Any]:
    name, tests = "average precision", {}
    for control, found in controls.items():
        p = None if found is None else own[name].p_value(found[name])
        beaten = None if found is None or p is None else bool(own[name].mean > found[name].mean and p < 0.05)
        tests[f"beats {control}"] = beaten
    return tests
