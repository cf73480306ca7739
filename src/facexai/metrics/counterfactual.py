"""Are counterfactuals any good? How many decisions changed, by how large an edit, of which pixels, of whose face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._html import table
from facexai.decisions import Decision, check_count, recipe_of, resized, score, score_batched, select
from facexai.hooks import no_graph
from facexai.input_spec import InputSpec, check_pixels
from facexai.metrics._identities import people_of
from facexai.metrics._ties import Ordered, Rows
from facexai.metrics.statistic import Statistic
from facexai.models import Embedder
from facexai.perturb import check_items

Array = NDArray[np.float64]


class Edits(Protocol):
    """Images and their edits, such as :class:`facexai.Counterfactual`, which documents the fields."""

    @property
    def images(self) -> Tensor: ...
    @property
    def counterfactuals(self) -> Tensor: ...
    @property
    def masks(self) -> Tensor: ...
    @property
    def before(self) -> Tensor: ...
    @property
    def after(self) -> Tensor: ...


@final
@dataclass(frozen=True, eq=False, repr=False)
class CounterfactualQuality:
    """The quality of the counterfactuals of N images.

    Attributes:
        flipped: statistic of whether the decision about the picture changed, 0 or 1: its mean is the flip rate.
        l0: of the share of pixels whose colour changed.
        l1: of the mean absolute difference of pixel values, 0 to 1.
        l2: of the root of the mean squared difference of pixel values, 0 to 1.
        area: of the share of pixels that were free to change.
        cout: of the counterfactual transition score, -1 to 1; None without a decision. Few pixels that decide are near
            1, an edit after which the old answer still holds is negative.
        identity: of the cosine between the embeddings of image and counterfactual; None without an embedder.
        held_out: of whether the other decision changed too, and in the same direction, over the images whose decision
            changed; None without one, or where none changed. Edits that only this network sees leave it near 0.
        recipe: every choice that changed a number.

    All images count, also those whose decision stayed; ``result[result.flipped]`` are the others. Qualities of two
    parts of a data set add to that of the whole.
    """

    flipped: Statistic
    l0: Statistic
    l1: Statistic
    l2: Statistic
    area: Statistic
    cout: Statistic | None = None
    identity: Statistic | None = None
    held_out: Statistic | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flip_rate(self) -> float:
        """Returns the share of the images whose decision changed."""
        return self.flipped.mean

    @property
    def held_out_rate(self) -> float | None:
        """Returns the share of these whose other decision changed too; None where there is nothing to share."""
        return None if self.held_out is None else self.held_out.mean

    def columns(self) -> dict[str, Any]:
        """Returns means and intervals, as columns of a table; None where something was not measured."""
        result: dict[str, Any] = {}
        for name, key in _COLUMNS.items():
            held: Statistic | None = getattr(self, key)
            result[name] = None if held is None else held.mean
            result[f"{name} interval"] = None if held is None else held.interval
        return result

    def __repr__(self) -> str:
        extra = {"COUT": self.cout, "identity": self.identity, "held-out": self.held_out}
        told = "".join(f", {name} {held.mean:.3g}" for name, held in extra.items() if held is not None)
        return (
            f"CounterfactualQuality({len(self.flipped)} images: {self.flip_rate:.0%} changed the decision, "
            f"{self.l0.mean:.1%} of the pixels, L1 {self.l1.mean:.3g}, L2 {self.l2.mean:.3g}{told})"
        )

    def _repr_html_(self) -> str:
        told = self.columns()
        rows = [{"of": name, "mean": told[name], "95 %": told[f"{name} interval"]} for name in _COLUMNS]
        return table([row for row in rows if row["mean"] is not None], f"{len(self.flipped)} counterfactuals")

    def __add__(self, other: CounterfactualQuality) -> CounterfactualQuality:
        if _shared(self.recipe) != _shared(other.recipe):
            raise ValueError(f"different recipes do not add: {dict(self.recipe)} and {dict(other.recipe)}")
        parts: dict[str, Any] = {key: _both(getattr(self, key), getattr(other, key)) for key in _COLUMNS.values()}
        return CounterfactualQuality(**parts, recipe=self.recipe)


_COLUMNS = {
    "flip rate": "flipped",
    "L0": "l0",
    "L1": "l1",
    "L2": "l2",
    "mask area": "area",
    "COUT": "cout",
    "identity": "identity",
    "held-out flip rate": "held_out",
}


def _shared(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what two parts of a data set share, without the references of their pairs."""
    return {
        name: {k: v for k, v in part.items() if k != "references"} if isinstance(part, Mapping) else part
        for name, part in recipe.items()
    }


