"""How layers' tensors are read as maps: by values, in one way, or refused with the ways; and which layer auto takes."""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch
from nets import FlatNet, HwcNet, TokenBlock, TokenNet, shaken
from torch import nn

from facexai import (
    CAM,
    SDD,
    EigenCAM,
    FaceModel,
    FaceXAIWarning,
    GradCAM,
    GradCAMPlusPlus,
    HeadDoesNotFold,
    HiResCAM,
    InputSpec,
    LayerCAM,
    PairCAM,
    ScoreCAM,
    XGradCAM,
    baselines,
    doctor,
)
from facexai.models.layout import Layout, layout_of, readings

CAMS = (HiResCAM, GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, EigenCAM, ScoreCAM)


class Extras(nn.Module):
    """A transformer of 7x7 tokens with other tokens at given places, images along one of two axes, q norms beside."""

    def __init__(self, places=(0, 1, 2, 3, 4), *, dim=8, depth=3, batch=0, stem=False, end="first", jumble=False):
        super().__init__()
        self.places, self.batch, self.end = list(places), batch, end
        self.cells = [row for row in range(49 + len(places)) if row not in places]
        wide = nn.Sequential(nn.Conv2d(3, dim, 8, stride=8), nn.GELU(), nn.Conv2d(dim, dim, 2, stride=2))
        self.patches = wide if stem else nn.Conv2d(3, dim, 16, stride=16)
        self.extra = nn.Parameter(torch.randn(1, len(places), dim))
        self.position = nn.Parameter(torch.randn(1, 49, dim))
        self.before = nn.Identity()
        self.q_norm = nn.LayerNorm(dim // 2)
        self.blocks = nn.ModuleList([Turned(dim, batch) for _ in range(depth)])
        self.norm, self.fc = nn.LayerNorm(dim), nn.Linear(dim, 12)
        self.order = torch.randperm(49) if jumble else torch.arange(49)

    def forward(self, x):
        patches = self.patches(x).flatten(2).mT + self.position
        tokens = patches.new_zeros(len(x), 49 + len(self.places), patches.shape[2])
        tokens[:, self.places], tokens[:, self.cells] = self.extra.expand(len(x), -1, -1), patches[:, self.order]
        tokens = self.before(tokens.transpose(0, self.batch))
        for block in self.blocks:
            tokens = block(tokens)
        tokens = tokens.transpose(0, self.batch)
        self.q_norm(tokens.unflatten(2, (2, -1)).transpose(1, 2))  # (N, heads, tokens, head_dim), as q and k have
        tokens = self.norm(tokens)
        return self.fc(tokens[:, self.places[0]] if self.end == "first" else tokens[:, self.cells].mean(1))


class Turned(TokenBlock):
    """A block of tokens with images along one of two axes."""

    def __init__(self, dim, batch):
        super().__init__(dim, 2)
        self.batch = batch

    def forward(self, x):
        return super().forward(x.transpose(0, self.batch)).transpose(0, self.batch)


def model_of(net, **options):
    return FaceModel(shaken(net), InputSpec(112), output="logits", **options)


def moved_cells(model, layer, y, x):
    """The cells that a change of one patch moves at a layer, with the first channel of every map."""
    layout = model.structure.layers[layer]
    images = torch.rand(1, 3, 112, 112).repeat(2, 1, 1, 1)
    images[1, :, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 0
    maps = EigenCAM(model, layer=layer).observe(images).activations
    assert maps.shape == (2, *layout.shape)
    return (maps[0] != maps[1]).any(0).nonzero().tolist()


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("dim", [8, 64])
@pytest.mark.parametrize("places", [(0,), (0, 1, 2, 3, 4), (49,), (24,), (0, 50), (3, 17, 30, 51)])
def test_extra_tokens_are_where_the_picture_does_not_reach(places, dim, batch):
    """At the first layer, one patch moves its own cell and no other; a width that is a square changes nothing."""
    model = model_of(Extras(places, dim=dim, batch=batch))
    assert model.structure.layers["before"] == Layout(dim, (7, 7), "tokens", places, batch)
    assert model.structure.layers["blocks.1"] == Layout(dim, (7, 7), "tokens", places, batch)
    assert moved_cells(model, "before", 2, 5) == [[2, 5]]
    assert model.layer("auto") == "blocks.1", "in the last block only the class token is read"
    with pytest.raises(ValueError, match=r"'norm' gives .*its cells do not reach the output"):
        HiResCAM(model, layer="norm")(torch.rand(1, 3, 112, 112), 0)


@pytest.mark.parametrize("batch", [0, 1])
def test_images_along_the_second_axis_give_the_same_maps(batch):
    """Literal gradient and activation, by plain torch."""
    net = Extras(batch=batch, end="mean").eval()
    model, images = model_of(net), torch.rand(3, 3, 112, 112)
    seen = {}
    handle = net.blocks[1].register_forward_hook(lambda _, __, out: seen.update(a=out))
    logits = net(images)
    handle.remove()
    (g,) = torch.autograd.grad(logits[:, 5].sum(), seen["a"])
    a, g = (t.detach().transpose(0, batch)[:, 5:].mT.unflatten(2, (7, 7)) for t in (seen["a"], g))
    expected = {HiResCAM: (a * g).sum(1), GradCAM: (g.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0)}
    for kind, cells in expected.items():
        torch.testing.assert_close(kind(model, layer="blocks.1")(images, 5).cells, cells, rtol=1e-4, atol=1e-6)
    for kind in (*CAMS, lambda m, layer: SDD(HiResCAM(m, layer=layer), rivals=2)):
        whole = kind(model, layer="blocks.1")(images, 5).cells
        parts = [kind(model, layer="blocks.1")(image[None], 5).cells for image in images]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-3, atol=1e-5)


def test_pairs_and_mirrored_branches_of_images_along_the_second_axis():
    pair = torch.rand(2, 2, 3, 112, 112)
    for flip in (None, "sum"):
        torch.manual_seed(0)
        first = FaceModel(Extras(end="mean").eval(), InputSpec(112), flip=flip)
        torch.manual_seed(0)
        second = FaceModel(Extras(end="mean", batch=1).eval(), InputSpec(112), flip=flip)
        assert second.structure.layers["blocks.1"].batch == 1
        maps = [PairCAM(model, layer="blocks.1")(*pair).maps for model in (first, second)]
        torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-6)


