"""Networks of the package diffusers as denoisers, from memory or from a local folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from facexai._errors import require, short_repr, truncate
from facexai.denoisers.checks import Size, calm, check_images, levels, parts, sides
from facexai.hooks import as_weights
from facexai.models._weight_values import few
from facexai.models.fingerprint import fingerprint

Prediction = Literal["epsilon", "sample", "v_prediction"]
Variance = Literal["small", "large", "learned"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_MOST_STEPS = 100_000  # that a scheduler may have
_MOST_BLOCKS, _MOST_LAYERS = 16, 32  # that a network may have, and layers in each


@final
@dataclass(frozen=True, eq=False)
class DiffusersDenoiser:
    """A ``UNet2DModel`` as a :class:`Denoiser`; see :func:`from_diffusers`.

    Attributes:
        unet: the network.
        alphas_cumprod: (T,) float64, of the scheduler.
        size: (H, W) or None.
        prediction: what the network estimates, turned into noise.
        variance: the kind that the scheduler uses.
    """

    unet: nn.Module = field(repr=False)
    alphas_cumprod: Tensor = field(repr=False)
    size: Size
    prediction: Prediction
    variance: Variance

    @property
    def recipe(self) -> dict[str, Any]:
        """Returns what results record of the denoiser."""
        said = {"denoiser": "diffusers", "size": self.size, "prediction": self.prediction, "variance": self.variance}
        return {**said, "network": type(self.unet).__name__, "fingerprint": fingerprint(self.unet)}

    def predict(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`Denoiser.predict`.

        Raises:
            ValueError: images of another size or device.
        """
        check_images(x, self.size)
        with calm(self.unet):
            estimate, values = parts(self.unet(as_weights(x, self.unet), t, return_dict=False)[0], x)
            if self.prediction != "epsilon":
                left = self.alphas_cumprod[t.cpu()][:, None, None, None]
                signal, noise = (share.sqrt().to(x.device, estimate.dtype) for share in (left, 1 - left))
                clean = self.prediction == "sample"
                estimate = (x - signal * estimate) / noise if clean else signal * estimate + noise * x
            if self.variance == "large":
                values = torch.ones_like(estimate)
            return estimate, values


def from_diffusers(unet: Any, scheduler: Any = None) -> DiffusersDenoiser:
    """Returns a network of the package diffusers, as a denoiser.

    It runs without a graph, in eval mode, on images in the precision of its weights, and is left unchanged. With
    a for the share of variance that is left after a step, noise is made of what it estimates in float32:

    - ``epsilon``: the noise itself;
    - ``sample``, the clean images s: (x - sqrt(a) s) / sqrt(1 - a);
    - ``v_prediction``, the velocity v: sqrt(a) v + sqrt(1 - a) x.

    Six output channels are the estimate and the variance's place between its bounds. A scheduler of ``fixed_large``
    puts it at the upper bound everywhere. Clipping and the choice of steps are not taken over.

    Args:
        unet: a ``diffusers.UNet2DModel``, 3 channels in, 3 or 6 out, without classes; or a local folder: of a pipeline
            (``unet/`` and ``scheduler/``), or of a network with ``scheduler_config.json`` in it. From a folder only
            ``.safetensors`` is read, as float32, and nothing is downloaded.
        scheduler: of diffusers, with ``alphas_cumprod``; None: the folder's.

    Raises:
        ImportError: diffusers is not installed (extra ``diffusion``).
        TypeError: something else than a network or folder.
        FileNotFoundError: no such folder, or a file is not in it.
        ValueError: no scheduler, or one without ``alphas_cumprod`` or with another prediction or
            ``rescale_betas_zero_snr`` (zero terminal SNR); a network with classes
            or other channels; a folder with a pickle instead of ``.safetensors``, or with files that cannot be read.

    Source: Salimans and Ho 2022, arXiv:2202.00512, app. D, for velocities; Nichol and Dhariwal 2021, arXiv:2102.09672,
    eq. 15, for variances.

    In memory it is ``from_diffusers(unet, DDPMScheduler())``; a folder has both:

    >>> from_diffusers("ddpm-celebahq-256")
    Traceback (most recent call last):
    FileNotFoundError: there is no folder 'ddpm-celebahq-256'; nothing is downloaded: fetch the network first...
    """
    folder = _existing(Path(unet)) if isinstance(unet, str | Path) else None
    library = _library()
    if folder is not None:
        scheduler = _scheduler(library, folder) if scheduler is None else scheduler
        unet = _network(library, folder / "unet" if (folder / "unet").is_dir() else folder)
    if not isinstance(unet, library.UNet2DModel):
        pipeline = hasattr(unet, "unet") and hasattr(unet, "scheduler")
        hint = "from_diffusers(pipe.unet, pipe.scheduler)" if pipeline else "another network goes into from_callable"
        raise TypeError(f"expected a diffusers.UNet2DModel or a folder, got {type(unet).__name__}; {hint}")
    if scheduler is None:
        raise ValueError("a network does not say how much noise its steps have; give the scheduler it was trained with")
    _check_network(unet)
    return DiffusersDenoiser(
        unet,
        _levels(scheduler),
        sides(unet.config.sample_size),
        _prediction(scheduler),
        _variance(scheduler, unet.config.out_channels),
    )


