"""The networks of ``codebases.py`` that are not plainly residual: small ones, FaceNet, transformers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM = 16  # numbers of an embedding


def conv(inside: int, outside: int, kernel: int | tuple[int, int] = 3, stride: int = 1, **more: Any) -> nn.Conv2d:
    more = {"padding": kernel // 2 if isinstance(kernel, int) else 0, "bias": False, **more}
    return nn.Conv2d(inside, outside, kernel, stride, **more)


class Flatten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.size(0), -1)  # not reshape: it cannot flatten channels-last memory


class Bottleneck(nn.Module):
    """MobileFaceNet's depth-wise block."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        wide = 2 * inside
        self.conv = nn.Sequential(conv(inside, wide, 1), nn.BatchNorm2d(wide), nn.PReLU(wide))
        spread = conv(wide, wide, 3, stride, groups=wide)
        self.conv_dw = nn.Sequential(spread, nn.BatchNorm2d(wide), nn.PReLU(wide))
        self.project = nn.Sequential(conv(wide, outside, 1), nn.BatchNorm2d(outside))
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class GDC(nn.Module):
    """A depth-wise convolution as large as the map."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv_6_dw = nn.Sequential(conv(channels, channels, size, groups=channels), nn.BatchNorm2d(channels))
        self.conv_6_flatten, self.linear = Flatten(), nn.Linear(channels, DIM, bias=False)
        self.bn = nn.BatchNorm1d(DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(self.conv_6_flatten(self.conv_6_dw(x))))


class GNAP(nn.Module):
    """Every cell scaled to the mean length over the cells of the whole batch, then averaged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1, self.pool = nn.BatchNorm2d(channels, affine=False), nn.AdaptiveAvgPool2d((1, 1))
        self.bn2 = nn.BatchNorm1d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(x)
        x_norm = torch.norm(x, 2, 1, True)
        x = x * (torch.mean(x_norm) / x_norm)
        return self.bn2(self.pool(x).view(x.shape[0], -1))


class MobileFaceNet(nn.Module):
    def __init__(self, output_layer: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv(3, 4, 3, 2), nn.BatchNorm2d(4), nn.PReLU(4))
        self.conv2_dw = nn.Sequential(conv(4, 4, groups=4), nn.BatchNorm2d(4), nn.PReLU(4))
        self.conv_23, self.conv_3, self.conv_34 = Bottleneck(4, 4, 2), Bottleneck(4, 4), Bottleneck(4, 8, 2)
        self.conv_4, self.conv_45, self.conv_5 = Bottleneck(8, 8), Bottleneck(8, 8, 2), Bottleneck(8, 8)
        self.conv_6_sep = nn.Sequential(conv(8, 12, 1), nn.BatchNorm2d(12), nn.PReLU(12))
        self.output_layer = output_layer

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_34(self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x)))))
        return self.output_layer(self.conv_6_sep(self.conv_5(self.conv_45(self.conv_4(x)))))


def basic(inside: int, outside: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: Any = 0) -> nn.Module:
    """facenet-pytorch's convolution, norm and ReLU."""
    what = conv(inside, outside, kernel, stride, padding=padding)
    return nn.Sequential(what, nn.BatchNorm2d(outside, eps=0.001), nn.ReLU(inplace=False))


class Branches(nn.Module):
    """Parallel branches, joined; with a scale what they give, scaled, is added to the input."""

    def __init__(self, *branches: nn.Module, inside: int = 0, scale: float = 0.0, relu: bool = True) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.count, self.scale = len(branches), scale
        self.conv2d = nn.Conv2d(4 * len(branches), inside, 1) if scale else None
        self.relu = nn.ReLU(inplace=False) if scale and relu else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.cat([getattr(self, f"branch{i}")(x) for i in range(self.count)], 1)
        out = out if self.conv2d is None else self.conv2d(out) * self.scale + x
        return out if self.relu is None else self.relu(out)


