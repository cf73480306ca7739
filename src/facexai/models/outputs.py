"""Running a network, and from whatever it returns to one (N, D) tensor."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facexai._messages import FaceXAIWarning, clipped, near_matches, short

Take = int | str | Callable[[Any], Tensor]

_WELL_KNOWN = ("embedding", "embeddings", "features", "feature", "logits")


def forward(
    net: nn.Module, x: Tensor, take: Take | None, spec: object, kwargs: Mapping[str, Any], images: int
) -> tuple[Tensor, Take | None]:
    """The (N, D) tensor that a network gives for its input, and what was taken of its output.

    Args:
        net: the network, in eval mode.
        x: (N, 3, H, W), or (N, 1, H, W) of a network of one channel, its own input.
        take: index, key or function; None: the first tensor, said in a warning where there are more.
        spec: how the input was made, for the note that is added to the network's own errors.
        kwargs: the network's other arguments.
        images: N, of which x may hold mirrored copies, too.

    Raises:
        ValueError: NaN or infinity in the output, or no (N, D) tensor.
    """
    try:
        raw = net(x, **kwargs)
    except Exception as error:
        error.add_note(
            f"while {type(net).__name__} ran on its input {tuple(x.shape)} ({x.dtype}, by {spec}); "
            "does the spec fit the network?"
        )
        raise
    if take is None and (take := default_take(raw)) is not None:
        what = "element" if isinstance(take, int) else "key"
        warnings.warn(
            f"the network returns {describe(raw)}; took {what} {take!r}. Say take={take!r} to agree",
            FaceXAIWarning,
            stacklevel=4,
        )
    rows = select(raw, take, len(x))
    if not (finite := torch.isfinite(rows.detach()).all(1)).all():
        bad = sorted({i % images for i in (~finite).nonzero()[:, 0].tolist()})
        raise ValueError(f"the network returned NaN or infinity for image {bad[:8]}; check weights, precision and spec")
    return rows, take


def default_take(output: Any) -> int | str | None:
    """What to take from this output when nobody said: a well-known key, else the first tensor; None for a tensor.

    >>> import torch
    >>> default_take((None, torch.zeros(1, 2)))
    1
    """
    if isinstance(output, Mapping):
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        return next((key for key in _WELL_KNOWN if key in tensors), tensors[0] if tensors else None)
    if isinstance(output, tuple | list):
        return next((i for i, value in enumerate(output) if isinstance(value, Tensor)), None)
    return None


def select(output: Any, take: Take | None, images: int) -> Tensor:
    """The (N, D) tensor in a network's output.

    Args:
        output: a tensor, or a tuple, list or dict that holds it.
        take: index, key or function; None: the output is the tensor.
        images: N, the number of images that went in.

    Raises:
        ValueError: nothing suitable is there, or it is not one row per image.
    """
    chosen = output
    if callable(take):
        chosen = take(output)
    elif take is not None:
        if isinstance(output, Mapping):
            if take not in output:
                raise ValueError(f"the network's output has no {take!r}; {near_matches(str(take), map(str, output))}")
        elif (
            not isinstance(output, tuple | list) or not isinstance(take, int) or not -len(output) <= take < len(output)
        ):
            raise ValueError(f"the network returns {describe(output)}; take={take!r} is not in it")
        chosen = output[take]
    if not isinstance(chosen, Tensor) or not chosen.is_floating_point():
        raise ValueError(
            f"expected a floating-point tensor (N, D) from the network, got {describe(chosen)}; set take= to an "
            "index, a key or a function of the output"
        )
    if chosen.ndim == 4 and chosen.shape[-2:] == (1, 1):
        chosen = chosen.flatten(1)
    if chosen.ndim != 2:
        raise ValueError(
            f"expected (N, D) from the network, got shape {tuple(chosen.shape)}; set take= to its embedding or logits"
        )
    if len(chosen) != images:
        raise ValueError(f"{images} images went in and {len(chosen)} rows came out; expected one row per image")
    return chosen


def describe(output: Any) -> str:
    """A value in a few words, for error messages.

    >>> describe((1, 2))
    'a tuple of 2'
    """
    if isinstance(output, Tensor):
        return f"a {output.dtype} tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a dict with {clipped(', '.join(short(key) for key in itertools.islice(output, 50)))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def named(take: Take | None) -> int | str | None:
    """What is taken, without the address that a function's repr has."""
    return getattr(take, "__qualname__", type(take).__name__) if callable(take) else take
