"""Grad-CAM++: Grad-CAM whose weights look at where the gradient is positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from facexai import functional
from facexai.explainers import gradients
from facexai.explainers._class_maps import Evidence, Similarity, answer, explain
from facexai.models import Gallery, WhiteBox


@final
@dataclass(frozen=True, eq=False)
class GradCAMPlusPlus:
    """Grad-CAM++: channels weighted by their positive gradients, each by its share in the score, positive part.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: as in :class:`~facexai.HiResCAM`.
        similarity: as in :class:`~facexai.HiResCAM`.
        relu: the published positive part; False keeps the sign.

    Raises:
        ValueError: on use: unknown layer, a layer without a spatial map, or one that the score does not depend on.

    The method takes the exponential of the score, so the score's unit changes the map. A gallery's score is its cosine
    here, without the gallery's scale; ``recipe["score_scale"]`` says so: logits per unit of what was differentiated.

    Cost: one forward pass and one backward pass from the output to the layer per class. Evidence holds the graph.

    Source: Chattopadhay et al. 2018, arXiv:1710.11063, with Y = exp(score); ``"dot"`` is ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> from torch.nn import Conv2d, Flatten, Linear, ReLU, Sequential
    >>> net = Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Linear(576, 5))
    >>> why = GradCAMPlusPlus(FaceModel(net, InputSpec(14), output="logits"), layer="1")(torch.rand(2, 3, 14, 14))
    >>> bool((why.cells >= 0).all())
    True
    """

    classifier: WhiteBox
    layer: str = "auto"
    similarity: Similarity = "dot"
    relu: bool = True

    def __post_init__(self) -> None:
        gradients.check_fields(self)

    __call__ = explain
    observe = gradients.observe
    answer = answer
    _vanishing = gradients.vanishing

    def class_maps(self, evidence: Evidence, classes: Tensor) -> Tensor:
        """Returns maps (N, K, h, w) of classes (N, K) before any ReLU; one backward pass for each of the K."""
        scale = self._scale

        def formula(a: Tensor, g: Tensor) -> Tensor:
            return functional.gradcam_plus_plus(a, functional.at_least_float32(g) / scale)

        return gradients.class_maps(self, evidence, classes, formula)

    def recipe(self, evidence: Evidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        return {**gradients.recipe(self, evidence), "score_scale": self._scale, "unit": "weighted activation"}

    @property
    def _scale(self) -> float:
        return float(self.classifier.scale) if isinstance(self.classifier, Gallery) else 1.0
