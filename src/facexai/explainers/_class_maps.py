"""Functions and protocols that class-map explainers share: evidence, and the way from evidence to a Saliency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, final

import torch
from torch import Tensor

from facexai.explainers._rounding import marked
from facexai.functional import upsample
from facexai.models import Gallery, WhiteBox
from facexai.models.targets import Targets, indices
from facexai.results import Saliency

Similarity = Literal["dot", "cosine"]


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """The result of observing images; every further question is answered from it.

    Attributes:
        activations: the explained layer's map, B = 2 branches where the model flips: (B*N, C, h, w); as the layer gave
            it, also channels last or tokens, if ``"graph"``.
        outputs: (B*N, D), the network's output.
        head: (B*N, D), output of the affine head, where the method uses it.
        layer: name of the explained layer.
        fingerprint: of the model that was observed.
        kind: ``"folded"``, plain tensors for CAM, ``"map"``, plain tensors of any layer, or ``"graph"``, for gradient
            methods.

    Plain tensors pickle and can be kept. Evidence of gradient methods holds the graph from the layer to the output: it
    lives as long as the object and does not pickle.
    """

    activations: Tensor
    outputs: Tensor
    head: Tensor | None
    layer: str
    fingerprint: str
    kind: Literal["folded", "map", "graph"]

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.kind == "graph":
            raise TypeError("this evidence holds a gradient graph and does not pickle; keep the images, or use CAM's")
        return (Evidence, (self.activations, self.outputs, self.head, self.layer, self.fingerprint, self.kind))


class ClassMaps(Protocol):
    """An explainer that gives a map of cells for any class; what :class:`~facexai.SDD` wraps."""

    @property
    def classifier(self) -> WhiteBox:
        """Returns the classifier whose logits are explained."""
        ...

    def observe(self, images: Tensor) -> Any:
        """Observes images with the only network passes, and returns the explainer's own evidence."""
        ...

    def class_maps(self, evidence: Any, classes: Tensor) -> Tensor:
        """Returns maps of classes (N, K) before any ReLU: (N, K, h, w), at least float32."""
        ...

    def recipe(self, evidence: Any) -> dict[str, Any]:
        """Returns every choice that changes a number, as JSON."""
        ...


def check_explainable(classifier: WhiteBox) -> None:
    """Refuses what has no logits that follow from a network's features, such as a bare ``nn.Module``."""
    if not all(hasattr(classifier, name) for name in ("model", "score", "directions")):
        raise TypeError(
            f"expected a gallery or a FaceModel, got {type(classifier).__name__}; "
            "FaceModel(net, spec).gallery({name: images}), or FaceModel(net, spec, output='logits')"
        )


class OfModel(Protocol):
    """An object that knows the observed model."""

    @property
    def fingerprint(self) -> str: ...


class Observed(OfModel, Protocol):
    """The fields that all evidence of class maps has."""

    @property
    def outputs(self) -> Tensor: ...
    @property
    def layer(self) -> str: ...
    @property
    def kind(self) -> str: ...


def check_kind(evidence: Observed, kind: str, layer: str) -> None:
    """Refuses evidence of another kind of explainer, or of another layer than the one that was named."""
    if evidence.kind != kind:
        raise ValueError("this evidence is another method's; observe the images with this explainer")
    if layer not in ("auto", evidence.layer):
        raise ValueError(f"this evidence is of layer {evidence.layer!r}, not {layer!r}; observe the images again")


def check_evidence(classifier: WhiteBox, evidence: OfModel) -> None:
    """Refuses evidence of another network, or of this one before its weights changed."""
    if evidence.fingerprint != classifier.model.fingerprint:
        raise ValueError(
            f"this evidence is of model {evidence.fingerprint}, the explainer's model is now "
            f"{classifier.model.fingerprint}; observe the images again"
        )


def logits_of(classifier: WhiteBox, evidence: Observed) -> Tensor:
    """Returns logits (N, C) by algebra, without running the network."""
    with torch.inference_mode(False), torch.no_grad():
        return classifier.score(classifier.model.features(evidence.outputs.detach()))


def asked(classifier: WhiteBox, evidence: Observed, targets: Targets) -> tuple[Tensor, Tensor]:
    """Returns logits (N, C) of the observed images and the target classes (N,); refuses evidence of another network."""
    check_evidence(classifier, evidence)
    logits = logits_of(classifier, evidence)
    return logits, indices(targets, classifier.names, logits)


def saliency(
    classifier: WhiteBox, cells: Tensor, logits: Tensor, targets: Tensor, *, recipe: Mapping[str, Any], **fields: Any
) -> Saliency:
    """Returns a Saliency of target classes (N,) with what every method records in it, from the logits (N, C)."""
    model = classifier.model
    record = dict(recipe)
    record["model"] = repr(model)
    record["fingerprint"] = model.fingerprint
    record["classifier"] = type(classifier).__name__
    if isinstance(classifier, Gallery):
        record["scale"] = float(classifier.scale)
        record["gallery"] = classifier.fingerprint
    fields |= {"targets": targets, "scores": logits.gather(1, targets[:, None])[:, 0], "predicted": logits.argmax(1)}
    return Saliency(cells=cells, size=model.spec.height_width, names=classifier.names, recipe=record, **fields)


def rounding(explainer: ClassMaps, evidence: Any, classes: Tensor) -> Mapping[str, Any]:
    """Returns the entry of a recipe that marks maps of classes (N, K) which are rounding noise: (N,), or (N, K)."""
    vanishing = getattr(explainer, "_vanishing", None)  # of gradient methods
    if vanishing is None:
        return {}
    small: Tensor = vanishing(evidence, classes)
    return marked(small[:, 0] if small.shape[1] == 1 else small)


class Answering(ClassMaps, Protocol):
    """An explainer whose class maps are its answer."""

    @property
    def relu(self) -> bool: ...


def answer(self: Answering, evidence: Any, targets: Targets = None, *, size: tuple[int, int] | None = None) -> Saliency:
    """Returns the map of any class from evidence.

    Args:
        evidence: of :meth:`observe`.
        targets: as for every explainer.
        size: (H, W), to enlarge the cells before the positive part is taken.
    """
    logits, chosen = asked(self.classifier, evidence, targets)
    cells = self.class_maps(evidence, chosen[:, None])[:, 0]
    cells = cells if size is None else upsample(cells, size)
    return saliency(
        self.classifier,
        cells.clamp(min=0) if self.relu else cells,
        logits,
        chosen,
        signed_cells=cells if self.relu else None,
        recipe={**self.recipe(evidence), "relu": self.relu, **rounding(self, evidence, chosen[:, None])},
    )


class Explainer(Protocol):
    """An explainer of one image at a time: observe, then answer."""

    def observe(self, images: Tensor) -> Any: ...
    def answer(self, evidence: Any, targets: Targets = None) -> Saliency: ...


def explain(self: Explainer, images: Tensor, targets: Targets = None) -> Saliency:
    """Returns why this class? ``answer(observe(images), targets)``.

    Args:
        images: (N, 3, H, W) RGB in [0, 1]. The result refers to them so that it can draw itself; it never saves them.
        targets: a class index, a person's name, a list with one for each image, or None: the predicted class.
    """
    return replace(self.answer(self.observe(images), targets), images=images)
