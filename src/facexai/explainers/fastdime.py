"""FastDiME: what would have to change in a photo for the decision to be another one?"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai import decisions
from facexai._messages import FaceXAIWarning, near_matches
from facexai._progress import tqdm
from facexai.denoisers import Denoiser
from facexai.explainers.descent import Descent, Edited, Mask, Perceptual, descend
from facexai.functional.diffusion import respaced, unchanged
from facexai.hooks import quiet_grad
from facexai.input_spec import InputSpec
from facexai.perturb.draws import generator, numbered
from facexai.results import Counterfactual
from facexai.results.counterfactual import joined

Variant = Literal["fastdime", "fastdime-2", "fastdime-2+", "unmasked", "dime"]
Noise = Callable[[tuple[int, ...]], Tensor]

_PASSES: dict[str, tuple[bool, ...]] = {  # of each pass: does the mask follow the edit?
    "fastdime": (True,),
    "fastdime-2": (False, False),
    "fastdime-2+": (True, False),
    "unmasked": (False,),
    "dime": (False,),
}
_TOLD = (
    "respacing",
    "start",
    "warmup",
    "dilation",
    "threshold",
    "l1",
    "seed",
    "mask",
    "gradient_at",
    "l1_on",
    "rescaled",
)


@final
@dataclass(frozen=True, eq=False)
class FastDiME:
    """Counterfactuals by guided diffusion: the smallest believable edit after which the decision is another one.

    An image gets noise, and a diffusion model takes it away again. At each step the gradient of the decision, taken at
    an estimate of the clean image, pushes towards the other answer, and pixels that hardly differ from the image are
    put back. Images whose decision did not change are tried again with more guidance.

    Args:
        decision: one logit for each image, positive means yes: of :mod:`facexai.decisions`, a network with one
            output, or any differentiable function of images (N, 3, H, W) in [0, 1] (edits leave it by a little).
        denoiser: of :mod:`facexai.denoisers`.
        variant: ``"fastdime"``; ``"fastdime-2"`` finds the mask in a first pass without one and keeps it fixed in a
            second; ``"fastdime-2+"`` has a mask in the first pass too; ``"unmasked"``; ``"dime"``, the method it
            makes fast: each estimate is a whole chain without guidance.
        scales: guidance, tried one after the other until the decision changes. ``(0,)`` is the no-op control.
        respacing: steps that are taken of those that the denoiser was trained on.
        start: step from which noise is taken away, of ``respacing``: 60 of 200 keep two fifths of the variance.
        warmup: steps before the mask follows the edit.
        dilation: side of the square, odd, by which the mask of edited pixels grows.
        threshold: share of the largest difference from which a pixel counts as edited.
        l1: weight of the pull towards the image.
        perceptual: another pull: a function of edited images and images, both (N, 3, H, W) in [0, 1], that gives one
            loss per image (N,). The paper uses 30 times the distance in a layer of VGG-19.
        noise: ``shape -> Tensor`` replaces the random draws: the start noise; then for each step that of the
            posterior, also at the last step, and after it that outside of the mask, where there is one. All images are
            one batch then.
        seed: of the draws; an image's depend on the seed and its item alone.
        region: (H, W) or (N, H, W) boolean: only there pixels may change.
        mask: ``"difference"``: pixels that hardly differ from the image stay (FastDiME); ``"gradient"``: only those
            with the strongest gradient may change, dilated in the noisy image and not in the estimate (after MaskDiME,
            arXiv:2602.18792; the details are reconstructed); ``"fixed"``: the region alone.
        share: of the pixels that ``"gradient"`` leaves free before dilation.
        gradient_at: the decision's gradient at the ``"previous"`` step's estimate, or the ``"current"`` one's.
        l1_on: the pull towards the image acts on the noisy ``"z"`` or on the estimate ``"x0"``.
        rescaled: divide gradients by the root of the share of the image's variance that is left, as DiME does.
        batch_size: images at a time.
        progress: show a progress bar over the denoiser's passes.

    Raises:
        ValueError: unknown variant or mask, numbers out of range, a schedule shorter than ``start``; on use: images of
            another size than the denoiser's, no gradient from the decision, NaN from a network (with the step).

    Cost per image and scale: 60 passes of the denoiser and 60 gradients of the decision; twice that for the variants of
    two passes; 1,830 passes for ``"dime"``. Nothing is kept for other questions: the edit depends on the decision.

    Source: Weng et al. 2024, arXiv:2312.14223, algorithm 1, with the details of its authors' code; DiME: Jeanneret,
    Simon and Jurie 2022, arXiv:2203.15636. Regions, the current gradient and ``l1_on="x0"`` are ours.

    >>> from facexai import denoisers
    >>> from facexai.functional.diffusion import linear_alphas
    >>> left = linear_alphas(50)
    >>> def gaussian(x, t):  # the exact answer for images that are unit Gaussian noise
    ...     return (1 - left[t]).sqrt().float()[:, None, None, None] * x
    >>> def bright(images):
    ...     return 20 * (images.mean((1, 2, 3)) - 0.5)
    >>> edit = FastDiME(bright, denoisers.from_callable(gaussian, left), respacing=20, start=10, warmup=5)
    >>> edit(torch.full((1, 3, 8, 8), 0.45)).flipped
    tensor([True])
    """

    decision: decisions.Decision
    denoiser: Denoiser
    variant: Variant = "fastdime"
    scales: Sequence[float] = (8.0, 10.0, 15.0)
    respacing: int = 200
    start: int = 60
    warmup: int = 30
    dilation: int = 5
    threshold: float = 0.15
    l1: float = 0.05
    perceptual: Perceptual | None = None
    noise: Noise | None = None
    seed: int = 0
    region: Tensor | None = None
    mask: Mask = "difference"
    share: float = 0.1
    gradient_at: Literal["previous", "current"] = "previous"
    l1_on: Literal["z", "x0"] = "z"
    rescaled: bool = False
    batch_size: int = 16
    progress: bool = False

    def __post_init__(self) -> None:
        known = {
            "variant": tuple(_PASSES),
            "mask": ("difference", "gradient", "fixed"),
            "gradient_at": ("previous", "current"),
            "l1_on": ("z", "x0"),
        }
        for name, options in known.items():
            if getattr(self, name) not in options:
                said = near_matches(str(getattr(self, name)), options)
                raise ValueError(f"expected {name} one of {list(options)}, got {getattr(self, name)!r}; {said}")
        if not callable(self.decision):
            raise TypeError(f"expected a decision that can be called with images, got {type(self.decision).__name__}")
        if not isinstance(self.denoiser, Denoiser):
            raise TypeError(
                f"expected a denoiser, got {type(self.denoiser).__name__}; wrap it: facexai.denoisers.from_callable, "
                "from_diffusers or load_adm"
            )
        if (
            not isinstance(self.scales, Sequence)
            or not len(self.scales)
            or not all(0 <= scale < float("inf") for scale in self.scales)
        ):
            raise ValueError(f"expected scales such as (8, 10, 15), none negative, got {self.scales!r}")
        if self.mask != "difference" and self.variant != "fastdime":
            raise ValueError(f"mask={self.mask!r} goes with variant='fastdime', got {self.variant!r}")
        if self.mask == "fixed" and self.region is None:
            raise ValueError("mask='fixed' needs region=, where pixels may change")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("respacing", "start", "warmup", "dilation", "batch_size"):
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"expected {name} as an integer, got {getattr(self, name)!r}")
        length = len(respaced(self.denoiser.alphas_cumprod, self.respacing))
        if not 1 <= self.start < length:
            raise ValueError(
                f"expected start from 1 to {length - 1}, below respacing={self.respacing}, got {self.start}"
            )
        if self.warmup < 0 or not 0 <= self.l1 < float("inf") or self.batch_size < 1:
            raise ValueError(
                f"expected warmup and l1 from 0 and batch_size from 1, got {self.warmup}, {self.l1}, {self.batch_size}"
            )
        if any(_PASSES[self.variant]) and self.mask != "fixed" and self.warmup >= self.start:
            raise ValueError(
                f"expected warmup below start={self.start}, or the mask never applies, got {self.warmup}; without a "
                "mask it is variant='unmasked'"
            )
        if self.dilation < 1 or self.dilation % 2 == 0:
            raise ValueError(f"expected an odd dilation, got {self.dilation}")
        if not 0 < self.threshold <= 1 or not 0 < self.share <= 1:
            raise ValueError(f"expected threshold and share in (0, 1], got {self.threshold} and {self.share}")

    @property
    def no_op(self) -> FastDiME:
        """The control: the same pipeline without guidance, which changes what the denoiser cannot keep."""
        return replace(self, scales=(0.0,))

    def __call__(self, images: Tensor, items: Sequence[int] | None = None) -> Counterfactual:
        """Edit images until the decision about them is another one.

        Args:
            images: (N, 3, H, W) RGB in [0, 1], of the denoiser's size, on its device.
            items: numbers of the images in their data set, on which the random draws depend; default: 0 to N - 1.
        """
        size = self.denoiser.size or (tuple(images.shape[-2:]) if isinstance(images, Tensor) else (1, 1))
        InputSpec((int(size[0]), int(size[1]))).check(images)
        items = numbered(items, len(images))
        fixed = self._outside(images)
        began, at_once = time.perf_counter(), len(images) if self.noise is not None else self.batch_size
        passes = len(_PASSES[self.variant]) * (self.start * (self.start + 1) // 2 if self._nested else self.start)
        batches = -(-len(images) // at_once)
        decisions.check_count(self.decision, len(images))
        with (
            quiet_grad(),
            decisions.steady(self.decision),
            tqdm(total=batches * passes, desc="FastDiME", disable=not self.progress) as bar,
        ):
            made = []
            for at in range(0, len(images), at_once):
                part = slice(at, at + at_once)
                made.append(self._batch(images[part].detach().clone(), part, fixed[part], items[part], bar))
        found = joined(made, time.perf_counter() - began)
        undone = int((found.flipped != ((found.after > 0) != (found.before > 0))).sum())
        if undone:
            warnings.warn(
                f"{undone} of {len(found)} decisions differ between the edit and the picture, whose pixels were "
                "brought into [0, 1]: .flipped tells of the edit, .after of the picture",
                FaceXAIWarning,
                stacklevel=2,
            )
        return found

    @property
    def _nested(self) -> bool:
        return self.variant == "dime"

    def _outside(self, images: Tensor) -> Tensor:
        """(N, 1, H, W), True where pixels must not change."""
        n, _, height, width = images.shape
        if self.region is None:
            return torch.zeros(n, 1, height, width, dtype=torch.bool, device=images.device)
        region = self.region
        if not isinstance(region, Tensor):
            raise TypeError(
                f"expected region as a boolean tensor, got {type(region).__name__}; torch.as_tensor makes one"
            )
        if not region.any():
            raise ValueError("region is False everywhere: no pixel may change")
        if region.dtype != torch.bool or tuple(region.shape) not in ((height, width), (n, height, width)):
            raise ValueError(
                f"expected region as boolean {(height, width)} or {(n, height, width)}, got {region.dtype} "
                f"{tuple(region.shape)}"
            )
        return ~region.to(images.device).expand(n, height, width)[:, None]

    def _batch(
        self, images: Tensor, part: slice, outside: Tensor, items: Sequence[int], bar: tqdm[Any]
    ) -> Counterfactual:
        """Images of one batch, through the ladder of scales."""
        schedule, how = respaced(self.denoiser.alphas_cumprod, self.respacing), self._how()
        everywhere = torch.arange(part.start, part.start + len(images), device=images.device)
        draws = _Draws(self.noise, self.seed, items, images)
        x = 2 * images - 1
        noisy = schedule.noised(x, self.start, draws(torch.arange(len(x))))
        before = decisions.score(decisions.rows(self.decision, everywhere), images)
        wanted = before <= 0
        edited, keep, path = x.clone(), outside.clone(), x.new_zeros(len(x), self.start)
        flipped, used = torch.zeros_like(wanted), x.new_zeros(len(x))
        calls = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for scale in self.scales:
            rows = (~flipped).nonzero()[:, 0]
            decision = decisions.rows(self.decision, everywhere[rows])
            push = torch.where(wanted[rows], scale, -scale).to(x)
            last = self._passes(how, decision, x[rows], noisy[rows], push, draws, rows, outside[rows], bar)
            edited[rows], keep[rows], path[rows] = last.images, last.keep, last.path.to(path)
            calls[rows] += last.calls
            used[rows] = scale
            flipped[rows] = (decisions.score(decision, (last.images + 1) / 2) > 0) == wanted[rows]
            if flipped.all():
                break
        picture = torch.where(keep, images, ((edited + 1) / 2).clamp(0, 1))
        after = decisions.score(decisions.rows(self.decision, everywhere), picture)
        return Counterfactual(images, picture, ~keep[:, 0], before, after, flipped, used, calls, path, self._recipe())

    def _passes(
        self,
        how: Descent,
        decision: decisions.Decision,
        x: Tensor,
        noisy: Tensor,
        push: Tensor,
        draws: _Draws,
        rows: Tensor,
        outside: Tensor,
        bar: tqdm[Any],
    ) -> Edited:
        """The passes of the variant under one scale."""
        fixed, calls, last = outside if self.region is not None else None, 0, None
        for masked in _PASSES[self.variant]:
            if last is not None:
                fixed = unchanged(x, last.images, self.threshold, self.dilation) | outside
            last = descend(
                how,
                decision,
                x,
                noisy,
                push,
                lambda: draws(rows.cpu()),
                bar.update,
                masked=masked and self.mask != "fixed",
                fixed=fixed,
            )
            calls += last.calls
        assert last is not None
        return replace(last, calls=calls)

    def _how(self) -> Descent:
        return Descent(
            self.denoiser,
            respaced(self.denoiser.alphas_cumprod, self.respacing),
            self.start,
            self.warmup,
            self.dilation,
            self.threshold,
            self.share,
            self.l1,
            self.perceptual,
            self.mask,
            self.gradient_at,
            self.l1_on,
            self.rescaled,
            self._nested,
        )

    def _recipe(self) -> dict[str, Any]:
        told: dict[str, Any] = {"method": f"FastDiME ({self.variant})", "variant": self.variant}
        told |= {name: getattr(self, name) for name in _TOLD}
        told |= {"scales": [float(scale) for scale in self.scales], "denoiser": decisions.recipe_of(self.denoiser)}
        told["decision"] = decisions.recipe_of(self.decision)
        if self.mask == "gradient":
            told["share"] = self.share
        for name in ("perceptual", "noise", "region"):
            told[name] = getattr(self, name) is not None
        return told


class _Draws:
    """Unit noise for some of the images: replayed, or from a stream of each image's own."""

    def __init__(self, noise: Noise | None, seed: int, items: Sequence[int], like: Tensor) -> None:
        self.noise, self.like = noise, like
        self.streams = [generator(seed, item, "counterfactual") for item in items]

    def __call__(self, rows: Tensor) -> Tensor:
        shape = tuple(self.like.shape[1:])
        if self.noise is None:
            drawn = torch.stack([self._unit(shape, row) for row in rows.tolist()])
            return drawn.to(self.like)
        given = self.noise((len(rows), *shape))
        if not isinstance(given, Tensor) or given.shape != (len(rows), *shape):
            told = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise ValueError(f"expected noise of shape {(len(rows), *shape)}, got {told}")
        return given.to(self.like)

    def _unit(self, shape: tuple[int, ...], row: int) -> Tensor:
        """On the processor and in float32 whatever torch's defaults are: the same numbers everywhere."""
        return torch.randn(shape, generator=self.streams[row], dtype=torch.float32, device="cpu")
