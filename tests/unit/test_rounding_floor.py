"""A map that is rounding noise is exactly zero and says why; one that float64 confirms is not, and no other changes."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import UnitNet, shaken
from pair_methods import Small, faces
from torch import nn

import facexai
from facexai import (
    FGGB,
    SDD,
    XSSAB,
    FaceModel,
    FaceXAIWarning,
    FrequencyHeatPlot,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    InputSpec,
    LayerCAM,
    PairCAM,
    XGradCAM,
    functional,
)
from facexai.baselines import captum
from facexai.explainers import _rounding
from facexai.functional._rounding import vanishes
from facexai.results import FrequencyHeat, parts

CAMS = (HiResCAM, GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM)
DTYPES = (torch.float32, torch.float64)
NOISE = "is rounding noise, since its terms cancel"


def model(dtype=torch.float32, **options):
    torch.manual_seed(3)
    return FaceModel(shaken(Small()).to(dtype), InputSpec(20), **options)


def quietly(function, *arguments, **options):
    """The answer, where no warning about rounding may come."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", NOISE)
        warnings.filterwarnings("ignore", "a map of pair")
        return function(*arguments, **options)


def noisily(function, *arguments, **options):
    with pytest.warns(FaceXAIWarning, match=NOISE):
        return function(*arguments, **options)


# ---- the mathematics --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [2, 128, 512])
def test_the_floor_is_a_few_roundings_of_the_terms(dtype, size):
    torch.manual_seed(size)
    v = F.normalize(torch.randn(50, size, dtype=torch.float64))
    across = torch.randn_like(v)
    across = F.normalize(across - (across * v).sum(1, keepdim=True) * v)
    unit = torch.finfo(dtype).eps / 2
    floor = (4 + torch.log2(torch.tensor(float(size)))) * unit * 2  # of two terms of length 1
    for angle, expected in ((0.9 * floor, True), (1.1 * floor, False)):
        f = F.normalize(v + angle * across)
        along = (f * v).sum(1, keepdim=True) * f
        assert (vanishes((v - along).to(dtype), (v.to(dtype), along.to(dtype)), stored=dtype) == expected).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_arithmetic_stays_below_the_floor(dtype):
    """The same embedding, its numbers each off by a rounding: the angle that is left is below the floor."""
    for size in (2, 16, 128, 512):
        torch.manual_seed(size)
        e = torch.randn(200, size, dtype=dtype) * 10 ** torch.randint(-3, 4, (200, 1)).to(dtype)
        v = F.normalize(torch.nextafter(e, torch.randn_like(e) * 1e9))
        f = F.normalize(e)
        along = (f * v).sum(1, keepdim=True) * f
        length = e.norm(dim=1, keepdim=True)
        assert vanishes(functional.normalize_vjp(v, e), (v / length, along / length), stored=dtype).all()