def test_tensors_of_heads_are_no_maps():
    for batch in (0, 1):
        model = model_of(Extras(batch=batch))
        assert not {"q_norm", "blocks.0.attn.softmax"} & set(model.structure.readings)
        with pytest.raises(ValueError, match="'q_norm' gives shape"):
            HiResCAM(model, layer="q_norm")(torch.rand(1, 3, 112, 112), 0)


def test_the_embedding_axis_is_never_the_picture():
    """ViT-L: 261 tokens of width 1024, whose root is 32."""
    layout = layout_of((261, 1024), (224, 224), [(16, 16)])
    assert layout == Layout(1024, (16, 16), "tokens", (0, 1, 2, 3, 4))
    assert len(readings((261, 1024), (224, 224), [(16, 16), (32, 32)])) == 2
    assert layout_of((261, 1024), (224, 224), [(16, 16), (32, 32)]) is None
    assert layout_of((785, 64), (112, 112), [(28, 28), (14, 14)]).grid == (28, 28)
    assert layout_of((784, 48), (112, 112), [(14, 14)]) == Layout(48, (28, 28), "tokens")


class Mixed(nn.Module):
    """Everything is mixed before any module gives tokens, so that nothing shows which are extra."""

    def __init__(self, dim=49):
        super().__init__()
        self.patches, self.mix = nn.Conv2d(3, dim, 16, stride=16), nn.Parameter(torch.randn(50, 49))
        self.norm, self.fc = nn.LayerNorm(dim), nn.Linear(dim, 6)

    def forward(self, x):
        return self.fc(self.norm(self.mix @ self.patches(x).flatten(2).mT).mean(1))


@pytest.mark.parametrize(
    ("net", "layer", "reason"),
    [
        (Mixed(8), "norm", r"its \(50, 8\) may be 49 tokens \(7x7\) and 1 extra, .* which rows are extra"),
        (Mixed(50), "norm", r"its \(50, 50\) may be 49 tokens"),
    ],
)
def test_what_values_leave_open_is_refused_and_auto_says_so(net, layer, reason):
    model, images = model_of(net), torch.rand(1, 3, 112, 112)
    for kind in CAMS:
        with pytest.raises(ValueError, match=rf"(?s)'{layer}' gives .*{reason}.*layouts=.*maps end in \['patches'\]"):
            kind(model, layer=layer)(images, 0)
    for kind in CAMS:
        with pytest.warns(FaceXAIWarning, match=rf"auto' took 'patches'.*'{layer}' could not be read .*{reason}"):
            assert kind(model)(images, 0).recipe["layer"] == "patches"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert HiResCAM(model, layer="patches")(images, 0).cells.any()
        finding = doctor(model)["layers"]
    assert finding.verdict == "note"
    assert "could not be read" in finding.advice


