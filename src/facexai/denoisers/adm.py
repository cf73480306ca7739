"""Guided-diffusion's unconditional network, and its checkpoints as denoisers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from facexai.denoisers.adm_blocks import GROUPS, Attention, Down, Residual, Stage, Up, waves
from facexai.denoisers.callables import CallableDenoiser, from_callable
from facexai.functional.diffusion import linear_alphas
from facexai.hooks import no_graph
from facexai.models._weight_values import beyond_range, some, unfit
from facexai.models.checkpoints import places_in

NoiseSchedule = Literal["linear", "cosine"]

_WIDTHS: Mapping[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}


@final
class ADM(nn.Module):
    """The UNet of guided-diffusion without classes: noisy images and steps -> noise, or noise and variance.

    Its weights have the names of guided-diffusion's checkpoints. For use, not for training: nothing starts at zero,
    and there is no dropout.

    Args:
        image_size: of the square images; a multiple of 2 for every change of size.
        num_channels: of the first maps, a multiple of 32.
        num_res_blocks: in each size.
        channel_mult: channels in each size, as multiples of ``num_channels``; also ``"1,2,3,4"``; None: as published
            for images of 512, 256, 128 or 64.
        attention_resolutions: sizes of the maps that have attention; also ``"32,16,8"``.
        num_heads: of each attention.
        num_head_channels: of each head, in the place of ``num_heads``; -1: ``num_heads`` counts.
        resblock_updown: sizes change in residual blocks, else in single convolutions.
        use_scale_shift_norm: the step scales and shifts, else it is added.
        learn_sigma: 6 channels out, the variance last, else 3.
        use_new_attention_order: of the rows of ``qkv``.
        time_scale: by which steps are multiplied.

    Raises:
        ValueError: numbers that do not fit each other.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233, sec. 3; Nichol and Dhariwal 2021, arXiv:2102.09672.

    >>> net = ADM(image_size=16, num_channels=32, channel_mult=(1, 2), attention_resolutions=(8,), learn_sigma=True)
    >>> net(torch.zeros(2, 3, 16, 16), torch.tensor([0, 999])).shape
    torch.Size([2, 6, 16, 16])
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_channels: int,
        num_res_blocks: int = 2,
        channel_mult: Sequence[float] | str | None = None,
        attention_resolutions: Sequence[int] | str = (16, 8),
        num_heads: int = 4,
        num_head_channels: int = -1,
        resblock_updown: bool = False,
        use_scale_shift_norm: bool = True,
        learn_sigma: bool = False,
        use_new_attention_order: bool = False,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        widths = _widths(image_size, num_channels, channel_mult)
        looking = {image_size // int(size) for size in _numbers(attention_resolutions)}
        embedding = 4 * num_channels
        self.num_channels, self.time_scale = num_channels, time_scale

        def residual(channels_in: int, channels: int, resample: Literal["up", "down"] | None = None) -> Residual:
            return Residual(channels_in, channels, embedding, scale_shift=use_scale_shift_norm, resample=resample)

        def attention(channels: int) -> Attention:
            heads = num_heads if num_head_channels == -1 else channels // max(num_head_channels, 1)
            if heads < 1 or channels % heads or num_head_channels not in (-1, channels // heads):
                raise ValueError(
                    f"{channels} channels cannot be shared by heads of num_heads={num_heads}, "
                    f"num_head_channels={num_head_channels}; give those the network was trained with"
                )
            return Attention(channels, heads, new_order=use_new_attention_order)

        def block(channels_in: int, channels: int, scale: int) -> list[nn.Module]:
            return [residual(channels_in, channels), *([attention(channels)] if scale in looking else [])]

        now, scale, kept = widths[0], 1, [widths[0]]
        stages = [Stage(nn.Conv2d(3, now, 3, padding=1))]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                stages.append(Stage(*block(now, width, scale)))
                now = width
                kept.append(now)
            if level < len(widths) - 1:
                stages.append(Stage(residual(now, now, "down") if resblock_updown else Down(now)))
                kept.append(now)
                scale *= 2
        middle = Stage(residual(now, now), attention(now), residual(now, now))
        back = []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = block(now + kept.pop(), width, scale)
                now = width
                if level and i == num_res_blocks:
                    layers.append(residual(now, now, "up") if resblock_updown else Up(now))
                    scale //= 2
                back.append(Stage(*layers))
        self.time_embed = nn.Sequential(nn.Linear(num_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.input_blocks, self.middle_block, self.output_blocks = nn.ModuleList(stages), middle, nn.ModuleList(back)
        out = nn.Conv2d(now, 6 if learn_sigma else 3, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, now), nn.SiLU(), out)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns noise, then variance, (N, 3 or 6, H, W) for noisy images (N, 3, H, W) around [-1,
        1] and steps (N,).
        """
        embedding = self.time_embed(waves(t * self.time_scale, self.num_channels).to(x.dtype))
        kept = []
        for stage in self.input_blocks:
            x = stage(x, embedding)
            kept.append(x)
        x = self.middle_block(x, embedding)
        for stage in self.output_blocks:
            x = stage(torch.cat([x, kept.pop()], 1), embedding)
        out: Tensor = self.out(x)
        return out


def load_adm(
    path: str | Path,
    *,
    image_size: int,
    num_channels: int,
    num_res_blocks: int = 2,
    channel_mult: Sequence[float] | str | None = None,
    attention_resolutions: Sequence[int] | str = (16, 8),
    num_heads: int = 4,
    num_head_channels: int = -1,
    resblock_updown: bool = False,
    use_scale_shift_norm: bool = True,
    learn_sigma: bool = False,
    use_new_attention_order: bool = False,
    class_cond: bool = False,
    diffusion_steps: int = 1000,
    noise_schedule: NoiseSchedule = "linear",
    rescale_timesteps: bool = False,
) -> CallableDenoiser:
    """Returns a checkpoint of guided-diffusion, unconditional, as a denoiser on the CPU.

    Options have the names, values and defaults of guided-diffusion's flags, and must be those of the training; see
    :class:`ADM`. Weights become float32; finite values that it cannot hold are refused. ``denoiser.function`` is the
    network, for ``.to("cuda")``.

    Args:
        path: a file of safetensors, or of ``torch.save`` if it holds nothing but tensors and plain values.
        class_cond: only False.
        diffusion_steps: T, 21 or more where the schedule is linear.
        noise_schedule: ``"linear"`` or ``"cosine"``.
        rescale_timesteps: the network gets t 1000 / T instead of t.

    Raises:
        FileNotFoundError: no such file.
        ValueError: options that do not fit each other or the weights; a network with classes; an empty, truncated or
            unknown file; one that would have to be unpickled, which could run any code.

    Source: Dhariwal and Nichol 2021, arXiv:2105.05233; schedules: Nichol and Dhariwal 2021, arXiv:2102.09672, sec. 3.2.

    >>> import tempfile
    >>> folder, options = tempfile.TemporaryDirectory(), {"image_size": 64, "num_channels": 32, "num_res_blocks": 1}
    >>> torch.save(ADM(**options).half().state_dict(), Path(folder.name, "ema.pt"))
    >>> load_adm(Path(folder.name, "ema.pt"), **options)
    CallableDenoiser(size=(64, 64))
    >>> folder.cleanup()
    """
    if class_cond:
        raise ValueError("class_cond=True: the network wants a class beside the image; expected an unconditional one")
    alphas = _alphas(noise_schedule, diffusion_steps)
    with no_graph(), torch.device("meta"):  # no memory, no random numbers: all weights come from the file
        net = ADM(
            image_size=image_size,
            num_channels=num_channels,
            num_res_blocks=num_res_blocks,
            channel_mult=channel_mult,
            attention_resolutions=attention_resolutions,
            num_heads=num_heads,
            num_head_channels=num_head_channels,
            resblock_updown=resblock_updown,
            use_scale_shift_norm=use_scale_shift_norm,
            learn_sigma=learn_sigma,
            use_new_attention_order=use_new_attention_order,
            time_scale=1000 / diffusion_steps if rescale_timesteps else 1.0,
        )
    _fill(net, Path(path))
    return from_callable(net.eval().requires_grad_(False), alphas, image_size)


def _numbers(given: Sequence[float] | str) -> list[float]:
    """Parses numbers, also those of a flag such as ``"32,16,8"``."""
    try:
        numbers = [float(number) for number in (given.split(",") if isinstance(given, str) else given)]
    except (TypeError, ValueError):
        numbers = [0.0]
    if any(number <= 0 for number in numbers):
        raise ValueError(f"expected positive numbers, such as (1, 2, 4) or '1,2,4', got {given!r}")
    return numbers


def _widths(image_size: int, num_channels: int, channel_mult: Sequence[float] | str | None) -> list[int]:
    """Returns channels of the maps in each size."""
    factors = _numbers(channel_mult) if channel_mult else _WIDTHS.get(image_size)
    if not factors:
        raise ValueError(f"expected channel_mult for images of {image_size}; it is known for {sorted(_WIDTHS)} only")
    widths = [int(factor * num_channels) for factor in factors]
    if any(width < GROUPS or width % GROUPS for width in [num_channels, *widths]):
        raise ValueError(f"expected multiples of {GROUPS} channels, got num_channels={num_channels} and {widths}")
    if image_size < 1 or image_size % 2 ** (len(widths) - 1):
        raise ValueError(f"images of {image_size} cannot be halved {len(widths) - 1} times; check channel_mult")
    return widths


def _alphas(schedule: str, steps: int) -> Tensor:
    """Returns the share of the image's variance that is left after each step, (T,) float64."""
    if schedule not in get_args(NoiseSchedule):
        raise ValueError(f"expected noise_schedule one of {get_args(NoiseSchedule)}, got {schedule!r}")
    least = 21 if schedule == "linear" else 2  # with fewer a linear schedule leaves nothing
    if steps < least:
        raise ValueError(f"expected at least {least} diffusion_steps of a {schedule} schedule, got {steps}")
    if schedule == "linear":
        return linear_alphas(steps)
    level = torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return (level[1:] / level[:-1]).clamp(min=0.001).cumprod(0)


def _fill(net: ADM, path: Path) -> None:
    """Puts a file's weights into a network on the meta device: all of them, or none."""
    wanted = net.state_dict()
    places = places_in(path)
    agree = {key: sum(name in wanted for name in tensors) for key, tensors in places.items()}
    best = [key for key in places if agree[key] == max(agree.values())]
    if len(best) > 1:
        raise ValueError(
            f"{path.name!r} holds weights under {', '.join(repr(key) for key in best)}; save the one to use, such as "
            "the average (ema), in a file of its own"
        )
    tensors = places.pop(best[0])
    places.clear()
    if complaints := _complaints(wanted, tensors):
        told = "\n  ".join([*complaints, "say the options with which it was trained"])
        raise ValueError(f"{path.name!r} does not fit this network; nothing was loaded:\n  {told}")
    # one after the other, so that memory holds little more than one copy; and not the file's own, which may be mapped
    with no_graph():
        net.load_state_dict({n: tensors.pop(n).to(torch.float32, copy=True) for n in wanted}, assign=True)


def _complaints(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Returns one line for each kind of mismatch."""
    missing = [repr(name) for name in wanted if name not in found]
    more = [repr(name) for name in found if name not in wanted]
    both = {name: tensor for name, tensor in found.items() if name in wanted}
    named = [(missing, "missing in the file"), (more, "more in the file")]
    result = [f"{len(names)} {what}: {some(names)}" for names, what in named if names]
    result += [*unfit(wanted, both), *beyond_range(wanted, both)]
    if any(name.startswith("label_emb.") for name in found):
        result.insert(0, "it was trained with classes (label_emb); expected an unconditional network")
    return result
