"""
Who is it, and against whom?
============================

1:N identification among look-alikes: a face is compared with everybody enrolled, and the answer is explained against
each of those who come closest.

The people are **cartoons**, drawn by formulas, and nobody's faces. A face network tells them apart less well than real
people, so there are look-alikes among them. Take your own::

    python examples/look_alikes.py --faces FOLDER     # FOLDER/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facexai import SDD, HiResCAM, plots, zoo
from facexai.demo.people import cartoons, people

parser = argparse.ArgumentParser(description="Who is it, and against whom? Identification among look-alikes.")
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: cartoons")
parser.add_argument("--people", type=int, default=30, help="at most")
parser.add_argument("--out", type=Path, default=Path("look_alikes.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# Two pictures of everybody are enrolled, a third one is the probe.
model = zoo.load("dlib-resnet29")
if options.faces:
    everybody = people(options.faces, model.spec, options.people, 3)
else:
    everybody = cartoons(model.spec, options.people, 3)
enrolled = model.gallery({name: faces[:2] for name, faces in everybody.items()})
probes = torch.stack([faces[2] for faces in everybody.values()])

# %%
# Whom does the network recognise? The closest call among the right answers is the one to look at: who was named
# first, but by the smallest margin.
cosines = enrolled.cosines(probes)
best = cosines.topk(2).values
right = cosines.argmax(1) == torch.arange(len(enrolled))
print(f"{int(right.sum())} of {len(enrolled)} probes named right")
margins = torch.where(right, best[:, 0] - best[:, 1], torch.inf)
probe = probes[[int(margins.argmin())]]

# %%
# One look at the probe answers for everybody: the map of each person, and SDD against each rival alone.
rivals = min(4, len(enrolled) - 1)
base = HiResCAM(enrolled)
seen = base.observe(probe)
against_all = SDD(base, rivals=rivals).answer(seen)
who = [int(against_all.targets[0]), *against_all.rivals[0].tolist()]
print(against_all)

# %%
# Above: who is enrolled and how near; in the middle: where the probe looks like each of them to the network; below:
# what speaks for the person named and not for that look-alike.
names = [enrolled.names[k] for k in who]
own_maps = [base.answer(seen, k).maps[0] for k in who]
limit = max(float(values.abs().max()) for values in own_maps)  # one scale for all of them
figure = plots.figure(2.0 * (1 + len(who)), 6.6)
grid = figure.subplots(3, 1 + len(who))
for row in grid:
    row[0].set_axis_off()
plots.photo(grid[1, 0], probe[0])
grid[1, 0].set_title("probe", fontsize=10)
for place, (k, name) in enumerate(zip(who, names, strict=True), start=1):
    enrolled_photo, own, directed = grid[:, place]
    plots.photo(enrolled_photo, everybody[name][0])
    role = "named" if k == who[0] else f"rival {place - 1}"
    enrolled_photo.set_title(f"{role}: {name}\ncosine {float(cosines[int(margins.argmin()), k]):.3f}", fontsize=9)
    plots.overlay(own, probe[0], own_maps[place - 1], cmap="RdBu_r", vmin=-limit, vmax=limit)
    own.set_title(f"where it looks like\n{name}", fontsize=9)
    alone = against_all if k == who[0] else SDD(base, rivals=[k]).answer(seen, who[0])
    plots.overlay(directed, probe[0], alone.maps[0], cmap="inferno", vmin=0.0, vmax=1.0)
    told = f"SDD: {names[0]},\nnot {name}" if k != who[0] else f"SDD: {names[0]},\nnone of the {rivals}"
    directed.set_title(told, fontsize=9, weight="bold" if k == who[0] else "normal")
figure.supxlabel(
    "middle: HiResCAM, red adds to the score of that person, blue takes from it; below: SDD, 0 (clear) to 1 (bright)",
    fontsize=9,
)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
