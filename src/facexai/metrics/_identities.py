"""The person in each item: names as text, and a name of its own for each unknown person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from facexai.functional._dyads import Dyads

_UNKNOWN, _PARTNER = "unknown person", "unknown partner"
_ITEM_OF = re.compile(rf"(?:{_UNKNOWN}|{_PARTNER}), item (-?\d+)")


def pairs_of(
    identities: Any, partners: Any, items: Sequence[int], what: str = "pairs"
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Returns the names of the first and of the second person of each pair, checked as :func:`people_of` does.

    Args:
        identities: (N,) first people; None: where partners are given, each is unknown.
        partners: (N,) second people, or None.
        items: (N,) distinct numbers of the pairs.
        what: plural of the items, for messages.

    >>> pairs_of(["ann", None], ["ann", None], range(2))
    (('ann', 'unknown person, item 1'), ('ann', 'unknown partner, item 1'))
    """
    if identities is None and partners is not None:
        identities = [None] * len(items)
    return people_of(identities, items, what), people_of(partners, items, what, _PARTNER)


def people_of(
    identities: Any, items: Sequence[int], what: str = "images", unknown: str = _UNKNOWN
) -> tuple[str, ...] | None:
    """Returns the name of the person in each item; each unknown person gets a name that contains the item's number.

    Names are text, and whole numbers have one name in every type: 7, 7.0 and ``np.int64(7)`` are one person. Names that
    this function returned for the same items stay as they are.

    Args:
        identities: (N,), as :meth:`Statistic.of` documents them, or None.
        items: (N,) distinct numbers of the items in their data set.
        what: plural of the items, for messages.
        unknown: what an unknown person's own name begins with.

    Raises:
        ValueError: no sequence, another number of identities than of items, a list as an identity, or the name of
            another item's unknown person.

    >>> people_of(["ann", None, "ann", float("nan"), ""], range(5))
    ('ann', 'unknown person, item 1', 'ann', 'unknown person, item 3', 'unknown person, item 4')
    """
    if identities is None:
        return None
    rows = _python(identities)
    if not isinstance(rows, Iterable) or isinstance(rows, str | bytes | Mapping | Set):
        kind = type(identities).__name__
        raise ValueError(f"expected a sequence with one identity for each of the {len(items)} {what}, got {kind}")
    rows = list(rows)
    if len(rows) != len(items):
        raise ValueError(
            f"expected one identity for each of the {len(items)} {what}, got {len(rows)}; pass None for an unknown "
            "person, and leave identities out where all are unknown"
        )
    if set(map(type, rows)) <= {str} and all(map(str.strip, rows)) and not any(map(_ITEM_OF.fullmatch, rows)):
        return tuple(rows)  # names already; ten times faster, and sets can have millions of images
    return tuple(_name(_python(rows[row]), row, int(item), unknown) for row, item in enumerate(items))


def linked_people(names: Sequence[str], index: Any, same: Any) -> list[str]:
    """Returns the person in each of n photos; photos that genuine pairs link show one person.

    Args:
        names: (n,) of the people in the photos, as far as they are known; each unknown person gets another name.
        index: (P, 2) photos of each pair.
        same: (P,) boolean.

    Returns:
        (n,) the name that the first of all photos has which such pairs link with a photo, directly or not.

    >>> linked_people(["a", "b", "c"], [(0, 2), (0, 1)], [True, False])
    ['a', 'b', 'a']
    """
    number = np.unique(np.asarray(names), return_inverse=True)[1].ravel()
    links = number[np.asarray(index)[np.asarray(same, dtype=bool)]].reshape(-1, 2)
    people = np.arange(number.max(initial=-1) + 1)
    first, second = (np.concatenate([people, links[:, side]]) for side in (0, 1))
    component = Dyads(first, second, len(people)).components()[number]
    earliest = np.unique(component, return_index=True)[1]
    return [names[i] for i in earliest[component]]


def is_unknown_name(name: str) -> bool:
    """Says whether a name that :func:`people_of` returned is an unknown person's own."""
    return _ITEM_OF.fullmatch(name) is not None


def _python(value: Any) -> Any:
    """Returns the value of an array, a tensor, a column of a table or one of their elements as plain Python objects."""
    return value.tolist() if hasattr(value, "tolist") else value


def _name(identity: Any, row: int, item: int, unknown: str) -> str:
    if isinstance(identity, list):
        raise ValueError(f"expected one identity per row, row {row} has a list of {len(identity)}")
    if _is_unknown(identity):
        return f"{unknown}, item {item}"
    name = str(int(identity) if isinstance(identity, float) and identity.is_integer() else identity)
    other = _ITEM_OF.fullmatch(name)
    if other and int(other[1]) != item:
        raise ValueError(
            f"the identity {name!r} stands for the unknown person of another item than {item}, the item of row {row}; "
            "pass the same items=, or None for an unknown person"
        )
    return name


def _is_unknown(identity: Any) -> bool:
    """Says whether an identity is None, blank text or missing: NaN, NaT and ``pandas.NA`` do not equal themselves."""
    if identity is None or isinstance(identity, str | bytes):
        return not identity or not identity.strip()
    try:
        return bool(identity != identity)
    except TypeError:  # pandas.NA has no truth value
        return True
