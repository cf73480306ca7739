"""The input of curves over pairs: the chosen pairs and the decision about them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._errors import warn
from facexai._progress import tqdm
from facexai.functional._decision import accepted, cosines
from facexai.functional._dyads import Dyads
from facexai.functional._labels import labels_of
from facexai.hooks import no_graph
from facexai.input_spec import check_pixels
from facexai.metrics._identities import is_unknown_name, pairs_of, people_of
from facexai.metrics._pair_decision import PairDecision
from facexai.metrics._ties import Rows
from facexai.metrics.pair_protocol import Part, Protocol, resolve
from facexai.metrics.statistic import INTERVALS
from facexai.metrics.verification import Placed, parsed_rule, placed
from facexai.models.protocols import Embedder
from facexai.perturb import check_items, make_fill

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class PairReference:
    """The maps that the controls ``mean-map`` and ``other-pair`` need from the whole data set.

    Attributes:
        mean_maps: {1 or -1: (S, H, W)}: mean over the chosen pairs whose similar (1) or dissimilar part (-1)
            is explained of that part's maps scaled to [0, 1], of the S images that are changed.
        other_maps: (P, S, H, W), for each pair the signed maps of the next such pair of another identity; None: there
            is none.
    """

    mean_maps: Mapping[int, Tensor]
    other_maps: Tensor | None


class PairOptions(TypedDict, total=False):
    """Options of every metric of labelled pairs.

    Keys:
        identities: (P,) person in the probe, as in :meth:`Statistic.of`. Default: unknown, another in every pair.
        partners: (P,) person in the other image, named likewise.
        items: (P,) numbers of the pairs in their data set; randomness depends on them. Default 0, 1, ...
        seed: of the random controls; default 0.
        batch_size: images per forward pass; default 64.
        reference: of the whole data set; default: the pairs given are all of it.
        progress: show a progress bar for each set of changed images; default False.

    Without partners the other image of a pair of one person shows that person, else an unknown one, with a warning:
    people who recur without a name make intervals too narrow.
    """

    identities: Sequence[str | None] | None
    partners: Sequence[str | None] | None
    items: Sequence[int] | None
    seed: int
    batch_size: int
    reference: PairReference | None
    progress: bool


@final
@dataclass(frozen=True, eq=False)
class PairBatch:
    """The pairs that a protocol chooses, with the outputs for unchanged and for empty images.

    Attributes:
        model: gives unit embeddings.
        images: (P, S, 3, H, W): the images that are changed, S = 1 or 2 of each pair.
        fills: (P, S, 3, H, W): what replaces them.
        photos: S times (P,): which of the images are equal: the place of the first such.
        units: (P, D): embeddings of the second images.
        same: (P,) one person.
        signs: (P,) 1 where the similar part of the map is explained, -1 where the dissimilar one is.
        whole, empty: (P,) cosines of the pairs unchanged and with nothing but fill.
        threshold: from which cosine on a pair is accepted.
        chosen: (P,) places of the pairs among those given.
        given: number of pairs given.
        items: (P,) numbers of the pairs in their data set.
        identities, partners: (P,) names of the people in the first and in the second images, each unknown person's own.
        decision: all pairs that the threshold is from.
        protocol, recipe, seed, batch_size, reference, progress: as given.
    """

    model: Embedder
    images: Tensor
    fills: Tensor
    photos: tuple[tuple[int, ...], ...]
    units: Tensor
    same: NDArray[np.bool_]
    signs: NDArray[np.int64]
    whole: Array
    empty: Array
    threshold: float
    chosen: NDArray[np.int64]
    given: int
    items: tuple[int, ...]
    identities: tuple[str, ...]
    partners: tuple[str, ...]
    decision: PairDecision
    protocol: Protocol
    recipe: dict[str, Any]
    seed: int
    batch_size: int
    reference: PairReference | None = None
    progress: bool = False

    def cosines(self, shown: Tensor, rows: Rows = slice(None)) -> Array:
        """Returns (R,) of the pairs of these rows with only the pixels ``shown`` (R, S, H, W) of the changed images."""
        sides = [self._embedded(shown[:, side], side, rows) for side in range(shown.shape[1])]
        result: Array = cosines(sides[0], sides[1] if len(sides) == 2 else self.units[rows]).cpu().numpy()
        return result

    def _embedded(self, shown: Tensor, side: int, rows: Rows) -> Tensor:
        """Returns (R, D) of one side's images with only these pixels (R, H, W); equal ones are embedded once."""
        bits = np.packbits(shown.flatten(1).cpu().numpy(), axis=1)
        images, fills = self.images[rows, side], self.fills[rows, side]
        photos = torch.tensor(self.photos[side])[rows].tolist()
        first: dict[tuple[int, bytes], int] = {}
        places = [first.setdefault(key, p) for p, key in enumerate(zip(photos, map(bytes, bits), strict=True))]
        once = sorted(set(places))
        found = []
        with tqdm(total=len(once), desc="measure", unit="image", leave=False, disable=not self.progress) as bar:
            for part in torch.split(torch.tensor(once), self.batch_size):
                pixels = torch.where(shown[part, None], images[part], fills[part])
                found.append(_units(self.model, pixels, self.batch_size))
                bar.update(len(part))
        row = {place: i for i, place in enumerate(once)}
        return torch.cat(found)[[row[place] for place in places]]


