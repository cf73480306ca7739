"""Changing images by a map: which pixels, and what replaces them."""

from typing import TYPE_CHECKING

from facexai import _renamed
from facexai.perturb.draws import check_items, generator
from facexai.perturb.fills import Fill, blurred, gaussian_blur, make_fill
from facexai.perturb.masks import black_patches, grid_masks
from facexai.perturb.patches import PatchedPairs, patch_swap
from facexai.perturb.regions import centre_prior, check_maps, shift_mask, top_area

__all__ = [
    "Fill",
    "PatchedPairs",
    "black_patches",
    "blurred",
    "centre_prior",
    "check_items",
    "check_maps",
    "gaussian_blur",
    "generator",
    "grid_masks",
    "make_fill",
    "patch_swap",
    "shift_mask",
    "top_area",
]

if not TYPE_CHECKING:
    __getattr__ = _renamed.getter(__name__)