def test_units_and_lengths_do_not_matter_and_zero_terms_are_no_noise():
    total, terms = torch.tensor([[1e-8, 0.0]]), (torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    for factor in (1e-20, 1.0, 1e20):
        assert vanishes(total * factor, [t * factor for t in terms], stored=torch.float32)
        assert not vanishes(100 * total * factor, [t * factor for t in terms], stored=torch.float32)
    assert vanishes(100 * total, terms, stored=torch.float32, amplified=torch.tensor([10.0]))
    assert vanishes(100 * total, terms, stored=torch.bfloat16)
    assert not vanishes(torch.zeros(1, 2), (torch.zeros(1, 2), torch.zeros(1, 2)), stored=torch.float32)


@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_the_condition_is_that_of_centring_and_adding(flip):
    m = model(flip=flip, center=torch.full((12,), 0.5))
    outputs = torch.randn(6 if flip else 3, 12)
    lengths = outputs.norm(dim=1) + m.center.norm()
    expected = (lengths if flip is None else lengths[:3] + lengths[3:]) / m.features(outputs).norm(dim=1)
    torch.testing.assert_close(_rounding.condition(m, outputs), expected)


@pytest.mark.parametrize("center", [None, 0.3])
@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_scores_and_cosines_agree_on_what_vanishes(flip, center):
    """For a gallery the terms that autograd gives are those of the formula."""
    m = model(torch.float64, flip=flip, center=None if center is None else torch.full((12,), center).double())
    images = faces(m)
    people = m.gallery({str(k): m.embed(images[k : k + 1]) for k in range(3)})
    outputs, classes = m.outputs(images).detach(), torch.arange(3).expand(3, -1)
    by_score = _rounding.score_vanishes(people, outputs, classes, lengths=True)
    by_formula = _rounding.cosine_vanishes(m, outputs, people.templates.expand(3, -1, -1))
    assert torch.equal(by_score, torch.eye(3, dtype=torch.bool))
    assert torch.equal(by_formula, by_score)


# ---- identical faces --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", [{}, {"flip": "sum"}, {"flip": "concat"}, {"center": torch.full((12,), 0.2)}])
def test_xssab_of_an_identical_pair_is_zero_and_says_why(dtype, options):
    m = model(dtype, **options)
    a, b = faces(m), faces(m, seed=1)
    second = torch.stack([a[0], b[1], a[2]])
    why = noisily(XSSAB(m, 0.2), a, second)
    assert why.recipe["rounding_floor"] == [[True, True], [False, False], [True, True]]
    assert not why.cells[[0, 2]].any()
    assert why.cells[1].any()
    assert not why.one_sign[[0, 2]].any()
    assert why[1:].recipe["rounding_floor"] == [[False, False], [True, True]]
    other = quietly(XSSAB(m, 0.2), a[1:2], b[1:2])
    assert "rounding_floor" not in other.recipe


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_face_for_all_and_everybody_enrolled(dtype):
    m = model(dtype)
    a = faces(m)
    method = XSSAB(m, 0.2)
    why = noisily(method.answer, method.observe(a[:1]), method.observe(a))
    assert why.recipe["rounding_floor"] == [[True, True], [False, False], [False, False]]
    assert [bool(c.any()) for c in why.cells] == [False, True, True]
    people = m.gallery({str(k): a[k : k + 1] for k in range(3)})
    why = noisily(method.against(people), a)
    assert torch.equal(torch.tensor(why.recipe["rounding_floor"]), torch.eye(3, dtype=torch.bool))
    assert torch.equal(why.cells.flatten(2).any(2), ~torch.eye(3, dtype=torch.bool))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("flip", [None, "concat"])
def test_class_maps_of_the_cosine_to_a_template_of_the_image_are_zero(dtype, method, flip):
    m = model(dtype, flip=flip)
    a = faces(m)
    people = m.gallery({str(k): a[k : k + 1] for k in range(3)})
    cosine = method(people, layer="conv", similarity="cosine", relu=False)
    why = noisily(cosine, a, [0, 0, 2])
    assert why.recipe["rounding_floor"] == [True, False, True]
    assert [bool(c.any()) for c in why.cells] == [False, True, False]
    dot = quietly(method(people, layer="conv", relu=False), a, [0, 0, 2])
    assert "rounding_floor" not in dot.recipe
    assert all(bool(c.any()) for c in dot.cells)
    assert "rounding_floor" not in quietly(cosine, a, [1, 0, 0]).recipe


def test_sdd_marks_the_target_and_each_rival():
    m = model()
    a = faces(m)
    people = m.gallery({str(k): a[k : k + 1] for k in range(3)})
    why = noisily(SDD(HiResCAM(people, layer="conv", similarity="cosine"), rivals=["0", "2"]), a[:1], 1)
    assert why.recipe["rounding_floor"] == [[False, True, False]]
    assert [bool(c.any()) for c in why.class_cells[0]] == [True, False, True]


@pytest.mark.filterwarnings("ignore:.*vanishes for identical faces")
@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_that_normalise_themselves_in_an_unknown_way(dtype):
    """There dot is the cosine, too: HiResCAM and PairCAM at a finer layer."""

    class Unit(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = shaken(Small())

        def forward(self, x):
            return F.normalize(torch.tanh(self.net(x)))

    torch.manual_seed(3)
    m = FaceModel(Unit().to(dtype), InputSpec(20))
    a, b = faces(m), faces(m, seed=1)
    people = m.gallery({"a": a[:1], "b": b[:1]})
    why = noisily(HiResCAM(people, layer="net.conv"), a[:1].repeat(2, 1, 1, 1), ["a", "b"])
    assert why.recipe["rounding_floor"] == [True, False]
    assert [bool(c.any()) for c in why.cells] == [False, True]
    pair = noisily(PairCAM(m, layer="net.conv", table=False), a, torch.cat([a[:1], b[1:]]))
    assert pair.recipe["rounding_floor"] == [[True, True], [False, False], [False, False]]
    assert [bool(c.any()) for c in pair.cells] == [False, True, True]
    everybody = noisily(PairCAM(m, layer="net.conv").against(people), a[:1])
    assert everybody.recipe["rounding_floor"] == [[True, False]]


def test_networks_whose_length_is_undone_and_dot_products_are_never_zeroed():
    torch.manual_seed(0)
    m = FaceModel(shaken(UnitNet()), "adaface", take=0)
    images = torch.rand(2, 3, 112, 112)
    people = m.gallery({"a": images[:1], "b": images[1:]})
    why = quietly(HiResCAM(people, layer="layer4"), images, ["a", "b"])
    assert "rounding_floor" not in why.recipe
    pair = quietly(PairCAM(m, layer="layer4", table=False), images, images)
    assert "rounding_floor" not in pair.recipe
    assert pair.cells.flatten(1).any(1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", ["first", "second", "both"])
@pytest.mark.parametrize("mode", ["preview", "hybrid"])
def test_first_order_bands_of_an_identical_pair_are_zero(dtype, masked, mode):
    m = model(dtype)
    a, b = faces(m), faces(m, seed=1)
    plot = FrequencyHeatPlot(m, mode=mode, exact_bands=2, masked=masked)
    heat = noisily(plot, a, torch.stack([a[0], b[1], a[2]]))
    assert heat.recipe["rounding_floor"] == [True, False, True]
    few = 0 if mode == "preview" else 2 * (2 if masked == "both" else 1)
    assert all(int((heat.influence[p] != 0).sum()) <= few for p in (0, 2))
    assert int((heat.influence[1] != 0).sum()) > few
    plain = quietly(plot, a[1:2], b[1:2])
    assert "rounding_floor" not in plain.recipe
    assert "rounding_floor" not in quietly(FrequencyHeatPlot(m, masked=masked), a, a).recipe  # exact: no gradient


def test_answers_about_bands_join_and_slice_with_their_marks():
    m = model()
    a, b = faces(m), faces(m, seed=1)
    plot = FrequencyHeatPlot(m, mode="preview")
    one, two = noisily(plot, a[:1], a[:1]), quietly(plot, a[1:], b[1:])
    both = FrequencyHeat.joined([two, one])
    assert both.recipe == {**two.recipe, "rounding_floor": [False, False, True]}
    assert both[1:].recipe["rounding_floor"] == [False, True]
    assert both[torch.tensor([2, 0])].recipe["rounding_floor"] == [True, False]
    assert FrequencyHeat.joined([two, two]).recipe == two.recipe
    with pytest.raises(ValueError, match="different recipes do not join"):
        FrequencyHeat.joined([one, FrequencyHeatPlot(m)(a, b)])
    assert parts.common(both.recipe) == two.recipe


@pytest.mark.parametrize("mode", ["preview", "hybrid"])
def test_first_order_bands_of_a_template_are_zero(mode):
    m = model()
    a = faces(m)
    people = m.gallery({str(k): a[k : k + 1] for k in range(3)})
    heat = noisily(FrequencyHeatPlot(people, mode=mode, exact_bands=2), a, targets=[0, 0, 2])
    assert heat.recipe["rounding_floor"] == [True, False, True]
    assert [int((row != 0).sum()) <= 2 for row in heat.influence] == [True, False, True]


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize("method", ["Saliency", "InputXGradient", "GuidedBackprop", "GuidedGradCam"])
def test_captums_local_gradients_of_a_template_are_zero(method):
    pytest.importorskip("captum")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 81, 12))
    m = FaceModel(net, InputSpec(20))
    a = faces(m)
    people = m.gallery({str(k): a[k : k + 1] for k in range(3)})
    layer = {"layer": "0"} if method == "GuidedGradCam" else {}
    why = noisily(captum(method, people, **layer), a, [0, 0, 2])
    assert why.recipe["rounding_floor"] == [True, False, True]
    assert [bool(c.any()) for c in why.cells] == [False, True, False]
    assert "rounding_floor" not in quietly(captum("IntegratedGradients", people), a, [0, 0, 2]).recipe


# ---- FGGB: an identical pair has a map as any other -------------------------------------------------------------


def test_fggb_of_an_identical_pair_is_real():
    single, double = model(), model(torch.float64)
    a = faces(single)
    maps = [quietly(FGGB(m, 0.2, chunk=4), a.to(m.dtype), a.to(m.dtype)).cells for m in (single, double)]
    torch.testing.assert_close(maps[0].double(), maps[1], rtol=1e-3, atol=1e-5)
    assert maps[1].abs().amax() > 1e-2


def test_fggb_of_weights_and_of_gradients_that_are_noise():
    class Flat(nn.Module):  # an embedding of equal numbers: each product is 1 / K
        def __init__(self, size):
            super().__init__()
            self.size, self.conv = size, nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x).mean((1, 2, 3))[:, None].abs().expand(-1, self.size) + 1.7

    m = FaceModel(Flat(3), InputSpec(8))
    images = torch.rand(2, 3, 8, 8)
    method = FGGB(m, 1.0, differentiate="raw", chunk=1)
    why = noisily(method, images, images)
    assert not why.cells.any()
    assert why.recipe["rounding_floor"] == [[True, True]] * 2
    assert quietly(FGGB(m, 0.9, differentiate="raw", chunk=1), images, images).cells.any()
    why = noisily(method.against(m.gallery({"a": images[:1]})), images)
    assert (why.cells.any(), why.recipe["rounding_floor"]) == (False, [[True], [True]])
    alone = noisily(FGGB(FaceModel(Flat(1), InputSpec(8)), 0.5, chunk=1), images, images)
    assert not alone.cells.any()


