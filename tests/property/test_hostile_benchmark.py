"""The benchmark of hostile input: it runs, and what was measured with it is of every reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_readers import FAMILIES

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_benchmark_runs_and_writes_its_table(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "hostile.py"), "--inputs", "20", "--only", "frozen graph"]
    subprocess.run([*command, "--threads", "1", "--json", str(tmp_path / "a.json")], check=True, capture_output=True)
    (row,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert (row["reader"], row["inputs"], row["executed"], row["hung"]) == ("frozen graph", 20, 0, 0)


def test_every_reader_was_given_ten_thousand_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = []
    for family, make in FAMILIES.items():
        (tmp_path / family).mkdir()
        names += [reader.name for reader in make(tmp_path / family)]
    rows = json.loads((BENCHMARKS / "results" / "hostile.json").read_text())["rows"]
    assert [row["reader"] for row in rows] == names
    for row in rows:
        assert row["inputs"] >= 10_000
        assert [row[name] for name in ("executed", "hung", "files left", "contract broken")] == [0, 0, 0, 0]
