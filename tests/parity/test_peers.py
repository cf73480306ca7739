"""The same numbers as independent libraries where they compute the same thing."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, GapNet, shaken
from torch import nn

from facexai import CAM, SDD, FaceModel, GradCAM, HiResCAM, InputSpec, LayerCAM, ScoreCAM

captum = pytest.importorskip("captum.attr", exc_type=ImportError)
torchcam = pytest.importorskip("torchcam.methods", exc_type=ImportError)


class GalleryNet(nn.Module):
    """A gallery as one network from prepared images to logits, for libraries that want that."""

    def __init__(self, people):
        super().__init__()
        self.people, self.net = people, people.model.net

    def forward(self, x):
        return self.people.score(self.people.model.features(self.net(x)), detach_norm=False)


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()), "arcface")
    return model.gallery({f"p{i}": torch.randn(32) for i in range(4)})


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_gradcam_equals_captum(people, images, layer):
    whole = GalleryNet(people).eval()
    theirs = captum.LayerGradCam(whole, whole.net.get_submodule(layer)).attribute(
        people.model.spec.prepare(images), target=2, relu_attributions=True
    )
    ours = GradCAM(people, layer=layer, similarity="cosine")(images, 2).cells
    torch.testing.assert_close(ours, theirs[:, 0].detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_hirescam_equals_captums_activation_times_gradient(people, images, layer):
    whole = GalleryNet(people).eval()
    theirs = captum.LayerGradientXActivation(whole, whole.net.get_submodule(layer)).attribute(
        people.model.spec.prepare(images), target=1
    )
    ours = HiResCAM(people, layer=layer, similarity="cosine")(images, 1).cells
    torch.testing.assert_close(ours, theirs.sum(1).detach(), rtol=1e-4, atol=1e-5)


def test_gradcam_equals_torchcam(people, images):
    whole = GalleryNet(people).eval()
    with torchcam.GradCAM(whole, "net.layer3") as extractor:
        scores = whole(people.model.spec.prepare(images))
        (theirs,) = extractor(2, scores, normalized=False)
    ours = GradCAM(people, layer="layer3", similarity="cosine")(images, 2).cells
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-6)


def test_sdd_without_scaling_and_amplification_is_finer_cam(people, images):
    """Linear in the gradient: the map of y_t - mean(y_r) is the mean of the differences of class maps."""
    whole, rivals = GalleryNet(people).eval(), [0, 3]
    with torchcam.FinerCAM(whole, "net.layer3", gamma=1.0) as extractor:
        scores = whole(people.model.spec.prepare(images))
        (theirs,) = extractor(2, scores, comparison_idx=rivals, normalized=False)
    base = GradCAM(people, layer="layer3", similarity="cosine")
    ours = SDD(base, rivals=rivals, scale="none", amplify="none")(images, 2).cells
    torch.testing.assert_close(ours.clamp(min=0) / len(rivals), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_layercam_equals_torchcam(people, images):
    whole = GalleryNet(people).eval()
    with torchcam.LayerCAM(whole, "net.layer3") as extractor:
        scores = whole(people.model.spec.prepare(images))
        (theirs,) = extractor(2, scores, normalized=False)
    ours = LayerCAM(people, layer="layer3", similarity="cosine")(images, 2).cells
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["layer3", "stem"])
def test_scorecam_equals_torchcam(people, images, layer):
    whole = GalleryNet(people).eval()
    with torchcam.ScoreCAM(whole, f"net.{layer}", batch_size=5) as extractor, torch.no_grad():
        scores = whole(people.model.spec.prepare(images))
        (theirs,) = extractor(2, scores, normalized=False)
    ours = ScoreCAM(people, layer=layer, convention="torchcam")(images, 2).cells
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_cam_equals_torchcam_on_a_pooled_head(images):
    """torchcam weighs by the class's row; ours also divides by the cells of the mean, so that cells add up."""
    net = shaken(GapNet())
    model = FaceModel(net, InputSpec(112), output="logits")
    signs = set()
    for target in range(10):
        with torchcam.CAM(net, "block", "fc") as extractor:
            net(images)
            (theirs,) = extractor(target, normalized=False)
        ours = CAM(model)(images, target).cells
        torch.testing.assert_close(196 * ours, theirs.detach(), rtol=1e-4, atol=1e-6)
        signs |= {bool(v) for v in (ours > 0).unique()}
    assert signs == {True, False}
