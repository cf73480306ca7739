"""The structures of public face-recognition code bases: their topology, names and habits, random weights, few channels.

Every network is our own code. ``CODE_BASES`` says what can be explained of it, and in which words the rest is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from codebases_nets import (
    DIM,
    GDC,
    GNAP,
    KPRPE,
    EdgeFace,
    Flatten,
    InceptionResnetV1,
    MobileFaceNet,
    Swin,
    TransFace,
    ViT,
    conv,
)
from nets import shaken
from torch import Tensor, nn

from facexai import FaceModel, InputSpec
from facexai.models import WhiteBox


class IBasicBlock(nn.Module):
    """insightface's residual block."""

    def __init__(self, inside: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1, self.bn2 = nn.BatchNorm2d(inside), conv(inside, planes), nn.BatchNorm2d(planes)
        self.prelu, self.conv2, self.bn3 = nn.PReLU(planes), conv(planes, planes, 3, stride), nn.BatchNorm2d(planes)
        down = nn.Sequential(conv(inside, planes, 1, stride), nn.BatchNorm2d(planes))
        self.downsample = down if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        out += x if self.downsample is None else self.downsample(x)  # in place, behind the last norm
        return out


class IResNet(nn.Module):
    """insightface's: autocast in forward, dropout in place, a last norm whose weight is never trained."""

    def __init__(self, *, fp16: bool = False, dropout: type[nn.Module] = nn.Dropout) -> None:
        super().__init__()
        self.fp16 = fp16
        self.conv1, self.bn1, self.prelu = conv(3, 4), nn.BatchNorm2d(4), nn.PReLU(4)
        self.layer1, self.layer2 = nn.Sequential(IBasicBlock(4, 4, 2)), nn.Sequential(IBasicBlock(4, 6, 2))
        self.layer3 = nn.Sequential(IBasicBlock(6, 8, 2), IBasicBlock(8, 8, 1))
        self.layer4 = nn.Sequential(IBasicBlock(8, 10, 2))
        self.bn2, self.dropout = nn.BatchNorm2d(10), dropout(0.4, inplace=True)
        self.fc, self.features = nn.Linear(10 * 49, DIM), nn.BatchNorm1d(DIM)
        self.features.weight.requires_grad = False

    def maps(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        return self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))

    def forward(self, x: Tensor) -> Tensor:
        with torch.cuda.amp.autocast(self.fp16):
            x = self.dropout(torch.flatten(self.maps(x), 1))
        return self.features(self.fc(x.float() if self.fp16 else x))


class MagFace(IResNet):
    """Dropout of whole channels before ``.view``; no autocast."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.maps(x))
        return self.features(self.fc(x.view(x.size(0), -1)))


class Builder(nn.Module):
    """MagFace's: the network inside is called as the last norm inside is."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class SEModule(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_pool, self.relu, self.sigmoid = nn.AdaptiveAvgPool2d(1), nn.ReLU(inplace=True), nn.Sigmoid()
        self.fc1, self.fc2 = conv(channels, 2, 1), conv(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.fc2(self.relu(self.fc1(self.avg_pool(x)))))


class BasicBlockIR(nn.Module):
    """The block that AdaFace, CurricularFace and CVLface share."""

    def __init__(self, inside: int, depth: int, stride: int, se: bool) -> None:
        super().__init__()
        down = nn.Sequential(conv(inside, depth, 1, stride), nn.BatchNorm2d(depth))
        self.shortcut_layer = nn.MaxPool2d(1, stride) if inside == depth else down
        first = (nn.BatchNorm2d(inside), conv(inside, depth), nn.BatchNorm2d(depth), nn.PReLU(depth))
        self.res_layer = nn.Sequential(*first, conv(depth, depth, 3, stride), nn.BatchNorm2d(depth))
        if se:
            self.res_layer.add_module("se_block", SEModule(depth))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut_layer(x)
        return self.res_layer(x) + shortcut


class Backbone(nn.Module):
    """CVLface's IR; AdaFace and CurricularFace return more than the embedding."""

    def __init__(self, *, se: bool = False) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.PReLU(4))
        plan = ((4, 4, 2), (4, 6, 2), (6, 8, 2), (8, 8, 1), (8, 10, 2))
        self.body = nn.Sequential(*(BasicBlockIR(*shape, se) for shape in plan))
        last = (nn.Linear(10 * 49, DIM), nn.BatchNorm1d(DIM, affine=False))
        self.output_layer = nn.Sequential(nn.BatchNorm2d(10), nn.Dropout(0.4), Flatten(), *last)

    def maps(self, x: Tensor) -> Tensor:
        x = self.input_layer(x)
        for block in self.body:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Any:
        return self.output_layer(self.maps(x))


