"""What the documentation's gallery recorded when it ran every example, once; and data that it has not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing
from PIL import Image

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SAID = {
    "one_face.py": "targets: Eileen Collins",
    "look_alikes.py": "of 30 probes named right",
    "two_faces.py": "matched (",
    "what_would_have_to_change.py": "4 decisions changed",
    "shortcuts.py": "beyond the no-op control",
    "data_set.py": "24 of 24 photos measured",
    "groups.py": "28 of them genuine",
    "cross_resolution.py": "18 px: mean cosine",
    "morphs.py": "an AUROC needs at least four people",
    "texture.py": "stripes of 20 cycles, strongest band 20",
    "score_cam.py": "65 images through the network",
    "your_own_network.py": "equals CAM: True",
    "your_own_explainer.py": "targets: Eileen Collins, Grace Hopper",
}
WARNS = {"two_faces.py": ["a map of pair"]}
"""Deliberately shown: which warnings an example ends with, by their beginning."""
DRAWS = {"two_faces.py": 2}


def library() -> str:
    """As the documentation writes it."""
    texts = (path.read_bytes() for path in sorted((EXAMPLES[0].parents[1] / "src").rglob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()


@pytest.fixture(scope="module")
def gallery() -> tuple[Path, dict]:
    """The built documentation and the record in it."""
    built = os.environ.get("FACEXAI_GALLERY")
    if not built:
        missing("gallery", "FACEXAI_GALLERY does not name the folder of the built documentation")
    return Path(built), json.loads((Path(built) / "gallery.json").read_text())


def test_every_example_is_in_the_gallery(gallery):
    assert sorted(gallery[1]) == [path.name for path in EXAMPLES] == sorted(SAID)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_ran_as_it_is_now_and_ended_with_a_picture(gallery, path):
    folder, record = gallery
    found = record[path.name]
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), "another version ran: build again"
    assert found["library"] == library(), "it ran with another version of the library: build again"
    assert found["ran"], found["error"]
    wanted = WARNS.get(path.name, [])
    assert len(found["warnings"]) == len(wanted), found["warnings"]
    assert all(start in said for start, said in zip(wanted, found["warnings"], strict=True))
    assert SAID[path.name] in found["printed"]
    assert len(found["pictures"]) == DRAWS.get(path.name, 1)
    for picture in found["pictures"]:
        assert picture["width"] >= 1000
        assert picture["height"] >= 300
        with Image.open(folder / picture["file"]) as image:
            assert image.size == (picture["width"], picture["height"])
            colours = image.convert("RGB").resize((200, 200)).getcolors(40_000)
        assert max(count for count, _ in colours) < 0.97 * 40_000, "next to nothing is drawn"
        assert len(colours) > 200


def test_each_page_has_the_script_and_a_notebook(gallery):
    folder, record = gallery
    index = (folder / "gallery" / "index.html").read_text()
    for name in record:
        stem = name.removesuffix(".py")
        page = (folder / "gallery" / f"{stem}.html").read_text()
        for file in (name, f"{stem}.ipynb"):
            assert f"/{file}" in page
            assert list(folder.glob(f"_downloads/*/{file}"))
        assert f'href="{stem}.html' in index
        assert str(ROOT) not in page


def test_the_gallery_stays_short(gallery):
    assert sum(found["seconds"] for found in gallery[1].values()) < 600


# ---- what the gallery cannot run: photos of many people ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("morphs.py", ["--people", "6"], "AUROC of the bands"),
        ("look_alikes.py", ["--people", "8"], "8 of 8 probes named right"),
    ],
)
def test_with_a_folder_of_photos(zoo_installed, shared, tmp_path, name, more, said):
    faces = ["--faces", str(shared / "data" / "lfw42"), "--out", str(tmp_path / "out.png")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / name), *faces, *more],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


# ---- the people who are nobody -----------------------------------------------------------------------------------


def test_a_network_tells_drawn_people_apart_as_well_as_is_said(dlib_model):
    import torch

    from facexai import metrics
    from facexai.demo import people

    faces = torch.cat(list(people.cartoons(dlib_model.spec, 24, 4).values()))
    units = dlib_model.embed(faces)
    i, j = torch.triu_indices(len(faces), len(faces), 1)
    found = metrics.auc((units @ units.T)[i, j], i // 4 == j // 4)
    assert f"area under the ROC curve of {found:.2f}".replace("0.", ".") in " ".join(people.cartoons.__doc__.split())


def test_a_folder_with_too_few_people_is_refused(tmp_path):
    from facexai import InputSpec
    from facexai.demo.people import people

    with pytest.raises(FileNotFoundError, match="no folder"):
        people(tmp_path / "none", InputSpec(112), 4, 2)
    (tmp_path / "ann").mkdir()
    with pytest.raises(ValueError, match="expected two people with 2 photos or more, found 0"):
        people(tmp_path, InputSpec(112), 4, 2)