def pair_subject(
    model: Embedder,
    first: Tensor,
    second: Tensor,
    same: Any,
    protocol: str | Protocol,
    part: Part,
    *,
    identities: Sequence[str | None] | None = None,
    partners: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    reference: PairReference | None = None,
    progress: bool = False,
) -> PairBatch:
    """Checks the input, decides about the unchanged pairs, and chooses those of the protocol.

    Raises:
        TypeError: a model that does not embed.
        ValueError: numbers or sizes that differ, other labels than those of :func:`facexai.metrics.roc`, labels of one
            kind where the threshold needs both, no pair chosen.
    """
    name, how = resolve(protocol, part)
    labels = _checked(model, first, second, same, batch_size)
    numbers = check_items(items, len(first))
    people, others = both_people(identities, partners, labels, numbers)
    left, right = (_units(model, images, batch_size) for images in (first, second))
    scores = cosines(left, right).cpu().numpy()
    if not np.isfinite(scores).all():
        raise ValueError("the model gives NaN or infinite embeddings for these images")
    limit = placed(scores, labels, how.threshold)
    chosen = np.flatnonzero(wanted(how, labels, accepted(scores, limit.threshold)))
    if len(chosen) == 0:
        raise ValueError(
            f"the protocol is about {how.pairs} pairs and none of the {len(labels)} is one (threshold "
            f"{limit.threshold:.3f})"
        )
    rows = torch.from_numpy(chosen).to(first.device)
    kept = [images[rows] for images in ((first, second) if how.perturb == "both" else (first,))]
    fills = [make_fill(images, how.fill) for images in kept]
    emptied = [_units(model, images, batch_size) for images in fills]
    label = labels[chosen]
    return PairBatch(
        model=model,
        images=torch.stack(kept, 1),
        fills=torch.stack(fills, 1),
        photos=tuple(_equal(images) for images in kept),
        units=right[rows],
        same=label,
        signs=signs_of(part, label),
        whole=scores[chosen],
        empty=cosines(emptied[0], emptied[1] if how.perturb == "both" else right[rows]).cpu().numpy(),
        threshold=limit.threshold,
        chosen=chosen,
        given=len(labels),
        items=tuple(int(numbers[i]) for i in chosen.tolist()),
        identities=tuple(people[i] for i in chosen.tolist()),
        partners=tuple(others[i] for i in chosen.tolist()),
        decision=PairDecision(scores, labels, Dyads.of(people, others), how.threshold, chosen),
        protocol=how,
        recipe=recipe_of(name, how, limit, part, seed),
        seed=seed,
        batch_size=batch_size,
        reference=reference,
        progress=progress,
    )


