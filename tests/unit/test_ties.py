"""Equal values of a map: no order of pixels decides, and a result says how much ties do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facexai import (
    FaceModel,
    FaceXAIWarning,
    GradCAM,
    HiResCAM,
    InputSpec,
    Saliency,
    functional,
    load,
    metrics,
    perturb,
)
from facexai.evaluate import Config
from facexai.metrics import _ties
from facexai.metrics.drop import STATISTICS
from facexai.metrics.pair_protocol import Protocol
from facexai.perturb._ties import dense_ranks, tie_fields, tied_shares, untied

SIZE = (10, 12)
FLIPS = ([], [-1], [-2], [-2, -1])


class Weighed:
    """A classifier of three classes whose logits are sums of weighed pixels, of a flipped input where wanted."""

    def __init__(self, flip=(), seed=0):
        drawn = torch.Generator().manual_seed(seed)
        self.weights, self.flip = torch.randn(3, 3, *SIZE, generator=drawn, dtype=torch.float64), list(flip)
        self.seen = 0

    def logits(self, images):
        self.seen += len(images)
        return torch.einsum("nchw,kchw->nk", images.double().flip(self.flip), self.weights) / 8


class Embedding(nn.Module):
    """Embeds a picture, flipped where wanted, by random projections."""

    def __init__(self, flip=()):
        super().__init__()
        drawn = torch.Generator().manual_seed(1)
        self.weights, self.flip = nn.Parameter(torch.randn(3 * 120, 8, generator=drawn, dtype=torch.float64)), flip

    def forward(self, x):
        return (x - 0.4).flip(list(self.flip)).flatten(1) @ self.weights + 1


@pytest.fixture
def images():
    return torch.rand(4, 3, *SIZE, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def maps():
    """Positive on an eighth of the picture, as maps after a ReLU are: a region of a fifth is cut through zeros."""
    drawn = torch.rand(4, *SIZE, generator=torch.Generator().manual_seed(4))
    return (drawn - 0.875).clamp(min=0)


def same(a, b):
    for name in STATISTICS:
        np.testing.assert_allclose(getattr(a, name).values, getattr(b, name).values, atol=1e-9)


# ---- fields ------------------------------------------------------------------------------------------------------


def test_a_group_of_fields_is_closed_under_both_flips():
    fields = tie_fields(SIZE, 7, seed=1, group=2)
    for dims in FLIPS:
        flipped = {field.flip(dims).numpy().tobytes() for field in fields}
        assert flipped == {field.numpy().tobytes() for field in fields}
    assert not torch.equal(fields, tie_fields(SIZE, 7, seed=1, group=3))
    assert not torch.equal(fields, tie_fields(SIZE, 8, seed=1, group=2))
    assert fields[0].unique().numel() == fields[0].numel()


def test_fields_prefer_no_place_and_are_smooth():
    """Every pixel is in the upper fifth equally often; neighbours are alike, pixels far apart are not."""
    fields = torch.cat([tie_fields((40, 40), number) for number in range(500)])
    often = perturb.top_area(fields, 0.2).double().mean(0)
    edge, middle = often[[0, -1]].mean(), often[10:30, 10:30].mean()
    assert float(edge) == pytest.approx(0.2, abs=0.02)
    assert float(middle) == pytest.approx(0.2, abs=0.02)
    a, b, c = fields[:, 20, 20], fields[:, 20, 21], fields[:, 5, 35]
    assert np.corrcoef(a, b)[0, 1] > 0.9  # sigma of the field is 2 pixels
    assert abs(np.corrcoef(a, c)[0, 1]) < 0.15


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(0, 4))
def test_ranks_shares_and_regions_are_those_of_a_literal_sort(seed, area, levels):
    drawn = torch.Generator().manual_seed(seed)
    maps, second = (torch.rand(2, 4, 5, generator=drawn).mul(levels).round() for _ in range(2))
    ranks, shares = dense_ranks(maps, second), tied_shares(maps, (area,))
    regions = perturb.top_area(maps, area, seed=5, items=[3, 9])
    count = round(area * 20)
    for row, item in enumerate((3, 9)):
        pairs = list(zip(maps[row].flatten().tolist(), second[row].flatten().tolist(), strict=True))
        order = sorted(set(pairs))
        assert ranks[row].flatten().tolist() == [order.index(pair) for pair in pairs]
        values, field = [a for a, _ in pairs], tie_fields((4, 5), item, seed=5)[0].flatten().tolist()
        chosen = sorted(range(20), key=lambda k, v=values, f=field: (-v[k], -f[k]))[:count]
        assert sorted(chosen) == regions[row].flatten().nonzero()[:, 0].tolist()
        inside, outside = [values[k] for k in chosen], [v for k, v in enumerate(values) if k not in chosen]
        tied = bool(inside) and min(inside) in outside
        assert float(shares[row, 0]) == (inside.count(min(inside)) / count if tied else 0)


# ---- metrics -----------------------------------------------------------------------------------------------------


def test_without_ties_nothing_changes_and_costs_nothing(images):
    """The region of a stable sort, one pass for the images and one for each changed set."""
    maps = torch.randn(4, *SIZE, generator=torch.Generator().manual_seed(8))
    model = Weighed()
    drop = metrics.deletion(model, images, maps)
    assert model.seen == 6 * 4
    order = maps.flatten(1).sort(dim=1, descending=True, stable=True).indices[:, : round(0.2 * 120)]
    region = torch.zeros(4, 120, dtype=torch.bool).scatter(1, order, True).view(4, 1, *SIZE)
    p, q = (Weighed().logits(x).softmax(1).amax(1) for x in (images, images))
    target = Weighed().logits(images).argmax(1)
    q = Weighed().logits(torch.where(region, 0.0, images)).softmax(1).gather(1, target[:, None])[:, 0]
    np.testing.assert_array_equal(drop.probability.values, (100 * (p - q)).numpy())
    assert drop.ties.share.mean == 0
    assert drop.ties.passes.mean == 1
    assert "ties" not in repr(drop)
    model.seen = 0
    metrics.insertion(model, images, maps, steps=4)
    assert model.seen == 4 + 5 * 5 * 4


def literal(model, image, values, item, *, scheme, area=0.2, seed=0):
    """The mean over fields of the five numbers of one image, by sorting pixels, with the rule for their number."""
    before, rows = model.logits(image[None])[0], []
    target, count = int(before.argmax()), round(area * values.numel())
    for group in range(8):
        for field in tie_fields(SIZE, item, seed=seed, group=group):
            keys = list(zip(values.flatten().tolist(), field.flatten().tolist(), strict=True))
            marked = torch.zeros(len(keys), dtype=torch.bool)
            marked[sorted(range(len(keys)), key=lambda k, keys=keys: keys[k], reverse=True)[:count]] = True
            gone = marked if scheme == "deletion" else ~marked
            after = model.logits((image * ~gone.view(1, *SIZE))[None])[0]
            p, q = before.softmax(0)[target], after.softmax(0)[target]
            m, n = (x[target] - max(x[k] for k in range(3) if k != target) for x in (before, after))
            changed = float(before.argmax() != after.argmax())
            rows.append([100 * float(p - q), 100 * float((p - q) / p), float(before[target] - after[target])])
            rows[-1] += [float(m - n), changed]
        if np.std([row[0] / 100 for row in rows], ddof=1) / len(rows) ** 0.5 <= 0.01:
            break
    return np.mean(rows, 0), len(rows)


@pytest.mark.parametrize("scheme", ["deletion", "retention"])
def test_a_drop_is_the_literal_mean_over_fields(images, maps, scheme):
    drop = getattr(metrics, scheme)(Weighed(), images, maps, seed=6, items=[2, 3, 5, 7])
    for row, item in enumerate((2, 3, 5, 7)):
        numbers, fields = literal(Weighed(), images[row], maps[row], item, scheme=scheme, seed=6)
        np.testing.assert_allclose(drop.values[row], numbers, atol=1e-9)
        assert drop.ties.passes.values[row] == fields
    positive = (maps > 0).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(drop.ties.share.values, (24 - positive) / 24)
    assert f"ties decide {drop.ties.share.mean:.1%} of the regions" in repr(drop)
    assert drop.rows()[0]["tied"] == drop.ties.share.mean
    assert drop.recipe["ties"] == "fields"


@pytest.mark.parametrize("dims", FLIPS[1:], ids=["left-right", "upside-down", "both"])
def test_mirrored_photo_network_and_map_give_the_same_numbers(images, maps, dims):
    """Both flips are the raster from its end: no order of pixels decides."""
    for measure in (metrics.deletion, metrics.retention):
        same(measure(Weighed(), images, maps), measure(Weighed(dims), images.flip(dims), maps.flip(dims)))
    for measure in (metrics.insertion, metrics.deletion_curve):
        a = measure(Weighed(), images, maps, steps=5)
        b = measure(Weighed(dims), images.flip(dims), maps.flip(dims), steps=5)
        np.testing.assert_allclose(a.values, b.values, atol=1e-9)
        np.testing.assert_array_equal(a.ties.values, b.ties.values)
    others, labels = images.flip(0), [True, False, True, False]
    both, how = torch.stack([maps, maps], 1), Protocol(perturb="both", fill="mean", threshold=0.2, steps=5)
    first = FaceModel(Embedding().double(), InputSpec(SIZE, mean=0.0, std=1.0))
    second = FaceModel(Embedding(dims).double(), InputSpec(SIZE, mean=0.0, std=1.0))
    x, y = images.double(), others.double()
    a = metrics.verification_deletion(first, x, y, both, labels, how, controls=())
    b = metrics.verification_deletion(second, x.flip(dims), y.flip(dims), both.flip(dims), labels, how, controls=())
    np.testing.assert_allclose(a.cosines, b.cosines, atol=1e-9)
    assert 0 < a.ties.share.mean < 1
    edited = (images + 0.2 * (maps > 0)[:, None]).clamp(max=1)  # many pixels that differ equally

    def yes(x, flip=()):
        return Weighed(flip).logits(x)[:, 0]

    a = metrics.cout(yes, images, edited, 7)
    b = metrics.cout(lambda x: yes(x, dims), images.flip(dims), edited.flip(dims), 7)
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_batches_and_parts_change_nothing(images, maps):
    whole = metrics.deletion(Weighed(), images, maps, batch_size=64)
    for size in (1, 2, 3):
        same(whole, metrics.deletion(Weighed(), images, maps, batch_size=size))
    parts = [metrics.deletion(Weighed(), images[i], maps[i], items=i) for i in ([0, 2], [1, 3])]
    for name in STATISTICS:
        np.testing.assert_allclose(getattr(parts[0] + parts[1], name).values, getattr(whole, name).values, atol=1e-9)
    np.testing.assert_array_equal((parts[0] + parts[1]).ties.values, whole.ties.values)
    curve = metrics.insertion(Weighed(), images, maps, steps=4)
    for size in (1, 3):
        other = metrics.insertion(Weighed(), images, maps, steps=4, batch_size=size)
        np.testing.assert_allclose(curve.values, other.values, atol=1e-9)


def test_only_images_and_steps_that_ties_cut_are_asked_again(images, maps):
    maps[1:] = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(2))
    model = Weighed()
    drop = metrics.deletion(model, images, maps, identities=["a", "b", "a", "b"])
    extra = int(drop.ties.passes.values[0]) - 1
    assert drop.ties.passes.values[1:].tolist() == [1, 1, 1]
    shifted, other = (drop.controls[name].ties.passes.values - 1 for name in ("random", "other-image"))
    assert model.seen == 6 * 4 + extra + int(shifted.sum() + other.sum())
    model.seen = 0
    curve = metrics.deletion_curve(model, images[:1], maps[:1], steps=4, reference=metrics.Reference(maps[1]))
    fields = curve.ties.passes.values[0] + curve.controls["random"].ties.passes.values[0]
    assert fields == curve.ties.passes.values[0] + 1
    assert model.seen == 1 + 4 * 5 + 3 * (int(curve.ties.passes.values[0]) - 1)  # steps 1, 2 and 3 are cut


def test_a_constant_map_is_warned_of_and_is_a_random_region():
    """Two hundred images, so that the noise of both is small; the map marks nothing."""
    images = torch.rand(200, 3, *SIZE, generator=torch.Generator().manual_seed(9))
    with pytest.warns(FaceXAIWarning, match=r"the maps of 200 items are constant, such as of item \[0, 1"):
        drop = metrics.deletion(Weighed(), images, torch.zeros(200, *SIZE))
    assert drop.ties.share.mean == 1
    random = drop.controls["random"]
    assert drop.p_value("random") > 0.05
    assert abs(drop.drop - random.drop) < 1
    by_hand = []
    for draw in range(8):
        regions = perturb.top_area(torch.rand(200, *SIZE, generator=torch.Generator().manual_seed(draw)), 0.2)
        model = Weighed()
        p, q = (model.logits(x).softmax(1) for x in (images, torch.where(regions[:, None], 0.0, images)))
        target = p.argmax(1, keepdim=True)
        by_hand.append(100 * float((p - q).gather(1, target).mean()))
    assert drop.drop == pytest.approx(np.mean(by_hand), abs=2)


def test_the_area_overlap_of_equal_maps_is_whole_whatever_the_ties():
    cells = torch.zeros(2, 3, 4, 4)
    cells[:, :, 0, 0] = 1
    why = Saliency(cells[:, 0], (8, 8), torch.zeros(2).long(), torch.zeros(2), recipe={"sdd": {}}, class_cells=cells)
    overlap = metrics.class_overlap(why, 0.5, items=[4, 6])
    assert overlap.before.mean == 1
    assert overlap.ties.share.mean == 1  # what SDD leaves of equal maps is constant
    twice = overlap + metrics.class_overlap(why, 0.5, items=[5, 7])
    assert twice.ties.passes.items.tolist() == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="area from 0 to 1"):
        metrics.class_overlap(why, 1.5)


def test_a_constant_map_of_a_pair_is_warned_of(images):
    model = FaceModel(Embedding().double(), InputSpec(SIZE, mean=0.0, std=1.0))
    pair = images[:2].double(), images[2:].double()
    maps = torch.zeros(2, 2, *SIZE)
    maps[1] = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(2))
    with pytest.warns(FaceXAIWarning, match=r"the maps of 1 items are constant, such as of item \[5\]"):
        curve = metrics.verification_deletion(model, *pair, maps, [True, False], Protocol(threshold=0.2), items=[5, 6])
    assert curve.ties.share.values.tolist() == [1, 0]
    assert "ties decide 50.0% of the regions" in repr(curve)
    assert curve.controls["centre"].ties.share.mean == curve.controls["random"].ties.share.mean == 0


def test_a_run_names_how_ties_are_broken():
    assert Config("faces", ties="signed").record()["ties"] == "signed"
    with pytest.raises(ValueError, match=r"expected ties one of \['fields', 'signed'\], got 'raster'"):
        Config("faces", ties="raster")


# ---- the explainer's own order -----------------------------------------------------------------------------------


@pytest.fixture
def gallery():
    drawn = torch.Generator().manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 49, 16)).double()
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape, generator=drawn, dtype=torch.float64) / 4
    model = FaceModel(net, InputSpec(16))
    faces = torch.rand(4, 3, 16, 16, generator=drawn)
    return model.gallery({f"p{i}": faces[i : i + 1] for i in range(4)}, scale=10.0), faces


def test_signed_cells_decide_among_equal_values_where_they_are_wanted(gallery, tmp_path, monkeypatch):
    people, faces = gallery
    published = functional.gradcam
    monkeypatch.setattr(functional, "gradcam", lambda *a: published(*a) - published(*a).quantile(0.9))
    why = GradCAM(people, layer="0")(faces, targets="p1")
    signed = GradCAM(people, layer="0", relu=False)(faces, targets="p1")
    assert torch.equal(why.signed_cells, signed.cells)
    assert signed.signed_cells is None
    why.save(tmp_path / "why.npz")
    assert torch.equal(load(tmp_path / "why.npz").signed_cells, why.signed_cells)
    drop = metrics.deletion(people, faces, why, area=0.8, ties="signed")
    by_hand = metrics.deletion(people, faces, dense_ranks(why.maps, signed.maps), area=0.8)
    assert drop.recipe["ties"] == "signed"
    target = torch.tensor([1] * 4)
    logits = people.logits(faces).double()
    kept = by_hand.score.values[(logits.argmax(1) == target).numpy()]
    np.testing.assert_allclose(drop.score.values[(logits.argmax(1) == target).numpy()], kept)
    fields = metrics.deletion(people, faces, why, area=0.8)
    assert fields.ties.share.mean > 0.2 > drop.ties.share.mean
    np.testing.assert_array_equal(
        drop.controls["mean-map"].values, metrics.deletion(people, faces, why, area=0.8).controls["mean-map"].values
    )
    plain = metrics.deletion(people, faces, HiResCAM(people, layer="0")(faces), ties="signed")
    assert plain.recipe["ties"] == "fields"  # the explanation has none
    with pytest.raises(ValueError, match=r"ties cannot be broken by 'raster'"):
        metrics.deletion(people, faces, why, ties="raster")


def test_the_centre_has_no_ties():
    prior = perturb.centre_prior((11, 11))
    order = untied(prior[None], [0])[0].flatten()
    assert order.unique().numel() == 121
    assert torch.equal(prior.flatten()[order.argsort()], prior.flatten().sort().values)


def test_results_without_a_record_of_ties_add_and_are_drawn():
    one, two = (
        metrics.Drop.of(np.ones((2, 5)), items=items, identities=None, recipe={"scheme": "deletion"})
        for items in ([0, 1], [2, 3])
    )
    assert (one + two).ties is None
    assert one.rows()[0]["tied"] is None
    assert _ties.tied_phrase(None, "regions") == ""
