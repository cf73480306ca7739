"""Eigen-CAM: an eigenvector by power iteration, what cannot change the map, and the same map for every class."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, shaken

from facexai import EigenCAM, FaceModel
from facexai.explainers.eigencam import eigencam
from facexai.hooks import capture, no_graph


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()).double(), "arcface")
    return model.gallery({f"p{i}": torch.randn(32).double() for i in range(4)}, scale=10.0)


def literal(activations):
    """The largest eigenvector of channels by channels, found by multiplying again and again."""
    maps = []
    for a in activations:
        rows = a.flatten(1).T  # cells by channels
        v = torch.ones(rows.shape[1], dtype=torch.float64)
        for _ in range(5000):
            v = rows.T @ (rows @ v)
            v = v / v.norm()
        cells = rows @ v
        maps.append((cells if cells.sum() >= 0 else -cells).view(a.shape[1:]))
    return torch.stack(maps)


def test_it_equals_the_literal_eigenvector():
    activations = torch.rand(3, 8, 5, 4).double()
    activations[1] -= 0.3
    torch.testing.assert_close(eigencam(activations), literal(activations), rtol=1e-6, atol=1e-6)


def test_it_is_the_projection_of_the_layers_own_map(people):
    images = torch.rand(2, 3, 112, 112, dtype=torch.float64)
    with no_graph(), capture(people.model.net, "layer3") as seen:
        people.model.outputs(images)
    torch.testing.assert_close(
        EigenCAM(people, layer="layer3")(images).cells, literal(seen.tensor), rtol=1e-6, atol=1e-6
    )


def test_neither_sign_nor_rotation_of_the_channels_changes_the_map():
    activations = torch.randn(2, 6, 4, 4).double()
    turn = torch.linalg.qr(torch.randn(6, 6).double())[0]
    turned = torch.einsum("dc,nchw->ndhw", turn, activations)
    for same in (-activations, activations[:, [3, 1, 0, 2, 5, 4]], turned):
        torch.testing.assert_close(eigencam(same).abs(), eigencam(activations).abs())
    torch.testing.assert_close(eigencam(turned), eigencam(activations))
    torch.testing.assert_close(eigencam(3 * activations), 3 * eigencam(activations))


def test_every_class_has_the_same_map_and_its_own_score(people):
    explainer = EigenCAM(people, layer="layer3")
    evidence = explainer.observe(torch.rand(2, 3, 112, 112, dtype=torch.float64))
    first, second = explainer.answer(evidence, "p0"), explainer.answer(evidence, "p1")
    assert torch.equal(first.cells, second.cells)
    assert not torch.equal(first.scores, second.scores)
    assert first.recipe["class_specific"] is False
