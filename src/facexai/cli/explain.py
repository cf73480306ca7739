"""``facexai explain``: why is this face taken for this enrolled person?"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._errors import told
from facexai._photo_names import photo_names
from facexai._registry import about, class_methods
from facexai.cli.shared import (
    accelerated,
    cut,
    engine_arguments,
    explainer_options,
    face,
    model,
    model_argument,
    out_arguments,
    photo_arguments,
    say,
    scale,
    show,
)

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.explainers._class_maps import Explainer
    from facexai.images import Aligned
    from facexai.models import FaceModel, Gallery
    from facexai.results import Saliency


_SAMPLE = 8


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    explain = commands.add_parser("explain", help="why is this face taken for this enrolled person?")
    explain.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="photos to explain")
    explain.add_argument("--gallery", type=Path, required=True, help="folder with one sub-folder of photos per person")
    explain.add_argument("--method", choices=class_methods(), default="sdd", help="default: sdd (over hirescam)")
    model_argument(explain)
    explain.add_argument(
        "--layer", default="auto", help="layer to explain; default: the deepest map of at least 14x14 cells, else 7x7"
    )
    explain.add_argument("--target", help="person to explain; default: the predicted one")
    explain.add_argument("--rivals", type=int, default=4, help="rivals of sdd; default: 4")
    explain.add_argument("--keep", type=int, help="channels of scorecam that are asked for each photo; default: all")
    explain.add_argument(
        "--scale", type=scale, default=64.0, help="logits per unit of cosine, or 'calibrated'; default: 64"
    )
    photo_arguments(explain)
    engine_arguments(explain)
    out_arguments(explain, "figures, maps (.npz) and explanations.json", "explanations.json")
    explain.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import io
    from facexai._progress import tqdm

    io.output_folder(options.out)
    chosen = _chosen(options)
    original = model(options.model)
    network = accelerated(original, lambda: _sample(original, options), options)
    people = network.gallery(
        options.gallery, scale=options.scale, align=options.align, face=options.face, progress=True
    )
    if options.target is not None:
        people.index(options.target)
    explainer = _explainer(people, options, chosen)
    options.out.mkdir(parents=True, exist_ok=True)
    explained: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    photos = list(zip(options.images, photo_names(options.images), _file_names(options.images), strict=True))
    for path, called, name in tqdm(photos, desc="explain", unit="photo", disable=None, file=sys.stderr):
        try:
            explained.append({"image": called, **_one(path, name, explainer, people, options)})
        except (ValueError, FileNotFoundError) as error:
            failed.append({"image": called, "error": told(error).replace(str(path), called)})
    if not explained:
        raise ValueError("no image could be explained: " + "; ".join(f["error"] for f in failed))
    report = {"people": list(people.names), "explained": explained, "failed": failed}
    io.write_json(options.out / "explanations.json", report)
    _print(report, as_json=options.json)
    return 1 if failed else 0


def _sample(network: FaceModel, options: argparse.Namespace) -> list[Tensor]:
    """Returns the first readable photos, which verify an engine; unreadable ones are reported later."""
    faces: list[Tensor] = []
    for path in options.images[:_SAMPLE]:
        with suppress(ValueError, FileNotFoundError):
            faces.append(face(path, network, options).image)
    return faces


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of the explainer; for SDD those of its base."""
    base = options.method.removeprefix("sdd").removeprefix("-") or "hirescam"
    layer = None if options.layer == "auto" else options.layer
    return explainer_options(base, about("classes"), {"layer": layer, "keep": options.keep})


def _explainer(people: Gallery, options: argparse.Namespace, chosen: dict[str, Any]) -> Explainer:
    from facexai.evaluate.methods import class_explainer

    if options.method.startswith("sdd"):
        chosen["rivals"] = min(options.rivals, max(len(people) - 1, 1))
    explainer: Explainer = class_explainer(options.method, people, **chosen)
    return explainer


def _file_names(paths: Sequence[Path]) -> list[str]:
    """Returns for each photo a name of its files: its stem, numbered where that is taken."""
    names: list[str] = []
    for path in paths:
        numbered = (f"{path.stem}-{i}" for i in itertools.count(2))
        names.append(next(name for name in itertools.chain([path.stem], numbered) if name not in names))
    return names


def _one(path: Path, name: str, explainer: Explainer, people: Gallery, options: argparse.Namespace) -> dict[str, Any]:
    from facexai import plots

    aligned = face(path, people.model, options)
    batch = aligned.image.to(people.model.device)
    why = explainer.answer(explainer.observe(batch), options.target)
    why.save(options.out / f"{name}.npz")
    figure = why.plot(batch) if why.rivals is None else why.plot_rivals(batch)
    plots.save(figure, options.out / f"{name}.png")
    return _record(path, name, why, aligned, people)


def _record(path: Path, name: str, why: Saliency, face: Aligned, people: Gallery) -> dict[str, Any]:
    """Returns one photo's row of the report."""
    from facexai import io

    score = float(why.scores[0])
    row: dict[str, Any] = {
        "target": why.name(int(why.targets[0])),
        "cosine": round(score / people.scale, 6),
        "logit": round(score, 6),
    }
    if why.rivals is not None and why.rival_scores is not None:
        scores = (float(s) / people.scale for s in why.rival_scores[0])
        row["rivals"] = {why.name(int(r)): round(s, 6) for r, s in zip(why.rivals[0], scores, strict=True)}
    peak = divmod(int(why.cells[0].argmax()), why.cells.shape[2])
    row |= {"peak_cell": list(peak), "cells": list(why.cells.shape[1:]), "recipe": dict(why.recipe)}
    row |= {"aligned": cut(face), "sha256": io.sha256_of(path)}
    row["files"] = [f"{name}.png", f"{name}.npz"]
    return row


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show(report, "", as_json=True)
        return
    for row in report["explained"]:
        rivals = ", ".join(f"{name} {cosine:.3f}" for name, cosine in row.get("rivals", {}).items())
        against = f"  against {rivals}" if rivals else ""
        say(f"{row['image']}: {row['target']} {row['cosine']:.3f}{against}  -> {row['files'][0]}")
    for row in report["failed"]:
        say(f"{row['image']}: {row['error']}", file=sys.stderr)
