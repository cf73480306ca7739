"""Photos outside of their folder keep as much of their path as tells them apart, everywhere."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import ownmodel
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facexai import evaluate, images, metrics
from facexai._photo_names import folder_names, photo_names
from facexai.cli import audit, main
from facexai.evaluate.data import opened
from facexai.images.pairs import Pairs


@pytest.mark.parametrize(
    ("paths", "root", "names"),
    [
        (["/x/a/00.jpg", "/x/b/00.jpg"], None, ["a/00.jpg", "b/00.jpg"]),
        (["/x/a/00.jpg", "/x/b/00.jpg"], "/r", ["a/00.jpg", "b/00.jpg"]),
        (["/x/a/00.jpg", "/x/a/01.jpg"], "/r", ["00.jpg", "01.jpg"]),
        (["/p/x/a/0.jpg", "/p/y/a/0.jpg", "/p/y/b/0.jpg"], None, ["x/a/0.jpg", "y/a/0.jpg", "b/0.jpg"]),
        (["/r/ann/0.jpg", "/q/ann/0.jpg", "/q/bo/1.jpg"], "/r", ["ann/0.jpg", "q/ann/0.jpg", "1.jpg"]),
        (["/r/0.jpg", "/q/0.jpg"], "/r", ["0.jpg", "q/0.jpg"]),
        (["/0.jpg", "/a/0.jpg"], None, ["/0.jpg", "a/0.jpg"]),
        (["/x/0.jpg", "/x/0.jpg", "/x/../x/0.jpg"], None, ["0.jpg", "0.jpg", "0.jpg"]),
        ([], "/r", []),
    ],
)
def test_names_are_the_shortest_that_tell_apart(paths, root, names):
    assert photo_names([Path(path) for path in paths], None if root is None else Path(root)) == names


def test_packed_photos_are_called_by_their_number():
    assert photo_names([b"a", b"b"], Path("/r")) == ["0", "1"]
    assert folder_names([b"a", b"b"], Path("/r")) == ["", ""]


PATHS = st.lists(st.lists(st.sampled_from("abr"), min_size=1, max_size=4).map(lambda parts: Path("/", *parts)))


@given(PATHS, st.sampled_from([None, Path("/r"), Path("/r/a")]))
def test_names_are_those_of_the_literal_rule(paths, root):
    names = photo_names(paths, root)
    for path, name in zip(paths, names, strict=True):
        if root is not None and path.is_relative_to(root):
            assert name == path.relative_to(root).as_posix()
            continue
        ends = [Path(*path.parts[-count:]) for count in range(1, len(path.parts) + 1)]
        others = [other for other in set(paths) if other != path]
        alone = [end for end in ends if not any(other.parts[-len(end.parts) :] == end.parts for other in others)]
        assert name == (alone[0] if alone else path).as_posix()
    of = dict(zip(paths, names, strict=True))
    assert len(set(of.values())) == len(of), "two photos, two names"


@pytest.fixture
def outside(tmp_path):
    """Photos of two people, each called 00 and 01, and lists that lie elsewhere."""
    drawn = torch.Generator().manual_seed(0)
    for person in "ab":
        (tmp_path / "photos" / person).mkdir(parents=True)
        for k in range(4):
            images.save(torch.rand(3, 20, 20, generator=drawn), tmp_path / "photos" / person / f"0{k}.jpg")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "own.jpg").write_bytes((tmp_path / "photos" / "a" / "00.jpg").read_bytes())
    rows = [
        f"../photos/{p}/0{i}.jpg,../photos/{q}/0{j}.jpg,{int(p == q)}"
        for p in "ab"
        for q in "ab"
        for i, j in ((0, 1), (2, 3))
    ]
    (tmp_path / "lists" / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    listed = [f"../photos/{person}/0{k}.jpg,{person}" for person in "ab" for k in range(4)]
    (tmp_path / "lists" / "list.csv").write_text("image,identity\n" + "\n".join(listed) + "\nown.jpg,a\n")
    return tmp_path


NAMES = [f"{person}/0{k}.jpg" for person in "ab" for k in range(4)]


def test_data_sets_name_photos_of_elsewhere(outside):
    assert opened(outside / "lists" / "list.csv", None).names == [*NAMES, "own.jpg"]
    pairs = opened(outside / "lists" / "pairs.csv", None)
    assert sorted(pairs.names) == NAMES
    assert pairs.identities == [name[0] for name in pairs.names], "the folder of a photo, whatever its name is"


def test_photos_of_one_folder_are_of_one_person_whatever_they_are_called(tmp_path):
    paths = [Path("/q/ann/00.jpg"), Path("/q/bo/00.jpg"), Path("/q/ann/01.jpg"), Path("/r/cy/02.jpg")]
    assert photo_names(paths, Path("/r")) == ["ann/00.jpg", "bo/00.jpg", "01.jpg", "cy/02.jpg"]
    assert folder_names(paths, Path("/r")) == ["ann", "bo", "ann", "cy"]


def test_verify_tells_photos_of_elsewhere_apart(outside, zoo_installed):
    out = outside / "out"
    arguments = ["verify", str(outside / "lists" / "pairs.csv"), "--model", "ownmodel:make_small", "--align", "never"]
    assert main([*arguments, "--rule", "0.5", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO((out / "scores.csv").read_text())))
    assert [(row["first"], row["second"]) for row in rows[:4]] == [
        ("a/00.jpg", "a/01.jpg"),
        ("a/02.jpg", "a/03.jpg"),
        ("a/00.jpg", "b/01.jpg"),
        ("a/02.jpg", "b/03.jpg"),
    ]
    assert str(outside) not in (out / "scores.csv").read_text()


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_a_run_tells_photos_of_elsewhere_apart(outside):
    (outside / "photos" / "b" / "03.jpg").write_bytes(b"broken")
    config = evaluate.Config("list.csv", explainers=("cam",), metrics=("narrowness",), enrol=2, scale=9.0)
    evaluate.run(config, outside / "out", model=ownmodel.make_small(), base=outside / "lists")
    rows = list(csv.DictReader(io.StringIO((outside / "out" / "items.csv").read_text())))
    assert [row["image"] for row in rows] == ["a/02.jpg", "a/03.jpg", "b/02.jpg", "own.jpg"]
    (lost,) = csv.DictReader(io.StringIO((outside / "out" / "unreadable.csv").read_text()))
    assert lost["image"] == "b/03.jpg"
    assert lost["reason"].startswith("b/03.jpg")
    assert str(outside) not in (outside / "out" / "unreadable.csv").read_text()


@pytest.mark.parametrize("written", ["../photos/{}", "{}", "absolute"])
def test_groups_are_of_the_photo_that_is_meant(outside, written):
    pairs = metrics.read_pairs(outside / "lists" / "pairs.csv")
    where = str(outside / "photos") + "/{}" if written == "absolute" else written
    rows = "\n".join(f"{where.format(name)},{'old' if name[0] == 'a' else 'new'}" for name in NAMES)
    (outside / "groups.csv").write_text(f"image,group\n{rows}\n")
    groups, identities, source = audit._labels(outside / "groups.csv", pairs, outside / "lists")
    parents = [path.parent.name for path in pairs.images]
    assert groups == ["old" if parent == "a" else "new" for parent in parents]
    assert (identities, source) == (parents, "folder")


def listed(photos):
    return Pairs(tuple(photos), np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=bool))


def test_a_row_about_another_photo_is_not_taken(outside):
    (outside / "groups.csv").write_text("image,group\nown.jpg,x\n../photos/b/own.jpg,y\n")
    photos = [outside / "photos" / "a" / "own.jpg", outside / "photos" / "b" / "own.jpg"]
    groups, _, _ = audit._labels(outside / "groups.csv", listed(photos[1:]), outside / "lists")
    assert groups == ["y"]
    with pytest.raises(ValueError, match="names none of the images"):
        audit._labels(outside / "groups.csv", listed(photos[:1]), outside / "lists")


def test_photos_of_one_folder_elsewhere_are_people_each(outside):
    photos = sorted((outside / "photos" / "a").iterdir())
    (outside / "groups.csv").write_text("image,group\n00.jpg,x\n")
    groups, identities, source = audit._labels(outside / "groups.csv", listed(photos), outside / "lists")
    assert groups == ["x", "", "", ""]
    assert (identities, source) == ([None] * 4, "pairs")


def test_commands_tell_photos_of_one_name_apart(outside, zoo_installed):
    (outside / "deep" / "a").mkdir(parents=True)
    images.save(torch.rand(3, 20, 20), outside / "deep" / "a" / "00.jpg")
    photos = [str(outside / "photos" / "a" / "00.jpg"), str(outside / "deep" / "a" / "00.jpg")]
    arguments = ["compare", *photos, "--model", "ownmodel:make_small", "--align", "never", "--threshold", "0.4"]
    assert main([*arguments, "--method", "paircam", "--out", str(outside / "out")]) == 0
    report = json.loads((outside / "out" / "compare.json").read_text())
    assert (report["first"], report["second"]) == ("photos/a/00.jpg", "deep/a/00.jpg")
    assert np.isfinite(report["cosine"])
