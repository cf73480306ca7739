"""The triton kernel: against the torch path in triton's interpreter, through its compiler, on a GPU if there is one.

Both of triton's modes are chosen when it is first imported, so each runs in a process of its own: this file.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys

import pytest
import torch

from facexai import kernels

LAST = torch.channels_last
FORMATS = [(None, None), (None, LAST), (torch.bfloat16, LAST), (torch.float16, None), (torch.float64, LAST)]
ULP = {torch.bfloat16: 2**-7, torch.float16: 2**-10}  # the interpreter cuts bfloat16 off instead of rounding it


def cases():
    """Images, activations, channels and options; blocks are 16 x 64 pixels."""
    images, activations = torch.rand(3, 3, 20, 70), torch.randn(3, 5, 7, 6)
    activations[1, 2] = 3.0
    pairs = {"channels": torch.tensor([0, 2, 4, 1]), "image_index": torch.tensor([0, 1, 2, 1])}
    for order, corners, (dtype, layout) in itertools.product(
        ["upsample-first", "minmax-first"], [False, True], FORMATS
    ):
        chosen = {"order": order, "align_corners": corners, "dtype": dtype, "memory_format": layout}
        yield {"images": images, "activations": activations, **pairs, **chosen}
    for size, cells in [
        ((16, 64), (7, 7)),
        ((33, 5), (4, 1)),
        ((3, 4), (9, 10)),
        ((1, 1), (1, 1)),
        ((112, 112), (7, 7)),
    ]:
        one = {"images": torch.rand(1, 3, *size), "channels": torch.tensor([1, 0])}
        for corners in (False, True):
            yield {**one, "activations": torch.randn(1, 2, *cells), "align_corners": corners}
    images, activations = images.to(memory_format=LAST), activations.to(memory_format=LAST)
    strided = {"images": images.half(), "activations": activations.bfloat16()}
    yield {**strided, "channels": pairs["channels"].repeat_interleave(2)[::2], "image_index": pairs["image_index"]}
    yield {"images": images[:1].expand(3, -1, -1, -1), "activations": activations.double(), **pairs}
    yield {"images": images, "activations": activations, **dict.fromkeys(pairs, torch.zeros(0, dtype=torch.long))}


def compare(device):
    for case in cases():
        case = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in case.items()}
        one, other = (kernels.masked_images(**case, backend=b) for b in ("triton", "torch"))
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())
        assert torch.isfinite(one).all()
        relative = ULP.get(one.dtype, 1e-5)
        torch.testing.assert_close(one, other, rtol=relative, atol=1e-6)
        constant = kernels.constant_channels(case["activations"], case["images"].shape[2:])
        constant = constant[case.get("image_index", 0 * case["channels"]), case["channels"]]
        assert (one[constant] == 0).all()


def compile_for_a_gpu():
    """To machine code, which needs no GPU; what the launch would derive from the tensors is written out."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from facexai.kernels import masking_triton

    kernel = masking_triton._kernel()
    fixed = {"ROWS": 16, "COLUMNS": 64, "result_x": 1, "image_x": 1}
    for numbers, result in (("fp32", "fp32"), ("fp32", "bf16"), ("fp64", "fp16")):
        types = {
            **dict.fromkeys(("cells", "lows", "spans", "row_weights", "column_weights"), f"*{numbers}"),
            **dict.fromkeys(("image_index", "tops", "bottoms", "lefts", "rights"), "*i64"),
            "images": "*fp32",
            "result": f"*{result}",
            **dict.fromkeys(fixed, "constexpr"),
        }
        source = ASTSource(kernel, {name: types.get(name, "i32") for name in kernel.arg_names}, fixed)
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


@pytest.fixture
def run(tmp_path):
    if importlib.util.find_spec("triton") is None:
        from conftest import missing

        missing("triton", "triton is not installed")

    def run(task, **environment):
        kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        environment = {**kept, "TRITON_CACHE_DIR": str(tmp_path), **environment}
        done = subprocess.run(
            [sys.executable, "-W", "error", __file__, task], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run


def test_the_kernel_equals_the_torch_path_in_the_interpreter(run):
    run("compare", TRITON_INTERPRET="1")


def test_the_kernel_compiles(run):
    run("compile")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_kernel_equals_the_torch_path_on_a_gpu(run):
    run("cuda")


def on_a_gpu():
    compare("cuda")
    case = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in next(cases()).items()}
    torch.cuda.set_sync_debug_mode("error")  # an error wherever the host would wait
    for backend in ("auto", "triton", "torch"):
        kernels.masked_images(**case, backend=backend)


if __name__ == "__main__":
    torch.manual_seed(0)
    {"compare": lambda: compare("cpu"), "compile": compile_for_a_gpu, "cuda": on_a_gpu}[sys.argv[1]]()
