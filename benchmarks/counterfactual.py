"""What do counterfactuals cost over the bare passes of the denoiser and the gradients of the decision?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from common import arguments, interleaved, report

from facexai import FastDiME, decisions
from facexai.demo import synthetic, synthetic_networks

PASSES = {"fastdime": 1, "fastdime-2": 2, "fastdime-2+": 2, "unmasked": 1, "dime": 1}
STEPS = 60


def bare(edit: FastDiME, unet: torch.nn.Module, net: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """The same calls of the networks themselves for one scale, and nothing else."""
    nested = edit.variant == "dime"
    gradients = STEPS * PASSES[edit.variant]
    number = torch.full((len(images),), 100)

    def run() -> None:
        for step in range(gradients):  # in turn, as the method asks them: weights and activations share the caches
            with torch.no_grad():
                for _ in range(STEPS - step if nested else 1):
                    unet(images, number, return_dict=False)
            leaf = images.clone().requires_grad_(True)
            torch.autograd.grad(net(leaf).sum(), leaf)
        with torch.no_grad():
            for _ in range(3):  # before, changed?, after
                net(images)

    return run


def measured(variant: str, batch: int, rounds: int) -> dict[str, Any]:
    """One scale on a batch of drawn faces with glasses: ours and the bare calls take turns."""
    faces = synthetic.faces(batch, seed=1, attributes={"glasses": torch.ones(batch, dtype=torch.bool)}).images
    net, denoiser = synthetic_networks.classifier("glasses"), synthetic_networks.denoiser()
    edit = FastDiME(decisions.binary(net), denoiser, variant=variant, scales=(8.0,), batch_size=batch)
    found = edit(faces)
    seconds = interleaved({"ours": lambda: edit(faces), "bare": bare(edit, denoiser.unet, net, faces)}, rounds=rounds)
    return {
        "variant": variant,
        "batch": batch,
        "passes of the denoiser": int(found.calls[0]),
        "seconds per image": seconds["ours"] / batch,
        "of the bare calls": seconds["ours"] / seconds["bare"],
        "decisions changed": float(found.flipped.float().mean()),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for batch in options.batches:
        for variant in PASSES:
            if variant == "dime" and batch > 1:
                continue
            rows.append(measured(variant, batch, 1 if variant == "dime" else options.rounds))
            print(rows[-1], flush=True)
    one = next(row["seconds per image"] for row in rows if row["variant"] == "fastdime" and row["batch"] == 1)
    for row in rows:
        row["times fastdime at batch 1"] = row["seconds per image"] / one
    report(options, rows, "diffusers")


if __name__ == "__main__":
    main()
