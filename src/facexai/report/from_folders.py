"""Makes sections of a report from the folders that commands wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from facexai import evaluate, io
from facexai._errors import short_repr, told
from facexai.functional._decision import is_threshold
from facexai.images import Aligned
from facexai.report.page import free
from facexai.report.section import RecordedFinding, Section
from facexai.report.sections import findings
from facexai.report.thresholds import network_of
from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency, load
from facexai.results.saliency import ARRAYS

Photo = Callable[[str, Mapping[str, Any], str], Aligned | None]
"""A photo by its name, prepared for the network; None where photos are not looked for. The recorded ``when`` and
``face`` of :func:`facexai.images.fit_to_spec` replace the command's own; a photo whose SHA-256 differs from the
recorded one is refused."""

Sections = dict[str, Section]

_PIXEL = 0.5  # maps and photos that were cut alike differ by rounding only


def is_run(path: Path) -> bool:
    """Returns whether a command of facexai wrote this folder."""
    return path.is_dir() and any((path / name).is_file() for name in _READERS)


def sections_of(folder: Path, photo: Photo, items: int) -> Sections:
    """Returns the sections of everything that commands wrote into a folder.

    Args:
        folder: of ``explain``, ``compare``, ``frequency``, ``counterfactual``, ``audit``, ``verify`` or ``evaluate``.
        photo: gives the photos, which commands do not keep.
        items: most items to show.

    Raises:
        ValueError: no such folder, or damaged files.
        FileNotFoundError: a file that the folder's report names is gone.
    """
    sections: Sections = {}
    for name, reader in _READERS.items():
        if (folder / name).is_file():
            shown = _Shown(photo)
            try:
                read = list(reader(folder, io.read_json(folder / name), shown, items))
            except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
                raise _damaged(folder / name, error) from error
            for heading, section in read:
                sections[free(heading, sections)] = shown.noted(section)
    if not sections:
        raise ValueError(f"{folder} holds none of {', '.join(_READERS)}; give a folder that a command wrote")
    return sections


def _damaged(path: Path, error: Exception) -> ValueError:
    """Returns the error about a damaged file, which is named once."""
    if isinstance(error, ValueError):
        return ValueError(str(error) if str(path.parent) in str(error) else f"{path}: {error}")
    return ValueError(f"{path} is not what facexai writes ({type(error).__name__}: {error})")


class _Shown:
    """Reads photos for the maps of a folder; an unreadable photo is noted, and its map is shown without it."""

    def __init__(self, photo: Photo) -> None:
        self._photo = photo
        self._lost: dict[str, str] = {}

    def __call__(self, name: str, matrix: Any, sha256: Any) -> Tensor | None:
        """Returns the photo (3, H, W) as the network's input, if it is the explained one with the same crop."""
        found = self._read(name, {}, str(sha256))
        if found is None:
            return None
        wanted = np.eye(2, 3) if matrix is None else np.asarray(matrix, dtype=np.float64)
        if wanted.shape != (2, 3) or not np.abs(found.matrix - wanted).max() < _PIXEL:
            self._lost[name] = "it was cut otherwise when it was explained"
            return None
        return found.image[0].cpu()

    def cut(self, name: str, how: Mapping[str, Any], sha256: str) -> Tensor | None:
        """Returns the photo, if it is the explained one, aligned with the options ``how``."""
        found = self._read(name, how, sha256)
        return None if found is None else found.image[0].cpu()

    def _read(self, name: str, how: Mapping[str, Any], sha256: str) -> Aligned | None:
        try:
            return self._photo(name, how, sha256)
        except (ValueError, OSError) as error:
            self._lost[name] = told(error)
            return None

    def both(self, names: Sequence[str], record: Mapping[str, Any]) -> Tensor | None:
        """Returns the two photos of a pair that a command recorded."""
        known = (record.get(key) or (None, None) for key in ("aligned", "sha256"))
        pair = [self(*one) for one in zip(names, *known, strict=True)]
        return None if pair[0] is None or pair[1] is None else torch.stack([pair[0], pair[1]])

    def noted(self, section: Section) -> Section:
        """Returns the section with a note on photos that could not be shown; without photos, unchanged."""
        if not self._lost or isinstance(section.result, RecordedFinding):
            return section
        lost = "; ".join(f"{name}: {why}" for name, why in self._lost.items())
        return replace(section, note=f"{section.note} Photos that cannot be shown: {lost}.".strip())


