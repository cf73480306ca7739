"""Checks that all denoisers share: noise levels, images, and the output of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from facexai._errors import short_repr
from facexai.functional import at_least_float32
from facexai.hooks import eval_scope, no_graph
from facexai.models.outputs import describe

Size = tuple[int, int] | None


def levels(alphas_cumprod: Any) -> Tensor:
    """Returns noise levels as (T,) float64 on the CPU, a copy.

    Raises:
        ValueError: not one row that falls and stays between 0 and 1.

    >>> levels([0.9, 0.5])
    tensor([0.9000, 0.5000], dtype=torch.float64)
    """
    left = torch.as_tensor(alphas_cumprod).detach().to("cpu", torch.float64, copy=True)
    if left.ndim != 1 or len(left) < 2:
        raise ValueError(f"expected alphas_cumprod (T,), at least 2 steps, got shape {tuple(left.shape)}")
    if not ((left > 0) & (left < 1)).all() or not (left.diff() < 0).all():
        hint = "; these look like betas: (1 - betas).cumprod(0)" if (left.diff() >= 0).all() and left[-1] < 1 else ""
        raise ValueError(
            f"expected alphas_cumprod to fall and to stay between 0 and 1, got {float(left[0]):g} to "
            f"{float(left[-1]):g}, lowest {float(left.min()):g}{hint}"
        )
    return left


def sides(size: int | Sequence[int] | None) -> Size:
    """Returns a size as (H, W).

    >>> sides(64), sides([64, 48]), sides(None)
    ((64, 64), (64, 48), None)
    """
    if size is None:
        return None
    both = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(both) != 2 or not all(isinstance(side, int) and side > 0 for side in both):
        raise ValueError(f"expected size as pixels, one number, (height, width) or None, got {short_repr(size)}")
    return both


def check_images(x: Tensor, size: Size) -> None:
    """Refuses what is no batch of images of that size."""
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        raise ValueError(f"expected noisy images (N, 3, H, W), floating point, got {describe(x)}")
    if size is not None and tuple(x.shape[2:]) != size:
        height, width = x.shape[2:]
        raise ValueError(
            f"the denoiser takes images of {size[0]}x{size[1]}, got {height}x{width}; resize them, or load a denoiser "
            f"of {height}x{width}"
        )


@contextmanager
def calm(function: object) -> Iterator[None]:
    """Disables graphs inside and puts a module into eval mode; its mode is restored afterwards."""
    with no_graph(), eval_scope(function) if isinstance(function, nn.Module) else nullcontext():
        yield


def parts(output: Any, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Splits the output of a network into its estimate and its variance values, or None, in float32 or better.

    Args:
        output: (N, 3, H, W); (N, 6, H, W), the variance last; or a pair of (N, 3, H, W), of which the second may be
            None.
        x: the images (N, 3, H, W) it was given.

    Raises:
        ValueError: anything else.

    >>> [part.shape[1] for part in parts(torch.zeros(1, 6, 2, 2), torch.zeros(1, 3, 2, 2))]
    [3, 3]
    """
    both = tuple(output.chunk(2, 1)) if isinstance(output, Tensor) and output.shape[1:2] == (6,) else output
    noise, values = both if isinstance(both, tuple | list) and len(both) == 2 else (both, None)
    for name, part in (("noise", noise), ("variance", values)):
        if part is None and name == "variance":
            continue
        if not isinstance(part, Tensor) or not part.is_floating_point() or part.shape != x.shape:
            n, _, height, width = x.shape
            raise ValueError(
                f"expected the noise ({n}, 3, {height}, {width}) from the denoiser's network, that and the variance, "
                f"or both as ({n}, 6, {height}, {width}); got {describe(part)} as {name}"
            )
    return at_least_float32(noise), None if values is None else at_least_float32(values)
