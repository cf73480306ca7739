"""Regions of an aligned face, and the share of a map inside each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from facexai.functional import mass_inside
from facexai.images import TEMPLATE
from facexai.input_spec import InputSpec
from facexai.report.format import rough

REGIONS = ("eyes and brows", "nose", "mouth", "forehead", "cheeks and chin", "around the face")
"""The regions; every pixel belongs to exactly one."""

_EYE = float(TEMPLATE[1, 0] - TEMPLATE[0, 0])  # distance of the eyes in the 112-pixel template
_DOWN = np.array((0.0, _EYE))
_BROWS = TEMPLATE[:2].mean(0) - 0.1 * _DOWN


def regions(spec: InputSpec) -> dict[str, Tensor]:
    """Returns the regions of an aligned face as {name: (H, W) bool}, a partition of the input's pixels.

    Ellipses around the landmarks that photos are aligned to, in distances of the eyes; a face is 2.2 of them broad.
    They hold for aligned photos of the template's proportions, not for a face of its own shape.

    Source: ours.

    >>> sum(mask.float().mean() for mask in regions(InputSpec(112)).values())
    tensor(1.)
    """
    left, top, right, bottom = spec.crop
    height, width = spec.height_width
    x = (np.arange(width) + 0.5) * (right - left) / width + left - 0.5
    y = (np.arange(height) + 0.5) * (bottom - top) / height + top - 0.5

    def ellipse(centre: object, breadth: float, length: float) -> Tensor:
        cx, cy = np.asarray(centre, dtype=np.float64)
        inside = ((x[None] - cx) / (breadth * _EYE)) ** 2 + ((y[:, None] - cy) / (length * _EYE)) ** 2 <= 1
        return torch.from_numpy(inside)

    eyes, nose, corners = TEMPLATE[:2], TEMPLATE[2], TEMPLATE[3:]
    face = ellipse(eyes.mean(0) + 0.4 * _DOWN, 1.1, 1.55)
    above = torch.from_numpy(np.broadcast_to(y[:, None] < _BROWS[1], (height, width)).copy())
    parts = {
        "mouth": ellipse(corners.mean(0), 0.62, 0.36),
        "nose": ellipse((nose[0], 0.35 * eyes[:, 1].mean() + 0.65 * nose[1]), 0.34, 0.5),
        "eyes and brows": ellipse(eyes[0] - 0.1 * _DOWN, 0.46, 0.4) | ellipse(eyes[1] - 0.1 * _DOWN, 0.46, 0.4),
        "forehead": face & above,
        "cheeks and chin": face & ~above,
        "around the face": ~face,
    }
    free = torch.ones(height, width, dtype=torch.bool)
    found = {}
    for name, mask in parts.items():  # what stands first keeps pixels that two would claim
        found[name] = mask & free
        free = free & ~mask
    return {name: found[name] for name in REGIONS}


def shares(values: Tensor, masks: Mapping[str, Tensor]) -> list[dict[str, float | str | None]]:
    """Returns each region's share of the positive and of the negative part of a map (H, W); None for an empty part."""
    values = values.detach().cpu().double()
    rows: list[dict[str, float | str | None]] = []
    for name, mask in masks.items():
        row: dict[str, float | str | None] = {"region": name, "area": float(mask.double().mean())}
        for kind, part in (("for", values), ("against", -values)):
            row[kind] = float(mass_inside(part[None], mask)[0]) if bool((part > 0).any()) else None
        rows.append(row)
    return rows


def sentences(rows: list[dict[str, float | str | None]], subject: str, kind: str = "for") -> list[str]:
    """Returns sentences on measured shares: the largest part, the densest part, and the share around the face.

    Args:
        rows: of :func:`shares`.
        subject: what the map shows, such as "evidence for Ann".
        kind: ``"for"`` or ``"against"``.
    """
    found = [
        (str(row["region"]), float(row[kind] or 0), float(row["area"] or 0)) for row in rows if row[kind] is not None
    ]
    if not found:
        return []
    name, most, area = max(found, key=lambda part: part[1])
    if all(value <= 1.05 * share for _, value, share in found):
        return [f"Of {subject}, no region holds more than an even map would."]
    result = [f"Of {subject}, {rough(most)} lies {_on(name)}, where an even map would have {rough(area)}."]
    dense, value, area = max(found, key=lambda part: part[1] / part[2] if part[2] else 0.0)
    if dense != name and area and value > 1.05 * area:
        result.append(
            f"For its size the map is densest {_on(dense)}: {rough(value)} on {rough(area)} of the picture, "
            f"{value / area:.1f} times an even map."
        )
    around = next((part for part in found if part[0] == "around the face"), None)
    if around is not None and around[0] not in (name, dense):
        result.append(f"{rough(around[1])} lies around the face, on hair, ears, clothes and background.")
    return result


def _on(region: str) -> str:
    return region if region.startswith("around") else f"on the {region}"