def test_two_readings_are_both_named():
    """49 tokens of 49 numbers, or 49 channels of 7x7 cells: only mixed tensors leave that open."""

    class Square(Mixed):
        def forward(self, x):
            return self.fc(self.norm(self.mix[:49] @ self.patches(x).flatten(2).mT).mean(1))

    model = model_of(Square())
    both = r"can be read as 49 tokens \(7x7\), 49 numbers each or as 7x7 cells of 49 channels"
    with pytest.raises(ValueError, match=both):
        HiResCAM(model, layer="norm")(torch.rand(1, 3, 112, 112), 0)
    with pytest.warns(FaceXAIWarning, match=both):
        assert model.layer("auto") == "patches"
    with pytest.raises(HeadDoesNotFold):
        CAM(model)(torch.rand(1, 3, 112, 112), 0)


@pytest.mark.parametrize("flat", [False, True])
def test_values_decide_between_tokens_and_a_flattened_map(flat):
    """49 rows of 49: one patch moves one row of tokens, or one column of a flattened map."""

    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.act = nn.Conv2d(3, 49, 16, stride=16), nn.Tanh()
            self.fc = nn.Linear(49 * 49, 6)

        def forward(self, x):
            x = self.patches(x).flatten(2)
            return self.fc(self.act(x if flat else x.mT).flatten(1))

    model = model_of(Either())
    assert model.structure.layers["act"].order == ("flat" if flat else "tokens")
    assert moved_cells(model, "act", 6, 1) == [[6, 1]]
    assert CAM(model)(torch.rand(1, 3, 112, 112), 0).cells.shape == (1, 7, 7)


def test_tokens_in_another_order_are_refused():
    model = model_of(Extras(jumble=True, end="mean"))
    with pytest.raises(ValueError, match="its tokens are in another order than the rows and columns"):
        HiResCAM(model, layer="blocks.1")(torch.rand(1, 3, 112, 112), 0)
    with pytest.warns(FaceXAIWarning, match="'before' could not be read .* another order"):
        assert model.layer("auto") == "patches"


# ---- layouts that the user gives ---------------------------------------------------------------------------------


def test_a_given_layout_is_taken():
    """The inverse of the order in which the tokens are; and the same numbers as where none is needed."""
    net, images = Extras(jumble=True, end="mean").eval(), torch.rand(2, 3, 112, 112)

    def back(tokens):
        cells = torch.empty_like(tokens[:, 5:])
        cells[:, net.order] = tokens[:, 5:]
        return cells.mT.unflatten(2, (7, 7))

    model = model_of(net, layouts={"before": back, "blocks.1": back})
    assert model.layer("auto") == "blocks.1"
    assert model.layers["blocks.1"] == (8, 7, 7)
    assert moved_cells(model, "before", 2, 5) == [[2, 5]]
    plain = Extras(end="mean").eval()
    plain.load_state_dict(net.state_dict())
    assert model.fingerprint != FaceModel(net, InputSpec(112), output="logits").fingerprint
    given = FaceModel(
        plain,
        InputSpec(112),
        output="logits",
        layouts={"blocks.1": lambda x: x[:, 5:].reshape(-1, 7, 7, 8).permute(0, 3, 1, 2)},
    )
    own = FaceModel(plain, InputSpec(112), output="logits")
    for kind in CAMS:
        cells = [kind(model, layer="blocks.1")(images, 3).cells for model in (given, own)]
        torch.testing.assert_close(*cells, rtol=1e-4, atol=1e-6)


def test_a_given_layout_moves_the_images_first():
    net = Extras(batch=1, end="mean").eval()
    given = model_of(net, layouts={"blocks.1": lambda x: x[5:].permute(1, 2, 0).unflatten(2, (7, 7))})
    images = torch.rand(2, 3, 112, 112)
    assert given.structure.layers["blocks.1"].batch == 1
    expected = HiResCAM(model_of(net), layer="blocks.1")(images, 3).cells
    torch.testing.assert_close(HiResCAM(given, layer="blocks.1")(images, 3).cells, expected)


def test_a_head_folds_by_a_given_layout():
    net, images = Extras((), jumble=True, end="mean").eval().double(), torch.rand(2, 3, 112, 112).double()

    def back(tokens):
        return tokens[:, net.order.argsort()].mT.unflatten(2, (7, 7))

    with pytest.raises(HeadDoesNotFold):
        CAM(model_of(net))(images, 3)
    model = model_of(net, layouts={"norm": back})
    why = CAM(model)(images, 3)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores)
    torch.testing.assert_close(why.cells, HiResCAM(model, layer="norm")(images, 3).cells)


