"""A verified faster copy of a network: what does it gain over the network as it came, and how far are its outputs?

Original and copy take turns on the same batch, through ``FaceModel.outputs``. The copy is made, and its memory layout
chosen, for that batch size.
"""

from __future__ import annotations

import torch
from common import arguments, interleaved, networks, report

from facexai.models import acceleration


def contestants(model, fast, images):
    """The tasks, by name."""

    def run(one):
        with torch.no_grad():
            return one.outputs(images)

    return {"before": lambda: run(model), "after": lambda: run(fast)}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, action="append", help="images at a time; default: 1 and 16")
    parser.add_argument("--compile", action="store_true", help="try torch.compile too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, model in networks(options).items():
        for batch in options.batch or (1, 16):
            torch.manual_seed(0)
            images = torch.rand(batch, 3, *model.spec.height_width)
            done = acceleration(model, images, batch_size=batch, compile=options.compile)
            seconds = interleaved(contestants(model, done.model, images), rounds=options.rounds)
            row = {"network": name, "batch": batch}
            row |= {"ms": 1000 * seconds["before"], "ms accelerated": 1000 * seconds["after"]}
            row |= {"times as fast": seconds["before"] / seconds["after"], "layout": done.layout}
            row |= {"compiled": done.compiled, "norms folded": len(done.folded)}
            rows.append(row | {"largest difference": done.difference, "rejected": dict(done.rejected)})
    shown = [column for column in rows[0] if column != "rejected"]
    report(options, rows, rounds=options.rounds, columns=shown)


if __name__ == "__main__":
    main()
