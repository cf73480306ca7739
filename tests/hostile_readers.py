"""Every reader of the library with good files, malformed ones of its own format, and what a whole answer is."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import math
import os
import pickle
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import torch
from hostile import WORDS, Mutate, Reader, altered, any_of, as_json, json_of, words_of
from PIL import Image
from safetensors.torch import save as safetensors
from torch import nn

from facexai import FaceModel, InputSpec, _toml, images, metrics, results
from facexai import io as files
from facexai._tensor_store import Store
from facexai.cli import audit
from facexai.denoisers import from_diffusers
from facexai.evaluate.config import Config, read
from facexai.evaluate.data import opened
from facexai.evaluate.manifest import claim
from facexai.models.checkpoints import load_weights
from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency
from facexai.zoo import by_name
from facexai.zoo.frozen_graph import read_graph

Read = Callable[[bytes], object]

dlib_resnet29 = importlib.import_module("facexai.zoo.dlib_resnet29")  # the package has functions of these names
facenet_casia = importlib.import_module("facexai.zoo.facenet_casia")


def put(path: Path, data: bytes) -> Path:
    """A file with that content."""
    path.write_bytes(data)
    return path


# ---- photos -----------------------------------------------------------------------------------------------------


def drawn(kind: str, mode: str = "RGB", side: int = 24, **options: Any) -> bytes:
    """A small picture of noise as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)  # the same for every call
    buffer = io.BytesIO()
    made = Image.fromarray(pixels)
    if kind == "JPEG":
        exif = made.getexif()
        exif[0x0112], exif[0x010F], exif[0x0132] = 6, "maker", "2020:01:01 00:00:00"
        options["exif"] = exif
    more = {"save_all": True, "append_images": [made.rotate(90)]} if options.pop("animated", False) else {}
    made.convert(mode).save(buffer, kind, **options, **more)
    return buffer.getvalue()


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Those of a PNG file."""
    found, at = [], 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def png_of(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG file with right lengths and checksums."""
    body = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def png_mutant(rng: Random) -> bytes:
    """Chunks that lie, with right checksums; bombs of pixels and of text."""
    parts = chunks(drawn("PNG", rng.choice(("RGB", "RGBA", "P", "L", "1"))))
    at, kind = rng.randrange(len(parts)), rng.randrange(9)
    side = rng.choice((0, 1, 2, 1000, 7000, 7072, 12_000, 2**15, 2**31 - 1, 2**31, 2**32 - 1))
    if kind == 0:
        width, height = rng.sample((side, rng.choice((1, 24, side))), 2)
        rest = bytes((rng.choice((1, 2, 4, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 7)), 0, 0, rng.choice((0, 1, 2))))
        parts[0] = (b"IHDR", struct.pack(">II", width, height) + rest)
    elif kind == 1:
        parts.insert(at, rng.choice(parts))
    elif kind == 2:
        del parts[at]
    elif kind == 3:
        rng.shuffle(parts)
    elif kind == 4:
        bomb = zlib.compress(bytes(rng.choice((10**5, 2 * 10**6, 3 * 10**7))))
        where = rng.choice((b"zTXtk\0\0", b"iTXtk\0\1\0\0\0", b"iCCPk\0\0"))
        parts.insert(1, (where[:4], where[4:] + bomb))
    elif kind == 5:
        parts = [part for part in parts if part[0] != b"IDAT"]
        parts.insert(1, (b"IDAT", zlib.compress(rng.randbytes(rng.choice((0, 10, 3000))) + bytes(10**6))))
    elif kind == 6:
        parts.insert(1, (b"acTL", struct.pack(">II", rng.choice((0, 2, 2**31, 2**32 - 1)), 0)))
        parts.insert(2, (b"fcTL", rng.randbytes(26)))
    elif kind == 7:
        parts.insert(1, (b"eXIf", rng.choice((b"II*\0", b"MM\0*", b"")) + rng.randbytes(rng.choice((0, 4, 60)))))
    else:
        name = bytes(rng.choice(b"ABcdIHDRtRNSPLTEgAMA") for _ in range(4))
        parts.insert(at, (rng.choice((name, b"tRNS", b"PLTE", b"gAMA", b"cHRM", b"pHYs")), rng.randbytes(side % 50)))
    return png_of(parts)


def jpeg_mutant(rng: Random) -> bytes:
    """Other sizes in the frame header, segments of other lengths, EXIF that points anywhere."""
    data = bytearray(drawn("JPEG", rng.choice(("RGB", "L", "CMYK"))))
    frame, kind = data.index(b"\xff\xc0"), rng.randrange(4)
    if kind == 0:
        size = struct.pack(">HH", *(rng.choice((0, 1, 24, 2000, 7200, 65_500, 65_535)) for _ in range(2)))
        data[frame + 5 : frame + 9] = size
    elif kind == 1:
        data[frame + 9 : frame + 10] = bytes([rng.randrange(256)])
        data[frame + 1] = rng.choice((0xC1, 0xC2, 0xC3, 0xC9, 0xCF))
    elif kind == 2:
        exif = data.index(b"Exif") + 6
        for _ in range(rng.randrange(1, 6)):
            data[exif + rng.randrange(60)] = rng.choice((0, 1, 6, 0x7F, 0xFF, rng.randrange(256)))
    else:
        segment = b"\xff" + bytes([rng.randrange(0xC0, 0xFF)]) + struct.pack(">H", rng.choice((0, 1, 2, 40, 65_535)))
        data[2:2] = segment + rng.randbytes(38)
    return bytes(data)


