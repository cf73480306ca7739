"""Saved answers, shards and manifests that are damaged or made to harm."""

from __future__ import annotations

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from hostile import count_of, tried
from hostile_readers import answers, saved

from facexai import io, results
from facexai._tensor_store import Store
from facexai.evaluate.manifest import claim
from facexai.results import Saliency


@pytest.mark.parametrize("number", range(3))
def test_malformed_files(number, tmp_path):
    reader = saved(tmp_path)[number]
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)
    assert tally.inputs == tally.answers + sum(tally.errors.values())


def test_answers_of_every_kind_come_back(tmp_path):
    for made in answers():
        made.save(tmp_path / "a.npz")
        found = results.load(tmp_path / "a.npz")
        assert repr(found) == repr(made)
        assert dict(found.recipe) == dict(made.recipe)


def changed(path, told=None, **arrays):
    """The file with other words and arrays, packed as it should be."""
    held, manifest = io.load(path)
    io.save(path, {**held, **arrays}, manifest)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    if told is not None:
        text = json.dumps(manifest | told).encode()
        np.save(path.with_suffix(".npy"), np.frombuffer(text, np.uint8))
        entries["manifest.npy"] = path.with_suffix(".npy").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("told", "arrays"),
    [
        ({"size": [float("inf"), 6]}, {}),
        ({"size": [10**9, 10**9]}, {}),
        ({"size": [-1, 6]}, {}),
        ({"size": "66"}, {}),
        ({"names": ["ann"]}, {}),  # fewer names than classes
        ({"names": "an"}, {}),
        ({"names": [1, 2]}, {}),
        ({"recipe": [["a", 1]]}, {}),
        ({"recipe": {"sdd": "none"}}, {}),
        ({"kind": ["Saliency"]}, {}),
        ({"kind": {}}, {}),
        (None, {"targets": np.array([-1, 0])}),
        (None, {"targets": np.array([0.0, 1.0])}),
        (None, {"cells": np.ones((2, 3, 3), np.complex64)}),
        (None, {"cells": np.float32(1)}),
        (None, {"scores": np.ones((2, 2), np.float32)}),
        (None, {"rivals": np.array([[0], [7]])}),
        (None, {"class_cells": np.ones((2, 2), np.float32)}),
    ],
)
def test_parts_and_words_that_do_not_fit_are_one_clear_error(tmp_path, told, arrays):
    answers()[0].save(tmp_path / "a.npz")
    changed(tmp_path / "a.npz", told, **arrays)
    with pytest.raises(ValueError, match=r"a\.npz") as error:
        results.load(tmp_path / "a.npz")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "../../x",
        "a\x00b",
        "n" * 300,
        "😀",
        "\u202egpj.exe",
        "a\nb",
        "\udcff",
        "$\\frac{$",
        "_x",
    ],
)
def test_names_of_any_kind_are_saved_shown_and_drawn(tmp_path, name, zoo_installed):
    made = Saliency(torch.rand(1, 2, 2), (4, 4), torch.tensor([0]), torch.rand(1), (name, "bo"), {"method": name})
    made.save(tmp_path / "a.npz")
    found = results.load(tmp_path / "a.npz")
    assert found.names == (name, "bo")
    page = found._repr_html_()
    assert "<script" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_every_changed_bit_of_a_shard_is_seen(tmp_path):
    """The header, too: types and shapes of tensors, and what is said about them."""
    store = Store(tmp_path)
    tensors, told = {"a": torch.arange(6.0).view(2, 3)}, {"failed": {"3": "gone"}}
    store.put("k", tensors, told)
    whole = store.path("k").read_bytes()
    seen = 0
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        store.path("k").write_bytes(bytes(data))
        try:
            found, said = store.get("k"), store.told("k")
        except ValueError:
            seen += 1
            continue
        assert said == told
        assert found.keys() == tensors.keys()
        assert found["a"].dtype == torch.float32
        assert torch.equal(found["a"], tensors["a"])
    assert seen > 0.95 * 8 * len(whole)


def test_what_is_said_may_have_numbers_as_names(tmp_path):
    Store(tmp_path).put("k", {}, {"failed": {2: "a", 10: (1, 2)}})
    assert Store(tmp_path).told("k") == {"failed": {"2": "a", "10": [1, 2]}}


def test_brackets_without_end_are_one_clear_error(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        claim(tmp_path, {}, first=True, patience=0)


def test_a_header_that_promises_more_than_it_holds_takes_no_memory(tmp_path):
    answers()[0].save(tmp_path / "a.npz")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("more.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        results.load(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["x" * 251 + ".npz", "é" * 125 + ".npz"])
def test_names_as_long_as_they_may_be_are_written_whole(tmp_path, name):
    assert len(os.fsencode(name)) in (254, 255)
    answers()[0].save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    results.load(tmp_path / name)
