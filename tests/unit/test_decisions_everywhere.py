"""verify, audit, reports, decisions and galleries decide as pair explainers do, and mark what rounding reaches."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from nets import FlatNet, shaken

from facexai import FGGB, XSSAB, CorrRISE, FaceModel, PairCAM, decisions, evaluate, images, metrics, report
from facexai.cli import main
from facexai.explainers.pairs import FaceEvidence
from facexai.functional._decision import NEAR, Verdict, accepted, cosines_of_pairs, cosines_to_all, is_threshold, near
from facexai.metrics.verification import placed

pytestmark = pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
RULES = ("eer", "accuracy", "far=0.2", "far=0.05", 0.3)
AT_THE_TOP = [1.0, 0.999995, 0.3, 0.2], [True, False, True, False]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


def rows_of(seen, places):
    return FaceEvidence.joined([seen[i : i + 1] for i in places])


def decided_by_report(why):
    """Verdicts of all items of a page, and whether each is marked."""
    (section,) = report.build(why, items=len(why)).record["sections"]
    return [item["decision"] for item in section["items"]], [item["near"] for item in section["items"]]


def verified(folder, rule, name):
    """The threshold of ``facexai verify``, and each pair's label, decision and mark."""
    out = folder / f"verified {rule}"
    asked = ["verify", str(folder / "pairs.csv"), "--model", name, "--align", "never", "--rule", str(rule)]
    assert main([*asked, "--out", str(out)]) == 0
    with (out / "scores.csv").open(newline="") as file:
        rows = [[row[column] == "1" for column in ("same", "accepted", "near")] for row in csv.DictReader(file)]
    return json.loads((out / "verify.json").read_text()), *np.array(rows).T


def audited(folder, rule, name):
    """What ``facexai audit`` writes about the same pairs, all of which are within groups."""
    (folder / "audit.toml").write_text(
        f'pairs = "pairs.csv"\ngroups = "groups.csv"\nmodel = "{name}"\nalign = "never"\n'
        f"threshold = {json.dumps(rule)}\nwidth = 20\ndraws = 99\n"
    )
    assert main(["audit", str(folder / "audit.toml"), "--out", str(folder / f"audited {rule}")]) == 0
    return json.loads((folder / f"audited {rule}" / "audit.json").read_text())


def evaluated(folder, rule, model):
    """What a run over the same pairs says about its decisions."""
    asked = {"explainers": ("xssab",), "metrics": ("deletion",), "protocol": "epfl-inferred", "align": "never"}
    config = evaluate.Config(str(folder / "pairs.csv"), threshold=rule, **asked)
    return evaluate.run(config, folder / f"evaluated {rule}", model=model).report["decision"]


def every_place_agrees(folder, model, name, faces, who, groups):
    """All pairs within groups, under all rules: verify, audit, runs, explainers, reports, decisions and galleries."""
    for k, face in enumerate(faces):
        images.save(face, folder / f"{k}.png")
    faces = images.load([folder / f"{k}.png" for k in range(len(faces))])  # 8 bits, as the commands see them
    index = [(i, j) for i in range(len(faces)) for j in range(i) if groups[i] == groups[j]]
    first, second = zip(*index, strict=True)
    pairs = "".join(f"{i}.png,{j}.png,{int(who[i] == who[j])}\n" for i, j in index)
    (folder / "pairs.csv").write_text("first,second,same\n" + pairs)
    people = "".join(f"{k}.png,{groups[k]},{who[k]}\n" for k in range(len(faces)))
    (folder / "groups.csv").write_text("image,group,identity\n" + people)
    units = model.embed(faces)
    scores, evidence = cosines_of_pairs(units, index), {}
    gallery = model.gallery({f"person {k}": faces[k : k + 1] for k in range(0, len(faces), 2)})
    for rule in RULES:
        told, same, match, close = verified(folder, rule, name)
        limit, settled = told["threshold"], ~near(scores, told["threshold"])
        wanted = accepted(scores, limit)
        assert (match == wanted)[settled].all()
        assert isinstance(rule, float) or (settled.all() and not close.any())

        if rule in ("eer", 0.3):  # a run takes some seconds; all rules are decided by one function of it
            run = evaluated(folder, rule, model)
            assert run["threshold"] == pytest.approx(limit, abs=1e-7)
            assert run["accepted"] == pytest.approx(match.mean())
            assert run["decisions moved"] == told["decisions_moved"]
            assert run["near the threshold"] == told["near_the_threshold"]

        found = audited(folder, rule, name)
        assert found["threshold"] == pytest.approx(limit, abs=1e-7)
        assert found["recipe"]["decisions moved"] == told["decisions_moved"]
        assert found["recipe"]["near the threshold"] == told["near_the_threshold"]
        for group, rates in found["rates"].items():
            own = np.array([groups[i] == group for i in first])
            assert rates["fmr"] == pytest.approx(match[own & ~same].mean())
            assert rates["fnmr"] == pytest.approx((~match[own & same]).mean())

        explainers = (FGGB(model, limit), PairCAM(model, threshold=limit, layer="auto"))
        for explainer in (*explainers, CorrRISE(model, threshold=limit, count=3)):
            kind = type(explainer).__name__
            seen = evidence.setdefault(kind, explainer.observe(faces))
            why = explainer.answer(rows_of(seen, first), rows_of(seen, second))
            assert (why.accepted.numpy() == wanted)[settled].all(), (kind, rule)
            words, marks = decided_by_report(why)
            assert [word == "match" for word in words] == why.accepted.tolist()
            assert marks == why.near.tolist()
        why = XSSAB(model, limit)(faces[list(first)], faces[list(second)])
        assert (why.accepted.numpy() == wanted)[settled].all()

        logits = decisions.verification(model, units[list(second)], limit)(faces[list(first)])
        assert ((logits > 0).numpy() == wanted)[settled].all()

        seen = evidence["CorrRISE"]
        everybody = CorrRISE(model, threshold=limit, count=3).against(gallery).answer(seen)
        assert everybody.scores.dtype == torch.float64
        words, _ = decided_by_report(everybody)
        assert [word != "nobody" for word in words] == accepted(everybody.scores.amax(1), limit).tolist()