STRANGERS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\nshowpage\n", b"%PDF-1.4\n",
    b"\xc5\xd0\xd3\xc6" + bytes(40), b"8BPS\0\1" + bytes(40), b"icns" + bytes(40), b"\0\0\1\0\1\0\1\1" + bytes(40),
    b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), b"SIMPLE  =                    T" + bytes(3000), b"GRIB" + bytes(40),
    b"\x89HDF\r\n\x1a\n" + bytes(40), b"\xd7\xcd\xc6\x9a" + bytes(80), b"DDS " + bytes(200), b"qoif" + bytes(40),
    b"#define a_width 9\n#define a_height 9\nstatic char a[] = {0};", b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    b"P6 9999999 9999999 255\n", b"P4\n# " + b"x" * 200_000, b"P5 5 5 65535\n", b"Pf 2 2 -1\n", b"BM" + bytes(60),
    b"BA" + bytes(60), b"MM\0\x2a\0\0\0\x08" + bytes(40), b"II+\0\x08\0\0\0" + b"\x10" + bytes(40),
)  # fmt: skip
"""Other formats that Pillow knows, some of which ask another program to draw them, and headers alone."""


def photos(folder: Path) -> list[Reader]:
    """``images.load`` of each format, and of formats that are none of ours."""
    kinds: dict[str, tuple[list[bytes], list[Mutate]]] = {
        "JPEG photo": ([drawn("JPEG"), drawn("JPEG", "L"), drawn("JPEG", progressive=True)], [jpeg_mutant]),
        "PNG photo": ([drawn("PNG"), drawn("PNG", "P"), drawn("PNG", "RGBA"), drawn("PNG", "I;16")], [png_mutant]),
        "WebP photo": ([drawn("WEBP"), drawn("WEBP", lossless=True), drawn("WEBP", animated=True)], []),
        "BMP photo": ([drawn("BMP"), drawn("BMP", "1"), drawn("BMP", "P")], []),
        "GIF photo": ([drawn("GIF", "P"), drawn("GIF", "P", animated=True)], []),
        "TIFF photo": ([drawn("TIFF"), drawn("TIFF", compression="tiff_lzw"), drawn("TIFF", "I;16")], []),
    }
    read_file = _of_file(folder, "photo.jpg", images.load, _photo)
    says = ("photo.jpg",)
    limits: dict[str, Any] = {"seconds": 20.0, "mib": 1500.0}  # of a photo of 50 million pixels on a slow machine
    made = [Reader(name, any_of(good, *own), read_file, good, says, **limits) for name, (good, own) in kinds.items()]
    strange = any_of([*STRANGERS, *(good[0] for good, _ in kinds.values())])
    return [*made, Reader("photo of any format", strange, read_file, (), says, **limits)]


def _photo(found: torch.Tensor) -> None:
    assert found.ndim == 4
    assert found.shape[:2] == (1, 3)
    low, high = found.aminmax()
    assert 0 <= low <= high <= 1


def _of_file(folder: Path, name: str, read: Callable[[Path], Any], check: Callable[[Any], None]) -> Read:
    def made(data: bytes) -> None:
        check(read(put(folder / name, data)))

    return made


# ---- pairs and tables -------------------------------------------------------------------------------------------


def _faces(folder: Path) -> None:
    for name, count in (("Ann", 3), ("Bo", 2)):
        (folder / name).mkdir(exist_ok=True)
        for number in range(1, count + 1):
            put(folder / name / f"{name}_{number:04d}.jpg", drawn("JPEG"))


def _pairs(found: metrics.Pairs) -> None:
    assert len(found) == len(found.index) > 0
    assert 0 <= found.index.min() <= found.index.max() < len(found.images)
    assert found.folds is None or len(found.folds) == len(found)
    assert all(isinstance(image, bytes) or image.is_file() for image in found.images)


OPCODES = (
    b"(.01235679FGHIJKLMNPQRSTUVX]abcdeghijlopqrstu\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x8f\x93\x94\x95\x96"
)


