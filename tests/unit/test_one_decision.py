"""Every command, metric and explainer decides about a pair alike, and rounding decides about none."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import FlatNet, shaken

from facexai import FGGB, XSSAB, CorrRISE, FaceModel, FrequencyHeatPlot, PairCAM, images, metrics
from facexai.cli import main
from facexai.functional._decision import GAP, accepted, cosines, cosines_of_pairs, near, placements
from facexai.metrics.verification import placed

few = settings(max_examples=60, deadline=None)
RULES = ("eer", "accuracy", "far=0.2", "far=0.05", 0.3)


def literal(falling, k, upward):
    """The middle of the nearest wide gap to the one below score k, by looking at all of them."""
    ends = [falling[0] + GAP, *falling, falling[-1] - GAP]
    gaps = [(high + low) / 2 for high, low in itertools.pairwise(ends)]
    own = gaps[k + 1]
    wide = [
        middle
        for i, (middle, high, low) in enumerate(zip(gaps, ends, ends[1:], strict=False))
        if (high - low >= GAP * (1 - 1e-9) or i in (0, len(gaps) - 1)) and (middle >= own or not upward)
    ]
    return min(wide, key=lambda middle: (abs(middle - own), -middle))


@few
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True), st.booleans(), st.sampled_from([3e-6, 0.01])
)
def test_thresholds_lie_in_the_nearest_gap(places, upward, step):
    falling = np.array(sorted(places, reverse=True)) * step
    wanted = [literal(falling, k, upward) for k in range(len(falling))]
    found = placements(falling, upward=upward)
    np.testing.assert_allclose(np.abs(found - wanted), 0, atol=1e-12)
    assert np.abs(falling[:, None] - found).min() >= 0.499 * GAP


def test_decisions_that_the_gap_changes_are_counted():
    scores, same = [0.9, 0.5, 0.499999, 0.1], [True, True, False, False]
    assert placed(scores, same, "far=0") == (pytest.approx(0.7), 1)  # the genuine pair at 0.5 has no room below it
    assert placed([0.9, 0.5, 0.4, 0.1], same, "far=0") == (pytest.approx(0.45), 0)
    assert placed(scores, same, 0.5) == (0.5, 0)


def test_a_threshold_is_compared_in_double_precision():
    score = torch.tensor([0.1])  # 0.100000001490116 in float64
    assert accepted(score, 0.1).tolist() == accepted(score.double(), 0.1).tolist() == [True]
    assert accepted(torch.tensor([0.7]), 0.7).tolist() == [False]  # 0.699999988079071
    assert near([0.5 + 9e-7, 0.5 - 9e-7, 0.500002], 0.5).tolist() == [True, True, False]


def test_cosines_do_not_depend_on_how_many_are_asked_for():
    rows = torch.randn(50, 16)
    index = np.array([(i, j) for i in range(50) for j in range(50)])
    found = cosines_of_pairs(rows, np.tile(index, (8, 1)))
    np.testing.assert_array_equal(found[: len(index)], cosines(rows[index[:, 0]], rows[index[:, 1]]).numpy())
    np.testing.assert_array_equal(found[: len(index)], found[-len(index) :])
    assert found.max() <= 1


def explainers(model, limit=0.3):
    """Explainers whose evidence of a face serves every partner and threshold."""
    return {
        "FGGB": FGGB(model, limit),
        "PairCAM": PairCAM(model, threshold=limit, layer="auto"),
        "CorrRISE": CorrRISE(model, threshold=limit, count=3),
    }


def agree(model, faces, who, rules=RULES):
    """All pairs under all rules: metrics, explainers and the function itself."""
    index = np.array([(i, j) for i in range(len(faces)) for j in range(i)])
    same = np.array([who[i] == who[j] for i, j in index])
    scores = cosines_of_pairs(model.embed(faces), index)
    evidence = {name: explainer.observe(faces) for name, explainer in explainers(model).items()}
    for rule in rules:
        limit = metrics.threshold(scores, same, rule)
        wanted, settled = accepted(scores, limit), ~near(scores, limit)
        if isinstance(rule, str):
            assert settled.all()
        for name, explainer in explainers(model, limit).items():
            seen = evidence[name]
            for p, (i, j) in enumerate(index):
                why = explainer.answer(seen[i : i + 1], seen[j : j + 1])
                assert not settled[p] or bool(why.accepted) == wanted[p], (name, rule)
                assert float(why.scores) == pytest.approx(scores[p], abs=1e-6)
        nearest = np.abs(scores - limit).argsort()[:2]  # two graphs each, which cannot be kept
        why = XSSAB(model, limit)(faces[index[nearest, 0]], faces[index[nearest, 1]])
        assert why.accepted.tolist() == wanted[nearest].tolist() or not settled[nearest].all()
        how, some = metrics.Protocol(threshold=rule, steps=2), torch.rand(len(index), 2, *faces.shape[2:])
        both = faces[index[:, 0]], faces[index[:, 1]]
        curve = metrics.verification_deletion(model, *both, some, same, how, controls=())
        right = zip(curve.area.items.tolist(), curve.correct[:, 0].tolist(), strict=True)
        assert all(bool(c) == (wanted[i] == same[i]) for i, c in right if settled[i])
    heat = FrequencyHeatPlot(model, width=20)(*(side[:2] for side in both))
    np.testing.assert_allclose(heat.scores.numpy(), scores[:2], atol=1e-6)
    assert heat.scores.dtype == torch.float64


@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
def test_metrics_and_explainers_agree_on_a_small_network():
    torch.manual_seed(0)
    model = FaceModel(shaken(FlatNet()), "arcface")
    patterns = torch.rand(4, 3, 112, 112)
    who = [0, 0, 1, 1, 2, 2, 3]
    agree(model, (patterns[who] + 0.4 * torch.rand(7, 3, 112, 112)).clamp(0, 1), who)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
def test_metrics_and_explainers_agree_on_real_faces(mobileface, lfw, crops):
    files = [photo for photos in list(lfw.values())[:4] for photo in photos[:2]]
    agree(mobileface, crops(files, "arcface"), [photo.parent.name for photo in files])


@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
@pytest.mark.parametrize("rule", ["eer", "accuracy", "far=0.2"])
def test_verify_and_compare_decide_alike(tmp_path, monkeypatch, rule):
    (tmp_path / "ownnet.py").write_text(
        "import torch\nfrom nets import FlatNet, shaken\nfrom facexai import FaceModel\n"
        "def make():\n    torch.manual_seed(0)\n    return FaceModel(shaken(FlatNet()), 'arcface')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    drawn = torch.Generator().manual_seed(1)
    patterns = torch.rand(3, 3, 112, 112, generator=drawn)
    for k in range(6):
        face = (patterns[k // 2] + 0.5 * torch.rand(3, 112, 112, generator=drawn)).clamp(0, 1)
        images.save(face, tmp_path / f"{k}.png")
    pairs = [(i, j) for i in range(6) for j in range(i)]
    (tmp_path / "pairs.csv").write_text(
        "first,second,same\n" + "".join(f"{i}.png,{j}.png,{int(i // 2 == j // 2)}\n" for i, j in pairs)
    )
    common = ["--model", "ownnet:make", "--align", "never"]
    assert main(["verify", "pairs.csv", *common, "--rule", rule, "--out", "verified"]) == 0
    report = json.loads((tmp_path / "verified" / "verify.json").read_text())
    assert report["near_the_threshold"] == 0
    with (tmp_path / "verified" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for (i, j), row in list(zip(pairs, rows, strict=True))[::3]:
        limit = str(report["threshold"])
        asked = [
            "compare",
            f"{i}.png",
            f"{j}.png",
            *common,
            "--method",
            "paircam",
            "--threshold",
            limit,
            "--out",
            "out",
        ]
        assert main(asked) == 0
        compared = json.loads((tmp_path / "out" / "compare.json").read_text())
        assert compared["match"] == (row["accepted"] == "1")
        assert row["near"] == "0"
