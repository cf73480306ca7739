"""Does a decision hang on one attribute? The mean absolute difference between images and their counterparts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from facexai.metrics.statistic import Statistic
from facexai.metrics.subject import logits_of
from facexai.models import Classifier


@final
@dataclass(frozen=True, eq=False)
class Difference:
    """What replacing images by their counterparts does to a probability.

    Attributes:
        absolute: statistic of ``|f(x) - f(x')|``; its mean is the MAD.
        signed: statistic of ``f(x) - f(x')``.
    """

    absolute: Statistic
    signed: Statistic

    @property
    def mad(self) -> float:
        """Mean absolute difference of probabilities, 0 to 1."""
        return self.absolute.mean

    @property
    def md(self) -> float:
        """Mean difference of probabilities, -1 to 1: positive where the counterparts lower the probability."""
        return self.signed.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval of the MAD."""
        return self.absolute.interval

    @property
    def p_value(self) -> float | None:
        """Sign-flip permutation p-value of the signed mean difference."""
        still = Statistic(0 * self.signed.values, self.signed.items, self.signed.identities)
        return self.signed.p_value(still)

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.absolute + other.absolute, self.signed + other.signed)


def mad(
    classifier: Classifier,
    images: Tensor,
    counterparts: Tensor,
    targets: Tensor | int | None = None,
    *,
    identities: Sequence[str] | None = None,
    items: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Difference:
    """Mean absolute difference of the target's probability between images and their counterparts.

    Args:
        classifier: gives logits.
        images: (N, 3, H, W) RGB in [0, 1].
        counterparts: (N, 3, H, W): the same images with one thing changed: a region removed, an attribute edited.
        targets: class index, or one for each image; None: the class predicted for the image.
        identities, items, batch_size: as in :func:`facexai.metrics.deletion`.

    Returns:
        :class:`Difference`.

    Raises:
        ValueError: shapes that differ, or an index out of range.

    Source: Weng et al. 2024, arXiv:2312.14223, sec. 4 (MAD); signed difference and test are ours.
    """
    if images.shape != counterparts.shape:
        raise ValueError(
            f"expected a counterpart of the same shape, got {tuple(images.shape)} and {tuple(counterparts.shape)}"
        )
    before, after = (logits_of(classifier, x, batch_size) for x in (images, counterparts))
    chosen = before.argmax(1) if targets is None else torch.as_tensor(targets, device=before.device).expand(len(images))
    if chosen.is_floating_point() or int(chosen.min()) < 0 or int(chosen.max()) >= before.shape[1]:
        raise ValueError(f"expected class indices from 0 to {before.shape[1] - 1}, got {targets}")
    p, q = (logits.softmax(1).gather(1, chosen[:, None])[:, 0].cpu().numpy() for logits in (before, after))
    return Difference(
        Statistic.of(abs(p - q), items=items, identities=identities),
        Statistic.of(p - q, items=items, identities=identities),
    )
