"""Functions that pair explainers share: evidence of single faces, and the way from two of them to a PairSaliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai._errors import suggest
from facexai.explainers._class_maps import check_evidence
from facexai.explainers._rounding import marked
from facexai.functional._decision import cosines_to_all, is_threshold
from facexai.hooks import no_graph
from facexai.models import FaceModel, Gallery
from facexai.models._validation import check_device
from facexai.results import FrequencyHeat, GallerySaliency, PairSaliency

Answer = TypeVar("Answer", PairSaliency, FrequencyHeat)
Answer_co = TypeVar("Answer_co", PairSaliency, FrequencyHeat, covariant=True)


@final
@dataclass(frozen=True, eq=False)
class FaceEvidence:
    """The result of observing N faces, for questions about any partner: plain tensors with a row per face.

    It pickles, is cut with ``evidence[2:5]``, and can be kept in memory or on disk.

    Attributes:
        parts: {name: (N, ...)}; ``"outputs"`` (N, B, D) are the network's, of B = 2 branches where the model flips.
        fingerprint: of the model that was observed.
        kind: the method that can use it.
        settings: every choice that changed it.
    """

    parts: Mapping[str, Tensor]
    fingerprint: str
    kind: str
    settings: Mapping[str, Any]

    @property
    def outputs(self) -> Tensor:
        """Returns (B*N, D) as the network gave it, branch after branch."""
        return branches_first(self.parts["outputs"])

    @property
    def layer(self) -> str:
        """Returns name of the explained layer, for methods that have one."""
        return str(self.settings.get("layer", "auto"))

    @property
    def nbytes(self) -> int:
        """Returns the bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def __len__(self) -> int:
        return len(self.parts["outputs"])

    def __getitem__(self, which: slice) -> FaceEvidence:
        if not isinstance(which, slice):
            raise TypeError(f"expected a slice such as evidence[3:4], got {which!r}")
        return replace(self, parts={name: part[which] for name, part in self.parts.items()})

    @staticmethod
    def joined(pieces: Sequence[FaceEvidence]) -> FaceEvidence:
        """Returns evidence of several observations of one explainer as one.

        Raises:
            ValueError: nothing to join, or evidence of another model, method or choice.
        """
        if not pieces:
            raise ValueError("expected at least one evidence to join, got none")
        first = pieces[0]
        for piece in pieces[1:]:
            check_same(piece, first.kind, first.settings)
            if piece.fingerprint != first.fingerprint:
                raise ValueError(
                    f"evidence of model {piece.fingerprint} does not join that of model {first.fingerprint}; observe "
                    "all images with one model"
                )
        return replace(first, parts={n: torch.cat([p.parts[n] for p in pieces]) for n in first.parts})


def by_image(rows: Tensor, images: int) -> Tensor:
    """Returns (B*N, ...), branch after branch, as (N, B, ...)."""
    return rows.view(-1, images, *rows.shape[1:]).transpose(0, 1)


def branches_first(rows: Tensor) -> Tensor:
    """Returns (N, B, ...) as (B*N, ...), branch after branch."""
    flat: Tensor = rows.transpose(0, 1).flatten(0, 1)
    return flat


class OfModel(Protocol):
    """An explainer of a model."""

    @property
    def model(self) -> FaceModel: ...


class Pairwise(OfModel, Protocol[Answer_co]):
    """An explainer of pairs: observe single faces, then answer for any two of them."""

    @property
    def portable(self) -> bool:
        """Returns whether its evidence is plain tensors, which can be kept."""
        ...

    def observe(self, images: Tensor) -> Any:
        """Returns the only network passes."""
        ...

    def answer(self, first: Any, second: Any) -> Answer_co:
        """Returns maps of P pairs from evidence of P first and P second faces; one face may serve
        all pairs of a side.
        """
        ...


class AgainstEverybody(Pairwise[PairSaliency], Protocol):
    """A pair explainer that answers for all people of a gallery at once."""

    def maps_against(self, evidence: Any, gallery: Gallery) -> Tensor:
        """Returns (N, C, h, w)."""
        ...

    @property
    def threshold(self) -> float | None: ...

    def recipe(self, evidence: Any) -> dict[str, Any]: ...


def explain_pair(self: Pairwise[Answer], first: Tensor, second: Tensor) -> Answer:
    """Returns why do these faces match, or not? ``answer(observe(first), observe(second))``.

    Args:
        first, second: (P, 3, H, W) RGB in [0, 1]. The result refers to them so that it can draw itself.

    Raises:
        ValueError: numbers of images that differ.
    """
    check_pair(self.model, first, second)
    why = self.answer(self.observe(first), self.observe(second))
    return replace(why, images=torch.stack([first.detach(), second.detach()], 1))


def check_pair(model: FaceModel, first: Tensor, second: Tensor) -> None:
    """Refuses images that do not fit the model or each other."""
    for images in (first, second):
        check_device(images, model.device)
        model.spec.check(images)
    if len(first) != len(second):
        raise ValueError(f"expected as many second images as first ones, got {len(first)} and {len(second)}")


