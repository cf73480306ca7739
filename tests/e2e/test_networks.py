"""Networks of timm, transformers, open_clip and peft, and own ones of their shapes: methods work or say why not."""

from __future__ import annotations

import re
import shutil
import warnings
from contextlib import nullcontext
from functools import cache

import pages
import pytest
import torch
from networks import NETWORKS, OWN, lively

from facexai import (
    CAM,
    FGGB,
    SDD,
    XSSAB,
    CorrRISE,
    EigenCAM,
    FaceXAIWarning,
    FrequencyHeatPlot,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    PairCAM,
    ScoreCAM,
    XGradCAM,
    doctor,
)

ALL = NETWORKS | OWN
LAYERED = (HiResCAM, GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, EigenCAM, ScoreCAM)
OF_CLASSES = {kind.__name__: kind for kind in (CAM, *LAYERED)} | {
    "SDD": lambda people: SDD(HiResCAM(people), rivals=2),
    "CorrRISE": lambda people: CorrRISE(people, "grid", count=32),
    "FrequencyHeatPlot": lambda people: FrequencyHeatPlot(people, mode="hybrid"),
}
OF_PAIRS = {
    "PairCAM": PairCAM,
    "FGGB": lambda model: FGGB(model, threshold=0.3),
    "XSSAB": lambda model: XSSAB(model, threshold=0.3),
}
PAGES = {f"docs/networks/{network.page}.md" for network in NETWORKS.values() if network.page}


@cache
def wrapped(name):
    """The model and its people, made once: explaining leaves it as it was."""
    torch.manual_seed(0)
    model = ALL[name].model()
    faces = torch.rand(4, 3, *model.spec.height_width, generator=torch.Generator().manual_seed(7))
    return model, model.gallery({f"p{i}": face[None] for i, face in enumerate(faces)})


def explained(name, method):
    """The values of a method, and the layer that it took, if it took one."""
    model, people = wrapped(name)
    images = torch.rand(2, 3, *model.spec.height_width, generator=torch.Generator().manual_seed(3))
    why = OF_PAIRS[method](model)(images[:1], images[1:]) if method in OF_PAIRS else OF_CLASSES[method](people)(images)
    values = why.influence if method == "FrequencyHeatPlot" else why.maps
    return values, why.recipe.get("layer")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=[] if name in OWN else pytest.mark.slow)
        for name in ALL
        for method in (*OF_CLASSES, *OF_PAIRS)
    ],
)
@pytest.mark.filterwarnings("ignore:a map of pair", "ignore:(CAM|PairCAM) has only 4x4 cells")
def test_every_method_works_with_the_right_layer_or_says_why_not(name, method, request):
    if name in NETWORKS:
        request.getfixturevalue("networks")
    case = ALL[name]
    if method in case.refused:
        with pytest.raises(ValueError, match=case.refused[method]):
            explained(name, method)
        return
    layered = method in {kind.__name__ for kind in LAYERED} | {"SDD"}
    silent = case.warned is None or not layered
    with nullcontext() if silent else pytest.warns(FaceXAIWarning, match=f"'{case.layer}'.*{case.warned}"):
        values, layer = explained(name, method)
    assert bool(torch.isfinite(values).all())
    assert bool(values.any())
    assert not layered or layer == case.layer


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in OWN else pytest.mark.slow) for name in ALL])
def test_the_doctor_names_the_layer_and_what_is_missing(name, request):
    if name in NETWORKS:
        request.getfixturevalue("networks")
    case, (model, _) = ALL[name], wrapped(name)
    finding = doctor(model)["layers"]
    assert finding.found.endswith(f"layer='auto' is {case.layer!r}")
    assert bool(re.search(case.warned, finding.advice)) if case.warned else finding.verdict == "good"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if NETWORKS[name].warned is None])
