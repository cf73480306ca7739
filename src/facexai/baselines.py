"""Baselines from captum with the same call as our explainers, not rewritten."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from facexai._errors import require, suggest, warn
from facexai.explainers._class_maps import saliency
from facexai.explainers._rounding import marked, score_vanishes, zeroed
from facexai.functional import at_least_float32
from facexai.hooks import eval_scope, exclusive, no_graph, seeded
from facexai.models import FaceModel, Gallery
from facexai.models.gallery import around
from facexai.models.targets import Targets, indices
from facexai.results import Saliency

METHODS = (
    "Saliency",
    "InputXGradient",
    "IntegratedGradients",
    "DeepLift",
    "GuidedBackprop",
    "GuidedGradCam",
    "Occlusion",
    "Lime",
)
"""Names of captum's classes that :func:`captum` takes."""

_RESCALED = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus)
RULES: dict[str, tuple[type[nn.Module], ...]] = {
    "GuidedBackprop": (nn.ReLU,),
    "GuidedGradCam": (nn.ReLU,),
    "DeepLift": _RESCALED,
}
_ONE_BRANCH = ("DeepLift", "GuidedGradCam")
_LOCAL = ("Saliency", "InputXGradient", "GuidedBackprop", "GuidedGradCam")  # of the gradient at the image alone
_MAGNITUDE = ("Saliency", "GuidedBackprop", "GuidedGradCam")


class _Whole(nn.Module):
    """A copy of a classifier as one network from images to logits, without in-place operations."""

    def __init__(self, classifier: Gallery | FaceModel) -> None:
        super().__init__()
        model = classifier.model
        with exclusive(model.net):  # nobody else's hooks are copied
            self.net = copy.deepcopy(model.net)
        for module in self.net.modules():
            if getattr(module, "inplace", False) is True:
                setattr(module, "inplace", False)  # noqa: B010  (modules type their attributes as tensors)
        self.classifier = around(classifier, self.net)

    def forward(self, images: Tensor) -> Tensor:
        model = self.classifier.model
        return self.classifier.score(model.features(model.outputs(images.clamp(0, 1))), detach_norm=False)


