"""captum's baselines through our call: captum's numbers, the model untouched."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, shaken
from torch import nn

from facexai import FaceModel, FaceXAIWarning, baselines, metrics

captum = pytest.importorskip("captum.attr", exc_type=ImportError)
pytest.importorskip("sklearn")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()), "arcface")
    return model.gallery({f"p{i}": torch.randn(32) for i in range(4)})


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112)


class Whole(nn.Module):
    def __init__(self, people):
        super().__init__()
        self.people, self.net = people, people.model.net

    def forward(self, images):
        model = self.people.model
        return self.people.score(model.features(self.net((images - 0.5) / 0.5)), detach_norm=False)


@pytest.mark.parametrize("name", ["Saliency", "InputXGradient", "IntegratedGradients", "Occlusion"])
def test_the_numbers_are_captums(people, images, name):
    options = {
        "IntegratedGradients": {"n_steps": 8},
        "Occlusion": {"sliding_window_shapes": (3, 56, 56), "strides": (3, 56, 56)},
    }
    chosen = options.get(name, {})
    for block in (people.model.net.layer3, people.model.net.layer4):
        block.inplace = block.relu.inplace = False
    theirs = getattr(captum, name)(Whole(people).eval()).attribute(images, target=2, **chosen)
    expected = theirs.abs().amax(1) if name == "Saliency" else theirs.sum(1)
    ours = baselines.captum(name, people, **chosen)(images, "p2")
    torch.testing.assert_close(ours.cells, expected.detach().float(), rtol=1e-3, atol=1e-5)
    assert torch.equal(ours.maps, ours.cells)


@pytest.mark.parametrize("name", baselines.METHODS)
def test_every_baseline_runs_and_leaves_the_model_alone(people, images, name):
    net = people.model.net
    net.layer3.train()
    before = (
        {k: v.clone() for k, v in net.state_dict().items()},
        [m.training for m in net.modules()],
        torch.get_rng_state(),
    )
    fast = {"IntegratedGradients": {"n_steps": 4}, "Lime": {"n_samples": 30}}.get(name, {})
    why = baselines.captum(name, people, **fast)(images)
    again = baselines.captum(name, people, **fast)(images)
    assert torch.equal(why.cells, again.cells)
    assert why.cells.shape == (2, 112, 112)
    assert torch.isfinite(why.cells).all()
    assert why.recipe["method"] == f"captum {name}"
    assert all(torch.equal(v, before[0][k]) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
    assert all(q.grad is None for q in net.parameters())
    assert metrics.deletion(people, images, why).recipe["score"] == "cosine"


def test_unknown_baselines_and_missing_captum(people, images, monkeypatch):
    import sys

    with pytest.raises(ValueError, match="did you mean 'IntegratedGradients'"):
        baselines.captum("IntegratedGradient", people)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r"facexai\[parity\]"):
        baselines.captum("Saliency", people)(images)


@pytest.mark.parametrize("name", ["DeepLift", "GuidedGradCam"])
def test_baselines_that_do_not_work_with_flip_are_refused(people, name):
    flipped = FaceModel(people.model.net, "arcface", flip="sum").gallery({"a": torch.randn(32), "b": torch.randn(32)})
    with pytest.raises(ValueError, match="does not work with flip"):
        baselines.captum(name, flipped)


@pytest.mark.parametrize("name", ["DeepLift", "GuidedBackprop"])
def test_baselines_without_anything_to_change_say_so(images, name):
    net = nn.Sequential(nn.Conv2d(3, 4, 16, stride=16), nn.Flatten(), nn.Linear(196, 6))
    model = FaceModel(net, "arcface", output="logits")
    with pytest.warns(FaceXAIWarning, match="this network has none"):
        baselines.captum(name, model)(images)
