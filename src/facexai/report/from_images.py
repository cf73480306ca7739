"""Makes a report from photos: explanations, measurements with controls, comparison with the nearest identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facexai import images, metrics
from facexai.explainers import FGGB, SDD, CorrRISE, FrequencyHeatPlot, HiResCAM, PairCAM
from facexai.models import FaceModel, Gallery
from facexai.report.section import Section

MOST_PHOTOS = 64
"""More are a data set: see :mod:`facexai.evaluate`."""


def of_people(
    faces: Tensor,
    names: Sequence[str],
    people: Gallery,
    enrolled: Callable[[str], Tensor | None],
    *,
    threshold: float | None,
    area: float = 0.2,
    seed: int = 0,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Section]:
    """Makes sections about photos: identity with controls, frequencies, and the match with the enrolled photo.

    Args:
        faces: (N, 3, H, W) prepared for the network.
        names: of the photos.
        people: the enrolled people, at least two.
        enrolled: gives a photo (1, 3, H, W) of a person, or None.
        threshold: cosine from which a pair is accepted, or None.
        area, seed: of deletion and retention.
        say: called with a message before each step.
    """
    say("explain")
    why = SDD(HiResCAM(people), rivals=min(4, len(people) - 1))(faces)
    say("measure")
    measured = [
        metrics.deletion(people, faces, why, area, seed=seed),
        metrics.retention(people, faces, why, area, seed=seed),
    ]
    sections = {"Why this person, and not a look-alike?": Section(why, measured, names)}
    say("frequencies")
    heat = FrequencyHeatPlot(people, mode="hybrid")(faces, why.targets)
    sections["Which frequencies decide"] = Section(heat, names=names)
    pairs = [(n, photo) for n in range(len(faces)) if (photo := enrolled(why.name(int(why.targets[n])))) is not None]
    if pairs:
        say("compare")
        rows = [n for n, _ in pairs]
        known = torch.cat([photo for _, photo in pairs])
        titles = [(names[n], f"enrolled photo of {why.name(int(why.targets[n]))}") for n in rows]
        matched = PairCAM(people.model, layer=why.recipe["layer"], threshold=threshold)(faces[rows], known)
        sections["What matched the enrolled photo"] = Section(
            matched, _pair_measured(people.model, faces[rows], known, matched, threshold, seed), titles
        )
    return sections


def of_pair(
    first: Tensor,
    second: Tensor,
    names: tuple[str, str],
    model: FaceModel,
    *,
    threshold: float | None,
    seed: int = 0,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Section]:
    """Makes sections about two faces: three pair methods with controls, and the frequencies that the decision uses.

    Args:
        first, second: (1, 3, H, W) prepared for the network.
        names: of the two photos.
        model: the network.
        threshold: cosine from which a pair is accepted; None: no verdict, and no FGGB, which needs one.
        seed: of CorrRISE's masks and of the controls.
        say: called with a message before each step.
    """
    methods: dict[str, Any] = {
        "What matched what": PairCAM(model, layer=model.layer("auto"), threshold=threshold),
        "Without gradients: what the cosine follows": CorrRISE(model, threshold=threshold, seed=seed),
    }
    if threshold is not None:
        methods["By gradients"] = FGGB(model, threshold)
    sections = {}
    for heading, explainer in methods.items():
        say(heading)
        why = explainer(first, second)
        sections[heading] = Section(why, _pair_measured(model, first, second, why, threshold, seed), [names])
    say("frequencies")
    heat = FrequencyHeatPlot(model, masked="both", mode="hybrid")(first, second)
    sections["Which frequencies decide"] = Section(heat, names=[names])
    return sections


def _pair_measured(
    model: FaceModel, first: Tensor, second: Tensor, why: Any, threshold: float | None, seed: int
) -> list[metrics.PairCurve]:
    """Returns deletion and insertion of the evidence for a match, measured by the cosine."""
    protocol = metrics.Protocol(pairs="all", threshold=0.0 if threshold is None else threshold)
    same = [True] * len(first)
    result = [
        measure(model, first, second, why, same, protocol, seed=seed)
        for measure in (metrics.verification_deletion, metrics.verification_insertion)
    ]
    if threshold is not None:
        return result
    unknown = ("threshold", "accepted from")  # the area under the cosine needs none: a report must not tell one
    return [replace(one, recipe={k: v for k, v in one.recipe.items() if k not in unknown}) for one in result]


def enrolled_photo(gallery: Path, model: FaceModel, **how: Any) -> Callable[[str], Tensor | None]:
    """Returns the first readable photo of a person of a gallery's folder, prepared for the network."""

    def photo(name: str) -> Tensor | None:
        folder = gallery / name
        for path in images.photo_files(folder) if folder.is_dir() else []:
            try:
                return images.fit_to_spec(images.load(path), model.spec, **how).image.to(model.device)
            except (ValueError, OSError):
                continue
        return None

    return photo
