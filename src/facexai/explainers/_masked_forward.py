"""Runs a network on many masked copies of each image, within a bound on memory, and keeps the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai._progress import tqdm
from facexai.hooks import no_graph
from facexai.models import FaceModel
from facexai.models.blackbox import BlackBox

Precision = Literal["bf16", "fp16"] | None

_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BUDGET = {"cpu": 96 * 2**20, "cuda": 2**31}  # bytes for the network's tensors and scratch space
_MOST, _UNSEEN = 256, 16


@final
@dataclass(frozen=True, eq=False)
class MaskedEvidence:
    """The outputs for masked copies of the images: plain tensors, which pickle and answer any question.

    Attributes:
        activations: (N, C, h, w), the map of the explained layer; mirrored branches merged.
        outputs: (B*N, D), the network's output for the images as they are.
        features: (M, D'), the model's features of the masked images.
        image: (M,), which image each is a copy of.
        channel: (M,), the channel whose mask it wears.
        layer: name of the explained layer.
        fingerprint: of the model that was observed.
        settings: every choice that changed the masks.
        dropped: channels of each image that were left out although they are not constant, (N,).
    """

    activations: Tensor
    outputs: Tensor
    features: Tensor
    image: Tensor
    channel: Tensor
    layer: str
    fingerprint: str
    settings: dict[str, Any]
    dropped: Tensor
    kind: Literal["masked"] = "masked"


def check_chunk(chunk: object) -> None:
    """Refuses a number of images per pass below 1."""
    if chunk != "auto" and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"expected chunk of at least 1, or 'auto', got {chunk!r}")


def chunk_size(model: FaceModel, chunk: int | Literal["auto"]) -> int:
    """Returns images per forward pass: as given, or such that the network's work fits a budget of 96
    MiB (2 GiB on a GPU).

    A black box gets 16.
    """
    if chunk != "auto":
        return chunk
    if isinstance(model.core, BlackBox | torch.jit.ScriptModule):
        return _UNSEEN
    budget = _BUDGET.get(model.device.type, _BUDGET["cpu"])
    return max(1, min(_MOST, budget // max(1, model.structure.memory)))


def features_of(
    model: FaceModel,
    image: Tensor,
    make: Callable[[slice], Tensor],
    *,
    chunk: int,
    precision: Precision = None,
    progress: str | None = None,
    in_range: bool = True,
) -> Tensor:
    """Returns the model's features (count, D') of changed images, made and forgotten chunk by chunk.

    Args:
        model: the network.
        image: (M,), which image each is a copy of.
        make: gives the images (m, 3, H, W) of a slice of them.
        chunk: images per forward pass; halved, and the pass repeated, where memory runs out.
        precision: run the network under autocast.
        progress: text before a progress bar; None: no bar.
        in_range: False: the images may have values outside of [0, 1].

    Raises:
        RuntimeError: memory runs out for a single image.
    """
    rows: Tensor | None = None  # allocated once: small tensors kept between large ones would fragment the heap
    done, count = 0, len(image)
    with no_graph(), tqdm(total=count, desc=progress, unit="image", disable=progress is None) as bar:
        while done < count:
            part = slice(done, min(done + chunk, count))
            try:
                with _reduced(model, precision):
                    outputs = model.outputs(make(part), image[part], in_range=in_range)
            except RuntimeError as error:
                if chunk == 1 or not is_out_of_memory(error):
                    raise
                chunk = chunk // 2
                continue
            features = model.features(outputs)
            rows = features.new_empty(count, features.shape[1]) if rows is None else rows
            rows[part] = features
            done = part.stop
            bar.update(part.stop - part.start)
    assert rows is not None
    return rows


@contextmanager
def _reduced(model: FaceModel, precision: Precision) -> Iterator[None]:
    with nullcontext() if precision is None else torch.autocast(model.device.type, _PRECISIONS[precision]):
        yield


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether Python or torch raised this because the memory of the machine or of the device is full."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )
