"""Folding: which norms go into the layer before them, which do not, and that outputs and maps never change."""

from __future__ import annotations

import copy
import itertools
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from nets import Block, FlatNet, GapNet, UnitNet, shaken
from planted import SPEC, Net, Scale, apart
from torch import nn

from facexai import CAM, FaceModel, GradCAM, HiResCAM
from facexai.models import accelerate, acceleration


@pytest.fixture(autouse=True)
def _one_round(monkeypatch):
    monkeypatch.setattr(import_module("facexai.models._trial"), "_ROUNDS", (1, 1))


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112)


@pytest.fixture
def small():
    return torch.rand(5, 3, 16, 16)


# ---- what is folded -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False])
def test_outputs_stay_and_norms_become_identities(images, given):
    model = FaceModel(shaken(FlatNet()))
    done = acceleration(model, images if given else None, batch_size=2)
    assert done.folded == ("layer3.bn1", "layer3.bn2", "layer4.bn1", "layer4.bn2", "features")
    assert [name for name, m in done.model.net.named_modules() if isinstance(m, nn.Identity)] == list(done.folded)
    assert isinstance(done.model.net.bn2, nn.BatchNorm2d)  # no convolution before it
    assert [name for name, _ in done.model.net.named_modules()] == [name for name, _ in model.net.named_modules()]
    assert apart(done.model, model, images) < 1e-5
    assert done.difference < 1e-5
    assert done.rejected == {}


def test_a_fold_is_exact_in_float64(small):
    model = FaceModel(Net().double(), SPEC)
    done = acceleration(model, small.double())
    assert done.folded == ("norm",)
    assert apart(done.model, model, small.double()) < 1e-14


def test_a_norm_folds_with_and_without_bias_and_weights(small):
    parts = itertools.product((True, False), (True, False), (1, 2))
    for bias, affine, groups in parts:
        conv, norm = nn.Conv2d(4, 4, 3, padding=1, groups=groups, bias=bias), nn.BatchNorm2d(4, affine=affine)
        model = FaceModel(Net(lambda net, x: net.end(net.bn(net.mid(net.conv(x)))), mid=conv, bn=norm), SPEC)
        done = acceleration(model, small)
        assert done.folded == ("bn",)
        assert apart(done.model, model, small) < 1e-5


def test_a_linear_layer_takes_its_norm(small):
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    done = acceleration(FaceModel(shaken(net), SPEC), small)
    assert done.folded == ("2",)
    assert apart(done.model, FaceModel(net, SPEC), small) < 1e-5


def test_train_mode_is_the_users_business(small):
    net = Net().train()
    net.norm.eval()
    model = FaceModel(net, SPEC)
    done = acceleration(model, small)
    assert done.folded == ("norm",)
    assert [net.training, net.conv.training, net.norm.training] == [True, True, False]
    assert not any(module.training for module in done.model.net.modules())
    assert apart(done.model, model, small) < 1e-5


@pytest.mark.parametrize(
    ("end", "folds"),
    [
        (lambda x: x, True),
        (F.relu, False),
        (lambda x: x.clamp(-1e5, 1e5), False),  # noise never gets there
        (lambda x: x + 1e-6 * x.mean((2, 3), keepdim=True), False),
        (lambda x: x + 1e-6 * x.flip(0), False),
    ],
)
def test_a_home_made_norm_is_known_by_what_it_does(small, end, folds):
    model = FaceModel(Net(norm=Scale(end)), SPEC)
    done = acceleration(model, small)
    assert done.folded == (("norm",) if folds else ())
    assert apart(done.model, model, small) < 1e-5


# ---- what is left alone ---------------------------------------------------------------------------------------------


def residual(net, x):
    y = net.conv(x)
    return net.end(net.norm(y) + y)


def norm_by_hand(net, x):
    return net.end(net.norm(net.conv(x)) + net.norm.running_mean.view(-1, 1, 1))


def weight_elsewhere(net, x):
    return net.end(net.norm(net.conv(x)) + F.conv2d(x, net.conv.weight))


def hidden_norm(net, x):
    return net.end(net.hidden[0](net.conv(x)))


@pytest.mark.parametrize("forward", [residual, norm_by_hand, weight_elsewhere, hidden_norm])
def test_a_fold_that_would_change_the_outputs_is_taken_back_and_the_others_stay(small, forward):
    net = Net(
        lambda net, x: forward(net, x) + net.end(net.bn(net.mid(x))), mid=nn.Conv2d(3, 4, 5), bn=nn.BatchNorm2d(4)
    )
    net.hidden = (net.norm,)  # a reference that no name leads to
    done = acceleration(FaceModel(shaken(net), SPEC), small)
    assert done.folded == ("bn",)
    assert list(done.rejected) == ["folding norm"]
    assert apart(done.model, FaceModel(net, SPEC), small) < 1e-5


def test_folds_that_only_the_given_images_betray_are_all_taken_back(small):
    def forward(net, x):
        y = net.conv(x)
        return net.end(net.norm(y) + y * (x.amin((1, 2, 3)) > 0.5).view(-1, 1, 1, 1))

    model = FaceModel(Net(forward), SPEC)
    images = torch.cat([small, small / 4 + 0.7])
    done = acceleration(model, images, batch_size=5)
    assert done.folded == ()
    assert "changes outputs" in done.rejected["folding norm"]
    assert apart(done.model, model, images) < 1e-5
    assert acceleration(model, small).folded == ("norm",)  # so the bright images decided


def twice(net, x):
    return net.end(net.norm(net.conv(x)) + net.conv(x + 1))


def norm_twice(net, x):
    return net.end(net.norm(net.conv(x)) + net.norm(net.mid(x)))


