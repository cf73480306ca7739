"""What curves over pairs ask first: which pairs, decided how, with which order of pixels; and the controls' orders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facexai.hooks import quiet_grad
from facexai.input_spec import check_pixels
from facexai.metrics.pair_protocol import Part, Protocol, resolve
from facexai.metrics.subject import mean_map, others
from facexai.metrics.verification import threshold
from facexai.models import FaceModel
from facexai.models.protocols import Embedder
from facexai.perturb import centre_prior, filling, generator, moved, numbered, smoothed
from facexai.results import PairSaliency

CONTROLS = ("random", "random-region", "centre", "mean-map", "other-pair")
COMMON = ("random", "centre")
"""Controls that are the same for every method."""

_BLUR = 5 / 112  # sigma of the blurred rank in widths of the image

Array = NDArray[np.float64]


class PairOptions(TypedDict, total=False):
    """What every metric of labelled pairs takes.

    Keys:
        identities: (P,) person in the probe, for intervals, tests and ``other-pair``; default: every pair is its own.
        items: (P,) numbers of the pairs in their data set; randomness depends on them. Default 0, 1, ...
        seed: of the random controls; default 0.
        batch_size: images per forward pass; default 64.
    """

    identities: Sequence[str] | None
    items: Sequence[int] | None
    seed: int
    batch_size: int


@final
@dataclass(frozen=True, eq=False)
class PairSubject:
    """The pairs that a protocol chooses, and what the network says to them unchanged and empty.

    Attributes:
        model: gives unit embeddings.
        images: (P, S, 3, H, W): the images that are changed, S = 1 or 2 of each pair.
        fills: (P, S, 3, H, W): what stands in their place.
        photos: S times (P,): which of the images are equal: the place of the first such.
        units: (P, D): embeddings of the second images.
        same: (P,) one person.
        signs: (P,) 1 where the similar part of the map is explained, -1 where the dissimilar one is.
        whole, empty: (P,) cosines of the pairs unchanged and with nothing but fill.
        threshold: from which cosine on a pair is accepted.
        chosen: (P,) places of the pairs among those given.
        given: number of pairs given.
        items: (P,) numbers of the pairs in their data set.
        identities: (P,) or None.
        protocol, recipe, seed, batch_size: as asked for.
    """

    model: Embedder
    images: Tensor
    fills: Tensor
    photos: tuple[tuple[int, ...], ...]
    units: Tensor
    same: NDArray[np.bool_]
    signs: NDArray[np.int64]
    whole: Array
    empty: Array
    threshold: float
    chosen: NDArray[np.int64]
    given: int
    items: tuple[int, ...]
    identities: tuple[str, ...] | None
    protocol: Protocol
    recipe: dict[str, Any]
    seed: int
    batch_size: int

    def cosines(self, shown: Tensor) -> Array:
        """(P,) of the pairs with only the pixels ``shown`` (P, S, H, W) of the changed images."""
        sides = [self._embedded(shown[:, side], side) for side in range(shown.shape[1])]
        return _cosines(sides[0], sides[1] if len(sides) == 2 else self.units)

    def _embedded(self, shown: Tensor, side: int) -> Tensor:
        """(P, D) of one side's images with only these pixels (P, H, W); equal ones are embedded once."""
        bits = np.packbits(shown.flatten(1).cpu().numpy(), axis=1)
        first: dict[tuple[int, bytes], int] = {}
        places = [
            first.setdefault(key, p) for p, key in enumerate(zip(self.photos[side], map(bytes, bits), strict=True))
        ]
        once = sorted(set(places))
        found = []
        for part in torch.split(torch.tensor(once), self.batch_size):
            pixels = torch.where(shown[part, None], self.images[part, side], self.fills[part, side])
            found.append(_units(self.model, pixels, self.batch_size))
        row = {place: i for i, place in enumerate(once)}
        return torch.cat(found)[[row[place] for place in places]]


