"""Why do these two faces match? Four methods on one pair, and what matched what.

python examples/two_faces.py --first a.jpg --second b.jpg --threshold 0.4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from facexai import FGGB, XSSAB, CorrRISE, PairCAM, images, plots, zoo
from facexai.demo.portraits import COLLINS, mirrored, relit

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--first", type=Path, help="photo of a face; default: a portrait")
parser.add_argument("--second", type=Path, help="photo of a face; default: a changed copy of the portrait")
parser.add_argument("--threshold", type=float, default=0.4, help="cosine from which a pair is accepted")
parser.add_argument("--out", type=Path, default=Path("two_faces.png"))
options = parser.parse_args()

# 1. A network and two aligned faces.
model = zoo.load("dlib-resnet29")
face = images.align(images.load(options.first) if options.first else COLLINS.load(), model.spec).image
other = images.align(images.load(options.second), model.spec).image if options.second else mirrored(relit(face))

# 2. Four answers. Each looks at a face once; what it saw answers for any partner.
methods = {
    "FGGB": FGGB(model, options.threshold),
    "xSSAB": XSSAB(model, options.threshold),
    "CorrRISE": CorrRISE(model, count=200),
    "PairCAM": PairCAM(model, layer="stage2", threshold=options.threshold),
}
for name, explainer in methods.items():
    why = explainer(face, other)
    plots.save(why.plot(), options.out.with_stem(f"{options.out.stem}_{name.lower()}"))
    print(why)

# 3. What matched what: PairCAM's table of cells.
plots.save(why.plot_matches(8), options.out)
for (y, x), (v, u), value in why.strongest(3):
    print(f"({y:.0f}, {x:.0f}) matched ({v:.0f}, {u:.0f}) and adds {value:.4f} to the cosine")
print(f"wrote {options.out}")
