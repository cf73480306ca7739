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
from facexai.evaluate._fixed_point import mean_of, summed
from facexai.evaluate.context import RunContext
from facexai.evaluate.identification import TIES, next_other, stacked_rows, ties_of
from facexai.evaluate.methods import pair_explainers
from facexai.evaluate.shards import BatchResult, Faces, Shards, digests_of, stacked
from facexai.explainers._cache import EvidenceCache
from facexai.explainers.pairs import Pairwise
from facexai.functional import upsample
from facexai.functional._decision import accepted, cosines_of_pairs
from facexai.functional._dyads import Dyads
from facexai.metrics._pair_decision import PairDecision
from facexai.metrics.pair_curves import PairCurve, Scheme, measured
from facexai.metrics.pair_orders import COMMON, CONTROLS
from facexai.metrics.pair_protocol import Protocol, resolve
from facexai.metrics.pair_subject import PairBatch, PairReference, pair_subject, signs_of, wanted
from facexai.metrics.verification import Placed, placed
from facexai.results import PairSaliency
from facexai.results.parts import common

MAPS = ("own", *CONTROLS)
"""Second axis of the rows of curves."""

_MEMORY = 2**30  # bytes of evidence of faces that a worker holds
_DISK = 2**34  # and keeps on disk; of more it is observed again when it is needed
_ADVICE = "make room and start the same run again: what is committed stays"


