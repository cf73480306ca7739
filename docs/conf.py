"""Sphinx configuration."""

import json
import sys
from importlib.metadata import version as _version
from pathlib import Path

from sphinx.ext.napoleon.docstring import GoogleDocstring

from facexai._registry import EXPLAINERS

sys.path.insert(0, str(Path(__file__).parent))

project = "facexai"
author = "The facexai developers"
copyright = "The facexai developers"
release = version = _version("facexai")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "gallery_record",
]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
GoogleDocstring._consume_inline_attribute = lambda self: ("", self._dedent(self._consume_to_end()))
"""The first words of a property, up to a colon, are words and not its type: the annotation has that."""
myst_heading_anchors = 2
exclude_patterns = ["_build", "_tables"]
html_theme = "furo"
html_title = "facexai"
html_static_path = ["_static"]
html_css_files = ["facexai.css"]

sphinx_gallery_conf = {  # every example runs once, here; hooks by name, since the configuration has to pickle
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "gallery_record.ORDER",
    "reset_argv": "gallery_record.arguments",
    "reset_modules": ("gallery_record.watched",),
    "reset_modules_order": "both",
    "image_scrapers": ("gallery_record.pictures",),
    "capture_repr": ("_repr_html_",),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "nested_sections": False,
}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(columns: list[str], rows: list[dict]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_text(row.get(column)) for column in columns) + " |" for row in rows]


def _tables() -> None:
    """The tables of docs/benchmarks.md, from the committed results, so that they cannot drift apart."""
    here = Path(__file__).parent
    (here / "_tables").mkdir(exist_ok=True)
    across: list[dict] = []
    for result in sorted((here.parent / "benchmarks" / "results").glob("*.json")):
        content = json.loads(result.read_text())
        rows, columns = content["rows"], content.get("columns") or list(content["rows"][0])
        lines = [*(f"- {sentence}" for sentence in content.get("sentences", ())), "", *_table(columns, rows)]
        (here / "_tables" / f"{result.stem}.md").write_text("\n".join(lines) + "\n")
        if result.stem.startswith("verification_"):
            across += [row for row in rows if row["map"] == "FGGB" and "patch" not in row["question"]]
    controls = ("", ", random", ", centre", ", mean-map", ", other-pair")
    columns = ["network", "question", *(f"{scheme}{of}" for scheme in ("deletion", "insertion") for of in controls)]
    (here / "_tables" / "verification_fggb.md").write_text("\n".join(_table(columns, across)) + "\n")


def _explainers() -> None:
    """The table of methods, its tree of pages, the reference and the papers of the explainers, from their registry."""
    tables = Path(__file__).parent / "_tables"
    rows = [
        {"card": f"[{row.title}](methods/{row.page}.md)", "answers": row.answers, "cost": row.cost, "mark": row.mark}
        for row in EXPLAINERS
    ]
    tree = ["```{toctree}", ":maxdepth: 1", ":hidden:", "", *(f"methods/{row.page}" for row in EXPLAINERS), "```"]
    (tables / "methods.md").write_text("\n".join([*_table(list(rows[0]), rows), "", *tree]) + "\n")
    papers = [f"- {paper}" for row in EXPLAINERS for paper in row.papers]
    (tables / "papers.md").write_text("\n".join(papers) + "\n")
    for question in {row.about[0] for row in EXPLAINERS}:
        lines = []
        for row in EXPLAINERS:
            if row.about[0] == question:
                members = ", ".join(name for name in _MEMBERS if hasattr(row.load(), name))
                lines += [
                    f".. autoclass:: facexai.{row.cls}",
                    f"   :members: {members}",
                    "   :special-members: __call__",
                    "",
                ]
        (tables / f"{question}.txt").write_text("\n".join(lines))


_MEMBERS = ("observe", "answer", "against", "class_maps", "exact_cells", "compare_modes", "no_op")
_tables()
_explainers()
