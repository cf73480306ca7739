"""Measuring regions of maps, where no order of pixels decides among equal values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facexai._errors import warn
from facexai.metrics.statistic import Statistic
from facexai.perturb._ties import GROUP, tie_fields, tied_shares, top_pixels

Array = NDArray[np.float64]
Rows = slice | Tensor
Ask = Callable[[Tensor, Rows], Array]
Break = Literal["fields", "signed"]

BREAKS: tuple[Break, ...] = ("fields", "signed")
_ERROR = 0.01  # largest standard error of the mean over fields, in units of a probability or a cosine
_MOST = 8  # groups of fields


@final
@dataclass(frozen=True, eq=False)
class Ties:
    """The effect of equal values of the map on a measurement.

    Attributes:
        share: statistic of the share of the region's pixels that were chosen among equal values, 0 to 1; of a curve the
            mean over the steps between its ends. Of a map without ties at the region's border it is 0, of a constant
            map 1.
        passes: of the number of random fields that broke the ties, and thus of passes of the network for each region
            that ties cut; 1 without ties.
    """

    share: Statistic
    passes: Statistic

    @classmethod
    def of(
        cls, values: Array | None, *, items: Sequence[int] | None, identities: Sequence[str | None] | None
    ) -> Ties | None:
        """Returns the record of rows (N, 2) of share and passes; None of None."""
        if values is None:
            return None
        return cls(*(Statistic.of(column, items=items, identities=identities) for column in np.asarray(values).T))

    @property
    def values(self) -> Array:
        """Returns (N, 2): share and passes of each item, as :meth:`of` takes them."""
        return np.stack([self.share.values, self.passes.values], 1)

    def __add__(self, other: Ties) -> Ties:
        return Ties(self.share + other.share, self.passes + other.passes)


@final
@dataclass(frozen=True, eq=False)
class Ordered:
    """Maps whose pixels are taken from the largest value; ties are broken by seeded random fields.

    Attributes:
        maps: (N, M, H, W), the M maps of each item.
        numbers: (N * M,) number of each map; the fields depend on it.
        seed: of the fields.
        batch_size: regions that are measured together.
    """

    maps: Tensor
    numbers: Sequence[int]
    seed: int = 0
    batch_size: int = 64

    def measured(self, areas: Sequence[float], ask: Ask, key: Callable[[Array], Array]) -> tuple[Array, Array]:
        """Returns the numbers of ``ask`` for the regions of these areas, averaged over ways to break ties.

        An item whose regions ties cut is measured with :data:`GROUP` fields that are each other's mirror images, and
        with further such groups until the standard error of the mean over fields is at most 0.01, or 32 fields were
        taken. Regions that ties do not cut are measured once.

        Args:
            areas: S shares of the image.
            ask: takes regions (R, M, H, W), boolean, and the rows of their items, and returns numbers (R, K).
            key: takes numbers (F, S, K) of F fields, and returns those (F, ...) that the rule is about, in units of a
                probability or a cosine.

        Returns:
            Numbers (N, S, K), and rows (N, 2) for :meth:`Ties.of`.
        """
        n, m = self.maps.shape[:2]
        shares = tied_shares(self.maps.flatten(0, 1), areas).view(n, m, len(areas)).numpy()
        cut = np.asarray(shares.any(1))
        tied = np.flatnonzero(cut.any(1))
        second = torch.zeros(()).expand(self.maps.shape)
        if len(tied):
            second = torch.zeros(self.maps.shape, dtype=torch.float64)
            for row in tied:
                second[row] = self._fields(np.array([row]), 0)[0, 0]
        first = np.stack([ask(self._regions(self.maps, area, second), slice(None)) for area in areas], 1)
        values, passes = first.copy(), np.ones(n)
        step = max(1, self.batch_size // GROUP)
        for rows in (tied[i : i + step] for i in range(0, len(tied), step)):
            values[rows], passes[rows] = self._mean(rows, areas, first, cut, ask, key)
        inner = [s for s, area in enumerate(areas) if 0 < area < 1]
        share = shares[:, :, inner].mean((1, 2)) if inner else np.zeros(n)
        return values, np.stack([share, passes], 1)

    def _mean(
        self,
        rows: NDArray[np.int64],
        areas: Sequence[float],
        first: Array,
        cut: NDArray[np.bool_],
        ask: Ask,
        key: Callable[[Array], Array],
    ) -> tuple[Array, Array]:
        """Returns means over fields (n, S, K) of these rows, and the number of fields (n,)."""
        drawn: dict[int, list[Array]] = {int(row): [] for row in rows}  # numbers (S, K) of each field
        for group in range(_MOST):
            fields = self._fields(rows, group)
            values = np.repeat(first[rows][:, None], GROUP, 1)
            start = 1 if group == 0 else 0  # the first field of all was asked with all items
            for column, area in enumerate(areas):
                if not len(some := np.flatnonzero(cut[rows, column])):
                    continue
                second = fields[some, start:].flatten(0, 1)
                places = torch.from_numpy(rows[some]).repeat_interleave(GROUP - start)
                regions = self._regions(self.maps[places.to(self.maps.device)], area, second)
                values[some, start:, column] = ask(regions, places).reshape(len(some), GROUP - start, -1)
            for row, numbers in zip(rows.tolist(), values, strict=True):
                drawn[row] += list(numbers)
            rows = np.array([row for row in rows.tolist() if _error(key(np.stack(drawn[row]))) > _ERROR], dtype=int)
            if not len(rows):
                break
        means, counts = [np.mean(fields, 0) for fields in drawn.values()], [len(fields) for fields in drawn.values()]
        return np.stack(means), np.array(counts)

    def _fields(self, rows: NDArray[np.int64], group: int) -> Tensor:
        """Returns a group of fields for each of these items, (n, 4, M, H, W)."""
        m, height, width = self.maps.shape[1:]
        numbers = [self.numbers[m * row + side] for row in rows.tolist() for side in range(m)]
        fields = [tie_fields((height, width), number, seed=self.seed, group=group) for number in numbers]
        return torch.stack(fields).view(len(rows), m, GROUP, height, width).transpose(1, 2)

    @staticmethod
    def _regions(maps: Tensor, area: float, second: Tensor) -> Tensor:
        chosen = top_pixels(maps.flatten(0, 1), area, second.reshape(-1, *maps.shape[2:]))
        return chosen.view(maps.shape)


def tied_phrase(ties: Ties | None, what: str) -> str:
    """Returns what a short description of a result says about ties; nothing where there are none."""
    share = 0.0 if ties is None else ties.share.mean
    return f"; ties decide {share:.1%} of the {what}" if share > 0 else ""


def columns_of(ties: Ties | None) -> dict[str, float | None]:
    """Returns the mean share that ties decide, as a column of a table."""
    return {"tied": None if ties is None else ties.share.mean}


def _error(values: Array) -> float:
    """Returns the largest standard error of the means of columns, of values (F, ...)."""
    return float((values.std(0, ddof=1) / np.sqrt(len(values))).max())


def warn_of_constant(maps: Tensor, items: Sequence[int]) -> None:
    """Warns of maps (N, ..., H, W) that are constant."""
    flat = maps.flatten(-2)
    constant = (flat == flat[..., :1]).all(-1).reshape(len(maps), -1).any(1)
    numbers = [items[row] for row in constant.nonzero()[:, 0].tolist()]
    if numbers:
        warn(
            f"the maps of {len(numbers)} items are constant, such as of item {numbers[:8]}: they mark no region, and "
            "the numbers are those of random regions"
        )
