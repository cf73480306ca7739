"""Does a classifier of smiles look at the glasses? On drawn faces the answer is known.

python examples/studies/shortcut_study.py --out study                   # pip install "facexai[demo]"; some five minutes

Four classifiers learn to tell a smile. In the faces they learn from, glasses go with the smile in 50 % (by chance),
75, 90 or 100 % of the images; smiles and straight mouths are equally many. A guide, which learned to tell glasses,
takes them off or puts them on by a diffusion model, and each classifier is asked about the faces before and after: its
mean absolute difference (MAD) says how much it hangs on the glasses. Beside it stand

- the no-op control: the same pipeline without guidance, which only reconstructs,
- the truth: the same faces drawn again with the other attribute, which photos never offer,
- edits of the mouth, guided by another classifier of smiles: the true cue,
- edits of the glasses that may change any pixel.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from facexai import FastDiME, decisions, denoisers, plots
from facexai.demo import synthetic, synthetic_networks
from facexai.demo.synthetic import DrawnFaces
from facexai.demo.synthetic_networks import DrawnClassifier
from facexai.io import output_folder, write_json, write_whole
from facexai.metrics import counterfactual, mad, shortcut_audit
from facexai.models import load_weights

AGREEMENTS = (50, 75, 90, 100)  # percent of the images in which glasses go with the smile
LEARN, GUIDE, WITNESS, LOOK = 1, 2, 3, 4  # whose faces: to train on, for the guides, to check them, to edit
SEEDS = 10  # faces of two seeds of a study have nothing in common
EDITS = {"glasses": ("glasses", "glasses"), "mouth": ("smile", "mouth"), "glasses, anywhere": ("glasses", None)}
"""Name of an edit -> attribute that changes, region where it may."""


def faces(count: int, seed: int, agreement: int = 50) -> DrawnFaces:
    """Faces without masks, half of them smiling, of which that percentage wear glasses where and only where they smile.

    Among the smiling and among the others the share is the same; 50 % makes the four cells equal. The order is by cell.
    """
    if count < 1 or count % 2 or count * agreement % 200:
        raise ValueError(f"expected faces of which {agreement} % of each half are a whole number, got {count}")
    half, agreeing = count // 2, count * agreement // 200
    smile = torch.arange(count) < half
    glasses = (torch.arange(count) % half < agreeing) == smile
    forced = {"smile": smile, "glasses": glasses, "mask": torch.zeros(count, dtype=torch.bool)}
    return synthetic.faces(count, seed=seed, attributes=forced)


def train_classifier(
    images: Tensor, labels: Tensor, seed: int, *, epochs: int = 8, batch_size: int = 64, lr: float = 0.003
) -> nn.Module:
    """A classifier with one logit; some five seconds for 1,000 faces.

    Args:
        images: (N, 3, 32, 32) in [0, 1].
        labels: (N,) bool.
        seed: of the first weights and of the order.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DrawnClassifier()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.01)
    steps = epochs * -(-len(images) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(epochs):
        for some in torch.randperm(len(images), generator=order).split(batch_size):
            loss = F.binary_cross_entropy_with_logits(net(images[some])[:, 0], labels[some].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net


def weights_file(out: Path, name: str, count: int, seed: int) -> Path:
    """Where a classifier is kept; the name says what it learned from."""
    return out / f"{name}_{count}_faces_seed_{seed}.safetensors"


def classifier(out: Path, name: str, attribute: str, count: int, seed: int, agreement: int = 50) -> decisions.Decision:
    """The decision of the classifier in that folder, trained and written there first where there is none."""
    path = weights_file(out, name, count, seed)
    if not path.is_file():
        some = faces(count, seed, agreement)
        net = train_classifier(some.images, some.attributes[attribute], seed)
        weights = save({key: value.half() for key, value in net.state_dict().items()})
        write_whole(path, lambda file: file.write(weights))
    net = DrawnClassifier().eval().requires_grad_(False)
    load_weights(net, path)
    return decisions.binary(net)


def other(some: DrawnFaces, seed: int, attribute: str) -> Tensor:
    """The same faces, drawn with the other answer to one attribute."""
    flipped = {**some.attributes, attribute: ~some.attributes[attribute]}
    return synthetic.faces(len(some.images), seed=seed, attributes=flipped).images


def accuracy(decision: decisions.Decision, some: DrawnFaces, attribute: str, which: Tensor | None = None) -> float:
    """Share of right answers, among those faces."""
    right = (decisions.score_batched(decision, some.images) > 0) == some.attributes[attribute]
    return float(right.double().mean() if which is None else right[which].double().mean())


def study(
    out: Path,
    denoiser: denoisers.Denoiser,
    *,
    edits: Sequence[str] = tuple(EDITS),
    count: int = 96,
    train_on: int = 1000,
    seed: int = 0,
    draw: int = 6,
) -> list[dict[str, Any]]:
    """Train what is missing, edit, audit; a row for every edit and agreement.

    Args:
        out: folder for the classifiers and the pictures.
        denoiser: of 32-pixel drawn faces.
        edits: of :data:`EDITS`.
        count: faces to edit, a multiple of 4.
        train_on: faces that each audited classifier learns from, a multiple of 200; guides learn from twice as many.
        seed: of everything.
        draw: faces in the pictures; 0: no pictures.
    """
    base = SEEDS * seed
    look = faces(count, base + LOOK)
    tasks = {k: classifier(out, f"smile_{k}", "smile", train_on, base + LEARN, k) for k in AGREEMENTS}
    against = look.attributes["smile"] != look.attributes["glasses"]
    rows = []
    for name in edits:
        attribute, where = EDITS[name]
        guide, witness = (
            classifier(out, stem, attribute, 2 * train_on, base + role)
            for stem, role in ((attribute, GUIDE), (f"{attribute}_witness", WITNESS))
        )
        region = None if where is None else look.regions[where]
        edit = FastDiME(guide, denoiser, region=region, seed=seed)
        found, control = edit(look.images), edit.no_op(look.images).counterfactuals
        worth = counterfactual(found, held_out=witness, decision=guide)
        print(f"seed {seed}, edits of {name}:\n{worth}\n", flush=True)
        if draw:
            plots.save(found[:: -(-count // draw)].plot(), out / f"edits_{name.replace(', ', '_')}.png")
        truth = other(look, base + LOOK, attribute)
        for agreement, task in tasks.items():
            audit = shortcut_audit(
                task,
                look.images,
                found.counterfactuals,
                no_op=control,
                labels=look.attributes["smile"],
                shortcut=look.attributes["glasses"],
            )
            assert audit.no_op is not None
            directed = audit.directed.mean if audit.directed is not None and attribute == "glasses" else None
            rows.append(
                {
                    "seed": seed,
                    "edited": name,
                    "glasses with smiles": agreement,
                    "accuracy": accuracy(task, look, "smile"),
                    "accuracy where they disagree": accuracy(task, look, "smile", against),
                    "MAD": audit.mad.mad,
                    "MAD, 95 %": audit.mad.interval,
                    "no-op MAD": audit.no_op.mad,
                    "p beyond no-op": audit.beyond_no_op_p_value,
                    "with minus without": directed,
                    "MAD, drawn again": mad(task, look.images, truth).mad,
                    "flipped": worth.flip_rate,
                    "flips confirmed": worth.held_out_rate,
                    "pixels free": float(found.masks.float().mean()),
                }
            )
            print(f"smiles learned with glasses on {agreement} %, edits of {name}:\n{audit}\n", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, print each audit and then one line for each, and write ``study.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for classifiers, pictures and study.json")
    parser.add_argument("--faces", type=int, default=96, help="to edit; default: 96")
    parser.add_argument("--train-on", type=int, default=1000, help="faces for each classifier; default: 1000")
    parser.add_argument("--seed", type=int, default=0, help="of everything; default: 0")
    parser.add_argument("--denoiser", type=Path, help="folder; default: the one that comes along")
    options = parser.parse_args(arguments)
    try:
        out = output_folder(options.out)
        out.mkdir(parents=True, exist_ok=True)
        given = options.denoiser
        denoiser = synthetic_networks.denoiser() if given is None else denoisers.from_diffusers(given)
        rows = study(out, denoiser, count=options.faces, train_on=options.train_on, seed=options.seed)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    write_json(out / "study.json", {"faces": options.faces, "train_on": options.train_on, "rows": rows})
    for row in rows:
        print(
            f"{row['edited']:<18}{row['glasses with smiles']:>4} %  MAD {row['MAD']:.3f}  no-op {row['no-op MAD']:.3f}"
            f"  drawn again {row['MAD, drawn again']:.3f}"
        )


if __name__ == "__main__":
    main()