# ---- what the parts say -----------------------------------------------------------------------------------------


def _check_network(unet: Any) -> None:
    """Refuses networks that need more than noisy images, or output something else than their noise."""
    config = unet.config
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        raise ValueError(
            "the network is conditioned on classes (class_embed_type or num_class_embeds); expected one without, or "
            "from_callable(lambda x, t: unet(x, t, labels, return_dict=False)[0], scheduler.alphas_cumprod)"
        )
    if config.in_channels != 3 or config.out_channels not in (3, 6):
        raise ValueError(
            f"expected a network of RGB images, 3 channels in and 3 or 6 out, got {config.in_channels} in and "
            f"{config.out_channels} out"
        )


def _levels(scheduler: Any) -> Tensor:
    left = getattr(scheduler, "alphas_cumprod", None)
    if not isinstance(left, Tensor):
        raise ValueError(
            f"{type(scheduler).__name__} has no alphas_cumprod; expected a scheduler such as DDPMScheduler"
        )
    if _setting(scheduler, "rescale_betas_zero_snr") and bool(left[-1] <= 0):
        raise ValueError(
            f"{type(scheduler).__name__} has rescale_betas_zero_snr=True: at its last step nothing is left of the "
            "picture (zero terminal SNR), and noise cannot be turned into a picture there; expected a network trained "
            "with rescale_betas_zero_snr=False, or from_callable with the levels before that step"
        )
    return levels(left)


def _prediction(scheduler: Any) -> Prediction:
    asked: Prediction = _setting(scheduler, "prediction_type") or "epsilon"
    if asked not in get_args(Prediction):
        raise ValueError(
            f"expected a scheduler with prediction_type in {get_args(Prediction)}, got {short_repr(asked)}"
        )
    return asked


def _variance(scheduler: Any, channels: int) -> Variance:
    asked = str(_setting(scheduler, "variance_type") or "")
    if asked == "learned":
        raise ValueError(
            "the scheduler has variance_type='learned', a variance without bounds; expected 'learned_range', or a fixed"
            " one"
        )
    if asked == "learned_range" and channels != 6:
        raise ValueError(f"variance_type='learned_range' needs a network of 6 channels out, got {channels}")
    if channels == 6:
        return "learned"
    return "large" if asked.startswith("fixed_large") else "small"


def _setting(scheduler: Any, name: str) -> Any:
    config = getattr(scheduler, "config", None)
    return config.get(name) if isinstance(config, Mapping) else None


# ---- files ------------------------------------------------------------------------------------------------------


def _library() -> Any:
    return require("diffusers", extra="diffusion", purpose="from_diffusers")


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{str(folder)!r} is a file, expected the folder that diffusers' save_pretrained wrote")
    raise FileNotFoundError(
        f"there is no folder {str(folder)!r}; nothing is downloaded: fetch the network first, then name its folder"
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(file)!r} cannot be read ({truncate(error)}): truncated? copy or download it again"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{str(file)!r} holds no settings; copy or download it again")
    return content


