"""The two portraits of the demonstration, in the public domain, read from packages that carry them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import final

import torch
from PIL import Image
from torch import Tensor

from facexai import images
from facexai.input_spec import InputSpec
from facexai.io import package_file

_PURPOSE = "the demonstration"


@final
@dataclass(frozen=True)
class Portrait:
    """A portrait's file, byte for byte, and its subject."""

    name: str
    package: str
    file: str
    size: int
    sha256: str
    rights: str

    def load(self) -> Tensor:
        """Returns the photo, (1, 3, H, W)."""
        path = package_file(self.package, self.file, self.size, self.sha256, extra="demo", purpose=_PURPOSE)
        return images.load(path)


COLLINS = Portrait(
    "Eileen Collins",
    "skimage",
    "data/astronaut.png",
    791555,
    "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "NASA, public domain",
)
HOPPER = Portrait(
    "Grace Hopper",
    "matplotlib",
    "mpl-data/sample_data/grace_hopper.jpg",
    61306,
    "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    "US Navy, public domain",
)


def mirrored(image: Tensor) -> Tensor:
    """Returns the mirrored image."""
    return image.flip(-1)


def relit(image: Tensor) -> Tensor:
    """Returns a darker image lit from the left: gamma 1.3 and a factor that falls from 1.15 to 0.7 across the face."""
    light = torch.linspace(1.15, 0.7, image.shape[-1])
    lit: Tensor = torch.pow(image, 1.3) * light
    return lit.clamp(0, 1)


def jpeg(image: Tensor, quality: int = 40) -> Tensor:
    """Returns an image (1, 3, H, W) after JPEG compression."""
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as decoded:
        back = torch.frombuffer(bytearray(decoded.convert("RGB").tobytes()), dtype=torch.uint8)
    return back.view(image.shape[2], image.shape[3], 3).permute(2, 0, 1)[None].float() / 255


CHANGES = {"mirrored": mirrored, "re-lit": relit, "JPEG": jpeg}
"""The changes of probes against the enrolled file."""


def eye_region(spec: InputSpec) -> Tensor:
    """Returns the band around both eyes of an aligned face, (H, W), True inside."""
    left, right = images.template(spec)[:2]
    apart = float(right[0] - left[0])
    height, width = spec.height_width
    y = torch.arange(height)[:, None]
    x = torch.arange(width)[None, :]
    across: Tensor = (x >= float(left[0]) - 0.5 * apart) & (x <= float(right[0]) + 0.5 * apart)
    return across & ((y - float(left[1] + right[1]) / 2).abs() <= 0.38 * apart)


def pasted(host: Tensor, donor: Tensor, region: Tensor) -> Tensor:
    """Returns the donor's pixels inside the region and the host's outside, with a soft seam of 5 pixels inside."""
    inside = region.float()[None, None]
    soft = -torch.nn.functional.max_pool2d(-inside, 5, 1, 2)
    soft = torch.nn.functional.avg_pool2d(soft, 5, 1, 2, count_include_pad=False)
    return host * (1 - soft) + donor * soft
