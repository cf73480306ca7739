"""A run about pairs: every photo is embedded, then every pair that the protocol chooses is explained and measured."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._tensor_store import Store
from facexai.evaluate._steps import Embed, mean_of, rows_with_controls, summed
from facexai.evaluate.context import RunContext
from facexai.evaluate.methods import pair_explainers
from facexai.evaluate.shards import BatchResult, Faces, Shards, Stage, stacked
from facexai.explainers._cache import EvidenceCache
from facexai.explainers.pairs import Pairwise
from facexai.functional import upsample
from facexai.functional._decision import accepted, cosines_of_pairs
from facexai.functional._dyads import Dyads
from facexai.metrics._batch import next_others
from facexai.metrics._pair_decision import PairDecision
from facexai.metrics.pair_curves import PairCurve, Scheme, measured
from facexai.metrics.pair_orders import COMMON, CONTROLS
from facexai.metrics.pair_protocol import Protocol, resolve
from facexai.metrics.pair_subject import PairBatch, PairReference, pair_subject, signs_of, wanted
from facexai.metrics.verification import Placed, placed
from facexai.results import PairSaliency
from facexai.results.parts import common

MAPS = ("own", *CONTROLS)
"""The second axis of the rows of curves."""

_MEMORY = 2**30  # bytes of evidence of faces that a worker keeps in memory
_DISK = 2**34  # and on disk; beyond that a face is observed again when it is needed
_ADVICE = "make room and start the same run again: what is committed stays"


@final
@dataclass(eq=False)
class Pairs:
    """The stages of a run about pairs, and their results.

    Attributes:
        work: configuration, data, network and store.
        rank: number of the worker; evidence that does not fit into memory goes to a folder of its own.
        decided: the threshold and the selected pairs.
        embedded, maps, numbers: the shards of the stages.
        mean_maps: by explainer and sign.
    """

    work: RunContext
    rank: int = 0
    decided: PairSelection = field(init=False)

    def stages(self) -> Generator[Shards]:
        """Yields the stages, each of which must be committed before the next is requested."""
        work, photos = self.work, np.arange(len(self.work.data.names))
        embed = Embed(work, range(len(photos)), digests=True)
        self.embedded = work.shards(Stage("embed", "photo", photos[:, None], embed))
        yield self.embedded
        self.decided = decided(work, self.embedded)
        index, chosen = work.data.index, self.decided.chosen
        assert index is not None
        explainers = pair_explainers(work.explainers, work.network, self.decided.limit.threshold)
        folder = work.store.folder.parent / f"evidence-{self.rank}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
        try:
            caches = {}
            for k, name in enumerate(explainers):
                with contextlib.suppress(OSError):  # a finished run on a read-only disk needs none
                    (folder / str(k)).mkdir(parents=True)
                bounds = {"memory": _MEMORY // len(explainers), "disk": _DISK // len(explainers)}
                caches[name] = EvidenceCache(store=Store(folder / str(k)), advice=_ADVICE, **bounds)
            compute = _Maps(work, self.decided, explainers, caches)
            self.maps = work.shards(Stage("maps", "pair", index, compute, chosen), self.embedded)
            yield self.maps
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        measure = _Measure(work, self.decided, self.maps)
        self.mean_maps = measure.mean_maps
        self.numbers = work.shards(Stage("measure", "pair", index, measure, chosen, after=self.maps), self.embedded)
        yield self.numbers


@final
@dataclass(frozen=True, eq=False)
class PairSelection:
    """The scores of all pairs, the threshold, and the selection of pairs to explain.

    Attributes:
        scores: (P,) cosines; NaN where a photo could not be read.
        limit: the threshold from which a pair is accepted.
        chosen: (P,) whether the protocol selects the pair.
        signs: (P,) 1 where the similar part of the map is judged, -1 where the dissimilar one is.
        asked: the protocol.
    """

    scores: NDArray[np.float64]
    limit: Placed
    chosen: NDArray[np.bool_]
    signs: NDArray[np.int64]
    asked: Protocol

    def decision(self, work: RunContext, measured: NDArray[np.int64]) -> PairDecision:
        """Returns the readable pairs, from which the threshold was computed, and the positions of the measured ones."""
        assert work.data.same is not None
        readable = np.flatnonzero(np.isfinite(self.scores))
        dyads = Dyads.of(*people(work, readable.tolist()).values())
        rows = np.searchsorted(readable, measured)
        return PairDecision(self.scores[readable], work.data.same[readable], dyads, self.asked.threshold, rows)

    @property
    def protocol(self) -> Protocol:
        """The protocol for pairs that are selected already, with the computed threshold."""
        return replace(self.asked, pairs="all", threshold=self.limit.threshold)

    @property
    def sides(self) -> int:
        """The number of images of a pair that are changed."""
        return 2 if self.asked.perturb == "both" else 1


def decided(work: RunContext, embedded: Shards) -> PairSelection:
    """Scores all pairs, computes the threshold and selects pairs.

    Raises:
        ValueError: no readable pair, no pair that the protocol selects, labels of one kind for a rule that needs both.
    """
    config, index, same = work.config, work.data.index, work.data.same
    assert index is not None
    assert same is not None
    _, how = resolve(config.protocol, config.part)  # type: ignore[arg-type]
    embedded_photos = embedded.measured()
    row = np.full(len(work.data.names), -1)
    row[embedded_photos] = np.arange(len(embedded_photos))
    first, second = row[index[:, 0]], row[index[:, 1]]
    readable = (first >= 0) & (second >= 0)
    if not readable.any():
        raise ValueError(f"no pair has two photos that could be read, such as {work.why(embedded)}")
    scores = np.full(len(index), np.nan)
    scores[readable] = cosines_of_pairs(embedded.rows("units"), np.stack([first, second], 1)[readable])
    rule = how.threshold if config.threshold is None else config.threshold
    limit = placed(scores[readable], same[readable], rule)
    chosen = readable & wanted(how, same, accepted(scores, limit.threshold))
    if not chosen.any():
        raise ValueError(f"the protocol is about {how.pairs} pairs and none is one (threshold {limit.threshold:.3f})")
    signs = signs_of(config.part, same)  # type: ignore[arg-type]
    return PairSelection(scores, limit, chosen, signs, replace(how, threshold=rule))


@final
@dataclass(frozen=True, eq=False)
class _Maps:
    """Computes every explainer's signed maps of the selected pairs; a worker observes a photo once.

    A photo is observed by itself: batches of new photos would depend on the photos that the worker saw before.
    """

    work: RunContext
    decided: PairSelection
    explainers: Mapping[str, Pairwise[PairSaliency]]
    caches: Mapping[str, EvidenceCache]

    def __call__(self, items: list[int], faces: Faces) -> BatchResult:
        size, sides = self.work.network.spec.height_width, self.decided.sides
        rows, sums, recipes = {}, {}, {}
        for label, explainer in self.explainers.items():
            whys = [
                explainer.answer(*(self._evidence(label, explainer, faces, photo) for photo in pair))
                for pair in _photos(self.work, items)
            ]
            recipes[label] = common(whys[0].recipe)
            cells = torch.cat([why.cells for why in whys])[:, :sides].detach().float().cpu()
            rows[f"{label}: cells"] = cells
            for sign in (1, -1):
                signed = sign * cells[torch.from_numpy(self.decided.signs[items] == sign)]
                sums[f"{label}: {sign}"] = torch.stack([summed(side, size) for side in signed.unbind(1)])
        return BatchResult(items, rows, sums, recipes)

    def _evidence(self, label: str, explainer: Pairwise[PairSaliency], faces: Faces, photo: int) -> Any:
        cache = self.caches[label]
        if explainer.portable and photo in cache:
            return cache.get(photo)
        evidence = explainer.observe(faces[photo].image.to(self.work.network.device))
        if explainer.portable:
            cache.put(photo, evidence)
        return evidence


@final
@dataclass(frozen=True, eq=False)
class _Measure:
    """Measures curves over the selected pairs, for every map and every control."""

    work: RunContext
    decided: PairSelection
    maps: Shards

    @cached_property
    def partners(self) -> dict[int, int] | None:
        """For each measured pair the next with the same part and another person; None where a pair has none."""
        partners: dict[int, int] = {}
        items = self.maps.measured()
        for sign in (1, -1):
            group = items[self.decided.signs[items] == sign].tolist()
            others = next_others(len(group), first_people(self.work, group))
            if others is None:
                return None
            partners |= {item: group[other] for item, other in zip(group, others, strict=True)}
        return partners

    @cached_property
    def mean_maps(self) -> dict[str, dict[int, Tensor]]:
        """The mean maps by explainer and sign."""
        items, size = self.maps.measured(), self.work.network.spec.height_width
        means: dict[str, dict[int, Tensor]] = {label: {} for label in self.work.labels}
        for label, by_sign in means.items():
            for sign in (1, -1):
                count = int((self.decided.signs[items] == sign).sum())
                if count > 1 and (total := self.maps.total(f"{label}: {sign}")) is not None:
                    by_sign[sign] = torch.stack([mean_of(side, count, size) for side in total])
        return means

    def __call__(self, items: list[int], faces: Faces) -> BatchResult:
        network, same = self.work.network, self.work.data.same
        assert same is not None
        photos, persons = _photos(self.work, items), people(self.work, items)
        first, second = (stacked(faces, [pair[side] for pair in photos], network.device) for side in (0, 1))
        batch = pair_subject(
            network,
            first,
            second,
            same[items],
            self.decided.protocol,
            self.work.config.part,  # type: ignore[arg-type]
            identities=persons["identities"],
            partners=persons["partners"],
            items=items,
            seed=self.work.config.seed,
            batch_size=self.work.config.micro_batch,
        )
        rows: dict[str, Tensor] = {}
        shared: dict[str, dict[str, PairCurve | None]] = {name: {} for name in self.work.metrics}
        for label in self.work.labels:
            rows |= self._measured(replace(batch, reference=self._reference(items, label)), items, label, shared)
        return BatchResult(items, rows)

    def _measured(
        self, batch: PairBatch, items: Sequence[int], label: str, shared: dict[str, dict[str, PairCurve | None]]
    ) -> dict[str, Tensor]:
        """Returns rows (n, maps, steps + 1, 2): whether the decision is right, and the cosine."""
        rows: dict[str, Tensor] = {}
        maps = self._maps(items, label)
        for name in self.work.metrics:
            scheme: Scheme = "deletion" if name == "deletion" else "insertion"
            curve = measured(batch, scheme, maps, known=shared[name])
            shared[name] = {control: curve.controls[control] for control in COMMON}
            rows |= rows_with_controls(f"{label}: {name}", curve, CONTROLS)
        return rows

    def _reference(self, items: Sequence[int], label: str) -> PairReference:
        others = None
        if self.partners is not None:
            others = self._maps([self.partners[item] for item in items], label)
        return PairReference(self.mean_maps[label], others)

    def _maps(self, items: Sequence[int], label: str) -> Tensor:
        """Returns the signed maps (n, S, H, W)."""
        cells = self.maps.of(items, f"{label}: cells")
        maps = upsample(cells.flatten(0, 1), self.work.network.spec.height_width)
        return maps.view(*cells.shape[:2], *maps.shape[1:]).to(self.work.network.device)


def people(work: RunContext, items: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """Returns ``identities`` and ``partners`` (n,): the people in these pairs.

    See :attr:`RunContext.people_of_pairs`.
    """
    pairs, names = _photos(work, items), work.people_of_pairs
    return {name: tuple(names[pair[side]] for pair in pairs) for side, name in enumerate(("identities", "partners"))}


def first_people(work: RunContext, items: Sequence[int]) -> list[str] | None:
    """Returns the person (n,) in the first photo of each of these pairs; None where the data set names no people."""
    return [work.person(first) for first, _ in _photos(work, items)] if work.knows_people else None


def _photos(work: RunContext, items: Sequence[int]) -> list[tuple[int, int]]:
    assert work.data.index is not None
    return [(i, j) for i, j in work.data.index[list(items)].tolist()]
