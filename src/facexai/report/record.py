"""The record of a report: everything that a page shows, as JSON."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import facexai
from facexai._json import finite, plain
from facexai.evaluate import Results
from facexai.metrics import Bias, Roc, ShortcutAudit, Table
from facexai.models import FaceModel, Gallery
from facexai.report.caveats import GENERAL, limits
from facexai.report.section import Page, RecordedFinding, Section, checked_images
from facexai.report.sections import classes, counterfactuals, findings, frequency, gallery, pairs
from facexai.report.thresholds import network_of
from facexai.results import Counterfactual, FrequencyHeat, GallerySaliency, PairSaliency, Saliency

FORMAT = 1

_SECTIONS: tuple[tuple[type | tuple[type, ...], Callable[[Section, Page], dict[str, Any]]], ...] = (
    (Saliency, classes.to_record),
    (PairSaliency, pairs.to_record),
    (GallerySaliency, gallery.to_record),
    (FrequencyHeat, frequency.to_record),
    (Counterfactual, counterfactuals.to_record),
    ((Table, Results), findings.table),
    (Bias, findings.groups),
    (ShortcutAudit, findings.shortcut),
    (Roc, findings.roc),
)


def record_of(sections: Mapping[str, Section], page: Page, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns everything that a page shows, as the schema describes it; ``about``: title, date, model.

    Raises:
        TypeError: a result of a kind that reports do not support.
        ValueError: results of another network than the model that was given.
    """
    model: FaceModel | Gallery | None = about["model"]
    told = [_section(f"section-{k + 1}", name, one, page) for k, (name, one) in enumerate(sections.items())]
    _belong(told, model)
    decisions = _decisions(told)
    known: dict[str, dict[str, None]] = {}
    for section in told:
        for one in limits(section):
            known.setdefault(one["about"], {}).update(dict.fromkeys(one["limits"]))
    return {
        "format": FORMAT,
        "title": about["title"],
        "made": about["made"],
        "threshold": page.thresholds.record(any(row["threshold"] is not None for row in decisions)),
        "networks": _networks(told, model, _people(sections.values(), model)),
        "regions": _regions(page),
        "decisions": decisions,
        "sections": told,
        "general_limits": list(GENERAL),
        "limits": [{"about": about, "limits": list(said)} for about, said in known.items()],
        "seeds": [
            {"section": s["id"], "heading": s["heading"], "seed": seed}
            for s in told
            for seed in _seeds([s["recipe"], s["measured_by"]])
        ],
        "versions": {
            "facexai": facexai.__version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _section(key: str, heading: str, section: Section, page: Page) -> dict[str, Any]:
    made = _result_record(heading, section, page)
    recipe = plain(getattr(section.result, "recipe", made.pop("recipe", None)) or _recipe(section.result))
    method = str(recipe.get("method", made["kind"])) if isinstance(recipe, Mapping) else made["kind"]
    if section.of is not None and section.of < len(made["items"]):
        raise ValueError(f"{heading!r}: of={section.of}, but the result holds {made['of']} items")
    record = {"id": key, "heading": heading, "method": method, "note": section.note or "", **made, "recipe": recipe}
    return record if section.of is None else record | {"of": section.of}


def _result_record(heading: str, section: Section, page: Page) -> dict[str, Any]:
    """Returns the record of a section's result; errors name the section."""
    result = section.result
    if isinstance(result, RecordedFinding):
        return dict(result.record)
    to_record = next((to_record for kind, to_record in _SECTIONS if isinstance(result, kind)), None)
    if to_record is None:
        raise TypeError(
            f"{heading!r}: expected a result of facexai (Saliency, PairSaliency, GallerySaliency, FrequencyHeat, "
            f"Counterfactual, Table, Results, Bias, ShortcutAudit, Roc), got {type(result).__name__}"
        )
    try:
        _check_finite(result)
        _check_images(section)
        return to_record(section, page)
    except (ValueError, TypeError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{heading!r}: {error}") from error


_NUMBERS = (
    *("cells", "scores", "class_cells", "rival_scores", "constant", "table"),
    *("influence", "energies", "edges", "sides"),
    *("images", "counterfactuals", "before", "after", "scales", "path"),
)
"""The arrays of results that a page lists or draws."""


def _check_finite(result: Any) -> None:
    for name in _NUMBERS:
        part = getattr(result, name, None)
        if isinstance(part, Tensor) and part.is_floating_point() and not bool(torch.isfinite(part).all()):
            raise ValueError(f"expected finite numbers, got NaN or infinity in .{name}")


def _check_images(section: Section) -> None:
    result = section.result
    if isinstance(result, PairSaliency):
        shape: tuple[int, ...] = (2, 3, *result.size)
    elif isinstance(result, FrequencyHeat):
        shape = (3, *result.size) if result.targets is not None else (2, 3, *result.size)
    elif isinstance(result, Saliency | GallerySaliency):
        shape = (3, *result.size)
    else:
        return
    checked_images(section, shape, len(result))


def _recipe(result: Any) -> Any:
    if isinstance(result, Results):
        return {name: result.report[name] for name in ("run", "explainers") if name in result.report}
    return {}


def _decisions(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns every decision once, with the sections that explain it; a threshold comes with its cosine."""
    decisions: dict[tuple[Any, ...], dict[str, Any]] = {}
    for section in records:
        for item in section["items"]:
            if item["decision"] is None:
                continue
            row = {name: item.get(name) for name in ("name", "decision", "score", "unit", "threshold")}
            row["network"] = network_of(section["recipe"])
            if row["threshold"] is not None and item.get("cosine") is not None:
                row |= {"score": item["cosine"], "unit": "cosine"}
            key = tuple({**row, "score": f"{row['score']:.5g}"}.values())  # methods differ in the last bits
            decision = decisions.setdefault(key, {**row, "near": False, "explained_by": []})
            decision["near"] |= item.get("near", False)
            decision["explained_by"].append({"section": section["id"], "method": section["method"]})
    return list(decisions.values())


# ---- networks and seeds ---------------------------------------------------------------------------------------------


def _fingerprints(recipe: Any) -> Iterator[tuple[str, str]]:
    """Yields the name and the fingerprint of every network in a recipe."""
    if isinstance(recipe, Mapping):
        if isinstance(recipe.get("fingerprint"), str):
            words = (recipe.get(name) for name in ("model", "network", "denoiser", "decision"))
            yield next((str(word) for word in words if isinstance(word, str)), "network"), recipe["fingerprint"]
        for value in recipe.values():
            yield from _fingerprints(value)
    elif isinstance(recipe, Sequence) and not isinstance(recipe, str):
        for value in recipe:
            yield from _fingerprints(value)


def _seeds(recipe: Any) -> list[int]:
    """Returns every seed in a recipe, once."""
    seeds: dict[int, None] = {}
    if isinstance(recipe, Mapping):
        for name, value in recipe.items():
            if name in ("seed", "config seed") and isinstance(value, int) and not isinstance(value, bool):
                seeds[value] = None
            seeds |= dict.fromkeys(_seeds(value))
    elif isinstance(recipe, list):
        seeds |= dict.fromkeys(seed for value in recipe for seed in _seeds(value))
    return list(seeds)


def _belong(records: Sequence[Mapping[str, Any]], model: FaceModel | Gallery | None) -> None:
    """Refuses class maps, pairs, bands and tables of another network than the given one."""
    if model is None:
        return
    own = model.model.fingerprint
    for section in records:
        recipe = section["recipe"] if isinstance(section["recipe"], Mapping) else {}
        listed = recipe.get("explainers")
        by = [recipe, *(listed.values() if isinstance(listed, Mapping) else ())]  # a table has several
        other = next((m for one in by if isinstance(one, Mapping) and (m := network_of(one, own)) != own), None)
        if other is not None:
            raise ValueError(
                f"{section['heading']!r} was made with a network of fingerprint {other}, the model given has {own}; "
                "give the network that made the results, or leave model out"
            )


_UNDESCRIBED = {"parameters": None, "input": None, "people": None}
"""The description of a network of which only the fingerprint is known; see :func:`_described`."""


def _people(sections: Iterable[Section], model: FaceModel | Gallery | None) -> int | None:
    """Returns the number of enrolled people, if all results are about these people."""
    if not isinstance(model, Gallery):
        return None
    known = (one.result.names for one in sections if isinstance(one.result, Saliency | GallerySaliency))
    return len(model) if all(names is None or tuple(names) == model.names for names in known) else None


def _networks(
    records: Sequence[Mapping[str, Any]], model: FaceModel | Gallery | None, people: int | None
) -> list[dict[str, Any]]:
    """Returns every network that made a result: name, fingerprint and description."""
    networks: dict[str, dict[str, Any]] = {}
    if model is not None:
        made = {"name": repr(model.model), **_described(model), "people": people, "sections": []}
        networks[model.model.fingerprint] = made
    for section in records:
        for name, fingerprint in _fingerprints(section["recipe"]):
            network = networks.setdefault(fingerprint, {"name": name, **_UNDESCRIBED, "sections": []})
            if section["id"] not in network["sections"]:
                network["sections"].append(section["id"])
    return [{"fingerprint": fingerprint, **network} for fingerprint, network in networks.items()]


def _described(model: FaceModel | Gallery) -> dict[str, Any]:
    network = model.model
    spec = network.spec
    return {
        "parameters": sum(int(p.numel()) for p in network.net.parameters()) or None,
        "input": {
            "height": spec.height_width[0],
            "width": spec.height_width[1],
            "channels": spec.channels,
            "mean": plain(spec.mean),
            "std": plain(spec.std),
            "range": spec.range,
            "crop": list(spec.crop),
        },
    }


def _regions(page: Page) -> list[dict[str, Any]]:
    if page.masks is None:
        return []
    return [{"region": name, "area": finite(mask.double().mean())} for name, mask in page.masks.items()]
