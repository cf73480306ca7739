"""FGGB: gradients of every number of the embedding, weighted by what the number says about the pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai import functional
from facexai._progress import tqdm
from facexai.explainers import jacobian
from facexai.explainers._masked_forward import check_chunk
from facexai.explainers._rounding import condition, cosine_vanishes, marked, zeroed
from facexai.explainers.jacobian import Differentiate
from facexai.explainers.pairs import (
    Against,
    FaceEvidence,
    against_units,
    check_model,
    check_pair,
    check_same,
    explain_pair,
    one_of,
    record,
    sides,
    units_of,
)
from facexai.functional import at_least_float32
from facexai.functional._decision import cosines
from facexai.functional._rounding import vanishes
from facexai.hooks import no_graph
from facexai.models import FaceModel, Gallery
from facexai.models._validation import bound, check_device
from facexai.results import PairSaliency
from facexai.results.pairs import warn_of_one_sign

_AT_ONCE = 2**27  # bytes of gradient maps as float32


@final
@dataclass(frozen=True, eq=False)
class FGGB:
    """Feature-guided gradient backpropagation: which pixels influence the embedding dimensions that support
    or oppose a match.

    Every number of a face's embedding has a gradient map, scaled to length 1; a pair weights them with the product of
    the two embeddings' values minus its part of the threshold. Positive values support a match, negative ones
    against. For identical faces that is a map as any other. The gradient of a number counts as zero where it is
    rounding noise; where all weights of a pair are, its maps are zero, and a warning and ``recipe["rounding_floor"]``
    (P, 2) record it.

    Args:
        model: a :class:`~facexai.FaceModel` that embeds.
        threshold: cosine from which a pair is accepted; :func:`facexai.metrics.threshold` finds it.
        differentiate: ``"unit"``, the embedding scaled to length 1, or ``"raw"``, as the network gives it.
        tolerance: leave out numbers of the embedding whose weights sum to at most this share (0 to 1) of all weights.
            The recipe says how many and how far the maps can be off at most. Direct calls only: it needs the partner.
        chunk: copies of a face per backward pass; ``"auto"`` times 4, 8 and 16 once. It changes time,
            memory and the last bits of the result.
        half: keep the gradient maps in float16: half the memory, maps differ by up to 1e-3 of their largest value.
        progress: show a progress bar.

    Raises:
        ValueError: on use, no gradient reaches the image; a network that gives logits.

    Cost: one forward pass of ``chunk`` copies and D / chunk backward passes per *face*; every partner, threshold and
    gallery after that is one matrix product. Evidence is portable: plain tensors, D x H x W for each face (25.7 MB at
    512 numbers and 112 px, half of it with ``half``).

    Source: Lu, Xu and Ebrahimi 2024, arXiv:2403.04549; details reconstructed: the threshold is spread evenly over the
    numbers, gradients enter by magnitude.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> _ = torch.manual_seed(2)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    >>> model = FaceModel(net, InputSpec(8))
    >>> why = FGGB(model, threshold=0.7)(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    >>> why.maps.shape, why.accepted.shape
    (torch.Size([2, 2, 8, 8]), torch.Size([2]))
    """

    model: FaceModel
    threshold: float
    differentiate: Differentiate = "unit"
    tolerance: float | None = None
    chunk: int | Literal["auto"] = "auto"
    half: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        check_model(self.model, self.threshold, needed=True)
        one_of("differentiate", self.differentiate, ("unit", "raw"))
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise ValueError(f"expected a tolerance from 0 to 1, a share, got {self.tolerance!r}")
        check_chunk(self.chunk)

    def __call__(self, first: Tensor, second: Tensor) -> PairSaliency:
        """Returns why do these faces match, or not? ``answer(observe(first), observe(second))``.

        Args:
            first, second: (P, 3, H, W) RGB in [0, 1].
        """
        if self.tolerance is None:
            return explain_pair(self, first, second)
        check_pair(self.model, first, second)
        return replace(
            self._truncated(first, second, self.tolerance), images=torch.stack([first.detach(), second.detach()], 1)
        )

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors, which can be kept."""
        return True

    def observe(self, images: Tensor) -> FaceEvidence:
        """Returns the gradient maps of every number of each face's embedding; the only network passes.

        Raises:
            ValueError: with a tolerance, which needs the partner.
        """
        if self.tolerance is not None:
            raise ValueError("tolerance= needs the partner; call the explainer with both faces, or leave it out")
        check_device(images, self.model.device)
        self.model.spec.check(images)
        size = self._numbers(images)
        bound(self.model.forward_kwargs, len(images), None, images.device)  # one row, or a row for each
        basis, outputs = None, []
        with tqdm(total=len(images) * size, desc="FGGB", unit="gradient", disable=not self.progress) as bar:
            for n, image in enumerate(images):
                maps, rows = self._gradients(image, n, range(size), bar.update)
                if basis is None:
                    kind = torch.float16 if self.half else maps.dtype
                    basis = torch.empty(len(images), *maps.shape, dtype=kind, device=maps.device)
                basis[n] = maps
                outputs.append(rows)
        assert basis is not None
        parts = {"outputs": torch.stack(outputs), "basis": basis}
        return FaceEvidence(parts, self.model.fingerprint, "FGGB", self._settings())

    def _numbers(self, images: Tensor) -> int:
        """Returns how many numbers an embedding has."""
        with no_graph():
            return self.model.features(self.model.outputs(images[:1], torch.zeros(1, dtype=torch.long))).shape[1]

    def _gradients(
        self, image: Tensor, index: int, numbers: Any, tick: Callable[[int], object] = lambda _: None
    ) -> tuple[Tensor, Tensor]:
        def reduced(gradients: Tensor) -> Tensor:
            tick(len(gradients))
            return functional.unit_gradients(gradients)

        maps, outputs = jacobian.jacobian_rows(
            self.model,
            image,
            index,
            list(numbers),
            differentiate=self.differentiate,
            chunk=jacobian.chunk_size(self.model, self.chunk),
            reduce=reduced,
        )
        if self.differentiate == "unit":  # the gradient of a number that alone makes up the embedding is rounding noise
            axes = torch.eye(self.model.features(outputs).shape[1], dtype=maps.dtype, device=maps.device)
            maps[cosine_vanishes(self.model, outputs, axes[list(numbers)][None])[0]] = 0
        return maps, outputs

    def answer(self, first: FaceEvidence, second: FaceEvidence) -> PairSaliency:
        """Returns the maps of pairs from evidence of their faces, without running the network."""
        for evidence in (first, second):
            check_same(evidence, "FGGB", self._settings())
        units = units_of(self.model, first), units_of(self.model, second)
        left, right = sides(first, second)
        cells = []
        with no_graph():
            for i, j in zip(left, right, strict=True):
                agreement = (units[0][i] * units[1][j])[None]
                both = (first.parts["basis"][i], second.parts["basis"][j])
                cells.append(
                    torch.cat([functional.fggb(at_least_float32(b[None]), agreement, self.threshold) for b in both])
                )
            products, scores = units[0][left] * units[1][right], cosines(units[0][left], units[1][right])
            grown = [condition(self.model, one.outputs)[row] for one, row in ((first, left), (second, right))]
            small = self._vanishing(products, first.outputs.dtype, torch.maximum(*grown))
        return self._result(torch.stack(cells), scores, self.recipe(first), small)

    def _truncated(self, first: Tensor, second: Tensor, tolerance: float) -> PairSaliency:
        """Keeps only the embedding dimensions that matter to each pair, with a bound on what the others could add."""
        with no_graph():
            outputs = [self.model.outputs(images) for images in (first, second)]
            units = [torch.nn.functional.normalize(self.model.features(rows)) for rows in outputs]
            grown = torch.maximum(*(condition(self.model, rows) for rows in outputs))
        agreement = units[0] * units[1]
        weights = (agreement - self.threshold / agreement.shape[1]).abs()
        cells, dropped, bounds = [], [], []
        for p, row in enumerate(weights):
            order = row.argsort()
            lost = row[order].cumsum(0)
            out = min(int((lost <= tolerance * lost[-1]).sum()), len(row) - 1)
            kept = order[out:].sort().values
            dropped.append(out)
            bounds.append(float(lost[out - 1]) if out else 0.0)
            sides_ = [self._gradients(images[p], p, kept.tolist())[0] for images in (first, second)]
            share = row.new_tensor(self.threshold * len(kept) / len(row))  # fggb spreads the threshold over those given
            cells.append(torch.cat([functional.fggb(b[None], agreement[p, kept][None], share) for b in sides_]))
        more = {"dropped_numbers": dropped, "bound": bounds, "approximate": any(dropped)}
        recipe = {**self._recipe(), "tolerance": tolerance, **more}
        small = self._vanishing(agreement, outputs[0].dtype, grown)
        return self._result(torch.stack(cells), cosines(*units), recipe, small)

    def _vanishing(self, agreement: Tensor, stored: torch.dtype, grown: Tensor) -> Tensor:
        """Says where all weights of the numbers, agreement (..., K) minus the threshold's part, are rounding noise."""
        part = torch.full_like(agreement, self.threshold / agreement.shape[-1])
        if agreement.shape[-1] == 1 and self.differentiate == "unit":  # a single number scaled to length 1 is constant
            return torch.ones_like(agreement[..., 0], dtype=torch.bool)
        return vanishes(agreement - part, (agreement, part), stored=stored, amplified=grown)

    def _result(self, cells: Tensor, scores: Tensor, recipe: dict[str, Any], small: Tensor) -> PairSaliency:
        both = small[:, None].expand(-1, 2)
        made = record(self.model, {**recipe, **marked(both)})
        maps, size = zeroed(cells, both), self.model.spec.height_width
        return warn_of_one_sign(PairSaliency(maps, size, scores, float(self.threshold), made))

    def against(self, gallery: Gallery) -> Against:
        """Returns the same evidence against every enrolled person: ``explainer.against(gallery)(images)``.

        Raises:
            ValueError: on use, a gallery with a centre of its own.
        """
        return Against(self, gallery)

    def maps_against(self, evidence: FaceEvidence, gallery: Gallery) -> Tensor:
        """Returns (N, C, H, W) maps of each face against each person; no network pass."""
        check_same(evidence, "FGGB", self._settings())
        templates, units = against_units(gallery, self.model), units_of(self.model, evidence)
        with no_graph():
            agreement = units[:, None] * templates.to(units)
            weights = agreement - self.threshold / units.shape[1]
            basis = evidence.parts["basis"]
            some = max(1, _AT_ONCE // (4 * max(1, basis[0].numel())))
            both = zip(torch.split(basis, some), torch.split(weights, some), strict=True)
            parts = [torch.einsum("nkhw,nck->nchw", at_least_float32(b).to(w), w) for b, w in both]
        return zeroed(torch.cat(parts), self._vanishing_against(evidence, gallery))

    def _vanishing_against(self, evidence: FaceEvidence, gallery: Gallery) -> Tensor:
        """Says which maps (N, C) of each face against each person are rounding noise."""
        templates, units = against_units(gallery, self.model), units_of(self.model, evidence)
        outputs = evidence.outputs
        return self._vanishing(
            units[:, None] * templates.to(units), outputs.dtype, condition(self.model, outputs)[:, None]
        )

    def recipe(self, evidence: FaceEvidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        return self._recipe()

    def _recipe(self) -> dict[str, Any]:
        made = {"method": "FGGB", "threshold": float(self.threshold), **self._settings()}
        made["chunk"] = jacobian.chunk_size(self.model, self.chunk)
        return {**made, "unit": "sum of unit gradient maps"}

    def _settings(self) -> dict[str, Any]:
        return {"differentiate": self.differentiate, "precision": "float16" if self.half else "float32"}
