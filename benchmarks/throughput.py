"""What runs over data sets cost beyond the network: images per second, ranks, memory."""

from __future__ import annotations

import csv
import importlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import arguments, faces, networks, people, report

from facexai import FaceModel, images

ENROLLED, BATCH, SHARD = 2, 16, 1
ENDS = ("after a tenth", "at the end")
PASSES = 7  # CAM's observation, the photo as it is, the marked area, four controls


def bare(model: FaceModel, pixels: torch.Tensor) -> float:
    """Seconds for the forward passes that deletion with all controls needs, and nothing else."""
    start = time.perf_counter()
    with torch.inference_mode():
        for _ in range(PASSES):
            for part in torch.split(pixels, BATCH):
                model.outputs(part)
    return time.perf_counter() - start


def alone(network: str, photos: int, ready: Any, taken: Any) -> None:
    """One of several processes that do bare passes at the same time."""
    torch.set_num_threads(1)
    model = getattr(importlib.import_module("networks"), network)()
    pixels = torch.rand(photos, 3, *model.spec.size)
    bare(model, pixels[:BATCH])
    ready.wait()
    taken.put(bare(model, pixels))


def together(network: str, photos: int, processes: int) -> float:
    """Seconds for bare passes over the photos, shared by processes: what the machine can give ranks."""
    context = multiprocessing.get_context("spawn")
    ready, taken = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=alone, args=(network, photos // processes, ready, taken)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    seconds = [taken.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return max(seconds)


def command(data: Path, out: Path, network: str, ranks: int) -> list[str]:
    """``facexai evaluate`` with one torch thread per worker."""
    launcher = ["-m", "facexai"]
    if ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *launcher]
    options = {"data": data, "out": out, "model": network, "explainer": "cam", "metric": "deletion", "enrol": ENROLLED}
    options |= {"align": "never", "micro-batch": BATCH, "shard": SHARD, "threads": 1, "readers": 1}
    return [sys.executable, *launcher, "evaluate", *(str(w) for name, v in options.items() for w in (f"--{name}", v))]


def seconds(data: Path, out: Path, network: str, ranks: int) -> tuple[float, float]:
    """Of a run, and of starting it again when nothing is left to do: loading the network, reading lists, tables."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    shutil.rmtree(out, ignore_errors=True)
    found = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command(data, out, network, ranks), env=environment, check=True, capture_output=True)
        found.append(time.perf_counter() - start)
    return found[0], found[1]


def speed(network: str, model: FaceModel, options: Any, folder: Path) -> dict[str, Any]:
    """Bare passes, one process and two ranks take turns."""
    photos = people(options.faces)
    each = ENROLLED + options.probes
    for name, paths in photos.items():
        (folder / "faces" / name).mkdir(parents=True)
        for path in paths[:each]:
            images.save(faces([path], model)[0], folder / "faces" / name / f"{path.stem}.png")
    chosen = [path for paths in photos.values() for path in paths[ENROLLED:each]]
    pixels = torch.cat([faces(chosen[at : at + 64], model) for at in range(0, len(chosen), 64)])
    enrolment = ENROLLED * len(photos) / (PASSES * len(pixels))
    rounds: dict[str, list[float]] = {
        "bare": [],
        "bare, two at once": [],
        "one process": [],
        "two ranks": [],
        "idle": [],
    }
    name = network.partition(":")[2]
    for k in range(options.rounds):
        rounds["bare"].append(together(name, len(pixels), 1) * (1 + enrolment))
        rounds["bare, two at once"].append(together(name, len(pixels), 2) * (1 + enrolment))
        for kind, ranks in (("one process", 1), ("two ranks", 2)):
            whole, idle = seconds(folder / "faces", folder / "out", network, ranks)
            rounds[kind].append(whole - idle)
            rounds["idle"].append(idle)
        print(
            f"round {k + 1}: " + ", ".join(f"{kind} {values[-1]:.1f} s" for kind, values in rounds.items()), flush=True
        )

    def ratio(above: str, below: str) -> float:
        return statistics.median(a / b for a, b in zip(rounds[above], rounds[below], strict=True))

    middle = {kind: statistics.median(values) for kind, values in rounds.items()}
    return {
        "network": name,
        "photos": len(pixels),
        "forward passes per photo": PASSES,
        "photos per second, one process": len(pixels) / middle["one process"],
        "of bare forward passes": ratio("one process", "bare"),
        "two ranks, times faster": ratio("one process", "two ranks"),
        "two bare processes, times faster": ratio("bare", "bare, two at once"),
        "seconds to start and to finish": middle["idle"],
    }


WATCHED = """
import json, os, sys
from pathlib import Path

