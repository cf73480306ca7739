"""What several commands share: errors on one line, and the model that a user named."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._messages import near_matches

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.models import FaceModel


def told(error: BaseException) -> str:
    """An error's text and notes on one line."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())]).replace("\n", " ")


def model_argument(parser: argparse.ArgumentParser) -> None:
    """``--model``, the same for all commands."""
    parser.add_argument(
        "--model", default="dlib-resnet29", help="a name of 'facexai models', or package.module:factory"
    )


def align_argument(parser: argparse.ArgumentParser) -> None:
    """``--align``, the same for all commands."""
    parser.add_argument(
        "--align",
        choices=("auto", "always", "never"),
        default="auto",
        help="detect and align faces; auto (default): only in photos that do not have the model's size",
    )


def photo_arguments(parser: argparse.ArgumentParser) -> None:
    """``--align`` and ``--face``."""
    align_argument(parser)
    parser.add_argument("--face", choices=("only", "largest"), default="only", help="where a photo shows several")


def out_arguments(parser: argparse.ArgumentParser, holds: str, report: str, instead: str = "a table") -> None:
    """``--out`` for those files and ``--json`` to print the report."""
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {holds}")
    parser.add_argument("--json", action="store_true", help=f"print {report} instead of {instead}")


def face(path: Path, network: FaceModel, options: argparse.Namespace) -> Tensor:
    """The photo of ``--align`` and ``--face`` as the network wants it, (1, 3, H, W), where the network is."""
    from facexai import images

    photo = images.load(path)
    return images.fitted(photo, network.spec, when=options.align, face=options.face).image.to(network.device)


def show(report: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """What a command prints: its report, or words."""
    print(json.dumps(report, indent=2, ensure_ascii=False) if as_json else text)


def model(name: str) -> FaceModel:
    """The network of ``--model``."""
    from facexai import zoo
    from facexai.models import FaceModel

    if ":" in name:
        sys.path.insert(0, "")  # a module beside the user, as python -m finds it
        return FaceModel.from_source(name)
    if name not in zoo.names():
        raise ValueError(
            f"no network is called {name!r}; {near_matches(name, zoo.names())} Or say package.module:factory"
        )
    return zoo.load(name)


def relative(image: Path | bytes, number: int, root: Path) -> str:
    """An image's name below the folder of images; its number in a packed file."""
    if isinstance(image, bytes):
        return str(number)
    path, folder = (Path(os.path.abspath(p)) for p in (image, root))  # a link keeps the name that it has here
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
