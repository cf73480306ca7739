"""The SDD paper's study on faces of your own: deletion and retention of 20 %, with its random control and with ours."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import arguments, faces, networks, people, report
from layers import candidates

from facexai import FaceModel, HeadDoesNotFold, evaluate, images, io
from facexai.evaluate import Config
from facexai.metrics import Drop

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "studies"))
import finetune_classifier

PAPER = {  # Shadman et al. 2025, arXiv:2505.03837: drop, with the control moved at random; changes, with the same
    ("FaceScrub", "SDD-CAM", "deletion"): (62.33, 42.50, 51.36, 29.73),
    ("FaceScrub", "SDD-CAM", "retention"): (69.43, 82.21, 57.68, 79.93),
    ("CASIA", "SDD-CAM", "deletion"): (45.05, 26.83, 60.40, 37.90),
    ("CASIA", "SDD-CAM", "retention"): (46.30, 61.95, 59.98, 84.99),
    ("FaceScrub", "SDD-Score-CAM", "deletion"): (39.17, 13.66, 29.33, 7.85),
    ("FaceScrub", "SDD-Score-CAM", "retention"): (86.69, 89.22, 89.99, 97.82),
    ("CASIA", "SDD-Score-CAM", "deletion"): (45.48, 11.44, 61.30, 20.84),
    ("CASIA", "SDD-Score-CAM", "retention"): (54.39, 66.79, 70.60, 96.33),
}
SCHEMES = ("deletion", "retention")
CONTROLS = ("random", "centre", "mean-map", "other-image")
COLUMNS = [
    "network",
    "head",
    "map",
    "cells",
    *(f"{scheme}{what}" for scheme in SCHEMES for what in ("", ", 95 %", ", random", ", centre", ", mean-map")),
    *(f"{scheme} changes{what}" for scheme in SCHEMES for what in ("", ", random")),
    "half of the mass",
    "overlap before",
    "overlap after",
]


def prepared(photos: dict[str, list[Path]], model: FaceModel, each: int | None, folder: Path) -> Path:
    """The photos as the network wants them, as files, so that a run and the training read them as anybody's."""
    for name, paths in photos.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        chosen = [path for path in paths[:each] if not (folder / name / f"{path.stem}.png").is_file()]
        for path in chosen:
            images.save(faces([path], model)[0], folder / name / f"{path.stem}.png")
    return folder


def explainers(model: FaceModel, classifier: FaceModel, scorecam: bool) -> dict[str, dict[str, Any]]:
    """Label -> explainer: bases and SDD over them, at every layer; Score-CAM, which is slow, at the default layer.

    Args:
        model: the embedder, whose names of layers the labels have.
        classifier: the network that is explained: the embedder, or one around it.
        scorecam: whether to take Score-CAM.
    """
    inside = {id(module): name for name, module in classifier.net.named_modules()}
    made: dict[str, dict[str, Any]] = {}

    def both(name: str, method: str, sdd: str, layer: str) -> None:
        where = {"layer": inside[id(model.net.get_submodule(layer))]}
        made[f"{name}, {layer}"] = {"method": method, **where}
        made[f"SDD({name}), {layer}"] = {"method": sdd, **where}

    if folds(classifier):
        made |= {"CAM": {"method": "cam"}, "SDD(CAM)": {"method": "sdd-cam"}}
    for layer in candidates(model):
        both("HiResCAM", "hirescam", "sdd", layer)
    if scorecam:
        both("Score-CAM", "scorecam", "sdd-scorecam", model.layer("auto"))
    return made


def rows_of(found: evaluate.Results, model: FaceModel, network: str, head: str, entries: dict) -> list[dict[str, Any]]:
    """A row for each map."""
    rows = []
    for label, measured in found.measured.items():
        layer = entries[label].get("layer")
        cells = (
            "x".join(map(str, model.layers[layer][1:])) if layer else "x".join(map(str, model.head.layout.shape[1:]))
        )
        row: dict[str, Any] = {"network": network, "head": head, "map": label, "cells": cells}
        for scheme in SCHEMES:
            drop: Drop = measured[scheme]
            told = None if drop.interval is None else "{:.1f} to {:.1f}".format(*drop.interval)
            row |= {scheme: drop.drop, f"{scheme}, 95 %": told, f"{scheme} changes": drop.changed}
            for name in CONTROLS:
                control = drop.controls[name]
                row |= {f"{scheme}, {name}": control.drop, f"{scheme} changes, {name}": control.changed}
                row[f"{scheme}, p {name}"] = drop.p_value(name)
        row["half of the mass"] = measured["narrowness"].half_mass.mean
        if "overlap" in measured:
            row |= {"overlap before": measured["overlap"].before.mean, "overlap after": measured["overlap"].after.mean}
        rows.append(row)
    return rows


