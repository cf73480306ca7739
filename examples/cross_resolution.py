"""Small probes against large references: which bands of frequencies stop mattering?

python examples/cross_resolution.py --faces FOLDER     # FOLDER/PERSON/*.jpg; default: two portraits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from people import people

from facexai import FrequencyHeatPlot, images, plots, zoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: two portraits")
parser.add_argument("--people", type=int, default=10)
parser.add_argument("--out", type=Path, default=Path("cross_resolution.png"))
options = parser.parse_args()

# 1. Two photos of each person: a probe, which loses resolution, and a reference, which does not.
model = zoo.load("dlib-resnet29")
faces = people(options.faces, model, options.people, 2)
probes, references = (torch.stack([own[i] for own in faces]) for i in (0, 1))
height, width = model.spec.height_width

# 2. The same question at every resolution.
explainer = FrequencyHeatPlot(model, mode="hybrid")
curves = []
for factor in (1, 2, 4, 8):
    small = images.resize(probes, (height // factor, width // factor)) if factor > 1 else probes
    heat = explainer(images.resize(small, (height, width)).clamp(0, 1), references)
    mean = heat.absolute.mean(0)
    fine = float(mean[heat.face_edges[:-1] >= 8].sum() / mean.sum())
    curves.append((f"{width // factor} px", mean))
    print(
        f"{width // factor} px: mean cosine {float(heat.scores.mean()):.2f}, {fine:.0%} of the influence from 8 cycles"
    )

# 3. Mean magnitude of the influence, band by band.
plots.save(plots.lines(curves, heat.edges, heat.face, "cosine, mean magnitude"), options.out)
print(f"wrote {options.out}")
