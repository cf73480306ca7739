"""SDD: evidence for the target that its rivals lack, over any class-map explainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from facexai import functional
from facexai._errors import warn
from facexai.explainers._class_maps import ClassMaps, asked, explain, rounding, saliency
from facexai.functional.sdd import Amplify, Divergence, Scale
from facexai.models import WhiteBox
from facexai.models.targets import Targets, index, ranking
from facexai.results import Saliency


@final
@dataclass(frozen=True, eq=False)
class SDD:
    """Scaled Directed Divergence: the target's class map minus those of its rivals, amplified.

    Answers "why this identity and not that look-alike?". Rivals are the classes that the model itself finds most
    probable after the target.

    Args:
        base: a class-map explainer, such as ``HiResCAM(people, layer="layer3")``.
        rivals: how many, or which: names or class indices, the same for every image.
        power: exponent of the amplification.
        scale: ``"minmax"`` or ``"none"``; see :func:`facexai.functional.sdd`.
        amplify: ``"power"``, ``"exp"`` or ``"none"``.
        divergence: ``"difference"`` or ``"kl"``.
        relu: drop negative cells of the class maps first.

    Raises:
        ValueError: on use: fewer than two classes, unknown rivals, the target among its rivals.

    Cost: that of the base; with CAM one forward pass for any number of classes, with gradient methods one backward
    pass for the target and each rival.

    Source: reconstructed from Verenich et al. 2021 (doi 10.1007/978-3-030-76409-8_7) and Shadman et al. 2025
    (arXiv:2505.03837); four rivals are their "top five".

    >>> from facexai import CAM, FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(576, 9))
    >>> why = SDD(CAM(FaceModel(net, InputSpec(14), output="logits")))(torch.rand(2, 3, 14, 14))
    >>> why.cells.shape, why.rivals.shape
    (torch.Size([2, 12, 12]), torch.Size([2, 4]))
    """

    base: ClassMaps
    rivals: int | Sequence[int | str] = 4
    power: float = 15.0
    scale: Scale = "minmax"
    amplify: Amplify = "power"
    divergence: Divergence = "difference"
    relu: bool = False

    def __post_init__(self) -> None:
        if not hasattr(self.base, "class_maps"):
            raise TypeError(f"SDD wraps an explainer with class maps, such as HiResCAM(people); got {self.base!r}")
        if isinstance(self.rivals, str):
            raise TypeError(
                f"expected a number of rivals or a list of them, got the text {self.rivals!r}; [{self.rivals!r}]"
            )
        wanted = self.rivals if isinstance(self.rivals, int) else len(self.rivals)
        if wanted < 1:
            raise ValueError(f"expected at least one rival, got rivals={self.rivals!r}")

    @property
    def classifier(self) -> WhiteBox:
        """Returns the classifier whose logits are explained."""
        return self.base.classifier

    __call__ = explain

    def observe(self, images: Tensor) -> Any:
        """Returns the base's evidence."""
        return self.base.observe(images)

    def answer(self, evidence: Any, targets: Targets = None) -> Saliency:
        """Returns the map of any target from evidence.

        Returns:
            A Saliency with ``.rivals`` (N, R) and ``.class_cells`` (N, 1 + R, h, w), the target's first.
        """
        logits, chosen = asked(self.classifier, evidence, targets)
        rivals = self._rivals(logits, chosen)
        classes = torch.cat([chosen[:, None], rivals], 1)
        maps = self.base.class_maps(evidence, classes)
        if self.relu:
            maps = maps.clamp(min=0)
        cells = functional.sdd(maps[:, 0], maps[:, 1:], self.power, self.scale, self.amplify, self.divergence)
        choices = {
            "power": self.power,
            "scale": self.scale,
            "amplify": self.amplify,
            "divergence": self.divergence,
            "relu": self.relu,
            "rivals": rivals.shape[1],
        }
        base = {**self.base.recipe(evidence), **rounding(self.base, evidence, classes)}
        return saliency(
            self.classifier,
            cells,
            logits,
            chosen,
            rivals=rivals,
            rival_scores=logits.gather(1, rivals),
            class_cells=maps,
            recipe={**base, "method": f"SDD({base['method']})", "sdd": choices},
        )

    def _rivals(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns class indices (N, R) of each image's rivals."""
        n, classes = logits.shape
        if classes < 2:
            raise ValueError(
                "SDD compares a class with its rivals: it needs at least two classes, this classifier has one"
            )
        if isinstance(self.rivals, int):
            if self.rivals > classes - 1:
                warn(f"{self.rivals} rivals asked for, this classifier has {classes - 1} beside the target; took those")
            order = ranking(logits)
            others = order[order != targets[:, None]].view(n, classes - 1)
            return others[:, : self.rivals]
        named = [index(rival, self.classifier.names, classes) for rival in self.rivals]
        if len(set(named)) < len(named):
            raise ValueError(f"expected distinct rivals, got {list(self.rivals)}")
        listed = torch.tensor(named, device=logits.device).expand(n, -1)
        clash = (listed == targets[:, None]).any(1).nonzero()[:, 0].tolist()
        if clash:
            raise ValueError(f"the target of image {clash[:8]} is among its rivals {list(self.rivals)}; leave it out")
        return listed
