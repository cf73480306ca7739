"""Renders a record as one self-contained HTML page, and writes the record as JSON."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import operator
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, final

from facexai import io
from facexai._errors import require
from facexai.models import FaceModel, Gallery
from facexai.report.format import apart, clean, number, percent
from facexai.report.section import MOST, Page, Section
from facexai.report.thresholds import thresholds

TITLE = "Face recognition, explained"


@final
@dataclass(frozen=True, eq=False)
class Report:
    """A report: the record and the page.

    Attributes:
        record: everything that the page shows, as JSON can hold it; see :func:`schema`.
        pictures: PNG files by the names that the record gives them.
    """

    record: Mapping[str, Any]
    pictures: Mapping[str, bytes]

    def __repr__(self) -> str:
        sections, decisions = len(self.record["sections"]), len(self.record["decisions"])
        return f"Report({self.record['title']!r}, {sections} sections, {decisions} decisions)"

    @property
    def html(self) -> str:
        """The page as HTML: self-contained, readable from a file, with light and dark colours.

        Raises:
            ImportError: jinja2 is missing (extra ``report``).
        """
        return _rendered(self.record, self.pictures)

    def save(self, folder: str | Path) -> None:
        """Writes ``report.html`` and ``report.json`` into a folder, which is made where missing.

        The page holds the photos that were explained, and a copy of its record. Each file is written whole or not at
        all.

        Raises:
            OSError: the folder cannot be written.
            ImportError: jinja2 is missing (extra ``report``).
        """
        page, out = self.html.encode("utf-8", "backslashreplace"), io.output_folder(folder)
        out.mkdir(parents=True, exist_ok=True)

        def both(file: Any) -> None:
            """Renames the page last: where the record cannot be written, the old page stays beside the old record."""
            file.write(page)
            file.flush()
            io.write_json(out / "report.json", self.record)

        io.write_whole(out / "report.html", both)

    def _repr_html_(self) -> str:
        try:
            page = html.escape(self.html, quote=True)
        except ImportError as error:
            return f"<pre>{html.escape(repr(self))}\n{html.escape(str(error))}</pre>"
        title = html.escape(str(self.record["title"]), quote=True)
        return (
            f'<iframe title="{title}" sandbox="allow-scripts" srcdoc="{page}" '
            'style="width:100%;height:640px;border:1px solid #8888;border-radius:8px"></iframe>'
        )


def build(
    results: Any,
    *,
    model: FaceModel | Gallery | None = None,
    title: str = TITLE,
    threshold: float | None = None,
    threshold_source: str | None = None,
    items: int = MOST,
    made: str | None = None,
) -> Report:
    """Makes one report of several results.

    Args:
        results: a result, several, or ``{heading: result}``; each may be a :class:`Section`, which adds what was
            measured about it, and the names of its photos.
        model: the model behind them: the page then shows the input, the size of the network and of the gallery, and the
            shares of regions of the face, for photos that are aligned as ``model.spec`` says.
        title: of the page.
        threshold: cosine from which a pair, or a face and the nearest enrolled person, are accepted; default: that of
            the pairs that are reported, for their own network.
        threshold_source: where it is from, in your words, such as "EER of 6,000 pairs, verify.json".
        items: most items of a section that are shown; the record holds their number.
        made: date and time, ISO 8601; default: now.

    Returns:
        :class:`Report`: draws itself in a notebook; ``.save(folder)``; ``.record`` holds every number.

    Raises:
        TypeError: something that is no result, or a model that is none.
        ValueError: no results, NaN in them, results of another network than ``model`` or of another threshold, a
            threshold for several networks, or names, images or measurements that do not belong to a result.
        ImportError: matplotlib is missing (extra ``report``).

    Source: ours.

    >>> from facexai.metrics import roc
    >>> report = build({"error rates": roc([0.9, 0.6, 0.3, 0.1], [True, True, False, False])})
    >>> report.record["sections"][0]["auc"]
    1.0
    """
    from facexai.report.record import record_of

    sections = _sections(results)
    most = _items(items)
    if model is not None and not isinstance(model, FaceModel | Gallery):
        raise TypeError(f"expected model as the FaceModel or Gallery that was explained, got {type(model).__name__}")
    if threshold_source is not None and not isinstance(threshold_source, str):
        raise TypeError(f"expected threshold_source in words, got {type(threshold_source).__name__}")
    own = None if model is None else model.model.fingerprint
    limits = thresholds([one.result for one in sections.values()], threshold, threshold_source, own)
    page = Page(spec=None if model is None else model.model.spec, most=most, thresholds=limits)
    now = datetime.now(UTC).isoformat(timespec="seconds") if made is None else str(made)
    record = record_of(sections, page, {"title": str(title), "made": now, "model": model})
    return Report(json.loads(json.dumps(clean(record), allow_nan=False)), page.album.pictures)


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of :attr:`Report.record` and of ``report.json``.

    >>> schema()["title"]
    'facexai report'
    """
    result: dict[str, Any] = json.loads(_file("schema.json"))
    return result


