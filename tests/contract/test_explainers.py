"""What every explainer of classes promises: those of the registry, and variants of their options."""

from __future__ import annotations

import dataclasses
import warnings
from functools import partial

import pytest
import torch
from nets import FlatNet, shaken
from rows import CLASSES, small
from untouched import mixed_modes, same, snapshot

from facexai import CAM, SDD, CorrRISE, FaceModel, GradCAM, HiResCAM, ScoreCAM

VARIANTS = {
    "HiResCAM-cosine": lambda c: HiResCAM(c, layer="layer3", similarity="cosine"),
    "ScoreCAM-keep": lambda c: ScoreCAM(c, layer="layer3", keep=8, weights="softmax-logit"),
    "SDD-CAM": lambda c: SDD(CAM(c), rivals=2),
    "SDD-CorrRISE": lambda c: SDD(CorrRISE(c, "grid", count=12), rivals=2),
    "SDD-GradCAM": lambda c: SDD(GradCAM(c, layer="layer3"), rivals=["p0"]),
    "SDD-ScoreCAM": lambda c: SDD(ScoreCAM(c, layer="layer3"), rivals=2),
}
PLAIN = {row.cls: partial(small, row, layer="layer3") for row in CLASSES} | {
    "SDD-HiResCAM": lambda c: SDD(HiResCAM(c, layer="layer3"), rivals=2)
}
EXPLAINERS = PLAIN | VARIANTS
FLIPS = (None, "sum", "concat")


def make(explainer, flip=None, dtype=torch.float32, net=None):
    torch.manual_seed(1)
    net = shaken(FlatNet()).to(dtype) if net is None else net
    model = FaceModel(net, "arcface", flip=flip)
    rows = torch.randn(5, 64 if flip == "concat" else 32, generator=torch.Generator().manual_seed(2))
    people = model.gallery({f"p{i}": row for i, row in enumerate(rows)})
    return EXPLAINERS[explainer](people)


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=EXPLAINERS)
def name(request):
    return request.param


TARGETS = ["p1", "p3", "p4"]


def test_it_leaves_everything_as_it_was(name, images):
    explainer = make(name)
    net = mixed_modes(explainer.classifier.model.net)
    images.requires_grad_(True)
    before = snapshot(net, images)
    explainer(images, TARGETS)
    assert same(before, snapshot(net, images))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["stem", "layer3", "bn2", "features"])
def test_it_leaves_everything_as_it_was_after_a_failure(name, images, where, error):
    explainer = make(name)
    net = mixed_modes(explainer.classifier.model.net)
    explainer(images, TARGETS)

    def fail(*_):
        raise error("boom")

    net.get_submodule(where).register_forward_hook(fail)
    before = snapshot(net, images)
    with pytest.raises(error, match="boom"):
        explainer(images, TARGETS)
    assert same(before, snapshot(net, images))


def test_no_grad_inference_mode_and_frozen_weights_change_nothing(name, images):
    explainer = make(name)
    expected = explainer(images, TARGETS).cells
    with torch.no_grad():
        assert torch.equal(explainer(images, TARGETS).cells, expected)
    with torch.inference_mode():
        assert torch.equal(explainer(images.clone(), TARGETS).cells, expected)
    explainer.classifier.model.net.requires_grad_(False)
    assert torch.equal(explainer(images, TARGETS).cells, expected)


@pytest.mark.parametrize("flip", FLIPS)
def test_batch_equals_loop(name, images, flip):
    explainer = make(name, flip)
    batch = explainer(images, TARGETS)
    for i, target in enumerate(TARGETS):
        one = explainer(images[i : i + 1], target)
        near = 1e-4 if name.startswith("SDD") else 1e-5  # the power of 15 makes rounding larger
        torch.testing.assert_close(one.cells[0], batch.cells[i], rtol=near, atol=near)
        torch.testing.assert_close(one.scores[0], batch.scores[i], rtol=1e-5, atol=1e-5)


def test_the_same_twice(name, images):
    explainer = make(name)
    assert torch.equal(explainer(images, TARGETS).cells, explainer(images, TARGETS).cells)


def test_observe_once_answer_many(name, images):
    explainer = make(name)
    explainer(images)  # the model looks at its own structure once
    runs = []
    explainer.classifier.model.net.register_forward_hook(lambda *_: runs.append(1))
    evidence = explainer.observe(images)
    passes = len(runs)
    assert passes == (2 if "ScoreCAM" in name or "CorrRISE" in name else 1)  # masked images are the second
    for target in ("p1", "p3", 2):
        torch.testing.assert_close(explainer.answer(evidence, target).cells, explainer(images, target).cells)
    assert len(runs) == 4 * passes  # again for each call, never for the answers


