"""
Are groups of people decided by other frequencies?
==================================================

Take one band of spatial frequencies after the other out of a face, and see what the score loses: once for pairs of one
group, once for pairs of another. Beside it stand the errors of both groups at one threshold.

The people are **cartoons**, drawn by formulas, and nobody's faces; the groups are those who always wear glasses and
those who never do. Take your own groups, two or more::

    python examples/groups.py --faces FOLDER     # FOLDER/GROUP/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from facexai import FrequencyHeatPlot, metrics, plots, zoo
from facexai.demo.people import cartoons, people

parser = argparse.ArgumentParser(description="Are groups of people decided by other frequencies?")
parser.add_argument("--faces", type=Path, help="FOLDER/GROUP/PERSON/*.jpg; default: cartoons")
parser.add_argument("--people", type=int, default=14, help="of each group, at most")
parser.add_argument("--out", type=Path, default=Path("groups.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# Two photos of everybody, and the group of each person.
model = zoo.load("dlib-resnet29")
if options.faces:
    folders = sorted(path for path in options.faces.iterdir() if path.is_dir())
    groups = {folder.name: people(folder, model.spec, options.people, 2) for folder in folders}
else:
    worn = torch.arange(2 * options.people) < options.people
    everybody = list(cartoons(model.spec, 2 * options.people, 2, glasses=worn).items())
    groups = {"with glasses": dict(everybody[: options.people]), "without": dict(everybody[options.people :])}

# %%
# Pairs within a group: everybody with themselves, and with the two who come next.
photos, pairs, labels, who, same = [], [], [], [], []  # labels and who: of each photo
for group, members in groups.items():
    first, count = len(photos), len(members)
    photos += [photo for both in members.values() for photo in both]
    labels += [group] * 2 * count
    who += [f"{group}/{name}" for name in members for _ in range(2)]
    for number in range(count):
        for step in (0, 1, 2):
            other = (number + step) % count
            pairs.append((first + 2 * number, first + 2 * other + 1))
            same.append(step == 0)
print(f"{len(pairs)} pairs of {len(photos)} photos, {sum(same)} of them genuine")

# %%
# Bands four cycles wide keep this short: 27 of them instead of 107. Every photo is looked at once, however many pairs
# it is in.
explainer = FrequencyHeatPlot(model, width=4.0)
evidence = explainer.observe(torch.stack(photos))

# %%
# Spectra, the distance between them less what chance alone makes of it, and the errors. Permutations move people, with
# both of their photos, and compute the pairs that they then form from the embeddings: two people are behind every pair.
found = metrics.pair_bias(explainer, evidence, pairs, labels, identities=who, same=same)
found

# %%
# How far apart are the spectra, does it go with the pictures (energy-matched), and who pays with which errors?
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
figure = plots.figure(12.5, 3.9)
spectrum, errors, apart = figure.subplots(1, 3, width_ratios=(2.0, 1.0, 1.2))
middle = (found.edges[1:] + found.edges[:-1]) / 2 * found.face
for number, (name, values) in enumerate(zip(found.groups, found.spectra, strict=True)):
    colour = COLOURS[number % len(COLOURS)]
    spectrum.plot(middle, 100 * values, color=colour, label=f"{name}, {found.people[name]} people")
    spectrum.fill_between(middle, *(100 * found.intervals[:, number]), color=colour, alpha=0.2, linewidth=0)
    rates = found.rates[name]
    for place, rate in enumerate((rates.fmr, rates.fnmr)):
        left = place + 0.38 * (number - (len(found.groups) - 1) / 2)
        errors.bar(left, 100 * rate, width=0.34, color=colour)
        errors.annotate(f"{100 * rate:.0f}", (left, 100 * rate), ha="center", va="bottom", fontsize=8)
spectrum.set_xscale("log")
spectrum.set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
spectrum.minorticks_off()
spectrum.set_xlabel("cycles per breadth of the face")
spectrum.set_ylabel("share of the influence, %")
spectrum.set_title("which frequencies decide", fontsize=10)
spectrum.legend(frameon=False, fontsize=9)
errors.set_xticks([0, 1], ["FMR", "FNMR"])
errors.set_ylabel("errors, %")
genuine = min(rates.genuine for rates in found.rates.values())
errors.set_title(
    f"errors at cosine {found.threshold:.2f}, the\nEER of these pairs; {genuine} genuine a group", fontsize=10
)
rows = [(kind, d) for kind, part in (("", found.distances), (",\nenergy-matched", found.matched)) for d in part or ()]
for row, (_, d) in enumerate(rows):
    apart.errorbar(d.value, row, xerr=[[d.value - d.interval[0]], [d.interval[1] - d.value]], fmt="o", color="black")
    apart.annotate(f"p = {d.p_value:.2g}", (d.value, row), xytext=(0, 7), textcoords="offset points", fontsize=8)
apart.axvline(0, color="#777777", linewidth=0.8, linestyle=":")
apart.set_yticks(range(len(rows)), [f"{d.groups[0]} /\n{d.groups[1]}{kind}" for kind, d in rows], fontsize=8)
apart.set_ylim(len(rows) - 0.4, -0.6)
apart.set_xlabel("total variation, less chance")
apart.set_title("distance of the spectra", fontsize=10)
for axes in (spectrum, errors, apart):
    axes.spines[["top", "right"]].set_visible(False)
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
