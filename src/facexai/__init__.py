"""facexai explains face-recognition models, and measures whether the explanation is true.

Names load when they are first used, so ``import facexai`` loads neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

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
    from facexai._messages import FaceXAIWarning
    from facexai.explainers import (
        CAM,
        FGGB,
        SDD,
        XSSAB,
        CorrRISE,
        FastDiME,
        FrequencyHeatPlot,
        GradCAM,
        GradCAMPlusPlus,
        HiResCAM,
        LayerCAM,
        PairCAM,
        ScoreCAM,
        explain_pairs,
    )
    from facexai.input_spec import InputSpec
    from facexai.models import FaceModel, Gallery, HeadDoesNotFold, doctor
    from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency, load

try:
    __version__ = version("facexai")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

_NAMES = {
    "CAM": "facexai.explainers",
    "CorrRISE": "facexai.explainers",
    "FGGB": "facexai.explainers",
    "FastDiME": "facexai.explainers",
    "FrequencyHeatPlot": "facexai.explainers",
    "GradCAM": "facexai.explainers",
    "GradCAMPlusPlus": "facexai.explainers",
    "HiResCAM": "facexai.explainers",
    "LayerCAM": "facexai.explainers",
    "PairCAM": "facexai.explainers",
    "SDD": "facexai.explainers",
    "ScoreCAM": "facexai.explainers",
    "XSSAB": "facexai.explainers",
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
    "FaceXAIWarning": "facexai._messages",
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
    "CAM",
    "FGGB",
    "SDD",
    "XSSAB",
    "CorrRISE",
    "Counterfactual",
    "FaceModel",
    "FaceXAIWarning",
    "FastDiME",
    "FrequencyHeat",
    "FrequencyHeatPlot",
    "Gallery",
    "GradCAM",
    "GradCAMPlusPlus",
    "HeadDoesNotFold",
    "HiResCAM",
    "InputSpec",
    "LayerCAM",
    "PairCAM",
    "PairSaliency",
    "Saliency",
    "ScoreCAM",
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
