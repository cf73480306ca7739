"""XGrad-CAM: a literal loop, the sum that it keeps, and torchcam."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, shaken

from facexai import FaceModel, HiResCAM, XGradCAM
from facexai.explainers.xgradcam import xgradcam


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()).double(), "arcface")
    return model.gallery({f"p{i}": torch.randn(32).double() for i in range(4)}, scale=10.0)


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112, dtype=torch.float64)


def literal(activations, gradients):
    """One image, channel and cell at a time, in Python floats."""
    maps = []
    for channels, slopes in zip(activations.tolist(), gradients.tolist(), strict=True):
        cells = [[0.0] * len(channels[0][0]) for _ in channels[0]]
        for a, g in zip(channels, slopes, strict=True):
            total = sum(v for row in a for v in row)
            weight = sum(g[i][j] * a[i][j] / total for i in range(len(a)) for j in range(len(a[0])))
            for i, row in enumerate(a):
                for j, value in enumerate(row):
                    cells[i][j] += weight * value
        maps.append(cells)
    return torch.tensor(maps, dtype=torch.float64)


def test_it_equals_the_literal_loop():
    activations, gradients = torch.rand(3, 5, 4, 6).double(), torch.randn(3, 5, 4, 6).double()
    torch.testing.assert_close(xgradcam(activations, gradients), literal(activations, gradients))


@pytest.mark.parametrize("layer", ["stem", "layer3", "layer4"])
def test_the_cells_add_up_to_those_of_hirescam(people, images, layer):
    """Conservation, on activations of both signs too: the total is that of activation times gradient."""
    ours, theirs = XGradCAM(people, layer=layer, relu=False), HiResCAM(people, layer=layer)
    torch.testing.assert_close(ours(images, "p1").cells.sum((1, 2)), theirs(images, "p1").cells.sum((1, 2)))
    assert not torch.allclose(ours(images, "p1").cells, theirs(images, "p1").cells)


def test_channels_that_add_up_to_zero_count_nothing():
    activations = torch.tensor([[[[1.0, -1.0]], [[0.0, 0.0]], [[1.0, 3.0]], [[0.3, -0.3]]]])
    assert torch.equal(xgradcam(activations, torch.ones(1, 4, 1, 2)), torch.tensor([[[1.0, 3.0]]]))


def test_it_equals_torchcam(people, images):
    methods = pytest.importorskip("torchcam.methods", exc_type=ImportError)

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = people.model.net

        def forward(self, x):
            return people.score(people.model.features(self.net(x)), detach_norm=False)

    whole = Whole().eval()
    with methods.XGradCAM(whole, "net.layer3") as extractor:
        (theirs,) = extractor(2, whole(people.model.spec.prepare(images)), normalized=False)
    ours = XGradCAM(people, layer="layer3", similarity="cosine")(images, 2).cells
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-6)
