"""The answer of class-map methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from facexai.functional import mass_inside, upsample
from facexai.results.notebook import drawn
from facexai.results.parts import Parts, cut_recipe, names_of, parts_of, recipe_of, save_answer, size_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DRAWN = 8  # in a notebook


@final
@dataclass(frozen=True, eq=False)
class Saliency:
    """The evidence in each image for its target class.

    Attributes:
        cells: (N, h, w), raw values; logits for CAM, HiResCAM and Grad-CAM, [0, 1] for amplified SDD.
        size: (H, W) of the images.
        targets: (N,) class indices.
        scores: (N,) logits of the targets.
        names: class names, where known.
        recipe: method, layer and every choice that changed a number, with the model's fingerprint.
        rivals: (N, R) class indices, for SDD.
        rival_scores: (N, R) logits of the rivals, for SDD.
        class_cells: (N, 1 + R, h, w) raw class maps, the target's first, for SDD.
        signed_cells: (N, h, w), the cells before the ReLU, of methods that have taken the positive part.
        constant: (N,) logits that no cell holds, for CAM: ``cells.sum((1, 2)) + constant`` is ``scores``.
        predicted: (N,) class indices with the largest logit, whatever was explained; None if unknown.
        images: (N, 3, H, W), a reference for drawing only; never saved.
    """

    cells: Tensor
    size: tuple[int, int]
    targets: Tensor
    scores: Tensor
    names: tuple[str, ...] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    rivals: Tensor | None = None
    rival_scores: Tensor | None = None
    class_cells: Tensor | None = None
    constant: Tensor | None = None
    predicted: Tensor | None = None
    signed_cells: Tensor | None = None
    images: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        n = len(self.cells)
        if self.cells.ndim != 3 or len(self.targets) != n or len(self.scores) != n:
            raise ValueError(
                f"expected cells (N, h, w) with N targets and scores, got {tuple(self.cells.shape)}, "
                f"{len(self.targets)} and {len(self.scores)}"
            )

    @cached_property
    def maps(self) -> Tensor:
        """Returns (N, H, W): the cells drawn at the size of the images, bilinear, in their units."""
        return upsample(self.cells, self.size)

    def __len__(self) -> int:
        return len(self.cells)

    def __repr__(self) -> str:
        h, w = self.cells.shape[1:]
        method, layer = self.recipe.get("method", "?"), self.recipe.get("layer", "?")
        named = ", ".join(self.name(int(t)) for t in self.targets[:4]) + (", ..." if len(self) > 4 else "")
        return f"Saliency({method} at {layer!r}, {len(self)} images, {h}x{w} cells, targets: {named})"

    def name(self, index: int) -> str:
        """Returns the name of a class, or its index as text."""
        return str(index) if self.names is None else self.names[index]

    def share(self, mask: Tensor) -> Tensor:
        """Returns the share of each map's positive part inside a region (H, W) or (N, H, W), boolean: (N,)."""
        return mass_inside(self.maps, mask.to(self.cells.device))

    # ---- drawing and files ------------------------------------------------------------------------------------

    def plot(self, images: Tensor | None = None) -> Figure:
        """Returns each photo beside its map, with a colour bar in raw values.

        Args:
            images: (N, 3, H, W); None: those that were explained.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        titles = [f"{self.name(int(t))}  {s:.2f}" for t, s in zip(self.targets, self.scores, strict=True)]
        return plots.overlays(self.maps, self._images(images), titles, label=self._label)

    def plot_rivals(self, images: Tensor | None = None) -> Figure:
        """Draws one row per image: photo, class map of the target and of each rival, and SDD.

        Raises:
            ValueError: the result is not SDD's.
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        if self.class_cells is None or self.rivals is None or self.rival_scores is None:
            raise ValueError(f"{self.recipe.get('method', 'this method')} has no rivals; wrap it: SDD(...)")
        classes = torch.cat([self.targets[:, None], self.rivals], 1)
        scores = torch.cat([self.scores[:, None], self.rival_scores], 1)
        maps = torch.stack([upsample(cells, self.size) for cells in self.class_cells.unbind(1)], 1)
        titles = [
            [f"{self.name(int(c))}\n{s:.2f}" for c, s in zip(row, values, strict=True)]
            for row, values in zip(classes, scores, strict=True)
        ]
        return plots.rival_grid(maps, self.maps, self._images(images), titles)

    def _images(self, images: Tensor | None) -> Tensor | None:
        images = self.images if images is None else images
        if images is not None and (
            images.ndim != 4 or len(images) != len(self) or tuple(images.shape[-2:]) != self.size
        ):
            raise ValueError(
                f"expected the {len(self)} explained images at {self.size}, got shape {tuple(images.shape)}"
            )
        return images

    @property
    def unit(self) -> str:
        """Returns the unit of the cells."""
        if not str(self.recipe.get("method", "")).startswith("SDD"):
            return self.class_unit
        return (
            "difference of class maps" if self.recipe.get("sdd", {}).get("amplify") == "none" else "amplified, 0 to 1"
        )

    @property
    def class_unit(self) -> str:
        """Returns the unit of the class maps, for SDD those of its base."""
        return str(self.recipe.get("unit", "logits"))

    @property
    def _label(self) -> str:
        return f"{self.recipe.get('method', 'map')} at {self.recipe.get('layer', '?')} ({self.unit})"

    def _repr_html_(self) -> str:
        few = self if len(self) <= _MOST_DRAWN else self._first(_MOST_DRAWN)
        return drawn(self, few, few.plot if few.rivals is None else few.plot_rivals)

    def _first(self, n: int) -> Saliency:
        parts = {name: getattr(self, name) for name in (*ARRAYS, "images")}
        cut: dict[str, Any] = {name: None if part is None else part[:n] for name, part in parts.items()}
        return replace(self, **cut, recipe=cut_recipe(self.recipe, slice(n)))

    def save(self, path: str | Path) -> None:
        """Writes cells, classes, scores and the recipe as ``.npz``, without pickle and without the images.

        Raises:
            ValueError: the path does not end in ``.npz``.
            OSError: nothing was written.
        """
        names = None if self.names is None else list(self.names)
        save_answer(path, self, ARRAYS, {"size": list(self.size), "names": names})


ARRAYS = (
    "cells",
    "targets",
    "scores",
    "rivals",
    "rival_scores",
    "class_cells",
    "constant",
    "predicted",
    "signed_cells",
)


def loaded(arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> Saliency:
    """Reads what :meth:`Saliency.save` wrote."""
    n, rivals = len(arrays["cells"]), arrays["rivals"].shape[-1] if "rivals" in arrays else None
    row, maps = ("float", (n,)), (n, None if rivals is None else 1 + rivals, None, None)
    parts: Parts = {"cells": ("float", (n, None, None)), "targets": ("int", (n,)), "scores": row, "constant": row}
    more: Parts = {
        "rivals": ("int", (n, rivals)),
        "rival_scores": ("float", (n, rivals)),
        "class_cells": ("float", maps),
        "predicted": ("int", (n,)),
        "signed_cells": ("float", (n, *arrays["cells"].shape[1:])),
    }
    found: dict[str, Any] = parts_of(arrays, {**parts, **more}, ("constant", *more))
    names = names_of(manifest, found["targets"], found.get("rivals"), found.get("predicted"))
    return Saliency(**found, size=size_of(manifest), names=names, recipe=recipe_of(manifest))
