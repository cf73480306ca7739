"""People and photos under any name that a file system takes, from a gallery to the files that are written."""

from __future__ import annotations

import csv
import json
import os
from html.parser import HTMLParser

import pytest
import torch
from hostile import count_of, tried
from hostile_readers import galleries
from nets import FlatNet, shaken
from PIL import Image

from facexai import CAM, SDD, FaceModel, _csv_cells, evaluate, images, results
from facexai.cli import main

pytestmark = pytest.mark.slow

PEOPLE = [
    "<img src=x onerror=alert(1)>", "a\\..\\b", "a\nb", "a\rb", "\x1b[2J\x07", "\u202egpj.exe", "😀", "n" * 255, "-rf",
    "=cmd|'C calc'!A0", os.fsdecode(b"\xff\xfe"), "$\\frac{$", "_x", 'a,b;c"d', "{0}%s", "nan", "\u2028", "O'Neil",
]  # fmt: skip
"""Those of folders: neither a slash nor a NUL can be in them."""

TEXTS = [*PEOPLE, "<script>alert(1)</script>", "../../x", "/etc/passwd", "a\x00b", "n" * 5000, "é" * 300]
"""Those of people who are given by name."""


@pytest.fixture
def model():
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


@pytest.fixture
def world(tmp_path, zoo_installed):
    """A gallery of those people, and photos under names of that kind."""
    for place, name in enumerate(PEOPLE):
        (tmp_path / "people" / name).mkdir(parents=True)
        for photo in range(2):
            torch.manual_seed(100 * place + photo)
            images.save(torch.rand(3, 112, 112), tmp_path / "people" / name / f"{photo}.png")
    return tmp_path


def tree(folder):
    return {os.path.join(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)}


class Tags(HTMLParser):
    """The elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


def test_malformed_galleries(tmp_path):
    (reader,) = galleries(tmp_path)
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_gallery_of_hostile_names_is_explained_into_its_own_folder(world, capsys, as_json):
    photos = ["<b>.png", "..png", "\x1b]0;x\n.png", os.fsdecode(b"\xff.png"), "n" * 251 + ".png"]
    for name in photos:
        images.save(torch.rand(3, 112, 112), world / name)
    before, out = tree(world), world / "out"
    command = [
        "explain",
        *(str(world / name) for name in photos),
        "--gallery",
        str(world / "people"),
        "--out",
        str(out),
    ]
    command += ["--model", "ownmodel:make", "--method", "sdd", "--rivals", "3", "--align", "never"]
    assert main([*command, "--json"] if as_json else command) == 0
    printed, said = capsys.readouterr()
    made = tree(world) - before
    assert all(path == str(out) or os.path.dirname(path) == str(out) for path in made)
    assert len(made) == 2 + 2 * len(photos)
    report = json.loads((out / "explanations.json").read_bytes())
    assert report["people"] == sorted(PEOPLE)
    assert report["failed"] == []
    for text in (printed, said):
        assert not set(text) & {"\x1b", "\x07", "\u202e", "\udcff"}
    if as_json:
        assert json.loads(printed) == report
    else:
        assert len(printed.splitlines()) == len(photos)
    for row, name in zip(report["explained"], photos, strict=True):
        assert row["image"] == name
        assert row["target"] in PEOPLE
        assert set(row["rivals"]) < set(PEOPLE) - {row["target"]}
        with Image.open(out / row["files"][0]) as picture:
            picture.verify()
        assert results.load(out / row["files"][1]).names == tuple(sorted(PEOPLE))
    page = results.load(out / report["explained"][0]["files"][1])._repr_html_()
    assert {tag for tag, _ in Tags(page).found} <= {"figure", "img", "figcaption", "pre"}
    assert all("onerror" not in names for _, names in Tags(page).found)


def test_people_of_any_name_are_explained_drawn_and_saved(model, tmp_path, zoo_installed):
    people = model.gallery({name: torch.rand(1, 3, 112, 112) for name in TEXTS})
    probe = torch.rand(1, 3, 112, 112)
    for name in TEXTS[len(PEOPLE) :]:
        why = CAM(people)(probe, name)
        page = why._repr_html_()
        assert {tag for tag, _ in Tags(page).found} == {"figure", "img", "figcaption"}
        assert all("onerror" not in names for _, names in Tags(page).found)
        why.save(tmp_path / "why.npz")
        found = results.load(tmp_path / "why.npz")
        assert found.names == tuple(TEXTS)
        assert found.name(int(found.targets[0])) == name
    SDD(CAM(people), rivals=2)(probe)._repr_html_()
    assert [path.name for path in tmp_path.iterdir()] == ["why.npz"]
    with pytest.raises(ValueError, match="nobody enrolled is called") as error:
        people.index("z" * 10**6)
    assert len(str(error.value)) < 5000


def test_a_run_over_hostile_names_writes_tables_that_can_be_read(world, model):
    before, out = tree(world), world / "out"
    config = evaluate.Config(str(world / "people"), explainers=("cam",), metrics=("narrowness",), enrol=1, scale=64.0)
    found = evaluate.run(config, out, model=model)
    assert len(found) == len(PEOPLE)
    assert all(path == str(out) or path.startswith(f"{out}{os.sep}") for path in tree(world) - before)
    with (out / "items.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert sorted(_csv_cells.unescape(row[1]) for row in rows[1:]) == sorted(PEOPLE)
    assert all(cell.isprintable() and not cell.startswith(("=", "+", "@")) for row in rows for cell in row)
    assert {len(row) for row in rows} == {len(rows[0])}
    assert json.loads((out / "results.json").read_bytes())["counts"]["measured"] == len(PEOPLE)
    assert evaluate.run(config, out, model=model).report == found.report
