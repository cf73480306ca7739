"""Functions that decisions about faces share: resizing to the model's size, and the recipe of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from facexai.input_spec import InputSpec
from facexai.models import FaceModel
from facexai.models.blackbox import BlackBox

Size = Literal["resize", "same"]


class RecipeRepr(ABC):
    """A repr made of the recipe."""

    @property
    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """Returns every choice that changes a number, for results."""

    def __repr__(self) -> str:
        told = dict(self.recipe)
        return f"{told.pop('decision')}({', '.join(f'{name}={value!r}' for name, value in told.items())})"


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns images (N, 3, H, W) at another size (H, W): bilinear, antialiased when shrinking,
    differentiable, not clamped.

    >>> import torch
    >>> resized(torch.ones(1, 3, 8, 8), (4, 2)).shape
    torch.Size([1, 3, 4, 2])
    """
    height, width = int(images.shape[-2]), int(images.shape[-1])
    if (height, width) == tuple(size):
        return images
    shrinks = height > size[0] or width > size[1]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def check(model: FaceModel, size: str) -> None:
    """Refuses an unknown size, a black box, and other arguments of the network that differ between images."""
    if size not in get_args(Size):
        raise ValueError(f"expected size one of {get_args(Size)}, got {size!r}")
    if isinstance(model.core, BlackBox):
        raise ValueError(f"a decision needs gradients; {model.core.refusal}")
    odd = [n for n, v in (model.forward_kwargs or {}).items() if isinstance(v, Tensor) and v.ndim > 0 and len(v) != 1]
    if odd:
        raise ValueError(f"decisions need one row of forward_kwargs for all images, {odd[0]!r} has more; give one row")


def features(model: FaceModel, images: Tensor, size: Size) -> Tensor:
    """Returns the model's features (N, D) of images around [0, 1]. Keeps the grad mode."""
    return model.features(model.outputs(fit_to_size(model, images) if size == "resize" else images, in_range=False))


def fit_to_size(model: FaceModel, images: Tensor) -> Tensor:
    """Returns images at the model's size, checked before they are resized."""
    if (size := size_of(images)) != model.spec.height_width:
        InputSpec(size).check(images, in_range=False)
        images = resized(images, model.spec.height_width)
    return images


def size_of(images: object) -> tuple[int, int]:
    """Returns (H, W) of a batch; of anything else one that the check of its shape comes before."""
    if not isinstance(images, Tensor) or images.ndim != 4:
        return 1, 1
    return max(1, int(images.shape[2])), max(1, int(images.shape[3]))


def network(model: FaceModel) -> dict[str, Any]:
    """Returns class and fingerprint of the network."""
    return {"network": type(model.core).__name__, "fingerprint": model.fingerprint}
