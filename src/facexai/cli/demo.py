"""``facexai demo``: the demonstration."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    demo = commands.add_parser("demo", help="one picture passes as two people: figures and numbers, offline")
    demo.add_argument("--out", type=Path, required=True, help="folder for figures and demo.json")
    demo.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import demo
    from facexai._progress import tqdm

    with tqdm(total=8, desc="demo", disable=None, file=sys.stderr) as progress:

        def say(step: str) -> None:
            progress.set_postfix_str(step)
            progress.update()

        report = demo.run(options.out, say=say)
    for sentence in report["sentences"]:
        print(sentence)
    print(f"Figures and numbers: {options.out} ({report['seconds']} s)")
    return 0
