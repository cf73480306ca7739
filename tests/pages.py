"""The pages of the documentation, as a reader meets them: their blocks of code, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ("_build", "_tables", "gallery")  # by Sphinx: nobody wrote them


SYNOPSES = ("docs/commands.md", "docs/benchmarks.md")
"""Pages whose text may begin like a command: with words in capitals that the reader fills in."""


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    kind: str  # what follows the opening fence: python, bash, toml, text, or a directive in braces
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """Every page that somebody wrote, as a path from the root."""
    written = [path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).parts[0] not in GENERATED]
    return ["README.md", "CONTRIBUTING.md", *sorted(path.relative_to(ROOT).as_posix() for path in written)]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    kind, start, inside = "", 0, []
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        fence = re.match(r"\s*(`{3,}|~{3,})\s*(.*)$", line)
        if fence is None:
            inside.append(line)
        elif start:
            found.append(Block(page, start, kind, "\n".join(inside) + "\n"))
            start = 0
        else:
            kind, start, inside = fence[2].split(" ")[0], number, []
    assert not start, f"{page}:{start}: a fence that is not closed"
    return found


def runs(block: Block) -> str | None:
    """``python`` or ``bash`` for what a reader would run: also commands that a page shows as text."""
    if block.kind in ("python", "bash"):
        return block.kind
    told = block.kind == "text" and block.text.startswith("facexai ") and block.page not in SYNOPSES
    return "bash" if told else None


def prose(page: str) -> str:
    """A page without its blocks and code."""
    text = re.sub(r"^\s*```.*?^\s*```", "", (ROOT / page).read_text(), flags=re.S | re.M)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def commands(block: Block) -> list[str]:
    """The single commands of a ``bash`` block: without comments, one after the other."""
    lines = re.sub(r"\\\n", " ", block.text).splitlines()
    bare = [re.sub(r"(^|\s+)#.*$", "", line).strip() for line in lines]
    return [part.strip() for line in bare for part in line.split("&&") if part.strip()]


def anchors(page: str) -> set[str]:
    """The names that links to headings of a page can have, as Sphinx makes them: of two levels (``conf.py``)."""
    headings = re.findall(r"^##? (.*)$", re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S), re.M)
    plain = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^a-z0-9]+", "-", name).strip("-") for name in plain}
