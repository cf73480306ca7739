"""PairCAM: class activation maps of a pair, and which cell of one face matched which cell of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai import functional
from facexai.explainers._class_maps import Evidence, check_evidence
from facexai.explainers._rounding import marked
from facexai.explainers.cam import CAM, observe_head, warn_of_few_cells
from facexai.explainers.gradients import vanishing
from facexai.explainers.hirescam import HiResCAM
from facexai.explainers.pairs import (
    Against,
    FaceEvidence,
    branches_first,
    by_image,
    check_embeds,
    check_gallery,
    check_model,
    check_same,
    explain_pair,
    record,
    sides,
    units_of,
)
from facexai.functional._decision import cosines
from facexai.hooks import no_graph
from facexai.models import FaceModel, Gallery, HeadDoesNotFold
from facexai.results import PairSaliency


@final
@dataclass(frozen=True, eq=False)
class PairCAM:
    """PairCAM: the contribution of every location of each face, and of every pair of locations, to the cosine.

    At the head's input, where the head is affine, the cells and ``.constant`` add up to the cosine exactly, which is
    checked on every call. ``.matches(y, x)`` and ``.plot_matches()`` of the result show correspondences.

    Args:
        model: a :class:`~facexai.FaceModel` that embeds.
        layer: ``"auto"``, the head's input; or any layer with a map, finer and of first order (activation times
            gradient), which the recipe says.
        threshold: cosine from which a pair is accepted; it changes no map.
        table: keep the table of correspondences, (h w) x (h w) for each pair.

    Raises:
        HeadDoesNotFold: on use, ``layer="auto"`` and the head is not affine.

    Cost: one forward pass per face; at the head's input everything else is algebra and the evidence is portable. At
    other layers a backward pass from the output to the layer for each partner and, for the table, for each number of
    the embedding.

    Source: ours, of CAM (Zhou et al. 2016) folded as :class:`~facexai.CAM` does; the table for pooled heads is of
    Zhu et al. 2021, IEEE TIP 30.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5))
    >>> why = PairCAM(FaceModel(net, InputSpec(8)))(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    >>> torch.allclose(why.cells.sum((2, 3)) + why.constant, why.scores[:, None].float(), atol=1e-5)
    True
    >>> why.table.shape
    torch.Size([2, 6, 6, 6, 6])
    """

    model: FaceModel
    layer: str = "auto"
    threshold: float | None = None
    table: bool = True

    def __post_init__(self) -> None:
        check_model(self.model, self.threshold)

    __call__ = explain_pair

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors, which can be kept."""
        return self.layer == "auto"

    def observe(self, images: Tensor) -> FaceEvidence | Evidence:
        """Runs one forward pass and keeps plain tensors at the head's input, a graph at other layers."""
        if not self.portable:
            return HiResCAM(self._partners(torch.ones(1, 1)), layer=self.layer).observe(images)
        try:
            warn_of_few_cells("PairCAM", self.model, "PairCAM(model, layer=...)")
            seen = observe_head(self.model, images)
        except HeadDoesNotFold as refusal:
            why = str(refusal).split(". Use")[0]
            raise HeadDoesNotFold(f"{why}. PairCAM(model, layer=...) explains any layer that has a map") from None
        assert seen.head is not None
        parts = {"outputs": seen.outputs, "activations": seen.activations, "head": seen.head}
        rows = {name: by_image(part.detach(), len(images)) for name, part in parts.items()}
        return FaceEvidence(rows, seen.fingerprint, "PairCAM", {"layer": seen.layer})

    def answer(self, first: Any, second: Any) -> PairSaliency:
        """Returns the maps of pairs from evidence of their faces."""
        evidence = [self._evidence(one) for one in (first, second)]
        units = [self._units(one) for one in (first, second)]
        rows = sides(*units)
        cells, constants, small = [], [], []
        for side in (0, 1):
            maps, left, below = self._towards(evidence[side], units[1 - side][rows[1 - side]], rows[side], units[side])
            cells.append(maps)
            constants.append(left)
            small.append(below)
        scores = cosines(units[0][rows[0]], units[1][rows[1]])
        table = None
        if self.table:
            spread = [self._spread(evidence[side], units[side]) for side in (0, 1)]
            with no_graph():
                table = functional.correspondences(spread[0][rows[0]], spread[1][rows[1]])
        threshold = None if self.threshold is None else float(self.threshold)
        return PairSaliency(
            torch.stack(cells, 1),
            self.model.spec.height_width,
            scores,
            threshold,
            record(self.model, {**self.recipe(first), **marked(torch.stack(small, 1))}),
            constant=torch.stack(constants, 1) if self.portable else None,
            table=table,
        )

    # ---- each face as CAM sees it -----------------------------------------------------------------------------

    def _partners(self, rows: Tensor) -> Gallery:
        """Returns directions (C, D) in the space of the unit embedding, as people to explain."""
        with torch.inference_mode(False):  # gradients of the score need plain tensors
            return Gallery(self.model, tuple(str(k) for k in range(len(rows))), rows.detach().clone(), scale=1.0)

    def _evidence(self, evidence: Any) -> Evidence:
        if not self.portable:
            if not isinstance(evidence, Evidence):
                raise ValueError(
                    f"this evidence is a {type(evidence).__name__}, not PairCAM's at layer {self.layer!r}; observe the "
                    "images with this explainer"
                )
            check_evidence(self.model, evidence)
            check_embeds(self.model)
            return evidence
        check_same(evidence, "PairCAM", {"layer": self.model.head.layer})
        parts = {name: branches_first(part) for name, part in evidence.parts.items()}
        return Evidence(
            parts["activations"], parts["outputs"], parts["head"], evidence.layer, evidence.fingerprint, "folded"
        )

    def _units(self, evidence: Any) -> Tensor:
        if isinstance(evidence, FaceEvidence):
            return units_of(self.model, evidence)
        with no_graph():
            return F.normalize(self.model.features(evidence.outputs.detach()))

    def _base(self, rows: Tensor) -> CAM | HiResCAM:
        people = self._partners(rows)
        return CAM(people) if self.portable else HiResCAM(people, layer=self.layer)

    def _towards(
        self, evidence: Evidence, partners: Tensor, rows: list[int], units: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns cells (P, h, w) of faces ``rows`` towards their partners (P, D), their remainders (P,), and
        which vanish (P,).
        """
        classes = torch.arange(len(partners), device=partners.device)
        classes = classes[:, None] if len(units) == len(rows) else classes[None]  # one face stands for all
        if self.portable:
            maps, constants = CAM(self._partners(partners)).fold(evidence, classes)
            small = torch.zeros_like(constants, dtype=torch.bool)
        else:
            base = HiResCAM(self._partners(partners), layer=self.layer)
            maps, small = base.class_maps(evidence, classes).detach(), vanishing(base, evidence, classes)
            constants = maps.new_zeros(maps.shape[:2])
        return maps.flatten(0, 1), constants.flatten(), small.flatten()

    def _spread(self, evidence: Evidence, units: Tensor) -> Tensor:
        """Returns (N, D, h, w): what each cell adds to every number of the unit embedding."""
        size = units.shape[1]
        classes = torch.arange(size, device=units.device).expand(len(units), -1)
        return self._base(torch.eye(size, device=units.device, dtype=units.dtype)).class_maps(evidence, classes)

    # ---- everybody --------------------------------------------------------------------------------------------

    def against(self, gallery: Gallery) -> Against:
        """Returns the same evidence against every enrolled person: ``explainer.against(gallery)(images)``."""
        return Against(self, gallery)

    def maps_against(self, evidence: Any, gallery: Gallery) -> Tensor:
        """Returns (N, C, h, w) maps of each face against each person, in cosines."""
        check_gallery(gallery, self.model)
        base = CAM(gallery) if self.portable else HiResCAM(gallery, layer=self.layer)
        return base.class_maps(self._evidence(evidence), self._everybody(evidence, gallery)).detach() / gallery.scale

    def _vanishing_against(self, evidence: Any, gallery: Gallery) -> Tensor | None:
        """Says which maps (N, C) are rounding noise; None at the head's input, where there is no gradient."""
        if self.portable:
            return None
        return vanishing(HiResCAM(gallery, layer=self.layer), evidence, self._everybody(evidence, gallery))

    def _everybody(self, evidence: Any, gallery: Gallery) -> Tensor:
        return torch.arange(len(gallery), device=self.model.device).expand(len(self._units(evidence)), -1)

    def recipe(self, evidence: Any) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        made: dict[str, Any] = {"method": "PairCAM", "layer": evidence.layer, "unit": "cosine"}
        if self.portable:
            return {**made, "order": "exact"}
        base = HiResCAM(self._partners(torch.ones(1, 1)), layer=self.layer).recipe(evidence)
        return {**made, "order": "first order: activation times gradient", "similarity": base["similarity"]}
