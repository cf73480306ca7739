"""Synthetic faces drawn by formulas: their content is known, and they show no real person.

Only sums, products, roots, minima and integers of random bits are used, so that a face has the same bits on every
machine, alone or among others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._errors import suggest
from facexai._html import picture
from facexai.demo._sdf import FINE, Array, Canvas, Numbers, arc, box, ellipse, wave
from facexai.perturb.draws import check_items

SHARES = {"glasses": 0.5, "mask": 0.125, "smile": 0.5, "background": 0.5}
"""The probability of an attribute that is not fixed."""

_MOST_SHOWN = 12  # in a notebook
_AT_ONCE = 16  # faces whose arrays stay in the processor's cache

_SKINS = "f9dcc4 f1c7a3 e8b48b d49a6a b97a4f 95603c 75492f"
_HAIRS = "17130f 2b1d14 4a2f1d 6e4526 9a6a35 c99b52 e6c983 a5482a b9b5b0 6a5f78"
_IRISES = "2a1a10 4a2f1a 3f6b3a 2f6fa8 5a7d8c"
_LIPS = "b0413e c4574f 9c3a3a d0706a a8505c"
_RIMS = "0d0d10 1a1a22 2a1408 3a0a12 0a1638 102a1a"
_MASKS = "9fd3ea 9fd3ea f2f5f7 7fc4b4 20242a f2b6c6"
_SHIRTS = "b23a48 2f5d8a 3a7d44 e0a030 6b4c9a 44484f d9d9d9 1f7a8c"
_BRIGHT = "f7efc9 d4ecf7 dff3d3 f9dde3 f4f4f0 e6dcf5"
_DARK = "23304a 1f3b34 3d2336 3a2c20 26262b 15354a"


@final
@dataclass(frozen=True, eq=False)
class DrawnFaces:
    """Drawn faces with their attributes and regions.

    Attributes:
        images: (N, 3, H, W) float32, RGB in [0, 1].
        attributes: {name: (N,) bool}: ``"glasses"``, ``"mask"`` (over mouth and nose), ``"smile"``, ``"background"``
            (bright; else dark). A mask covers the mouth, whatever ``"smile"`` is.
        regions: {name: (N, H, W) bool}: the pixels that depend on the glasses, the ``"mouth"``, the mask or the
            background, whether or not the face has it.
    """

    images: Tensor
    attributes: Mapping[str, Tensor]
    regions: Mapping[str, Tensor]

    def _repr_html_(self) -> str:
        few = self.images[:_MOST_SHOWN]
        more = "" if len(few) == len(self.images) else f"; the first {len(few)} are shown"
        return picture(few.permute(1, 2, 0, 3).flatten(2), f"{len(self.images)} drawn faces{more}")


def faces(
    count: int,
    *,
    size: int = 32,
    seed: int = 0,
    attributes: Mapping[str, Tensor] | None = None,
    first: int = 0,
    people: Sequence[int] | None = None,
) -> DrawnFaces:
    """Draws faces, some 800 a second on one core at 32 pixels.

    Args:
        count: how many.
        size: pixels of a side, 16 to 256.
        seed: of everything. A face depends on it, its item, its person and its attributes, not on the other faces.
        attributes: {name: (count,) bool}, forced; the others are drawn with probability :data:`SHARES`. Two faces
            that differ in one forced attribute have the same pixels outside of its region, for a smile the mouth's.
        first: item of the first face; the others follow.
        people: a number for the person of each item; default: every item is another person. Two drawings of one person
            have geometry, colours, clothes and style of glasses in common, not pose, light, expression and noise.

    Raises:
        ValueError: a count, size or item out of range, an unknown attribute, or another number of people.
        TypeError: an attribute that is not a (count,) tensor of booleans.

    >>> two = faces(2, attributes={"glasses": torch.tensor([True, False])})
    >>> two.images.shape, two.attributes["glasses"]
    (torch.Size([2, 3, 32, 32]), tensor([ True, False]))
    """
    if count < 1 or not 16 <= size <= 256 or first < 0:
        raise ValueError(f"expected a count from 1, a size of 16 to 256, first from 0; got {count}, {size}, {first}")
    items = range(first, first + count)
    people = check_items(items if people is None else people, count)
    forced = _forced(attributes or {}, count)
    parts = []
    for start in range(0, count, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        wanted = {name: values[some] for name, values in forced.items()}
        person, photo = Numbers(seed, "person", people[some]), Numbers(seed, "photo", items[some], 3 * size * size)
        parts.append(_draw(person, photo, wanted, size))
    images, found, regions = zip(*parts, strict=True)
    return DrawnFaces(torch.from_numpy(np.concatenate(images)), _joined(found), _joined(regions))


def _joined(parts: Sequence[Mapping[str, NDArray[np.bool_]]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _forced(attributes: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    for name, values in attributes.items():
        if name not in SHARES:
            raise ValueError(f"expected attributes of {list(SHARES)}, got {name!r}; {suggest(name, list(SHARES))}")
        if not isinstance(values, Tensor) or values.dtype != torch.bool or values.shape != (count,):
            raise TypeError(f"expected attributes[{name!r}] as a ({count},) tensor of booleans, got {values!r:.80}")
    return {name: values.cpu() for name, values in attributes.items()}


def _draw(
    person: Numbers, photo: Numbers, forced: Mapping[str, Tensor], size: int
) -> tuple[Array, dict[str, NDArray[np.bool_]], dict[str, NDArray[np.bool_]]]:
    """Draws images, attributes and regions of a few faces, from back to front."""
    found = {name: photo.often(share)[:, 0, 0] > 0 for name, share in SHARES.items()}
    found |= {name: values.numpy() for name, values in forced.items()}
    on = {name: values.astype(np.float32)[:, None, None] for name, values in found.items()}
    canvas, head = Canvas(photo, size), _Head(person)
    covers = {"background": _person(canvas, head, person, photo, on["background"])}
    _eyes(canvas, head, person, photo)
    covers["mouth"] = _mouth(canvas, head, person, photo, on["smile"] * (1 - on["mask"]))
    covers["mask"] = np.maximum(_mask(canvas, head, person, on["mask"]), covers["mouth"])  # which it hides
    _fringe(canvas, head, person)
    covers["glasses"] = _glasses(canvas, head, person, on["glasses"])
    image: Array = np.add.reduce(_parts(_lit(canvas, photo))) / FINE**2
    grain = (photo.rest.reshape(image.shape) - 0.5) * photo(0.01, 0.07)[:, None]
    touched = {name: np.any(_parts(cover > 0), axis=0) for name, cover in covers.items()}
    return np.clip(image + grain, 0, 1), found, touched


def _parts(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Returns the sub-pixel points, each as a picture of its own."""
    return [values[..., i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)]


