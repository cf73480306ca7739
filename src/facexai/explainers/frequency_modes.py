"""How near the fast modes of frequency heat plots are to the exact one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor

from facexai._notebook import words
from facexai.functional import agreement

if TYPE_CHECKING:
    from facexai.explainers.frequency import FrequencyHeatPlot

Mode = Literal["exact", "hybrid", "preview"]
FAST: tuple[Mode, ...] = ("hybrid", "preview")


@final
@dataclass(frozen=True, eq=False)
class ModeAgreement:
    """Agreement of fast modes with the exact one, per question; a table when printed.

    Attributes:
        values: {row: {measure: (P,)}}: rows ``hybrid``, ``preview`` and ``zero fill``, the control that has hybrid's
            exact bands and zeros for the others; measures as in :func:`facexai.functional.agreement`.
        top: how many largest bands were compared.
        bands: number of bands (with sectors, of cells).
        exact_bands: those that hybrid took out for real.
    """

    values: Mapping[str, Mapping[str, Tensor]]
    top: int
    bands: int
    exact_bands: int
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, dict[str, float]]:
        """Means over the questions; undefined correlations are left out."""
        return {row: {name: float(v.nanmean()) for name, v in made.items()} for row, made in self.values.items()}

    _repr_html_ = words

    def __repr__(self) -> str:
        heads = {"pearson": "Pearson", "spearman": "Spearman", "top": f"top {self.top}", "relative_l1": "relative L1"}
        count = len(next(iter(self.values.values()))["top"])
        lines = [f"against exact: {count} questions, {self.bands} bands, {self.exact_bands} of them exact in hybrid"]
        lines.append("".join(word.rjust(width) for word, width in zip(("", *heads.values()), _WIDTHS, strict=True)))
        for row, mean in self.means.items():
            cells = [row.ljust(_WIDTHS[0])] + [
                f"{mean[n]:.3f}".rjust(w) for n, w in zip(heads, _WIDTHS[1:], strict=True)
            ]
            lines.append("".join(cells))
        return "\n".join(lines)


_WIDTHS = (10, 9, 10, 8, 13)


def compared(explainer: FrequencyHeatPlot, first: Tensor, second: Any, top: int) -> ModeAgreement:
    """Every mode on the same question, against the exact one."""
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(f"expected top as a whole number of at least 1, got {top!r}")
    exact = _flat(replace(explainer, mode="exact")(first, second).influence)
    values: dict[str, Mapping[str, Tensor]] = {}
    for mode in FAST:
        values[mode] = agreement(_flat(replace(explainer, mode=mode)(first, second).influence), exact, top=top)
    hybrid = replace(explainer, mode="hybrid")
    kept = _exact_in_hybrid(hybrid, [first] if not isinstance(second, Tensor) or second.ndim < 2 else [first, second])
    values["zero fill"] = agreement(torch.where(kept, exact, 0.0), exact, top=top)
    return ModeAgreement(values, top, exact.shape[1], int(kept.sum(1).min()), hybrid.recipe())


def _flat(influence: Tensor) -> Tensor:
    return influence.flatten(1)


def _exact_in_hybrid(hybrid: FrequencyHeatPlot, images: Sequence[Tensor]) -> Tensor:
    """(P, cells) whether hybrid takes a cell out for real; with ``masked="both"``, of both images."""
    lost = {"first": images[:1], "second": images[1:], "both": images}[hybrid.masked]
    return torch.stack([hybrid.exact_cells(part) for part in lost]).all(0)
