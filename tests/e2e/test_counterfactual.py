"""``facexai counterfactual``: photos, a denoiser and a decision of the user's, and mistakes told in one line."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from ownmodel import make_small

from facexai import FastDiME, InputSpec, decisions, denoisers, images, load
from facexai.cli import main
from facexai.explainers._variants import VARIANTS
from facexai.functional.diffusion import linear_alphas

ALPHAS = linear_alphas(40)
FEW = ["--respacing", "20", "--start", "6"]


def gaussian() -> denoisers.Denoiser:
    """The exact answer for images of noise around grey."""

    def noise(x, t):
        left = ALPHAS[t].to(x)[:, None, None, None]
        return (1 - left).sqrt() * x / (left * 0.25 + 1 - left)

    return denoisers.from_callable(noise, ALPHAS, (20, 20))


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Photos, and a module that names a denoiser and a decision."""
    module = types.ModuleType("given")
    module.denoiser = gaussian
    module.decision = lambda: lambda x: 30 * (x.mean((1, 2, 3)) - 0.5)
    module.nothing = lambda: 3
    monkeypatch.setitem(sys.modules, "given", module)
    for name in "ab":
        photo = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(ord(name))) * 0.8
        images.save(photo[0], tmp_path / f"{name}.png")
    return tmp_path


def test_the_command_with_photos_and_a_decision(given):
    photos = [str(given / "a.png"), str(given / "b.png")]
    arguments = ["counterfactual", *photos, "--denoiser", "given:denoiser", "--decision", "given:decision", *FEW]
    assert main([*arguments, "--out", str(given / "out"), "--no-op", "--align", "never"]) == 0
    text = (given / "out" / "counterfactual.json").read_text()
    report = json.loads(text)
    assert len(load(given / "out" / "counterfactual.npz")) == 2
    assert (given / "out" / "counterfactual.png").stat().st_size > 10_000
    assert [row["image"] for row in report["images"]] == ["a.png", "b.png"]
    assert [row["guidance"] for row in report["no_op"]] == [0.0, 0.0]
    assert str(given) not in text


def test_the_command_with_a_pair(given):
    arguments = ["counterfactual", str(given / "a.png"), "--denoiser", "given:denoiser", "--reference"]
    arguments += [str(given / "b.png"), "--model", "ownmodel:make_small", "--align", "never", *FEW]
    assert main([*arguments, "--threshold", "0.5", "--out", str(given / "out")]) == 0
    report = json.loads((given / "out" / "counterfactual.json").read_text())
    assert report["recipe"]["decision"]["threshold"] == 0.5
    model = make_small()
    pair = decisions.verification(model, images.load(given / "b.png"), 0.5)
    again = FastDiME(pair, gaussian(), respacing=20, start=6, warmup=3)(images.load(given / "a.png"))
    assert report["images"][0]["before"] == pytest.approx(float(again.before), abs=1e-3)


def test_the_command_takes_every_variant(given, capsys):
    arguments = ["counterfactual", str(given / "a.png"), "--denoiser", "given:denoiser", "--decision", "given:decision"]
    arguments += ["--align", "never", *FEW, "--variant", "maskdime", "--out", str(given / "out")]
    assert main([*arguments, "--warmup", "3"]) == 2
    assert "expected warmup=0, got 3" in capsys.readouterr().err
    assert main(arguments) == 0
    recipe = json.loads((given / "out" / "counterfactual.json").read_text())["recipe"]
    assert (recipe["variant"], recipe["mask"], recipe["warmup"]) == ("maskdime", "nested-gradient", 0)
    with pytest.raises(SystemExit):
        main(["counterfactual", "--help"])
    text = capsys.readouterr().out
    assert all(variant in text for variant in VARIANTS)


def test_the_command_without_photos_edits_drawn_faces(tmp_path, capsys):
    pytest.importorskip("diffusers")
    assert main(["counterfactual", "--out", str(tmp_path / "out"), "--seed", "2"]) == 0
    assert capsys.readouterr().out.count(", changed (guidance") == 4
    found = load(tmp_path / "out" / "counterfactual.npz")
    assert (found.before > 0).all()
    assert (found.after < 0).all()
    assert found.masks.float().mean() < 0.2  # only where glasses can be


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--denoiser", "unet", "--decision", "a:b"], "--denoiser and --decision without a photo"),
        (["--threshold", "0.4", "--model", "a:b"], "--threshold and --model without a photo"),
        (["a.png", "--decision", "a:b"], "photos need --denoiser"),
    ],
)
def test_photos_and_networks_go_together(tmp_path, capsys, words, message):
    assert main(["counterfactual", *words, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--reference": "a.png"}, "either --decision or --reference"),
        ({"--decision": None, "--reference": "a.png"}, "needs --threshold"),
        ({"--threshold": "0.4"}, "--threshold beside --decision"),
        ({"--model": "given:nothing", "--threshold": "0.4"}, "--threshold and --model beside --decision"),
        ({"--decision": "given:nothing"}, "returned a int, expected a function of images"),
        ({"--denoiser": "given:nothing"}, "expected a denoiser"),
        ({"--denoiser": "nowhere"}, "nowhere"),
        ({"--scales": "8;10"}, "expected --scales such as"),
        ({"--variant": "slow"}, "expected variant one of"),
        ({"--start": "20"}, "below respacing"),
    ],
)
def test_what_cannot_be_is_one_line(given, capsys, change, message):
    options = {"--denoiser": "given:denoiser", "--decision": "given:decision", "--respacing": "20", "--start": "6"}
    options |= {"--out": str(given / "out"), "--align": "never"} | change
    if options.get("--reference"):
        options["--reference"] = str(given / options["--reference"])
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    assert main(["counterfactual", str(given / "a.png"), *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not (given / "out").exists()


def test_denoisers_have_a_size_of_their_own():
    with pytest.raises(ValueError, match="20"):
        FastDiME(lambda x: x.mean((1, 2, 3)), gaussian(), respacing=20, start=6, warmup=3)(torch.rand(1, 3, 32, 32))
    assert InputSpec(gaussian().size).size == (20, 20)
