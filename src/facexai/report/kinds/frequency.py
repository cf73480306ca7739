"""Frequency heat plots: what kind of information decides?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from facexai.report.charts import number
from facexai.report.pictures import disc
from facexai.report.section import Page, Section, checked_names, finite, image_of
from facexai.results import FrequencyHeat

MARKS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Of the axis, in cycles per breadth of the face."""


def told(section: Section, page: Page) -> dict[str, Any]:
    """What the page says about a :class:`~facexai.FrequencyHeat`."""
    heat: FrequencyHeat = section.result
    if section.measured:
        raise ValueError("bands of frequencies take no measured=; metrics of maps do not judge them")
    names = checked_names(section, len(heat))
    items = [_item(heat, p, names[p], section, page) for p in range(min(len(heat), page.most))]
    return {
        "kind": "frequency",
        "question": "Which spatial frequencies decide: coarse shape or fine texture?",
        "of": len(heat),
        "items": items,
        "mean": _bands(heat, _rings(heat.influence).mean(0)) if len(heat) > 1 else None,
        "marks": [mark for mark in MARKS if mark <= float(heat.face_edges[-1])],
        "unit": str(heat.recipe.get("unit", "score")),
        "measured": [],
        "measured_by": [],
    }


def _class(heat: FrequencyHeat, target: int) -> str:
    return str(target) if heat.names is None else heat.names[target]


def _rings(influence: Tensor) -> Tensor:
    """(P, B): over all directions."""
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
    title = " and ".join(map(str, name)) if isinstance(name, tuple | list) else str(name or f"{one} {p + 1}")
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
    """The strongest band, and how the influence divides into octaves."""
    if not bool(values.any()):
        return ["No band has any influence."]
    face, unit = heat.face_edges, str(heat.recipe.get("unit", "score"))
    best = int(values.abs().argmax())
    way = "falls" if float(values[best]) > 0 else "rises"
    said = [
        f"The strongest band is {number(float(face[best]))} to {number(float(face[best + 1]))} cycles per face: "
        f"without it the {unit} {way} by {number(abs(float(values[best])))}."
    ]
    total, middle, parts = float(values.abs().sum()), (face[1:] + face[:-1]) / 2, []
    for low, high in ((0.0, 4.0), (4.0, 8.0), (8.0, 16.0), (16.0, torch.inf)):
        share = float(values[(middle >= low) & (middle < high)].abs().sum()) / total
        where = f"{number(low)} and more" if high == torch.inf else f"{number(low)} to {number(high)}"
        parts.append(f"{100 * share:.0f} % at {where}")
    return [*said, f"Of the size of all influence, by cycles per face: {', '.join(parts)}."]
