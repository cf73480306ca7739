"""Finds the maps that are rounding noise, where a score meets the embedding, before any pass through the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai._errors import warn
from facexai.functional import normalize_vjp
from facexai.functional._rounding import vanishes
from facexai.hooks import grad_scope, no_graph
from facexai.models import FaceModel, WhiteBox


class Observed(Protocol):
    """Evidence with the network's outputs (B*N, D)."""

    @property
    def outputs(self) -> Tensor: ...


def condition(model: FaceModel, outputs: Tensor) -> Tensor:
    """Returns by how much relative errors of a network's outputs (B*N, D) grow in the features (N, D'), (N,).

    The centre is subtracted and mirrored branches are added: lengths of what is put together over that of the result.
    """
    features = model.features(outputs)
    lengths = outputs.to(features).norm(dim=1)
    if model.center is not None:
        lengths = lengths + model.center.to(features).norm()
    grown: Tensor = lengths.view(-1, len(features)).sum(0) / features.norm(dim=1).clamp(min=1e-12)
    return grown


def cosine_vanishes(model: FaceModel, outputs: Tensor, directions: Tensor) -> Tensor:
    """Says where the gradient of ``<f, v>`` by the features e, with ``f = e / |e|``, is rounding noise.

    Args:
        model: the network.
        outputs: (B*N, D), what it returned.
        directions: v, (N, ..., D').

    Returns:
        (N, ...) True where :func:`facexai.functional._rounding.vanishes` for the two terms of the gradient.
    """
    with no_graph():
        outputs = outputs.detach()
        features = model.features(outputs)
        shape = (len(features), *(1 for _ in directions.shape[1:-1]))
        e = features.view(*shape, -1).expand_as(directions).flatten(0, -2)
        v = directions.to(features).flatten(0, -2)
        length, unit = e.norm(dim=1, keepdim=True).clamp(min=1e-12), F.normalize(e)
        along = (unit * v).sum(1, keepdim=True) * unit
        grown = condition(model, outputs).view(shape).expand(directions.shape[:-1]).flatten()
        small = vanishes(normalize_vjp(v, e), (v / length, along / length), stored=outputs.dtype, amplified=grown)
        return small.view(directions.shape[:-1])


def pair_vanishes(model: FaceModel, outputs: Tensor, partners: Tensor) -> Tensor:
    """Says for each of P pairs where the gradient of the cosine by one face is rounding noise, (P,).

    Args:
        model: the network.
        outputs: (B*N, D), of N = P faces, or of one that is in all pairs.
        partners: (P, D'), unit embeddings of the others.
    """
    branches = 1 if model.flip is None else 2
    one_for_all = len(outputs) == branches and len(partners) != 1
    return cosine_vanishes(model, outputs, partners[None] if one_for_all else partners[:, None]).flatten()


def score_vanishes(
    classifier: WhiteBox, outputs: Tensor, classes: Tensor, *, lengths: bool, unit: bool = False
) -> Tensor:
    """Says where the gradient of a class's score by the network's outputs is rounding noise.

    Args:
        classifier: whose scores.
        outputs: (B*N, D), what its network returned.
        classes: (N, K).
        lengths: whether the lengths of the probe's vectors are differentiated, too, as for a cosine.
        unit: whether the network divided by the length itself, and that is differentiated.

    Returns:
        (N, K). The first term is the derivative with lengths fixed, the second what the lengths take from it.
    """
    if not (lengths or unit):
        return torch.zeros_like(classes, dtype=torch.bool)
    model = classifier.model
    with grad_scope(model.net):
        leaf, classes = outputs.detach().clone().requires_grad_(), classes.clone()
        features = model.features(leaf)
        fixed = model.branch_directions(classifier.directions(features.detach(), classes)).to(features)
        total = fixed
        if lengths:
            columns = classifier.score(features, classes, detach_norm=False).unbind(1)
            rows = [torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0] for column in columns]
            total = torch.stack(rows, 1).to(fixed)
    terms = [fixed, fixed - total]
    if unit:
        e = leaf.detach().to(fixed)[:, None]
        terms.append((total * e).sum(2, keepdim=True) * e)
        total = total - terms[-1]
    joined = [_by_image(rows.detach(), len(classes)) for rows in (total, *terms)]
    grown = condition(model, outputs.detach())[:, None]
    return vanishes(joined[0], joined[1:], stored=outputs.dtype, amplified=grown)


def _by_image(rows: Tensor, images: int) -> Tensor:
    """Returns (B*N, K, D), branch after branch, as (N, K, B*D)."""
    return torch.cat(list(rows.view(-1, images, *rows.shape[1:])), -1)


def zeroed(maps: Tensor, small: Tensor) -> Tensor:
    """Returns maps (..., h, w) with zeros where ``small`` (...,) says that they are rounding noise; warns of them.

    Where none is, the maps are returned as they are.
    """
    if not bool(small.any()):
        return maps
    rows = small.flatten(1).any(1) if small.ndim > 1 else small
    warn(
        f"the gradient of the score of {rows.nonzero()[:8, 0].tolist()} is rounding noise, since its terms cancel, as "
        "those of a cosine do for identical faces: the map is zero there and no verdict; see recipe['rounding_floor']"
    )
    return maps.masked_fill(small.view(*small.shape, *(1 for _ in maps.shape[small.ndim :])), 0.0)


def marked(small: Tensor | None) -> Mapping[str, Any]:
    """Returns what a recipe says of maps that are zero because they are rounding noise; nothing where none is."""
    return {} if small is None or not bool(small.any()) else {"rounding_floor": small.tolist()}
