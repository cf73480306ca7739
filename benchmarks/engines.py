"""Engines: what do forward passes and explainers cost on a copy that another engine runs, and how near are they?

    python benchmarks/engines.py --threads 1 [--network FILE:FUNCTION] [--json OUT]

``ratio`` of a bare forward pass is its time on the copy over that of eager PyTorch on the user's own network.
Score-CAM stands over torchcam on the user's own network at its best batch size; SDD of five classes over five runs of
that; CorrRISE, an exact frequency plot and deletion with all controls over ours on the user's own network without a
copy. The contestants take turns. ``agreement`` is the smallest cosine of an embedding for passes, the correlation of
maps with those of torch in float32 for explainers, and the largest change in percentage points for deletion.
"""

from __future__ import annotations

import time
import warnings

import torch
from common import arguments, interleaved, networks, report
from scorecam import BATCHES, CLASSES, bare_short, torchcam

from facexai import SDD, CorrRISE, FaceXAIWarning, FrequencyHeatPlot, HiResCAM, ScoreCAM, metrics
from facexai.models import Acceleration, acceleration

VARIANTS = (("torch", None), ("openvino", None), ("onnxruntime", None), ("torch", "bf16"), ("openvino", "bf16"))
BATCH = 16


def correlation(maps, expected) -> float:
    """Returns Pearson's correlation over all values."""
    return float(torch.corrcoef(torch.stack([maps.flatten().double(), expected.flatten().double()]))[0, 1])


def copies(people, images) -> dict[str, tuple[Acceleration, float]]:
    """Returns, by name, the copies that hold, each with the seconds that making it took."""
    found = {}
    for engine, precision in VARIANTS:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FaceXAIWarning)
            done = acceleration(people, images, batch_size=BATCH, engine=engine, precision=precision)
        if (done.engine, done.precision) == (engine, precision):
            found["torch" if done.kept == done.layout else done.kept] = done, time.perf_counter() - start
        else:
            print(f"{engine} {precision}: {done.rejected}", flush=True)
    return found


def passes(people, fast, images, rounds):
    """Returns rows of the bare forward pass."""
    one = {"eager": people} | {name: done.model for name, (done, _) in fast.items()}

    def task(classifier):
        def run():
            with torch.no_grad():
                classifier.model.outputs(images)

        return run

    seconds = interleaved({name: task(classifier) for name, classifier in one.items()}, rounds=rounds)
    for name, (done, made) in fast.items():
        numbers = {"s": seconds[name], "ratio": seconds[name] / seconds["eager"], "agreement": done.cosine}
        yield {
            "task": "forward pass",
            "engine": name,
            **numbers,
            "score change": done.score_change,
            "copy made in s": made,
        }


def maps_of(people, fast, images, rounds):
    """Returns rows of Score-CAM and SDD, beside torchcam on the user's own network."""
    model = people.model
    layer, prepared = model.layer("auto"), model.spec.prepare(images[:1])
    best = min(BATCHES, key=lambda b: interleaved({"x": bare_short(people, model, b)}, rounds=3)["x"] / b)

    def one(classifier):
        return lambda: ScoreCAM(classifier, layer=layer, convention="torchcam", relu=False)(images[:1], 0).cells

    def five(classifier):
        base = ScoreCAM(classifier, layer=layer, convention="torchcam")
        return lambda: SDD(base, rivals=CLASSES - 1)(images[:1]).cells

    tasks = {"torchcam": torchcam(people, layer, prepared, best), "own": one(people)}
    tasks |= {f"one {name}": one(done.model) for name, (done, _) in fast.items()}
    tasks |= {f"five {name}": five(done.model) for name, (done, _) in fast.items()}
    seconds, expected, whole = interleaved(tasks, rounds=rounds), one(people)(), five(people)()
    for name, (done, _) in fast.items():
        for task, times, reference in (("one", 1, expected), ("five", CLASSES, whole)):
            spent = seconds[f"{task} {name}"]
            yield {
                "task": "Score-CAM over torchcam" if task == "one" else "SDD of five over five runs of torchcam",
                "engine": name,
                "s": spent,
                "ratio": spent / (times * seconds["torchcam"]),
                "agreement": correlation((one if task == "one" else five)(done.model)(), reference),
            }


def others(people, fast, images, rounds):
    """Returns rows of CorrRISE, an exact frequency plot and deletion, beside the same on the user's own network."""
    saliency = HiResCAM(people)(images)

    def rise(classifier):
        return lambda: CorrRISE(classifier.model)(images[:1], images[1:2]).maps

    def plot(classifier):
        return lambda: FrequencyHeatPlot(classifier.model, mode="exact")(images[:1], images[1:2]).influence

    def deletion(classifier):
        return lambda: torch.tensor([metrics.deletion(classifier, images, saliency.maps).drop])

    for task, make in (("CorrRISE", rise), ("exact frequency plot", plot), ("deletion with controls", deletion)):
        tasks = {"own": make(people)} | {name: make(done.model) for name, (done, _) in fast.items()}
        seconds, expected = interleaved(tasks, rounds=rounds), make(people)()
        for name in fast:
            now = tasks[name]()
            near = float((now - expected).abs().max()) if task.startswith("deletion") else correlation(now, expected)
            spent = seconds[name]
            yield {"task": task, "engine": name, "s": spent, "ratio": spent / seconds["own"], "agreement": near}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=("passes", "maps", "others"), help="default: all three")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    rows = []
    for name, model in networks(options).items():
        images = model.noise(BATCH)
        people = model.gallery({f"person {k}": image[None] for k, image in enumerate(images[:8])}, scale=16.0)
        fast = copies(people, images)
        parts = {"passes": passes, "maps": maps_of, "others": others}
        for part in options.only or parts:
            rounds = 7 if part == "passes" else options.rounds
            for row in parts[part](people, fast, images, rounds):
                rows.append({"network": name, **row})
                print(rows[-1], flush=True)
    columns = ["network", "task", "engine", "s", "ratio", "agreement", "score change", "copy made in s"]
    rows = [{**dict.fromkeys(columns), **row} for row in rows]
    installed = {row["engine"].split()[0] for row in rows} - {"torch"}
    report(options, rows, "torchcam", *sorted(installed), rounds=options.rounds, columns=columns)


if __name__ == "__main__":
    main()