def _scheduler(library: Any, folder: Path) -> Any:
    """Returns the scheduler that the folder describes."""
    files = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise FileNotFoundError(
            f"there is no scheduler/scheduler_config.json and no scheduler_config.json in {str(folder)!r}, which say "
            "how much noise the steps have; give scheduler="
        )
    config = _read_json(file)
    name = config.get("_class_name", "DDPMScheduler")
    try:
        kind = getattr(library, str(name), None)
    except Exception:  # of a class whose own packages are missing
        kind = None
    if not isinstance(kind, type) or not issubclass(kind, library.SchedulerMixin):
        raise ValueError(f"{str(file)!r} names {short_repr(name)}, no scheduler of this diffusers; give scheduler=")
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 2 <= steps <= _MOST_STEPS:
        raise ValueError(f"{str(file)!r} has num_train_timesteps={short_repr(steps)}, expected 2 to {_MOST_STEPS:,}")
    try:
        return kind.from_config(config)  # type: ignore[attr-defined]
    except Exception as error:  # of many types, whatever a wrong setting provokes
        raise ValueError(f"{str(file)!r} describes no {name} ({truncate(error)}); give scheduler=") from None


def _network(library: Any, folder: Path) -> Any:
    """Returns the network in a folder, every weight of it from the file."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"there is no config.json in {str(folder)!r}, which says what network it is")
    settings = _read_json(config)
    name = settings.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise ValueError(
            f"{str(config)!r} describes a {short_repr(name)}, expected a UNet2DModel: unconditional, of pixels"
        )
    _check_weights(folder)
    _check_settings(config, settings)
    try:
        _check_count(library, folder, settings)
        unet, told = library.UNet2DModel.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # of many types: of its own, of safetensors, of torch
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(
            f"the network in {str(folder)!r} cannot be read ({truncate(' '.join(lines[:2]))}): truncated, or of "
            "another config.json? copy or download it again"
        ) from None
    lost = [*told["missing_keys"], *told["unexpected_keys"]]
    if lost:
        raise ValueError(
            f"the weights in {str(folder)!r} do not fit its config.json: {len(told['missing_keys'])} missing, "
            f"{len(told['unexpected_keys'])} too many: {few(lost)}; copy or download both again"
        )
    nn.Module.to(unet, torch.float32)  # diffusers leaves float64 as it is, and its own method logs a warning
    odd = [name for name, tensor in unet.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if odd:
        raise ValueError(
            f"{len(odd)} weights in {str(folder)!r} are not finite as float32: {few(odd)}; expected finite numbers "
            "that float32 can hold"
        )
    return unet


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuses a network of more blocks and layers than any has, or one that other packages would have to unpack."""
    for name in ("block_out_channels", "down_block_types", "up_block_types"):
        if not isinstance(settings.get(name, []), list) or len(settings.get(name, [])) > _MOST_BLOCKS:
            told = short_repr(settings[name])
            raise ValueError(f"{str(file)!r} has {name}={told}, expected a list of at most {_MOST_BLOCKS}")
    layers = settings.get("layers_per_block", 1)
    if type(layers) is not int or not 1 <= layers <= _MOST_LAYERS:
        raise ValueError(f"{str(file)!r} has layers_per_block={short_repr(layers)}, expected 1 to {_MOST_LAYERS}")
    if settings.get("quantization_config") is not None:
        raise ValueError(f"{str(file)!r} describes a quantised network, expected one of plain floats")


def _check_count(library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuses a network of more numbers than its files have bytes, before memory is taken for them."""
    with torch.device("meta"):
        made = library.UNet2DModel.from_config(dict(settings))
    count = sum(parameter.numel() for parameter in made.parameters())
    size = sum(file.stat().st_size for file in folder.iterdir() if file.suffix == ".safetensors")
    if count > size:
        raise ValueError(f"config.json describes {count} numbers, the files hold {size} bytes")


def _check_weights(folder: Path) -> None:
    """Refuses a folder without weights that can be read without running code."""
    if (folder / _WEIGHTS).is_file():
        return
    index = folder / f"{_WEIGHTS}.index.json"
    if index.is_file():
        places = _read_json(index).get("weight_map")
        names = set(map(str, places.values())) if isinstance(places, dict) else {str(places)}
        if odd := sorted(name for name in names if not name.endswith(".safetensors") or Path(name).name != name):
            raise ValueError(f"{str(index)!r} names {odd[0]!r:.80}, expected .safetensors files in the same folder")
        return
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    if pickles:
        raise ValueError(
            f"{str(folder)!r} has {pickles[0]!r}, a pickle, which could run any code, and no {_WEIGHTS!r}. If you "
            "trust its source, convert it once: diffusers.UNet2DModel.from_pretrained(folder, use_safetensors=False)"
            ".save_pretrained(folder)"
        )
    raise FileNotFoundError(f"there is no {_WEIGHTS!r} in {str(folder)!r}, the weights")
