"""Runs a measurement over a data set: in this process, on several ranks, or on Ray."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import torch

from facexai.evaluate import aggregate
from facexai.evaluate._disk import memory_named, not_written
from facexai.evaluate._lock import locked
from facexai.evaluate.config import Config
from facexai.evaluate.context import RunContext, opened_work
from facexai.evaluate.engine import Engine, Rank, ranks, run_number
from facexai.evaluate.identification import People
from facexai.evaluate.manifest import claim, manifest_of
from facexai.evaluate.results import Results
from facexai.evaluate.validate import check
from facexai.evaluate.verification import Pairs
from facexai.models import FaceModel

EngineName = Literal["auto", "process", "torchrun", "ray"]
ENGINES: tuple[EngineName, ...] = ("auto", "process", "torchrun", "ray")

_LEFT = (
    ".manifest.json.*",
    ".lock-*",
    ".items.csv.*",
    ".unreadable.csv.*",
    ".results.*",
    ".mean_maps.png.*",
    "shards/.*",
)
"""Temporary files of a worker that was killed while it wrote."""


def run(
    config: Config,
    out: str | Path,
    *,
    model: FaceModel | None = None,
    base: str | Path = ".",
    engine: EngineName = "auto",
    readers: int = 2,
    actors: int = 2,
    device: str | None = None,
    threads: int | None = None,
    patience: float = 21_600.0,
    progress: bool = False,
) -> Results | None:
    """Explains and measures a data set; the same call resumes an interrupted run.

    Every number is kept per item, batches are fixed by the list of items, and randomness depends on the item: engines,
    numbers of workers and breaks change no bit of the results, on one kind of device and number of threads.

    Args:
        config: what is measured.
        out: folder of the run. Shards are committed there by renaming whole files; an interruption loses only the
            shard in progress.
        model: instead of the configuration's; for ``"ray"`` it must pickle.
        base: folder that paths in the configuration are relative to.
        engine: ``"process"``: this one; ``"torchrun"``: the ranks that torchrun started divide the shards, without a
            process group; ``"ray"``: actors (extra ``ray``), of a cluster where one is named. ``"auto"``: torchrun if
            it started us, else this process.
        readers: threads per worker that read photos ahead.
        actors: workers of Ray; GPUs, where there are any, are divided among them.
        device: such as ``"cuda"``; None: a GPU where there is one and the model is named in the configuration, for a
            rank its own; a ``model`` stays where it is, for Ray's actors on the GPU they have.
        threads: torch threads of each worker; None: as they are.
        patience: seconds to wait for other ranks while no shard comes.
        progress: show progress bars with rate and time left.

    Returns:
        :class:`Results`; None on ranks other than the first. Written into ``out``: ``results.json``, ``results.txt``,
        ``items.csv`` (a row for each item), ``unreadable.csv`` (photos that could not be read, and why), plots, and
        timings in files of their own.

    Raises:
        FileNotFoundError, ValueError: no such data, nothing that can be measured, unknown names or options, a folder
            that holds another run or that one is at work in, a damaged shard, a photo that was replaced.
        OSError: the folder cannot be written, or the disk is full. What is committed stays.
        MemoryError: memory ran out; says what takes less of it. What is committed stays.
        TimeoutError: other ranks have stopped.
        ImportError: Ray is missing (extra ``ray``), or what an explainer needs.

    Source: ours.
    """
    if engine not in ENGINES:
        raise ValueError(f"expected engine one of {list(ENGINES)}, got {engine!r}")
    for name, count in (("threads", threads), ("actors", actors)):
        if count is not None and count < 1:
            raise ValueError(f"expected {name} of at least 1, got {count}")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before if threads is None else threads)
        rank, world, local = ranks() if engine in ("auto", "torchrun") else (0, 1, 0)
        folder, root = Path(out), Path(base)
        if device is None and model is None and torch.cuda.is_available():
            device = f"cuda:{local % torch.cuda.device_count()}"
        work = opened_work(config, root, folder, model, device)
        check(work, root, folder)
        with memory_named(readers, config.micro_batch), locked(folder, rank, run_number(world)):
            manifest = claim(folder, manifest_of(work), first=rank == 0, patience=patience)
            if engine != "ray":
                alone = Rank(work, rank, world, readers, patience, progress and rank == 0)
                return completed(work, alone, rank, manifest)
            from facexai.evaluate.ray_engine import Actors

            with Actors(work, root, model, device, actors, readers, torch.get_num_threads(), progress) as crew:
                return completed(work, crew, rank, manifest)
    finally:
        torch.set_num_threads(before)


def completed(work: RunContext, engine: Engine, rank: int, manifest: Mapping[str, Any]) -> Results | None:
    """Completes one stage after another; the first rank aggregates the results."""
    made: People | Pairs = People(work) if work.task == "people" else Pairs(work, rank)
    with closing(made.stages()) as stages:
        for number, shards in enumerate(stages):
            engine.complete(number, shards)
    if rank != 0:
        return None
    folder = work.store.folder.parent
    for pattern in _LEFT:
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)
    for left in folder.glob("evidence-*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        return aggregate.of_people(made, manifest) if isinstance(made, People) else aggregate.of_pairs(made, manifest)
    except OSError as error:
        raise not_written(error, f"the results into {folder}", folder) from error
