"""What every explainer of pairs promises: those of the registry, and variants of their options."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial

import pytest
import torch
from nets import FlatNet, shaken
from rows import PAIRS, small
from untouched import mixed_modes, same, snapshot

from facexai import FGGB, CorrRISE, FaceModel, FrequencyHeatPlot, PairCAM, zoo

PLAIN = {row.cls: partial(small, row, layer="layer3") for row in PAIRS} | {
    "FrequencyHeatPlot": lambda m: FrequencyHeatPlot(m, width=16, masked="both")
}
EXPLAINERS = PLAIN | {
    "FGGB-raw": lambda m: FGGB(m, 0.2, "raw", chunk=8),
    "CorrRISE-patches": lambda m: CorrRISE(m, count=12, threshold=0.2),
    "PairCAM-layer3": lambda m: PairCAM(m, layer="layer3", table=False),
    "FrequencyHeatPlot-hybrid": lambda m: FrequencyHeatPlot(m, width=16, masked="both", mode="hybrid", exact_bands=2),
    "FrequencyHeatPlot-preview": lambda m: FrequencyHeatPlot(m, width=16, masked="both", mode="preview"),
}
ASKS_AGAIN = ("FrequencyHeatPlot-hybrid", "FrequencyHeatPlot-preview")  # a gradient for every question
pytestmark = pytest.mark.filterwarnings("ignore:a map of pair .* has one sign")


def make(name, flip=None, dtype=torch.float32):
    torch.manual_seed(1)
    return EXPLAINERS[name](FaceModel(shaken(FlatNet()).to(dtype), "arcface", flip=flip))


def raw(why):
    """(P, 2, ...), of the first face and of the second."""
    return why.sides if hasattr(why, "sides") else why.cells


@pytest.fixture(params=EXPLAINERS)
def name(request):
    return request.param


@pytest.fixture
def pair():
    drawn = torch.rand(2, 2, 3, 112, 112, generator=torch.Generator().manual_seed(3))
    return drawn[0], drawn[1]


def test_it_leaves_everything_as_it_was(name, pair):
    explainer = make(name)
    net = mixed_modes(explainer.model.net)
    pair[0].requires_grad_(True)
    before = snapshot(net, pair[0])
    explainer(*pair)
    assert same(before, snapshot(net, pair[0]))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_leaves_everything_as_it_was_after_a_failure(name, pair, error):
    explainer = make(name)
    net = mixed_modes(explainer.model.net)
    explainer(*pair)

    def fail(*_):
        raise error("boom")

    net.layer4.register_forward_hook(fail)
    before = snapshot(net, pair[0])
    with pytest.raises(error, match="boom"):
        explainer(*pair)
    assert same(before, snapshot(net, pair[0]))


def test_no_grad_inference_mode_and_frozen_weights_change_nothing(name, pair):
    explainer = make(name)
    expected = raw(explainer(*pair))
    with torch.no_grad():
        assert torch.equal(raw(explainer(*pair)), expected)
    with torch.inference_mode():
        assert torch.equal(raw(explainer(*(side.clone() for side in pair))), expected)
    explainer.model.net.requires_grad_(False)
    assert torch.equal(raw(explainer(*pair)), expected)


@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_batch_equals_loop_and_sides_change_places(name, pair, flip):
    explainer = make(name, flip)
    batch = explainer(*pair)
    turned = explainer(*pair[::-1])
    torch.testing.assert_close(raw(turned).flip(1), raw(batch), rtol=1e-4, atol=1e-5)
    for p in range(2):
        one = explainer(pair[0][p : p + 1], pair[1][p : p + 1])
        near = 1e-4 * float(raw(batch).abs().max())
        torch.testing.assert_close(raw(one)[0], raw(batch)[p], rtol=1e-4, atol=near)
        torch.testing.assert_close(one.scores[0], batch.scores[p], rtol=1e-5, atol=1e-5)


def test_the_score_is_the_cosine_of_the_model(name, pair):
    explainer = make(name)
    expected = (explainer.model.embed(pair[0]) * explainer.model.embed(pair[1])).sum(1)
    torch.testing.assert_close(explainer(*pair).scores, expected.double(), rtol=0, atol=1e-6)


def test_observe_once_answer_many(name, pair):
    explainer = make(name)
    explainer(*pair)
    runs = []
    evidence = [explainer.observe(side) for side in pair]
    explainer.model.net.register_forward_hook(lambda *_: runs.append(1))
    first, second = explainer.answer(*evidence), explainer.answer(*evidence)
    assert torch.equal(raw(first), raw(second))
    assert torch.equal(raw(first), raw(explainer(*pair)))
    assert len(runs) > 0  # of the direct call ...
    before = len(runs)
    explainer.answer(*evidence)
    assert (len(runs) > before) == (name in ASKS_AGAIN)  # ... and none of the answers


@pytest.mark.filterwarnings("ignore:.*is rounding noise")  # of identical faces
def test_portable_evidence_pickles_and_other_evidence_says_why_not(name, pair):
    explainer = make(name)
    evidence = explainer.observe(pair[0])
    if not explainer.portable:
        with pytest.raises(TypeError, match="does not pickle"):
            pickle.dumps(evidence)
        return
    again = pickle.loads(pickle.dumps(evidence))
    assert torch.equal(raw(explainer.answer(again, again)), raw(explainer.answer(evidence, evidence)))
    cut = evidence[1:2]
    torch.testing.assert_close(raw(explainer.answer(cut, cut))[0], raw(explainer.answer(evidence, evidence))[1])
    whole = type(evidence).joined([evidence[:1], cut])
    assert torch.equal(raw(explainer.answer(whole, whole)), raw(explainer.answer(evidence, evidence)))
    with pytest.raises(TypeError, match="a slice such as"):
        evidence[0]


@pytest.mark.filterwarnings("ignore:.*is rounding noise")  # of identical faces
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_finite_on_constant_input(name, value):
    flat = torch.full((1, 3, 112, 112), value)
    why = make(name)(flat, flat)
    assert torch.isfinite(raw(why)).all()
    assert torch.isfinite(why.scores).all()


def test_float64_agrees_and_bfloat16_works(name, pair):
    single, double = make(name)(*pair), make(name, dtype=torch.float64)(*(side.double() for side in pair))
    assert raw(double).dtype == torch.float64
    near = 2e-3 * float(raw(double).abs().max())
    if name != "XSSAB":  # which numbers agree is a yes or no that rounding can turn
        torch.testing.assert_close(raw(single).double(), raw(double), rtol=0, atol=near)
    half = make(name, dtype=torch.bfloat16)(*pair)
    assert raw(half).dtype == torch.float32
    assert torch.isfinite(raw(half)).all()


def test_the_result_says_what_was_done(name, pair):
    explainer = make(name)
    why = explainer(*pair)
    assert raw(why).shape == ((2, 2, 5) if "Frequency" in name else why.cells.shape)
    if "Frequency" not in name:
        assert why.maps.shape == (2, 2, 112, 112)
    assert why.recipe["method"] == type(explainer).__name__
    assert why.recipe["fingerprint"] == explainer.model.fingerprint
    assert torch.equal(why.images, torch.stack(pair, 1))
    if getattr(why, "threshold", None) is not None:
        assert torch.equal(why.accepted, why.scores >= 0.2)
    assert type(why).__name__ in repr(why)


def test_it_is_a_frozen_recipe_that_pickles_with_a_named_model(name, zoo_installed):
    explainer = make(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        explainer.model = None
    assert "Conv2d" not in repr(explainer)
    if name != "PairCAM-layer3":
        named = EXPLAINERS[name](zoo.load("dlib-resnet29"))
        again = pickle.loads(pickle.dumps(named))
        assert again.model.fingerprint == named.model.fingerprint


def test_evidence_of_other_weights_is_refused(name, pair):
    explainer = make(name)
    evidence = explainer.observe(pair[0])
    with torch.no_grad():
        explainer.model.net.fc.weight.mul_(2)
    with pytest.raises(ValueError, match="observe the images again"):
        explainer.answer(evidence, evidence)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"images\[None\]"),
        (lambda x: x[:, :1], "RGB"),
        (lambda x: x[:0], "empty"),
        (lambda x: x[:, :, :100], "images.resize"),
        (lambda x: x * 255, "divide 0..255 by 255"),
        (lambda x: torch.where(x > 0.9, float("nan"), x), "NaN"),
        (lambda x: x.numpy(), "torch.Tensor|batches of faces"),
        (lambda x: x.to("meta"), r"images.to\(model.device\)"),
    ],
)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", PLAIN)
def test_bad_images_get_one_clear_error(name, pair, side, change, message):
    explainer = make(name)
    before = snapshot(explainer.model.net, pair[0])
    given = [change(one) if i == side else one for i, one in enumerate(pair)]
    with pytest.raises((ValueError, TypeError), match=message):
        explainer(*given)
    assert same(before, snapshot(explainer.model.net, pair[0]))