def _both(one: Statistic | None, other: Statistic | None) -> Statistic | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def counterfactual(
    result: Edits,
    *,
    embedder: Embedder | None = None,
    held_out: Decision | None = None,
    decision: Decision | None = None,
    steps: int = 50,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    batch_size: int = 64,
) -> CounterfactualQuality:
    """Measures counterfactuals.

    Args:
        result: of an explainer such as :class:`facexai.FastDiME`.
        embedder: another face network than the explained one, for whether the face is still that person's. Images of
            another size than its spec's are resized to it; they must show its crop.
        held_out: another network's decision on the same question, which the edit did not use: adversarial edits do
            not change it.
        decision: the explained one, for COUT.
        steps: of COUT; the papers take 50.
        identities, items: as in :func:`facexai.metrics.deletion`.
        batch_size: images per forward pass.

    Returns:
        :class:`CounterfactualQuality`.

    Raises:
        ValueError: shapes that differ, pixels outside [0, 1], no step, NaN.
        TypeError: no boolean masks, or something else than tensors.

    Cost: two embeddings per image, two passes of ``held_out`` per changed decision, and up to ``steps + 1`` of
    ``decision`` per image: steps that change no pixel need no pass. 3 to 31 more for each step at which equal
    differences are cut.

    Source: COUT: Khorram and Fuxin 2022, arXiv:2203.15064, as ACE (Jeanneret et al. 2023, arXiv:2303.09962) measures it
    of binary decisions. Held-out: after the oracle score of Hvilshøj et al. 2021, arXiv:2111.00177; that the direction
    counts is ours.
    """
    images, edited = result.images, result.counterfactuals
    _check(result, steps)
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    for asked in (decision, held_out):
        if asked is not None:
            check_count(asked, len(images))
    numbers = check_items(items, len(images))
    people = people_of(identities, numbers)

    def of(values: Any) -> Statistic:
        row = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else values
        return Statistic.of(row, items=numbers, identities=people)

    was, now = (side.detach().cpu() > 0 for side in (result.before, result.after))
    changed = was != now
    away = (edited.detach().double() - images.detach().double()).abs()
    recipe: dict[str, Any] = {}
    if decision is not None:
        recipe |= {"decision": recipe_of(decision), "steps": steps}
    if held_out is not None:
        recipe["held out"] = recipe_of(held_out)
    if embedder is not None:
        recipe["embedder"] = getattr(embedder, "fingerprint", type(embedder).__name__)
    other = None
    if held_out is not None and changed.any():
        other = _followed(held_out, result, was, changed.nonzero()[:, 0], numbers, people, batch_size)
    return CounterfactualQuality(
        flipped=of(changed),
        l0=of((away > 0).any(1).double().flatten(1).mean(1)),
        l1=of(away.flatten(1).mean(1)),
        l2=of((away**2).flatten(1).mean(1).sqrt()),
        area=of(result.masks.double().flatten(1).mean(1)),
        cout=None if decision is None else of(cout(decision, images, edited, steps, batch_size, items=numbers)),
        identity=None if embedder is None else of(_alike(embedder, images, edited, batch_size)),
        held_out=other,
        recipe=recipe,
    )


def _check(result: Edits, steps: int) -> None:
    images, edited, masks = result.images, result.counterfactuals, result.masks
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape != edited.shape:
        told = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in (images, edited)]
        raise ValueError(f"expected images and counterfactuals (N, 3, H, W) of one shape, got {told[0]} and {told[1]}")
    for pictures in (images, edited):
        check_pixels(pictures)
    n, _, height, width = images.shape
    if masks.dtype != torch.bool:
        raise TypeError(f"expected boolean masks, True where pixels may change, got {masks.dtype}")
    if masks.shape != (n, height, width) or result.before.shape != (n,) or result.after.shape != (n,):
        raise ValueError(
            f"expected masks {(n, height, width)} and {n} scores before and after, got {tuple(masks.shape)}, "
            f"{tuple(result.before.shape)} and {tuple(result.after.shape)}"
        )
    if not (torch.isfinite(result.before).all() and torch.isfinite(result.after).all()):
        raise ValueError("expected finite scores before and after, got NaN or infinity")
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")


