"""facexai explains face-recognition models, and measures whether the explanation is true.

Names load when they are first used, so ``import facexai`` loads neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from facexai import _explainers

if TYPE_CHECKING:
    from facexai import (
        baselines,
        decisions,
        denoisers,
        evaluate,
        explainers,
        functional,
        images,
        io,
        metrics,
        models,
        perturb,
        plots,
        report,
        results,
        zoo,
    )
    from facexai._errors import FaceXAIWarning
    from facexai._explainers import *  # noqa: F403
    from facexai.explainers import explain_pairs
    from facexai.input_spec import InputSpec
    from facexai.models import FaceModel, Gallery, HeadDoesNotFold, doctor
    from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency, load

try:
    __version__ = version("facexai")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_NAMES = {
    "FaceModel": "facexai.models",
    "Gallery": "facexai.models",
    "HeadDoesNotFold": "facexai.models",
    "doctor": "facexai.models",
    "explain_pairs": "facexai.explainers",
    "InputSpec": "facexai.input_spec",
    "Counterfactual": "facexai.results",
    "FrequencyHeat": "facexai.results",
    "PairSaliency": "facexai.results",
    "Saliency": "facexai.results",
    "load": "facexai.results",
    "FaceXAIWarning": "facexai._errors",
}
_MODULES = (
    "baselines",
    "decisions",
    "denoisers",
    "evaluate",
    "explainers",
    "functional",
    "images",
    "io",
    "metrics",
    "models",
    "perturb",
    "plots",
    "report",
    "results",
    "zoo",
)

__all__ = [
    "Counterfactual",
    "FaceModel",
    "FaceXAIWarning",
    "FrequencyHeat",
    "Gallery",
    "HeadDoesNotFold",
    "InputSpec",
    "PairSaliency",
    "Saliency",
    "baselines",
    "decisions",
    "denoisers",
    "doctor",
    "evaluate",
    "explain_pairs",
    "explainers",
    "functional",
    "images",
    "io",
    "load",
    "metrics",
    "models",
    "perturb",
    "plots",
    "report",
    "results",
    "zoo",
]
__all__ += _explainers.__all__


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"facexai.{name}")
    if name in _NAMES or name in _explainers.__all__:
        value = getattr(import_module(_NAMES.get(name, "facexai._explainers")), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'facexai' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
