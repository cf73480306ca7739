"""Pair explainers, their curves and the controls in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from facexai.metrics.faithfulness import Table
from facexai.metrics.pair_curves import PairCurve, Scheme, measured
from facexai.metrics.pair_orders import COMMON, CONTROLS
from facexai.metrics.pair_protocol import Part, Protocol
from facexai.metrics.pair_subject import PairOptions, pair_subject
from facexai.models.protocols import Embedder
from facexai.results import PairSaliency

PairMethod = Callable[[Tensor, Tensor], PairSaliency] | PairSaliency | Tensor

SCHEMES: tuple[Scheme, ...] = ("deletion", "insertion")
PANELS = {
    "deletion": "deletion: area under the accuracy, %",
    "insertion": "insertion: area under the accuracy, %",
}
_NAMES = {"centre": "centre prior", "random": "random pixels"}


def pair_faithfulness(
    methods: Mapping[str, PairMethod],
    model: Embedder,
    first: Tensor,
    second: Tensor,
    same: Any,
    protocol: str | Protocol = "fame",
    part: Part = "similar",
    **options: Unpack[PairOptions],
) -> Table:
    """Measures pair explainers side by side, with baseline controls such as another pair's map.

    Args:
        methods: name -> explainer (called with both images), its PairSaliency, or signed maps (P, 2, H, W).
        model, first, second, same, protocol, part, options: as in :func:`verification_deletion`.

    Returns:
        :class:`Table`: one row per method, then the controls, those that depend on a method under its name.
        ``deletion`` (less is better) and ``insertion`` (more is better): area under the accuracy in per cent;
        ``... cosine``: that under the cosine, see :attr:`PairCurve.cosine_area`.
        ``specificity``: by how much another pair's map is worse in deletion. ``beats ...``: better than the control
        in deletion, ``insertion beats ...`` in insertion, with p < 0.05, paired, not corrected for their number.

    Raises:
        ValueError: no method; else as :func:`verification_deletion`.
    """
    if not methods:
        raise ValueError("expected at least one method")
    who = pair_subject(model, first, second, same, protocol, part, **options)
    found: dict[str, dict[Scheme, PairCurve]] = {}
    common: dict[Scheme, dict[str, PairCurve | None]] = {}
    recipes: dict[str, Any] = {}
    for name, method in methods.items():
        maps = method(first, second) if callable(method) and not isinstance(method, Tensor) else method
        recipes[name] = dict(getattr(maps, "recipe", {}))
        found[name] = {scheme: measured(who, scheme, maps, known=common.get(scheme)) for scheme in SCHEMES}
        common = {scheme: {c: curve.controls[c] for c in COMMON} for scheme, curve in found[name].items()}
    recipe = {"pairs given": who.given, "pairs measured": len(who.chosen), "explainers": recipes}
    return pair_table(found, {**who.recipe, **recipe})


def pair_table(found: Mapping[str, Mapping[Scheme, PairCurve]], recipe: Mapping[str, Any]) -> Table:
    """Returns the table of what was measured: method -> scheme -> curve; all methods by the same schemes."""
    rows, below = [], []
    for name, curves in found.items():
        rows.append(pair_row(name, curves))
        for control in CONTROLS:
            if control not in COMMON:
                below.append(_row(f"{control} of {name}", _controls(curves, control), control=True))
    last = list(found.values())[-1]
    shared = [_row(_NAMES[c], _controls(last, c), control=True) for c in COMMON]
    main = next(iter(last))
    below = [row for row in (*shared, *below) if row[main] is not None]
    panels = {name: title for name, title in PANELS.items() if name in last}
    return Table(tuple(rows + [{**dict.fromkeys(rows[0]), **row} for row in below]), recipe, panels)


def _controls(curves: Mapping[Scheme, PairCurve], control: str) -> dict[Scheme, PairCurve | None]:
    return {scheme: curve.controls[control] for scheme, curve in curves.items()}


def pair_row(name: str, curves: Mapping[Scheme, PairCurve]) -> dict[str, Any]:
    """Returns a method's row of the table from its two curves."""
    row = _row(name, curves, control=False)
    if "deletion" in curves:
        gone = curves["deletion"]
        other = gone.controls["other-pair"]
        row["specificity"] = None if other is None else other.auc - gone.auc
    for scheme in curves:
        told = "beats" if scheme == "deletion" else "insertion beats"
        row |= {f"{told} {control}": _beats(curves[scheme], control) for control in CONTROLS}
    return row


def _row(name: str, curves: Mapping[Scheme, PairCurve | None], *, control: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"map": name, "control": control}
    for scheme, curve in curves.items():
        row[scheme] = None if curve is None else curve.auc
        row[f"{scheme} interval"] = None if curve is None else curve.interval
        row[f"{scheme} cosine"] = None if curve is None else curve.cosine_area.mean
    return row


def _beats(curve: PairCurve, control: str) -> bool | None:
    other, p = curve.controls[control], curve.p_value(control)
    if other is None or p is None:
        return None
    better = curve.auc < other.auc if curve.recipe["scheme"] == "deletion" else curve.auc > other.auc
    return bool(better and p < 0.05)
