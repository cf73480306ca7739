"""How reports write numbers and names: nothing is rounded over a limit, nothing turns its neighbours round."""

from __future__ import annotations

import json
import unicodedata

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import FlatNet, shaken

from facexai import CAM, SDD, FaceModel, PairCAM, metrics, report
from facexai.report.format import apart, clean, inside, name_of, number, percent, rough

HEBREW = "\u05d0\u05d1\u05d9"
TURNING = (
    "eve\u202e",
    "a\u2066b",
    "x\u200f",
    "\u2068open",
    "end\u2069",
    "line\nbreak",
    "bell\x07",
    "odd\udc80",
    HEBREW,
)
CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u200e\u200f\x07\n\udc80"


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_numbers_that_are_compared_read_differently(a, b):
    digits = apart(a, b)
    assert (number(a, digits) == number(b, digits)) == (a == b) or digits == 17


@given(st.floats(0, 1, exclude_max=True))
def test_what_is_not_all_is_never_written_as_all(share):
    assert percent(share) != "100"
    assert number(share) != "1"
    assert rough(share) != "100 %"
    assert (percent(share) == "0") == (share == 0) or share < 1e-300
    assert (rough(share) == "0 %") == (share == 0)


def test_numbers_are_short_where_nothing_is_lost():
    assert [number(v) for v in (0.5, 1.0, 12.345, 0.0, 3)] == ["0.5", "1", "12.3", "0", "3"]
    assert [percent(v) for v in (0.5, 1.0, 0.12345)] == ["50", "100", "12.3"]
    assert number(0.98812, apart(0.98812, 0.988)) == "0.9881"


@given(st.text())
def test_clean_text_is_printable_or_isolated(text):
    for part in (clean(text), name_of(text), inside(text)):
        left = part.replace("\u2068", "").replace("\u2069", "")
        assert not set(left) & set(CONTROLS)
        assert part.count("\u2068") == part.count("\u2069")
        json.dumps(part).encode()
        part.encode()
    assert clean(clean(text)) == clean(text)


@given(st.text())
def test_names_that_run_from_right_to_left_are_isolated(name):
    turned = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in inside(name))
    assert inside(name).startswith("\u2068") == turned


def test_long_names_are_cut_in_sentences_only():
    assert len(inside("x" * 10_000)) < 200
    assert len(name_of("x" * 10_000)) == 10_000


@pytest.fixture(scope="module")
def faces():
    return torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


@pytest.mark.parametrize("name", TURNING)
def test_no_name_turns_a_number_round(model, faces, name):
    people = model.gallery({name: faces[:1], "bo": faces[1:2], "cy": faces[2:]})
    why = SDD(CAM(people), rivals=2)(faces)
    made = report.build(
        {
            name: report.Section(why, [metrics.deletion(people, faces, why)], [name, "b", "c"], note=f"of {name} 12"),
            "pair": report.Section(PairCAM(model, threshold=0.5)(faces[:1], faces[1:2]), names=[(name, "b")]),
        },
        model=people,
        title=name,
    )
    jsonschema.validate(made.record, report.schema())
    page = made.html
    page.encode()
    made._repr_html_().encode()
    text = json.dumps(made.record, ensure_ascii=False)
    for held in (page.replace("\n", ""), text):
        assert not set(held) & set(CONTROLS)
    item = made.record["sections"][0]["items"][0]
    assert item["name"] == item["asked"] == name_of(name)
    if name == HEBREW:
        assert item["name"] == HEBREW  # a field is the name itself
        assert f"<bdi>{HEBREW}</bdi>" in page
        for sentence in item["sentences"]:
            assert sentence.replace(f"\u2068{HEBREW}\u2069", "").isascii()


def test_scores_just_under_a_threshold_read_so(model, faces):
    why = PairCAM(model)(faces[:1], faces[1:2])
    cosine = float(why.scores[0])
    made = report.build(why, threshold=cosine + 1e-6)
    (row,) = made.record["decisions"]
    assert row["decision"] == "no match"
    shown = number(row["score"], apart(row["score"], row["threshold"]))
    assert shown != number(row["threshold"], apart(row["score"], row["threshold"]))
    assert made.html.count(f">{shown}</data>") == 2  # in the table of decisions and beside the maps
