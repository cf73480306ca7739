"""Do CAM's cells and constant add up to the score? The error of the folded head, by network and precision."""

from __future__ import annotations

import copy

import torch
from common import arguments, networks, report

from facexai import FaceModel
from facexai.models import completeness, completeness_limit

IMAGES = 8
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)


def main() -> None:
    options = arguments(__doc__, faces=False).parse_args()
    rows = []
    for name, model in networks(options).items():
        for dtype in PRECISIONS:
            center = None if model.center is None else model.center.to(dtype)
            cast = FaceModel(copy.deepcopy(model.net).to(dtype), model.spec, center=center)
            torch.manual_seed(0)
            error = completeness(cast, torch.rand(IMAGES, 3, *cast.spec.height_width))
            shape = "x".join(map(str, cast.head.shape))
            row = {"network": name, "map": shape, "precision": str(dtype).removeprefix("torch.")}
            rows.append(row | {"largest error": float(error.max()), "allowed": completeness_limit(dtype)})
    report(options, rows)


if __name__ == "__main__":
    main()