@final
@dataclass(frozen=True, eq=False)
class Captum:
    """One of captum's attributions as an explainer; see :func:`captum`."""

    method: str
    classifier: Gallery | FaceModel
    layer: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, images: Tensor, targets: Targets = None) -> Saliency:
        """Explains images (N, 3, H, W); targets as for every explainer."""
        model = self.classifier.model
        with torch.inference_mode(False), seeded(0, model.net):
            with no_graph():
                outputs = model.outputs(images)
                logits = self.classifier.score(model.features(outputs))
            chosen = indices(targets, self.classifier.names, logits)
            whole = _Whole(self.classifier)
            with eval_scope(whole):
                pixels = self._attribute(whole, images.detach().clone().requires_grad_(), chosen)
        values = at_least_float32(pixels.detach())
        cells = values.abs().amax(1) if self.method in _MAGNITUDE else values.sum(1)
        small = None
        if self.method in _LOCAL:
            small = score_vanishes(self.classifier, outputs, chosen[:, None], lengths=True)[:, 0]
            cells = zeroed(cells, small)
        options = {name: str(value) for name, value in self.options.items()}
        layer = model.layer(self.layer or "auto") if self.method == "GuidedGradCam" else "pixels"
        recipe: dict[str, Any] = {"method": f"captum {self.method}", "layer": layer, "flip": model.flip, **options}
        recipe |= marked(small)
        if self.method in _MAGNITUDE:
            recipe["unit"] = "magnitude of gradients"
        if isinstance(self.classifier, Gallery):
            recipe["similarity"] = "cosine"
        why = saliency(self.classifier, cells, logits, chosen, recipe=recipe)
        assert tuple(cells.shape[1:]) == model.spec.size
        return replace(why, images=images)

    def _attribute(self, whole: _Whole, images: Tensor, targets: Tensor) -> Tensor:
        attr = require("captum.attr", extra="parity", purpose=f"captum's {self.method}")
        rules = RULES.get(self.method, ())
        if rules and not any(isinstance(module, rules) for module in whole.modules()):
            warn(
                f"captum's {self.method} changes activation modules such as nn.ReLU and this network has none, so it "
                f"equals {'InputXGradient' if self.method == 'DeepLift' else 'its unguided form'}"
            )
        kind, options = getattr(attr, self.method), dict(self.options)
        if self.method == "GuidedGradCam":
            layer = whole.net.get_submodule(_channels_first(whole.classifier.model, self.layer or "auto"))
            guided: Tensor = kind(whole, layer).attribute(images, targets, interpolate_mode="bilinear", **options)
            return guided
        if self.method == "Occlusion":
            side = max(1, images.shape[-1] // 8)
            options = {
                "sliding_window_shapes": (3, side, side),
                "strides": (3, side // 2 or 1, side // 2 or 1),
                **options,
            }
        if self.method == "Lime":
            options = {"feature_mask": _patches(images), "n_samples": 200, **options}
            one = kind(whole)
            pairs = zip(torch.split(images, 1), torch.split(targets, 1), strict=True)
            rows = [one.attribute(image, target=target, **options) for image, target in pairs]
            return torch.cat(rows)
        attributed: Tensor = kind(whole).attribute(images, target=targets, **options)
        return attributed


def _channels_first(model: FaceModel, layer: str) -> str:
    """Returns the layer's name; refuses a layout that captum, which expects channels first, would misread."""
    name = model.layer(layer)
    if (layout := model.structure.layout(name)).order != "chw":
        first = [n for n, other in model.structure.layers.items() if other.order == "chw"]
        raise ValueError(
            f"captum's GuidedGradCam takes the axis behind the images' for channels; layer {name!r} gives {layout}; "
            f"name a layer of channels first, which end in {first[-3:]}, or use HiResCAM or GradCAM"
        )
    return name


def _patches(images: Tensor, count: int = 8) -> Tensor:
    """Returns a grid of ``count * count`` patches, numbered, (1, 1, H, W): what LIME switches on and off."""
    rows, columns = (torch.arange(s) * count // s for s in images.shape[2:])
    return (rows[:, None] * count + columns[None, :])[None, None].to(images.device)


def captum(method: str, classifier: Gallery | FaceModel, *, layer: str | None = None, **options: Any) -> Captum:
    """Returns a baseline from captum as an explainer: called with images and targets, gives a Saliency.

    Args:
        method: one of :data:`METHODS`.
        classifier: a gallery or a network with ``output="logits"``; captum works on a copy of its network.
        layer: for ``"GuidedGradCam"``.
        options: passed to captum's ``attribute``. Defaults of ours: occlusion by squares of an eighth of the width
            with half a stride, LIME on 8x8 patches with 200 samples.

    Returns:
        An explainer; its maps are at the size of the image: magnitudes (largest over RGB) for gradients, signed sums
        over RGB for attributions. Guided methods act on ``nn.ReLU`` modules only, as captum says; DeepLIFT needs every
        activation to be a module that runs once. Maps of the gradient at the image alone are zero where that is
        rounding noise, as for a person's only photo; a warning and ``recipe["rounding_floor"]`` report it.

    Raises:
        ValueError: captum has no such method here, or it does not work with the model's ``flip``.
        ImportError: on use, where captum is missing (extra ``parity``).
    """
    if classifier.model.flip is not None and method in _ONE_BRANCH:
        raise ValueError(f"captum's {method} does not work with flip={classifier.model.flip!r}; use a model without it")
    if method not in METHODS:
        raise ValueError(f"no baseline is called {method!r}; {suggest(method, METHODS)}")
    return Captum(method, classifier, layer, options)
