"""
Why is this face taken for this person?
=======================================

And not for a look-alike? Two portraits in the public domain are enrolled; the probe is a mirrored, re-lit copy of one
of them.

Run it as it is, or give a folder of your own people and a photo::

    python examples/one_face.py --gallery enrolled --photo who.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facexai import SDD, HiResCAM, images, plots, zoo
from facexai.demo.portraits import COLLINS, HOPPER, mirrored, relit

parser = argparse.ArgumentParser(description="Why is this face taken for this person, and not for a look-alike?")
parser.add_argument("--gallery", type=Path, help="folder NAME/*.jpg; default: the two portraits")
parser.add_argument("--photo", type=Path, help="photo to explain; default: a changed copy of a portrait")
parser.add_argument("--out", type=Path, default=Path("one_face.png"))
options = parser.parse_args([] if "get_ipython" in globals() else None)  # a notebook has no command line

# %%
# A real network, and people enrolled with it.
model = zoo.load("dlib-resnet29")
if options.gallery:
    people = model.gallery(options.gallery, align="auto")
else:
    people = model.gallery({p.name: images.align(p.load(), model.spec).image for p in (COLLINS, HOPPER)})

# %%
# A face as the network wants it: aligned, of its size.
if options.photo:
    face = images.align(images.load(options.photo), model.spec).image
else:
    face = mirrored(relit(images.align(COLLINS.load(), model.spec).image))

for person, cosine in zip(people.names, people.cosines(face)[0], strict=True):
    print(f"{person}: cosine {float(cosine):.2f}")

# %%
# HiResCAM says where the score of a person comes from. SDD compares the map of the recognised person with those of
# the rivals, and keeps what speaks for this person and not for them.
why = SDD(HiResCAM(people), rivals=min(4, len(people) - 1))(face)
print(why)

figure = why.plot_rivals()
plots.save(figure, options.out)
print(f"wrote {options.out.name}")
figure
