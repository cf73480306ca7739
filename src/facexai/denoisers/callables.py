"""Any function that estimates noise, as a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from torch import Tensor, nn

from facexai.denoisers.checks import Size, calm, check_images, levels, parts, sides
from facexai.hooks import as_weights
from facexai.models.fingerprint import fingerprint


@final
@dataclass(frozen=True, eq=False)
class CallableDenoiser:
    """A function as a :class:`Denoiser`; see :func:`from_callable`.

    Attributes:
        function: what was given.
        alphas_cumprod: (T,) float64.
        size: (H, W) or None.
    """

    function: Callable[[Tensor, Tensor], Any] = field(repr=False)
    alphas_cumprod: Tensor = field(repr=False)
    size: Size = None

    @property
    def recipe(self) -> dict[str, Any]:
        """Returns what results record of the denoiser."""
        function = self.function
        named = getattr(function, "__qualname__", type(function).__name__)
        told = {"fingerprint": fingerprint(function)} if isinstance(function, nn.Module) else {}
        return {"denoiser": "function", "size": self.size, "function": named, **told}

    def predict(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Denoiser.predict`.

        Raises:
            ValueError: images of another size or device, or an answer that is no noise for them.
        """
        check_images(x, self.size)
        with calm(self.function):
            given = as_weights(x, self.function) if isinstance(self.function, nn.Module) else x
            return parts(self.function(given, t), x)


def from_callable(
    function: Callable[[Tensor, Tensor], Any], alphas_cumprod: Tensor, size: int | Sequence[int] | None = None
) -> CallableDenoiser:
    """Returns any function or module that estimates noise, as a denoiser.

    It runs without a graph. A module runs in eval mode, on images in the precision of its weights, and is left as it
    was found.

    Args:
        function: of noisy images (N, 3, H, W), RGB, around [-1, 1], and steps (N,) int64, 0 to T - 1. It returns the
            noise (N, 3, H, W); that and the variance's place between its bounds (N, 3, H, W), -1 to 1, or None; or both
            in one (N, 6, H, W), the noise first.
        alphas_cumprod: (T,), falling, between 0 and 1: the share of the image's variance that is left after each step
            it was trained on.
        size: (H, W) of the images, or one number for both; None: any.

    Raises:
        TypeError: no function.
        ValueError: noise levels or size that cannot be; see also :meth:`CallableDenoiser.predict`.

    Source: ours. The levels as in Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 4; learned variances as in Nichol and
    Dhariwal 2021, arXiv:2102.09672, eq. 15.

    >>> import torch
    >>> denoiser = from_callable(lambda x, t: 0.1 * x, torch.linspace(0.9, 0.1, 50), size=8)
    >>> denoiser
    CallableDenoiser(size=(8, 8))
    >>> noise, values = denoiser.predict(torch.ones(1, 3, 8, 8), torch.tensor([7]))
    >>> noise.shape, values
    (torch.Size([1, 3, 8, 8]), None)
    """
    if not callable(function):
        raise TypeError(f"expected a function of noisy images and steps, got {type(function).__name__}")
    return CallableDenoiser(function, levels(alphas_cumprod), sides(size))
