"""Sections about many items: tables, groups of people, shortcuts, error rates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from facexai._errors import short_repr
from facexai._json import finite, plain
from facexai.metrics import Bias, Roc, ShortcutAudit, Statistic, Table
from facexai.report.format import name_of
from facexai.report.section import Page, Section, not_measured

_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def table(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.metrics.Table`, or of a run that has one."""
    not_measured(section)
    result = section.result
    held: Table = result if isinstance(result, Table) else result.table
    report = {} if isinstance(result, Table) else result.report
    return table_record(held.rows, held.panels, report)


def table_record(rows: Any, panels: Any, report: Any) -> dict[str, Any]:
    """Returns the section's record from a table's rows as JSON holds them.

    Raises:
        ValueError: no rows.
    """
    if not isinstance(rows, list | tuple) or not rows or not all(isinstance(row, Mapping) and row for row in rows):
        raise ValueError(f"expected a table of at least one row, got {short_repr(rows)}")
    counts = {str(name): value for name, value in report.get("counts", {}).items()}
    about = report.get("classifier", report.get("decision", {}))
    return {
        "kind": "table",
        "question": "How much does a decision lose with what a map marks, and with what its controls mark?",
        "of": len(rows),
        "items": [],
        "counts": plain({**counts, **about}),
        "panels": [
            {
                "title": title,
                "rows": [
                    {"name": name_of(row["map"]), "control": bool(row.get("control")), **_valued(row, column)}
                    for row in rows
                ],
            }
            for column, title in panels.items()
        ],
        "rows": [plain(dict(row)) for row in rows],
        "measured": [],
        "measured_by": [],
    }


def _valued(row: Any, column: str) -> dict[str, Any]:
    low, high = row.get(f"{column} interval") or (None, None)
    return {"value": finite(row.get(column)), "low": finite(low), "high": finite(high)}


_ERRORS_OF_GROUPS = ("fmr", "fnmr", "accuracy")


def groups(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.metrics.Bias`."""
    not_measured(section)
    found: Bias = section.result
    return groups_record(plain(found.record()))


def groups_record(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the section's record from the record that ``facexai audit`` writes."""
    names, rates = list(record["groups"]), record["rates"] or {}
    distances = [
        {"kind": kind, **{key: row[key] for key in ("groups", "raw", "null", "value", "interval", "p_value")}}
        for kind in ("distances", "energy_matched", "images")
        for row in record[kind] or []
    ]
    spectra = []
    if record["edges"] is not None and record["face"]:
        edges = np.array(record["edges"]) * record["face"]
        middle = ((edges[1:] + edges[:-1]) / 2).tolist()
        for name in names:
            low, high = record["intervals"][name]
            spectra.append({"name": name, "x": middle, "y": record["spectra"][name], "low": low, "high": high})
    return {
        "kind": "groups",
        "question": "Are groups of people decided by other frequencies, and with other errors?",
        "of": len(names),
        "items": [],
        "groups": [
            {
                "name": name,
                "rows": record["rows"][name],
                "people": record["people"][name],
                **{rate: finite(rates.get(name, {}).get(rate)) for rate in _ERRORS_OF_GROUPS},
                **{f"{rate}_interval": rates.get(name, {}).get(f"{rate}_interval") for rate in _ERRORS_OF_GROUPS},
                **{kind: rates.get(name, {}).get(kind) for kind in ("genuine", "impostor")},
                "centroid": None if record["centroids"] is None else finite(record["centroids"][name]),
            }
            for name in names
        ],
        "threshold": finite(record["threshold"]),
        "rule": _rule(record["recipe"].get("rule")),
        "p_value": finite(record["p_value"]),
        "reason": record.get("reason"),
        "distances": plain(distances),
        "spectra": plain(spectra),
        "marks": [mark for mark in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0) if not spectra or mark <= spectra[0]["x"][-1]],
        "measured": [],
        "measured_by": [],
    }


def _rule(rule: Any) -> str:
    """Returns the origin of the threshold of all groups, in words."""
    try:
        float(rule)
    except (TypeError, ValueError):
        return "not told" if rule is None else f"rule {rule} over all groups"
    return "given"


def shortcut(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.metrics.ShortcutAudit`."""
    not_measured(section)
    audit: ShortcutAudit = section.result
    rows = [_statistic("mean absolute difference (MAD)", audit.mad.absolute, None)]
    if audit.no_op is not None and audit.beyond_no_op is not None:
        rows.append(_statistic("of the no-op control", audit.no_op.absolute, None, control=True))
        rows.append(_statistic("beyond the no-op control", audit.beyond_no_op, audit.beyond_no_op_p_value))
    rows.append(_statistic("mean difference", audit.mad.signed, audit.mad.p_value))
    if audit.directed is not None:
        rows.append(_statistic("with minus without the shortcut", audit.directed, None))
    area = audit.auroc
    return {
        "kind": "shortcut",
        "question": "How much does the decision owe to what was edited away?",
        "of": len(audit.before),
        "items": [],
        "rows": rows,
        "auroc": None if area is None else plain(vars(area)),
        "measured": [],
        "measured_by": [],
    }


def _statistic(name: str, held: Statistic, p: float | None, *, control: bool = False) -> dict[str, Any]:
    low, high = held.interval or (None, None)
    return {
        "name": name,
        "control": control,
        "value": finite(held.mean),
        "low": finite(low),
        "high": finite(high),
        "p": finite(p),
    }


def roc(section: Section, page: Page) -> dict[str, Any]:
    """Returns the section's record of a :class:`~facexai.metrics.Roc`."""
    not_measured(section)
    curve: Roc = section.result
    rates = {f"{far:g}": curve.tar_at(far) for far in _RATES if far * curve.impostor >= 1}
    record = {"genuine": curve.genuine, "impostor": curve.impostor, "auc": curve.auc, "eer": curve.eer}
    return roc_record({**record, "rule": "eer", "threshold": curve.eer_threshold, "tar_at_far": rates})


def roc_record(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the section's record from the record that ``facexai verify`` writes.

    Raises:
        ValueError: counts or shares that are none.
    """
    genuine, impostor = (_count(record, name) for name in ("genuine", "impostor"))
    return {
        "kind": "roc",
        "question": "How well does the cosine tell people apart?",
        "of": genuine + impostor,
        "items": [],
        "genuine": genuine,
        "impostor": impostor,
        "auc": _share(record["auc"], "auc"),
        "eer": _share(record["eer"], "eer"),
        "rule": str(record["rule"]),
        "threshold": _number(record["threshold"], "threshold"),
        "rates": [
            {"far": _share(float(far), "a FAR"), "tar": _share(tar, f"the TAR at a FAR of {far}")}
            for far, tar in record["tar_at_far"].items()
        ],
        "measured": [],
        "measured_by": [],
    }


def _count(record: dict[str, Any], name: str) -> int:
    value = record[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected {name} as a number of pairs, got {short_repr(value)}")
    return value


def _number(value: Any, name: str) -> float:
    result = finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if result is None:
        raise ValueError(f"expected {name} as a finite number, got {short_repr(value)}")
    return result


def _share(value: Any, name: str) -> float:
    result = _number(value, name)
    if not 0 <= result <= 1:
        raise ValueError(f"expected {name} from 0 to 1, got {short_repr(value)}")
    return result
