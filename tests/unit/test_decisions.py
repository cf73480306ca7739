"""Decisions: what they say, whose gradient they have, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import FlatNet, GapNet, UnitNet, shaken
from torch import nn

from facexai import FaceModel, InputSpec, decisions

SPEC = InputSpec(64, channels="BGR", mean=0.5, std=0.5)


@pytest.fixture
def model():
    return FaceModel(shaken(GapNet(16)), SPEC)


@pytest.fixture
def classes():
    return FaceModel(shaken(GapNet(5)), SPEC, output="logits", names=("ann", "bo", "cy", "di", "ed"))


@pytest.fixture
def faces():
    return torch.rand(4, 3, 64, 64)


class Dropping(nn.Module):
    """One logit, with layers whose mode matters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 1)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).mean((2, 3))))


def slope(decision, images):
    leaf = images.clone().requires_grad_(True)
    return torch.autograd.grad(decision(leaf).sum(), leaf)[0]


# ---- asking any decision ------------------------------------------------------------------------------------------


def test_a_score_is_one_number_per_image(faces):
    flat = decisions.score(lambda x: x.mean((1, 2, 3)), faces)
    torch.testing.assert_close(decisions.score(lambda x: x.mean((1, 2, 3))[:, None], faces), flat)
    torch.testing.assert_close(decisions.score_batched(lambda x: x.mean((1, 2, 3)), faces, 3), flat.double())
    assert decisions.score(lambda x: x.mean((1, 2, 3)).half(), faces).dtype == torch.float32
    assert decisions.score(lambda x: x.mean((1, 2, 3)).double(), faces).dtype == torch.float64


@pytest.mark.parametrize(
    ("decision", "error", "message"),
    [
        (lambda x: x.mean((1, 2, 3)) > 0, TypeError, "floating-point tensor, got torch.bool"),
        (lambda x: x.mean((1, 2, 3)).numpy(), TypeError, "got ndarray"),
        (lambda x: x.mean((2, 3)), ValueError, r"\(4,\) or \(4, 1\), got \(4, 3\)"),
        (lambda x: x.mean(), ValueError, r"got \(\)"),
        (lambda x: x[:, 0, 0, 0] / torch.tensor([1.0, 0.0, 1.0, 1.0]), ValueError, r"infinity for image \[1\]"),
        (FaceModel(nn.Flatten()), TypeError, r"got FaceModel; decisions\.of_class"),
    ],
)
def test_what_is_no_decision(faces, decision, error, message):
    with pytest.raises(error, match=message):
        decisions.score(decision, faces)
    with pytest.raises(ValueError, match="batch size"):
        decisions.score_batched(lambda x: x.mean((1, 2, 3)), faces, 0)


def test_a_bare_network_is_asked_in_eval_mode_and_left_as_it_was(faces):
    net = Dropping().train()
    net.norm.eval()
    state, drawn = {k: v.clone() for k, v in net.state_dict().items()}, torch.random.get_rng_state()
    for decision in (net, decisions.binary(net)):
        asked = decisions.score(decision, faces)
        torch.testing.assert_close(decisions.score(decision, faces), asked)
        assert (net.training, net.drop.training, net.norm.training) == (True, True, False)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    torch.testing.assert_close(asked, Dropping.forward(net.eval(), faces)[:, 0])


# ---- one logit ----------------------------------------------------------------------------------------------------


