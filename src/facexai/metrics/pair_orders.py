"""In which order the pixels of pairs go: by a map, and by the controls that a map must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from facexai.metrics._batch import centre_order, mean_map, next_others
from facexai.metrics._ties import warn_of_constant
from facexai.metrics.pair_subject import PairBatch, PairReference
from facexai.models import FaceModel
from facexai.perturb import gaussian_blur, generator, shift_mask
from facexai.perturb._ties import dense_ranks
from facexai.results import PairSaliency

CONTROLS = ("random", "random-region", "centre", "mean-map", "other-pair")
COMMON = ("random", "centre")
"""Controls that are the same for every method."""

_BLUR = 5 / 112  # sigma of the blurred rank in widths of the image


def directed(who: PairBatch, maps: PairSaliency | Tensor) -> Tensor:
    """Returns (P, S, H, W): the chosen pairs' maps of the changed images, turned so that the
    explained part is positive.

    Raises:
        TypeError: neither a PairSaliency nor a tensor.
        ValueError: maps of other pairs, of another size or another network, or with NaN.

    Warns:
        FaceXAIWarning: a constant map.
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
    turned = _turned(who, maps)
    warn_of_constant(turned, who.items)
    return turned


def _turned(who: PairBatch, maps: Tensor) -> Tensor:
    """Returns (P, S, H, W) of the chosen pairs: the explained part positive."""
    signs = torch.from_numpy(who.signs).to(maps.device)[:, None, None, None]
    return (maps.detach()[torch.from_numpy(who.chosen), : who.images.shape[1]] * signs).to(who.images.device)


def ordered(who: PairBatch, maps: Tensor) -> Tensor:
    """Returns (P, S, H, W): values in the order in which the pixels of directed maps are taken, the largest first.

    Pixels of the explained part come by its size. Those outside of it, which are all 0 in it, follow by the signed map.
    Pixels that are equal in both are equal here.
    """
    part, rest = maps.clamp(min=0), maps
    if who.protocol.rank == "blurred":
        part, rest = (gaussian_blur(values, _BLUR * maps.shape[-1]) for values in (part, rest))
    return dense_ranks(part.flatten(0, 1), rest.flatten(0, 1)).view_as(maps)


def numbers_of(who: PairBatch, maps: Tensor) -> list[int]:
    """Returns the numbers of all maps (P, S, H, W), P times S, on which randomness depends."""
    return [2 * item + side for item in who.items for side in range(maps.shape[1])]


def control_order(who: PairBatch, name: str, maps: Tensor, own: Tensor) -> Tensor | str:
    """Returns the order of pixels of a control, as :func:`ordered` gives it, or the reason why there is none.

    Args:
        name: one of :data:`CONTROLS`.
        maps: directed.
        own: their order.
    """
    numbers = numbers_of(who, own)
    if name == "random":
        drawn = [torch.randperm(own[0, 0].numel(), generator=generator(who.seed, i, "order")) for i in numbers]
        return -torch.stack(drawn).to(own).view(own.shape)
    if name == "random-region":
        return shift_mask(own.flatten(0, 1), seed=who.seed, items=numbers).view_as(own)
    if name == "centre":
        return centre_order((own.shape[2], own.shape[3]), who.seed).to(own).expand_as(own)
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
    return made if name == "other-pair" else ordered(who, made)


def _of_reference(who: PairBatch, reference: PairReference, name: str) -> Tensor | str:
    """Returns the order of pixels of a control that the whole data set decides."""
    if name == "other-pair":
        missing = "a pair has no other of another identity"
        return missing if reference.other_maps is None else ordered(who, _turned(who, reference.other_maps))
    if not set(who.signs.tolist()) <= reference.mean_maps.keys():
        return "one pair with this part of the map"
    return ordered(who, torch.stack([reference.mean_maps[sign] for sign in who.signs.tolist()]).to(who.images))
