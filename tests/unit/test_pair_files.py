"""Pair files as they are passed around, broken ones, and ones that want to run something."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facexai import metrics
from facexai.images import packed


def picture(value, size=(4, 6), kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def faces(tmp_path):
    """A folder NAME/NAME_0001.jpg of three people."""
    for name, count in (("Ann_Bo", 3), ("Cleo", 2), ("Dora", 1)):
        (tmp_path / name).mkdir()
        for number in range(1, count + 1):
            (tmp_path / name / f"{name}_{number:04d}.jpg").write_bytes(picture(40 * number))
    return tmp_path


def write(folder, text, name="pairs.txt"):
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


GENUINE, IMPOSTOR = "Ann_Bo\t1\t3\n", "Ann_Bo\t2\tCleo\t1\n"


def test_lfw_with_folds(faces):
    path = write(faces, "2\t1\n" + GENUINE + IMPOSTOR + "Cleo\t1\t2\n" + "Dora\t1\tAnn_Bo\t3\n")
    pairs = metrics.read_pairs(path)
    named = [[pairs.images[i].name for i in row] for row in pairs.index]
    assert named == [
        ["Ann_Bo_0001.jpg", "Ann_Bo_0003.jpg"],
        ["Ann_Bo_0002.jpg", "Cleo_0001.jpg"],
        ["Cleo_0001.jpg", "Cleo_0002.jpg"],
        ["Dora_0001.jpg", "Ann_Bo_0003.jpg"],
    ]
    assert len(pairs.images) == 6  # each photo once
    assert pairs.same.tolist() == [True, False, True, False]
    assert pairs.folds.tolist() == [0, 0, 1, 1]
    assert (pairs.index.dtype, pairs.same.dtype, len(pairs)) == (np.int64, np.bool_, 4)
    assert "2 genuine and 2 impostor pairs of 6 images" in repr(pairs)


@pytest.mark.parametrize("head", ["", "1\n"])
@pytest.mark.parametrize("lines", ["\n", "\r\n"])
@pytest.mark.parametrize("space", ["\t", " ", "  "])
def test_lfw_without_folds(faces, head, lines, space):
    text = (head + GENUINE + "\n" + IMPOSTOR).replace("\t", space).replace("\n", lines)
    pairs = metrics.read_pairs(write(faces, "\ufeff" + text))
    assert pairs.same.tolist() == [True, False]
    assert pairs.folds is None


def test_lfw_elsewhere_under_other_names(faces, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("lists"), GENUINE)
    assert len(metrics.read_pairs(path, faces)) == 1
    os.rename(faces / "Ann_Bo" / "Ann_Bo_0001.jpg", faces / "Ann_Bo" / "Ann_Bo_0001.png")
    assert metrics.read_pairs(path, faces).images[0].suffix == ".png"
    for number in (1, 3):
        (faces / f"Ann_Bo-{number}.webp").write_bytes(picture(9))
    flat = metrics.read_pairs(path, faces, pattern="{name}-{number}.webp")
    assert [image.name for image in flat.images] == ["Ann_Bo-1.webp", "Ann_Bo-3.webp"]
    assert metrics.read_pairs(path.rename(path.with_suffix(".list")), faces, kind="lfw").same.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("10\t300\n", r"promises 10 x \(300 genuine, then 300 impostor\) pairs, got 0 pairs"),
        ("1\t1\n" + IMPOSTOR + GENUINE, "promises"),  # the order says which kind a pair is
        ("2\n" + GENUINE + IMPOSTOR, r"promises 1 x \(2 genuine.* got 2 pairs, 1 genuine"),
        ("999999999\t999999999\n" + GENUINE, "promises"),  # no list of that length is made
        ("ten\t300\n" + GENUINE, "the number of folds and of pairs first, or a pair, got 'ten 300'"),
        ("0\t1\n" + GENUINE, "the number of folds"),
        (GENUINE + "Ann_Bo\t1\n", "line 2: expected 'name number number'.*got 2 columns"),
        (GENUINE + "a\tb\tc\td\te\n", "got 5 columns"),
        (GENUINE + "Ann_Bo\t1\tnan\n", "line 2: expected numbers of photos, got '1' and 'nan'"),
        ("Ann_Bo\t-1\t2\n", "expected numbers of photos"),
        ("Ann_Bo\t1\t" + 12 * "9" + "\n", "expected numbers of photos"),
        ("Ann_Bo\t1\tAnn_Bo\t2\n", "four columns stand for two people, got 'Ann_Bo' twice"),
        ("../Ann_Bo\t1\t2\n", "plain name of a person"),
        ("..\t1\tCleo\t2\n", "plain name of a person"),
        ("/etc\t1\t2\n", "plain name of a person"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
    ],
)
def test_broken_lists_get_one_clear_error(faces, text, message):
    with pytest.raises(ValueError, match=message):
        metrics.read_pairs(write(faces, text))


def test_missing_photos_are_named_with_what_is_near(faces):
    with pytest.raises(
        FileNotFoundError, match=r"names 1 photos .* 'Ann_Bo/Ann_Bo_0007.jpg'; did you mean 'Ann_Bo_000"
    ):
        metrics.read_pairs(write(faces, "Ann_Bo\t1\t7\n"))
    with pytest.raises(FileNotFoundError, match=r"names 3 photos .*did you mean 'Cleo'"):
        metrics.read_pairs(write(faces, "Cloe\t1\t2\n" + "Dora\t1\tEve\t4\n"))
    with pytest.raises(FileNotFoundError, match="names 2 photos"):
        metrics.read_pairs(write(faces, 300 * "x" + "\t1\t2\n"))
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.txt"):
        metrics.read_pairs(faces / "none.txt")
    with pytest.raises(FileNotFoundError, match="no file"):
        metrics.read_pairs(faces / "none.bin")
    with pytest.raises(FileNotFoundError, match="no folder"):
        metrics.read_pairs(write(faces, GENUINE), faces / "elsewhere")
    with pytest.raises(ValueError, match=r"expected a \.txt, \.csv or \.bin file"):
        metrics.read_pairs(write(faces, GENUINE, "pairs.lst"))
    with pytest.raises(ValueError, match="more than max_bytes=3"):
        metrics.read_pairs(write(faces, GENUINE), max_bytes=3)


A, B, C = "Ann_Bo/Ann_Bo_0001.jpg", "Ann_Bo/Ann_Bo_0002.jpg", "Cleo/Cleo_0001.jpg"


@pytest.mark.parametrize(
    "text",
    [
        f"{A},{B},1\n{A},{C},0\n",
        f"first,second,same\n{A},{B},True\n\n{A},{C},FALSE\n",
        f"\ufeffSame;Note;Second;First\r\nsame;x;{B};{A}\r\ndifferent;;{C};{A}\r\n",
        f'"{A}"\t"{B}"\tsame\n{A}\t {C}\tdifferent',
    ],
)
def test_tables(faces, text):
    pairs = metrics.read_pairs(write(faces, text, "pairs.csv"))
    assert [image.relative_to(faces).as_posix() for image in pairs.images] == [A, B, C]
    assert pairs.index.tolist() == [[0, 1], [0, 2]]
    assert pairs.same.tolist() == [True, False]
    assert pairs.folds is None


def test_tables_may_name_whole_paths(faces, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("lists"), f"{faces / A},{faces / B},1\n", "pairs.csv")
    assert len(metrics.read_pairs(path)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second,same\n", "names no pairs"),
        (f"{A},{B}\n", "line 1: expected the columns first, second, same"),
        (f"{A},{B},1,2\n", "line 1: expected the columns"),
        (f"left,right,label\n{A},{B},1\n", "line 1: expected two photos and one of 1, true, same, 0"),
        (f"{A},{B},1\n{A},{C},nan\n", "line 2: .*'nan'"),
        (f"{A},{B},1\n{A},{C}\n", "line 2: expected the columns"),
        (f"{A},,1\n", "expected two photos"),
        (f'"{A},{B},1\n', "line 1: "),
        ("x" * 200_000 + ",b,1\n", "line 1: field larger"),
    ],
)
def test_broken_tables_get_one_clear_error(faces, text, message):
    with pytest.raises(ValueError, match=message):
        metrics.read_pairs(write(faces, text, "pairs.csv"))


def test_photos_of_a_list_load_in_parts(faces):
    pairs = metrics.read_pairs(write(faces, GENUINE + IMPOSTOR))
    assert pairs.load(0, 3).shape == (3, 3, 4, 6)
    torch.testing.assert_close(pairs.load(), torch.cat([pairs.load(0, 3), pairs.load(3, 99)]))
    with pytest.raises(ValueError, match="expected images from 0 to 4, got 4 to 4"):
        pairs.load(4)


IMAGES = [picture(10 * i) + bytes(range(256)) for i in range(6)]


def python2(images, labels, protocol):
    """What Python 2 wrote: byte strings as its own kind of string."""
    if protocol == 0:
        made, memo = b"((lp1\n", 1
        for image in images:
            memo += 1
            text = "'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in image) + "'"
            made += b"S" + text.encode() + b"\np%d\na" % memo
        return (
            made + b"a(lp99\n".replace(b"a", b"", 1) + b"".join(b"I%02d\na" % label for label in labels) + b"tp100\n."
        )
    made = b"\x80\x02]q\x01("
    for number, image in enumerate(images, 2):
        made += (b"U" + bytes([len(image)]) if len(image) < 256 else b"T" + struct.pack("<i", len(image))) + image
        made += b"q" + bytes([number])
    made += b"e]r\x00\x01\x00\x00(" + b"".join(b"\x88" if label else b"\x89" for label in labels)
    return made + b"e\x86r\x01\x01\x00\x00."


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [list, tuple, "bytearray", "python2", "numbers"])
def test_packed_files_of_every_version(tmp_path, protocol, kind):
    labels = [True, False, True]
    if kind == "python2":
        data = python2(IMAGES, labels, protocol)
        assert pickle.loads(data, encoding="bytes")[0] == IMAGES
    elif kind == "bytearray":
        data = pickle.dumps((list(map(bytearray, IMAGES)), labels), protocol)
        if protocol < 5:  # there they are objects
            with pytest.raises(ValueError, match=r"asks for '.*bytearray'"):
                metrics.read_pairs(write(tmp_path, data, "lfw.bin"))
            return
    elif kind == "numbers":
        data = pickle.dumps([IMAGES, [1, 0, 1]], protocol)
        if protocol == 0:
            data = data.replace(b"L1L", b"I1")
    else:
        data = pickle.dumps((kind(IMAGES), kind(labels)), protocol)
    pairs = metrics.read_pairs(write(tmp_path, data, "lfw.bin"))
    assert pairs.images == tuple(IMAGES)
    assert all(type(image) is bytes for image in pairs.images)
    assert pairs.same.tolist() == labels
    assert pairs.index.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert pairs.folds is None


def test_one_picture_twice_and_large_ones(tmp_path):
    large = os.urandom(100_000)
    for protocol in range(6):
        data = pickle.dumps(([large, IMAGES[0], large, large], [False, True]), protocol)
        assert metrics.read_pairs(write(tmp_path, data, "a.bin")).images == (large, IMAGES[0], large, large)


def test_packed_pictures_decode_with_the_limits_of_photos(tmp_path):
    images = [picture(v, kind=k) for v in (0, 255) for k in ("PNG", "JPEG")]
    pairs = metrics.read_pairs(write(tmp_path, pickle.dumps((images, [True, False])), "a.bin"))
    assert pairs.load().shape == (4, 3, 4, 6)
    assert pairs.load(0, 2).max() == 0
    assert pairs.load(2).min() == 1
    mixed = metrics.Pairs((images[0], picture(0, (5, 5))), np.array([[0, 1]]), np.array([True]))
    with pytest.raises(ValueError, match="photos of different sizes"):
        mixed.load()
    for bad, message in (
        (b"no picture", "image 1 is not a picture"),
        (images[1][:200], "image 1 is damaged or truncated"),
    ):
        broken = metrics.Pairs((images[0], bad), np.array([[0, 1]]), np.array([True]))
        with pytest.raises(ValueError, match=message):
            broken.load()
    header = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(header, "PNG")
    bomb = metrics.Pairs((header.getvalue(),), np.array([[0, 0]]), np.array([True]))
    with pytest.raises(ValueError, match="image 0: 10000x10000 is more than 50000000 pixels"):
        bomb.load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((IMAGES[:5], [True, False]), "odd number of 5 images"),
        ((IMAGES, [True, False]), "got 6 images and 2 labels"),
        (([], []), "got 0 images and 0 labels"),
        ((IMAGES[:2], [2]), "label 0 as True or False, got 2"),
        ((IMAGES[:2], [b"1"]), "label 0 as True or False, got a bytes"),
        ((["text", "text"], [True]), "image 0 as the bytes of a picture, got a str"),
        (([[], b"x"], [True]), "image 0 as the bytes of a picture, got an empty list"),
        (IMAGES, "expected a pair of lists"),
        (True, "expected a pair of lists"),
        ((IMAGES[:2], [float("nan")]), "a number, None or NaN"),
        ((IMAGES[:2], [None]), "a number, None or NaN"),
        ((IMAGES[:2], [2**70]), "a number, None or NaN"),
        ({"images": IMAGES}, "which no list of bytes needs"),
    ],
)
def test_other_contents_get_one_clear_error(tmp_path, content, message):
    for protocol in (2, 5):
        with pytest.raises(ValueError, match=message):
            metrics.read_pairs(write(tmp_path, pickle.dumps(content, protocol), "a.bin"))


def test_labels_of_numpy_are_told_what_to_do(tmp_path):
    for labels in ([np.True_], np.array([True])):
        with pytest.raises(ValueError, match=r"asks for 'numpy.*save the labels as a list of plain bools"):
            metrics.read_pairs(write(tmp_path, pickle.dumps((IMAGES[:2], labels)), "a.bin"))


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Import(Command):
    def __reduce__(self):
        return __import__, ("os",)


class Evaluate(Command):
    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w')",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("attack", [Command, Import, Evaluate])
def test_nothing_in_a_packed_file_is_run(tmp_path, attack, protocol):
    trace = tmp_path / "trace"
    for content in (attack(trace), (IMAGES[:2], [attack(trace)]), ([attack(trace), b"x"], [True])):
        path = write(tmp_path, pickle.dumps(content, protocol), "a.bin")
        with pytest.raises(ValueError, match=r"a.bin: it asks for '.*', nothing but lists of bytes and bools is read"):
            metrics.read_pairs(path)
    assert not trace.exists()


CODECS = b"c_codecs\nencode\n"
HOSTILE = {
    "codecs on another codec": CODECS + b"(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR.",
    "codecs on a number": CODECS + b"(K\x05X\x06\x00\x00\x00latin1tR.",
    "codecs without a codec": CODECS + b"(X\x01\x00\x00\x00atR.",
    "codecs on what is no byte": CODECS + b"(X\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1tR.",
    "another function of codecs": b"c_codecs\nlookup\n(X\x01\x00\x00\x00atR.",
    "a name built on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "a call of a list": b"](X\x01\x00\x00\x00atR.",
    "an instance": b"(ios\nsystem\n.",
    "an object": b"(cos\nsystem\no.",
    "an object on the stack": b"()\x81.",
    "a state": b"])b.",
    "an extension": b"\x82\x01.",
    "a persistent name": b"Pa\n.",
    "a persistent value": b"Q.",
    "a buffer outside": b"\x97.",
    "a long of 2 GB": b"\x8b\xff\xff\xff\x7f1.",
    "a long of 255 bytes": b"\x8a\xff" + b"\xff" * 255 + b".",
    "a long on a line": b"L" + b"9" * 100_000 + b"L\n.",
    "an integer on a line": b"I" + b"9" * 100_000 + b"\n.",
    "a float": b"G" + b"\x00" * 8 + b".",
    "bytes of 2 ** 63": b"\x8e" + struct.pack("<Q", 2**63) + b"a.",
    "text of 4 GB": b"X\xff\xff\xff\xffa.",
    "a string of negative length": b"T\xff\xff\xff\xffa.",
    "a place of the memo far away": b"]r\xff\xff\xff\xff0.",
    "a place that was never filled": b"h\x07.",
    "a mark kept": b"(q\x01.",
    "an empty stack": b".",
    "two values": b"]].",
    "a tuple of nothing": b"\x87.",
    "an append to nothing": b"a.",
    "appends without a mark": b"]e.",
    "appends to bytes": b"C\x01a(C\x01be.",
    "text that is none": b"X\x01\x00\x00\x00\xff.",
    "a string without an end": b"S'abc\n.",
    "a string with a strange escape": b"S'\\N{BULLET}'\n.",
    "a line without an end": b"Sabc",
    "an unknown code": b"\xff.",
    "something behind the end": pickle.dumps((IMAGES[:2], [True])) + b"\x00",
    "a list in itself": b"]q\x00h\x00a.",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_codes_get_one_clear_error(tmp_path, name):
    path = write(tmp_path, HOSTILE[name], "a.bin")
    tracemalloc.start()
    try:
        with warnings.catch_warnings(), pytest.raises(ValueError, match=r"a\.bin: "):
            metrics.read_pairs(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_small_files_do_not_fill_the_memory(tmp_path, monkeypatch):
    text = b"X" + struct.pack("<I", 50_000) + b"a" * 50_000
    again = CODECS + b"h\x01X\x06\x00\x00\x00latin1\x86R"
    bomb = b"(" + text + b"q\x01" + again * 2_000 + b"t."
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="unpacks to more bytes than it has"):
            metrics.read_pairs(write(tmp_path, bomb, "a.bin"))
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(packed, "_MOST_STEPS", 1000)
    with pytest.raises(ValueError, match="more than 1000 steps"):
        metrics.read_pairs(write(tmp_path, b"]" * 2000, "a.bin"))


def test_every_truncation_is_noticed(tmp_path):
    for data in (
        pickle.dumps((IMAGES[:2], [True])),
        python2(IMAGES[:2], [True], 0),
        pickle.dumps((IMAGES[:2], [True]), 2),
    ):
        for end in range(0, len(data), 11):
            with pytest.raises(ValueError, match=r"a\.bin: (truncated|the file is empty)"):
                metrics.read_pairs(write(tmp_path, data[:end], "a.bin"))
    with pytest.raises(ValueError, match="more than max_bytes=100"):
        metrics.read_pairs(tmp_path / "a.bin", max_bytes=100)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_give_pairs_or_one_clear_error(tmp_path_factory, noise, place, value):
    folder = tmp_path_factory.getbasetemp()
    whole = bytearray(pickle.dumps((IMAGES[:2], [True]), 2))
    whole[place % len(whole)] = value
    for data in (noise, bytes(whole), b"\x80\x04" + noise):
        path = write(folder, data, "noise.bin")
        try:
            readable = bool(packed.read_packed(path, 10**6))
        except ValueError:
            readable = False
        if readable:
            assert len(metrics.read_pairs(path).images) == 2
        else:
            with pytest.raises(ValueError, match=r"noise\.bin: "):
                metrics.read_pairs(path)


def test_a_set_of_the_usual_size_is_read_fast(tmp_path):
    images = [os.urandom(500) for _ in range(12_000)]
    path = write(tmp_path, pickle.dumps((images, [True, False] * 3_000), 2), "lfw.bin")
    start = time.process_time()
    assert metrics.read_pairs(path).images == tuple(images)
    assert time.process_time() - start < 10


def test_from_a_file_to_an_accuracy(tmp_path):
    from facexai import FaceModel, InputSpec

    rng = np.random.default_rng(0)
    people = rng.integers(0, 255, size=(20, 4, 4, 3))
    images, same = [], []
    for k in range(20):
        for other in (k, (k + 1) % 20):
            for person in (k, other):
                buffer = io.BytesIO()
                noisy = people[person] + rng.integers(-9, 9, size=(4, 4, 3))
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
                images.append(buffer.getvalue())
            same.append(other == k)
    pairs = metrics.read_pairs(write(tmp_path, pickle.dumps((images, same), 2), "a.bin"))
    model = FaceModel(torch.nn.Flatten(), InputSpec(4, mean=0.5, std=0.5))
    faces = pairs.load()
    found = metrics.ten_fold(model.outputs(faces), pairs.index, pairs.same, flipped=model.outputs(faces.flip(-1)))
    assert found.mean > 0.95
    assert metrics.roc(found.scores, pairs.same).auc > 0.99


def test_the_reader_knows_no_module_to_import():
    source = Path(packed.__file__).read_text()
    for word in ("import pickle", "importlib", "__import__", "getattr", "eval(", "exec("):
        assert word not in source


@pytest.mark.parametrize("pattern", ["{person}.jpg", "{0}/{1}.jpg", "{name.x}", "{name", "{number:s}"])
def test_a_pattern_that_says_something_else_is_one_clear_error(faces, pattern):
    with pytest.raises(ValueError, match=r"expected a pattern of \{name\} and \{number\}, such as"):
        metrics.read_pairs(write(faces, "Ann_Bo\t1\t2\n"), pattern=pattern)