def program(rng: Random, length: int = 40) -> bytes:
    """Byte codes of pickle in any order, with operands, that ask for functions, too."""
    made = [b"\x80" + bytes([rng.choice((0, 2, 4, 5, 9))])]
    for _ in range(rng.randrange(1, length)):
        kind = rng.randrange(9)
        if kind < 4:
            made.append(bytes([rng.choice(OPCODES)]))
        elif kind == 4:
            made.append(
                rng.choice((b"cos\nsystem\n", b"cbuiltins\nexec\n", b"c_codecs\nencode\n", b"cnumpy\nndarray\n"))
            )
        elif kind == 5:
            made.append(rng.choice((b"X\2\0\0\0hi", b"U\2id", b"\x8c\6latin1", b"S'x'\n", b"C\3abc", b"K\1", b"M\0\1")))
        elif kind == 6:
            made.append(rng.choice(b"qh").to_bytes(1) + bytes([rng.randrange(4)]))
        elif kind == 7:
            made.append(rng.choice(b"XTB\x8d\x8e").to_bytes(1) + rng.choice((b"\xff" * 8, b"\0" * 8, rng.randbytes(8))))
        else:
            made.append(
                rng.choice((b"](K\1e", b"h\0h\0\x86q\0", b"R", b"(lp0\n", b"g0\n", b"I01\n", b"I9\n", b"tR", b"b"))
            )
    return b"".join([*made, b"."])


def pair_files(folder: Path) -> list[Reader]:
    """Tables of pairs, LFW's lists, packed files, tables of photos and of groups."""
    _faces(folder)
    photo, ann, bo = drawn("PNG", side=4), b"Ann/Ann_0001.jpg", b"Bo/Bo_0001.jpg"
    tables = [
        b"first,second,same\n%s,%s,0\n%s,Ann/Ann_0002.jpg,true\n" % (ann, bo, ann),
        b"%s;%s;different" % (ann, bo),
    ]
    lists = [b"1\t1\nAnn\t1\t2\nAnn\t1\tBo\t1\n", b"Ann 1 2\nBo 1 2\n", b"2\t1\n" + b"Ann\t1\t2\nAnn\t3\tBo\t2\n" * 2]
    content = ([photo, photo, photo, photo], [True, False])
    packed = [pickle.dumps(content, protocol) for protocol in (0, 1, 2, 3, 4, 5)]
    photo_list = [b"image,identity\n%s,Ann\n%s,Bo\n" % (ann, bo), b"image\n%s\n" % ann]
    groups = [b"image,group,identity\n%s,g,a\n%s,h,b\n" % (ann, bo), b"image;group\n%s;g\n" % ann]
    both = (ValueError, FileNotFoundError)

    def table(
        name: str, good: Sequence[bytes], read: Callable[[Path], Any], check: Callable[[Any], None], at: str
    ) -> Reader:
        mutate = any_of(good, words_of(good, b",;\t\n "))
        return Reader(name, mutate, _of_file(folder, at, read, check), good, (at,), both)

    return [
        table("pairs: CSV", tables, metrics.read_pairs, _pairs, "pairs.csv"),
        table("pairs: LFW's list", lists, metrics.read_pairs, _pairs, "pairs.txt"),
        Reader(
            "pairs: packed .bin",
            any_of(packed, program, lambda rng: program(rng, 400)),
            _of_file(folder, "pairs.bin", metrics.read_pairs, _pairs),
            packed,
            ("pairs.bin",),
        ),
        table("photos to evaluate: CSV", photo_list, lambda path: opened(path, None), _photos, "photos.csv"),
        table("groups to audit: CSV", groups, audit._rows, _groups, "groups.csv"),
    ]


def _photos(found: Any) -> None:
    assert len(found.sources) == len(found.names) > 0
    assert found.digest


def _groups(found: tuple[set[str], dict[str, dict[str, str]]]) -> None:
    columns, rows = found
    assert {"image", "group"} <= columns
    assert all(set(row) == columns for row in rows.values())


# ---- saved answers ----------------------------------------------------------------------------------------------


def answers() -> list[Any]:
    """One of each kind."""
    said = {"method": "sdd", "layer": "x", "sdd": {"amplify": "none"}}
    cells = torch.rand(2, 3, 3)
    first = Saliency(cells, (6, 6), torch.tensor([0, 1]), torch.rand(2), ("ann", "bo"), said)
    pair = PairSaliency(torch.rand(1, 2, 3, 3), (6, 6), torch.rand(1), 0.3, said)
    heat = FrequencyHeat(torch.rand(1, 4), torch.arange(5.0), torch.rand(1, 4), torch.rand(1), (8, 8), 0.7, recipe=said)
    face = torch.rand(1, 3, 4, 4)
    row = torch.ones(1)
    edit = Counterfactual(face, face, face[:, 0] > 0.5, row, -row, row > 0, row, row.long(), torch.ones(1, 2), said)
    return [first, pair, heat, edit]


def zip_of(entries: Mapping[str, bytes], rng: Random, *, packed: bool = True) -> bytes:
    """An archive of files that are altered, renamed, doubled, left out or bombs, with right checksums."""
    made = list(entries.items())
    at, kind = rng.randrange(len(made)), rng.randrange(8)
    name, content = made[at]
    if kind == 0:
        del made[at]
    elif kind == 1:
        odd = (
            "../../x.npy",
            "/etc/x.npy",
            "a\\b.npy",
            "manifest",
            "x" * 60_000,
            "é\ud800.npy".encode("utf-8", "replace").decode(),
        )
        made[at] = (rng.choice(odd), content)
    elif kind == 2:
        made.append(rng.choice(made))
    elif kind == 3:
        made[at] = (name, content + bytes(rng.choice((10, 10**5, 2 * 10**7))))
    elif kind == 4:
        made[at] = (name, b"")
    elif kind == 5:
        made[at] = (name, rng.choice(made)[1])
    elif kind == 6:
        made[at] = (name, _zipped(made, rng))
    else:
        made[at] = (name, any_of([content or b"\0"])(rng))
    return _zipped(made, rng, packed=packed)


