"""Running a network, and from whatever it returns to one (N, D) tensor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from facexai._errors import short_repr, suggest, truncate, warn
from facexai._row_passes import one_by_one
from facexai.models._row_mixing import mixes, row_arguments

Take = int | str | Callable[[Any], Tensor]

ALONE = (
    "what the network gives for an image depends on the others in its batch (a norm or an attention over the batch, or "
    "rows that change places), so images run one at a time"
)
_DEEPEST = 3  # levels of tuples and dicts that are looked through
_WELL_KNOWN = ("embedding", "embeddings", "features", "feature", "logits")


def forward(
    net: nn.Module,
    x: Tensor,
    take: Take | None,
    spec: object,
    kwargs: Mapping[str, Any],
    images: int,
    other: Callable[[], Tensor],
) -> tuple[Tensor, Take | None]:
    """Returns the (N, D) tensor that a network gives for its input, and what was taken of its output.

    A network that mixes the images of a batch runs on one at a time; see :mod:`facexai.models._row_mixing`.

    Args:
        net: the network, in eval mode.
        x: (N, 3, H, W), or (N, 1, H, W) of a network of one channel, its own input.
        take: index, key or function; None: the first tensor, with a warning if there are more.
        spec: how the input was made, for the note that is added to the network's own errors.
        kwargs: the network's other arguments.
        images: N, of which x may hold mirrored copies, too.
        other: gives (1, 3, H, W), another input, which takes the place of other images where mixing is looked for.

    Raises:
        ValueError: NaN or infinity in the output, or no (N, D) tensor; the network mixes images and runs on batches
            only.
    """

    def run(batch: Tensor, kwargs: Mapping[str, Any], quiet: bool = False) -> tuple[Tensor, Take | None]:
        raw = _called(net, batch, spec, kwargs)
        chosen = take
        if take is None and (chosen := default_take(raw)) is not None and not quiet:
            warn_of_choice(raw, chosen)
        return select(raw, chosen, len(batch)), chosen

    if len(x) > 1 and mixes(net, lambda batch, kwargs: run(batch, kwargs, True)[0], x, other, kwargs):
        try:
            parts = one_by_one(lambda i: run(x[i : i + 1], row_arguments(kwargs, slice(i, i + 1)), i > 0), len(x))
        except Exception as error:
            error.add_note(ALONE)
            raise
        rows, took = torch.cat([row for row, _ in parts]), parts[0][1]
    else:
        rows, took = run(x, kwargs)
    if not (finite := torch.isfinite(rows.detach()).all(1)).all():
        bad = sorted({i % images for i in (~finite).nonzero()[:, 0].tolist()})
        raise ValueError(f"the network returned NaN or infinity for image {bad[:8]}; check weights, precision and spec")
    return rows, took


def _called(net: nn.Module, x: Tensor, spec: object, kwargs: Mapping[str, Any]) -> Any:
    try:
        return net(x, **kwargs)
    except Exception as error:
        error.add_note(
            f"while {type(net).__name__} ran on its input {tuple(x.shape)} ({x.dtype}, by {spec}); "
            "does the spec fit the network?"
        )
        raise


def warn_of_choice(output: Any, take: int | str) -> None:
    """Warns which element of an output was taken."""
    what = "element" if isinstance(take, int) else "key"
    warn(
        f"the network returns {describe(output)} with {shapes(output)}; took {what} {take!r}. Say take={take!r} to "
        "agree or take another, FaceModel(net, spec, take=...)"
    )


def default_take(output: Any) -> int | str | None:
    """Returns the default element of this output: a well-known key, else the first tensor; None for a tensor.

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
    """Returns the (N, D) tensor in a network's output.

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
                raise ValueError(f"the network's output has no {take!r}; {suggest(str(take), map(str, output))}")
        elif (
            not isinstance(output, tuple | list) or not isinstance(take, int) or not -len(output) <= take < len(output)
        ):
            raise ValueError(f"the network returns {describe(output)}; take={take!r} is not in it")
        chosen = output[take]
    if not isinstance(chosen, Tensor) or not chosen.is_floating_point():
        raise ValueError(
            f"expected a floating-point tensor (N, D) from the network, got {describe(chosen)}; set take= to an "
            f"index, a key or a function of the output{_advice(output, images)}"
        )
    if chosen.ndim == 4 and chosen.shape[-2:] == (1, 1):
        chosen = chosen.flatten(1)
    if chosen.ndim != 2:
        raise ValueError(
            f"expected (N, D) from the network, got shape {tuple(chosen.shape)}; set take= to its embedding or logits"
            f"{_advice(output, images)}"
        )
    if len(chosen) != images:
        raise ValueError(
            f"{images} images went in and {len(chosen)} rows came out; expected one row per image. A function "
            "that gives one row for all of its images, as some of OpenCV do, is called with one at a time: "
            f"FaceModel.from_callable(function, batch_size=1){_advice(output, images)}"
        )
    return chosen


def elements(output: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """Yields the tensors in a network's output, three levels deep, with the indices and keys that lead to each.

    >>> [(path, tuple(x.shape)) for path, x in elements((torch.zeros(2, 9), {"norm": torch.zeros(2, 1)}))]
    [((0,), (2, 9)), ((1, 'norm'), (2, 1))]
    """
    if isinstance(output, Tensor):
        yield path, output
    elif len(path) < _DEEPEST and isinstance(output, Mapping | tuple | list):
        for key, value in output.items() if isinstance(output, Mapping) else enumerate(output):
            yield from elements(value, (*path, key))


def candidates(output: Any, images: int) -> dict[tuple[int | str, ...], Tensor]:
    """Returns the elements of an output that may be embeddings or logits: floating-point (N, D) with D > 1."""
    return {
        path: x
        for path, x in elements(output)
        if path and x.is_floating_point() and x.ndim == 2 and len(x) == images and x.shape[1] > 1
    }


def taking(path: Sequence[int | str]) -> str:
    """Returns the argument that takes an element, as a user writes it.

    >>> taking((1,)), taking((0, "id"))
    ('take=1', "take=lambda output: output[0]['id']")
    """
    if len(path) == 1:
        return f"take={path[0]!r}"
    return "take=lambda output: output" + "".join(f"[{key!r}]" for key in path)


def shapes(output: Any) -> str:
    """Returns every tensor in an output with its shape, in words."""
    some = itertools.islice(elements(output), 50)
    return truncate(", ".join(f"{'.'.join(map(str, path))}: {tuple(x.shape)}" for path, x in some))


def _advice(output: Any, images: int) -> str:
    """Returns the elements of an output that fit, as the end of a sentence; nothing where none does."""
    fit = [f"{taking(path)} {tuple(x.shape)}" for path, x in candidates(output, images).items()]
    return f"; what fits: {truncate(', '.join(fit))}" if fit else ""


def describe(output: Any) -> str:
    """Returns a value in a few words, for error messages.

    >>> describe((1, 2))
    'a tuple of 2'
    """
    if isinstance(output, Tensor):
        return f"a {output.dtype} tensor of shape {tuple(output.shape)}"
    if isinstance(output, Mapping):
        return f"a dict with {truncate(', '.join(short_repr(key) for key in itertools.islice(output, 50)))}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"


def named(take: Take | None) -> int | str | None:
    """Returns the name of the element that is taken, without the address in a function's repr."""
    return getattr(take, "__qualname__", type(take).__name__) if callable(take) else take