def test_binary_keeps_the_grad_mode(faces):
    decision = decisions.binary(Dropping())
    assert decision(faces).shape == (4,)
    assert slope(decision, faces + 0.2).abs().sum() > 0
    with torch.no_grad():
        assert not decision(faces).requires_grad
    assert decisions.binary(nn.Sequential(Dropping(), nn.Flatten(0)))(faces).shape == (4,)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((1, 3, 8, 8)), TypeError, "torch.Tensor"),
        (torch.zeros(3, 8, 8), ValueError, r"images\[None\]"),
        (torch.zeros(0, 3, 8, 8), ValueError, "at least one image"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating-point"),
        (torch.full((1, 3, 8, 8), float("nan")), ValueError, "NaN"),
    ],
)
def test_bad_images(model, classes, images, error, message):
    for decision in (
        decisions.binary(Dropping()),
        decisions.of_class(classes, 0),
        decisions.verification(model, torch.rand(1, 3, 64, 64), 0.3),
    ):
        with pytest.raises(error, match=message):
            decision(images)


def test_binary_refuses(faces):
    with pytest.raises(TypeError, match="already"):
        decisions.binary(lambda x: x)
    with pytest.raises(ValueError, match=r"got \(4, 5\); decisions\.of_class"):
        decisions.binary(GapNet(5))(faces)


# ---- a class ------------------------------------------------------------------------------------------------------


def test_a_lead_is_positive_exactly_where_the_class_is_predicted(classes, model, faces):
    people = model.gallery({name: torch.randn(2, 16) for name in ("x", "y", "z")}, scale=10.0)
    many = torch.rand(40, 3, 64, 64) * torch.linspace(0, 1, 40)[:, None, None, None]
    for classifier in (classes, people):
        logits, seen = classifier.logits(many), set()
        for target, name in enumerate(classifier.names):
            lead = decisions.score(decisions.of_class(classifier, name), many)
            predicted = logits.argmax(1) == target
            assert torch.equal(lead > 0, predicted)
            seen |= set(predicted.tolist())
            rest = torch.cat([logits[:, :target], logits[:, target + 1 :]], 1)
            torch.testing.assert_close(lead, logits[:, target] - rest.amax(1))
        assert seen == {True, False}


def test_a_lead_over_a_rival(classes, faces):
    logits = classes.logits(faces)
    decision = decisions.of_class(classes, "bo", rival=3)
    torch.testing.assert_close(decision(faces).detach(), logits[:, 1] - logits[:, 3])
    assert decision.recipe["rival"] == "di"


def test_a_gallerys_lead_has_the_gradient_of_the_cosine(model, faces):
    """The length of the embedding is no constant here."""
    people = model.gallery({name: torch.randn(2, 16) for name in ("x", "y")}, scale=10.0)

    def literal(x):
        prepared = (x.flip(1) - 0.5) / 0.5
        unit = F.normalize(model.net(prepared))
        return 10 * (unit @ people.templates[0] - unit @ people.templates[1])

    torch.testing.assert_close(slope(decisions.of_class(people, "x"), faces), slope(literal, faces))


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("bob", {}, ValueError, r"no class is called 'bob'; .*'bo'"),
        (5, {}, ValueError, "from 0 to 4, got 5"),
        (-1, {}, ValueError, "from 0 to 4"),
        (True, {}, TypeError, "class index or a name"),
        ("bo", {"rival": 1}, ValueError, "other than the target"),
        ("bo", {"size": "crop"}, ValueError, "'resize', 'same'"),
    ],
)
def test_classes_that_are_refused(classes, target, options, error, message):
    with pytest.raises(error, match=message):
        decisions.of_class(classes, target, **options)


def test_classifiers_that_are_refused(model, faces):
    with pytest.raises(ValueError, match="gives embeddings, which have no classes"):
        decisions.of_class(model, 0)
    with pytest.raises(ValueError, match="no names"):
        decisions.of_class(FaceModel(GapNet(5), SPEC, output="logits"), "ann")
    with pytest.raises(ValueError, match="at least two classes"):
        decisions.of_class(FaceModel(GapNet(1), SPEC, output="logits"), 0)
    with pytest.raises(TypeError, match="got GapNet"):
        decisions.of_class(GapNet(5), 0)
    box = FaceModel.from_callable(lambda x: x.mean((2, 3)), SPEC)
    for make in (
        lambda: decisions.of_class(box.gallery({"ann": faces[:2], "bo": faces[2:]}), "ann"),
        lambda: decisions.verification(box, faces[:1], 0.3),
    ):
        with pytest.raises(ValueError, match=r"needs gradients; .*can be asked, not looked into"):
            make()


