"""Score-CAM as algebra: from the scores of masked images to a weight for every channel, to a map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from facexai.functional.cam import at_least_float32

Weights = Literal["probability", "softmax-probability", "softmax-logit"]


def scorecam_weights(logits: Tensor, classes: Tensor, weights: Weights = "probability") -> Tensor:
    """Returns the weight of every channel for every class.

    Args:
        logits: (K, C) of the image under the masks of its K channels.
        classes: (Q,) class indices.
        weights: ``"probability"``: of the class, softmax over the C classes; ``"softmax-probability"``: those
            probabilities, softmax over the K channels; ``"softmax-logit"``: the class's logits, softmax over channels.
            A baseline image's score, which the paper subtracts, cancels in a softmax over channels.

    Returns:
        (K, Q).

    Raises:
        ValueError: probabilities of fewer than two classes, or an unknown option.

    Source: Wang et al. 2020, arXiv:1910.01279: ``"probability"`` is the first version's and the authors' code's,
    ``"softmax-probability"`` the later version's, ``"softmax-logit"`` that of widespread re-implementations.

    >>> scorecam_weights(torch.tensor([[0.0, 0.0], [20.0, 0.0]]), torch.tensor([0]))
    tensor([[0.5000],
            [1.0000]])
    """
    logits = at_least_float32(logits)
    if weights == "softmax-logit":
        return logits[:, classes].softmax(0)
    if weights not in ("probability", "softmax-probability"):
        raise ValueError(f"expected weights probability, softmax-probability or softmax-logit, got {weights!r}")
    if logits.shape[1] < 2:
        raise ValueError(
            f"weights={weights!r} needs at least two classes: the probability of a single one is always 1; "
            "enrol more people, or say weights='softmax-logit'"
        )
    probabilities = logits.softmax(1)[:, classes]
    return probabilities if weights == "probability" else probabilities.softmax(0)


def scorecam(activations: Tensor, weights: Tensor) -> Tensor:
    """Computes Score-CAM before its ReLU: raw activations, each channel with its weight.

    Args:
        activations: (K, h, w).
        weights: (K, Q).

    Returns:
        (Q, h, w), in units of the activations.

    Source: Wang et al. 2020, arXiv:1910.01279, eq. 8.

    >>> scorecam(torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]]]), torch.tensor([[1.0], [0.5]]))
    tensor([[[3., 2.]]])
    """
    activations = at_least_float32(activations)
    return torch.einsum("kq,khw->qhw", weights.to(activations), activations)
