"""The gallery's hooks: where scripts write, which pictures they made, and a record of what ran, as ``gallery.json``."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import textwrap
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import figure_rst
from sphinx_gallery.sorting import ExplicitOrder

ORDER = ExplicitOrder(
    [
        "one_face.py",
        "look_alikes.py",
        "two_faces.py",
        "what_would_have_to_change.py",
        "shortcuts.py",
        "data_set.py",
        "groups.py",
        "cross_resolution.py",
        "morphs.py",
        "texture.py",
        "score_cam.py",
        "your_own_network.py",
        "your_own_explainer.py",
    ]
)
RECORD = "gallery.json"

_out = Path(tempfile.gettempdir())  # of the example that runs, empty when it starts
_open = ExitStack()
_ran: dict[str, dict[str, Any]] = {}
"""What ran in this build; the others did not change since an earlier one, whose record stays in docs/gallery."""


def arguments(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """The command line of an example."""
    return ["--out", str(_out / f"{Path(script_vars['src_file']).stem}.png")]


def watched(gallery_conf: dict[str, Any], fname: str | None, when: str) -> None:
    """Before an example: a folder for its pictures, and an ear for its warnings. Afterwards: what is known then."""
    global _out
    _open.close()
    if fname is None or when == "after":
        if fname is not None:
            _ran[fname]["seconds"] = round(time.monotonic() - _ran[fname]["seconds"], 1)
        return
    _out = Path(_open.enter_context(tempfile.TemporaryDirectory(prefix="gallery-")))
    told: list[str] = []
    _ran[fname] = {"seconds": time.monotonic(), "warnings": told, "pictures": []}

    def noted(message: Warning | str, category: type[Warning], *_: object, **__: object) -> str:
        told.append(f"{category.__name__}: {message}")
        return f"{told[-1]}\n"  # for the page, without paths of this machine

    _open.enter_context(warnings.catch_warnings())
    _open.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
    warnings.simplefilter("default")
    warnings.formatwarning = noted


def pictures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The pictures that a cell has written, for its page."""
    made = []
    for path in sorted(_out.glob("*.png"), key=lambda path: path.stat().st_mtime_ns):
        to = next(block_vars["image_path_iterator"])
        shutil.move(path, to)
        with Image.open(to) as picture:
            width, height = picture.size
        name = Path(block_vars["src_file"]).name
        _ran[name]["pictures"].append({"file": f"_images/{Path(to).name}", "width": width, "height": height})
        made.append(to)
    return figure_rst(made, gallery_conf["src_dir"]) if made else ""


def library() -> str:
    """Of the library's source: what ran with another is out of date."""
    source = Path(__file__).parents[1] / "src"
    texts = (path.read_bytes() for path in sorted(source.rglob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()


def written(app: Sphinx, exception: Exception | None) -> None:
    """Write the record into the built documentation; what did not run again keeps its old entry."""
    _open.close()
    source, examples = Path(app.srcdir) / "gallery", Path(app.srcdir).parent / "examples"
    kept = source / RECORD
    record = json.loads(kept.read_text()) if kept.is_file() else {}
    failed = {Path(path).name: told for path, told in app.config.sphinx_gallery_conf["failing_examples"].items()}
    for name, found in _ran.items():
        text = (source / name).with_suffix(".rst").read_text()
        record[name] = {
            "sha256": hashlib.sha256((examples / name).read_bytes()).hexdigest(),
            "library": library(),
            "ran": name not in failed,
            "error": failed.get(name),
            **found,
            "printed": "\n".join(map(_printed, re.findall(_OUTPUT, text))),
        }
    record = {name: record[name] for name in ORDER.ordered_list_end if name in record}
    for folder in (source, Path(app.outdir)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


_OUTPUT = r"\.\. rst-class:: sphx-glr-script-out\n\n \.\. code-block:: none\n((?:\n|    .*\n)+)"


def _printed(block: str) -> str:
    return textwrap.dedent(block).strip("\n")


def setup(app: Sphinx) -> dict[str, Any]:
    """Before sphinx-gallery's own summary, which raises where an example failed.

    What ran with another version of the library runs again: sphinx-gallery looks at the scripts alone.
    """
    old = Path(app.srcdir) / "gallery"
    record = json.loads((old / RECORD).read_text()) if (old / RECORD).is_file() else {}
    if any(entry.get("library") != library() for entry in record.values()):
        shutil.rmtree(old)
    app.connect("build-finished", written, priority=400)
    return {"parallel_read_safe": True}
