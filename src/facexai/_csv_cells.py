"""Cells of CSV files: names are text to spreadsheets, harmless to terminals, and read back as they were."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from facexai._errors import printable, truncate

_MARK = "'"
_FORMULA = "[\\s']*[=+\\-@\uff1d\uff0b\uff0d\uff20]"  # also in full width, which spreadsheets in some languages take
_BEGINS = re.compile(_FORMULA)
_SPLITS = re.compile(f";(?={_FORMULA})")  # a spreadsheet whose separator is the semicolon begins a cell here
_ESCAPED = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4})")


def escape(name: str) -> str:
    """Returns a name as a cell that begins with an apostrophe where the name could be taken for a command.

    These are names that begin with ``= + - @`` (after spaces and apostrophes, too), that hold one of them after a
    semicolon, or that hold control or direction characters, which become escapes. Other names stay as they are.

    Source: the apostrophe is what OWASP's page on CSV injection advises; the escapes are ours.

    >>> escape("=1+1"), escape("a.jpg"), escape("a;=1"), escape("'t Hooft")
    ("'=1+1", 'a.jpg', "'a\\\\x3b=1", "'t Hooft")
    """
    shown = name if name.isprintable() else printable(name)
    looks_escaped = name[:1] == _MARK and "\\" in name
    if not (shown != name or looks_escaped or _BEGINS.match(name) or _SPLITS.search(name)):
        return name
    return _MARK + _SPLITS.sub(r"\\x3b", printable(name.replace("\\", r"\\")))


def unescape(cell: str) -> str:
    """Returns the name of which :func:`escape` made this cell; a cell that it never makes is a name as it is.

    >>> unescape("'=1+1"), unescape("=1+1"), unescape("'t Hooft")
    ('=1+1', '=1+1', "'t Hooft")
    """
    if cell[:1] != _MARK:
        return cell
    name = _ESCAPED.sub(lambda match: match[0].encode().decode("unicode_escape"), cell[1:])
    return name if escape(name) == cell else cell


@contextmanager
def table(text: str, name: str) -> Iterator[Iterator[list[str]]]:
    """Yields the rows of a CSV file, cells stripped and unescaped; comma, semicolon or tab separates them.

    Args:
        text: content of the file.
        name: the file, as errors name it.

    Raises:
        ValueError: no CSV, or any ValueError that is raised inside; it names the file and the line.

    >>> with table("image;group\\na.jpg; x\\n", "groups.csv") as rows:
    ...     list(rows)
    [['image', 'group'], ['a.jpg', 'x']]
    """
    separator = max(",;\t", key=text.lstrip().split("\n", 1)[0].count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        yield ([unescape(cell.strip()) for cell in cells] for cells in lines)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{name}, line {max(lines.line_num, 1)}: {truncate(error)}") from error
