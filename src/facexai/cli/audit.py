"""``facexai audit``: do groups of people get decided by other frequencies, and with other errors?"""

from __future__ import annotations

import argparse
import os
import posixpath
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from facexai import _csv_cells
from facexai._photo_names import folder_names, photo_names
from facexai.cli.shared import model, out_arguments, show

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.explainers import FrequencyHeatPlot
    from facexai.images.pairs import Pairs
    from facexai.metrics import Bias
    from facexai.models import FaceModel
    from facexai.results import FrequencyHeat

_AT_ONCE = 16  # photos that are observed together
_EXAMPLE = 'pairs = "pairs.csv"\ngroups = "groups.csv"'


@final
@dataclass(frozen=True)
class Config:
    """The configuration of an audit file; its paths are relative to the file."""

    pairs: str
    groups: str
    images: str | None = None
    model: str = "dlib-resnet29"
    align: str = "auto"
    face: str = "only"
    threshold: str | float = "eer"
    width: float = 1.0
    limit: str = "corner"
    masked: str = "first"
    mode: str = "exact"
    exact_bands: int = 16
    draws: int = 999
    seed: int = 0


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    audit = commands.add_parser("audit", help="which frequencies decide about groups of people, and their errors")
    audit.add_argument(
        "config",
        type=Path,
        metavar="CONFIG",
        help="TOML file: pairs (as for verify) and groups (CSV of image,group and perhaps identity); also images, "
        "model, align, face, threshold, width, limit, masked, mode, exact_bands, draws and seed",
    )
    out_arguments(audit, "audit.json, audit.png and frequency.npz", "audit.json")
    audit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import _toml, io, metrics, plots
    from facexai.metrics.bias import check_groups
    from facexai.metrics.pair_bias import people_in_photos

    folder = io.output_folder(options.out)
    config = _toml.read(options.config, Config, ("pairs", "groups"), _EXAMPLE)
    base = options.config.parent
    root = base / config.images if config.images is not None else (base / config.pairs).parent
    explainer = _explainer(config)
    pairs = metrics.read_pairs(base / config.pairs, None if config.images is None else root)
    groups, identities, identities_from = _labels(base / config.groups, pairs, root)
    names = people_in_photos(identities, len(identities), pairs.index, pairs.same)
    chosen = [p for p, group in enumerate(metrics.pair_groups(groups, pairs.index)) if group]
    if not chosen:
        raise ValueError(f"no pair of {config.pairs} has two images of one group in {config.groups}")
    index, same = pairs.index[chosen], pairs.same[chosen]
    rows = [groups[i] for i in index[:, 0].tolist()]
    first, second = ([names[i] for i in side] for side in index.T.tolist())
    test_options: dict[str, Any] = {"same": same, "rule": config.threshold, "draws": config.draws, "seed": config.seed}
    check_groups(rows, first, partners=second, **test_options)
    photos = _Photos(pairs, explainer.network, config)
    if config.mode == "exact":
        heat, bias = _permuted(explainer, photos, index, groups, names, test_options)
    else:
        heat = _heat(explainer, photos, index)
        bias = metrics.bias(heat, rows, identities=first, partners=second, **test_options)
    folder.mkdir(parents=True, exist_ok=True)
    heat.save(folder / "frequency.npz")
    plots.save(bias.plot(), folder / "audit.png")
    left_out = len(pairs) - len(chosen)
    report = {
        "pairs": Path(config.pairs).name,
        "pairs_of_one_group": len(chosen),
        "pairs_left_out": left_out,
        "identities_from": identities_from,
        "model": repr(explainer.network),
        "fingerprint": explainer.network.fingerprint,
        **bias.record(),
        "files": ["audit.png", "frequency.npz"],
    }
    io.write_json(folder / "audit.json", report)
    show(report, _text(bias, left_out), as_json=options.json)
    return 0


def _labels(path: Path, pairs: Pairs, root: Path) -> tuple[list[str], list[str | None], str]:
    """Returns group ("": unknown) and identity (None: unknown) of every image, and the origin of the identities.

    Folders name people if they agree with the pairs. Images without an identity count as different people,
    unless a pair of one person links them.
    """
    images = pairs.images
    columns, rows = _rows(path)
    names, folders = photo_names(images, root), folder_names(images, root)
    listed = _rows_of(images, names, rows, root)
    if not any(listed):
        some = ", ".join(repr(name) for name in names[:2])
        raise ValueError(f"{path.name} names none of the images of the pairs, such as {some}")
    groups = [row.get("group", "") for row in listed]
    if "identity" in columns:
        return groups, [row.get("identity") or None for row in listed], "column"
    labels = zip(pairs.index.tolist(), pairs.same.tolist(), strict=True)
    agreed = all((folders[i] == folders[j]) == same for (i, j), same in labels)
    if agreed and all(folders) and len(set(folders)) > 1:
        return groups, list(folders), "folder"
    return groups, [None] * len(images), "pairs"


