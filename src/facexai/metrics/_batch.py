"""The input of all metrics: a classifier, images, a class and a map for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypedDict, final

import torch
from torch import Tensor

from facexai._errors import suggest
from facexai._progress import tqdm
from facexai.functional import minmax, upsample
from facexai.hooks import no_graph
from facexai.input_spec import check_pixels
from facexai.metrics._identities import people_of
from facexai.metrics._ties import BREAKS, Break, warn_of_constant
from facexai.models import Classifier, Gallery
from facexai.perturb import centre_prior, check_items, check_maps
from facexai.perturb._ties import dense_ranks, untied
from facexai.results import Saliency

CONTROLS = ("random", "centre", "mean-map", "other-image")


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """The maps that the controls ``mean-map`` and ``other-image`` need from the whole data set.

    Attributes:
        mean_map: (H, W), mean over the set of the maps scaled to [0, 1]; None: of the maps given.
        other_maps: (N, H, W), for each image the map of the next image of another identity; None: among those given.
            Only the order of its values counts.
    """

    mean_map: Tensor | None = None
    other_maps: Tensor | None = None


class Options(TypedDict, total=False):
    """Options of every metric that runs a classifier.

    Keys:
        identities: (N,) person in each image, for intervals, tests and ``other-image``; see :meth:`Statistic.of`.
        items: (N,) numbers of the images in their data set; randomness depends on them. Default 0, 1, ...
        reference: mean map and partners' maps of the whole set, where the images are a part of it.
        batch_size: images per forward pass; default 64.
        progress: show a progress bar for each set of changed images; default False.
        ties: what decides among equal values of a map: ``"fields"`` (the default) or ``"signed"``.

    ``"fields"`` are seeded random fields, of which the mean is taken. ``"signed"`` takes first the explainer's cells
    before the ReLU, where the explanation has them (:attr:`Saliency.signed_cells`), and fields among what is still
    equal; it measures another map than the one that is drawn. The recipe records it.
    """

    identities: Sequence[str | None] | None
    items: Sequence[int] | None
    reference: Reference
    batch_size: int
    progress: bool
    ties: Break


@final
@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """Images with their maps, classes and the classifier's logits before anything is changed.

    Attributes:
        classifier: gives logits.
        images: (N, 3, H, W).
        maps: (N, H, W), raw.
        targets: (N,) the explained class: that of the Saliency, else the predicted one.
        logits: (N, C) of the unchanged images.
        items: (N,) numbers of the images in their data set.
        identities: (N,) name of the person in each image, each unknown person's own, or None.
        reference: of the whole data set.
        batch_size: images per forward pass.
        progress: show a progress bar for each set of changed images.
        explained: method, layer, network and classes of the maps, if they record them.
        signed: (N, H, W), the maps before the ReLU, where they decide among equal values.
    """

    classifier: Classifier
    images: Tensor
    maps: Tensor
    targets: Tensor
    logits: Tensor
    items: tuple[int, ...]
    identities: tuple[str, ...] | None
    reference: Reference
    batch_size: int
    progress: bool = False
    explained: Mapping[str, Any] = field(default_factory=dict)
    signed: Tensor | None = None

    @cached_property
    def ordered(self) -> Tensor:
        """Returns (N, H, W): values in the order in which pixels are taken, with the ties that random fields break."""
        return self.maps if self.signed is None else dense_ranks(self.maps, self.signed)

    @property
    def ties(self) -> Break:
        """Returns the rule that orders equal values."""
        return "fields" if self.signed is None else "signed"

    def run(self, images: Tensor) -> Tensor:
        """Returns logits (N, C) of changed images."""
        return logits_of(self.classifier, images, self.batch_size, self.progress)

    @property
    def scale(self) -> float:
        """Returns logits per unit of score: a gallery's scale, so that scores are cosines; 1 for other classifiers."""
        return self.classifier.scale if isinstance(self.classifier, Gallery) else 1.0

    @property
    def score_unit(self) -> str:
        """Returns ``"cosine"`` for a gallery, else ``"logit"``."""
        return "cosine" if isinstance(self.classifier, Gallery) else "logit"


