"""Our dlib network against dlib itself, and the reader against files that were tampered with."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from facexai import zoo
from facexai.zoo.dlib_resnet29 import dlib_resnet29, read_weights


@pytest.fixture(scope="module")
def weights(zoo_installed) -> Path:
    root = importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]
    return Path(root) / "models" / "dlib_face_recognition_resnet_model_v1.dat"


def test_descriptors_equal_dlibs(weights):
    dlib = pytest.importorskip("dlib")
    theirs = dlib.face_recognition_model_v1(str(weights))
    model = zoo.load("dlib-resnet29", centre=False)
    rng = np.random.default_rng(0)
    pixels = np.stack(
        [
            rng.integers(0, 256, (150, 150, 3)),
            np.full((150, 150, 3), 90),
            np.indices((150, 150)).sum(0)[..., None] % 256 + np.zeros(3),
        ]
    ).astype(np.uint8)
    expected = torch.stack([torch.tensor(np.array(theirs.compute_face_descriptor(p))) for p in pixels])
    ours = model.outputs(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).detach()
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)


def test_there_are_as_many_parameters_as_in_the_file(dlib_model):
    assert sum(p.numel() for p in dlib_model.net.parameters()) == 5_614_592


def test_centring_subtracts_the_shipped_mean(weights):
    plain, centred = zoo.load("dlib-resnet29", centre=False), zoo.load("dlib-resnet29")
    images = torch.rand(2, 3, 150, 150)
    raw = plain.outputs(images).detach()
    torch.testing.assert_close(centred.embed(images), torch.nn.functional.normalize(raw - centred.center))
    assert centred.center.shape == (128,)


def test_damaged_files_are_refused(weights, tmp_path):
    data = weights.read_bytes()
    cut, changed = tmp_path / "cut.dat", tmp_path / "changed.dat"
    cut.write_bytes(data[:1_000_000])
    with pytest.raises(ValueError, match="truncated"):
        dlib_resnet29(path=cut)
    changed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match="SHA-256"):
        dlib_resnet29(path=changed)
    with pytest.raises(FileNotFoundError):
        dlib_resnet29(path=tmp_path / "none.dat")


@pytest.mark.parametrize("length", [0, 4, 300, 19_000, 20_000, 10_000_000, 22_400_000])
def test_the_reader_itself_refuses_truncation(weights, length):
    with pytest.raises(ValueError, match="dlib weights"):
        read_weights(weights.read_bytes()[:length])


def test_names_and_near_matches():
    with pytest.raises(ValueError, match="did you mean 'dlib-resnet29'"):
        zoo.load("dlib-resnet")
    assert zoo.names()[0] == "dlib-resnet29"
