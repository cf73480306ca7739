"""``facexai report``: from photos, and from what the other commands wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import ownmodel
import pytest
import torch

from facexai import SDD, HiResCAM, evaluate, images, metrics, report, zoo
from facexai.cli import main
from facexai.evaluate import Config

PEOPLE = ("ann", "bo", "cy", "di")
OWN = ["--model", "ownmodel:make_small"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:a map of pair"),
    pytest.mark.filterwarnings("ignore:. rivals asked for"),
    pytest.mark.filterwarnings("ignore:PairCAM has only"),
    pytest.mark.filterwarnings("ignore:FAR .* cannot be resolved"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Four people of four photos each, as the small network wants them."""
    folder, drawn = tmp_path_factory.mktemp("photos"), torch.Generator().manual_seed(0)
    for name in PEOPLE:
        base = torch.rand(3, 20, 20, generator=drawn)
        (folder / name).mkdir()
        for k in range(4):
            noisy = (base + 0.5 * torch.rand(3, 20, 20, generator=drawn) - 0.25).clamp(0, 1)
            images.save(noisy, folder / name / f"{name}{k}.png")
    rows = [f"{a}/{a}{i}.png,{b}/{b}{i + 1}.png,{int(a == b)}" for a in PEOPLE for b in PEOPLE for i in (0, 2)]
    (folder / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    labels = [f"{a}/{a}{k}.png,{'x' if a in PEOPLE[:2] else 'y'},{a}" for a in PEOPLE for k in range(4)]
    (folder / "groups.csv").write_text("image,group,identity\n" + "\n".join(labels) + "\n")
    (folder / "audit.toml").write_text(
        'pairs = "pairs.csv"\ngroups = "groups.csv"\nmodel = "ownmodel:make_small"\nwidth = 5.0\ndraws = 99\n'
    )
    return folder


def made(out: Path) -> dict:
    record = json.loads((out / "report.json").read_text("utf-8"))
    jsonschema.validate(record, report.schema())
    assert (out / "report.html").read_text("utf-8").count("<h2") >= 4
    return record


def kinds(record: dict) -> list[str]:
    return [section["kind"] for section in record["sections"]]


def test_photos_and_a_gallery_make_a_report_with_controls(photos, tmp_path, capsys):
    probes = [str(photos / "ann" / "ann3.png"), str(photos / "bo" / "bo3.png")]
    command = ["report", *probes, "--gallery", str(photos), "--out", str(tmp_path / "out"), *OWN]
    assert main([*command, "--threshold", "0.5", "--threshold-source", "a guess"]) == 0
    record = made(tmp_path / "out")
    assert kinds(record) == ["classes", "frequency", "pairs"]
    assert record["threshold"] == {"values": [0.5], "source": "a guess", "note": ""}
    who, _, pairs = record["sections"]
    assert [item["name"] for item in who["items"]] == ["ann3.png", "bo3.png"]
    for item in who["items"]:
        assert len(item["controls"]) == 4
        assert {row["name"] for row in item["controls"][0]["rows"]} >= {
            "this map",
            "random place",
            "centre of the picture",
        }
        assert item["regions"]
    assert all(item["matches"] and item["controls"] for item in pairs["items"])
    assert str(photos) not in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "3 sections" in capsys.readouterr().out


def test_the_reports_numbers_are_those_of_the_methods(photos, tmp_path):
    probe = photos / "cy" / "cy3.png"
    assert main(["report", str(probe), "--gallery", str(photos), "--out", str(tmp_path / "out"), *OWN]) == 0
    (item,) = made(tmp_path / "out")["sections"][0]["items"]
    model = ownmodel.make_small()
    people = model.gallery(photos, scale="calibrated")
    face = images.load(probe)
    assert item["decision"] == people.names[int(people.logits(face).argmax())]
    assert item["score"] == pytest.approx(float(people.logits(face).max()), rel=1e-5)
    why = SDD(HiResCAM(people), rivals=3)(face)
    drop = metrics.deletion(people, face, why)
    assert item["controls"][0]["rows"][0]["value"] == pytest.approx(drop.drop, rel=1e-4, abs=1e-6)
    told = np.array(item["views"][0]["cells"])
    np.testing.assert_allclose(told, why.cells[0].numpy(), rtol=1e-3, atol=1e-5)


def test_two_photos_make_a_report_about_a_pair(photos, tmp_path):
    pair = [str(photos / "ann" / "ann0.png"), str(photos / "ann" / "ann1.png")]
    assert main(["report", *pair, "--out", str(tmp_path / "out"), *OWN]) == 0
    assert kinds(made(tmp_path / "out")) == ["pairs", "pairs", "frequency"]
    assert main(["report", *pair, "--threshold", "0.2", "--out", str(tmp_path / "more"), *OWN]) == 0
    record = made(tmp_path / "more")
    assert kinds(record) == ["pairs", "pairs", "pairs", "frequency"]
    assert [len(row["explained_by"]) for row in record["decisions"]] == [3]


@pytest.fixture(scope="module")
def runs(photos, tmp_path_factory) -> Path:
    """A folder for each command."""
    out = tmp_path_factory.mktemp("runs")
    ann = [str(photos / "ann" / f"ann{k}.png") for k in range(3)]
    for command in (
        ["explain", *ann, "--gallery", str(photos), "--out", str(out / "explain"), *OWN],
        ["compare", *ann[:2], "--method", "paircam", "--threshold", "0.3", "--out", str(out / "compare"), *OWN],
        ["frequency", *ann[:2], "--width", "4", "--out", str(out / "frequency"), *OWN],
        ["verify", str(photos / "pairs.csv"), "--out", str(out / "verify"), *OWN],
        ["audit", str(photos / "audit.toml"), "--out", str(out / "audit")],
        ["counterfactual", "--out", str(out / "counterfactual"), "--scales", "8"],
    ):
        assert main(command) == 0, command[0]
    config = Config("people", explainers=("sdd",), metrics=("deletion", "retention", "insertion"), enrol=2, steps=3)
    shutil.copytree(photos, out / "people", ignore=shutil.ignore_patterns("*.csv", "*.toml"))
    evaluate.run(config, out / "evaluate", base=out, model=ownmodel.make_small())
    return out


def test_folders_of_all_commands_make_one_report(runs, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "flat")
    for path in list((tmp_path / "flat").glob("*/*.png")):
        shutil.copy(path, tmp_path / "flat" / path.name)
    names = ("explain", "compare", "frequency", "verify", "audit", "counterfactual", "evaluate")
    folders = [str(runs / name) for name in names]
    command = ["report", *folders, "--out", str(tmp_path / "out"), "--photos", str(tmp_path / "flat"), *OWN]
    assert main(command) == 0, capsys.readouterr().err
    record = made(tmp_path / "out")
    wanted = ["classes", "pairs", "frequency", "roc", "groups", "frequency", "counterfactuals", "table", "classes"]
    assert kinds(record) == wanted
    by = dict(zip(wanted, record["sections"], strict=False))
    assert all(item["views"][0]["photo"] for item in record["sections"][0]["items"])
    assert by["pairs"]["items"][0]["sides"][0]["view"]["photo"]
    found = json.loads((runs / "verify" / "verify.json").read_text())
    assert record["threshold"] == {"values": [0.3], "source": "given with the results, without a source", "note": ""}
    assert by["roc"]["auc"] == found["auc"]
    groups = json.loads((runs / "audit" / "audit.json").read_text())
    for row in by["groups"]["groups"]:
        assert row["fmr"] == groups["rates"][row["name"]]["fmr"]
        assert row["fnmr"] == groups["rates"][row["name"]]["fnmr"]
    assert by["groups"]["distances"][0]["value"] == groups["distances"][0]["value"]
    assert any(network["fingerprint"] == ownmodel.make_small().fingerprint for network in record["networks"])


def test_examples_of_a_run_are_its_own_numbers(runs):
    found = json.loads((runs / "evaluate" / "results.json").read_text())
    some = evaluate.examples(runs / "evaluate", 3)
    assert len(some.saliency) == len(some.names) == 3
    every = evaluate.examples(runs / "evaluate", 100)
    assert len(every.names) == found["counts"]["measured"] == 8
    drops = {one.recipe["scheme"]: one for one in every.measured}
    own = next(row for row in found["details"]["sdd"]["deletion"] if row["map"] == "own")
    assert drops["deletion"].drop == pytest.approx(own["drop"])
    right = [not who or who == name for who, name in zip(every.identities, every.saliency.names, strict=True)]
    assert right == sorted(right)
    model = ownmodel.make_small()
    face = images.load(runs / "people" / every.names[0])
    people = model.gallery({p: [runs / "people" / p / f"{p}{k}.png" for k in (0, 1)] for p in PEOPLE},
                           scale=found["classifier"]["scale"])  # fmt: skip
    assert every.saliency.name(0) == people.names[int(people.logits(face).argmax())]
    assert float(every.saliency.scores[0]) == pytest.approx(float(people.logits(face).max()), rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg", "--gallery", "."], "nowhere.jpg"),
        (["{photos}"], "no folder that a command wrote"),
        (["{photos}/ann/ann0.png"], "one photo without --gallery"),
        (["nowhere", "{runs}/explain"], "no file or folder nowhere"),
        (["{runs}/explain", "--gallery", "."], "--gallery belongs to photos"),
        (["{runs}/explain", "--scale", "3"], "--scale belongs to photos"),
        (["{photos}/ann/ann0.png", "{photos}/ann/ann1.png", "--scale", "3"], "--scale belongs to --gallery"),
        (["{photos}/ann/ann0.png", "--gallery", ".", "--photos", "."], "--photos belongs to folders"),
        (["{runs}/explain", "--photos", "nowhere", *OWN], "is no folder"),
        (["{runs}/verify", "--photos", "{photos}", *OWN], "--photos: none of the folders has maps of photos"),
        (["{runs}/explain", "--photos", "{photos}"], "--photos needs --model"),
        (["{runs}/explain/explanations.json"], "is a file of a command; give its folder"),
        (["{runs}/explain", "--items", "0", *OWN], "--items of at least 1"),
        (["{photos}/ann/ann0.png", "{photos}/ann/ann1.png", "--threshold-source", "x", *OWN], "without a threshold"),
        (["{runs}/explain", "--model", "ownmodel:make"], "fingerprint"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(photos, runs, tmp_path, capsys, arguments, message):
    asked = [part.format(photos=photos, runs=runs) for part in arguments]
    assert main(["report", *asked, "--out", str(tmp_path / "out")]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("facexai")]
    assert len(err) == 1
    assert message in err[0]
    assert not (tmp_path / "out").exists()


def test_damaged_runs_are_refused(runs, tmp_path, capsys):
    for name, file, content in (
        ("explain", "explanations.json", "{"),
        ("explain", "explanations.json", '{"explained": [{"image": "a", "files": ["../../x.npz"]}]}'),
        ("explain", "explanations.json", '{"explained": [{}]}'),
        ("compare", "compare.npz", "broken"),
        ("audit", "audit.json", '{"groups": ["a"]}'),
        ("evaluate", "results.json", "[]"),
        ("verify", "verify.json", {"auc": "high"}),
        ("verify", "verify.json", {"genuine": -3}),
        ("verify", "verify.json", {"eer": 1.5}),
        ("verify", "verify.json", {"threshold": 7}),
        ("verify", "verify.json", {"tar_at_far": None}),
        ("compare", "compare.json", {"sha256": 3}),
        ("verify", "verify.json", {"tar_at_far": {"often": 0.5}}),
        ("evaluate", "results.json", {"table": []}),
        ("evaluate", "results.json", {"table": {}}),
        ("evaluate", "results.json", {"table": [{}]}),
    ):
        copy = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(runs / name, copy)
        if isinstance(content, dict):
            content = json.dumps(json.loads((copy / file).read_text()) | content)
        (copy / file).write_text(content)
        assert main(["report", str(copy), "--out", str(tmp_path / "out"), *OWN]) == 2, (name, content)
        err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("facexai report:")]
        assert len(err) == 1, err
        assert file in err[0], err
        assert not (tmp_path / "out").exists()


def test_names_in_a_run_do_not_lead_out_of_the_folder_of_photos(runs, photos, tmp_path):
    copy = tmp_path / "explain"
    shutil.copytree(runs / "explain", copy)
    record = json.loads((copy / "explanations.json").read_text())
    (tmp_path / "secret.png").write_bytes((photos / "ann" / "ann0.png").read_bytes())
    (tmp_path / "inside").mkdir()
    for row in record["explained"]:
        row["image"] = "../secret.png"
    (copy / "explanations.json").write_text(json.dumps(record))
    assert main(["report", str(copy), "--photos", str(tmp_path / "inside"), "--out", str(tmp_path / "out"), *OWN]) == 0
    assert all(item["views"][0]["photo"] is None for item in made(tmp_path / "out")["sections"][0]["items"])


def test_a_threshold_is_taken_from_the_folder_that_found_it_for_this_network(runs, photos, tmp_path, capsys):
    probe, found = str(photos / "bo" / "bo3.png"), json.loads((runs / "verify" / "verify.json").read_text())
    command = ["report", probe, str(runs / "verify"), "--gallery", str(photos)]
    assert main([*command, "--out", str(tmp_path / "out"), *OWN]) == 0
    record = made(tmp_path / "out")
    source = "verify.json: rule eer, pairs pairs.csv"
    assert record["threshold"] == {"values": [found["threshold"]], "source": source, "note": ""}
    assert record["sections"][0]["items"][0]["threshold"] == found["threshold"]
    assert main([*command, "--threshold-source", "mine", "--out", str(tmp_path / "mine"), *OWN]) == 0
    assert made(tmp_path / "mine")["threshold"]["source"] == f"mine ({source})"
    capsys.readouterr()
    strange = tmp_path / "strange"
    shutil.copytree(runs / "verify", strange)
    text = (strange / "verify.json").read_text().replace(found["fingerprint"], "0" * 16)
    (strange / "verify.json").write_text(text)
    assert main(["report", probe, str(strange), "--gallery", str(photos), "--out", str(tmp_path / "no"), *OWN]) == 2
    assert "'Error rates' was made with a network of fingerprint 0000" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_threshold_of_another_network_decides_nothing(runs, tmp_path, capsys):
    strange = tmp_path / "strange"
    shutil.copytree(runs / "verify", strange)
    found = json.loads((strange / "verify.json").read_text())
    (strange / "verify.json").write_text(json.dumps(found | {"fingerprint": "0" * 16}))
    out = ["--out", str(tmp_path / "out")]
    assert main(["report", str(strange), *out]) == 0
    assert made(tmp_path / "out")["decisions"] == []
    assert main(["report", str(strange), str(runs / "explain"), *out]) == 0
    assert "another network" in capsys.readouterr().err
    assert made(tmp_path / "out")["threshold"] is None
    assert main(["report", str(runs / "verify"), str(runs / "explain"), *out]) == 0
    assert made(tmp_path / "out")["sections"][1]["items"][0]["threshold"] == found["threshold"]


def test_one_bad_photo_is_told_and_the_report_stands(runs, photos, tmp_path):
    shutil.copytree(photos / "ann", tmp_path / "photos")
    (tmp_path / "photos" / "ann1.png").write_bytes(b"broken")
    command = ["report", str(runs / "explain"), str(runs / "compare"), "--photos", str(tmp_path / "photos")]
    assert main([*command, "--out", str(tmp_path / "out"), *OWN]) == 0
    explained, compared = made(tmp_path / "out")["sections"]
    assert [item["views"][0]["photo"] is None for item in explained["items"]] == [False, True, False]
    assert compared["items"][0]["sides"][0]["view"]["photo"] is None
    for section in (explained, compared):
        assert section["note"].startswith("Photos that cannot be shown: ann1.png: ")


def test_pairs_are_shown_as_they_were_cut(runs, photos, tmp_path):
    for name in ("compare", "frequency"):
        copy = tmp_path / name
        shutil.copytree(runs / name, copy)
        record = json.loads((copy / f"{name}.json").read_text())
        assert record["aligned"] == [None, None]
        record["aligned"][1] = [[0.5, 0, 3], [0, 0.5, 2]]
        (copy / f"{name}.json").write_text(json.dumps(record))
        out = tmp_path / f"{name}-out"
        assert main(["report", str(copy), "--photos", str(photos / "ann"), "--out", str(out), *OWN]) == 0
        (section,) = made(out)["sections"]
        assert "ann1.png: it was cut otherwise" in section["note"]


def test_a_pair_without_a_threshold_tells_none(photos, tmp_path):
    pair = [str(photos / "ann" / "ann0.png"), str(photos / "ann" / "ann1.png")]
    assert main(["report", *pair, "--out", str(tmp_path / "out"), *OWN]) == 0
    record = made(tmp_path / "out")
    assert record["threshold"] is None
    measured = [one for section in record["sections"] for one in section["measured_by"]]
    assert measured
    assert not any("threshold" in one or "accepted from" in one for one in measured)


def test_what_a_run_lacks_is_said(runs, tmp_path):
    copy = tmp_path / "old"
    shutil.copytree(runs / "evaluate", copy)
    rows = (copy / "items.csv").read_text().splitlines(keepends=True)
    for content in ("image\nx\n", "", rows[0], "".join(rows[:-1]), "".join([rows[0], *rows[:0:-1]])):
        (copy / "items.csv").write_text(content)
        assert main(["report", str(copy), "--out", str(tmp_path / "out"), *OWN]) == 0
        (section,) = made(tmp_path / "out")["sections"]
        assert section["note"].startswith("Single photos cannot be shown"), content
        assert "start the run again" in section["note"]


def test_a_photo_stands_only_under_its_own_map(photos, tmp_path):
    """Two people's photos of one name: never the one under the map, or beside the name, of the other."""
    for name in ("ann", "bo"):
        (tmp_path / "p" / name).mkdir(parents=True)
        shutil.copy(photos / name / f"{name}3.png", tmp_path / "p" / name / "3.png")
    pair = [str(tmp_path / "p" / name / "3.png") for name in ("ann", "bo")]
    out = tmp_path / "out"
    assert main(["explain", *pair, "--gallery", str(photos), "--out", str(tmp_path / "explain"), *OWN]) == 0
    assert main(["compare", *pair, "--method", "paircam", "--out", str(tmp_path / "compare"), *OWN]) == 0
    assert main(["frequency", *pair, "--width", "5", "--out", str(tmp_path / "frequency"), *OWN]) == 0
    folders = [str(tmp_path / name) for name in ("explain", "compare", "frequency")]
    assert main(["report", *folders, "--photos", str(tmp_path / "p"), "--out", str(out), *OWN]) == 0
    explained, compared, heard = made(out)["sections"]
    assert [item["name"] for item in explained["items"]] == ["ann/3.png", "bo/3.png"]
    assert compared["items"][0]["name"] == "ann/3.png and bo/3.png"
    shown = [item["views"][0]["photo"] for item in explained["items"]]
    assert shown == [side["view"]["photo"] for side in compared["items"][0]["sides"]] == heard["items"][0]["photos"]
    assert len(set(shown)) == 2
    assert all(shown)
    (tmp_path / "p" / "ann").rename(tmp_path / "p" / "other")
    shutil.copytree(tmp_path / "p" / "bo", tmp_path / "p" / "ann")
    assert main(["report", *folders, "--photos", str(tmp_path / "p"), "--out", str(out), *OWN]) == 0
    explained, compared, heard = made(out)["sections"]
    assert [item["views"][0]["photo"] is None for item in explained["items"]] == [True, False]
    assert compared["items"][0]["sides"][1]["view"]["photo"] is None
    assert heard["items"][0]["photos"] == []
    for section in (explained, compared, heard):
        assert "ann/3.png: the photo of this name in --photos is another one" in section["note"]


def test_a_run_keeps_to_its_own_photos_too(runs, photos, tmp_path):
    shutil.copytree(runs / "people", tmp_path / "photos")
    ann, bo = (tmp_path / "photos" / name / f"{name}3.png" for name in ("ann", "bo"))
    ann.write_bytes(bo.read_bytes())
    command = ["report", str(runs / "evaluate"), "--photos", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    assert main([*command, *OWN]) == 0
    explained = next(section for section in made(tmp_path / "out")["sections"] if section["kind"] == "classes")
    shown = {item["name"].split(" ")[0]: item["views"][0]["photo"] for item in explained["items"]}
    assert [name for name, photo in shown.items() if photo is None] == ["ann/ann3.png"]
    assert "ann/ann3.png: the photo of this name in --photos is another one" in explained["note"]


def test_photos_that_are_missing_are_named(runs, photos, tmp_path):
    command = ["report", str(runs / "explain"), "--photos", str(photos), "--out", str(tmp_path / "out"), *OWN]
    assert main(command) == 0
    (section,) = made(tmp_path / "out")["sections"]
    for k in range(3):
        assert f"ann{k}.png: no such photo in --photos" in section["note"]


def test_the_order_of_folders_decides_nothing(runs, tmp_path, capsys):
    other, strange = tmp_path / "other", tmp_path / "strange"
    found = json.loads((runs / "verify" / "verify.json").read_text())
    for folder, change in ((other, {"threshold": 0.5}), (strange, {"threshold": 0.7, "fingerprint": "0" * 16})):
        shutil.copytree(runs / "verify", folder)
        (folder / "verify.json").write_text(json.dumps(found | change))
    explain, verify, out = str(runs / "explain"), str(runs / "verify"), ["--out", str(tmp_path / "out")]
    for folders in ([verify, str(strange)], [str(strange), verify], [str(runs / "audit"), verify, str(strange)]):
        assert main(["report", *folders, explain, *out]) == 0
        assert made(tmp_path / "out")["threshold"]["values"] == [found["threshold"]]
        assert len(made(tmp_path / "out")["decisions"]) == 3
    capsys.readouterr()
    for folders in ([verify, str(other)], [str(other), verify]):
        assert main(["report", *folders, explain, *out]) == 2
        assert "several thresholds for one network" in capsys.readouterr().err
    assert main(["report", verify, str(other), *out, *OWN]) == 0  # nothing to decide
    assert made(tmp_path / "out")["threshold"] is None


def test_the_default_network_is_guessed_only_where_it_is_the_only_one(zoo_installed, runs, tmp_path):
    strange, default = tmp_path / "strange", zoo.by_name("dlib-resnet29")
    shutil.copytree(runs / "verify", strange)
    found = json.loads((strange / "verify.json").read_text())
    (strange / "verify.json").write_text(json.dumps(found | {"fingerprint": default.fingerprint}))
    assert main(["report", str(strange), "--out", str(tmp_path / "out")]) == 0
    assert made(tmp_path / "out")["networks"][0]["parameters"] > 1e6
    assert main(["report", str(runs / "explain"), str(strange), "--out", str(tmp_path / "out")]) == 0
    record = made(tmp_path / "out")
    assert [network["parameters"] for network in record["networks"]] == [None, None]
    assert record["threshold"] is None


def test_what_is_asked_about_is_no_decision(photos, tmp_path):
    probe = str(photos / "ann" / "ann3.png")
    command = ["explain", probe, "--gallery", str(photos), "--target", "di", "--out", str(tmp_path / "run"), *OWN]
    assert main(command) == 0
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "out"), *OWN]) == 0
    (item,) = made(tmp_path / "out")["sections"][0]["items"]
    assert (item["asked"], item["nearest"], item["decision"]) == ("di", "ann", None)


