"""Reading and writing photos, with limits, and changing their size."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from facexai._errors import truncate
from facexai.images._pixels import Refused, rgb
from facexai.input_spec import check_pixels
from facexai.io import write_whole

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that another program would have to draw
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_MAX_PIXELS = 50_000_000
_MAX_BYTES = 200_000_000


def photo_files(folder: str | Path) -> list[Path]:
    """Returns the photos directly in a folder (jpg, jpeg, png, webp, bmp), sorted by name; hidden files are none.

    Raises:
        FileNotFoundError: no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in _ENDINGS and path.is_file())


def people_folders(folder: Path) -> dict[str, list[Path]]:
    """Returns {person: photos} of a folder ``NAME/*.jpg``, sorted by name, hidden folders left out.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with a sub-folder of photos per person")
    people = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {person.name: photo_files(person) for person in people}


def load(path: str | Path | Sequence[str | Path], *, max_pixels: int = _MAX_PIXELS) -> Tensor:
    """Returns photos as RGB in [0, 1], turned the way the camera was held.

    Args:
        path: one file, or several of the same size: JPEG, PNG, WebP, BMP, GIF, TIFF or PPM by their content.
        max_pixels: refuse larger pictures before decoding them.

    Returns:
        (N, 3, H, W) float32. Integers are divided by the largest number of their depth: grey of up to 16 bits exactly,
        colours of 16 bits after their lower eight were cut off. Floats (TIFF, PFM) are taken as they are. Transparency
        is laid over black, also one transparent grey or colour. Where a TIFF says that 0 is white, it is inverted.
        Colour profiles are not applied.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a readable picture, truncated, too large, or sizes that differ. Also a picture that does not say
            what black and white are (integers of 32 bits or with a sign, floats outside [0, 1], CMYK of JPEG without
            Adobe's marker), and what Pillow would misread; the message says what the file holds.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(torch.ones(1, 3, 4, 6), f"{folder}/white.png")
    ...     load(f"{folder}/white.png").shape
    torch.Size([1, 3, 4, 6])
    """
    if isinstance(path, str | Path):
        return _load_one(Path(path), max_pixels)[None]
    if len(path) == 0:
        raise ValueError("expected at least one path")
    photos = [_load_one(Path(p), max_pixels) for p in path]
    if len({photo.shape for photo in photos}) > 1:
        sizes = sorted({f"{photo.shape[1]}x{photo.shape[2]}" for photo in photos})
        raise ValueError(
            f"photos of different sizes: {', '.join(sizes)}; load them one by one and align or resize them"
        )
    return torch.stack(photos)


def _load_one(path: Path, max_pixels: int) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}" if not path.is_dir() else f"{path} is a folder, expected a photo")
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, more than the {_MAX_BYTES} that are read")
    return decode(path, str(path), max_pixels)


def decode(source: Path | IO[bytes], name: str, max_pixels: int = _MAX_PIXELS) -> Tensor:
    """Decodes one photo (3, H, W) from a file or from its bytes, with the limits and errors of :func:`load`.

    Raises:
        ValueError: not a readable picture, truncated or too large; the message begins with the name.
    """
    if isinstance(source, Path):  # Pillow maps a path into memory, and then misreads TIFFs that have to be turned
        with source.open("rb") as file:
            return decode(file, name, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the check below is stricter
            with Image.open(source, formats=_FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    raise Refused(
                        f"{name}: {picture.width}x{picture.height} is more than {max_pixels} pixels; "
                        "make it smaller, or raise max_pixels if you trust the file"
                    )
                return rgb(picture, name)
    except UnidentifiedImageError as error:
        kinds = f"{', '.join(_FORMATS)}, of 8 or 16 bits a channel"
        raise ValueError(f"{name} is not a picture that can be read; expected one of {kinds}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: {error}") from error
    except (Refused, MemoryError):
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of the disk or the machine; places before the start are damage
            raise
        raise ValueError(f"{name} is damaged or truncated: {truncate(error)}") from error
    except Exception as error:  # damaged files and EXIF data fail in many ways inside Pillow
        raise ValueError(f"{name} is damaged or truncated: {truncate(error)}") from error


def save(image: Tensor, path: str | Path) -> None:
    """Writes one image, (3, H, W) or (1, 3, H, W) RGB in [0, 1], by the ending of the path; all of it or nothing.

    Raises:
        TypeError, ValueError: more than one image, values outside [0, 1], or an unknown ending.
        OSError: the disk is full or the folder is missing.
    """
    path = Path(path)
    image = image[0] if image.ndim == 4 and len(image) == 1 else image
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected one image (3, H, W), got shape {tuple(image.shape)}")
    check_pixels(image)
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(f"expected a path that ends in one of {', '.join(_ENDINGS)}, got {path}")
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    kind = Image.registered_extensions()[path.suffix.lower()]
    write_whole(path, lambda file: picture.save(file, kind))


def resize(images: Tensor, size: tuple[int, int] | int) -> Tensor:
    """Returns images at another size: bilinear with antialiasing, kept within [0, 1].

    Args:
        images: (N, 3, H, W) in [0, 1].
        size: (H, W) in pixels, or one number for a square.

    Returns:
        (N, 3, H, W) at the new size.

    Raises:
        TypeError, ValueError: wrong shape, values outside [0, 1], or a size below one pixel.

    >>> resize(torch.ones(1, 3, 10, 10), 4).shape
    torch.Size([1, 3, 4, 4])
    """
    size = (size, size) if isinstance(size, int) else size
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape) < 1:
        raise ValueError(f"expected images (N, 3, H, W), got shape {tuple(images.shape)}")
    check_pixels(images)
    if min(size) < 1:
        raise ValueError(f"expected a size of at least one pixel, got {size}")
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
