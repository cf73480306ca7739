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


class DepthwiseHead(nn.Module):
    """MobileFaceNet's head: a depth-wise convolution as large as the map, then flatten, Linear, BN1d; H112 x W96."""

    def __init__(self, *, size: tuple[int, int] = (7, 6), dim: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 16, stride=16)
        self.prelu = nn.PReLU(12)
        self.gdc = nn.Sequential(nn.Conv2d(12, 12, size, groups=12, bias=False), nn.BatchNorm2d(12))
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(12, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(self.flatten(self.gdc(self.prelu(self.stem(x))))))


class Attention(nn.Module):
    """Self-attention whose weights are a module's output, which looks like a map and is none."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.softmax, self.proj = nn.Linear(dim, 3 * dim), nn.Softmax(-1), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = self.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5)
        return self.proj((weights @ v).transpose(1, 2).reshape(n, tokens, dim))


class TokenBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim, heads), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenNet(nn.Module):
    """A vision transformer for faces: 14x14 tokens, flattened into Linear, BN1d, Linear, BN1d; or pooled; or CLS."""

    def __init__(self, end: str = "flatten", *, dim: int = 8) -> None:
        super().__init__()
        self.end = end
        self.patches = nn.Conv2d(3, dim, 8, stride=8)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList([TokenBlock(dim, 2) for _ in range(2)])
        self.norm = nn.LayerNorm(dim)
        self.pool = nn.AdaptiveAvgPool1d(1)
        size = dim * 196 if end == "flatten" else dim
        self.feature = nn.Sequential(
            nn.Linear(size, 24, bias=False), nn.BatchNorm1d(24), nn.Linear(24, 16, bias=False), nn.BatchNorm1d(16)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.end == "cls":
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        ends = {
            "flatten": lambda: x.reshape(len(x), -1),
            "mean": lambda: x.mean(1),
            "pool": lambda: self.pool(x.transpose(1, 2)).flatten(1),
            "cls": lambda: x[:, 0],
        }
        return self.feature(ends[self.end]())


class HwcNet(nn.Module):
    """Channels last all the way, as Swin is: LayerNorm over channels, flattened or averaged over rows and columns."""

    def __init__(self, *, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.mix, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.head = nn.Linear(8 if mean else 8 * 49, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = self.norm(x + F.gelu(self.mix(x)))
        return self.head(x.mean((1, 2)) if self.mean else x.flatten(1))


def pointwise_head() -> nn.Module:
    """Global average pooling, then 1x1 convolutions instead of linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 16, stride=16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 10, 1), nn.BatchNorm2d(10)
    )
