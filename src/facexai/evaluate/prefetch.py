"""Photos read ahead by threads, so that the network does not wait for the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Asked = TypeVar("Asked")
Read = TypeVar("Read")


def ahead(read: Callable[[Asked], Read], asked: Iterable[Asked], workers: int) -> Iterator[tuple[Asked, Read]]:
    """Yields ``(a, read(a))`` in order while worker threads read the next ones; without workers, each
    is read on demand.

    >>> list(ahead(str, [1, 2], 2))
    [(1, '1'), (2, '2')]
    """
    if workers < 1:
        yield from ((one, read(one)) for one in asked)
        return
    rest = iter(asked)
    with ThreadPoolExecutor(workers, "facexai-read") as pool:
        try:
            waiting: deque[tuple[Asked, Future[Read]]] = deque()
            waiting.extend((one, pool.submit(read, one)) for one in islice(rest, workers + 1))
            while waiting:
                one, future = waiting.popleft()
                found = future.result()
                waiting.extend((nxt, pool.submit(read, nxt)) for nxt in islice(rest, 1))
                yield one, found
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