# ---- verification -------------------------------------------------------------------------------------------------


def test_verification_is_the_cosine_with_its_gradient(faces):
    model = FaceModel(shaken(UnitNet()), "adaface", take=0, flip="sum")
    images, reference = torch.rand(2, 3, 112, 112), torch.rand(1, 3, 112, 112)
    decision = decisions.verification(model, reference, 0.25, gain=7.0)

    def embed(x):
        prepared = (x.flip(1) - 0.5) / 0.5
        return F.normalize(model.net(prepared)[0] + model.net(prepared.flip(-1))[0])

    def literal(x):
        return 7 * (F.cosine_similarity(embed(x), embed(reference).detach()) - 0.25)

    torch.testing.assert_close(decision(images), literal(images))
    torch.testing.assert_close(slope(decision, images), slope(literal, images))
    assert decision(images * 1.2 - 0.1).isfinite().all()
    torch.testing.assert_close(
        decisions.verification(model, model.embed(reference), 0.25, 7.0)(images), literal(images)
    )


def test_rows_select_references(model, faces):
    decision = decisions.verification(model, faces.flip(0), 0.3)
    whole = decision(faces)
    torch.testing.assert_close(decision.rows(torch.tensor([2, 0]))(faces[[2, 0]]), whole[[2, 0]])
    chosen = torch.tensor([True, False, True, True])
    torch.testing.assert_close(decisions.select(decision, chosen)(faces[chosen]), whole[chosen])
    torch.testing.assert_close(decisions.score_batched(decision, faces, 3), whole.detach().double())
    with pytest.raises(ValueError, match="holds 4 references, got 2 images"):
        decision(faces[:2])
    one = decisions.verification(model, faces[:1], 0.3)
    assert one.rows(torch.tensor([1, 2])) is one
    assert float(one(faces)[0].detach()) == pytest.approx(20 * 0.7, abs=1e-4)
    plain = decisions.binary(Dropping())
    assert decisions.select(plain, chosen) is plain


@pytest.mark.parametrize("side", [48, 96])
def test_images_of_another_size(model, classes, side):
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    double = FaceModel(model.net.double(), SPEC)
    pixels = F.interpolate(images, size=(64, 64), mode="bilinear", antialias=side > 64)
    torch.testing.assert_close(decisions.resized(images, (64, 64)), pixels)
    decision = decisions.verification(double, images.flip(0), 0.3)
    torch.testing.assert_close(decision(images), decisions.verification(double, pixels.flip(0), 0.3)(pixels))
    assert torch.autograd.gradcheck(lambda x: decisions.resized(x, (4, 6)), images[:1, :, :8, :3].requires_grad_(True))
    assert slope(decision, images).shape == images.shape
    with pytest.raises(ValueError, match="takes 64x64 pixels"):
        decisions.verification(double, double.embed(pixels), 0.3, size="same")(images)
    with pytest.raises(ValueError, match="takes 64x64 pixels"):
        decisions.verification(double, images, 0.3, size="same")
    with pytest.raises(ValueError, match="takes 64x64 pixels"):
        decisions.of_class(classes, 0, size="same")(images.float())
    assert decisions.of_class(classes, 0)(images.float()).shape == (2,)
    assert decisions.resized(images, (side, side)) is images


