"""A few items of a finished run about people, with their maps and what was measured, read from its shards alone."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai import _csv_cells, io
from facexai._errors import short_repr
from facexai._tensor_store import Store
from facexai.evaluate._steps import TIES
from facexai.evaluate.aggregate import of_rows
from facexai.evaluate.methods import label as named
from facexai.results import Saliency


@final
@dataclass(frozen=True, eq=False)
class Examples:
    """A sample of a run's items.

    Attributes:
        names: of the photos.
        identities: the person in each, "" if the data set has no identities.
        saliency: the maps of the run's first explainer.
        measured: deletion, retention and curves of these items, with controls.
        label: of that explainer.
        sha256: of the photos' files, as hexadecimal digits.
    """

    names: Sequence[str]
    identities: Sequence[str]
    saliency: Saliency
    measured: Sequence[Any]
    label: str
    sha256: Sequence[str]


_AGAIN = "start the run again, which writes it anew"


def examples(folder: str | Path, count: int) -> Examples:
    """Returns the items that an auditor needs first: wrong decisions, then the lowest scores.

    Args:
        folder: of a finished run about people.
        count: items at most.

    Raises:
        FileNotFoundError: the run is not finished, or its shards are gone.
        ValueError: damaged files, or a run about pairs.
    """
    folder = Path(folder)
    report = _report(folder / "results.json")
    if report["unit"] != "photo":
        raise ValueError(f"{folder}: examples are of runs about people, this one is about {report['unit']}s")
    try:
        chosen, rows, listed = _chosen(folder / "items.csv", count)
        store, label = Store(folder / "shards"), named(report["run"]["config explainers"][0])
        asked = bool(list(store.folder.glob("measure-*.safetensors")))
        every = _items(store, "measure" if asked else "maps")
        if not listed or listed != len(every):
            raise ValueError(f"{folder}: items.csv has {listed} rows, the shards hold {len(every)} items; {_AGAIN}")
        items = every[chosen]
        tensors = _rows(store, "maps", items, [f"{label}: cells", "scores", "sha256"])
        _check_scores(folder, rows, tensors["scores"])
        height, width = report["size"]
        saliency = Saliency(
            tensors[f"{label}: cells"],
            (int(height), int(width)),
            torch.arange(len(rows)),
            tensors["scores"],
            names=tuple(row["predicted"] for row in rows),
            recipe=_recipe(report, label),
            predicted=torch.arange(len(rows)),  # a run explains what was predicted
        )
        measured = _measured(store, label, items, report) if asked else []
        names, people = ([row[column] for row in rows] for column in ("image", "identity"))
        digests = [bytes(row).hex() for row in tensors["sha256"].tolist()]
        return Examples(names, people, saliency, measured, label, digests)
    except (KeyError, IndexError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(f"{folder} is no complete run ({type(error).__name__}: {error}); {_AGAIN}") from error


def _report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: the run is not finished; start it again")
    report = io.read_json(path)
    if not {"unit", "explainers", "run"} <= report.keys():
        raise ValueError(f"{path} is no results of a run")
    return report


def _recipe(report: Mapping[str, Any], label: str) -> dict[str, Any]:
    recipe = dict(report["explainers"][label])
    return recipe | {"scale": report["classifier"]["scale"]} if "scale" in report["classifier"] else recipe


def _chosen(path: Path, count: int) -> tuple[list[int], list[dict[str, str]], int]:
    """Returns numbers and cells of rows of ``items.csv``, wrong decisions and low scores first; the count of rows."""

    def key(numbered: tuple[int, dict[str, str]]) -> tuple[bool, float]:
        row = numbered[1]
        return not row["identity"] or row["identity"] == row["predicted"], float(row["score"])

    listed = 0

    def counted(file: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
        nonlocal listed
        for listed, row in enumerate(csv.DictReader(file), 1):
            yield listed - 1, {column: _csv_cells.unescape(cell) for column, cell in row.items()}

    with path.open(encoding="utf-8", newline="") as file:
        selected = heapq.nsmallest(count, counted(file), key=key)
    return [number for number, _ in selected], [row for _, row in selected], listed


def _check_scores(folder: Path, rows: Sequence[Mapping[str, str]], scores: Tensor) -> None:
    """Refuses a list in another order than the shards: its maps would be those of other photos."""
    for row, score in zip(rows, scores.tolist(), strict=True):
        if not math.isclose(float(row["score"]), score, rel_tol=1e-4, abs_tol=1e-4):
            raise ValueError(
                f"{folder}: items.csv says score {row['score']} for {short_repr(row['image'])}, the shards "
                f"{score:.6g}: it was sorted or changed; {_AGAIN}"
            )


def _keys(store: Store, stage: str) -> list[str]:
    keys = sorted(path.stem for path in store.folder.glob(f"{stage}-*.safetensors"))
    if not keys:
        raise FileNotFoundError(f"no shards of the stage {stage!r} in {store.folder}; a report needs those of the run")
    return keys


def _items(store: Store, stage: str) -> NDArray[np.int64]:
    """Returns all items that a stage could work on, in order."""
    return np.concatenate([store.get(key, ["items"])["items"].numpy() for key in _keys(store, stage)])


def _rows(store: Store, stage: str, items: NDArray[np.int64], names: Sequence[str]) -> dict[str, Tensor]:
    """Returns the rows of these items; only shards that hold one of them are read."""
    by_item: dict[int, dict[str, Tensor]] = {}
    for key in _keys(store, stage):
        have = store.get(key, ["items"])["items"].tolist()
        wanted = [(place, item) for place, item in enumerate(have) if item in set(items.tolist())]
        if wanted:
            tensors = store.get(key, names)
            by_item |= {item: {name: tensors[name][place] for name in names} for place, item in wanted}
    return {name: torch.stack([by_item[item][name] for item in items.tolist()]) for name in names}


def _measured(store: Store, label: str, items: NDArray[np.int64], report: Mapping[str, Any]) -> list[Any]:
    run = report["run"]
    config = SimpleNamespace(**{k.removeprefix("config "): v for k, v in run.items() if k.startswith("config ")})
    score = "cosine" if "scale" in report["classifier"] else "logit"
    wanted = [m for m in ("deletion", "retention", "insertion", "deletion-curve") if m in config.metrics]
    recorded = any(name.endswith(TIES) for name in store.names(_keys(store, "measure")[0]))  # older runs have not
    suffixes = ("", TIES) if recorded else ("",)
    tensors = _rows(store, "measure", items, [f"{label}: {metric}{suffix}" for metric in wanted for suffix in suffixes])
    signed = f"{label}: signed cells" in store.names(_keys(store, "maps")[0])
    ties = ("signed" if signed else "fields") if recorded else None

    def of(metric: str) -> Any:
        name = f"{label}: {metric}"
        rows = (tensors[name].double().numpy(), tensors[name + TIES].double().numpy() if recorded else None)
        return of_rows(metric, rows, items, config, score, None, ties)

    return [of(metric) for metric in wanted]
