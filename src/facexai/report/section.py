"""Sections of a report: results with their measurements, names and images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

from torch import Tensor

from facexai._errors import short_repr
from facexai._json import finite
from facexai.functional._decision import Verdict
from facexai.input_spec import InputSpec, check_pixels
from facexai.report.format import name_of
from facexai.report.pictures import ImageStore
from facexai.report.regions import regions
from facexai.report.thresholds import Thresholds

MOST = 12
"""The default number of items that a page shows in each section."""


@final
@dataclass(frozen=True, eq=False)
class Section:
    """A result with its measurements, names and images.

    Attributes:
        result: an answer (Saliency, PairSaliency, FrequencyHeat, Counterfactual), or a finding (metrics' Table, Bias,
            ShortcutAudit, Roc, or the Results of a run).
        measured: measurements of :mod:`facexai.metrics` on its maps, with controls: deletion, retention, curves; of
            counterfactuals those of the no-op control. Another method's, network's, or other pairs' are refused; that
            they are about these very photos of a class map is yours to say.
        names: of the photos, one for each item; of pairs ``(first, second)``, or one for both; default: numbers.
        images: of the items, where the result does not hold them, as after loading: (N, 3, H, W), of pairs
            (P, 2, 3, H, W); or a list with None for each that is missing.
        note: a sentence of yours under the heading.
        of: how many items there are, where the result holds some of them only.
        sample: False where the items were chosen, such as wrong decisions: then the page makes no statement
            about all of them.
    """

    result: Any
    measured: Sequence[Any] = ()
    names: Sequence[Any] | None = None
    images: Tensor | Sequence[Tensor | None] | None = None
    note: str = ""
    sample: bool = True
    of: int | None = None

    def __post_init__(self) -> None:
        for name in ("measured", "names"):
            held = getattr(self, name)
            if not ((isinstance(held, Sized) and isinstance(held, Iterable)) or (name == "names" and held is None)):
                raise TypeError(f"expected {name} as a list, got {type(held).__name__}; give {name}=[...]")
        images = self.images
        if images is not None and not isinstance(images, Tensor):
            odd = next((i for i in _listed(images) if not isinstance(i, Tensor | None)), None)
            if odd is not None:
                raise TypeError(f"expected images as a tensor, or a list of tensors and None, got {type(odd).__name__}")
        if not isinstance(self.note, str):
            raise TypeError(f"expected note as a sentence, got {type(self.note).__name__}")
        if self.of is not None and (isinstance(self.of, bool) or not isinstance(self.of, int) or self.of < 0):
            raise ValueError(f"expected of as the number of all items, got {short_repr(self.of)}")


def _listed(images: Any) -> Sequence[Any]:
    return images if isinstance(images, list | tuple) else [images]


@final
@dataclass(frozen=True, eq=False)
class RecordedFinding:
    """A finding's record, as a command wrote it.

    Attributes:
        record: of the section, with its ``recipe``.
    """

    record: Mapping[str, Any]


@final
@dataclass(frozen=True, eq=False)
class Page:
    """The context that the sections of a page share.

    Attributes:
        album: takes the pictures.
        spec: how the photos are aligned; None: regions of the face are not reported.
        most: items of a section that are shown.
        thresholds: cosines from which a pair, or a face and the nearest enrolled person, are accepted.
    """

    album: ImageStore = field(default_factory=ImageStore)
    spec: InputSpec | None = None
    most: int = MOST
    thresholds: Thresholds = field(default_factory=Thresholds)

    @cached_property
    def masks(self) -> Mapping[str, Tensor] | None:
        """The regions of the face; None without an input specification."""
        return None if self.spec is None else regions(self.spec)

    def masks_for(self, size: tuple[int, int]) -> Mapping[str, Tensor] | None:
        """Returns the regions if they fit images of this size, else None."""
        return self.masks if self.spec is not None and self.spec.height_width == size else None


def image_of(section: Section, item: int) -> Tensor | None:
    """Returns the image of an item, or the two of a pair; None where it is missing."""
    held = getattr(section.result, "images", None) if section.images is None else section.images
    return None if held is None else held[item]


def verdict(cosine: Tensor | float | None, own: float | None, recipe: Mapping[str, Any], page: Page) -> Verdict:
    """Returns the decision about a cosine at the result's own threshold, else at the page's."""
    return Verdict.of(cosine, finite(page.thresholds.of(recipe) if own is None else own))


def checked_names(section: Section, count: int, *, pairs: bool = False) -> list[Any]:
    """Returns a name for each item, or None for each; for pairs one name or two.

    Raises:
        ValueError: another number of names.
    """
    if section.names is None:
        return [None] * count
    if isinstance(section.names, str) or len(section.names) != count:
        raise ValueError(f"expected a name for each of the {count} items, got {short_repr(section.names)}")
    return [_name(name, pairs) for name in section.names]


def _name(name: Any, pairs: bool) -> str | tuple[str, str]:
    if not isinstance(name, tuple | list):
        return name_of(name)
    if not pairs or len(name) != 2:
        expected = "names of pairs as (first, second), or one for both" if pairs else "one name for each photo"
        raise ValueError(f"expected {expected}, got {short_repr(name)}")
    return name_of(name[0]), name_of(name[1])


def checked_images(section: Section, shape: tuple[int, ...], count: int) -> None:
    """Refuses images that do not fit the result: another number, size or dtype.

    Args:
        section: whose.
        shape: of one item's: (3, H, W), of a pair (2, 3, H, W).
        count: items.
    """
    if section.images is None:
        return
    held = list(section.images)
    odd = next((i for i in held if i is not None and (tuple(i.shape) != shape or not i.is_floating_point())), None)
    if len(held) != count or odd is not None:
        got = f"{len(held)} of them" if odd is None else f"{tuple(odd.shape)} of {odd.dtype}"
        raise ValueError(f"expected images {(count, *shape)} in [0, 1] as floats, got {got}")
    for one in held:
        if one is not None:
            check_pixels(one)


def not_measured(section: Section) -> None:
    """Refuses measurements, names and images of a result that has no items."""
    for name in ("measured", "names", "images"):
        if getattr(section, name) is not None and len(getattr(section, name)):
            raise ValueError(f"a {type(section.result).__name__} takes no {name}=; it is a finding of its own")
