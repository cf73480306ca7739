"""The interface of a diffusion network that counterfactuals need."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Denoiser(Protocol):
    """Estimates the noise in images."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """Returns (T,): the share of the image's variance that is left after each step it was trained on."""
        ...

    @property
    def size(self) -> tuple[int, int] | None:
        """Returns (H, W) of the images it takes; None: any."""
        ...

    def predict(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the noise in noisy images.

        Args:
            x: (N, 3, H, W), RGB, around [-1, 1].
            t: (N,) int64, the step, 0 to T - 1.

        Returns:
            The noise (N, 3, H, W), and the variance's place between its bounds (N, 3, H, W), -1 to 1, or None.
        """
        ...
