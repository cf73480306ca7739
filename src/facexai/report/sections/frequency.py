"""Section of frequency heat plots: which spatial frequencies does the decision use?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor

from facexai._json import finite
from facexai.report.format import name_of, number, rough
from facexai.report.pictures import disc
from facexai.report.section import Page, Section, checked_names, image_of
from facexai.report.sections.pairs import pair_name
from facexai.results import FrequencyHeat

MARKS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Ticks of the axis, in cycles per face width."""

_OCTAVES = (4.0, 8.0, 16.0)  # in cycles per breadth of the face


def to_record(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.FrequencyHeat`."""
    heat: FrequencyHeat = section.result
    if section.measured:
        raise ValueError("bands of frequencies take no measured=; metrics of maps do not judge them")
    names = checked_names(section, len(heat), pairs=heat.targets is None)
    items = [_item(heat, p, names[p], section, page) for p in range(min(len(heat), page.most))]
    return {
        "kind": "frequency",
        "question": "Which spatial frequencies decide: coarse shape or fine texture?",
        "of": len(heat),
        "items": items,
        "mean": _bands(heat, _rings(heat.influence).mean(0)) if len(heat) > 1 else None,
        "marks": [mark for mark in MARKS if mark <= float(heat.face_edges[-1])],
        "unit": str(heat.recipe.get("unit", "score")),
        "how": _how(heat),
        "tried": _tried(heat),
        "directions": _directions(heat),
        "measured": [],
        "measured_by": [],
    }


def _class(heat: FrequencyHeat, target: int) -> str:
    return str(target) if heat.names is None else name_of(heat.names[target])


def _directions(heat: FrequencyHeat) -> int:
    """Returns the number of parts of each band that were removed one at a time."""
    return 1 if heat.influence.ndim == 2 else int(heat.influence.shape[2])


def _tried(heat: FrequencyHeat) -> str | None:
    """Returns whether all, some or none of the bands were removed; None: not recorded."""
    mode = heat.recipe.get("mode")
    if mode == "hybrid":
        tried = heat.recipe.get("exact_bands")
        return "all" if isinstance(tried, int) and tried >= heat.influence[0].numel() else "some"
    return {"exact": "all", "preview": "none"}.get(str(mode))


def _how(heat: FrequencyHeat) -> str:
    """Returns in words how the influence was measured; gradients only estimate it."""
    lost = {"first": "of the first face", "second": "of the second face", "both": "of both faces together"}
    where = lost.get(str(heat.recipe.get("masked")), "of the pair" if heat.targets is None else "of the photo")
    tried, several = _tried(heat), _directions(heat)
    summed = "" if several == 1 else f"; a band stands with the sum over its {several} directions"
    if tried is None:
        return f"the result does not tell whether bands {where} were taken out or estimated{summed}"
    if tried == "none":
        return f"estimated from gradients, to first order: nothing {where} was taken out{summed}"
    if tried == "some":
        count, what = heat.recipe.get("exact_bands"), "bands" if several == 1 else "single directions of bands"
        return f"{what} {where}: the {count} of most energy were taken out, the others estimated from gradients{summed}"
    return f"each {'band' if several == 1 else 'direction of each band'} {where} was taken out alone{summed}"


def _rings(influence: Tensor) -> Tensor:
    """Returns the influence of bands (P, B) over all directions."""
    return influence if influence.ndim == 2 else influence.sum(2)


def _bands(heat: FrequencyHeat, values: Tensor) -> list[dict[str, Any]]:
    face, whole = heat.face_edges.tolist(), heat.edges.tolist()
    return [
        {
            "low": finite(face[b]),
            "high": finite(face[b + 1]),
            "image_low": finite(whole[b]),
            "image_high": finite(whole[b + 1]),
            "influence": finite(value),
        }
        for b, value in enumerate(values.tolist())
    ]


def _item(heat: FrequencyHeat, p: int, name: Any, section: Section, page: Page) -> dict[str, Any]:
    image = image_of(section, p)
    shown = [] if image is None else [image] if image.ndim == 3 else list(image)
    one = "photo" if heat.targets is not None else "pair"
    title = pair_name(name) if isinstance(name, tuple) else str(name or f"{one} {p + 1}")
    halves = heat.influence[p][None].repeat_interleave(2, 0) if heat.sides is None else heat.sides[p]
    values = _rings(heat.influence)[p]
    return {
        "name": title,
        "decision": None,
        "asked": None if heat.targets is None else _class(heat, int(heat.targets[p])),
        "score": finite(heat.scores[p]),
        "unit": str(heat.recipe.get("unit", "score")),
        "photos": [page.album.add(image) for image in shown],
        "disc": disc(page.album, halves if halves.ndim == 3 else halves[..., None], heat.edges),
        "halves": heat.sides is not None,
        "bands": _bands(heat, values),
        "sentences": _sentences(heat, values),
    }


def _sentences(heat: FrequencyHeat, values: Tensor) -> list[str]:
    """Returns sentences on the strongest band and on the shares of octaves."""
    if not bool(values.any()):
        return ["No band has any influence."]
    face, unit = heat.face_edges.tolist(), str(heat.recipe.get("unit", "score"))
    best = int(values.abs().argmax())
    value, several = float(values[best]), _directions(heat)
    size, about = number(abs(value)), "" if _tried(heat) == "all" else "about "
    if several > 1:
        lost = f"what the {unit} {'loses' if value > 0 else 'gains'} without its {several} directions, one at a time, "
        way = f"{lost}adds up to {about}{size}"
    elif about:
        way = f"without it the {unit} would {'fall' if value > 0 else 'rise'} by {about}{size}"
    else:
        way = f"without it the {unit} {'falls' if value > 0 else 'rises'} by {size}"
    said = [f"The strongest band is {number(face[best])} to {number(face[best + 1])} cycles per face: {way}."]
    # bands are told whole: an octave begins at the edge that is nearest to it
    nearest = {min(range(len(face)), key=lambda e: abs(face[e] - mark)) for mark in _OCTAVES}
    bounds = sorted(nearest - {0, len(face) - 1} | {0, len(face) - 1})
    total = float(values.abs().sum())
    parts = [
        f"{rough(float(values[low:high].abs().sum()) / total)} at {number(face[low])} to {number(face[high])}"
        for low, high in pairwise(bounds)
    ]
    return [*said, f"Of the size of all influence, by cycles per face: {', '.join(parts)}."]
