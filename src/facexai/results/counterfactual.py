"""The answer of counterfactual methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from facexai.results.notebook import drawn
from facexai.results.parts import Parts, parts_of, recipe_of, save_answer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_DRAWN = 8  # in a notebook


@final
@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Counterfactual images: edits that change the decision.

    Attributes:
        images: (N, 3, H, W), the images, [0, 1].
        counterfactuals: (N, 3, H, W), what became of them, [0, 1]; outside of the masks the very pixels of the images.
            ``variant="maskdime"`` leaves there, within the region, the images with the noise of the least noisy step.
        masks: (N, H, W), True where pixels were free to change.
        before, after: (N,) the decision's score, a logit; positive means yes.
        flipped: (N,) whether the decision changed, tested before pixels were brought into [0, 1].
        scales: (N,) the guidance under which the counterfactual was made.
        calls: (N,) forward passes of the denoiser that each image took, all guidances together.
        path: (N, S) the score of the estimate at the start of each step, of the last pass.
        recipe: method, decision, denoiser and every choice that changed a number.
        seconds: of the whole run; not saved.
    """

    images: Tensor
    counterfactuals: Tensor
    masks: Tensor
    before: Tensor
    after: Tensor
    flipped: Tensor
    scales: Tensor
    calls: Tensor
    path: Tensor
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None

    def __post_init__(self) -> None:
        n, _, height, width = self.images.shape
        if self.counterfactuals.shape != self.images.shape or self.masks.shape != (n, height, width):
            raise ValueError(
                f"expected counterfactuals of {tuple(self.images.shape)} and masks {(n, height, width)}, got "
                f"{tuple(self.counterfactuals.shape)} and {tuple(self.masks.shape)}"
            )
        rows = (self.before, self.after, self.flipped, self.scales, self.calls, self.path)
        if any(len(row) != n for row in rows):
            raise ValueError(f"expected {n} scores, flips, scales, calls and paths, got {[len(row) for row in rows]}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        took = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return (
            f"Counterfactual({self.recipe.get('method', '?')}, {len(self)} images, {int(self.flipped.sum())} decisions "
            f"changed, {float(self.masks.float().mean()) if len(self) else 0:.0%} of the pixels free{took})"
        )

    def __getitem__(self, which: slice | Tensor) -> Counterfactual:
        """Selects items: a slice, indices or a boolean row."""
        if not isinstance(which, slice) and not (isinstance(which, Tensor) and which.ndim == 1):
            raise TypeError(f"expected a slice such as found[3:4], or a tensor of places, got {which!r:.80}")
        parts = {name: getattr(self, name)[which] for name in ARRAYS}
        return replace(self, **parts, seconds=None)

    @property
    def differences(self) -> Tensor:
        """Returns (N, H, W): mean signed change of the three colours, -1 to 1."""
        return (self.counterfactuals - self.images).mean(1)

    # ---- drawing and files ------------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """Returns a row per image: image, counterfactual, what was free to change, what changed, and
        the score on the way.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        verdict = {True: "changed", False: "not changed"}
        titles = [
            (f"image: score {b:.2f}", f"guidance {s:g}: {a:.2f}, {verdict[bool(f)]}")
            for b, a, f, s in zip(self.before, self.after, self.flipped, self.scales, strict=True)
        ]
        return plots.counterfactuals(self.images, self.counterfactuals, self.masks, self.path, titles)

    def _repr_html_(self) -> str:
        few = self if len(self) <= _MOST_DRAWN else self[:_MOST_DRAWN]
        return drawn(self, few, few.plot)

    def save(self, path: str | Path) -> None:
        """Writes everything as ``.npz``, without pickle: also the images, whose edits they are.

        Raises:
            ValueError: the path does not end in ``.npz``.
            OSError: nothing was written.
        """
        save_answer(path, self, ARRAYS, {})


ARRAYS = ("images", "counterfactuals", "masks", "before", "after", "flipped", "scales", "calls", "path")


def loaded(arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> Counterfactual:
    """Reads what :meth:`Counterfactual.save` wrote."""
    n, _, height, width = arrays["images"].shape
    pictures, row = ("float", (n, 3, height, width)), ("float", (n,))
    parts: Parts = {"images": pictures, "counterfactuals": pictures, "masks": ("bool", (n, height, width))}
    rows: Parts = {"before": row, "after": row, "flipped": ("bool", (n,)), "scales": row, "calls": ("int", (n,))}
    found: dict[str, Any] = parts_of(arrays, {**parts, **rows, "path": ("float", (n, None))})
    return Counterfactual(**found, recipe=recipe_of(manifest))


def joined(parts: list[Counterfactual], seconds: float) -> Counterfactual:
    """Concatenates batches of one run."""
    held: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Counterfactual(**held, recipe=parts[0].recipe, seconds=seconds)
