"""What the commands wrote, as sections of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facexai import evaluate, io
from facexai.images import Aligned
from facexai.report.kinds import findings
from facexai.report.page import free
from facexai.report.section import Section
from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency, load
from facexai.results.saliency import ARRAYS

Photo = Callable[[str], Aligned | None]
"""A photo by its name, as the network wants it; None where there is none."""

Sections = dict[str, Section]

_PIXEL = 0.5  # maps and photos that were cut alike differ by rounding only


def is_run(path: Path) -> bool:
    """Whether a command of facexai wrote this folder."""
    return path.is_dir() and any((path / name).is_file() for name in _READERS)


def sections_of(folder: Path, photo: Photo, items: int) -> Sections:
    """The sections of everything that commands wrote into a folder.

    Args:
        folder: of ``explain``, ``compare``, ``frequency``, ``counterfactual``, ``audit``, ``verify`` or ``evaluate``.
        photo: gives the photos, which commands do not keep.
        items: most items to show.

    Raises:
        ValueError: no such folder, or damaged files.
        FileNotFoundError: a file that the folder's report names is gone.
    """
    found: Sections = {}
    for name, reader in _READERS.items():
        if (folder / name).is_file():
            try:
                for heading, section in reader(folder, io.read_json(folder / name), photo, items):
                    found[free(heading, found)] = section
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(
                    f"{folder / name} is not what facexai writes ({type(error).__name__}: {error})"
                ) from error
    if not found:
        raise ValueError(f"{folder} holds none of {', '.join(_READERS)}; give a folder that a command wrote")
    return found


def decided_with(folder: Path) -> float | None:
    """The threshold with which ``facexai compare`` decided about the pair of a folder."""
    found = io.read_json(folder / "compare.json").get("threshold") if (folder / "compare.json").is_file() else None
    return float(found) if isinstance(found, int | float) else None


def threshold_of(folder: Path, fingerprint: str | None) -> tuple[float, str] | None:
    """The threshold that ``facexai verify`` or ``facexai audit`` found in a folder, and where it is from.

    Raises:
        ValueError: it was found with another network.
    """
    for name, told in (("verify.json", "pairs"), ("audit.json", "pairs_of_one_group")):
        if not (folder / name).is_file():
            continue
        record = io.read_json(folder / name)
        value = record.get("threshold")
        if not isinstance(value, int | float):
            continue
        if fingerprint is not None and record.get("fingerprint") != fingerprint:
            raise ValueError(
                f"{folder / name}: this threshold was found with another network; give --threshold, or that --model"
            )
        rule = record.get("rule") or record.get("recipe", {}).get("rule", "")
        return float(value), f"{name}: rule {rule}, {told.replace('_', ' ')} {record.get(told)}"
    return None


def _answer(folder: Path, name: str, kind: type) -> Any:
    """A saved answer of a folder; names come from a file, so they must not lead out of it."""
    if Path(name).name != name or not name.endswith(".npz"):
        raise ValueError(f"{folder}: expected the name of a file .npz, got {name!r:.80}")
    answer = load(folder / name)
    if not isinstance(answer, kind):
        raise ValueError(f"{folder / name}: expected a {kind.__name__}, got a {type(answer).__name__}")
    return answer


# ---- one for each command -------------------------------------------------------------------------------------------


def _explained(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    every = list(record["explained"])
    rows = every[:items]
    files = [next((f for f in row["files"] if f.endswith(".npz")), "none") for row in rows]
    whys = [_answer(folder, file, Saliency) for file in files]
    failed = [f"{row['image']}: {row['error']}" for row in record.get("failed", ())]
    note = f"Could not be explained: {'; '.join(failed)}." if failed else ""
    if whys:
        images = [_cut_alike(photo(str(row["image"])), row.get("aligned")) for row in rows]
        names = [str(row["image"]) for row in rows]
        yield "Why this person?", Section(_joined(whys), (), names, images, note, of=len(every))


def _cut_alike(found: Aligned | None, matrix: Any) -> Tensor | None:
    """The photo, unless it was cut otherwise when it was explained: then the map would lie beside what it is about."""
    if found is None:
        return None
    wanted = np.eye(2, 3) if matrix is None else np.asarray(matrix, dtype=np.float64)
    alike = wanted.shape == (2, 3) and np.abs(found.matrix - wanted).max() < _PIXEL
    return found.image[0].cpu() if alike else None


def _joined(whys: Sequence[Saliency]) -> Saliency:
    first = whys[0]
    if any(dict(why.recipe) != dict(first.recipe) or why.size != first.size for why in whys):
        raise ValueError("the maps of this folder were made by different recipes; report them one by one")
    held: dict[str, Any] = {
        name: None if getattr(first, name) is None else torch.cat([getattr(why, name) for why in whys])
        for name in ARRAYS
    }
    return Saliency(**held, size=first.size, names=first.names, recipe=first.recipe)


def _compared(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    names = (str(record["first"]), str(record["second"]))
    why = _answer(folder, "compare.npz", PairSaliency)
    yield "Why do these two match, or not?", Section(why, names=[names], images=[_both(photo, names)])


def _both(photo: Photo, names: tuple[str, str]) -> Tensor | None:
    pair = [found.image[0].cpu() for name in names if (found := photo(name)) is not None]
    return torch.stack(pair) if len(pair) == 2 else None


def _frequencies(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    names = (str(record["first"]), str(record["second"]))
    heat = _answer(folder, "frequency.npz", FrequencyHeat)
    yield "Which frequencies decide", Section(heat, names=[names], images=[_both(photo, names)])


def _edited(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    found = _answer(folder, "counterfactual.npz", Counterfactual)
    yield "What would have to change", Section(found, names=[str(row["image"]) for row in record["images"]])


def _audited(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    told = {**record["recipe"], **{name: record[name] for name in ("model", "fingerprint") if name in record}}
    yield "Groups of people", Section({**findings.groups_told(dict(record)), "recipe": told})
    if (folder / "frequency.npz").is_file():
        heat = _answer(folder, "frequency.npz", FrequencyHeat)
        mean = "The mean of all pairs stands above; single pairs are not named."
        yield "Which frequencies decide, over all pairs", Section(heat, note=mean)


def _verified(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    told = {name: record[name] for name in ("model", "fingerprint", "pairs", "images", "rule") if name in record}
    if any(not isinstance(record[name], int | float) for name in ("auc", "eer", "threshold")):
        raise TypeError("auc, eer and threshold are not all numbers")
    yield "Error rates", Section({**findings.roc_told(dict(record)), "recipe": told})


def _measured(folder: Path, record: Mapping[str, Any], photo: Photo, items: int) -> Iterator[tuple[str, Section]]:
    run = {name: record[name] for name in ("run", "explainers") if name in record}
    rows, panels = record["table"], record.get("panels") or _panels(record["table"])
    told = {**findings.table_told(rows, panels, record), "recipe": run}
    if record["unit"] != "photo":
        yield (
            "Are the maps true?",
            Section(told, note="Single pairs of a run are not shown: facexai compare explains them."),
        )
        return
    try:
        some = evaluate.examples(folder, items)
    except (ValueError, OSError) as error:
        yield "Are the maps true?", Section(told, note=f"Single photos cannot be shown: {error}")
        return
    yield "Are the maps true?", Section(told)
    wrong = sum(bool(w) and w != p for w, p in zip(some.identities, some.saliency.names or (), strict=True))
    note = f"Wrong decisions come first, then the lowest scores; {wrong} of those shown are wrong."
    if len(record["explainers"]) > 1:
        note += f" The maps are those of {some.label}, one of {len(record['explainers'])} explainers."
    names = [f"{n} ({who})" if who else n for n, who in zip(some.names, some.identities, strict=True)]
    images = [None if (found := photo(name)) is None else found.image[0].cpu() for name in some.names]
    measured = int(record["counts"]["measured"])
    yield "Why this person?", Section(some.saliency, some.measured, names, images, note, sample=False, of=measured)


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The columns that have intervals."""
    return {name: name for name in rows[0] if f"{name} interval" in rows[0]}


_READERS: dict[str, Callable[[Path, Mapping[str, Any], Photo, int], Iterator[tuple[str, Section]]]] = {
    "results.json": _measured,
    "explanations.json": _explained,
    "compare.json": _compared,
    "audit.json": _audited,
    "frequency.json": _frequencies,
    "counterfactual.json": _edited,
    "verify.json": _verified,
}