def _zipped(entries: Sequence[tuple[str, bytes]], rng: Random, *, packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    way = rng.choice(ways) if packed and rng.random() < 0.3 else ways[int(packed)]
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", way, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy_mutant(rng: Random) -> bytes:
    """An array whose header promises something else than follows."""
    kind = rng.choice(
        ("<f4", "<i8", "|O", "|b1", "<U4", "|V0", "<f2", ">f4", "<c8", "<M8[s]", "|S0", "<f16", "x", "<u2")
    )
    shape = rng.choice(
        ("(2, 3, 3)", "(10**9,)", "(99999999999,)", "(-1,)", "()", "(0,)", "(2, 2**62)", "(1,)*40", "None")
    )
    shape = rng.choice((shape, f"({rng.randrange(4)}, {rng.randrange(4)}, {rng.randrange(4)})"))
    header = f"{{'descr': {kind!r}, 'fortran_order': {rng.choice(('True', 'False', '1'))}, 'shape': {shape}, }}"
    if rng.random() < 0.2:
        header = rng.choice(
            ("[" * 3000, "{" * 9000, "'" * 60, header * 200, "__import__('os').system('id')", "{}", header[:30])
        )
    text = header.encode() + b"\n"
    body = rng.choice(
        (bytes(72), bytes(18), b"", rng.randbytes(144), b"\x00\x00\xc0\x7f" * 18, b"\x80\4cos\nsystem\n.")
    )
    return (
        b"\x93NUMPY"
        + rng.choice((b"\1\0", b"\1\0", b"\2\0\0\0", b"\3\0", b"\x09\0"))[:2]
        + struct.pack("<H", len(text))
        + text
        + body
    )


def saved(folder: Path) -> list[Reader]:
    """Saved answers of every kind, shards, manifests of runs."""
    good = []
    for made in answers():
        made.save(folder / "answer.npz")
        good.append((folder / "answer.npz").read_bytes())

    def entries(rng: Random) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(rng.choice(good))) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def manifest(rng: Random) -> bytes:
        held = entries(rng)
        told = json.loads(np.load(io.BytesIO(held["manifest.npy"])).tobytes())
        buffer = io.BytesIO()
        np.save(buffer, np.frombuffer(json_of(told)(rng), np.uint8))
        return _zipped([*(held | {"manifest.npy": buffer.getvalue()}).items()], rng)

    def arrays(rng: Random) -> bytes:
        held = entries(rng)
        return _zipped([*(held | {rng.choice(list(held)): npy_mutant(rng)}).items()], rng)

    answer = any_of(good, manifest, manifest, arrays, lambda rng: zip_of(entries(rng), rng))
    return [
        Reader(
            "saved answer .npz", answer, _of_file(folder, "answer.npz", results.load, _answer), good, ("answer.npz",)
        ),
        *_stored(folder),
    ]


def _answer(found: Any) -> None:
    """It can be used: counted, shown, drawn and saved again."""
    assert len(found) >= 0
    assert repr(found)
    if len(found) and hasattr(found, "maps") and found.size[0] * found.size[1] < 10**6:
        assert tuple(found.maps.shape[-2:]) == found.size


def _stored(folder: Path) -> list[Reader]:
    store = Store(folder)
    tensors, told = {"a": torch.arange(6.0).view(2, 3), "items": torch.tensor([1, 2])}, {"failed": {"3": "gone"}}
    store.put("shard", tensors, told)
    good = store.path("shard").read_bytes()
    size = int.from_bytes(good[:8], "little")
    header, body = json.loads(good[8 : 8 + size]), good[8 + size :]

    def headed(rng: Random) -> bytes:
        head = dict(header)
        if rng.random() < 0.5:
            text = json.loads(head["__metadata__"]["facexai"])
            head["__metadata__"] = {"facexai": as_json(altered(text, rng)).decode("utf-8", "replace")}
        made = json_of(head)(rng) if rng.random() < 0.7 else as_json(head)
        return len(made).to_bytes(8, "little") + made + body

    def read_shard(data: bytes) -> None:
        store.path("shard").write_bytes(data)
        found = store.get("shard")
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():  # what was written, or an error
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
        assert store.told("shard") == told
        assert store.names("shard") == list(tensors)

    about = {"format": 1, "task": "people", "config seed": 0, "fingerprint": "ab", "photos": 3, "shard": 8}
    text = json.dumps(about).encode()

    def read_manifest(data: bytes) -> None:
        put(folder / "manifest.json", data)
        assert claim(folder, about, first=True, patience=0.0) == about

    return [
        Reader("shard of a run", any_of([good], headed), read_shard, (good,), ("shard.safetensors",)),
        Reader("manifest of a run", any_of([text], json_of(about)), read_manifest, (text,), (str(folder),)),
    ]


