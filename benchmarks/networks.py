"""Networks for ``--network benchmarks/networks.py:FUNCTION``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facexai import FaceModel, zoo


def dlib_resnet29() -> FaceModel:
    """Real weights, pooled head."""
    return zoo.load("dlib-resnet29")


def facenet_casia() -> FaceModel:
    """Real weights, pooled head with a normalisation, unit output."""
    return zoo.load("facenet-casia")


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        plain = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if plain
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class IResNet(nn.Module):
    """The shape of the residual networks that most face code bases train: 112 px, 512x7x7 map, 512 numbers."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        widths, stages = (64, 64, 128, 256, 512), []
        for depth, before, after in zip(depths, widths, widths[1:], strict=False):
            stages.append(nn.Sequential(_Block(before, after, 2), *(_Block(after, after, 1) for _ in range(depth - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2, self.dropout = nn.BatchNorm2d(512), nn.Dropout(0.4)
        self.fc, self.features = nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))


def _random(*depths: int) -> FaceModel:
    """Random weights, flattened head; for speed and completeness only."""
    torch.manual_seed(0)
    net = IResNet(depths).eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return FaceModel(net, "arcface")


def iresnet18() -> FaceModel:
    """24 million random weights, 2.6 G multiplications."""
    return _random(2, 2, 2, 2)


def iresnet50() -> FaceModel:
    """44 million random weights, 6.3 G multiplications: the depth that most face networks have."""
    return _random(3, 4, 14, 3)


def iresnet100() -> FaceModel:
    """65 million random weights, 12 G multiplications."""
    return _random(3, 13, 30, 3)
