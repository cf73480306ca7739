"""Defines decisions and evaluates them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facexai import hooks
from facexai.functional import at_least_float32
from facexai.hooks import as_weights, eval_scope, no_graph
from facexai.models.fingerprint import fingerprint


class Decision(Protocol):
    """Any function of images; those of this module, an ``nn.Module`` with one output, or the user's own.

    A decision that holds something for each image, such as a reference photo, also has a method
    ``rows(index: Tensor) -> Decision``: the same decision about the images of that index.
    """

    def __call__(self, images: Tensor, /) -> Tensor:
        """Returns one logit per image, differentiable.

        Args:
            images: (N, 3, H, W) RGB around [0, 1], which edits leave by a little.

        Returns:
            (N,) or (N, 1), positive for yes.
        """
        ...


def score(decision: Decision, images: Tensor) -> Tensor:
    """Returns the decision's logits, checked. Keeps the grad mode; a bare ``nn.Module`` runs in eval mode.

    Args:
        decision: which.
        images: (N, 3, H, W).

    Returns:
        (N,), float32 or float64.

    Raises:
        TypeError: the decision cannot be called, or gives no floating-point tensor.
        ValueError: another number of logits than one per image, NaN or infinity.

    >>> score(lambda images: images.mean((1, 2, 3))[:, None] - 0.5, torch.ones(2, 3, 4, 4))
    tensor([0.5000, 0.5000])
    """
    if not callable(decision):
        raise TypeError(
            f"expected a decision that can be called with images, got {type(decision).__name__}; "
            "decisions.of_class(classifier, target) makes one of a classifier"
        )
    if isinstance(decision, nn.Module):
        with eval_scope(decision):
            return one_each(decision(as_weights(images, decision)), len(images))
    return one_each(decision(images), len(images))


@contextmanager
def eval_mode(decision: Decision) -> Iterator[None]:
    """Puts the decision's network into eval mode, also while gradients flow: a checkpointed network
    runs again for them.
    """
    net = decision if isinstance(decision, nn.Module) else getattr(decision, "module", None)
    with hooks.eval_mode(net) if isinstance(net, nn.Module) else nullcontext():
        yield


def check_count(decision: Decision, images: int) -> None:
    """Refuses a decision that holds something for each of another number of images."""
    held = getattr(decision, "held", None)
    if held not in (None, images):
        raise ValueError(
            f"the decision holds one reference for each of {held} images, got {images}; decision.rows(index) is the "
            "decision about some of them"
        )


def score_batched(decision: Decision, images: Tensor, batch_size: int = 64) -> Tensor:
    """Returns the same without a graph, a batch at a time: (N,) float64."""
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    check_count(decision, len(images))
    parts = torch.split(torch.arange(len(images), device=images.device), batch_size)
    with no_graph():
        return torch.cat([score(select(decision, part), images[part]).detach().double() for part in parts])


def select(decision: Decision, index: Tensor) -> Decision:
    """Returns the decision about some of the images, where it holds something for each; else itself.

    Args:
        decision: which.
        index: (M,) numbers of images, or (N,) booleans.
    """
    select = getattr(decision, "rows", None)
    result: Decision = decision if select is None else select(index)
    return result


def recipe_of(decision: object) -> Any:
    """Returns what results record of a decision or denoiser: its recipe; class and fingerprint of a bare
    network; or its name.
    """
    if isinstance(decision, nn.Module):
        return {"decision": "binary", "network": type(decision).__name__, "fingerprint": fingerprint(decision)}
    recipe = getattr(decision, "recipe", None)
    return dict(recipe) if isinstance(recipe, Mapping) else getattr(decision, "__qualname__", type(decision).__name__)


def one_each(values: object, images: int) -> Tensor:
    """Returns the output of a decision as (N,) finite numbers of at least float32."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        told = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"expected one logit per image from the decision, a floating-point tensor, got {told}")
    if values.shape not in ((images,), (images, 1)):
        raise ValueError(
            f"expected one logit per image from the decision, ({images},) or ({images}, 1), got "
            f"{tuple(values.shape)}; decisions.of_class(classifier, target) makes one of several classes"
        )
    values = at_least_float32(values.reshape(images))
    if not torch.isfinite(values.detach()).all():
        bad = (~torch.isfinite(values.detach())).nonzero()[:8, 0].tolist()
        raise ValueError(f"the decision gave NaN or infinity for image {bad}; check weights and precision")
    return values
