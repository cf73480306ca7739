"""Networks whose output for an image, or whose layers' rows, depend on the other images of the batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from facexai import CAM, FaceModel, GradCAM, HiResCAM, InputSpec, LayerCAM, ScoreCAM
from facexai.models._row_mixing import known_to_mix

SPEC = InputSpec(56)
FACES = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Two convolutions and a linear head, with what is done to the rows between and behind."""

    def __init__(self, between=lambda x: x, behind=lambda x: x):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 8, 3, padding=1)
        self.end, self.between, self.behind = nn.Linear(8 * 49, 16), between, behind

    def forward(self, x):
        return self.behind(self.end(self.second(self.between(self.first(x).relu())).flatten(1)))


MIXING = {
    "attention": lambda: Net(lambda x: x + x.mean(0, keepdim=True)),
    "statistics": lambda: Net(nn.BatchNorm2d(8, track_running_stats=False)),
    "little": lambda: Net(lambda x: x + 1e-3 * x.mean(0)),
    "swapped inside": lambda: Net(lambda x: x.flip(0), lambda e: e.flip(0)),  # the output is right, the maps are not
    "swapped": lambda: Net(behind=lambda e: e.roll(1, 0)),
}
ORDINARY = {
    "plain": Net,
    "half": lambda: Net().half(),
    "double": lambda: Net().double(),
    "random": lambda: Net(behind=lambda e: e + torch.rand(16)),
}


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


@pytest.mark.parametrize("method", [HiResCAM, GradCAM, CAM, LayerCAM, ScoreCAM])
@pytest.mark.parametrize("name", MIXING)
def test_a_map_does_not_change_with_its_neighbours(name, method):
    people = FaceModel(seeded(MIXING[name]), SPEC).gallery({"a": torch.arange(16.0), "b": torch.ones(16)})
    explainer = method(people) if method is CAM else method(people, layer="second")
    together = explainer(FACES, targets="a")
    for i, face in enumerate(FACES):
        alone = explainer(face[None], targets="a")
        size = float(alone.maps.abs().max())
        assert torch.allclose(together.maps[i], alone.maps[0], rtol=0, atol=1e-4 * size)
        assert torch.allclose(together.scores[i], alone.scores[0])
    assert "images one at a time" in together.recipe["model"]


@pytest.mark.parametrize("flip", [None, "sum", "concat"])
@pytest.mark.parametrize("name", MIXING)
def test_outputs_are_those_of_images_alone(name, flip):
    net = seeded(MIXING[name])
    model = FaceModel(net, SPEC, flip=flip)
    with torch.no_grad():
        rows = torch.cat([net(x[None]) for x in (FACES if flip is None else torch.cat([FACES, FACES.flip(3)]))])
    assert torch.equal(model.outputs(FACES).detach(), rows)
    assert known_to_mix(net) is True
    assert {"first", "second"} <= set(model.layers)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_network_keeps_its_bits(name):
    net = seeded(ORDINARY[name])
    model = FaceModel(net, SPEC)
    torch.manual_seed(1)
    with torch.no_grad():
        expected = net(FACES.to(model.dtype))
    torch.manual_seed(1)
    assert torch.equal(model.outputs(FACES), expected)
    assert known_to_mix(net) is False
    assert "one at a time" not in repr(model)


def test_the_look_for_mixing_costs_two_passes_of_two_images_once_for_each_network():
    net, sizes = seeded(Net), []
    net.first.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    for model in (FaceModel(net, SPEC), FaceModel(net, SPEC, flip="sum")):
        model.embed(FACES)
    assert sizes == [2, 2, 3, 6]
    twin = copy.deepcopy(net)
    assert known_to_mix(twin) is None
    net.between = nn.BatchNorm2d(8, track_running_stats=False)  # a module was exchanged
    model.embed(FACES)
    assert known_to_mix(net) is True


def test_a_single_image_costs_one_pass():
    net, sizes = seeded(Net), []
    net.first.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    FaceModel(net, SPEC).embed(FACES[:1])
    assert sizes == [1]


def test_black_boxes_are_looked_at_too():
    def centred(x: np.ndarray) -> np.ndarray:
        rows = x.mean((2, 3))
        return rows - rows.mean(0) / 2

    model = FaceModel.from_callable(centred, SPEC)
    torch.testing.assert_close(model.embed(FACES), nn.functional.normalize(FACES.mean((2, 3)) / 2))
    assert "images one at a time" in repr(model)


def test_a_network_that_mixes_and_needs_batches_says_both():
    model = FaceModel(seeded(lambda: Net(behind=nn.BatchNorm1d(16, track_running_stats=False))), SPEC)
    with pytest.raises(ValueError, match="more than 1 value per channel") as refusal:
        model.embed(FACES)
    assert "depends on the others in its batch" in "".join(refusal.value.__notes__)


def test_other_arguments_keep_to_their_image():
    class Scaled(Net):
        def forward(self, x, by):
            return super().forward(x) * by

    net = seeded(lambda: Scaled(lambda x: x + x.mean(0, keepdim=True)))
    by = torch.tensor([[1.0], [2.0], [3.0]])
    rows = FaceModel(net, SPEC, forward_kwargs={"by": by}).outputs(FACES)
    expected = torch.cat([net(x[None], b[None]) for x, b in zip(FACES, by, strict=True)])
    assert torch.equal(rows, expected)


def test_a_gradient_at_the_image_is_that_of_the_image_alone():
    net = seeded(MIXING["attention"])
    model, x = FaceModel(net, SPEC), FACES.clone().requires_grad_()
    (together,) = torch.autograd.grad(model.outputs(x)[:, 0].sum(), x)
    for i, face in enumerate(FACES):
        y = face[None].clone().requires_grad_()
        assert torch.allclose(torch.autograd.grad(net(y)[:, 0].sum(), y)[0][0], together[i], atol=1e-7)


def test_a_network_of_fixed_batches_is_asked_with_its_batch():
    net, sizes = seeded(lambda: Net(behind=lambda e: e.view(3, 16))), []
    net.first.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    FaceModel(net, SPEC).outputs(FACES)
    assert sizes == [2, 3, 3, 2, 3]
    assert known_to_mix(net) is False


def test_an_error_that_comes_once_is_not_swallowed():
    net, calls = seeded(Net), []

    def once(*_):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the first time")

    net.first.register_forward_hook(once)
    with pytest.raises(RuntimeError, match="the first time"):
        FaceModel(net, SPEC).outputs(FACES)
