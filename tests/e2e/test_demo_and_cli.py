"""The commands as a user runs them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from facexai import FaceModel, images, load
from facexai.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(demonstration):
    return demonstration


def test_the_demo_draws_what_it_says(demo):
    out, printed, numbers = demo
    assert sorted(p.name for p in out.iterdir()) == [
        "1_portraits.png",
        "2_blend.png",
        "3_slide.png",
        "4_known_truth.png",
        "5_pairs.png",
        "6_frequencies.png",
        "7_counterfactuals.png",
        "demo.json",
    ]
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 500
    for sentence in numbers["sentences"]:
        assert sentence in printed
    assert "they evaluate nothing" in numbers["sentences"][-1]


def test_the_blend_passes_as_both_and_the_portraits_do_not(demo):
    numbers = demo[2]
    assert 0.6 < numbers["distance_between_the_two"] < 0.8
    assert all(0.3 < d < 0.6 for d in numbers["blend"].values())
    first, second = numbers["people"]
    slide = numbers["slide"]
    assert (slide[0][first], slide[-1][second]) == (0, 0)
    assert slide[20] == {"share_of_second": 0.5, **numbers["blend"]}
    for person, copies in numbers["changed_copies"].items():
        other = second if person == first else first
        assert all(d[person] < 0.3 and d[other] > 0.6 for d in copies.values())


def test_the_maps_point_at_pasted_eyes_where_the_network_sees_them(demo):
    """Truth by construction: where pasting moves the descriptor towards the donor, SDD finds the pasted region."""
    numbers = demo[2]
    area = numbers["eye_region_share_of_picture"]
    moved = [r for r in numbers["pasted_eyes"] if r["distance"][r["eyes_of"]] < r["distance_before"][r["eyes_of"]]]
    assert moved
    for row in moved:
        for shares in row["share_inside"].values():
            inside, without = shares[f"towards {row['eyes_of']}"], shares["same map without the paste"]
            assert inside > max(area, without)


def test_the_pages_tell_the_demos_numbers(demo):
    numbers, readme = demo[2], " ".join((ROOT / "README.md").read_text().split())
    start = " ".join((ROOT / "docs" / "start.md").read_text().split())
    first, second = numbers["blend"].values()
    assert f"(distance {numbers['distance_between_the_two']:.2f}, decision threshold 0.6)" in readme
    assert f"({first:.2f} and {second:.2f})" in readme
    collins, hopper = numbers["pasted_eyes"]
    for row in (collins, hopper):
        hires = row["share_inside"]["HiResCAM"]
        inside, before = hires[f"towards {row['eyes_of']}"], hires["same map without the paste"]
        assert f"{100 * inside:.0f} %, {100 * before:.0f} before" in start
        assert row["share_inside"]["SDD"][f"towards {row['eyes_of']}"] > 0.99


def test_sentences_follow_the_numbers(demo):
    from facexai.demo.run import sentences_of

    numbers = json.loads(json.dumps(demo[2]))
    assert sentences_of(numbers) == numbers["sentences"]
    first, second = numbers["people"]
    numbers["blend"][second] = 0.9
    assert f"passes as {first}." in sentences_of(numbers)[1]
    numbers["blend"][first] = 0.9
    assert "neither of them" in sentences_of(numbers)[1]
    numbers["distance_between_the_two"] = 0.1
    assert "the same person" in sentences_of(numbers)[0]


def test_the_copy_is_nearer_than_the_blend_and_the_blend_than_the_other(demo):
    cosines = [row["cosine"] for row in demo[2]["pairs"]]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.8 > 0.4 > cosines[-1]


def test_compare_writes_pictures_maps_and_a_report(enrolled, tmp_path, capsys):
    first, second = str(enrolled / "who.jpg"), str(enrolled / "enrolled" / "Collins" / "a.png")
    for method, more in (
        ("fggb", ["--threshold", "0.4"]),
        ("paircam", ["--layer", "auto"]),
        ("xssab", ["--threshold=0.4"]),
    ):
        out = tmp_path / method
        assert main(["compare", first, second, "--method", method, *more, "--out", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["cosine"] > 0.8
        assert report["match"] is (None if method == "paircam" else True)
        assert sorted(os.listdir(out)) == sorted([*report["files"], "compare.json"])
        assert load(out / "compare.npz").recipe["method"] == report["recipe"]["method"]
        assert str(enrolled) not in (out / "compare.json").read_text()
    assert len(report["files"]) == 2
    assert main(["compare", first, second, "--threshold", "0.4", "--out", str(tmp_path / "fggb")]) == 0
    assert "who.jpg and a.png: cosine 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "fggb needs --threshold"),
        (["--threshold", "1.5"], "threshold from -1 to 1"),
        (["--method", "xssab"], "xssab needs --threshold"),
        (["--threshold", "0.4", "--layer", "stage2"], "--layer belongs to paircam"),
        (["--method", "paircam", "--layer", "stag2"], "stage2"),
        (["--method", "paircam", "--masks", "grid"], "--masks belongs to corrrise, not to paircam"),
    ],
)
def test_compares_mistakes_get_one_line(enrolled, tmp_path, capsys, change, message):
    photo = str(enrolled / "who.jpg")
    assert main(["compare", photo, photo, "--out", str(tmp_path / "out"), *change]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1 + told.count("note:")
    assert not (tmp_path / "out").exists()


def test_frequency_writes_pictures_values_and_a_report(enrolled, tmp_path, capsys):
    first, second = str(enrolled / "who.jpg"), str(enrolled / "enrolled" / "Collins" / "a.png")
    for mode, masked in (("hybrid", "both"), ("preview", "second")):
        out = tmp_path / mode
        asked = ["frequency", first, second, "--mode", mode, "--masked", masked, "--out", str(out)]
        assert main([*asked, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert sorted(os.listdir(out)) == sorted([*report["files"], "frequency.json"])
        heat = load(out / "frequency.npz")
        assert heat.recipe["masked"] == report["recipe"]["masked"] == masked
        assert heat.influence.shape == (1, 107)
        assert len(report["strongest_bands"]) == 5
        assert str(enrolled) not in (out / "frequency.json").read_text()
    assert main(asked) == 0
    assert "cycles per breadth of the face" in capsys.readouterr().out
    assert main(["frequency", first, second, "--width", "0", "--out", str(tmp_path / "no")]) == 2
    assert "positive width" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def audited(lfw, tmp_path_factory):
    """Six people of two groups, three photos each at the network's size, their pairs and groups."""
    folder = tmp_path_factory.mktemp("audited")
    names = list(lfw)[:6]
    for name in names:
        (folder / name).mkdir()
        for i, photo in enumerate(images.load(lfw[name][:3])):
            images.save(images.resize(photo[None, :, 46:144, 31:129], 150), folder / name / f"{i}.png")
    photos = [f"{name}/{i}.png" for name in names for i in range(3)]
    pairs = [(a, b) for k, a in enumerate(photos) for b in photos[k + 1 :]]
    rows = "".join(f"{a},{b},{int(a.split('/')[0] == b.split('/')[0])}\n" for a, b in pairs)
    (folder / "pairs.csv").write_text("first,second,same\n" + rows)
    groups = "".join(f"{p},{'ab'[names.index(p.split('/')[0]) // 3]}\n" for p in photos)
    (folder / "groups.csv").write_text("image,group\n" + groups)
    (folder / "audit.toml").write_text(
        'pairs = "pairs.csv"\ngroups = "groups.csv"\nmode = "hybrid"\nexact_bands = 4\ndraws = 99\n'
    )
    return folder


