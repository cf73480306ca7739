"""The public surface is the recorded one: nothing goes, changes or appears unnoticed."""

from __future__ import annotations

import difflib
from importlib import import_module

import pytest
from surface import FILE, STUB, lines, stub

UPDATE = (
    "\nWas it meant? Then run `python tests/surface.py` and commit tests/data/surface.txt. What goes, or changes so "
    "that it breaks a caller, needs the deprecation policy of docs/stability.md and a line in CHANGELOG.md."
)


def test_the_surface_is_the_recorded_one():
    pytest.importorskip("captum")  # whose methods belong to it
    recorded, found = FILE.read_text().splitlines(), lines()
    diff = [
        line
        for line in difflib.unified_diff(recorded, found, "recorded", "found", lineterm="", n=0)
        if not line.startswith("@@ ")
    ]
    assert not diff, "\n".join(diff[:60]) + UPDATE


def test_type_checkers_know_every_explainer():
    assert STUB.read_text() == stub(), "run `python tests/surface.py`"


def test_the_record_is_whole():
    recorded = FILE.read_text().splitlines()
    for start in ("facexai.explainers.CAM: class(classifier", "facexai.load: ", "$ facexai explain --method: one of"):
        assert any(line.startswith(start) for line in recorded), start
    assert any(line.startswith("@ saliency.npz, format 1: arrays") for line in recorded)
    assert not [line for line in recorded if " at 0x" in line or "/" in line.split(": ")[0].replace("IMAGE/", "")]


def test_old_names_serve_the_new_ones_with_a_warning():
    from facexai._renamed import RENAMED

    for module, names in RENAMED.items():
        package = import_module(f"facexai.{module}")
        for old, new in names.items():
            assert old not in package.__all__
            with pytest.warns(DeprecationWarning, match=rf"facexai\.{module}\.{old} is now facexai\.{module}\.{new}"):
                assert getattr(package, old) is getattr(package, new)
        with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
            _ = package.no_such_name
