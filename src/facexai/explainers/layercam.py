"""LayerCAM: for fine layers, where one weight per channel is too coarse."""

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
class LayerCAM:
    """LayerCAM: activation times the positive part of its gradient at each location; positive part.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: as in :class:`~facexai.HiResCAM`.
        similarity: as in :class:`~facexai.HiResCAM`.
        relu: the published positive part; False keeps the sign, which only activations below zero can give.

    Raises:
        ValueError: on use: unknown layer, a layer without a spatial map, or one that the score does not depend on.

    Cost: one forward pass and one backward pass from the output to the layer per class. Evidence holds the graph.

    Source: Jiang et al. 2021, doi 10.1109/TIP.2021.3089943; ``"dot"`` is ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> from torch.nn import Conv2d, Flatten, Linear, ReLU, Sequential
    >>> net = Sequential(Conv2d(3, 4, 3), ReLU(), Flatten(), Linear(576, 5))
    >>> why = LayerCAM(FaceModel(net, InputSpec(14), output="logits"), layer="1")(torch.rand(2, 3, 14, 14))
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
        return class_maps(self, evidence, classes, functional.layercam)