def _rows_of(
    images: Sequence[Path | bytes], names: Sequence[str], rows: Mapping[str, dict[str, str]], root: Path
) -> list[dict[str, str]]:
    """Returns the row about each image, which it names by its path, as the pairs do, or as reports do; {}: none."""
    by_path = {os.path.abspath(root / image): row for image, row in rows.items()}
    listed = []
    for image, name in zip(images, names, strict=True):
        path = "" if isinstance(image, bytes) else os.path.abspath(image)
        is_other = path and os.path.exists(root / name)  # then the name is the path of another photo
        listed.append(by_path.get(path) or ({} if is_other else rows.get(name, {})))
    return listed


def _rows(path: Path) -> tuple[set[str], dict[str, dict[str, str]]]:
    """Returns the columns, and by image the cells of its row."""
    from facexai.images.pairs import text_of

    rows: dict[str, dict[str, str]] = {}
    with _csv_cells.table(text_of(path), path.name) as table:
        head = [cell.lower() for cell in next(table, [])]
        if not {"image", "group"} <= set(head):
            raise ValueError(f"expected the columns image, group and perhaps identity, got {', '.join(head)[:80]}")
        for cells in filter(any, table):
            if len(cells) != len(head):
                raise ValueError(f"expected {len(head)} cells, got {len(cells)}")
            row = dict(zip(head, cells, strict=True))
            image = posixpath.normpath(row["image"].replace("\\", "/"))
            if rows.setdefault(image, row) != row:
                raise ValueError(f"{image} is listed twice, with different cells")
    return set(head), rows


class _Photos(Sequence[Any]):
    """Faces as the network's input, loaded on access."""

    def __init__(self, pairs: Pairs, network: FaceModel, config: Config) -> None:
        self.pairs, self.network, self.config = pairs, network, config
        self.load = lru_cache(maxsize=64)(self._load)

    def __len__(self) -> int:
        return len(self.pairs.images)

    def __getitem__(self, number: Any) -> Any:
        return self.load(int(number))

    def _load(self, number: int) -> Tensor:
        from facexai import images

        photo, config = self.pairs.load(number, number + 1), self.config
        aligned = images.fit_to_spec(photo, self.network.spec, when=config.align, face=config.face)  # type: ignore[arg-type]
        return aligned.image[0].to(self.network.device)


def _explainer(config: Config) -> FrequencyHeatPlot:
    from facexai.explainers import FrequencyHeatPlot
    from facexai.explainers.pairs import one_of

    one_of("align", config.align, ("auto", "always", "never"))
    one_of("face", config.face, ("only", "largest"))
    return FrequencyHeatPlot(
        model(config.model),
        config.width,
        config.limit,  # type: ignore[arg-type]
        config.masked,  # type: ignore[arg-type]
        mode=config.mode,  # type: ignore[arg-type]
        exact_bands=config.exact_bands,
    )


def _heat(explainer: FrequencyHeatPlot, photos: _Photos, index: Any) -> FrequencyHeat:
    from facexai._progress import tqdm
    from facexai.explainers import explain_pairs
    from facexai.results import FrequencyHeat

    heats = explain_pairs(explainer, photos, index.tolist(), attach=False)
    shown = tqdm(heats, total=len(index), desc="audit", unit="pair", disable=None, file=sys.stderr)
    return FrequencyHeat.joined(list(shown))


def _permuted(
    explainer: FrequencyHeatPlot,
    photos: _Photos,
    index: Any,
    groups: Sequence[str],
    names: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[FrequencyHeat, Bias]:
    """Returns heat plot and permutation test; every photo is observed once, and its evidence is kept for the test."""
    import numpy as np
    import torch

    from facexai import metrics
    from facexai._progress import tqdm
    from facexai.explainers.pairs import FaceEvidence
    from facexai.results import FrequencyHeat

    used, pairs = np.unique(index, return_inverse=True)
    pairs, parts = pairs.reshape(-1, 2), []
    for at in tqdm(range(0, len(used), _AT_ONCE), desc="audit", disable=None, file=sys.stderr):
        parts.append(explainer.observe(torch.stack([photos[i] for i in used[at : at + _AT_ONCE].tolist()])))
    evidence = FaceEvidence.joined(parts)
    heats = [explainer.answer(evidence[i : i + 1], evidence[j : j + 1]) for i, j in pairs.tolist()]
    labels, people = ([values[i] for i in used.tolist()] for values in (groups, names))
    bias = metrics.pair_bias(explainer, evidence, pairs, labels, identities=people, **options)
    return FrequencyHeat.joined(heats), bias


def _text(bias: Bias, left_out: int) -> str:
    mixed = f"\n{left_out} pairs are of two groups or of none, and were left out" if left_out else ""
    return f"{bias!r}{mixed}"
