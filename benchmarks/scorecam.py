"""Score-CAM: what does it cost over the bare forward passes of the same number of images, ours and the peers'?

One forward pass for each channel is the least that Score-CAM can cost; everything else is overhead. Ours runs on the
network as it came and on its verified faster copy; torchcam at the best of several batch sizes on both. All compute
the same maps (``convention="torchcam"``), which is checked. Five classes: SDD over Score-CAM against five runs of each
peer, whose time is taken as five times one run. ``--grad-cam`` adds pytorch-grad-cam where it is installed.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from class_maps import Whole, extra_memory
from common import arguments, interleaved, networks, report
from torchcam.methods import ScoreCAM as TorchScoreCAM

from facexai import SDD, FaceXAIWarning, ScoreCAM
from facexai.explainers._masked_forward import chunk_size
from facexai.functional import minmax, upsample
from facexai.models import accelerate

CLASSES = 5
BATCHES = (8, 16, 32)


def layer_of(model, deep):
    """The default layer, or the deepest map of 7x7 cells that nothing gets past: fewer cells, more channels."""
    if not deep:
        return model.layer("auto")
    small = [n for n, (_, h, w) in model.layers.items() if (h, w) == (7, 7) and n not in model.head.names]
    return next(name for name in reversed(small) if model.structure.decides(name))


def torchcam(people, layer, prepared, batch):
    """A task that gives torchcam's map of class 0."""
    whole = Whole(people).eval()

    def run():
        with TorchScoreCAM(whole, f"net.{layer}", batch_size=batch) as extractor, torch.no_grad():
            extractor._relu = False  # with random weights the positive part of a map can be empty
            scores = whole(prepared)
            return extractor(0, scores, normalized=False)[0]

    return run


def grad_cam(people, layer, prepared):
    """A task that gives pytorch-grad-cam's map of class 0, or None where it is not installed."""
    if find_spec("pytorch_grad_cam") is None:
        return None
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import torchvision_ops

    torchvision_ops.declare()
    from pytorch_grad_cam import ScoreCAM as TheirScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    whole = Whole(people).eval()
    targets = [ClassifierOutputTarget(0)] * len(prepared)

    def run():
        with TheirScoreCAM(whole, [whole.net.get_submodule(layer)]) as cam:
            return cam(prepared, targets)

    return run


def measure(name, people, layer, images, options):
    """Rows of one network, one layer, one batch of photos."""
    model = people.model
    fast = accelerate(people, batch_size=chunk_size(model, "auto")) if options.fast else None
    for one in filter(None, (people, fast)):
        one.model.layer("auto")  # the first look at a network is not what is measured
    prepared = model.spec.prepare(images)
    masks = len(images) * model.layers[layer][0]

    def bare(one, size):
        batch = model.noise(size)

        def run():
            with torch.no_grad():
                for at in range(0, masks, size):
                    one.model.outputs(batch[: min(size, masks - at)])

        return run

    def ours(one):
        return lambda: (
            ScoreCAM(one, layer=layer, convention="torchcam", relu=False, chunk=options.chunk)(images, 0).cells
        )

    tasks = {}
    known = {"own network": people} | ({"faster copy": fast} if fast is not None else {})
    for place, one in known.items():
        best = min(BATCHES, key=lambda b: interleaved({"x": bare_short(one, model, b)}, rounds=5)["x"] / b)
        tasks[f"bare forward passes, {place}"] = bare(one, best)
        tasks[f"torchcam, {place}"] = torchcam(one, layer, prepared, best)
        tasks[f"facexai, {place}"] = ours(one)
        tasks[f"facexai SDD of five, {place}"] = lambda one=one: (
            SDD(ScoreCAM(one, layer=layer, convention="torchcam", chunk=options.chunk), rivals=CLASSES - 1)(
                images
            ).cells
        )
    theirs = grad_cam(people, layer, prepared) if options.grad_cam else None
    if theirs is not None:
        tasks["pytorch-grad-cam, own network"] = theirs
    seconds, memory, maps = timed(tasks, options.rounds)
    check(maps, people, layer, images)
    shape = "x".join(map(str, model.layers[layer]))
    base = seconds["bare forward passes, own network"]
    row = {"network": name, "layer": layer, "map": shape, "photos": len(images), "masks": masks}
    return [row | {"task": t, "s": s, "in bare passes": s / base, "extra MiB": memory[t]} for t, s in seconds.items()]


def timed(tasks, rounds):
    """Median seconds, MiB by which the process grew at most, and the last result of each task; they take turns."""
    seconds, memory, results = {name: [] for name in tasks}, {}, {}
    for _ in range(rounds):
        for name, task in tasks.items():

            def run(name=name, task=task):
                start = time.perf_counter()
                results[name] = task()
                seconds[name].append(time.perf_counter() - start)

            memory[name] = extra_memory(run)
    return {name: statistics.median(values) for name, values in seconds.items()}, memory, results


