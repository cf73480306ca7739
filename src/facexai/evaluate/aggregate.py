"""Aggregates the numbers of all items into the results that :mod:`facexai.metrics` gives for data in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facexai.evaluate import identification, verification
from facexai.evaluate._steps import TIES
from facexai.evaluate.identification import People
from facexai.evaluate.results import Results, written
from facexai.evaluate.shards import Shards
from facexai.evaluate.verification import Pairs
from facexai.functional._decision import accepted, near
from facexai.metrics import Curve, Drop, PairCurve, Statistic
from facexai.metrics._ties import Ties
from facexai.metrics.concentration import Narrowness, Overlap
from facexai.metrics.faithfulness import table_of
from facexai.metrics.pair_subject import recipe_of
from facexai.metrics.pair_table import pair_table
from facexai.models import Gallery

_ONE_ITEM = "one item: the mean map is its own"
_NO_OTHER = "an item has no partner of another identity"


def of_people(run: People, manifest: Mapping[str, Any]) -> Results:
    """Returns the results of a run about people.

    Raises:
        ValueError: nothing could be measured.
    """
    work = run.work
    mapped = run.maps.measured()
    items = mapped if run.numbers is None else run.numbers.measured()
    if len(items) == 0:
        raise ValueError(f"nothing could be measured: no photo could be read, such as {work.why(run.maps)}")
    people = [work.person(work.probes[i]) for i in items.tolist()] if work.knows_people else None
    measured: dict[str, dict[str, Any]] = {}
    for label in work.labels:
        measured[label] = {}
        for metric in work.metrics:
            result = _result_of(run, label, metric, items, people)
            if result is not None:
                measured[label][metric] = result
    classifier = run.classifier
    about: dict[str, Any] = (
        {"scale": classifier.scale, "people": len(classifier)} if isinstance(classifier, Gallery) else {}
    )
    targets = _rows_at(run.maps.rows("targets").numpy(), mapped, items).tolist()
    names = classifier.names
    if people is not None and names is not None:
        right = [names[target] == name for target, name in zip(targets, people, strict=True) if name in set(names)]
        about |= {"identified": sum(right) / len(right) if right else None, "identified of": len(right)}
    counts = {"items": len(work.probes), "enrolled": len(work.enrolled), "measured": len(items)}
    failed = run.maps.failed()
    for shards in (run.numbers, run.enrolled):
        failed |= {} if shards is None else shards.failed()
    config = work.config
    table = table_of(measured, {"seed": config.seed, "area": config.area, "fill": config.fill, "steps": config.steps})
    description = {"unit": "photo", "classifier": about, "size": list(work.network.spec.height_width)}
    description |= {"explainers": run.maps.recipes()}
    scores = _rows_at(run.maps.rows("scores").numpy(), mapped, items).tolist()
    decided = [[names[target] if names else target, s] for target, s in zip(targets, scores, strict=True)]
    return written(work, table, measured, run.mean_maps, description, counts, failed, manifest, decided)


def of_pairs(run: Pairs, manifest: Mapping[str, Any]) -> Results:
    """Returns the results of a run about pairs.

    Raises:
        ValueError: nothing could be measured.
    """
    work, decided, config = run.work, run.decided, run.work.config
    items = run.numbers.measured()
    if len(items) == 0:
        raise ValueError(f"nothing could be measured: no photo could be read, such as {work.why(run.embedded)}")
    people: dict[str, Any] = {**verification.people(work, items.tolist()), "decision": decided.decision(work, items)}
    limit, moved = decided.limit
    recipe = recipe_of(config.protocol, decided.asked, decided.limit, config.part, config.seed)
    measured: dict[str, dict[str, Any]] = {}
    for label in work.labels:
        measured[label] = {}
        for metric in work.metrics:
            rows = _rows_of(run.numbers, f"{label}: {metric}")
            about = {"scheme": metric, **recipe}
            measured[label][metric] = _with_controls(PairCurve, rows, items, people, about, verification.MAPS)
    maps = {
        f"{label}, {'similar' if sign > 0 else 'dissimilar'} part, {'first' if side == 0 else 'second'} face": one
        for label, by_sign in run.mean_maps.items()
        for sign, both in by_sign.items()
        for side, one in enumerate(both)
    }
    readable = decided.scores[np.isfinite(decided.scores)]
    about = {"threshold": limit, "accepted": float(accepted(readable, limit).mean())}
    about |= {"decisions moved": moved, "near the threshold": int(near(readable, limit).sum())}
    counts = {"items": len(decided.scores), "readable": len(readable), "chosen": int(decided.chosen.sum())}
    counts["measured"] = len(items)
    failed = run.embedded.failed() | run.maps.failed() | run.numbers.failed()
    table = pair_table(measured, recipe)  # type: ignore[arg-type]
    description = {"unit": "pair", "decision": about, "explainers": run.maps.recipes()}
    return written(work, table, measured, maps, description, counts, failed, manifest)


def _result_of(run: People, label: str, metric: str, items: NDArray[np.int64], people: Sequence[str] | None) -> Any:
    """Returns a metric's result for an explainer's maps; None where it does not apply to such maps."""
    config, name = run.work.config, f"{label}: {metric}"
    if metric in ("narrowness", "overlap"):
        if not run.maps.has(name):
            return None
        values = _rows_at(run.maps.rows(name).numpy(), run.maps.measured(), items)
        first, second = (Statistic.of(column, items=items.tolist(), identities=people) for column in values.T)
        if metric == "narrowness":
            return Narrowness(first, second)
        tied = _rows_at(run.maps.rows(name + TIES).numpy(), run.maps.measured(), items)
        return Overlap(first, second, Ties.of(tied, items=items.tolist(), identities=people))
    assert run.numbers is not None
    score = "cosine" if isinstance(run.classifier, Gallery) else "logit"
    how = "signed" if run.maps.has(f"{label}: signed cells") else "fields"
    return of_rows(metric, _rows_of(run.numbers, name), items, config, score, people, how)


Rows = tuple[NDArray[np.float64], NDArray[np.float64] | None]
"""Values (n, maps, ...), and the contribution of ties (n, maps, 2), which older runs have not recorded."""


def _rows_of(shards: Shards, name: str) -> Rows:
    return shards.rows(name).numpy(), shards.rows(name + TIES).numpy()


def of_rows(
    metric: str,
    rows: Rows,
    items: NDArray[np.int64],
    config: Any,
    score: str,
    people: Sequence[str] | None,
    ties: str | None,
) -> Drop | Curve:
    """Returns deletion, retention or a curve with its controls, from the rows of these items in the shards.

    Args:
        metric: as the configuration names it.
        rows: numbers and ties.
        items: (n,).
        config: has ``steps``, ``area``, ``fill`` and ``seed``.
        score: unit of the score.
        people: (n,) identities, where known.
        ties: what broke them, as the recipe has it; None where it was not recorded.
    """
    broken = {} if ties is None else {"ties": ties}
    result: Drop | Curve
    people_known = {"identities": people}
    if metric in identification.CURVES:
        recipe = {
            "scheme": identification.CURVES[metric],
            "steps": config.steps,
            "fill": identification.fill_of(metric, config),
        }
        result = _with_controls(
            Curve, rows, items, people_known, {**recipe, "seed": config.seed, **broken}, identification.MAPS
        )
    else:
        recipe = {"scheme": metric, "area": config.area, "fill": config.fill, "seed": config.seed, "score": score}
        result = _with_controls(Drop, rows, items, people_known, recipe | broken, identification.MAPS)
    return result


def _with_controls(
    kind: Any, rows: Rows, items: Any, people: Mapping[str, Any], recipe: Any, names: Sequence[str]
) -> Any:
    """Returns a result from the rows of maps in the order of ``names``, the own map first; a missing control is NaN.

    ``people``: the arguments about people.
    """
    values, tied = rows

    def result_of(place: int, **rest: Any) -> Any:
        ties = None if tied is None else tied[:, place]
        return kind.of(values[:, place], items=items, recipe=recipe, ties=ties, **people, **rest)

    controls = {n: None if np.isnan(values[:, m]).any() else result_of(m) for m, n in enumerate(names) if m > 0}
    reasons = {n: _ONE_ITEM if n == "mean-map" else _NO_OTHER for n, control in controls.items() if control is None}
    return result_of(0, controls=controls, reasons=reasons)


def _rows_at(rows: NDArray[Any], have: NDArray[np.int64], want: NDArray[np.int64]) -> NDArray[Any]:
    picked: NDArray[Any] = rows[np.searchsorted(have, want)]
    return picked