def test_every_place_agrees_on_a_small_network(tmp_path, monkeypatch, model):
    (tmp_path / "smallnet.py").write_text(
        "import torch\nfrom nets import FlatNet, shaken\nfrom facexai import FaceModel\n\n\n"
        "def make():\n    torch.manual_seed(0)\n    return FaceModel(shaken(FlatNet()), 'arcface')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    drawn = torch.Generator().manual_seed(1)
    patterns = torch.rand(6, 3, 112, 112, generator=drawn)
    who = [k // 2 for k in range(12)]
    faces = (patterns[who] + 0.5 * torch.rand(12, 3, 112, 112, generator=drawn)).clamp(0, 1)
    every_place_agrees(tmp_path, model, "smallnet:make", faces, who, ["a" if k < 3 else "b" for k in who])


@pytest.mark.slow
def test_every_place_agrees_on_real_faces(tmp_path, monkeypatch, shared, mobileface, lfw, crops):
    (tmp_path / "realnet.py").write_text(
        "import mobileface\nfrom facexai import FaceModel, InputSpec\n\n\n"
        "def make():\n    return FaceModel(mobileface.load(), InputSpec(112, range=255.0))\n"
    )
    monkeypatch.syspath_prepend(str(shared / "tools"))
    monkeypatch.syspath_prepend(str(tmp_path))
    people = list(lfw)[::7][:4]
    who = [name for name in people for _ in range(2)]
    faces = crops([photo for name in people for photo in lfw[name][:2]], "arcface")
    every_place_agrees(tmp_path, mobileface, "realnet:make", faces, who, ["a"] * 4 + ["b"] * 4)


def test_a_report_marks_pairs_and_people_near_the_threshold(model):
    faces = torch.rand(3, 3, 112, 112)
    score = float(PairCAM(model)(faces[:1], faces[1:2]).scores)
    for limit, marked in ((score + NEAR / 2, True), (score - NEAR / 2, True), (score - 3 * NEAR, False)):
        why = PairCAM(model, threshold=limit)(faces[:1], faces[1:2])
        page = report.build(why)
        (row,) = page.record["decisions"]
        assert (row["near"], row["decision"]) == (marked, "match" if limit < score else "no match")
        assert page.html.count("within 1e-6 of the threshold") == 2 * marked  # beside the pair, and in the table
    people = model.gallery({"ann": faces[1:2], "bo": faces[2:]})
    best = float(CorrRISE(model, count=3).against(people)(faces[:1]).scores.max())
    for limit, marked in ((best, True), (best - 3 * NEAR, False)):
        everybody = CorrRISE(model, threshold=limit, count=3).against(people)(faces[:1])
        (row,) = report.build(everybody).record["decisions"]
        assert (row["near"], row["decision"] != "nobody") == (marked, True)


def test_a_verdict_needs_a_score_and_a_threshold():
    assert Verdict.of(0.5, None) == (None, None, False)
    assert Verdict.of(None, 0.5) == (0.5, None, False)
    assert Verdict.of(0.5, 0.5) == (0.5, True, True)
    assert Verdict.of(torch.tensor(0.4), 0.5) == (0.5, False, False)


def test_cosines_to_everybody_are_those_of_pairs():
    rows, others = torch.randn(5, 16), torch.randn(4, 16)
    index = np.array([(i, 5 + c) for i in range(5) for c in range(4)])
    wanted = cosines_of_pairs(torch.cat([rows, others]), index).reshape(5, 4)
    np.testing.assert_allclose(cosines_to_all(rows, others).numpy(), wanted, atol=1e-15)


@pytest.mark.parametrize("rule", ["accuracy", "far=0"])
def test_a_threshold_above_cosines_of_1_serves_everywhere(model, rule):
    limit, moved = placed(*AT_THE_TOP, rule)
    assert (limit, moved) == (pytest.approx(1.000005), 1)
    faces = torch.rand(2, 3, 112, 112)
    why = FGGB(model, limit)(faces[:1], faces[:1])
    assert (why.accepted.tolist(), why.near.tolist()) == ([False], [False])
    assert report.build(why).record["decisions"][0]["decision"] == "no match"
    assert report.build(PairCAM(model)(faces[:1], faces[1:]), threshold=limit).record["threshold"]["values"] == [limit]
    assert metrics.Protocol(threshold=limit).threshold == limit
    assert float(decisions.verification(model, faces[:1], limit)(faces[:1]).detach()) < 0


@pytest.mark.parametrize("value", [1.1, -1.1, float("nan"), float("inf"), True, np.True_, "0.3", None])
def test_what_is_no_threshold(value):
    assert not is_threshold(value)


def test_bias_counts_moved_and_near_pairs():
    rows, groups = np.random.default_rng(0).random((8, 3)), ["a"] * 4 + ["b"] * 4
    scores, same = [0.9, 0.5, 0.499999, 0.1] * 2, [True, True, False, False] * 2
    moved = metrics.bias(rows, groups, scores=scores, same=same, rule="far=0", draws=99).recipe
    assert (moved["decisions moved"], moved["near the threshold"]) == (2, 0)
    given = metrics.bias(rows, groups, scores=scores, same=same, rule=0.5, draws=99).recipe
    assert (given["decisions moved"], given["near the threshold"]) == (0, 4)
    assert "decisions moved" not in metrics.bias(rows, groups, draws=99).recipe
