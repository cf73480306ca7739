"""Many pairs over fewer faces: every face is observed once; its evidence is held within a bound, the rest on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facexai._progress import tqdm
from facexai._tensor_store import Store
from facexai.explainers._cache import EvidenceCache
from facexai.explainers.pairs import Answer, FaceEvidence, Pairwise


def explain_pairs(
    explainer: Pairwise[Answer],
    images: Tensor | Sequence[Tensor],
    pairs: Iterable[tuple[int, int]],
    *,
    memory: int = 2**30,
    folder: str | Path | None = None,
    batch_size: int = 16,
    attach: bool = True,
    progress: bool = False,
) -> Iterator[Answer]:
    """Explains pairs of a set of faces, one after the other, observing every face once.

    Args:
        explainer: :class:`~facexai.FGGB`, :class:`~facexai.CorrRISE`, :class:`~facexai.PairCAM`,
            :class:`~facexai.XSSAB` or :class:`~facexai.FrequencyHeatPlot`. Evidence of FGGB is large: ``FGGB(...,
            half=True)`` halves it. xSSAB, PairCAM at another layer than the head's, and frequency heat plots that are
            not exact run the network for every pair.
        images: (n, 3, H, W), or a sequence of (3, H, W), which may load them on demand.
        pairs: (i, j), numbers of images; may be endless.
        memory: bytes of evidence that are held; what is over goes to disk and comes back when it is needed. The disk
            grows with the number of faces.
        folder: on whose disk; default: that of temporary files. What is written there is removed at the end.
        batch_size: faces that are observed together.
        attach: answers refer to their images, for plots; a sequence is then indexed for the
            images of every pair again.
        progress: show a progress bar.

    Yields:
        an answer of one pair each, in the order of ``pairs``.

    Raises:
        ValueError: a pair of images that do not exist.
        OSError: the disk is full; says what to do.

    Source: ours.

    >>> from facexai import CorrRISE, FaceModel, InputSpec
    >>> model = FaceModel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), InputSpec(8))
    >>> faces = torch.rand(4, 3, 8, 8)
    >>> [len(why) for why in explain_pairs(CorrRISE(model, count=20), faces, [(0, 1), (0, 3), (2, 3)])]
    [1, 1, 1]
    """
    if batch_size < 1 or memory < 0:
        raise ValueError(f"expected batch_size of at least 1 and memory of at least 0, got {batch_size} and {memory}")
    return _explained(explainer, images, iter(pairs), memory, folder, batch_size, attach, progress)


def _explained(
    explainer: Pairwise[Answer],
    images: Tensor | Sequence[Tensor],
    pairs: Iterator[tuple[int, int]],
    memory: int,
    folder: str | Path | None,
    batch_size: int,
    attach: bool,
    progress: bool,
) -> Iterator[Answer]:
    with tempfile.TemporaryDirectory(prefix="facexai-", dir=folder) as disk, tqdm(disable=not progress) as bar:
        kept = EvidenceCache(memory, Store(Path(disk)))
        while some := [_numbers(pair, len(images)) for pair in islice(pairs, kept.window(batch_size))]:
            if explainer.portable:
                new = list(dict.fromkeys(i for pair in some for i in pair if i not in kept))
                for at in range(0, len(new), batch_size):
                    _observe(explainer, images, new[at : at + batch_size], kept)
            for i, j in some:
                both = [_stacked(images, [k]) for k in (i, j)] if attach or not explainer.portable else []
                if explainer.portable:
                    why = explainer.answer(kept.get(i), kept.get(j))
                else:
                    why = explainer.answer(explainer.observe(both[0]), explainer.observe(both[1]))
                yield replace(why, images=torch.stack(both, 1)) if attach else why
                bar.update()


def _numbers(pair: Sequence[int], count: int) -> tuple[int, int]:
    if len(pair) != 2 or not all(0 <= int(i) < count for i in pair):
        raise ValueError(f"expected pairs of the {count} images, got {tuple(int(i) for i in pair)}")
    return int(pair[0]), int(pair[1])


def _observe(explainer: Pairwise[Any], images: Tensor | Sequence[Tensor], part: list[int], kept: EvidenceCache) -> None:
    """Observes several faces together and keeps the evidence of each."""
    evidence: FaceEvidence = explainer.observe(_stacked(images, part))
    for row, i in enumerate(part):
        own = evidence[row : row + 1]
        kept.put(i, replace(own, parts={name: tensor.clone() for name, tensor in own.parts.items()}))


def _stacked(images: Tensor | Sequence[Tensor], numbers: list[int]) -> Tensor:
    return torch.stack([images[i] for i in numbers])
