"""Folding heads: completeness on every shape, agreement with autograd, refusal with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import (
    ChannelsLast,
    DepthwiseHead,
    FlatNet,
    GapNet,
    HwcNet,
    NormHead,
    TokenNet,
    UnitNet,
    pointwise_head,
    shaken,
    two_linears,
)
from torch import nn

from facexai import CAM, FaceModel, FaceXAIWarning, HeadDoesNotFold, HiResCAM, InputSpec
from facexai.functional import completeness_error
from facexai.models.heads import Link
from facexai.models.layout import Layout, layout_of

FOLDING = {
    "flat": lambda: FlatNet(),
    "flat, BN2d without weights": lambda: FlatNet(affine=False),
    "flat, 512x7x7 to 512": lambda: FlatNet(512, 512),
    "pooled": lambda: GapNet(),
    "pooled by a function": lambda: GapNet(functional=True),
    "channels last": lambda: ChannelsLast(),
    "two linear layers": two_linears,
    "depth-wise": lambda: DepthwiseHead(size=(7, 7)),
    "1x1 convolutions": pointwise_head,
    "one convolution as large as the map": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 16, stride=16), nn.ReLU(), nn.Conv2d(4, 6, 7), nn.Flatten(), nn.BatchNorm1d(6)
    ),
    "padded convolution of the whole map": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 16, stride=16), nn.ReLU(), nn.Conv2d(4, 6, 8, padding=1, stride=3, dilation=1, groups=2)
    ),
    "tokens, flattened": lambda: TokenNet(),
    "tokens, averaged by a function": lambda: TokenNet("mean"),
    "tokens, averaged by a module": lambda: TokenNet("pool"),
    "rows, columns, channels, flattened": lambda: HwcNet(),
    "rows, columns, channels, averaged": lambda: HwcNet(mean=True),
    "one linear layer on pixels' patches": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 16, stride=16), nn.Flatten(), nn.Linear(196, 6)
    ),
}


def model_of(net, dtype=torch.float64, **options):
    return FaceModel(shaken(net).to(dtype), InputSpec(112, mean=0.5, std=0.5), **options)


def error_of(model, images, directions):
    """The completeness error of the folded head for directions (N, D)."""
    from facexai.hooks import capture

    head = model.head
    with torch.no_grad(), capture(model.net, head.layer, side=head.side) as a, capture(model.net, head.last) as e:
        model.outputs(images)
    weights, constant = head.pull(directions)
    return completeness_error((weights * head.layout.map(a.last)).sum(1), constant, directions, e.last.flatten(1))


@pytest.mark.parametrize("name", FOLDING)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cells_and_constant_add_up_to_the_score(name, dtype, limit):
    model = model_of(FOLDING[name](), dtype)
    images = torch.rand(3, 3, 112, 112, dtype=dtype)
    directions = torch.randn(3, model.embed(images).shape[1], dtype=dtype)
    assert error_of(model, images, directions).max() < limit


@pytest.mark.parametrize("name", FOLDING)
def test_folded_cam_equals_hirescam(name):
    model = model_of(FOLDING[name](), output="logits")
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    folded = CAM(model)(images, 3)
    torch.testing.assert_close(HiResCAM(model, layer=folded.recipe["layer"])(images, 3).cells, folded.cells)


def test_the_order_of_flattening_is_found():
    def orders(net):
        return [s.what.order for s in model_of(net).head.steps if isinstance(s.what, Link) and len(s.shape) == 3]

    assert orders(ChannelsLast()) == [(1, 2, 0)]
    assert set(orders(FlatNet())) == {(0, 1, 2)}


def test_the_layer_is_named_as_the_user_names_it():
    assert (model_of(FlatNet()).head.layer, model_of(FlatNet()).head.side) == ("layer4", "output")
    assert model_of(GapNet()).head.layer == "block"
    wrapped = FaceModel(nn.DataParallel(shaken(FlatNet())), "arcface", output="logits")
    assert wrapped.head.layer == "module.layer4"
    assert CAM(wrapped)(torch.rand(1, 3, 112, 112), 1).recipe["layer"] == "module.layer4"


def test_a_network_that_normalises_itself():
    """AdaFace's output is not e but e divided by its length; scores are cosines of it all the same."""
    model = FaceModel(shaken(UnitNet()).double(), "adaface", take=0)
    assert model.head.unit
    people = model.gallery({"a": torch.randn(32).double(), "b": torch.randn(32).double()}, scale=10.0)
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    why = CAM(people)(images, "a")
    plain = FaceModel(model.net, "adaface", take=lambda out: out[0] * out[1])
    expected = CAM(plain.gallery(dict(zip(people.names, people.templates, strict=True)), scale=10.0))(images, "a")
    torch.testing.assert_close(why.cells, expected.cells)
    torch.testing.assert_close(why.scores, expected.scores)


