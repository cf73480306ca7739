"""``facexai verify``: measures verification accuracy and determines a threshold."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._photo_names import photo_names
from facexai.cli.shared import (
    accelerated,
    engine_arguments,
    model,
    model_argument,
    out_arguments,
    photo_arguments,
    show,
)

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.images.pairs import Pairs
    from facexai.metrics import Roc
    from facexai.models import FaceModel

_AT_ONCE = 32
_RATES = (1e-2, 1e-3, 1e-4)


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    verify = commands.add_parser("verify", help="accuracy on labelled pairs, and the threshold that follows")
    verify.add_argument(
        "pairs", type=Path, metavar="PAIRS", help="LFW's pairs.txt, a CSV of first,second,same, or insightface's .bin"
    )
    verify.add_argument("--images", type=Path, help="folder of the photos; default: that of PAIRS")
    model_argument(verify)
    verify.add_argument(
        "--rule", default="eer", help="of the threshold: eer (default), accuracy, far=1e-3, or a cosine"
    )
    verify.add_argument("--folds", choices=("insightface", "facenet"), help="ten-fold accuracy by this protocol, too")
    photo_arguments(verify)
    engine_arguments(verify)
    out_arguments(verify, "verify.json, scores.csv and roc.png", "verify.json")
    verify.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from facexai import io, metrics, plots
    from facexai.functional._decision import cosines_of_pairs, near
    from facexai.metrics.verification import placed

    folder = io.output_folder(options.out)
    original = model(options.model)
    pairs = metrics.read_pairs(options.pairs, options.images)
    first = range(min(_AT_ONCE, len(pairs.images)))
    network = accelerated(original, lambda: [_faces(original, pairs, first, options)], options)
    raw, flipped = _embedded(network, pairs, options)
    scores = cosines_of_pairs(torch.nn.functional.normalize(raw), pairs.index)
    curve = metrics.roc(scores, pairs.same)
    limit, moved = placed(scores, pairs.same, options.rule)
    report = _report(curve, limit, network, pairs, options)
    report |= {"decisions_moved": moved, "near_the_threshold": int(near(scores, limit).sum())}
    if options.folds is not None:
        ten = metrics.ten_fold(raw, pairs.index, pairs.same, flipped=flipped, protocol=options.folds)
        report["ten_fold"] = {"protocol": options.folds, "accuracy": round(ten.mean, 6), "std": round(ten.std, 6)}
    folder.mkdir(parents=True, exist_ok=True)
    io.write_json(folder / "verify.json", report)
    rows = _rows(pairs, scores, limit, options.images or options.pairs.parent)
    io.write_csv(folder / "scores.csv", ["first", "second", "same", "cosine", "accepted", "near"], rows, ".6f")
    plots.save(curve.plot(), folder / "roc.png")
    show(report, _text(report), as_json=options.json)
    return 0


def _embedded(network: FaceModel, pairs: Pairs, options: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """Returns raw embeddings (n, D) of all images, and of their mirror images if the protocol adds them."""
    import torch

    from facexai._progress import tqdm
    from facexai.explainers.pairs import check_embeds
    from facexai.hooks import no_graph

    plain, mirrored = [], []
    with tqdm(total=len(pairs.images), desc="verify", unit="image", disable=None, file=sys.stderr) as bar:
        for start in range(0, len(pairs.images), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(pairs.images))
            batch = _faces(network, pairs, range(start, stop), options).to(network.device)
            with no_graph():
                plain.append(network.features(network.outputs(batch)).cpu())
                check_embeds(network)
                if options.folds == "insightface":
                    mirrored.append(network.features(network.outputs(batch.flip(3))).cpu())
            bar.update(stop - start)
    return torch.cat(plain), torch.cat(mirrored) if mirrored else None


def _faces(network: FaceModel, pairs: Pairs, which: range, options: argparse.Namespace) -> Tensor:
    """Returns some of the images of the pairs, prepared for the network."""
    import torch

    from facexai import images

    spec, how = network.spec, {"when": options.align, "face": options.face}
    return torch.cat([images.fit_to_spec(pairs.load(i, i + 1), spec, **how).image for i in which])


def _report(curve: Roc, limit: float, network: FaceModel, pairs: Pairs, options: argparse.Namespace) -> dict[str, Any]:
    """Returns the record with file names, without folders."""
    record: dict[str, Any] = {
        "pairs": options.pairs.name,
        "images": len(pairs.images),
        "model": repr(network),
        "fingerprint": network.fingerprint,
    }
    record |= {"genuine": int(pairs.same.sum()), "impostor": int((~pairs.same).sum()), "auc": round(curve.auc, 6)}
    record |= {"eer": round(curve.eer, 6), "rule": options.rule, "threshold": limit}
    impostors = record["impostor"]
    record["tar_at_far"] = {f"{far:g}": round(float(curve.tar_at(far)), 6) for far in _RATES if far * impostors >= 1}
    return record


def _rows(pairs: Pairs, scores: Any, limit: float, root: Path) -> Iterator[list[str | float]]:
    """Yields for each pair both names, the label, the cosine, the decision, and whether it is near the threshold."""
    from facexai.functional._decision import accepted, near

    names, columns = photo_names(pairs.images, root), (pairs.same, scores, accepted(scores, limit), near(scores, limit))
    for (i, j), *row in zip(pairs.index.tolist(), *(column.tolist() for column in columns), strict=True):
        same, score, match, close = row
        yield [names[i], names[j], int(same), score, int(match), int(close)]


def _text(report: dict[str, Any]) -> str:
    lines = [
        f"{report['genuine']} genuine and {report['impostor']} impostor pairs of {report['images']} images",
        f"AUC {report['auc']:.4f}   EER {report['eer']:.4f}",
        *(f"TAR {tar:.4f} at FAR {far}" for far, tar in report["tar_at_far"].items()),
    ]
    if "ten_fold" in report:
        ten = report["ten_fold"]
        lines.append(f"ten folds, {ten['protocol']}: accuracy {ten['accuracy']:.4f} +- {ten['std']:.4f}")
    if report["near_the_threshold"]:
        lines.append(
            f"{report['near_the_threshold']} pairs within 1e-6 of the threshold: another device may decide otherwise"
        )
    return "\n".join([*lines, f"threshold by {report['rule']}: {report['threshold']:.6f}"])