# ---- configurations and names -----------------------------------------------------------------------------------


def toml_of(seed: Mapping[str, Any]) -> Mutate:
    """TOML of a table with altered values, and keys and brackets in brackets."""

    def literal(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float):
            return "nan" if math.isnan(value) else "inf" if value == math.inf else repr(value)
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {literal(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(literal, value)) + "]"
        return "{}" if value is None else json.dumps(value, ensure_ascii=False)

    deep = (
        "x = " + "[" * 50_000,
        "x = " + "{a=" * 5_000,
        "a." * 20_000 + "b = 1",
        "[" + "a." * 9_000 + "b]",
        "data." * 900 + "x = 1",
    )
    odd = (
        "x = 1979-13-01",
        "x = 0b2",
        "x = " + "9" * 5000,
        'x = "\\ud800"',
        "x = 07:99:00",
        "[[a]]\n[a]",
        "data = 1",
        "=",
    )

    def mutate(rng: Random) -> bytes:
        table = altered(dict(seed), rng)
        table = table if isinstance(table, dict) else {"data": table}
        lines = [f"{json.dumps(k, ensure_ascii=False)} = {literal(v)}" for k, v in table.items()]
        if rng.random() < 0.2:
            lines.insert(rng.randrange(len(lines) + 1), rng.choice((*deep, *odd)))
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    return mutate


def configurations(folder: Path) -> list[Reader]:
    """TOML of runs and audits, and names of factories."""
    run = {
        "data": "faces",
        "explainers": ["sdd", {"method": "cam", "name": "c"}],
        "limit": 3,
        "area": 0.2,
        "scale": 64.0,
    }
    run |= {"fill": "black", "metrics": ["deletion"], "shard": 2, "threshold": 0.3, "align": "auto"}
    check = {"pairs": "pairs.csv", "groups": "groups.csv", "threshold": "eer", "width": 1.0, "draws": 99, "seed": 1}
    toml = [b'data = "faces"\nexplainers = ["sdd", {method = "cam"}]\nlimit = 3\nscale = 64.0\n']
    toml_audit = [b'pairs = "p.csv"\ngroups = "g.csv"\nwidth = 2.0\n']
    (folder / "hostile_factory.py").write_text("def make():\n    return 5\n\ndef leave():\n    raise SystemExit(3)\n")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()

    def read_name(data: bytes) -> None:
        found = by_name(data.decode("utf-8", "surrogateescape"))
        raise AssertionError(f"a network was made: {found!r}")

    names = [b"hostile_factory:make", b"hostile_factory:leave", b"package.module:factory", b"dlib-resnet", b"a.b.c:d.e"]
    name_words = words_of([b" a : b . c : d ", b".os:x", b"hostile_factory:x:y"], b" .:")
    audit_read = _of_file(
        folder, "audit.toml", lambda p: _toml.read(p, audit.Config, ("pairs", "groups"), "x"), _config
    )
    return [
        Reader(
            "configuration of a run: TOML",
            any_of(toml, toml_of(run), words_of(toml, b' "=\n[{,')),
            _of_file(folder, "run.toml", read, _config),
            toml,
            ("run.toml",),
        ),
        Reader(
            "configuration of an audit: TOML",
            any_of(toml_audit, toml_of(check), words_of(toml_audit, b' "=\n')),
            audit_read,
            toml_audit,
            ("audit.toml",),
        ),
        Reader(
            "package.module:factory",
            any_of(names, name_words),
            read_name,
            (),
            ("network", "make", "expected", "returned"),
            (ValueError, TypeError),
        ),
    ]


def _config(found: Any) -> None:
    assert isinstance(found, Config | audit.Config)
    for name, value in vars(found).items():
        assert not (isinstance(value, float) and math.isnan(value)), f"{name} is NaN"
        assert not (isinstance(value, str) and "\0" in value), f"{name} holds a NUL"


# ---- galleries --------------------------------------------------------------------------------------------------


def galleries(folder: Path) -> list[Reader]:
    """Folders of people under any name that the system takes, with links that loop and files that are no photos."""
    torch.manual_seed(0)
    model = FaceModel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 8)).eval(), InputSpec(8))
    good, root = drawn("PNG", side=8), folder / "gallery"
    state = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}

    def read_people(data: bytes) -> None:
        names = [os.fsdecode(name) for name in data.split(b"\0") if name]
        root.mkdir()
        try:
            made = _people(root, names, good)
            people = model.gallery(root)
            assert set(people.names) == set(made)
            assert repr(people)
            assert people.fingerprint
        finally:
            _removed(root)
            assert all(torch.equal(tensor, state[name]) for name, tensor in model.net.state_dict().items())

    def mutate(rng: Random) -> bytes:
        words = [rng.choice(WORDS).encode().replace(b"\0", b"") for _ in range(3)]
        return b"\0".join(
            rng.choice((word, rng.randbytes(rng.randrange(1, 300)), b"loop", b"link", b"file")) for word in words
        )

    return [
        Reader(
            "gallery of people",
            mutate,
            read_people,
            (b"Ann\0Bo",),
            ("gallery",),
            (ValueError, FileNotFoundError, OSError),
            few=150,
        )
    ]