def recipe_of(name: str, how: Protocol, limit: Placed, part: str, seed: int) -> dict[str, Any]:
    """Returns every choice of a curve over pairs that changes a number."""
    estimated = parsed_rule(how.threshold)[0] != "number"
    again = ", threshold found again in draws of people" if estimated else ""
    choices = {"protocol": name, **asdict(how), "accepted from": limit.threshold, "decisions moved": limit.moved}
    choices |= {"part": part, "seed": seed}
    return {**choices, "interval": INTERVALS[True] + again}


def both_people(
    identities: Any, partners: Any, same: NDArray[np.bool_], items: Sequence[int], what: str = "pairs"
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the first and of the second person of every pair (P,).

    Raises:
        ValueError: as :meth:`Statistic.of`, and a pair of one person with two known names, or of two with one.

    Warns:
        FaceXAIWarning: first people are given, and second people of pairs of two are not.
    """
    count, given = len(items), partners is not None
    if not given and identities is not None and not same.all():
        named = people_of(identities, items, what) or ()
        if len(set(named)) < len(named):
            warn(
                f"identities name the first person of {int((~same).sum())} {what} of two people and nothing names the "
                "second: intervals and tests take each for a person of their own and are too narrow where people come "
                "again; pass partners=, the second person of each"
            )
    first, second = pairs_of(identities, partners if given else [None] * count, items, what)
    assert first is not None
    assert second is not None
    check_labels(first, second, same)
    rows = []
    for one, other, alike in zip(first, second, same.tolist(), strict=True):
        name = other if is_unknown_name(one) and not is_unknown_name(other) else one
        rows.append((name, name) if alike else (one, other))
    return tuple(one for one, _ in rows), tuple(other for _, other in rows)


def check_labels(first: Sequence[str], second: Sequence[str], same: NDArray[np.bool_]) -> None:
    """Refuses labels that contradict the names of both people (P,), if both are known.

    Raises:
        ValueError: a pair of one person with two names, or of two people with one name.
    """
    for row, (name, partner, alike) in enumerate(zip(first, second, same.tolist(), strict=True)):
        if (name == partner) != alike and not is_unknown_name(name) and not is_unknown_name(partner):
            kind = "one person" if alike else "two people"
            raise ValueError(
                f"row {row} is labelled as a pair of {kind} and names {name!r} and {partner!r}; mend one of them"
            )


def _checked(model: Embedder, first: Tensor, second: Tensor, same: Any, batch_size: int) -> NDArray[np.bool_]:
    if not isinstance(model, Embedder):
        raise TypeError(f"expected a FaceModel that embeds, got {type(model).__name__}; of a gallery its .model")
    for images in (first, second):
        check_pixels(images)
    if first.ndim != 4 or first.shape != second.shape:
        raise ValueError(
            f"expected as many second images (P, 3, H, W) as first ones, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    return labels_of(same, len(first), "same")


def _equal(images: Tensor) -> tuple[int, ...]:
    """Returns the place of the first image that is equal to each."""
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.double().cpu().contiguous().numpy().tobytes()).digest() for image in images)
    return tuple(first.setdefault(digest, i) for i, digest in enumerate(digests))


def signs_of(part: Part, labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns (P,) 1 where the similar part of a pair's map is explained, -1 where the dissimilar one is."""
    if part == "auto":
        return np.where(labels, 1, -1)
    return np.full(len(labels), 1 if part == "similar" else -1)


def wanted(how: Protocol, labels: NDArray[np.bool_], accepted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns (P,) the pairs that a protocol is about."""
    kinds = {"genuine": labels, "impostor": ~labels, "accepted": accepted, "rejected": ~accepted}
    return kinds.get(how.pairs, np.ones(len(labels), dtype=bool))


def _units(model: Embedder, images: Tensor, batch_size: int) -> Tensor:
    with no_graph():
        return torch.cat([model.embed(part).detach() for part in torch.split(images, batch_size)])