def grid(tokens):
    return tokens[:, 5:].mT.unflatten(2, (7, 7))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: grid(x) * 2, "computes"),
        (lambda x: grid(x).relu(), "computes"),
        (lambda x: grid(x) - grid(x).mean(), "computes"),
        (lambda x: grid(x).half().float(), "computes"),
        (lambda x: grid(x).sort(1).values, "other values when the numbers change"),
        (lambda x: grid(x).repeat(1, 1, 2, 1), "more than once"),
        (lambda x: grid(x).flip(0), "mixes images"),
        (lambda x: grid(x).transpose(0, 1), r"returns \(8, 2, 7, 7\)"),
        (lambda x: torch.stack([grid(x)[0], grid(x)[1].flip(1)]), "treats the images of a batch differently"),
        (lambda x: x[:, 5:], r"returns \(2, 49, 8\)"),
        (lambda x: None, "returns NoneType"),
        (lambda x: x.unflatten(1, (7, 7)), "raises RuntimeError"),
    ],
)
def test_a_given_layout_only_re_arranges(function, message):
    model = model_of(Extras(), layouts={"blocks.1": function})
    with pytest.raises(ValueError, match=rf"layouts\['blocks.1'\] .*{message}.*expected a function that only selects"):
        HiResCAM(model)(torch.rand(1, 3, 112, 112), 0)


def test_given_layouts_of_layers_that_are_none():
    with pytest.raises(ValueError, match=r"no layer 'block\.1'; did you mean"):
        model_of(Extras(), layouts={"block.1": grid})
    with pytest.raises(TypeError, match=r"layouts as \{layer: function\}"):
        model_of(Extras(), layouts=["blocks.1"])
    with pytest.raises(TypeError, match=r"layouts as \{layer: function\}"):
        model_of(Extras(), layouts={"blocks.1": (7, 7)})
    with pytest.raises(ValueError, match=r"layer 'fc' runs 1 times .* gives no tensor"):
        _ = model_of(Extras(), layouts={"fc": grid}).layers


# ---- which layer auto takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["first", "mean"])
def test_a_stem_gives_way_to_mixed_tokens_though_it_has_more_cells(end):
    """A convolutional stem of 14x14 cells decides alone, and so do 7x7 tokens behind it."""
    model = model_of(Extras(stem=True, end=end))
    assert model.layers["patches.1"] == (8, 14, 14)
    assert model.structure.decides("patches.1")
    layer = {"first": "blocks.1", "mean": "norm"}[end]
    for kind in CAMS:
        assert kind(model)(torch.rand(1, 3, 112, 112), 0).recipe["layer"] == layer


def test_a_stem_before_tokens_that_are_too_few_is_said():
    class Coarse(TokenNet):
        def __init__(self):
            super().__init__("mean")
            self.patches = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.GELU(), nn.Conv2d(8, 8, 4, stride=4))

    with pytest.warns(FaceXAIWarning, match=r"auto' took 'patches.1'.*'norm' has 3x3 cells only"):
        model_of(Coarse()).layer("auto")


def test_networks_without_anything_missing_are_not_warned_of():
    for net in (FlatNet(), HwcNet(), TokenNet("flatten"), TokenNet("cls"), nn.Sequential(FlatNet().stem, nn.Flatten())):
        model = FaceModel(shaken(net), InputSpec(112))
        assert model.structure.missing is None
        model.layer("auto")


@pytest.mark.filterwarnings("ignore:captum's GuidedGradCam changes activation modules")
def test_captum_is_not_given_tokens():
    pytest.importorskip("captum")
    model = model_of(Extras(end="mean"))
    with pytest.raises(ValueError, match=r"'norm' gives 49 tokens .*channels first, which end in \['patches'\]"):
        baselines.captum("GuidedGradCam", model)(torch.rand(1, 3, 112, 112), 0)


@pytest.fixture(scope="module")
def vit_face(shared):
    spec = importlib.util.spec_from_file_location("vit_face", shared / "tools" / "vit_face.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return FaceModel(module.load(), InputSpec(112, mean=0.5, std=0.5, crop=(7, 7, 105, 105)))


def test_a_real_transformer_with_registers(vit_face, lfw, crops):
    """Every CAM method takes its last block that is read whole, silently."""
    assert vit_face.structure.layers["blocks.0"] == Layout(192, (7, 7), "tokens", (0, 1, 2, 3, 4))
    assert vit_face.layers["blocks.0.attn.qkv"] == (576, 7, 7)
    names = list(lfw)[:3]
    from facexai import images

    faces = {name: images.resize(images.load(lfw[name][:3])[:, :, 31:129, 31:129], 112) for name in names}
    people = vit_face.gallery(faces)
    for kind in CAMS:
        why = kind(people)(faces[names[0]][:2])
        assert why.recipe["layer"] == "blocks.6"
        assert why.cells.shape == (2, 7, 7)
        assert bool(why.cells.any())
    with pytest.raises(ValueError, match="a single token of 'norm'"):
        CAM(people)(faces[names[0]][:1])
    assert doctor(vit_face)["layers"].found.endswith("layer='auto' is 'blocks.6'")
