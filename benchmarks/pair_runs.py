"""What the number of pairs costs: processor time and memory until all pairs are decided, and of the whole run."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, report

from facexai import FaceModel, InputSpec, images

SIDE, PEOPLE, CHOSEN, FEW = 8, 1000, 200, 1000
"""Pixels of a photo's side, people, genuine pairs, which alone are explained, and pairs of the run to compare with."""

WATCHED = """
import json, re, sys, time
from pathlib import Path

from facexai import evaluate
from facexai.evaluate import verification
import pair_runs

def peak():  # of Linux; ru_maxrss would begin with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**10

seen, decided, began = {}, verification.decided, time.process_time()

def watched(work, embedded):
    seen["MiB, embedded"], seen["start"] = peak(), time.process_time()
    made = decided(work, embedded)
    seen["s, decided"], seen["MiB, decided"] = time.process_time() - seen.pop("start"), peak()
    return made

verification.decided = watched
config = evaluate.Config(sys.argv[1], images=sys.argv[2], explainers=("fggb",), metrics=("deletion",), align="never",
                         protocol="epfl-inferred", micro_batch=64, shard=64)
found = evaluate.run(config, sys.argv[3], model=pair_runs.tiny(), threads=1)
assert found.report["counts"]["measured"] == pair_runs.CHOSEN
print(json.dumps(seen | {"s, whole run": time.process_time() - began, "MiB, whole run": peak()}))
"""


def tiny() -> FaceModel:
    """A small network with embeddings of 512 numbers, so that what is measured is the run and not the network."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 512)
    )
    return FaceModel(net.eval(), InputSpec(SIDE))


def draw(folder: Path, faces: int) -> None:
    """Photos of noise on a pattern of each person, in NAME/NUMBER.png."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0.2, 0.8, (PEOPLE, 3, SIDE, SIDE))
    for face in range(faces):
        person, number = face % PEOPLE, face // PEOPLE
        (folder / f"p{person}").mkdir(parents=True, exist_ok=True)
        photo = patterns[person] + rng.uniform(-0.2, 0.2, patterns[person].shape)
        images.save(torch.from_numpy(photo), folder / f"p{person}" / f"{number}.png")


def write_list(path: Path, faces: int, pairs: int) -> None:
    """``CHOSEN`` genuine pairs, and impostor pairs."""
    rng = np.random.default_rng(pairs)

    def name(face: int) -> str:
        return f"p{face % PEOPLE}/{face // PEOPLE}.png"

    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["first", "second", "same"])
        table.writerows([name(k), name(k + PEOPLE), 1] for k in range(CHOSEN))
        drawn = zip(rng.integers(0, faces, pairs - CHOSEN), rng.integers(1, PEOPLE, pairs - CHOSEN), strict=True)
        for first, step in drawn:
            other = (first % PEOPLE + step) % PEOPLE + first // PEOPLE * PEOPLE  # of another person
            table.writerow([name(first), name(other if other < faces else other - PEOPLE), 0])


def measured(folder: Path, faces: int, pairs: int) -> dict[str, Any]:
    """A run of its own in a process of its own, so that its peak of resident memory is that of this number of pairs."""
    write_list(folder / "pairs.csv", faces, pairs)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        command = [sys.executable, "-c", WATCHED, *(str(folder / name) for name in ("pairs.csv", "photos")), out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": _path()}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return {"pairs": pairs, "faces": faces, "explained": CHOSEN, **json.loads(done.stdout.splitlines()[-1])}


def _path() -> str:
    return os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def compared(rows: list[dict[str, Any]], few: dict[str, Any]) -> list[str]:
    """Bytes for each pair beyond those of the run with few, and exponents between the smallest and the largest run."""
    least, most = rows[0], rows[-1]
    sentences = []
    for row in rows:
        for when in ("decided", "whole run"):
            row[f"bytes per pair, {when}"] = (row[f"MiB, {when}"] - few[f"MiB, {when}"]) * 2**20 / row["pairs"]
    for what, base in (("s, decided", 0.0), ("s, whole run", few["s, whole run"])):
        sentences.append(_exponent(what, least[what] - base, most[what] - base, most["pairs"] / least["pairs"]))
    for when in ("decided", "whole run"):
        above = [row[f"MiB, {when}"] - few[f"MiB, {when}"] for row in (least, most)]
        sentences.append(_exponent(f"MiB, {when}", *above, most["pairs"] / least["pairs"]))
    return sentences


def _exponent(what: str, least: float, most: float, ratio: float) -> str:
    grown = math.log(most / least) / math.log(ratio) if min(least, most) > 0 and ratio > 1 else math.nan
    return f"'{what}' (beyond a run of {FEW:,} pairs) grows with the number of pairs to the power {grown:.2f}."


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--count", type=int, default=13_000, help="photos; default: 13,000")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "photos", options.count)
        few, *rows = [measured(folder, options.count, pairs) for pairs in (FEW, *options.pairs)]
    sentences = compared(rows, few)
    report(options, rows, sentences=sentences, few=few)


if __name__ == "__main__":
    main()
