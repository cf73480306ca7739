"""Sanity checks: a map must depend on the weights, and must not depend on invisible noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor, nn

from facexai._html import table
from facexai.hooks import exclusive, no_graph, trace
from facexai.metrics._identities import people_of
from facexai.metrics.statistic import Statistic
from facexai.models import FaceModel, Gallery
from facexai.models.gallery import around
from facexai.perturb import check_items, generator
from facexai.results import Saliency


class Explains(Protocol):
    """An explainer that is called with images and targets."""

    def __call__(self, images: Tensor, targets: Tensor) -> Saliency: ...


@final
@dataclass(frozen=True, eq=False)
class Randomisation:
    """The similarity of maps to the original ones as layers are randomised, from the output backwards.

    Attributes:
        layers: modules in the order in which they were shuffled, each on top of those before.
        similarity: for each of them the statistic of the rank correlation with the original map.
    """

    layers: tuple[str, ...]
    similarity: tuple[Statistic, ...]

    @property
    def means(self) -> list[float]:
        """Returns the mean rank correlation after each step; a method that explains the network falls towards 0."""
        return [s.mean for s in self.similarity]

    def _repr_html_(self) -> str:
        steps = zip(self.layers, self.similarity, strict=True)
        rows = [
            {"shuffled, from the output": layer, "rank correlation": s.mean, "95 %": s.interval} for layer, s in steps
        ]
        return table(rows, "how alike maps stay")


def rank_correlation(first: Tensor, second: Tensor) -> np.ndarray:
    """Returns Spearman's correlation of maps (N, H, W), (N,); 0 where one of the two is constant.

    >>> rank_correlation(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[3.0, 2.0, 1.0]]]))
    array([-1.])
    """
    from scipy import stats

    ranks = [
        np.stack([stats.rankdata(row) for row in maps.flatten(1).detach().cpu().double().numpy()])
        for maps in (first, second)
    ]
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    alike: np.ndarray = np.divide((a * b).sum(1), size, out=np.zeros(len(a)), where=size > 0)
    return alike


def randomisation(
    make: Callable[[Gallery | FaceModel], Explains],
    classifier: Gallery | FaceModel,
    images: Tensor,
    targets: Tensor,
    *,
    seed: int = 0,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
) -> Randomisation:
    """Runs cascading parameter randomisation: weights are shuffled layer by layer from the output, and
    maps computed again.

    Args:
        make: gives the explainer for a classifier, such as ``lambda c: HiResCAM(c, layer="layer3")``.
        classifier: a gallery or a network with logits; a copy of its network is shuffled, templates stay.
        images: (N, 3, H, W) RGB in [0, 1].
        targets: (N,) class indices.
        seed: of the shuffles.
        identities, items: as in :func:`facexai.metrics.deletion`.

    Returns:
        :class:`Randomisation`. Edges detectors stay near 1; explanations of the network fall towards 0.

    Cost: one explanation and one more for each module with weights.

    Source: Adebayo et al. 2018, arXiv:1810.03292, sec. 4; the weights of each layer are shuffled rather than drawn
    anew, which keeps their distribution (ours).
    """
    numbers = check_items(items, len(images))
    people = people_of(identities, numbers)
    with exclusive(classifier.model.net):  # nobody else's hooks are copied
        net = copy.deepcopy(classifier.model.net)
    shuffled = around(classifier, net)
    original = make(classifier)(images, targets).maps
    layers: list[str] = []
    found: list[Statistic] = []
    for name, module in reversed(_weighted(net, lambda: shuffled.model.outputs(images[:1]))):
        _shuffle(module, generator(seed, len(layers), name))
        maps = make(shuffled)(images, targets).maps
        layers.append(name)
        found.append(Statistic.of(rank_correlation(maps, original), items=numbers, identities=people))
    return Randomisation(tuple(layers), tuple(found))


def _weighted(net: nn.Module, run: Callable[[], Tensor]) -> list[tuple[str, nn.Module]]:
    """Returns the modules with weights of their own, in the order in which they last run."""
    found = {n: m for n, m in net.named_modules() if n and any(True for _ in m.parameters(recurse=False))}
    with no_graph():
        calls, _ = trace(run, found)
    if not found:
        raise ValueError("the network has no weights of its own to shuffle; randomisation needs a torch module")
    order = dict.fromkeys(call.name for call in reversed(calls))
    return [(name, found[name]) for name in reversed(order)]


@torch.no_grad()
def _shuffle(module: nn.Module, drawn: torch.Generator) -> None:
    for weight in module.parameters(recurse=False):
        order = torch.randperm(weight.numel(), generator=drawn).to(weight.device)
        weight.copy_(weight.reshape(-1)[order].view_as(weight))


def stability(
    explainer: Explains,
    images: Tensor,
    targets: Tensor,
    *,
    sigma: float = 0.02,
    draws: int = 4,
    seed: int = 0,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
) -> Statistic:
    """Returns how alike the map stays under noise that no eye sees.

    Args:
        explainer: called with images and targets.
        images: (N, 3, H, W) RGB in [0, 1].
        targets: (N,) class indices.
        sigma: standard deviation of the noise; 0.02 is 5 of 255 grey levels.
        draws: noisy copies of each image.
        seed, identities, items: as in :func:`facexai.metrics.deletion`.

    Returns:
        Statistic of the mean rank correlation with the map of the clean image; 1 is perfectly stable.

    Cost: ``1 + draws`` explanations.

    Source: ours, after the local stability of Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049.
    """
    if draws < 1 or not sigma > 0:
        raise ValueError(f"expected at least one draw and sigma > 0, got {draws} and {sigma}")
    numbers = check_items(items, len(images))
    people = people_of(identities, numbers)
    original = explainer(images, targets).maps
    alike = np.zeros(len(images))
    for k in range(draws):
        drawn = (generator(seed, i, f"noise {k}") for i in numbers)
        noise = [torch.randn(images.shape[1:], generator=g) for g in drawn]
        noisy = (images + sigma * torch.stack(noise).to(images)).clamp(0, 1)
        alike += rank_correlation(explainer(noisy, targets).maps, original)
    return Statistic.of(alike / draws, items=numbers, identities=people)
