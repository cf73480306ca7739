"""A small diffusion model of drawn faces, trained on the processor in minutes; counterfactuals edit with it.

python examples/studies/train_denoiser.py --out denoiser                # pip install "facexai[diffusion]"

Every step draws new faces (``facexai.demo.synthetic``), adds noise to them and asks a ``diffusers.UNet2DModel`` which
noise it was (Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 14), more often for little noise, which is where edits
happen. The weights that are kept are a moving average. The same command goes on after the last checkpoint and ends with
the same bits (with the same number of threads); with more ``--steps`` it goes on from where it ended.

The folder then has what diffusers loads, ``unet`` and ``scheduler``, the weights in half precision, ``history.json``,
and two pictures: ``samples.png``, drawn from noise alone, and ``edits.png``, faces above what is left of them after
noise and its removal.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from checkpoint import keep, resume
from torch import Tensor, nn
from tqdm import tqdm

from facexai import images
from facexai.demo import synthetic
from facexai.functional.diffusion import Schedule, linear_alphas, respaced
from facexai.io import output_folder, write_json
from facexai.perturb.draws import generator

SIZE, TRAINED_ON, TAKEN, START = 32, 500, 200, 60  # pixels; noise levels; those taken to edit; the edits' first


@dataclass(frozen=True)
class Recipe:
    """Every option that changes the weights."""

    steps: int = 6000
    batch_size: int = 16
    lr: float = 0.002
    channels: tuple[int, ...] = (16, 32, 64, 96)
    average: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, *self.channels) < 1 or not 0 < self.lr <= 1 or not 0 <= self.average < 1:
            raise ValueError(f"expected at least one step and face, lr in (0, 1] and average in [0, 1), got {self}")
        if any(channels % 8 for channels in self.channels):
            raise ValueError(f"expected numbers of channels that 8 divides, got {self.channels}")


def network(channels: Sequence[int]) -> Any:
    """An untrained network, with attention at the smallest size alone."""
    from diffusers import UNet2DModel

    down, up = ["DownBlock2D"] * (len(channels) - 1), ["UpBlock2D"] * (len(channels) - 1)
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=tuple(channels),
        down_block_types=(*down, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *up),
        norm_num_groups=8,
        attention_head_dim=16,
    )


def scheduler() -> Any:
    """The noise levels as diffusers stores them."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(TRAINED_ON, beta_start=0.1 / TRAINED_ON, beta_end=20 / TRAINED_ON, beta_schedule="linear")


def batch(recipe: Recipe, step: int, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy faces in [-1, 1], their noise levels and the noise of one step; they depend on the step alone."""
    size, draws = recipe.batch_size, generator(recipe.seed, step, "noise to train on")
    faces = synthetic.faces(size, size=SIZE, seed=recipe.seed, first=step * size).images * 2 - 1
    levels = (torch.rand(size, generator=draws).pow(1.5) * len(left)).long()
    noise, share = torch.randn(faces.shape, generator=draws), left[levels].float()[:, None, None, None]
    return share.sqrt() * faces + (1 - share).sqrt() * noise, levels, noise


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate rises for 100 steps and falls to a twentieth in the last third."""
    falling = min(1.0, 3 * (1 - step / recipe.steps))
    return recipe.lr * min(1.0, (step + 1) / 100) * max(0.05, falling)


def train(recipe: Recipe, out: Path, *, every: int = 200, progress: bool = True) -> nn.Module:
    """The averaged network after the last step; a run that was stopped goes on in the folder ``out``."""
    torch.manual_seed(recipe.seed)  # diffusers initialises from the global random state
    net = network(recipe.channels)
    average = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=1e-4)
    facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items() if k != "steps"}
    stateful = {"weights": net, "average": average, "optimizer": optimizer}
    known = resume(out / "checkpoint.pt", facts, stateful, "losses")
    losses, left = [] if known is None else known.tolist(), linear_alphas(TRAINED_ON)
    out.mkdir(parents=True, exist_ok=True)
    steps = range(len(losses), recipe.steps)
    with tqdm(steps, initial=len(losses), total=recipe.steps, unit="step", disable=not progress) as bar:
        for step in bar:
            optimizer.param_groups[0]["lr"] = rate(recipe, step)
            noisy, levels, noise = batch(recipe, step, left)
            loss = F.mse_loss(net(noisy, levels).sample, noise)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0, error_if_nonfinite=True)
            optimizer.step()
            follow(average, net, min(recipe.average, (step + 1) / (step + 10)))
            losses.append(loss.item())
            if len(losses) % every == 0 or len(losses) == recipe.steps:
                keep(out / "checkpoint.pt", facts, stateful, losses=torch.tensor(losses))
                bar.set_postfix(loss=f"{sum(losses[-every:]) / len(losses[-every:]):.4f}")
    write_json(out / "history.json", {"recipe": asdict(recipe), "loss": losses})
    return average.eval()


