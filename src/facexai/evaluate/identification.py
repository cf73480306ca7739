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
from facexai.evaluate._steps import TIES, Embed, mean_of, rows_with_controls, summed
from facexai.evaluate.config import Config
from facexai.evaluate.context import RunContext
from facexai.evaluate.methods import class_explainers
from facexai.evaluate.shards import BatchResult, Faces, Shards, Stage, digests_of, stacked
from facexai.explainers import SDD
from facexai.metrics import curves, drop
from facexai.metrics._batch import CONTROLS, EvaluationBatch, Reference, next_others, order_of, subject, with_maps
from facexai.metrics.concentration import class_overlap, narrowness
from facexai.models import FaceModel, Gallery
from facexai.results import Saliency
from facexai.results.parts import common

MAPS = ("own", *CONTROLS)
"""The second axis of the rows of deletion, retention and curves."""

CURVES = {"insertion": "insertion", "deletion-curve": "deletion"}
"""The metrics that are curves, with their schemes."""

_OURS = {row.load() for row in about("classes").values()}
_SHARED_CONTROLS = {"deletion": ("centre",), "retention": ("centre",), **dict.fromkeys(CURVES, ("random", "centre"))}
"""The metrics that run the network, with those of their controls that are the same for all explainers."""


@final
@dataclass(eq=False)
class People:
    """The stages of a run about people, and their results.

    Attributes:
        work: configuration, data, network and store.
        classifier: the network's own classes, or the gallery once all people are enrolled.
        enrolled, maps, numbers: the shards of the stages; None without people to enrol, without metrics that run the
            network.
        mean_maps: by explainer; empty for one photo.
    """

    work: RunContext
    classifier: FaceModel | Gallery = field(init=False)
    enrolled: Shards | None = None
    numbers: Shards | None = None

    def __post_init__(self) -> None:
        self.classifier = self.work.network

    def stages(self) -> Generator[Shards]:
        """Yields the stages, each of which must be committed before the next is requested."""
        work = self.work
        if work.enrolled:
            embed = Embed(work, work.enrolled, digests=False)
            self.enrolled = work.shards(Stage("enrol", "photo", _column(work.enrolled), embed))
            yield self.enrolled
            self.classifier = _gallery(work, self.enrolled)
        explainers, probes = class_explainers(work.explainers, self.classifier), _column(work.probes)
        self.maps = work.shards(Stage("maps", "photo", probes, _Maps(work, explainers)))
        yield self.maps
        measure = _Measure(work, self.classifier, self.maps)
        self.mean_maps = measure.mean_maps
        if measure.metrics:
            self.numbers = work.shards(Stage("measure", "photo", probes, measure, after=self.maps), self.maps)
            yield self.numbers


def _column(photos: Sequence[int]) -> NDArray[np.int64]:
    """Returns the index of a stage whose items are these photos."""
    return np.array(photos, dtype=np.int64).reshape(-1, 1)


def _gallery(work: RunContext, enrolled: Shards) -> Gallery:
    """Returns the people of whom a photo could be read, in the order of the data set."""
    if not (readable := enrolled.measured().tolist()):
        raise ValueError(f"no photo to enrol could be read, of {len(work.enrolled)}, such as {work.why(enrolled)}")
    units = enrolled.rows("units")
    rows: dict[str, list[int]] = {}
    for row, item in enumerate(readable):
        rows.setdefault(work.person(work.enrolled[item]), []).append(row)
    people = {name: units[numbers] for name, numbers in rows.items()}
    config = work.config
    return work.network.gallery(people, scale=config.scale, center=config.center)  # type: ignore[arg-type]


@final
@dataclass(frozen=True, eq=False)
class _Maps:
    """Computes every explainer's map of the predicted class of every photo."""

    work: RunContext
    explainers: Mapping[str, Any]

    def __call__(self, items: list[int], faces: Faces) -> BatchResult:
        photos, network = [self.work.probes[item] for item in items], self.work.network
        images = stacked(faces, photos, network.device)
        rows: dict[str, Tensor] = {"sha256": digests_of(faces, photos)}
        sums: dict[str, Tensor] = {}
        recipes: dict[str, Mapping[str, Any]] = {}
        evidence: dict[str, Any] = {}
        targets = None
        for label, explainer in self.explainers.items():
            why = _explained(explainer, images, targets, evidence)
            recipes[label] = common(why.recipe)
            if targets is not None and not torch.equal(why.targets, targets):
                raise ValueError(f"{label!r} explains other classes than those it was given")
            if targets is None:
                targets = why.targets
                rows |= {"targets": targets.cpu(), "scores": why.scores.detach().double().cpu()}
            cells = why.cells.detach().cpu()
            rows[f"{label}: cells"], sums[label] = cells, summed(cells, why.size)
            if self.work.config.ties == "signed" and why.signed_cells is not None:
                rows[f"{label}: signed cells"] = why.signed_cells.detach().cpu()
            rows |= {f"{label}: {name}": values for name, values in self._properties(why, items).items()}
        return BatchResult(items, rows, sums, recipes)

    def _properties(self, why: Saliency, items: Sequence[int]) -> dict[str, Tensor]:
        """Returns the rows of the metrics that do not run the network."""
        config, metrics = self.work.config, self.work.metrics
        rows: dict[str, Tensor] = {}
        if "narrowness" in metrics:
            narrow = narrowness(why)
            rows["narrowness"] = _columns(narrow.above_half.values, narrow.half_mass.values)
        if "overlap" in metrics and why.class_cells is not None:
            overlap = class_overlap(why, config.area, items=items, seed=config.seed)
            assert overlap.ties is not None
            rows["overlap"] = _columns(overlap.before.values, overlap.after.values)
            rows[f"overlap{TIES}"] = torch.from_numpy(overlap.ties.values)
        return rows