def _sections(results: Any) -> dict[str, Section]:
    """Returns the sections by heading; a result without one is headed by its method."""
    named: dict[str, Section] = {}
    if isinstance(results, Mapping):
        for heading, one in results.items():
            if str(heading) in named:
                raise ValueError(f"two results have the heading {str(heading)!r}; give each its own")
            named[str(heading)] = one if isinstance(one, Section) else Section(one)
    else:
        for one in results if isinstance(results, list | tuple) else [results]:
            section = one if isinstance(one, Section) else Section(one)
            recipe = getattr(section.result, "recipe", {})
            method = recipe.get("method") if isinstance(recipe, Mapping) else None
            named[free(str(method or type(section.result).__name__), named)] = section
    if not named:
        raise ValueError("expected at least one result to report, got none")
    return named


def free(heading: str, taken: Container[str]) -> str:
    """Returns the heading, numbered where it is taken.

    >>> free("CAM", {"CAM", "CAM 2"})
    'CAM 3'
    """
    numbered = (f"{heading} {k}" for k in itertools.count(2))
    return next(name for name in itertools.chain([heading], numbered) if name not in taken)


def _items(items: Any) -> int:
    try:
        most = -1 if isinstance(items, bool) else operator.index(items)
    except TypeError:
        most = -1
    if most < 1:
        raise ValueError(f"expected items of at least 1, got {items!r}")
    return most


# ---- rendering ------------------------------------------------------------------------------------------------------


def _file(name: str) -> str:
    return resources.files("facexai.report").joinpath(name).read_text("utf-8")


def _hashed(text: str) -> str:
    """Returns the hash by which a content security policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _rendered(record: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    jinja2 = require("jinja2", extra="report", purpose="writing a report")
    from facexai.report import charts

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"data": _data, "percent": _percent, "brief": _brief, "cell": _cell}
    environment.globals |= {"bars": charts.bars, "bands": charts.bands, "curves": charts.curves, "apart": apart}
    style, script = _file("page.css"), _file("page.js")
    # "<" would end the script element; JSON knows it as an escape
    held = json.dumps(record, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    urls = {name: f"data:image/png;base64,{base64.b64encode(data).decode()}" for name, data in pictures.items()}
    text: str = environment.from_string(_file("page.html.jinja")).render(
        r=record,
        pictures=urls,
        style=style,
        script=script,
        record=held,
        policy=f"default-src 'none'; img-src data:; style-src {_hashed(style)}; script-src {_hashed(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    return text


def _data(value: float | None, digits: int = 3) -> Any:
    """Returns a number as HTML, with its full value as data."""
    return _machine(value, number(value, digits))


def _percent(share: float | None) -> Any:
    """Returns a share as HTML in per cent, with the share as data."""
    return _machine(share, percent(share))


def _machine(value: float | None, text: str) -> Any:
    from markupsafe import Markup

    return text if value is None else Markup('<data value="{}">{}</data>').format(repr(value), text)


def _cell(value: Any) -> Any:
    """Returns a table's value as HTML: a number, an interval, a name, or any other value."""
    if isinstance(value, bool):
        return number(value)
    if value is None or isinstance(value, int | float):
        return _data(value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return _data(value[0]) + " to " + _data(value[1])
    return _brief(value)


def _brief(value: Any) -> str:
    """Returns a value of a recipe as one short line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_brief(held)}" for name, held in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_brief(held) for held in value)
    return json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
