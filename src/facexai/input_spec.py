"""Describes the input of a network: size, channels and their order, range, mean and standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import torch
from torch import Tensor

from facexai._errors import suggest

Channels = Literal["RGB", "BGR", "L"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in a grey value: luma of ITU-R BT.601, as in Pillow's ``convert("L")``."""

_RANGE_TOLERANCE = 1e-4
_WHOLE = (0.0, 0.0, 112.0, 112.0)


def _per_channel(name: str, value: float | Sequence[float], channels: Channels) -> tuple[float, ...]:
    count, expected = (1, "one finite number") if channels == "L" else (3, "one or three finite numbers")
    values = tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),) * count
    if len(values) != count or not all(math.isfinite(v) for v in values):
        raise ValueError(f"InputSpec: expected {expected} for {name} with channels={channels!r}, got {value!r}")
    return values


def mean_colour(spec: InputSpec, images: Tensor) -> Tensor:
    """Returns the colour (3, 1, 1), in pixels of [0, 1], that is zero in the network's own input; grey for one channel.

    >>> mean_colour(InputSpec(8, "L", mean=51.0, range=255.0), torch.zeros(1))[:, 0, 0]
    tensor([0.2000, 0.2000, 0.2000])
    """
    mean = images.new_tensor(_per_channel("mean", spec.mean, spec.channels))
    return mean[:, None, None].expand(3, 1, 1) / spec.range


