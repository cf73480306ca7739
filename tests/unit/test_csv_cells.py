"""Names in CSV files: text to spreadsheets, harmless to terminals, and the same again when they are read."""

from __future__ import annotations

import csv
import itertools
import os
import re
from pathlib import Path

import numpy as np
import ownmodel
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facexai import _csv_cells, evaluate, images, io, metrics
from facexai.cli import audit, verify
from facexai.evaluate.data import opened

WRITTEN = {
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-x.jpg": "'-x.jpg",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\\t=1",
    "\rb": "'\\rb",
    "\nb": "'\\nb",
    "  =1": "'  =1",
    "'=1": "''=1",
    "\uff1d1": "'\uff1d1",
    "a;=1": "'a\\x3b=1",
    "a; -1": "'a\\x3b -1",
    "\x1b[2J": "'\\x1b[2J",
    "\u202egpj.exe": "'\\u202egpj.exe",
    "\udcff.jpg": "'\\udcff.jpg",
    "a\\b\x07": "'a\\\\b\\x07",
    "'\\x1b": "''\\\\x1b",
    # what can do nothing stays as it is
    "a.jpg": "a.jpg",
    "a-b=c@d.jpg": "a-b=c@d.jpg",
    "a;b": "a;b",
    "'t Hooft": "'t Hooft",
    "O'Neil": "O'Neil",
    "people\\new\\1.jpg": "people\\new\\1.jpg",
    "\u5c71\u7530\u3000\u592a\u90ce": "\u5c71\u7530\u3000\u592a\u90ce",
    "\U0001f468\u200d\U0001f469": "\U0001f468\u200d\U0001f469",
    "": "",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_name_is_written_as_text_and_read_as_it_was(name):
    assert _csv_cells.escape(name) == WRITTEN[name]
    assert _csv_cells.unescape(WRITTEN[name]) == name


NAMES = st.text(st.one_of(st.sampled_from("=+-@';,\\\t\r\n ax1bu\x1b\u202e\udcff\u3000\uff1d"), st.characters()))


@given(NAMES)
def test_every_name_comes_back_and_no_cell_is_a_formula(name):
    cell = _csv_cells.escape(name)
    assert _csv_cells.unescape(cell) == name
    assert _csv_cells.unescape(_csv_cells.escape(cell)) == cell, "what looks written is a name like any other"
    for part in cell.split(";"):  # the cells of a spreadsheet whose separator is the semicolon
        assert not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", part)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", cell)


@given(NAMES)
def test_any_cell_of_any_table_can_be_read(cell):
    assert _csv_cells.escape(_csv_cells.unescape(cell)) == cell or _csv_cells.unescape(cell) == cell


def test_numbers_stay_numbers(tmp_path):
    rows = [["-0.5", -0.5, -1, np.float32(-1e-7), np.int64(3), float("nan")]]
    io.write_csv(tmp_path / "a.csv", ["=head", "b", "c", "d", "e", "f"], rows)
    assert (tmp_path / "a.csv").read_bytes() == b"'=head,b,c,d,e,f\n'-0.5,-0.5,-1,-1e-07,3,nan\n"
    io.write_csv(tmp_path / "a.csv", ["x"], [[-0.5]], ".6f")
    assert (tmp_path / "a.csv").read_bytes() == b"x\n-0.500000\n"


ODD = ["=cmd|'C calc'!A0", "-rf", "@x", "+1", "a;=1", "'=x", "\x1b[2J", "a\nb", "\u202ea", os.fsdecode(b"\xff")]


@pytest.fixture
def photos(tmp_path):
    """Two photos of each of those people."""
    for name in ODD:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(2):
            images.save(torch.rand(3, 20, 20), tmp_path / "photos" / name / f"{k}.png")
    return tmp_path / "photos"


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_tables_of_facexai_are_read_by_facexai(photos, tmp_path):
    names = [f"{name}/{k}.png" for name in ODD for k in range(2)]
    io.write_csv(tmp_path / "list.csv", ["image", "identity"], [[name, name[:-6]] for name in names])
    listed = opened(tmp_path / "list.csv", photos)
    assert (listed.names, listed.identities) == (names, [name[:-6] for name in names])

    io.write_csv(
        tmp_path / "pairs.csv",
        ["first", "second", "same"],
        [[a, b, int(a[:-6] == b[:-6])] for a, b in itertools.pairwise(names)],
    )
    pairs = metrics.read_pairs(tmp_path / "pairs.csv", photos)
    assert [str(path) for path in pairs.images] == [str(photos / name) for name in names]

    rows = list(verify._rows(pairs, np.full(len(pairs), -0.5), 0.0, photos))
    io.write_csv(tmp_path / "scores.csv", ["first", "second", "same", "cosine", "accepted", "near"], rows)
    assert metrics.read_pairs(tmp_path / "scores.csv", photos).images == pairs.images
    assert {row[3] for row in table(tmp_path / "scores.csv")[1:]} == {"-0.5"}

    io.write_csv(tmp_path / "groups.csv", ["image", "group"], [[name, name[:-6]] for name in names])
    groups, identities, source = audit._labels(tmp_path / "groups.csv", pairs, photos)
    assert (groups, identities, source) == ([name[:-6] for name in names], [name[:-6] for name in names], "folder")


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_a_run_gives_the_names_back(photos, tmp_path):
    (photos / "=cmd|'C calc'!A0" / "2.png").write_bytes(b"broken")
    config = evaluate.Config(str(photos), explainers=("cam",), metrics=("narrowness",), enrol=1, scale=9.0)
    evaluate.run(config, tmp_path / "out", model=ownmodel.make_small())
    for file in ("items.csv", "unreadable.csv"):
        for row in table(tmp_path / "out" / file):
            for cell in row:
                assert not re.match(r"\s*[=+@-]", cell) or re.fullmatch(r"-?[0-9.e+-]+", cell), cell
                assert cell.isprintable(), cell
    assert table(tmp_path / "out" / "unreadable.csv")[1][0] == "'=cmd|'C calc'!A0/2.png"
    some = evaluate.examples(tmp_path / "out", 100)
    assert sorted(some.identities) == sorted(ODD)
    assert sorted(some.names) == sorted(f"{name}/1.png" for name in ODD)
    assert set(some.saliency.names) <= set(ODD)


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_items_of_an_earlier_release_are_read_too(photos, tmp_path):
    config = evaluate.Config(str(photos), explainers=("cam",), metrics=("narrowness",), enrol=1, scale=9.0)
    evaluate.run(config, tmp_path / "out", model=ownmodel.make_small())
    rows = [[_csv_cells.unescape(cell) for cell in row] for row in table(tmp_path / "out" / "items.csv")]
    with (tmp_path / "out" / "items.csv").open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    readable = [name for name in ODD if name.isprintable() and name != "'=x"]
    assert set(readable) <= set(evaluate.examples(tmp_path / "out", 100).identities)