def _explained(explainer: Any, images: Tensor, targets: Tensor | None, evidence: dict[str, Any]) -> Saliency:
    """Returns the maps of a batch; the latest evidence serves SDD and its base, if they follow each other."""
    classes = None if targets is None else targets.tolist()
    observer: Any = explainer.base if isinstance(explainer, SDD) else explainer
    why: Saliency
    if type(observer) not in _OURS:  # the repr of other explainers may leave options out
        why = explainer(images, classes)
        return why
    recipe = repr(observer)
    if recipe not in evidence:
        evidence.clear()  # evidence is large
        evidence[recipe] = observer.observe(images)
    why = explainer.answer(evidence[recipe], classes)
    return why


def _columns(*values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.stack(values, 1))


@final
@dataclass(frozen=True, eq=False)
class _Measure:
    """Measures how the decision changes when the marked area is removed, for every map and every control."""

    work: RunContext
    classifier: FaceModel | Gallery
    maps: Shards

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that run the network."""
        return [name for name in self.work.metrics if name in _SHARED_CONTROLS]

    @cached_property
    def partners(self) -> dict[int, int] | None:
        """For each measured photo the next of another person; None where a photo has none."""
        items = self.maps.measured().tolist()
        others = next_others(len(items), self._people(items))
        return None if others is None else {item: items[other] for item, other in zip(items, others, strict=True)}

    @cached_property
    def mean_maps(self) -> dict[str, Tensor]:
        """The mean map by explainer; none for a single photo."""
        if (count := len(self.maps.measured())) < 2:
            return {}
        size = self.work.network.spec.height_width
        sums = {label: self.maps.total(label) for label in self.work.labels}
        return {label: mean_of(total, count, size) for label, total in sums.items() if total is not None}

    def __call__(self, items: list[int], faces: Faces) -> BatchResult:
        config, network = self.work.config, self.work.network
        images = stacked(faces, [self.work.probes[item] for item in items], network.device)
        rows: dict[str, Tensor] = {}
        batch: EvaluationBatch | None = None
        shared: dict[str, dict[str, Any]] = {name: {} for name in self.metrics}
        for label in self.work.labels:
            maps, reference = self._saliency(items, label), self._reference(items, label)
            if batch is None:
                batch = subject(
                    self.classifier,
                    images,
                    maps,
                    items=items,
                    identities=self._people(items),
                    reference=reference,
                    batch_size=config.micro_batch,
                    ties=config.ties,  # type: ignore[arg-type]
                )
            else:
                batch = with_maps(batch, maps, reference, config.ties)  # type: ignore[arg-type]
            rows |= {f"{label}: {name}": values for name, values in self._measured(batch, shared).items()}
        return BatchResult(items, rows)

    def _measured(self, batch: EvaluationBatch, shared: dict[str, dict[str, Any]]) -> dict[str, Tensor]:
        """Returns the rows of each metric and of its ties; ``shared`` keeps controls for the next explainer."""
        config = self.work.config
        rows: dict[str, Tensor] = {}
        areas = {"deletion", "retention"} & set(self.metrics)
        regions = drop.regions_of(batch, config.area, config.seed) if areas else None
        for name in self.metrics:
            result: drop.Drop | curves.Curve
            if name in CURVES:
                fill = fill_of(name, config)
                result = curves.measured(batch, CURVES[name], config.steps, fill, config.seed, known=shared[name])
            else:
                assert regions is not None
                result = drop.measured(batch, name, regions, config.fill, known=shared[name])  # type: ignore[arg-type]
            shared[name] = {control: result.controls[control] for control in _SHARED_CONTROLS[name]}
            rows |= rows_with_controls(name, result, CONTROLS)
        return rows

    def _saliency(self, items: Sequence[int], label: str) -> Saliency:
        network, name = self.work.network, f"{label}: signed cells"
        parts = (self.maps.of(items, part) for part in (f"{label}: cells", "targets", "scores"))
        cells, targets, scores = (part.to(network.device) for part in parts)
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


def fill_of(metric: str, config: Config) -> Any:
    """Returns the fill of removed pixels: insertion starts from a blurred image whatever deletion uses."""
    return "blur" if metric == "insertion" else config.fill