class _Head:
    """Geometry and colours of one person's head."""

    def __init__(self, person: Numbers) -> None:
        self.skin, self.hair = person.colour(_SKINS), person.colour(_HAIRS)
        self.width, self.height, self.jaw = person(0.5, 0.6), person(0.66, 0.78), person(0.05, 0.3)
        self.apart, self.eyes, self.mouth = person(0.21, 0.27), person(-0.1, 0.0), person(0.36, 0.43)
        self.bald, self.curls = person.often(0.1), person.often(0.3)
        self.volume = person(0.03, 0.13) + self.curls * person(0.0, 0.1)
        self.hair_on = 1 - self.bald

    def outline(self, canvas: Canvas, wider: Array | float = 0.0) -> Array:
        """Returns the distance from the edge of the head, which is narrower at the chin."""
        narrower = 1 - self.jaw * np.maximum(canvas.v, 0)
        return ellipse(canvas.u / narrower, canvas.v, self.width + wider, self.height + wider)


def _person(canvas: Canvas, head: _Head, person: Numbers, photo: Numbers, bright: Array) -> Array:
    """Draws background, hair behind, shoulders, neck, ears and head; returns the cover of the background."""
    light, dark, fade = photo.colour(_BRIGHT), photo.colour(_DARK), photo(-0.15, 0.15)[:, None]
    bright = bright[:, None]
    canvas.image += (light * bright + dark * (1 - bright)) * (1 + fade * canvas.y)
    u, v, below = canvas.u, canvas.v, head.skin * 0.82
    long, bun = person.often(0.4), person.often(0.15)
    volume = head.volume - head.bald * 0.3
    behind = ellipse(u, v + 0.08, head.width + volume, head.height + volume)
    behind = np.maximum(behind, v - 0.1)  # short hair ends at the ears
    behind = behind + head.curls * 0.22 * wave(u * 3.5) * wave(v * 3.5)
    hanging = box(u, v - 0.3, head.width + volume * 0.8, person(0.35, 0.62), 0.15) + (1 - long * head.hair_on) * 9
    knot = ellipse(u, v + head.height + 0.12, 0.2, 0.17) + (1 - bun * head.hair_on) * 9
    covers = [(canvas.cover(np.minimum(np.minimum(behind, hanging), knot)), head.hair * 0.8)]
    covers += [(canvas.cover(ellipse(u, v - 1.25, person(0.62, 0.82), person(0.4, 0.5))), person.colour(_SHIRTS))]
    covers += [(canvas.cover(box(u, v - 0.75, person(0.2, 0.27), 0.22, 0.1)), below)]
    covers += [(canvas.cover(ellipse(np.abs(u) - head.width, v - 0.05, 0.09, person(0.11, 0.16))), below)]
    covers += [(canvas.cover(head.outline(canvas)), head.skin)]
    shown = np.ones_like(behind)
    for cover, colour in covers:
        canvas.paint(cover, colour)
        shown *= 1 - cover
    return shown


