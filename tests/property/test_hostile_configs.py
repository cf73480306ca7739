"""Configurations and names of factories that are damaged or made to harm."""

from __future__ import annotations

import sys
import time

import pytest
from hostile import count_of, tried
from hostile_readers import configurations, put

from facexai.cli import main
from facexai.evaluate import read
from facexai.models._factory import call_factory
from facexai.zoo import by_name


@pytest.fixture(autouse=True)
def _paths(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("number", range(3))
def test_malformed_configurations(number, tmp_path):
    reader = configurations(tmp_path)[number]
    tally = tried(reader, count_of(reader), tmp_path)
    assert tally.broken == []
    assert (tally.executed, tally.hung, tally.left) == (0, 0, 0)
    assert tally.inputs == tally.answers + sum(tally.errors.values())


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100_000,
        "x = " + "{a=" * 20_000,
        "a." * 60_000 + "b = 1",
        "[" + "a." * 60_000 + "b]",
        "data." * 150 + "x = 1",
        ".".join(["a"] * 60 + ['"\u2028"']) * 99 + " = 1",  # a line for Python, not for TOML
        "x = " + "9" * 100_000,
        "x = 1\n" * 50_000,
        "x = 0o" + "7" * 9_000,
        "\udcff = 1",
    ],
)
def test_keys_and_brackets_without_end_are_one_clear_error_at_once(tmp_path, text):
    path, start = put(tmp_path / "run.toml", text.encode("utf-8", "surrogateescape")), time.process_time()
    with pytest.raises(ValueError, match=r"run\.toml") as error:
        read(path)
    assert time.process_time() - start < 5  # seconds of the processor; a reader that is caught never ends
    assert len(str(error.value)) < 1000


def test_what_a_value_may_not_be_is_said_with_the_files_name(tmp_path):
    with pytest.raises(ValueError, match=r"run\.toml: expected an area between 0 and 1, got 2\.0"):
        read(put(tmp_path / "run.toml", b'data = "x"\narea = 2.0\n'))


@pytest.mark.parametrize(
    "line", ["area = nan", "scale = inf", "threshold = -inf", 'model = "a\\u0000b"', 'metrics = ["\\u0000"]']
)
def test_numbers_and_texts_that_nothing_can_be(tmp_path, line):
    with pytest.raises(ValueError, match=r"run\.toml: expected \w+ as a finite number or as text without NUL"):
        read(put(tmp_path / "run.toml", f'data = "x"\n{line}\n'.encode()))


def test_a_factory_that_ends_the_program_is_one_clear_error(capsys):
    for source in ("sys:exit", "os:_exit_"):
        with pytest.raises(ValueError, match=f"cannot make '{source}'"):
            call_factory(source)
    assert main(["doctor", "--model", "sys:exit"]) == 2
    assert "SystemExit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["a:b:c", ":", "::", ".os:x", "os:", "a\0b:c", "x" * 10**6, "x" * 10**6 + ":y", "../x:y", "\ud800:x"]
)
def test_names_that_name_nothing(name):
    with pytest.raises(ValueError, match=r"expected 'package|cannot make|no network") as error:
        by_name(name)
    assert len(str(error.value)) < 1500
