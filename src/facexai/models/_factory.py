"""Making what a user named as ``package.module:factory``."""

from __future__ import annotations

import json
from importlib import import_module

from facexai._errors import short_repr, truncate


def call_factory(source: str) -> object:
    """Imports ``package.module`` and calls ``factory()``; its keyword arguments may follow as a JSON object.

    Raises:
        ValueError: not of that form, or whatever the module or the function raised, with its type.

    >>> call_factory('builtins:dict?{"depth": 50}')
    {'depth': 50}
    """
    path, _, options = source.partition("?")
    module, _, factory = path.partition(":")
    if not module or not factory or module.startswith("."):
        raise ValueError(f"expected 'package.module:factory', got {short_repr(source)}")
    try:
        keywords = json.loads(options or "{}")
    except (ValueError, RecursionError):
        keywords = None
    if not isinstance(keywords, dict):
        raise ValueError(f"expected keyword arguments as a JSON object after '?', got {short_repr(options)}")
    try:
        result: object = getattr(import_module(module), factory)(**keywords)
    except (Exception, SystemExit) as error:  # whatever the user's module or function raises, scripts that end included
        told = f"{type(error).__name__}: {truncate(error)}"
        raise ValueError(f"cannot make {short_repr(source)}: {told}") from error
    return result
