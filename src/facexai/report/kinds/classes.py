"""Class maps: why this person?"""

from __future__ import annotations

from typing import Any

from facexai.report.charts import number
from facexai.report.controls import controls, overall
from facexai.report.pictures import view
from facexai.report.regions import sentences, shares
from facexai.report.section import Page, Section, checked_names, finite, image_of
from facexai.results import Saliency

QUESTION = "What in the photo speaks for this person?"
AGAINST = "What in the photo speaks for this person, and not for the look-alikes?"


def told(section: Section, page: Page) -> dict[str, Any]:
    """What the page says about a :class:`~facexai.Saliency`."""
    why: Saliency = section.result
    count = min(len(why), page.most)
    names = checked_names(section, len(why))
    beside = controls(section.measured, len(why))
    items = [_item(why, n, names[n], section, page) | {"controls": beside[n]} for n in range(count)]
    return {
        "kind": "classes",
        "question": QUESTION if why.rivals is None else AGAINST,
        "of": len(why),
        "items": items,
        "measured": overall(section.measured) if section.sample else [],
    }


def _item(why: Saliency, n: int, name: str | None, section: Section, page: Page) -> dict[str, Any]:
    image = image_of(section, n)
    who, score, scale = why.name(int(why.targets[n])), float(why.scores[n]), why.recipe.get("scale")
    method, title = str(why.recipe.get("method", "map")), name or f"photo {n + 1}"
    unit = "share of the largest" if method.startswith("SDD") else "logit"
    masks = page.masks_for(why.size)
    rows = [] if masks is None else shares(why.maps[n], masks)
    said = sentences(rows, f"what speaks for {who}{' rather than the others' if why.rivals is not None else ''}")
    alt = f"{method} for {who} over {title}. {said[0] if said else ''}".strip()
    views = [view(page.album, why.cells[n], why.size, image, title=f"{method}: {who}", unit=unit, alt=alt)]
    made: dict[str, Any] = {"name": title, "decision": who, "score": finite(score), "unit": "logit"}
    made["cosine"] = finite(score / scale) if scale else None
    made["rivals"] = []
    if why.rivals is not None and why.rival_scores is not None and why.class_cells is not None:
        for k, (rival, value) in enumerate(zip(why.rivals[n].tolist(), why.rival_scores[n].tolist(), strict=True)):
            made["rivals"].append(
                {"name": why.name(rival), "score": finite(value), "cosine": finite(value / scale) if scale else None}
            )
            if k == 0:
                views.append(_class_view(why, n, 0, who, score, image, page))
            views.append(_class_view(why, n, k + 1, why.name(rival), value, image, page))
    if why.constant is not None:
        made["constant"] = finite(why.constant[n])
    return made | {"views": views, "regions": rows, "sentences": said}


def _class_view(why: Saliency, n: int, k: int, who: str, score: float, image: Any, page: Page) -> dict[str, Any]:
    assert why.class_cells is not None
    title = f"class map: {who}, {number(score)}"
    return view(
        page.album, why.class_cells[n, k], why.size, image, title=title, unit="logit", alt=f"Class map of {who}"
    )
