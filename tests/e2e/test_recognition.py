"""Does the real network recognise real people as published? The benchmark's script, run and read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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