def explained_by(maps: object) -> dict[str, Any]:
    """Returns what is known about the measured maps, ``{"explained": {method, layer, ...}}``; {} for plain tensors."""
    recipe = getattr(maps, "recipe", {})
    known = {name: recipe[name] for name in ("method", "layer", "fingerprint") if name in recipe}
    if isinstance(maps, Saliency):
        known["targets"] = maps.targets.tolist()
    return {"explained": known} if known else {}


def logits_of(classifier: Classifier, images: Tensor, batch_size: int, progress: bool = False) -> Tensor:
    """Returns logits (N, C), float64, a batch at a time."""
    rows = []
    with no_graph(), tqdm(total=len(images), desc="measure", unit="image", leave=False, disable=not progress) as bar:
        for part in torch.split(images, batch_size):
            rows.append(classifier.logits(part).detach().double())
            bar.update(len(part))
    return torch.cat(rows)


def subject(
    classifier: Classifier,
    images: Tensor,
    saliency: Saliency | Tensor,
    *,
    items: Sequence[int] | None = None,
    identities: Sequence[str | None] | None = None,
    reference: Reference | None = None,
    batch_size: int = 64,
    progress: bool = False,
    ties: Break = "fields",
) -> EvaluationBatch:
    """Checks that images, maps and identities fit together, and runs the classifier once.

    Raises:
        ValueError: numbers or sizes that differ, NaN in a map, fewer than two classes, an unknown way to break ties.

    Warns:
        FaceXAIWarning: a constant map.
    """
    check_pixels(images)
    maps, signed = _maps_of(saliency, ties)
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    names = getattr(classifier, "names", None)
    if isinstance(saliency, Saliency) and None not in (saliency.names, names) and saliency.names != names:
        raise ValueError("the Saliency names other classes than this classifier; measure with the one explained")
    if len(maps) != len(images) or maps.shape[-2:] != images.shape[-2:]:
        raise ValueError(
            f"expected one map of {tuple(images.shape[-2:])} for each of the {len(images)} images, "
            f"got maps {tuple(maps.shape)}"
        )
    numbers = tuple(int(i) for i in check_items(items, len(images)))
    people = people_of(identities, numbers)
    logits = logits_of(classifier, images, batch_size, progress)
    if logits.shape[1] < 2:
        raise ValueError("probabilities and margins need at least two classes, this classifier has one")
    targets = saliency.targets if isinstance(saliency, Saliency) else logits.argmax(1)
    if not torch.isfinite(logits).all():
        raise ValueError("the classifier gives NaN or infinite logits for these images")
    if int(targets.max()) >= logits.shape[1] or int(targets.min()) < 0:
        raise ValueError(
            f"the Saliency's target {int(targets.max())} is no class of this classifier, which has {logits.shape[1]}; "
            "measure with the classifier that was explained"
        )
    warn_of_constant(maps, numbers)
    return EvaluationBatch(
        classifier,
        images,
        maps,
        targets.to(logits.device),
        logits,
        numbers,
        people,
        Reference() if reference is None else reference,
        batch_size,
        progress,
        explained_by(saliency),
        signed,
    )


def with_maps(who: EvaluationBatch, saliency: Saliency, reference: Reference, ties: Break) -> EvaluationBatch:
    """Returns the same images with other maps of the same classes.

    Warns:
        FaceXAIWarning: a constant map.
    """
    maps, signed = _maps_of(saliency, ties)
    warn_of_constant(maps, who.items)
    return replace(who, maps=maps, signed=signed, reference=reference)