def _eyes(canvas: Canvas, head: _Head, person: Numbers, photo: Numbers) -> None:
    """Draws cheeks, nose, eyes and brows."""
    f, side, v = canvas.f, canvas.side, canvas.v
    blush = head.skin * np.array([1.0, 0.72, 0.7], np.float32)[:, None, None]
    canvas.paint(canvas.cover(ellipse(side - 0.34, v - 0.2, 0.12, 0.09)) * person(0.1, 0.5), blush)
    long, wide = person(0.1, 0.17), person(0.05, 0.09)
    canvas.paint(canvas.cover(box(f - wide / 2, v - head.eyes - long, 0.025, long, 0.02)) * 0.5, head.skin * 0.72)
    canvas.paint(canvas.cover(ellipse(f, v - head.eyes - long * 2, wide, 0.04)), head.skin * 0.72)
    tall, x, y = person(0.07, 0.1), side - head.apart, v - head.eyes
    white = canvas.cover(ellipse(x, y, person(0.1, 0.125), tall))
    canvas.paint(white, np.full_like(head.skin, 0.97))
    gaze = photo(-0.035, 0.035) * np.sign(f)
    iris = ellipse(x - gaze, y - photo(-0.02, 0.02), 0.07, 0.075)
    canvas.paint(canvas.cover(iris) * white, person.colour(_IRISES))
    raised, tilt = person(0.15, 0.2) + photo(0.0, 0.04), person(-0.25, 0.08)
    brow = box(x, y + raised + tilt * x, person(0.1, 0.14), person(0.018, 0.04), 0.015)
    canvas.paint(canvas.cover(brow), head.hair * 0.6)


def _mouth(canvas: Canvas, head: _Head, person: Numbers, photo: Numbers, smile: Array) -> Array:
    """Draws a smile with teeth or a nearly straight mouth; returns the cover of both."""
    f, y, dark = canvas.f, canvas.v - head.mouth, head.skin[:, :1] < 0.65  # lips have to stand out
    lips = person.colour(_LIPS) * np.where(dark, np.float32(1.15), np.float32(0.85))
    width, bend, opening = person(0.22, 0.29) + photo(-0.02, 0.02), photo(0.1, 0.15), photo(0.03, 0.18)
    smiling = canvas.cover(arc(f, y - 0.04, width, bend, opening, 0.035))
    teeth = canvas.cover(arc(f, y - 0.04, width - 0.03, bend, opening, -0.02))
    straight = canvas.cover(arc(f, y, person(0.13, 0.2), photo(-0.015, 0.025), 0.0, person(0.03, 0.045)))
    inside = canvas.cover(head.outline(canvas, -0.03))
    canvas.paint(straight * (1 - smile) * inside, lips)
    canvas.paint(smiling * smile * inside, lips)
    canvas.paint(teeth * smile * inside, np.full_like(lips, 0.97))
    return (smiling + straight) * inside


