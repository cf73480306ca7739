"""Results of a comparison of groups: spectra, distances, errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from facexai._html import facts, words
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class Distance:
    """The distance between the spectra of two groups.

    Attributes:
        groups: their names.
        raw: total variation, 0 to 1; chance alone makes it positive.
        null: its mean over permutations of people between the groups.
        interval: 95 % bootstrap spread of the raw distance about its mean, people drawn within groups, put around
            :attr:`value`. It quantifies the uncertainty of that value for this number of people.
        p_value: (1 + count) / (1 + draws) permutations with at least this distance.

    Where no permutation is at hand, null, interval, p_value and value are None; :attr:`Bias.reason` says why.
    """

    groups: tuple[str, str]
    raw: float
    null: float | None
    interval: tuple[float, float] | None
    p_value: float | None

    @property
    def value(self) -> float | None:
        """Returns the distance minus what chance alone makes of it; about 0 where groups do not differ.

        Where they do, chance adds less than it takes off, so the value is too small, the more so the fewer the people:
        compare values of groups of the same sizes only.
        """
        return None if self.null is None else self.raw - self.null

    def _repr_html_(self) -> str:
        named = {"distance less chance": self.value, "95 %": self.interval, "raw": self.raw, "chance": self.null}
        return facts({**named, "p": self.p_value}, f"{self.groups[0]} and {self.groups[1]}")


@final
@dataclass(frozen=True, eq=False)
class Rates:
    """Errors of one group at the threshold of all.

    Attributes:
        fmr: share of the impostor pairs that are accepted; None without any.
        fnmr: share of the genuine pairs that are rejected; None without any.
        accuracy: share of right decisions.
        genuine, impostor: number of pairs.
        fmr_interval, fnmr_interval, accuracy_interval: 95 % intervals by both people of each pair, see
            :attr:`Statistic.interval`; the threshold is determined again in draws of people, and without errors the
            interval reaches up to what so few people cannot rule out. None where the people of the pairs are not given.
    """

    fmr: float | None
    fnmr: float | None
    accuracy: float
    genuine: int
    impostor: int
    fmr_interval: tuple[float, float] | None = None
    fnmr_interval: tuple[float, float] | None = None
    accuracy_interval: tuple[float, float] | None = None

    def _repr_html_(self) -> str:
        return facts(vars(self))


@final
@dataclass(frozen=True, eq=False, repr=False)
class Bias:
    """A comparison of groups: their spectra, the distances between them, and their errors.

    Attributes:
        groups: G names.
        spectra: (G, B) mean magnitude of the influence, divided by its sum over bands after averaging.
        intervals: (2, G, B) 95 % bootstrap interval of the spectra.
        signed: (G, B) mean influence with its sign.
        edges: (B + 1,) of the bands in cycles per width of the image, or None.
        face: face width as a share of that width, or None.
        rows, people: number of pairs (or images) and of people in each group.
        distances: of all pairs of groups.
        matched: the same as if the groups' images had equal amplitudes in every band, to first order; None without
            energies.
        images: distances between the amplitude spectra of the groups' images themselves, or None.
        p_value: of the largest distance among all pairs of groups, so that many pairs do not find one by chance; None
            where no permutation is at hand.
        rates: errors of each group, or None without scores and labels.
        threshold: from which cosine on a pair is accepted, or None.
        recipe: draws, seed, what was permuted, how intervals were made; with a threshold also ``decisions moved``, the
            pairs that the score which the rule names decides otherwise, and ``near the threshold``, those within 1e-6.
        reason: why there is no p-value, or None.
    """

    groups: tuple[str, ...]
    spectra: Array
    intervals: Array
    signed: Array
    edges: Array | None
    face: float | None
    rows: Mapping[str, int]
    people: Mapping[str, int]
    distances: tuple[Distance, ...]
    matched: tuple[Distance, ...] | None
    images: tuple[Distance, ...] | None
    p_value: float | None
    rates: Mapping[str, Rates] | None = None
    threshold: float | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None

    @property
    def std(self) -> Array:
        """Returns (B,) standard deviation of the spectra over the groups."""
        result: Array = self.spectra.std(0)
        return result

    @property
    def centroids(self) -> dict[str, float] | None:
        """Returns the mean frequency of each group's spectrum, in cycles per width of the image; None without edges."""
        if self.edges is None:
            return None
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        return {name: float(row @ middle) for name, row in zip(self.groups, self.spectra, strict=True)}

    def gap(self, rate: str) -> float:
        """Returns the largest difference of a rate (``"fmr"``, ``"fnmr"`` or ``"accuracy"``) between groups.

        Raises:
            ValueError: no rates, an unknown one, or a group without such pairs.
        """
        if self.rates is None:
            raise ValueError("no rates were measured; give scores= and same=")
        if rate not in ("fmr", "fnmr", "accuracy"):
            raise ValueError(f"expected 'fmr', 'fnmr' or 'accuracy', got {rate!r}")
        values = [getattr(own, rate) for own in self.rates.values()]
        if None in values:
            raise ValueError(f"a group has no pairs to measure {rate} on")
        return float(max(values) - min(values))

    def __repr__(self) -> str:
        lines = [self._title() if self.reason is None else f"{self._title()}: {self.reason}"]
        for kind, found in (("", self.distances), (", energy-matched", self.matched), (", images", self.images)):
            for d in found or ():
                named = f"{d.groups[0]} / {d.groups[1]}{kind}"
                if d.value is None or d.interval is None or d.p_value is None:
                    lines.append(f"{named}: {d.raw:.4f} of which chance makes an unknown part")
                    continue
                low, high = d.interval
                lines.append(f"{named}: {d.value:.4f} ({low:.4f} to {high:.4f}), p = {d.p_value:.3g}")
        for name, rates in (self.rates or {}).items():
            errors = ", ".join(
                f"{what} {100 * value:.2f} %{_between(getattr(rates, f'{name_of}_interval'))}"
                for what, name_of in (("FMR", "fmr"), ("FNMR", "fnmr"), ("accuracy", "accuracy"))
                if (value := getattr(rates, name_of)) is not None
            )
            lines.append(f"{name}: {self.rows[name]} rows of {self.people[name]} people, {errors}")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""

        def told(found: tuple[Distance, ...] | None) -> Any:
            return None if found is None else [{**vars(d), "value": d.value} for d in found]

        return {
            "groups": list(self.groups),
            "rows": dict(self.rows),
            "people": dict(self.people),
            "p_value": self.p_value,
            "reason": self.reason,
            "distances": told(self.distances),
            "energy_matched": told(self.matched),
            "images": told(self.images),
            "centroids": self.centroids,
            "rates": None if self.rates is None else {name: vars(r) for name, r in self.rates.items()},
            "threshold": self.threshold,
            "edges": None if self.edges is None else self.edges.tolist(),
            "face": self.face,
            "intervals": {name: self.intervals[:, g].tolist() for g, name in enumerate(self.groups)},
            "spectra": {name: row.tolist() for name, row in zip(self.groups, self.spectra, strict=True)},
            "signed": {name: row.tolist() for name, row in zip(self.groups, self.signed, strict=True)},
            "std": self.std.tolist(),
            "recipe": dict(self.recipe),
        }

    def plot(self) -> Figure:
        """Returns the groups' spectra with their intervals, and the standard deviation between groups.

        Raises:
            ValueError: the bands have no edges.
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        if self.edges is None or self.face is None:
            raise ValueError("bands without edges cannot be drawn; give bias a FrequencyHeat without sectors")
        return plots.group_spectra(
            dict(zip(self.groups, self.spectra, strict=True)), self.intervals, self.edges, self.face, self._title()
        )

    def _repr_html_(self) -> str:
        return pictured(self.plot, self._title(), words(self))

    def _title(self) -> str:
        tested = "not tested" if self.p_value is None else f"p = {self.p_value:.3g}"
        return f"{len(self.groups)} groups, any difference: {tested}"


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({100 * interval[0]:.2f} to {100 * interval[1]:.2f})"
