"""Answers about two faces, and about one face and all enrolled people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from facexai._errors import warn
from facexai.functional import upsample
from facexai.functional._decision import accepted, near
from facexai.results.notebook import drawn
from facexai.results.parts import Parts, cut_recipe, parts_of, recipe_of, save_answer, size_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DRAWN = 4  # pairs in a notebook
_LOOK = 5 / 112  # sigma of the display blur of maps with a value per pixel, in widths; as published for 112 px


@final
@dataclass(frozen=True, eq=False)
class PairSaliency:
    """Positive and negative evidence in each of two faces that they show the same person.

    Attributes:
        cells: (P, 2, h, w) raw signed values; ``[:, 0]`` is the first image's map, ``[:, 1]`` the second's.
        size: (H, W) of the images.
        scores: (P,) cosines, float64, of unit embeddings multiplied in float64.
        threshold: cosine from which a pair is accepted, or None.
        recipe: method and every choice that changed a number, with the model's fingerprint.
        constant: (P, 2), what no cell holds, for PairCAM: ``cells.sum((2, 3)) + constant`` is the score.
        table: (P, h, w, h, w), what each cell of the first and each of the second image add to the score together, for
            PairCAM.
        images: (P, 2, 3, H, W), a reference for drawing only; never saved.
    """

    cells: Tensor
    size: tuple[int, int]
    scores: Tensor
    threshold: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    constant: Tensor | None = None
    table: Tensor | None = None
    images: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.cells.ndim != 4 or self.cells.shape[1] != 2 or len(self.scores) != len(self.cells):
            raise ValueError(
                f"expected cells (P, 2, h, w) with P scores, got {tuple(self.cells.shape)} and {len(self.scores)}"
            )

    @cached_property
    def maps(self) -> Tensor:
        """Returns (P, 2, H, W): the cells drawn at the size of the images, bilinear, in their units."""
        return torch.stack([upsample(part, self.size) for part in self.cells.unbind(1)], 1)

    @property
    def similar(self) -> Tensor:
        """Returns (P, 2, H, W): the positive part of the maps, the evidence for a match."""
        return self.maps.clamp(min=0)

    @property
    def dissimilar(self) -> Tensor:
        """Returns (P, 2, H, W): the size of the negative part, the evidence against a match."""
        return (-self.maps).clamp(min=0)

    @property
    def accepted(self) -> Tensor | None:
        """Returns (P,) whether the score reaches the threshold, compared in float64; None without one."""
        return self._compared(accepted)

    @property
    def near(self) -> Tensor | None:
        """Returns (P,) whether the score is within 1e-6 of the threshold, where another device may decide otherwise."""
        return self._compared(near)

    def _compared(self, how: Callable[[Any, float], Any]) -> Tensor | None:
        if self.threshold is None:
            return None
        return torch.from_numpy(how(self.scores, self.threshold)).to(self.scores.device)

    @property
    def one_sign(self) -> Tensor:
        """Returns (P, 2) whether a map has only one sign: its shape is then hardly about this pair."""
        flat = self.cells.flatten(2)
        return ((flat >= 0).all(2) | (flat <= 0).all(2)) & flat.any(2)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, which: slice) -> PairSaliency:
        if not isinstance(which, slice):
            raise TypeError(f"expected a slice such as why[3:4], got {which!r}")
        parts = {name: getattr(self, name) for name in _PARTS}
        cut: dict[str, Any] = {name: None if part is None else part[which] for name, part in parts.items()}
        return replace(self, **cut, recipe=cut_recipe(self.recipe, which))

    def __repr__(self) -> str:
        h, w = self.cells.shape[2:]
        told = ", ".join(self._title(p) for p in range(min(2, len(self)))) + (", ..." if len(self) > 2 else "")
        return f"PairSaliency({self.recipe.get('method', '?')}, {len(self)} pairs, {h}x{w} cells; {told})"

    def _title(self, p: int) -> str:
        score = f"cosine {float(self.scores[p]):.3f}"
        if self.threshold is None:
            return score
        verdict = "match" if self.accepted is not None and bool(self.accepted[p]) else "no match"
        close = ", within 1e-6 of the threshold" if self.near is not None and bool(self.near[p]) else ""
        return f"{score}, threshold {self.threshold:.3f}: {verdict}{close}"

    # ---- correspondences --------------------------------------------------------------------------------------

    def matches(self, y: int, x: int, *, pair: int = 0) -> Tensor:
        """Returns the locations of the second face that one location of the first matched.

        Args:
            y, x: a pixel of the first image.
            pair: which pair.

        Returns:
            (H, W): how much every spot of the second image and the cell at (y, x) add to the score together.

        Raises:
            ValueError: no table (it is PairCAM's), or a pixel outside of the image.
        """
        table = self._table()
        height, width = self.size
        if not (0 <= y < height and 0 <= x < width):
            raise ValueError(f"expected a pixel of the {height}x{width} image, got ({y}, {x})")
        h, w = table.shape[1:3]
        return upsample(table[pair, y * h // height, x * w // width][None], self.size)[0]

    def strongest(
        self, count: int = 8, *, pair: int = 0
    ) -> list[tuple[tuple[float, float], tuple[float, float], float]]:
        """Returns the pairs of cells that add most to the score, each cell at most once.

        Returns:
            ``count`` times ((y, x) in the first image, (y, x) in the second, value), largest first; positive values.
        """
        table = self._table()[pair]
        h, w = table.shape[:2]
        flat = table.reshape(h * w, h * w).clone()
        scale = (self.size[0] / h, self.size[1] / w)
        result = []
        for _ in range(min(count, h * w)):
            best = int(flat.argmax())
            p, q = divmod(best, h * w)
            value = float(flat[p, q])
            if value <= 0:
                break
            places = [((i // w + 0.5) * scale[0] - 0.5, (i % w + 0.5) * scale[1] - 0.5) for i in (p, q)]
            result.append((places[0], places[1], value))
            flat[p], flat[:, q] = -torch.inf, -torch.inf
        return result

    def _table(self) -> Tensor:
        if self.table is None:
            raise ValueError(
                f"{self.recipe.get('method', 'this method')} has no table of correspondences; "
                "PairCAM(model)(first, second) has"
            )
        return self.table

    # ---- drawing and files ------------------------------------------------------------------------------------

    def plot(self, images: Tensor | None = None, *, blur: float | None = None) -> Figure:
        """Returns a row per pair: each photo beside its map, red for a match and blue against it.

        Args:
            images: (P, 2, 3, H, W); None: those that were explained.
            blur: sigma in widths of the image of a Gaussian over the drawn maps; None: 5/112 for maps with a value per
                pixel, as published, else 0. The values in ``.maps`` are never blurred.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        titles = [self._title(p) for p in range(len(self))]
        return plots.pairs(self._drawn(blur), self._images(images), titles, label=self._label)

    def plot_matches(self, count: int = 8, *, pair: int = 0, images: Tensor | None = None) -> Figure:
        """Returns the two photos with lines between the spots that matched most; see :meth:`strongest`."""
        from facexai import plots

        shown = self._images(images)
        return plots.matches(
            None if shown is None else shown[pair], self.strongest(count, pair=pair), self.size, self._title(pair)
        )

    def _drawn(self, blur: float | None) -> Tensor:
        from facexai.perturb import gaussian_blur

        per_pixel = tuple(self.cells.shape[2:]) == self.size
        blur = (_LOOK if per_pixel else 0.0) if blur is None else blur
        return self.maps if blur == 0 else gaussian_blur(self.maps, blur * self.size[1])

    def _images(self, images: Tensor | None) -> Tensor | None:
        images = self.images if images is None else images
        if images is not None and tuple(images.shape) != (len(self), 2, 3, *self.size):
            raise ValueError(
                f"expected the explained images ({len(self)}, 2, 3, {self.size[0]}, {self.size[1]}), got "
                f"{tuple(images.shape)}; torch.stack([first, second], 1)"
            )
        return images

    @property
    def _label(self) -> str:
        return (
            f"{self.recipe.get('method', 'map')} ({self.recipe.get('unit', 'signed')}): red for a match, blue against"
        )

    def _repr_html_(self) -> str:
        few = self if len(self) <= _MOST_DRAWN else self[:_MOST_DRAWN]
        return drawn(self, few, few.plot)

    def save(self, path: str | Path) -> None:
        """Writes cells, scores and the recipe as ``.npz``, without pickle and without the images.

        Raises:
            ValueError: the path does not end in ``.npz``.
            OSError: nothing was written.
        """
        save_answer(path, self, ARRAYS, {"size": list(self.size), "threshold": self.threshold})


ARRAYS = ("cells", "scores", "constant", "table")
_PARTS = (*ARRAYS, "images")


def loaded(arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> PairSaliency:
    """Reads what :meth:`PairSaliency.save` wrote."""
    p, _, h, w = arrays["cells"].shape
    parts: Parts = {"cells": ("float", (p, 2, h, w)), "scores": ("float", (p,)), "constant": ("float", (p, 2))}
    table: Parts = {"table": ("float", (p, h, w, h, w))}
    found: dict[str, Any] = parts_of(arrays, {**parts, **table}, ("constant", "table"))
    threshold = manifest["threshold"]
    return PairSaliency(
        **found,
        size=size_of(manifest),
        threshold=None if threshold is None else float(threshold),
        recipe=recipe_of(manifest),
    )


def warn_of_one_sign(why: PairSaliency) -> PairSaliency:
    """Warns of maps of one sign; returns the result."""
    bad = why.one_sign.any(1).nonzero()[:, 0].tolist()
    if bad:
        warn(
            f"a map of pair {bad[:8]} has one sign everywhere: it is nearly the distance of the score from the "
            "threshold times the image's own sensitivity, so its shape says little about this pair"
        )
    return why


@final
@dataclass(frozen=True, eq=False)
class GallerySaliency:
    """Positive and negative evidence in each probe for every enrolled person.

    Attributes:
        cells: (N, C, h, w) raw signed values.
        size: (H, W) of the images.
        scores: (N, C) cosines, float64, of unit embeddings and templates multiplied in float64.
        names: C people.
        threshold: cosine from which a pair is accepted, or None.
        recipe: method and every choice that changed a number.
        images: (N, 3, H, W), a reference for drawing only.
    """

    cells: Tensor
    size: tuple[int, int]
    scores: Tensor
    names: tuple[str, ...]
    threshold: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    images: Tensor | None = field(default=None, repr=False)

    @cached_property
    def maps(self) -> Tensor:
        """Returns (N, C, H, W): the cells drawn at the size of the images, bilinear, in their units."""
        return torch.stack([upsample(part, self.size) for part in self.cells.unbind(1)], 1)

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        n, c, h, w = self.cells.shape
        return f"GallerySaliency({self.recipe.get('method', '?')}, {n} probes, {c} people, {h}x{w} cells)"

    def ranked(self, probe: int = 0) -> list[tuple[str, float]]:
        """Returns people and cosines of a probe, most similar first."""
        order = self.scores[probe].argsort(descending=True).tolist()
        return [(self.names[c], float(self.scores[probe, c])) for c in order]

    def plot(self, probe: int = 0, *, people: int = 5) -> Figure:
        """Draws one probe and its maps against the people it is most similar to.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        order = self.scores[probe].argsort(descending=True)[:people]
        titles = [f"{self.names[c]}  {float(self.scores[probe, c]):.3f}" for c in order.tolist()]
        image = None if self.images is None else self.images[probe].expand(len(order), -1, -1, -1)
        return plots.overlays(
            upsample(self.cells[probe, order], self.size), image, titles, label=f"{self.recipe.get('method', 'map')}"
        )

    def _repr_html_(self) -> str:
        return drawn(self, self, self.plot)
