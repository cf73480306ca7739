"""Does the audit tell a shortcut? Classifiers of drawn smiles that hang on glasses more and more, over seeds."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import arguments, report

from facexai.demo import synthetic_networks

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "studies"))
import shortcut_study

KEYS = ("edited", "glasses with smiles")
MEANS = (
    "accuracy",
    "accuracy where they disagree",
    "MAD",
    "no-op MAD",
    "MAD, drawn again",
    "with minus without",
    "flipped",
    "flips confirmed",
    "pixels free",
)


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds: means, the range of the MAD, and its least certain excess over the control."""
    made = []
    for key in dict.fromkeys(tuple(row[name] for name in KEYS) for row in rows):
        some = [row for row in rows if tuple(row[name] for name in KEYS) == key]
        mads = [row["MAD"] for row in some]
        made.append(
            dict(zip(KEYS, key, strict=True))
            | {name: mean([row[name] for row in some]) for name in MEANS}
            | {"MAD, seeds": f"{min(mads):.3f} to {max(mads):.3f}"}
            | {"largest p beyond no-op": max(row["p beyond no-op"] for row in some)}
        )
    return made


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--count", type=int, default=100, help="faces to edit for each seed")
    parser.add_argument("--work", type=Path, help="folder for classifiers and pictures, where a broken run goes on")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for seed in range(options.seeds):
            out = (options.work or Path(temporary)) / str(seed)
            out.mkdir(parents=True, exist_ok=True)
            rows += shortcut_study.study(out, synthetic_networks.denoiser(), count=options.count, seed=seed)
    settings = {"seeds": options.seeds, "faces_per_seed": options.count, "per_seed": rows}
    report(options, summary(rows), "diffusers", **settings)


if __name__ == "__main__":
    main()
