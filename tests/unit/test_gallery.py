"""Enrolled people as a classifier."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nets import FlatNet, GapNet, shaken

from facexai import CAM, FaceModel, FaceXAIWarning, InputSpec, images


@pytest.fixture
def model():
    return FaceModel(shaken(GapNet(16)), InputSpec(64))


@pytest.fixture
def faces():
    return torch.rand(4, 3, 64, 64)


def test_logits_are_scaled_cosines_to_mean_unit_embeddings(model, faces):
    people = model.gallery({"ann": faces[:3], "bo": faces[3:]}, scale=20.0)
    templates = F.normalize(torch.stack([model.embed(faces[:3]).mean(0), model.embed(faces[3:]).mean(0)]))
    torch.testing.assert_close(people.templates, templates)
    torch.testing.assert_close(people.logits(faces), 20 * model.embed(faces) @ templates.T)
    torch.testing.assert_close(people.cosines(faces), model.embed(faces) @ templates.T)
    assert people.names == ("ann", "bo")
    assert people.model is model
    assert people.index("bo") == 1


def test_embeddings_images_and_files_enrol_the_same(model, faces, tmp_path):
    for i, face in enumerate(faces):
        folder = tmp_path / f"p{i}"
        folder.mkdir()
        images.save(face, folder / "a.png")
    saved = images.load([tmp_path / f"p{i}" / "a.png" for i in range(4)])
    by_image = model.gallery({f"p{i}": saved[i] for i in range(4)})
    by_row = model.gallery({f"p{i}": model.embed(saved[i : i + 1])[0] for i in range(4)})
    by_path = model.gallery({f"p{i}": [tmp_path / f"p{i}" / "a.png"] for i in range(4)})
    by_folder = model.gallery(tmp_path)
    for other in (by_row, by_path, by_folder):
        assert other.names == by_image.names
        torch.testing.assert_close(other.templates, by_image.templates)


def test_the_gradient_of_the_default_score_holds_the_length_fixed(model, faces):
    people = model.gallery({"ann": faces[:1], "bo": faces[1:]})
    features = model.features(model.outputs(faces[:1])).detach().requires_grad_()
    (dot,) = torch.autograd.grad(people.score(features)[0, 0], features)
    torch.testing.assert_close(dot[0], 64 * people.templates[0] / features.norm())
    torch.testing.assert_close(dot, people.directions(features, torch.tensor([[0]]))[:, 0])
    (cosine,) = torch.autograd.grad(people.score(features, detach_norm=False)[0, 0], features)
    assert cosine.norm() < 1e-4 * dot.norm()  # an identical pair: the cosine cannot grow


def test_a_centre_is_subtracted_from_unit_rows(model):
    faces = torch.rand(10, 3, 64, 64)
    people = model.gallery({f"p{i}": face for i, face in enumerate(faces)}, center="enrolled", scale=1.0)
    unit = model.embed(faces)
    moved = F.normalize(unit - unit.mean(0))
    torch.testing.assert_close(people.logits(faces), moved @ moved.T, rtol=1e-4, atol=1e-4)
    features = model.features(model.outputs(faces[:2])).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(people.score(features)[:, 3].sum(), features)
    torch.testing.assert_close(gradient, people.directions(features, torch.full((2, 1), 3))[:, 0])


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ({}, "at least one person"),
        ({"ann": torch.zeros(0, 3, 64, 64)}, "'ann': expected images"),
        ({"ann": []}, "'ann': expected photo paths"),
        ({"ann": 5}, "'ann': expected images"),
        ({"ann": torch.zeros(16)}, "'ann': the mean embedding is zero"),
        ({"ann": torch.full((16,), float("nan"))}, "'ann': expected finite"),
        ({"ann": torch.ones(16), "bo": torch.ones(8)}, "different sizes"),
        ({"ann": torch.rand(1, 3, 32, 32)}, "images.resize"),
    ],
)
def test_people_that_cannot_be_enrolled(model, people, message):
    with pytest.raises(ValueError, match=message):
        model.gallery(people)


def test_wrong_arguments(model, faces, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.gallery(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"NAME/\*\.jpg"):
        model.gallery(tmp_path)
    with pytest.raises(ValueError, match="scale > 0"):
        model.gallery({"ann": faces}, scale=-1)
    with pytest.raises(ValueError, match="at least 10 people"):
        model.gallery({"ann": faces}, center="enrolled")
    with pytest.raises(ValueError, match=r"expected center \(16,\)"):
        model.gallery({"ann": faces}, center=torch.zeros(3))
    with pytest.raises(ValueError, match="did you mean 'ann'"):
        model.gallery({"ann": faces}).index("anne")
    (tmp_path / "ann").mkdir()
    images.save(torch.rand(3, 50, 40), tmp_path / "ann" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: 50x40 pixels.*align='auto'"):
        model.gallery(tmp_path)


def test_templates_of_another_model_are_refused(model, faces):
    other = FaceModel(shaken(FlatNet()), "arcface")
    people = model.gallery({"ann": faces})
    with pytest.raises(ValueError, match="32 numbers"):
        people.score(other.features(other.outputs(torch.rand(1, 3, 112, 112))))


def test_hidden_and_empty_folders_are_not_people(model, faces, tmp_path):
    for name in ("ann", ".ipynb_checkpoints", "nobody"):
        (tmp_path / name).mkdir()
    images.save(faces[0], tmp_path / "ann" / "a.png")
    images.save(faces[0], tmp_path / ".ipynb_checkpoints" / "a.png")
    (tmp_path / "ann" / "._a.png").write_bytes(b"resource fork")
    with pytest.warns(FaceXAIWarning, match="no photos of nobody"):
        people = model.gallery(tmp_path)
    assert people.names == ("ann",)


def test_names_that_become_the_same_text(model, faces):
    with pytest.raises(ValueError, match="same name"):
        model.gallery({1: faces[:1], "1": faces[1:]})


@pytest.mark.parametrize("turned", [False, True])
def test_class_weights_of_a_trained_head_are_a_gallery(turned):
    """Rows are normalised as margin heads do; the margin itself counts in training only."""
    model = FaceModel(shaken(FlatNet()), "arcface")
    weights = torch.nn.Parameter(3 * torch.randn(50, 32))
    people = model.gallery(weights.T if turned else weights, scale=30.0)
    images = torch.rand(2, 3, 112, 112)
    cosines = model.embed(images) @ F.normalize(weights.detach()).T
    torch.testing.assert_close(people.logits(images), 30 * cosines)
    assert people.names[:3] == ("0", "1", "2")
    assert not people.templates.requires_grad
    why = CAM(people)(images, 49)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=1e-4, atol=1e-4)
    named = model.gallery(weights, names=[f"id{k}" for k in range(50)], center="enrolled")
    assert named.index("id7") == 7
    assert named.center.shape == (32,)


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        (torch.randn(32, 32), {}, "either way round"),
        (torch.randn(50, 31), {}, r"\(C, 32\) or \(32, C\)"),
        (torch.randn(50), {}, "finite class weights"),
        (torch.full((50, 32), float("nan")), {}, "finite class weights"),
        (torch.ones(50, 32).long(), {}, "finite class weights"),
        (torch.cat([torch.ones(2, 32), torch.zeros(1, 32)]), {}, "class 2 has zero weights"),
        (torch.randn(50, 32), {"scale": "calibrated"}, "needs photos"),
        (torch.randn(50, 32), {"names": ["a"]}, "1 names for 50 classes"),
        ({"a": torch.randn(32)}, {"names": ["a"]}, "belongs to class weights"),
    ],
)
def test_bad_class_weights_get_one_clear_error(weights, options, message):
    with pytest.raises(ValueError, match=message):
        FaceModel(shaken(FlatNet()), "arcface").gallery(weights, **options)
