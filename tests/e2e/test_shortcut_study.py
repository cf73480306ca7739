"""The study of a shortcut that is known: one seed, 16 faces, the networks that come along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from facexai.demo import synthetic_networks

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("diffusers")
    import shortcut_study

    return shortcut_study


@pytest.fixture(scope="module")
def studied(example, tmp_path_factory):
    """Rows of the study, and its folder."""
    out = tmp_path_factory.mktemp("study")
    for name in synthetic_networks.NAMES:
        learned = (200, example.LEARN) if name.startswith("smile_") else (400, example.GUIDE)
        shutil.copy(synthetic_networks.WEIGHTS / f"{name}.safetensors", example.weights_file(out, name, *learned))
    denoiser = synthetic_networks.denoiser()
    rows = example.study(out, denoiser, edits=("glasses", "mouth"), count=16, train_on=200, draw=2)
    return {(row["edited"], row["glasses with smiles"]): row for row in rows}, out


def test_the_mad_grows_with_the_correlation(studied, example):
    rows, _ = studied
    mads = [rows["glasses", k]["MAD"] for k in example.AGREEMENTS]
    assert mads[0] < 0.2
    assert mads[-1] > 0.8
    assert mads[1] < mads[2] < mads[3]
    for k in example.AGREEMENTS:
        row = rows["glasses", k]
        assert row["flipped"] > 0.9
        assert row["no-op MAD"] < 0.25
        assert abs(row["MAD"] - row["MAD, drawn again"]) < 0.3
    assert rows["glasses", 100]["p beyond no-op"] < 0.01


def test_the_true_cue_is_found(studied):
    rows, _ = studied
    assert rows["mouth", 50]["MAD"] > 0.6
    assert rows["mouth", 100]["MAD"] < 0.1
    assert rows["mouth", 50]["flipped"] > 0.9


def test_pictures_and_classifiers_are_left(studied):
    _, out = studied
    assert {path.name for path in out.glob("*.png")} == {"edits_glasses.png", "edits_mouth.png"}
    assert len(list(out.glob("*_witness_400_faces_seed_3.safetensors"))) == 2


def test_a_classifier_is_trained_once_and_ends_with_the_same_bits(example, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            example.classifier(tmp_path / folder, "smile_90", "smile", 200, 1, 90)
    finally:
        torch.set_num_threads(before)
    first, second = (example.weights_file(tmp_path / folder, "smile_90", 200, 1) for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    then = first.stat().st_mtime_ns
    example.classifier(tmp_path / "a", "smile_90", "smile", 200, 1, 90)
    assert first.stat().st_mtime_ns == then
    example.classifier(tmp_path / "a", "smile_90", "smile", 200, 11, 90)
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize("agreement", [50, 75, 90, 100])
def test_glasses_go_with_smiles_as_often_as_said(example, agreement):
    some = example.faces(200, 0, agreement)
    smile, glasses = some.attributes["smile"], some.attributes["glasses"]
    assert smile.sum() == 100
    assert (smile == glasses)[smile].sum() == (smile == glasses)[~smile].sum() == agreement
    assert not some.attributes["mask"].any()


def test_the_command_says_what_is_wrong(example, tmp_path):
    with pytest.raises(SystemExit, match="whole number, got 7"):
        example.main(["--out", str(tmp_path / "out"), "--faces", "7"])
    with pytest.raises(SystemExit, match="nowhere"):
        example.main(["--out", str(tmp_path / "out"), "--denoiser", str(tmp_path / "nowhere")])


def test_what_is_said_of_the_study_is_what_was_measured():
    content = json.loads((ROOT / "benchmarks" / "results" / "shortcut.json").read_text())
    page = " ".join((ROOT / "docs" / "benchmarks.md").read_text().split())
    readme = " ".join((ROOT / "README.md").read_text().split())
    rows = {(row["edited"], row["glasses with smiles"]): row for row in content["rows"]}
    assert content["seeds"] >= 3

    def series(column: str, edited: str) -> list[float]:
        return [rows[edited, k][column] for k in (50, 75, 90, 100)]

    def told(values: list[float]) -> str:
        first = ", ".join(f"{value:.2f}" for value in values[:-1])
        return f"{first} and {values[-1]:.2f}".replace("0.", ".")

    for column, edited in (("MAD", "glasses"), ("with minus without", "glasses"), ("MAD", "mouth")):
        assert told(series(column, edited)) in page, told(series(column, edited))
    for column in ("MAD", "MAD, drawn again"):
        assert series(column, "glasses") == sorted(series(column, "glasses"))
        assert told(series(column, "glasses")) in page
        assert told(series(column, "glasses")) in readme
    assert series("MAD", "mouth") == sorted(series("MAD", "mouth"), reverse=True)
    least, most = min(series("no-op MAD", "glasses")), max(series("no-op MAD", "glasses"))
    for text in (page, readme):
        assert f"{least:.2f} to {most:.2f}".replace("0.", ".") in text
    anywhere = f"{max(series('no-op MAD', 'glasses, anywhere')):.2f}".replace("0.", ".")
    assert anywhere in page
    assert anywhere in readme
