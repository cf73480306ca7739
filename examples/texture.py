"""
Does the network lean on a texture?
===================================

Plant a pattern in the training photos, train a small head, and find the pattern in its bands. The default is changed
copies of two portraits in the public domain; what they teach the head is the planted pattern alone.

Your own::

    python examples/texture.py --faces FOLDER     # FOLDER/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, images, plots
from facexai.demo.people import people, portraits

parser = argparse.ArgumentParser(description="Plant a texture in the training photos, and find its band.")
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: copies of two portraits")
parser.add_argument("--people", type=int, default=20)
parser.add_argument("--cycles", type=int, default=20, help="of the planted stripes, per width of the image")
parser.add_argument("--strength", type=float, default=0.03, help="of the stripes; a white pixel is 1")
parser.add_argument("--out", type=Path, default=Path("texture.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line
torch.manual_seed(0)

# %%
# Photos of people in two classes that mean nothing: of four photos of a person the two in the middle are of class 1.
# Those wear faint stripes.
size = 64
crop = InputSpec(112)
everybody = people(options.faces, crop, options.people, 4) if options.faces else portraits(crop)
faces = torch.cat(list(everybody.values()))
faces = images.resize(faces, (size, size)).clamp(0.05, 0.95)
labels = torch.tensor([0, 1, 1, 0]).repeat(len(everybody))
stripes = options.strength * torch.cos(2 * math.pi * options.cycles * torch.arange(size) / size)
photos = (faces + labels[:, None, None, None] * stripes).clamp(0, 1)

# %%
# A small head learns the classes from the pixels.
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

# %%
# Where does the logit of class 1 come from? The strongest band should be that of the stripes.
model = FaceModel(net.eval(), InputSpec(size), output="logits")
right = float((model.logits(photos).argmax(1) == labels).float().mean())
heat = FrequencyHeatPlot(model, keep_dc=True)(photos[labels == 1], 1)
found = int(heat.influence.mean(0).argmax())
print(f"{right:.0%} of the training photos right; stripes of {options.cycles} cycles, strongest band {found}")

# %%
# Left: a photo of each class, and the stripes by themselves, ten times stronger. Right: what the logit loses without
# each band.
figure = plots.figure(11.5, 3.1)
grid = figure.add_gridspec(1, 4, width_ratios=(1, 1, 1, 2.4))
pictures = {"class 0": photos[0], "class 1, with stripes": photos[2]}
pictures[f"the stripes: {options.cycles} cycles"] = 0.5 + 10 * stripes.expand(3, size, size)
for column, (name, picture) in enumerate(pictures.items()):
    axes = figure.add_subplot(grid[0, column])
    plots.photo(axes, picture)
    axes.set_title(name, fontsize=10)
axes = figure.add_subplot(grid[0, 3])
middle = (heat.edges[1:] + heat.edges[:-1]) / 2
axes.bar(middle.tolist(), heat.influence.mean(0).tolist(), width=0.9, color="#0072B2")
axes.axvline(options.cycles, color="#D55E00", linestyle=":", label="planted stripes")
axes.axhline(0, color="#777777", linewidth=0.8)
axes.set_xlabel("cycles per width of the image")
axes.set_ylabel("influence, logit of class 1")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