def test_no_tensor_of_heads_is_offered_and_cells_are_where_the_patch_is(name, networks):
    """At the first layer of tokens one patch moves its own cell most."""
    model, _ = wrapped(name)
    tokens = [n for n, layout in model.structure.layers.items() if layout.order == "tokens"]
    assert not [n for n in model.layers if n.endswith(("q_norm", "k_norm", "attn_drop"))]
    if not tokens:
        return
    layout = model.structure.layers[tokens[0]]
    h, w = layout.grid
    side = model.spec.size[0] // h
    images = torch.rand(1, 3, *model.spec.height_width).repeat(2, 1, 1, 1)
    images[1, :, side : 2 * side, 2 * side : 3 * side] = 0
    maps = EigenCAM(wrapped(name)[1], layer=tokens[0]).observe(images).activations
    apart = (maps[0] - maps[1]).norm(dim=0)
    assert divmod(int(apart.argmax()), w) == (1, 2)


@pytest.mark.slow
def test_a_merged_adapter_is_explained_alike(networks):
    torch.manual_seed(0)
    model = NETWORKS["PEFT LoRA around timm DINOv3"].model()
    images = torch.rand(2, 3, 112, 112)
    people = model.gallery({"a": torch.randn(16), "b": torch.randn(16)})
    cells = HiResCAM(people, layer="base_model.model.blocks.1")(images, "a").cells
    merged = type(model)(model.net.merge_and_unload(), model.spec)
    people = merged.gallery({"a": people.templates[0], "b": people.templates[1]})
    torch.testing.assert_close(HiResCAM(people, layer="blocks.1")(images, "a").cells, cells, rtol=1e-2, atol=1e-4)


# ---- the pages ---------------------------------------------------------------------------------------------------


def timm_page(patch):
    import timm
    from safetensors.torch import save_file

    create = timm.create_model
    sizes = {
        "vit_small_patch16_dinov3": {"depth": 2, "embed_dim": 48, "num_heads": 4},
        "convnext_tiny": {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20)},
    }
    patch.setattr(timm, "create_model", lambda name, **options: lively(create(name, **options, **sizes[name])))
    torch.manual_seed(0)
    save_file(
        timm.create_model("vit_small_patch16_dinov3", img_size=112, num_classes=512).state_dict(),
        "finetuned.safetensors",
    )
    save_file(timm.create_model("convnext_tiny", num_classes=512).state_dict(), "convnext.safetensors")


def hugging_face_page(patch):
    lively(NETWORKS["HF Dinov2 with registers"].make()).save_pretrained("finetuned")


def peft_page(patch):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    lively(NETWORKS["HF Dinov2"].make()).save_pretrained("base")
    net = get_peft_model(
        AutoModel.from_pretrained("base"), LoraConfig(target_modules=["query", "value", "q_proj", "v_proj"])
    )
    lively(net).save_pretrained("adapter")


def clip_and_dino_page(patch):
    import open_clip

    lively(NETWORKS["HF CLIP"].make()).save_pretrained("clip")
    lively(NETWORKS["HF Dinov2"].make()).save_pretrained("dino")
    tower = type("Clip", (torch.nn.Module,), {})()
    tower.visual = lively(NETWORKS["open_clip"].make())
    patch.setattr(open_clip, "create_model", lambda name, pretrained=None, force_image_size=None: tower)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(PAGES))
@pytest.mark.filterwarnings("ignore:.*torch_dtype", "ignore:.*deprecated")
def test_every_page_runs_as_it_is_written(page, networks, enrolled, tmp_path, monkeypatch):
    shutil.copytree(enrolled / "enrolled", tmp_path / "enrolled")
    shutil.copy(enrolled / "who.jpg", tmp_path / "who.jpg")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    globals()[page.split("/")[-1].removesuffix(".md") + "_page"](monkeypatch)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaceXAIWarning)  # what the page says is all that a user needs to say
        for block in pages.blocks(page):
            if block.kind == "python":
                exec(compile(block.text, block.where, "exec"), names)
    assert names["why"].maps.shape[1:] == names["people"].model.spec.height_width
    assert names["why"].cells.any()


def test_the_table_on_the_page_is_the_tested_one():
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.*?) \|", (pages.ROOT / "docs" / "networks.md").read_text(), re.M)
    rows = [row for row in rows if row[0] != "network"]
    assert {name: layer for name, layer, _ in rows} == {name: case.layer for name, case in ALL.items()}
    for name, _, folds in rows:
        assert (folds == "yes") == ("CAM" not in ALL[name].refused), name
