"""Files: whole or not at all, never a pickle, and weights that are exactly the expected bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facexai import Saliency, io, load


@pytest.fixture
def why():
    return Saliency(
        cells=torch.randn(2, 3, 4),
        size=(12, 16),
        targets=torch.tensor([1, 0]),
        scores=torch.tensor([3.0, 1.0]),
        names=("Ann", "Bo <b>"),
        recipe={"method": "SDD(CAM)", "layer": "x", "sdd": {"power": 15.0}},
        rivals=torch.tensor([[0], [1]]),
        rival_scores=torch.tensor([[1.0], [0.5]]),
        class_cells=torch.randn(2, 2, 3, 4),
        images=torch.rand(2, 3, 12, 16),
    )


def test_a_saliency_comes_back_without_its_images(why, tmp_path):
    why.save(tmp_path / "why.npz")
    back = load(tmp_path / "why.npz")
    for name in ("cells", "targets", "scores", "rivals", "rival_scores", "class_cells", "maps"):
        assert torch.equal(getattr(back, name), getattr(why, name)), name
    assert (back.names, back.size, back.recipe) == (why.names, why.size, why.recipe)
    assert back.images is None
    assert os.listdir(tmp_path) == ["why.npz"]
    with zipfile.ZipFile(tmp_path / "why.npz") as archive:
        assert "images.npy" not in archive.namelist()


def test_a_full_disk_leaves_the_old_file(why, tmp_path, monkeypatch):
    why.save(tmp_path / "why.npz")
    before = (tmp_path / "why.npz").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        why.save(tmp_path / "why.npz")
    assert os.listdir(tmp_path) == ["why.npz"]
    assert (tmp_path / "why.npz").read_bytes() == before


def test_bad_places_and_contents(why, tmp_path):
    with pytest.raises(ValueError, match=r"\.npz"):
        why.save(tmp_path / "why.pt")
    with pytest.raises(FileNotFoundError, match="create it first"):
        why.save(tmp_path / "no" / "why.npz")
    with pytest.raises(ValueError, match="plain number arrays"):
        io.save(tmp_path / "a.npz", {"a": np.array([object()])}, {})
    with pytest.raises(ValueError, match="JSON"):
        io.save(tmp_path / "a.npz", {}, {"x": object()})
    with pytest.raises(ValueError, match="JSON"):
        io.save(tmp_path / "a.npz", {}, {"x": float("nan")})
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "a.npz")
    assert os.listdir(tmp_path) == []


def test_a_pickle_inside_is_never_opened(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    np.savez(tmp_path / "evil.npz", cells=np.array([Evil()], dtype=object), manifest=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match="evil"):
        load(tmp_path / "evil.npz")
    assert os.listdir(tmp_path) == ["evil.npz"]


def test_files_that_are_not_ours(why, tmp_path):
    path = tmp_path / "x.npz"
    why.save(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="max_bytes"):
        io.load(path, max_bytes=10)
    for content in (b"", b"hello", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz"):
            load(path)
    np.savez(path, cells=np.zeros(3))
    with pytest.raises(ValueError, match="not written by facexai"):
        load(path)
    io.save(path, {}, {"kind": "Other"})
    with pytest.raises(ValueError, match="'Other'"):
        load(path)
    io.save(path, {"cells": np.zeros((1, 2, 2))}, {"kind": "Saliency", "format": 1, "size": [4, 4], "names": None})
    with pytest.raises(ValueError, match="no complete Saliency"):
        load(path)


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_one_changed_byte_gives_an_error_or_the_same(tmp_path_factory, at, value):
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "why.npz"
    Saliency(torch.ones(1, 2, 2), (4, 4), torch.tensor([0]), torch.tensor([1.0]), recipe={"method": "x"}).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(bytes(data))
    with contextlib.suppress(ValueError):
        load(path)


def test_weights_must_be_the_expected_bytes(tmp_path):
    file = tmp_path / "w.dat"
    file.write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    io.check_file(file, 5, digest)
    with pytest.raises(ValueError, match="truncated"):
        io.check_file(file, 6, digest)
    with pytest.raises(ValueError, match="another version"):
        io.check_file(file, 4, digest)
    file.write_bytes(b"12346")
    with pytest.raises(ValueError, match="the file was changed"):
        io.check_file(file, 5, digest)


def test_a_missing_package_names_its_extra():
    with pytest.raises(ImportError, match=r'thing needs the package .* pip install "facexai\[zoo\]"'):
        io.package_file("no_such_package", "w.dat", 1, "", extra="zoo", purpose="thing")
    with pytest.raises(ValueError, match=r"has no w\.dat"):
        io.package_file("facexai", "w.dat", 1, "", extra="zoo", purpose="thing")


def test_json_is_whole_and_strict(tmp_path):
    io.write_json(tmp_path / "a.json", {"a": [1, "ä"]})
    assert json.loads((tmp_path / "a.json").read_text("utf8")) == {"a": [1, "ä"]}
    with pytest.raises(ValueError, match="JSON"):
        io.write_json(tmp_path / "b.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_unpack_block_by_block_are_refused(why, tmp_path, way):
    """Their readers unpack more than the directory promises before anybody can stop them."""
    why.save(tmp_path / "why.npz")
    with zipfile.ZipFile(tmp_path / "why.npz") as old, zipfile.ZipFile(tmp_path / "other.npz", "w", way) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"other\.npz is damaged or was not written by facexai: compressed in a way"):
        load(tmp_path / "other.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_json_is_read_from_files_only_and_bounded(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(FileNotFoundError, match=r"no file .*pipe\.json"):
        io.read_json(tmp_path / "pipe.json")
    io.write_json(tmp_path / "a.json", {"a": 1})
    assert io.read_json(tmp_path / "a.json") == {"a": 1}
    monkeypatch.setattr(io, "_MAX_JSON", 5)
    with pytest.raises(ValueError, match=r"a\.json has \d+ bytes, more than the 5 that are read"):
        io.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000])
def test_json_of_something_else(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json(: expected an object, got list| is damaged)"):
        io.read_json(tmp_path / "a.json")
