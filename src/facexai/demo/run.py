"""Runs the demonstration: figures, a JSON with every number, and a few plain sentences."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import facexai
from facexai import io
from facexai._errors import require
from facexai.demo.measure import LIMIT, PEOPLE, measure

_CAUTION = "Two people illustrate how the system works; they evaluate nothing."


def run(out: str | Path, *, say: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Runs the demonstration offline and writes its figures and ``demo.json``.

    Args:
        out: folder to write into; made where missing.
        say: called with a message after each step.

    Returns:
        Every number, as in ``demo.json``; the sentences under ``"sentences"``.

    Raises:
        ImportError: the extra ``demo`` is missing.
        OSError: the folder cannot be written.
    """
    require("matplotlib", extra="demo", purpose="the demonstration")
    from facexai import plots
    from facexai.demo.figures import FIGURES

    out = io.output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    measured = measure()
    say("measured")
    for name, draw in FIGURES.items():
        plots.save(draw(measured), out / f"{name}.png")
        say(f"{name}.png")
    sentences = sentences_of(measured.numbers)
    report = {
        **measured.numbers,
        "sentences": sentences,
        "versions": {"facexai": facexai.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "seconds": round(time.perf_counter() - start, 1),
    }
    io.write_json(out / "demo.json", report)
    say("demo.json")
    return report


def sentences_of(numbers: dict[str, Any]) -> list[str]:
    """Returns plain sentences, each from measured numbers alone."""
    first, second = (p.name for p in PEOPLE)
    apart, blend = numbers["distance_between_the_two"], numbers["blend"]
    verdict = "different people" if apart >= LIMIT else "the same person"
    passes = [name for name in (first, second) if blend[name] < LIMIT]
    as_whom = " and as ".join(passes) if passes else "neither of them"
    said = [
        f"The network sees {first} and {second} {apart:.2f} apart; its limit is {LIMIT}, so it calls them {verdict}.",
        f"Their 50/50 blend is {blend[first]:.2f} from {first} and {blend[second]:.2f} from {second}: "
        f"one picture passes as {as_whom}.",
        f"On the way from one face to the other, {numbers['share_of_the_slide_accepted_as_both']:.0%} "
        "of the blends pass as both.",
    ]
    told = ", ".join(f"{row['second']} {row['cosine']:.2f}" for row in numbers["pairs"])
    said.append(f"Compared with {first}'s portrait, by the cosine of centred descriptors: {told}.")
    bands = "; ".join(
        "{second}: {low:.1f} to {high:.1f} ({influence:+.2f})".format(
            second=row["second"],
            low=row["strongest_band"]["cycles_per_face"][0],
            high=row["strongest_band"]["cycles_per_face"][1],
            influence=row["strongest_band"]["influence"],
        )
        for row in numbers["pairs"]
    )
    said.append(
        "The band of frequencies whose loss in both pictures changes each of these cosines most, in cycles per breadth "
        f"of the face: {bands}."
    )
    edited = numbers["counterfactuals"]
    said.append(
        f"Of {edited['drawn_faces_with_glasses']} drawn faces with glasses FastDiME edits "
        f"{edited['without_glasses_to_the_classifier']} so that a classifier sees none, with "
        f"{edited['free_to_change']:.0%} of the pixels free to change."
    )
    area = numbers["eye_region_share_of_picture"]
    for row in numbers["pasted_eyes"]:
        donor, host = row["eyes_of"], row["face_of"]
        said.append(
            f"{donor}'s eyes pasted into {host}'s face move the picture from {row['distance_before'][donor]:.2f} to "
            f"{row['distance'][donor]:.2f} from {donor}, and from {row['distance_before'][host]:.2f} to "
            f"{row['distance'][host]:.2f} from {host}."
        )
        for method, shares in row["share_inside"].items():
            inside, without = shares[f"towards {donor}"], shares["same map without the paste"]
            told = "points at them" if inside > max(area, without) else "does not point at them"
            said.append(
                f"{method} towards {donor} {told}: {inside:.0%} of the map lies on them, which are {area:.0%} of the "
                f"picture; before they were pasted, {without:.0%}."
            )
    return [*said, _CAUTION]
