"""Loads saved answers: tensors and their metadata, without pickle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from facexai import io
from facexai._errors import short_repr, truncate
from facexai.results import counterfactual, frequency, pairs, saliency
from facexai.results.parts import FORMAT

Answer = saliency.Saliency | pairs.PairSaliency | frequency.FrequencyHeat | counterfactual.Counterfactual

_KINDS: Mapping[str, Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], Answer]] = {
    "Saliency": saliency.loaded,
    "PairSaliency": pairs.loaded,
    "FrequencyHeat": frequency.loaded,
    "Counterfactual": counterfactual.loaded,
}


def load(path: str | Path) -> Answer:
    """Reads what the ``save`` of an answer wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, too large, or no saved answer.
    """
    arrays, manifest = io.load(path)
    kind = manifest.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS or manifest.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected a saved {' or '.join(_KINDS)} of format {FORMAT}, got {short_repr(kind)} of format "
            f"{short_repr(manifest.get('format'))}"
        )
    try:
        return _KINDS[kind]({name: torch.from_numpy(array) for name, array in arrays.items()}, manifest)
    except (
        Exception
    ) as error:  # parts that are missing, and kinds and shapes that only torch looks at, fail in many ways
        raise ValueError(f"{path} is no complete {kind}: {truncate(error)}") from error
