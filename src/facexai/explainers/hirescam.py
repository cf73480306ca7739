"""HiResCAM: activation times gradient, for any layer and any head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from facexai import functional
from facexai.explainers._class_maps import Evidence, Similarity, answer, explain
from facexai.explainers.gradients import check_fields, class_maps, observe, recipe, vanishing
from facexai.models import WhiteBox


@final
@dataclass(frozen=True, eq=False)
class HiResCAM:
    """HiResCAM: activation times gradient, the contribution of each location of a layer to a class's logit.

    Works for any layer that gives a spatial map and for any head. At the input of an affine head it equals
    :class:`~facexai.CAM`; at earlier layers it is first order. Signed; no ReLU unless asked for.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: a name of ``net.named_modules()``, the module's output; ``"auto"``: the deepest map before the
            head of at least 14x14 cells, else of 7x7. The result says which.
        similarity: ``"dot"`` explains the dot product with the unit template, the probe's length held constant;
            ``"cosine"`` differentiates the length too (exactly zero for an identical pair). The same for logits.
        relu: keep positive cells only.

    Raises:
        ValueError: on use: unknown layer, a layer without a spatial map, or one that the score does not depend on.

    Cost: one forward pass and one backward pass from the output to the layer per class. Evidence holds the graph.

    Source: Draelos and Carin 2020, arXiv:2011.08891, eq. 2; ``"dot"`` is ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> from torch.nn import Conv2d, Flatten, Linear, ReLU, Sequential
    >>> net = Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Linear(576, 5))
    >>> why = HiResCAM(FaceModel(net, InputSpec(14), output="logits"), layer="1")(torch.rand(2, 3, 14, 14))
    >>> why.cells.shape
    torch.Size([2, 12, 12])
    """

    classifier: WhiteBox
    layer: str = "auto"
    similarity: Similarity = "dot"
    relu: bool = False

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
        return class_maps(self, evidence, classes, functional.hirescam)
