"""Methods, metrics and controls in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor
from typing_extensions import Unpack

from facexai._html import cell, table, words
from facexai._json import plain
from facexai.metrics._batch import CONTROLS, Options
from facexai.metrics._identities import people_of
from facexai.metrics._ties import columns_of
from facexai.metrics.concentration import Narrowness, Overlap, narrowness
from facexai.metrics.curves import Curve, insertion
from facexai.metrics.drop import Drop, deletion, retention
from facexai.models import Classifier
from facexai.perturb import Fill, check_items
from facexai.results import Saliency
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = {
    "half of the mass": "share of the picture that holds half of the map (less is narrower)",
    "overlap after": "overlap of the regions of the top classes (less is more apart)",
}
"""Drawn where nothing else was measured."""

Method = Callable[[Tensor], Saliency] | Saliency
Measure = Drop | Curve | Narrowness | Overlap

PANELS = {
    "deletion": "deletion: points lost (more is better)",
    "retention": "retention: points lost (less is better)",
    "insertion": "insertion: area under the probability (more is better)",
    "deletion-curve": "deletion: area under the probability (less is better)",
}


@final
@dataclass(frozen=True, eq=False)
class Table:
    """One row for each method and for each control that does not depend on the method.

    Attributes:
        rows: numbers by column; None where something could not be measured.
        recipe: every choice that changed a number.
        panels: column -> title of what :meth:`plot` draws; each has its interval in the column ``"... interval"``.

    The function that made the table documents its columns. Of :func:`faithfulness`: ``deletion`` (more is
    better), ``retention`` (less is better): drop of the target's probability in points. ``tied``: share of the marked
    area that ties of the map decide, see :func:`deletion`. ``specificity``: deletion minus that of another image's map.
    ``beats ...``: whether the deletion is larger than the control's with p < 0.05, paired.
    """

    rows: tuple[dict[str, Any], ...]
    recipe: Mapping[str, Any]
    panels: Mapping[str, str] = field(default_factory=lambda: dict(PANELS))

    @property
    def columns(self) -> list[str]:
        """Returns the columns in the order of the first row."""
        return list(self.rows[0])

    def __str__(self) -> str:
        shown = [_brief(row) for row in self.rows]
        columns = list(shown[0])
        texts = [[cell(row.get(c)) for c in columns] for row in shown]
        widths = [max(len(line[i]) for line in [columns, *texts]) for i in range(len(columns))]
        lines = [columns, ["-" * w for w in widths], *texts]
        return "\n".join("  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self.rows:
            return words("nothing was measured")
        return pictured(self.plot, f"{len(self.rows)} maps and controls", self.html())

    def html(self) -> str:
        """Returns the rows for reading, as an HTML table."""
        return table([_brief(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Returns rows and recipe as JSON can hold them."""
        return {"recipe": plain(self.recipe), "rows": [dict(row) for row in self.rows]}

    def save(self, path: str | Path) -> None:
        """Writes :meth:`to_dict` as JSON, whole or not at all."""
        from facexai import io

        io.write_json(path, self.to_dict())

    def plot(self) -> Figure:
        """Returns the main columns of every row with their intervals, controls in grey."""
        from facexai import plots

        names = [str(row["map"]) for row in self.rows]
        panels = [
            (title, [(row[name], row[f"{name} interval"]) for row in self.rows]) for name, title in self.panels.items()
        ]
        return plots.bars(names, panels, grey=[bool(row["control"]) for row in self.rows])


def _brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row for reading: one column lists the controls that a method beats."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        kind, beats, control = name.rpartition("beats ")
        if not beats:
            found[name] = value
            continue
        told = f"{kind}beats"
        found.setdefault(told, None if value is None else "")
        if value:
            found[told] = ", ".join(part for part in (found[told], control) if part)
    return {name: "nothing" if value == "" else value for name, value in found.items()}