def check(maps, people, layer, images) -> None:
    """The contestants compute the same map."""
    ours, theirs = maps["facexai, own network"], maps["torchcam, own network"]
    apart = float((ours - theirs).abs().max() / ours.abs().max())
    assert apart < 1e-3, f"facexai and torchcam are {apart:.1e} of the largest value apart"
    if "pytorch-grad-cam, own network" in maps:
        low = minmax(ScoreCAM(people, layer=layer, convention="pytorch-grad-cam")(images, 0).cells)
        theirs = torch.from_numpy(maps["pytorch-grad-cam, own network"])
        apart = float((minmax(upsample(low, people.model.spec.height_width)) - theirs).abs().max())
        assert apart < 1e-3, f"facexai and pytorch-grad-cam are {apart:.1e} apart"


def many(name, people, layer, photos, keep):
    """The row of many photos: time and memory of ours alone, with the channels that matter."""
    explainer = ScoreCAM(people, layer=layer, keep=keep)
    images = people.model.noise(photos)
    seconds, memory, _ = timed({"facexai": lambda: explainer(images, 0).cells}, 1)
    shape = "x".join(map(str, people.model.layers[layer]))
    task = f"facexai, own network, keep={keep}"
    row = {"network": name, "layer": layer, "map": shape, "photos": photos, "masks": photos * keep, "task": task}
    return row | {"s": seconds["facexai"], "in bare passes": None, "extra MiB": memory["facexai"]}


def bare_short(one, model, size):
    batch = model.noise(size)

    def run():
        with torch.no_grad():
            one.model.outputs(batch)

    return run


def sentences(rows):
    """The ratios that matter, from the rows."""
    told = []
    for key in dict.fromkeys((r["network"], r["map"], r["photos"]) for r in rows if "keep" not in r["task"]):
        s = {r["task"]: r["s"] for r in rows if (r["network"], r["map"], r["photos"]) == key}
        ratios = {"facexai to torchcam, own network": s["facexai, own network"] / s["torchcam, own network"]}
        place = "faster copy" if "facexai, faster copy" in s else "own network"
        ratios["facexai on the faster copy to torchcam on the own network"] = (
            s[f"facexai, {place}"] / s["torchcam, own network"]
        )
        ratios["both on the copy"] = s[f"facexai, {place}"] / s[f"torchcam, {place}"]
        ratios["facexai to bare passes of the copy"] = s[f"facexai, {place}"] / s[f"bare forward passes, {place}"]
        ratios["five runs of torchcam to SDD of five"] = (
            5 * s["torchcam, own network"] / s[f"facexai SDD of five, {place}"]
        )
        if "pytorch-grad-cam, own network" in s:
            ratios["five runs of pytorch-grad-cam to SDD of five"] = (
                5 * s["pytorch-grad-cam, own network"] / s[f"facexai SDD of five, {place}"]
            )
        told.append(
            f"{key[0]}, {key[1]}, {key[2]} photos: " + ", ".join(f"{what} {r:.2f}" for what, r in ratios.items())
        )
    return told


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, action="append", help="photos at a time; default: 1")
    parser.add_argument("--many", type=int, help="a row of that many photos and 64 kept channels, ours alone")
    parser.add_argument("--deep", action="store_true", help="the deepest map of 7x7 cells instead of the default")
    parser.add_argument("--chunk", type=int, help="masked images per pass; default: ours")
    parser.add_argument("--no-fast", dest="fast", action="store_false", help="without the faster copy")
    parser.add_argument("--grad-cam", action="store_true", help="pytorch-grad-cam too, where it is installed")
    options = parser.parse_args()
    options.chunk = options.chunk or "auto"
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    rows = []
    for name, model in networks(options).items():
        size = model.embed(model.noise(1)).shape[1]
        torch.manual_seed(0)
        people = model.gallery({f"p{k}": row for k, row in enumerate(torch.randn(CLASSES, size))})
        layer = layer_of(model, options.deep)
        if options.many:  # first, while the process is fresh: its memory is what counts
            rows.append(many(name, people, layer, options.many, 64))
        for photos in options.photos or (1,):
            rows += measure(name, people, layer, model.noise(photos), options)
            write(options, rows)


def write(options, rows) -> None:
    """After every row: a run takes long."""
    peers = ("torchcam", "grad-cam") if options.grad_cam else ("torchcam",)
    report(options, rows, *peers, rounds=options.rounds, sentences=sentences(rows))


if __name__ == "__main__":
    main()
