"""``facexai evaluate``: the same measurements over a whole data set, that can be cut off and started again."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._registry import about
from facexai.cli.shared import show

if TYPE_CHECKING:
    from facexai.evaluate import Config

_LISTS = {"explainer": "explainers", "metric": "metrics"}
_TEXTS = ("data", "model", "images", "gallery", "align", "face", "center", "protocol", "part", "ties")
_NUMBERS = ("limit", "enrol", "steps", "seed", "micro-batch", "shard")
_EITHER = ("scale", "area", "fill", "threshold")


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    evaluate = commands.add_parser(
        "evaluate",
        help="explain and measure a whole data set, on one machine or many",
        description="Explain and measure a whole data set. What is committed stays: start the same command again after "
        "a break, and it goes on. 'torchrun --nproc-per-node N -m facexai evaluate ...' divides the work.",
    )
    evaluate.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="TOML file of the options below")
    evaluate.add_argument("--out", type=Path, required=True, help="folder of the run")
    for name in _TEXTS:
        evaluate.add_argument(f"--{name}", help=_HELP.get(name))
    for name in _NUMBERS:
        evaluate.add_argument(f"--{name}", type=int, metavar="N", help=_HELP.get(name))
    for name in _EITHER:
        evaluate.add_argument(f"--{name}", type=_number, help=_HELP.get(name))
    for name, whole in _LISTS.items():
        evaluate.add_argument(f"--{name}", action="append", dest=whole, metavar="NAME", help=_HELP.get(name))
    evaluate.add_argument(
        "--engine", choices=("auto", "process", "torchrun", "ray"), default="auto", help=_HELP["engine"]
    )
    evaluate.add_argument(
        "--readers", type=int, default=2, metavar="N", help="threads that read photos ahead; default: 2"
    )
    evaluate.add_argument("--actors", type=int, default=2, metavar="N", help="workers of Ray; default: 2")
    evaluate.add_argument("--threads", type=int, metavar="N", help="torch threads of each worker; default: as they are")
    evaluate.add_argument(
        "--patience", type=float, default=21_600.0, metavar="S", help="seconds to wait for other ranks; default: 21600"
    )
    evaluate.add_argument("--device", help="such as cuda:1; default: a GPU where there is one")
    evaluate.add_argument("--json", action="store_true", help="print results.json instead of a table")
    evaluate.set_defaults(run=run)


_HELP = {
    "data": "folder NAME/*.jpg, CSV of image and identity, or labelled pairs as for verify",
    "model": "a name of 'facexai models', or package.module:factory; default: dlib-resnet29",
    "images": "folder of the photos that a CSV or a list of pairs names",
    "gallery": "folder NAME/*.jpg of enrolled people; default: the first photos of everybody in the data",
    "align": "auto (default), always or never",
    "face": "only (default) or largest",
    "enrol": "photos of each person that are enrolled; default: 8",
    "limit": "the first N photos or pairs only",
    "scale": "of the gallery: a number, or calibrated (default)",
    "center": "of the gallery: enrolled",
    "area": "share that deletion and retention mark; default: 0.2",
    "fill": "black (default), mean, blur, noise or a grey value",
    "protocol": "of pairs: fame (default) or epfl-inferred",
    "part": "of the maps of pairs: similar (default), dissimilar or auto",
    "ties": "what decides among equal values of class maps: fields (default) or signed",
    "threshold": "of pairs: a rule or a cosine instead of the protocol's",
    "explainer": f"such as sdd, hirescam, captum.Lime; of pairs {', '.join(about('pairs'))}; may be repeated",
    "metric": "such as deletion, retention, insertion, narrowness, overlap; may be repeated",
    "engine": "auto (default): this process, or the ranks that torchrun started; ray",
}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def run(options: argparse.Namespace) -> int:
    from facexai import evaluate, io
    from facexai.evaluate.engine import ranks

    io.output_folder(options.out)
    base = Path() if options.config is None else options.config.parent
    results = evaluate.run(
        _config(options, base),
        options.out,
        base=base,
        engine=options.engine,
        readers=options.readers,
        actors=options.actors,
        device=options.device,
        threads=options.threads,
        patience=options.patience,
        progress=sys.stderr.isatty(),
    )
    if results is None:  # another rank than the first
        return 0
    show(results.report, f"{results}\n-> {options.out / 'results.json'}", as_json=options.json)
    alone = ranks()[1] == 1  # torchrun takes any other code than 0 for a rank that failed
    return 1 if results.report["counts"]["unreadable"] and alone else 0


def _config(options: argparse.Namespace, base: Path) -> Config:
    """Returns the file's configuration, overridden by the command line's, whose paths are the user's."""
    from facexai import evaluate

    names = [field.name for field in fields(evaluate.Config)]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    given |= {name: str(Path(given[name]).absolute()) for name in ("data", "images", "gallery") if name in given}
    if options.config is not None:
        return evaluate.read(options.config, **given)
    if "data" not in given:
        raise ValueError("expected a CONFIG or --data")
    return evaluate.Config(**given)
