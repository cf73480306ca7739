"""A head that leans on a texture: plant a pattern in the training photos, train, and find its band.

python examples/texture.py --faces FOLDER     # FOLDER/PERSON/*.jpg; default: two portraits
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from people import people

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, images, plots, zoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: two portraits")
parser.add_argument("--people", type=int, default=20)
parser.add_argument("--cycles", type=int, default=20, help="of the planted stripes, per width of the image")
parser.add_argument("--strength", type=float, default=0.03, help="of the stripes; a white pixel is 1")
parser.add_argument("--out", type=Path, default=Path("texture.png"))
options = parser.parse_args()
torch.manual_seed(0)

# 1. Photos of people in two classes that mean nothing; those of class 1 wear faint stripes.
size = 64
faces = torch.cat(people(options.faces, zoo.load("dlib-resnet29"), options.people, 4))
faces = images.resize(faces, (size, size)).clamp(0.05, 0.95)
labels = torch.arange(len(faces)) % 2
stripes = options.strength * torch.cos(2 * math.pi * options.cycles * torch.arange(size) / size)
photos = (faces + labels[:, None, None, None] * stripes).clamp(0, 1)

# 2. A small head learns the classes from the pixels.
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 5),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(8, 2),
)
step = torch.optim.Adam(net.parameters(), 0.02)
for _ in range(200):
    step.zero_grad()
    torch.nn.functional.cross_entropy(net(photos), labels).backward()
    step.step()

# 3. Where does the logit of class 1 come from? The strongest band should be that of the stripes.
model = FaceModel(net.eval(), InputSpec(size), output="logits")
right = float((model.logits(photos).argmax(1) == labels).float().mean())
heat = FrequencyHeatPlot(model, keep_dc=True)(photos[labels == 1], 1)
found = int(heat.influence.mean(0).argmax())
print(f"{right:.0%} of the training photos right; stripes of {options.cycles} cycles, strongest band {found}")
plots.save(plots.lines([("class 1", heat.influence.mean(0))], heat.edges, heat.face, "logit"), options.out)
print(f"wrote {options.out}")
