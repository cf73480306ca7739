"""Eigen-CAM: the first principal component of a layer's map, whatever the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from facexai.explainers._class_maps import Evidence, asked, check_explainable, check_kind, explain, saliency
from facexai.explainers._layer_map import observe
from facexai.functional import at_least_float32
from facexai.hooks import no_graph
from facexai.models import WhiteBox
from facexai.models.targets import Targets
from facexai.results import Saliency


def eigencam(activations: Tensor) -> Tensor:
    """Returns each cell's activations projected on the first right singular vector of the map.

    Args:
        activations: (N, C, h, w).

    Returns:
        (N, h, w) in units of the activation. A singular vector has no sign of its own; here the cells add up to a
        number that is not negative.

    Source: Muhammad and Yeasin 2020, arXiv:2008.00299: cells by channels, not centred; the sign is ours.

    >>> eigencam(torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]]))
    tensor([[[5., 0.]]])
    """
    u, s, _ = torch.linalg.svd(at_least_float32(activations).flatten(2).transpose(1, 2), full_matrices=False)
    cells: Tensor = u[:, :, 0] * s[:, :1]
    cells = torch.where(cells.sum(1, keepdim=True) < 0, -cells, cells)
    return cells.view(len(cells), *activations.shape[2:])


@final
@dataclass(frozen=True, eq=False)
class EigenCAM:
    """Eigen-CAM: the first principal component of a layer's activations. It does not depend on the class.

    The targets of a call select the class whose score is stored with the map, for metrics; the map is the same for all
    of them, so there are no ``class_maps`` for :class:`~facexai.SDD` to compare. A baseline: a map of a decision should
    be more faithful than this map of a layer.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: as in :class:`~facexai.HiResCAM`.

    Raises:
        ValueError: on use: unknown layer, or a layer without a spatial map.

    Cost: one forward pass, and a singular value decomposition per image. Evidence is portable: plain tensors.

    Source: Muhammad and Yeasin 2020, arXiv:2008.00299; the sign is ours.

    >>> from facexai import FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(576, 5))
    >>> explainer = EigenCAM(FaceModel(net, InputSpec(14), output="logits"), layer="0")
    >>> evidence = explainer.observe(torch.rand(2, 3, 14, 14))
    >>> torch.equal(explainer.answer(evidence, 1).cells, explainer.answer(evidence, 4).cells)
    True
    """

    classifier: WhiteBox
    layer: str = "auto"

    def __post_init__(self) -> None:
        check_explainable(self.classifier)

    __call__ = explain
    observe = observe

    def answer(self, evidence: Evidence, targets: Targets = None) -> Saliency:
        """Returns the layer's map, with the scores of the targets beside it."""
        check_kind(evidence, "map", self.layer)
        logits, chosen = asked(self.classifier, evidence, targets)
        with no_graph():
            cells = self.classifier.model.merge(eigencam(evidence.activations))
        return saliency(
            self.classifier,
            cells,
            logits,
            chosen,
            recipe=self.recipe(evidence),
        )

    def recipe(self, evidence: Evidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        made = {"method": "EigenCAM", "layer": evidence.layer, "flip": self.classifier.model.flip}
        return {**made, "class_specific": False, "unit": "magnitude along the first component"}
