"""Errors of groups of pairs at one threshold for all, with intervals by both people of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facexai.functional._decision import accepted, near
from facexai.functional._dyads import Dyads
from facexai.functional._labels import labels_of
from facexai.functional.verification import labelled_scores
from facexai.metrics._bias_result import Rates
from facexai.metrics._group_comparison import BothPeople, GroupRates
from facexai.metrics._pair_decision import PairDecision
from facexai.metrics.statistic import Statistic
from facexai.metrics.verification import Rule, placed

Array = NDArray[np.float64]


def rates_of(
    scores: Any,
    same: Any,
    rule: Rule,
    names: Sequence[str],
    group: NDArray[np.int64],
    people: BothPeople | None,
) -> GroupRates:
    """Returns the threshold and the errors of each group, or nothing without labels or scores."""
    if same is None:
        return GroupRates()
    labels = labels_of(same, len(group), "same", "rows")
    if scores is None:
        return GroupRates()
    cosines, labels = labelled_scores(scores, labels)
    limit, moved = placed(cosines, labels, rule)
    matched, rates = accepted(cosines, limit), {}
    for g, name in enumerate(names):
        own = group == g
        genuine, impostor = own & labels, own & ~labels
        kinds = {"fmr": impostor, "fnmr": genuine, "accuracy": own}
        rates[name] = Rates(
            fmr=float(matched[impostor].mean()) if impostor.any() else None,
            fnmr=float((~matched[genuine]).mean()) if genuine.any() else None,
            accuracy=float((matched == labels)[own].mean()),
            genuine=int(genuine.sum()),
            impostor=int(impostor.sum()),
            **{
                f"{kind}_interval": share_interval(cosines, labels, rule, limit, people, rows, wrong=kind != "accuracy")
                for kind, rows in kinds.items()
                if people is not None and rows.any()
            },
        )
    about = {"decisions moved": moved, "near the threshold": int(near(cosines, limit).sum())}
    return GroupRates(limit, rates, about)


def share_interval(
    scores: Array,
    same: NDArray[np.bool_],
    rule: Rule,
    limit: float,
    people: BothPeople,
    rows: NDArray[np.bool_],
    *,
    wrong: bool,
) -> tuple[float, float] | None:
    """Returns the 95 % interval of the share of wrong, or right, decisions among some pairs, at a
    threshold of all of them.
    """
    chosen = np.flatnonzero(rows)
    decision = PairDecision(scores, same, Dyads.of(*people), rule, chosen)

    def decided(at: float) -> Array:
        right = accepted(scores[chosen], at) == same[chosen]
        share: Array = (right != wrong).astype(np.float64)
        return share

    first, second = ([names[i] for i in chosen] for names in people)
    shares = Statistic.of(decided(limit), items=chosen.tolist(), identities=first, partners=second, bounds=(0.0, 1.0))
    return shares.pair_interval(decision.error(limit, decided))