def decided_with(folder: Path) -> float | None:
    """Returns the threshold with which ``facexai compare`` decided about the pair of a folder."""
    threshold = io.read_json(folder / "compare.json").get("threshold") if (folder / "compare.json").is_file() else None
    return float(threshold) if isinstance(threshold, int | float) else None


@final
@dataclass(frozen=True)
class FoundThreshold:
    """A threshold that a command computed.

    Attributes:
        value: the cosine.
        where: file, rule and number of pairs, in words.
        network: fingerprint, None if it is not recorded.
        path: of the file.
    """

    value: float
    where: str
    network: str | None
    path: Path


def threshold_of(folder: Path) -> FoundThreshold | None:
    """Returns the threshold that ``facexai verify`` or ``facexai audit`` found in a folder.

    Raises:
        ValueError: it is none.
    """
    for name, pairs in (("verify.json", "pairs"), ("audit.json", "pairs_of_one_group")):
        if not (folder / name).is_file():
            continue
        record = io.read_json(folder / name)
        value = record.get("threshold")
        if value is None:
            continue
        if not is_threshold(value):
            raise ValueError(f"{folder / name}: expected a threshold from -1 to 1, got {short_repr(value)}")
        rule = record.get("rule") or record.get("recipe", {}).get("rule", "")
        where = f"{name}: rule {rule}, {pairs.replace('_', ' ')} {record.get(pairs)}"
        return FoundThreshold(float(value), where, network_of(record), folder / name)
    return None


def networks_of(folder: Path) -> set[str]:
    """Returns fingerprints of the networks of a folder; not of denoisers and their decisions."""
    records = [io.read_json(folder / name) for name in _READERS if (folder / name).is_file()]
    return {made for record in records for made in _networks(record)}


def _networks(told: Any) -> Iterator[str]:
    if isinstance(told, Mapping):
        if isinstance(told.get("fingerprint"), str):
            yield told["fingerprint"]
        for name, value in told.items():
            if name not in ("denoiser", "decision"):
                yield from _networks(value)
    elif isinstance(told, list):
        for value in told:
            yield from _networks(value)


def _answer(folder: Path, name: str, kind: type) -> Any:
    """Returns a saved answer of a folder; names come from a file, so they must not lead out of the folder."""
    if Path(name).name != name or not name.endswith(".npz"):
        raise ValueError(f"expected the name of a file .npz, got {short_repr(name)}")
    answer = load(folder / name)
    if not isinstance(answer, kind):
        raise ValueError(f"{folder / name}: expected a {kind.__name__}, got a {type(answer).__name__}")
    return answer


# ---- one for each command -------------------------------------------------------------------------------------------


