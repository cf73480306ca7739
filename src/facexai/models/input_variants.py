"""Finds the preprocessing under which labelled faces are separated best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from facexai.functional import auc
from facexai.functional._labels import labels_of
from facexai.hooks import no_graph
from facexai.input_spec import Channels, InputSpec
from facexai.models.blackbox import BlackBox
from facexai.models.face_model import FaceModel

if TYPE_CHECKING:
    from facexai.images import AlignMode

Array = NDArray[Any]
Pairs = tuple[Tensor, Tensor, Any] | Mapping[str, Tensor] | str | Path

FEWEST = 10
"""The number of people, or pairs, below which no verdict is given: with so few a bootstrap is uninformative."""

_DRAWS = 2000
_GAIN = 0.03  # a smaller gain in separation is no reason to doubt a specification
_SOME = 0.6  # an AUC below this is hardly recognition at all
_WAYS: dict[str, tuple[float, float | tuple[float, float, float], float | tuple[float, float, float]]] = {
    "x": (1.0, 0.0, 1.0),
    "(x - .5) / .5": (1.0, 0.5, 0.5),
    "255 x": (255.0, 0.0, 1.0),
    "(255 x - 127.5) / 128": (255.0, 127.5, 128.0),
    "ImageNet mean and std": (1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "255 x - VGGFace2 mean": (255.0, (131.0912, 103.8827, 91.4953), 1.0),
    "(255 x - dlib mean) / 256": (255.0, (122.782, 117.001, 104.298), 256.0),
}
_ORDERS: dict[Channels, tuple[Channels, ...]] = {"RGB": ("RGB", "BGR"), "BGR": ("RGB", "BGR"), "L": ("L",)}
"""The channel orders that a network can take beside its own: those of as many channels."""


@final
@dataclass(frozen=True)
class Variant:
    """One way to prepare the input, and how well it separates people.

    Attributes:
        name: channel order and formula, x a pixel in [0, 1].
        spec: the same as an InputSpec.
        separation: d', the distance between the mean cosines of genuine and impostor pairs over the root of their mean
            variance.
        auc: chance that a genuine pair scores above an impostor pair.
        behind: bounds of the best variant's separation minus this one's; each holds with 95 % for all variants
            together.
        interval: bounds of the separation; both together hold with 95 %.
    """

    name: str
    spec: InputSpec
    separation: float
    auc: float
    behind: tuple[float, float]
    interval: tuple[float, float] = (float("nan"), float("nan"))


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """Faces (N, 3, H, W), the pairs among them, whether each pair is one person, and the person (or pair) of a face."""

    images: Tensor
    first: Array
    second: Array
    same: Array
    owner: Array


def labelled(model: FaceModel, pairs: Pairs, *, align: AlignMode = "never", most: int | None = None) -> Labelled:
    """Returns labelled faces from what a user has.

    Args:
        model: whose input size counts.
        pairs: (first, second, same): images (P, 3, H, W) twice and labels (P,), True or 1 for one person, False or 0
            for two; or {name: images (n, 3, H, W)}, or a folder ``NAME/*.jpg``, of which all pairs are taken.
        align: as in :meth:`FaceModel.gallery`, for a folder.
        most: photos of each person that are taken, the first ones; None: all.

    Raises:
        ValueError: not of that form, other labels, or without pairs of both kinds.
    """
    from facexai.models.enroll import folder_photos, read_photos

    if isinstance(pairs, tuple):
        return _paired(model, *pairs) if len(pairs) == 3 else _bad(f"a tuple of {len(pairs)}")
    if isinstance(pairs, str | Path):
        found = folder_photos(Path(pairs)).items()
        pairs = {name: read_photos(model, name, photos[:most], align=align, face="largest") for name, photos in found}
    if not isinstance(pairs, Mapping) or not pairs or not all(isinstance(v, Tensor) for v in pairs.values()):
        return _bad(type(pairs).__name__)
    groups = [images[:most] for images in pairs.values()]
    owner = np.repeat(np.arange(len(groups)), [len(images) for images in groups])
    first, second = np.triu_indices(len(owner), 1)
    same = owner[first] == owner[second]
    if same.all() or not same.any():
        raise ValueError("expected photos of at least two people, and two photos of one of them")
    return Labelled(torch.cat(groups).to(model.device), first, second, same, owner)


def _paired(model: FaceModel, first: Tensor, second: Tensor, same: Any) -> Labelled:
    labels = labels_of(same, name="same")
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)) or not len(first) == len(second) == len(labels):
        return _bad("tensors of different lengths")
    if labels.all() or not labels.any():
        raise ValueError("expected pairs of both kinds: the same person, and two people")
    number = np.arange(len(labels))
    images = torch.cat([first, second]).to(model.device)
    return Labelled(images, number, number + len(labels), labels, np.concatenate([number, number]))


def _bad(what: str) -> Labelled:
    raise ValueError(
        f"expected labelled pairs as (first, second, same), {{name: images}} or a folder NAME/*.jpg, got {what}"
    )


def compare(model: FaceModel, faces: Labelled, batch_size: int = 64) -> tuple[Variant, ...]:
    """Returns every way to prepare the input, the one that separates best first; the model's own is among them.

    Args:
        model: any FaceModel; of a function that is given pixels only the channel order is varied, of a network of one
            channel only mean, std and range.
        faces: labelled faces.
        batch_size: images per forward pass.

    Returns:
        Variants; ways that the network fails on are left out.

    Source: the decidability index d' of Daugman 2000; the comparison is ours. Intervals by bootstrap over people.
    """
    moments, found = [], []
    for name, spec in _variants(model):
        scores = cosines(model, spec, faces, batch_size)
        if scores is not None:
            moments.append(Moments(scores, faces))
            found.append((name, spec, scores))
    weights = draws(int(faces.owner.max()) + 1)
    separations = [m.separation() for m in moments]
    drawn = np.array([[m.separation(w) for w in weights] for m in moments])
    best = int(np.argmax(separations))
    variants = []
    for (name, spec, scores), separation, values in zip(found, separations, drawn, strict=True):
        tail = 0.05 / len(found)  # the best of many was picked with the same faces
        low, high = np.nanquantile(drawn[best] - values, [tail, 1 - tail])
        chance = auc(scores, faces.same)
        behind, interval = (float(low), float(high)), _interval(values)
        variants.append(Variant(name, spec, float(separation), chance, behind, interval))
    return tuple(sorted(variants, key=lambda v: -v.separation))


def clearly_better(best: Variant, own: Variant) -> bool:
    """Returns whether the best variant is better by more than noise and by more than a trifle."""
    return own.behind[0] > 0 and best.auc > _SOME and best.separation > (1 + _GAIN) * own.separation


def _variants(model: FaceModel) -> list[tuple[str, InputSpec]]:
    own = model.spec
    fixed = isinstance(model.core, BlackBox) and model.core.space != "input"
    specs: dict[str, InputSpec] = {}
    for order in _ORDERS[own.channels]:
        for name, (reach, mean, std) in ({} if fixed else _WAYS).items():
            if order != "L" or not isinstance(mean, tuple):  # means of colours say nothing of grey
                specs[f"{order}, {name}"] = replace(own, channels=order, range=reach, mean=mean, std=std)
        specs.setdefault(f"{order}, as specified", replace(own, channels=order))
    named: dict[InputSpec, str] = {}
    for name, spec in specs.items():
        named.setdefault(spec, name)
    return [(name, spec) for spec, name in named.items()]


def _interval(drawn: Array) -> tuple[float, float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def cosines(model: FaceModel, spec: InputSpec, faces: Labelled, batch_size: int) -> Array | None:
    """Returns the cosines of the pairs, or None where the network fails on this input."""
    twin = FaceModel(
        model.net, spec, take=model.took, flip=model.flip, center=model.center, forward_kwargs=model.forward_kwargs
    )
    try:
        with no_graph():
            rows = [twin.features(twin.outputs(part)) for part in torch.split(faces.images, batch_size)]
    except (ValueError, RuntimeError):
        return None
    unit = F.normalize(torch.cat(rows)).cpu().double().numpy()
    paired = len(faces.first) < len(unit)  # pairs of their own photos: no need for the table of all
    first, second = faces.first, faces.second
    scores: Array = (unit[first] * unit[second]).sum(1) if paired else (unit @ unit.T)[first, second]
    return scores


class Moments:
    """Count, sum and sum of squares of the cosines, by the two people of a pair, so that people can be drawn."""

    def __init__(self, scores: Array, faces: Labelled) -> None:
        a, b = faces.owner[faces.first], faces.owner[faces.second]
        count, same = int(faces.owner.max()) + 1, faces.same
        self.own = bool((a == b).all())  # each pair is drawn as a whole
        self.sums = []
        for chosen in (same, ~same):
            place, size = (a[chosen], count) if self.own else ((a * count + b)[chosen], count * count)
            sums = [np.bincount(place, scores[chosen] ** power, size) for power in range(3)]
            self.sums.append(sums if self.own else [table.reshape(count, count) for table in sums])

    def separation(self, drawn: Array | None = None) -> float:
        """Returns d' with every person counted as often as drawn; NaN if no pair of a kind is left."""
        moments = []
        for sums in self.sums:
            n, total, squares = (self._weighted(table, drawn) for table in sums)
            if not n > 0:
                return float("nan")
            moments.append((total / n, max(squares / n - (total / n) ** 2, 0.0)))
        (genuine, spread), (impostor, other) = moments
        noise = np.sqrt((spread + other) / 2)
        return float((genuine - impostor) / noise) if noise > 0 else 0.0

    def _weighted(self, table: Array, drawn: Array | None) -> float:
        if drawn is None:
            return float(table.sum())
        if self.own:
            return float(drawn @ table)
        inside = np.diag(table)  # pairs within one person count as often as the person is drawn
        return float(drawn @ table @ drawn - drawn**2 @ inside + drawn @ inside)


def draws(people: int) -> list[Array]:
    """Returns how often each person is drawn, for every draw of the bootstrap; always the same."""
    rng = np.random.default_rng(0)
    return [np.bincount(rng.integers(0, people, people), minlength=people).astype(float) for _ in range(_DRAWS)]


def describe(variants: Sequence[Variant]) -> list[dict[str, object]]:
    """Returns the variants as rows of plain numbers."""
    return [
        {"input": v.name, "separation": round(v.separation, 4), "AUC": round(v.auc, 5), "behind": list(v.behind)}
        for v in variants
    ]
