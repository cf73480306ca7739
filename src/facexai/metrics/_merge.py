"""Adding what was measured on two parts of a data set, controls included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from facexai.metrics._ties import Ties
from facexai.metrics.statistic import Statistic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Measured(Protocol):
    """A result with controls of its own kind."""

    @property
    def controls(self) -> Mapping[str, Any]: ...
    @property
    def reasons(self) -> Mapping[str, str]: ...
    @property
    def recipe(self) -> Mapping[str, Any]: ...
    @property
    def ties(self) -> Ties | None: ...
    def p_value(self, control: str) -> float | None: ...


Result = TypeVar("Result", bound=Measured)


def control(measured: Result, name: str) -> Result | None:
    """Returns the result of a control, None where it could not be measured.

    Raises:
        KeyError: no control has this name.
    """
    if name not in measured.controls:
        raise KeyError(f"no control {name!r}; there are {', '.join(measured.controls)}")
    result: Result | None = measured.controls[name]
    return result


def with_known(
    names: Sequence[str], known: Mapping[str, Result | None] | None, measure: Callable[[str], Result | None]
) -> dict[str, Result | None]:
    """Returns controls in the order of ``names``; those that are given are reused, the others measured."""
    given = known or {}
    return {name: given[name] if name in given else measure(name) for name in names}


def rows(measured: Result, row: Callable[[Result], dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows of a table: ``row`` of the result and of its controls, and p of the paired test against each."""
    result = [{"map": "own", **row(measured), "p": None}]
    for name, other in measured.controls.items():
        if other is not None:
            result.append({"map": name, **row(other), "p": measured.p_value(name)})
    return result


def plotted(measured: Result, main: Callable[[Result], Statistic], title: str, bars: Callable[..., Figure]) -> Figure:
    """Returns the main number of the result and of its controls, as bars with intervals; controls in grey."""
    named = {"the map": measured, **{name: one for name, one in measured.controls.items() if one is not None}}
    values = [(main(one).mean, main(one).interval) for one in named.values()]
    return bars(list(named), [(title, values)], grey=[name != "the map" for name in named])


def joined(first: Result, second: Result) -> dict[str, Any]:
    """Returns controls, reasons, recipe and ties of the sum; what one part lacks is None.

    Raises:
        ValueError: the parts were measured by different recipes.
    """
    one, two = dict(first.recipe), dict(second.recipe)
    explained = _explained(one.pop("explained", None), two.pop("explained", None))
    if one != two:
        raise ValueError(f"different recipes do not add: {one} and {two}")
    controls: dict[str, Any] = {}
    for name, mine in first.controls.items():
        theirs = second.controls.get(name)
        controls[name] = None if mine is None or theirs is None else mine + theirs
    made = {"controls": controls, "reasons": {**second.reasons, **first.reasons}, "recipe": {**one, **explained}}
    return made | {"ties": None if first.ties is None or second.ties is None else first.ties + second.ties}


def _explained(one: Mapping[str, Any] | None, two: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what both parts record about the measured maps, without classes, which belong to single items."""
    agreed = {
        name: value for name, value in (one or {}).items() if name != "targets" and (two or {}).get(name) == value
    }
    return {"explained": agreed} if agreed else {}
