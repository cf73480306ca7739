"""The public surface as text, one line per name: what a release promises, and the explainers for type checkers.

``python tests/surface.py`` writes both files.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

FILE = Path(__file__).parent / "data" / "surface.txt"
STUB = Path(__file__).parents[1] / "src" / "facexai" / "_explainers.pyi"


def lines() -> list[str]:
    """Python names with signatures and fields, commands with options, and what saved files hold."""
    import facexai

    found = [*_module("facexai", facexai)]
    for name in facexai._MODULES:
        module = import_module(f"facexai.{name}")
        found += _module(f"facexai.{name}", module)
    return sorted(set(found)) + list(_commands()) + list(_files())


def stub() -> str:
    """The explainers of the registry as imports, which type checkers and editors follow."""
    from facexai._registry import EXPLAINERS

    rows = sorted(EXPLAINERS, key=lambda row: row.module)
    imports = [f"from facexai.explainers.{row.module} import {row.cls} as {row.cls}" for row in rows]
    names = [
        f'    "{name}",' for name in sorted((row.cls for row in rows), key=lambda name: (not name.isupper(), name))
    ]
    return "\n".join([*imports, "", "__all__ = [", *names, "]"]) + "\n"


def _module(path: str, module: ModuleType) -> Iterator[str]:
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        home = getattr(value, "__module__", "")
        if inspect.ismodule(value):
            yield f"{path}.{name}: module"
        elif path == "facexai" and home.startswith("facexai."):  # described where it lives
            yield f"{path}.{name}: as in facexai.{home.split('.')[1]}"
            if home.split(".")[1] not in module._MODULES:
                yield from _described(f"{path}.{name}", value)
        else:
            yield from _described(f"{path}.{name}", value)


def _described(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        kind = "protocol" if getattr(value, "_is_protocol", False) else "class"
        yield f"{path}: {kind}{'' if kind == 'protocol' else _signature(value)}"
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield f"{path}.{field.name}: field {field.type}"
        for name, annotation in inspect.get_annotations(value).items():
            if str(annotation).startswith("Final["):
                yield f"{path}.{name}: attribute {annotation}"
        for name, member in vars(value).items():
            if not name.startswith("_") or name == "__call__":
                if isinstance(member, property) or type(member).__name__ == "cached_property":
                    yield f"{path}.{name}: property"
                elif callable(member) or isinstance(member, classmethod | staticmethod):
                    yield f"{path}.{name}: method{_signature(getattr(value, name))}"
    elif get_origin(value) is not None:
        yield f"{path}: alias {value}"
    elif callable(value) and hasattr(value, "__code__"):
        yield f"{path}: function{_signature(value)}"
    else:
        keys = sorted(map(str, value)) if isinstance(value, dict | tuple | frozenset) or hasattr(value, "keys") else []
        yield f"{path}: {type(value).__name__}{' of ' + ', '.join(keys) if keys else ''}"


def _signature(value: Any) -> str:
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(value)))
    except (TypeError, ValueError):
        return "(...)"


def _commands() -> Iterator[str]:
    from facexai import cli

    (commands,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in sorted(commands.choices.items()):
        for action in parser._actions:
            said = ", ".join(action.option_strings) or action.metavar or action.dest
            parts = [f"one of {', '.join(map(str, action.choices))}"] if action.choices else []
            parts += [f"nargs {action.nargs}"] if action.nargs not in (None, 0) else []
            parts += ["required"] if action.required and action.option_strings else []
            plain = action.default is None or isinstance(action.default, str | int | float | bool | tuple | list)
            parts += [f"default {action.default!r}"] if plain and action.default != argparse.SUPPRESS else []
            yield f"$ facexai {name} {said}: {'; '.join(parts)}"


def _files() -> Iterator[str]:
    """What saved answers hold: arrays, manifest and the names in the recipe of every method."""
    from everything import calls, keeping, network

    from facexai import io

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        keeping(network(), Path(folder))
        for file in sorted(Path(folder).glob("*.npz")):
            arrays, manifest = io.load(file)
            yield f"@ {file.name}, format {manifest['format']}: arrays {', '.join(sorted(arrays))}"
            yield f"@ {file.name}, format {manifest['format']}: manifest {', '.join(sorted(manifest))}"
        for name, call in calls(network()).items():
            recipe = getattr(call(), "recipe", None) if "explain_pairs" not in name else None
            if recipe is not None:
                yield f"@ recipe of {name}: {', '.join(sorted(recipe))}"


if __name__ == "__main__":
    STUB.write_text(stub())
    FILE.write_text("\n".join(lines()) + "\n")
    print(f"{STUB} and {FILE}: {len(FILE.read_text().splitlines())} lines", file=sys.stderr)  # noqa: T201