class AdaFace(Backbone):
    """Returns the unit feature and its former length."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = super().forward(x)
        norm = torch.norm(feature, 2, 1, True)
        return torch.div(feature, norm), norm


class CurricularFace(Backbone):
    """Returns the embedding and the flattened map."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.maps(x)
        return self.output_layer(x), x.view(x.shape[0], -1)


class CVLface(nn.Module):
    """The wrapper that every CVLface network comes in; it may turn the channels round itself."""

    def __init__(self, net: nn.Module, *, input_color_flip: bool = False) -> None:
        super().__init__()
        self.net, self.input_color_flip = net, input_color_flip

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.net(x.flip(1) if self.input_color_flip else x, *args, **kwargs)


def trained(net: nn.Module, size: tuple[int, int] = (112, 112), **more: Tensor) -> nn.Module:
    """Batch norms with random weights, and with the statistics of what they see, so that images differ at the end."""
    norms = [m for m in shaken(net).train().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    photos = torch.rand(8, 3, *size)
    photos[4:] = F.interpolate(torch.rand(4, 3, 7, 7), size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of autocast without a GPU
        for norm in norms:
            norm.momentum = 1.0
        net(2 * photos - 1, **more)
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


class Session:
    """What an ONNX session is to its users: one image at a time here, float32 in, a list of arrays out."""

    def __init__(self, net: nn.Module) -> None:
        self.net = trained(net)

    def run(self, outputs: list[str] | None, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        (x,) = feed.values()
        assert (list(feed), x.dtype, x.shape) == (["input.1"], np.float32, (1, 3, 112, 112))
        with torch.no_grad():
            return [self.net(torch.from_numpy(x)).numpy()]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="input.1")]


class Projection:
    """What a fitted scikit-learn object is to its users: rows in, rows out."""

    def __init__(self) -> None:
        self.components = np.random.default_rng(0).normal(size=(3 * 16 * 16, DIM))

    def transform(self, rows: np.ndarray) -> np.ndarray:
        if rows.ndim != 2:
            raise ValueError(f"Found array with dim {rows.ndim}. Projection expected <= 2.")
        return (rows - 0.5) @ self.components


def quantised() -> nn.Module:
    with warnings.catch_warnings():  # torch deprecates its own quantisation, in several words
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(trained(IResNet()), {nn.Linear}, dtype=torch.qint8)


def scripted() -> nn.Module:
    with warnings.catch_warnings():  # torch deprecates TorchScript
        warnings.simplefilter("ignore")
        return torch.jit.trace(trained(IResNet()), torch.rand(2, 3, 112, 112))


def session() -> Callable[[np.ndarray], Any]:
    it = Session(IResNet())
    return lambda x: it.run(None, {"input.1": x})


def projection() -> Callable[[np.ndarray], Any]:
    it = Projection()
    return lambda x: it.transform(x.reshape(len(x), -1))


def gallery(model: FaceModel) -> WhiteBox:
    """Six people of one random photo each, as close to each other as their photos are."""
    photos = torch.rand(6, 3, *model.spec.height_width, generator=torch.Generator().manual_seed(7))
    return model.gallery({f"p{i}": photo[None] for i, photo in enumerate(photos)})


def margin_head(model: FaceModel) -> WhiteBox:
    """The class weights (D, C) that a margin loss was trained with; its margin is not used."""
    return model.gallery(nn.Parameter(torch.randn(DIM, 6, generator=torch.Generator().manual_seed(8))))


def itself(model: FaceModel) -> WhiteBox:
    return model


@dataclass(frozen=True)
class Case:
    """One code base, and what can be asked of it.

    Attributes:
        make: builds the network, or a function of NumPy arrays.
        spec: the preset, or the specification, that its users need.
        options: of FaceModel, or of ``FaceModel.from_callable``.
        takes: what is taken of the output, also when nobody says it.
        folds: the layer from which the head folds; None: it does not.
        people: gives the classifier for the model.
        refused: {method: pattern of the sentence that refuses it}; all other methods work.
        bad: what the doctor finds bad.
        casts: whether the network calls ``.float()`` inside, so that it has no double precision.
        page: the page of ``docs/code_bases`` that tells its users what to write, and which block of code it is there.
    """

    make: Callable[[], Any]
    spec: str | InputSpec = "insightface"
    options: Mapping[str, Any] = field(default_factory=dict)
    takes: int | None = None
    folds: str | None = None
    people: Callable[[FaceModel], WhiteBox] = gallery
    refused: Mapping[str, str] = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    casts: bool = False
    page: tuple[str, int] = ("insightface", 0)

    def model(self, **changed: Any) -> FaceModel:
        """The network, made now, as its users wrap it."""
        net, options = self.make(), {**self.options, **changed}
        if isinstance(net, nn.Module):
            return FaceModel(net, self.spec, **options)
        return FaceModel.from_callable(net, self.spec, **options)


METHODS = ("CAM", "HiResCAM", "GradCAM", "ScoreCAM", "SDD", "CorrRISE", "deletion")
_INSIDE = METHODS[:5]  # those that look inside


_GATED = {"CAM": r"does not fold: the input of 'feature.0' .*; before it runs 'senet.3' \(Sigmoid\)"}
_POOLED = {"CAM": r"does not fold: the input of 'head.2' .*; before it runs 'head.1' \(LayerNorm2d\)"}
_QUANTISED = {
    "CAM": "does not fold: the input of 'features' is neither the flattened nor the averaged map",
    **dict.fromkeys(("HiResCAM", "GradCAM"), "no gradient from the score reaches layer .*quantised weights"),
}
_SCRIPTED = dict.fromkeys(_INSIDE, "a ScriptModule can be asked, not looked into")
_FUNCTION = dict.fromkeys(_INSIDE, "is a function: it can be asked, not looked into")
POINTS = torch.tensor([[[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]]])

CODE_BASES: dict[str, Case] = {
    "insightface IResNet": Case(lambda: trained(IResNet()), folds="layer4"),
    "insightface IResNet, fp16": Case(lambda: trained(IResNet(fp16=True)), folds="layer4", casts=True),
    "insightface ViT": Case(lambda: trained(ViT()), folds="norm", casts=True, page=("insightface", 1)),
    "insightface ViT, batch norms": Case(
        lambda: trained(ViT(norm_layer="bn")), folds="blocks.1", casts=True, page=("insightface", 1)
    ),
    "AdaFace": Case(lambda: trained(AdaFace()), "adaface", {"take": 0}, 0, "body.4", page=("adaface", 0)),
    "CurricularFace": Case(
        lambda: trained(CurricularFace()), "curricularface", {"take": 0}, 0, "body.4", page=("curricularface", 0)
    ),
    "MagFace": Case(
        lambda: trained(Builder(MagFace(dropout=nn.Dropout2d))), "magface", folds="features.layer4", page=("magface", 0)
    ),
    "facenet-pytorch": Case(
        lambda: trained(InceptionResnetV1(), (160, 160)), "facenet-pytorch", folds="block8", page=("facenet_pytorch", 0)
    ),
    "facenet-pytorch, classify": Case(
        lambda: trained(InceptionResnetV1(classify=True), (160, 160)),
        "facenet-pytorch",
        {"output": "logits"},
        folds="block8",
        people=itself,
        page=("facenet_pytorch", 1),
    ),
    "MobileFaceNet": Case(
        lambda: trained(MobileFaceNet(GDC(12, (7, 6))), (112, 96)),
        "mobilefacenet",
        folds="conv_6_sep",
        page=("mobilefacenet", 0),
    ),
    "MobileFaceNet, GNAP": Case(
        lambda: trained(MobileFaceNet(GNAP(12))), folds="output_layer.pool", bad=("batch",), page=("mobilefacenet", 0)
    ),
    "CVLface IR": Case(
        lambda: trained(CVLface(Backbone(se=True), input_color_flip=True)),
        "cvlface",
        folds="net.body.4",
        page=("cvlface", 0),
    ),
    "CVLface ViT": Case(lambda: trained(CVLface(ViT(8))), "cvlface", folds="net.norm", casts=True, page=("cvlface", 0)),
    "CVLface Swin": Case(lambda: trained(CVLface(Swin())), "cvlface", folds="net.norm", page=("cvlface", 0)),
    "CVLface KP-RPE": Case(
        lambda: trained(CVLface(KPRPE()), keypoints=POINTS.expand(8, -1, -1)),
        "cvlface",
        {"forward_kwargs": {"keypoints": POINTS}},
        folds="net.norm",
        casts=True,
        page=("cvlface", 1),
    ),
    "TransFace": Case(
        lambda: trained(TransFace()), options={"take": 0}, takes=0, refused=_GATED, casts=True, page=("transface", 0)
    ),
    "EdgeFace": Case(lambda: trained(EdgeFace()), "edgeface", refused=_POOLED, page=("edgeface", 0)),
    "margin head": Case(lambda: trained(IResNet()), folds="layer4", people=margin_head, page=("margin_head", 0)),
    "DataParallel": Case(lambda: nn.DataParallel(trained(IResNet())), folds="module.layer4", page=("wrappers", 0)),
    "quantised": Case(quantised, refused=_QUANTISED, bad=("batch", "gradient"), page=("quantised", 0)),
    "ScriptModule": Case(scripted, refused=_SCRIPTED, page=("torchscript", 0)),
    "ONNX session": Case(session, options={"take": 0, "batch_size": 1}, takes=0, refused=_FUNCTION, page=("onnx", 0)),
    "scikit-learn": Case(projection, InputSpec(16), {"space": "rgb01"}, refused=_FUNCTION, page=("scikit_learn", 0)),
}
"""What is known of each code base; ``tests/e2e/test_codebases.py`` holds it to that."""