def faithfulness(
    methods: Mapping[str, Method],
    classifier: Classifier,
    images: Tensor,
    area: float = 0.2,
    fill: Fill = "black",
    seed: int = 0,
    steps: int = 10,
    **options: Unpack[Options],
) -> Table:
    """Measures methods side by side, with baseline controls such as the centre of the picture.

    Args:
        methods: name -> explainer (called with the images) or its Saliency.
        classifier: gives logits.
        images: (N, 3, H, W) RGB in [0, 1].
        area, fill, seed: as in :func:`deletion`.
        steps: of the insertion curve; 0 leaves it out.
        options: see :class:`~facexai.metrics._batch.Options`.

    Returns:
        :class:`Table`: one row per method, then one for the centre prior, which is the same for all of them.

    Raises:
        ValueError: no method, or methods that explain different classes; else as :func:`deletion`.
    """
    if not methods:
        raise ValueError("expected at least one method")
    items = check_items(options.get("items"), len(images))
    people = people_of(options.get("identities"), items)
    options |= {"items": items, "identities": people}
    measured: dict[str, dict[str, Measure]] = {}
    recipes: dict[str, Any] = {}
    explained = None
    for name, method in methods.items():
        why = method if isinstance(method, Saliency) else method(images)
        explained = why.targets if explained is None else explained
        if not torch.equal(explained, why.targets):
            raise ValueError(f"{name!r} explains other classes than the methods before it; explain the same for all")
        measured[name] = {
            "deletion": deletion(classifier, images, why, area, fill, seed, **options),
            "retention": retention(classifier, images, why, area, fill, seed, **options),
        }
        if steps:
            measured[name]["insertion"] = insertion(classifier, images, why, steps, seed=seed, **options)
        measured[name]["narrowness"] = narrowness(why, identities=people, items=items)
        recipes[name] = dict(why.recipe)
    first = next(iter(measured.values()))["deletion"]
    assert isinstance(first, Drop)
    recipe = {name: value for name, value in first.recipe.items() if name != "explained"}
    recipe |= {"insertion": {"steps": steps, "fill": "blur"}, "images": len(images), "explainers": recipes}
    return table_of(measured, recipe)


def table_of(measured: Mapping[str, Mapping[str, Measure]], recipe: Mapping[str, Any]) -> Table:
    """Returns the table of what was measured: method -> metric -> result; all methods by the same metrics.

    Metrics are ``deletion``, ``retention``, ``insertion``, ``deletion-curve``, ``narrowness`` and ``overlap``.
    """
    rows = [_row(name, found, control=False) for name, found in measured.items()]
    for row, found in zip(rows, measured.values(), strict=True):
        gone = found.get("deletion")
        if isinstance(gone, Drop):
            row["specificity"] = gone.specificity
            row |= {f"beats {control}": _beats(gone, control) for control in CONTROLS}
    columns = dict.fromkeys(column for row in rows for column in row)
    first = next(iter(measured.values()))
    of_centre = {n: one.controls["centre"] for n, one in first.items() if isinstance(one, Drop | Curve)}
    known = {name: one for name, one in of_centre.items() if one is not None}
    if known:
        rows.append(_row("centre prior", known, control=True))
    panels = {name: title for name, title in PANELS.items() if name in columns} or {
        name: title for name, title in SHAPES.items() if name in columns
    }
    return Table(tuple({**columns, **row} for row in rows), recipe, panels)


def _row(name: str, found: Mapping[str, Measure], *, control: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"map": name, "control": control}
    for metric, one in found.items():
        if isinstance(one, Drop):
            row |= {metric: one.drop, f"{metric} interval": one.interval}
        elif isinstance(one, Curve):
            row |= {metric: one.auc, f"{metric} interval": one.interval}
        else:
            row |= one.columns()
    gone = found.get("deletion")
    if isinstance(gone, Drop):
        row |= {"changed": gone.changed, "score": gone.score_drop, "margin": gone.margin_drop, **columns_of(gone.ties)}
    return row


def _beats(gone: Drop, control: str) -> bool | None:
    other, p = gone.controls[control], gone.p_value(control)
    return None if other is None or p is None else bool(gone.drop > other.drop and p < 0.05)