def _mask(canvas: Canvas, head: _Head, person: Numbers, worn: Array) -> Array:
    """Draws a surgical mask with strings to the ears; returns its cover."""
    v, cloth, top = canvas.v, person.colour(_MASKS), head.eyes + 0.24
    edge = top - v + np.square(canvas.f) * person(0.2, 0.5)  # higher at the nose
    cover = canvas.cover(np.maximum(head.outline(canvas, 0.02), edge))
    string = canvas.cover(box(np.abs(canvas.u) - head.width + 0.04, v - top + 0.06, 0.09, 0.02))
    canvas.paint(np.maximum(cover, string) * worn, cloth)
    for below in (0.16, 0.3):
        canvas.paint(cover * canvas.cover(box(canvas.f, v - top - below, 0.34, 0.014)) * worn, cloth * 0.72)
    return np.maximum(cover, string)


def _fringe(canvas: Canvas, head: _Head, person: Numbers) -> None:
    """Draws hair over the forehead: straight, curly, to one side or parted."""
    parted = np.abs(canvas.u - person(-0.3, 0.3)) * person(0.0, 1.2)
    line = person(-0.56, -0.32) + person(-0.35, 0.35) * canvas.u + parted
    line = line + head.curls * 0.2 * wave(canvas.u * 4)
    front = (
        np.maximum(head.outline(canvas, head.volume * 0.5), canvas.v - np.minimum(line, head.eyes - 0.15))
        + head.bald * 9
    )
    canvas.paint(canvas.cover(front), head.hair)


def _glasses(canvas: Canvas, head: _Head, person: Numbers, worn: Array) -> Array:
    """Draws round or rectangular glasses, clear or dark; returns their cover."""
    x, y, rims = canvas.side - head.apart, canvas.v - head.eyes, person.colour(_RIMS)
    wide, tall, round_ = person(0.15, 0.18), person(0.11, 0.15), person.often(0.5)
    thick, dark = person(0.03, 0.045), person.often(0.3)
    tall = tall * (1 - round_) + wide * 0.95 * round_
    lens = box(x, y - 0.02, wide, tall, np.minimum(wide, tall) * (0.3 + 0.65 * round_))
    temple = np.maximum(canvas.side - head.apart - wide, 0)
    bars = np.minimum(
        box(canvas.f, y, head.apart - wide + 0.02, thick * 0.8),
        np.maximum(box(temple, y, 0.4, thick * 0.8), np.abs(canvas.u) - head.width),
    )
    bars = np.maximum(bars, -lens)
    frame = canvas.cover(np.minimum(np.abs(lens) - thick, bars))
    glass = canvas.cover(lens)
    tint = np.array([0.86, 0.93, 1.0], np.float32)[:, None, None] * (1 - dark[:, None]) + (rims + 0.12) * dark[:, None]
    canvas.paint(glass * (0.3 + 0.62 * dark) * worn, tint)
    canvas.paint(frame * worn, rims)
    return np.maximum(glass, frame)


def _lit(canvas: Canvas, photo: Numbers) -> Array:
    """Returns the picture lit from one side, with another brightness, contrast and warmth."""
    light = (1 + photo(-0.3, 0.3) * canvas.x + photo(-0.15, 0.15) * canvas.y) * photo(0.85, 1.1)
    warm = photo(-0.05, 0.05)
    colour = np.stack([1 + warm, np.ones_like(warm), 1 - warm], 1)
    lit: Array = (canvas.image * light[:, None] * colour - 0.5) * photo(0.85, 1.1)[:, None] + 0.5
    return np.clip(lit, 0, 1)
