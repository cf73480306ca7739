"""Turning and scaling a face so that eyes, nose and mouth lie where face networks expect them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facexai._html import picture
from facexai.images.files import resize
from facexai.images.mtcnn import Face, detect
from facexai.input_spec import InputSpec, check_pixels

Array = NDArray[np.float64]
AlignMode = Literal["never", "auto", "always"]
FaceChoice = Literal["only", "largest"] | int

TEMPLATE: Array = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""ArcFace's five landmarks at 112x112 (x, y): left eye, right eye, nose, left and right mouth
corner, as they appear."""


def similarity(source: Array, target: Array) -> Array:
    """Returns the 2x3 matrix of the rotation, scale and shift that brings points closest to others in least squares.

    Args:
        source: (n, 2) points, n >= 2.
        target: (n, 2) points.

    Returns:
        (2, 3), ``target ~ matrix[:, :2] @ source + matrix[:, 2]``; never a mirror image.

    Raises:
        ValueError: shapes differ, or all source points coincide.

    Source: Umeyama 1991, eq. 40 to 42.

    >>> similarity(TEMPLATE, 2 * TEMPLATE + 1).round(6)
    array([[ 2., -0.,  1.],
           [ 0.,  2.,  1.]])
    """
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2 or len(source) < 2:
        raise ValueError(f"expected two sets of points (n, 2), n >= 2, got {source.shape} and {target.shape}")
    centre, goal = source.mean(0), target.mean(0)
    moved, wanted = source - centre, target - goal
    spread = (moved**2).sum()
    if not spread > 1e-12:
        raise ValueError("the points to align coincide")
    # In the plane the best rotation and scale are one complex number: <moved, wanted> / |moved|^2.
    cosine = (moved * wanted).sum() / spread
    sine = (moved[:, 0] * wanted[:, 1] - moved[:, 1] * wanted[:, 0]).sum() / spread
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ centre])


def template(spec: InputSpec) -> Array:
    """Returns the five landmarks (5, 2) in pixels of a network's own input."""
    left, top, right, bottom = spec.crop
    height, width = spec.height_width
    scale = np.array([width / (right - left), height / (bottom - top)])
    points: Array = (TEMPLATE - (left, top) + 0.5) * scale - 0.5
    return points


