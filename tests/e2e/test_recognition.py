"""Does the real network recognise real people as published? The benchmark's script, run and read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verification_and_identification(zoo_installed, shared, tmp_path):
    faces = str(shared / "data" / "lfw42")
    printed = run("identification.py", "--faces", faces, "--json", str(tmp_path / "r.json"))
    report = json.loads((tmp_path / "r.json").read_text())
    centred, plain = report["rows"]
    assert centred["AUC"] >= 0.998
    assert centred["rank-1"] >= 0.97
    assert plain["accuracy at 0.6"] >= 0.99
    assert "0.9965" in printed
    assert report["faces"]["name"] == "lfw42"
    assert faces not in (tmp_path / "r.json").read_text()


def test_the_table_of_completeness(zoo_installed, tmp_path):
    run("completeness.py", "--json", str(tmp_path / "r.json"))
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert len(rows) == 3
    assert all(row["largest error"] < row["allowed"] for row in rows)


def test_five_figures(zoo_installed, shared, tmp_path):
    printed = run("sdd_figures.py", "--faces", str(shared / "data" / "lfw42"), "--out", str(tmp_path))
    assert printed.count("SDD(HiResCAM) at 'stage2'") == 5
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_the_timing_script_agrees_with_its_peers(zoo_installed):
    assert "facexai SDD(CAM)" in run("class_maps.py", "--rounds", "1", "--batch", "1")


def test_score_cam_agrees_with_its_peers_and_its_script_writes_every_row(zoo_installed, tmp_path):
    printed = run("scorecam.py", "--rounds", "1", "--no-fast", "--json", str(tmp_path / "r.json"))
    tasks = [row["task"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]]
    assert [task.split(",")[0] for task in tasks] == [
        "bare forward passes",
        "torchcam",
        "facexai",
        "facexai SDD of five",
    ]
    assert "five runs of torchcam to SDD of five" in printed


def test_the_table_of_code_bases_is_what_the_script_says(tmp_path):
    """All but the rounding of the completeness error."""
    run("code_bases.py", "--json", str(tmp_path / "r.json"))
    made, kept = (
        [
            {**row, "completeness error": row["completeness error"] is None}
            for row in json.loads(path.read_text())["rows"]
        ]
        for path in (tmp_path / "r.json", BENCHMARKS / "results" / "code_bases.json")
    )
    assert made == kept
    errors = [row["completeness error"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]]
    assert max(e for e in errors if e is not None) < 1e-5


def test_maps_of_pairs_are_measured_and_what_is_measured_is_not_measured_again(zoo_installed, shared, tmp_path):
    small = ["--pairs", "6", "--photos", "20", "--swaps", "4", "--masks", "30", "--json", str(tmp_path / "t.json")]
    asked = ["verification.py", "--faces", str(shared / "data" / "lfw42"), *small, "--only", "PairCAM"]
    said = run(*asked)
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert len(rows) == 5
    questions = {row["question"]: row for row in rows}
    fame, parts = questions["fame, similar"], questions["epfl-inferred, similar"]
    assert fame["deletion, mean-map"] is not None
    assert 0 <= fame["deletion"] <= 100
    assert parts["insertion cosine, other-pair"] is not None
    assert 0 <= questions["patch against"]["average precision"] <= 1
    assert "beat the centre prior" in said
    assert "dlib_resnet29, PairCAM: measured already" in run(*asked)


def test_frequency_modes_are_timed_and_compared(zoo_installed, shared, tmp_path):
    small = ["--images", "6", "--pairs", "8", "--timed", "2", "--agree", "4", "--rounds", "1"]
    out = tmp_path / "t.json"
    run("frequency.py", "--faces", str(shared / "data" / "lfw42"), *small, "--json", str(out))
    rows = {row["task"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["facexai hybrid, one pair"]["relative L1"] < rows["facexai preview, one pair"]["relative L1"]
    assert rows["facexai exact, 8 pairs of 6 images"]["s"] > 0


def test_bias_and_performance_are_correlated_over_networks(tmp_path):
    out = tmp_path / "t.json"
    said = run("bias.py", "--people", "20", "--unseen", "12", "--steps", "30", "--json", str(out))
    assert len(json.loads(out.read_text())["rows"]) == 8
    assert "Over 8 networks" in said
