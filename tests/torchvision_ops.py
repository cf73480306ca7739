"""Declares the operators of torchvision, so that PyPI's wheel imports beside the CPU build of torch.

That wheel is linked against the CUDA build; beside the CPU build its extension does not load, and torchvision, which
describes its operators to torch when it is imported, fails for want of them. What is declared here has no kernel: a
call of it still fails. Networks of timm, transformers and open_clip call none of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import torch

OPERATORS = (
    "nms",
    "qnms",
    "qroi_align",
    *(
        prefix + name + suffix
        for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
        for prefix, suffix in (("", ""), ("_", "_backward"))
    ),
)
_LIBRARY: list[torch.library.Library] = []  # an operator lives as long as the library that declared it


def declare() -> None:
    """Declare the operators, once, where torchvision is installed and its own extension does not load."""
    spec = importlib.util.find_spec("torchvision")
    if _LIBRARY or spec is None or spec.origin is None:
        return
    with contextlib.suppress(OSError):
        torch.ops.load_library(str(next(Path(spec.origin).parent.glob("_C*.so"), "no extension")))
        return
    _LIBRARY.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in OPERATORS:
        _LIBRARY[0].define(f"{name}(Tensor boxes) -> Tensor")
