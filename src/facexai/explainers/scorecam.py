"""Score-CAM: channels weighted by what the network says when it sees the image through them. One look, any class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor

from facexai import functional, kernels
from facexai.explainers import gradients
from facexai.explainers._class_maps import Evidence, answer, check_explainable, check_kind, explain, logits_of
from facexai.explainers._layer_map import layer_with_map
from facexai.explainers._masked_forward import MaskedEvidence, Precision, chunk_size, features_of
from facexai.explainers.hirescam import HiResCAM
from facexai.functional import at_least_float32
from facexai.functional.scorecam import Weights
from facexai.hooks import capture, no_graph
from facexai.input_spec import mean_colour
from facexai.models import FaceModel, Gallery, WhiteBox
from facexai.models._validation import check_device
from facexai.models.targets import Targets, indices
from facexai.results import Saliency

MaskSpace = Literal["pixels", "input"]


@final
@dataclass(frozen=True)
class Convention:
    """The differences between implementations of Score-CAM.

    Attributes:
        order: whether masks are scaled to [0, 1] after or before they are enlarged.
        align_corners: of the enlargement.
        skip_constant: leave constant channels out; else they mask everything.
        mask_space: ``"pixels"``: masked-out is black; ``"input"``: zero in the network's own input, the mean colour.
        weights: see :func:`facexai.functional.scorecam_weights`.
        relu: whether the positive part is taken in ``"cells"`` or in ``"pixels"``, after enlarging.
    """

    order: kernels.Order = "upsample-first"
    align_corners: bool = False
    skip_constant: bool = True
    mask_space: MaskSpace = "pixels"
    weights: Weights = "probability"
    relu: Literal["cells", "pixels"] = "cells"


CONVENTIONS: dict[str, Convention] = {
    "facexai": Convention(),
    "authors": Convention(mask_space="input", relu="pixels"),
    "pytorch-grad-cam": Convention(
        align_corners=True, skip_constant=False, mask_space="input", weights="softmax-logit"
    ),
    "torchcam": Convention(order="minmax-first", skip_constant=False, mask_space="input", weights="softmax-logit"),
}


@final
@dataclass(frozen=True, eq=False)
class ScoreCAM:
    """Score-CAM: no gradients; each channel is weighted by the class score of the image masked with it.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: as in :class:`~facexai.HiResCAM`. The number of its channels is the cost.
        convention: ``"facexai"``; or, for comparison, ``"authors"``, ``"pytorch-grad-cam"``, ``"torchcam"``: the order
            of scaling and enlarging, the space that is masked, and the place of the ReLU of those codes.
        weights: ``"probability"``, ``"softmax-probability"`` or ``"softmax-logit"``, three different algorithms; see
            :func:`facexai.functional.scorecam_weights`. ``"auto"``: the convention's own.
        mask_space: ``"pixels"`` or ``"input"``; ``"auto"``: the convention's own.
        chunk: masked images per forward pass; ``"auto"`` aims at 96 MiB for the network's work (2 GiB on a GPU).
            Halved where memory runs out. It changes nothing but time and memory.
        precision: ``"bf16"`` or ``"fp16"`` runs the masked passes under autocast.
        keep: mask only that many channels of each image, those whose activation times gradient of the predicted class
            is largest; an approximation, which the recipe says.
        relu: keep positive values only, as published.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown option; on use, unknown layer or one without a map, one class with probability weights.

    Cost: one forward pass for each image and one for each channel that is not constant, for any number of classes,
    galleries and rivals. Evidence is portable: plain tensors.

    Source: Wang et al. 2020, arXiv:1910.01279. The default is the authors' weights on black pixels, which is ours.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(576, 5))
    >>> why = ScoreCAM(FaceModel(net, InputSpec(14), output="logits"), layer="0")(torch.rand(2, 3, 14, 14))
    >>> why.cells.shape, why.recipe["weights"]
    (torch.Size([2, 12, 12]), 'probability')
    """

    classifier: WhiteBox
    layer: str = "auto"
    convention: Literal["facexai", "authors", "pytorch-grad-cam", "torchcam"] = "facexai"
    weights: Weights | Literal["auto"] = "auto"
    mask_space: MaskSpace | Literal["auto"] = "auto"
    chunk: int | Literal["auto"] = "auto"
    precision: Precision = None
    keep: int | None = None
    relu: bool = True
    progress: bool = False

    def __post_init__(self) -> None:
        check_explainable(self.classifier)
        for name, value, known in (
            ("convention", self.convention, tuple(CONVENTIONS)),
            ("weights", self.weights, ("auto", *get_args(Weights))),
            ("mask_space", self.mask_space, ("auto", *get_args(MaskSpace))),
            ("precision", self.precision, (None, "bf16", "fp16")),
        ):
            if value not in known:
                raise ValueError(f"expected {name} one of {known}, got {value!r}")
        for name, number, instead in (("chunk", self.chunk, "auto"), ("keep", self.keep, None)):
            if number != instead and (not isinstance(number, int) or number < 1):
                raise ValueError(f"expected {name} of at least 1, or {instead!r}, got {number!r}")

    def __call__(self, images: Tensor, targets: Targets = None) -> Saliency:
        """Explains a class: ``answer(observe(images), targets)``; arguments as for every explainer."""
        if isinstance(self.classifier, Gallery):  # a mistake should not cost the masked passes
            check_device(images, self.classifier.model.device)
            self.classifier.model.spec.check(images)
            logits = torch.zeros(len(images), len(self.classifier))
            indices(targets, self.classifier.names, logits)
            functional.scorecam_weights(logits, torch.zeros(1, dtype=torch.long), self.how.weights)
        return explain(self, images, targets)

    @property
    def how(self) -> Convention:
        """Returns the convention, with the options that were given instead of its own."""
        given = {name: getattr(self, name) for name in ("weights", "mask_space") if getattr(self, name) != "auto"}
        return replace(CONVENTIONS[self.convention], **given)

    def observe(self, images: Tensor) -> MaskedEvidence:
        """Runs one forward pass, and one for each mask; the answer needs no further pass."""
        model = self.classifier.model
        check_device(images, model.device)
        model.spec.check(images)
        name, size = layer_with_map(model, self.layer), chunk_size(model, self.chunk)
        rows = torch.arange(len(images))
        seen = [self._look(images[part], part, name) for part in torch.split(rows, size)]
        activations = torch.cat([one.activations for one in seen])
        outputs = _joined([one.outputs for one in seen], model)
        wanted = torch.cat([one.wanted for one in seen])
        image, channel = wanted.nonzero(as_tuple=True)
        if len(channel) == 0:  # every channel is constant: there is nothing to ask, and the map is zero
            features = model.features(outputs)[:0]
        else:
            make, told = self._masker(images, activations, image, channel), "Score-CAM" if self.progress else None
            features = features_of(model, image, make, chunk=size, precision=self.precision, progress=told)
        dropped = torch.cat([one.varying for one in seen]) - wanted.sum(1)
        settings = self._settings()
        return MaskedEvidence(
            activations, outputs, features, image, channel, name, model.fingerprint, settings, dropped
        )

    def _look(self, images: Tensor, index: Tensor, name: str) -> _Seen:
        """Runs one forward pass of some of the images; returns activations and the channels to be masked with."""
        model, how = self.classifier.model, self.how
        layout, importance = model.structure.layers[name], None
        if self.keep is None:
            with no_graph(), capture(model.net, name, batch=layout.batch) as seen:
                outputs = model.outputs(images, index)
            raw = seen.tensor
        else:
            hires = HiResCAM(self.classifier, layer=name)
            try:
                evidence = hires.observe(images)
                raw, outputs = evidence.activations.detach(), evidence.outputs.detach()
                importance = self._importance(hires, evidence)
            except gradients.NoGradient as refusal:
                raise gradients.NoGradient(
                    f"{refusal}; ScoreCAM(keep=) picks channels by gradients: leave keep out"
                ) from None
        activations = at_least_float32(model.merge(layout.map(raw)))
        wanted = torch.ones(activations.shape[:2], dtype=torch.bool, device=activations.device)
        if how.skip_constant:
            align, size = how.align_corners, model.spec.height_width
            wanted = ~kernels.constant_channels(activations, size, order=how.order, align_corners=align)
        varying = wanted.sum(1)
        if importance is not None and self.keep is not None and self.keep < wanted.shape[1]:
            best = importance.masked_fill(~wanted, -1.0).topk(self.keep, dim=1).indices
            wanted = wanted & torch.zeros_like(wanted).scatter(1, best, True)
        return _Seen(activations, outputs, wanted, varying)

    def _importance(self, hires: HiResCAM, evidence: Evidence) -> Tensor:
        """Returns (N, C): how much each channel adds to the predicted class's score, in first order."""
        predicted = logits_of(self.classifier, evidence).argmax(1)

        def formula(a: Tensor, g: Tensor) -> Tensor:
            return (at_least_float32(a) * at_least_float32(g)).sum((2, 3))[:, :, None]

        return gradients.class_maps(hires, evidence, predicted[:, None], formula)[:, 0, :, 0].abs()

    def _masker(self, images: Tensor, activations: Tensor, image: Tensor, channel: Tensor) -> Callable[[slice], Tensor]:
        """Returns the function that makes the masked images of a slice."""
        how = self.how
        with torch.inference_mode(False), torch.no_grad():
            shown = images.detach().clone()
            fill = mean_colour(self.classifier.model.spec, shown) if how.mask_space == "input" else None
            if fill is not None:
                shown -= fill

        def make(part: slice) -> Tensor:
            masked = kernels.masked_images(
                shown,
                activations,
                channel[part],
                image_index=image[part],
                order=how.order,
                align_corners=how.align_corners,
            )
            return masked if fill is None else masked.add_(fill)

        return make

    def answer(self, evidence: MaskedEvidence, targets: Targets = None) -> Saliency:
        """Returns the map of any class from evidence, without running the network."""
        enlarged = self.classifier.model.spec.height_width if self.how.relu == "pixels" else None
        return answer(self, evidence, targets, size=enlarged)

    def class_maps(self, evidence: MaskedEvidence, classes: Tensor) -> Tensor:
        """Returns maps (N, K, h, w) of classes (N, K) before any ReLU, in units of the activations; no network pass."""
        check_kind(evidence, "masked", self.layer)
        if evidence.settings != self._settings():
            raise ValueError(
                f"this evidence was made with {evidence.settings}, not with {self._settings()}; observe the images"
                " again"
            )
        with no_graph():
            maps = []
            for n, wanted in enumerate(classes):  # one image at a time: masks x classes can be large
                mine = evidence.image == n
                logits = self.classifier.score(evidence.features[mine])
                weights = functional.scorecam_weights(logits, wanted, self.how.weights)
                maps.append(functional.scorecam(evidence.activations[n, evidence.channel[mine]], weights))
            return torch.stack(maps)

    def recipe(self, evidence: MaskedEvidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        record: dict[str, Any] = {"method": "ScoreCAM", "layer": evidence.layer, "convention": self.convention}
        record |= {"weights": self.how.weights, "flip": self.classifier.model.flip, **evidence.settings}
        dropped = [int(d) for d in evidence.dropped]
        record["unit"] = "weighted activation"
        return {**record, "approximate": any(dropped), "dropped_channels": dropped}

    def _settings(self) -> dict[str, Any]:
        """Returns the settings that the evidence depends on; the weights belong to the answer."""
        how = self.how
        result: dict[str, Any] = {"order": how.order, "align_corners": how.align_corners}
        result["skip_constant"] = how.skip_constant
        result |= {"mask_space": how.mask_space, "precision": self.precision, "keep": self.keep}
        if self.keep is not None and isinstance(self.classifier, Gallery):
            result["kept_for"] = self.classifier.fingerprint  # the channels were chosen for its people
        return result


class _Seen(NamedTuple):
    """The first pass of some images: activations (N, C, h, w), outputs (B*N, D), channels to mask with (N, C),
    how many vary (N,).
    """

    activations: Tensor
    outputs: Tensor
    wanted: Tensor
    varying: Tensor


def _joined(outputs: list[Tensor], model: FaceModel) -> Tensor:
    """Returns outputs (B*n, D) of parts as those of the whole, branch after branch."""
    if model.flip is None:
        return torch.cat(outputs)
    return torch.cat([part.chunk(2)[branch] for branch in (0, 1) for part in outputs])
