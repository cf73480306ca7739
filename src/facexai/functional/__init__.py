"""The mathematics: tensors in, tensors out. Nothing here depends on a network, a file or a plot."""

from typing import TYPE_CHECKING

from facexai import _renamed
from facexai.functional.cam import (
    at_least_float32,
    completeness_error,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    mass_inside,
    minmax,
    upsample,
)
from facexai.functional.diffusion import Schedule, linear_alphas, respaced, small_change_mask, top_gradient_mask
from facexai.functional.frequency import Bands, agreement, band_component, bands, energies, first_order, spectra
from facexai.functional.pairs import (
    agreeing,
    centred,
    correlation_maps,
    correspondences,
    fggb,
    normalize_vjp,
    ranks,
    unit_gradients,
    zero_if_constant,
)
from facexai.functional.scorecam import scorecam, scorecam_weights
from facexai.functional.sdd import sdd
from facexai.functional.verification import auc, equal_error, sweep

__all__ = [
    "Bands",
    "Schedule",
    "agreeing",
    "agreement",
    "at_least_float32",
    "auc",
    "band_component",
    "bands",
    "centred",
    "completeness_error",
    "correlation_maps",
    "correspondences",
    "energies",
    "equal_error",
    "fggb",
    "first_order",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "linear_alphas",
    "mass_inside",
    "minmax",
    "normalize_vjp",
    "ranks",
    "respaced",
    "scorecam",
    "scorecam_weights",
    "sdd",
    "small_change_mask",
    "spectra",
    "sweep",
    "top_gradient_mask",
    "unit_gradients",
    "upsample",
    "zero_if_constant",
]

if not TYPE_CHECKING:
    __getattr__ = _renamed.getter(__name__)