def check_model(model: object, threshold: float | None, *, needed: bool = False) -> None:
    """Refuses what does not embed, and thresholds that are no cosine."""
    if not isinstance(model, FaceModel):
        hint = "its .model" if isinstance(model, Gallery) else "FaceModel(net, spec)"
        raise TypeError(f"expected a FaceModel that embeds, got {type(model).__name__}; {hint}")
    check_embeds(model)
    odd = [n for n, v in (model.forward_kwargs or {}).items() if isinstance(v, Tensor) and v.ndim > 0 and len(v) != 1]
    if odd:
        raise ValueError(f"pairs need one row of forward_kwargs for all images, {odd[0]!r} has more; give one row")
    if threshold is None and needed:
        raise ValueError("expected the threshold from which a pair is accepted, a cosine; metrics.threshold finds it")
    if threshold is not None and not is_threshold(threshold):
        raise ValueError(
            f"expected a threshold from -1 to 1, a cosine, got {threshold!r}; of an L2 distance d it is 1 - d*d/2"
        )


def check_embeds(model: FaceModel) -> None:
    """Refuses logits; the output of a network is known after its first pass."""
    if model.gives_logits:
        raise ValueError("this network gives logits, pairs need embeddings; choose its embedding with take=")


def check_same(evidence: object, kind: str, settings: Mapping[str, Any]) -> None:
    """Refuses evidence of another method, or made with other choices."""
    if not isinstance(evidence, FaceEvidence) or evidence.kind != kind:
        whose = f"{evidence.kind}'s" if isinstance(evidence, FaceEvidence) else f"a {type(evidence).__name__}"
        raise ValueError(f"this evidence is {whose}, not {kind}'s; observe the images with this explainer")
    if dict(evidence.settings) != dict(settings):
        raise ValueError(
            f"this evidence was made with {dict(evidence.settings)}, not with {dict(settings)}; observe the images"
            " again"
        )


def units_of(model: FaceModel, evidence: FaceEvidence) -> Tensor:
    """Returns (N, D), the unit embeddings of the observed faces; refuses evidence of another model."""
    check_evidence(model, evidence)
    check_embeds(model)
    with no_graph():
        return F.normalize(model.features(evidence.outputs))


def against_units(gallery: Gallery, model: FaceModel) -> Tensor:
    """Uses the templates (C, D) of a gallery as partners of a probe's unit embedding.

    Raises:
        ValueError: a gallery of another model, or one that subtracts a centre of its own.
    """
    check_gallery(gallery, model)
    if gallery.center is not None:
        raise ValueError(
            "this gallery subtracts a centre after the embedding was scaled to length 1, which this method cannot see "
            "through; give the centre to the model instead: FaceModel(net, spec, center=mean)"
        )
    return gallery.templates.to(model.device)


def check_gallery(gallery: object, model: FaceModel) -> None:
    """Refuses what is no gallery of this model."""
    if not isinstance(gallery, Gallery):
        raise TypeError(f"expected a gallery, got {type(gallery).__name__}; model.gallery({{name: images}})")
    if gallery.model.fingerprint != model.fingerprint:
        raise ValueError(
            f"the gallery was enrolled with model {gallery.model.fingerprint}, this explainer's model is "
            f"{model.fingerprint}; enrol with the same model"
        )


def sides(first: Sized, second: Sized) -> tuple[list[int], list[int]]:
    """Returns the face of each side of every pair; one face may serve all pairs of its side."""
    n, m = len(first), len(second)
    if n != m and 1 not in (n, m):
        raise ValueError(f"expected evidence of as many second faces as first ones, or of one, got {n} and {m}")
    count = max(n, m)
    return [p if n > 1 else 0 for p in range(count)], [p if m > 1 else 0 for p in range(count)]


def record(model: FaceModel, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe with what every pair method records in it."""
    return {**recipe, "model": repr(model), "fingerprint": model.fingerprint, "flip": model.flip}


@final
@dataclass(frozen=True, eq=False)
class Against:
    """A pair explainer applied to all enrolled people: ``explainer.against(gallery)(images)``."""

    explainer: AgainstEverybody
    gallery: Gallery

    def __post_init__(self) -> None:
        check_gallery(self.gallery, self.explainer.model)

    def __call__(self, images: Tensor) -> GallerySaliency:
        """Returns maps of positive and negative evidence for every person: ``answer(observe(images))``."""
        return replace(self.answer(self.explainer.observe(images)), images=images)

    def answer(self, evidence: Any) -> GallerySaliency:
        """Returns the maps from evidence that the explainer made; what it costs is in the explainer's documentation."""
        model = self.explainer.model
        check_evidence(model, evidence)
        with no_graph():
            units, _ = self.gallery._unit(model.features(evidence.outputs.detach()), detach_norm=True)
        vanishing = getattr(self.explainer, "_vanishing_against", None)  # of gradient methods
        floor = marked(None if vanishing is None else vanishing(evidence, self.gallery))
        return GallerySaliency(
            cells=self.explainer.maps_against(evidence, self.gallery),
            size=model.spec.height_width,
            scores=cosines_to_all(units, self.gallery.templates.to(units.device)),
            names=self.gallery.names,
            threshold=self.explainer.threshold,
            recipe=record(model, {**self.explainer.recipe(evidence), "gallery": self.gallery.fingerprint, **floor}),
        )


def one_of(name: str, value: object, known: Sequence[object]) -> None:
    """Refuses an option that does not exist."""
    if value not in known:
        raise ValueError(f"expected {name} one of {list(known)}, got {value!r}; {suggest(str(value), map(str, known))}")
