"""SDD: a literal reference, exact identities, the known answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facexai.functional import minmax, sdd

KNOWN = json.loads((Path(__file__).parents[1] / "data" / "sdd_readback.json").read_text())


def literal(target, rivals, power, scale, amplify):
    """The formula as it stands, one cell after the other, in Python floats."""

    def scaled(rows):
        flat = [v for row in rows for v in row]
        low, high = min(flat), max(flat)
        return [[0.0 if high == low else (v - low) / (high - low) for v in row] for row in rows]

    t = scaled(target) if scale == "minmax" else target
    rs = [scaled(r) if scale == "minmax" else r for r in rivals]
    d = [[sum(t[y][x] - r[y][x] for r in rs) for x in range(len(t[0]))] for y in range(len(t))]
    return d if amplify == "none" else [[v**power for v in row] for row in scaled(d)]


@given(
    st.integers(1, 5),
    st.integers(2, 6),
    st.integers(0, 10_000),
    st.sampled_from(["minmax", "none"]),
    st.sampled_from(["power", "none"]),
    st.sampled_from([1.0, 2.0, 15.0]),
)
@settings(max_examples=60, deadline=None)
def test_it_equals_the_literal_formula(rivals, side, seed, scale, amplify, power):
    maps = torch.randn(
        2, 1 + rivals, side, side + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    fast = sdd(maps[:, 0], maps[:, 1:], power, scale, amplify)
    for i in range(2):
        slow = literal(maps[i, 0].tolist(), maps[i, 1:].tolist(), power, scale, amplify)
        torch.testing.assert_close(fast[i], torch.tensor(slow, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_the_known_answer_read_off_the_published_figure():
    target, rivals = torch.tensor(KNOWN["target"])[None], torch.tensor(KNOWN["rivals"])[None]
    result = sdd(target, rivals)[0]
    order = result.flatten().argsort(descending=True).tolist()
    assert [divmod(i, 7) for i in order[:3]] == [(5, 2), (0, 0), (3, 2)]
    assert (result.flatten()[order[3:]] < 0.15 * result.max()).all()


def test_the_kl_ablation_puts_the_peak_elsewhere():
    target, rivals = torch.tensor(KNOWN["target"])[None], torch.tensor(KNOWN["rivals"])[None]
    peak = divmod(int(sdd(target, rivals, divergence="kl")[0].argmax()), 7)
    assert peak != (5, 2)


@pytest.fixture
def maps():
    return torch.randn(3, 5, 7, 7, dtype=torch.float64)


@pytest.mark.parametrize("scale", ["minmax", "none"])
@pytest.mark.parametrize("amplify", ["power", "exp", "none"])
def test_the_order_of_rivals_does_not_matter(maps, scale, amplify):
    one = sdd(maps[:, 0], maps[:, 1:], scale=scale, amplify=amplify)
    other = sdd(maps[:, 0], maps[:, [3, 1, 4, 2]], scale=scale, amplify=amplify)
    torch.testing.assert_close(one, other)


def test_adding_one_map_to_every_class_changes_nothing(maps):
    added = maps + torch.randn(3, 1, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(
        sdd(maps[:, 0], maps[:, 1:], scale="none", amplify="none"),
        sdd(added[:, 0], added[:, 1:], scale="none", amplify="none"),
    )


def test_scaling_a_class_map_changes_nothing_after_minmax(maps):
    stretched = maps * torch.tensor([1.0, 2.0, 5.0, 0.1, 3.0])[:, None, None] + 7
    torch.testing.assert_close(sdd(maps[:, 0], maps[:, 1:]), sdd(stretched[:, 0], stretched[:, 1:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rivals", [1, 3, 4])
def test_identical_and_constant_maps_give_zeros(dtype, rivals):
    same = torch.rand(1, 1, 7, 7).to(dtype).expand(1, 1 + rivals, 7, 7)
    constant = torch.full((1, 1 + rivals, 7, 7), 3.7).to(dtype)
    nearly = torch.full((1, 1 + rivals, 7, 7), 1e4) + torch.rand(1, 1 + rivals, 7, 7) * 1e-3
    for maps in (same, constant, nearly):
        for amplify in ("power", "exp", "none"):
            assert (sdd(maps[:, 0], maps[:, 1:], amplify=amplify) == 0).all()


def test_the_range(maps):
    for amplify in ("power", "exp"):
        result = sdd(maps[:, 0], maps[:, 1:], amplify=amplify)
        assert result.min() >= 0
        assert torch.equal(result.amax((1, 2)), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rivals": torch.zeros(3, 0, 7, 7)}, "R >= 1"),
        ({"rivals": torch.zeros(3, 4, 6, 7)}, "same layer"),
        ({"rivals": torch.zeros(2, 4, 7, 7)}, "same images"),
        ({"target": torch.full((3, 7, 7), float("nan"))}, "finite"),
        ({"power": 0}, "power > 0"),
        ({"power": float("nan")}, "power > 0"),
        ({"scale": "max"}, "scale one of"),
        ({"amplify": "log"}, "amplify one of"),
        ({"divergence": "js"}, "divergence one of"),
        ({"divergence": "kl", "scale": "none"}, "needs scale='minmax'"),
    ],
)
def test_bad_input(maps, change, message):
    with pytest.raises(ValueError, match=message):
        sdd(**{"target": maps[:, 0], "rivals": maps[:, 1:], **change})


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_minmax_undoes_shift_and_scale(shift, factor, seed):
    maps = torch.rand(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(minmax(maps * factor + shift), minmax(maps), rtol=1e-4, atol=1e-4)
