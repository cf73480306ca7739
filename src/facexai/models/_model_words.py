"""A FaceModel in words, as results record it."""

from __future__ import annotations

from typing import Any

from facexai.models._row_mixing import known_to_mix
from facexai.models.blackbox import BlackBox
from facexai.models.engines import engine_of
from facexai.models.outputs import named


def in_words(model: Any) -> str:
    """Returns the network of a FaceModel, its input and every option that changes a number, with the fingerprint."""
    options = (("flip", model.flip), ("take", named(model.took)))
    extra = "".join(f", {name}={value!r}" for name, value in options if value is not None)
    extra += ", centred" if model.center is not None else ""
    extra += ", images one at a time" if known_to_mix(model.core) else ""
    engine = engine_of(model.core)
    extra += "" if engine is None else f", engine={str(engine)!r}"
    what = repr(model.core) if isinstance(model.core, BlackBox) else type(model.core).__name__
    return f"FaceModel({what}, {model.spec!r}{extra}, fingerprint={model.fingerprint!r})"
