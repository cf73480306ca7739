"""Putting the numbers of all items together, as :mod:`facexai.metrics` gives them for data in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facexai.evaluate import pairs, people
from facexai.evaluate.pairs import Pairs
from facexai.evaluate.people import People
from facexai.evaluate.results import Results, written
from facexai.evaluate.work import Work
from facexai.metrics import Curve, Drop, PairCurve, Statistic
from facexai.metrics.faithfulness import table_of
from facexai.metrics.pair_table import pair_table
from facexai.metrics.shape import Narrowness, Overlap
from facexai.models import Gallery

_ONE_ITEM = "one item: the mean map is its own"
_NO_OTHER = "an item has no partner of another identity"


def of_people(run: People, folder: Path) -> Results:
    """What a run about people found.

    Raises:
        ValueError: nothing could be measured.
    """
    work, config = run.work, run.work.config
    mapped = run.maps.measured()
    asked = len(run.numbers.stage.photos(range(1))) > 0
    items = run.numbers.measured() if asked else mapped
    if len(items) == 0:
        raise ValueError(f"nothing could be measured: no photo could be read, such as {work.why(run.maps)}")
    who = [work.person(work.probes[i]) for i in items.tolist()] if work.knows_people else None
    measured: dict[str, dict[str, Any]] = {}
    for label in work.labels:
        found = measured[label] = {}
        for metric in work.metrics:
            if metric in ("narrowness", "overlap"):
                shape = _shape(run, label, metric, items, who)
                if shape is not None:
                    found[metric] = shape
                continue
            values = run.numbers.rows(f"{label}: {metric}").numpy()
            recipe = _recipe(work, metric)
            kind: Any = Drop if metric in ("deletion", "retention") else Curve
            made = {n: _one(kind, values[:, m], items, who, recipe) for m, n in enumerate(people.MAPS)}
            found[metric] = _with_controls(kind, values[:, 0], items, who, recipe, made, people.MAPS)
    maps = run.numbers.stage.mean_maps if len(mapped) > 1 else {}  # type: ignore[attr-defined]
    classifier = run.classifier
    about = {"scale": classifier.scale, "people": len(classifier)} if isinstance(classifier, Gallery) else {}
    if who is not None and (names := classifier.names) is not None:
        targets = _rows_at(run.maps.rows("targets").numpy(), mapped, items)
        about["identified"] = float(np.mean([names[t] == name for t, name in zip(targets.tolist(), who, strict=True)]))
    counts = {"items": len(work.probes), "enrolled": len(work.enrolled), "measured": len(items)}
    failed = run.maps.failed() | run.numbers.failed() | (run.enrolled.failed() if work.enrolled else {})
    table = table_of(measured, {"seed": config.seed, "area": config.area, "fill": config.fill, "steps": config.steps})
    return written(work, folder, table, measured, maps, {"unit": "photo", "classifier": about}, counts, failed)


def of_pairs(run: Pairs, folder: Path) -> Results:
    """What a run about pairs found.

    Raises:
        ValueError: nothing could be measured.
    """
    work, decided = run.work, run.decided
    items = run.numbers.measured()
    if len(items) == 0:
        raise ValueError(f"nothing could be measured: no photo could be read, such as {work.why(run.embedded)}")
    who = [pairs.person(work, item) for item in items.tolist()]
    measured: dict[str, dict[str, Any]] = {}
    for label in work.labels:
        measured[label] = {}
        for metric in work.metrics:
            values = run.numbers.rows(f"{label}: {metric}").numpy()
            recipe = {"scheme": metric, **_recipe(work, metric)}
            made = {n: _one(PairCurve, values[:, m], items, who, recipe) for m, n in enumerate(pairs.MAPS)}
            measured[label][metric] = _with_controls(PairCurve, values[:, 0], items, who, recipe, made, pairs.MAPS)
    config = work.config
    recipe = {"protocol": config.protocol, "part": config.part, "threshold": decided.threshold, "seed": config.seed}
    stage: Any = run.numbers.stage
    maps = {
        f"{label}, {'similar' if sign > 0 else 'dissimilar'} part, {'first' if side == 0 else 'second'} face": one
        for label, by_sign in stage.mean_maps.items()
        for sign, both in by_sign.items()
        for side, one in enumerate(both)
    }
    scores = decided.scores
    about = {
        "threshold": decided.threshold,
        "accepted": float(np.mean(scores[np.isfinite(scores)] >= decided.threshold)),
    }
    counts = {"items": len(scores), "chosen": int(decided.chosen.sum()), "measured": len(items)}
    failed = run.embedded.failed() | run.maps.failed() | run.numbers.failed()
    table = pair_table(measured, recipe)  # type: ignore[arg-type]
    return written(work, folder, table, measured, maps, {"unit": "pair", "decision": about}, counts, failed)


def _recipe(work: Work, metric: str) -> dict[str, Any]:
    config = work.config
    return {"metric": metric, "seed": config.seed}


def _one(kind: Any, values: NDArray[np.float64], items: Any, who: Any, recipe: Any, **rest: Any) -> Any:
    """One result; None where there was no such control."""
    if np.isnan(values).any():
        return None
    return kind.of(values, items=items, identities=who, recipe=recipe, **rest)


def _with_controls(
    kind: Any, own: NDArray[np.float64], items: Any, who: Any, recipe: Any, made: dict[str, Any], names: Sequence[str]
) -> Any:
    controls = {name: made[name] for name in names if name != "own"}
    reasons = {n: _ONE_ITEM if n == "mean-map" else _NO_OTHER for n, control in controls.items() if control is None}
    return _one(kind, own, items, who, recipe, controls=controls, reasons=reasons)


def _shape(run: People, label: str, metric: str, items: Any, who: Any) -> Narrowness | Overlap | None:
    """Narrowness or overlap; None where the explainer is not SDD, which alone compares classes."""
    name = f"{label}: {metric}"
    if not run.maps.has(name):
        return None
    values = _rows_at(run.maps.rows(name).numpy(), run.maps.measured(), items)
    columns = (Statistic.of(column, items=items, identities=who) for column in values.T)
    return Narrowness(*columns) if metric == "narrowness" else Overlap(*columns)


def _rows_at(rows: NDArray[Any], have: NDArray[np.int64], want: NDArray[np.int64]) -> NDArray[Any]:
    found: NDArray[Any] = rows[np.searchsorted(have, want)]
    return found
