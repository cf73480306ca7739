"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from facexai._errors import printable

if TYPE_CHECKING:
    from torch import Tensor

    from facexai._registry import Row
    from facexai.images import Aligned
    from facexai.models import FaceModel


DEFAULT_MODEL = "dlib-resnet29"
"""The default network."""


def model_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--model``, the same for all commands."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a name of 'facexai models', or package.module:factory; default: {DEFAULT_MODEL}",
    )


def align_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--align``, the same for all commands."""
    parser.add_argument(
        "--align",
        choices=("auto", "always", "never"),
        default="auto",
        help="detect and align faces; auto (default): only in photos that do not have the model's size",
    )


def photo_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--align`` and ``--face``."""
    align_argument(parser)
    parser.add_argument("--face", choices=("only", "largest"), default="only", help="where a photo shows several")


def engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--engine`` and ``--precision``."""
    parser.add_argument(
        "--engine",
        choices=("torch", "openvino", "onnxruntime", "auto"),
        help="run forward passes on a verified copy: torch, openvino, onnxruntime, or auto, the fastest of them",
    )
    parser.add_argument("--precision", choices=("bf16",), help="of these passes; default: that of the network")


def accelerated(network: FaceModel, faces: Callable[[], Sequence[Tensor]], options: argparse.Namespace) -> FaceModel:
    """Returns the network, or the copy that ``--engine`` and ``--precision`` ask for, verified on these faces."""
    if options.engine is None and options.precision is None:
        return network
    import torch

    from facexai.models import accelerate

    sample = list(faces())
    images = torch.cat(sample).to(network.device) if sample else None
    return accelerate(network, images, engine=options.engine or "auto", precision=options.precision)


def scale(text: str) -> float | str:
    """Parses ``--scale`` of a gallery: a number, or ``calibrated``."""
    return text if text == "calibrated" else float(text)


def out_arguments(parser: argparse.ArgumentParser, holds: str, report: str, instead: str = "a table") -> None:
    """Adds ``--out`` for those files and ``--json`` to print the report."""
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {holds}")
    parser.add_argument("--json", action="store_true", help=f"print {report} instead of {instead}")


def face(path: Path, network: FaceModel, options: argparse.Namespace) -> Aligned:
    """Returns the photo as the network's input, by ``--align`` and ``--face``."""
    from facexai import images

    return images.fit_to_spec(images.load(path), network.spec, when=options.align, face=options.face)


def cut(aligned: Aligned) -> list[list[float]] | None:
    """Returns the affine matrix from photo to aligned face, for a report; None: the photo was not aligned."""
    return None if aligned.face is None else [[round(float(v), 4) for v in line] for line in aligned.matrix]


def show(report: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Prints a command's report as JSON, or its text."""
    if not as_json:
        say(*text.split("\n"))
        return
    shown = json.dumps(report, indent=2, ensure_ascii=False)
    plain = all(line == _encodable(printable(line), sys.stdout) for line in shown.split("\n"))
    print(shown if plain else json.dumps(report, indent=2))  # the same report, odd characters as JSON's own escapes


def say(*lines: str, file: IO[str] | None = None) -> None:
    """Prints lines with escapes for characters that could control a terminal or that it cannot show."""
    stream = sys.stdout if file is None else file
    for line in lines:
        print(_encodable(printable(line), stream), file=stream)


def _encodable(line: str, stream: IO[str]) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def explainer_options(method: str, rows: Mapping[str, Row], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that the user gave, by field of the explainer.

    Args:
        method: name of the explainer.
        rows: the explainers that the command offers.
        given: by name of the option; None: not given.

    Raises:
        ValueError: the explainer has no such option; names those that have it.
    """
    chosen = {option: value for option, value in given.items() if value is not None}
    for option, value in chosen.items():
        owners = [name for name, row in rows.items() if _takes(row, option, value)]
        if method not in owners:
            raise ValueError(f"--{option} belongs to {', '.join(owners)}, not to {method}")
    return chosen


def _takes(row: Row, option: str, value: Any) -> bool:
    """Returns whether an explainer has this option; one name may mean a number here and a share there."""
    usual = row.defaults().get(option, MISSING)
    return usual is None or type(usual) is type(value)


def model(name: str) -> FaceModel:
    """Returns the network of ``--model``."""
    from facexai import zoo

    return zoo.by_name(name)
