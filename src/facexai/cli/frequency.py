"""``facexai frequency``: what kind of information decides about these two faces?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._photo_names import photo_names
from facexai.cli.shared import (
    accelerated,
    cut,
    engine_arguments,
    face,
    model,
    model_argument,
    out_arguments,
    photo_arguments,
    show,
)

if TYPE_CHECKING:
    from facexai.results import FrequencyHeat

_LARGEST = 5  # bands in the report


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    frequency = commands.add_parser("frequency", help="which spatial frequencies decide about these two faces?")
    frequency.add_argument("images", nargs=2, type=Path, metavar="IMAGE", help="a photo of each face")
    frequency.add_argument(
        "--masked", choices=("first", "second", "both"), default="both", help="which face loses bands; default: both"
    )
    frequency.add_argument(
        "--mode",
        choices=("exact", "hybrid", "preview"),
        default="exact",
        help="exact (default): a pass for every band; hybrid: for those of most energy; preview: none",
    )
    frequency.add_argument("--width", type=float, default=1.0, help="of a band, in cycles per image; default: 1")
    frequency.add_argument("--sectors", type=int, default=1, help="orientations of each band; default: 1")
    model_argument(frequency)
    photo_arguments(frequency)
    engine_arguments(frequency)
    out_arguments(frequency, "frequency.png, lines.png, bands.png, frequency.npz and .json", "frequency.json", "a line")
    frequency.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from facexai import io, plots
    from facexai.explainers import FrequencyHeatPlot

    folder = io.output_folder(options.out)
    network = model(options.model)
    faces = [face(path, network, options) for path in options.images]
    shown = [aligned.image.to(network.device) for aligned in faces]
    network = accelerated(network, lambda: shown, options)
    explainer = FrequencyHeatPlot(
        network, options.width, masked=options.masked, mode=options.mode, sectors=options.sectors, progress=True
    )
    heat: FrequencyHeat = explainer(*shown)
    folder.mkdir(parents=True, exist_ok=True)
    heat.save(folder / "frequency.npz")
    plots.save(heat.plot(), folder / "frequency.png")
    plots.save(heat.plot("line"), folder / "lines.png")
    plots.save(heat.plot_bands(shown[int(options.masked == "second")]), folder / "bands.png")
    rings = heat.influence[0] if heat.influence.ndim == 2 else heat.influence[0].sum(1)
    largest = torch.argsort(rings.abs(), descending=True)[:_LARGEST].tolist()
    first, second = photo_names(options.images)
    report = {
        "first": first,
        "second": second,
        "cosine": round(float(heat.scores[0]), 6),
        "strongest_bands": [
            {
                "cycles_per_image": [round(float(e), 4) for e in heat.edges[k : k + 2]],
                "cycles_per_face": [round(float(e), 4) for e in heat.face_edges[k : k + 2]],
                "influence": round(float(rings[k]), 6),
            }
            for k in largest
        ],
        "recipe": dict(heat.recipe),
        "aligned": [cut(one) for one in faces],
        "sha256": [io.sha256_of(path) for path in options.images],
        "files": ["frequency.png", "lines.png", "bands.png", "frequency.npz"],
    }
    io.write_json(folder / "frequency.json", report)
    show(report, _line(report), as_json=options.json)
    return 0


def _line(report: dict[str, Any]) -> str:
    shares = ", ".join(
        f"{band['cycles_per_face'][0]:.1f} to {band['cycles_per_face'][1]:.1f}: {band['influence']:+.3f}"
        for band in report["strongest_bands"]
    )
    return (
        f"{report['first']} and {report['second']}: cosine {report['cosine']:.3f}; strongest bands in cycles per "
        f"breadth of the face: {shares}  -> frequency.png"
    )