from facexai import evaluate
from facexai.evaluate import engine
import throughput

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

seen, note = [], engine.note_time
def watched(folder, rank, shards, shard, seconds):
    seen.append([shards.stage.name, shards.items(shard).stop, round(resident(), 1)])
    note(folder, rank, shards, shard, seconds)
engine.note_time = watched
config = evaluate.Config(sys.argv[1], images=sys.argv[2], gallery=sys.argv[3], explainers=("cam",),
                         metrics=("deletion",), align="never", scale=20.0, shard=16)
evaluate.run(config, sys.argv[4], model=throughput.tiny(), threads=1)
seen.append(["results", 0, round(resident(), 1)])
print(json.dumps(seen))
"""


def tiny() -> FaceModel:
    """A small network, so that what is measured is the run and not the network."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 8 * 8, 16)
    )
    from facexai import InputSpec

    return FaceModel(net.eval(), InputSpec(32))


def memory(options: Any, folder: Path) -> dict[str, Any]:
    """Resident memory while 10,000 photos go by: a few photos under many names, a tiny network."""
    for name in ("a", "b", "c"):
        (folder / "gallery" / name).mkdir(parents=True)
        for k in range(2):
            images.save(torch.rand(3, 32, 32), folder / "gallery" / name / f"{k}.png")
    (folder / "many").mkdir()
    with (folder / "many.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "identity"])
        for k in range(options.items):
            person = "abc"[k % 3]
            os.link(folder / "gallery" / person / f"{k % 2}.png", folder / "many" / f"{k}.png")
            table.writerow([f"{k}.png", person])
    given = [folder / "many.csv", folder / "many", folder / "gallery", folder / "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *(str(path.absolute()) for path in given)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    row: dict[str, Any] = {"items": options.items}
    for stage in ("maps", "measure"):
        marks = [(stop, mib) for name, stop, mib in seen if name == stage]
        tenth = next(mib for stop, mib in marks if stop >= options.items / 10)
        row |= {f"{stage}: MiB {when}": mib for when, mib in zip(ENDS, (tenth, marks[-1][1]), strict=True)}
    return row | {"MiB with the results": seen[-1][2]}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--probes", type=int, default=12, help="photos of each person that are measured; default: 12")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, default=10_000, help="photos of the memory test; default: 10,000")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, model in networks(options).items():
        source = f"networks:{name}"
        with tempfile.TemporaryDirectory() as folder:
            rows.append(speed(source, model, options, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        held = memory(options, Path(folder))
    maps, last = ([held[f"{stage}: MiB {when}"] for when in ENDS] for stage in ("maps", "measure"))
    said = [
        f"Over {held['items']:,} photos the resident memory goes from {maps[0]:.0f} MiB (after a tenth of the maps) to "
        f"{maps[1]:.0f} MiB, and from {last[0]:.0f} to {last[1]:.0f} MiB while they are measured; "
        f"{held['MiB with the results']:.0f} MiB when the results are put together."
    ]
    print(json.dumps(held))
    report(options, rows, "scipy", sentences=said, memory=held)


if __name__ == "__main__":
    main()
