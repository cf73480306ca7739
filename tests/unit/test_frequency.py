"""Frequency heat plots against slow, literal references and identities."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pair_methods import Small, faces
from torch import nn

from facexai import (
    CorrRISE,
    FaceModel,
    FaceXAIWarning,
    FrequencyHeat,
    FrequencyHeatPlot,
    InputSpec,
    explain_pairs,
    functional,
    load,
)

SIZES = [(16, 16), (15, 15), (16, 12), (15, 20), (17, 16)]


def model_of(size=(20, 20), dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.Softplus(), nn.Flatten(), nn.LazyLinear(9)).to(dtype)
    net(torch.rand(1, 3, *size, dtype=dtype))
    return FaceModel(net.eval(), InputSpec(size))


def frequency(size):
    """Signed frequencies of the whole shifted transform, in cycles per height and per width."""
    (height, width) = size
    y, x = np.meshgrid(np.arange(height) - height // 2, np.arange(width) - width // 2, indexing="ij")
    return y * width / height, x


def whole_mask(size, width, band, limit="corner", keep_dc=False):
    y, x = frequency(size)
    radius = np.round(np.hypot(y, x), 9)
    mask = np.floor(radius / width) == band
    if limit == "circle":
        mask &= radius < size[1] / 2
    if keep_dc:
        mask &= radius > 0
    return mask


def literal_content(image, mask):
    """Complex transform, one band, inverse transform, real part."""
    found = []
    for colour in image.numpy():
        shifted = np.fft.fftshift(np.fft.fft2(colour))
        found.append(np.fft.ifft2(np.fft.ifftshift(shifted * mask)).real)
    return torch.from_numpy(np.stack(found))


def literal_influence(model, first, second, masked, width=1.0, limit="corner", keep_dc=False):
    """Band after band, pair after pair."""
    layout = functional.bands(model.spec.height_width, width, limit, keep_dc=keep_dc)

    def unit(image):
        return F.normalize(model.features(model.outputs(image[None], in_range=False)))[0]

    rows = []
    with torch.no_grad():
        for a, b in zip(first, second, strict=True):
            base, row = unit(a) @ unit(b), []
            for band in range(layout.count):
                mask = whole_mask(layout.size, width, band, limit, keep_dc)
                x = a - literal_content(a, mask) if masked in ("first", "both") else a
                y = b - literal_content(b, mask) if masked in ("second", "both") else b
                row.append(base - unit(x) @ unit(y))
            rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", ["first", "second", "both"])
def test_exact_is_the_literal_loop(size, masked):
    model = model_of(size)
    first, second = faces(model, 2, seed=1), faces(model, 2, seed=2)
    heat = FrequencyHeatPlot(model, masked=masked, chunk=7)(first, second)
    assert torch.allclose(heat.influence, literal_influence(model, first, second, masked), atol=1e-6)
    assert heat.influence.dtype == torch.float64
    assert heat.influence.abs().max() > 1e-3


@pytest.mark.parametrize("options", [{"width": 2.5}, {"limit": "circle"}, {"keep_dc": True}, {"width": 0.5}])
def test_options_are_those_of_the_literal_loop(options):
    model = model_of()
    first, second = faces(model, 1, seed=1), faces(model, 1, seed=2)
    heat = FrequencyHeatPlot(model, **options)(first, second)
    assert torch.allclose(heat.influence, literal_influence(model, first, second, "first", **options), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sectors", [1, 2, 3, 7, 8, 13])
def test_bands_partition_the_half_plane_and_sum_to_the_image(size, sectors):
    layout = functional.bands(size, sectors=sectors)
    assert int(layout.cells.min()) == 0
    assert int(layout.cells.max()) < layout.count * sectors
    assert int(layout.coefficients.sum()) == size[0] * size[1]
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    spectra = functional.spectra(image).expand(layout.count * sectors, -1, -1, -1)
    parts = functional.band_component(spectra, layout, torch.arange(layout.count * sectors))
    assert torch.allclose(parts.sum(0), image[0], atol=1e-12)
    energies = functional.energies(image, layout)
    assert torch.allclose(energies.sum(), image.square().mean())
    assert torch.allclose(energies[0], parts.square().mean((1, 2, 3)), atol=1e-12)
    gradient = torch.randn_like(image)
    first = functional.first_order(image, gradient, layout)
    assert torch.allclose(first[0], (parts * gradient).sum((1, 2, 3)), atol=1e-10)
    assert torch.allclose(first.sum(), (gradient * image).sum())


def test_rings_are_those_of_the_shifted_transform_around_its_middle():
    for size in SIZES:
        layout = functional.bands(size)
        image = torch.rand(3, *size, dtype=torch.float64)
        spectra = functional.spectra(image[None]).expand(layout.count, -1, -1, -1)
        parts = functional.band_component(spectra, layout, torch.arange(layout.count))
        for band in range(layout.count):
            assert torch.allclose(parts[band], literal_content(image, whole_mask(size, 1.0, band)), atol=1e-12)


@pytest.mark.parametrize(
    ("pixels", "corner", "circle"), [(112, 80, 56), (150, 107, 75), (224, 159, 112), (151, 107, 76)]
)
def test_published_numbers_of_bands(pixels, corner, circle):
    assert functional.bands((pixels, pixels)).count == corner
    layout = functional.bands((pixels, pixels), limit="circle")
    assert layout.count == circle
    assert float(layout.edges[-1]) == pixels / 2


@pytest.mark.parametrize("sectors", range(1, 65))
def test_sectors_never_part_a_coefficient_from_its_conjugate(sectors):
    for size in ((8, 8), (9, 9)):
        cells = functional.bands(size, sectors=sectors).cells
        for column in (0, -1) if size[1] % 2 == 0 else (0,):
            assert torch.equal(cells[1:, column], cells[1:, column].flip(0))


def test_radii_on_an_edge_are_in_the_ring_that_begins_there():
    layout = functional.bands((112, 112), 1.1)
    radius = torch.hypot(torch.fft.fftfreq(112, 1 / 112).double()[:, None], torch.arange(57).double()[None])
    low, high = layout.edges[layout.cells], layout.edges[layout.cells + 1]
    assert (radius >= low - 1e-9).all()
    assert (radius < high - 1e-9).all()


def test_sectors_tell_directions_apart():
    layout = functional.bands((32, 32), width=8, sectors=4)
    line = torch.arange(32, dtype=torch.float64)
    across = torch.cos(2 * math.pi * 10 * line / 32)[None].expand(32, -1)  # waves from left to right
    waves = {0: across, 2: across.T, 1: torch.cos(2 * math.pi * 7 * (line[None] + line[:, None]) / 32)}
    waves[3] = waves[1].flip(1)
    for sector, wave in waves.items():
        energy = functional.energies(wave.expand(1, 3, -1, -1), layout)[0].view(-1, 4)
        assert float(energy[1, sector] / energy.sum()) > 0.999
    heat = FrequencyHeatPlot(model_of(), width=4, sectors=4)
    images = faces(heat.model, 2)
    assert heat(images[:1], images[1:]).influence.shape == (1, 4, 4)


def test_first_order_is_the_derivative():
    model = model_of()
    first, second = faces(model, 3, seed=1), faces(model, 3, seed=2)
    preview = FrequencyHeatPlot(model, mode="preview")(first, second)
    layout = functional.bands((20, 20))
    small = 1e-6
    for band in (0, 3, 9):
        part = functional.band_component(functional.spectra(first), layout, torch.full((3,), band))
        units = [F.normalize(model.features(model.outputs(x, in_range=False))) for x in (first, first - small * part)]
        change = ((units[0] - units[1]) * model.embed(second)).sum(1) / small
        assert torch.allclose(change, preview.influence[:, band], atol=1e-5)


def test_linear_score_has_the_same_influence_in_every_mode():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 14 * 14, 4)).double()
    model = FaceModel(net, InputSpec(14), output="logits")
    images = faces(model, 3)
    exact, hybrid, preview = (
        FrequencyHeatPlot(model, mode=mode, exact_bands=3)(images, 1) for mode in ("exact", "hybrid", "preview")
    )
    assert torch.allclose(exact.influence, preview.influence, atol=1e-10)
    assert torch.allclose(exact.influence, hybrid.influence, atol=1e-10)
    bias = net[1].bias.detach()[1]
    assert torch.allclose(exact.influence.sum(1), exact.scores - bias)  # completeness


@pytest.mark.parametrize("masked", ["first", "second", "both"])
def test_hybrid_is_exact_where_energy_is_and_first_order_elsewhere(masked):
    model = model_of()
    first, second = faces(model, 2, seed=1), faces(model, 2, seed=2)
    made = {m: FrequencyHeatPlot(model, mode=m, exact_bands=5, masked=masked) for m in ("exact", "hybrid", "preview")}
    heat = {mode: explainer(first, second).influence for mode, explainer in made.items()}
    lost = {"first": [first], "second": [second], "both": [first, second]}[masked]
    kept = [made["hybrid"].exact_cells(images) for images in lost]
    assert all((k.sum(1) == 5).all() for k in kept)
    everywhere, nowhere = torch.stack(kept).all(0), ~torch.stack(kept).any(0)
    assert torch.allclose(heat["hybrid"][everywhere], heat["exact"][everywhere], atol=1e-9)
    assert torch.allclose(heat["hybrid"][nowhere], heat["preview"][nowhere], atol=1e-9)
    whole = FrequencyHeatPlot(model, mode="hybrid", exact_bands=999, masked=masked)(first, second)
    assert torch.allclose(whole.influence, heat["exact"], atol=1e-9)


def test_sides_are_the_two_single_answers():
    model = model_of()
    first, second = faces(model, 2, seed=1), faces(model, 2, seed=2)
    both = FrequencyHeatPlot(model, masked="both")(first, second)
    alone = [FrequencyHeatPlot(model, masked=side)(first, second) for side in ("first", "second")]
    assert torch.allclose(both.sides[:, 0], alone[0].influence)
    assert torch.allclose(both.sides[:, 1], alone[1].influence)
    assert alone[0].sides is None
    assert next(explain_pairs(FrequencyHeatPlot(model), first, [(0, 1)])).sides is None
    turned = FrequencyHeatPlot(model, masked="both")(second, first)
    assert torch.allclose(turned.influence, both.influence)
    assert torch.allclose(turned.sides.flip(1), both.sides)


class Counting(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.images = net, 0

    def forward(self, x):
        self.images += len(x)
        return self.net(x)


def test_a_data_set_costs_images_times_bands_whatever_the_number_of_pairs():
    net = Counting(Small().double())
    model = FaceModel(net, InputSpec(20))
    images = faces(model, 5)
    explainer = FrequencyHeatPlot(model, chunk=64)
    bands = functional.bands((20, 20)).count
    pairs = [(i, j) for i in range(5) for j in range(5)]
    model.embed(images)  # the first batch asks whether images change each other
    net.images = 0
    heats = list(explain_pairs(explainer, images, pairs))
    assert net.images == 5 * (bands + 1)
    for (i, j), heat in zip(pairs, heats, strict=True):
        assert torch.allclose(heat.influence, explainer(images[i : i + 1], images[j : j + 1]).influence)
    net.images = 0
    explainer(images[:1], images[1:2])
    assert net.images == bands + 2
    net.images = 0
    FrequencyHeatPlot(model, mode="preview", chunk=64)(images[:1], images[1:2])
    assert net.images == 2  # both embeddings, one of them with the graph
    evidence = [FrequencyHeatPlot(model, mode="preview", chunk=64).observe(images[k : k + 1]) for k in (0, 1)]
    net.images = 0
    FrequencyHeatPlot(model, mode="preview", chunk=64).answer(*evidence)
    assert net.images == 1  # with the graph


@pytest.mark.parametrize("mode", ["exact", "hybrid", "preview"])
def test_one_face_against_many_and_evidence_that_pickles(mode):
    import pickle

    model = model_of()
    images = faces(model, 4)
    explainer = FrequencyHeatPlot(model, mode=mode, exact_bands=4)
    one, many = explainer.observe(images[:1]), explainer.observe(images[1:])
    together = explainer.answer(pickle.loads(pickle.dumps(one)), many)
    for p in range(3):
        alone = explainer(images[:1], images[1 + p : 2 + p])
        assert torch.allclose(together.influence[p], alone.influence[0], atol=1e-9)


class BandPass(nn.Module):
    """Sees nothing but some rings of frequencies."""

    def __init__(self, size, low, high):
        super().__init__()
        layout = functional.bands((size, size))
        self.register_buffer("kept", (layout.cells >= low) & (layout.cells < high))
        self.size = size
        self.fc = nn.Linear(3 * size * size, 16)

    def forward(self, x):
        passed = torch.fft.irfft2(torch.fft.rfft2(x) * self.kept, s=(self.size, self.size))
        return self.fc(passed.flatten(1))


def test_influence_is_where_a_band_pass_filter_is():
    torch.manual_seed(1)
    model = FaceModel(BandPass(24, 4, 7).double(), InputSpec(24))
    images = faces(model, 6)
    for mode in ("exact", "preview"):
        heat = FrequencyHeatPlot(model, mode=mode)(images[:3], images[3:])
        assert (heat.absolute[:, 4:7] > 1e-4).all()
        outside = torch.cat([heat.absolute[:, :4], heat.absolute[:, 7:]], 1)
        assert float(outside.max()) < 1e-12


def test_a_planted_high_frequency_cue_is_found():
    """A head trained where class 1 wears fine stripes leans on the band of the stripes."""
    torch.manual_seed(0)
    size, many = 24, 200
    smooth = F.interpolate(torch.rand(many, 3, 6, 6), size=size, mode="bicubic").clamp(0.1, 0.9)
    labels = torch.arange(many) % 2
    wave = torch.cos(2 * math.pi * 9 * torch.arange(size) / size)
    cue = 0.04 * wave[None, :].expand(size, -1)
    photos = smooth + labels[:, None, None, None] * cue
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    step = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(300):
        step.zero_grad()
        F.cross_entropy(net(photos), labels).backward()
        step.step()
    assert float((net.eval()(photos).argmax(1) == labels).float().mean()) > 0.9
    model = FaceModel(net, InputSpec(size), output="logits")
    wearing = photos[labels == 1][:20].clamp(0, 1)
    heat = FrequencyHeatPlot(model, keep_dc=True)(wearing, 1)
    assert int(heat.influence.mean(0).argmax()) == 9
    plain = FrequencyHeatPlot(model, keep_dc=True)(smooth[labels == 0][:20].clamp(0, 1), 0)
    assert float(plain.absolute[:, 9].mean()) < float(heat.absolute[:, 9].mean())


def test_classes_of_a_gallery_and_pairs_agree():
    model = model_of()
    images = faces(model, 3)
    people = model.gallery({"ann": images[1:2], "bo": images[2:3]}, scale=10.0)
    heat = FrequencyHeatPlot(people)(images[:1], "bo")
    pair = FrequencyHeatPlot(model)(images[:1], images[2:3])
    assert torch.allclose(heat.influence, 10 * pair.influence)
    assert heat.names == ("ann", "bo")
    assert heat.recipe["unit"] == "logit"
    for mode in ("hybrid", "preview"):
        of_class = FrequencyHeatPlot(people, mode=mode)(images[:1], targets="bo")
        of_pair = FrequencyHeatPlot(model, mode=mode)(images[:1], images[2:3])
        assert torch.allclose(of_class.influence, 10 * of_pair.influence)


@pytest.mark.parametrize("flip", ["sum", "concat"])
def test_mirrored_branches_count(flip):
    net = model_of().net
    model = FaceModel(net, InputSpec(20), flip=flip)
    first, second = faces(model, 2, seed=1), faces(model, 2, seed=2)
    heat = FrequencyHeatPlot(model)(first, second)
    assert torch.allclose(heat.influence, literal_influence(model, first, second, "first"), atol=1e-6)
    preview = FrequencyHeatPlot(model, mode="preview")(first, second)
    assert torch.nn.functional.cosine_similarity(preview.influence[:, 1:], heat.influence[:, 1:]).min() > 0.5


def test_black_boxes_are_asked_exactly_and_eight_bits_are_said():
    weights = np.random.default_rng(0).normal(size=(3 * 16 * 16, 7)).astype(np.float32)
    box = FaceModel.from_callable(lambda x: x.reshape(len(x), -1) @ weights, InputSpec(16))
    first, second = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 7, bias=False))
    net[1].weight.data = torch.from_numpy(weights.T.copy())
    same = FaceModel(net, InputSpec(16))
    assert torch.allclose(
        FrequencyHeatPlot(box)(first, second).influence, FrequencyHeatPlot(same)(first, second).influence, atol=1e-5
    )
    with pytest.raises(ValueError, match="can be asked, not looked into"):
        FrequencyHeatPlot(box, mode="hybrid")(first, second)
    bits = FaceModel.from_callable(lambda x: x.reshape(len(x), -1) @ weights, InputSpec(16), space="rgb_uint8")
    with pytest.warns(FaceXAIWarning, match="8-bit pixels"):
        heat = FrequencyHeatPlot(bits)(first, second)
    assert heat.recipe["clipped"]


@pytest.mark.filterwarnings("ignore:.*is rounding noise")  # of a face against its own template
def test_agreement_of_modes_prints_as_a_table():
    model = model_of()
    first, second = faces(model, 3, seed=1), faces(model, 3, seed=2)
    table = FrequencyHeatPlot(model, exact_bands=6).compare_modes(first, second)
    assert {"hybrid", "preview", "zero fill"} == set(table.means)
    means = table.means
    assert means["hybrid"]["relative_l1"] <= means["zero fill"]["relative_l1"] + 1e-9
    assert means["hybrid"]["relative_l1"] < means["preview"]["relative_l1"]
    assert "relative L1" in repr(table)
    assert "6 of them exact" in repr(table)
    people = model.gallery({"ann": first[:1], "bo": second[:1]})
    assert set(FrequencyHeatPlot(people).compare_modes(first, "ann").means) == {"hybrid", "preview", "zero fill"}


def test_agreement_is_that_of_scipy():
    from scipy import stats

    a, b = torch.randn(4, 30, dtype=torch.float64), torch.randn(4, 30, dtype=torch.float64)
    b[0, :5] = 0.0
    found = functional.agreement(a, b)
    for p in range(4):
        assert math.isclose(float(found["pearson"][p]), stats.pearsonr(a[p], b[p]).statistic, abs_tol=1e-12)
        assert math.isclose(float(found["spearman"][p]), stats.spearmanr(a[p], b[p]).statistic, abs_tol=1e-12)
    assert torch.equal(functional.agreement(a, a)["top"], torch.ones(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least 5 bands"):
        functional.agreement(a[:, :3], b[:, :3])


def test_the_answer_slices_saves_and_describes_itself(tmp_path):
    model = model_of(dtype=torch.float32)
    first, second = faces(model, 3, seed=1), faces(model, 3, seed=2)
    heat = FrequencyHeatPlot(model, masked="both")(first, second)
    assert heat.influence.dtype == torch.float32
    assert torch.equal(heat.absolute, heat.influence.abs())
    assert torch.allclose(heat.per_energy * heat.energies.float(), heat.influence, atol=1e-6)
    assert torch.allclose(heat.face_edges, heat.edges * 2.2 * 35.2372 / 112)
    assert len(heat[1:2]) == 1
    assert torch.equal(heat[1:2].sides, heat.sides[1:2])
    heat.save(tmp_path / "heat.npz")
    again = load(tmp_path / "heat.npz")
    assert torch.equal(again.influence, heat.influence)
    assert again.recipe["masked"] == "both"
    assert repr(again) == repr(heat)
    people = model.gallery({"ann": first[:1], "bo": second[:1]})
    FrequencyHeatPlot(people)(first, "bo").save(tmp_path / "class.npz")
    assert load(tmp_path / "class.npz").names == ("ann", "bo")
    (tmp_path / "class.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"class\.npz"):
        load(tmp_path / "class.npz")


def test_bad_input_is_one_clear_error():
    model = model_of(dtype=torch.float32)
    images = faces(model, 2)
    for options, match in (
        ({"width": 0}, "positive width"),
        ({"width": float("nan")}, "positive width"),
        ({"limit": "square"}, "limit one of"),
        ({"masked": "none"}, "masked one of"),
        ({"mode": "fast"}, "mode one of"),
        ({"sectors": 0}, "at least one sector"),
        ({"exact_bands": 0}, "exact_bands of at least 1"),
        ({"chunk": 0}, "chunk of at least 1"),
        ({"width": "1"}, "a width in cycles"),
        ({"width": 1e-9}, "take wider ones"),
        ({"limit": ["corner"]}, "limit one of"),
        ({"sectors": [2]}, "whole number"),
        ({"keep_dc": "no"}, "True or False"),
        ({"width": 99.0, "keep_dc": True, "limit": "circle"}, None),
    ):
        if match is None:
            assert FrequencyHeatPlot(model, **options)(images[:1], images[1:]).influence.shape == (1, 1)
            continue
        with pytest.raises(ValueError, match=match):
            FrequencyHeatPlot(model, **options)
    explainer = FrequencyHeatPlot(model)
    with pytest.raises(TypeError, match="two batches of faces"):
        explainer(images)
    with pytest.raises(TypeError, match="targets belong to a gallery"):
        explainer(images, images, targets="ann")
    with pytest.raises(TypeError, match="targets once"):
        FrequencyHeatPlot(model.gallery({"ann": images[:1]}))(images, "ann", targets="ann")
    with pytest.raises(ValueError, match="top as a whole number"):
        explainer.compare_modes(images, images, top=0)
    heat = explainer(images, images)
    with pytest.raises(ValueError, match="1 to 64 discs, got 0"):
        heat[:0].plot()
    assert "<pre>" in heat[:0]._repr_html_()
    with pytest.raises(ValueError, match="item=9"):
        heat.plot_bands(item=9)
    with pytest.raises(ValueError, match="do not join"):
        type(heat).joined([heat, FrequencyHeatPlot(model, limit="circle")(images, images)])
    with pytest.raises(ValueError, match="20x20 pixels"):
        explainer(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="as many second images"):
        explainer(images, images[:1])
    with pytest.raises(ValueError, match="not FrequencyHeatPlot's"):
        explainer.answer(CorrRISE(model, count=5).observe(images), explainer.observe(images))
    with pytest.raises(ValueError, match="observe the images again"):
        FrequencyHeatPlot(model, width=2.0).answer(explainer.observe(images), explainer.observe(images))
    with pytest.raises(ValueError, match="is about pairs"):
        FrequencyHeatPlot(model.gallery({"ann": images[:1]}), masked="both")
    detached = FaceModel(Detached(model.net), InputSpec(20))
    with pytest.raises(ValueError, match='mode="exact" asks without gradients'):
        FrequencyHeatPlot(detached, mode="preview")(images[:1], images[1:])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"edges": torch.tensor([0.0, math.nan, 2.0])}, "finite, rising edges"),
        ({"edges": torch.tensor([0.0, 2.0, 1.0])}, "finite, rising edges"),
        ({"edges": torch.tensor([[0.0, 1.0, 2.0]])}, "edges"),
        ({"influence": torch.ones(1, 2, dtype=torch.int64)}, "influence .* as floats"),
        ({"scores": torch.ones(1, 1)}, "scores"),
        ({"energies": torch.ones(1, 3)}, "energies"),
        ({"sides": torch.ones(1, 2)}, "sides"),
        ({"targets": torch.tensor([2])}, "among the 2 names"),
        ({"targets": torch.tensor([0.5])}, "targets"),
        ({"face": 0.0}, "breadth of the face"),
    ],
)
def test_an_answer_that_does_not_fit_together_is_refused(change, match):
    plain = {
        "influence": torch.ones(1, 2),
        "edges": torch.tensor([0.0, 1.0, 2.0]),
        "energies": torch.ones(1, 2),
        "scores": torch.ones(1),
        "size": (4, 4),
        "face": 0.7,
        "names": ("a", "b"),
    }
    FrequencyHeat(**plain)
    with pytest.raises(ValueError, match=match):
        FrequencyHeat(**{**plain, **change})


@pytest.mark.parametrize(("limit", "keep_dc"), [("circle", False), ("corner", True)])
def test_the_strip_takes_out_what_the_bands_hold(limit, keep_dc):
    """Together the octaves hold everything that belongs to a band, and nothing else."""
    from unittest import mock

    from facexai.plots import frequency

    image, layout = torch.rand(3, 20, 20, dtype=torch.float64), functional.bands((20, 20), 1.0, limit, keep_dc=keep_dc)
    shown = []
    with mock.patch.object(frequency, "photo", lambda axes, pixels: shown.append(pixels)):
        frequency.strip(image, layout.edges, torch.zeros(layout.count), 0.7, "cosine", limit=limit, keep_dc=keep_dc)
    removed = sum(image - pixels for pixels in shown[1::2])
    held = torch.fft.irfft2(torch.fft.rfft2(image) * (layout.cells >= 0), s=(20, 20))
    assert torch.allclose(removed, held)


def test_equal_titles_and_odd_names_are_all_drawn():
    heat = FrequencyHeat(
        torch.rand(3, 2), torch.tensor([0.0, 1.0, 2.0]), torch.ones(3, 2), torch.full((3,), 0.5), (4, 4), 0.7
    )
    axes = heat.plot("line").axes[0]
    assert len(axes.get_legend().get_texts()) == 4
    from facexai import plots

    drawn = plots.lines([("_a", torch.ones(2)), ("b$x$", torch.ones(2))], heat.edges, 0.7, "cosine")
    assert len(drawn.axes[0].get_legend().get_texts()) == 2


class Detached(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.detach())


def test_an_identical_pair_loses_and_never_gains():
    model = model_of()
    images = faces(model, 2)
    heat = FrequencyHeatPlot(model)(images, images)
    assert (heat.influence > -1e-12).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(FrequencyHeatPlot(model, masked="both")(images, images).influence).all()