@final
@dataclass(frozen=True, eq=False)
class Aligned:
    """An aligned face and the way back.

    Attributes:
        image: (1, 3, H, W) RGB in [0, 1], prepared for the network.
        matrix: (2, 3), from pixels (x, y) of the photo to pixels of ``image``.
        photo_size: (H, W) of the photo.
        face: the detected face, or None where landmarks were given.
    """

    image: Tensor
    matrix: Array
    photo_size: tuple[int, int]
    face: Face | None = None

    def _repr_html_(self) -> str:
        height, width = self.image.shape[-2:]
        return picture(
            self.image[0], f"face, {width}x{height}, of a photo of {self.photo_size[1]}x{self.photo_size[0]}"
        )

    @property
    def inverse(self) -> Array:
        """Returns (2, 3), from pixels of ``image`` to pixels of the photo."""
        turn = np.linalg.inv(self.matrix[:, :2])
        return np.column_stack([turn, -turn @ self.matrix[:, 2]])

    def warp_back(self, maps: Tensor) -> Tensor:
        """Returns maps of the aligned face (N, h, w) drawn in the frame of the photo, NaN where the
        network did not look.

        Returns:
            (N, H, W) at ``photo_size``, in the units of the maps.
        """
        height, width = self.image.shape[-2:]
        if maps.ndim != 3 or tuple(maps.shape[-2:]) != (height, width):
            raise ValueError(f"expected maps (N, {height}, {width}) of the aligned face, got {tuple(maps.shape)}")
        grid, inside = _grid(self.matrix, self.photo_size, (height, width))
        drawn = F.grid_sample(
            maps[None].float().cpu(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )[0]
        return torch.where(inside, drawn, torch.full_like(drawn, math.nan))


def _grid(matrix: Array, out: tuple[int, int], source: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns where each pixel of an ``out``-sized image lies in a ``source``-sized one (for
    grid_sample), and if inside.
    """
    y, x = np.mgrid[: out[0], : out[1]].astype(np.float64)
    at_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
    at_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    inside = (at_x >= -0.5) & (at_x <= source[1] - 0.5) & (at_y >= -0.5) & (at_y <= source[0] - 0.5)
    grid = np.stack([(2 * at_x + 1) / source[1] - 1, (2 * at_y + 1) / source[0] - 1], -1)
    return torch.from_numpy(grid[None].astype(np.float32)), torch.from_numpy(inside)


def align(
    photo: Tensor,
    spec: InputSpec | str = "arcface",
    *,
    landmarks: Array | None = None,
    face: FaceChoice = "only",
) -> Aligned:
    """Detects the face in a photo and aligns it to the network's template.

    Args:
        photo: (3, H, W) or (1, 3, H, W) RGB in [0, 1], any size.
        spec: the input that the network expects: an InputSpec or the name of a preset.
        landmarks: (5, 2) points (x, y) in the photo, in the order of :data:`TEMPLATE`; None: detect them
            (extra ``align``).
        face: which one to take when there are several: ``"only"`` refuses several, ``"largest"``, or an index
            into :func:`detect`.

    Returns:
        :class:`Aligned`; pixels outside the photo are black.

    Raises:
        TypeError, ValueError: wrong shape or values, no face, several faces, landmarks that coincide.
        ImportError: the extra is missing.

    Source: ArcFace's template and a similarity transform (Deng et al. 2019, arXiv:1801.07698); reconstruction of
    its codebases' ``norm_crop`` with antialiasing, which is ours.

    >>> aligned = align(torch.rand(3, 112, 112), "arcface", landmarks=TEMPLATE)
    >>> aligned.image.shape, bool(abs(aligned.matrix - [[1, 0, 0], [0, 1, 0]]).max() < 1e-9)
    (torch.Size([1, 3, 112, 112]), True)
    """
    spec = InputSpec.of(spec)
    check_pixels(photo)
    photo = photo[0] if photo.ndim == 4 and len(photo) == 1 else photo
    if photo.ndim != 3 or photo.shape[0] != 3:
        raise ValueError(f"expected one photo (3, H, W), got shape {tuple(photo.shape)}")
    found = None
    if landmarks is None:
        found = _choose(detect(photo), face)
        landmarks = found.landmarks
    matrix = similarity(np.asarray(landmarks, dtype=np.float64), template(spec))
    size = (int(photo.shape[1]), int(photo.shape[2]))
    return Aligned(_warp(photo, matrix, spec.height_width), matrix, size, found)


def fit_to_spec(photo: Tensor, spec: InputSpec, *, when: AlignMode = "never", face: FaceChoice = "only") -> Aligned:
    """Returns a photo prepared for the network: unchanged if it has the network's size, else aligned, by ``when``.

    Args:
        photo: (1, 3, H, W) RGB in [0, 1].
        spec: the input that the network expects.
        when: ``"never"`` align: another size is an error; ``"always"``; ``"auto"``: photos of another size.
        face: as in :func:`align`.

    Raises:
        ValueError: another size and ``when="never"``; else as :func:`align`.
    """
    if when not in ("never", "auto", "always"):
        raise ValueError(f"expected align 'never', 'auto' or 'always', got {when!r}")
    size = (int(photo.shape[-2]), int(photo.shape[-1]))
    if when == "always" or (when == "auto" and size != spec.height_width):
        return align(photo, spec, face=face)
    if size != spec.height_width:
        raise ValueError(
            f"{size[0]}x{size[1]} pixels, the network takes {spec.height_width[0]}x{spec.height_width[1]}; say "
            "align='auto' to detect and align the face, or facexai.images.resize crops that are aligned already"
        )
    return Aligned(photo, np.eye(2, 3), size)


def _choose(faces: list[Face], which: str | int) -> Face:
    if not faces:
        raise ValueError("no face found; give landmarks=, or a photo in which the face is at least 20 pixels wide")
    if isinstance(which, int) and not isinstance(which, bool) and -len(faces) <= which < len(faces):
        return faces[which]
    if which == "largest" or (which == "only" and len(faces) == 1):
        return max(faces, key=lambda f: f.box[2] * f.box[3])
    boxes = ", ".join(str(tuple(round(b) for b in f.box)) for f in faces)
    if which == "only":
        raise ValueError(f"{len(faces)} faces found, at (x, y, w, h) {boxes}; say face='largest' or an index")
    raise ValueError(f"expected face 'only', 'largest' or an index below {len(faces)}, got {which!r}")


def _warp(photo: Tensor, matrix: Array, size: tuple[int, int]) -> Tensor:
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 0.9:  # shrink with antialiasing first; sampling alone would skip pixels
        height, width = (max(1, round(s * scale)) for s in photo.shape[1:])
        shrink = np.array([width / photo.shape[2], height / photo.shape[1]])
        photo = resize(photo[None], (height, width))[0]
        turn = matrix[:, :2] / shrink
        matrix = np.column_stack([turn, matrix[:, 2] - turn @ (0.5 * shrink - 0.5)])
    turn = np.linalg.inv(matrix[:, :2])
    back = np.column_stack([turn, -turn @ matrix[:, 2]])
    grid, _ = _grid(back, size, (int(photo.shape[1]), int(photo.shape[2])))
    warped = F.grid_sample(
        photo[None].float(), grid.to(photo.device), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.clamp(0, 1)
