"""Maps against a known region: literal loops, chance, ties, and the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facexai import FaceXAIWarning, PairSaliency, metrics, perturb


def drawn(n=5, size=9, *, levels=None, seed=0):
    made = torch.Generator().manual_seed(seed)
    values = torch.rand(n, size, size, generator=made)
    return values if levels is None else (values * levels).floor()


def regions(n=5, size=9, seed=1):
    masks = torch.rand(n, size, size, generator=torch.Generator().manual_seed(seed)) < 0.2
    masks[:, 0, 0], masks[:, 1, 1] = True, False
    return masks


def literal_average_precision(values, inside):
    found, last = 0.0, 0.0
    for value in sorted(set(values), reverse=True):
        taken = [k for k, v in enumerate(values) if v >= value]
        hits = sum(inside[k] for k in taken)
        recall, precision = hits / sum(inside), hits / len(taken)
        found += (recall - last) * precision
        last = recall
    return found


@pytest.mark.parametrize("levels", [None, 4, 1])
def test_average_precision_is_the_literal_loop(levels):
    maps, masks = drawn(levels=levels), regions()
    found = metrics.average_precision(maps, masks)
    for value, one, mask in zip(found.values, maps, masks, strict=True):
        assert value == pytest.approx(literal_average_precision(one.flatten().tolist(), mask.flatten().tolist()))
    if levels == 1:  # constant maps
        np.testing.assert_allclose(found.values, masks.double().mean((1, 2)).numpy())


@pytest.mark.parametrize("levels", [None, 6])
def test_average_precision_is_scikit_learns(levels):
    sklearn = pytest.importorskip("sklearn.metrics")
    maps, masks = drawn(levels=levels), regions()
    expected = [sklearn.average_precision_score(m.flatten(), v.flatten()) for v, m in zip(maps, masks, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(maps, masks).values, expected)


@pytest.mark.parametrize("area", [None, 0.1, 1.0])
def test_top_share_is_that_of_the_top_area(area):
    maps, masks = drawn(), regions()
    found = metrics.top_share(maps, masks, area)
    for value, one, mask in zip(found.values, maps, masks, strict=True):
        top = perturb.top_area(one[None], float(mask.double().mean()) if area is None else area)[0]
        assert value == pytest.approx(float((top & mask).sum() / top.sum()))


def test_ties_are_the_mean_over_all_orders():
    maps, masks = drawn(3, levels=3), regions(3)
    share, hit = np.zeros(3), np.zeros(3)
    rounds = 400
    for seed in range(rounds):
        broken = maps + 1e-3 * drawn(3, seed=seed)
        share += metrics.top_share(broken, masks, 0.3).values / rounds
        hit += metrics.pointing(broken, masks).values / rounds
    np.testing.assert_allclose(metrics.top_share(maps, masks, 0.3).values, share, atol=0.03)
    np.testing.assert_allclose(metrics.pointing(maps, masks).values, hit, atol=0.1)


def test_a_map_that_knows_and_one_that_does_not():
    masks = regions()
    chance = masks.double().mean((1, 2)).numpy()
    for measure in (metrics.top_share, metrics.pointing, metrics.average_precision):
        np.testing.assert_allclose(measure(masks.double(), masks).values, 1)
        np.testing.assert_allclose(measure(torch.zeros(masks.shape), masks).values, chance)
    assert metrics.top_share(-masks.double(), masks).mean == 0
    assert metrics.pointing(-masks.double(), masks).mean == 0


def test_pointing_tolerates_pixels():
    masks, maps = torch.zeros(1, 9, 9, dtype=torch.bool), torch.zeros(1, 9, 9)
    masks[0, 2, 2], maps[0, 5, 6] = True, 1.0  # 5 pixels apart
    assert metrics.pointing(maps, masks, 4.9).mean == 0
    assert metrics.pointing(maps, masks, 5).mean == 1


def test_items_and_identities_are_kept():
    found = metrics.pointing(drawn(), regions(), items=[5, 6, 7, 8, 9], identities=list("aabbc"))
    assert found.items.tolist() == [5, 6, 7, 8, 9]
    assert found.identities == tuple("aabbc")
    parts = [metrics.average_precision(drawn()[s], regions()[s], items=range(5)[s]) for s in (slice(2), slice(2, 5))]
    np.testing.assert_allclose((parts[0] + parts[1]).values, metrics.average_precision(drawn(), regions()).values)


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        (metrics.top_share, (drawn(), regions(), 0.0), "area above 0"),
        (metrics.pointing, (drawn(), regions(), -1), "tolerance of at least 0"),
        (metrics.pointing, (drawn(), regions(), float("nan")), "tolerance of at least 0"),
        (metrics.average_precision, (drawn(4), regions()), "one boolean mask"),
        (metrics.average_precision, (drawn(), regions().float()), r"torch\.float32"),
        (metrics.average_precision, (drawn(), torch.zeros(5, 9, 9, dtype=torch.bool)), "inside and an outside"),
        (metrics.average_precision, (drawn(), torch.ones(5, 9, 9, dtype=torch.bool)), "inside and an outside"),
        (metrics.average_precision, (drawn() * torch.nan, regions()), "NaN or infinity"),
        (metrics.localisation, ({}, regions()), "at least one method"),
    ],
)
def test_bad_input(measure, arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(*arguments)


@pytest.fixture
def swapped():
    pairs = torch.rand(8, 3, 20, 20), torch.rand(8, 3, 20, 20)
    return perturb.patch_swap(pairs, size=0.4)


def test_patches_of_the_partner_are_of_two_people(swapped):
    why = PairSaliency(torch.rand(8, 2, 20, 20), (20, 20), torch.zeros(8))
    people, others = list("aabbccdd"), list("bcaddabc")
    asked = {"methods": {"own": why}, "masks": swapped.masks, "part": "similar", "identities": people}
    found = metrics.localisation(**asked, partners=others).rows[0]
    values = metrics.average_precision(why.similar[:, 0], swapped.masks, identities=people, partners=others)
    assert found["average precision interval"] == values.interval
    with pytest.warns(FaceXAIWarning, match="first person of 8 images of two people and nothing names the second"):
        unnamed = metrics.localisation(**asked).rows[0]
    assert unnamed["average precision interval"] != values.interval
    rows = metrics.localisation({"own": why.similar[:, 0]}, swapped.masks, identities=people)  # about one person each
    assert rows.recipe["interval"].startswith("95 %, bootstrap by person")


def test_the_table(swapped, tmp_path):
    true = swapped.masks.double() + 0.1 * torch.rand(8, 20, 20)
    cells = torch.zeros(8, 2, 20, 20)
    cells[:, 0] = -true  # the patch speaks against the match
    why = PairSaliency(cells, (20, 20), torch.zeros(8))
    table = metrics.localisation(
        {"true": why, "noise": torch.rand(8, 20, 20)}, swapped.masks, part="dissimilar", identities=list("aabbccdd")
    )
    rows = {row["map"]: row for row in table.rows}
    assert list(rows) == [
        "true",
        "noise",
        "centre prior",
        *(f"{control} of {name}" for name in ("true", "noise") for control in ("random", "mean-map", "other-pair")),
    ]
    for column in ("top share", "pointing", "average precision"):
        assert rows["true"][column] == 1
        low, high = rows["true"][f"{column} interval"]  # four people, none of whose patches was missed
        assert (low, high) == (pytest.approx(0.05**0.25), 1)
        for name in ("noise", "centre prior", "random of true", "mean-map of true", "other-pair of true"):
            assert rows[name]["average precision"] < 1
    for control in ("random", "centre", "mean-map", "other-pair"):
        assert rows["true"][f"beats {control}"] == (rows["true"][f"beats {control}"] is True)
        assert rows["noise"][f"beats {control}"] is False
    assert table.recipe["region"] == pytest.approx(float(swapped.masks.double().mean()))
    assert "other-pair of noise" in str(table)
    assert len(table.plot().axes) == 3
    table.save(tmp_path / "t.json")
    assert table.recipe["interval"] == "95 %, both people of each pair: dyadic-robust, Student's t"
    nothing = metrics.localisation({"true": why}, swapped.masks, part="similar").rows[0]
    for column in table.panels:  # no pixel speaks for the match: chance
        assert nothing[column] == pytest.approx(float(swapped.masks.double().mean()))


def test_random_is_the_map_elsewhere(swapped):
    true = swapped.masks.double()
    one = metrics.localisation({"true": true}, swapped.masks, seed=2).rows
    found = next(row for row in one if row["map"] == "random of true")
    by_hand = [metrics.pointing(perturb.shift_mask(true, seed=16 + k), swapped.masks).mean for k in range(8)]
    assert found["pointing"] == pytest.approx(np.mean(by_hand))
    again = metrics.localisation({"true": true}, swapped.masks, seed=3).rows
    assert next(row for row in again if row["map"] == "random of true")["pointing"] != found["pointing"]


def test_one_item_has_few_controls(swapped):
    table = metrics.localisation({"true": swapped.masks[:1].double()}, swapped.masks[:1])
    assert [row["map"] for row in table.rows] == ["true", "centre prior", "random of true"]
    assert table.rows[0]["beats centre"] is None
    assert table.rows[0]["beats mean-map"] is None
    assert table.rows[0]["pointing interval"] is None


def test_the_second_image_and_what_does_not_exist(swapped):
    cells = torch.zeros(8, 2, 20, 20)
    cells[:, 1] = swapped.masks.double()
    why = PairSaliency(cells, (20, 20), torch.zeros(8))
    assert metrics.localisation({"a": why}, swapped.masks, side="second").rows[0]["pointing"] == 1
    for change in ({"part": "auto"}, {"side": "both"}):
        with pytest.raises(ValueError, match="expected part 'similar' or 'dissimilar'"):
            metrics.localisation({"a": why}, swapped.masks, **change)
