"""Engines distribute shards: to this process, to the ranks of torchrun, or to Ray's actors."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, final

from facexai._errors import told
from facexai._progress import tqdm
from facexai.evaluate.context import RunContext
from facexai.evaluate.shards import BatchResult, Face, Faces, Shards, Stage, joined

_POLL = 0.2

Request = TypeVar("Request")
Read = TypeVar("Read")


class Engine(Protocol):
    """Commits all shards of a stage."""

    def complete(self, number: int, shards: Shards) -> None:
        """Returns when the last shard of the ``number``-th stage is committed, whoever did it."""
        ...


@final
@dataclass(frozen=True)
class Rank:
    """An engine of this process, which is the only one or one of several ranks that share a folder.

    Attributes:
        work: of the run.
        rank, world: which of how many.
        readers: threads that read photos ahead.
        patience: seconds without any new shard after which the other ranks are given up.
        progress: show a progress bar.
    """

    work: RunContext
    rank: int = 0
    world: int = 1
    readers: int = 2
    patience: float = 21_600.0
    progress: bool = False

    def complete(self, number: int, shards: Shards) -> None:
        """Works on this rank's shards, then waits for those of the others."""
        mine = [shard for shard in shards.missing() if shard % self.world == self.rank]
        total = sum(len(shards.items(shard)) for shard in range(self.rank, len(shards), self.world))
        left = sum(len(shards.items(shard)) for shard in mine)
        with progress_bar(shards, total, total - left, self.progress) as bar:
            for shard, seconds in worked(self.work, shards, mine, self.readers, bar.update):
                note_time(self.work.store.folder.parent, self.rank, shards, shard, seconds)
            if shards.missing():
                bar.set_postfix_str("waiting for other ranks")
                self._wait(shards)

    def _wait(self, shards: Shards) -> None:
        missing, since = shards.missing(), time.monotonic()
        while missing:
            if len(left := shards.missing(missing)) != len(missing):
                missing, since = left, time.monotonic()
                continue
            if time.monotonic() - since > self.patience:
                raise TimeoutError(
                    f"{len(missing)} shards of other ranks are missing, none came for {self.patience:g} s; start the "
                    "same run again: what is committed stays"
                )
            time.sleep(_POLL)


def progress_bar(shards: Shards, total: int, done: int, progress: bool) -> tqdm:
    """Returns a progress bar over the items of a stage."""
    stage = shards.stage
    return tqdm(total=total, initial=done, desc=stage.name, unit=stage.unit, disable=not progress, file=sys.stderr)


def worked(
    work: RunContext,
    shards: Shards,
    assigned: Sequence[int],
    readers: int,
    tick: Callable[[int], object] = lambda _: None,
) -> Iterator[tuple[int, float]]:
    """Works on shards one after another and commits each; yields its number and the seconds that it took."""

    def read(asked: tuple[int, range]) -> dict[int, Face | str]:
        return {photo: _face(work, photo) for photo in shards.stage.photos(asked[1])}

    batches = ((shard, items) for shard in assigned for items in shards.batches(shard))
    parts: list[BatchResult] = []
    failed: dict[int, str] = {}
    start = time.perf_counter()
    for (shard, items), results in ahead(read, batches, readers):
        failed |= {photo: face for photo, face in results.items() if isinstance(face, str)}
        faces = {photo: face for photo, face in results.items() if not isinstance(face, str)}
        _check_unchanged(work, shards.before, faces)
        parts.append(_stepped(shards.stage, items, faces, failed))
        tick(len(items))
        if items.stop == shards.items(shard).stop:
            shards.commit(shard, parts, failed)
            yield shard, time.perf_counter() - start
            parts, failed, start = [], {}, time.perf_counter()


def ahead(read: Callable[[Request], Read], requests: Iterable[Request], workers: int) -> Iterator[tuple[Request, Read]]:
    """Yields ``(a, read(a))`` in order, while threads read the next ones; with no workers each is read in its turn.

    >>> list(ahead(str, [1, 2], 2))
    [(1, '1'), (2, '2')]
    """
    if workers < 1:
        yield from ((request, read(request)) for request in requests)
        return
    rest = iter(requests)
    with ThreadPoolExecutor(workers, "facexai-read") as pool:
        try:
            waiting: deque[tuple[Request, Future[Read]]] = deque()
            waiting.extend((request, pool.submit(read, request)) for request in islice(rest, workers + 1))
            while waiting:
                request, future = waiting.popleft()
                result = future.result()
                waiting.extend((following, pool.submit(read, following)) for following in islice(rest, 1))
                yield request, result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _check_unchanged(work: RunContext, before: Shards | None, faces: Faces) -> None:
    """Refuses a photo that differs from the one that an earlier stage read."""
    for photo, digest in ({} if before is None else before.digests(faces)).items():
        if faces[photo].sha256 != digest:
            raise ValueError(
                f"{work.data.names[photo]} is another picture than the one this run began with (SHA-256 "
                f"{faces[photo].sha256.hex()[:12]}, was {digest.hex()[:12]}); put that one back and start the same run "
                "again, or start in another folder"
            )


def _stepped(stage: Stage, items: range, faces: Faces, failed: dict[int, str]) -> BatchResult:
    """Returns the result of a batch; where the network refuses it, photo by photo, recording those that it refuses."""
    try:
        return stage.step(items, faces)
    except ValueError:
        if stage.unit != "photo" or len(items) == 1:
            raise
        parts: list[BatchResult] = []
        refused: dict[int, str] = {}
        for item in items:
            try:
                parts.append(stage.step(range(item, item + 1), faces))
            except ValueError as error:
                refused |= dict.fromkeys(stage.photos(range(item, item + 1)), told(error))
        if not any(part.items for part in parts):  # not one bad photo, but something that is wrong with all of them
            raise
        failed |= refused
        return joined(parts)


def _face(work: RunContext, photo: int) -> Face | str:
    """Returns a face, or the reason why there is none."""
    try:
        return work.face(photo)
    except (ValueError, FileNotFoundError, PermissionError) as error:  # others are of the machine and may pass
        source = work.data.sources[photo]
        return told(error).replace(source, work.data.names[photo]) if isinstance(source, str) else told(error)


def note_time(folder: Path, rank: int, shards: Shards, shard: int, seconds: float) -> None:
    """Appends a timing to a file of its own, since results do not depend on timings."""
    row = {"shard": shards.key(shard), "items": len(shards.items(shard)), "seconds": round(seconds, 4)}
    line, path = json.dumps(row), folder / f"timings-{rank}.jsonl"
    with contextlib.suppress(OSError), open(path, "a", encoding="utf-8", opener=_no_link) as file:
        file.write(line + "\n")


def _no_link(path: str, flags: int) -> int:
    """Opens a file without following a symbolic link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def ranks() -> tuple[int, int, int]:
    """Returns rank, number of ranks and local rank from torchrun's environment; (0, 1, 0) without it."""
    rank, world, local = (os.environ.get(name, default) for name, default in _ENVIRONMENT)
    return int(rank), int(world), int(local)


def run_number(world: int) -> str:
    """Returns an identifier that the ranks of a run share with no other run; for a single process, a random one."""
    if world == 1:
        return secrets.token_hex(8)
    return " ".join(os.environ.get(name, "") for name in _OF_ALL_RANKS)


_OF_ALL_RANKS = ("WORLD_SIZE", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT")
_ENVIRONMENT = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