class Functional(nn.Module):
    """The last step is a function that changes values: a ReLU on the embedding."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 16, stride=16), nn.Linear(196, 6)

    def forward(self, x):
        return F.relu(self.fc(self.conv(x).flatten(1)))


class Between(Functional):
    """A function that is not affine between map and linear layer."""

    def forward(self, x):
        return self.fc(torch.tanh(self.conv(x)).flatten(1))


class BatchStatistics(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 16, stride=16), nn.Linear(196, 6)
        self.bn = nn.BatchNorm1d(6, track_running_stats=False)

    def forward(self, x):
        return self.bn(self.fc(self.conv(x).flatten(1)))


def test_statistics_of_the_batch_do_not_exist_for_one_image():
    model = FaceModel(BatchStatistics().eval(), InputSpec(112), output="logits")
    with pytest.raises(ValueError, match="more than 1 value per channel") as refusal:
        CAM(model)(torch.rand(1, 3, 112, 112), 0)
    assert "depends on the others in its batch" in "".join(refusal.value.__notes__)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (NormHead(), r"'norm' \(LayerNorm\)"),
        (Functional(), r"not the output of its last module 'fc' \(Linear\)"),
        (Between(), "neither the flattened nor the averaged map"),
        (nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.Flatten(), nn.Linear(196, 6), nn.Sigmoid()), "Sigmoid"),
        (nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.Flatten(), nn.ReLU(), nn.Linear(196, 6)), "ReLU"),
    ],
)
def test_what_does_not_fold_is_refused_with_the_reason(net, reason):
    model = FaceModel(net.eval(), InputSpec(112), output="logits")
    with pytest.raises(HeadDoesNotFold, match=reason) as refusal:
        CAM(model)(torch.rand(1, 3, 112, 112), 0)
    assert "HiResCAM" in str(refusal.value)
    if not isinstance(net, BatchStatistics):
        assert HiResCAM(model, layer=next(iter(model.layers)))(torch.rand(1, 3, 112, 112), 0).cells.shape == (1, 7, 7)


class Sneaky(FlatNet):
    """Affine for the noise that recognises the head, something else later."""

    def forward(self, x):
        x = self.bn2(self.layer4(self.layer3(self.stem(x))))
        x = self.dropout(torch.flatten(x, 1))
        if getattr(self, "sneaky", False):
            x = x.abs()
        return self.features(self.fc(x))


def test_completeness_is_checked_on_every_call():
    model = model_of(Sneaky(), output="logits")
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    CAM(model)(images, 0)
    model.net.sneaky = True
    with pytest.raises(ValueError, match="do not add up"):
        CAM(model)(images, 0)


def test_few_cells_are_said():
    net = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 4, 4, stride=4), nn.Flatten(), nn.Linear(36, 6))
    with pytest.warns(FaceXAIWarning, match=r"only 3x3 cells.*HiResCAM\(classifier, layer=...\)"):
        CAM(FaceModel(net, InputSpec(112), output="logits"))(torch.rand(1, 3, 112, 112), 0)


def test_another_layer_is_hirescams_business():
    with pytest.raises(ValueError, match="always the head's input"):
        CAM(model_of(FlatNet(), output="logits"), layer="layer3")


@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
def test_real_networks(dlib_model, mobileface):
    for model, last in ((dlib_model, "stage5"), (mobileface, "layers.plus7")):
        images = torch.rand(2, 3, *model.spec.height_width)
        people = model.gallery({"a": images[:1], "b": images[1:]})
        why = CAM(people)(images, "a")
        assert why.recipe["layer"] == last
        assert error_of(model, images, torch.randn(2, model.embed(images).shape[1])).max() < 1e-5
        torch.testing.assert_close(HiResCAM(people, layer=last)(images, "a").cells, why.cells, rtol=1e-3, atol=1e-3)


def test_cells_and_constant_of_a_result_are_the_score():
    """With everything that moves the constant: biases, a centre, a gallery's centre, mirrored branches."""
    images = torch.rand(3, 3, 112, 112, dtype=torch.float64)
    for flip in (None, "sum", "concat"):
        model = model_of(FlatNet(), center=torch.randn(32).double(), flip=flip)
        size = 64 if flip == "concat" else 32
        rows = {f"p{i}": torch.randn(size).double() for i in range(10)}
        for people in (model.gallery(rows), model.gallery(rows, center="enrolled")):
            why = CAM(people)(images, "p3")
            torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores)
            assert why.constant.abs().min() > 0.01
    why = CAM(FaceModel(shaken(UnitNet()), "adaface", take=0).gallery({"a": torch.randn(32)}))(images.float(), "a")
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=1e-4, atol=1e-4)