class InceptionResnetV1(nn.Module):
    """facenet-pytorch's: ``classify`` decides whether class logits or unit embeddings come out."""

    def __init__(self, *, classify: bool = False) -> None:
        super().__init__()
        self.classify, tall, wide = classify, ((7, 1), (3, 0)), ((1, 7), (0, 3))
        self.conv2d_1a, self.conv2d_2a, self.conv2d_2b = basic(3, 4, 3, 2), basic(4, 4, 3), basic(4, 4, 3, 1, 1)
        self.maxpool_3a, self.conv2d_3b, self.conv2d_4a = nn.MaxPool2d(3, 2), basic(4, 4), basic(4, 6, 3)
        self.conv2d_4b = basic(6, 8, 3, 2)
        deep = nn.Sequential(basic(8, 4), basic(4, 4, 3, 1, 1), basic(4, 4, 3, 1, 1))
        block35 = (basic(8, 4), nn.Sequential(basic(8, 4), basic(4, 4, 3, 1, 1)), deep)
        self.repeat_1 = nn.Sequential(Branches(*block35, inside=8, scale=0.17))
        self.mixed_6a = Branches(basic(8, 4, 3, 2), nn.Sequential(basic(8, 4), basic(4, 4, 3, 2)), nn.MaxPool2d(3, 2))
        across = nn.Sequential(basic(16, 4), basic(4, 4, wide[0], 1, wide[1]), basic(4, 4, tall[0], 1, tall[1]))
        self.repeat_2 = nn.Sequential(Branches(basic(16, 4), across, inside=16, scale=0.10))
        ways = [nn.Sequential(basic(16, 4), basic(4, 4, 3, 2)) for _ in range(2)]
        self.mixed_7a = Branches(*ways, nn.MaxPool2d(3, 2))
        last = nn.Sequential(basic(24, 4), basic(4, 4, (1, 3), 1, (0, 1)), basic(4, 4, (3, 1), 1, (1, 0)))
        self.block8 = Branches(basic(24, 4), last, inside=24, scale=1.0, relu=False)
        self.avgpool_1a, self.dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.6)
        self.last_linear, self.last_bn = nn.Linear(24, DIM, bias=False), nn.BatchNorm1d(DIM, eps=0.001)
        self.logits = nn.Linear(DIM, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_3b(self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))))
        x = self.mixed_6a(self.repeat_1(self.conv2d_4b(self.conv2d_4a(x))))
        x = self.dropout(self.avgpool_1a(self.block8(self.mixed_7a(self.repeat_2(x)))))
        x = self.last_bn(self.last_linear(x.view(x.shape[0], -1)))
        return self.logits(x) if self.classify else F.normalize(x, p=2, dim=1)


class Attention(nn.Module):
    """insightface's: autocast on and off inside forward, whatever the machine."""

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.attn_drop, self.proj_drop = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        n, tokens, dim = x.shape
        with torch.autocast("cuda"):
            qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        with torch.autocast("cuda", enabled=False):
            q, k, v = qkv[0].float(), qkv[1].float(), qkv[2].float()
            q *= self.scale  # in place, on a view of what the linear layer gave
            attn = q @ k.transpose(-2, -1)
            if bias is not None:
                attn += bias
            x = (self.attn_drop(attn.softmax(-1)) @ v).transpose(1, 2).reshape(n, tokens, dim)
        with torch.autocast("cuda"):
            return self.proj_drop(self.proj(x))


class ViTBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), Attention(dim), nn.LayerNorm(dim)
        self.drop_path = nn.Identity()  # runs twice
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU6(), nn.Dropout(0.0), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), bias))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == (112, 112), f"Input image size {x.shape[-2:]} doesn't match model (112, 112)."
        return self.proj(x).flatten(2).transpose(1, 2)


