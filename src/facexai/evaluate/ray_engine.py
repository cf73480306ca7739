"""An engine of Ray's actors: each holds the network and takes the next shard when it has finished one."""

from __future__ import annotations

import math
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, final

import torch

from facexai._errors import require
from facexai.evaluate.config import Config
from facexai.evaluate.context import RunContext, opened_work
from facexai.evaluate.engine import note_time, progress_bar, worked
from facexai.evaluate.identification import People
from facexai.evaluate.manifest import claim, manifest_of
from facexai.evaluate.shards import Shards
from facexai.evaluate.verification import Pairs
from facexai.models import FaceModel

_START = 600.0  # seconds that actors may take to start


class Worker:
    """Walks the stages of the run in an actor and works on the shards that it is assigned."""

    def __init__(
        self,
        config: Config,
        base: Path,
        folder: Path,
        model: FaceModel | None,
        device: str | None,
        rank: int,
        readers: int,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        work = opened_work(config, base, folder, model, device)
        claim(folder, manifest_of(work), first=False, patience=60.0)  # a factory may make another network every time
        made: People | Pairs = People(work) if work.task == "people" else Pairs(work, rank)
        self.work, self.readers, self.stages = work, readers, made.stages()
        self.number, self.shards = 0, next(self.stages)

    def ready(self) -> bool:
        """Returns True once the actor has started."""
        return True

    def do(self, number: int, shard: int) -> tuple[int, float]:
        """Works on a shard of a stage; all earlier stages are complete."""
        while self.number < number:
            self.number, self.shards = self.number + 1, next(self.stages)
        return next(worked(self.work, self.shards, [shard], self.readers))

    def end(self) -> None:
        """Removes the worker's temporary files."""
        self.stages.close()


@final
@dataclass
class Actors:
    """A context manager that starts and ends Ray's actors.

    Attributes:
        work: of the run, as the driver sees it.
        base, model, device, readers, threads: as for :func:`facexai.evaluate.run`.
        count: of actors.
        progress: show a progress bar.
    """

    work: RunContext
    base: Path
    model: FaceModel | None
    device: str | None
    count: int
    readers: int
    threads: int
    progress: bool

    def __enter__(self) -> Actors:
        self.ray: Any = require("ray", extra="ray", purpose="running on actors")
        self.started = not self.ray.is_initialized()
        self.actors: list[Any] = []
        try:
            if self.started:
                own = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": self.count, "include_dashboard": False}
                self.ray.init(log_to_driver=False, logging_level="error", **own)
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _start(self) -> None:
        gpus = int(self.ray.cluster_resources().get("GPU", 0))
        share = 1 / math.ceil(self.count / gpus) if gpus else 0  # whole actors fit on every GPU
        device = ("cuda" if gpus else None) if self.device in (None, "cuda", "cuda:0") else self.device
        kind = self.ray.remote(Worker).options(num_cpus=1, num_gpus=share)
        given = (self.work.config, self.base.absolute(), self.work.store.folder.parent.absolute(), self.model, device)
        self.actors = [kind.remote(*given, rank, self.readers, self.threads) for rank in range(self.count)]
        asked = [actor.ready.remote() for actor in self.actors]
        done, late = self.ray.wait(asked, num_returns=self.count, timeout=_START)
        if late:
            raise OSError(f"{len(late)} of {self.count} actors did not start; are there as many free CPUs and GPUs?")
        for one in done:
            self._result(one)

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
        """Assigns the missing shards to actors; an actor's error ends the run."""
        waiting = deque(shards.missing())
        left = sum(len(shards.items(shard)) for shard in waiting)
        free = list(range(self.count))
        busy: dict[Any, int] = {}
        with progress_bar(shards, shards.count, shards.count - left, self.progress) as bar:
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

    def _result(self, done: Any) -> Any:
        try:
            return self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from error  # what happened, not where Ray was
        except self.ray.exceptions.RayActorError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, Exception):
                raise cause from error
            raise OSError("an actor of Ray stopped; start the same run again: what is committed stays") from error
