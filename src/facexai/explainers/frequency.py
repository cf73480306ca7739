"""Frequency heat plots: the change of a score when one band of spatial frequencies is removed from an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai import functional
from facexai._errors import warn
from facexai.explainers._class_maps import asked
from facexai.explainers._masked_forward import check_chunk, chunk_size, features_of
from facexai.explainers._rounding import marked, pair_vanishes, score_vanishes, zeroed
from facexai.explainers.either import asks_pairs, check_either, explain_either, of_pairs, outputs_of
from facexai.explainers.first_order import Graph, bands_of, first_order, graph_of
from facexai.explainers.frequency_modes import MODES, Mode, ModeAgreement, compared
from facexai.explainers.pairs import FaceEvidence, by_image, check_pair, check_same, one_of, record, sides, units_of
from facexai.functional import Bands, at_least_float32
from facexai.functional._decision import cosines
from facexai.functional.frequency import Limit
from facexai.hooks import no_graph
from facexai.models import FaceModel
from facexai.models.blackbox import BlackBox
from facexai.models.targets import Targets
from facexai.results import FrequencyHeat
from facexai.results.frequency import face_width

Masked = Literal["first", "second", "both"]


@final
@dataclass(frozen=True, eq=False)
class FrequencyHeatPlot:
    """Frequency heat plot: the change of a score when a band of spatial frequencies is removed.

    The influence of a band is the score of the unchanged images minus the score without the band: positive where the
    loss hurts the score, negative where it helps. Low bands hold the shape and the light of a face, high ones its
    texture and the noise of the camera.

    Args:
        model: a :class:`~facexai.FaceModel` that embeds, for pairs: the score is the cosine. A gallery or a FaceModel
            with logits, for classes: the score is the class's logit.
        width: of a band, in cycles per width of the image.
        limit: ``"corner"``: all frequencies, 80 bands at 112 px; ``"circle"``: below half the sampling rate in every
            direction.
        masked: the image of a pair whose band is removed: ``"first"``, ``"second"`` or ``"both"`` together. It
            changes the answer.
        keep_dc: the mean of the image is in no band. Otherwise it is in band 0, without which the image gets dark.
        mode: ``"exact"``: an embedding for every band; ``"hybrid"``: that for the ``exact_bands`` of most energy in the
            image, and for the others the first order from one backward pass; ``"preview"``: the first order alone.
        exact_bands: of ``"hybrid"``.
        sectors: orientations that every band is cut into, see :func:`facexai.functional.bands`; costs as much as that
            many times more bands, so make them wider.
        chunk: images per forward pass; ``"auto"``: as for :class:`~facexai.ScoreCAM`.
        progress: show a progress bar.

    Cost. Exact: a forward pass for each band of an image, for any number of partners, classes and thresholds; the
    evidence is portable. Hybrid: ``exact_bands`` forward passes per image, and one forward and backward pass for every
    question. Preview: the latter alone.

    Images without a band have values outside of [0, 1]; they are not clipped. Functions that take 8-bit pixels
    (``FaceModel.from_callable(space="rgb_uint8")``) cannot take them: there they are clipped and rounded, with a
    warning. The first order of a cosine is zero where its gradient is rounding noise, as for identical faces; a warning
    and ``recipe["rounding_floor"]`` (P,) record it.

    Source: Huber et al. 2025, WACV, arXiv:2407.11941, for the method and the rings; number and width of the bands, the
    real part and the lack of clipping reconstructed. Classes, hybrid, preview, sectors and images that are not square
    (radii in cycles per width) are ours.

    >>> from facexai import FaceModel, InputSpec
    >>> _ = torch.manual_seed(2)
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(784, 5))
    >>> heat = FrequencyHeatPlot(FaceModel(net, InputSpec(16)))(torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16))
    >>> heat.influence.shape, heat.edges.shape
    (torch.Size([2, 12]), torch.Size([13]))
    """

    model: Any
    width: float = 1.0
    limit: Limit = "corner"
    masked: Masked = "first"
    keep_dc: bool = False
    mode: Mode = "exact"
    exact_bands: int = 16
    sectors: int = 1
    chunk: int | Literal["auto"] = "auto"
    progress: bool = False

    def __post_init__(self) -> None:
        check_either(self.model)
        check_chunk(self.chunk)
        one_of("masked", self.masked, ("first", "second", "both"))
        one_of("mode", self.mode, ("exact", "hybrid", "preview"))
        one_of("limit", self.limit, ("corner", "circle"))
        if not isinstance(self.width, int | float) or isinstance(self.width, bool):
            raise ValueError(f"expected a width in cycles per image, got {self.width!r}")
        if not isinstance(self.keep_dc, bool):
            raise ValueError(f"expected keep_dc as True or False, got {self.keep_dc!r}")
        if not isinstance(self.sectors, int) or isinstance(self.sectors, bool):
            raise ValueError(f"expected sectors as a whole number, got {self.sectors!r}")
        if not isinstance(self.exact_bands, int) or self.exact_bands is True or self.exact_bands < 1:
            raise ValueError(f"expected exact_bands of at least 1, got {self.exact_bands!r}")
        if self.masked != "first" and not of_pairs(self.model):
            raise ValueError(f"masked={self.masked!r} is about pairs; with classes there is one image")
        self._layout()

    @property
    def network(self) -> FaceModel:
        """Returns the model whose features the score follows from."""
        network: FaceModel = self.model.model
        return network

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors; except in exact mode they hold the images."""
        return True

    def __call__(self, first: Tensor, second: Tensor | Targets = None, *, targets: Targets = None) -> FrequencyHeat:
        """Computes which spatial frequencies the decision about these pairs uses; with a gallery, about these classes.

        Args:
            first: (N, 3, H, W) RGB in [0, 1].
            second: as many partners; with a gallery: targets, as for every class-map explainer.
            targets: the same by name, with a gallery.

        Raises:
            TypeError, ValueError: images or targets that do not fit; modes other than exact where no gradient reaches
                the image.
        """
        if not asks_pairs(self, second, targets):
            result: FrequencyHeat = explain_either(self, first, second, targets)
            return result
        assert isinstance(second, Tensor)
        check_pair(self.network, first, second)
        pair: list[FaceEvidence] = []
        graphs: dict[int, Graph] = {}
        for side, images in enumerate((first, second)):
            if side not in self._lost:
                pair.append(self._plain(images))
            elif self.mode == "exact" or len(images) > self._step:
                pair.append(self.observe(images))
            else:  # the pass for the gradient gives the embedding, too
                graphs[side] = graph_of(self.network, images, torch.arange(len(images)))
                plain = self._evidence(by_image(graphs[side][1].detach(), len(images)))
                pair.append(self._without_bands(images, plain))
        with no_graph():
            why = self._pairs(pair[0], pair[1], graphs)
        return replace(why, images=torch.stack([first.detach(), second.detach()], 1))

    @property
    def _lost(self) -> tuple[int, ...]:
        """Returns which sides of a pair lose bands."""
        return {"first": (0,), "second": (1,), "both": (0, 1)}[self.masked]

    # ---- one face ---------------------------------------------------------------------------------------------

    def observe(self, images: Tensor) -> FaceEvidence:
        """Returns embeddings of the faces and of what is left of them without each band.

        Raises:
            TypeError, ValueError: images that do not fit the network.
        """
        return self._without_bands(images, self._plain(images))

    def _without_bands(self, images: Tensor, plain: FaceEvidence) -> FaceEvidence:
        """Returns evidence of faces with what is left of them without each band."""
        layout, shown = self._layout(), at_least_float32(images.detach())
        with no_graph():
            energy = functional.energies(shown, layout)
            which = self._exact_cells(energy, layout)
        parts = {**plain.parts, "energies": energy, "which": which}
        if which.shape[1]:
            parts["without"] = self._embedded(shown, which)
        if self.mode != "exact":
            parts["images"] = shown
        return replace(plain, parts=parts)

    def _embedded(self, images: Tensor, which: Tensor) -> Tensor:
        """Returns (N, n, D') features of each image without each of its cells (N, n)."""
        layout, cells = self._layout(), which.flatten()
        with no_graph():
            spectra = functional.spectra(images)
        number = torch.arange(len(images), device=images.device).repeat_interleave(which.shape[1])

        def make(part: slice) -> Tensor:
            image = number[part]
            return images[image] - functional.band_component(spectra[image], layout, cells[part])

        told = "FrequencyHeatPlot" if self.progress else None
        size = chunk_size(self.network, self.chunk)
        rows = features_of(self.network, number, make, chunk=size, progress=told, in_range=False)
        return rows.view(len(images), -1, rows.shape[1])

    def _plain(self, images: Tensor) -> FaceEvidence:
        """Returns evidence of faces that lose nothing."""
        model = self.network
        if self._clipped:
            warn(
                f"{model.core!r} takes 8-bit pixels: images without a band are clipped to [0, 1] and rounded, which "
                "changes the influence of weak bands; a function that takes floating-point input (space='input') does "
                "not"
            )
        return self._evidence(outputs_of(model, images, chunk_size(model, self.chunk)))

    def _evidence(self, outputs: Tensor) -> FaceEvidence:
        return FaceEvidence({"outputs": outputs}, self.network.fingerprint, "FrequencyHeatPlot", self._settings())

    def exact_cells(self, images: Tensor) -> Tensor:
        """Returns (N, B * S), which cells of each image's frequencies are taken out for real; no network pass."""
        energy = functional.energies(at_least_float32(images.detach()), layout := self._layout())
        return torch.zeros_like(energy, dtype=torch.bool).scatter_(1, self._exact_cells(energy, layout), True)

    def _exact_cells(self, energy: Tensor, layout: Bands) -> Tensor:
        """Returns (N, n), the cells of each image that are taken out for real: those of most energy."""
        held = int((layout.coefficients > 0).sum())
        count = {"exact": held, "hybrid": min(self.exact_bands, held), "preview": 0}[self.mode]
        ranked = torch.where(layout.coefficients.to(energy.device) > 0, energy, -1.0).argsort(
            dim=1, descending=True, stable=True
        )
        chosen: Tensor = ranked[:, :count].sort(1).values
        return chosen

    def _layout(self) -> Bands:
        size = self.network.spec.height_width
        return bands_of(size, float(self.width), self.limit, self.sectors, self.keep_dc)

    # ---- the score without each band --------------------------------------------------------------------------

    def answer(self, first: FaceEvidence, second: Any = None) -> FrequencyHeat:
        """Returns the influence of every band on pairs, from evidence of both faces; with a gallery, on
        classes (targets).

        In exact mode no network pass; else one forward and backward pass for each masked face.
        """
        with no_graph():
            return self._pairs(first, second, {}) if of_pairs(self.model) else self._classes(first, second)

    def _pairs(self, first: FaceEvidence, second: FaceEvidence, graphs: Mapping[int, Graph]) -> FrequencyHeat:
        pair = (first, second)
        for evidence in pair:
            check_same(evidence, "FrequencyHeatPlot", self._settings())
        lost = self._lost
        if any("energies" not in pair[side].parts for side in lost):
            raise ValueError(f"masked={self.masked!r} needs the bands of these faces; observe(images) finds them")
        units = [units_of(self.network, evidence).double() for evidence in pair]
        rows = sides(first, second)
        aligned = [unit[row] for unit, row in zip(units, rows, strict=True)]
        scores = (aligned[0] * aligned[1]).sum(1)
        alone: list[Tensor | None] = [None, None]
        small: Tensor | None = None
        for side, evidence in enumerate(pair):
            if side in lost:
                graph = graphs.get(side)
                alone[side], below = self._alone(evidence, rows[side], aligned[1 - side], scores, graph)
                small = below if small is None else small | below
        influence = self._together(pair, rows, alone, scores) if self.masked == "both" else alone[lost[0]]
        assert influence is not None
        energy = torch.stack([pair[side].parts["energies"][rows[side]] for side in lost]).mean(0)
        both = None if alone[0] is None or alone[1] is None else torch.stack([alone[0], alone[1]], 1)
        more = {"masked": self.masked, "unit": "cosine", **marked(small)}
        return self._result(influence, energy, cosines(*aligned), more, sides=both)

    def _alone(
        self, evidence: FaceEvidence, rows: Sequence[int], partners: Tensor, scores: Tensor, graph: Graph | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the influence (P, cells) of this side alone, and (P,) True if its first order is rounding noise."""
        small = torch.zeros(len(rows), dtype=torch.bool, device=scores.device)
        found = torch.zeros(len(rows), evidence.parts["energies"].shape[1], dtype=scores.dtype, device=scores.device)
        if self.mode != "exact":

            def cosines(features: Tensor, part: slice) -> Tensor:
                return (F.normalize(features) * partners[part].to(features)).sum(1)

            shown = evidence.parts["images"][list(rows)]
            small = pair_vanishes(self.network, evidence.outputs, partners)
            found = zeroed(first_order(self.network, self._layout(), shown, rows, cosines, self._step, graph), small)
        if "without" not in evidence.parts:
            return found, small
        for p, row in enumerate(rows):
            left = F.normalize(evidence.parts["without"][row].double())
            found[p, evidence.parts["which"][row]] = scores[p] - left @ partners[p].to(left)
        return found, small

    def _together(
        self,
        pair: Sequence[FaceEvidence],
        rows: Sequence[Sequence[int]],
        alone: Sequence[Tensor | None],
        scores: Tensor,
    ) -> Tensor:
        """Returns the influence (P, cells) of both sides: measured for bands that are exact on both, else the sum."""
        assert alone[0] is not None
        assert alone[1] is not None
        result = alone[0] + alone[1]
        if any("without" not in evidence.parts for evidence in pair):
            return result
        for p, (i, j) in enumerate(zip(*rows, strict=True)):
            left, right = pair[0].parts["which"][i], pair[1].parts["which"][j]
            same = left[:, None] == right[None]
            a, b = same.any(1), same.any(0)
            first = F.normalize(pair[0].parts["without"][i][a].double())
            second = F.normalize(pair[1].parts["without"][j][b].double())
            result[p, left[a]] = scores[p] - (first * second).sum(1)
        return result

    def _classes(self, evidence: FaceEvidence, targets: Targets) -> FrequencyHeat:
        check_same(evidence, "FrequencyHeatPlot", self._settings())
        logits, chosen = asked(self.model, evidence, targets)
        scores = logits.gather(1, chosen[:, None])[:, 0]
        found, small = torch.zeros_like(evidence.parts["energies"]).to(logits), None
        if self.mode != "exact":

            def logit(features: Tensor, part: slice) -> Tensor:
                asked_for: Tensor = self.model.score(features, chosen[part, None], detach_norm=False)[:, 0]
                return asked_for

            shown, rows = evidence.parts["images"], range(len(chosen))
            small = score_vanishes(self.model, evidence.outputs, chosen[:, None], lengths=True)[:, 0]
            found = first_order(self.network, self._layout(), shown, rows, logit, self._step).to(logits)
            found = zeroed(found, small)
        if "without" in evidence.parts:
            for i, (row, target) in enumerate(zip(evidence.parts["without"], chosen.tolist(), strict=True)):
                found[i, evidence.parts["which"][i]] = scores[i] - self.model.score(row)[:, target]
        names = self.model.names
        told: dict[str, Any] = {"targets": chosen, "names": None if names is None else tuple(names)}
        return self._result(found, evidence.parts["energies"], scores, {"unit": "logit", **marked(small)}, **told)

    @property
    def _step(self) -> int:
        """Returns the number of images whose graph is kept at a time."""
        return max(1, chunk_size(self.network, self.chunk) // 2)

    # ---- the answer -------------------------------------------------------------------------------------------

    def _result(
        self, influence: Tensor, energy: Tensor, scores: Tensor, more: Any, sides: Tensor | None = None, **told: Any
    ) -> FrequencyHeat:
        layout, model = self._layout(), self.network

        def shaped(values: Tensor) -> Tensor:
            if layout.sectors == 1:
                return values
            return values.view(*values.shape[:-1], layout.count, layout.sectors)

        kind = scores.dtype if scores.dtype == torch.float64 and model.dtype == torch.float64 else torch.float32
        recipe: dict[str, Any] = {**self.recipe(), **more}
        return FrequencyHeat(
            influence=shaped(influence).to(kind),
            edges=layout.edges,
            energies=shaped(energy),
            scores=at_least_float32(scores),
            size=layout.size,
            face=face_width(model.spec),
            sides=None if sides is None else shaped(sides).to(kind),
            recipe=record(model, recipe),
            **told,
        )

    def compare_modes(
        self, first: Tensor, second: Tensor | Targets = None, *, targets: Targets = None, top: int = 5
    ) -> ModeAgreement:
        """Returns how near the fast modes are to the exact one on these images; prints as a table.

        Args:
            first, second, targets: as for a call.
            top: how many largest bands to compare.
        """
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise ValueError(f"expected top as a whole number of at least 1, got {top!r}")
        partner = targets if second is None else second
        modes = {mode: replace(self, mode=mode) for mode in MODES}
        influence = {mode: explainer(first, partner).influence.flatten(1) for mode, explainer in modes.items()}
        hybrid, pair = modes["hybrid"], [x for x in (first, second) if isinstance(x, Tensor)]
        kept = torch.stack([hybrid.exact_cells(pair[side]) for side in self._lost]).all(0)
        return compared(influence, kept, top, hybrid.recipe())

    def recipe(self, evidence: Any = None) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        made = {"method": "FrequencyHeatPlot", **self._settings()}
        return {**made, "clipped": True} if self._clipped else made

    @property
    def _clipped(self) -> bool:
        core = self.network.core
        return isinstance(core, BlackBox) and core.space.endswith("uint8")

    def _settings(self) -> dict[str, Any]:
        """Returns the settings that the evidence depends on."""
        made: dict[str, Any] = {"width": float(self.width), "limit": self.limit, "keep_dc": self.keep_dc}
        made |= {"sectors": self.sectors, "mode": self.mode}
        return {**made, "exact_bands": self.exact_bands} if self.mode == "hybrid" else made
