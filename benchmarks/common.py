"""What every benchmark shares: arguments, faces, networks, interleaved timing, a table and a JSON."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from facexai import FaceModel, Gallery, images, io

CANVASES = {
    160: (24, 1.0),
    128: (0, 128 / 112),
}  # side of a five-point aligned photo: where the template lies, its scale


def arguments(description: str, *, faces: bool = True) -> argparse.ArgumentParser:
    """The parser that all benchmarks start from."""
    parser = argparse.ArgumentParser(description=description)
    if faces:
        parser.add_argument(
            "--faces",
            type=Path,
            required=True,
            help="folder NAME/*.jpg: 160x160 with the ArcFace template in the centre 112x112, or 128x128 filled by it",
        )
    parser.add_argument(
        "--network",
        action="append",
        metavar="FILE:FUNCTION",
        help="function that returns a facexai.FaceModel; may be repeated; default: dlib-resnet29",
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads")
    return parser


def networks(options: argparse.Namespace) -> dict[str, FaceModel]:
    """The networks to measure, by function name."""
    made = {}
    for source in options.network or [f"{Path(__file__).with_name('networks.py')}:dlib_resnet29"]:
        file, _, function = source.rpartition(":")
        spec = importlib.util.spec_from_file_location(Path(file).stem, file)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        made[function] = getattr(module, function)()
    return made


def people(folder: Path) -> dict[str, list[Path]]:
    """{person: photos} in the order of names."""
    found = {p.name: images.photo_files(p) for p in sorted(folder.iterdir()) if p.is_dir()}
    return {name: photos for name, photos in found.items() if photos}


def faces(paths: Sequence[Path], model: FaceModel) -> Tensor:
    """Photos as the network wants them: its window of the template, resized; beyond the photo its last pixels again."""
    photos = images.load(list(paths))
    side = photos.shape[-1]
    if side not in CANVASES or photos.shape[-2] != side:
        raise SystemExit(f"expected photos of {sorted(CANVASES)} pixels square, got {tuple(photos.shape[-2:])}")
    start, scale = CANVASES[side]
    left, top, right, bottom = (round(start + scale * v) for v in model.spec.crop)
    beyond = (max(-left, 0), max(right - side, 0), max(-top, 0), max(bottom - side, 0))
    cut = functional.pad(photos, beyond, mode="replicate")
    cut = cut[:, :, top + beyond[2] : bottom + beyond[2], left + beyond[0] : right + beyond[0]]
    return cut if tuple(cut.shape[-2:]) == model.spec.size else images.resize(cut, model.spec.height_width)


def data_set(folder: Path) -> dict[str, Any]:
    """Name, counts and hash of the list of files: names and contents, no folders."""
    digest, count = hashlib.sha256(), 0
    for name, photos in people(folder).items():
        for photo in photos:
            digest.update(f"{name}/{photo.name}".encode() + hashlib.sha256(photo.read_bytes()).digest())
            count += 1
    return {"name": folder.name, "people": len(people(folder)), "photos": count, "sha256": digest.hexdigest()}


def interleaved(tasks: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each task; the tasks take turns, so that a busy machine slows all of them."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as aligned text."""
    columns = list(rows[0])
    texts = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *texts]) for i in range(len(columns))]
    lines = [columns, ["-" * w for w in widths], *texts]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def report(
    options: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    *packages: str,
    columns: Sequence[str] | None = None,
    sentences: Sequence[str] = (),
    **more: Any,
) -> None:
    """Print the table (of those columns) and the sentences; write the JSON with versions, device and data set."""
    shown = list(rows[0]) if columns is None else list(columns)
    print(table([{column: row[column] for column in shown} for row in rows]))
    print(*sentences, sep="\n")
    if options.json is None:
        return
    content: dict[str, Any] = {"benchmark": Path(sys.argv[0]).name, **more}
    content["versions"] = {name: version(name) for name in ("facexai", "torch", "numpy", *packages)}
    content["versions"]["python"] = platform.python_version()
    content["device"] = {"kind": "cpu", "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    content["gpu"] = "not measured on a GPU"
    if "faces" in options:
        content["faces"] = data_set(options.faces)
    content |= {"columns": shown, "sentences": list(sentences), "rows": list(rows)}
    io.write_json(options.json, json.loads(json.dumps(content)))


def kept_rows(path: Path | None, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier run with the same settings, which goes on after them."""
    if path is None or not path.is_file():
        return []
    content = json.loads(path.read_text())
    return content["rows"] if content.get("settings") == settings else []


def keep_rows(path: Path | None, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write what was measured so far, for :func:`kept_rows`."""
    if path is not None:
        io.write_json(path, json.loads(json.dumps({"settings": settings, "rows": rows})))


def split(
    photos: dict[str, list[Path]], model: FaceModel, probes: int, enrolled: int = 8
) -> tuple[Gallery, Tensor, list[str]]:
    """A calibrated gallery of each person's first photos, and probes from the photos after them."""
    gallery = model.gallery(
        {name: faces(paths[:enrolled], model) for name, paths in photos.items()}, scale="calibrated"
    )
    names = [name for name, paths in photos.items() for _ in paths[enrolled : enrolled + probes]]
    return gallery, faces([p for paths in photos.values() for p in paths[enrolled : enrolled + probes]], model), names
