"""Files of every saved kind, as the build of 30 November 2026 wrote them: ``python tests/old_build.py FOLDER``.

``tests/unit/test_old_files.py`` reads them and completes its runs with the present code. They are not written again: a
new kind of file gets a folder of its own.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from facexai import (
    FGGB,
    SDD,
    XSSAB,
    CorrRISE,
    FaceModel,
    FaceXAIWarning,
    FastDiME,
    FrequencyHeatPlot,
    GradCAM,
    HiResCAM,
    InputSpec,
    PairCAM,
    ScoreCAM,
    decisions,
    evaluate,
    images,
)
from facexai.cli import main as cli
from facexai.denoisers import from_callable
from facexai.functional import linear_alphas

SIDE = 28


def exact(*shape: int) -> Tensor:
    """Numbers from -.5 to .5 that are the same on every machine."""
    count = torch.Size(shape).numel()
    return (((torch.arange(count) * 7919) % 101).double() / 100 - 0.5).float().view(shape)


class Net(nn.Module):
    """7x7 cells of 4 channels, then 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Linear(4 * 49, 8)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(exact(*parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).flatten(1))


def model() -> FaceModel:
    return FaceModel(Net().eval(), InputSpec(SIDE))


def faces() -> Tensor:
    """(12, 3, H, W), of four people in turn, as 8 bits have them."""
    drawn = (torch.arange(12 * 3 * SIDE * SIDE) * 7907 % 251).view(12, 3, SIDE, SIDE)
    pattern = (torch.arange(4 * 3 * SIDE * SIDE) * 104729 % 97).view(4, 3, SIDE, SIDE)
    return (drawn + 1.5 * pattern.repeat(3, 1, 1, 1)).round().clamp(0, 255) / 255


def write_data(folder: Path) -> None:
    """Photos NAME/NUMBER.png, all pairs of them, groups and what an audit is told."""
    for k, face in enumerate(faces()):
        (folder / "photos" / "abcd"[k % 4]).mkdir(parents=True, exist_ok=True)
        images.save(face, folder / "photos" / "abcd"[k % 4] / f"{k // 4}.png")
    names = [f"{'abcd'[k % 4]}/{k // 4}.png" for k in range(12)]
    rows = [(i, j) for i in range(12) for j in range(i)]
    lines = [f"{names[i]},{names[j]},{int((i - j) % 4 == 0)}" for i, j in rows]
    (folder / "pairs.csv").write_text("\n".join(["first,second,same", *lines]) + "\n")
    groups = [f"{name},{'xxyy'[k % 4]},{name[0]}" for k, name in enumerate(names)]
    (folder / "groups.csv").write_text("\n".join(["image,group,identity", *groups]) + "\n")
    settings = ['pairs = "pairs.csv"', 'images = "photos"', 'groups = "groups.csv"', 'model = "old_build:model"']
    (folder / "audit.toml").write_text("\n".join([*settings, 'align = "never"', "width = 4", "draws = 99"]) + "\n")


def configurations() -> dict[str, evaluate.Config]:
    """Of runs over the data, relative to their folder."""
    common = {"align": "never", "micro_batch": 4, "shard": 1}
    scores = ("deletion", "retention", "insertion", "narrowness", "overlap")
    people = {"explainers": ("hirescam", "sdd"), "metrics": scores, "enrol": 1, "scale": 20.0, "steps": 4}
    pairs = {"images": "photos", "explainers": ("paircam",), "limit": 24, "protocol": "epfl-inferred"}
    return {
        "people": evaluate.Config("photos", **people, **common),
        "pairs": evaluate.Config("pairs.csv", **pairs, **common),
    }


COMMANDS = {
    "explained": ["explain", "photos/a/2.png", "--gallery", "photos", "--method", "sdd"],
    "compared": ["compare", "photos/a/2.png", "photos/b/2.png", "--method", "paircam", "--threshold", "0.3"],
    "frequencies": ["frequency", "photos/a/2.png", "photos/b/2.png", "--width", "4"],
    "verified": ["verify", "pairs.csv", "--images", "photos"],
    "audited": ["audit", "audit.toml"],
}
"""Folders, and the commands that wrote them, without what is the same for all."""


def answers() -> dict[str, object]:
    """One answer of every kind that is saved."""
    net, photos = model(), faces()
    people = net.gallery({name: photos[k:8:4] for k, name in enumerate("abcd")}, scale=20.0)
    asked = decisions.verification(net, photos[:1], 0.3)
    levels = linear_alphas(30)
    edit = FastDiME(asked, from_callable(lambda x, t: 0.1 * x, levels), respacing=10, start=4, warmup=2, scales=(8.0,))
    return {
        "hirescam": HiResCAM(people)(photos[8:10]),
        "gradcam": GradCAM(people)(photos[8:10]),
        "sdd": SDD(HiResCAM(people))(photos[8:10]),
        "scorecam": ScoreCAM(people)(photos[8:10]),
        "corrrise": CorrRISE(people, "grid", count=8)(photos[8:10]),
        "paircam": PairCAM(net, threshold=0.3)(photos[8:9], photos[9:10]),
        "fggb": FGGB(net, 0.3)(photos[8:9], photos[9:10]),
        "xssab": XSSAB(net, 0.3)(photos[8:9], photos[9:10]),
        "frequency": FrequencyHeatPlot(people, mode="preview")(photos[8:10]),
        "frequency_pair": FrequencyHeatPlot(net, mode="preview")(photos[8:9], photos[9:10]),
        "counterfactual": edit(photos[8:9]),
    }


def main(folder: Path) -> None:
    (folder / "answers").mkdir(parents=True)
    os.chdir(folder)
    write_data(Path())
    for name, answer in answers().items():
        answer.save(f"answers/{name}.npz")
    for name, arguments in COMMANDS.items():
        align = [] if name == "audited" else ["--align", "never", "--model", "old_build:model"]
        assert cli([*arguments, *align, "--out", name]) == 0
    for name, config in configurations().items():
        evaluate.run(config, name, model=model(), threads=1)
    for picture in set(Path().rglob("*.png")) - set(Path("photos").rglob("*")):  # nothing reads them
        picture.unlink()
    for timings in Path().rglob("timings-*"):
        timings.unlink()


if __name__ == "__main__":
    warnings.simplefilter("ignore", FaceXAIWarning)
    main(Path(sys.argv[1]))
