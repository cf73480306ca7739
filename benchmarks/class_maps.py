"""Class maps of five people: what does each library's way cost, in time and in memory, and what is the least possible?

Every contestant gives the maps of five classes for one batch. captum runs the network again for each class. torchcam
keeps the graph when told to, so it is called that way, once per class. facexai observes once; CAM, where the head is
affine, answers all classes without a backward pass. The bound for gradient methods is written out in plain torch: one
forward pass, and five backward passes from the output to the layer.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import re
import warnings
from pathlib import Path

import torch
from captum.attr import LayerGradCam
from common import arguments, interleaved, networks, report
from torch import nn
from torchcam.methods import GradCAM as TorchGradCAM
from torchcam.methods import LayerCAM as TorchLayerCAM

from facexai import CAM, SDD, FaceXAIWarning, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from facexai.hooks import capture

CLASSES = 5


class Whole(nn.Module):
    """A gallery as one network from prepared images to logits, as the peers want it."""

    def __init__(self, people) -> None:
        super().__init__()
        self.people, self.net = people, copy.deepcopy(people.model.net)

    def forward(self, x):
        return self.people.score(self.people.model.features(self.net(x)), detach_norm=False)


def bound(whole, layer, prepared):
    """One forward pass, the graph from the layer on, and one backward pass to the layer for each class."""
    with torch.no_grad(), capture(whole.net, layer, graph="start") as seen:
        logits = whole(prepared)
    with torch.enable_grad():
        return [torch.autograd.grad(logits[:, k].sum(), seen.tensor, retain_graph=True)[0] for k in range(CLASSES)]


def contestants(people, images, layer):
    """The tasks, by name; the maps of each are five per image."""
    whole = Whole(people).eval()
    prepared = people.model.spec.prepare(images)
    captum = LayerGradCam(whole, whole.net.get_submodule(layer))
    classes = torch.arange(CLASSES).expand(len(images), -1)

    def forward():
        with torch.no_grad():
            return whole.net(prepared)

    def by_captum():
        return [captum.attribute(prepared, target=k, relu_attributions=True)[:, 0] for k in range(CLASSES)]

    def by_torchcam(kind):
        def run():
            with kind(whole, f"net.{layer}") as extractor:
                scores = whole(prepared)
                return [extractor(k, scores, retain_graph=True, normalized=False)[0] for k in range(CLASSES)]

        return run

    def ours(explainer):
        return lambda: explainer.class_maps(explainer.observe(images), classes)

    def sdd(base):
        return lambda: SDD(base, rivals=CLASSES - 1)(images).cells

    hires, gradient = HiResCAM(people, layer=layer), {"layer": layer, "similarity": "cosine"}
    return {
        "one forward pass": forward,
        "forward, 5 backward": lambda: bound(whole, layer, prepared),
        "captum Grad-CAM": by_captum,
        "torchcam Grad-CAM": by_torchcam(TorchGradCAM),
        "torchcam LayerCAM": by_torchcam(TorchLayerCAM),
        "facexai Grad-CAM": ours(GradCAM(people, **gradient)),
        "facexai Grad-CAM++": ours(GradCAMPlusPlus(people, **gradient)),
        "facexai LayerCAM": ours(LayerCAM(people, **gradient)),
        "facexai HiResCAM": ours(hires),
        "facexai SDD(HiResCAM)": sdd(hires),
        "facexai CAM": ours(CAM(people)),
        "facexai SDD(CAM)": sdd(CAM(people)),
    }


def check(tasks) -> None:
    """The contestants that are compared compute the same maps."""
    for kind, others in (("Grad-CAM", ("captum", "torchcam")), ("LayerCAM", ("torchcam",))):
        ours = tasks[f"facexai {kind}"]().clamp(min=0)
        for other in others:
            theirs = torch.stack(tasks[f"{other} {kind}"](), 1).detach()
            apart = float((ours - theirs).abs().max() / ours.abs().max())
            assert apart < 1e-3, f"facexai's and {other}'s {kind} are {apart:.1e} of the largest value apart"


def extra_memory(task) -> float | None:
    """MiB that the process grows by at most while the task runs; None where the kernel does not tell."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        before = _status("VmRSS")
    except OSError:
        return None
    kept = task()
    peak = _status("VmHWM")
    del kept
    return (peak - before) / 1024


def _status(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def sentences(rows) -> list[str]:
    """The ratios that matter, from the rows."""
    told = []
    for network, batch in dict.fromkeys((row["network"], row["batch"]) for row in rows):
        ms = {row["task"]: row["ms"] for row in rows if (row["network"], row["batch"]) == (network, batch)}
        ratios = {
            "Grad-CAM to captum's": ms["facexai Grad-CAM"] / ms["captum Grad-CAM"],
            "to torchcam's": ms["facexai Grad-CAM"] / ms["torchcam Grad-CAM"],
            "SDD(CAM) to one forward pass": ms["facexai SDD(CAM)"] / ms["one forward pass"],
            "SDD(HiResCAM) to one forward and five backward passes": ms["facexai SDD(HiResCAM)"]
            / ms["forward, 5 backward"],
        }
        told.append(f"{network}, {batch} images: " + ", ".join(f"{what} {r:.2f}" for what, r in ratios.items()))
    return told


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, action="append", help="images at a time; default: 1 and 16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    rows = []
    for name, model in networks(options).items():
        layer = model.layer("auto")
        for batch in options.batch or (1, 16):
            torch.manual_seed(0)
            images = torch.rand(batch, 3, *model.spec.height_width)
            size = model.embed(images[:1]).shape[1]
            people = model.gallery({f"p{k}": row for k, row in enumerate(torch.randn(CLASSES, size))})
            tasks = contestants(people, images, layer)
            check(tasks)
            seconds = interleaved(tasks, rounds=options.rounds)
            memory = {task: extra_memory(run) for task, run in tasks.items()}
            for task, value in seconds.items():
                row = {"network": name, "layer": layer, "batch": batch, "task": task, "ms": 1000 * value}
                row["in forward passes"] = value / seconds["one forward pass"]
                rows.append(row | {"extra MiB": memory[task]})
    report(options, rows, "captum", "torchcam", rounds=options.rounds, classes=CLASSES, sentences=sentences(rows))


if __name__ == "__main__":
    main()
