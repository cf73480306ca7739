"""The same numbers as the library grad-cam (pytorch-grad-cam), on convolutions and on tokens with registers."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, shaken
from networks import NETWORKS

from facexai import FaceModel, GradCAM, GradCAMPlusPlus, HiResCAM, InputSpec, LayerCAM, ScoreCAM, XGradCAM

pytestmark = pytest.mark.slow
KINDS = {
    "GradCAM": lambda model, layer: GradCAM(model, layer, relu=False),
    "HiResCAM": HiResCAM,
    "XGradCAM": lambda model, layer: XGradCAM(model, layer, relu=False),
    "LayerCAM": lambda model, layer: LayerCAM(model, layer, relu=False),
    "ScoreCAM": lambda model, layer: ScoreCAM(model, layer, convention="pytorch-grad-cam", relu=False),
}


def by_rows(tokens):
    """What a user of grad-cam gives as ``reshape_transform``: class token and four registers, then 7x7 patches."""
    return tokens[:, 5:].reshape(len(tokens), 7, 7, -1).permute(0, 3, 1, 2)


def cases():
    """Network, layer, and the ``reshape_transform`` that grad-cam needs."""
    torch.manual_seed(0)
    tokens = NETWORKS["timm DINOv3"].model().net
    return {"convolutions": (shaken(FlatNet()), "layer3", None), "registers": (tokens, "blocks.1", by_rows)}


def theirs(kind, net, layer, reshape, x):
    """Maps of class 2 (N, h, w), before grad-cam scales and enlarges them."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, targets = net.get_submodule(layer), [ClassifierOutputTarget(2)] * len(x)
    with getattr(pytorch_grad_cam, kind)(net, [module], reshape_transform=reshape) as cam:
        outputs = cam.activations_and_grads(x.clone().requires_grad_())
        sum(target(row) for target, row in zip(targets, outputs, strict=True)).backward()
        kept = cam.activations_and_grads
        activations = kept.activations[0].numpy().copy()  # its own forward passes append to the list
        gradients = kept.gradients[0].numpy()
        cells = cam.get_cam_image(x, module, targets, activations, gradients, False)
    return torch.as_tensor(cells).float()


@pytest.mark.parametrize("name", ["convolutions", "registers"])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_equal_grad_cam(networks, name, kind):
    net, layer, reshape = cases()[name]
    model = FaceModel(net, InputSpec(112), output="logits")
    images = torch.rand(2, 3, 112, 112)
    expected = theirs(kind, net, layer, reshape, images)
    ours = KINDS[kind](model, layer)(images, 2).cells
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_gradcam_plus_plus_equals_grad_cam_where_no_guard_acts(networks):
    """Activations that are not negative, and gradients beside which grad-cam's 1e-6 in the denominator is nothing."""
    net, layer, _ = cases()["convolutions"]
    torch.nn.init.normal_(net.fc.weight, std=100.0)
    images = torch.rand(2, 3, 112, 112)
    expected = theirs("GradCAMPlusPlus", net, layer, None, images)
    ours = GradCAMPlusPlus(FaceModel(net, InputSpec(112), output="logits"), layer, relu=False)(images, 2).cells
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_reshape_transform_is_a_layout(networks):
    """What grad-cam's users write for a layer is taken as it is, and is what values say without it."""
    net, layer, reshape = cases()["registers"]
    given = FaceModel(net, InputSpec(112), output="logits", layouts={layer: reshape})
    own = FaceModel(net, InputSpec(112), output="logits")
    images = torch.rand(2, 3, 112, 112)
    cells = [HiResCAM(model, layer)(images, 2).cells for model in (given, own)]
    torch.testing.assert_close(*cells, rtol=1e-4, atol=1e-6)
