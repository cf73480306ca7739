"""Making what a user named as ``package.module:factory``."""

from __future__ import annotations

from importlib import import_module

from facexai._messages import clipped, short


def call_factory(source: str) -> object:
    """Import ``package.module`` and call ``factory()``.

    Raises:
        ValueError: not of that form, or whatever the module or the function raised, with its type.

    >>> call_factory("builtins:dict")
    {}
    """
    module, _, factory = source.partition(":")
    if not module or not factory or module.startswith("."):
        raise ValueError(f"expected 'package.module:factory', got {short(source)}")
    try:
        made: object = getattr(import_module(module), factory)()
    except (Exception, SystemExit) as error:  # whatever the user's module or function raises, scripts that end included
        told = f"{type(error).__name__}: {clipped(error)}"
        raise ValueError(f"cannot make {short(source)}: {told}") from error
    return made