def test_parts_are_counted_and_failures_named(runs, photos, tmp_path):
    copy = tmp_path / "explain"
    shutil.copytree(runs / "explain", copy)
    record = json.loads((copy / "explanations.json").read_text())
    record["failed"] = [{"image": "z.png", "error": "no face found"}]
    (copy / "explanations.json").write_text(json.dumps(record))
    assert main(["report", str(copy), "--items", "1", "--out", str(tmp_path / "out"), *OWN]) == 0
    (section,) = made(tmp_path / "out")["sections"]
    assert (len(section["items"]), section["of"]) == (1, 3)
    assert "z.png: no face found" in section["note"]


def test_folders_of_one_name_all_stand_in_the_report(runs, tmp_path):
    for parent in "abc":
        shutil.copytree(runs / "explain", tmp_path / parent / "run")
    folders = [str(tmp_path / parent / "run") for parent in "abc"]
    assert main(["report", *folders, "--out", str(tmp_path / "out"), *OWN]) == 0
    headings = [section["heading"] for section in made(tmp_path / "out")["sections"]]
    assert len(set(headings)) == 3


def test_photos_of_another_cut_are_not_laid_under_a_map(runs, photos, tmp_path):
    copy = tmp_path / "explain"
    shutil.copytree(runs / "explain", copy)
    record = json.loads((copy / "explanations.json").read_text())
    record["explained"][0]["aligned"] = [[0.5, 0, 3], [0, 0.5, 2]]
    (copy / "explanations.json").write_text(json.dumps(record))
    command = ["report", str(copy), "--photos", str(photos / "ann"), "--out", str(tmp_path / "out"), *OWN]
    assert main(command) == 0
    shown = [item["views"][0]["photo"] for item in made(tmp_path / "out")["sections"][0]["items"]]
    assert shown[0] is None
    assert all(shown[1:])
