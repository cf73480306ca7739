"""
What would have to change?
==========================

A classifier says that these faces wear glasses. A diffusion model edits them until it says no: the glasses go, the face
stays. Is the edit worth anything, or did it only fool this one network?

The faces are **cartoons**, so everything in them is known, and the networks are small ones that come along. How to
bring a diffusion model and a face recogniser of your own: see the page on counterfactuals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facexai import decisions, metrics, plots
from facexai.demo import synthetic_networks
from facexai.demo.edits import question

parser = argparse.ArgumentParser(description="What would have to change for a classifier to see no glasses?")
parser.add_argument("--faces", type=int, default=4, help="cartoons to edit")
parser.add_argument("--out", type=Path, default=Path("what_would_have_to_change.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# The question: a decision, a diffusion model, and the region where pixels may change.
faces, edit = question(options.faces)
print(edit.decision)

# %%
# The answer: each face, its counterfactual, and the score on the way. Outside of the region they are the very pixels
# of the image.
found = edit(faces)
print(found)

# %%
# A second classifier, which did not guide, has to agree that the glasses are gone: here one of smiles that learned
# from faces in which all who smile wore glasses, and so learned to see glasses. An edit that only fools the network
# that it was made for leaves ``held-out`` near 0. For a network of yours the witness is another network that was
# trained for the same question.
witness = decisions.binary(synthetic_networks.classifier("smile_100"))
worth = metrics.counterfactual(found, held_out=witness, decision=edit.decision)
worth

# %%
# A row per face: image, counterfactual, the pixels that were free, what changed, and the score, which says yes above
# zero.
figure = found.plot()
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
