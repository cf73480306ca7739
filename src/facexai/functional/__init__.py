"""The mathematics: tensors in, tensors out. Nothing here knows a network, a file or a plot."""

from facexai.functional.cam import (
    at_least_float32,
    completeness_error,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    minmax,
    share,
    upsample,
)
from facexai.functional.pairs import (
    agreeing,
    centred,
    correlation_maps,
    correspondences,
    fggb,
    ranks,
    steady,
    through_length,
    unit_gradients,
)
from facexai.functional.scorecam import scorecam, scorecam_weights
from facexai.functional.sdd import sdd
from facexai.functional.verification import auc, equal_error, sweep

__all__ = [
    "agreeing",
    "at_least_float32",
    "auc",
    "centred",
    "completeness_error",
    "correlation_maps",
    "correspondences",
    "equal_error",
    "fggb",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "minmax",
    "ranks",
    "scorecam",
    "scorecam_weights",
    "sdd",
    "share",
    "steady",
    "sweep",
    "through_length",
    "unit_gradients",
    "upsample",
]
