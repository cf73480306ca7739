"""The stages of a run: items are worked on in fixed small batches and committed in shards of whole batches.

A run is a few stages after another: what a stage needs of the whole data set is added up from the shards of the stage
before it. Batches are fixed by the list of items, and every number is kept per item; so the distribution of the shards,
and how large shards are, changes no bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._tensor_store import Store
from facexai.evaluate._disk import not_written

_SUM = "sum of "
_RECENT = 4  # shards whose tensors are kept in memory


@final
@dataclass(frozen=True, eq=False)
class Face:
    """A photo, aligned and decoded.

    Attributes:
        image: (1, 3, H, W) prepared for the network.
        sha256: 32 bytes, of the photo as it is encoded.
    """

    image: Tensor
    sha256: bytes


Faces = Mapping[int, Face]


@final
@dataclass(frozen=True, eq=False)
class BatchResult:
    """The result of a stage for some items.

    Attributes:
        items: (n,) those that could be worked on.
        rows: {name: (n, ...)}.
        sums: {name: (...)}, whole numbers, which add without rounding.
        recipes: {name: every choice that changed a number}, of explainers.
    """

    items: Sequence[int]
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def joined(parts: Sequence[BatchResult]) -> BatchResult:
    """Returns the results of several batches as one."""
    filled = [part for part in parts if part.items]
    if not filled:
        return BatchResult([])
    sums: dict[str, Tensor] = {}
    for part in filled:
        for name, value in part.sums.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    rows = {name: torch.cat([part.rows[name] for part in filled]) for name in filled[0].rows}
    return BatchResult([item for part in filled for item in part.items], rows, sums, filled[0].recipes)


@final
@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a run, which works on small batches of items.

    Attributes:
        name: the beginning of its shards' names.
        unit: the kind of item, ``"photo"`` or ``"pair"``.
        index: (count, k), the numbers of the k photos of each item.
        compute: returns the result of those items of a batch all photos of which could be read.
        selected: (count,), the items to work on; None: all.
        after: an earlier stage; only items that it measured are worked on. None: all.
    """

    name: str
    unit: Literal["photo", "pair"]
    index: NDArray[np.int64]
    compute: Callable[[list[int], Faces], BatchResult]
    selected: NDArray[np.bool_] | None = None
    after: Shards | None = None

    def photos(self, items: range) -> list[int]:
        """Returns the numbers of the photos that these items need, each once."""
        rows = self.index[items.start : items.stop]
        found = np.unique(rows if self.selected is None else rows[self.selected[items.start : items.stop]])
        return [int(photo) for photo in found]

    def step(self, items: range, faces: Faces) -> BatchResult:
        """Returns the result of a batch; ``faces`` lacks photos that could not be read."""
        measured = (
            range(items.stop) if self.after is None else set(self.after.items_of(items[0] // self.after.size).tolist())
        )
        readable = [
            item
            for item, photos in zip(items, self.index[items.start : items.stop].tolist(), strict=True)
            if (self.selected is None or self.selected[item])
            and item in measured
            and all(photo in faces for photo in photos)
        ]
        return self.compute(readable, faces) if readable else BatchResult([])


@final
@dataclass(frozen=True, eq=False)
class Shards:
    """The shards of a stage in a store.

    Attributes:
        store: where they are.
        stage: whose.
        batch: items that are worked on together.
        size: items of a shard, whole batches.
        before: of an earlier stage that read the photos which this one reads again, one for each item in rising order.
    """

    store: Store
    stage: Stage
    batch: int
    size: int
    before: Shards | None = None

    def __post_init__(self) -> None:
        self.__dict__["_recent"] = OrderedDict()
        self.__dict__["_items"] = {}

    @cached_property
    def count(self) -> int:
        """The number of items."""
        return len(self.stage.index)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def key(self, shard: int) -> str:
        """Returns the name of a shard in the store."""
        return f"{self.stage.name}-{shard:07d}"

    def items(self, shard: int) -> range:
        """Returns the items of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.count))

    def batches(self, shard: int) -> list[range]:
        """Returns the items of a shard in batches."""
        items = self.items(shard)
        return [items[at : at + self.batch] for at in range(0, len(items), self.batch)]

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Returns the shards that are not committed, of all or of some."""
        return [shard for shard in (range(len(self)) if among is None else among) if self.key(shard) not in self.store]

    def commit(self, shard: int, parts: Sequence[BatchResult], failed: Mapping[int, str]) -> None:
        """Writes the results of a shard.

        Raises:
            OSError: the disk is full or not writable, or the folder is gone; says what to do.
        """
        whole = joined(parts)
        tensors = {**whole.rows, "items": torch.tensor(list(whole.items), dtype=torch.int64)}
        tensors |= {_SUM + name: value for name, value in whole.sums.items()}
        record = {"failed": {str(k): failed[k] for k in sorted(failed)}, "recipes": dict(whole.recipes)}
        try:
            self.store.put(self.key(shard), tensors, record)
        except OSError as error:
            raise not_written(error, self.key(shard), self.store.folder) from error

    # ---- all shards together ---------------------------------------------------------------------------------------

    def failed(self) -> dict[int, str]:
        """Returns the photos that could not be read, each with the reason."""
        return {int(photo): reason for failed in self._records("failed") for photo, reason in failed.items()}

    def recipes(self) -> dict[str, Any]:
        """Returns the explainers' recipes from the first shard that holds them."""
        return next(filter(None, self._records("recipes")), {})

    def _records(self, name: str) -> Iterator[dict[str, Any]]:
        return (self.store.told(self.key(shard))[name] for shard in range(len(self)))

    def measured(self) -> NDArray[np.int64]:
        """Returns the items that could be worked on, in order."""
        return np.concatenate([self.items_of(shard) for shard in range(len(self))])

    def rows(self, name: str) -> Tensor:
        """Returns a row for each of :meth:`measured`."""
        parts = (self.store.get(self.key(s), [name])[name] for s in range(len(self)) if len(self.items_of(s)))
        return torch.cat(list(parts))

    def has(self, name: str) -> bool:
        """Returns whether the items that could be worked on have such a row."""
        for shard in range(len(self)):
            if len(self.items_of(shard)):
                return name in self.store.names(self.key(shard))
        return False

    def total(self, name: str) -> Tensor | None:
        """Returns the sum over all items; None where no shard has one."""
        total: Tensor | None = None
        for shard in range(len(self)):
            if _SUM + name in self.store.names(self.key(shard)):
                part = self.store.get(self.key(shard), [_SUM + name])[_SUM + name]
                total = part if total is None else total + part
        return total

    def of(self, items: Sequence[int], name: str) -> Tensor:
        """Returns the rows of these items, which were all measured."""
        parts = []
        for item in items:
            tensors = self._get(item // self.size)
            row = int(np.searchsorted(tensors["items"].numpy(), item))
            parts.append(tensors[name][row])
        return torch.stack(parts)

    def digests(self, photos: Iterable[int]) -> dict[int, bytes]:
        """Returns {photo: SHA-256} for those of the photos that this stage read; {} where shards have no such rows."""
        if "_digests" not in self.__dict__:  # all at once: photos may come in any order
            if not self.has("sha256"):
                return {}
            read = self.stage.index[:, 0][self.measured()]
            self.__dict__["_digests"] = read, self.rows("sha256").numpy()
        read, digests = self.__dict__["_digests"]
        rows = {photo: int(np.searchsorted(read, photo)) for photo in photos}
        return {photo: digests[row].tobytes() for photo, row in rows.items() if photo in read[row : row + 1]}

    def items_of(self, shard: int) -> NDArray[np.int64]:
        """Returns the items of a committed shard that could be worked on."""
        cache: dict[int, NDArray[np.int64]] = self.__dict__["_items"]
        if shard not in cache:
            cache[shard] = self.store.get(self.key(shard), ["items"])["items"].numpy()
        return cache[shard]

    def _get(self, shard: int) -> dict[str, Tensor]:
        recent: OrderedDict[int, dict[str, Tensor]] = self.__dict__["_recent"]
        if shard in recent:
            recent.move_to_end(shard)
            return recent[shard]
        recent[shard] = tensors = self.store.get(self.key(shard))
        if len(recent) > _RECENT:
            recent.popitem(last=False)
        return tensors


def digests_of(faces: Faces, photos: Sequence[int]) -> Tensor:
    """Returns the SHA-256 of these photos as rows (n, 32) of a shard."""
    return torch.tensor([list(faces[photo].sha256) for photo in photos], dtype=torch.uint8)


def stacked(faces: Faces, numbers: Sequence[int], device: Any) -> Tensor:
    """Returns these photos as (n, 3, H, W) on a device."""
    return torch.cat([faces[number].image for number in numbers]).to(device)
