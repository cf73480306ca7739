"""Networks of the libraries that people take them from, tiny and with random weights; and what is expected of them.

Those need the extra ``networks``; ``OWN`` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from codebases import Backbone, trained
from codebases_nets import DIM, Swin
from torch import Tensor, nn

from facexai import FaceModel, InputSpec

TINY = {"img_size": 112, "embed_dim": 48, "depth": 3, "num_heads": 4}
HF = {
    "image_size": 112,
    "patch_size": 16,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "mlp_ratio": 2,
}


def lively(net: nn.Module) -> nn.Module:
    """Weights of such a size that images differ at the end, as a trained network's do; also adapters' second halves."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for name, parameter in net.named_parameters():
        if any(word in name for word in ("token", "pos_embed", "position", "class_embedding")):
            nn.init.normal_(parameter, std=0.3)
        if name.endswith(("gamma", "gamma_1", "lambda1")):  # scales of layers, which start at almost nothing
            nn.init.ones_(parameter)
    return net.eval()


@dataclass(frozen=True)
class Network:
    """One network, and what is expected of it.

    Attributes:
        make: builds it.
        layer: what ``layer="auto"`` takes.
        options: of FaceModel.
        size: of its input.
        refused: {method: pattern of the sentence that refuses it}; all other methods work.
        warned: pattern of the warning that ``layer="auto"`` gives; None: it gives none.
        page: the page of ``docs/networks`` that shows it.
    """

    make: Callable[[], nn.Module]
    layer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    size: int = 112
    refused: Mapping[str, str] = field(default_factory=dict)
    warned: str | None = None
    page: str | None = None

    def model(self) -> FaceModel:
        return FaceModel(lively(self.make()), InputSpec(self.size, mean=0.5, std=0.5), **self.options)


def no_cam(why: str) -> dict[str, str]:
    """The methods that need an affine head are refused, and say why."""
    return dict.fromkeys(("CAM", "PairCAM"), f"does not fold: {why}")


class TopoFR(Backbone):
    """The shape of TopoFR in its training phase: class logits beside the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = nn.Linear(DIM, 100)

    def forward(self, x: Tensor) -> Any:
        embedding = super().forward(x)
        return self.classes(embedding), embedding


class SwinFace(Swin):
    """The shape of SwinFace: recognition and attributes from one backbone, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.age, self.expression = nn.Linear(16, 1), nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Any:
        embedding = super().forward(x)
        pooled = embedding[:, :16]
        return {"Age": self.age(pooled), "Expression": self.expression(pooled), "Recognition": embedding}


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        net: nn.Module = timm.create_model(name, num_classes=16, **options)
        return net

    return make


def hugging_face(kind: str, common: Mapping[str, Any] = HF, **changed: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        config = kind.replace("ModelWithProjection", "Config").replace("Model", "Config")
        net: nn.Module = getattr(transformers, kind)(getattr(transformers, config)(**{**common, **changed}))
        return net

    return make


def open_clip(*, batch_first: bool = True) -> nn.Module:
    """Its vision tower; until ``batch_first`` came, tokens were the first axis and images the second."""
    from open_clip.transformer import VisionTransformer

    net = VisionTransformer(image_size=112, patch_size=16, width=48, layers=3, heads=4, mlp_ratio=2.0, output_dim=16)
    net.transformer.batch_first = batch_first
    for block in net.transformer.resblocks:
        block.attn.batch_first = batch_first
    return net


def adapted() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(timm("vit_small_patch16_dinov3", **TINY)(), LoraConfig(target_modules=["qkv"], r=2))


_TOKEN = "the input of '.*' is a single token of"
_OTHER = "the input of '.*' is neither the flattened nor the averaged map of a layer"
_NORM_LAST = r"the network's output is not the output of its last module '.*' \(LayerNorm\)"
_POOLER = {"take": "pooler_output"}

NETWORKS: dict[str, Network] = {
    "timm ViT": Network(timm("vit_tiny_patch16_224", **TINY), "blocks.1", refused=no_cam(_TOKEN), page="timm"),
    "timm ViT, q and k norms": Network(
        timm("vit_tiny_patch16_224", **TINY, qk_norm=True), "blocks.1", refused=no_cam(_TOKEN)
    ),
    "timm DINOv2 with registers": Network(
        timm("vit_small_patch14_reg4_dinov2", **TINY | {"embed_dim": 64}),
        "blocks.1",
        refused=no_cam(_TOKEN),
        page="clip_and_dino",
    ),
    "timm DINOv3": Network(
        timm("vit_small_patch16_dinov3", **TINY), "norm", refused=no_cam(_OTHER), page="clip_and_dino"
    ),
    "timm ConvNeXt": Network(
        timm("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 12, 16, 20)),
        "stages.2.downsample.0",
        refused=no_cam(_OTHER),
        page="timm",
    ),
    "timm Swin": Network(
        timm("swin_tiny_patch4_window7_224", img_size=112, embed_dim=16, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 2)),
        "layers.1",
        page="timm",
    ),
    "timm Hiera": Network(
        timm("hiera_tiny_224", img_size=224, embed_dim=16, stages=(1, 1, 2, 1)),
        "patch_embed",
        size=224,
        refused=no_cam(_OTHER),
        warned="'unroll' could not be read as a map: its tokens are in another order",
    ),
    "HF ViT": Network(hugging_face("ViTModel"), "layers.1", _POOLER, refused=no_cam(r"'pooler.activation' \(Tanh\)")),
    "HF Dinov2": Network(
        hugging_face("Dinov2Model"), "encoder.layer.1", _POOLER, refused=no_cam(_NORM_LAST), page="clip_and_dino"
    ),
    "HF Dinov2 with registers": Network(
        hugging_face("Dinov2WithRegistersModel"),
        "encoder.layer.1",
        _POOLER,
        refused=no_cam(_NORM_LAST),
        page="hugging_face",
    ),
    "HF DINOv3": Network(
        hugging_face("DINOv3ViTModel", num_register_tokens=4), "model.layer.1", _POOLER, refused=no_cam(_NORM_LAST)
    ),
    "HF CLIP": Network(
        hugging_face("CLIPVisionModelWithProjection", projection_dim=16),
        "vision_model.encoder.layers.1",
        {"take": "image_embeds"},
        refused=no_cam(_OTHER),
        page="clip_and_dino",
    ),
    "HF Swin": Network(
        hugging_face(
            "SwinModel",
            {"image_size": 112},
            patch_size=4,
            embed_dim=16,
            depths=(1, 1, 2, 1),
            num_heads=(1, 2, 2, 2),
            window_size=4,
        ),
        "encoder.layers.0.downsample",
        _POOLER,
        warned="the map of 'layernorm' has 4x4 cells only",
    ),
    "open_clip": Network(open_clip, "transformer.resblocks.1", refused=no_cam(_NORM_LAST), page="clip_and_dino"),
    "open_clip, tokens first": Network(
        lambda: open_clip(batch_first=False), "transformer.resblocks.1", refused=no_cam(_NORM_LAST)
    ),
    "PEFT LoRA around timm DINOv3": Network(adapted, "base_model.model.norm", refused=no_cam(_OTHER), page="peft"),
}
OWN: dict[str, Network] = {
    "shape of TopoFR": Network(lambda: trained(TopoFR()), "body.3", {"take": 1}),
    "shape of SwinFace": Network(lambda: trained(SwinFace()), "features.4", {"take": "Recognition"}),
}
