"""Masking: a literal reference, the lattice's promise, what it keeps in memory, and errors."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F
from allpairspy import AllPairs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from facexai import kernels
from facexai.functional import minmax
from facexai.kernels import masking_triton

ORDERS = ("upsample-first", "minmax-first")


def literal(images, activations, pairs, order, align_corners):
    """One mask after the other, as the words say."""
    result = []
    for n, k in pairs:
        cells = activations[n, k][None, None].to(torch.promote_types(activations.dtype, torch.float32))
        steps = [minmax, lambda m: F.interpolate(m, images.shape[2:], mode="bilinear", align_corners=align_corners)]
        for step in steps if order == "minmax-first" else reversed(steps):
            cells = step(cells)
        result.append(cells[0] * images[n])
    return torch.stack(result)


DTYPES = [None, torch.float32, torch.bfloat16, torch.float16, torch.float64]
FORMATS = [None, torch.contiguous_format, torch.channels_last]
CELLS = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize(
    ("order", "align_corners", "dtype", "memory_format", "cells"),
    [tuple(row) for row in AllPairs([ORDERS, [False, True], DTYPES, FORMATS, CELLS])],
)
def test_it_equals_the_literal_loop(order, align_corners, dtype, memory_format, cells):
    images, activations = torch.rand(3, 3, 21, 34), torch.randn(3, 6, 5, 7).to(cells)
    activations[1, 2] = 4.0
    pairs = [(0, 0), (1, 2), (2, 5), (1, 1), (0, 0)]
    options = {"order": order, "align_corners": align_corners, "dtype": dtype, "memory_format": memory_format}
    index, channels = torch.tensor(pairs).unbind(1)
    masked = kernels.masked_images(images, activations, channels, image_index=index, **options)
    expected = literal(images, activations, pairs, order, align_corners)
    assert masked.dtype == (dtype or torch.float32)
    assert masked.is_contiguous(memory_format=memory_format or torch.contiguous_format)
    half = {torch.bfloat16: 4e-3, torch.float16: 5e-4}.get(dtype, 1e-6)
    torch.testing.assert_close(masked.double(), expected.double(), rtol=half, atol=1e-6)
    assert (masked[1] == 0).all()
    # One image needs no index, and takes another path.
    alone = kernels.masked_images(images[1:2], activations[1:2], channels, **options)
    expected = literal(images[1:2], activations[1:2], [(0, k) for _, k in pairs], order, align_corners)
    torch.testing.assert_close(alone.double(), expected.double(), rtol=half, atol=1e-6)


def test_the_orders_and_the_corners_are_four_different_things():
    images, activations = torch.ones(1, 3, 112, 112), torch.rand(1, 1, 7, 7)
    four = [
        kernels.masked_images(images, activations, torch.zeros(1, dtype=torch.long), order=o, align_corners=c)
        for o in ORDERS
        for c in (False, True)
    ]
    assert min(float((a - b).abs().max()) for i, a in enumerate(four) for b in four[:i]) > 1e-3
    for masks in four[:2]:  # upsample-first
        assert masks.min() == 0
        assert masks.max() == 1


def test_an_empty_chunk():
    nothing = torch.zeros(0, dtype=torch.long)
    masked = kernels.masked_images(torch.rand(2, 3, 8, 9), torch.rand(2, 4, 3, 3), nothing, image_index=nothing)
    assert masked.shape == (0, 3, 8, 9)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_constant_channels_give_zeros(order, align_corners):
    activations = torch.randn(2, 5, 4, 6)
    activations[0, 0], activations[0, 1], activations[1, 2] = 0.0, -7.3, 1e30
    activations[1, 4] = 1e4 + torch.rand(4, 6) * 4e-3  # a few roundings of 1e4
    constant = kernels.constant_channels(activations, (19, 16), order=order, align_corners=align_corners)
    assert constant.nonzero().tolist() == [[0, 0], [0, 1], [1, 2], [1, 4]]
    index, channels = torch.cartesian_prod(torch.arange(2), torch.arange(5)).unbind(1)
    options = {"order": order, "align_corners": align_corners, "image_index": index}
    masked = kernels.masked_images(torch.rand(2, 3, 19, 16), activations, channels, **options)
    assert torch.isfinite(masked).all()
    assert torch.equal((masked == 0).flatten(1).all(1), constant.flatten())


def test_a_map_whose_variation_no_pixel_sees():
    cells = torch.tensor([2.0, 1e30, 2.0, -1e30, 2.0]).expand(1, 1, 5, 5)  # pixels fall on columns 0, 2 and 4
    assert kernels.constant_channels(cells, (5, 3), align_corners=True).all()
    assert not kernels.constant_channels(cells, (5, 3), align_corners=True, order="minmax-first").any()
    first = torch.zeros(1, dtype=torch.long)
    masked = kernels.masked_images(torch.ones(1, 3, 5, 3), cells, first, align_corners=True)
    assert (masked == 0).all()


sizes = st.tuples(st.integers(1, 17), st.integers(1, 17), st.integers(1, 60), st.integers(1, 60))


@given(sizes, st.booleans(), st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=300, deadline=None)
def test_the_lattice_holds_the_extremes(size, align_corners, seed, dtype):
    h, w, height, width = size
    activations = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if seed % 2:
        activations = activations.relu()  # ties, as after most layers
    full = F.interpolate(activations, (height, width), mode="bilinear", align_corners=align_corners)
    low, high = kernels.extrema(activations, (height, width), align_corners)
    rounding = {"rtol": 0, "atol": 32 * torch.finfo(dtype).eps * float(activations.abs().max())}
    torch.testing.assert_close(low, full.amin((2, 3)), **rounding)
    torch.testing.assert_close(high, full.amax((2, 3)), **rounding)


@given(st.integers(1, 40), st.integers(1, 200), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_lattice_is_small_and_in_order(size_in, size_out, align_corners):
    points = kernels.lattice(size_in, size_out, align_corners).tolist()
    assert points == sorted(set(points))
    assert len(points) <= min(2 * size_in, size_out)
    assert 0 <= points[0] <= points[-1] < size_out
    if size_out <= size_in:
        assert points == list(range(size_out))


def test_the_extremes_of_the_cells_are_others():
    activations = torch.randn(1, 64, 7, 7)
    low, high = kernels.extrema(activations, (112, 112))
    reach = (high - low) / (activations.amax((2, 3)) - activations.amin((2, 3)))
    assert reach.max() <= 1
    assert reach.min() < 0.97


def test_extremes_in_low_precision_are_those_of_the_widened_map():
    activations = torch.randn(2, 4, 7, 7).bfloat16()
    for one, other in zip(
        kernels.extrema(activations, (112, 96)), kernels.extrema(activations.float(), (112, 96)), strict=True
    ):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("n", [1, 3])
def test_nothing_waits_for_the_device(order, dtype, n):
    """Fake tensors have no values: whatever had to look at one would raise."""
    with FakeTensorMode():
        images, activations = torch.rand(n, 3, 24, 20), torch.rand(n, 6, 7, 7)
        index = torch.zeros(5, dtype=torch.long)
        masked = kernels.masked_images(images, activations, index, order=order, image_index=index, dtype=dtype)
        assert masked.shape == (5, 3, 24, 20)
        assert kernels.constant_channels(activations, (24, 20), order=order).shape == (n, 6)


class Blocks(TorchDispatchMode):
    """Which memories of at least one number per pixel and mask are made."""

    def __init__(self, least):
        super().__init__()
        self.least, self.seen = least, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.untyped_storage().nbytes() >= self.least * out.element_size():
            self.seen[out.untyped_storage().data_ptr()] = out  # kept, so that no address comes twice
        return out


@pytest.mark.parametrize(("n", "dtype", "blocks"), [(1, None, 1), (4, None, 1), (4, torch.bfloat16, 4)])
@pytest.mark.parametrize("memory_format", [None, torch.channels_last])
def test_no_more_memory_than_promised(n, dtype, blocks, memory_format):
    index = torch.arange(16) % n
    with Blocks(least=16 * 32 * 40) as made:
        images, activations = torch.rand(n, 3, 32, 40), torch.rand(n, 16, 4, 4)
        options = {"image_index": index, "dtype": dtype, "memory_format": memory_format}
        kernels.masked_images(images, activations, torch.arange(16), **options)
    large = [t.untyped_storage().nbytes() // t.element_size() for t in made.seen.values()]
    # The masks; to change the number format one more block for each colour, one after the other; and the result.
    assert sorted(large) == [16 * 32 * 40] * blocks + [16 * 3 * 32 * 40]


def test_no_gradient_and_no_change_of_the_arguments():
    images, activations = torch.rand(1, 3, 9, 9), torch.rand(1, 2, 3, 3, requires_grad=True)
    before = images.clone(), activations.detach().clone()
    masked = kernels.masked_images(images, activations, torch.arange(2))
    assert not masked.requires_grad
    assert torch.equal(images, before[0])
    assert torch.equal(activations, before[1])


def arguments():
    return {
        "images": torch.rand(2, 3, 8, 8),
        "activations": torch.rand(2, 4, 3, 3),
        "channels": torch.tensor([0, 3, 1]),
        "image_index": torch.tensor([0, 1, 1]),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(2, 1, 8, 8)}, "expected images"),
        ({"images": torch.rand(3, 8, 8)}, "expected images"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "floating point, got torch.uint8"),
        ({"images": torch.rand(2, 3, 0, 8)}, "at least one pixel"),
        ({"images": torch.rand(3, 3, 8, 8)}, "activations of the same 3 images, got them of 2"),
        ({"activations": torch.rand(2, 4, 9)}, "expected activations"),
        ({"activations": torch.rand(2, 4, 0, 3)}, "none of the sizes 0"),
        ({"activations": torch.zeros(2, 4, 3, 3, dtype=torch.long)}, "expected activations"),
        ({"activations": torch.zeros(2, 4, 3, 3, device="meta")}, "expected activations on the images' device cpu"),
        ({"channels": torch.tensor([0, 1, 1], dtype=torch.int32)}, r"expected channels \(M,\), long"),
        ({"channels": torch.tensor([[0, 1, 1]])}, r"expected channels \(M,\), long"),
        ({"channels": torch.zeros(3, dtype=torch.long, device="meta")}, "expected channels on"),
        ({"image_index": None}, "which image each mask is for"),
        ({"image_index": torch.tensor([0, 1])}, "image_index for each of the 3 channels, got 2"),
        ({"image_index": torch.tensor([True, False, True])}, r"expected image_index \(M,\), long"),
        ({"order": "minmax"}, "order one of"),
        ({"dtype": torch.int32}, "dtype one of"),
        ({"memory_format": torch.preserve_format}, "memory_format one of"),
        ({"backend": "cuda"}, "backend one of"),
        ({"backend": "triton"}, "tensors on a GPU, got them on cpu: move them"),
    ],
)
def test_bad_input(monkeypatch, change, message):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=message):
        kernels.masked_images(**{**arguments(), **change})


def test_bad_input_to_the_others():
    with pytest.raises(ValueError, match="at least one pixel"):
        kernels.extrema(torch.rand(1, 1, 3, 3), (0, 5))
    with pytest.raises(ValueError, match="expected activations"):
        kernels.constant_channels(torch.rand(1, 3, 3), (5, 5))
    with pytest.raises(ValueError, match="order one of"):
        kernels.constant_channels(torch.rand(1, 1, 3, 3), (5, 5), order="first")
    with pytest.raises(ValueError, match="at least 1"):
        kernels.lattice(0, 5)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    masking_triton._kernel.cache_clear()
    with pytest.raises(ImportError, match=r"pip install \"facexai\[triton\]\""):
        kernels.masked_images(**arguments(), backend="triton")
