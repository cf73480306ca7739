"""Folding heads: completeness on every shape, agreement with autograd, refusal with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import ChannelsLast, FlatNet, GapNet, NormHead, UnitNet, shaken, two_linears
from torch import nn

from facexai import CAM, FaceModel, FaceXAIWarning, HeadDoesNotFold, HiResCAM, InputSpec
from facexai.explainers.cam import completeness_error

FOLDING = {
    "flat": lambda: FlatNet(),
    "flat, BN2d without weights": lambda: FlatNet(affine=False),
    "flat, 512x7x7 to 512": lambda: FlatNet(512, 512),
    "pooled": lambda: GapNet(),
    "pooled by a function": lambda: GapNet(functional=True),
    "channels last": lambda: ChannelsLast(),
    "two linear layers": two_linears,
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
    return completeness_error((weights * a.tensor).sum(1), constant, directions, e.tensor)


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


def test_a_wrong_order_of_flattening_is_caught():
    """The reader of the head's weights in the wrong order is wrong by a hundred per cent; the right one is not."""
    model = model_of(ChannelsLast())
    assert [step.link for step in model.head.steps if step.link != "same"] == ["flatten-last"]
    assert [s.link for s in model_of(FlatNet()).head.steps if s.link != "same"] == ["flatten"]


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


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (NormHead(), r"'norm' \(LayerNorm\)"),
        (Functional(), r"not the output of its last module 'fc' \(Linear\)"),
        (Between(), "neither the flattened nor the averaged map"),
        (BatchStatistics(), "statistics of the batch"),
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
    with pytest.warns(FaceXAIWarning, match=r"only 3x3 cells.*HiResCAM\(classifier, layer='0'\)"):
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
