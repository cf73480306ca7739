"""Ray's actors as workers: each holds the network and takes the next shard when it has finished one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import torch

from facexai._messages import require
from facexai.evaluate.config import Config
from facexai.evaluate.engine import note_time, progress_bar, worked
from facexai.evaluate.manifest import claim, manifest_of
from facexai.evaluate.pairs import Pairs
from facexai.evaluate.people import People
from facexai.evaluate.stage import Shards
from facexai.evaluate.work import Work, prepared
from facexai.models import FaceModel


class Worker:
    """What an actor is: it follows the stages of the run and works on the shards that it is told."""

    def __init__(
        self, config: Config, base: Path, folder: Path, model: FaceModel | None, rank: int, readers: int, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() and model is None else None
        work = prepared(config, base, folder, model, device)
        claim(folder, manifest_of(work), first=False, patience=60.0)  # a factory may make another network every time
        made: People | Pairs = People(work) if work.task == "people" else Pairs(work, rank)
        self.work, self.readers, self.stages = work, readers, made.stages()
        self.number, self.shards = 0, next(self.stages)

    def do(self, number: int, shard: int) -> tuple[int, float]:
        """Work on a shard of a stage, all stages before which are complete."""
        while self.number < number:
            self.number, self.shards = self.number + 1, next(self.stages)
        return next(worked(self.work, self.shards, [shard], self.readers))

    def end(self) -> None:
        """Remove what the worker kept for itself."""
        self.stages.close()  # type: ignore[attr-defined]


@final
@dataclass
class Actors:
    """Ray's actors; a context in which they live.

    Attributes:
        work: of the run, as the driver sees it.
        base, model, readers, threads: as for :func:`facexai.evaluate.run`.
        count: of actors.
        progress: show a progress bar.
    """

    work: Work
    base: Path
    model: FaceModel | None
    count: int
    readers: int
    threads: int | None
    progress: bool

    def __enter__(self) -> Actors:
        if self.count < 1:
            raise ValueError(f"expected at least one actor, got {self.count}")
        self.ray: Any = require("ray", extra="ray", purpose="running on actors")
        self.started = not self.ray.is_initialized()
        if self.started:
            self.ray.init(num_cpus=self.count, include_dashboard=False, log_to_driver=False, logging_level="error")
        gpus = int(self.ray.cluster_resources().get("GPU", 0))
        kind = self.ray.remote(Worker).options(num_cpus=1, num_gpus=min(1.0, gpus / self.count))
        given = (self.work.config, self.base.absolute(), self.work.store.folder.parent.absolute(), self.model)
        threads = torch.get_num_threads() if self.threads is None else self.threads
        self.actors = [kind.remote(*given, rank, self.readers, threads) for rank in range(self.count)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.ray.get([actor.end.remote() for actor in self.actors])
        for actor in self.actors:
            self.ray.kill(actor)
        if self.started:
            self.ray.shutdown()

    def complete(self, number: int, shards: Shards) -> None:
        """Hand out the missing shards; an actor's error ends the run."""
        waiting = deque(shards.missing())
        left = sum(len(shards.items(shard)) for shard in waiting)
        free = list(range(self.count))
        busy: dict[Any, int] = {}
        with progress_bar(shards, shards.stage.count, shards.stage.count - left, self.progress) as bar:
            while waiting or busy:
                while waiting and free:
                    rank = free.pop()
                    busy[self.actors[rank].do.remote(number, waiting.popleft())] = rank
                for done in self.ray.wait(list(busy))[0]:
                    rank = busy.pop(done)
                    shard, seconds = self._result(done)
                    note_time(self.work.store.folder.parent, rank, shards, shard, seconds)
                    bar.update(len(shards.items(shard)))
                    free.append(rank)

    def _result(self, done: Any) -> tuple[int, float]:
        try:
            found: tuple[int, float] = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what happened, not where Ray was
        except self.ray.exceptions.RayActorError as error:
            raise OSError(
                f"an actor stopped ({str(error).splitlines()[0]}); start the same run again: what is committed stays"
            ) from error
        return found
