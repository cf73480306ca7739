"""Patches of another face: what is pasted, where, and what stays."""

from __future__ import annotations

import pytest
import torch

from facexai import perturb


def faces(count=4, size=(24, 20), seed=0):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pairs():
    return faces(), faces(seed=1)


def test_a_hard_rectangle_by_hand(pairs):
    donors = faces(seed=2)
    made = perturb.patch_swap(
        pairs, donors, shape="rectangle", centre=(0.5, 0.25), size=(0.25, 0.2), soft=0, match_colour=False
    )
    expected = torch.zeros(24, 20, dtype=torch.bool)
    expected[9:15, 3:7] = True  # 6 of 24 rows around 12, 4 of 20 columns around 5
    assert torch.equal(made.masks, expected.expand(4, -1, -1))
    torch.testing.assert_close(made.first, torch.where(expected, donors, pairs[0]), rtol=0, atol=0)
    assert torch.equal(made.second, pairs[1])
    assert len(made) == 4
    assert repr(made) == "PatchedPairs(4 pairs, rectangle in the first, 0.050 of it)"


def test_an_ellipse_is_every_pixel_whose_centre_is_in_it(pairs):
    made = perturb.patch_swap(pairs, centre=(0.4, 0.6), size=(0.5, 0.4), soft=0)
    for i in range(24):
        for j in range(20):
            inside = ((i + 0.5 - 9.6) / 6) ** 2 + ((j + 0.5 - 12) / 4) ** 2 <= 1
            assert bool(made.masks[0, i, j]) == inside


@pytest.mark.parametrize("shape", ["ellipse", "rectangle"])
@pytest.mark.parametrize("into", ["first", "second"])
def test_the_mask_is_what_the_donor_gives_at_least_half_of(shape, into):
    black, white = torch.zeros(3, 3, 40, 40), torch.ones(3, 3, 40, 40)
    pair = (black, white) if into == "first" else (white, black)
    made = perturb.patch_swap(pair, into=into, shape=shape, soft=0.1, match_colour=False)
    changed, kept = (made.first, made.second) if into == "first" else (made.second, made.first)
    assert torch.equal(kept, white)
    assert torch.equal(changed[:, 0] >= 0.5, made.masks)
    mixed = (changed > 0) & (changed < 1)
    assert mixed.any()
    assert (changed[:, 0][~made.masks] == 0).any()
    assert torch.equal(perturb.patch_swap(pair, into=into, shape=shape, soft=0).masks, made.masks)


def test_places_are_random_within_the_face_and_belong_to_the_item(pairs):
    made = perturb.patch_swap(pairs, seed=3, size=0.3)
    assert len({tuple(c) for c in made.centres.tolist()}) == 4
    half = 0.15
    assert (made.centres - half >= 0.1 - 1e-9).all()
    assert (made.centres + half <= 0.9 + 1e-9).all()
    second = perturb.patch_swap((pairs[0][2:], pairs[1][2:]), seed=3, size=0.3, items=[2, 3])
    assert torch.equal(second.first, made.first[2:])
    assert not torch.equal(perturb.patch_swap(pairs, seed=4, size=0.3).centres, made.centres)
    given = perturb.patch_swap(pairs, centre=made.centres, size=0.3)
    assert torch.equal(given.masks, made.masks)


def test_colours_are_those_of_what_is_replaced():
    base, donors = 0.4 + 0.1 * faces(), 0.2 + 0.15 * faces(seed=2)
    made = perturb.patch_swap((base, base), donors, soft=0, size=0.6)
    for p in range(4):
        inside = made.masks[p]
        now, before = made.first[p][:, inside], base[p][:, inside]
        torch.testing.assert_close(now.mean(1), before.mean(1))
        torch.testing.assert_close(now.std(1), before.std(1), rtol=1e-3, atol=1e-4)
        correlation = torch.corrcoef(torch.stack([now.flatten(), donors[p][:, inside].flatten()]))[0, 1]
        assert correlation > 0.9  # the donor's picture, not the base's
    flat = perturb.patch_swap((base, base), torch.full_like(base, 0.9), soft=0)
    assert torch.isfinite(flat.first).all()
    strong = perturb.patch_swap((faces(), faces()), 0.5 + 0.01 * faces(seed=2), soft=0)
    assert strong.first[0][:, strong.masks[0]].std() < 0.05  # contrast is at most doubled


def test_the_same_face_as_donor_changes_nothing(pairs):
    for match in (True, False):
        made = perturb.patch_swap(pairs, pairs[0], match_colour=match)
        torch.testing.assert_close(made.first, pairs[0])


def test_inputs_are_not_written_to(pairs):
    before = pairs[0].clone(), pairs[1].clone()
    perturb.patch_swap(pairs)
    perturb.patch_swap(pairs, into="second")
    assert all(torch.equal(a, b) for a, b in zip(pairs, before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"into": "third"}, "into='first' or 'second', got 'third'"),
        ({"shape": "star"}, "shape 'ellipse' or 'rectangle', got 'star'"),
        ({"size": 0.0}, "size above 0 and up to 1"),
        ({"size": (0.5, 1.2)}, "size above 0 and up to 1"),
        ({"size": 0.9}, "does not fit the middle 80%.*give centre="),
        ({"soft": -0.1}, "soft from 0 to 1"),
        ({"centre": (0.5, 1.5)}, r"centre as \(y, x\), or \(4, 2\)"),
        ({"centre": torch.rand(3, 2)}, r"or \(4, 2\)"),
        ({"size": 0.01, "centre": (0.5, 0.5)}, r"pair \[0, 1, 2, 3\] holds no pixel"),
        ({"donors": faces(3)}, r"expected donors as first, \(4, 3, 24, 20\)"),
        ({"donors": 255 * faces()}, r"pixels in \[0, 1\]"),
        ({"items": [1]}, "one item number"),
    ],
)
def test_bad_input(pairs, change, message):
    with pytest.raises(ValueError, match=message):
        perturb.patch_swap(pairs, **change)


def test_pairs_of_different_sizes(pairs):
    with pytest.raises(ValueError, match="expected second as first"):
        perturb.patch_swap((pairs[0], pairs[1][:2]))
