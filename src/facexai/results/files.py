"""How every answer is saved and loaded: tensors and what is said about them, without pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from facexai import io
from facexai._messages import clipped, short
from facexai.results import counterfactual, frequency, pairs, saliency

Answer = saliency.Saliency | pairs.PairSaliency | frequency.FrequencyHeat | counterfactual.Counterfactual

_FORMAT = 1
_KINDS: Mapping[str, Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], Answer]] = {
    "Saliency": saliency.loaded,
    "PairSaliency": pairs.loaded,
    "FrequencyHeat": frequency.loaded,
    "Counterfactual": counterfactual.loaded,
}


class Recorded(Protocol):
    """An answer with its recipe."""

    @property
    def recipe(self) -> Mapping[str, Any]: ...


def save_answer(path: str | Path, answer: Recorded, arrays: Iterable[str], manifest: Mapping[str, Any]) -> None:
    """Write those attributes of an answer that are not None, its recipe and what else is said about it, as ``.npz``."""
    held = {name: getattr(answer, name) for name in arrays}
    content = {name: _array(tensor) for name, tensor in held.items() if tensor is not None}
    told = {"format": _FORMAT, "kind": type(answer).__name__, **manifest, "recipe": dict(answer.recipe)}
    io.save(path, content, told)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    # NumPy has no bfloat16; float32 holds the very same numbers
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def load(path: str | Path) -> Answer:
    """Read what the ``save`` of an answer wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, too large, or no saved answer.
    """
    arrays, manifest = io.load(path)
    kind = manifest.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS or manifest.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: expected a saved {' or '.join(_KINDS)} of format {_FORMAT}, got {short(kind)} of format "
            f"{short(manifest.get('format'))}"
        )
    try:
        return _KINDS[kind]({name: torch.from_numpy(array) for name, array in arrays.items()}, manifest)
    except (
        Exception
    ) as error:  # parts that are missing, and kinds and shapes that only torch looks at, fail in many ways
        raise ValueError(f"{path} is no complete {kind}: {clipped(error)}") from error