def _people(root: Path, names: Sequence[str], photo: bytes) -> list[str]:
    """Makes the folders that the system takes; links, loops and files for some names."""
    made = []
    for name in names:
        place = root / name
        if "/" in name or os.path.lexists(place):
            continue
        with contextlib.suppress(OSError):
            if name == "loop":
                place.symlink_to(place)
            elif name == "file":
                place.write_bytes(photo)
            else:
                place.mkdir()
                (place / "self.png").symlink_to(place / "self.png")
                (place / "up").symlink_to(root)
                (place / "zero.png").symlink_to("/dev/zero")
                if name != "link":
                    put(place / "a.png", photo)
                    made += [] if name.startswith(".") else [name]
    return made


def _removed(root: Path) -> None:
    for at, folders, names in os.walk(root, topdown=False):
        for name in (*folders, *names):
            path = Path(at, name)
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                path.rmdir()
    root.rmdir()


# ---- weights ----------------------------------------------------------------------------------------------------


def packed_integer(value: int) -> bytes:
    """dlib's: a control byte, then the bytes of the number."""
    size = (abs(value).bit_length() + 7) // 8
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


class TinyDlib(nn.Module):
    """The kinds of layers that dlib's network has, one each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.affine = nn.Conv2d(3, 4, 3), dlib_resnet29._Affine(4)
        self.linear = nn.Linear(256, 128, bias=False)


def dlib_file(rng: Random | None = None) -> bytes:
    """dlib's stream of :class:`TinyDlib`; with random numbers one with numbers that lie."""
    odd = (0, -1, 2, 2**15, -(2**40), 2**63, 2**64 - 1, 2**100, 7)

    def number(value: int) -> bytes:
        return packed_integer(rng.choice(odd) if rng and rng.random() < 0.1 else value)

    def tensor(size: int) -> bytes:
        values = np.linspace(-1, 1, size, dtype="<f4")
        if rng and rng.random() < 0.2:
            values[rng.randrange(size)] = rng.choice((math.nan, math.inf, -math.inf))
        return number(2) + number(size) + number(1) + number(1) + number(1) + values.tobytes()

    def tag(name: bytes) -> bytes:
        return bytes([1, len(name)]) + name

    parts = [
        tag(b"con_4"),
        tensor(112),
        tag(b"affine_"),
        tensor(8),
        tag(b"fc_2"),
        number(128),
        number(256),
        tensor(2**15),
    ]
    if rng and rng.random() < 0.2:
        rng.shuffle(parts)
    return b"".join(parts)


def varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def proto(number: int, value: int | bytes) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(name: str, op: str, *inputs: str, **attributes: bytes) -> bytes:
    """One node as a field of a graph."""
    entries = b"".join(proto(5, proto(1, key.encode()) + proto(2, value)) for key, value in attributes.items())
    return proto(
        1, proto(1, name.encode()) + proto(2, op.encode()) + b"".join(proto(3, i.encode()) for i in inputs) + entries
    )


def constant(kind: int, sizes: Sequence[int], *rest: bytes) -> bytes:
    """The attribute that holds a tensor."""
    return proto(8, proto(1, kind) + proto(2, b"".join(proto(2, proto(1, size)) for size in sizes)) + b"".join(rest))


def tiny_walk() -> nn.Module:
    """Some of the layers of FaceNet's graph."""
    layers = [facenet_casia._Conv(3, 4, 1), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(4, 5, bias=False)]
    return nn.Sequential(*layers)


