"""What several commands share: errors on one line, and the model that a user named."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facexai._messages import near_matches

if TYPE_CHECKING:
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


def out_folder(folder: Path) -> Path:
    """``--out``, refused before anything runs where it is a file."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, expected a folder to write into")
    return folder


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
