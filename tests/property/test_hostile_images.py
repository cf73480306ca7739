"""Photos that are damaged, huge, of other formats or made to harm: one clear error each, or the right pixels."""

from __future__ import annotations

import struct
import time
import zlib

import numpy as np
import pytest
import torch
from hostile import count_of, tried
from hostile_readers import drawn, photos, png_of, put
from PIL import Image

from facexai import images
from facexai.images.files import _FORMATS, decode

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", range(7))
def test_malformed_photos(number, tmp_path):
    reader = photos(tmp_path)[number]
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)
    assert tally.inputs == tally.answers + sum(tally.errors.values())


def test_no_other_program_is_asked_to_draw_a_picture(tmp_path, monkeypatch):
    """Pillow would start Ghostscript, an interpreter, for what looks like PostScript, whatever the file is called."""
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *a, **_: started.append(a))
    monkeypatch.setattr("subprocess.check_call", lambda *a, **_: started.append(a))
    path = put(tmp_path / "face.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"face\.jpg is not a picture that can be read; expected one of JPEG, PNG"):
        images.load(path)
    assert started == []


@pytest.mark.parametrize("kind", _FORMATS)
def test_every_documented_format_is_read_whatever_the_ending(tmp_path, kind):
    assert images.load(put(tmp_path / "face", drawn(kind))).shape == (1, 3, 24, 24)


@pytest.mark.parametrize("mode", ["RGB", "1", "L"])
@pytest.mark.parametrize("side", [7_200, 30_000, 2**31 - 1])
def test_a_few_bytes_of_png_never_become_more_than_the_allowed_pixels(tmp_path, mode, side):
    kinds = {"RGB": (8, 2, 3 * side), "1": (1, 0, side // 8), "L": (8, 0, side)}
    bits, colour, row = kinds[mode]
    pixels = zlib.compress(bytes(min(row * 50, 10**7)))
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    path = put(tmp_path / "bomb.png", png_of([(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]))
    start = time.process_time()
    with pytest.raises(ValueError, match=r"bomb\.png"):
        images.load(path)
    assert time.process_time() - start < 5  # seconds of the processor; a reader that is caught never ends


def test_a_bomb_of_text_is_refused(tmp_path):
    bomb = (b"zTXt", b"k\0\0" + zlib.compress(bytes(10**8)))
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), bomb, (b"IDAT", zlib.compress(b"\0\0"))]
    with pytest.raises(ValueError, match=r"bomb\.png is damaged or truncated"):
        images.load(put(tmp_path / "bomb.png", png_of([*parts, (b"IEND", b"")])))


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    still, moving = (put(tmp_path / name, drawn("GIF", "P", animated=name == "b")) for name in "ab")
    assert torch.equal(images.load(still), images.load(moving))


def test_bytes_and_values_are_those_that_were_written(tmp_path):
    """All 256 values in every channel: the conversion is exact."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 255
    assert torch.equal(images.load(tmp_path / "a.png")[0], expected)


def test_names_that_are_no_files(tmp_path):
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("loop.png", "gone.png", "zero.png", "a\0b.png", "\ud800.png"):
        with pytest.raises(FileNotFoundError, match="no file"):
            images.load(tmp_path / name)
    with pytest.raises(OSError, match="name too long"):
        images.load(tmp_path / ("x" * 300))
    assert images.photo_files(tmp_path) == []


def test_a_place_before_the_start_is_damage_and_no_fault_of_the_disk(tmp_path):
    data = bytearray(drawn("TIFF"))
    data[4:8] = struct.pack("<I", 2**32 - 1)
    for source in (put(tmp_path / "a.tif", bytes(data)), put(tmp_path / "b.tif", b"II+\0\x08\0\0\0" + b"\xff" * 40)):
        with pytest.raises(ValueError, match=r"\.tif"):
            decode(source, source.name)