def cout(
    decision: Decision,
    images: Tensor,
    edited: Tensor,
    steps: int = 50,
    batch_size: int = 64,
    *,
    items: Sequence[int] | None = None,
) -> Array:
    """Computes the counterfactual transition: the counterfactual's pixels replace the image's, the
    most different first.

    Args:
        decision: one logit per image.
        images, edited: (N, 3, H, W).
        steps: number of equal shares of all pixels.
        batch_size: images per forward pass.
        items: (N,) numbers of the images in their data set, for the fields that break ties.

    Returns:
        (N,): area under the probability of the new answer minus that of the old one, over the share of pixels
        (trapezoid), -1 to 1. The old answer is the decision's about the image. Pixels that differ equally are ordered
        as those of :func:`facexai.metrics.deletion` are, so that no order of pixels decides.

    Source: Khorram and Fuxin 2022, arXiv:2203.15064. Their code counts a shorter last step as a whole one, so that the
    area can exceed 1; here shares are exact.

    >>> image, other = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    >>> other[..., 0, 0] = 1
    >>> cout(lambda x: 80 * x.mean((1, 2, 3)) - 10, image, other, steps=4).round(3)
    array([0.75])
    """
    check_count(decision, len(images))
    n, pixels = len(images), images[0, 0].numel()
    away = (edited.detach() - images.detach()).abs().sum(1)
    logits = _asked_once(decision, images, edited, away > 0, batch_size)
    was = logits(torch.zeros_like(away, dtype=torch.bool), slice(None)) > 0
    shares = np.array([round(k * pixels / steps) for k in range(steps + 1)]) / pixels

    def gain(first: Tensor, chosen: Rows) -> Array:
        logit = logits(first[:, 0], chosen)
        return (1 - 2 * torch.where(was[chosen], logit, -logit).sigmoid())[:, None].numpy()

    def areas(values: Array) -> Array:
        return np.asarray(np.trapezoid(values[..., 0], shares))

    ordered = Ordered(away[:, None], check_items(items, n), 0, batch_size)
    return areas(ordered.measured(shares.tolist(), gain, areas)[0])


def _asked_once(
    decision: Decision, images: Tensor, edited: Tensor, differs: Tensor, batch_size: int
) -> Callable[[Tensor, Rows], Tensor]:
    """Returns a function of pixels (R, H, W) that show the edit, and the rows of their images, that
    returns logits (R,).

    Pictures that were evaluated before, and those that differ in pixels that the edit did not change, are not
    evaluated again.
    """
    seen: dict[tuple[int, bytes], float] = {}

    def logits(first: Tensor, chosen: Rows) -> Tensor:
        shown, index = first & differs[chosen], torch.arange(len(images))[chosen]
        bits = np.packbits(shown.flatten(1).cpu().numpy(), axis=1)
        keys = list(zip(index.tolist(), map(bytes, bits), strict=True))
        new = list({key: place for place, key in enumerate(keys) if key not in seen}.values())
        for part in (torch.tensor(new[i : i + batch_size]) for i in range(0, len(new), batch_size)):
            row = index[part].to(images.device)
            with no_graph():
                pictures = torch.where(shown[part, None], edited[row], images[row])
                scores = score(select(decision, row), pictures).double().tolist()
            seen.update(zip([keys[place] for place in part.tolist()], scores, strict=True))
        return torch.tensor([seen[key] for key in keys], dtype=torch.float64)

    return logits


def _alike(embedder: Embedder, images: Tensor, edited: Tensor, batch_size: int) -> Tensor:
    """Returns the cosine (N,) of the embeddings of images and counterfactuals."""
    spec = getattr(embedder, "spec", None)
    found = []
    for pair in zip(torch.split(images, batch_size), torch.split(edited, batch_size), strict=True):
        fit = [resized(x, spec.height_width) if isinstance(spec, InputSpec) else x for x in pair]
        one, other = (embedder.embed(x).detach().double() for x in fit)
        found.append((one * other).sum(1))
    return torch.cat(found)


def _followed(
    held_out: Decision,
    result: Edits,
    was: Tensor,
    chosen: Tensor,
    items: Sequence[int],
    people: Sequence[str] | None,
    batch_size: int,
) -> Statistic:
    """Returns whether another decision changed as the explained one did, over the images of ``chosen``."""
    index = chosen.to(result.images.device)
    other = select(held_out, index)
    old, new = (score_batched(other, x[index], batch_size).cpu() > 0 for x in (result.images, result.counterfactuals))
    wanted = was[chosen]
    followed = (old == wanted) & (new != wanted)
    own = None if people is None else [people[i] for i in chosen.tolist()]
    return Statistic.of(followed.numpy(), items=[items[i] for i in chosen.tolist()], identities=own)
