"""Labels as booleans; only unambiguous values are labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facexai._errors import short_repr

Labels = NDArray[np.bool_]


def labels_of(values: Any, count: int | None = None, name: str = "labels", what: str = "pairs") -> Labels:
    """Returns labels (P,) as booleans.

    Args:
        values: (P,) booleans, or numbers that are exactly 0 or 1; a sequence, an array or a tensor.
        count: P, where it is known.
        name: of the argument, for messages.
        what: plural of the things that are labelled, for messages.

    Raises:
        ValueError: another shape or number of labels, or any other value, such as text, None, NaN or -1; the message
            names the first one and its row.

    >>> labels_of([1, 0.0, True])
    array([ True, False,  True])
    >>> labels_of([1, -1])
    Traceback (most recent call last):
    ValueError: expected only True and False, or 1 and 0, in labels, got -1 in row 1; convert the labels first
    """
    rows = _rows(values, name)
    if rows.ndim != 1 or count not in (None, len(rows)):
        number = "" if count is None else f"{count} "
        raise ValueError(f"expected {name} with True or False for each of the {number}{what}, got shape {rows.shape}")
    if rows.dtype.kind in "biuf":
        good = (rows == 0) | (rows == 1)
    else:
        good = np.array([isinstance(value, bool | int | float) and value in (0, 1) for value in rows.tolist()], bool)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"expected only True and False, or 1 and 0, in {name}, got {short_repr(rows.tolist()[row])} in row {row}; "
            "convert the labels first"
        )
    return rows.astype(bool)


def _rows(values: Any, name: str) -> NDArray[Any]:
    """Returns the values as an array; elements of sequences keep their types, where numpy would make
    text of all of them.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        array: NDArray[Any] = (values.double() if values.is_floating_point() else values).numpy()
        return array
    if isinstance(values, np.ndarray) and not isinstance(values, np.ma.MaskedArray):
        return values
    try:
        elements = list(values.tolist() if hasattr(values, "tolist") else values)
    except TypeError:
        raise ValueError(f"expected {name} as a sequence, an array or a tensor, got {type(values).__name__}") from None
    rows = np.empty(len(elements), dtype=object)
    for row, element in enumerate(elements):
        rows[row] = element.tolist() if hasattr(element, "tolist") else element
    return rows
