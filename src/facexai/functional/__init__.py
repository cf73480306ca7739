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
from facexai.functional.scorecam import scorecam, scorecam_weights
from facexai.functional.sdd import sdd

__all__ = [
    "at_least_float32",
    "completeness_error",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "minmax",
    "scorecam",
    "scorecam_weights",
    "sdd",
    "share",
    "upsample",
]
