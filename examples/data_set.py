"""
How true are the maps of a whole data set?
==========================================

Explain and measure every photo of a folder of people, with the controls that can embarrass a map. A run that was cut
off goes on where it was; more workers share it.

The people are **cartoons**, drawn by formulas, and nobody's faces: they show what a run looks like, and its numbers say
nothing about photos. Take your own::

    python examples/data_set.py --faces FOLDER     # FOLDER/PERSON/*.jpg
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from facexai import evaluate, images, plots, zoo
from facexai.demo.people import cartoons

parser = argparse.ArgumentParser(description="How true are the maps of a whole data set?")
parser.add_argument("--faces", type=Path, help="one sub-folder of photos per person; default: cartoons")
parser.add_argument("--people", type=int, default=12, help="cartoons to draw")
parser.add_argument("--run", type=Path, help="folder of the run, to keep it; default: a temporary one")
parser.add_argument("--out", type=Path, default=Path("data_set.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# A folder of people: the first two photos of everybody are enrolled, the others are explained.
model = zoo.load("dlib-resnet29")
temporary = tempfile.TemporaryDirectory()
faces = options.faces or Path(temporary.name) / "faces"
if not options.faces:
    for name, drawn in cartoons(model.spec, options.people, 4).items():
        (faces / name).mkdir(parents=True)
        for number, face in enumerate(drawn):
            images.save(face, faces / name / f"{number}.png")

# %%
# What is measured: hide the marked 20 % of each picture, or show nothing else, and ask again.
config = evaluate.Config(
    str(faces),
    explainers=("hirescam", "sdd"),
    metrics=("deletion", "retention"),
    enrol=2,
    align="auto" if options.faces else "never",
)
found = evaluate.run(config, options.run or Path(temporary.name) / "run", model=model)
print(found)

# %%
# The same objects as for data in memory, with intervals by person and paired, two-sided tests. Does hiding what the map
# marks take more, or less, than hiding the same region somewhere else, or the middle of the picture?
for name, measured in found.measured.items():
    gone = measured["deletion"]
    for control in ("random", "centre", "other-image"):
        p = gone.p_value(control)
        told = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        print(f"{name}: {gone.drop:.1f} points lost, {control} {gone.controls[control].drop:.1f}; {told}")

# %%
# The table as a picture: points lost when the marked area goes, and when nothing else stays.
figure = found.plot()
plots.save(figure, options.out)
temporary.cleanup()
print(f"wrote {options.out.name}")
figure
