"""The decision of face verification: do two photos show one person?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from facexai.decisions._common import RecipeRepr, Size, check, features, fit_to_size, network
from facexai.functional import at_least_float32
from facexai.functional._decision import is_threshold
from facexai.models import FaceModel


@final
@dataclass(frozen=True, eq=False, repr=False)
class Verification(RecipeRepr):
    """The decision whether two photos show one person; see :func:`verification`.

    Attributes:
        references: (1, D) or (N, D) unit embeddings.
    """

    model: FaceModel
    references: Tensor
    threshold: float
    gain: float
    size: Size

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Returns class and fingerprint of the network, a digest of the references, and the numbers."""
        held = hashlib.sha256(self.references.cpu().double().numpy().tobytes()).hexdigest()[:16]
        told = {"decision": "verification", **network(self.model), "references": held}
        return {**told, "threshold": self.threshold, "gain": self.gain, "size": self.size}

    @property
    def module(self) -> nn.Module:
        """Returns the network."""
        return self.model.net

    @property
    def held(self) -> int | None:
        """Returns how many images it is about; None: any."""
        return None if len(self.references) == 1 else len(self.references)

    def rows(self, index: Tensor) -> Verification:
        """Returns the same about the images of that index: (M,) numbers, or (N,) booleans."""
        if len(self.references) == 1:
            return self
        return replace(self, references=self.references[index.to(self.references.device)])

    def __call__(self, images: Tensor) -> Tensor:
        """Returns (N, 3, H, W) -> (N,)."""
        embeddings = F.normalize(features(self.model, images, self.size))
        held = self.references.to(embeddings)
        if len(held) not in (1, len(embeddings)):
            raise ValueError(
                f"this decision holds {len(held)} references, got {len(embeddings)} images; decision.rows(index) is "
                "the decision about some of them"
            )
        if held.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"the references have {held.shape[1]} numbers, the model's embeddings {embeddings.shape[1]}; "
                "embed them with the same model and flip"
            )
        return self.gain * ((embeddings * held).sum(1) - self.threshold)


def verification(
    model: FaceModel, reference: Tensor, threshold: float, gain: float = 20.0, *, size: Size = "resize"
) -> Verification:
    """Returns whether a photo shows the person of the reference: ``gain * (cosine - threshold)``.

    Args:
        model: gives embeddings.
        reference: photos (1, 3, H, W), or (N, 3, H, W) one for each image; or their unit embeddings (1, D) or (N, D).
        threshold: the cosine from which on two photos are accepted as one person's, such as that of
            :func:`facexai.metrics.threshold`.
        gain: logits per unit of cosine; 20 makes a cosine of 0.1 above the threshold a probability of 0.88, so that
            guidance made for class logits fits.
        size: as in :func:`of_class`, also for the reference photos.

    Returns:
        A decision, positive where the cosine is above the threshold; its gradient is that of the cosine.

    Raises:
        ValueError: numbers out of range, references that are neither photos nor unit rows, a network of logits, a
            black box; on use, another number of images than references.
        TypeError: no FaceModel or tensor.

    Cost: the references are embedded once, here.

    Source: ours; published diffusion counterfactuals are for classifiers.

    >>> import torch
    >>> from torch import nn
    >>> from facexai import InputSpec
    >>> model = FaceModel(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), InputSpec(4))
    >>> grey = torch.full((1, 3, 4, 4), 0.5)
    >>> verification(model, grey, threshold=0.4)(grey)
    tensor([12.])
    """
    if not isinstance(model, FaceModel) or not isinstance(reference, Tensor):
        raise TypeError(
            "expected a FaceModel and a reference as a tensor, got "
            f"{type(model).__name__} and {type(reference).__name__}"
        )
    check(model, size)
    if model.gives_logits:
        raise ValueError("this network gives logits, not embeddings; decisions.of_class, or choose them with take=")
    if not is_threshold(threshold) or not 0 < gain < float("inf"):
        raise ValueError(f"expected a threshold from -1 to 1, a cosine, and gain > 0, got {threshold} and {gain}")
    if reference.ndim == 4:
        photos = reference if size == "same" or not reference.numel() else fit_to_size(model, reference)
        reference = model.embed(photos)
    lengths = reference.norm(dim=1) if reference.ndim == 2 and reference.is_floating_point() else reference.new_zeros(0)
    if not len(lengths) or not ((lengths - 1).abs() < 1e-3).all():
        told = f", of length {float(lengths.min()):.3g} to {float(lengths.max()):.3g}" if len(lengths) else ""
        raise ValueError(
            "expected reference photos (N, 3, H, W) or unit embeddings (N, D), finite, got "
            f"{tuple(reference.shape)}{told}; torch.nn.functional.normalize(reference)"
        )
    references = F.normalize(at_least_float32(reference.detach()))
    return Verification(model, references, float(threshold), float(gain), size)
