"""Decisions of classifiers: the one logit of a network, or the lead of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facexai.decisions._common import RecipeRepr, Size, check, features, network, size_of
from facexai.decisions.base import recipe_of, score
from facexai.hooks import no_graph
from facexai.input_spec import InputSpec
from facexai.models import Gallery, WhiteBox
from facexai.models.targets import index


@final
@dataclass(frozen=True, eq=False, repr=False)
class Binary(RecipeRepr):
    """The one logit of a network; see :func:`binary`."""

    net: nn.Module

    @property
    def module(self) -> nn.Module:
        """Returns the network."""
        return self.net

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Returns class and fingerprint of the network."""
        return dict(recipe_of(self.net))

    def __call__(self, images: Tensor) -> Tensor:
        """Returns (N, 3, H, W) -> (N,)."""
        InputSpec(size_of(images)).check(images, in_range=False)
        return score(self.net, images)


def binary(net: nn.Module) -> Binary:
    """Returns the decision of a network with one output, such as an attribute classifier.

    Args:
        net: maps RGB images (N, 3, H, W) around [0, 1] to one logit each, (N,) or (N, 1); its own mean, std and size
            belong into it. It runs in eval mode and is left as it was.

    Raises:
        TypeError: no module; on use, bad images or another output.

    >>> binary(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 1)))(torch.rand(5, 3, 2, 2)).shape
    torch.Size([5])
    """
    if not isinstance(net, nn.Module):
        raise TypeError(
            f"expected a torch.nn.Module with one output, got {type(net).__name__}; a function of images is a decision "
            "already, and decisions.of_class(classifier, target) makes one of a classifier"
        )
    return Binary(net)


@final
@dataclass(frozen=True, eq=False, repr=False)
class ClassMargin(RecipeRepr):
    """The margin of a class over others; see :func:`of_class`."""

    classifier: WhiteBox
    target: int
    rival: int | None
    size: Size

    @property
    def module(self) -> nn.Module:
        """Returns the network."""
        return self.classifier.model.net

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Returns class and fingerprint of the network, and the classes."""
        names, told = self.classifier.names, {"decision": "of_class", **network(self.classifier.model)}
        if isinstance(self.classifier, Gallery):
            told["gallery"] = self.classifier.fingerprint
        for role, which in (("target", self.target), ("rival", self.rival)):
            told[role] = which if which is None or names is None else names[which]
        return {**told, "size": self.size}

    def __call__(self, images: Tensor) -> Tensor:
        """Returns (N, 3, H, W) -> (N,)."""
        logits = self.classifier.score(features(self.classifier.model, images, self.size), detach_norm=False)
        own = logits[:, self.target]
        if self.rival is not None:
            return own - logits[:, self.rival]
        mine = F.one_hot(torch.tensor(self.target, device=logits.device), logits.shape[1]).bool()
        return own - logits.masked_fill(mine, -torch.inf).amax(1)


def of_class(
    classifier: WhiteBox, target: int | str, rival: int | str | None = None, *, size: Size = "resize"
) -> ClassMargin:
    """Returns whether a class is predicted, of a gallery whether it is this person: its logit minus the
    largest other one.

    Args:
        classifier: a gallery, or a FaceModel that gives logits.
        target: index or name.
        rival: subtract this class's logit instead of the largest other one.
        size: ``"resize"``: images of another size than the network's are resized, differentiably, so that a denoiser of
            another size can be used; they must show the network's own crop. ``"same"``: they are refused.

    Returns:
        A decision, positive where the target is predicted (or preferred to the rival); in a gallery's units, ``scale``
        times cosine.

    Raises:
        ValueError: unknown class, fewer than two classes, a network of embeddings, a black box.
        TypeError: no white-box classifier.

    Cost: one forward pass here, for the number of classes.

    >>> from facexai import FaceModel
    >>> colours = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> model = FaceModel(colours, InputSpec(8), output="logits", names=("red", "green", "blue"))
    >>> of_class(model, "red")(torch.tensor([0.5, 0.25, 0.0])[:, None, None].expand(1, 3, 8, 8))
    tensor([0.2500])
    """
    if not isinstance(classifier, WhiteBox):
        raise TypeError(
            f"expected a gallery or a FaceModel that gives logits, got {type(classifier).__name__}; "
            "facexai.FaceModel(net, spec, output='logits')"
        )
    model = classifier.model
    check(model, size)
    with no_graph():
        classes = classifier.score(model.features(model.outputs(model.noise(1)))).shape[1]
    if classes < 2:
        raise ValueError("expected at least two classes, got one; decisions.binary(net) takes a network of one logit")
    own = index(target, classifier.names, classes)
    other = None if rival is None else index(rival, classifier.names, classes)
    if own == other:
        raise ValueError(f"expected a rival other than the target, got {rival!r} for both")
    return ClassMargin(classifier, own, other, size)
