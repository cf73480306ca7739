"""Weights that are damaged or made to harm: of the networks that are known, checkpoints, folders of denoisers."""

from __future__ import annotations

import io
import json
import math
import pickletools
import struct
import sys
import time
import warnings
import zipfile
from collections import Counter

import pytest
import torch
from hostile import count_of, tried
from hostile_readers import (
    checkpoints,
    constant,
    denoisers,
    dlib_file,
    graph_file,
    node,
    packed_integer,
    proto,
    put,
    read_dlib,
    read_walk,
    zoo_weights,
)
from torch import nn

from facexai.denoisers import from_diffusers
from facexai.models.checkpoints import load_weights

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _paths(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    ("make", "number"), [*((zoo_weights, n) for n in range(5)), *((checkpoints, n) for n in range(4))]
)
def test_malformed_weights(make, number, tmp_path):
    reader = make(tmp_path)[number]
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)
    assert tally.inputs == tally.answers + sum(tally.errors.values())


def test_malformed_folders_of_denoisers(tmp_path):
    pytest.importorskip("diffusers")
    (reader,) = denoisers(tmp_path)
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)


# ---- networks that are known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    one = struct.pack("<f", -1.0)
    with pytest.raises(ValueError, match="dlib weights: expected finite numbers"):
        read_dlib(dlib_file().replace(one, struct.pack("<f", value), 1))
    with pytest.raises(ValueError, match=r"FaceNet's graph: expected finite numbers at 'm'"):
        read_walk(graph_file().replace(struct.pack("<f", 0.5), struct.pack("<f", value)))


@pytest.mark.parametrize(
    "shape", [(-112, -1, 1, 1), (2**64, 2**64, 1, 1), (2**32, 2**32, 2**32, 2**32), (112, 1, 1, 2)]
)
def test_sizes_that_only_look_right_when_they_overflow_are_refused(shape):
    good = b"".join(map(packed_integer, (2, 112, 1, 1, 1)))
    lying = packed_integer(2) + b"".join(map(packed_integer, shape))
    with pytest.raises(ValueError, match="dlib weights: expected 112 numbers"):
        read_dlib(dlib_file().replace(good, lying, 1))


def test_one_number_that_stands_for_two_thousand_million_takes_no_memory():
    shape = node("shape", "Const", value=constant(3, [2], proto(4, struct.pack("<ii", 1, -1))))
    huge = node("shape", "Const", value=constant(3, [2**31 - 1], proto(7, 1)))
    assert shape in graph_file()
    start = time.process_time()
    with pytest.raises(ValueError, match=r"FaceNet's graph: expected \[1, -1\] at 'shape'"):
        read_walk(graph_file().replace(shape, huge))
    assert time.process_time() - start < 5  # seconds of the processor; a reader that is caught never ends


# ---- checkpoints ------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Linear(3, 4)


def archive(content, change, way=zipfile.ZIP_STORED) -> bytes:
    """A file of torch whose entries were changed."""
    buffer, made = io.BytesIO(), io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(made, "w", way) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return made.getvalue()


