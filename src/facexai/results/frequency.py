"""The answer of frequency heat plots: the influence of every band, per pair or per image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor

from facexai.input_spec import InputSpec
from facexai.results.notebook import drawn
from facexai.results.parts import cut_recipe, joined_recipe, names_of, recipe_of, save_answer, size_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARRAYS = ("influence", "edges", "energies", "scores", "sides", "targets")
_EYES = 73.5318 - 38.2946  # distance of the eyes in the 112-pixel template
_FACE = 2.2  # breadth of a face in distances of its eyes, which are about 14 and 6.3 cm
_MOST_DRAWN = 4  # in a notebook
_MOST_ROWS = 64

Look = Literal["absolute", "directed", "line"]
Radius = Literal["log", "linear"]


def face_width(spec: InputSpec) -> float:
    """Returns the face width of an aligned face as a share of the width of the network's input image.

    The face width is 2.2 times the distance of the eyes; ours.

    >>> round(face_width(InputSpec(112)), 2)
    0.69
    """
    return _FACE * _EYES / (spec.crop[2] - spec.crop[0])


@final
@dataclass(frozen=True, eq=False)
class FrequencyHeat:
    """The change of a score without each frequency band.

    Attributes:
        influence: (P, B), raw and signed: positive where the loss of the band hurts the score; (P, B, S) with sectors.
        edges: (B + 1,) of the bands, in cycles per width of the image.
        energies: as ``influence``: mean squared pixel value that the band holds, of the images that lose it.
        scores: (P,) of the unchanged images: cosines, float64, or logits of classes.
        size: (H, W) of the images.
        face: face width as a share of the width of the image.
        sides: (P, 2, B), for ``masked="both"``: influence where only the first, and only the second, image of a pair
            loses the band; else None.
        targets: (P,) classes, or None.
        names: of the classes, where known.
        recipe: every choice that changed a number, such as which image was ``masked``.
        images: (P, 2, 3, H, W), of classes (P, 3, H, W): a reference for drawing only; never saved.
    """

    influence: Tensor
    edges: Tensor
    energies: Tensor
    scores: Tensor
    size: tuple[int, int]
    face: float
    sides: Tensor | None = None
    targets: Tensor | None = None
    names: tuple[str, ...] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    images: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        count, shape = len(self.edges) - 1, tuple(self.influence.shape)
        if self.edges.ndim != 1 or count < 1 or len(shape) not in (2, 3) or shape[1] != count:
            raise ValueError(f"expected influence (P, B) or (P, B, S), B of {count + 1} edges, got {shape}")
        floats = {"influence": shape, "edges": (count + 1,), "energies": shape, "scores": shape[:1]}
        floats["sides"] = (shape[0], 2, *shape[1:])
        for name, wanted in {**floats, "targets": shape[:1]}.items():
            value = getattr(self, name)
            if value is None:
                continue
            kind = value.is_floating_point() if name in floats else value.dtype == torch.int64
            if tuple(value.shape) != wanted or not kind:
                kinds = "floats" if name in floats else "int64"
                raise ValueError(f"expected {name} {wanted} as {kinds}, got {tuple(value.shape)} of {value.dtype}")
        rising = bool(torch.isfinite(self.edges).all() and (self.edges.diff() > 0).all())
        if not rising or not 0 < self.face < math.inf:
            raise ValueError("expected finite, rising edges and a positive breadth of the face")
        known = None if self.names is None else len(self.names)
        if self.targets is not None and known is not None and not ((self.targets >= 0) & (self.targets < known)).all():
            raise ValueError(f"expected targets among the {known} names")

    @property
    def absolute(self) -> Tensor:
        """Returns the magnitude of the influence: how much a band matters, whatever the direction."""
        return self.influence.abs()

    @property
    def directed(self) -> Tensor:
        """Returns the influence with its sign."""
        return self.influence

    @property
    def per_energy(self) -> Tensor:
        """Returns influence per mean squared pixel value that the band holds; 0 where it holds nothing.

        Rings grow with their radius and pictures have most energy in low bands, so this shows how closely the network
        looks rather than how much there is to see.
        """
        energy = self.energies.to(self.influence)
        tiny = torch.finfo(energy.dtype).eps * energy.flatten(1).sum(1).clamp(min=1e-30)
        tiny = tiny.view(-1, *[1] * (energy.ndim - 1))
        return torch.where(energy > tiny, self.influence / energy.clamp(min=1e-30), 0.0)

    @property
    def face_edges(self) -> Tensor:
        """Returns (B + 1,) edges of the bands in cycles per face width, which do not depend on the crop."""
        return self.edges * self.face

    def __len__(self) -> int:
        return len(self.influence)

    def __getitem__(self, which: slice | Tensor) -> FrequencyHeat:
        if not isinstance(which, slice) and not (isinstance(which, Tensor) and which.ndim == 1):
            raise TypeError(f"expected a slice such as heat[3:4], or a tensor of places, got {which!r}")
        parts = {n: getattr(self, n) for n in (*ARRAYS, "images") if n != "edges"}
        cut: dict[str, Any] = {n: None if part is None else part[which] for n, part in parts.items()}
        return replace(self, **cut, recipe=cut_recipe(self.recipe, which))

    @staticmethod
    def joined(heats: Sequence[FrequencyHeat]) -> FrequencyHeat:
        """Concatenates answers to several questions, without their images; ``sides`` if all have them.

        Raises:
            ValueError: nothing to join, or answers by different recipes.
        """
        if not heats:
            raise ValueError("expected at least one answer to join, got none")
        first = heats[0]
        recipe = joined_recipe(heats)
        for heat in heats:
            both = [(h.size, h.face, h.names, h.targets is None, h.edges.tolist()) for h in (heat, first)]
            if both[0] != both[1]:
                raise ValueError("answers about other sizes, bands, classes or kinds of questions do not join")
        parts: dict[str, Any] = {"images": None}
        for name in ARRAYS:
            rows = [getattr(heat, name) for heat in heats]
            if name != "edges":
                parts[name] = None if any(row is None for row in rows) else torch.cat(rows)
        return replace(first, **parts, recipe=recipe)

    def __repr__(self) -> str:
        bands = "x".join(str(n) for n in self.influence.shape[1:])
        told = ", ".join(self._title(p) for p in range(min(2, len(self)))) + (", ..." if len(self) > 2 else "")
        what = "pairs" if self.targets is None else "images"
        mode = self.recipe.get("mode", "?")
        return f"FrequencyHeat({mode}, {len(self)} {what}, {bands} bands, masked: {self._masked}; {told})"

    @property
    def _masked(self) -> str:
        return str(self.recipe.get("masked", "the image"))

    def _title(self, p: int) -> str:
        score = float(self.scores[p])
        if self.targets is None:
            return f"cosine {score:.3f}"
        target = int(self.targets[p])
        return f"{target if self.names is None else self.names[target]} {score:.2f}"

    # ---- drawing and files ------------------------------------------------------------------------------------

    def plot(self, look: Look = "directed", *, radius: Radius = "log") -> Figure:
        """Returns a disc per pair, rings from low frequencies in the middle to high ones outside; or lines.

        Args:
            look: ``"directed"``: red where the loss of a band hurts the score, blue where it helps; ``"absolute"``: how
                much it matters; both relative to the largest band, whose raw value is in the title. ``"line"``: raw
                influence over the frequency. Where both images of a pair lose bands, the left half of the disc is the
                first image's and the right half the second's. Without a photo there is the disc alone.
            radius: of the rings: ``"log"``, an octave after the other, as eye and network distinguish bands
                alike; ``"linear"``, as published, with the low bands in a small middle.

        Raises:
            ValueError: another look or radius; no answer, or more than 64.
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai.plots import frequency

        if not 0 < len(self) <= (_MOST_ROWS if look != "line" else len(self)):
            raise ValueError(f"expected 1 to {_MOST_ROWS} discs, got {len(self)}; draw a part, such as heat[:4].plot()")
        if look == "line":
            return frequency.lines(self._lines(), self.edges, self.face, self._unit)
        if look not in ("directed", "absolute"):
            raise ValueError(f"expected look 'directed', 'absolute' or 'line', got {look!r}")
        if radius not in ("log", "linear"):
            raise ValueError(f"expected radius 'log' or 'linear', got {radius!r}")
        halves = self.influence[:, None].repeat_interleave(2, 1) if self.sides is None else self.sides
        rings = halves if halves.ndim == 4 else halves[..., None]
        titles = [self._title(p) for p in range(len(self))]
        one = None if self.sides is not None else {"first": 0, "second": 1, "both": None}.get(self._masked)
        return frequency.discs(rings, self.edges, self.face, titles, self._shown(), look, self._unit, one, radius)

    def plot_bands(self, images: Tensor | None = None, *, item: int = 0) -> Figure:
        """Draws one face in octaves of frequency: the component of each band, and the face without it.

        Args:
            images: (P, 3, H, W); None: those that were explained (of a pair, the masked one).
            item: which of them.

        Raises:
            ValueError: no images, or others than the explained ones.
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai.plots import frequency

        shown = images
        if shown is None and self.images is not None:
            shown = self.images if self.images.ndim == 4 else self.images[:, int(self._masked == "second")]
        if shown is None or tuple(shown.shape[-2:]) != self.size or shown.ndim != 4 or len(shown) != len(self):
            got = "none" if shown is None else str(tuple(shown.shape))
            raise ValueError(
                f"expected the explained images ({len(self)}, 3, {self.size[0]}, {self.size[1]}), got {got}"
            )
        if not isinstance(item, int) or not -len(self) <= item < len(self):
            raise ValueError(f"expected one of {len(self)} answers, got item={item!r}")
        values = self.influence[item] if self.influence.ndim == 2 else self.influence[item].sum(-1)
        kept = {name: self.recipe[name] for name in ("limit", "keep_dc") if name in self.recipe}
        return frequency.strip(shown[item], self.edges, values, self.face, self._unit, **kept)

    def _lines(self) -> list[tuple[str, Tensor]]:
        """Returns the words of the legend and (B,)."""
        sums = self.influence if self.influence.ndim == 2 else self.influence.sum(2)
        if len(self) > 1:
            few = [(f"{p}: {self._title(p)}", sums[p]) for p in range(min(len(self), _MOST_DRAWN))]
            return [("mean of all", sums.mean(0)), *few]
        if self.sides is None:
            return [(self._title(0), sums[0])]
        sides = self.sides[0] if self.sides.ndim == 3 else self.sides[0].sum(2)
        return [("first loses it", sides[0]), ("second loses it", sides[1]), ("both lose it", sums[0])]

    @property
    def _unit(self) -> str:
        return str(self.recipe.get("unit", "score"))

    def _shown(self) -> Tensor | None:
        """Returns (P, 1 or 2, 3, H, W) or None."""
        if self.images is None:
            return None
        return self.images if self.images.ndim == 5 else self.images[:, None]

    def _repr_html_(self) -> str:
        few = self if len(self) <= _MOST_DRAWN else self[:_MOST_DRAWN]
        return drawn(self, few, few.plot)

    def save(self, path: str | Path) -> None:
        """Writes influence, edges, energies, scores and the recipe as ``.npz``, without pickle and without the images.

        Raises:
            ValueError: the path does not end in ``.npz``.
            OSError: nothing was written.
        """
        names = None if self.names is None else list(self.names)
        save_answer(path, self, ARRAYS, {"size": list(self.size), "face": self.face, "names": names})


def loaded(arrays: Mapping[str, Tensor], manifest: Mapping[str, Any]) -> FrequencyHeat:
    """Reads what :meth:`FrequencyHeat.save` wrote."""
    return FrequencyHeat(
        **{name: array for name, array in arrays.items() if name in ARRAYS},
        size=size_of(manifest),
        face=float(manifest["face"]),
        names=names_of(manifest, arrays.get("targets")),
        recipe=recipe_of(manifest),
    )
