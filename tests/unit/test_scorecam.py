"""Score-CAM against literal loops, its identities, and what it promises about cost and memory."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FlatNet, GapNet, TokenNet, UnitNet, shaken
from torch import nn

from facexai import SDD, FaceModel, HiResCAM, InputSpec, ScoreCAM, functional
from facexai.explainers import _masked_forward
from facexai.models import HeadDoesNotFold


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()), InputSpec(112, channels="BGR", mean=(0.4, 0.5, 0.6), std=0.5))
    return model.gallery({f"p{i}": torch.randn(32) for i in range(6)}, scale=8.0)


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112)


def literal(people, image, layer, target, *, space, first, align, skip, weights="softmax-logit"):
    """One mask at a time, by the letter; returns the sum of raw low-resolution maps before any ReLU."""
    model, kept, scores, used = people.model, {}, [], []
    handle = model.net.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.update(a=out.clone()))
    prepared = model.spec.prepare(image[None])
    with torch.no_grad():
        model.net(prepared)
        handle.remove()
        for a in kept["a"][0]:
            low = (a - a.min()) / (a.max() - a.min() + 1e-8) if first == "minmax" else a
            up = F.interpolate(low[None, None], (112, 112), mode="bilinear", align_corners=align)[0, 0]
            if up.max() == up.min():
                if skip:
                    continue
                up = torch.zeros_like(up)
            elif first == "upsample":
                up = (up - up.min()) / (up.max() - up.min())
            x = prepared * up if space == "input" else model.spec.prepare(image[None] * up)
            scores.append(people.score(model.features(model.net(x)))[0])
            used.append(a)
    logits = torch.stack(scores)
    if weights == "probability":
        w = torch.stack([row.exp()[target] / row.exp().sum() for row in logits])
    elif weights == "softmax-probability":
        black = people.score(model.features(model.net(model.spec.prepare(torch.zeros_like(image[None])))))[0].detach()
        p = logits.softmax(1)[:, target] - black.softmax(0)[target]
        w = p.exp() / p.exp().sum()
    else:
        w = logits[:, target].exp() / logits[:, target].exp().sum()
    return sum(weight * a for weight, a in zip(w, used, strict=True))


LETTER = {
    "facexai": {"space": "pixels", "first": "upsample", "align": False, "weights": "probability", "skip": True},
    "authors": {"space": "input", "first": "upsample", "align": False, "weights": "probability", "skip": True},
    "pytorch-grad-cam": {"space": "input", "first": "upsample", "align": True, "skip": False},
    "torchcam": {"space": "input", "first": "minmax", "align": False, "skip": False},
}


@pytest.mark.parametrize("convention", LETTER)
def test_every_convention_equals_the_letter(people, images, convention):
    why = ScoreCAM(people, layer="layer3", convention=convention)(images, 2)
    for n, image in enumerate(images):
        cells = literal(people, image, "layer3", 2, **LETTER[convention])
        if convention == "authors":  # they enlarge, then take the positive part
            cells = F.interpolate(cells[None, None], (112, 112), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(why.cells[n], cells.clamp(min=0), rtol=1e-4, atol=1e-4)
        assert torch.equal(why.maps, why.cells) or convention != "authors"


@pytest.mark.parametrize("weights", ["probability", "softmax-probability", "softmax-logit"])
def test_every_weighting_equals_the_letter(people, images, weights):
    """Also the paper's, with the baseline image that we never run: it cancels in the softmax over channels."""
    ours = ScoreCAM(people, layer="layer3", weights=weights, relu=False)(images, 1).cells
    for n, image in enumerate(images):
        expected = literal(people, image, "layer3", 1, **{**LETTER["facexai"], "weights": weights})
        torch.testing.assert_close(ours[n], expected, rtol=1e-4, atol=1e-4)