class Normalise(nn.Module):
    def forward(self, x):
        return F.normalize(x)


@pytest.mark.parametrize("end", ["inside", "module"])
def test_networks_that_normalise_are_explained_as_if_they_did_not(end):
    """Also for the enrolled photo itself, where the gradient of the cosine is zero."""
    plain = FaceModel(shaken(FlatNet()).double(), "arcface")
    net = UnitNet() if end == "inside" else FlatNet()
    net.load_state_dict(plain.net.state_dict())
    net = net if end == "inside" else nn.Sequential(net, Normalise())
    model = FaceModel(net.double().eval(), "arcface", take=0 if end == "inside" else None)
    assert model.head.unit
    image = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    ours, theirs = (m.gallery({"self": image, "other": torch.randn(32).double()}) for m in (model, plain))
    assert HiResCAM(ours).recipe(HiResCAM(ours).observe(image))["similarity"] == "dot"
    prefix = "" if end == "inside" else "0."
    for layer in ("layer3", "layer4"):
        found = HiResCAM(ours, layer=prefix + layer)(image, "self")
        torch.testing.assert_close(found.cells, HiResCAM(theirs, layer=layer)(image, "self").cells)
    torch.testing.assert_close(CAM(ours)(image, "self").cells, found.cells)
    assert found.cells.abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_that_normalise_fold_in_half_precision_too(dtype):
    net = nn.Sequential(shaken(FlatNet()), Normalise()).to(dtype)
    people = FaceModel(net, "arcface").gallery({"a": torch.randn(32), "b": torch.randn(32)}, scale=1.0)
    why = CAM(people)(torch.rand(2, 3, 112, 112), "a")
    assert people.model.head.unit
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=5e-2, atol=5e-2)


class UnitNormHead(NormHead):
    def forward(self, x):
        return F.normalize(super().forward(x))


def test_a_cosine_that_cannot_be_undone_is_said():
    model = FaceModel(UnitNormHead().eval(), "arcface")
    people = model.gallery({"a": torch.randn(12), "b": torch.randn(12)})
    with pytest.warns(FaceXAIWarning, match="gradient is that of the cosine"):
        why = HiResCAM(people, layer="conv")(torch.rand(1, 3, 112, 112))
    assert why.recipe["similarity"] == "cosine"