def test_fggb_leaves_out_a_number_whose_gradient_is_noise():
    """An embedding that is one number alone: scaled to length 1 that number is constant, its gradient cancels."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 4)

        def forward(self, x):
            y = self.fc(x.flatten(1))
            return torch.cat([y[:, :1] + 30, 1e-9 * y[:, 1:]], 1)

    m = FaceModel(One(), InputSpec(8))
    basis = FGGB(m, 0.5, chunk=4).observe(torch.rand(2, 3, 8, 8)).parts["basis"]
    assert basis.flatten(2).any(2).tolist() == [[False, True, True, True]] * 2


# ---- what is not noise ------------------------------------------------------------------------------------------


def agreement(one, other):
    """Correlation of maps with those of float64."""
    flat = [x.double().flatten(2) for x in (one, other)]
    rows = [F.normalize(x - x.mean(2, keepdim=True), dim=2) for x in flat]
    return (rows[0] * rows[1]).sum(2)


def one_grey_level(images):
    changed = images.clone()
    y, x = images.shape[-2] // 2, images.shape[-1] // 2
    changed[:, 0, y, x] += torch.where(changed[:, 0, y, x] > 0.5, -1.0, 1.0) / 255
    return changed


def test_a_pair_that_differs_by_one_grey_level_keeps_its_map():
    single, double = model(), model(torch.float64)
    a = faces(single)
    b = one_grey_level(a)
    first, second = quietly(XSSAB(single, 0.2), a, b), quietly(XSSAB(double, 0.2), a.double(), b.double())
    assert "rounding_floor" not in first.recipe
    assert agreement(first.cells, second.cells).min() > 0.95
    people = {m.dtype: m.gallery({"a": b[:1].to(m.dtype)}) for m in (single, double)}
    for method in CAMS:
        maps = [
            quietly(method(people[m.dtype], layer="conv", similarity="cosine", relu=False), a[:1].to(m.dtype)).cells
            for m in (single, double)
        ]
        assert agreement(maps[0][None], maps[1][None]).min() > 0.95, method
    heats = [quietly(FrequencyHeatPlot(m, mode="preview"), a.to(m.dtype), b.to(m.dtype)) for m in (single, double)]
    assert agreement(heats[0].influence[None], heats[1].influence[None]).min() > 0.95


def test_half_precision_has_a_higher_floor():
    torch.manual_seed(3)
    m = FaceModel(shaken(Small()).bfloat16(), InputSpec(20))
    a = faces(m).float()
    assert noisily(XSSAB(m, 0.2), a, a).recipe["rounding_floor"] == [[True, True]] * 3
    assert "rounding_floor" not in quietly(XSSAB(m, 0.2), a, faces(m, seed=1).float()).recipe


def test_maps_above_the_floor_are_bit_equal_to_those_without_it(monkeypatch):
    m = model()
    a, b = faces(m), faces(m, seed=1)
    people = m.gallery({str(k): b[k : k + 1] for k in range(3)})

    def run():
        yield XSSAB(m, 0.2)(a, b).cells
        yield FGGB(m, 0.2, chunk=4)(a, b).cells
        yield FrequencyHeatPlot(m, mode="preview")(a, b).influence
        yield FrequencyHeatPlot(people, mode="hybrid", exact_bands=2)(a).influence
        yield PairCAM(m, layer="conv")(a, b).cells
        for method in CAMS:
            yield method(people, layer="conv", similarity="cosine")(a).cells

    with_floor = list(quietly(lambda: list(run())))
    for name in ("gradients", "xssab", "fggb", "frequency"):
        module = importlib.import_module(f"facexai.explainers.{name}")
        monkeypatch.setattr(module, "zeroed", lambda maps, small, **_: maps)
    without = list(quietly(lambda: list(run())))
    assert all(torch.equal(one, other) for one, other in zip(with_floor, without, strict=True))


# ---- a real network ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dlib():
    pytest.importorskip("face_recognition_models")
    return facexai.zoo.load("dlib-resnet29")


@pytest.fixture(scope="module")
def dlib64():
    pytest.importorskip("face_recognition_models")
    m = facexai.zoo.load("dlib-resnet29")
    return FaceModel(m.net.double(), "dlib", center=m.center.double())


@pytest.fixture(scope="module")
def photos():
    torch.manual_seed(0)
    return F.interpolate(torch.rand(3, 3, 12, 12), (150, 150), mode="bilinear")


def test_dlib_an_identical_pair_is_zero_in_both_precisions(dlib, dlib64, photos):
    for m in (dlib, dlib64):
        x = photos[:2].to(m.dtype)
        why = noisily(XSSAB(m, 0.4), x[:1], x[:1])
        assert not why.cells.any()
        assert why.recipe["rounding_floor"] == [[True, True]]
        heat = noisily(FrequencyHeatPlot(m, mode="preview"), x[:1], x[:1])
        assert not heat.influence.any()
        people = m.gallery({"a": x[:1], "b": x[1:]})
        for method in CAMS:
            why = noisily(method(people, similarity="cosine"), x[:1].expand(2, -1, -1, -1), ["a", "b"])
            assert [bool(c.any()) for c in why.cells] == [False, True], method


def test_dlib_the_same_photo_in_another_batch_is_zero_too(dlib, photos):
    """Embeddings of a photo differ by the rounding of the batch that it was in; centring makes that larger."""
    people = dlib.gallery({str(k): dlib.embed(photos)[k : k + 1] for k in range(3)})
    why = noisily(XSSAB(dlib, 0.4).against(people), photos[:1])
    assert why.recipe["rounding_floor"] == [[True, False, False]]


def test_dlib_one_grey_level_of_one_pixel_is_real(dlib, dlib64, photos):
    x, y = photos[1:2], one_grey_level(photos[1:2])
    first = quietly(XSSAB(dlib, 0.4), x, y)
    second = quietly(XSSAB(dlib64, 0.4), x.double(), y.double())
    assert float(first.scores) > 1 - 1e-6
    assert "rounding_floor" not in first.recipe
    assert agreement(first.cells, second.cells).min() > 0.9


def test_dlib_other_pairs_are_not_marked(dlib, photos):
    assert "rounding_floor" not in quietly(XSSAB(dlib, 0.4), photos[:1], photos[1:2]).recipe
