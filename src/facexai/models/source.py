"""Making what a user named as ``package.module:factory``."""

from __future__ import annotations

from importlib import import_module


def call_factory(source: str) -> object:
    """Import ``package.module`` and call ``factory()``.

    Raises:
        ValueError: not of that form, or whatever the module or the function raised, with its type.

    >>> call_factory("builtins:dict")
    {}
    """
    module, _, factory = source.partition(":")
    if not module or not factory or module.startswith("."):
        raise ValueError(f"expected 'package.module:factory', got {source!r}")
    try:
        made: object = getattr(import_module(module), factory)()
    except Exception as error:  # whatever the user's module or function raises
        raise ValueError(f"cannot make {source!r}: {type(error).__name__}: {error}") from error
    return made