def test_an_archive_that_unpacks_to_more_than_it_has_is_refused_before_it_is_unpacked(net, tmp_path):
    def grown(name, data):
        return data + bytes(10**8) if name.endswith("data.pkl") else data

    path = put(tmp_path / "w.pt", archive(net.state_dict(), grown, zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10**6
    with pytest.raises(
        ValueError, match=r"'w\.pt' unpacks from \d+ to \d+ bytes, expected an archive that is not comp"
    ):
        load_weights(net, path)


def test_dictionaries_in_dictionaries_are_looked_into_a_bounded_number_of_times(net, tmp_path):
    """Names of one dictionary of names of one dictionary: a small file with millions of ways through it."""
    inner = {f"a{i}": net.weight.detach() for i in range(9)}
    middle = {f"b{i}": inner for i in range(1000)}
    path, start = tmp_path / "w.pt", time.process_time()
    torch.save({f"c{i}": middle for i in range(1000)}, path)
    with pytest.raises(ValueError, match="more than 10000 dictionaries, expected a state dict"):
        load_weights(net, path)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("kind", ["sparse", "csr", "quantised", "meta"])
def test_tensors_that_do_not_hold_a_number_for_each_place_are_refused(net, tmp_path, kind):
    before = net.weight.detach().clone()
    made = {
        "sparse": lambda t: t.to_sparse(),
        "csr": lambda t: t.to_sparse_csr(),
        "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "meta": lambda t: t.to("meta"),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that some of these are new or old
        odd = made(net.weight.detach())
    torch.save({"weight": odd, "bias": net.bias.detach()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt"):
        load_weights(net, tmp_path / "w.pt")
    assert torch.equal(net.weight, before)


def test_a_damaged_directory_of_an_archive_is_one_clear_error(net, tmp_path):
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    whole = buffer.getvalue()
    for place in range(whole.rindex(b"PK\x01\x02"), len(whole)):
        for value in (0, 0xFF):
            path = put(tmp_path / "w.pt", whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                load_weights(net, path)
            except ValueError as error:
                assert "w.pt" in str(error)  # noqa: PT017


def program(body: bytes, old: bool, content) -> bytes:
    """A file of torch whose values are made by those codes of pickle."""
    if not old:
        return archive(content, lambda name, data: body if name.endswith("data.pkl") else data)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    head, file = [], io.BytesIO(buffer.getvalue())
    for _ in range(3):  # the magic number, the version, the machine
        at = file.tell()
        list(pickletools.genops(file))
        head.append(buffer.getvalue()[at : file.tell()])
    return b"".join(head) + body


def integer(value: int) -> bytes:
    """A code of pickle for a long number."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        # forty times a pair of the pair before: its hash takes 2**40 steps, and its text as many characters
        (b"\x80\2})" + b"".join(b"q%ch%ch%c\x86" % (n, n, n) for n in range(1, 40)) + b"K\1s.", "tuples in tuples"),
        (b"\x80\2}(" + b"h\0" * 9 + b"tq\1" + b"(" + b"h\1" * 5000 + b"tq\2(" + b"h\2" * 5000 + b"tK\1s.", "tuples in"),
        (b"\x80\2c" + b"a" * 10**6 + b"\nb\n.", "a class whose name has 1000002 characters"),
        (b"\x80\2c" + "é".encode() * 10**5 + b"\nb\n.", "cannot be read"),
        # the same long tuple as a key again and again: tuples do not keep their hashes
        (
            b"\x80\2(" + b"K\1" * 2000 + b"tq\0(" + b"h\0" * 2000 + b"tq\1}q\2" + b"h\1Ns" * 9000 + b".",
            "steps to compare",
        ),
        # keys with equal hashes are compared each with each
        (
            b"\x80\2}(" + b"".join(integer(k * (2**61 - 1)) + b"N" for k in range(1, 20_000)) + b"u.",
            "steps to compare",
        ),
        (
            b"\x80\2ccollections\nCounter\n]("
            + b"".join(b"K\1" + integer(k) + b"\x86" for k in range(20_000))
            + b"e\x85R.",
            "steps to compare",
        ),
        # a list that is filled when it is in a tuple already
        (
            b"\x80\2]q\0h\0\x85q\1\x86h\0("
            + b"".join(b"K\1" + integer(k) + b"\x86" for k in range(9999))
            + b"ec__builtin__\nset\nh\1R.",
            "steps to compare",
        ),
        (b"\x80\2c__builtin__\nbytearray\n" + integer(10**11) + b"\x85R.", "builtins.bytearray with values"),
        (b"\x80\2ctorch\nTensor\n" + integer(10**11) + b"\x85R.", "torch.Tensor with values"),
        (b"\x80\2c_codecs\nencode\nX\1\0\0\0aX\x08\0\0\0punycode\x86R.", "_codecs.encode with values"),
        (b"\x80\2\x95.", "cannot be read"),  # a frame, of a later protocol
    ],
)
def test_programs_that_would_keep_the_reader_busy_for_ever_are_refused_at_once(net, tmp_path, old, body, told):
    path, start = put(tmp_path / "w.pt", program(body, old, net.state_dict())), time.process_time()
    with pytest.raises(ValueError, match=f"'w.pt' .*{told}"):
        load_weights(net, path)
    assert time.process_time() - start < 5  # seconds of the processor; a reader that is caught never ends


def test_a_program_is_looked_at_whatever_the_case_of_its_name(net, tmp_path):
    bomb = b"\x80\2})" + b"".join(b"q%ch%ch%c\x86" % (n, n, n) for n in range(1, 40)) + b"K\1s."
    buffer, made = io.BytesIO(archive(net.state_dict(), lambda _, data: data)), io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            program = name.endswith("data.pkl")
            new.writestr(name.replace("data.pkl", "DATA.PKL"), bomb if program else old.read(name))
    with pytest.raises(ValueError, match="steps to compare"):
        load_weights(net, put(tmp_path / "w.pt", made.getvalue()))


def test_a_checkpoint_with_much_beside_its_weights_is_read(net, tmp_path):
    """What training code keeps: optimisers' states, settings, seeds, sets, shapes, counters."""
    extra = {
        "optimizer": {"state": {k: {"step": torch.tensor(k), "m": torch.ones(3)} for k in range(2000)}},
        "groups": [{"betas": (0.9, 0.999), "params": list(range(2000))}] * 10,
        "seed": 2**63 - 1,
        "classes": {"ann", "bo"},
        "shape": torch.Size([3, 4]),
        "seen": Counter({"ann": 3}),
        "table": {(k, k + 1): k for k in range(500)},
    }
    for old in (False, True):
        content = {"state_dict": net.state_dict(), **extra}
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
        assert load_weights(net, tmp_path / "w.pt")


# ---- folders of denoisers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("block_out_channels", [20_000], "config.json describes [0-9]+ numbers, the files hold"),
        ("block_out_channels", [10**9], "cannot be read"),
        ("block_out_channels", [8] * 5000, "expected a list of at most 16"),
        ("down_block_types", "DownBlock2D", "expected a list"),
        ("layers_per_block", 10**6, "has layers_per_block=1000000, expected 1 to 32"),
        ("layers_per_block", True, "has layers_per_block=True"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "describes a quantised network"),
        ("_class_name", "x" * 10**6, "describes a 'xxx"),
    ],
)
def test_settings_that_would_fill_the_memory_are_refused_first(tmp_path, setting, value, told):
    pytest.importorskip("diffusers")
    denoisers(tmp_path)
    file = tmp_path / "denoiser" / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    start = time.process_time()
    with pytest.raises(ValueError, match=told) as error:
        from_diffusers(tmp_path / "denoiser")
    assert time.process_time() - start < 5
    assert len(str(error.value)) < 1500
