"""Section of one face against all enrolled people."""

from __future__ import annotations

from typing import Any

from facexai._json import finite
from facexai.report.format import inside, name_of
from facexai.report.pictures import view
from facexai.report.section import Page, Section, checked_names, image_of, verdict
from facexai.report.sections.classes import NOBODY
from facexai.results import GallerySaliency

_PEOPLE = 5


def to_record(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.results.GallerySaliency`."""
    why: GallerySaliency = section.result
    if section.measured:
        raise ValueError("maps of all enrolled people take no measured=; metrics judge one map of each photo")
    names = checked_names(section, len(why))
    return {
        "kind": "classes",
        "question": "Where does the photo speak for and against everybody enrolled?",
        "of": len(why),
        "items": [_item(why, n, names[n], section, page) for n in range(min(len(why), page.most))],
        "measured": [],
        "measured_by": [],
    }


def _item(why: GallerySaliency, n: int, name: str | None, section: Section, page: Page) -> dict[str, Any]:
    image = image_of(section, n)
    title = name or f"photo {n + 1}"
    best = why.scores[n].argsort(descending=True)[:_PEOPLE].tolist()
    views = [
        view(
            page.album,
            why.cells[n, c],
            why.size,
            image,
            title=inside(why.names[c]),
            unit=str(why.recipe.get("unit", "signed")),
            alt=f"Map of {inside(why.names[c])} over {inside(title)}",
        )
        for c in best
    ]
    scores, people = [finite(why.scores[n, c]) for c in best], [name_of(why.names[c]) for c in best]
    limit, accepted, near = verdict(why.scores[n, best[0]], why.threshold, why.recipe, page)
    rivals = [{"name": who, "score": s, "cosine": s} for who, s in zip(people[1:], scores[1:], strict=True)]
    record: dict[str, Any] = {"name": title, "asked": None, "nearest": people[0]}
    record |= {"decision": NOBODY if accepted is False else people[0], "threshold": limit, "near": near}
    record |= {"score": scores[0], "unit": "cosine", "cosine": scores[0], "rivals": rivals, "views": views}
    return record | {"regions": [], "sentences": [], "controls": []}