def pair_subject(
    model: Embedder,
    first: Tensor,
    second: Tensor,
    same: Any,
    protocol: str | Protocol,
    part: Part,
    *,
    identities: Sequence[str] | None = None,
    items: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> PairSubject:
    """Check what belongs together, decide about the unchanged pairs, choose those that the protocol asks for.

    Raises:
        TypeError: a model that does not embed.
        ValueError: numbers or sizes that differ, labels of one kind where the threshold needs both, no pair chosen.
    """
    name, how = resolve(protocol, part)
    labels = _checked(model, first, second, same, identities, batch_size)
    numbers = numbered(items, len(first))
    left, right = (_units(model, images, batch_size) for images in (first, second))
    scores = _cosines(left, right)
    if not np.isfinite(scores).all():
        raise ValueError("the model gives NaN or infinite embeddings for these images")
    limit = threshold(scores, labels, how.threshold)
    chosen = np.flatnonzero(_wanted(how, labels, scores >= limit))
    if len(chosen) == 0:
        raise ValueError(
            f"the protocol is about {how.pairs} pairs and none of the {len(labels)} is one (threshold {limit:.3f})"
        )
    rows = torch.from_numpy(chosen).to(first.device)
    kept = [images[rows] for images in ((first, second) if how.perturb == "both" else (first,))]
    fills = [filling(images, how.fill) for images in kept]
    emptied = [_units(model, images, batch_size) for images in fills]
    label = labels[chosen]
    signs = np.where(label, 1, -1) if part == "auto" else np.full(len(chosen), 1 if part == "similar" else -1)
    return PairSubject(
        model=model,
        images=torch.stack(kept, 1),
        fills=torch.stack(fills, 1),
        photos=tuple(_equal(images) for images in kept),
        units=right[rows],
        same=label,
        signs=signs,
        whole=scores[chosen],
        empty=_cosines(emptied[0], emptied[1] if how.perturb == "both" else right[rows]),
        threshold=limit,
        chosen=chosen,
        given=len(labels),
        items=tuple(int(numbers[i]) for i in chosen.tolist()),
        identities=None if identities is None else tuple(str(identities[i]) for i in chosen.tolist()),
        protocol=how,
        recipe={"protocol": name, **asdict(how), "accepted from": limit, "part": part, "seed": seed},
        seed=seed,
        batch_size=batch_size,
    )


def _checked(
    model: Embedder, first: Tensor, second: Tensor, same: Any, identities: Sequence[str] | None, batch_size: int
) -> NDArray[np.bool_]:
    if not isinstance(model, Embedder):
        raise TypeError(f"expected a FaceModel that embeds, got {type(model).__name__}; of a gallery its .model")
    for images in (first, second):
        check_pixels(images)
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(
            f"expected as many second images (P, 3, H, W) as first ones, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    labels = same.detach().cpu().numpy() if isinstance(same, Tensor) else np.asarray(same)
    if labels.shape != (len(first),) or not np.isin(labels, (0, 1)).all():
        raise ValueError(f"expected True or False for each of the {len(first)} pairs, got shape {labels.shape}")
    if identities is not None and len(identities) != len(first):
        raise ValueError(f"expected one identity for each of the {len(first)} pairs, got {len(identities)}")
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    return labels.astype(bool)


def _equal(images: Tensor) -> tuple[int, ...]:
    """The place of the first image that is equal to each."""
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.double().cpu().contiguous().numpy().tobytes()).digest() for image in images)
    return tuple(first.setdefault(digest, i) for i, digest in enumerate(digests))


