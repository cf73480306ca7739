"""Benchmarks that run over data sets, on toy networks: they end, go on after a break, and say what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NETWORK = """
import sys
sys.path.insert(0, {tests!r})
import torch
from nets import FlatNet, shaken
from facexai import FaceModel

def toy():
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")
"""


def draw(folder: Path, people: int, photos: int) -> Path:
    """A coarse pattern of colours for each person, and noise of its own on each photo, 160x160."""
    for person in range(people):
        (folder / f"p{person}").mkdir(parents=True)
        pattern = np.random.default_rng(person).uniform(50, 205, (8, 8, 3)).repeat(20, 0).repeat(20, 1)
        for photo in range(photos):
            noise = np.random.default_rng((person, photo)).normal(0, 25, pattern.shape)
            Image.fromarray((pattern + noise).clip(0, 255).astype(np.uint8)).save(
                folder / f"p{person}" / f"{photo}.png"
            )
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The command of the study on a toy network, and where it keeps its work."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "net.py").write_text(NETWORK.format(tests=str(Path(__file__).parents[1])))
    faces = draw(folder / "faces", 3, 12)
    command = [sys.executable, str(BENCHMARKS / "sdd_study.py"), "--faces", str(faces), "--probes", "1"]
    command += ["--network", f"{folder / 'net.py'}:toy", "--work", str(folder / "work"), "--threads", "1"]

    def run(name: str, *more: str) -> dict:
        subprocess.run([*command, "--json", str(folder / name), *more], check=True, capture_output=True, text=True)
        return json.loads((folder / name).read_text())

    return run


def test_the_sdd_study_measures_both_heads_and_goes_on_after_a_break(study):
    found = study("first.json")
    ours = [row for row in found["rows"] if row["network"] == "toy"]
    heads = list(dict.fromkeys(row["head"].split(",")[0] for row in ours))
    assert heads == ["gallery", "linear"]
    for head in heads:
        maps = [row["map"] for row in ours if row["head"].startswith(head)]
        assert "SDD(CAM)" in maps
        assert any(name.startswith("SDD(Score-CAM)") for name in maps)
        assert {name for name in maps if not name.startswith("SDD")} == {
            name.replace("SDD(", "").replace(")", "") for name in maps if name.startswith("SDD")
        }
    for row in ours:
        assert 0 <= row["half of the mass"] <= 1
        assert -100 <= row["deletion"] <= 100
        assert ("overlap after" in row and row["overlap after"] is not None) == row["map"].startswith("SDD")
    published = next(r for r in found["rows"] if r["head"] == "FaceScrub, published" and r["map"] == "SDD-CAM")
    assert (published["deletion"], published["deletion, random"]) == (62.33, 42.50)
    assert published["deletion changes"] == pytest.approx(0.5136)
    assert sum("of 4 directions hold" in sentence for sentence in found["sentences"]) == len(ours) // 2
    assert len(study("second.json", "--head", "gallery")["rows"]) == len(found["rows"]) - len(ours) // 2
    assert study("second.json", "--head", "linear")["rows"] == found["rows"]


def test_memory_is_watched_while_photos_go_by(tmp_path):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import throughput

        held = throughput.memory(Namespace(items=60), tmp_path)
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert held["items"] == 60
    assert 50 < held["maps: MiB at the end"] < 5000
    assert held["measure: MiB at the end"] < 1.2 * held["measure: MiB after a tenth"]


@pytest.mark.parametrize(
    ("script", "few"), [("coverage", ["--replicates", "3", "--rates", "2"]), ("bias_size", ["--splits", "2"])]
)
def test_statistics_of_pairs_are_measured_and_go_on_after_a_break(tmp_path, script, few):
    command = [
        sys.executable,
        str(BENCHMARKS / f"{script}.py"),
        *few,
        "--threads",
        "1",
        "--json",
        str(tmp_path / "r.json"),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    whole = json.loads((tmp_path / "r.json").read_text())
    assert whole["sentences"]
    (tmp_path / "r.json").write_text(json.dumps({"settings": whole["settings"], "rows": whole["rows"][:-1]}))
    subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == whole["rows"]


def test_a_run_over_many_pairs_takes_little_memory_for_each(tmp_path, monkeypatch):
    """Their products in float64, all at once, took 13 KB."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pair_runs

    pair_runs.draw(tmp_path / "photos", 2200)
    few, *rows = [pair_runs.measured(tmp_path, 2200, pairs) for pairs in (1000, 20_000, 100_000)]
    sentences = pair_runs.compared(rows, few)
    assert len(sentences) == 4
    assert [row["pairs"] for row in rows] == [20_000, 100_000]
    assert rows[-1]["bytes per pair, decided"] < 1500
    assert rows[-1]["s, decided"] > 0


def test_a_million_pairs_were_decided_within_two_gibibytes():
    rows = json.loads((BENCHMARKS / "results" / "pair_runs.json").read_text())["rows"]
    assert [row["pairs"] for row in rows] == [100_000, 300_000, 1_000_000]
    assert rows[-1]["faces"] == 13_000
    assert rows[-1]["MiB, decided"] < 2048
    assert max(row["bytes per pair, decided"] for row in rows) < 1500