@pytest.mark.parametrize(
    ("reference", "options", "error", "message"),
    [
        (torch.ones(1, 16), {}, ValueError, "of length 4 to 4; torch.nn.functional.normalize"),
        (torch.zeros(1, 16), {}, ValueError, "unit embeddings"),
        (torch.full((1, 16), float("nan")), {}, ValueError, "finite"),
        (torch.zeros(0, 16), {}, ValueError, "unit embeddings"),
        (torch.ones(16), {}, ValueError, "unit embeddings"),
        (torch.eye(16, dtype=torch.int64)[:1], {}, ValueError, "unit embeddings"),
        (torch.zeros(0, 3, 64, 64), {}, ValueError, "at least one image"),
        (torch.full((1, 3, 64, 64), 200.0), {}, ValueError, "divide 0..255"),
        (torch.full((1, 3, 80, 80), 200.0), {}, ValueError, "divide 0..255"),
        (None, {}, TypeError, "got FaceModel and NoneType"),
        (torch.eye(16)[:1], {"threshold": 30.0}, ValueError, "threshold from -1 to 1"),
        (torch.eye(16)[:1], {"gain": 0.0}, ValueError, "gain > 0"),
        (torch.eye(16)[:1], {"gain": float("nan")}, ValueError, "gain > 0"),
        (torch.eye(16)[:1], {"size": "crop"}, ValueError, "'resize', 'same'"),
    ],
)
def test_references_that_are_refused(model, reference, options, error, message):
    with pytest.raises(error, match=message):
        decisions.verification(model, reference, **{"threshold": 0.3, **options})


def test_models_that_are_refused(classes, faces):
    with pytest.raises(ValueError, match="gives logits"):
        decisions.verification(classes, faces[:1], 0.3)
    with pytest.raises(TypeError, match="got GapNet"):
        decisions.verification(GapNet(), faces[:1], 0.3)
    model = FaceModel(shaken(FlatNet()), "arcface")
    with pytest.raises(ValueError, match="16 numbers, the model's embeddings 32"):
        decisions.verification(model, torch.eye(16)[:1], 0.3)(torch.rand(1, 3, 112, 112))
    asked = FaceModel(GapNet(16), SPEC, forward_kwargs={"points": torch.zeros(4, 2)})
    with pytest.raises(ValueError, match=r"one row of forward_kwargs .*'points'"):
        decisions.verification(asked, torch.eye(16)[:1], 0.3)


# ---- what results say of them -------------------------------------------------------------------------------------


def test_a_decision_tells_its_recipe(model, classes, faces):
    people = model.gallery({name: torch.randn(2, 16) for name in ("x", "y")})
    net = Dropping()
    made = (
        decisions.binary(net),
        decisions.of_class(classes, "bo"),
        decisions.of_class(people, "x", "y", size="same"),
        decisions.verification(model, faces, 0.3),
    )
    for decision in made:
        told = repr(decision)
        assert told.startswith(decision.recipe["decision"])
        assert decision.recipe["fingerprint"] in told
        assert decision.recipe["network"] in told
        assert decisions.recipe_of(decision) == decision.recipe
    assert made[2].recipe["gallery"] == people.fingerprint
    other = decisions.verification(model, faces.flip(0), 0.3)
    assert other.recipe != made[3].recipe
    assert decisions.recipe_of(net) == made[0].recipe
    assert decisions.recipe_of(slope) == "slope"


@pytest.mark.parametrize(("weights", "images"), [(torch.float32, torch.float64), (torch.float16, torch.float32)])
def test_images_take_the_precision_of_the_weights(weights, images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 1)).to(weights)
    x = torch.rand(2, 3, 4, 4, dtype=images)
    for decision in (net, decisions.binary(net)):
        found = decisions.score(decision, x.requires_grad_(True))
        assert found.dtype == torch.float32
        assert torch.autograd.grad(found.sum(), x)[0].dtype == images


def test_references_of_other_photos_are_refused():
    images = torch.rand(5, 3, 20, 20)
    pairs = decisions.verification(FaceModel(shaken(GapNet()), InputSpec(20)), images, 0.5)
    assert pairs.held == 5
    with pytest.raises(ValueError, match="each of 5 images, got 3"):
        decisions.score_batched(pairs, images[2:])