@pytest.mark.parametrize("forward", [twice, norm_twice])
def test_what_runs_twice_is_left_alone(small, forward):
    done = acceleration(FaceModel(Net(forward, mid=nn.Conv2d(3, 4, 3)), SPEC), small)
    assert (done.folded, done.rejected) == ((), {})


def test_a_norm_after_either_of_two_equal_layers_is_left_alone(small):
    net = Net(lambda net, x: net.end(net.mid(x) + net.norm(net.conv(x))))
    net.mid = copy.deepcopy(net.conv)
    assert acceleration(FaceModel(net, SPEC), small).folded == ()


def changed(net, change):
    change(net)
    return net


class OwnConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x):
        return F.leaky_relu(super().forward(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net, "again", net.conv),
        lambda net: setattr(net, "again", net.norm),
        lambda net: net.conv.register_forward_hook(lambda m, i, o: o),
        lambda net: net.norm.register_forward_pre_hook(lambda m, i: i),
        lambda net: nn.utils.parametrizations.weight_norm(net.conv),
        lambda net: setattr(net, "conv", OwnConv(3, 4, 3)),
        lambda net: setattr(net, "norm", shaken(OwnNorm(4))),
        lambda net: setattr(net.conv, "forward", lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3))),
        lambda net: setattr(net, "conv", nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())),
        lambda net: setattr(net, "conv", nn.ConvTranspose2d(3, 4, 3)),
    ],
)
def test_modules_that_are_more_than_their_class_are_left_alone(small, change):
    model = FaceModel(changed(Net(), change), SPEC)
    done = acceleration(model, small)
    assert (done.folded, done.rejected) == ((), {})
    assert apart(done.model, model, small) < 1e-5


def test_a_weight_shared_by_two_layers_is_no_obstacle(small):
    net = Net(lambda net, x: net.end(net.norm(net.conv(x)) + net.mid(x)), mid=nn.Conv2d(3, 4, 3))
    net.mid.weight = net.conv.weight
    done = acceleration(FaceModel(net, SPEC), small)
    assert done.folded == ("norm",)
    assert apart(done.model, FaceModel(net, SPEC), small) < 1e-5


def test_blocks_as_networks_have_them(small):
    net = nn.Sequential(Block(3), nn.Conv2d(3, 4, 1), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    done = acceleration(FaceModel(shaken(net), SPEC), small)
    assert done.folded == ("0.bn1", "0.bn2", "2.bn1", "2.bn2")
    assert apart(done.model, FaceModel(net, SPEC), small) < 1e-5


def circular_head():
    conv = nn.Conv2d(3, 4, 3, stride=8, padding=1, padding_mode="circular")
    return nn.Sequential(conv, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 196, 8), nn.BatchNorm1d(8))


def home_made_head():
    return nn.Sequential(nn.Conv2d(3, 4, 16, stride=8), Scale(), nn.Flatten(), nn.Linear(4 * 169, 8), nn.BatchNorm1d(8))


@pytest.mark.parametrize(
    ("make", "folded"),
    [
        (FlatNet, 5),
        (UnitNet, 5),
        (GapNet, 2),
        (circular_head, 1),
        (home_made_head, 1),
    ],
)
def test_cam_is_the_same_on_the_copy(images, make, folded):
    model = FaceModel(shaken(make()), take=0 if make is UnitNet else None, flip="sum")
    size = model.outputs(images).shape[1]
    people = model.gallery({"a": torch.randn(size), "b": torch.randn(size)})
    done = acceleration(people, images)
    assert len(done.folded) == folded
    old, new = (CAM(one)(images, "a") for one in (people, done.model))
    assert new.recipe["layer"] == old.recipe["layer"]
    for name in ("cells", "constant", "scores"):
        torch.testing.assert_close(getattr(new, name), getattr(old, name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", ["layer3", "layer3.bn1", "layer4", "bn2"])
@pytest.mark.parametrize("explainer", [HiResCAM, GradCAM])
def test_maps_at_blocks_and_norms_are_the_same(images, explainer, layer):
    model = FaceModel(shaken(FlatNet()))
    people = model.gallery({"a": torch.randn(32), "b": torch.randn(32)})
    fast = accelerate(people, images)
    assert isinstance(fast.model.net.layer3.bn1, nn.Identity)
    old, new = (explainer(one, layer=layer)(images, "a") for one in (people, fast))
    torch.testing.assert_close(new.cells, old.cells, rtol=1e-3, atol=1e-4 * float(old.cells.abs().max()))


def test_layers_are_the_same():
    model = FaceModel(shaken(FlatNet()))
    fast = accelerate(model, batch_size=2)
    assert fast.layers == model.layers
    assert fast.layer("auto") == model.layer("auto")
    assert fast.head.names == model.head.names


@pytest.mark.filterwarnings("ignore:CAM has only")
@pytest.mark.parametrize("name", ["dlib_model", "mobileface"])
def test_real_networks(request, name):
    model = request.getfixturevalue(name)
    images = torch.rand(2, 3, *model.spec.height_width)
    people = model.gallery({"a": images[:1], "b": images[1:]})
    before = model.fingerprint
    done = acceleration(people, images)
    assert len(done.folded) > 20
    assert done.difference < 1e-5
    assert model.fingerprint == before
    assert done.model.model.layers == model.layers
    old, new = (CAM(one)(images, "a") for one in (people, done.model))
    torch.testing.assert_close(new.cells, old.cells, rtol=1e-3, atol=1e-3 * float(old.cells.abs().max()))
    torch.testing.assert_close(new.constant, old.constant, rtol=1e-4, atol=1e-3)
    old, new = (HiResCAM(one)(images, "a") for one in (people, done.model))
    torch.testing.assert_close(new.cells, old.cells, rtol=1e-3, atol=1e-3 * float(old.cells.abs().max()))
