"""Runs one pass of guided denoising, from a noisy image to an edited one, by a decision's gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from facexai import decisions
from facexai.denoisers import Denoiser
from facexai.explainers._variants import GradientAt, Mask
from facexai.functional.diffusion import Schedule, nested_strongest, small_change_mask, top_gradient_mask

Draw = Callable[[], Tensor]
Perceptual = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, eq=False)
class Descent:
    """The settings of an edit; see :class:`facexai.FastDiME`."""

    denoiser: Denoiser
    schedule: Schedule
    start: int
    dilation: int
    l1: float
    perceptual: Perceptual | None
    nested: bool
    posterior_noise: bool
    pasted: bool
    mask: Mask
    warmup: int
    gradient_at: GradientAt
    l1_on: Literal["z", "x0"]
    rescaled: bool
    threshold: float = 1.0
    share: float = 1.0
    inner: float = 1.0
    grad_scale: float = 1.0


@final
@dataclass(frozen=True, eq=False)
class Edited:
    """The result of a pass.

    Attributes:
        images: (N, 3, H, W), around [-1, 1], not clamped; where kept, the given images exactly if ``how.pasted``, else
            only where ``fixed``.
        keep: (N, 1, H, W), True where nothing was free to change.
        path: (N, S) scores of the estimates at the start of each step.
        calls: forward passes of the denoiser.
    """

    images: Tensor
    keep: Tensor
    path: Tensor
    calls: int


def descend(
    how: Descent,
    decision: decisions.Decision,
    images: Tensor,
    noisy: Tensor,
    push: Tensor,
    draw: Draw,
    tick: Callable[[int], object],
    *,
    masked: bool,
    fixed: Tensor | None,
) -> Edited:
    """Denoises step by step, and at each step pushes the images towards the other decision.

    Args:
        how: numbers of the method.
        decision: its gradient guides.
        images: (N, 3, H, W) in [-1, 1].
        noisy: the images after ``how.start`` steps of noise.
        push: (N,) signed: the guidance, positive towards yes.
        draw: unit noise of the images' shape: for each step that of the posterior if ``how.posterior_noise``, also for
            the last, which does not use it, and then, where a mask applies, that of the pixels outside of it.
        tick: called with the number of forward passes.
        masked: whether the method's own mask applies after the warm-up.
        fixed: (N, 1, H, W), True where pixels never change; None: nowhere.
    """
    schedule, z, estimate, keep = how.schedule, noisy, images, fixed
    inner, path, calls = None, [], 0
    for number, step in enumerate(reversed(range(how.start))):
        mean, log_variance, clean = _backwards(how, z, step)
        at = _gradient_point(how, images, estimate, clean, inner)
        score, gradient = _slope(lambda x: decisions.score(decision, x), at, step)
        path.append(score)
        enlarge = float(schedule.alphas_cumprod[step]) ** -0.5 if how.rescaled else 1.0
        guide = -push[:, None, None, None] * gradient * enlarge
        guide = guide + how.l1 * torch.sign((z if how.l1_on == "z" else at) - images)
        if how.perceptual is not None:
            guide = guide + _slope(_loss(how.perceptual, images), at, step)[1] * enlarge
        z = mean - log_variance.exp() * (how.grad_scale * guide)
        if how.posterior_noise:
            noise = draw()
            z = z + (0.5 * log_variance).exp() * noise if step > 0 else z
        estimate = _denoised(how, z, step, draw) if how.nested and step > 0 else clean
        done = 1 + (step if how.nested else 0)
        calls += done
        tick(done)
        if masked and number >= how.warmup:
            keep, inner = _kept(how, images, estimate, gradient, fixed)
        if keep is not None:
            estimate = torch.where(keep if inner is None else inner, images, estimate)
            z = torch.where(keep, schedule.noised(images, step, draw()), z)
    nowhere = torch.zeros_like(images[:, :1], dtype=torch.bool)
    keep, fixed = (nowhere if stays is None else stays for stays in (keep, fixed))
    return Edited(torch.where(keep if how.pasted else fixed, images, z), keep, torch.stack(path, 1), calls)


def _gradient_point(how: Descent, images: Tensor, estimate: Tensor, clean: Tensor, inner: Tensor | None) -> Tensor:
    """Returns the images (N, 3, H, W) at which gradients are taken; ``inner`` is where the last step kept the image."""
    if how.gradient_at == "blended":
        return images if inner is None else torch.where(inner, images, clean)
    return clean if how.gradient_at == "current" else estimate


def _by_difference(how: Descent, images: Tensor, estimate: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    keep = small_change_mask(images, estimate, how.threshold, how.dilation)
    return keep, keep


def _by_gradient(how: Descent, images: Tensor, estimate: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return ~top_gradient_mask(gradient, how.share, how.dilation), ~top_gradient_mask(gradient, how.share)


def _by_nested_gradient(how: Descent, images: Tensor, estimate: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    outer, inner = nested_strongest(gradient, how.share, how.inner, how.dilation)
    return ~outer, ~inner


_MASKS: dict[str, Callable[[Descent, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "difference": _by_difference,
    "class-gradient": _by_gradient,
    "nested-gradient": _by_nested_gradient,
}
"""Each function returns where the noisy images and where the estimate keep the image, by name of the mask."""


def _kept(
    how: Descent, images: Tensor, estimate: Tensor, gradient: Tensor, fixed: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns where the noisy images and where the estimate keep the image, (N, 1, H, W) each."""
    keep, inner = _MASKS[how.mask](how, images, estimate, gradient)
    return (keep, inner) if fixed is None else (keep | fixed, inner | fixed)


