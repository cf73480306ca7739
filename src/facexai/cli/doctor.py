"""``facexai doctor``: is this network wrapped rightly, and which explanations can it have?"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from facexai.cli.shared import align_argument, model, model_argument


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    doctor = commands.add_parser("doctor", help="is a network wrapped rightly, and what can be explained with it?")
    model_argument(doctor)
    doctor.add_argument(
        "--faces", type=Path, help="folder with one sub-folder of photos per person: checks how the input is prepared"
    )
    doctor.add_argument(
        "--reference",
        help="with --faces: a network that is known to recognise people, to compare with; as for --model",
    )
    doctor.add_argument("--photos", type=int, default=4, help="photos of each person that are used; default: 4")
    align_argument(doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    doctor.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai.models import doctor

    if options.photos < 1:
        raise ValueError(f"expected --photos of at least 1, got {options.photos}")
    if options.reference is not None and options.faces is None:
        raise ValueError("--reference is compared on labelled faces; pass --faces DIR, too")
    reference = None if options.reference is None else model(options.reference)
    report = doctor(model(options.model), options.faces, align=options.align, most=options.photos, reference=reference)
    print(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) if options.json else report)
    return 0 if report.ok else 1