@pytest.mark.parametrize("layer", ["layer3.bn1", "layer3.bn2", "layer3", "layer4.bn2"])
def test_in_place_operations_after_the_layer_change_nothing(name, images, layer):
    """bn1 is followed by ReLU(inplace=True), bn2 by ``out += identity``; the twin does both out of place."""
    explainer = make(name)
    if "CorrRISE" in name or ("CAM" in name.split("-") and "HiResCAM" not in name):  # pixels, and the head's input
        explained = explainer
    elif isinstance(explainer, SDD):
        explained = dataclasses.replace(explainer, base=dataclasses.replace(explainer.base, layer=layer))
    else:
        explained = dataclasses.replace(explainer, layer=layer)
    why = explained(images, TARGETS)
    for block in (explainer.classifier.model.net.layer3, explainer.classifier.model.net.layer4):
        block.inplace = block.relu.inplace = False
    torch.testing.assert_close(explained(images, TARGETS).cells, why.cells, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_finite_on_constant_input(name, value):
    why = make(name)(torch.full((2, 3, 112, 112), value), 1)
    assert torch.isfinite(why.cells).all()
    assert torch.isfinite(why.maps).all()


def test_float64_agrees_and_bfloat16_works(name, images):
    single = make(name)(images, TARGETS)
    double = make(name, dtype=torch.float64)(images.double(), TARGETS)
    assert double.cells.dtype == torch.float64
    torch.testing.assert_close(single.cells.double(), double.cells, rtol=1e-3, atol=1e-3)
    half = make(name, dtype=torch.bfloat16)(images, TARGETS)
    assert half.cells.dtype == torch.float32
    assert torch.isfinite(half.cells).all()


def test_the_result_says_what_was_done(name, images):
    why = make(name)(images, TARGETS)
    assert why.maps.shape == (3, 112, 112)
    assert why.targets.tolist() == [1, 3, 4]
    assert why.scores.shape == (3,)
    assert why.recipe["layer"] in ("layer3", "layer4", "pixels")
    assert why.recipe["scale"] == 64.0
    assert why.recipe["fingerprint"] == make(name).classifier.model.fingerprint
    assert torch.equal(why.maps, torch.nn.functional.interpolate(why.cells[:, None], (112, 112), mode="bilinear")[:, 0])


def test_it_is_a_frozen_recipe(name):
    explainer = make(name)
    assert dataclasses.is_dataclass(explainer)
    with pytest.raises(dataclasses.FrozenInstanceError):
        explainer.layer = "other"
    assert "5 people" in repr(explainer)
    assert "Conv2d" not in repr(explainer)
    assert len(repr(explainer)) < 500


def test_evidence_of_other_weights_is_refused(name, images):
    explainer = make(name)
    evidence = explainer.observe(images)
    with torch.no_grad():
        explainer.classifier.model.net.fc.weight.mul_(2)
    with pytest.raises(ValueError, match="observe the images again"):
        explainer.answer(evidence, 1)


@pytest.mark.parametrize("flip", ["sum", "concat"])
def test_maps_follow_the_flip(name, images, flip):
    """With a summed flip a mirrored photo has the mirrored map; with a concatenated one, for mirrored templates."""
    if "CorrRISE" in name:
        pytest.skip("its masks are not mirrored")
    explainer = make(name, flip)
    people = explainer.classifier
    mirrored = people
    if flip == "concat":
        left, right = people.templates.chunk(2, dim=1)
        mirrored = dataclasses.replace(people, templates=torch.cat([right, left], 1))
    why = explainer(images, TARGETS)
    back = EXPLAINERS[name](mirrored)(images.flip(-1), TARGETS)
    torch.testing.assert_close(back.cells.flip(-1), why.cells, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.scores, why.scores, rtol=1e-5, atol=1e-4)


def test_the_predicted_class_is_the_default(name, images):
    explainer = make(name)
    rivals_fit = explainer.classifier.logits(images).argmax(1)
    if name == "SDD-GradCAM" and (rivals_fit == 0).any():
        pytest.skip("the fixed rival is predicted")
    assert torch.equal(explainer(images).targets, rivals_fit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"images\[None\]"),
        (lambda x: x[:, :1], "RGB"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :, :100], "images.resize"),
        (lambda x: x * 255, "divide 0..255 by 255"),
        (lambda x: x * 2 - 1, "leave mean and std"),
        (lambda x: torch.where(x > 0.9, float("nan"), x), "NaN"),
        (lambda x: torch.where(x > 0.9, float("inf"), x), "infinity"),
        (lambda x: (x * 255).byte(), r"images.float\(\) / 255"),
        (lambda x: x.numpy(), "torch.Tensor"),
        (lambda x: x.to("meta"), r"images.to\(model.device\)"),
    ],
)
@pytest.mark.parametrize("name", PLAIN)
def test_bad_images_get_one_clear_error(name, images, change, message):
    explainer = make(name)
    net = explainer.classifier.model.net
    before = snapshot(net, images)
    with pytest.raises((ValueError, TypeError), match=message), warnings.catch_warnings():
        explainer(change(images), 1)
    assert same(before, snapshot(net, images))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("p9", "there are: 'p0'"),
        (7, "from 0 to 4"),
        (-1, "from 0 to 4"),
        ([1, 2], "for each of the 3"),
        (1.5, "expected a class index"),
        (True, "expected a class index"),
        (torch.tensor([0.5]), "as integers"),
    ],
)
@pytest.mark.parametrize("name", PLAIN)
def test_bad_targets_get_one_clear_error(name, images, target, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(name)(images, target)


def test_what_gives_a_map_of_any_class_is_what_sdd_wraps():
    for row in CLASSES:
        explainer = make(row.cls)
        assert hasattr(explainer, "class_maps") == row.class_maps, row.cls
        if row.class_maps:
            assert SDD(explainer).base is explainer
        else:
            with pytest.raises(TypeError, match="class maps"):
                SDD(explainer)
