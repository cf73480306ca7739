"""What the gradient methods share: one forward pass, then one vector-Jacobian product per class on the kept graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from facexai.explainers.classmaps import Evidence, Similarity, class_saliency
from facexai.explainers.targets import Targets
from facexai.hooks import capture, quiet_grad
from facexai.models import WhiteBox
from facexai.results import Saliency


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
    """One forward pass; keeps the layer's map and the graph from there to the output."""
    model = self.classifier.model
    name = model.layer(self.layer)
    with quiet_grad(), capture(model.net, name, gradient=True) as seen:
        outputs = model.outputs(images)
    if seen.tensor.ndim != 4 or min(seen.tensor.shape[2:]) < 1:
        raise ValueError(
            f"layer {name!r} gives shape {tuple(seen.tensor.shape)}, expected a map (N, C, h, w); "
            f"layers with maps end in {list(model.layers)[-3:]}"
        )
    return Evidence(seen.tensor, outputs, None, name, model.fingerprint)


def answer(self: GradientMaps, evidence: Evidence, targets: Targets = None) -> Saliency:
    """The map of any class from evidence: one backward pass from the output to the layer."""
    return class_saliency(self, evidence, targets, relu=self.relu)


def recipe(self: GradientMaps, evidence: Evidence) -> dict[str, Any]:
    """Every choice that changes a number."""
    return {
        "method": type(self).__name__,
        "layer": evidence.layer,
        "similarity": self.similarity,
        "flip": self.classifier.model.flip,
    }


def class_maps(
    explainer: GradientMaps, evidence: Evidence, classes: Tensor, formula: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Maps (N, K, h, w) of classes (N, K) by a formula of activations and gradients."""
    classifier, similarity = explainer.classifier, explainer.similarity
    model, activations = classifier.model, evidence.activations
    with torch.inference_mode(False), torch.enable_grad():
        features = model.features(evidence.outputs)
        classes = classes.clone()  # autograd keeps it, so it must not be an inference-mode tensor
        scores = classifier.score(features, classes, detach_norm=similarity == "dot")
        if not scores.requires_grad:
            raise ValueError(_unreached(evidence.layer))
        maps = []
        for column in scores.unbind(1):
            (gradients,) = torch.autograd.grad(column.sum(), activations, retain_graph=True, allow_unused=True)
            if gradients is None:
                raise ValueError(_unreached(evidence.layer))
            maps.append(model.merge(formula(activations.detach(), gradients)))
    return torch.stack(maps, 1)


def _unreached(layer: str) -> str:
    return (
        f"no gradient from the score reaches layer {layer!r}: the output does not depend on it, or the network "
        "detaches (no_grad, numpy, quantised weights) on the way; name another layer"
    )


def check_similarity(similarity: str) -> None:
    """Refuse anything but dot and cosine."""
    if similarity not in ("dot", "cosine"):
        raise ValueError(f"expected similarity 'dot' or 'cosine', got {similarity!r}")
