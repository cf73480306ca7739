"""The store: whole or not at all, the same bytes for the same content, and damage is seen."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch

from facexai._tensor_store import Store

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "number": torch.tensor(7),
    "yes": torch.tensor([True, False]),
    "turned": torch.arange(6.0).view(2, 3).T,
}


def test_what_comes_back_is_what_was_put(tmp_path):
    store = Store(tmp_path)
    store.put("k", TENSORS, {"failed": {"3": "é"}})
    found = store.get("k")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert store.get("k", ["a"]).keys() == {"a"}
    assert store.told("k") == {"failed": {"3": "é"}}
    assert "k" in store
    assert "other" not in store
    with pytest.raises(KeyError, match="no tensor 'b'"):
        store.get("k", ["b"])
    with pytest.raises(FileNotFoundError):
        store.get("other")


def test_equal_content_is_equal_bytes(tmp_path):
    store = Store(tmp_path)
    store.put("one", TENSORS, {"b": 1, "a": 2})
    store.put("two", dict(reversed(TENSORS.items())), {"a": 2, "b": 1})
    assert store.path("one").read_bytes() == store.path("two").read_bytes()


def test_every_damaged_byte_of_a_tensor_and_every_truncation_is_seen(tmp_path):
    store = Store(tmp_path)
    store.put("k", TENSORS, {})
    whole = store.path("k").read_bytes()
    data = len(whole) - sum(t.numel() * t.element_size() for t in TENSORS.values())
    for place in range(data, len(whole)):
        store.path("k").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"damaged .*delete it, and start again"):
            store.get("k")
    for length in (0, 4, data - 3, len(whole) - 1):
        store.path("k").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            store.get("k")
        with pytest.raises(ValueError, match="damaged"):
            store.told("k")


def test_files_of_others_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, str(tmp_path / "k.safetensors"))
    with pytest.raises(ValueError, match="damaged"):
        Store(tmp_path).get("k")
    save_file({"a": torch.ones(1)}, str(tmp_path / "k.safetensors"), {"facexai": "{}"})
    with pytest.raises(ValueError, match="written by something else"):
        Store(tmp_path).get("k")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put("k", {"a": torch.ones(1)})

    def fails(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        store.put("k", {"a": torch.zeros(1)})
    monkeypatch.undo()
    assert store.get("k")["a"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k.safetensors"]


def test_a_machine_that_has_no_more_open_files_is_no_damage(tmp_path):
    """Whoever is told that a good file is damaged deletes it."""
    resource = pytest.importorskip("resource")
    store = Store(tmp_path)
    store.put("k", TENSORS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, used + 8), hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(tmp_path / "k.safetensors", os.O_RDONLY))
        for read in (store.get, store.told):
            with pytest.raises(OSError, match="Too many open files"):
                read("k")
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert store.get("k").keys() == TENSORS.keys()
