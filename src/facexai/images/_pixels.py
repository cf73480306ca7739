"""Converts an opened picture to RGB in [0, 1], or says why its pixel format is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

_BITS, _PHOTOMETRIC, _PLANAR, _PALETTE, _FORMAT = 258, 262, 284, 320, 339  # tags of TIFF
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE = 529, 530, 532  # those of YCbCr, and the values that Pillow goes by:
_YCBCR = {_COEFFICIENTS: (0.299, 0.587, 0.114), _SUBSAMPLING: (1, 1), _REFERENCE: (0, 255, 128, 255, 128, 255)}
_MIN_IS_WHITE, _IS_YCBCR, _SIGNED, _SEPARATE = 0, 6, 2, 2
_PLANES = ("1", "L", "P", "I;16", "I;16B", "F", "RGB", "CMYK")  # of which Pillow joins separate planes correctly
_LEVEL = {"L;2": 85, "L;4": 17}  # one step of 2 and 4 bits in 8 bits
_ADVICE = "save it as a PNG, grey or RGB, of 8 or 16 bits"


class Refused(ValueError):
    """A readable picture that is refused."""


def rgb(picture: ImageFile.ImageFile, name: str) -> Tensor:
    """Returns an opened picture, turned upright, as (3, H, W) float32 RGB in [0, 1], transparency over black.

    Grey of 12 and 16 bits and floats keep their precision. TIFFs in which 0 is white are inverted.

    Raises:
        Refused: the values have another meaning than 0 for black and the largest number, or 1.0, for white, or Pillow
            would misread them; the message begins with the name.
    """
    for reason in _reasons(picture):
        raise Refused(f"{name} holds {reason}; {_ADVICE}")
    tags, layout = _tags(picture), _layout(picture)
    upright = ImageOps.exif_transpose(picture)
    if upright.mode != "F" and not upright.mode.startswith("I"):
        return _from_bytes(upright, layout)
    grey = _floats(upright, name) if upright.mode == "F" else _integers(upright, tags.get(_BITS, (16,))[0])
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:  # Pillow itself inverts up to 8 bits
        grey = 1 - grey
    return torch.from_numpy(grey).expand(3, -1, -1).contiguous()


def _tags(picture: ImageFile.ImageFile) -> Any:
    """Returns the tags of a TIFF, and no tags of another file."""
    return getattr(picture, "tag_v2", {})


def _layout(picture: ImageFile.ImageFile) -> str:
    """Returns Pillow's raw mode of a picture that is not decoded yet, such as ``"L;2"`` or ``"RGB;16B"``."""
    how = picture.tile[0][3] if picture.tile else picture.mode
    return str(how[0] if isinstance(how, tuple) else how)


def _reasons(picture: ImageFile.ImageFile) -> Iterator[str]:
    """Yields what the file holds where its values are not certain, or where Pillow misreads them."""
    if picture.format == "TIFF":
        yield from _tiff_reasons(picture)
    if _layout(picture) == "RGB;16B" and "transparency" in picture.info:
        yield "RGB of 16 bits with a transparent colour (tRNS), which Pillow compares with 8 bits"
    if picture.format in ("JPEG", "MPO") and picture.mode == "CMYK" and "adobe" not in picture.info:
        yield "CMYK without Adobe's marker, so that 0 may be full or no ink"
    if (scale := picture.info.get("scale", 1)) != 1 and picture.mode == "F":
        yield f"floats in units of {scale:g}, and not from 0 for black to 1 for white"


def _tiff_reasons(picture: ImageFile.ImageFile) -> Iterator[str]:
    tags, mode = _tags(picture), picture.mode
    bits, compressed = tags.get(_BITS, (1,)), picture.info.get("compression") != "raw"
    photometric = tags.get(_PHOTOMETRIC)
    if photometric is None:
        yield "numbers of which it does not say whether 0 is black or white (PhotometricInterpretation)"
    if _SIGNED in tags.get(_FORMAT, (1,)):
        yield f"signed integers of {bits[0]} bits, of which it does not say what black and white are"
    if mode == "I":
        yield f"integers of {bits[0]} bits, of which it does not say what white is"
    if mode == "F" and compressed and tags.prefix == b"MM":
        yield "compressed big-endian floats, whose bytes Pillow turns round"
    misread = mode not in _PLANES or (not compressed and (set(bits) != {8} or photometric == _MIN_IS_WHITE))
    if tags.get(_PLANAR) == _SEPARATE and misread:
        yield f"{len(bits)} separate planes of {bits[0]} bits (PlanarConfiguration 2), which Pillow misreads"
    if photometric == _IS_YCBCR and not compressed and mode != "YCbCr":
        yield "uncompressed YCbCr, which Pillow takes for RGB before its version 13"
    if mode == "YCbCr" and not all(_near(tags.get(tag, _default(tag)), _YCBCR[tag]) for tag in _YCBCR):
        yield "uncompressed YCbCr with subsampling or another range or matrix than JPEG's, which Pillow disregards"
    if mode in ("P", "PA") and 0 < max(tags[_PALETTE]) < 256:
        yield "a palette of 8 bits where TIFF has 16, which Pillow reads as black"


def _default(tag: int) -> tuple[float, ...]:
    """Returns the value that a tag of YCbCr has where the file leaves it out."""
    return (2, 2) if tag == _SUBSAMPLING else _YCBCR[tag]


def _near(values: Any, wanted: tuple[float, ...]) -> bool:
    return len(values) == len(wanted) and np.allclose([float(v) for v in values], wanted, rtol=0, atol=1e-3)


def _floats(picture: Image.Image, name: str) -> NDArray[np.float32]:
    grey = np.array(picture, dtype=np.float32)
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 1):  # NaN too
        raise Refused(
            f"{name} holds floats from {low:g} to {high:g}, expected 0 (black) to 1 (white); divide them by the value "
            f"that stands for white, or {_ADVICE}"
        )
    return grey


def _integers(picture: Image.Image, bits: int) -> NDArray[np.float32]:
    """Returns grey of integers of that depth in [0, 1]; the transparent grey of a PNG is black."""
    values = np.array(picture)
    if "transparency" in picture.info:
        values[values == picture.info["transparency"]] = 0
    grey: NDArray[np.float32] = values.astype(np.float32) / np.float32(2**bits - 1)
    return grey


def _from_bytes(picture: Image.Image, layout: str) -> Tensor:
    """Returns RGB of a picture of at most a byte per channel."""
    if picture.mode == "La":  # multiplied by its transparency already
        picture = picture.getchannel("L")
    if layout in _LEVEL and "transparency" in picture.info:  # Pillow scales the pixels and leaves this
        picture.info["transparency"] *= _LEVEL[layout]
    if layout == "1" and picture.info.get("transparency") == 1:  # so before Pillow 12.1, where a white pixel is 255
        picture.info["transparency"] = 255
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", over.size, (0, 0, 0, 255)), over)
    pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)  # a byte per value for as long as possible
