"""The results of a run: a table, a report, plots, and a row for each item."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from facexai import io
from facexai.evaluate._disk import READ_ONLY
from facexai.evaluate.context import RunContext
from facexai.metrics import Curve, Drop, PairCurve, Statistic, Table
from facexai.metrics.concentration import Narrowness, Overlap
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False)
class Results:
    """The results of a run.

    Attributes:
        table: a row for each explainer, then the controls that do not depend on it.
        measured: explainer -> metric -> the object that :mod:`facexai.metrics` gives for data in memory.
        report: everything that is written to ``results.json``.
        mean_maps: name -> (H, W): the mean of all maps of an explainer, each scaled to [0, 1].
        folder: of the run.
    """

    table: Table
    measured: Mapping[str, Mapping[str, Any]]
    report: Mapping[str, Any]
    mean_maps: Mapping[str, Tensor]
    folder: Path

    def __len__(self) -> int:
        return int(self.report["counts"]["measured"])

    def __repr__(self) -> str:
        counts, unit = self.report["counts"], self.report["unit"]
        lost = f", {counts['unreadable']} photos could not be read" if counts["unreadable"] else ""
        return f"{counts['measured']} of {counts['items']} {unit}s measured{lost}"

    def __str__(self) -> str:
        return f"{self.table}\n{self!r}"

    def plot(self) -> Figure:
        """Draws the main columns of the table with their intervals, controls in grey."""
        return self.table.plot()

    def _repr_html_(self) -> str:
        return pictured(self.plot, repr(self), self.table.html())


def written(
    work: RunContext,
    table: Table,
    measured: Mapping[str, Mapping[str, Any]],
    maps: Mapping[str, Tensor],
    about: Mapping[str, Any],
    counts: dict[str, int],
    failed: Mapping[int, str],
    manifest: Mapping[str, Any],
    decided: list[list[Any]] | None = None,
) -> Results:
    """Writes ``results.json``, ``.txt`` and ``.png``, a row for each item, and the list of unreadable photos."""
    folder = work.store.folder.parent
    manifest = {name: value for name, value in manifest.items() if name != "shard"}
    details = {
        label: {metric: result.rows() for metric, result in by_metric.items()} for label, by_metric in measured.items()
    }
    counts = {**counts, "unreadable": len(failed)}
    report = {**about, "counts": counts, "run": manifest, "table": list(table.rows), "panels": dict(table.panels)}
    report["details"] = details
    results = Results(table, measured, report, maps, folder)
    lost = [[work.data.names[photo], failed[photo]] for photo in sorted(failed)]
    try:
        io.write_csv(folder / "unreadable.csv", ["image", "reason"], lost)
        io.write_csv(folder / "items.csv", *_items(work, measured, decided))
        io.write_whole(folder / "results.txt", lambda file: file.write(f"{results}\n".encode()))
        _draw(results)
        io.write_json(folder / "results.json", report)  # last: where it stands, the run is over
    except OSError as error:  # of a finished run, whose results are there, nobody has to write anything
        if error.errno not in READ_ONLY or not _stands(folder / "results.json", report):
            raise
    return results


def _stands(file: Path, report: Mapping[str, Any]) -> bool:
    """Returns whether the file holds these results already."""
    return file.is_file() and bool(io.read_json(file) == json.loads(json.dumps(report)))


def _items(
    work: RunContext, measured: Mapping[str, Mapping[str, Any]], decided: list[list[Any]] | None
) -> tuple[list[str], Iterable[list[Any]]]:
    """Returns the columns and a row for each item: photos, people, and the main number of every metric."""
    columns = {
        f"{label}: {metric}": _main(result)
        for label, by_metric in measured.items()
        for metric, result in by_metric.items()
    }
    items = next(iter(columns.values())).items.tolist()
    numbers = [statistic.values for statistic in columns.values()]

    def rows() -> Iterable[list[Any]]:
        for row, item in enumerate(items):
            what = [] if decided is None else decided[row]
            yield [*_photos(work, item), *what, *(float(values[row]) for values in numbers)]

    head = ["image", "identity", "predicted", "score"] if work.data.index is None else ["first", "second", "same"]
    return [*head, *columns], rows()


def _photos(work: RunContext, item: int) -> list[Any]:
    names = work.data.names
    if work.data.index is None or work.data.same is None:
        photo = work.probes[item]
        return [names[photo], work.person(photo) if work.knows_people else ""]
    first, second = work.data.index[item].tolist()
    return [names[first], names[second], int(work.data.same[item])]


def _main(result: Drop | Curve | PairCurve | Narrowness | Overlap) -> Statistic:
    if isinstance(result, Drop):
        return result.probability
    if isinstance(result, Narrowness):
        return result.half_mass
    return result.after if isinstance(result, Overlap) else result.area


def _draw(results: Results) -> None:
    """Draws the plots where matplotlib is installed."""
    try:
        from facexai import plots

        if results.table.panels:
            plots.save(results.plot(), results.folder / "results.png")
        if results.mean_maps:
            stacked = torch.stack(list(results.mean_maps.values()))
            drawn = plots.overlays(
                stacked, None, list(results.mean_maps), label="mean of all maps, each scaled to [0, 1]"
            )
            plots.save(drawn, results.folder / "mean_maps.png")
    except ImportError:  # the extra ``plot``; numbers are what a run is for
        return
