"""What a report is made of: results with what belongs to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

from torch import Tensor

from facexai.input_spec import InputSpec
from facexai.report.pictures import Album
from facexai.report.regions import regions

MOST = 12
"""Items of a section that a page shows, unless it is told otherwise."""


@final
@dataclass(frozen=True, eq=False)
class Section:
    """A result with what belongs to it.

    Attributes:
        result: an answer (Saliency, PairSaliency, FrequencyHeat, Counterfactual), or a finding (metrics' Table, Bias,
            ShortcutAudit, Roc, or the Results of a run).
        measured: what :mod:`facexai.metrics` found about its maps, with controls: deletion, retention, curves.
        names: of the photos, one for each item; of pairs ``(first, second)``; default: numbers.
        images: of the items, where the result does not hold them, as after loading: (N, 3, H, W), of pairs
            (P, 2, 3, H, W); or a list with None for each that is missing.
        note: a sentence of yours under the heading.
        sample: False where the items were chosen, such as wrong decisions: then nothing is said about all of them.
    """

    result: Any
    measured: Sequence[Any] = ()
    names: Sequence[Any] | None = None
    images: Tensor | Sequence[Tensor | None] | None = None
    note: str = ""
    sample: bool = True


@final
@dataclass(frozen=True, eq=False)
class Page:
    """What the sections of a page share.

    Attributes:
        album: takes the pictures.
        spec: how the photos are aligned; None: regions of the face are not told.
        most: items of a section that are shown.
    """

    album: Album = field(default_factory=Album)
    spec: InputSpec | None = None
    most: int = MOST

    @cached_property
    def masks(self) -> Mapping[str, Tensor] | None:
        """Regions of the face."""
        return None if self.spec is None else regions(self.spec)

    def masks_for(self, size: tuple[int, int]) -> Mapping[str, Tensor] | None:
        """The regions, where they are about images of this size."""
        return self.masks if self.spec is not None and self.spec.height_width == size else None


def finite(value: Any) -> float | None:
    """A number as JSON can hold it; None for what is none."""
    if value is None:
        return None
    made = float(value)
    return made if math.isfinite(made) else None


def plain(value: Any) -> Any:
    """What a recipe says, as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(held) for held in value]
    try:
        return finite(value)
    except (TypeError, ValueError):
        return str(value)


def image_of(section: Section, item: int) -> Tensor | None:
    """The image of an item, or the two of a pair; None where it is not known."""
    held = getattr(section.result, "images", None) if section.images is None else section.images
    return None if held is None else held[item]


def checked_names(section: Section, count: int) -> list[Any]:
    """A name for each item.

    Raises:
        ValueError: another number of names.
    """
    if section.names is None:
        return [None] * count
    if len(section.names) != count:
        raise ValueError(f"expected a name for each of the {count} items, got {len(section.names)}")
    return list(section.names)
