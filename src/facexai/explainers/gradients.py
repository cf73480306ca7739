"""Functions that gradient methods share: one forward pass, then one vector-Jacobian product per class
on the kept graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from facexai._errors import warn
from facexai.explainers._class_maps import Evidence, Similarity, check_explainable, check_kind
from facexai.explainers._rounding import score_vanishes, zeroed
from facexai.hooks import capture, grad_scope, no_graph
from facexai.models import HeadDoesNotFold, WhiteBox


class NoGradient(ValueError):
    """No gradient of the score reaches the layer."""


class GradientMaps(Protocol):
    """The fields that the functions below read."""

    @property
    def classifier(self) -> WhiteBox: ...
    @property
    def layer(self) -> str: ...
    @property
    def similarity(self) -> Similarity: ...
    @property
    def relu(self) -> bool: ...
    def class_maps(self, evidence: Evidence, classes: Tensor) -> Tensor: ...
    def recipe(self, evidence: Evidence) -> dict[str, Any]: ...
    def observe(self, images: Tensor) -> Evidence: ...


def observe(self: GradientMaps, images: Tensor) -> Evidence:
    """Runs one forward pass and keeps the layer's map and the graph from there to the output."""
    model = self.classifier.model
    name, last = model.layer(self.layer), _unit_head(self)
    layout = model.structure.layers.get(name)
    with (
        no_graph(),
        capture(model.net, name, graph="start", batch=layout.batch if layout else 0) as seen,
        capture(model.net, last, graph="keep") if last else nullcontext() as end,
    ):
        outputs = model.outputs(images)
    shape, rows = tuple(seen.tensor.shape), len(outputs)
    if layout is None or len(seen.tensor) != rows:
        raise ValueError(
            f"layer {name!r} gives shape {shape}, expected a map of the images that the score depends on"
            f"{model.structure.why_not(name)}"
        )
    head = None if end is None else end.last.flatten(1)
    evidence = Evidence(seen.tensor, outputs, head, name, model.fingerprint, "graph")
    if self.similarity == "dot" and _similarity(self, evidence) == "cosine":
        warn(
            "the network normalises its embedding itself, in a way that cannot be undone: the gradient is that of the "
            "cosine, which vanishes for identical faces"
        )
    return evidence


def _unit_head(self: GradientMaps) -> str | None:
    """Returns the module whose output the network divides by its length, where the dot product is to be explained."""
    if self.similarity == "cosine" or self.classifier.model.gives_logits:
        return None
    try:
        head = self.classifier.model.head
    except HeadDoesNotFold:
        return None
    return head.last if head.unit else None


def _similarity(self: GradientMaps, evidence: Evidence) -> Similarity:
    """Returns the score that is differentiated: the cosine, if the network normalises and its head is unknown."""
    if self.similarity == "cosine" or evidence.head is not None or self.classifier.model.gives_logits:
        return self.similarity
    lengths = evidence.outputs.detach().float().norm(dim=1)
    return "cosine" if bool(((lengths - 1).abs() < 1e-3).all()) else "dot"


def recipe(self: GradientMaps, evidence: Evidence) -> dict[str, Any]:
    """Returns every choice that changes a number."""
    return {
        "method": type(self).__name__,
        "layer": evidence.layer,
        "similarity": _similarity(self, evidence),
        "flip": self.classifier.model.flip,
    }


def vanishing(self: GradientMaps, evidence: Evidence, classes: Tensor) -> Tensor:
    """Says which maps (N, K) of classes (N, K) are rounding noise, since the gradient of the score cancels."""
    lengths = self.similarity == "cosine"
    unit = not lengths and _similarity(self, evidence) == "cosine"
    return score_vanishes(self.classifier, evidence.outputs, classes, lengths=lengths, unit=unit)


def class_maps(
    explainer: GradientMaps, evidence: Evidence, classes: Tensor, formula: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Returns maps (N, K, h, w) of classes (N, K) by a formula of activations and gradients; zero where
    they are rounding.
    """
    check_kind(evidence, "graph", explainer.layer)
    classifier, dot = explainer.classifier, explainer.similarity == "dot"
    model, activations = classifier.model, evidence.activations
    layout = model.structure.layers[evidence.layer]
    with grad_scope(model.net):
        outputs = evidence.outputs
        if dot and evidence.head is not None:  # undo the network's own normalisation: its length counts as a constant
            outputs = evidence.head / evidence.head.norm(dim=1, keepdim=True).clamp(min=1e-12).detach()
        features = model.features(outputs)
        classes = classes.clone()  # autograd keeps it, so it must not be an inference-mode tensor
        scores = classifier.score(features, classes, detach_norm=dot)
        if not scores.requires_grad:
            raise NoGradient(_unreached(evidence.layer))
        maps = []
        for column in scores.unbind(1):
            gradients = _gradients(column, activations, evidence.layer)
            if gradients is None:
                raise NoGradient(_unreached(evidence.layer))
            maps.append(model.merge(formula(layout.map(activations.detach()), layout.map(gradients))))
    return zeroed(torch.stack(maps, 1), vanishing(explainer, evidence, classes))


def _gradients(column: Tensor, activations: Tensor, layer: str) -> Tensor | None:
    try:
        return torch.autograd.grad(column.sum(), activations, retain_graph=True, allow_unused=True)[0]
    except RuntimeError as error:
        if "use_reentrant" not in str(error):
            raise
        raise NoGradient(
            f"no gradient reaches layer {layer!r} through torch.utils.checkpoint with use_reentrant=True; set "
            "use_reentrant=False in the network, or name a layer behind its last checkpoint"
        ) from None


def _unreached(layer: str) -> str:
    return (
        f"no gradient from the score reaches layer {layer!r}: the output does not depend on it, or the network "
        "detaches (no_grad, numpy, quantised weights) on the way; name another layer"
    )


def check_fields(self: GradientMaps) -> None:
    """Refuses a classifier that cannot be explained, and any similarity but dot and cosine."""
    check_explainable(self.classifier)
    if (similarity := self.similarity) not in ("dot", "cosine"):
        raise ValueError(f"expected similarity 'dot' or 'cosine', got {similarity!r}")
