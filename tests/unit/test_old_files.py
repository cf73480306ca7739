"""Files of the build of 30 November 2026, ``tests/data/old``: they are read, shown, and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import old_build
import pytest
import torch

from facexai import evaluate, io, load
from facexai.cli import main

OLD = Path(__file__).parents[1] / "data" / "old"
pytestmark = pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")


@pytest.fixture(scope="module")
def answers():
    return old_build.answers()


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the old folder, in which the test works."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def values_of(answer):
    return next(getattr(answer, name) for name in ("cells", "influence", "counterfactuals") if hasattr(answer, name))


def leaves(value):
    """The numbers of plain data, in order; text and None count as whether they are there."""
    if isinstance(value, dict | list | tuple):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [float(value) if isinstance(value, int | float) else float(value is None)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("file", sorted(OLD.glob("answers/*.npz")), ids=lambda file: file.stem)
def test_saved_answers_are_what_is_computed_today(file, answers):
    before, now = load(file), answers[file.stem]
    torch.testing.assert_close(values_of(before), values_of(now), rtol=1e-4, atol=1e-5)
    assert type(before) is type(now)
    assert before.recipe.keys() == now.recipe.keys()
    assert before.recipe.get("fingerprint") == now.recipe.get("fingerprint")


@pytest.mark.parametrize("name", sorted(old_build.configurations()))
@pytest.mark.parametrize("lost", ["nothing", "measure-*", "m*"])
def test_runs_go_on_from_old_shards(old, name, lost):
    folder = old / name
    manifest = io.read_json(folder / "manifest.json")
    recorded = io.read_json(folder / "results.json")
    present = evaluate.run(old_build.configurations()[name], old / "new", model=old_build.model(), threads=1)
    new = io.read_json(old / "new" / "manifest.json")
    manifest |= {key: value for key, value in new.items() if key.startswith("version of ")}
    assert manifest == new
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for shard in sorted(folder.glob(f"shards/{lost}"))[1:]:
        shard.unlink()
    again = evaluate.run(old_build.configurations()[name], folder, model=old_build.model(), threads=1)
    for report in (again.report, present.report):
        # Another processor rounds otherwise, so pixels of nearly equal values change places.
        assert leaves(report["table"]) == pytest.approx(leaves(recorded["table"]), rel=1e-2, abs=1e-3)


def test_a_report_reads_the_folders_of_all_commands(old):
    runs = [*old_build.COMMANDS, *old_build.configurations()]
    assert main(["report", *runs, "--photos", ".", "--model", "old_build:model", "--out", "report"]) == 0
    record = io.read_json(old / "report" / "report.json")
    assert {section["kind"] for section in record["sections"]} >= {"classes", "pairs", "frequency"}
