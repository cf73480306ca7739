"""Measures the agreement of the fast modes of frequency heat plots with the exact one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from facexai._html import words
from facexai.functional import agreement

Mode = Literal["exact", "hybrid", "preview"]
MODES: tuple[Mode, ...] = ("exact", "hybrid", "preview")


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
        """Returns means over the questions; undefined correlations are left out."""
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


def compared(influence: Mapping[Mode, Tensor], kept: Tensor, top: int, recipe: Mapping[str, Any]) -> ModeAgreement:
    """Returns the agreement of every mode's influence with the exact one.

    Args:
        influence: (P, cells) by mode, on the same questions.
        kept: (P, cells), True where hybrid took a cell out for real.
        top: how many largest bands to compare.
        recipe: of hybrid.
    """
    exact = influence["exact"]
    values: dict[str, Mapping[str, Tensor]] = {m: agreement(influence[m], exact, top=top) for m in MODES[1:]}
    values["zero fill"] = agreement(torch.where(kept, exact, 0.0), exact, top=top)
    return ModeAgreement(values, top, exact.shape[1], int(kept.sum(1).min()), recipe)
