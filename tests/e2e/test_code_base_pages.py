"""The pages for users of other code bases run as they are written, with stand-ins of those code bases."""

from __future__ import annotations

import re
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from codebases import (
    CODE_BASES,
    POINTS,
    AdaFace,
    Backbone,
    Builder,
    CurricularFace,
    CVLface,
    IResNet,
    MagFace,
    Projection,
    Session,
    scripted,
    trained,
)
from codebases_nets import DIM, GDC, KPRPE, EdgeFace, InceptionResnetV1, MobileFaceNet, TransFace, ViT

from facexai import FaceXAIWarning

FOLDER = Path(__file__).parents[2] / "docs" / "code_bases"
PAGES = sorted({case.page[0] for case in CODE_BASES.values()})


def saved(net, path, *, prefix="", place=None, **more):
    """A checkpoint as a code base writes it; gives the weights that are in it."""
    weights = {prefix + name: tensor for name, tensor in net.state_dict().items()} | more
    Path(path).parent.mkdir(exist_ok=True)
    torch.save({"epoch": 3, place: weights} if place else weights, path)
    return net.state_dict()


def insightface():
    saved(trained(IResNet()), "backbone.pth")
    return {"backbones": {"get_model": lambda name, fp16=False: (IResNet if name == "r50" else ViT)()}}, saved(
        trained(ViT()), "vit.pt"
    )


def adaface():
    weights = saved(
        trained(AdaFace()),
        "adaface_ir50_ms1mv2.ckpt",
        prefix="model.",
        place="state_dict",
        **{"head.kernel": torch.randn(DIM, 6)},
    )
    return {"net": {"build_model": lambda name: AdaFace()}}, weights


def curricularface():
    weights = saved(trained(CurricularFace()), "CurricularFace_Backbone.pth")
    return {"backbone": {}, "backbone.model_irse": {"IR_101": lambda size: CurricularFace()}}, weights


def magface():
    net = trained(Builder(MagFace(dropout=torch.nn.Dropout2d)))
    weights = {name.replace("features.", "features.module.", 1): t for name, t in net.state_dict().items()}
    torch.save({"epoch": 25, "arch": "iresnet100", "state_dict": weights}, "magface_epoch_00025.pth")
    named = SimpleNamespace(iresnet100=lambda num_classes: MagFace(dropout=torch.nn.Dropout2d))
    return {"models": {"iresnet": named}}, net.features.state_dict()


def facenet_pytorch():
    def pretrained(*, pretrained, classify=False):
        return trained(InceptionResnetV1(classify=classify), (160, 160))

    return {"facenet_pytorch": {"InceptionResnetV1": pretrained}}, None


def mobilefacenet():
    weights = saved(trained(MobileFaceNet(GDC(12, (7, 6))), (112, 96)), "068.ckpt", place="net_state_dict")
    return {"core": {}, "core.model": {"MobileFacenet": lambda: MobileFaceNet(GDC(12, (7, 6)))}}, weights


def cvlface():
    nets = iter([trained(CVLface(Backbone())), trained(CVLface(KPRPE()), keypoints=POINTS.expand(8, -1, -1))])
    return {"wrapper": {"ModelConfig": dict, "CVLFaceRecognitionModel": lambda config: next(nets)}}, None


def transface():
    weights = saved(trained(TransFace()), "glint360k_model_TransFace_B.pt")
    return {"backbones": {"get_model": lambda name: TransFace()}}, weights


def edgeface():
    weights = saved(trained(EdgeFace()), "checkpoints/edgeface_s_gamma_05.pt")
    return {"backbones": {"get_model": lambda name: EdgeFace()}}, weights


def margin_head():
    weights = saved(
        trained(IResNet()),
        "checkpoint.pt",
        prefix="backbone.",
        place="state_dict",
        **{"head.kernel": torch.randn(DIM, 6)},
    )
    return {"backbones": {"get_model": lambda name, fp16: IResNet()}}, weights


def wrappers():
    weights = saved(trained(IResNet()), "training.pt", prefix="_orig_mod.backbone.", place="model")
    return {"backbones": {"get_model": lambda name, fp16: IResNet()}}, {f"module.{n}": t for n, t in weights.items()}


def quantised():
    saved(trained(IResNet()), "backbone.pth")
    return {"backbones": {"get_model": lambda name, fp16: IResNet()}}, None


def torchscript():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted().save("network.torchscript")
    return {}, None


def onnx():
    return {"onnxruntime": {"InferenceSession": lambda path: Session(IResNet())}}, None


def scikit_learn():
    return {"yours": {"eigenfaces": Projection()}}, None


def run(page, monkeypatch):
    """The names after all blocks of a page, and the weights that its last network must have."""
    modules, weights = globals()[page]()
    for name, content in modules.items():
        stand_in = ModuleType(name)
        stand_in.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(), re.S):
        exec(compile(block, page, "exec"), names)
    return names, weights


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated", "ignore:`torch.jit", "ignore:torch.quantize_per"
)
@pytest.mark.filterwarnings("ignore:.*autograd kernel was not", "ignore:.*torch.cuda.amp.autocast")
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("page", PAGES)
def test_every_page_runs_as_it_is_written(enrolled, tmp_path, monkeypatch, page):
    shutil.copytree(enrolled / "enrolled", tmp_path / "enrolled")
    shutil.copy(enrolled / "who.jpg", tmp_path / "who.jpg")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaceXAIWarning)  # what the page says is all that a user needs to say
        names, weights = run(page, monkeypatch)
    assert names["why"].maps.shape[1:] == names["people"].model.spec.height_width
    assert names["why"].cells.any()
    if weights is not None:
        loaded = names["net"].state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_every_page_is_of_a_code_base_that_is_tested():
    assert [path.stem for path in sorted(FOLDER.glob("*.md"))] == PAGES


@pytest.mark.parametrize("name", CODE_BASES)
def test_the_block_of_a_code_base_says_what_its_case_says(name):
    page, number = CODE_BASES[name].page
    text = (FOLDER / f"{page}.md").read_text()
    block = re.findall(r"```python\n(.*?)```", text, re.S)[number]
    case = CODE_BASES[name]
    assert case.takes is None or f"take={case.takes}" in block
    if isinstance(case.spec, str) and "GNAP" not in name:  # which is square where its page is not
        assert f'"{case.spec}"' in block
    assert all(option in block for option in case.options)
