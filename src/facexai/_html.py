"""HTML of answers for notebooks, without matplotlib: escaped text, tables and pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_MOST_ROWS = 100


def words(answer: object) -> str:
    """Returns what ``print`` shows, as HTML; classes use it as their ``_repr_html_``.

    >>> words("a < b")
    '<pre>a &lt; b</pre>'
    """
    return f"<pre>{html.escape(str(answer))}</pre>"


def cell(value: Any) -> str:
    """Returns a value of a table for reading.

    >>> cell(0.123456), cell((0.1, 0.2)), cell(None), cell(True)
    ('0.123', '0.1 to 0.2', '-', 'yes')
    """
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, float) for part in value):
        return f"{value[0]:.3g} to {value[1]:.3g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> str:
    """Returns rows of numbers and names as an HTML table; everything is escaped.

    Args:
        rows: by column, in the order of their first appearance; at most a hundred are shown.
        caption: above.

    >>> table([{"map": "CAM", "drop": 1.5}])
    '<table><tr><th>map</th><th>drop</th></tr><tr><td>CAM</td><td>1.5</td></tr></table>'
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    left = len(rows) - _MOST_ROWS
    more = f"; the first {_MOST_ROWS} of {len(rows)} rows" if left > 0 else ""
    lines = [f"<caption>{html.escape(caption + more)}</caption>"] if caption or more else []
    lines += [_row("th", columns)] if columns else []
    lines += [_row("td", [cell(row.get(column)) for column in columns]) for row in rows[:_MOST_ROWS]]
    return f"<table>{''.join(lines)}</table>"


def facts(named: Mapping[str, Any], caption: str = "") -> str:
    """Returns names and values, one below the other."""
    lines = "".join(
        f'<tr><th style="text-align:left">{html.escape(str(name))}</th>'
        f'<td style="text-align:left">{html.escape(cell(value))}</td></tr>'
        for name, value in named.items()
    )
    return f"<table>{f'<caption>{html.escape(caption)}</caption>' if caption else ''}{lines}</table>"


def picture(image: Tensor, caption: str) -> str:
    """Returns an image (3, H, W) in [0, 1], pixel by pixel."""
    from PIL import Image

    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return figure(buffer.getvalue(), caption)


def figure(png: bytes, caption: str) -> str:
    """Returns a PNG file as one HTML element; the caption is escaped and is also the alternative text."""
    data, told = base64.b64encode(png).decode(), html.escape(caption, quote=True)
    return (
        f'<figure style="margin:0"><img alt="{told}" style="max-width:100%" src="data:image/png;base64,{data}">'
        f"<figcaption>{told}</figcaption></figure>"
    )


def _row(kind: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(str(one))}</{kind}>" for one in cells) + "</tr>"
