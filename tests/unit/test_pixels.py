"""What files hold and what is read of them: a literal value for every mode, depth and marker, or a refusal."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL
import pytest
import torch
from hostile_readers import png_of
from PIL import Image

from facexai import images
from facexai.images.files import decode

RGBA, CMYK, LAB, YCC = (10, 100, 200, 128), (10, 100, 200, 50), (128, 20, 236), (100, 90, 200)
OVER_BLACK = (5, 50, 100)  # of RGBA
PALETTE = [*(0, 0, 0) * 7, 10, 100, 200, *(0, 0, 0) * 248]  # the eighth of 256 colours
BY_COLOUR = [value for channel in range(3) for value in PALETTE[channel::3]]


def tiff(planes, bits, photo=1, *, order="<", sign=None, extra=None, planar=None, zipped=False, **more):
    """A TIFF of one row: planes of numbers, or of bytes for numbers that are no whole bytes."""
    width = more.pop("width", 1)
    strips = [p if isinstance(p, bytes) else np.array(p).astype(p.dtype.newbyteorder(order)).tobytes() for p in planes]
    strips = [zlib.compress(strip) if zipped else strip for strip in strips]
    tags = {256: ("H", [width]), 257: ("H", [1]), 258: ("H", bits), 259: ("H", [8 if zipped else 1])}
    tags |= {262: ("H", [photo]), 277: ("H", [len(bits)]), 278: ("H", [1]), 279: ("I", [len(s) for s in strips])}
    starts = [8 + sum(len(s) for s in strips[:i]) for i in range(len(strips))]
    tags |= {273: ("I", starts)} | ({} if sign is None else {339: ("H", [sign] * len(bits))})
    tags |= ({} if extra is None else {338: ("H", extra)}) | ({} if planar is None else {284: ("H", [planar])})
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags = {tag: value for tag, value in tags.items() if value is not None}
    start = 8 + sum(len(s) for s in strips)
    entries, beyond, free = b"", b"", start + 6 + 12 * len(tags)
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{kind}", *values)
        where = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", free + len(beyond))
        beyond += data if len(data) > 4 else b""
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4, "f": 11}[kind], len(values)) + where
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + b"".join(strips) + struct.pack(order + "H", len(tags)) + entries + bytes(4) + beyond


def png(depth, colour, row, width=1, **chunks):
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    extra = [(name.encode(), data) for name, data in chunks.items()]
    return png_of([(b"IHDR", head), *extra, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")])


def saved(kind, mode, colour, **options):
    file = io.BytesIO()
    picture = Image.new(mode, (1, 1), colour)
    if mode in ("P", "PA"):
        picture.putpalette(PALETTE)
    picture.save(file, kind, **options)
    return file.getvalue()


def bmp(bits, pixel, masks=None):
    """A BMP of one pixel; masks of red, green and blue for 16 and 32 bits."""
    more = b"" if masks is None else struct.pack("<3I", *masks)
    info = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, bits, 3 if masks else 0, 4, 0, 0, 0, 0)
    start = 14 + len(info) + len(more)
    return b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start) + info + more + pixel.ljust(4, b"\0")


def u8(*values):
    return np.array(values, np.uint8)


def u16(*values):
    return np.array(values, np.uint16)


def f32(*values):
    return np.array(values, np.float32)


def apart(values):
    """As separate planes."""
    return [values[i : i + 1] for i in range(len(values))]


def keyed(*values):
    return struct.pack(f">{len(values)}H", *values)


RIGHT = {
    # grey, in every depth, with and without 0 as white
    "png 1": (png(1, 0, b"\x80"), 255),
    "png 2": (png(2, 0, b"\x40"), 85),
    "png 4": (png(4, 0, b"\x50"), 85),
    "png 8": (png(8, 0, b"\x64"), 100),
    "png 16": (png(16, 0, keyed(1000)), 255 * 1000 / 65535),
    "tiff 1": (tiff([b"\x80"], [1]), 255),
    "tiff 1, 0 is white": (tiff([b"\x80"], [1], 0), 0),
    "tiff 2, 0 is white": (tiff([b"\x40"], [2], 0), 170),
    "tiff 4, 0 is white": (tiff([b"\x50"], [4], 0), 170),
    "tiff 8": (tiff([u8(100)], [8]), 100),
    "tiff 8, 0 is white": (tiff([u8(100)], [8], 0), 155),
    "tiff 8, 0 is white, zipped": (tiff([u8(100)], [8], 0, zipped=True), 155),
    "tiff 12": (tiff([b"\x40\x00"], [12]), 255 * 1024 / 4095),
    "tiff 16": (tiff([u16(1000)], [16]), 255 * 1000 / 65535),
    "tiff 16, zipped": (tiff([u16(1000)], [16], zipped=True), 255 * 1000 / 65535),
    "tiff 16 big-endian": (tiff([u16(1000)], [16], order=">"), 255 * 1000 / 65535),
    "tiff 16 big-endian, zipped": (tiff([u16(1000)], [16], order=">", zipped=True), 255 * 1000 / 65535),
    "tiff 16 reversed bits": (tiff([b"\x00\x80"], [16], t266=("H", [2])), 255 * 256 / 65535),
    "tiff 16, 0 is white": (tiff([u16(1000)], [16], 0), 255 * 64535 / 65535),
    "tiff 16, 0 is white, zipped": (tiff([u16(1000)], [16], 0, zipped=True), 255 * 64535 / 65535),
    "tiff float": (tiff([f32(0.25)], [32], sign=3), 63.75),
    "tiff float big-endian": (tiff([f32(0.25)], [32], sign=3, order=">"), 63.75),
    "tiff float, zipped": (tiff([f32(0.25)], [32], sign=3, zipped=True), 63.75),
    "tiff float, 0 is white": (tiff([f32(0.25)], [32], 0, sign=3), 191.25),
    "pillow I;16": (saved("TIFF", "I;16", 1000), 255 * 1000 / 65535),
    "pillow I;16B": (saved("TIFF", "I;16B", 1000), 255 * 1000 / 65535),
    "pillow I;16 png": (saved("PNG", "I;16", 1000), 255 * 1000 / 65535),
    "pillow F": (saved("TIFF", "F", 0.25), 63.75),
    "pfm": (b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.25), 63.75),
    "pfm big-endian": (b"Pf\n1 1\n1.0\n" + struct.pack(">f", 0.25), 63.75),
    "pfm of Pillow": (saved("PPM", "F", 0.25), 63.75),
    "pbm": (b"P4\n1 1\n\x80", 0),
    "pgm": (b"P5\n1 1\n255\n\x64", 100),
    "pgm to 15": (b"P5\n1 1\n15\n\x05", 85),
    "pgm to 1000": (b"P5\n1 1\n1000\n" + keyed(400), 102),
    "pgm to 1000 in words": (b"P2\n1 1\n1000\n400\n", 102),
    "pgm to 65535": (b"P5\n1 1\n65535\n" + keyed(1000), 255 * 1000 / 65535),
    "jpeg grey": (saved("JPEG", "L", 100, quality=100), 100),
    "bmp grey": (saved("BMP", "L", 100), 100),
    "gif": (saved("GIF", "L", 100), 100),
    # colours
    "png": (png(8, 2, bytes(RGBA[:3])), RGBA[:3]),
    "png 16 rgb": (png(16, 2, keyed(255, 25600, 65535)), (0, 100, 255)),
    "tiff": (tiff([u8(*RGBA[:3])], [8] * 3, 2), RGBA[:3]),
    "tiff rgb 16": (tiff([u16(255, 25600, 65535)], [16] * 3, 2), (0, 100, 255)),
    "tiff rgb 16 big-endian": (tiff([u16(255, 25600, 65535)], [16] * 3, 2, order=">"), (0, 100, 255)),
    "tiff rgb 16 zipped": (tiff([u16(255, 25600, 65535)], [16] * 3, 2, zipped=True), (0, 100, 255)),
    "tiff rgb planes": (tiff(apart(u8(*RGBA[:3])), [8] * 3, 2, planar=2), RGBA[:3]),
    "tiff rgb planes zipped": (tiff(apart(u8(*RGBA[:3])), [8] * 3, 2, planar=2, zipped=True), RGBA[:3]),
    "tiff rgb planes 16 zipped": (
        tiff(apart(u16(255, 25600, 65535)), [16] * 3, 2, planar=2, zipped=True), (0, 100, 255)),
    "tiff rgbx": (tiff([u8(*RGBA)], [8] * 4, 2, extra=[0]), RGBA[:3]),
    "tiff cmyk": (tiff([u8(*CMYK)], [8] * 4, 5), (197, 125, 44)),
    "tiff cmyk planes": (tiff(apart(u8(*CMYK)), [8] * 4, 5, planar=2), (197, 125, 44)),
    "tiff cmyk 16": (tiff([u16(*(257 * v for v in CMYK))], [16] * 4, 5), (197, 125, 44)),
    "tiff palette": (saved("TIFF", "P", 7), RGBA[:3]),
    "tiff lab": (tiff([u8(*LAB)], [8] * 3, 8), (140.8, 107.8, 154.0)),  # by CIE's equations, D50, into sRGB
    "tiff ycbcr": (tiff([u8(*YCC)], [8] * 3, 6, t530=("H", [1, 1])), (200.9, 61.7, 32.7)),
    "tiff ycbcr zipped": (tiff([u8(*YCC)], [8] * 3, 6, t530=("H", [1, 1]), zipped=True), (200.9, 61.7, 32.7)),
    "tiff ycbcr of Pillow": (saved("TIFF", "YCbCr", YCC), (200.9, 61.7, 32.7)),
    "tiff ycbcr jpeg": (saved("TIFF", "YCbCr", YCC, compression="jpeg", quality=100), (200.9, 61.7, 32.7)),
    "jpeg": (saved("JPEG", "RGB", RGBA[:3], quality=100, subsampling=0), RGBA[:3]),
    "jpeg cmyk of Adobe": (saved("JPEG", "CMYK", CMYK, quality=100), (197, 125, 44)),
    "webp": (saved("WEBP", "RGB", RGBA[:3], lossless=True), RGBA[:3]),
    "gif palette": (saved("GIF", "P", 7), RGBA[:3]),
    "bmp palette": (saved("BMP", "P", 7), RGBA[:3]),
    "bmp": (saved("BMP", "RGB", RGBA[:3]), RGBA[:3]),
    "bmp 15": (bmp(16, struct.pack("<H", (1 << 10) + (12 << 5) + 24)), (8, 98, 197)),
    "bmp 16": (bmp(16, struct.pack("<H", (1 << 11) + (25 << 5) + 24), (0xF800, 0x7E0, 0x1F)), (8, 101, 197)),
    "bmp 32": (bmp(32, bytes([200, 100, 10, 0])), RGBA[:3]),
    "ppm": (b"P6\n1 1\n255\n" + bytes(RGBA[:3]), RGBA[:3]),
    "ppm to 15": (b"P6\n1 1\n15\n\x01\x05\x0f", (17, 85, 255)),
    "ppm to 65535": (b"P6\n1 1\n65535\n" + keyed(255, 25700, 65535), (1, 100, 255)),
    "ppm cmyk": (b"P0CMYK\n1 1\n255\n" + bytes(CMYK), (197, 125, 44)),
    # transparency, over black
    "png la": (png(8, 4, b"\xc8\x80"), 100),
    "png la 16": (png(16, 4, keyed(51200, 32896)), 100),
    "png rgba": (png(8, 6, bytes(RGBA)), OVER_BLACK),
    "png rgba 16": (png(16, 6, keyed(*(257 * v for v in RGBA))), OVER_BLACK),
    "png 1 key": (png(1, 0, b"\x80", tRNS=keyed(1)), 0),
    "png 1 other key": (png(1, 0, b"\x80", tRNS=keyed(0)), 255),
    "png 2 key": (png(2, 0, b"\x40", tRNS=keyed(1)), 0),
    "png 2 other key": (png(2, 0, b"\x40", tRNS=keyed(2)), 85),
    "png 4 key": (png(4, 0, b"\x50", tRNS=keyed(5)), 0),
    "png 4 other key": (png(4, 0, b"\x50", tRNS=keyed(15)), 85),
    "png 8 key": (png(8, 0, b"\x64", tRNS=keyed(100)), 0),
    "png 8 other key": (png(8, 0, b"\x64", tRNS=keyed(101)), 100),
    "png 16 key": (png(16, 0, keyed(51200), tRNS=keyed(51200)), 0),
    "png 16 other key": (png(16, 0, keyed(51200), tRNS=keyed(51201)), 255 * 51200 / 65535),
    "png rgb key": (png(8, 2, bytes(RGBA[:3]), tRNS=keyed(*RGBA[:3])), 0),
    "png rgb other key": (png(8, 2, bytes(RGBA[:3]), tRNS=keyed(10, 100, 201)), RGBA[:3]),
    "png palette key": (png(8, 3, b"\0", PLTE=bytes(RGBA[:3]), tRNS=b"\x80"), OVER_BLACK),
    "png palette of 1 bit, key": (png(1, 3, b"\0", PLTE=bytes(RGBA[:3]), tRNS=b"\x80"), OVER_BLACK),
    "tiff la": (tiff([u8(200, 128)], [8] * 2, extra=[2]), 100),
    "tiff la multiplied": (tiff([u8(100, 128)], [8] * 2, extra=[1]), 100),
    "tiff lx": (tiff([u8(100, 128)], [8] * 2, extra=[0]), 100),
    "tiff pa": (tiff([u8(7, 128)], [8] * 2, 3, extra=[2], t320=("H", [257 * v for v in BY_COLOUR])), OVER_BLACK),
    "tiff rgba": (tiff([u8(*RGBA)], [8] * 4, 2, extra=[2]), OVER_BLACK),
    "tiff rgba multiplied": (tiff([u8(*OVER_BLACK, 128)], [8] * 4, 2, extra=[1]), OVER_BLACK),
    "tiff rgba 16": (tiff([u16(*(257 * v for v in RGBA))], [16] * 4, 2, extra=[2]), OVER_BLACK),
    "gif key": (saved("GIF", "P", 7, transparency=7), 0),
    "webp rgba": (saved("WEBP", "RGBA", RGBA, lossless=True), OVER_BLACK),
}  # fmt: skip
ROUNDED = {name: 1 for name in RIGHT if "lab" in name or "ycbcr" in name or "multiplied" in name}
ROUNDED |= {"jpeg": 2, "tiff ycbcr jpeg": 2}
"""Values that others round, in levels of 255; all the rest are exact."""

NO_MARKER = bytearray(saved("JPEG", "CMYK", CMYK))
NO_MARKER[(at := NO_MARKER.index(b"\xff\xee")) : at + 16] = b""
REFUSED = {
    "tiff float to 255": (tiff([f32(0, 255)], [32], sign=3, width=2), "floats from 0 to 255, expected 0"),
    "tiff float below 0": (tiff([f32(-0.5)], [32], sign=3), "floats from -0.5 to -0.5"),
    "tiff float nan": (tiff([f32(np.nan)], [32], sign=3), "floats from nan to nan"),
    "tiff float big-endian zipped": (tiff([f32(0.25)], [32], sign=3, order=">", zipped=True), "big-endian floats"),
    "pfm to 255": (b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 255), "floats from 255 to 255.*divide them"),
    "pfm of a unit": (b"Pf\n1 1\n-2.0\n" + struct.pack("<f", 0.25), "floats in units of 2"),
    "tiff i32": (saved("TIFF", "I", 1000), "signed integers of 32 bits"),
    "tiff u32": (tiff([np.array([1000], np.uint32)], [32]), "integers of 32 bits"),
    "tiff i16": (tiff([np.array([1000], np.int16)], [16], sign=2), "signed integers of 16 bits"),
    "tiff i8": (tiff([u8(100)], [8], sign=2), "signed integers of 8 bits"),
    "tiff of no black": (tiff([u16(1000)], [16], t262=None), "whether 0 is black or white"),
    "png 16 rgb key": (png(16, 2, keyed(1, 2, 3), tRNS=keyed(1, 2, 3)), "16 bits with a transparent colour"),
    "jpeg cmyk": (bytes(NO_MARKER), "CMYK without Adobe's marker"),
    "tiff grey plane, 0 is white": (tiff([u8(100)], [8], 0, planar=2), "separate planes"),
    "tiff 4-bit plane": (tiff([b"\x50"], [4], planar=2), "separate planes of 4 bits"),
    "tiff rgb planes 16": (tiff(apart(u16(1, 2, 3)), [16] * 3, 2, planar=2), "3 separate planes of 16 bits"),
    "tiff rgba planes zipped": (tiff(apart(u8(*RGBA)), [8] * 4, 2, planar=2, zipped=True), "4 separate planes of 8"),
    "tiff la planes zipped": (
        tiff(apart(u8(200, 128)), [8] * 2, extra=[2], planar=2, zipped=True), "2 separate planes"),
    "tiff lab planes": (tiff(apart(u8(*LAB)), [8] * 3, 8, planar=2), "3 separate planes"),
    "tiff ycbcr subsampled": (tiff([u8(*YCC)], [8] * 3, 6), "subsampling or another range"),
    "tiff ycbcr of another matrix": (
        tiff([u8(*YCC)], [8] * 3, 6, t530=("H", [1, 1]), t529=("f", [0.2126, 0.7152, 0.0722])), "matrix than JPEG's"),
    "tiff palette of bytes": (
        tiff([u8(7)], [8], 3, t320=("H", BY_COLOUR)), "a palette of 8 bits"),
    "tiff u64": (tiff([np.array([1000], np.uint64)], [64]), "not a picture that can be read.*of 8 or 16 bits"),
    "tiff rgb float": (tiff([f32(0, 0.5, 1)], [32] * 3, 2, sign=3), "of 8 or 16 bits a channel"),
    "pfm colour": (b"PF\n1 1\n-1.0\n" + struct.pack("<3f", 0, 0.5, 1), "of 8 or 16 bits a channel"),
}  # fmt: skip


OLD = dict.fromkeys(("tiff ycbcr", "tiff ycbcr of Pillow"), "which Pillow takes for RGB before its version 13")
OLD |= dict.fromkeys(("tiff la multiplied", "tiff lx"), "is not a picture that can be read")
"""What Pillow refuses before its version 13, or would misread."""
if int(PIL.__version__.partition(".")[0]) >= 13:
    OLD = {}
else:
    REFUSED |= {name: (data, "takes for RGB") for name, (data, _) in REFUSED.items() if name.startswith("tiff ycbcr")}


@pytest.mark.parametrize("name", RIGHT)
def test_the_value_of_a_pixel(name):
    data, expected = RIGHT[name]
    if name in OLD:
        with pytest.raises(ValueError, match=OLD[name]):
            decode(io.BytesIO(data), name)
        return
    pixels = decode(io.BytesIO(data), name)
    assert (pixels.dtype, pixels.shape) == (torch.float32, (3, 1, 1))
    wanted = np.broadcast_to(np.array(expected, np.float64), 3) / 255
    np.testing.assert_allclose(pixels.flatten().numpy(), wanted, rtol=0, atol=ROUNDED.get(name, 1e-4) / 255)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_the_file_holds(name):
    data, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refusal:
        decode(io.BytesIO(data), name)
    assert str(refusal.value).startswith(f"{name} ")
    assert "damaged" not in str(refusal.value)


def test_sixteen_bits_and_floats_are_exact(tmp_path):
    """Every one of 65536 values, as 16 bits and as floats; upright, in an image of several rows."""
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = torch.from_numpy(levels.astype(np.float32) / np.float32(65535)).expand(1, 3, -1, -1)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(expected[0, 0].numpy()).save(tmp_path / "a.tif")
    Image.fromarray(expected[0, 0].numpy()).save(tmp_path / "a.pfm")
    for name in ("a.png", "a.tif", "a.pfm"):
        assert torch.equal(images.load(tmp_path / name), expected), name


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "F"])
def test_an_orientation_turns_a_tiff_and_keeps_its_values(tmp_path, mode, compression):
    """Six pixels in two rows that the camera turned come out in three; from a path as from bytes."""
    lit = {"RGB": (255,) * 3, "RGBA": (255,) * 4, "LA": (255, 255), "CMYK": (0,) * 4, "F": 1.0, "1": 1}
    dark = {"RGB": (0,) * 3, "RGBA": (0, 0, 0, 255), "LA": (0, 255), "CMYK": (255,) * 4, "F": 0.0}
    picture = Image.new(mode, (3, 2), dark.get(mode, 0))
    if mode == "P":
        picture.putpalette([v for v in range(256) for _ in range(3)])
    for place in ((0, 0), (2, 1)):
        picture.putpixel(place, lit.get(mode, 65535 if mode.startswith("I") else 255))
    picture.save(tmp_path / "a.tif", tiffinfo={0x0112: 6}, compression=compression)
    expected = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])  # the first row becomes the last column
    for loaded in (images.load(tmp_path / "a.tif")[0], decode(io.BytesIO((tmp_path / "a.tif").read_bytes()), "a")):
        assert torch.equal(loaded, expected.expand(3, -1, -1))
