"""The first-order change of a score without each frequency band, from gradients of many questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from facexai import functional
from facexai.explainers.jacobian import gradient
from facexai.functional import Bands, at_least_float32
from facexai.functional.frequency import Limit
from facexai.hooks import grad_scope
from facexai.models import FaceModel

Graph = tuple[Tensor, Tensor]  # pixels, and the outputs that follow from them
_INSTEAD = 'mode="exact" asks without gradients'


@lru_cache(maxsize=8)
def bands_of(size: tuple[int, int], width: float, limit: Limit, sectors: int, keep_dc: bool) -> Bands:
    """Returns the layout of the bands of images of a size, computed once."""
    with torch.inference_mode(False):
        return functional.bands(size, width, limit, sectors=sectors, keep_dc=keep_dc)


def graph_of(model: FaceModel, images: Tensor, index: Tensor) -> Graph:
    """Runs one forward pass that keeps the graph from the pixels to the outputs.

    Args:
        model: the network.
        images: (N, 3, H, W).
        index: (N,), which rows of ``forward_kwargs`` they take.
    """
    with grad_scope(model.net):
        leaves = at_least_float32(images.detach()).clone().requires_grad_()
        return leaves, model.outputs(leaves, index)


def first_order(
    model: FaceModel,
    layout: Bands,
    images: Tensor,
    rows: Sequence[int],
    score: Callable[[Tensor, slice], Tensor],
    step: int,
    graph: Graph | None = None,
) -> Tensor:
    """Returns (P, cells): gradients of scores by the pixels, times what every cell holds.

    Args:
        model: the network.
        layout: of the frequencies.
        images: (P, 3, H, W), one for each question.
        rows: P, which rows of ``forward_kwargs`` they take.
        score: from features and a slice of the questions to scores.
        step: images whose graph is kept at a time.
        graph: of all images, where their pass was made already.
    """
    found, index = [], torch.tensor(list(rows))
    with grad_scope(model.net):
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            leaves, outputs = graph or graph_of(model, images[part], index[part])
            values = score(model.features(outputs), part)
            gradients = gradient(values.sum(), leaves, keep=False, instead=_INSTEAD)
            found.append(functional.first_order(leaves.detach(), gradients, layout))
    return torch.cat(found)
