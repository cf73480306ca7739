"""Blends of two people against photos of one: do the bands that decide tell morphs from bona fide pairs?

python examples/morphs.py --faces FOLDER     # FOLDER/PERSON/*.jpg; default: two portraits
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from people import people

from facexai import FrequencyHeatPlot, metrics, plots, zoo

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: two portraits")
parser.add_argument("--people", type=int, default=12)
parser.add_argument("--out", type=Path, default=Path("morphs.png"))
options = parser.parse_args()

# 1. Bona fide: two photos of a person. Morph: the aligned photo blended with the next person's, against that person.
model = zoo.load("dlib-resnet29")
faces = people(options.faces, model, options.people, 2)
first, second = (torch.stack([own[i] for own in faces]) for i in (0, 1))
morphs = (first + first.roll(1, 0)) / 2

# 2. Bands that decide about each pair; the first image loses them.
explainer = FrequencyHeatPlot(model, mode="hybrid")
heat = explainer(torch.cat([first, morphs]), second.repeat(2, 1, 1, 1))
shares = heat.absolute / heat.absolute.sum(1, keepdim=True)
bona_fide, morphed = shares[: len(faces)], shares[len(faces) :]

# 3. A detector: how far a pair leans towards the morphs' mean; that pair's people are left out of the means.
scores, labels = [], []
for i in range(len(faces) if len(faces) > 3 else 0):
    others = [k for k in range(len(faces)) if k not in (i, (i - 1) % len(faces), (i + 1) % len(faces))]
    direction = morphed[others].mean(0) - bona_fide[others].mean(0)
    scores += [float(bona_fide[i] @ direction), float(morphed[i] @ direction)]
    labels += [False, True]
if labels:
    cosines = torch.stack([heat.scores[: len(faces)], heat.scores[len(faces) :]], 1).flatten()
    print(f"AUROC of the bands {metrics.auc(scores, labels):.2f}, of the cosine {metrics.auc(-cosines, labels):.2f}")
else:
    print("an AUROC needs at least four people; two portraits illustrate")
told = (("bona fide", bona_fide), ("morphs", morphed))
plots.save(plots.lines([(n, s.mean(0)) for n, s in told], heat.edges, heat.face, "share of the magnitude"), options.out)
print(f"wrote {options.out}")
