"""One thing that the doctor looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

Verdict = Literal["good", "note", "bad"]


@final
@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its name, the verdict, what was found and, unless all is well, what to do."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
