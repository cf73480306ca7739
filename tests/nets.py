"""Small networks with the structures of real face networks, random weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shaken(net: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights of a trained network, not 0 and 1."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
    return net.eval()


class Block(nn.Module):
    """A residual block with the two in-place habits, ReLU(inplace=True) and ``out += identity``; or without them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inplace = True
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if not self.inplace:
            return F.relu(out + x)
        out += x
        return F.relu_(out)


class FlatNet(nn.Module):
    """The head of most face networks: BN2d, Dropout, flatten, Linear, BN1d; 112 px, 16 px per cell."""

    def __init__(self, channels: int = 16, dim: int = 32, *, affine: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 16, stride=16)
        self.layer3 = Block(channels)
        self.layer4 = Block(channels)
        self.bn2 = nn.BatchNorm2d(channels, affine=affine)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels * 49, dim)
        self.features = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.layer4(self.layer3(self.stem(x))))
        return self.features(self.fc(self.dropout(torch.flatten(x, 1))))


class GapNet(nn.Module):
    """Global average pooling as a module or as a function, then a linear layer."""

    def __init__(self, dim: int = 10, *, functional: bool = False) -> None:
        super().__init__()
        self.functional = functional
        self.conv = nn.Conv2d(3, 8, 8, stride=8)
        self.relu = nn.ReLU(inplace=True)
        self.block = Block(8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.relu(self.conv(x)))
        x = x.mean((2, 3)) if self.functional else self.pool(x).flatten(1)
        return self.fc(x)


class UnitNet(FlatNet):
    """Returns the unit embedding and its former length, as AdaFace does."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        raw = super().forward(x)
        norm = raw.norm(dim=1, keepdim=True)
        return raw / norm, norm


class ChannelsLast(nn.Module):
    """Flattens (h, w, C), as Swin-shaped networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 16, stride=16)
        self.fc = nn.Linear(6 * 49, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))


class NormHead(nn.Module):
    """A head that is not affine: LayerNorm before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 16, stride=16)
        self.norm = nn.LayerNorm(6 * 49)
        self.fc = nn.Linear(6 * 49, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x).flatten(1)))


def two_linears() -> nn.Module:
    """Two linear layers with a normalisation between, still affine."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 16, stride=16),
        nn.Flatten(),
        nn.Linear(4 * 49, 20),
        nn.BatchNorm1d(20),
        nn.Dropout(),
        nn.Linear(20, 8, bias=False),
        nn.BatchNorm1d(8, affine=False),
    )