def test_audit_compares_groups(audited, zoo_installed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["audit", str(audited / "audit.toml"), "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(os.listdir(out)) == ["audit.json", "audit.png", "frequency.npz"]
    assert report["groups"] == ["a", "b"]
    assert report["identities_from"] == "folder"
    assert report["pairs_of_one_group"] == 2 * 36
    assert report["pairs_left_out"] == 81
    assert report["p_value"] is None
    assert "pairs that share people stay together" in report["reason"]
    assert report["rates"]["a"]["genuine"] == 9
    low, high = report["rates"]["a"]["accuracy_interval"]
    assert low <= report["rates"]["a"]["accuracy"] <= high
    assert load(out / "frequency.npz").influence.shape == (72, 107)
    assert str(audited) not in (out / "audit.json").read_text()


def test_an_exact_audit_permutes_people(audited, zoo_installed, tmp_path, capsys):
    config = audited / "exact.toml"
    config.write_text((audited / "audit.toml").read_text().replace('mode = "hybrid"', 'mode = "exact"\nwidth = 12'))
    assert main(["audit", str(config), "--out", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0.1 - 0.05 < report["p_value"] <= 1  # of 20 divisions two are alike
    assert report["recipe"]["permuted"].startswith("people among those with as many photos")
    assert report["people"] == {"a": 3, "b": 3}
    heat = load(tmp_path / "out" / "frequency.npz")
    spectrum = heat.influence[:36].abs().double().mean(0)
    assert report["spectra"]["a"] == pytest.approx((spectrum / spectrum.sum()).tolist(), abs=1e-6)


def test_audit_takes_a_photo_with_a_blank_identity_for_a_person_of_its_own(audited, zoo_installed, tmp_path, capsys):
    listed = [line.split(",") for line in (audited / "groups.csv").read_text().splitlines()[1:]]
    reports = []
    for kind in ("blank", "named"):
        lines = ["image,group,identity"]
        for image, group in listed:
            number = next(i for i, (name, _) in enumerate(listed) if name.split("/")[0] == image.split("/")[0])
            unknown = "  " if kind == "blank" else f"v{number}"  # sorts as the names of unknown people do
            lines.append(f"{image},{group},{image.split('/')[0] if group == 'a' else unknown}")
        (audited / f"{kind}.csv").write_text("\n".join(lines))
        config = audited / f"{kind}.toml"
        config.write_text((audited / "audit.toml").read_text().replace("groups.csv", f"{kind}.csv"))
        assert main(["audit", str(config), "--out", str(tmp_path / kind), "--json"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]
    assert reports[0]["identities_from"] == "column"
    assert reports[0]["people"] == {"a": 3, "b": 3}  # pairs of one person say whose the unknown photos are


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('pairs = "pairs.csv"', "lacks 'groups'"),
        ("pairs = ", "is no TOML file"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\nmodes = "exact"', "unknown key 'modes'"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\nseed = "one"', "expected seed as int"),
        ('pairs = "pairs.csv"\ngroups = "none.csv"', "none.csv"),
        ('pairs = "pairs.csv"\ngroups = "pairs.csv"', "pairs.csv, line 1: expected the columns image, group"),
        ('pairs = "pairs.csv"\ngroups = "other.csv"', "names none of the images"),
        ('pairs = "pairs.csv"\ngroups = "twice.csv"', "twice.csv, line 4: p/1.png is listed twice"),
        ('pairs = "pairs.csv"\ngroups = "short.csv"', "short.csv, line 3: expected 2 cells, got 1"),
        ('pairs = "pairs.csv"\ngroups = "latin.csv"', "latin.csv is not text in UTF-8"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\ndraws = 0', "draws of at least 1"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\nthreshold = "far=2"', "false accept rate"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\nface = "x"', "face one of"),
        ('pairs = "pairs.csv"\ngroups = "one.csv"', "at least two groups"),
        ('pairs = "pairs.csv"\ngroups = "groups.csv"\nmasked = "all"', "masked one of"),
    ],
)
def test_audits_mistakes_get_one_line(audited, zoo_installed, tmp_path, capsys, monkeypatch, content, message):
    """... and before any pass through the network."""
    config = audited / "wrong.toml"
    config.write_text("\ufeff" + content)
    groups = (audited / "groups.csv").read_text()
    (audited / "other.csv").write_text("image,group\nnobody.png,a\n")
    (audited / "twice.csv").write_text("Image; Group\np\\1.png;a\n\n./p/1.png;b\n")
    (audited / "short.csv").write_text("image,group\nx.png,a\ny.png\n")
    (audited / "latin.csv").write_bytes("image,group\nJosé.png,a\n".encode("latin-1"))
    (audited / "one.csv").write_text(groups.replace(",b\n", ",a\n"))
    monkeypatch.setattr(FaceModel, "outputs", None)
    assert main(["audit", str(config), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def labelled(lfw, tmp_path_factory):
    """A table of 24 pairs of 12 people."""
    folder = tmp_path_factory.mktemp("pairs")
    rows, named = [], list(lfw.items())[:12]
    for k, (_, photos) in enumerate(named):
        other = named[(k + 1) % len(named)][1]
        rows += [f"{photos[0]},{photos[1]},1", f"{photos[0]},{other[1]},0"]
    (folder / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    return folder / "pairs.csv"


def test_verify_measures_and_finds_the_threshold(labelled, zoo_installed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["verify", str(labelled), "--folds", "insightface", "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["genuine"], report["impostor"], report["images"]) == (12, 12, 24)
    assert report["auc"] > 0.95
    assert 0 < report["threshold"] < 0.9
    assert report["ten_fold"]["accuracy"] > 0.8
    assert sorted(os.listdir(out)) == ["roc.png", "scores.csv", "verify.json"]
    table = (out / "scores.csv").read_text().splitlines()
    assert table[0] == "first,second,same,cosine,accepted,near"
    assert len(table) == 25
    assert "/" not in (out / "scores.csv").read_text()
    rule = ["--rule", "accuracy", "--out", str(out)]
    assert main(["verify", str(labelled), *rule]) == 0
    assert "threshold by accuracy" in capsys.readouterr().out
    assert main(["verify", str(labelled), "--rule", "best", "--out", str(out)]) == 2
    assert "expected the rule" in capsys.readouterr().err


def test_explain_writes_pictures_maps_and_a_report(enrolled, tmp_path, capsys):
    code = main(["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(tmp_path)])
    assert code == 0
    assert "who.jpg: Collins" in capsys.readouterr().out
    report = json.loads((tmp_path / "explanations.json").read_text())
    row = report["explained"][0]
    assert (row["target"], list(row["rivals"]), row["cells"]) == ("Collins", ["Hopper"], [17, 17])
    assert row["recipe"]["method"] == "SDD(HiResCAM)"
    assert row["aligned"] is not None
    why = load(tmp_path / "who.npz")
    assert why.name(int(why.targets[0])) == "Collins"
    assert str(enrolled) not in (tmp_path / "explanations.json").read_text()
    assert sorted(os.listdir(tmp_path)) == ["explanations.json", "who.npz", "who.png"]


@pytest.mark.parametrize("method", ["cam", "hirescam", "gradcam", "gradcam++", "layercam", "scorecam", "sdd-scorecam"])
def test_every_method_and_json(enrolled, tmp_path, capsys, method):
    arguments = ["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(tmp_path)]
    assert main([*arguments, "--method", method, "--target", "Hopper", "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert printed["explained"][0]["target"] == "Hopper"
    assert ("only 2x2 cells" in captured.err) == (method == "cam")


def test_one_bad_photo_does_not_stop_the_others(enrolled, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_text("no picture")
    photos = [str(tmp_path / "bad.jpg"), str(enrolled / "who.jpg"), str(enrolled / "who.jpg")]
    out = tmp_path / "out"
    assert main(["explain", *photos, "--gallery", str(enrolled / "enrolled"), "--out", str(out)]) == 1
    assert "not a picture" in capsys.readouterr().err
    report = json.loads((out / "explanations.json").read_text())
    assert [row["files"][0] for row in report["explained"]] == ["who.png", "who-2.png"]
    assert [row["image"] for row in report["failed"]] == ["bad.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--gallery": "nowhere"}, "no folder nowhere"),
        ({"--model": "dlib-resnet"}, "did you mean 'dlib-resnet29'"),
        ({"--model": "no.such:thing"}, "no.such:thing"),
        ({"--layer": "stage9"}, "did you mean 'stage"),
        ({"--target": "Colins"}, "did you mean 'Collins'"),
        ({"--scale": "-1"}, "scale > 0"),
        ({"--keep": "3"}, "belongs to scorecam"),
        ({"--method": "corrrise", "--keep": "3"}, "--keep belongs to scorecam, not to corrrise"),
        ({"--method": "sdd-corrrise", "--layer": "stage2"}, "--layer belongs to cam, hirescam"),
        ({"--method": "cam", "--layer": "stage3"}, "HiResCAM"),
        ({"--align": "never"}, "align='auto'"),
        ({"image": "none.jpg"}, "no file none.jpg"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(enrolled, tmp_path, capsys, change, message):
    options = {"--gallery": str(enrolled / "enrolled"), "--out": str(tmp_path / "out"), **change}
    image = options.pop("image", str(enrolled / "who.jpg"))
    assert main(["explain", image, *(part for pair in options.items() for part in pair)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert "Traceback" not in "".join(error)
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_a_full_disk_and_an_interruption_end_cleanly(enrolled, tmp_path, capsys, monkeypatch):
    arguments = ["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(tmp_path)]

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(arguments) == 2
    assert "No space left" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    assert main(arguments) == 130
    assert os.listdir(tmp_path) == []


def test_an_out_that_is_a_file(enrolled, tmp_path, capsys):
    (tmp_path / "file").write_text("keep me")
    for command in (
        ["demo"],
        ["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled")],
    ):
        assert main([*command, "--out", str(tmp_path / "file")]) == 2
        assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "keep me"


def test_a_model_of_ones_own(enrolled, tmp_path, capsys):
    arguments = ["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(tmp_path)]
    code = main([*arguments, "--model", "ownmodel:make", "--method", "cam"])
    assert code == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "explanations.json").read_text())["explained"][0]["cells"] == [7, 7]


def test_models_lists_networks_and_presets(capsys):
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "dlib-resnet29" in printed
    assert "adaface          size=(112, 112), channels='BGR'" in printed


def test_doctor_says_what_it_found(enrolled, tmp_path, capsys):
    assert main(["doctor", "--model", "ownmodel:make"]) == 0
    printed = capsys.readouterr().out
    assert "folds from" in printed
    assert "not checked" in printed
    shutil.copytree(enrolled / "enrolled", tmp_path / "two")
    for person in (tmp_path / "two").iterdir():
        images.save(images.load(person / "a.png").flip(-1), person / "b.png")
    code = main(["doctor", "--faces", str(tmp_path / "two"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["ok"] else 1)
    assert len(found["variants"]) == 14
    assert next(v for v in found["variants"] if v["input"] == "RGB, (255 x - dlib mean) / 256")["AUC"] > 0.9
    main(["doctor", "--faces", str(tmp_path / "two"), "--reference", "dlib-resnet29", "--json"])
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["reference"]["verdict"] == "note"  # two people
    assert "not judged: 2 people" in findings["reference"]["found"]


def test_doctor_exits_with_one_where_something_is_bad(capsys):
    assert main(["doctor", "--model", "ownmodel:make_random"]) == 1
    assert "BAD repeatable" in capsys.readouterr().out
    assert main(["doctor", "--photos", "0"]) == 2
    assert main(["doctor", "--faces", "nowhere"]) == 2
    assert main(["doctor", "--reference", "dlib-resnet29"]) == 2
    assert "pass --faces DIR" in capsys.readouterr().err


def test_usage_errors_exit_with_two(capsys):
    for arguments in ([], ["explain"], ["demo"], ["nothing"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_every_photo_has_files_of_its_own(enrolled, tmp_path):
    photos = []
    for name in ("a.jpg", "a.png", "a-2.jpg"):
        shutil.copy(enrolled / "who.jpg", tmp_path / name)
        photos.append(str(tmp_path / name))
    out = tmp_path / "out"
    assert main(["explain", *photos, "--gallery", str(enrolled / "enrolled"), "--out", str(out)]) == 0
    report = json.loads((out / "explanations.json").read_text())
    files = [row["files"][0] for row in report["explained"]]
    assert len(set(files)) == 3
    assert set(files) <= set(os.listdir(out))


def test_odd_names_and_no_folders_in_the_report(enrolled, tmp_path):
    odd = os.fsdecode(str(tmp_path).encode() + b"/\xff<b>.jpg")
    shutil.copy(enrolled / "who.jpg", odd)
    (tmp_path / "bad.jpg").write_text("no picture")
    out = tmp_path / "out"
    arguments = ["explain", odd, str(tmp_path / "bad.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(out)]
    assert main(arguments) == 1
    text = (out / "explanations.json").read_text()
    assert str(tmp_path) not in text
    assert len(json.loads(text)["explained"]) == 1


def test_what_nobody_foresaw_is_one_line_and_code_three(enrolled, tmp_path, capsys):
    arguments = ["explain", str(enrolled / "who.jpg"), "--gallery", str(enrolled / "enrolled"), "--out", str(tmp_path)]
    assert main([*arguments, "--model", "ownmodel:wrong_size"]) == 3
    error = capsys.readouterr().err.strip().splitlines()
    assert "does the spec fit the network?" in error[-1]
    assert main([*arguments, "--model", "ownmodel:broken"]) == 2
    assert "KeyError" in capsys.readouterr().err
    assert main([*arguments, "--model", "ownmodel:torch"]) == 2


def test_a_reader_that_stops_early_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m facexai models | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
