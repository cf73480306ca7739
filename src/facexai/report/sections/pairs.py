"""Section of pair maps: why do these two match, or not?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from facexai._json import finite
from facexai.report.controls import controls, overall, recipes
from facexai.report.format import inside
from facexai.report.pictures import view
from facexai.report.regions import sentences, shares
from facexai.report.section import Page, Section, checked_names, image_of, verdict
from facexai.results import PairSaliency

_PARTNERS = 4  # cells of the other face that a cell shows

SIDES = ("first", "second")


def to_record(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.PairSaliency`."""
    why: PairSaliency = section.result
    names = checked_names(section, len(why), pairs=True)
    beside = controls(section.measured, why)
    items = [_item(why, p, names[p], section, page) | {"controls": beside[p]} for p in range(min(len(why), page.most))]
    return {
        "kind": "pairs",
        "question": "What in each face speaks for the two being one person, and what against?",
        "of": len(why),
        "items": items,
        "measured": overall(section.measured) if section.sample else [],
        "measured_by": recipes(section.measured),
    }


def _item(why: PairSaliency, p: int, name: Any, section: Section, page: Page) -> dict[str, Any]:
    images, unit = image_of(section, p), str(why.recipe.get("unit", "signed"))
    titles = list(name) if isinstance(name, tuple) else [f"{side} face" for side in SIDES]
    limit, accepted, near = verdict(why.scores[p], why.threshold, why.recipe, page)
    sides = []
    for side in (0, 1):
        masks = page.masks_for(why.size)
        rows = [] if masks is None else shares(why.maps[p, side], masks)
        said = _said(rows, SIDES[side], unit)
        alt = f"{why.recipe.get('method', 'map')} over {inside(titles[side])}. {said[0] if said else ''}".strip()
        shown = view(
            page.album,
            why.cells[p, side],
            why.size,
            None if images is None else images[side],
            title=inside(titles[side]),
            unit=unit,
            alt=alt,
            blur=_blur(why),
            whole=why.table is not None,  # correspondences are told cell by cell
        )
        sides.append({"view": shown, "regions": rows, "sentences": said})
    joined = name if isinstance(name, str) else pair_name(titles) if name is not None else f"pair {p + 1}"
    result: dict[str, Any] = {"name": joined, "score": finite(why.scores[p]), "unit": "cosine", "threshold": limit}
    result |= {"decision": None if accepted is None else "match" if accepted else "no match", "near": near}
    result |= {"one_sign": [bool(v) for v in why.one_sign[p]], "sides": sides}
    result["matches"] = None if why.table is None else _matches(why.table[p])
    return result


def pair_name(names: Sequence[str]) -> str:
    """Returns the name of a pair."""
    return " and ".join(inside(one) for one in names)


def _said(rows: list[dict[str, float | str | None]], side: str, unit: str) -> list[str]:
    """Returns sentences about one face's regions; a magnitude has no sign."""
    if "magnitude" in unit:
        return sentences(rows, f"the map of the {side} face")
    said = sentences(rows, f"what speaks for a match in the {side} face")
    return said + sentences(rows, f"what speaks against it in the {side} face", "against")[:1]


def _blur(why: PairSaliency) -> float:
    """Returns the blur (pixels) of drawn maps with a value per pixel, as in :meth:`PairSaliency.plot`."""
    return why.size[1] * 5 / 112 if tuple(why.cells.shape[2:]) == why.size else 0.0


def _matches(table: Tensor) -> list[list[list[list[float]]]]:
    """Returns for each cell of both faces the cells of the other face with the largest products."""
    h, w = table.shape[:2]
    flat = table.detach().cpu().float().reshape(h * w, h * w)
    both = []
    for side in (flat, flat.T):
        values, places = torch.topk(side, min(_PARTNERS, h * w), dim=1)
        both.append(
            [
                [[float(cell), float(f"{value:.4g}")] for cell, value in zip(cells, held, strict=True) if value > 0]
                for cells, held in zip(places.tolist(), values.tolist(), strict=True)
            ]
        )
    return both