def graph_file(rng: Random | None = None) -> bytes:
    """The graph of :func:`tiny_walk`; with random numbers one with shapes, kinds and names that lie."""
    sizes_odd = ([], [0], [-1], [2**31 - 1], [2**62, 4], [1] * 9, [4, 3], [2], [2**16, 2**15 - 1])

    def numbers(sizes: list[int], kind: int = 1, values: bytes | None = None) -> bytes:
        content = struct.pack(f"<{math.prod(sizes)}f", *([0.5] * math.prod(sizes))) if values is None else values
        if rng and rng.random() < 0.15:
            sizes = list(rng.choice(sizes_odd))
        if rng and rng.random() < 0.15:
            content = rng.choice((b"", b"\0\0\xc0\x7f", b"\0\0\x80\x7f" * 4, bytes(4), rng.randbytes(9)))
        return constant(
            rng.choice((0, 1, 3, 7, 99)) if rng and rng.random() < 0.1 else kind,
            sizes,
            proto(rng.choice((4, 4, 5, 7)) if rng else 4, content),
        )

    ones = proto(1, proto(3, b"\1\1\1\1"))
    nhwc, window, halved = proto(2, b"NHWC"), proto(1, proto(3, b"\1\3\3\1")), proto(1, proto(3, b"\1\2\2\1"))
    nodes = [
        node("in", "Placeholder"),
        node("w", "Const", value=numbers([1, 1, 3, 4])),
        node("conv", "Conv2D", "in", "w", strides=ones, dilations=ones, data_format=nhwc),
        node("b", "Const", value=numbers([4])),
        node("bias", "BiasAdd", "conv", "b"),
        node("relu", "Relu", "bias"),
        node("pool", "MaxPool", "relu", ksize=window, strides=halved, padding=proto(2, b"VALID"), data_format=nhwc),
        node("shape", "Const", value=numbers([2], 3, struct.pack("<ii", 1, -1))),
        node("flat", "Reshape", "pool", "shape"),
        node("m", "Const", value=numbers([4, 5])),
        node("out", "MatMul", "flat", "m", transpose_a=proto(5, 0), transpose_b=proto(5, 0)),
    ]  # fmt: skip
    if rng and rng.random() < 0.3:
        at, kind = rng.randrange(len(nodes)), rng.randrange(4)
        if kind == 0:
            del nodes[at]
        elif kind == 1:
            nodes.append(nodes[at])
        elif kind == 2:
            nodes[at] = node(rng.choice(WORDS), rng.choice(("Relu", *WORDS)), "out", "out")
        else:
            nodes[at] = proto(
                rng.randrange(1, 9), rng.choice((b"", b"\xff" * 12, rng.getrandbits(64), proto(1, nodes[at])))
            )
    return b"".join(nodes)


def read_walk(data: bytes) -> None:
    """What ``facenet_casia.read_weights`` does, for :func:`tiny_walk`."""
    walk, net = facenet_casia._Walk(read_graph(data)), tiny_walk()
    with torch.no_grad():
        walk.pass_by(walk.back(net, "out"), "Placeholder", 0)
    if walk.ahead:
        walk.refuse(f"{len(walk.ahead)} nodes are not used")
    assert all(torch.isfinite(p).all() for p in net.parameters())


def read_dlib(data: bytes) -> None:
    """``dlib_resnet29.read_weights`` for :class:`TinyDlib`."""
    with mock.patch.object(dlib_resnet29, "DlibResNet29", TinyDlib):
        net = dlib_resnet29.read_weights(data)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def zoo_weights(folder: Path) -> list[Reader]:
    """The digests of the networks' files, and the parsers below them."""
    dlib, graph = dlib_file(), graph_file()
    package = folder / "hostile_weights"
    package.mkdir()
    put(package / "pnet.onnx", b"")
    put(package / "__init__.py", b"")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    from facexai.images import mtcnn

    kept = b"weights" * 20
    digest = hashlib.sha256(kept).hexdigest()

    def read_checked(data: bytes) -> None:
        put(package / "w.dat", data)
        files.package_file("hostile_weights", "w.dat", len(kept), digest, extra="zoo", purpose="a test")
        files.weights_file(package / "w.dat", "x", "x", len(kept), digest, extra="zoo", purpose="a test")
        assert data == kept

    def read_faces(data: bytes) -> None:
        put(package / "pnet.onnx", data)
        size, wanted = mtcnn._FILES["pnet"]
        files.package_file("hostile_weights", "pnet.onnx", size, wanted, extra="align", purpose="faces")
        raise AssertionError("other weights than MTCNN's were taken")

    def same_size(rng: Random) -> bytes:
        return (any_of([kept])(rng) + bytes(len(kept)))[: len(kept)]

    return [
        Reader("weights: size and digest", any_of([kept], same_size), read_checked, (kept,), ("w.dat",)),
        Reader("MTCNN's weights", any_of([kept]), read_faces, (), ("pnet.onnx",)),
        Reader("dlib's weights", any_of([dlib], dlib_file), read_dlib, (dlib,), ("dlib weights",)),
        Reader(
            "frozen graph",
            any_of([graph], graph_file),
            lambda data: _graph(read_graph(data)),
            (graph,),
            ("frozen graph",),
        ),
        Reader(
            "FaceNet's graph", any_of([graph], graph_file), read_walk, (graph,), ("frozen graph", "FaceNet's graph")
        ),
    ]


def _graph(nodes: Mapping[str, Any]) -> None:
    assert all(name and made.op for name, made in nodes.items())


# ---- checkpoints ------------------------------------------------------------------------------------------------


