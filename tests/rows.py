"""The explainers of the registry at small settings, for the suites that every explainer has to pass."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

from facexai._registry import Row, about

SMALL: dict[str, dict[str, Any]] = {"CorrRISE": {"masks": "grid", "count": 12}, "FGGB": {"chunk": 8}}
"""Options that make an explainer cheap on a small network."""

CLASSES = [row for row in about("classes").values() if row.needs != "a base"]
PAIRS = list(about("pairs").values())


def small(row: Row, subject: Any, layer: str) -> Any:
    """The explainer of a gallery or a model, at that layer where it has one to choose."""
    options = row.defaults()
    chosen = dict(SMALL.get(row.cls, {}))
    if "layer" in options and row.needs != "a head that folds":
        chosen["layer"] = layer
    if options.get("threshold") is MISSING:
        chosen["threshold"] = 0.2
    return row.load()(subject, **chosen)
