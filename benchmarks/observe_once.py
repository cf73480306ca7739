"""Five class maps of a face: what does each library's way cost, measured in the network's own forward pass?

Every contestant gives the maps of five classes for one batch. captum runs the network again for each class. torchcam
keeps the graph when told to, so it is called that way, once per class. facexai observes once; CAM, where the head
is affine, answers all classes without a backward pass.
"""

from __future__ import annotations

import copy
import warnings

import torch
from captum.attr import LayerGradCam
from common import arguments, interleaved, networks, report
from torch import nn
from torchcam.methods import GradCAM as TorchCAM

from facexai import CAM, SDD, FaceXAIWarning, GradCAM, HiResCAM

CLASSES = 5


class Whole(nn.Module):
    """A gallery as one network from prepared images to logits, as the peers want it."""

    def __init__(self, people) -> None:
        super().__init__()
        self.people, self.net = people, copy.deepcopy(people.model.net)

    def forward(self, x):
        return self.people.score(self.people.model.features(self.net(x)), detach_norm=False)


def contestants(people, images):
    """The tasks, by name; each returns five maps per image."""
    layer = people.model.layer("auto")
    whole = Whole(people).eval()
    prepared = people.model.spec.prepare(images)
    captum = LayerGradCam(whole, whole.net.get_submodule(layer))
    columns = [torch.full((len(images), 1), k) for k in range(CLASSES)]
    classes = torch.cat(columns, 1)

    def forward():
        with torch.no_grad():
            return whole.net(prepared)

    def by_captum():
        return [captum.attribute(prepared, target=k, relu_attributions=True) for k in range(CLASSES)]

    def by_torchcam():
        with TorchCAM(whole, f"net.{layer}") as extractor:
            scores = whole(prepared)
            return [extractor(k, scores, retain_graph=True, normalized=False)[0] for k in range(CLASSES)]

    def ours(explainer):
        return lambda: explainer.class_maps(explainer.observe(images), classes)

    return {
        "one forward pass": forward,
        "captum Grad-CAM": by_captum,
        "torchcam Grad-CAM": by_torchcam,
        "facexai Grad-CAM": ours(GradCAM(people, layer=layer, similarity="cosine")),
        "facexai HiResCAM": ours(HiResCAM(people, layer=layer)),
        "facexai CAM": ours(CAM(people)),
        "facexai SDD(CAM)": lambda: SDD(CAM(people), rivals=CLASSES - 1)(images).cells,
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, action="append", help="images at a time; default: 1 and 16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    rows = []
    for name, model in networks(options).items():
        for batch in options.batch or (1, 16):
            torch.manual_seed(0)
            images = torch.rand(batch, 3, *model.spec.height_width)
            size = model.embed(images[:1]).shape[1]
            people = model.gallery({f"p{k}": row for k, row in enumerate(torch.randn(CLASSES, size))})
            tasks = contestants(people, images)
            ours, theirs = tasks["facexai Grad-CAM"]()[:, 0], tasks["captum Grad-CAM"]()[0][:, 0].detach()
            apart = (ours.clamp(min=0) - theirs).abs().max() / ours.abs().max()  # captum keeps the positive part
            assert apart < 1e-3, f"facexai and captum disagree by {apart:.1e} of the largest value"
            seconds = interleaved(tasks, rounds=options.rounds)
            base = seconds["one forward pass"]
            for task, value in seconds.items():
                row = {"network": name, "batch": batch, "task": task, "ms": 1000 * value}
                rows.append(row | {"in forward passes": value / base})
    report(options, rows, "captum", "torchcam", rounds=options.rounds, classes=CLASSES)


if __name__ == "__main__":
    main()
