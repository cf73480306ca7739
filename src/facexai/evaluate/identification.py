"""A run about people: photos of a data set, classes of a gallery or of a network of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._registry import about
from facexai.evaluate._fixed_point import mean_of, summed
from facexai.evaluate.config import Config
from facexai.evaluate.context import RunContext
from facexai.evaluate.methods import class_explainers
from facexai.evaluate.shards import BatchResult, Faces, Shards, digests_of, stacked
from facexai.explainers import SDD
from facexai.metrics import curves, drop
from facexai.metrics._batch import CONTROLS, EvaluationBatch, Reference, order_of, subject, with_maps
from facexai.metrics.concentration import class_overlap, narrowness
from facexai.models import FaceModel, Gallery
from facexai.results import Saliency
from facexai.results.parts import common

MAPS = ("own", *CONTROLS)
"""Second axis of the rows of deletion, retention and curves."""

CURVES = {"insertion": "insertion", "deletion-curve": "deletion"}
"""Metrics that are curves, and their schemes."""

TIES = ": ties"
"""After the name of a metric: the rows of what ties decide in it."""

_OURS = {row.load() for row in about("classes").values()}
_SAME_FOR_ALL = {"deletion": ("centre",), "retention": ("centre",), **dict.fromkeys(CURVES, ("random", "centre"))}


@final
@dataclass(eq=False)
class People:
    """The stages of the run and their results.

    Attributes:
        work: configuration, data, network and store.
        classifier: the network's own classes, or the gallery once all people are enrolled.
        enrolled, maps, numbers: the shards of the stages; None without people to enrol, without metrics that
            need forward passes.
        mean_maps: by explainer; empty for one photo.
    """

    work: RunContext
    classifier: FaceModel | Gallery = field(init=False)
    enrolled: Shards | None = None
    numbers: Shards | None = None

    def __post_init__(self) -> None:
        self.classifier = self.work.network

    def stages(self) -> Generator[Shards]:
        """Yields the stages; each must be committed before the next is requested."""
        if self.work.enrolled:
            self.enrolled = self.work.shards(_Enrol(self.work))
            yield self.enrolled
            self.classifier = _gallery(self.work, self.enrolled)
        explainers = class_explainers(self.work.explainers, self.classifier)
        self.maps = self.work.shards(_Maps(self.work, explainers))
        yield self.maps
        measure = _Measure(self.work, self.classifier, self.maps)
        self.mean_maps = measure.mean_maps
        self.numbers = self.work.shards(measure, self.maps) if measure.asked else None
        if self.numbers is not None:
            yield self.numbers


@final
@dataclass(frozen=True, eq=False)
class _Enrol:
    """Embeddings of the photos that people are enrolled with."""

    work: RunContext
    name: str = "enrol"
    unit: str = "photo"

    @property
    def count(self) -> int:
        return len(self.work.enrolled)

    def photos(self, items: range) -> Sequence[int]:
        return [self.work.enrolled[item] for item in items]

    def step(self, items: range, faces: Faces) -> BatchResult:
        kept = [item for item in items if self.work.enrolled[item] in faces]
        if not kept:
            return BatchResult([])
        network = self.work.network
        images = stacked(faces, [self.work.enrolled[item] for item in kept], network.device)
        return BatchResult(kept, {"units": network.embed(images).cpu()})


def _gallery(work: RunContext, enrolled: Shards) -> Gallery:
    """Returns the gallery of all people with a readable photo, in the order of the data set."""
    if not (kept := enrolled.measured().tolist()):
        raise ValueError(f"no photo to enrol could be read, of {len(work.enrolled)}, such as {work.why(enrolled)}")
    units = enrolled.rows("units")
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(kept):
        rows.setdefault(work.person(work.enrolled[item]), []).append(row)
    people = {name: units[numbers] for name, numbers in rows.items()}
    config = work.config
    return work.network.gallery(people, scale=config.scale, center=config.center)  # type: ignore[arg-type]


@final
@dataclass(frozen=True, eq=False)
class _Maps:
    """Every explainer's map of the predicted class of every photo."""

    work: RunContext
    explainers: Mapping[str, Any]
    name: str = "maps"
    unit: str = "photo"

    @property
    def count(self) -> int:
        return len(self.work.probes)

    def photos(self, items: range) -> Sequence[int]:
        return [self.work.probes[item] for item in items]

    def step(self, items: range, faces: Faces) -> BatchResult:
        kept = [item for item in items if self.work.probes[item] in faces]
        if not kept:
            return BatchResult([])
        network, asked = self.work.network, self.work.metrics
        images = stacked(faces, [self.work.probes[item] for item in kept], network.device)
        rows: dict[str, Tensor] = {"sha256": digests_of(faces, [self.work.probes[item] for item in kept])}
        sums: dict[str, Tensor] = {}
        recipes: dict[str, Mapping[str, Any]] = {}
        seen: dict[str, Any] = {}
        targets = None
        for label, explainer in self.explainers.items():
            why = _explained(explainer, images, targets, seen)
            recipes[label] = common(why.recipe)
            if targets is not None and not torch.equal(why.targets, targets):
                raise ValueError(f"{label!r} explains other classes than it was asked for")
            if targets is None:
                targets = why.targets
                rows |= {"targets": targets.cpu(), "scores": why.scores.detach().double().cpu()}
            cells = why.cells.detach().cpu()
            rows[f"{label}: cells"], sums[label] = cells, summed(cells, why.size)
            if self.work.config.ties == "signed" and why.signed_cells is not None:
                rows[f"{label}: signed cells"] = why.signed_cells.detach().cpu()
            if "narrowness" in asked:
                narrow = narrowness(why)
                rows[f"{label}: narrowness"] = _columns(narrow.above_half.values, narrow.half_mass.values)
            if "overlap" in asked and why.class_cells is not None:
                overlap = class_overlap(why, self.work.config.area, items=kept, seed=self.work.config.seed)
                rows[f"{label}: overlap"] = _columns(overlap.before.values, overlap.after.values)
                assert overlap.ties is not None
                rows[f"{label}: overlap{TIES}"] = torch.from_numpy(overlap.ties.values)
        return BatchResult(kept, rows, sums, recipes)


