"""A check of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

Verdict = Literal["good", "note", "bad"]


@final
@dataclass(frozen=True)
class Finding:
    """The result of a check: name, verdict, finding and, unless all is well, what to do."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
