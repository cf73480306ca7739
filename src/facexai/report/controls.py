"""Compares each explanation with its controls, by item and over all items, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from facexai._errors import short_repr
from facexai._json import finite, plain
from facexai.metrics import Curve, Drop, PairCurve, Statistic
from facexai.report.format import apart, number, rough
from facexai.results import PairSaliency, Saliency

WORDS = {
    "own": "this map",
    "random": "random place",
    "random-region": "order moved elsewhere",
    "centre": "centre of the picture",
    "mean-map": "mean of all maps",
    "other-image": "another photo's map",
    "other-pair": "another pair's map",
}
"""The names of controls on a page."""

_ALIKE = 1e-3  # by which cosines of one pair differ between devices and kinds of numbers


@final
@dataclass(frozen=True, eq=False)
class _Kind:
    """Describes how one kind of measurement is read."""

    title: str
    unit: str
    more_is_better: bool | None
    of: Callable[[Any], Statistic]
    judged: bool = True


def controls(measured: Sequence[Any], why: Saliency | PairSaliency) -> list[list[dict[str, Any]]]:
    """Returns for each item the measurements of its map and of its controls, and a sentence.

    Raises:
        ValueError: a measurement of another number of items, of another method, layer, network or class, or of other
            pairs.
        TypeError: something that is no measurement with controls, or one of another kind of maps.
    """
    by_item: list[list[dict[str, Any]]] = [[] for _ in range(len(why))]
    for one, kind in _all(measured):
        if len(kind.of(one)) != len(why):
            raise ValueError(f"expected measurements of the {len(why)} items of the result, got {one!r:.120}")
        _belongs(one, why)
        for item in range(len(why)):
            rows = [_row(name, kind.of(part).values[item]) for name, part in _parts(one)]
            text = _sentence(kind, rows) + _tied(0.0 if one.ties is None else float(one.ties.share.values[item]))
            by_item[item].append({"metric": kind.title, "unit": kind.unit, "rows": rows, "sentence": text})
    return by_item


def _belongs(one: Any, why: Saliency | PairSaliency) -> None:
    """Refuses measurements of other maps, as far as their recipes show."""
    if isinstance(one, PairCurve) is not isinstance(why, PairSaliency):
        raise TypeError(f"measured= holds a {type(one).__name__}, which is not about maps of a {type(why).__name__}")
    known = {**why.recipe, **({} if isinstance(why, PairSaliency) else {"targets": why.targets.tolist()})}
    for name, made in one.recipe.get("explained", {}).items():
        own = known.get(name, made)
        if own != made:
            told = f"maps of {name} {short_repr(made)}, this result has {short_repr(own)}"
            raise ValueError(f"measured= is about {told}; measure this one")
    if isinstance(one, PairCurve) and isinstance(why, PairSaliency):
        whole = one.cosines[:, 0 if one.recipe.get("scheme") == "deletion" else -1]
        if not np.allclose(whole, why.scores.detach().cpu().double().numpy(), atol=_ALIKE):
            raise ValueError("measured= is about other pairs: their cosines are not those of this result")


def overall(measured: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the measurements over all items, with intervals and p-values; nothing for a single item."""
    result = []
    for one, kind in _all(measured):
        own = kind.of(one)
        if len(own) < 2:
            continue
        rows = [_row(name, kind.of(part).mean, kind.of(part)) for name, part in _parts(one)]
        for row, (_, part) in zip(rows[1:], _parts(one)[1:], strict=True) if kind.more_is_better is not None else ():
            row["p"] = finite(own.p_value(kind.of(part)))
        missing = [f"{WORDS.get(name, name)}: {why}" for name, why in one.reasons.items()]
        made = {"metric": kind.title, "unit": kind.unit, "items": len(own), "rows": rows, "missing": missing}
        result.append(made | {"recipe": _recipe(one)})
    return result


def recipes(measured: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the recipes of the measurements, seeds included."""
    return [{"measured": type(one).__name__, **_recipe(one)} for one in measured]


def _recipe(one: Any) -> dict[str, Any]:
    """Returns the recipe as JSON, without the classes of the items, of which there may be thousands."""
    recipe: dict[str, Any] = plain(one.recipe)
    recipe.get("explained", {}).pop("targets", None)
    return recipe if one.ties is None else recipe | {"tied": f"{rough(one.ties.share.mean)} of the marked pixels"}


def _all(measured: Sequence[Any]) -> list[tuple[Any, _Kind]]:
    return [(one, kind) for one in measured for kind in _kinds(one)]


def _parts(one: Any) -> list[tuple[str, Any]]:
    """Returns the map's own measurement and those of its controls; along a curve the random control has no region."""
    named = {"random": "random" if isinstance(one, Drop) else "random pixels"}
    return [("own", one), *((named.get(name, name), part) for name, part in one.controls.items() if part is not None)]


def _row(name: str, value: float, over: Statistic | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": WORDS.get(name, name), "control": name != "own", "value": finite(value)}
    if over is not None:
        low, high = over.interval or (None, None)
        row |= {"low": finite(low), "high": finite(high)}
    return row


def _kinds(one: Any) -> list[_Kind]:
    """Returns how a measurement is read; probabilities saturate, so drops are given in units of the score, too."""
    scheme = getattr(one, "recipe", {}).get("scheme")
    if isinstance(one, Drop):
        area = number(100 * float(one.recipe["area"]))
        gone = f"marked {area} % hidden" if scheme == "deletion" else f"only the marked {area} % shown"
        more, unit = scheme == "deletion", str(one.recipe.get("score", "score"))
        way = f"{'more' if more else 'less'} is better"
        return [
            _Kind(f"{gone}: points of probability lost ({way})", "points", more, lambda d: d.probability, judged=False),
            _Kind(f"{gone}: {unit} lost ({way})", unit, more, lambda d: d.score),
        ]
    if isinstance(one, Curve | PairCurve):
        what = "probability" if isinstance(one, Curve) else "cosine"
        part = one.recipe.get("part")
        more = None if part == "auto" else (scheme == "insertion") == (part != "dissimilar")
        better = "which way is better differs by pair" if more is None else f"{'more' if more else 'less'} is better"
        title = f"{scheme}: area under the {what} ({better})"
        return [_Kind(title, what, more, lambda c: c.area if isinstance(c, Curve) else c.cosine_area)]
    raise TypeError(f"expected measurements with controls, such as metrics.deletion(...), got {type(one).__name__}")


def _tied(share: float) -> str:
    """Returns a sentence on the marked pixels that ties of this map decide; nothing below one per cent."""
    return f" {rough(share)} of the marked pixels are drawn among equal values of the map." if share >= 0.01 else ""


def _sentence(kind: _Kind, rows: Sequence[dict[str, Any]]) -> str:
    """Returns a sentence on the rank of the map among its controls.

    Probabilities saturate, so there is no verdict by them: the score, beside them, gives it.
    """
    own, others = rows[0], rows[1:]
    if not others:
        return "No control was measured."
    digits = apart(own["value"], [row["value"] for row in others])
    listed = ", ".join(f"{row['name']} {number(row['value'], digits)}" for row in others)
    sentence = f"This map {number(own['value'], digits)} {kind.unit}; controls: {listed}."
    if not kind.judged or kind.more_is_better is None:
        return sentence
    way = 1 if kind.more_is_better else -1
    lost = [row["name"] for row in others if way * own["value"] <= way * row["value"]]
    verdict = f"It does no better than: {', '.join(lost)}." if lost else "The map does better than every control here."
    return f"{sentence} {verdict}"