class Clamped(FlatNet):
    """Cuts the embedding after its last module, at a value that noise does not reach."""

    def forward(self, x):
        return super().forward(x).clamp(-self.limit, self.limit)

    limit = 1e6


def test_a_change_of_the_output_is_caught_on_every_call():
    model = model_of(Clamped(), output="logits")
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    CAM(model)(images, 0)
    model.net.limit = 0.1
    with pytest.raises(ValueError, match="changes the output of its head"):
        CAM(model)(images, 0)


class SharedRelu(nn.Module):
    """One ReLU used twice, the second time right before the head."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 4, 2, stride=2)
        self.relu, self.fc = nn.ReLU(), nn.Linear(196, 6)

    def forward(self, x):
        return self.fc(self.relu(self.c2(self.relu(self.c1(x)))).flatten(1))


def test_a_module_that_runs_twice_is_no_obstacle():
    model = model_of(SharedRelu(), output="logits")
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    why = CAM(model)(images, 3)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores)
    assert "relu" not in model.layers
    assert HiResCAM(model)(images, 3).recipe["layer"] == "c1"


class ByKeyword(FlatNet):
    def forward(self, x):
        x = self.bn2(input=self.layer4(self.layer3(self.stem(x))))
        return self.features(input=self.fc(input=self.dropout(torch.flatten(x, 1))))


def test_modules_called_by_keyword_fold():
    model = model_of(ByKeyword(), output="logits")
    assert CAM(model)(torch.rand(1, 3, 112, 112).double(), 0).cells.shape == (1, 7, 7)


def test_an_exchanged_module_is_looked_at_again():
    model = model_of(FlatNet(), output="logits")
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    CAM(model)(images, 0)
    model.net.fc = nn.Linear(784, 32).double()
    model.net.features = nn.BatchNorm1d(32).double().eval()
    assert CAM(model)(images, 0).cells.shape == (1, 7, 7)


def test_the_wrong_order_of_flattening_would_be_wrong_by_a_hundred_per_cent():
    import dataclasses

    model = model_of(FlatNet())
    images, directions = torch.rand(3, 3, 112, 112).double(), torch.randn(3, 32).double()
    assert error_of(model, images, directions).max() < 1e-12
    head = model.head
    turned = Link((1, 2, 0), 0)  # rows, columns, channels
    flattened = [s.name == "bn2" and isinstance(s.what, Link) for s in head.steps]
    assert sum(flattened) == 1
    pairs = zip(head.steps, flattened, strict=True)
    steps = tuple(dataclasses.replace(s, what=turned) if flat else s for s, flat in pairs)
    wrong = dataclasses.replace(head, steps=steps)
    right_weights, _ = head.pull(directions)
    weights, _ = wrong.pull(directions)
    assert (weights - right_weights).norm() > 0.9 * right_weights.norm()


@pytest.mark.parametrize("end", ["flatten", "mean", "pool"])
def test_tokens_are_a_map(end):
    model = model_of(TokenNet(end), output="logits")
    assert (model.head.layer, model.head.layout) == ("norm", Layout(8, (14, 14), "tokens"))
    assert model.layers["blocks.0.attn.qkv"] == (24, 14, 14)
    assert not any("softmax" in name for name in model.layers), "attention is no map"
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    why = CAM(model)(images, 3)
    assert why.cells.shape == (2, 14, 14)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores)


def test_a_change_of_one_patch_changes_its_own_token():
    """The order of cells: without mixing of tokens, a patch of the image moves its own cell and no other."""
    net = TokenNet()
    net.blocks = nn.ModuleList()
    for built, layer in ((net, "norm"), (HwcNet(), "norm")):
        model = model_of(built, output="logits")
        images = torch.rand(1, 3, 112, 112, dtype=torch.float64).repeat(2, 1, 1, 1)
        images[1, :, 96:112, 16:32] = 0
        for why in (CAM(model)(images, 3), HiResCAM(model, layer=layer)(images, 3)):
            cells = 112 // why.cells.shape[-1]
            moved = (why.cells[0] - why.cells[1]).abs() > 1e-9
            moved = nn.functional.interpolate(moved[None, None].double(), scale_factor=cells)[0, 0].bool()
            expected = torch.zeros_like(moved)
            expected[96:112, 16:32] = True
            assert torch.equal(moved, expected)


def test_a_class_token_is_refused_by_cam_and_left_out_of_maps():
    model = model_of(TokenNet("cls"), output="logits")
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    with pytest.raises(HeadDoesNotFold, match="a single token of 'norm'"):
        CAM(model)(images, 0)
    assert HiResCAM(model, layer="blocks.0")(images, 0).cells.shape == (2, 14, 14)
    assert not {"norm", "blocks.1", "blocks.1.mlp"} & set(model.layers), "there only the class token is read"
    assert model.layer("auto") == "blocks.0"
    assert HiResCAM(model)(images, 0).cells.abs().max() > 0


def test_a_depth_wise_head_of_a_tall_image():
    model = FaceModel(shaken(DepthwiseHead()).double(), "mobilefacenet", output="logits")
    why = CAM(model)(torch.rand(2, 3, 112, 96, dtype=torch.float64), 3)
    assert (why.recipe["layer"], why.cells.shape) == ("prelu", (2, 7, 6))
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores)


class CircularHead(nn.Module):
    """A convolution of the whole map that does not pad with zeros."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 16, stride=16), nn.Conv2d(4, 6, 9, padding=1, padding_mode="circular")

    def forward(self, x):
        return self.last(self.conv(x)).flatten(1)


