"""``facexai audit``: do groups of people get decided by other frequencies, and with other errors?"""

from __future__ import annotations

import argparse
import csv
import io as text_io
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from facexai._messages import near_matches
from facexai.cli.shared import model, out_arguments, relative, show

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.images.pairs import Pairs
    from facexai.metrics import Bias
    from facexai.models import FaceModel

_EXAMPLE = 'pairs = "pairs.csv"\ngroups = "groups.csv"'


@final
@dataclass(frozen=True)
class Config:
    """What an audit file says, with defaults for the rest; paths are relative to the file."""

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
    """The command's arguments."""
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
    from facexai import io, metrics, plots

    folder = io.output_folder(options.out)
    config = read(options.config)
    base = options.config.parent
    root = base / config.images if config.images is not None else (base / config.pairs).parent
    network = model(config.model)
    pairs = metrics.read_pairs(base / config.pairs, None if config.images is None else root)
    photos: Sequence[Path | bytes] = pairs.images
    names = [relative(image, i, root) for i, image in enumerate(photos)]
    groups, identities, known = _labels(base / config.groups, names)
    chosen = [p for p, group in enumerate(metrics.pair_groups(groups, pairs.index)) if group]
    if not chosen:
        raise ValueError(f"no pair of {config.pairs} has two images of one group in {config.groups}")
    heat = _heat(network, pairs, [tuple(pairs.index[p].tolist()) for p in chosen], config)
    lost = [int(pairs.index[p, int(config.masked == "second")]) for p in chosen]
    found = metrics.bias(
        heat,
        [groups[i] for i in lost],
        identities=[identities[i] for i in lost],
        same=pairs.same[chosen],
        rule=config.threshold,
        draws=config.draws,
        seed=config.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    heat.save(folder / "frequency.npz")
    plots.save(found.plot(), folder / "audit.png")
    left_out = len(pairs) - len(chosen)
    report = {
        "pairs": Path(config.pairs).name,
        "pairs_of_one_group": len(chosen),
        "pairs_left_out": left_out,
        "identities_from": known,
        **found.record(),
        "files": ["audit.png", "frequency.npz"],
    }
    io.write_json(folder / "audit.json", report)
    show(report, _text(found, left_out), as_json=options.json)
    return 0


def read(path: Path) -> Config:
    """The audit file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TOML, an unknown key, a missing one, or a value of another type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; an audit needs at least\n{_EXAMPLE}")
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no TOML file: {error}") from None
    kinds = {field.name: str(field.type) for field in fields(Config)}
    for name, value in content.items():
        if name not in kinds:
            raise ValueError(f"{path.name}: unknown key {name!r}; {near_matches(name, kinds)}")
        if isinstance(value, bool) or type(value).__name__ not in _allowed(kinds[name]):
            raise ValueError(f"{path.name}: expected {name} as {kinds[name]}, got {value!r}")
    missing = [name for name in ("pairs", "groups") if name not in content]
    if missing:
        raise ValueError(f"{path.name} lacks {missing[0]!r}; an audit needs at least\n{_EXAMPLE}")
    return Config(**content)


def _allowed(kind: str) -> set[str]:
    words = set(kind.split(" | "))
    return words | {"int"} if "float" in words else words


def _labels(path: Path, names: Sequence[str]) -> tuple[list[str], list[str], str]:
    """Group ("" where unknown) and identity of every image, and where the identities are from."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; groups are a CSV of image,group and perhaps identity")
    table = csv.DictReader(text_io.StringIO(path.read_text("utf-8-sig")))
    columns = set(table.fieldnames or ())
    if not {"image", "group"} <= columns:
        raise ValueError(f"{path.name}: expected the columns image,group and perhaps identity, got {sorted(columns)}")
    rows = {str(row["image"]).strip(): row for row in table}
    if not any(name in rows for name in names):
        some = ", ".join(repr(name) for name in names[:2])
        raise ValueError(f"{path.name} names none of the images of the pairs, such as {some}")
    groups = [str(rows[name]["group"] or "").strip() if name in rows else "" for name in names]
    if "identity" in columns:
        return groups, [str(rows[n]["identity"]).strip() if n in rows else n for n in names], "column"
    if all("/" in name for name in names):
        return groups, [name.rsplit("/", 1)[0] for name in names], "folder"
    return groups, list(names), "image"


class _Photos(Sequence[Any]):
    """Faces as the network wants them, loaded when asked."""

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
        made = images.fitted(photo, self.network.spec, when=config.align, face=config.face)  # type: ignore[arg-type]
        return made.image[0].to(self.network.device)


def _heat(network: FaceModel, pairs: Pairs, index: list[Any], config: Config) -> Any:
    from tqdm import tqdm

    from facexai.explainers import FrequencyHeatPlot, explain_pairs
    from facexai.results import FrequencyHeat

    explainer = FrequencyHeatPlot(
        network,
        config.width,
        config.limit,  # type: ignore[arg-type]
        config.masked,  # type: ignore[arg-type]
        mode=config.mode,  # type: ignore[arg-type]
        exact_bands=config.exact_bands,
    )
    heats = explain_pairs(explainer, _Photos(pairs, network, config), index, attach=False)
    shown = tqdm(heats, total=len(index), desc="audit", unit="pair", disable=None, file=sys.stderr)
    return FrequencyHeat.joined([heat[:1] for heat in shown])


def _text(found: Bias, left_out: int) -> str:
    mixed = f"\n{left_out} pairs are of two groups or of none, and were left out" if left_out else ""
    return f"{found!r}{mixed}"
