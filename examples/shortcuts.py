"""
Does a classifier look at the glasses?
======================================

Two classifiers tell a smile. One learned from faces in which glasses and smiles had nothing to do with each other, the
other from faces in which all who smiled wore glasses. A diffusion model takes the glasses off, and both are asked
again: how much does the probability of a smile move? The no-op control is the same pipeline without guidance, which
only draws the faces again.

The faces are **cartoons** and the networks are small ones that come along, so the answer is known. The complete study,
with intervals, four strengths and the true cue, is ``examples/studies/shortcut_study.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facexai import decisions, metrics, plots
from facexai.demo import synthetic_networks
from facexai.demo.edits import question

parser = argparse.ArgumentParser(description="Does a classifier of smiles look at the glasses?")
parser.add_argument("--faces", type=int, default=12, help="cartoons to edit")
parser.add_argument("--out", type=Path, default=Path("shortcuts.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# Faces with glasses, the same faces after another classifier no longer saw any, and the control.
faces, edit = question(options.faces)
found = edit(faces)
control = edit.no_op(faces).counterfactuals
print(found)

# %%
# The audit of both classifiers: mean absolute difference of the probability, and what is beyond the control.
audits = {}
for strength in ("smile_50", "smile_100"):
    task = decisions.binary(synthetic_networks.classifier(strength))
    audits[strength] = metrics.shortcut_audit(task, faces, found.counterfactuals, no_op=control)
    print(f"\n{strength}: {audits[strength]}")

# %%
# Above: the faces, as they were, drawn again, and without glasses. Below, under each face: the probability of a
# smile. A line from the grey point to the coloured one is a decision that hung on the glasses.
count = len(faces)
figure = plots.figure(max(7.0, 0.95 * count + 1.5), 6.6)
grid = figure.add_gridspec(5, count, height_ratios=(1, 1, 1, 1.7, 1.7))
for row, (name, images) in enumerate((("image", faces), ("no-op", control), ("edited", found.counterfactuals))):
    for k in range(count):
        axes = figure.add_subplot(grid[row, k])
        plots.photo(axes, images[k])
        if k == 0:
            axes.text(-0.15, 0.5, name, transform=axes.transAxes, ha="right", va="center", fontsize=9)
said = {
    "smile_50": "glasses on half of the smiles it learned from",
    "smile_100": "glasses on all smiles it learned from",
}
for row, (name, audit) in enumerate(audits.items(), start=3):
    axes, places = figure.add_subplot(grid[row, :]), range(count)
    axes.vlines(places, audit.before.values, audit.after.values, color="#bbbbbb", linewidth=1.5)
    axes.plot(places, audit.before.values, "o", color="#555555", markersize=8, label="image")
    axes.plot(places, audit.control.values, "_", color="#009E73", markersize=13, markeredgewidth=2.5, label="no-op")
    axes.plot(places, audit.after.values, "o", color="#D55E00", label="without glasses")
    told = f"the edit moves the probability by {audit.mad.mad:.2f}, the no-op control by {audit.no_op.mad:.2f}"
    axes.set_title(f"{said[name]}: {told}", fontsize=9)
    axes.set_ylabel("P(smile)", fontsize=9)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(-0.08, 1.08)
    axes.set_xticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
axes.legend(frameon=False, fontsize=9, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.05))
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
