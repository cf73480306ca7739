"""Section of class maps: why this person?"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from facexai._json import finite
from facexai.functional._decision import Verdict
from facexai.report.controls import controls, overall, recipes
from facexai.report.format import inside, name_of, number
from facexai.report.pictures import view
from facexai.report.regions import sentences, shares
from facexai.report.section import Page, Section, checked_names, image_of, verdict
from facexai.results import Saliency

QUESTION = "What in the photo speaks for this person?"
AGAINST = "What in the photo speaks for this person, and not for the look-alikes?"
WHOEVER = "What in the photo does the layer respond to, whoever it shows?"
NOBODY = "nobody"


def to_record(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.Saliency`."""
    why: Saliency = section.result
    count = min(len(why), page.most)
    names = checked_names(section, len(why))
    beside = controls(section.measured, why)
    items = [_item(why, n, names[n], section, page) | {"controls": beside[n]} for n in range(count)]
    return {
        "kind": "classes",
        "question": _question(why),
        "of": len(why),
        "items": items,
        "measured": overall(section.measured) if section.sample else [],
        "measured_by": recipes(section.measured),
    }


def _question(why: Saliency) -> str:
    if why.recipe.get("class_specific", True) is False:
        return WHOEVER
    return QUESTION if why.rivals is None else AGAINST


def _item(why: Saliency, n: int, name: str | None, section: Section, page: Page) -> dict[str, Any]:
    image = image_of(section, n)
    asked, score, scale = why.name(int(why.targets[n])), float(why.scores[n]), why.recipe.get("scale")
    method, title = str(why.recipe.get("method", "map")), name or f"photo {n + 1}"
    masks = page.masks_for(why.size)
    rows = [] if masks is None else shares(why.maps[n], masks)
    texts = sentences(rows, _subject(why, asked))
    alt = f"{method} for {inside(asked)} over {inside(title)}. {texts[0] if texts else ''}".strip()
    shown = f"{method}: {inside(asked)}"
    views = [view(page.album, why.cells[n], why.size, image, title=shown, unit=why.unit, alt=alt)]
    record: dict[str, Any] = {"name": title, "asked": name_of(asked), "score": finite(score), "unit": "logit"}
    record["cosine"] = finite(score / scale) if scale else None
    record |= _decision(why, n, record["cosine"], page)
    record["rivals"] = []
    if why.rivals is not None and why.rival_scores is not None and why.class_cells is not None:
        views.append(_class_view(why, n, 0, asked, score, image, page))
        for k, (rival, value) in enumerate(zip(why.rivals[n].tolist(), why.rival_scores[n].tolist(), strict=True)):
            who, cosine = why.name(rival), finite(value / scale) if scale else None
            record["rivals"].append({"name": name_of(who), "score": finite(value), "cosine": cosine})
            views.append(_class_view(why, n, k + 1, who, value, image, page))
    if why.constant is not None:
        record["constant"] = finite(why.constant[n])
    return record | {"views": views, "regions": rows, "sentences": texts}


def _decision(why: Saliency, n: int, cosine: float | None, page: Page) -> dict[str, Any]:
    """Returns the decision, if the explained class is the nearest: the answer has no score of others."""
    if why.predicted is None:
        return {"nearest": None, "decision": None, "threshold": None}
    limit, accepted, near = Verdict.of(None, None) if cosine is None else verdict(cosine, None, why.recipe, page)
    nearest, own = int(why.predicted[n]), int(why.predicted[n]) == int(why.targets[n])
    who = name_of(why.name(nearest))
    decision = None if not own else who if accepted is not False else NOBODY
    return {"nearest": who, "decision": decision, "threshold": limit, "near": own and near}


def _subject(why: Saliency, who: str) -> str:
    """Returns what a map shows, in words; a magnitude has no sign, and some maps are of no class."""
    if why.recipe.get("class_specific", True) is False:
        return "what the layer responds to"
    if "magnitude" in why.unit:
        return f"the map of {inside(who)}"
    return f"what speaks for {inside(who)}{' rather than the others' if why.rivals is not None else ''}"


def _class_view(
    why: Saliency, n: int, k: int, who: str, score: float, image: Tensor | None, page: Page
) -> dict[str, Any]:
    assert why.class_cells is not None
    title, cells = f"class map: {inside(who)}, {number(score)}", why.class_cells[n, k]
    return view(page.album, cells, why.size, image, title=title, unit=why.class_unit, alt=f"Class map of {inside(who)}")
