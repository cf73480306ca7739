"""The comparison of two trees: it passes where every bit is equal, and fails where anything else is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import FlatNet, shaken

from facexai import FaceModel, HiResCAM, metrics
from facexai.functional import at_least_float32

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CALL = ("tiny", "HiResCAM")


@pytest.fixture(scope="module", autouse=True)
def _importable():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def tiny() -> FaceModel:
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


@pytest.fixture(scope="module")
def record():
    """A function that records an explainer and a metric on a tiny network."""
    import golden

    def calls():
        model, faces = tiny(), torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(1))
        people = model.gallery({f"p{i}": face for i, face in enumerate(faces[:3].split(1))})
        saliency = HiResCAM(people, layer="layer3")(faces[2:])
        return {"HiResCAM": lambda: saliency, "deletion": lambda: metrics.deletion(people, faces[2:], saliency)}

    return lambda: golden.recorded("tiny", calls())


@pytest.fixture(scope="module")
def start(record):
    return record()


def rows(start, now, wording=None):
    import golden

    return {row["call"]: row for row in golden.compare(start, now, {} if wording is None else wording)}


def changed(recording, part, value=None, name=None):
    """The recording with one part of its first call changed, renamed or left out."""
    answer = recording[CALL]
    parts = {name if path == part and name else path: leaf for path, leaf in answer.parts.items()}
    if value is not None:
        parts[name or part] = value
    elif name is None:
        del parts[part]
    return {**recording, CALL: replace(answer, parts=parts)}


def test_equal_recordings_pass_also_after_they_were_written(start, record, tmp_path):
    import golden

    golden.write(tmp_path, record(), seconds=1.0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["arrays.npz", "record.json"]
    now, about = golden.read(tmp_path)
    first, second = golden.compare(start, now)
    assert about == {"seconds": 1.0}
    assert golden.passed([first, second])
    assert (first["result"], first["tensors"], first["first difference"]) == ("equal", 6, None)
    assert (second["result"], second["tensors"] > 50) == ("equal", True)
    parts = start["tiny", "deletion"].parts
    assert (".controls", "[random]", ".probability", ".interval", "#0") in parts  # controls with their intervals
    assert (".rows", "#1", "[p]") in parts  # and p-values


@pytest.mark.parametrize("part", [".cells", ".maps", ".scores", ".targets"])
def test_one_flipped_bit_fails_and_is_named(start, part):
    import golden

    leaf = start[CALL].parts[(part,)]
    bits = bytearray(leaf.value.tobytes())
    bits[-leaf.value.itemsize] ^= 1  # the last bit of the last number
    flipped = np.frombuffer(bytes(bits), leaf.value.dtype).reshape(leaf.value.shape)
    compared = rows(start, changed(start, (part,), golden.Leaf(leaf.kind, flipped)))
    assert not golden.passed(list(compared.values()))
    assert compared["deletion"]["result"] == "equal"
    row = compared["HiResCAM"]
    assert (row["result"], row["differences"]) == ("differs", 1)
    assert row["first difference"].startswith(f"{part} differs in 1 of {flipped.size} numbers, by ")
    assert 0 < row["largest difference"] <= 1


def test_a_changed_recipe_fails_unless_its_wording_is_listed(start):
    import golden

    now = changed(start, (".recipe", "[layer]"), golden.Leaf("str", "stage 3"))
    row = rows(start, now)["HiResCAM"]
    assert (row["result"], row["first difference"]) == ("differs", ".recipe[layer] was 'layer3', is 'stage 3'")
    assert rows(start, now, {"layer = layer3": "stage 3"})["HiResCAM"]["result"] == "equal"
    assert rows(start, now, {"layer = layer3": "stage 4"})["HiResCAM"]["result"] == "differs"
    assert rows(start, start, {"layer = layer3": "stage 3"})["HiResCAM"]["result"] == "differs"


def test_a_renamed_key_of_a_recipe_fails_unless_its_wording_is_listed(start):
    key = (".recipe", "[similarity]")
    now = changed(start, key, name=(".recipe", "[measure]"))
    row = rows(start, now)["HiResCAM"]
    assert (row["result"], row["differences"]) == ("differs", 2)
    assert row["first difference"] == ".recipe[similarity] is gone"
    assert rows(start, now, {"similarity": "measure"})["HiResCAM"]["result"] == "equal"
    assert rows(start, changed(start, key), {"similarity": None})["HiResCAM"]["result"] == "equal"
    assert rows(changed(start, key), start, {})["HiResCAM"]["first difference"] == ".recipe[similarity] is new"
    assert rows(changed(start, key), start, {"+ similarity": "why"})["HiResCAM"]["result"] == "equal"


def test_a_call_that_is_gone_or_raises_fails_and_a_new_one_does_not(start):
    import golden

    before = {CALL: start[CALL]}
    assert rows(before, start)["deletion"]["result"] == "new"
    assert golden.passed(golden.compare(before, start))
    lost = {**start, CALL: golden.Recorded(missing="HiResCAM")}
    for now, result, text in (
        ({key: start[key] for key in start if key != CALL}, "gone", "the working tree has no HiResCAM"),
        (lost, "gone", "the working tree has no HiResCAM"),
        ({**start, CALL: golden.Recorded(error="ValueError: no")}, "failed", "now: ValueError: no"),
    ):
        row = rows(start, now)["HiResCAM"]
        assert (row["result"], row["first difference"]) == (result, text)
        assert not golden.passed(golden.compare(start, now))
    assert not golden.passed(golden.compare({}, {}))
    assert not golden.passed(golden.compare({}, start))  # nothing was compared


VALUES = {
    "type": (torch.ones(2), torch.ones(2, dtype=torch.float64), "was torch.float32, is torch.float64"),
    "library": (torch.ones(2), np.ones(2, np.float32), "was torch.float32, is numpy.float32"),
    "shape": (torch.ones(2), torch.ones(2, 1), r"was of shape \(2,\), is \(2, 1\)"),
    "sign of zero": (torch.zeros(2), -torch.zeros(2), "differs in 2 of 2 numbers, by 0 at most"),
    "NaN": (torch.ones(2), torch.tensor([1.0, torch.nan]), "differs in 1 of 2 numbers, by nan"),
    "bfloat16": (torch.ones(2).bfloat16(), torch.tensor([1.0, 2.0]).bfloat16(), "differs in 1 of 2"),
    "number": (0.1, 0.1 + 2**-55, "was 0.1, is 0.1000"),
    "number of numbers": ([1, 2], [1, 2, 3], "# was 2, is 3"),
    "truth": (1, True, "was int, is bool"),
    "text": ("a", "b", "was 'a', is 'b'"),
    "nothing": (None, torch.ones(1), "was NoneType, is torch.float32"),
}


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_value_is_compared_exactly(name):
    import golden

    before, after, text = VALUES[name]
    first, second = (golden.flatten({"x": value}) for value in (before, after))
    assert golden.differences(first, first, {}) == []
    (change, _), *_ = golden.differences(first, second, {})
    assert re.search(text, change)


def test_nan_equals_nan_and_a_new_property_changes_nothing(start):
    import golden

    values = {"a": torch.tensor([torch.nan, 1.0]), "b": float("nan"), "c": np.float64("nan")}
    assert golden.differences(golden.flatten(values), golden.flatten(values), {}) == []
    assert rows(start, changed(start, (".area",), golden.Leaf("int", 3)))["HiResCAM"]["result"] == "equal"
    assert rows(changed(start, (".area",), golden.Leaf("int", 3)), start)["HiResCAM"]["result"] == "differs"
    with pytest.raises(TypeError, match="expected tensors, plain values and dataclasses, got object"):
        golden.flatten([object()])


def test_names_are_looked_up_as_the_tree_has_them(monkeypatch):
    import golden

    assert golden.api("metrics.deletion") is metrics.deletion
    monkeypatch.setitem(golden.RENAMED, "metrics.gone", ("metrics.nowhere", "metrics.retention"))
    assert golden.api("metrics.gone") is metrics.retention
    monkeypatch.setitem(golden.RENAMED, "metrics.gone", ("metrics.nowhere", "nowhere.at.all"))
    with pytest.raises(golden.Missing, match=r"metrics\.gone"):
        golden.api("metrics.gone")
    calls = {"gone": lambda: golden.api("metrics.gone"), "raises": lambda: 1 / 0, "plain": lambda: 3}
    recording = golden.recorded("none", calls)
    assert recording["none", "gone"].missing == "metrics.gone"
    assert recording["none", "raises"].error == "ZeroDivisionError: division by zero"
    assert list(golden.recorded("none", calls, "la")) == [("none", "plain")]
    with pytest.raises(SystemExit, match="expected facexai from"):
        golden.check_origin(BENCHMARKS)


def test_the_worktree_is_removed_also_after_an_error(tmp_path):
    import golden

    names = ("-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false")
    golden.git("init", "-q", root=tmp_path)
    (tmp_path / "file").write_text("first")
    golden.git("add", "file", root=tmp_path)
    golden.git(*names, "commit", "-q", "-m", "first", root=tmp_path)
    (tmp_path / "file").write_text("second")
    places = []

    def fail():
        with golden.worktree("HEAD", tmp_path) as place:
            places.append(place)
            assert (place / "file").read_text() == "first"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not places[0].exists()
    assert len(golden.git("worktree", "list", root=tmp_path).splitlines()) == 1


def test_moves_are_counted_between_files():
    import hops

    calls = [("a.py", "f"), ("a.py", "g"), ("b.py", "h"), ("a.py", "f"), ("c.py", "k")]
    assert hops.hops(calls) == {"files": 3, "functions": 4, "moves": 3, "calls": 5}
    assert hops.named("HiResCAM.observe.<locals>.<lambda>") == "HiResCAM.observe"
    assert hops.named("explain.<locals>.<listcomp>") == hops.named("explain") == "explain"
    recorded = hops.sequence(lambda: [at_least_float32(torch.zeros(n)) for n in (2, 3)])
    assert {name for _, name in recorded} == {"at_least_float32"}
    assert hops.hops(recorded)["moves"] == 0
    assert sys.getprofile() is None


@pytest.mark.slow
def test_every_call_works_and_every_public_name_is_covered():
    import golden
    import golden_calls

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        photos = {f"p{i}": torch.rand(1, 3, 112, 112) * 0.7 + torch.rand(4, 3, 112, 112) * 0.3 for i in range(6)}
        golden.USED.clear()
        recordings = []
        for _ in range(2):
            calls = golden_calls.network_calls(golden_calls.Faces(tiny(), photos)) | golden_calls.drawn_calls()
            recordings.append(golden.recorded("tiny", calls))
    assert [row for row in golden.compare(*recordings) if row["result"] != "equal"] == []
    assert set(golden.public_names()) <= golden.USED, "add a call to benchmarks/golden_calls.py"


@pytest.mark.slow
def test_the_command_compares_two_trees(tmp_path):
    import golden

    try:
        golden.git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no git history here")
    (tmp_path / "net.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parents[1])!r})\nfrom ownmodel import make\n"
    )
    command = [sys.executable, str(BENCHMARKS / "golden.py"), "--start", "HEAD", "--only", "HiResCAM"]
    command += ["--network", f"{tmp_path / 'net.py'}:make", "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads((tmp_path / "report.json").read_text())
    compared = {row["call"]: row for row in report["rows"]}
    assert compared["SDD over HiResCAM"]["tensors"] > 5
    assert report["commits"]["start"] == report["commits"]["now"]
    # A change that is not yet committed may well be one of numbers: what counts is that the exit code says so.
    assert done.returncode == (0 if golden.passed(report["rows"]) else 1), done.stdout + done.stderr
    assert report["git dirty"] or done.returncode == 0
