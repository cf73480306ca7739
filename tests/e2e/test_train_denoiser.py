"""The example that trains a diffusion model: whatever stops it, it ends with the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

SMALL = ["--channels", "8", "8", "16", "--batch-size", "4", "--threads", "1"]


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("diffusers")
    import train_denoiser

    with pytest.MonkeyPatch.context() as patch:  # the pictures take most of the time
        patch.setattr(train_denoiser, "TAKEN", 10)
        patch.setattr(train_denoiser, "START", 4)
        yield train_denoiser


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


def run(example, out: Path, steps: int) -> None:
    example.main(["--out", str(out), "--steps", str(steps), *SMALL])


def test_a_run_that_was_killed_ends_with_the_same_bits(example, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    recipe = example.Recipe(steps=6, channels=(8, 8, 16), batch_size=4)
    whole = example.train(recipe, tmp_path / "whole", every=2, progress=False)

    class Killed(BaseException):
        pass

    real = example.batch

    def killed(recipe, step, left):
        if step == 5:  # the last checkpoint is that of four steps
            raise Killed
        return real(recipe, step, left)

    monkeypatch.setattr(example, "batch", killed)
    with pytest.raises(Killed):
        example.train(recipe, tmp_path / "killed", every=2, progress=False)
    monkeypatch.setattr(example, "batch", real)
    again = example.train(recipe, tmp_path / "killed", every=2, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    histories = [json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "killed")]
    assert histories[0] == histories[1]
    assert len(histories[0]["loss"]) == 6


def test_the_folder_is_what_diffusers_loads_and_more_steps_go_on(example, tmp_path, capsys):
    import diffusers

    out = tmp_path / "deep" / "out"
    run(example, out, 2)
    assert "mean absolute difference" in capsys.readouterr().out
    first = weights(out)
    assert {value.dtype for value in first.values()} == {torch.float16}
    unet = diffusers.UNet2DModel.from_pretrained(out / "unet")
    scheduler = diffusers.DDPMScheduler.from_pretrained(out / "scheduler")
    assert torch.allclose(scheduler.alphas_cumprod.double(), example.linear_alphas(500), atol=1e-6)
    assert unet(torch.zeros(1, 3, 32, 32), 0).sample.shape == (1, 3, 32, 32)
    assert (out / "samples.png").is_file()
    assert (out / "edits.png").is_file()
    run(example, out, 3)
    assert any(not torch.equal(value, first[name]) for name, value in weights(out).items())
    assert len(json.loads((out / "history.json").read_text())["loss"]) == 3


def test_wrong_folders_and_numbers_are_refused(example, tmp_path):
    run(example, tmp_path / "out", 1)
    with pytest.raises(SystemExit, match="another recipe"):
        example.main(["--out", str(tmp_path / "out"), "--steps", "2", "--seed", "1", *SMALL])
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"short")
    with pytest.raises(SystemExit, match="damaged"):
        run(example, tmp_path / "out", 2)
    with pytest.raises(SystemExit, match="at least one step"):
        run(example, tmp_path / "other", 0)
    with pytest.raises(SystemExit, match="8 divides"):
        example.main(["--out", str(tmp_path / "other"), "--channels", "9", "16", "16"])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="is a file"):
        run(example, tmp_path / "file", 1)
