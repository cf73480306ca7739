"""Ground truth by construction: a patch of another face, pasted where its own features would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai._html import words
from facexai.input_spec import check_pixels
from facexai.perturb.draws import check_items, generator

Shape = Literal["ellipse", "rectangle"]
Side = Literal["first", "second"]

_FACE = 0.8  # height and width of the middle of an aligned picture in which random patches lie
_STRETCH = 2.0  # a donor's contrast is changed by at most this factor
_TINY = 1e-6


@final
@dataclass(frozen=True, eq=False)
class PatchedPairs:
    """Pairs of which one image holds a patch of another face.

    Attributes:
        first, second: (P, 3, H, W) RGB in [0, 1].
        masks: (P, H, W) boolean, the pixels of which the donor gives at least half: the true region.
        centres: (P, 2) y and x of the patches, 0 to 1.
        recipe: every choice that changed a number.
    """

    first: Tensor
    second: Tensor
    masks: Tensor
    centres: Tensor
    recipe: dict[str, Any]

    def __len__(self) -> int:
        return len(self.masks)

    _repr_html_ = words

    def __repr__(self) -> str:
        share = float(self.masks.double().mean())
        return (
            f"PatchedPairs({len(self)} pairs, {self.recipe['shape']} in the {self.recipe['into']}, {share:.3f} of it)"
        )


def patch_swap(
    pairs: tuple[Tensor, Tensor],
    donors: Tensor | None = None,
    *,
    into: Side = "first",
    shape: Shape = "ellipse",
    centre: tuple[float, float] | Tensor | None = None,
    size: float | tuple[float, float] = 0.3,
    soft: float = 0.02,
    match_colour: bool = True,
    seed: int = 0,
    items: Sequence[int] | None = None,
) -> PatchedPairs:
    """Pastes a patch of a donor's face into one image of each pair, at the same place: eyes on eyes.

    Two questions with a known answer. A genuine pair and a donor who is another person: the patch is evidence
    *against* the match. An impostor pair and a donor who is the partner: the patch is evidence *for* it.

    Args:
        pairs: first and second images, (P, 3, H, W) RGB in [0, 1], aligned.
        donors: (P, 3, H, W), aligned; None: the partner, that is the other image of the pair. Another photo of the
            partner is the harder question: then no pixels are shared.
        into: the image that gets the patch.
        shape: ``"ellipse"`` or ``"rectangle"``.
        centre: y and x, 0 to 1 in heights and widths, or (P, 2) of them; None: at random, so that the patch lies within
            the middle 80 % of the height and of the width, which an aligned face fills.
        size: height and width of the patch in those of the image, 0 to 1, or one number for both.
        soft: width of its edge in widths of the image, half of it inside; there both faces are mixed. 0: hard.
        match_colour: give the donor's patch the mean and the standard deviation of each colour that it replaces (by at
            most a factor of 2), so that the answer is the face and not a change of light.
        seed: of the places.
        items: numbers of the pairs in their data set, on which the places depend; default 0, 1, ...

    Raises:
        ValueError: shapes that differ, an option or a size that does not exist, a patch without a pixel.

    Source: ours.

    >>> pair = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    >>> made = patch_swap(pair, shape="rectangle", centre=(0.5, 0.5), size=0.5, soft=0, match_colour=False)
    >>> int(made.masks.sum()), made.first[0, 0, 3].tolist()
    (16, [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    """
    first, second = pairs
    given = {"first": first, "second": second}
    if into not in given:
        raise ValueError(f"expected into='first' or 'second', got {into!r}")
    if donors is None:
        donors = second if into == "first" else first
    for name, images in (*given.items(), ("donors", donors)):
        check_pixels(images)
        if images.ndim != 4 or images.shape != first.shape:
            raise ValueError(f"expected {name} as first, {tuple(first.shape)}, got shape {tuple(images.shape)}")
    extent = _extent(size)
    if shape not in ("ellipse", "rectangle"):
        raise ValueError(f"expected the shape 'ellipse' or 'rectangle', got {shape!r}")
    if not 0 <= soft <= 1:
        raise ValueError(f"expected soft from 0 to 1, in widths of the image, got {soft}")
    centres = _centres(centre, extent, len(first), seed, check_items(items, len(first)))
    base = given[into]
    distance = _distance(centres, extent, shape, (base.shape[2], base.shape[3])).to(base.device)
    masks = distance <= 0
    if not masks.flatten(1).any(1).all():
        bad = (~masks.flatten(1).any(1)).nonzero()[:, 0].tolist()
        raise ValueError(f"the patch of pair {bad[:8]} holds no pixel; make it larger, or move it into the image")
    edge = soft * base.shape[3]
    share = (masks if edge == 0 else (0.5 - distance / edge).clamp(0, 1)).to(base.dtype)[:, None]
    pasted = _matched(donors, base, masks) if match_colour else donors
    given[into] = torch.where(share == 0, base, torch.where(share == 1, pasted, base + share * (pasted - base)))
    recipe = {"into": into, "shape": shape, "size": extent, "soft": soft, "match_colour": match_colour, "seed": seed}
    return PatchedPairs(given["first"], given["second"], masks, centres, recipe)


def _extent(size: float | tuple[float, float]) -> tuple[float, float]:
    height, width = size if isinstance(size, tuple) else (size, size)
    if not (0 < height <= 1 and 0 < width <= 1):
        raise ValueError(f"expected a size above 0 and up to 1, in heights and widths of the image, got {size}")
    return float(height), float(width)


def _centres(
    centre: tuple[float, float] | Tensor | None,
    extent: tuple[float, float],
    count: int,
    seed: int,
    items: Sequence[int],
) -> Tensor:
    """Returns (P, 2), float64."""
    if centre is None:
        if max(extent) > _FACE:
            raise ValueError(
                f"a patch of {extent} does not fit the middle {_FACE:.0%} of the picture, where random patches lie; "
                "give centre=, or a smaller size"
            )
        drawn = torch.stack([torch.rand(2, generator=generator(seed, i, "patch"), dtype=torch.float64) for i in items])
        room = _FACE - torch.tensor(extent, dtype=torch.float64)
        return 0.5 + (drawn - 0.5) * room
    places = torch.as_tensor(centre, dtype=torch.float64).cpu()
    if places.shape not in ((2,), (count, 2)) or not ((places >= 0) & (places <= 1)).all():
        raise ValueError(f"expected the centre as (y, x), or ({count}, 2) of them, from 0 to 1, got {centre}")
    return places.expand(count, 2).clone()


def _distance(centres: Tensor, extent: tuple[float, float], shape: Shape, size: tuple[int, int]) -> Tensor:
    """Returns (P, H, W): about how many pixels outside of the patch; negative inside."""
    height, width = size
    y = (torch.arange(height, dtype=torch.float64) + 0.5)[None, :, None] - centres[:, 0, None, None] * height
    x = (torch.arange(width, dtype=torch.float64) + 0.5)[None, None, :] - centres[:, 1, None, None] * width
    half = extent[0] * height / 2, extent[1] * width / 2
    if shape == "rectangle":
        return torch.maximum(y.abs() - half[0], x.abs() - half[1])
    return (((y / half[0]) ** 2 + (x / half[1]) ** 2).sqrt() - 1) * min(half)


def _matched(donors: Tensor, base: Tensor, masks: Tensor) -> Tensor:
    """Returns the donors with mean and standard deviation, within the patch and by colour, of what they replace."""
    inside = masks[:, None].to(base.dtype)
    count = inside.sum((2, 3), keepdim=True)

    def moments(images: Tensor) -> tuple[Tensor, Tensor]:
        mean = (images * inside).sum((2, 3), keepdim=True) / count
        return mean, (((images - mean) ** 2 * inside).sum((2, 3), keepdim=True) / count).sqrt()

    (mean, spread), (own, own_spread) = moments(base), moments(donors)
    factor = ((spread + _TINY) / (own_spread + _TINY)).clamp(1 / _STRETCH, _STRETCH)
    return ((donors - own) * factor + mean).clamp(0, 1)
