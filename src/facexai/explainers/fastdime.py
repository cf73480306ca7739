"""FastDiME: what would have to change in a photo for the decision to be another one?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai import decisions
from facexai._errors import suggest, warn
from facexai._progress import tqdm
from facexai.denoisers import Denoiser
from facexai.explainers._guided_diffusion import Descent, Edited, Perceptual, descend
from facexai.explainers._variants import OPTIONS, VARIANTS, GradientAt, Mask, Variant, VariantSpec, resolved
from facexai.functional.diffusion import respaced, small_change_mask
from facexai.hooks import no_graph
from facexai.input_spec import InputSpec
from facexai.perturb.draws import check_items, generator
from facexai.results import Counterfactual
from facexai.results.counterfactual import joined

Noise = Callable[[tuple[int, ...]], Tensor]

_RECORDED = ("respacing", "start", "dilation", "l1", "seed")


@final
@dataclass(frozen=True, eq=False)
class FastDiME:
    """Counterfactuals by guided diffusion: a small, plausible edit that changes the decision.

    An image gets noise, and a diffusion model takes it away again. At each step the gradient of the decision, taken at
    an estimate of the clean image, pushes towards the other answer, and pixels that hardly differ from the image are
    put back. Images whose decision did not change are tried again with more guidance.

    Args:
        decision: one logit for each image, positive means yes: of :mod:`facexai.decisions`, a network with one
            output, or any differentiable function of images (N, 3, H, W) in [0, 1] (edits leave it by a little).
        denoiser: of :mod:`facexai.denoisers`.
        variant: ``"fastdime"``; ``"fastdime-2"`` finds the mask in a first pass without one and keeps it fixed in a
            second; ``"fastdime-2+"`` has a mask in the first pass too; ``"unmasked"``; ``"dime"``, the method it
            makes fast: each estimate is a whole chain without guidance; ``"maskdime"``: MaskDiME, below.
        scales: guidance, tried one after the other until the decision changes. ``(0,)`` is the no-op control.
        respacing: steps that are taken of those that the denoiser was trained on.
        start: step from which noise is taken away, of ``respacing``: 60 of 200 keep two fifths of the variance.
        warmup: steps before the mask follows the edit. None: 30; ``"maskdime"`` has no warm-up, and takes only 0.
        dilation: side of the square, odd, by which the mask of edited pixels grows.
        threshold: share of the largest difference from which a pixel counts as edited. None: .15.
        l1: weight of the pull towards the image.
        perceptual: another pull: a function of edited images and images, both (N, 3, H, W) in [0, 1], that gives one
            loss per image (N,). The papers use 30 times the distance in a layer of VGG-19.
        noise: ``shape -> Tensor`` replaces the random draws: the start noise; then for each step that of the
            posterior, also at the last step (``"maskdime"`` has none), and after it that outside of the mask, where
            there is one. All images are one batch then.
        seed: of the draws; an image's depend on the seed and its item alone.
        region: (H, W) or (N, H, W) boolean: only there pixels may change.
        mask: of ``"fastdime"``: ``"difference"``, the default: pixels that hardly differ from the image stay;
            ``"class-gradient"``: only those with the strongest gradient may change, dilated in the noisy image and not
            in the estimate (ours); ``"fixed"``: the region alone. ``"maskdime"`` has ``"nested-gradient"``.
        share: of the pixels that a mask by the gradient leaves free before dilation. None: .1, ``"maskdime"``: .05.
        inner: of ``"maskdime"``: share of those pixels, the strongest, that are free in the estimate. None: .5.
        grad_scale: of ``"maskdime"``: all guidance and all pulls are multiplied by it. None: 8.
        gradient_at: the decision's gradient at the ``"previous"`` step's estimate (default), or the ``"current"``
            one's; ``"maskdime"``: ``"blended"``, the current one within the inner mask of the step before, else the
            image.
        l1_on: the pull towards the image acts on the noisy ``"z"`` (default) or on the estimate ``"x0"``.
        rescaled: divide gradients by the root of the share of the image's variance that is left, as DiME and MaskDiME
            do. None: True for ``"maskdime"``, else False.
        batch_size: images at a time.
        progress: show a progress bar over the denoiser's passes.

    Raises:
        ValueError: unknown variant or mask, an option that the variant does not take, numbers out of range, a schedule
            shorter than ``start``; on use: images of another size than the denoiser's, no gradient from the decision,
            NaN from a network (with the step).

    Cost per image and scale: 60 passes of the denoiser and 60 gradients of the decision; twice that for the variants of
    two passes; 1,830 passes for ``"dime"``. Nothing is kept for other questions: the edit depends on the decision.

    Source: Weng et al. 2024, arXiv:2312.14223, algorithm 1, with the details of its authors' code; DiME: Jeanneret,
    Simon and Jurie 2022, arXiv:2203.15636. MaskDiME: Guo et al. 2026, arXiv:2602.18792, as its authors' code has it
    (clguo/MaskDiME, commit 9ce41f1, with the settings of its ``test.sh``): no noise of the posterior, both masks by the
    gradient from the first step on, and the end is not pasted: outside of ``masks`` is the image with the noise of the
    least noisy step. Where a gradient is zero, no pixel is free (the authors' code takes any). Regions,
    ``"class-gradient"``, the current gradient and ``l1_on="x0"`` are ours.

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
    warmup: int | None = None
    dilation: int = 5
    threshold: float | None = None
    l1: float = 0.05
    perceptual: Perceptual | None = None
    noise: Noise | None = None
    seed: int = 0
    region: Tensor | None = None
    mask: Mask | Literal["gradient"] | None = None
    share: float | None = None
    gradient_at: GradientAt | None = None
    l1_on: Literal["z", "x0"] | None = None
    rescaled: bool | None = None
    batch_size: int = 16
    progress: bool = False
    inner: float | None = None
    grad_scale: float | None = None

    def __post_init__(self) -> None:
        if self.variant not in list(VARIANTS):
            hint = suggest(str(self.variant), VARIANTS)
            raise ValueError(f"expected variant one of {list(VARIANTS)}, got {self.variant!r}; {hint}")
        if self.mask == "gradient":
            warn(
                "mask='gradient' is named mask='class-gradient' now, and the old name goes in 0.2; MaskDiME is "
                "variant='maskdime'",
                DeprecationWarning,
            )
            object.__setattr__(self, "mask", "class-gradient")
        options = self._options
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
        if options["mask"] == "fixed" and self.region is None:
            raise ValueError("mask='fixed' needs region=, where pixels may change")
        self._check_numbers(options)

    def _check_numbers(self, options: Mapping[str, Any]) -> None:
        warmup = options["warmup"]
        for name in ("respacing", "start", "warmup", "dilation", "batch_size"):
            if not isinstance(value := options.get(name, getattr(self, name)), int):
                raise TypeError(f"expected {name} as an integer, got {value!r}")
        length = len(respaced(self.denoiser.alphas_cumprod, self.respacing))
        if not 1 <= self.start < length:
            raise ValueError(
                f"expected start from 1 to {length - 1}, below respacing={self.respacing}, got {self.start}"
            )
        if warmup < 0 or not 0 <= self.l1 < float("inf") or self.batch_size < 1:
            raise ValueError(
                f"expected warmup and l1 from 0 and batch_size from 1, got {warmup}, {self.l1}, {self.batch_size}"
            )
        if any(self._spec.passes) and options["mask"] != "fixed" and warmup >= self.start:
            raise ValueError(
                f"expected warmup below start={self.start}, or the mask never applies, got {warmup}; without a "
                "mask it is variant='unmasked'"
            )
        if self.dilation < 1 or self.dilation % 2 == 0:
            raise ValueError(f"expected an odd dilation, got {self.dilation}")
        shares = {name: options[name] for name in ("threshold", "share", "inner") if name in options}
        if not all(0 < share <= 1 for share in shares.values()):
            raise ValueError(
                f"expected {' and '.join(shares)} in (0, 1], got {' and '.join(map(str, shares.values()))}"
            )
        if not 0 < options.get("grad_scale", 1) < float("inf"):
            raise ValueError(f"expected grad_scale above 0, got {options['grad_scale']}")

    @property
    def _spec(self) -> VariantSpec:
        return VARIANTS[self.variant]

    @property
    def _options(self) -> dict[str, Any]:
        """Returns the variant's options and numbers, defaults filled in."""
        return resolved(self.variant, {name: getattr(self, name) for name in OPTIONS})

    @property
    def no_op(self) -> FastDiME:
        """Returns the control: the same pipeline without guidance, which changes what the denoiser cannot keep."""
        return replace(self, scales=(0.0,))

    def __call__(self, images: Tensor, items: Sequence[int] | None = None) -> Counterfactual:
        """Edits images until the decision about them changes.

        Args:
            images: (N, 3, H, W) RGB in [0, 1], of the denoiser's size, on its device.
            items: numbers of the images in their data set, on which the random draws depend; default: 0 to N - 1.
        """
        size = self.denoiser.size or (tuple(images.shape[-2:]) if isinstance(images, Tensor) else (1, 1))
        InputSpec((int(size[0]), int(size[1]))).check(images)
        items = check_items(items, len(images))
        fixed = self._outside(images)
        began, at_once = time.perf_counter(), len(images) if self.noise is not None else self.batch_size
        passes = len(self._spec.passes) * (self.start * (self.start + 1) // 2 if self._spec.nested else self.start)
        batches = -(-len(images) // at_once)
        decisions.check_count(self.decision, len(images))
        with (
            no_graph(),
            decisions.eval_mode(self.decision),
            tqdm(total=batches * passes, desc="FastDiME", disable=not self.progress) as bar,
        ):
            made = []
            for at in range(0, len(images), at_once):
                part = slice(at, at + at_once)
                made.append(self._batch(images[part].detach().clone(), part, fixed[part], items[part], bar))
        found = joined(made, time.perf_counter() - began)
        undone = int((found.flipped != ((found.after > 0) != (found.before > 0))).sum())
        if undone:
            warn(
                f"{undone} of {len(found)} decisions differ between the edit and the picture, whose pixels were "
                "brought into [0, 1]: .flipped tells of the edit, .after of the picture"
            )
        return found

    def _outside(self, images: Tensor) -> Tensor:
        """Returns (N, 1, H, W), True where pixels must not change."""
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
        """Returns images of one batch, through the ladder of scales."""
        how = self._how()
        everywhere = torch.arange(part.start, part.start + len(images), device=images.device)
        draws = _Draws(self.noise, self.seed, items, images)
        x = 2 * images - 1
        noisy = how.schedule.noised(x, self.start, draws(torch.arange(len(x))))
        before = decisions.score(decisions.select(self.decision, everywhere), images)
        wanted = before <= 0
        edited, keep, path = x.clone(), outside.clone(), x.new_zeros(len(x), self.start)
        flipped, used = torch.zeros_like(wanted), x.new_zeros(len(x))
        calls = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for scale in self.scales:
            rows = (~flipped).nonzero()[:, 0]
            decision = decisions.select(self.decision, everywhere[rows])
            push = torch.where(wanted[rows], scale, -scale).to(x)
            last = self._passes(how, decision, x[rows], noisy[rows], push, draws, rows, outside[rows], bar)
            edited[rows], keep[rows], path[rows] = last.images, last.keep, last.path.to(path)
            calls[rows] += last.calls
            used[rows] = scale
            flipped[rows] = (decisions.score(decision, (last.images + 1) / 2) > 0) == wanted[rows]
            if flipped.all():
                break
        pasted = keep if how.pasted else outside
        picture = torch.where(pasted, images, ((edited + 1) / 2).clamp(0, 1))
        after = decisions.score(decisions.select(self.decision, everywhere), picture)
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
        """Returns the passes of the variant under one scale."""
        fixed, calls, last = outside if self.region is not None else None, 0, None
        for masked in self._spec.passes:
            if last is not None:
                fixed = small_change_mask(x, last.images, how.threshold, how.dilation) | outside
            last = descend(
                how,
                decision,
                x,
                noisy,
                push,
                lambda: draws(rows.cpu()),
                bar.update,
                masked=masked and how.mask != "fixed",
                fixed=fixed,
            )
            calls += last.calls
        assert last is not None
        return replace(last, calls=calls)

    def _how(self) -> Descent:
        return Descent(
            denoiser=self.denoiser,
            schedule=respaced(self.denoiser.alphas_cumprod, self.respacing),
            start=self.start,
            dilation=self.dilation,
            l1=self.l1,
            perceptual=self.perceptual,
            nested=self._spec.nested,
            posterior_noise=self._spec.posterior_noise,
            pasted=self._spec.pasted,
            **self._options,
        )

    def _recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = {"method": f"FastDiME ({self.variant})", "variant": self.variant}
        recipe |= {name: getattr(self, name) for name in _RECORDED} | self._options
        if not recipe["mask"].endswith("gradient"):
            del recipe["share"]
        recipe |= {"scales": [float(scale) for scale in self.scales], "denoiser": decisions.recipe_of(self.denoiser)}
        recipe["decision"] = decisions.recipe_of(self.decision)
        for name in ("perceptual", "noise", "region"):
            recipe[name] = getattr(self, name) is not None
        return recipe


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
        """Draws on the CPU in float32, whatever torch's defaults are, so that all machines draw the same numbers."""
        return torch.randn(shape, generator=self.streams[row], dtype=torch.float32, device="cpu")