def follow(average: nn.Module, net: nn.Module, share: float) -> None:
    """Move the average towards the network, keeping that share of it."""
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
            slow.lerp_(fast, 1 - share)


@torch.no_grad()
def denoised(net: Callable[..., Any], noisy: Tensor, schedule: Schedule, start: int, seed: int = 0) -> Tensor:
    """Faces in [0, 1] from noisy ones at that step of the schedule, step by step to none (Ho et al., algorithm 2)."""
    draws = torch.Generator().manual_seed(seed)
    for step in reversed(range(start + 1)):
        levels = schedule.timesteps[step].expand(len(noisy))
        clean = schedule.estimate(noisy, step, net(noisy, levels).sample)
        spread = schedule.log_variance(step, None, noisy).exp().sqrt()
        noise = torch.randn(noisy.shape, generator=draws) if step else torch.zeros_like(noisy)
        noisy = schedule.posterior(clean, noisy, step) + spread * noise
    return (noisy.clamp(-1, 1) + 1) / 2


def judge(net: nn.Module, out: Path, seed: int, count: int = 48) -> float:
    """Draw both pictures; the mean absolute difference of faces after noise up to an edit's first step, and back.

    The faces are of a seed that was not trained on.
    """
    schedule, draws = respaced(linear_alphas(TRAINED_ON), TAKEN), torch.Generator().manual_seed(seed)
    faces = synthetic.faces(count, size=SIZE, seed=seed + 1).images
    noise = torch.randn(faces.shape, generator=draws)
    back = denoised(net, schedule.noised(faces * 2 - 1, START, noise), schedule, START, seed)
    images.save(sheet(torch.stack([faces, back], 1).flatten(0, 1), 2), out / "edits.png")
    images.save(sheet(denoised(net, noise, schedule, TAKEN - 1, seed), 1), out / "samples.png")
    return float((back - faces).abs().mean())


def sheet(faces: Tensor, rows: int, columns: int = 12, zoom: int = 3) -> Tensor:
    """Faces (N, 3, H, W) side by side, enlarged; each ``rows`` that follow each other stand above each other."""
    large = F.pad(faces, (0, 1, 0, 1), value=1.0).repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    groups = large[: len(large) // (rows * columns) * rows * columns].unflatten(0, (-1, columns, rows))
    return groups.permute(3, 0, 2, 4, 1, 5).flatten(1, 3).flatten(2, 3)


def store(net: Any, out: Path) -> None:
    """What ``facexai.denoisers.from_diffusers`` takes, as diffusers writes it, in half precision."""
    copy.deepcopy(net).half().save_pretrained(out / "unet")
    scheduler().save_pretrained(out / "scheduler")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, store, draw, and say how near faces come to themselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for network, checkpoint and pictures")
    for field in fields(Recipe):
        default, option = getattr(Recipe, field.name), "--" + field.name.replace("_", "-")
        more = {"nargs": "+", "type": int} if field.name == "channels" else {"type": type(default)}
        parser.add_argument(option, default=default, help=f"default: {default}", **more)
    parser.add_argument("--threads", type=int, help="of torch")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        values = {field.name: getattr(options, field.name) for field in fields(Recipe)}
        recipe = Recipe(**values | {"channels": tuple(values["channels"])})
        out = output_folder(options.out)
        net = train(recipe, out)
        store(net, out)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise SystemExit(str(error)) from None
    error = judge(net, out, recipe.seed)
    history = json.loads((out / "history.json").read_text())["loss"][-200:]
    print(f"loss {sum(history) / len(history):.4f}; faces come back with a mean absolute difference of {error:.4f}")


if __name__ == "__main__":
    main()