class Canary:
    """An object whose pickle makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def checkpoints(folder: Path) -> list[Reader]:
    """``load_weights`` of safetensors and of both formats of torch, into a network that must stay as it is."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()
    nested = {"epoch": 9, "model": {f"module.{name}": tensor for name, tensor in other.items()}, "args": [1, "a"]}

    def torch_file(content: Any, *, new: bool = True) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=new)
        return buffer.getvalue()

    evil = {"model": other, "extra": Canary(folder / "it-ran")}
    zips, old = [torch_file(dict(other)), torch_file(nested)], [torch_file(nested, new=False)]
    tensors = [safetensors({name: tensor.contiguous() for name, tensor in other.items()}, {"format": "pt"})]
    size = int.from_bytes(tensors[0][:8], "little")
    header, body = json.loads(tensors[0][8 : 8 + size]), tensors[0][8 + size :]

    def headed(rng: Random) -> bytes:
        made = json_of(header)(rng)
        return len(made).to_bytes(8, "little") + made + body

    def entries(rng: Random) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(rng.choice(zips))) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def pickled(rng: Random) -> bytes:
        held = entries(rng)
        name = next(name for name in held if name.endswith("data.pkl"))
        made = any_of([held[name]], program)(rng)
        return _zipped([*(held | {name: made}).items()], rng, packed=rng.random() < 0.2)

    def read_file(name: str) -> Read:
        path = folder / name

        def made(data: bytes) -> None:
            put(path, data)
            done = False
            try:
                load_weights(net, path)
                done = True
            finally:
                state = net.state_dict()
                ran = (folder / "it-ran").exists()
                same = done or all(torch.equal(state[n], t) for n, t in before.items())
                for key, tensor in before.items():
                    state[key].copy_(tensor)
                assert not ran, "the file ran code"
                assert same, "the network was changed"

        return made

    pt, st = read_file("weights.pt"), read_file("weights.safetensors")
    return [
        Reader("checkpoint: safetensors", any_of(tensors, headed), st, tensors, ("weights.safetensors",)),
        Reader(
            "checkpoint: torch",
            any_of(
                [*zips, torch_file(evil)],
                pickled,
                pickled,
                lambda rng: zip_of(entries(rng), rng, packed=rng.random() < 0.3),
            ),
            pt,
            zips,
            ("weights.pt",),
        ),
        Reader("checkpoint: torch, old format", any_of([*old, torch_file(evil, new=False)]), pt, old, ("weights.pt",)),
        Reader(
            "checkpoint: programs of pickle",
            any_of([pickle.dumps(evil)], program, lambda rng: program(rng, 300)),
            pt,
            (),
            ("weights.pt",),
        ),
    ]


# ---- folders of denoisers ---------------------------------------------------------------------------------------


def denoisers(folder: Path) -> list[Reader]:
    """A folder of diffusers with one of its three files malformed."""
    import diffusers

    diffusers.utils.logging.set_verbosity(50)
    torch.manual_seed(0)
    blocks = {"block_out_channels": (4,), "norm_num_groups": 2, "layers_per_block": 1, "add_attention": False}
    kinds = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    diffusers.UNet2DModel(8, **blocks, **kinds).save_pretrained(folder / "denoiser" / "unet")
    diffusers.DDPMScheduler(50).save_pretrained(folder / "denoiser" / "scheduler")
    root = folder / "denoiser"
    names = ("unet/config.json", "scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors")
    good = {name: (root / name).read_bytes() for name in names}
    size = int.from_bytes(good[names[2]][:8], "little")
    header, body = json.loads(good[names[2]][8 : 8 + size]), good[names[2]][8 + size :]

    def settings(name: str, at: int) -> Mutate:
        told = json.loads(good[name])
        odd = (
            10**5,
            10**9,
            [10**5] * 2,
            [8] * 2000,
            "learned",
            {"quant_method": "bitsandbytes"},
            ["UNetMidBlock2DCrossAttn"],
        )

        def mutate(rng: Random) -> bytes:
            if rng.random() < 0.3:
                key = rng.choice([*told, "quantization_config", "_class_name", "trained_betas", "auto_map"])
                return bytes([at]) + as_json(told | {key: rng.choice(odd)})
            return bytes([at]) + json_of(told)(rng)

        return mutate

    def headed(rng: Random) -> bytes:
        made = json_of(header)(rng)
        return b"\2" + len(made).to_bytes(8, "little") + made + body

    def simple(at: int) -> Mutate:
        mutate = any_of([good[names[at]]])
        return lambda rng: bytes([at]) + mutate(rng)

    def read_folder(data: bytes) -> None:
        at = data[0]
        put(root / names[at], data[1:])
        try:
            found = from_diffusers(root)
            assert found.alphas_cumprod.ndim == 1
            assert all(torch.isfinite(p).all() for p in found.unet.parameters()) or at == 2
        finally:
            put(root / names[at], good[names[at]])

    ways = [
        settings(names[0], 0),
        settings(names[0], 0),
        settings(names[1], 1),
        headed,
        *(simple(at) for at in range(3)),
    ]
    mutate = lambda rng: rng.choice(ways)(rng)  # noqa: E731
    starts = [bytes([at]) + good[name] for at, name in enumerate(names)]
    errors = (ValueError, FileNotFoundError)
    return [
        Reader(
            "denoiser's folder",
            mutate,
            read_folder,
            starts,
            ("denoiser", "alphas_cumprod", "prediction_type", "channels", "size", "variance", "network"),
            errors,
            few=40,
        )
    ]


FAMILIES: dict[str, Callable[[Path], list[Reader]]] = {
    "photos": photos,
    "pair files": pair_files,
    "saved answers": saved,
    "configurations": configurations,
    "galleries": galleries,
    "weights": zoo_weights,
    "checkpoints": checkpoints,
    "denoisers": denoisers,
}
"""Readers by family; each is given an empty folder of its own."""