def _wanted(how: Protocol, labels: NDArray[np.bool_], accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    kinds = {"genuine": labels, "impostor": ~labels, "accepted": accepted, "rejected": ~accepted}
    return kinds.get(how.pairs, np.ones(len(labels), dtype=bool))


def _units(model: Embedder, images: Tensor, batch_size: int) -> Tensor:
    with quiet_grad():
        return torch.cat([F.normalize(model.embed(part).detach().double()) for part in torch.split(images, batch_size)])


def _cosines(first: Tensor, second: Tensor) -> Array:
    found: Array = (first * second).sum(1).cpu().numpy()
    return found


# ---- orders of pixels --------------------------------------------------------------------------------------------


def directed(who: PairSubject, maps: PairSaliency | Tensor) -> Tensor:
    """(P, S, H, W): the chosen pairs' maps of the changed images, turned so that the explained part is positive.

    Raises:
        TypeError: neither a PairSaliency nor a tensor.
        ValueError: maps of other pairs, of another size or another network, or with NaN.
    """
    size = tuple(who.images.shape[-2:])
    if isinstance(maps, PairSaliency):
        explained = maps.recipe.get("fingerprint")
        if isinstance(who.model, FaceModel) and explained not in (None, who.model.fingerprint):
            raise ValueError(
                f"the maps explain model {explained}, this model is {who.model.fingerprint}; measure with the one "
                "explained, or give the tensor .maps"
            )
        maps = maps.maps
    if not isinstance(maps, Tensor):
        raise TypeError(f"expected a PairSaliency or maps as a torch.Tensor, got {type(maps).__name__}")
    if tuple(maps.shape) != (who.given, 2, *size):
        raise ValueError(f"expected maps ({who.given}, 2, {size[0]}, {size[1]}), got {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"expected finite maps, got NaN or infinity in those of pair {bad[:8]}")
    signs = torch.from_numpy(who.signs).to(maps.device)[:, None, None, None]
    return (maps.detach()[torch.from_numpy(who.chosen), : who.images.shape[1]] * signs).to(who.images.device)


def places(who: PairSubject, maps: Tensor) -> Tensor:
    """(P, S, H, W): the place of every pixel in the order of directed maps; 0 comes first.

    Pixels of the explained part come by its size. Those outside of it, which are all 0 in it, follow by the signed map.
    Among equal values the pixel that comes first, row by row, does.
    """
    part, rest = maps.clamp(min=0), maps
    if who.protocol.rank == "blurred":
        part, rest = (smoothed(values, _BLUR * maps.shape[-1]) for values in (part, rest))
    return _ranked(part, rest)


def _ranked(part: Tensor, rest: Tensor) -> Tensor:
    """The place of every pixel by ``part``, and among equals by ``rest``."""
    first = rest.flatten(2).argsort(dim=2, descending=True, stable=True)
    within = part.flatten(2).gather(2, first).argsort(dim=2, descending=True, stable=True)
    order = first.gather(2, within)
    numbers = torch.arange(order.shape[2], dtype=torch.int32, device=order.device).expand_as(order).contiguous()
    return torch.empty_like(numbers).scatter_(2, order, numbers).view_as(rest)


def control_places(who: PairSubject, name: str, maps: Tensor, own: Tensor) -> Tensor | str:
    """The order of pixels of a control, as :func:`places` gives it, or the reason why there is none.

    Args:
        name: one of :data:`CONTROLS`.
        maps: directed.
        own: their places.
    """
    numbers = [2 * item + side for item in who.items for side in range(own.shape[1])]
    if name == "random":
        drawn = [torch.randperm(own[0, 0].numel(), generator=generator(who.seed, i, "order")) for i in numbers]
        return torch.stack(drawn).int().view(own.shape).to(own.device)
    if name == "random-region":
        return moved(own.flatten(0, 1), seed=who.seed, items=numbers).view_as(own)
    if name == "centre":
        prior = centre_prior((own.shape[2], own.shape[3])).to(maps)[None, None]
        return _ranked(prior, prior).expand_as(own)
    groups = [np.flatnonzero(who.signs == sign) for sign in np.unique(who.signs)]
    if min(len(group) for group in groups) < 2:
        return "one pair" if len(groups) == 1 else "one pair with this part of the map"
    made = torch.empty_like(own) if name == "other-pair" else torch.empty_like(maps)
    for group in groups:
        if name == "mean-map":
            made[group] = torch.stack([mean_map(side) for side in maps[group].unbind(1)])
            continue
        partners = others(len(group), None if who.identities is None else [who.identities[i] for i in group])
        if partners is None:
            return "a pair has no other of another identity"
        made[group] = own[group[partners]]
    return made if name == "other-pair" else places(who, made)
