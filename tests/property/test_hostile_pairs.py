"""Lists of pairs, of photos and of groups that are damaged or made to harm."""

from __future__ import annotations

import csv
import time

import pytest
from hostile import count_of, tried
from hostile_readers import drawn, pair_files, put

from facexai import _csv_cells, io, metrics
from facexai.cli import audit
from facexai.evaluate.data import opened

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", range(5))
def test_malformed_lists(number, tmp_path):
    reader = pair_files(tmp_path)[number]
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)
    assert tally.inputs == tally.answers + sum(tally.errors.values())


def test_a_packed_file_that_grows_without_end_when_it_is_shown_is_refused_at_once(tmp_path):
    """Forty pairs in pairs: the text of the value would have 2**40 parts."""
    twice = b"".join(b"h%c" % at + b"h%c" % at + b"\x86q%c" % (at + 1) for at in range(40))
    path = put(tmp_path / "pairs.bin", b"\x80\x04)q\x00" + twice + b"h\x28h\x28\x93.")
    start = time.process_time()
    with pytest.raises(ValueError, match=r"pairs\.bin: .*asks for an object to be made"):
        metrics.read_pairs(path)
    assert time.process_time() - start < 5  # seconds of the processor; a reader that is caught never ends


def test_lists_in_lists_without_end_are_refused(tmp_path):
    for data in (b"]q\0" + b"h\0a" * 9 + b".", b"]" * 500_000 + b"a" * 499_999 + b".", b"(" * 10**6 + b"."):
        with pytest.raises(ValueError, match=r"pairs\.bin"):
            metrics.read_pairs(put(tmp_path / "pairs.bin", data))


@pytest.mark.parametrize("number", ["9" * 10, "9" * 5000])
@pytest.mark.parametrize("line", ["{}\t300", "10\t{}", "{}"])
def test_numbers_of_any_length_are_one_clear_error(tmp_path, line, number):
    path = put(tmp_path / "pairs.txt", (line.format(number) + "\nAnn\t1\t2\n").encode())
    with pytest.raises(ValueError, match=r"pairs\.txt: expected the number of folds") as error:
        metrics.read_pairs(path)
    assert len(str(error.value)) < 500


def test_a_header_that_is_no_csv_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"photos\.csv, line 1: "):
        opened(put(tmp_path / "photos.csv", b'"a"b,image\nx,y\n'), None)
    with pytest.raises(ValueError, match=r"groups\.csv, line 1: "):
        audit._rows(put(tmp_path / "groups.csv", b'"a"b,image,group\nx,y,z\n'))


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a\0b.jpg", "../" * 900 + "etc/nothing", "/dev/zero", "loop.jpg", "\x1b[2J"]
)
def test_photos_that_cannot_be_are_missing(tmp_path, name):
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    put(tmp_path / "a.jpg", drawn("JPEG"))
    for head, row, read in (
        ("first,second,same", f"a.jpg,{name},0", metrics.read_pairs),
        ("image", name, lambda path: opened(path, None)),
    ):
        with pytest.raises(FileNotFoundError, match=r"list\.csv") as error:
            read(put(tmp_path / "list.csv", f"{head}\n{row}\n".encode()))
        assert len(str(error.value)) < 1000
        assert "\x1b" not in str(error.value)


def test_a_carriage_return_in_a_name_does_not_end_a_row(tmp_path):
    rows = [["a\rb.jpg", "=cmd", 'x"y'], ["c\nd", "e,f", "\udcff"]]
    io.write_csv(tmp_path / "items.csv", ["first", "second", "third"], rows)
    with (tmp_path / "items.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found[1:] == [["'a\\rb.jpg", "'=cmd", 'x"y'], ["'c\\nd", "e,f", "'\\udcff"]]
    assert [[_csv_cells.unescape(cell) for cell in row] for row in found] == [["first", "second", "third"], *rows]
