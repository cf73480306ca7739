"""The thresholds of a report: where they are from, and what each of them decides about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from facexai.functional._decision import is_threshold
from facexai.results import GallerySaliency, PairSaliency, Saliency


@final
@dataclass(frozen=True)
class Thresholds:
    """The decision thresholds of a page.

    Attributes:
        values: all of them.
        source: where they are from, in words.
        by_network: by fingerprint the one that decides about results that were decided with none.
        own: fingerprint of results that record none; None: unknown.
        note: what they do not decide about, in words.
    """

    values: tuple[float, ...] = ()
    source: str = ""
    by_network: Mapping[str | None, float] = field(default_factory=dict)
    own: str | None = None
    note: str = ""

    def of(self, recipe: Mapping[str, Any]) -> float | None:
        """Returns the one that decides about a result with this recipe."""
        return self.by_network.get(network_of(recipe, self.own))

    def record(self, decided: bool) -> dict[str, Any] | None:
        """Returns the thresholds for the record; ``decided``: whether a decision of the page depends on one."""
        if not self.values:
            return None
        note = self.note if decided else "no decision of this page rests on it"
        return {"values": list(self.values), "source": self.source, "note": note}


def network_of(recipe: Mapping[str, Any], own: str | None = None) -> str | None:
    """The fingerprint in a recipe, else ``own``; a recipe may come from a file and hold anything."""
    fingerprint = recipe.get("fingerprint")
    return fingerprint if isinstance(fingerprint, str) else own


def thresholds(results: Sequence[Any], given: float | None, source: str | None, own: str | None) -> Thresholds:
    """Returns the given threshold, else those of the results' decisions, each for its own network.

    Args:
        results: of the sections.
        given: cosine from which a pair, or a face and the nearest enrolled person, are accepted.
        source: where it is from, in words.
        own: fingerprint of the given network, which results without one are attributed to.

    Raises:
        ValueError: no cosine, a source without a threshold, results that were decided with another one, or one
            threshold for several networks.
    """
    decided = _decided(results, own)
    known = sorted({value for values in decided.values() for value in values})
    # maps without a scale are of logits, about which no cosine decides
    networks = networks_behind(
        [one for one in results if not isinstance(one, Saliency) or one.recipe.get("scale")], own
    )
    if given is None:
        return _found(decided, known, source, own, len(networks) > 1)
    if not is_threshold(given):
        raise ValueError(f"expected a threshold as a finite number from -1 to 1, a cosine, got {given!r}")
    other = [value for value in known if value != float(given)]
    if other:
        raise ValueError(
            f"results were decided with the threshold {other[0]:g}, the report is given {given:g}; answer them "
            "again with that one, or leave threshold out"
        )
    if len(networks) > 1:
        told = ", ".join(name or "one that is not told" for name in networks)
        raise ValueError(
            f"a threshold holds for one network, these decisions are of {len(networks)} ({told}); report them one by "
            "one, or leave threshold out"
        )
    by_network = dict.fromkeys(networks, float(given))
    return Thresholds((float(given),), source or "given, without a source", by_network, own)


def _found(
    decided: Mapping[str | None, set[float]], known: Sequence[float], source: str | None, own: str | None, mixed: bool
) -> Thresholds:
    """Returns the thresholds that the results were decided with; several for one network decide nothing else."""
    if source is not None and not known:
        raise ValueError("threshold_source without a threshold; give threshold, too, or results that decided with one")
    if source is not None and len(known) > 1:
        raise ValueError(
            f"threshold_source is about one threshold, the results were decided with {known}; leave it out"
        )
    several = any(len(values) > 1 for values in decided.values())
    note = ""
    if several:
        note = "results of one network were decided with several: each decides about its own result and no other"
    elif known and mixed:
        note = "each decides about results of its own network and no other"
    one = {network: next(iter(values)) for network, values in decided.items() if len(values) == 1}
    return Thresholds(tuple(known), source or "given with the results, without a source", one, own, note)


def _decided(results: Sequence[Any], own: str | None) -> dict[str | None, set[float]]:
    """Returns the thresholds of verdicts by network."""
    by_network: dict[str | None, set[float]] = {}
    for result in results:
        if isinstance(result, PairSaliency | GallerySaliency) and result.threshold is not None:
            by_network.setdefault(network_of(result.recipe, own), set()).add(float(result.threshold))
    return by_network


def networks_behind(results: Sequence[Any], own: str | None) -> list[str | None]:
    """Returns fingerprints of the networks that maps among the results are of; None: one that is not recorded."""
    maps = (one for one in results if isinstance(one, PairSaliency | GallerySaliency | Saliency))
    return list(dict.fromkeys(network_of(one.recipe, own) for one in maps))
