"""Section of counterfactuals: what would have to change?"""

from __future__ import annotations

from typing import Any

from facexai._json import finite, plain
from facexai.report.format import apart, inside, number, rough
from facexai.report.pictures import view
from facexai.report.section import Page, Section, checked_names
from facexai.results import Counterfactual

_SAME = 1 / 255  # by which saved images may differ from those that were edited


def to_record(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.Counterfactual`."""
    found: Counterfactual = section.result
    names = checked_names(section, len(found))
    if any(not isinstance(one, Counterfactual) for one in section.measured) or len(section.measured) > 1:
        raise TypeError("counterfactuals are measured by one Counterfactual, explainer.no_op(images)")
    control = section.measured[0] if section.measured else None
    if control is not None:
        _check_control(control, found)
    flipped = int(found.flipped.sum())
    return {
        "kind": "counterfactuals",
        "question": "What would have to change in the picture for the decision to be another one?",
        "of": len(found),
        "flipped": flipped,
        "items": [_item(found, control, n, names[n], page) for n in range(min(len(found), page.most))],
        "measured": [],
        "measured_by": [] if control is None else [{"measured": "no-op control", **plain(control.recipe)}],
    }


def _check_control(control: Counterfactual, found: Counterfactual) -> None:
    """Refuses a control that is not the same pipeline without guidance on the same images.

    Raises:
        ValueError: other images, some guidance, or another recipe.
    """
    if control.images.shape != found.images.shape:
        raise ValueError(f"expected a no-op control of the {len(found)} images, got one of {len(control)}")
    if float((control.images.cpu().float() - found.images.cpu().float()).abs().max()) > _SAME:
        raise ValueError("the control is about other images; give explainer.no_op(images) of these")
    if bool(control.scales.any()):
        raise ValueError(
            f"expected a control without guidance, got one with up to {float(control.scales.abs().max()):g}; give "
            "explainer.no_op(images)"
        )
    mine, theirs = (plain({**one.recipe, "scales": None}) for one in (found, control))
    if odd := [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]:
        raise ValueError(f"the control was made with another {odd[0]}; give explainer.no_op(images) of this explainer")


def _item(found: Counterfactual, control: Counterfactual | None, n: int, name: Any, page: Page) -> dict[str, Any]:
    size = (int(found.images.shape[-2]), int(found.images.shape[-1]))
    title, flipped = str(name or f"image {n + 1}"), bool(found.flipped[n])
    free, before, after = float(found.masks[n].float().mean()), float(found.before[n]), float(found.after[n])
    moved, digits = _moved(found, n), apart(before, after)
    change = view(
        page.album,
        found.differences[n],
        size,
        found.images[n],
        title="change of brightness, after minus before",
        unit="brightness",
        alt=f"Where the edit of {inside(title)} is brighter or darker",
    )
    said = (
        f"{rough(free)} of the pixels were free to change. Over the whole picture values moved by {number(moved)} "
        f"of 1 on average, and the score went from {number(before, digits)} to {number(after, digits)}."
    )
    return {
        "name": title,
        "decision": None,  # what an edit changed is no decision about the photo
        "flipped": flipped,
        "score": finite(found.after[n]),
        "unit": "logit",
        "before": finite(found.before[n]),
        "after": finite(found.after[n]),
        "guidance": finite(found.scales[n]),
        "passes": int(found.calls[n]),
        "free": finite(free),
        "moved": finite(moved),
        "photo": page.album.add(found.images[n]),
        "edited": page.album.add(found.counterfactuals[n]),
        "alt": f"What {inside(title)} would have to be: {'the' if flipped else 'NOT the'} decision changed",
        "change": change,
        "path": [finite(value) for value in found.path[n].tolist()],
        "sentences": [said],
        "control": None if control is None else {"after": finite(control.after[n]), "moved": _moved(control, n)},
    }


def _moved(found: Counterfactual, n: int) -> float:
    """Returns the change over the whole picture, so that it compares with the control's."""
    return float((found.counterfactuals[n] - found.images[n]).abs().mean())
