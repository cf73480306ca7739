"""What a stage of a run is: items that are worked on in fixed small batches, committed in shards of whole batches.

A run is a few stages after another: what a stage needs of the whole data set is added up from the shards of the stage
before it. Batches are fixed by the list of items, and every number is kept per item; so the distribution of the shards,
and how large shards are, changes no bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._tensor_store import Store
from facexai.evaluate._disk import not_written

_SUM = "sum of "
_HELD = 4  # shards whose tensors are kept for the next question


@final
@dataclass(frozen=True, eq=False)
class Face:
    """A photo that was read.

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
    """The result of a stage for a batch of items.

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
    """Concatenates the results of several batches."""
    made = [part for part in parts if part.items]
    if not made:
        return BatchResult([])
    sums: dict[str, Tensor] = {}
    for part in made:
        for name, value in part.sums.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value
    rows = {name: torch.cat([part.rows[name] for part in made]) for name in made[0].rows}
    return BatchResult([item for part in made for item in part.items], rows, sums, made[0].recipes)


class Stage(Protocol):
    """A stage of a run, which processes items in small batches."""

    @property
    def name(self) -> str:
        """Returns the name of the stage in the file names of its shards."""
        ...

    @property
    def unit(self) -> str:
        """Returns the kind of an item: ``"photo"`` or ``"pair"``."""
        ...

    @property
    def count(self) -> int:
        """Returns the number of items."""
        ...

    def photos(self, items: range) -> Sequence[int]:
        """Returns numbers of the photos that these items need."""
        ...

    def step(self, items: range, faces: Faces) -> BatchResult:
        """Work on a batch; ``faces`` lacks photos that could not be read."""
        ...


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
        self.__dict__["_held"] = OrderedDict()
        self.__dict__["_items"] = {}

    def __len__(self) -> int:
        return -(-self.stage.count // self.size)

    def key(self, shard: int) -> str:
        """Returns the key of a shard in the store."""
        return f"{self.stage.name}-{shard:07d}"

    def items(self, shard: int) -> range:
        """Returns the items of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.stage.count))

    def batches(self, shard: int) -> list[range]:
        """Returns the items of a shard in batches."""
        items = self.items(shard)
        return [items[at : at + self.batch] for at in range(0, len(items), self.batch)]

    def missing(self, among: Sequence[int] | None = None) -> list[int]:
        """Returns the shards that are not committed, of all or of some."""
        asked = range(len(self)) if among is None else among
        return [shard for shard in asked if self.key(shard) not in self.store]

    def commit(self, shard: int, parts: Sequence[BatchResult], failed: Mapping[int, str]) -> None:
        """Write what was made of a shard.

        Raises:
            OSError: the disk is full or not writable, or the folder is gone; says what to do.
        """
        whole = joined(parts)
        tensors = {**whole.rows, "items": torch.tensor(list(whole.items), dtype=torch.int64)}
        tensors |= {_SUM + name: value for name, value in whole.sums.items()}
        told = {"failed": {str(k): failed[k] for k in sorted(failed)}, "recipes": dict(whole.recipes)}
        try:
            self.store.put(self.key(shard), tensors, told)
        except OSError as error:
            raise not_written(error, self.key(shard), self.store.folder) from error

    # ---- what all of them say together ----------------------------------------------------------------------------

    def failed(self) -> dict[int, str]:
        """Returns photos that could not be read, and why."""
        told = (self.store.told(self.key(shard))["failed"] for shard in range(len(self)))
        return {int(number): why for part in told for number, why in part.items()}

    def recipes(self) -> dict[str, Any]:
        """Returns the recipes of the explainers, from the first shard that has them."""
        told = (self.store.told(self.key(shard))["recipes"] for shard in range(len(self)))
        return next((found for found in told if found), {})

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
        result: Tensor | None = None
        for shard in range(len(self)):
            if _SUM + name in self.store.names(self.key(shard)):
                part = self.store.get(self.key(shard), [_SUM + name])[_SUM + name]
                result = part if result is None else result + part
        return result

    def of(self, items: Sequence[int], name: str) -> Tensor:
        """Returns the rows of these items, which were all measured."""
        parts = []
        for item in items:
            held = self._get(item // self.size)
            row = int(np.searchsorted(held["items"].numpy(), item))
            parts.append(held[name][row])
        return torch.stack(parts)

    def digests(self, photos: Iterable[int]) -> dict[int, bytes]:
        """Returns {photo: SHA-256} of those of the photos that this stage read; {} for shards without such rows."""
        if "_digests" not in self.__dict__:  # all at once: photos may come in any order
            if not self.has("sha256"):
                return {}
            read = np.asarray(self.stage.photos(range(self.stage.count)))[self.measured()]
            self.__dict__["_digests"] = read, self.rows("sha256").numpy()
        read, digests = self.__dict__["_digests"]
        rows = {photo: int(np.searchsorted(read, photo)) for photo in photos}
        return {photo: digests[row].tobytes() for photo, row in rows.items() if photo in read[row : row + 1]}

    def items_of(self, shard: int) -> NDArray[np.int64]:
        """Returns the items of a committed shard that could be processed."""
        known: dict[int, NDArray[np.int64]] = self.__dict__["_items"]
        if shard not in known:
            known[shard] = self.store.get(self.key(shard), ["items"])["items"].numpy()
        return known[shard]

    def _get(self, shard: int) -> dict[str, Tensor]:
        held: OrderedDict[int, dict[str, Tensor]] = self.__dict__["_held"]
        if shard in held:
            held.move_to_end(shard)
            return held[shard]
        held[shard] = result = self.store.get(self.key(shard))
        if len(held) > _HELD:
            held.popitem(last=False)
        return result


def digests_of(faces: Faces, photos: Sequence[int]) -> Tensor:
    """Returns (n, 32) SHA-256 of these photos, as rows of a shard."""
    return torch.tensor([list(faces[photo].sha256) for photo in photos], dtype=torch.uint8)


def stacked(faces: Faces, numbers: Sequence[int], device: Any) -> Tensor:
    """Returns (n, 3, H, W) of these photos, on the network's device."""
    return torch.cat([faces[number].image for number in numbers]).to(device)
