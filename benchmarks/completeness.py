"""Do CAM's cells and constant add up to the score? The error of the folded head, by network and precision."""

from __future__ import annotations

import copy

import torch
from common import arguments, networks, report

from facexai import FaceModel
from facexai.functional import at_least_float32, completeness_error
from facexai.hooks import capture

IMAGES = 8
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2}


def main() -> None:
    options = arguments(__doc__, faces=False).parse_args()
    rows = []
    for name, model in networks(options).items():
        for dtype, limit in LIMITS.items():
            center = None if model.center is None else model.center.to(dtype)
            cast = FaceModel(copy.deepcopy(model.net).to(dtype), model.spec, center=center)
            torch.manual_seed(0)
            images, head = torch.rand(IMAGES, 3, *cast.spec.height_width), cast.head
            cast.net.requires_grad_(False)
            with torch.no_grad(), capture(cast.net, head.layer, side=head.side) as a, capture(cast.net, head.last) as e:
                cast.outputs(images)
            activations, output = at_least_float32(head.layout.map(a.last)), at_least_float32(e.last.flatten(1))
            r = torch.randn(*output.shape).to(output)
            weights, constant = head.pull(r)
            error = completeness_error((weights * activations).sum(1), constant, r, output)
            shape = "x".join(map(str, head.shape))
            row = {"network": name, "map": shape, "precision": str(dtype).removeprefix("torch.")}
            rows.append(row | {"largest error": float(error.max()), "allowed": limit})
    report(options, rows)


if __name__ == "__main__":
    main()