def _explained(explainer: Any, images: Tensor, targets: Tensor | None, seen: dict[str, Any]) -> Saliency:
    """Returns the maps of a batch; what was observed last serves SDD and its base, if they follow each other."""
    asked = None if targets is None else targets.tolist()
    watcher: Any = explainer.base if isinstance(explainer, SDD) else explainer
    why: Saliency
    if type(watcher) not in _OURS:  # of others nobody knows what their repr leaves out
        why = explainer(images, asked)
        return why
    recipe = repr(watcher)
    if recipe not in seen:
        seen.clear()  # evidence is large
        seen[recipe] = watcher.observe(images)
    why = explainer.answer(seen[recipe], asked)
    return why


def _columns(*values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.stack(values, 1))


@final
@dataclass(frozen=True, eq=False)
class _Measure:
    """The change of the decision when the marked area is removed, for every map and every control."""

    work: RunContext
    classifier: FaceModel | Gallery
    maps: Shards
    name: str = "measure"
    unit: str = "photo"

    @property
    def count(self) -> int:
        return len(self.work.probes)

    @cached_property
    def asked(self) -> list[str]:
        """Returns the metrics that need forward passes."""
        return [name for name in self.work.metrics if name in _SAME_FOR_ALL]

    @cached_property
    def partners(self) -> dict[int, int] | None:
        """Returns, for each measured photo, the next one of another identity; None if there is none."""
        items = self.maps.measured().tolist()
        people = [self.work.person(self.work.probes[item]) for item in items] if self.work.knows_people else None
        others = next_other(len(items), people)
        return None if others is None else {item: items[other] for item, other in zip(items, others, strict=True)}

    @cached_property
    def mean_maps(self) -> dict[str, Tensor]:
        """Returns the mean map of each explainer; None for a single photo, which would only have its own."""
        if (count := len(self.maps.measured())) < 2:
            return {}
        size = self.work.network.spec.height_width
        sums = {label: self.maps.total(label) for label in self.work.labels}
        return {label: mean_of(total, count, size) for label, total in sums.items() if total is not None}

    def photos(self, items: range) -> Sequence[int]:
        return [self.work.probes[item] for item in items]

    def step(self, items: range, faces: Faces) -> BatchResult:
        known = set(self.maps.items_of(items[0] // self.maps.size).tolist())
        kept = [item for item in items if item in known and self.work.probes[item] in faces]
        if not kept:
            return BatchResult([])
        config, network = self.work.config, self.work.network
        images = stacked(faces, [self.work.probes[item] for item in kept], network.device)
        rows: dict[str, Tensor] = {}
        who: EvaluationBatch | None = None
        common: dict[str, dict[str, Any]] = {name: {} for name in self.asked}
        for label in self.work.labels:
            maps, reference = self._saliency(kept, label), self._reference(kept, label)
            if who is None:
                who = subject(
                    self.classifier,
                    images,
                    maps,
                    items=kept,
                    identities=self._people(kept),
                    reference=reference,
                    batch_size=config.micro_batch,
                    ties=config.ties,  # type: ignore[arg-type]
                )
            else:
                who = with_maps(who, maps, reference, config.ties)  # type: ignore[arg-type]
            rows |= {f"{label}: {name}": made for name, made in self._measured(who, common).items()}
        return BatchResult(kept, rows)

    def _measured(self, who: EvaluationBatch, common: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
        """Returns rows (n, maps, numbers) by metric, and those of its ties; NaN where there is no such control."""
        config, result = self.work.config, {}
        areas = {"deletion", "retention"} & set(self.asked)
        regions = drop.regions_of(who, config.area, config.seed) if areas else None
        for name in self.asked:
            made: drop.Drop | curves.Curve
            if name in CURVES:
                fill = fill_of(name, config)
                made = curves.measured(who, CURVES[name], config.steps, fill, config.seed, known=common[name])
            else:
                assert regions is not None
                made = drop.measured(who, name, regions, config.fill, known=common[name])  # type: ignore[arg-type]
            common[name] = {control: made.controls[control] for control in _SAME_FOR_ALL[name]}
            each = [made, *(made.controls[control] for control in CONTROLS)]
            result[name] = stacked_rows([None if one is None else one.values for one in each])
            result[f"{name}{TIES}"] = stacked_rows([None if one is None else ties_of(one) for one in each])
        return result

    def _saliency(self, items: Sequence[int], label: str) -> Saliency:
        cells, targets, scores = (self.maps.of(items, name) for name in (f"{label}: cells", "targets", "scores"))
        network = self.work.network
        cells, targets, scores = (part.to(network.device) for part in (cells, targets, scores))
        name = f"{label}: signed cells"
        signed = self.maps.of(items, name).to(network.device) if self.maps.has(name) else None
        return Saliency(cells, network.spec.height_width, targets, scores, signed_cells=signed)

    def _reference(self, items: Sequence[int], label: str) -> Reference:
        others = None
        if self.partners is not None:
            maps = self._saliency([self.partners[item] for item in items], label)
            others = order_of(maps, self.work.config.ties)  # type: ignore[arg-type]
        return Reference(self.mean_maps.get(label), others)

    def _people(self, items: Sequence[int]) -> list[str] | None:
        return [self.work.person(self.work.probes[i]) for i in items] if self.work.knows_people else None


def ties_of(measured: Any) -> NDArray[np.float64]:
    """Returns rows (n, 2) of what ties of the maps decide, as :meth:`facexai.metrics._ties.Ties.of` takes them."""
    rows: NDArray[np.float64] = measured.ties.values
    return rows


def stacked_rows(maps: Sequence[NDArray[np.float64] | None]) -> Tensor:
    """Returns (n, maps, ...) of the rows (n, ...) of each map, the first of which is there; NaN for
    a map that is not.
    """
    assert maps[0] is not None
    return torch.from_numpy(np.stack([np.full_like(maps[0], np.nan) if rows is None else rows for rows in maps], 1))


def fill_of(metric: str, config: Config) -> Any:
    """Returns the fill of missing pixels: insertion always starts from a blurred image."""
    return "blur" if metric == "insertion" else config.fill


def next_other(count: int, people: Sequence[str] | None) -> list[int] | None:
    """Returns the same as :func:`facexai.metrics.other_identity_index` in linear time.

    >>> next_other(4, ["ann", "ann", "bo", "ann"])
    [2, 2, 3, 2]
    """
    if count < 2 or (people is not None and len(set(people)) < 2):
        return None
    following = [0] * (2 * count)
    for place in reversed(range(2 * count - 1)):
        same = people is not None and people[place % count] == people[(place + 1) % count]
        following[place] = following[place + 1] if same else (place + 1) % count
    return following[:count]
