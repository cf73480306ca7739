"""Measures whether a decision depends on one attribute, from images and counterparts without the attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.special import expit
from torch import Tensor, nn

from facexai.decisions import Decision, score_batched
from facexai.functional._labels import labels_of
from facexai.input_spec import check_pixels
from facexai.metrics._batch import logits_of
from facexai.metrics._identities import people_of
from facexai.metrics._shortcut_result import Difference, ShortcutAudit, difference
from facexai.metrics.statistic import Array, Statistic
from facexai.models import Classifier
from facexai.perturb import check_items


def mad(
    classifier: Classifier | Decision,
    images: Tensor,
    counterparts: Tensor,
    targets: Tensor | int | None = None,
    *,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Difference:
    """Returns the mean absolute difference of a probability between images and their counterparts.

    Args:
        classifier: gives logits (softmax makes probabilities of them); or a decision of :mod:`facexai.decisions`, a
            network with one output, any function that gives one logit per image (sigmoid).
        images: (N, 3, H, W) RGB in [0, 1].
        counterparts: (N, 3, H, W): the same images with one thing changed: a region removed, an attribute edited.
        targets: class index, or one for each image; None: the class predicted for the image. A decision has none.
        identities, items, batch_size: as in :func:`facexai.metrics.deletion`.

    Returns:
        :class:`Difference`.

    Raises:
        ValueError: shapes that differ, an index out of range, or targets for a decision.

    Source: Weng et al. 2024, arXiv:2312.14223, sec. 4 (MAD); signed difference and test are ours.
    """
    numbers = check_items(items, len(images))
    people = people_of(identities, numbers)
    p, q = (expit(row) for row in _log_odds(classifier, [images, counterparts], targets, batch_size))
    return difference(Statistic.of(p, items=numbers, identities=people), q)


def _is_classifier(asked: object) -> bool:
    """Returns whether it has a method for logits; a network's layer of that name is none."""
    return hasattr(asked, "logits") and not isinstance(asked.logits, nn.Module)


def _log_odds(
    asked: Classifier | Decision, versions: Sequence[Tensor], targets: Tensor | int | None, batch_size: int
) -> list[Array]:
    """Returns the log-odds (N,) of the target, or of a positive decision, for several versions of the same images,
    the originals first.

    Probabilities follow by the sigmoid. They saturate, and ranks of them would have ties.
    """
    images = versions[0]
    for version in versions:
        if images.shape != version.shape:
            raise ValueError(
                f"expected a counterpart of the same shape, got {tuple(images.shape)} and {tuple(version.shape)}"
            )
        check_pixels(version)
    if not _is_classifier(asked):
        if targets is not None:
            raise ValueError(f"a decision has one logit and no classes, got the class {targets}; leave it out")
        return [score_batched(asked, x, batch_size).cpu().numpy() for x in versions]  # type: ignore[arg-type]
    answers = [logits_of(asked, x, batch_size) for x in versions]  # type: ignore[arg-type]
    n, classes = answers[0].shape
    chosen = answers[0].argmax(1) if targets is None else torch.as_tensor(targets, device=answers[0].device)
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.shape not in ((), (1,), (n,)):
        raise ValueError(f"expected a class index or one for each of {n} images, got {targets}")
    chosen = chosen.long().expand(n)
    if int(chosen.min()) < 0 or int(chosen.max()) >= classes:
        raise ValueError(f"expected class indices from 0 to {classes - 1}, got {targets}")
    place = chosen[:, None]
    return [
        (x.gather(1, place)[:, 0] - x.scatter(1, place, -torch.inf).logsumexp(1)).cpu().numpy()
        for x in (answer.double() for answer in answers)
    ]


def shortcut_audit(
    decision: Decision | Classifier,
    images: Tensor,
    counterparts: Tensor,
    *,
    target: int | None = None,
    labels: Any = None,
    shortcut: Any = None,
    no_op: Tensor | None = None,
    identities: Sequence[str | None] | None = None,
    items: Sequence[int] | None = None,
    batch_size: int = 64,
) -> ShortcutAudit:
    """Measures whether a decision depends on a shortcut, an attribute that has nothing to do with the task.

    Args:
        decision: a decision, or a classifier with its ``target``; see :func:`mad`.
        images: (N, 3, H, W) RGB in [0, 1].
        counterparts: (N, 3, H, W): the same with the shortcut taken away where it was, and added where it was not, such
            as counterfactuals of another network that uses the shortcut.
        target: class index of a classifier.
        labels: (N,) of the task, 0 or 1: the AUROC should not fall on the counterparts, whose labels are the same.
            Values as in :func:`facexai.metrics.roc`.
        shortcut: (N,) 1 where the image has the shortcut, else 0: differences of both kinds apart. Values as in labels.
        no_op: (N, 3, H, W): counterparts of the same pipeline without guidance, ``FastDiME.no_op``. Reconstruction
            alone moves probabilities, so a mean absolute difference means little without it.
        identities, items, batch_size: as in :func:`facexai.metrics.deletion`.

    Raises:
        ValueError: shapes that differ, labels other than 0 and 1, a classifier without target, a target out of range.

    Source: Weng et al. 2024, arXiv:2312.14223, sec. 4; the no-op control, intervals and tests are ours.

    >>> images = torch.tensor([0.9, 0.8, 0.2, 0.1])[:, None, None, None].expand(4, 3, 2, 2)
    >>> audit = shortcut_audit(lambda x: 4 * x.mean((1, 2, 3)) - 2, images, 1 - images, labels=[1, 1, 0, 0])
    >>> audit.auroc.before, audit.auroc.after
    (1.0, 0.0)
    """
    if _is_classifier(decision) and target is None:
        raise ValueError("a classifier has several classes; say which one the audit is of, with target=")
    versions = [images, counterparts] if no_op is None else [images, counterparts, no_op]
    numbers = check_items(items, len(images))
    people = people_of(identities, numbers)

    def of(values: Any) -> Statistic:
        return Statistic.of(values, items=numbers, identities=people)

    kinds = [
        None if kind is None else of(labels_of(kind, len(images), name, "images"))
        for name, kind in (("labels", labels), ("shortcut", shortcut))
    ]
    odds = _log_odds(decision, versions, target, batch_size)
    found = [of(expit(row)) for row in odds]
    control = found[2] if no_op is not None else None
    return ShortcutAudit(found[0], found[1], control, kinds[0], kinds[1], of(odds[0]), of(odds[1]))