@given(st.integers(1, 9), st.floats(-50, 50), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_a_constant_added_to_all_scores_cancels_over_channels(channels, shift, seed):
    torch.manual_seed(seed)
    logits, classes = torch.randn(channels, 4, dtype=torch.float64), torch.tensor([2, 0])
    weights = functional.scorecam_weights(logits, classes, "softmax-logit")
    torch.testing.assert_close(functional.scorecam_weights(logits + shift, classes, "softmax-logit"), weights)
    torch.testing.assert_close(weights.sum(0), torch.ones(2, dtype=torch.float64))
    probabilities = functional.scorecam_weights(logits, torch.arange(4), "probability")
    torch.testing.assert_close(probabilities.sum(1), torch.ones(channels, dtype=torch.float64))


@given(st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_order_of_channels_does_not_matter(channels, seed):
    torch.manual_seed(seed)
    logits, maps, order = torch.randn(channels, 3), torch.randn(channels, 4, 5), torch.randperm(channels)
    for kind in ("probability", "softmax-probability", "softmax-logit"):
        classes = torch.tensor([0, 2])
        one = functional.scorecam(maps, functional.scorecam_weights(logits, classes, kind))
        other = functional.scorecam(maps[order], functional.scorecam_weights(logits[order], classes, kind))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def count(net):
    """Images that go through a network from now on."""
    seen = []
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    return seen


class Dull(FlatNet):
    """Two of the sixteen channels say the same everywhere."""

    def forward(self, x):
        x = self.stem(x)
        x = self.mark(torch.cat([torch.zeros_like(x[:, :1]), torch.full_like(x[:, :1], 3.0), x[:, 2:]], 1))
        return self.features(self.fc(torch.flatten(self.bn2(self.layer4(self.layer3(x))), 1)))

    def __init__(self):
        super().__init__()
        self.mark = nn.Identity()


@pytest.mark.parametrize("classes", [2, 500])
def test_images_through_the_network_are_channels_plus_one(images, classes):
    """For any number of classes, for SDD over them, and without the channels that say nothing."""
    model = FaceModel(shaken(Dull()), "arcface")
    people = model.gallery({f"p{i}": torch.randn(32) for i in range(classes)})
    explainer = SDD(ScoreCAM(people, layer="mark"), rivals=min(4, classes - 1))
    assert model.structure.memory > 0  # a model is looked at once, when it is first needed
    seen = count(model.net)
    evidence = explainer.observe(images)
    assert sum(seen) == 2 * (14 + 1)
    for target in range(2):
        explainer.answer(evidence, target)
        explainer.base.answer(evidence, target)
    assert sum(seen) == 2 * (14 + 1)
    assert sorted(set(evidence.channel.tolist())) == list(range(2, 16))


def test_constant_channels_count_where_the_convention_keeps_them(images):
    model = FaceModel(shaken(Dull()), "arcface")
    people = model.gallery({f"p{i}": torch.randn(32) for i in range(3)})
    assert model.structure.memory > 0
    seen = count(model.net)
    ScoreCAM(people, layer="mark", convention="torchcam").observe(images)
    assert sum(seen) == 2 * (16 + 1)


def test_an_image_without_any_varying_channel_gives_zeros():
    net = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(256, 5))
    with torch.no_grad():
        net[0].weight.zero_()
    model = FaceModel(net, InputSpec(64), output="logits")
    images = torch.rand(2, 3, 64, 64)
    for explainer in (ScoreCAM(model, layer="0"), SDD(ScoreCAM(model, layer="0"), rivals=2)):
        why = explainer(images, 1)
        assert torch.equal(why.cells, torch.zeros(2, 8, 8))


@pytest.mark.parametrize("chunk", [1, 5, 1000, "auto"])
def test_the_memory_budget_changes_nothing(people, images, chunk):
    whole = ScoreCAM(people, layer="layer3", chunk=7)(images, [1, 4])
    parts = ScoreCAM(people, layer="layer3", chunk=chunk)
    torch.testing.assert_close(parts(images, [1, 4]).cells, whole.cells, rtol=1e-5, atol=1e-5)
    for n, target in enumerate((1, 4)):
        torch.testing.assert_close(parts(images[n : n + 1], target).cells[0], whole.cells[n], rtol=1e-5, atol=1e-5)


def test_the_chunk_follows_the_size_of_the_network():
    small, large = (FaceModel(shaken(FlatNet(c)), "arcface") for c in (16, 2048))
    few, many = (_masked_forward.chunk_size(model, "auto") for model in (large, small))
    assert 1 <= few < many / 2
    assert many <= 256
    assert _masked_forward.chunk_size(large, 9) == 9


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_out_of_memory_halves_the_chunk(people, images, error):
    explainer = ScoreCAM(people, layer="layer3", chunk=16)
    expected = explainer(images, 1).cells
    sizes = []

    def tight(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 5:
            raise error

    handle = people.model.net.register_forward_pre_hook(tight)
    torch.testing.assert_close(explainer(images, 1).cells, expected, rtol=1e-5, atol=1e-5)
    assert sizes[:4] == [2, 16, 8, 4]
    handle.remove()
    people.model.net.register_forward_pre_hook(lambda _, args: (_ for _ in ()).throw(RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        explainer(images, 1)


def test_keep_masks_the_channels_that_matter_and_says_so(people, images):
    exact = ScoreCAM(people, layer="stem")(images, 1)
    assert exact.recipe["approximate"] is False
    seen = count(people.model.net)
    some = ScoreCAM(people, layer="stem", keep=6)
    evidence = some.observe(images)
    assert sum(seen) == 2 * (6 + 1)
    why = some.answer(evidence, 1)
    assert why.recipe["approximate"] is True
    assert why.recipe["dropped_channels"] == [10, 10]
    every = ScoreCAM(people, layer="stem", keep=16)(images, 1)
    assert torch.equal(every.cells, exact.cells)
    assert every.recipe["approximate"] is False
    # the kept ones are those of the largest activation times gradient of the predicted class
    top = people.logits(images).argmax(1)
    hires = HiResCAM(people, layer="stem")
    look = hires.observe(images)
    (gradient,) = torch.autograd.grad(
        people.score(people.model.features(look.outputs)).gather(1, top[:, None]).sum(), look.activations
    )
    importance = (look.activations.detach() * gradient).sum((2, 3)).abs()
    for n in range(2):
        chosen = set(evidence.channel[evidence.image == n].tolist())
        assert chosen == set(importance[n].topk(6).indices.tolist())


def test_keep_without_gradient_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), Cut(), nn.Flatten(), nn.Linear(256, 5))
    model = FaceModel(net, InputSpec(64), output="logits")
    images = torch.rand(1, 3, 64, 64)
    assert ScoreCAM(model, layer="0")(images, 1).cells.shape == (1, 8, 8)
    net[3].requires_grad_(False)
    with pytest.raises(ValueError, match="no gradient from the score"):
        ScoreCAM(model, layer="0", keep=2)(images, 1)


class Cut(nn.Module):
    def forward(self, x):
        return x.detach()


def test_keep_looks_at_the_dot_product_where_the_network_normalises(images):
    """For an enrolled photo the gradient of the cosine is rounding noise; the choice must not be."""
    plain = FaceModel(shaken(FlatNet()).double(), "arcface")
    unit = FaceModel(UnitNet().double().eval(), "arcface", take=0)
    unit.net.load_state_dict(plain.net.state_dict())
    image, other = images[:1].double(), torch.randn(32).double()
    kept = [
        ScoreCAM(m.gallery({"self": image, "other": other}), layer="stem", keep=6).observe(image).channel
        for m in (plain, unit)
    ]
    assert torch.equal(*kept)


def test_the_choice_of_channels_belongs_to_its_gallery(people, images):
    evidence = ScoreCAM(people, layer="stem", keep=6).observe(images)
    others = people.model.gallery({f"x{i}": torch.randn(32) for i in range(3)})
    with pytest.raises(ValueError, match="observe the images again"):
        ScoreCAM(others, layer="stem", keep=6).answer(evidence)


def test_mistakes_cost_nothing(people, images):
    assert people.model.structure.memory > 0
    seen = count(people.model.net)
    explainer = ScoreCAM(people, layer="layer3")
    for target in ("p99", 6, [1, 2, 3]):
        with pytest.raises(ValueError):  # noqa: PT011  (the contract checks the messages)
            explainer(images, target)
    alone = people.model.gallery({"one": torch.randn(32)})
    with pytest.raises(ValueError, match="at least two classes"):
        ScoreCAM(alone, layer="layer3")(images)
    assert sum(seen) == 0


@pytest.mark.parametrize("keep", [None, 4])
@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_photos_are_looked_at_in_chunks_too(images, keep, flip):
    model = FaceModel(shaken(FlatNet()), "arcface", flip=flip)
    rows = torch.randn(3, 64 if flip == "concat" else 32)
    people = model.gallery({f"p{i}": row for i, row in enumerate(rows)})
    photos = torch.cat([images, images.flip(-1), images[:1]])
    whole = ScoreCAM(people, layer="layer3", keep=keep, chunk=1000)
    sizes = count(model.net)
    parts = dataclasses.replace(whole, chunk=2)
    torch.testing.assert_close(parts(photos, 1).cells, whole(photos, 1).cells, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts(photos, 1).scores, whole(photos, 1).scores)
    assert max(sizes[:4]) <= (2 if flip is None else 4)


def test_evidence_is_portable(people, images):
    explainer = ScoreCAM(people, layer="layer3")
    evidence = pickle.loads(pickle.dumps(explainer.observe(images)))
    others = people.model.gallery({f"x{i}": torch.randn(32) for i in range(3)})
    again = ScoreCAM(others, layer="layer3")
    torch.testing.assert_close(again.answer(evidence, 1).cells, again(images, 1).cells)
    partner = people.model.gallery({"partner": images[:1]})
    with pytest.raises(ValueError, match="at least two classes"):
        ScoreCAM(partner, layer="layer3").answer(evidence)
    assert ScoreCAM(partner, layer="layer3", weights="softmax-logit").answer(evidence).cells.shape == (2, 7, 7)
    with pytest.raises(ValueError, match="observe the images again"):
        ScoreCAM(people, layer="layer3", mask_space="input").answer(evidence)
    with pytest.raises(ValueError, match="another method's"):
        HiResCAM(people, layer="layer3").answer(evidence)


def test_weights_are_the_answers_business(people, images):
    """All three variants from one look."""
    evidence = ScoreCAM(people, layer="layer3").observe(images)
    maps = {}
    for weights in ("probability", "softmax-probability", "softmax-logit"):
        explainer = ScoreCAM(people, layer="layer3", weights=weights)
        maps[weights] = explainer.answer(evidence, 1).cells
        torch.testing.assert_close(maps[weights], explainer(images, 1).cells)
    assert not torch.allclose(maps["probability"], maps["softmax-logit"])


def test_reduced_precision_is_near(people, images):
    exact, half = (ScoreCAM(people, layer="layer3", precision=p)(images, 1) for p in (None, "bf16"))
    assert half.recipe["precision"] == "bf16"
    assert half.cells.dtype == torch.float32
    assert not torch.equal(half.cells, exact.cells)
    alike = torch.corrcoef(torch.stack([exact.cells.flatten(), half.cells.flatten()]))[0, 1]
    assert alike > 0.99


def test_it_needs_no_folding_and_takes_tokens(images):
    model = FaceModel(shaken(TokenNet("cls")), "arcface")
    people = model.gallery({f"p{i}": torch.randn(16) for i in range(3)})
    with pytest.raises(HeadDoesNotFold):
        _ = model.head
    assert ScoreCAM(people, layer="blocks.0")(images, 1).cells.shape == (2, 14, 14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "cam"}, "expected convention"),
        ({"weights": "logit"}, "expected weights"),
        ({"mask_space": "hsv"}, "expected mask_space"),
        ({"precision": "int8"}, "expected precision"),
        ({"chunk": 0}, "expected chunk"),
        ({"keep": 0}, "expected keep"),
        ({"keep": 1.5}, "expected keep"),
        ({"keep": "auto"}, "expected keep"),
        ({"chunk": None}, "expected chunk"),
    ],
)
def test_bad_options_get_one_clear_error(people, options, message):
    with pytest.raises(ValueError, match=message):
        ScoreCAM(people, **options)


def test_bad_layers_and_classifiers_get_one_clear_error(people, images):
    with pytest.raises(ValueError, match="no map of the images"):
        ScoreCAM(people, layer="fc")(images)
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        ScoreCAM(people, layer="layer9")(images)
    with pytest.raises(TypeError, match="FaceModel"):
        ScoreCAM(people.model.net)
    alone = FaceModel(shaken(GapNet(1)), InputSpec(112), output="logits")
    with pytest.raises(ValueError, match="at least two classes"):
        ScoreCAM(alone, layer="conv")(images)


def test_the_recipe_tells_every_choice(people, images):
    why = ScoreCAM(people, layer="layer3", convention="authors")(images, 1)
    for key, value in {
        "method": "ScoreCAM",
        "convention": "authors",
        "weights": "probability",
        "mask_space": "input",
        "order": "upsample-first",
        "align_corners": False,
        "skip_constant": True,
        "precision": None,
        "keep": None,
        "layer": "layer3",
    }.items():
        assert why.recipe[key] == value
    assert "6 people" in repr(dataclasses.replace(ScoreCAM(people), keep=3))
