"""Values of recipes and records as JSON can hold them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def finite(value: Any) -> float | None:
    """Returns a number as JSON can hold it; None for what is none."""
    if value is None:
        return None
    made = float(value)
    return made if math.isfinite(made) else None


def plain(value: Any) -> Any:
    """Returns the values of a recipe as JSON can hold them."""
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, numbers.Integral):  # numpy's: a seed is no measured number
        return int(value)
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(held) for held in value]
    try:
        return finite(value)
    except (TypeError, ValueError):
        return str(value)