def _backwards(how: Descent, z: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the mean and log variance of the images one step earlier, and the network's estimate
    of the clean images.
    """
    number = how.schedule.timesteps[step].to(z.device).expand(len(z))
    noise, values = how.denoiser.predict(z, number)
    for name, part in (("noise", noise), ("variance", values)):
        if part is not None and part.shape != z.shape:
            raise ValueError(
                f"the denoiser gave {name} of shape {tuple(part.shape)} for images {tuple(z.shape)}; a network of "
                "learned variances gives two tensors of that shape"
            )
        if part is not None and not torch.isfinite(part).all():
            raise ValueError(f"the denoiser gave NaN or infinity as {name} at step {step}; check weights and precision")
    noise = noise.to(z.dtype)
    clean = how.schedule.estimate(z, step, noise)
    values = None if values is None else values.to(z.dtype)
    return how.schedule.posterior(clean, z, step), how.schedule.log_variance(step, values, z), clean


def _denoised(how: Descent, z: Tensor, step: int, draw: Draw) -> Tensor:
    """Returns the images that a whole chain without guidance makes of the noisy ones."""
    for left in reversed(range(step)):
        mean, log_variance, _ = _backwards(how, z, left)
        noise = draw()
        z = mean + (0.5 * log_variance).exp() * noise if left > 0 else mean
    return z


def _slope(function: Callable[[Tensor], Tensor], images: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Returns the value (N,) of a function of images in [0, 1], and its gradient with respect to the
    images in [-1, 1].
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        value = function((leaf + 1) / 2)
        found = torch.autograd.grad(value.sum(), leaf, allow_unused=True) if value.requires_grad else (None,)
    if found[0] is None:
        raise ValueError(
            "no gradient reaches the image from the decision (or perceptual loss): it must be computed by torch from "
            "the image, without detach, no_grad or NumPy"
        )
    if not torch.isfinite(found[0]).all():
        raise ValueError(f"the gradient of the decision (or perceptual loss) has NaN or infinity at step {step}")
    return value.detach(), found[0]


def _loss(perceptual: Perceptual, images: Tensor) -> Callable[[Tensor], Tensor]:
    reference = (images + 1) / 2

    def loss(edited: Tensor) -> Tensor:
        value = perceptual(edited, reference)
        if value.shape != (len(edited),):
            raise ValueError(f"expected a perceptual loss of ({len(edited)},), one per image, got {tuple(value.shape)}")
        return value

    return loss
