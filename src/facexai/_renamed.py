"""Public names that have a new one: the old one works for one release, with a DeprecationWarning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

RENAMED = {
    "decisions": {"OfClass": "ClassMargin", "rows": "select", "scored": "score_batched", "steady": "eval_mode"},
    "functional": {
        "in_cells": "band_component",
        "share": "mass_inside",
        "steady": "zero_if_constant",
        "strongest": "top_gradient_mask",
        "through_length": "normalize_vjp",
        "unchanged": "small_change_mask",
    },
    "images": {"When": "AlignMode", "Which": "FaceChoice", "fitted": "fit_to_spec"},
    "metrics": {"others": "other_identity_index"},
    "perturb": {
        "Swapped": "PatchedPairs",
        "filling": "make_fill",
        "moved": "shift_mask",
        "numbered": "check_items",
        "smoothed": "gaussian_blur",
    },
}
"""Public module -> {old name: new name}."""


def getter(module: str) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a public module, which serves its old names.

    Args:
        module: its ``__name__``.
    """
    names = RENAMED[module.rpartition(".")[2]]

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new = names[name]
        warnings.warn(f"{module}.{name} is now {module}.{new}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[module], new)

    return get
