"""Explainers that change pixels: of pairs where they are given a model, of classes where they are given a gallery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from facexai.explainers._class_maps import check_explainable
from facexai.explainers.pairs import by_image, check_model, explain_pair
from facexai.hooks import no_graph
from facexai.models import FaceModel
from facexai.models._validation import bound, check_device
from facexai.models.targets import Targets


def of_pairs(model: object) -> bool:
    """Returns whether a model embeds; else it has classes."""
    return isinstance(model, FaceModel) and model.output != "logits"


def check_either(model: Any, threshold: float | None = None) -> None:
    """Refuses what neither embeds nor has classes."""
    if of_pairs(model):
        check_model(model, threshold)
    else:
        check_explainable(model)


class Either(Protocol):
    """An explainer of pairs or classes."""

    @property
    def model(self) -> Any: ...
    @property
    def portable(self) -> bool: ...
    def observe(self, images: Tensor) -> Any: ...
    def answer(self, first: Any, second: Any = None) -> Any: ...


def explain_either(self: Either, first: Tensor, second: Tensor | Targets = None, targets: Targets = None) -> Any:
    """Returns why do these faces match, or not? With a gallery: why this class?

    Args:
        first: (N, 3, H, W) RGB in [0, 1].
        second: as many partners; with a gallery: targets, as for every class-map explainer.
        targets: the same by name, with a gallery.
    """
    if asks_pairs(self, second, targets):
        assert isinstance(second, Tensor)
        return explain_pair(self, first, second)
    return replace(self.answer(self.observe(first), targets if second is None else second), images=first)


def asks_pairs(self: Either, second: object, targets: Targets) -> bool:
    """Returns whether an explainer is of pairs; refuses a partner beside a gallery, a model without
    one, and two targets.
    """
    name = type(self).__name__
    if of_pairs(self.model):
        if not isinstance(second, Tensor) or second.ndim < 2 or not second.is_floating_point():
            raise TypeError(
                "expected two batches of faces (P, 3, H, W), explainer(first, second); for classes give it a gallery"
            )
        if targets is not None:
            raise TypeError("targets belong to a gallery; two faces have none")
        return True
    if second is not None and targets is not None:
        raise TypeError(f"expected targets once, got {second!r} and {targets!r}")
    if isinstance(second, Tensor) and second.ndim > 1:
        raise TypeError(
            f"expected targets beside the images, got a tensor of shape {tuple(second.shape)}; for two faces give "
            f"it the model: {name}(model)(first, second)"
        )
    return False


def outputs_of(model: FaceModel, images: Tensor, chunk: int) -> Tensor:
    """Returns the outputs for the unchanged images, (N, B, D), with B = 2 branches if the model flips.

    Raises:
        TypeError, ValueError: images that do not fit the network.
    """
    check_device(images, model.device)
    model.spec.check(images)
    bound(model.forward_kwargs, len(images), None, images.device)  # one row, or a row for each
    image = torch.arange(len(images), device=images.device)
    branches = 1 if model.flip is None else 2
    with no_graph():
        found = [model.outputs(images.detach()[part], part) for part in torch.split(image, chunk)]
        return torch.cat([by_image(rows, len(rows) // branches) for rows in found])
