"""``facexai counterfactual``: what would have to change in a face for a decision to be another one?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._photo_names import photo_names
from facexai.cli.shared import DEFAULT_MODEL, model, out_arguments, photo_arguments, show

if TYPE_CHECKING:
    from torch import Tensor

    from facexai.results import Counterfactual


_MOST_DRAWN = 12  # drawing takes longer than editing


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    edit = commands.add_parser(
        "counterfactual", help="what would have to change in a face for a decision to be another one?"
    )
    edit.add_argument(
        "images", nargs="*", type=Path, metavar="IMAGE", help="photos; none: drawn faces lose their glasses"
    )
    edit.add_argument(
        "--denoiser", help="of photos: folder of a diffusers UNet2DModel and its scheduler, or module:function"
    )
    edit.add_argument("--decision", help="module:function that returns a decision, one logit per image")
    edit.add_argument("--reference", type=Path, help="instead of --decision: a photo that the others match, or not")
    edit.add_argument("--threshold", type=float, help="of --reference: cosine from which a pair is accepted")
    edit.add_argument("--model", help=f"of --reference: as in 'facexai compare'; default: {DEFAULT_MODEL}")
    edit.add_argument(
        "--variant", default="fastdime", help="fastdime (default), fastdime-2, fastdime-2+, unmasked, dime, maskdime"
    )
    edit.add_argument("--scales", default="8,10,15", help="guidance, tried one after the other; default: 8,10,15")
    edit.add_argument("--respacing", type=int, default=200, help="steps of the denoiser that are taken; default: 200")
    edit.add_argument("--start", type=int, default=60, help="step to start from; default: 60")
    edit.add_argument(
        "--warmup", type=int, help="steps before the mask applies; default: half of --start, none for maskdime"
    )
    edit.add_argument("--seed", type=int, default=0, help="of the random draws; default: 0")
    edit.add_argument("--no-op", action="store_true", help="also without guidance: what the denoiser alone changes")
    photo_arguments(edit)
    out_arguments(edit, "counterfactual.png, .npz and .json", "counterfactual.json", "a table")
    edit.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import FastDiME, io, plots

    folder = io.output_folder(options.out)
    faces, names, arguments = _given(options) if options.images else _drawn(options)
    half = None if options.variant == "maskdime" else options.start // 2  # MaskDiME has no warm-up
    explainer = FastDiME(
        **arguments,
        variant=options.variant,
        scales=_numbers(options.scales),
        respacing=options.respacing,
        start=options.start,
        warmup=half if options.warmup is None else options.warmup,
        seed=options.seed,
        progress=not options.json,
    )
    edits = explainer(faces)
    folder.mkdir(parents=True, exist_ok=True)
    report = _report(edits, names)
    if options.no_op:
        report["no_op"] = _report(explainer.no_op(faces), names)["images"]
    edits.save(folder / "counterfactual.npz")
    io.write_json(folder / "counterfactual.json", report)
    plots.save(edits[:_MOST_DRAWN].plot(), folder / "counterfactual.png")
    if len(edits) > _MOST_DRAWN and not options.json:
        print(f"counterfactual.png shows the first {_MOST_DRAWN} of {len(edits)} images")
    show(report, _table(report), as_json=options.json)
    return 0


def _drawn(options: argparse.Namespace) -> tuple[Tensor, list[str], dict[str, Any]]:
    """Returns drawn faces with glasses, their names, and the arguments of the explainer."""
    from facexai.demo.edits import question

    if given := _named(options, "denoiser", "decision", "reference", "threshold", "model"):
        raise ValueError(f"{' and '.join(given)} without a photo: give some, or nothing for the drawn faces")
    faces, edit = question(4)
    names = [f"drawn face {number}" for number in range(1, len(faces) + 1)]
    return faces, names, {"decision": edit.decision, "denoiser": edit.denoiser, "region": edit.region}


def _given(options: argparse.Namespace) -> tuple[Tensor, list[str], dict[str, Any]]:
    """Returns the user's photos, their names, and the arguments of the explainer."""
    import torch

    from facexai import InputSpec, decisions, denoisers, images
    from facexai.models._factory import call_factory

    if options.denoiser is None:
        raise ValueError("photos need --denoiser, a diffusion model of such photos; no photos: drawn faces")
    if (options.decision is None) == (options.reference is None):
        raise ValueError("expected either --decision or --reference: what shall change?")
    if options.decision is not None and (ignored := _named(options, "threshold", "model")):
        raise ValueError(f"{' and '.join(ignored)} beside --decision: they belong to --reference")
    if options.reference is not None and options.threshold is None:
        raise ValueError("--reference needs --threshold, the cosine from which a pair is accepted")
    named = ":" in options.denoiser and not Path(options.denoiser).exists()
    denoiser = call_factory(options.denoiser) if named else denoisers.from_diffusers(options.denoiser)
    if not isinstance(denoiser, denoisers.Denoiser):
        raise TypeError(f"{options.denoiser} returned a {type(denoiser).__name__}, expected a denoiser")
    if denoiser.size is None:
        raise ValueError(f"{options.denoiser} does not say which size of images it takes; give it one")
    spec = InputSpec(denoiser.size)
    how = {"when": options.align, "face": options.face}
    faces = torch.cat([images.fit_to_spec(images.load(path), spec, **how).image for path in options.images])
    called = photo_names(options.images)
    if options.decision is not None:
        decision = call_factory(options.decision)
        if not callable(decision):
            raise TypeError(f"{options.decision} returned a {type(decision).__name__}, expected a function of images")
        return faces, called, {"decision": decision, "denoiser": denoiser}
    network = model(options.model or DEFAULT_MODEL)
    reference = images.fit_to_spec(images.load(options.reference), network.spec, **how).image
    decision = decisions.verification(network, reference.to(network.device), options.threshold)
    return faces.to(network.device), called, {"decision": decision, "denoiser": denoiser}


def _named(options: argparse.Namespace, *names: str) -> list[str]:
    """Returns those of these options that were given."""
    return [f"--{name}" for name in names if getattr(options, name) is not None]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"expected --scales such as 8,10,15, got {text!r}") from None


def _report(edits: Counterfactual, names: list[str]) -> dict[str, Any]:
    """Returns the record with file names, without folders."""
    rows = [
        {
            "image": name,
            "before": round(float(edits.before[n]), 4),
            "after": round(float(edits.after[n]), 4),
            "changed": bool(edits.flipped[n]),
            "guidance": float(edits.scales[n]),
            "free": round(float(edits.masks[n].float().mean()), 4),
            "l1": round(float((edits.counterfactuals[n] - edits.images[n]).abs().mean()), 5),
            "passes": int(edits.calls[n]),
        }
        for n, name in enumerate(names)
    ]
    return {"images": rows, "recipe": dict(edits.recipe), "files": ["counterfactual.png", "counterfactual.npz"]}


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{row['image']}: {row['before']:.2f} -> {row['after']:.2f}, {'changed' if row['changed'] else 'NOT changed'} "
        f"(guidance {row['guidance']:g}, {row['free']:.0%} of the pixels free)"
        for row in report["images"]
    ]
    return "\n".join([*lines, "-> counterfactual.png"])