@final
@dataclass(eq=False)
class Pairs:
    """The stages of the run and their results.

    Attributes:
        work: configuration, data, network and store.
        rank: number of the worker; evidence that does not fit into memory goes to a folder of its own.
        decided: threshold and choice of pairs.
        embedded, maps, numbers: the shards of the stages.
        mean_maps: by explainer and sign.
    """

    work: RunContext
    rank: int = 0
    decided: PairSelection = field(init=False)

    def stages(self) -> Generator[Shards]:
        """Yields the stages; each must be committed before the next is requested."""
        self.embedded = self.work.shards(_Embed(self.work))
        yield self.embedded
        self.decided = decided(self.work, self.embedded)
        explainers = pair_explainers(self.work.explainers, self.work.network, self.decided.limit.threshold)
        folder = self.work.store.folder.parent / f"evidence-{self.rank}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was cut off
        try:
            caches = {}
            for k, name in enumerate(explainers):
                with contextlib.suppress(OSError):  # a finished run on a disk that is only read needs none
                    (folder / str(k)).mkdir(parents=True)
                bounds = {"memory": _MEMORY // len(explainers), "disk": _DISK // len(explainers)}
                caches[name] = EvidenceCache(store=Store(folder / str(k)), advice=_ADVICE, **bounds)
            self.maps = self.work.shards(_Maps(self.work, self.decided, explainers, caches), self.embedded)
            yield self.maps
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        measure = _Measure(self.work, self.decided, self.maps)
        self.mean_maps = measure.mean_maps
        self.numbers = self.work.shards(measure, self.embedded)
        yield self.numbers


@final
@dataclass(frozen=True, eq=False)
class _Embed:
    """The embedding of every photo."""

    work: RunContext
    name: str = "embed"
    unit: str = "photo"

    @property
    def count(self) -> int:
        return len(self.work.data.names)

    def photos(self, items: range) -> Sequence[int]:
        return items

    def step(self, items: range, faces: Faces) -> BatchResult:
        kept = [item for item in items if item in faces]
        if not kept:
            return BatchResult([])
        network = self.work.network
        units = network.embed(stacked(faces, kept, network.device)).cpu()
        return BatchResult(kept, {"units": units, "sha256": digests_of(faces, kept)})


@final
@dataclass(frozen=True, eq=False)
class PairSelection:
    """The scores of all pairs, the threshold, and the pairs that are explained.

    Attributes:
        scores: (P,) cosines; NaN where a photo could not be read.
        limit: the decision threshold.
        chosen: (P,) whether the protocol is about the pair.
        signs: (P,) 1 if the similar part of the map is measured, -1 if the dissimilar one is.
        asked: the protocol that was given.
    """

    scores: NDArray[np.float64]
    limit: Placed
    chosen: NDArray[np.bool_]
    signs: NDArray[np.int64]
    asked: Protocol

    def decision(self, work: RunContext, measured: NDArray[np.int64]) -> PairDecision:
        """Returns the readable pairs, which the threshold is from, and the places of the measured ones among them."""
        assert work.data.same is not None
        readable = np.flatnonzero(np.isfinite(self.scores))
        dyads = Dyads.of(*people(work, readable.tolist()).values())
        rows = np.searchsorted(readable, measured)
        return PairDecision(self.scores[readable], work.data.same[readable], dyads, self.asked.threshold, rows)

    @property
    def protocol(self) -> Protocol:
        """Returns the protocol for pairs that are chosen already, with their threshold."""
        return replace(self.asked, pairs="all", threshold=self.limit.threshold)

    @property
    def sides(self) -> int:
        """Returns how many images of a pair are changed."""
        return 2 if self.asked.perturb == "both" else 1


def decided(work: RunContext, embedded: Shards) -> PairSelection:
    """Scores all pairs, determines the threshold and selects the pairs to measure.

    Raises:
        ValueError: no readable pair, no pair that the protocol is about, labels of one kind for a rule that needs both.
    """
    config, index, same = work.config, work.data.index, work.data.same
    assert index is not None
    assert same is not None
    _, how = resolve(config.protocol, config.part)  # type: ignore[arg-type]
    read = embedded.measured()
    place = np.full(len(work.data.names), -1)
    place[read] = np.arange(len(read))
    first, second = place[index[:, 0]], place[index[:, 1]]
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
    """Every explainer's signed maps of the chosen pairs; a worker observes a photo once.

    A photo is observed alone: batches of new photos would depend on what the worker met before.
    """

    work: RunContext
    decided: PairSelection
    explainers: Mapping[str, Pairwise[PairSaliency]]
    caches: Mapping[str, EvidenceCache]
    name: str = "maps"
    unit: str = "pair"

    @property
    def count(self) -> int:
        return len(self.decided.scores)

    def photos(self, items: range) -> Sequence[int]:
        return _photos(self.work, self.decided, items)

    def step(self, items: range, faces: Faces) -> BatchResult:
        kept = _kept(self.work, self.decided, items, faces)
        if not kept:
            return BatchResult([])
        size, sides = self.work.network.spec.height_width, self.decided.sides
        rows, sums, recipes = {}, {}, {}
        for label, explainer in self.explainers.items():
            made = [self._one(label, explainer, faces, pair) for pair in _of(self.work, kept)]
            recipes[label] = common(made[0].recipe)
            cells = torch.cat([why.cells for why in made])[:, :sides].detach().float().cpu()
            rows[f"{label}: cells"] = cells
            for sign in (1, -1):
                mine = torch.from_numpy(self.decided.signs[kept] == sign)
                sums[f"{label}: {sign}"] = torch.stack([summed(side, size) for side in (sign * cells[mine]).unbind(1)])
        return BatchResult(kept, rows, sums, recipes)

    def _one(self, label: str, explainer: Pairwise[PairSaliency], faces: Faces, pair: tuple[int, int]) -> PairSaliency:
        return explainer.answer(*(self._evidence(label, explainer, faces, photo) for photo in pair))

    def _evidence(self, label: str, explainer: Pairwise[PairSaliency], faces: Faces, photo: int) -> Any:
        cache = self.caches[label]
        if explainer.portable and photo in cache:
            return cache.get(photo)
        result = explainer.observe(faces[photo].image.to(self.work.network.device))
        if explainer.portable:
            cache.put(photo, result)
        return result


@final
@dataclass(frozen=True, eq=False)
class _Measure:
    """Curves over the chosen pairs, for every map and every control."""

    work: RunContext
    decided: PairSelection
    maps: Shards
    name: str = "measure"
    unit: str = "pair"

    @property
    def count(self) -> int:
        return len(self.decided.scores)

    @cached_property
    def partners(self) -> dict[int, int] | None:
        """Returns, for each measured pair, the next one with the same part and another person;
        None if there is none.
        """
        result: dict[int, int] = {}
        items = self.maps.measured()
        for sign in (1, -1):
            mine = items[self.decided.signs[items] == sign].tolist()
            others = next_other(len(mine), first_people(self.work, mine))
            if others is None and mine:
                return None
            result |= {item: mine[other] for item, other in zip(mine, others or [], strict=True)}
        return result

    @cached_property
    def mean_maps(self) -> dict[str, dict[int, Tensor]]:
        """Returns the mean map of each explainer and sign."""
        items, size = self.maps.measured(), self.work.network.spec.height_width
        result: dict[str, dict[int, Tensor]] = {}
        for label in self.work.labels:
            result[label] = {}
            for sign in (1, -1):
                count = int((self.decided.signs[items] == sign).sum())
                if count > 1 and (total := self.maps.total(f"{label}: {sign}")) is not None:
                    result[label][sign] = torch.stack([mean_of(side, count, size) for side in total])
        return result

    def photos(self, items: range) -> Sequence[int]:
        return _photos(self.work, self.decided, items)

    def step(self, items: range, faces: Faces) -> BatchResult:
        known = set(self.maps.items_of(items[0] // self.maps.size).tolist())
        kept = [item for item in _kept(self.work, self.decided, items, faces) if item in known]
        if not kept:
            return BatchResult([])
        network, same = self.work.network, self.work.data.same
        assert same is not None
        first, second = (stacked(faces, [pair[s] for pair in _of(self.work, kept)], network.device) for s in (0, 1))
        who_is = people(self.work, kept)
        who = pair_subject(
            network,
            first,
            second,
            same[kept],
            self.decided.protocol,
            self.work.config.part,  # type: ignore[arg-type]
            identities=who_is["identities"],
            partners=who_is["partners"],
            items=kept,
            seed=self.work.config.seed,
            batch_size=self.work.config.micro_batch,
        )
        rows: dict[str, Tensor] = {}
        common: dict[str, dict[str, PairCurve | None]] = {name: {} for name in self.work.metrics}
        for label in self.work.labels:
            rows |= self._measured(replace(who, reference=self._reference(kept, label)), kept, label, common)
        return BatchResult(kept, rows)

    def _measured(
        self, who: PairBatch, items: Sequence[int], label: str, common: dict[str, dict[str, PairCurve | None]]
    ) -> dict[str, Tensor]:
        """Returns rows (n, maps, steps + 1, 2): whether the decision is right, and the cosine; NaN
        without such a control.
        """
        result = {}
        maps = self._maps(items, label)
        for name in self.work.metrics:
            scheme: Scheme = "deletion" if name == "deletion" else "insertion"
            curve = measured(who, scheme, maps, known=common[name])
            common[name] = {control: curve.controls[control] for control in COMMON}
            each = (curve, *(curve.controls[control] for control in CONTROLS))
            result[f"{label}: {name}"] = stacked_rows([None if one is None else one.values for one in each])
            result[f"{label}: {name}{TIES}"] = stacked_rows([None if one is None else ties_of(one) for one in each])
        return result

    def _reference(self, items: Sequence[int], label: str) -> PairReference:
        others = None
        if self.partners is not None:
            others = self._maps([self.partners[item] for item in items], label)
        return PairReference(self.mean_maps[label], others)

    def _maps(self, items: Sequence[int], label: str) -> Tensor:
        """Returns (n, S, H, W), signed."""
        cells = self.maps.of(items, f"{label}: cells")
        maps = upsample(cells.flatten(0, 1), self.work.network.spec.height_width)
        return maps.view(*cells.shape[:2], *maps.shape[1:]).to(self.work.network.device)


def people(work: RunContext, items: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """Returns ``identities`` and ``partners`` (n,): the people of these pairs, see
    :attr:`RunContext.people_of_pairs`.
    """
    pairs, names = _of(work, items), work.people_of_pairs
    return {name: tuple(names[pair[side]] for pair in pairs) for side, name in enumerate(("identities", "partners"))}


def first_people(work: RunContext, items: Sequence[int]) -> list[str] | None:
    """Returns (n,) the person in the first photo of each of these pairs; None if the data set has no identities."""
    return [work.person(first) for first, _ in _of(work, items)] if work.knows_people else None


def _of(work: RunContext, items: Sequence[int]) -> list[tuple[int, int]]:
    assert work.data.index is not None
    return [(i, j) for i, j in work.data.index[list(items)].tolist()]


def _photos(work: RunContext, decided: PairSelection, items: range) -> list[int]:
    chosen = [item for item in items if decided.chosen[item]]
    return sorted({photo for pair in _of(work, chosen) for photo in pair}) if chosen else []


def _kept(work: RunContext, decided: PairSelection, items: range, faces: Faces) -> list[int]:
    chosen = [item for item in items if decided.chosen[item]]
    pairs = zip(chosen, _of(work, chosen), strict=True) if chosen else ()
    return [item for item, pair in pairs if pair[0] in faces and pair[1] in faces]