def check_pixels(images: Tensor, *, in_range: bool = True) -> None:
    """Refuses what is not RGB in [0, 1]: another type, NaN or infinity, values outside (unless ``in_range`` is False).

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: NaN, infinity or values outside [0, 1].
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"expected images as a torch.Tensor, got {type(images).__name__}; facexai.images.load(path)")
    if not images.is_floating_point():
        raise TypeError(f"expected floating-point images in [0, 1], got {images.dtype}; images.float() / 255")
    if images.numel() == 0:
        raise ValueError(f"expected at least one pixel, got shape {tuple(images.shape)}")
    low, high = (float(v) for v in torch.aminmax(images.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("expected finite pixel values, got NaN or infinity")
    if in_range and (low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE):
        raise ValueError(
            f"expected pixels in [0, 1], got {low:.3g} to {high:.3g}; give plain RGB "
            "(divide 0..255 by 255) and leave mean and std to the InputSpec"
        )


@final
@dataclass(frozen=True)
class InputSpec:
    """The preprocessing of RGB pixels in [0, 1] for a network: ``(pixels * range - mean) / std``.

    The conversion is the first differentiable step of :class:`~facexai.FaceModel`, so masks, black and gradients
    refer to real pixels. It never resizes. Images are RGB for every network, also for one that takes one channel.

    Args:
        size: (H, W) in pixels, or one number for a square.
        channels: channels of the network's input, in their order: ``"RGB"``, ``"BGR"``, or ``"L"`` for a network of
            one channel, which gets the luma of the pixels, .299 R + .587 G + .114 B (ITU-R BT.601; Pillow's
            ``convert("L")`` without its rounding).
        mean: subtracted after scaling; one number or three, in the order R, G, B. With ``"L"`` one number, of the luma.
        std: divided by; as ``mean``.
        range: value of a white pixel before mean and std: 1 or 255.
        crop: (left, top, right, bottom) of the window that the network sees, in pixels of the 112-pixel ArcFace
            template, edges; used by :func:`facexai.images.align` only.

    Raises:
        ValueError: a size below 1, unknown channels, a zero std, three numbers for one channel.

    >>> InputSpec.of("adaface")
    InputSpec(size=(112, 112), channels='BGR', mean=0.5, std=0.5, range=1.0)
    >>> InputSpec(8, std=2.0).prepare(torch.ones(1, 3, 8, 8)).unique()
    tensor([0.5000])
    >>> InputSpec(8, "L").prepare(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 3, 8, 8)).unique()
    tensor([0.2990])
    """

    size: tuple[int, int] | int = (112, 112)
    channels: Channels = "RGB"
    mean: float | tuple[float, float, float] = 0.0
    std: float | tuple[float, float, float] = 1.0
    range: float = 1.0
    crop: tuple[float, float, float, float] = _WHOLE

    def __post_init__(self) -> None:
        size = tuple(self.size) if isinstance(self.size, Sequence) else (self.size, self.size)
        if len(size) != 2 or not all(isinstance(s, int) and s >= 1 for s in size):
            raise ValueError(f"InputSpec: expected size (H, W) of at least one pixel, got {self.size!r}")
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        if self.channels not in get_args(Channels):
            raise ValueError(f"InputSpec: expected channels 'RGB', 'BGR' or 'L', got {self.channels!r}")
        _per_channel("mean", self.mean, self.channels)
        if 0.0 in _per_channel("std", self.std, self.channels):
            raise ValueError(f"InputSpec: std must not be zero, got {self.std!r}")
        if not self.range > 0:
            raise ValueError(f"InputSpec: expected range > 0 (1 or 255), got {self.range!r}")
        left, top, right, bottom = self.crop
        if not (right > left and bottom > top):
            raise ValueError(f"InputSpec: expected crop (left, top, right, bottom), got {self.crop!r}")

    def __repr__(self) -> str:
        return (
            f"InputSpec(size={self.size}, channels={self.channels!r}, mean={self.mean}, std={self.std}, "
            f"range={self.range}" + (")" if self.crop == _WHOLE else f", crop={self.crop})")
        )

    @classmethod
    def of(cls, spec: InputSpec | str) -> InputSpec:
        """Returns the specification itself, or the preset of that name.

        Raises:
            ValueError: no preset has this name.
        """
        if isinstance(spec, InputSpec):
            return spec
        if not isinstance(spec, str) or spec not in PRESETS:
            raise ValueError(
                f"expected an InputSpec or the name of a preset, got {spec!r}; {suggest(str(spec), PRESETS)}"
            )
        return PRESETS[spec]

    @property
    def height_width(self) -> tuple[int, int]:
        """Returns (H, W) in pixels."""
        assert isinstance(self.size, tuple)
        return self.size

    def check(self, images: Tensor, *, in_range: bool = True) -> None:
        """Refuses what is not a batch of RGB images in [0, 1] at this size.

        Args:
            images: what was given.
            in_range: False: finite values outside of [0, 1] are taken, as images without some frequencies have them.

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: wrong shape or size, no image, NaN or infinity, values outside [0, 1].
        """
        if not isinstance(images, Tensor):
            raise TypeError(
                f"expected images as a torch.Tensor, got {type(images).__name__}; facexai.images.load(path)"
            )
        if images.ndim != 4 or images.shape[1] != 3:
            grey = images.ndim == 4 and images.shape[1] == 1
            hint = "; grey photos: images.expand(-1, 3, -1, -1), also for a network of one channel" if grey else ""
            hint = "; add the batch axis with images[None]" if images.ndim == 3 else hint
            raise ValueError(f"expected images (N, 3, H, W) in RGB, got shape {tuple(images.shape)}{hint}")
        if len(images) == 0:
            raise ValueError("expected at least one image, got an empty batch")
        if not images.is_floating_point():
            check_pixels(images)
        if tuple(images.shape[-2:]) != self.size:
            raise ValueError(
                f"this network takes {self.height_width[0]}x{self.height_width[1]} pixels (H x W), "
                f"got {images.shape[-2]}x{images.shape[-1]}; facexai never resizes by itself: "
                f"facexai.images.resize(images, {self.size}) or facexai.images.align(photo, spec)"
            )
        check_pixels(images, in_range=in_range)

    def prepare(self, images: Tensor, *, in_range: bool = True) -> Tensor:
        """Checks images (N, 3, H, W) and prepares them for the network: (N, 3, H, W), or (N, 1, H, W); differentiable.

        Raises:
            TypeError, ValueError: as :meth:`check`.
        """
        self.check(images, in_range=in_range)
        mean = images.new_tensor(_per_channel("mean", self.mean, self.channels))[:, None, None]
        std = images.new_tensor(_per_channel("std", self.std, self.channels))[:, None, None]
        luma = images.new_tensor(LUMA)[:, None, None]
        pixels = (images * luma).sum(1, keepdim=True) if self.channels == "L" else images
        prepared = (pixels * self.range - mean) / std
        # photos that were (N, H, W, 3) keep that memory, which networks that call .view cannot flatten
        return (prepared.flip(1) if self.channels == "BGR" else prepared).contiguous()


_HALF = 127.5
_ARCFACE = InputSpec(mean=0.5, std=0.5)

PRESETS: dict[str, InputSpec] = {
    "arcface": _ARCFACE,
    "insightface": _ARCFACE,
    "cvlface": _ARCFACE,
    "elasticface": _ARCFACE,
    "curricularface": _ARCFACE,
    "edgeface": _ARCFACE,
    "adaface": InputSpec(channels="BGR", mean=0.5, std=0.5),
    "magface": InputSpec(channels="BGR"),
    "facex-zoo": InputSpec(channels="BGR", mean=_HALF, std=128.0, range=255.0),
    "facenet-pytorch": InputSpec(160, mean=_HALF, std=128.0, range=255.0, crop=(-10.0, -10.0, 122.0, 122.0)),
    "mobilefacenet": InputSpec((112, 96), mean=_HALF, std=128.0, range=255.0, crop=(8.0, 0.0, 104.0, 112.0)),
    "dlib": InputSpec(150, mean=(122.782, 117.001, 104.298), std=256.0, range=255.0, crop=(7.0, 22.0, 105.0, 120.0)),
}
"""Input specifications by the name of the code base that a network comes from."""
