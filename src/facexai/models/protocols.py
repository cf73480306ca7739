"""The interfaces of classifiers that methods need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from facexai.models.face_model import FaceModel


@runtime_checkable
class Embedder(Protocol):
    """Gives unit embeddings."""

    def embed(self, images: Tensor) -> Tensor:
        """Returns (N, 3, H, W) RGB in [0, 1] -> (N, D) unit rows."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Gives class logits."""

    def logits(self, images: Tensor) -> Tensor:
        """Returns (N, 3, H, W) RGB in [0, 1] -> (N, C)."""
        ...


@runtime_checkable
class WhiteBox(Classifier, Protocol):
    """A classifier whose logits are computed from the features of a white-box network."""

    @property
    def model(self) -> FaceModel:
        """Returns the network with its input specification."""
        ...

    @property
    def names(self) -> tuple[str, ...] | None:
        """Returns class names, where known."""
        ...

    def score(self, features: Tensor, targets: Tensor | None = None, detach_norm: bool = True) -> Tensor:
        """Returns logits as a differentiable function of features (N, D): (N, C), or (N, K) for targets (N, K)."""
        ...

    def directions(self, features: Tensor, targets: Tensor) -> Tensor:
        """Returns derivative of the logits of targets (N, K) with respect to the features, norms fixed: (N, K, D)."""
        ...
