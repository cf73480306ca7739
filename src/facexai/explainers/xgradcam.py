"""XGrad-CAM: Grad-CAM whose channel weights keep the sum of activation times gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from facexai.explainers._class_maps import Evidence, Similarity, answer, explain
from facexai.explainers.gradients import check_fields, class_maps, observe, recipe, vanishing
from facexai.functional import at_least_float32
from facexai.models import WhiteBox


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Computes XGrad-CAM before its ReLU: channels weighted by the mean of their gradient, weighted by activation.

    Args:
        activations: (N, C, h, w).
        gradients: (N, C, h, w).

    Returns:
        (N, h, w), signed; its sum is that of activation times gradient. A channel whose activations add up to zero,
        within 16 roundings of their magnitude, gets weight 0 and is missing from that sum.

    Source: Fu et al. 2020, arXiv:2008.02312; the guard is ours.

    >>> A = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    >>> xgradcam(A, torch.tensor([[[[1.0, 0.0]], [[5.0, 5.0]]]]))
    tensor([[[0.2500, 0.7500]]])
    """
    a, g = at_least_float32(activations), at_least_float32(gradients)
    total = a.sum((2, 3), keepdim=True)
    usable = total.abs() > 16 * torch.finfo(a.dtype).eps * a.abs().sum((2, 3), keepdim=True)
    weights = torch.where(usable, (a * g).sum((2, 3), keepdim=True) / torch.where(usable, total, 1.0), 0.0)
    return (a * weights).sum(1)


@final
@dataclass(frozen=True, eq=False)
class XGradCAM:
    """XGrad-CAM: channels weighted by their gradients at the places where they are active, positive part.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: as in :class:`~facexai.HiResCAM`.
        similarity: as in :class:`~facexai.HiResCAM`.
        relu: the published positive part; False keeps the sign, and the cells add up to HiResCAM's sum.

    Raises:
        ValueError: on use: unknown layer, a layer without a spatial map, or one that the score does not depend on.

    Cost: one forward pass and one backward pass from the output to the layer per class. Evidence holds the graph.
    A channel has one weight for all its cells: where a head weights its cells differently, HiResCAM or CAM is exact.

    Source: Fu et al. 2020, arXiv:2008.02312; ``"dot"`` is ours.

    >>> from facexai import FaceModel, InputSpec
    >>> from torch.nn import Conv2d, Flatten, Linear, ReLU, Sequential
    >>> net = Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Linear(576, 5))
    >>> why = XGradCAM(FaceModel(net, InputSpec(14), output="logits"), layer="1")(torch.rand(2, 3, 14, 14))
    >>> bool((why.cells >= 0).all())
    True
    """

    classifier: WhiteBox
    layer: str = "auto"
    similarity: Similarity = "dot"
    relu: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    __call__ = explain
    observe = observe
    answer = answer
    recipe = recipe
    _vanishing = vanishing

    def class_maps(self, evidence: Evidence, classes: Tensor) -> Tensor:
        """Returns maps (N, K, h, w) of classes (N, K) before any ReLU, in logits; one backward pass
        for each of the K.
        """
        return class_maps(self, evidence, classes, xgradcam)
