"""The limits of each method, for readers of a report without the documentation."""

from __future__ import annotations

from typing import Any

from facexai._registry import EXPLAINERS

GENERAL = (
    "A map says where the network's score comes from. It does not say that the network is right.",
    "A map that its controls equal tells no more than they do: the centre of the picture finds any aligned face.",
    "A few photos illustrate; they evaluate nothing. Intervals and p-values stand where enough was measured.",
    "Colours lie half over the grey photo: read values with the pointer or the arrow keys, not from the colour.",
    "Regions of the face are ellipses around the landmarks that photos are aligned to, not this face's own outline.",
)
"""The limits of every report."""

_LIMITS: dict[str, tuple[str, ...]] = {
    **{row.cls: row.caveats for row in EXPLAINERS},
    "captum": (
        "A baseline of captum's: what its own documentation says holds.",
        "Gradients of pixels are noisy, and a magnitude has no sign.",
    ),
}

_UNTOLD = ("The result does not say which method made it; whoever made it must say what that cannot tell.",)
_ESTIMATED = "Bands that were not taken out are estimated from gradients: the stronger a band, the less that holds."

_CHANGED = (
    "Photos with hidden or bare pixels are pictures that the network never saw; another filling gives other numbers.",
    "They say whether the network needs what a map marks, not why.",
)
"""The limits of metrics that change pixels."""

_CHANGING = ("deletion", "retention", "insertion")

_UNKNOWN = ("Nothing is known here about what this method cannot tell; ask whoever made it.",)

_FINDINGS: dict[str, tuple[str, ...]] = {
    "groups": (
        "Differences between groups also come from their photos: compare the energy-matched distance.",
        "Distances are too small where groups differ, the more so the fewer the people: compare groups of equal size.",
    ),
    "shortcut": ("Strong shortcuts are told, weak ones hardly: a difference near that of the control proves nothing.",),
    "roc": ("Rates hold for pairs like these; rates below one over the number of impostor pairs cannot be measured.",),
    "table": ("Controls that mark a fixed place are hard to beat on aligned faces; look at them before the best row.",),
}


FINDINGS = {"groups": "groups of people", "shortcut": "shortcut audits", "roc": "error rates", "table": "tables"}
"""The names of the kinds of findings."""


def limits(section: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the limits of the methods, of the measurements and of the kind of finding in a section's record."""
    methods = _methods(section)
    told = {name: said for name, said in _LIMITS.items() if any(_names(method, name) for method in methods)}
    if "FrequencyHeatPlot" in told and _estimated(section):
        told["FrequencyHeatPlot"] += (_ESTIMATED,)
    told |= {one: _UNKNOWN for one in methods if not any(_names(one, name) for name in _LIMITS)}
    if not methods and section["kind"] not in _FINDINGS:
        told["a method that is not named"] = _UNTOLD
    if _changes_pixels(section):
        told[", ".join(_CHANGING)] = _CHANGED
    if section["kind"] in _FINDINGS:
        told[FINDINGS[section["kind"]]] = _FINDINGS[section["kind"]]
    return [{"about": about, "limits": list(said)} for about, said in told.items()]


def _estimated(section: dict[str, Any]) -> bool:
    """Returns whether some bands were not removed; for groups of people the mode alone decides."""
    if section["kind"] == "frequency":
        return section["tried"] in ("some", "none")
    return bool(section["recipe"].get("mode", "exact") != "exact")


def _names(method: str, name: str) -> bool:
    """Returns whether this is the method, or wraps it."""
    return method == name or any(f"{start}{name}{end}" in f"^{method}" for start in "^(" for end in "( )")


def _methods(section: dict[str, Any]) -> list[str]:
    """Returns the methods of a section: its own, and those of a table's rows."""
    held = section["recipe"].get("explainers") if isinstance(section["recipe"], dict) else None
    found = [one["method"] for one in held.values() if isinstance(one, dict) and "method" in one] if held else []
    own = [] if section["method"] == section["kind"] else [section["method"]]  # findings have none
    return list(dict.fromkeys(str(method) for method in [*own, *found]))


def _changes_pixels(section: dict[str, Any]) -> bool:
    """Returns whether the section's maps, or a table's, were measured with changed images."""
    if section["kind"] in ("classes", "pairs"):
        return bool(section.get("measured_by"))
    columns = section["rows"][0] if section["kind"] == "table" else ()
    return any(name in column for column in columns for name in _CHANGING)
