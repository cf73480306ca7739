"""Measures recognition on labelled faces, alone and against a reference network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch.nn.functional as F

from facexai.functional import auc
from facexai.models._finding import Finding
from facexai.models.face_model import FaceModel
from facexai.models.gallery import Gallery
from facexai.models.input_variants import (
    FEWEST,
    Labelled,
    Moments,
    Pairs,
    Variant,
    clearly_better,
    cosines,
    draws,
    labelled,
)

if TYPE_CHECKING:
    from facexai.images import AlignMode

AUC_FLOOR, SEPARATION_FLOOR = 0.8, 1.0
"""Below these a network does not recognise people, whatever its input."""

ALIKE = 0.99
"""Where every pair of faces has a higher cosine, the network hardly distinguishes faces."""

_GAIN = 0.03  # of separation; less is no reason to doubt a network


def recognises(variants: Sequence[Variant]) -> tuple[bool, str]:
    """Returns whether any way to prepare the input reaches both floors, and the best values in words."""
    best = variants[0]
    chance = max(variant.auc for variant in variants)
    low, high = best.interval
    words = f"AUC {chance:.4f}, separation {best.separation:.2f} ({low:.2f} to {high:.2f} over people)"
    return chance >= AUC_FLOOR and best.separation >= SEPARATION_FLOOR, words


@final
@dataclass(frozen=True)
class Comparison:
    """A network and a reference on the same faces.

    Attributes:
        own, reference: (AUC, separation d') of each.
        behind: bounds of the reference's separation minus the network's, 95 % by bootstrap over people.
        people: how many people, or pairs.
    """

    own: tuple[float, float]
    reference: tuple[float, float]
    behind: tuple[float, float]
    people: int

    @property
    def worse(self) -> bool:
        """Returns whether the reference separates people better, by more than noise and by more than a trifle."""
        return self.behind[0] > 0 and self.reference[1] > (1 + _GAIN) * self.own[1]

    @property
    def judged(self) -> bool:
        """Returns whether there are enough people."""
        return self.people >= FEWEST

    def __str__(self) -> str:
        (chance, separation), (other_chance, other) = self.own, self.reference
        difference = f"{self.behind[0]:+.2f} to {self.behind[1]:+.2f} over people"
        return (
            f"AUC {chance:.4f}, separation {separation:.2f}; reference {other_chance:.4f}, {other:.2f} ({difference})"
        )


def reference_of(given: Any, pairs: Pairs | None) -> FaceModel | None:
    """Returns the reference network.

    Raises:
        TypeError: it is no FaceModel and no gallery. ValueError: there are no faces to compare on.
    """
    if given is None:
        return None
    model = given.model if isinstance(given, Gallery) else given
    if not isinstance(model, FaceModel):
        raise TypeError(
            f"expected reference as a FaceModel or a gallery, got {type(given).__name__}; zoo.load('dlib-resnet29')"
        )
    if pairs is None:
        raise ValueError("a reference is compared on labelled faces; pass them, doctor(model, faces, reference=...)")
    return model


def compared(
    model: FaceModel,
    reference: FaceModel,
    faces: Labelled,
    pairs: Pairs,
    *,
    align: AlignMode,
    most: int | None,
    batch_size: int,
) -> Comparison | None:
    """Compares a network with a reference on the same faces; returns None if one of them fails on them.

    Args:
        model: the network.
        reference: a network that is known to recognise people.
        faces: at the network's size.
        pairs: what they were made of: photos of a folder are read again at the reference's size, tensors are resized
            where it is another.
        align, most, batch_size: as for the doctor.
    """
    size = reference.spec.height_width
    if isinstance(pairs, str | Path):
        theirs = labelled(reference, pairs, align=align, most=most)
    else:
        images = faces.images.to(reference.device)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
        theirs = replace(faces, images=images)
    scores = cosines(model, model.spec, faces, batch_size)
    others = cosines(reference, reference.spec, theirs, batch_size)
    if scores is None or others is None:
        return None
    people = int(faces.owner.max()) + 1
    own, other = Moments(scores, faces), Moments(others, faces)
    drawn = [other.separation(weights) - own.separation(weights) for weights in draws(people)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    values = [(auc(s, faces.same), m.separation()) for s, m in ((scores, own), (others, other))]
    return Comparison(values[0], values[1], (float(low), float(high)), people)


def of_input(model: FaceModel, variants: tuple[Variant, ...], people: int) -> Iterator[Finding]:
    """Returns whether the input is prepared rightly, and whether the network recognises people at all."""
    if people < FEWEST:
        found = f"not judged: {people} people or pairs, at least {FEWEST} are needed"
        yield Finding("input", "note", found, "give faces of more people")
        return
    own = next((v for v in variants if v.spec == model.spec), None)
    if own is None:
        yield Finding("input", "bad", f"the network fails on {model.spec}")
        return
    best = variants[0]
    found = f"{own.name}: separation {own.separation:.2f}, AUC {own.auc:.4f}"
    if own is not best and clearly_better(best, own):
        advice = f"say FaceModel(net, {best.spec!r})"
        found += f"; {best.name} separates better: {best.separation:.2f}, {best.auc:.4f}"
        yield Finding("input", "bad", found, advice)
    else:
        yield Finding("input", "good", f"{found}; no other way separates clearly better")
    enough, best_words = recognises(variants)
    if enough:
        yield Finding("recognition", "good", f"{best_words}, by the best way to prepare the input")
        return
    found = f"people are hardly told apart, however the input is prepared: {best_words}"
    floor = f"at least {AUC_FLOOR} and {SEPARATION_FLOOR:g} are expected"
    advice = f"{floor}: weights not loaded, wrongly converted, or crops are not faces"
    yield Finding("recognition", "bad", found, advice)


def of_reference(comparison: Comparison | None) -> Finding:
    """Returns whether the network recognises people as well as the reference."""
    if comparison is None:
        return Finding("reference", "bad", "not compared: one of the networks fails on the faces")
    if not comparison.judged:
        found = f"not judged: {comparison.people} people or pairs, at least {FEWEST} are needed; {comparison}"
        return Finding("reference", "note", found, "give faces of more people")
    if comparison.worse:
        advice = (
            "if this network should be as good: wrongly converted (padding, epsilon, order of axes), or other crops"
        )
        return Finding("reference", "bad", str(comparison), advice)
    return Finding("reference", "good", str(comparison))
