"""``facexai compare``: why do these two faces match, or not?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._photo_names import photo_names
from facexai._registry import about
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
    show,
)

if TYPE_CHECKING:
    from facexai.models import FaceModel
    from facexai.results import PairSaliency

_USUAL = {"layer": "auto", "masks": "patches"}


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    compare = commands.add_parser("compare", help="why do these two faces match, or not?")
    compare.add_argument("images", nargs=2, type=Path, metavar="IMAGE", help="a photo of each face")
    compare.add_argument("--method", choices=tuple(about("pairs")), default="fggb", help="default: fggb")
    compare.add_argument(
        "--threshold",
        type=float,
        help="cosine from which a pair is accepted; needed by fggb and xssab; 'facexai verify' finds it",
    )
    model_argument(compare)
    compare.add_argument(
        "--layer", default=_USUAL["layer"], help="layer of paircam; default: the head's input, which is exact"
    )
    compare.add_argument(
        "--masks", choices=("patches", "grid"), default=_USUAL["masks"], help="of corrrise; default: patches"
    )
    photo_arguments(compare)
    engine_arguments(compare)
    out_arguments(compare, "compare.png, .npz and .json", "compare.json", "a line")
    compare.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import io, plots

    folder = io.output_folder(options.out)
    network = model(options.model)
    faces = [face(path, network, options) for path in options.images]
    shown = [aligned.image.to(network.device) for aligned in faces]
    why = _explainer(accelerated(network, lambda: shown, options), options)(*shown)
    folder.mkdir(parents=True, exist_ok=True)
    why.save(folder / "compare.npz")
    plots.save(why.plot(), folder / "compare.png")
    if why.table is not None:
        plots.save(why.plot_matches(), folder / "matches.png")
    report = _report(why, photo_names(options.images))
    report["aligned"] = [cut(one) for one in faces]
    report["sha256"] = [io.sha256_of(path) for path in options.images]
    report["files"] = ["compare.png", "compare.npz", *(["matches.png"] if why.table is not None else [])]
    io.write_json(folder / "compare.json", report)
    show(report, _line(report), as_json=options.json)
    return 0


def _explainer(network: FaceModel, options: argparse.Namespace) -> Any:
    from facexai.evaluate.methods import pair_explainer

    rows = about("pairs")
    without = [name for name, row in rows.items() if row.defaults()["threshold"] is None]
    if options.threshold is None and options.method not in without:
        raise ValueError(
            f"{options.method} needs --threshold, the cosine from which a pair is accepted: 'facexai verify PAIRS' "
            f"finds it; {' and '.join(without)} do without"
        )
    given = {name: getattr(options, name) for name, usual in _USUAL.items() if getattr(options, name) != usual}
    chosen = explainer_options(options.method, rows, given)
    return pair_explainer(options.method, network, threshold=options.threshold, **chosen)


def _report(why: PairSaliency, called: Sequence[str]) -> dict[str, Any]:
    """Returns the command's report; ``called``: names of the photos."""
    result: dict[str, Any] = {"first": called[0], "second": called[1], "cosine": round(float(why.scores[0]), 6)}
    result["threshold"] = why.threshold
    result["match"] = None if why.accepted is None else bool(why.accepted[0])
    result["near"] = None if why.near is None else bool(why.near[0])
    total = why.maps[0].abs().sum((1, 2)).clamp(min=1e-12)
    result["share_for_a_match"] = [round(float(v), 4) for v in why.similar[0].sum((1, 2)) / total]
    if why.table is not None:
        found = why.strongest(8)
        result["strongest_matches"] = [
            {"first": [round(v) for v in one], "second": [round(v) for v in other], "adds": round(value, 6)}
            for one, other, value in found
        ]
    result["recipe"] = dict(why.recipe)
    return result


def _line(report: dict[str, Any]) -> str:
    verdict = {None: "", True: ": match", False: ": no match"}[report["match"]]
    limit = "" if report["threshold"] is None else f", threshold {report['threshold']:g}"
    return f"{report['first']} and {report['second']}: cosine {report['cosine']:.3f}{limit}{verdict}  -> compare.png"
