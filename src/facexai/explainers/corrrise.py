"""CorrRISE: correlates the cosine with the visibility of each pixel under random black patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai import functional
from facexai.explainers._class_maps import asked, saliency
from facexai.explainers._masked_forward import check_chunk, chunk_size, features_of
from facexai.explainers.either import check_either, explain_either, of_pairs, outputs_of
from facexai.explainers.pairs import (
    Against,
    FaceEvidence,
    check_gallery,
    check_same,
    one_of,
    record,
    sides,
    units_of,
)
from facexai.functional._decision import cosines
from facexai.hooks import no_graph
from facexai.models import FaceModel, Gallery, WhiteBox
from facexai.models.targets import Targets
from facexai.perturb import black_patches, grid_masks
from facexai.results import PairSaliency, Saliency

Masks = Literal["patches", "grid"]
Score = Literal["cosine", "margin"]


@final
@dataclass(frozen=True, eq=False)
class CorrRISE:
    """CorrRISE: a pixel supports a match if the cosine is high when it is visible and low when it is hidden.

    It needs no gradients, so it explains black boxes, quantised networks and ScriptModules, too. With a gallery
    (or class logits) in
    place of the model it explains classes: ``CorrRISE(people)(images, targets)``, and ``SDD(CorrRISE(people))``.

    Args:
        model: a :class:`~facexai.FaceModel` that embeds, for pairs; a gallery or a FaceModel with logits, for classes.
        masks: ``"patches"``: each mask hides three squares of 30 px at 112 px, Spearman's correlation; ``"grid"``:
            cells that are visible with probability ``keep``, enlarged smoothly and shifted, Pearson's correlation.
        count: number of masks, the same for every image.
        cells: of the grid, per side.
        keep: probability with which a cell of the grid is visible.
        seed: of the masks.
        score: for classes: ``"cosine"``, the class's own score, or ``"margin"``, that minus the best other class's.
        threshold: cosine from which a pair is accepted; it changes no map.
        chunk: masked images per forward pass; ``"auto"``: as for :class:`~facexai.ScoreCAM`.
        progress: show a progress bar.

    Cost: ``count`` + 1 forward passes per image, for any number of partners, people and classes. Evidence is portable:
    the masked images' embeddings, ``count`` x D per face.

    Source: Lu et al. 2024, WACV, arXiv:2305.08546; details reconstructed. The class maps are ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> model = FaceModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), InputSpec(8))
    >>> why = CorrRISE(model, count=40)(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    >>> why.maps.shape, bool((why.maps.abs() <= 1).all())
    (torch.Size([2, 2, 8, 8]), True)
    """

    model: Any
    masks: Masks = "patches"
    count: int = 500
    cells: int = 12
    keep: float = 0.9
    seed: int = 0
    score: Score = "cosine"
    threshold: float | None = None
    chunk: int | Literal["auto"] = "auto"
    progress: bool = False

    def __post_init__(self) -> None:
        check_either(self.model, self.threshold)
        check_chunk(self.chunk)
        one_of("masks", self.masks, ("patches", "grid"))
        one_of("score", self.score, ("cosine", "margin"))
        if not isinstance(self.count, int) or self.count < 3:
            raise ValueError(f"expected a count of at least 3 masks, got {self.count!r}")
        if not isinstance(self.cells, int) or self.cells < 2 or not 0 < self.keep < 1:
            raise ValueError(
                f"expected at least 2 cells and keep between 0 and 1, got {self.cells!r} and {self.keep!r}"
            )

    @property
    def _of_pairs(self) -> bool:
        return of_pairs(self.model)

    @property
    def network(self) -> FaceModel:
        """Returns the model that embeds."""
        network: FaceModel = self.model.model
        return network

    @property
    def classifier(self) -> WhiteBox:
        """Returns the classifier whose classes are explained; None for pairs."""
        classifier: WhiteBox = self.model
        return classifier

    def __call__(self, first: Tensor, second: Tensor | Targets = None, *, targets: Targets = None) -> Any:
        """Returns why do these faces match, or not? With a gallery: why this class?

        Args:
            first: (N, 3, H, W) RGB in [0, 1].
            second: as many partners; with a gallery: targets, as for every class-map explainer.
            targets: the same by name, with a gallery.

        Returns:
            PairSaliency; with a gallery Saliency.
        """
        return explain_either(self, first, second, targets)

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors, which can be kept."""
        return True

    # ---- one face ---------------------------------------------------------------------------------------------

    def observe(self, images: Tensor) -> FaceEvidence:
        """Returns embeddings of the faces and of their masked copies; the only network passes."""
        model = self.network
        size = chunk_size(model, self.chunk)
        outputs, shown = outputs_of(model, images, size), images.detach()
        masks = self._masks().to(images)
        told = "CorrRISE" if self.progress else None
        number = torch.arange(len(images), device=images.device).repeat_interleave(len(masks))
        which = torch.arange(len(masks), device=images.device).repeat(len(images))

        def make(part: slice) -> Tensor:
            return shown[number[part]] * masks[which[part], None]

        masked = features_of(model, number, make, chunk=size, progress=told)
        masked = masked.view(len(images), -1, masked.shape[1])
        return FaceEvidence({"outputs": outputs, "masked": masked}, model.fingerprint, "CorrRISE", self._settings())

    def _masks(self) -> Tensor:
        return _made(self.masks, self.count, self.network.spec.height_width, self.cells, self.keep, self.seed)

    def _correlation(self, scores: Tensor) -> Tensor:
        """Returns maps (..., H, W) of scores (..., M)."""
        scores = functional.zero_if_constant(functional.at_least_float32(scores))
        size = self.network.spec.height_width
        masks = _centred(self.masks, self.count, size, self.cells, self.keep, self.seed, scores.device, scores.dtype)
        ranked = functional.ranks(scores) if self.masks == "patches" else scores
        return functional.correlation_maps(masks, ranked, size)

    # ---- pairs ------------------------------------------------------------------------------------------------

    def answer(self, first: FaceEvidence, second: Any = None) -> Any:
        """Returns the maps of pairs from evidence of both faces; with a gallery, of classes. No network pass."""
        if not self._of_pairs:
            return self._classes(first, second)
        return self._pairs(first, second)

    def _pairs(self, first: FaceEvidence, second: FaceEvidence) -> PairSaliency:
        model = self.network
        for evidence in (first, second):
            check_same(evidence, "CorrRISE", self._settings())
        units = units_of(model, first), units_of(model, second)
        left, right = sides(first, second)
        cells = []
        with no_graph():
            for i, j in zip(left, right, strict=True):
                masked = (first.parts["masked"][i], second.parts["masked"][j])
                partners = (units[1][j], units[0][i])
                scores = torch.stack([F.normalize(m) @ p for m, p in zip(masked, partners, strict=True)])
                cells.append(self._correlation(scores))
            scores = cosines(units[0][left], units[1][right])
        threshold = None if self.threshold is None else float(self.threshold)
        made = record(model, self.recipe(first))
        return PairSaliency(torch.stack(cells), model.spec.height_width, scores, threshold, made)

    def against(self, gallery: Gallery) -> Against:
        """Returns the same evidence against every enrolled person: ``explainer.against(gallery)(images)``."""
        if not self._of_pairs:
            raise TypeError("this explainer is of classes already; CorrRISE(model).against(gallery)")
        return Against(self, gallery)

    def maps_against(self, evidence: FaceEvidence, gallery: Gallery) -> Tensor:
        """Returns (N, C, H, W) maps of each face against each person; no network pass."""
        check_same(evidence, "CorrRISE", self._settings())
        check_gallery(gallery, self.network)
        with no_graph():
            scores = torch.stack([gallery.score(masked).T for masked in evidence.parts["masked"]])
            return torch.stack([self._correlation(one) for one in scores])

    # ---- classes ----------------------------------------------------------------------------------------------

    def _classes(self, evidence: FaceEvidence, targets: Targets) -> Saliency:
        logits, chosen = asked(self.classifier, evidence, targets)
        return saliency(
            self.classifier,
            self.class_maps(evidence, chosen[:, None])[:, 0],
            logits,
            chosen,
            recipe=self.recipe(evidence),
        )

    def class_maps(self, evidence: FaceEvidence, classes: Tensor) -> Tensor:
        """Returns maps (N, K, H, W) of classes (N, K): correlations; no network pass."""
        check_same(evidence, "CorrRISE", self._settings())
        maps = []
        with no_graph():
            for masked, wanted in zip(evidence.parts["masked"], classes, strict=True):
                scores = self.classifier.score(masked).T
                if self.score == "margin":
                    scores = _margins(scores)
                maps.append(self._correlation(scores[wanted]))
        return torch.stack(maps)

    def recipe(self, evidence: FaceEvidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        made = {"method": "CorrRISE", "layer": "pixels", **self._settings(), "unit": "correlation"}
        return made if self._of_pairs else {**made, "score": self.score}

    def _settings(self) -> dict[str, Any]:
        made: dict[str, Any] = {"masks": self.masks, "count": self.count, "seed": self.seed}
        return made if self.masks == "patches" else {**made, "cells": self.cells, "keep": self.keep}


def _margins(scores: Tensor) -> Tensor:
    """Returns (C, M): each class's score minus the best other class's."""
    if len(scores) < 2:
        raise ValueError("a margin needs at least two classes, this classifier has one")
    best, second = scores.topk(2, dim=0).values
    return scores - torch.where(scores == best, second, best)


@lru_cache(maxsize=2)
def _centred(
    masks: Masks,
    count: int,
    size: tuple[int, int],
    cells: int,
    keep: float,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Computes what all questions about the same masks share."""
    with torch.inference_mode(False):
        return functional.centred(_made(masks, count, size, cells, keep, seed).to(device, dtype))


def _made(masks: Masks, count: int, size: tuple[int, int], cells: int, keep: float, seed: int) -> Tensor:
    if masks == "patches":
        return black_patches(count, size, seed=seed)
    return grid_masks(count, size, cells=cells, keep=keep, seed=seed)