def test_a_convolution_that_pads_in_another_way_does_not_fold():
    with pytest.raises(HeadDoesNotFold, match=r"'last' \(Conv2d\)"):
        CAM(model_of(CircularHead(), output="logits"))(torch.rand(1, 3, 112, 112, dtype=torch.float64), 0)


@pytest.mark.parametrize(
    ("shape", "image", "grids", "layout"),
    [
        ((512, 7, 7), (112, 112), (), Layout(512, (7, 7))),
        ((7, 7, 7), (112, 112), (), Layout(7, (7, 7))),
        ((7, 6, 512), (112, 96), (), Layout(512, (7, 6), "hwc")),
        ((512, 7, 6), (112, 96), (), Layout(512, (7, 6))),
        ((7, 7, 6), (112, 96), (), Layout(7, (7, 6))),
        ((15, 12, 32), (120, 100), [(15, 12)], Layout(32, (15, 12), "hwc")),
        ((42, 64), (112, 96), (), Layout(64, (7, 6), "tokens")),
        ((43, 64), (112, 96), (), Layout(64, (7, 6), "tokens", (0,))),
        ((50, 512), (112, 112), (), Layout(512, (7, 7), "tokens", (0,))),
        ((50, 64), (112, 112), (), None),
        ((49, 64), (112, 112), (), None),
        ((49, 64), (112, 112), [(7, 7)], Layout(64, (7, 7), "tokens")),
        ((64, 49), (112, 112), [(7, 7)], Layout(64, (7, 7), "flat")),
        ((49, 49), (112, 112), [(7, 7)], None),
        ((51, 65), (112, 112), (), None),
        ((256, 1), (112, 112), (), None),
        ((1, 64), (112, 112), (), None),
        ((64,), (112, 112), (), None),
        ((2, 3, 4, 5), (112, 112), (), None),
    ],
)
def test_layouts(shape, image, grids, layout):
    assert layout_of(shape, image, grids) == layout
    if layout is not None:
        assert layout.map(torch.zeros(2, *shape)).shape == (2, *layout.shape)


