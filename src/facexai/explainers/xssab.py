"""xSSAB: gradients of the part of the cosine that agrees, and of the part that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai import functional
from facexai.explainers._class_maps import check_evidence
from facexai.explainers._rounding import cosine_vanishes, marked, pair_vanishes, zeroed
from facexai.explainers.jacobian import INSTEAD, UNREACHED, gradient
from facexai.explainers.pairs import Against, against_units, check_embeds, check_model, explain_pair, record, sides
from facexai.functional import at_least_float32
from facexai.functional._decision import cosines
from facexai.hooks import grad_scope
from facexai.models import FaceModel, Gallery
from facexai.models._validation import check_device
from facexai.results import PairSaliency
from facexai.results.pairs import warn_of_one_sign


@final
@dataclass(frozen=True, eq=False)
class GraphEvidence:
    """The graph from the pixels to the embedding of N faces; lives as long as the object and does not pickle.

    Attributes:
        images: (N, 3, H, W), the leaves of the graph.
        outputs: (B*N, D), the network's.
        features: (N, D'), of the model, on the graph.
        fingerprint: of the model that was observed.
        kind: the method that can use it.
    """

    images: Tensor
    outputs: Tensor
    features: Tensor
    fingerprint: str
    kind: str = "XSSAB"

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> Any:
        raise TypeError("this evidence holds a gradient graph and does not pickle; keep the images, or use FGGB's")


@final
@dataclass(frozen=True, eq=False)
class XSSAB:
    """xSSAB: the influence of a face's pixels on the agreeing part of the cosine, minus that on the rest.

    The numbers of the embeddings whose product is at least their part of the threshold agree; the two parts of the
    cosine are differentiated separately, through the scaling to length 1, and their magnitudes subtracted.

    No value of the map is larger than the magnitude of the cosine's own gradient there, which is zero for identical
    faces. Where that gradient is rounding noise the map is exactly zero, a warning says so, and
    ``recipe["rounding_floor"]`` marks the faces (P, 2).

    Args:
        model: a :class:`~facexai.FaceModel` that embeds.
        threshold: cosine from which a pair is accepted.

    Raises:
        ValueError: on use, no gradient reaches the image; a network that gives logits.

    Cost: one forward pass per face, two backward passes per face and partner. Evidence holds the graph and cannot be
    kept: for many partners, :class:`~facexai.FGGB` is cheaper.

    Source: Huber et al. 2024, WACV, arXiv:2304.13409.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> _ = torch.manual_seed(2)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> why = XSSAB(FaceModel(net, InputSpec(8)), threshold=0.2)(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    >>> why.maps.shape
    torch.Size([2, 2, 8, 8])
    """

    model: FaceModel
    threshold: float

    def __post_init__(self) -> None:
        check_model(self.model, self.threshold, needed=True)

    __call__ = explain_pair

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors, which can be kept."""
        return False

    def observe(self, images: Tensor) -> GraphEvidence:
        """Runs one forward pass and keeps the graph from the pixels to the embedding."""
        check_device(images, self.model.device)
        self.model.spec.check(images)
        with grad_scope(self.model.net):
            leaves = at_least_float32(images.detach()).clone().requires_grad_()
            outputs = self.model.outputs(leaves)
            features = self.model.features(outputs)
        if not features.requires_grad:
            raise ValueError(f"{UNREACHED}; {INSTEAD}")
        return GraphEvidence(leaves, outputs, features, self.model.fingerprint)

    def answer(self, first: GraphEvidence, second: GraphEvidence) -> PairSaliency:
        """Returns the maps of pairs; two backward passes for each side."""
        for evidence in (first, second):
            if not isinstance(evidence, GraphEvidence):
                raise ValueError(
                    f"this evidence is a {type(evidence).__name__}, not XSSAB's; observe the images with this explainer"
                )
            check_evidence(self.model, evidence)
        check_embeds(self.model)
        rows = sides(first, second)
        units = [F.normalize(e.features.detach()) for e in (first, second)]
        aligned = [unit[row] for unit, row in zip(units, rows, strict=True)]
        cells, small = [], []
        for side, evidence in enumerate((first, second)):
            partners = aligned[1 - side]
            small.append(pair_vanishes(self.model, evidence.outputs, partners))
            if len(evidence) == len(partners):
                cells.append(self._signed(evidence, partners))
            else:  # one face stands for all: a question per partner
                cells.append(torch.cat([self._signed(evidence, partner[None]) for partner in partners]))
        below = torch.stack(small, 1)
        recipe = record(self.model, {**self.recipe(first), **marked(below)})
        scores = cosines(*aligned)
        size = self.model.spec.height_width
        maps = zeroed(torch.stack(cells, 1), below)
        return warn_of_one_sign(PairSaliency(maps, size, scores, float(self.threshold), recipe))

    def _signed(self, evidence: GraphEvidence, partners: Tensor) -> Tensor:
        """Returns (N, H, W): magnitudes for the agreeing part minus those for the rest, mean over colours."""
        features = evidence.features.detach()
        agree = functional.agreeing(F.normalize(features) * partners, self.threshold)
        parts = []
        with grad_scope(self.model.net):
            for mask in (agree, ~agree):
                direction = functional.normalize_vjp(mask * partners, features)
                gradients = gradient((evidence.features * direction.clone()).sum(), evidence.images, keep=True)
                parts.append(gradients.abs().mean(1))
        return parts[0] - parts[1]

    def against(self, gallery: Gallery) -> Against:
        """Answers for all people from the same graph, two backward passes per person:
        ``explainer.against(gallery)(images)``.

        Raises:
            ValueError: on use, a gallery with a centre of its own.
        """
        return Against(self, gallery)

    def maps_against(self, evidence: GraphEvidence, gallery: Gallery) -> Tensor:
        """Returns (N, C, H, W) maps of each face against each person."""
        check_evidence(self.model, evidence)
        templates = against_units(gallery, self.model).to(evidence.features)
        maps = torch.stack([self._signed(evidence, row.expand(len(evidence), -1)) for row in templates], 1)
        return zeroed(maps, self._vanishing_against(evidence, gallery))

    def _vanishing_against(self, evidence: GraphEvidence, gallery: Gallery) -> Tensor:
        """Says which maps (N, C) of each face against each person are rounding noise."""
        templates = against_units(gallery, self.model).to(evidence.features)
        return cosine_vanishes(self.model, evidence.outputs, templates.expand(len(evidence), -1, -1))

    def recipe(self, evidence: GraphEvidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        return {"method": "XSSAB", "threshold": float(self.threshold), "unit": "gradient magnitude"}