class VITBatchNorm(nn.Module):
    """A norm whose channels are the tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class ViT(nn.Module):
    """insightface's and CVLface's: no class token; training masks tokens, by a parameter that eval mode never reads."""

    def __init__(self, patch: int = 9, *, norm_layer: str = "ln", dim: int = 12) -> None:
        super().__init__()
        self.tokens, self.dim = (112 // patch) ** 2, dim
        self.patch_embed, self.pos_drop = PatchEmbed(patch, dim), nn.Dropout(0.0)
        self.pos_embed = nn.Parameter(0.5 * torch.randn(1, self.tokens, dim))
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim))
        self.blocks = nn.ModuleList([ViTBlock(dim) for _ in range(2)])
        self.norm = nn.LayerNorm(dim) if norm_layer == "ln" else VITBatchNorm(self.tokens)
        last = (nn.Linear(dim, DIM, bias=False), nn.BatchNorm1d(DIM, eps=2e-5))
        self.feature = nn.Sequential(
            nn.Linear(dim * self.tokens, dim, bias=False), nn.BatchNorm1d(dim, eps=2e-5), *last
        )

    def forward_features(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        x = self.pos_drop(self.patch_embed(x) + self.pos_embed)
        if self.training:
            x = torch.where(torch.rand(x.shape[:2])[:, :, None] < 0.1, self.mask_token, x)
        for func in self.blocks:
            x = func(x, bias)
        return self.norm(x.float()).reshape(len(x), self.tokens * self.dim)

    def forward(self, x: Tensor) -> Any:
        return self.feature(self.forward_features(x))


class TransFace(ViT):
    """A gate for each token, computed from all of them; three outputs."""

    def __init__(self) -> None:
        super().__init__()
        n = self.tokens
        squeeze, excite = nn.Linear(self.dim * n, n, bias=False), nn.Linear(n, n, bias=False)
        self.senet = nn.Sequential(squeeze, nn.ReLU(inplace=True), excite, nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = self.forward_features(x)
        gate = self.senet(flat)
        tokens = gate[:, :, None] * flat.reshape(len(x), self.tokens, self.dim)
        return self.feature(tokens.flatten(1)), gate.softmax(1), tokens.std(2)


class KPRPE(ViT):
    """CVLface's with key points: forward takes a second argument, the places of five of them.

    Attention is biased by where the other token is, in one of four directions, and by how much depends on where the key
    points are, seen from the token.
    """

    def __init__(self, heads: int = 2) -> None:
        super().__init__(8)
        self.heads, self.keypoint_linear = heads, nn.Linear(10, 4 * heads)
        rows, columns = torch.meshgrid(torch.arange(14), torch.arange(14), indexing="ij")
        at = torch.stack([columns, rows], -1).reshape(-1, 2)
        before = (at[:, None] > at[None]).long()
        self.register_buffer("direction", before[..., 0] + 2 * before[..., 1])  # (tokens, tokens)
        self.register_buffer("grid", (at[:, None] + 0.5) / 14)

    def forward(self, x: Tensor, keypoints: Tensor) -> Tensor:
        if len(keypoints) != len(x):
            raise ValueError(f"{len(x)} images, key points of {len(keypoints)}")
        relative = (self.grid - keypoints[:, None]).flatten(2)  # (N, tokens, 10)
        biases = 3 * self.keypoint_linear(relative).unflatten(2, (self.heads, 4)).transpose(1, 2)
        bias = biases.gather(3, self.direction.expand(len(x), self.heads, -1, -1))
        return self.feature(self.forward_features(x, bias))


class ShiftedWindowAttention(nn.Module):
    """Windows of 7x7 cells; the linear layers are called through their weights, so no hook ever sees them."""

    def __init__(self, dim: int, shift: int, heads: int = 2) -> None:
        super().__init__()
        self.shift, self.heads = shift, heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.randn(169, heads))
        at = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None] + 6
        self.register_buffer("relative_position_index", apart[0] * 13 + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        x = x.roll((-self.shift, -self.shift), (1, 2)).unflatten(1, (-1, 7)).unflatten(3, (-1, 7))
        qkv = F.linear(x.transpose(2, 3).reshape(-1, 49, c), self.qkv.weight, self.qkv.bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attn = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        attn = attn + self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        x = F.linear((attn.softmax(-1) @ v).transpose(1, 2).reshape(-1, 49, c), self.proj.weight, self.proj.bias)
        x = x.view(n, h // 7, w // 7, 7, 7, c).transpose(2, 3).reshape(n, h, w, c)
        return x.roll((self.shift, self.shift), (1, 2))


class SwinBlock(nn.Module):
    def __init__(self, dim: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim), ShiftedWindowAttention(dim, shift), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.0), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)))


class Permute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Swin(nn.Module):
    """CVLface's: rows, columns, channels all the way, flattened into the head of its vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), Permute(), nn.LayerNorm(4))
        stages = (SwinBlock(4, 0), PatchMerging(4), SwinBlock(8, 0), SwinBlock(8, 3), PatchMerging(8), SwinBlock(16, 0))
        self.features, self.norm, self.flatten = nn.ModuleList([stem, *stages]), nn.LayerNorm(16), nn.Flatten(1)
        last = (nn.Linear(16, DIM, bias=False), nn.BatchNorm1d(DIM, eps=2e-5))
        self.feature = nn.Sequential(nn.Linear(16 * 49, 16, bias=False), nn.BatchNorm1d(16, eps=2e-5), *last)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.features:
            x = module(x)
        return self.feature(self.flatten(self.norm(x)))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LoRaLin(nn.Module):
    """EdgeFace's linear layer of low rank."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(inside, 4, bias=False), nn.Linear(4, outside)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


class SplitTransposeBlock(nn.Module):
    """EdgeNeXt's: a convolution on half of the channels, then attention of channels to channels over the cells."""

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))
        self.convs, self.norm = nn.Conv2d(dim // 2, dim // 2, 3, 1, 1, groups=dim // 2), nn.LayerNorm(dim)
        self.qkv, self.proj, self.mlp_norm = LoRaLin(dim, 3 * dim), LoRaLin(dim, dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(LoRaLin(dim, 2 * dim), nn.GELU(), LoRaLin(2 * dim, dim))
        self.gamma = nn.Parameter(torch.rand(dim))

    def forward(self, x: Tensor) -> Tensor:
        shortcut, (n, c, h, w) = x, x.shape
        kept, rest = x.chunk(2, dim=1)
        x = torch.cat([kept, self.convs(rest)], 1).reshape(n, c, h * w).permute(0, 2, 1)
        qkv = self.qkv(self.norm(x)).reshape(n, h * w, 3, self.heads, -1).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        attn = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature).softmax(-1)
        x = x + self.proj((attn @ v).permute(0, 3, 1, 2).reshape(n, h * w, c))
        x = self.gamma * self.mlp(self.mlp_norm(x.reshape(n, h, w, c)))
        return shortcut + x.permute(0, 3, 1, 2)


class EdgeFace(nn.Module):
    """The head norms after pooling, so it is not affine; the last map has 3x3 cells."""

    def __init__(self) -> None:
        super().__init__()
        widths = (4, 6, 8, 12)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, 4), LayerNorm2d(4))
        down = [nn.Sequential(LayerNorm2d(a), nn.Conv2d(a, b, 2, 2)) for a, b in pairwise(widths)]
        parts = zip([nn.Identity(), *down], widths, strict=True)
        self.stages = nn.Sequential(*(nn.Sequential(first, SplitTransposeBlock(width)) for first, width in parts))
        pool = (nn.AdaptiveAvgPool2d(1), LayerNorm2d(12), nn.Flatten(1), nn.Dropout(0.0))
        self.head = nn.Sequential(*pool, LoRaLin(12, DIM))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))