def paper_rows() -> list[dict[str, Any]]:
    """Their figures, in points and shares as ours."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for (data, method, scheme), (own, random, change, change_random) in PAPER.items():
        start = {"network": "AdaFace ResNet-100", "head": f"{data}, published", "map": method}
        row = rows.setdefault((data, method), start)
        row |= {scheme: own, f"{scheme}, random": random}
        row |= {f"{scheme} changes": change / 100, f"{scheme} changes, random": change_random / 100}
    return list(rows.values())


def base_of(label: str) -> str:
    """The map that SDD stands on."""
    inner, _, layer = label.removeprefix("SDD(").partition(")")
    return f"{inner}{layer}"


def sentences(rows: list[dict[str, Any]]) -> list[str]:
    """Whether each direction of the paper holds, and what it takes no notice of."""
    said = []
    for network, head in dict.fromkeys((r["network"], r["head"]) for r in rows):
        mine = {r["map"]: r for r in rows if (r["network"], r["head"]) == (network, head)}
        for label, row in mine.items():
            if not label.startswith("SDD("):
                continue
            asked = {
                "deletion above random": row["deletion"] > row["deletion, random"],
                "changes above random": row["deletion changes"] > row["deletion changes, random"],
                "retention below random": row["retention"] < row["retention, random"],
                "retained changes below random": row["retention changes"] < row["retention changes, random"],
            }
            held = [name for name, holds in asked.items() if holds]
            base = mine[base_of(label)]
            beyond = []
            for name, better in (
                ("its base", row["deletion"] > base["deletion"]),
                ("the centre prior", row["deletion"] > row["deletion, centre"] and row["deletion, p centre"] < 0.05),
                ("the centre prior in retention", row["retention"] < row["retention, centre"]),
            ):
                beyond.append(f"{'above' if better else 'not above'} {name}")
            halves = (f"{one['half of the mass']:.0%}" for one in (row, base))
            narrow = "half of the mass on {} of the picture, base {}".format(*halves)
            overlap = f"overlap of the top five {row['overlap before']:.2f} before, {row['overlap after']:.2f} after"
            failed = [name for name in asked if name not in held]
            told = f"{len(held)} of 4 directions hold" + (f" (not: {', '.join(failed)})" if failed else "")
            said.append(f"{network}, {head}, {label}: {told}; {', '.join(beyond)}; {narrow}; {overlap}.")
    return said


METRICS: dict[str, Any] = {"metrics": ("deletion", "retention", "narrowness", "overlap"), "align": "never"}


def gallery(network: str, model: FaceModel, options: Any, work: Path) -> list[dict[str, Any]]:
    """Enrolled people, with a calibrated scale."""
    entries = explainers(model, model, options.scorecam)
    few = prepared(people(options.faces), model, 8 + options.probes, work / network / "faces")
    config = Config(str(few.absolute()), explainers=named(entries), **METRICS)
    found = evaluate.run(config, work / network / "gallery", model=model, progress=True)
    return rows_of(found, model, network, f"gallery, scale {found.report['classifier']['scale']:.1f}", entries)


def linear(network: str, model: FaceModel, options: Any, work: Path) -> list[dict[str, Any]]:
    """A linear layer trained by the paper's recipe, on the photos that it was not trained on."""
    everything = prepared(people(options.faces), model, None, work / network / "all")
    recipe = finetune_classifier.Recipe(model=network, align="never")
    usable, pixels = finetune_classifier.read(everything, model.spec, "never")
    trained = work / network / "trained"
    head = finetune_classifier.train(model, pixels, finetune_classifier.split(usable, 0), trained, recipe)
    entries = explainers(model, head, options.scorecam)
    test = str((trained / "test.csv").absolute())
    config = Config(test, images=str(everything.absolute()), explainers=named(entries), **METRICS)
    found = evaluate.run(config, work / network / "classifier", model=head, progress=True)
    accuracy = found.report["classifier"]["identified"]
    return rows_of(found, head, network, f"linear, accuracy {accuracy:.3f}", entries)


HEADS = {"gallery": gallery, "linear": linear}


def kept_rows(options: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of other networks and heads that an earlier run with the same settings wrote."""
    if options.json is None or not options.json.is_file():
        return []
    content = json.loads(options.json.read_text())
    if {name: content.get(name) for name in settings} != settings:
        raise SystemExit(f"{options.json.name} holds rows with other settings; choose another --json")
    return [row for row in content["rows"] if "published" not in row["head"]]


def named(entries: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """As a configuration has them."""
    return tuple({**entry, "name": label} for label, entry in entries.items())


def folds(model: FaceModel) -> bool:
    """Whether CAM is possible at all."""
    try:
        return len(model.head.names) >= 0
    except HeadDoesNotFold:
        return False


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--probes", type=int, default=3, help="photos of each person for the gallery; default: 3")
    parser.add_argument("--no-scorecam", dest="scorecam", action="store_false", help="leave out what takes longest")
    parser.add_argument(
        "--head", action="append", choices=HEADS, help="measure this head; may be repeated; default: both"
    )
    parser.add_argument("--work", type=Path, help="folder where the study goes on after a break")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {"probes_per_person": options.probes, "scorecam": options.scorecam}
    rows, heads = kept_rows(options, settings), options.head or list(HEADS)
    with tempfile.TemporaryDirectory() as temporary:
        for network, model in networks(options).items():
            for head in heads:
                rows = [r for r in rows if r["network"] != network or not r["head"].startswith(head)]
                rows += HEADS[head](network, model, options, options.work or Path(temporary))
                if options.json is not None:  # a break costs the head that is being measured
                    io.write_json(options.json, json.loads(json.dumps({**settings, "rows": rows})))
    said = sentences(rows)
    rows = [{**dict.fromkeys(COLUMNS), **row} for row in [*paper_rows(), *rows]]
    report(options, rows, "scipy", columns=COLUMNS, sentences=said, **settings)


if __name__ == "__main__":
    main()
