"""Which layer shows the truth? HiResCAM and SDD at every resolution, measured by deletion and retention."""

from __future__ import annotations

from itertools import product

import torch
from common import arguments, networks, people, report, split

from facexai import SDD, FaceModel, HiResCAM, metrics

METHODS = {"HiResCAM": HiResCAM, "SDD": lambda people, layer: SDD(HiResCAM(people, layer=layer))}


def candidates(model: FaceModel) -> list[str]:
    """For each resolution of at least 3x3 cells the deepest layer that nothing gets past."""
    deepest: dict[tuple[int, int], str] = {}
    for name, (_, h, w) in model.layers.items():
        if min(h, w) >= 3 and name not in model.head.names and model.structure.decides(name):
            deepest[h, w] = name
    return list(deepest.values())


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--probes", type=int, default=2, help="photos per person; default: 2")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photos, rows = people(options.faces), []
    for network, model in networks(options).items():
        gallery, probes, identities = split(photos, model, options.probes)
        for layer in candidates(model):
            for (method, make), fill in product(METHODS.items(), ("black", "blur")):
                why = make(gallery, layer=layer)(probes)
                gone = metrics.deletion(gallery, probes, why, fill=fill, identities=identities)
                kept = metrics.retention(gallery, probes, why, fill=fill, identities=identities)
                cells = "x".join(map(str, why.cells.shape[1:]))
                row = {"network": network, "layer": layer, "cells": cells, "method": method, "fill": fill}
                row |= {"deletion": gone.drop, "retention": kept.drop, "specificity": gone.specificity}
                controls = {name: gone.controls[name].drop for name in ("random", "centre")}
                rows.append(row | controls | {"retention, centre": kept.controls["centre"].drop})
                print(rows[-1], flush=True)
    report(options, rows, "scipy", probes_per_person=options.probes, scale="calibrated")


if __name__ == "__main__":
    main()
