"""Results of replacing images by their counterparts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, final

import numpy as np

from facexai._html import facts, words
from facexai.functional.verification import auc
from facexai.metrics.statistic import Array, Statistic
from facexai.results.notebook import pictured

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@final
@dataclass(frozen=True, eq=False)
class Difference:
    """The change of a probability when images are replaced by their counterparts.

    Attributes:
        absolute: statistic of ``|f(x) - f(x')|``; its mean is the MAD.
        signed: statistic of ``f(x) - f(x')``.
    """

    absolute: Statistic
    signed: Statistic

    @property
    def mad(self) -> float:
        """Returns the mean absolute difference of probabilities, 0 to 1."""
        return self.absolute.mean

    @property
    def md(self) -> float:
        """Returns the mean difference of probabilities, -1 to 1: positive where the counterparts
        lower the probability.
        """
        return self.signed.mean

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the 95 % bootstrap interval of the MAD."""
        return self.absolute.interval

    @property
    def p_value(self) -> float | None:
        """Returns sign-flip permutation p-value of the signed mean difference."""
        return _p_value(self.signed)

    def _repr_html_(self) -> str:
        told = {"mean absolute difference": self.mad, "95 %": self.interval, "mean difference": self.md}
        return facts({**told, "p of the mean difference": self.p_value}, f"{len(self.absolute)} images")

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.absolute + other.absolute, self.signed + other.signed)


def _p_value(differences: Statistic) -> float | None:
    """Returns sign-flip permutation p-value of a mean against 0."""
    return differences.p_value(Statistic(0 * differences.values, differences.items, differences.identities))


def difference(before: Statistic, after: Array) -> Difference:
    """Builds the difference from probabilities (N,) before and after."""
    signed = Statistic(before.values - after, before.items, before.identities)
    return Difference(Statistic(abs(signed.values), signed.items, signed.identities), signed)


@final
@dataclass(frozen=True, eq=False)
class Auroc:
    """The AUROC of a probability for the task's labels, on the images and on their counterparts.

    Attributes:
        before, after: area under the ROC curve, 0 to 1.
        interval: 95 % bootstrap interval of after - before; people are drawn where identities are known, else images.
            None with one person.
    """

    before: float
    after: float
    interval: tuple[float, float] | None

    def _repr_html_(self) -> str:
        told = {"images": self.before, "counterparts": self.after, "difference, 95 %": self.interval}
        return facts(told, "area under the ROC curve")


@final
@dataclass(frozen=True, eq=False, repr=False)
class ShortcutAudit:
    """The dependence of a decision on a shortcut, computed from probabilities per image.

    Attributes:
        before, after: statistics of the probability of the images and of their counterparts.
        control: of the counterparts of the no-op control, or None.
        labels: of the task's labels, 0 or 1, or None.
        shortcut: of whether the image has the shortcut, 0 or 1, or None.
        odds_before, odds_after: of the logarithm of the odds, of which AUROCs are: probabilities saturate.

    Audits of two parts of a data set add to that of the whole.
    """

    before: Statistic
    after: Statistic
    control: Statistic | None = None
    labels: Statistic | None = None
    shortcut: Statistic | None = None
    odds_before: Statistic | None = None
    odds_after: Statistic | None = None

    @property
    def mad(self) -> Difference:
        """Returns the mean absolute difference of the probability between images and counterparts."""
        return difference(self.before, self.after.values)

    @property
    def no_op(self) -> Difference | None:
        """Returns the same for the control, a reconstruction without an edit."""
        return None if self.control is None else difference(self.before, self.control.values)

    @property
    def beyond_no_op(self) -> Statistic | None:
        """Returns the statistic of ``|f(x) - f(x')|`` minus the same of the control, image by image."""
        control = self.no_op
        if control is None:
            return None
        more = self.mad.absolute.values - control.absolute.values
        return Statistic(more, self.before.items, self.before.identities)

    @property
    def beyond_no_op_p_value(self) -> float | None:
        """Returns sign-flip permutation p-value of :attr:`beyond_no_op`: does the edit do more than
        the reconstruction?
        """
        beyond = self.beyond_no_op
        return None if beyond is None else _p_value(beyond)

    @property
    def by_shortcut(self) -> Mapping[int, Difference]:
        """Returns the difference of the images without (0) and with (1) the shortcut, as far as there are any.

        A shortcut that is followed gives mean differences of opposite signs; one that is not, differences near 0.
        """
        if self.shortcut is None:
            return {}
        result, people = {}, self.before.identities
        for kind in (0, 1):
            chosen = np.flatnonzero(self.shortcut.values == kind)
            if len(chosen):
                held = None if people is None else tuple(people[i] for i in chosen)
                part = Statistic(self.before.values[chosen], self.before.items[chosen], held)
                result[kind] = difference(part, self.after.values[chosen])
        return result

    @property
    def directed(self) -> Statistic | None:
        """Returns the statistic of the probability with the shortcut minus that without it; None where no
        ``shortcut`` was given.

        The mean absolute difference counts whatever an edit does; artefacts that go both ways cancel here.
        """
        if self.shortcut is None:
            return None
        rises = (2 * self.shortcut.values - 1) * (self.before.values - self.after.values)
        return Statistic(rises, self.before.items, self.before.identities)

    @property
    def auroc(self) -> Auroc | None:
        """Returns the AUROC with respect to the task's labels; None without labels of both kinds."""
        if self.labels is None or len(set(self.labels.values.tolist())) < 2:
            return None
        given = self.odds_before or self.before, self.odds_after or self.after
        sides, labels = (given[0].values, given[1].values), self.labels.values
        before, after = (auc(side, labels) for side in sides)
        return Auroc(before, after, _interval(sides, labels, self.before.identities))

    def text(self) -> str:
        """Returns a few lines for reading: means with their 95 % intervals, and p-values."""
        people = "" if self.before.identities is None else f" of {len(set(self.before.identities))} people"
        lines = [f"shortcut audit, {len(self.before)} images{people}"]
        lines.append(_line("mean absolute difference", self.mad.absolute))
        control, beyond = self.no_op, self.beyond_no_op
        if control is not None and beyond is not None:
            lines.append(_line("of the no-op control", control.absolute))
            lines.append(_line("beyond the no-op control", beyond, self.beyond_no_op_p_value))
        lines.append(_line("mean difference", self.mad.signed, self.mad.p_value))
        directed = self.directed
        if directed is not None:
            lines.append(_line("with minus without", directed, _p_value(directed)))
        for kind, part in self.by_shortcut.items():
            lines.append(_line(f"{'with' if kind else 'without'} the shortcut", part.signed, part.p_value))
        found = self.auroc
        if found is not None:
            lines.append(f"{'AUROC, images':<26}{found.before:7.4f}")
            lines.append(f"{'AUROC, counterparts':<26}{found.after:7.4f}  difference{_between(found.interval)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def plot(self) -> Figure:
        """Returns how far the probability moves, with its interval, beside the no-op control in grey.

        Raises:
            ImportError: matplotlib is missing (extra ``plot``).
        """
        from facexai import plots

        found = {"edited": self.mad} | ({} if self.no_op is None else {"no-op control": self.no_op})
        moved = [(one.mad, one.interval) for one in found.values()]
        signed = [(one.md, one.signed.interval) for one in found.values()]
        panels = (("mean absolute difference of the probability", moved), ("mean difference", signed))
        return plots.bars(list(found), panels, grey=[name != "edited" for name in found])

    def _repr_html_(self) -> str:
        return pictured(self.plot, f"shortcut audit, {len(self.before)} images", words(self))

    def __add__(self, other: ShortcutAudit) -> ShortcutAudit:
        parts: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if (mine is None) != (theirs is None):
                raise ValueError(f"one part has {field.name} and the other does not; give both or neither")
            parts[field.name] = None if mine is None else mine + theirs
        return ShortcutAudit(**parts)


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" {interval[0]:7.4f} to {interval[1]:7.4f}"


def _line(name: str, held: Statistic, p: float | None = None) -> str:
    tested = "" if p is None else f"  p = {p:.2g}"
    return f"{name:<26}{held.mean:7.4f} {_between(held.interval)}{tested}"


def _interval(
    sides: tuple[Array, Array], labels: Array, identities: Sequence[str] | None, draws: int = 1000
) -> tuple[float, float] | None:
    """Returns the bootstrap interval of the change of the AUROC; draws with labels of one kind are left out."""
    people = np.arange(len(labels)) if identities is None else np.unique(identities, return_inverse=True)[1]
    held = [np.flatnonzero(people == k) for k in np.unique(people)]
    if len(held) < 2:
        return None
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        row = np.concatenate([held[k] for k in rng.integers(0, len(held), len(held))])
        if 0 < labels[row].sum() < len(row):
            before, after = (auc(side[row], labels[row]) for side in sides)
            found.append(after - before)
    return (float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))) if found else None
