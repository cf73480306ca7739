"""Changing images by a map: which pixels, and what stands in their place."""

from facexai.perturb.draws import generator, numbered
from facexai.perturb.fills import Fill, blurred, filling, smoothed
from facexai.perturb.masks import black_patches, grid_masks
from facexai.perturb.patches import Swapped, patch_swap
from facexai.perturb.regions import centre_prior, check_maps, moved, top_area

__all__ = [
    "Fill",
    "Swapped",
    "black_patches",
    "blurred",
    "centre_prior",
    "check_maps",
    "filling",
    "generator",
    "grid_masks",
    "moved",
    "numbered",
    "patch_swap",
    "smoothed",
    "top_area",
]
