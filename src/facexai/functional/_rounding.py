"""The rounding floor: the size below which a sum of cancelling terms is noise, so that no map is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def vanishes(total: Tensor, terms: Sequence[Tensor], *, stored: torch.dtype, amplified: Tensor | float = 1.0) -> Tensor:
    """Says where the sum of terms that cancel is no larger than the rounding errors of the terms.

    Args:
        total: (..., D), the sum as it was computed.
        terms: each (..., D).
        stored: the type in which the numbers were given that the terms follow from.
        amplified: (...,) or a number: by how much relative errors of those numbers grow on the way to the terms.

    Returns:
        (...,) True where ``|total| <= floor * (|term_1| + |term_2| + ...)`` and some term is not zero.

    The floor follows from the arithmetic. A gradient g of a score through a vector of length |e| is compared as
    ``|e| |g|`` with ``|e|`` times the lengths of its parts, so that neither units nor lengths matter; ``|e|`` cancels.
    For the cosine ``s = <f, v>`` of ``f = e / |e|``,

        g = v / |e| - <f, v> f / |e|,        |e| |g| = sine of the angle between f and v,

    and both terms have length ``1 / |e|`` where f and v agree. With unit roundoff ``u = eps / 2`` of the type, relative
    to the lengths of the terms: the numbers of e and v are given with one rounding of their type each, and each is
    divided and multiplied once, 4 u of the stored type in all; sums of D numbers (the length, the inner product) are
    summed in pairs and add at most ``log2(D) u`` of the type of the computation (Higham 2002, sec. 4.2). So

        floor = amplified * (4 u_stored + log2(D) u_computed),

    which is 1.3e-6 for two terms of 128 numbers in float32. ``amplified`` is the condition of what the numbers went
    through before: a difference ``o - c`` has relative errors ``(|o| + |c|) / |o - c|`` times those of o. Rounding
    inside the network can be larger than that of its output; it is unknown here and not part of the floor.

    Source: ours.

    >>> f = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    >>> v = torch.tensor([[0.6, 0.8], [0.6, 0.79999]])
    >>> along = (f * v).sum(1, keepdim=True) * f
    >>> vanishes(v - along, (v, along), stored=torch.float32)
    tensor([ True, False])
    """
    size = torch.stack([term.double().norm(dim=-1) for term in terms]).sum(0)  # whose squares do not underflow
    sums = math.log2(max(2, total.shape[-1])) * torch.finfo(total.dtype).eps / 2
    floor = 2 * torch.finfo(stored).eps + sums
    small: Tensor = (total.double().norm(dim=-1) <= floor * amplified * size) & (size > 0)
    return small
