"""Everything that a verification curve depends on, by name: without it two published areas cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, final, get_args

from facexai._errors import suggest, suppress_warnings
from facexai.functional._decision import is_threshold
from facexai.metrics.verification import Rule, threshold

PairChoice = Literal["genuine", "impostor", "all", "accepted", "rejected"]
Perturbed = Literal["probe", "both"]
PairFill = Literal["black", "mean", "blur"]
Rank = Literal["raw", "blurred"]
Area = Literal["trapezoid"]
Part = Literal["similar", "dissimilar", "auto"]

PARTS: tuple[Part, ...] = get_args(Part)
_CHOICES = {
    "pairs": get_args(PairChoice),
    "perturb": get_args(Perturbed),
    "fill": get_args(PairFill),
    "rank": get_args(Rank),
    "auc": get_args(Area),
}


@final
@dataclass(frozen=True)
class Protocol:
    """A protocol: the choice, perturbation, decision and summary of pairs.

    Args:
        pairs: which pairs the curve is over: by their label (``"genuine"``: one person, ``"impostor"``: two), by the
            decision about the unchanged images (``"accepted"``, ``"rejected"``), or ``"all"``.
        perturb: ``"probe"``, the first image, or ``"both"``, each by its own map.
        fill: what replaces removed pixels; see :func:`facexai.perturb.make_fill`.
        steps: number of equal steps from 0 to all of the pixels.
        rank: order of the pixels by the ``"raw"`` map, or by the ``"blurred"``: the part of the map under a Gaussian of
            sigma 5/112 widths, as such maps are drawn in print.
        threshold: rule for the decision, see :func:`facexai.metrics.threshold`; from the scores of all unchanged pairs,
            before ``pairs`` are chosen, so that both kinds are there.
        auc: ``"trapezoid"``.

    Raises:
        ValueError: a choice that does not exist.

    >>> Protocol(pairs="genuine", steps=20, threshold="far=1e-3").perturb
    'probe'
    """

    pairs: PairChoice = "all"
    perturb: Perturbed = "probe"
    fill: PairFill = "black"
    steps: int = 10
    rank: Rank = "raw"
    threshold: Rule = "eer"
    auc: Area = "trapezoid"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"expected {name} one of {list(known)}, got {value!r}; {suggest(str(value), known)}")
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ValueError(f"expected steps as a whole number of at least 1, got {self.steps!r}")
        with suppress_warnings():
            found = threshold((1.0, 0.0), (True, False), self.threshold)  # refuses what is no rule
        if not is_threshold(found):
            raise ValueError(f"expected a threshold from -1 to 1, a cosine, got {self.threshold!r}")


PROTOCOLS: Mapping[str, Mapping[Part, Protocol]] = MappingProxyType(
    {
        "fame": {part: Protocol() for part in PARTS},
        "epfl-inferred": {
            "similar": Protocol(pairs="genuine"),
            "dissimilar": Protocol(pairs="impostor"),
            "auto": Protocol(),
        },
    }
)
"""Presets by name and explained part.

``"fame"``: all pairs, 0 to 100 % of the probe in steps of 10 %, black, threshold at equal error rate; published.
``"epfl-inferred"``: similarity maps on genuine pairs, dissimilarity maps on impostor pairs; all else as ``"fame"``.
Inferred from what is reported of CorrRISE and FGGB, not read there: published levels are no reference for it.
"""


def resolve(protocol: str | Protocol, part: Part) -> tuple[str, Protocol]:
    """Returns the name and the protocol for this part of the maps; a protocol of one's own is called ``"own"``.

    Raises:
        ValueError: no such preset or part.
    """
    if part not in PARTS:
        raise ValueError(f"expected part one of {list(PARTS)}, got {part!r}; {suggest(str(part), PARTS)}")
    if isinstance(protocol, Protocol):
        return "own", protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol is called {protocol!r}; {suggest(str(protocol), PROTOCOLS)}")
    return protocol, PROTOCOLS[protocol][part]