def _maps_of(saliency: Saliency | Tensor, ties: Break) -> tuple[Tensor, Tensor | None]:
    """Returns the maps (N, H, W), and what decides among their equal values, where that is not random fields."""
    if ties not in BREAKS:
        raise ValueError(f"ties cannot be broken by {ties!r}; {suggest(str(ties), BREAKS)}")
    maps = saliency.maps if isinstance(saliency, Saliency) else saliency
    if not isinstance(maps, Tensor):
        raise TypeError(f"expected a Saliency or maps as a torch.Tensor, got {type(maps).__name__}")
    check_maps(maps)
    if ties == "fields" or not isinstance(saliency, Saliency) or saliency.signed_cells is None:
        return maps.detach(), None
    return maps.detach(), upsample(saliency.signed_cells, saliency.size).detach()


def order_of(saliency: Saliency, ties: Break) -> Tensor:
    """Returns values (N, H, W) in the order in which a subject's pixels are taken, for :class:`Reference`."""
    maps, signed = _maps_of(saliency, ties)
    return maps if signed is None else dense_ranks(maps, signed)


def mean_map(maps: Tensor) -> Tensor:
    """Returns the mean (H, W) of maps (N, H, W), each scaled to [0, 1]."""
    return minmax(maps).mean(0)


def other_identity_index(n: int, identities: Sequence[str | None] | None) -> list[int] | None:
    """Returns, for each image, the index of the next one of another identity, in a circle; without
    identities the next one.

    Args:
        n: number of images.
        identities: (n,), as in :meth:`Statistic.of`; an unknown person is another than all others.

    Returns:
        None where some image has no such other.

    Raises:
        ValueError: another number of identities.

    >>> other_identity_index(4, ["ann", "ann", "bo", "ann"]), other_identity_index(3, [None, None, ""])
    ([2, 2, 3, 2], [1, 2, 0])
    """
    return next_others(n, people_of(identities, range(n)))


def next_others(n: int, people: Sequence[str] | None) -> list[int] | None:
    """Returns :func:`other_identity_index` from the names that :func:`people_of` gives, in one walk.

    >>> next_others(4, ["ann", "ann", "bo", "ann"])
    [2, 2, 3, 2]
    """
    if n == 0:
        return []
    if n == 1 or (people is not None and len(set(people)) < 2):
        return None
    following = [0] * (2 * n)
    for place in reversed(range(2 * n - 1)):
        same = people is not None and people[place % n] == people[(place + 1) % n]
        following[place] = following[place + 1] if same else (place + 1) % n
    return following[:n]


def centre_order(size: tuple[int, int], seed: int) -> Tensor:
    """Returns the values (1, H, W) of pixels in the order of the control ``centre``, with ties broken by ``seed``."""
    return untied(centre_prior(size)[None], [0], seed=seed)


def control_maps(who: EvaluationBatch, seed: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns maps (N, H, W) of the controls but ``random``, and the reason for each that there is not.

    Pixels equally far from the centre, up to 40 of 112 x 112, come in an order drawn with ``seed``.
    """
    reference = who.reference
    for name, given, shape in (
        ("mean_map", reference.mean_map, who.maps.shape[1:]),
        ("other_maps", reference.other_maps, who.maps.shape),
    ):
        if given is not None and given.shape != shape:
            raise ValueError(f"expected reference.{name} of shape {tuple(shape)}, got {tuple(given.shape)}")
    n, size = len(who.maps), (int(who.maps.shape[1]), int(who.maps.shape[2]))
    centre = centre_order(size, seed).to(who.maps.device)
    found, reasons = {"centre": centre.expand(n, -1, -1)}, {}
    if reference.mean_map is not None:
        found["mean-map"] = reference.mean_map.to(who.maps).expand(n, -1, -1)
    elif n > 1:
        found["mean-map"] = mean_map(who.maps).expand(n, -1, -1)
    else:
        reasons["mean-map"] = "one image: the mean map is its own"
    if reference.other_maps is not None:
        found["other-image"] = reference.other_maps.to(who.maps)
    elif (partners := next_others(n, who.identities)) is not None and n > 1:
        found["other-image"] = who.ordered[partners]
    else:
        reasons["other-image"] = "one image" if n == 1 else "an image has no partner of another identity"
    return found, reasons
