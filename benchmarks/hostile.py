"""Hostile input: malformed files for every reader of the library, and whether each survives them.

The generators and readers are those of ``tests/hostile.py`` and ``tests/hostile_readers.py``, with fixed seeds. An
input is survived if the reader gives a whole answer or one clear error of a documented type, in bounded time and
memory, runs nothing that the input asks for and leaves no file behind.
"""

from __future__ import annotations

import faulthandler
import sys
import tempfile
from pathlib import Path

import torch
from common import arguments, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--inputs", type=int, default=10_000, help="malformed inputs of each reader; default: 10000")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs; default: 0")
    parser.add_argument("--only", help="readers whose name has this in it")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from hostile import tried
    from hostile_readers import FAMILIES

    rows, broken = [], []
    for make in FAMILIES.values():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for reader in make(folder):
                if options.only and options.only not in reader.name:
                    continue
                faulthandler.dump_traceback_later(3600, exit=True)  # a hang that no signal ends
                tally = tried(reader, options.inputs, folder, options.seed)
                rows.append(tally.row())
                broken += [(reader.name, why, data) for why, data in tally.broken]
                print(rows[-1], *(f"\n  {why:.200} {data[:60]!r}" for why, data in tally.broken[:5]), flush=True)
    faulthandler.cancel_dump_traceback_later()
    total = sum(row["inputs"] for row in rows)
    sentences = [
        f"{total:,} malformed inputs for {len(rows)} readers: {sum(row['answers'] for row in rows):,} whole answers, "
        f"{sum(sum(t.values()) for t in [_errors(row) for row in rows]):,} clear errors of documented types, "
        f"{len(broken)} others.",
        f"Executed: {sum(row['executed'] for row in rows)}; hung: {sum(row['hung'] for row in rows)}; files left: "
        f"{sum(row['files left'] for row in rows)}.",
    ]
    shown = [name for name in rows[0] if name != "contract broken"]
    packages = ("pillow", "safetensors", "diffusers")
    report(options, rows, *packages, columns=shown, sentences=sentences, inputs=options.inputs, seed=options.seed)
    sys.exit(1 if broken else 0)


def _errors(row: dict) -> dict[str, int]:
    """Errors by type, from the text of a row."""
    parts = (part.rsplit(" ", 1) for part in row["errors by type"].split(", ") if part)
    return {name: int(count) for name, count in parts}


if __name__ == "__main__":
    main()