class Sequences(nn.Module):
    """A map as (channels, cells), with as many channels as another grid has cells."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(3, 64, 16, stride=16), nn.ReLU(), nn.Linear(64 * 49, 12)

    def forward(self, x):
        return self.fc(self.act(self.conv(x).flatten(2)).flatten(1))


class Behind(TokenNet):
    """The class token stands behind the others, and all are read."""

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([x, self.cls.expand(len(x), -1, -1)], 1))
        return self.feature(x.mean(1))


@pytest.mark.parametrize(("make", "layer"), [(Sequences, "act"), (lambda: Behind("mean"), "norm")])
@pytest.mark.parametrize("at", [(0, 0), (6, 2)])
def test_every_layout_shows_a_patch_in_its_own_cell(make, layer, at):
    model = model_of(make(), output="logits")
    images = torch.rand(1, 3, 112, 112, dtype=torch.float64).repeat(2, 1, 1, 1)
    side = 112 // model.layers[layer][1]
    y, x = at
    images[1, :, y * side : (y + 1) * side, x * side : (x + 1) * side] = 0
    why = HiResCAM(model, layer=layer)(images, 3)
    moved = ((why.cells[0] - why.cells[1]).abs() > 1e-12).nonzero().tolist()
    assert moved == [[y, x]]


class Weighted(nn.Module):
    """Pooling with a fixed bell of weights, which is no mean."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 16, 16, stride=16), nn.Linear(16, 8)
        place = torch.linspace(-1, 1, 7)
        bell = torch.exp(-(place[:, None] ** 2 + place**2))
        self.register_buffer("bell", bell / bell.sum())

    def forward(self, x):
        return self.fc((self.conv(x).relu() * self.bell).sum((2, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_weighted_average_is_no_mean_in_any_precision(dtype):
    with pytest.raises(HeadDoesNotFold, match="neither the flattened nor the averaged map"):
        _ = FaceModel(Weighted().to(dtype).eval(), "arcface").head


class Cast(FlatNet):
    """The map in half precision, the head in float32, as training code with autocast has it."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.dropout(torch.flatten(self.bn2(self.layer4(self.layer3(self.stem(x)))), 1))
        return self.features(self.fc(x.float()))


def test_a_cast_between_map_and_head_folds():
    model = model_of(Cast(), torch.float32, output="logits")
    why = CAM(model)(torch.rand(1, 3, 112, 112), 0)
    assert why.recipe["layer"] == "layer4"
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=2e-2, atol=2e-2)


class Auxiliary(FlatNet):
    """A second head runs after the embedding."""

    def __init__(self):
        super().__init__()
        self.quality = nn.Linear(32, 1)

    def forward(self, x):
        embedding = super().forward(x)
        return embedding, self.quality(embedding)


def test_another_head_behind_the_embedding_is_no_obstacle():
    assert model_of(Auxiliary(), take=0).head.layer == "layer4"


def test_a_frozen_backbone_with_a_class_token_is_no_obstacle():
    class Frozen(TokenNet):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    model = FaceModel(shaken(Frozen("cls")), "arcface", output="logits")
    assert "blocks.0" in model.layers
    why = HiResCAM(model, layer="blocks.0")(torch.rand(1, 3, 112, 112), 0)
    assert why.cells.abs().max() > 0, "recording starts at the layer, also inside no_grad"


def test_the_structure_follows_exchanged_modules_and_lets_the_network_go():
    import gc
    import weakref

    model = model_of(FlatNet(), output="logits")
    for _ in range(5):
        known = model.structure
        model.net.fc = nn.Linear(784, 32).double()
        model.net.fc = nn.Linear(784, 32).double()
        assert model.structure is not known
    assert model.structure is model.structure
    gc.collect()
    gc.disable()
    try:
        gone = weakref.ref(model.net)
        assert model.layer("auto")
        del model, known
        assert gone() is None, "a circle of references would keep the weights until the next collection"
    finally:
        gc.enable()
