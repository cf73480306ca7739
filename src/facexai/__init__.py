"""facexai explains face-recognition models, and measures whether the explanation is true.

Names load when they are first used, so ``import facexai`` loads neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facexai import baselines, explainers, functional, images, io, metrics, models, perturb, plots, results, zoo
    from facexai._messages import FaceXAIWarning
    from facexai.explainers import CAM, SDD, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM
    from facexai.input_spec import InputSpec
    from facexai.models import FaceModel, Gallery, HeadDoesNotFold, doctor
    from facexai.results import Saliency, load

try:
    __version__ = version("facexai")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_NAMES = {
    "CAM": "facexai.explainers",
    "GradCAM": "facexai.explainers",
    "GradCAMPlusPlus": "facexai.explainers",
    "HiResCAM": "facexai.explainers",
    "LayerCAM": "facexai.explainers",
    "SDD": "facexai.explainers",
    "ScoreCAM": "facexai.explainers",
    "FaceModel": "facexai.models",
    "Gallery": "facexai.models",
    "HeadDoesNotFold": "facexai.models",
    "doctor": "facexai.models",
    "InputSpec": "facexai.input_spec",
    "Saliency": "facexai.results",
    "load": "facexai.results",
    "FaceXAIWarning": "facexai._messages",
}
_MODULES = (
    "baselines",
    "explainers",
    "functional",
    "images",
    "io",
    "metrics",
    "models",
    "perturb",
    "plots",
    "results",
    "zoo",
)

__all__ = [
    "CAM",
    "SDD",
    "FaceModel",
    "FaceXAIWarning",
    "Gallery",
    "GradCAM",
    "GradCAMPlusPlus",
    "HeadDoesNotFold",
    "HiResCAM",
    "InputSpec",
    "LayerCAM",
    "Saliency",
    "ScoreCAM",
    "baselines",
    "doctor",
    "explainers",
    "functional",
    "images",
    "io",
    "load",
    "metrics",
    "models",
    "perturb",
    "plots",
    "results",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"facexai.{name}")
    if name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'facexai' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
