"""Runs one forward pass that keeps a layer's map and no graph, for methods that need neither gradients nor a head."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from facexai.explainers._class_maps import Evidence
from facexai.hooks import capture, no_graph
from facexai.models import FaceModel, WhiteBox


class LayerMaps(Protocol):
    """The fields that :func:`observe` reads."""

    @property
    def classifier(self) -> WhiteBox: ...
    @property
    def layer(self) -> str: ...


def layer_with_map(model: FaceModel, layer: str) -> str:
    """Returns the name of the layer, ``"auto"`` resolved.

    Raises:
        ValueError: no such layer, or it gives no map of the images.
    """
    name = model.layer(layer)
    model.structure.layout(name)
    return name


def observe(self: LayerMaps, images: Tensor) -> Evidence:
    """Runs one forward pass and keeps the layer's map (B*N, C, h, w) as plain tensors."""
    model = self.classifier.model
    name = layer_with_map(model, self.layer)
    layout = model.structure.layout(name)
    with no_graph(), capture(model.net, name, batch=layout.batch) as seen:
        outputs = model.outputs(images)
    activations = layout.map(seen.tensor)
    return Evidence(activations, outputs, None, name, model.fingerprint, "map")
