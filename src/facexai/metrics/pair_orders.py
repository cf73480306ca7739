"""In which order the pixels of pairs go: by a map, and by the controls that a map must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from facexai.metrics.pair_subject import PairReference, PairSubject
from facexai.metrics.subject import mean_map, next_others
from facexai.models import FaceModel
from facexai.perturb import centre_prior, generator, moved, smoothed
from facexai.results import PairSaliency

CONTROLS = ("random", "random-region", "centre", "mean-map", "other-pair")
COMMON = ("random", "centre")
"""Controls that are the same for every method."""

_BLUR = 5 / 112  # sigma of the blurred rank in widths of the image


def directed(who: PairSubject, maps: PairSaliency | Tensor) -> Tensor:
    """(P, S, H, W): the chosen pairs' maps of the changed images, turned so that the explained part is positive.

    Raises:
        TypeError: neither a PairSaliency nor a tensor.
        ValueError: maps of other pairs, of another size or another network, or with NaN.
    """
    size, changed = tuple(who.images.shape[-2:]), who.images.shape[1]
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
    if tuple(maps.shape) not in ((who.given, 2, *size), (who.given, changed, *size)):
        raise ValueError(f"expected maps ({who.given}, 2, {size[0]}, {size[1]}), got {tuple(maps.shape)}")
    if not torch.isfinite(maps).all():
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"expected finite maps, got NaN or infinity in those of pair {bad[:8]}")
    return _turned(who, maps)


def _turned(who: PairSubject, maps: Tensor) -> Tensor:
    """(P, S, H, W) of the chosen pairs: the explained part positive."""
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
    if who.reference is not None:
        return _of_reference(who, who.reference, name)
    groups = [np.flatnonzero(who.signs == sign) for sign in np.unique(who.signs)]
    if min(len(group) for group in groups) < 2:
        return "one pair" if len(groups) == 1 else "one pair with this part of the map"
    made = torch.empty_like(own) if name == "other-pair" else torch.empty_like(maps)
    for group in groups:
        if name == "mean-map":
            made[group] = torch.stack([mean_map(side) for side in maps[group].unbind(1)])
            continue
        partners = next_others(len(group), None if who.identities is None else [who.identities[i] for i in group])
        if partners is None:
            return "a pair has no other of another identity"
        made[group] = own[group[partners]]
    return made if name == "other-pair" else places(who, made)


def _of_reference(who: PairSubject, reference: PairReference, name: str) -> Tensor | str:
    """The order of pixels of a control that the whole data set decides."""
    if name == "other-pair":
        missing = "a pair has no other of another identity"
        return missing if reference.other_maps is None else places(who, _turned(who, reference.other_maps))
    if not set(who.signs.tolist()) <= reference.mean_maps.keys():
        return "one pair with this part of the map"
    return places(who, torch.stack([reference.mean_maps[sign] for sign in who.signs.tolist()]).to(who.images))