def _explained(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    every = list(record["explained"])
    rows = every[:items]
    files = [next((f for f in row["files"] if f.endswith(".npz")), "none") for row in rows]
    whys = [_answer(folder, file, Saliency) for file in files]
    failed = [f"{row['image']}: {row['error']}" for row in record.get("failed", ())]
    note = f"Could not be explained: {'; '.join(failed)}." if failed else ""
    if whys:
        images = [photo(str(row["image"]), row.get("aligned"), row.get("sha256")) for row in rows]
        names = [str(row["image"]) for row in rows]
        yield "Why this person?", Section(_joined(whys), (), names, images, note, of=len(every))


def _joined(whys: Sequence[Saliency]) -> Saliency:
    first = whys[0]
    if any(dict(why.recipe) != dict(first.recipe) or why.size != first.size for why in whys):
        raise ValueError("the maps of this folder were made by different recipes; report them one by one")
    held: dict[str, Any] = {
        name: None if any(getattr(why, name) is None for why in whys) else torch.cat([getattr(w, name) for w in whys])
        for name in ARRAYS
    }
    return Saliency(**held, size=first.size, names=first.names, recipe=first.recipe)


def _compared(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    names = (str(record["first"]), str(record["second"]))
    why = _answer(folder, "compare.npz", PairSaliency)
    yield (
        "Why do these two match, or not?",
        Section(why, names=[names], images=[photo.both(names, record)]),
    )


def _frequencies(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    names = (str(record["first"]), str(record["second"]))
    heat = _answer(folder, "frequency.npz", FrequencyHeat)
    yield "Which frequencies decide", Section(heat, names=[names], images=[photo.both(names, record)])


def _edited(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    found = _answer(folder, "counterfactual.npz", Counterfactual)
    yield "What would have to change", Section(found, names=[str(row["image"]) for row in record["images"]])


def _audited(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    about = {**record["recipe"], **{name: record[name] for name in ("model", "fingerprint") if name in record}}
    yield "Groups of people", Section(RecordedFinding({**findings.groups_record(dict(record)), "recipe": about}))
    if (folder / "frequency.npz").is_file():
        heat = _answer(folder, "frequency.npz", FrequencyHeat)
        mean = "The mean of all pairs stands above; single pairs are not named."
        yield "Which frequencies decide, over all pairs", Section(heat, note=mean)


def _verified(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    about = {name: record[name] for name in ("model", "fingerprint", "pairs", "images", "rule") if name in record}
    yield "Error rates", Section(RecordedFinding({**findings.roc_record(dict(record)), "recipe": about}))


def _measured(folder: Path, record: Mapping[str, Any], photo: _Shown, items: int) -> Iterator[tuple[str, Section]]:
    run = {name: record[name] for name in ("run", "explainers") if name in record}
    rows = record["table"]
    panels = record.get("panels") or _panels(rows)
    table = RecordedFinding({**findings.table_record(rows, panels, record), "recipe": run})
    if record["unit"] != "photo":
        yield (
            "Are the maps true?",
            Section(table, note="Single pairs of a run are not shown: facexai compare explains them."),
        )
        return
    try:
        some = evaluate.examples(folder, items)
    except (ValueError, OSError) as error:
        yield "Are the maps true?", Section(table, note=f"Single photos cannot be shown: {error}")
        return
    yield "Are the maps true?", Section(table)
    wrong = sum(bool(w) and w != p for w, p in zip(some.identities, some.saliency.names or (), strict=True))
    note = (
        f"Wrong decisions come first, then the lowest scores; {wrong} of those shown are wrong by the nearest person, "
        "before any threshold."
    )
    if len(record["explainers"]) > 1:
        note += f" The maps are those of {some.label}, one of {len(record['explainers'])} explainers."
    names = [f"{n} ({who})" if who else n for n, who in zip(some.names, some.identities, strict=True)]
    how = {"when": record["run"].get("config align", "auto"), "face": record["run"].get("config face", "only")}
    images = [photo.cut(name, how, sha256) for name, sha256 in zip(some.names, some.sha256, strict=True)]
    measured = int(record["counts"]["measured"])
    yield "Why this person?", Section(some.saliency, some.measured, names, images, note, sample=False, of=measured)


def _panels(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the columns that have intervals."""
    first = rows[0] if rows else {}
    return {name: name for name in first if f"{name} interval" in first}


_READERS: dict[str, Callable[[Path, Mapping[str, Any], _Shown, int], Iterator[tuple[str, Section]]]] = {
    "results.json": _measured,
    "explanations.json": _explained,
    "compare.json": _compared,
    "audit.json": _audited,
    "frequency.json": _frequencies,
    "counterfactual.json": _edited,
    "verify.json": _verified,
}
