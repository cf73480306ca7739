"""Runs over data sets: the same numbers as in memory, whoever works, whatever breaks."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import ownmodel
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facexai import CAM, FGGB, SDD, GradCAM, HiResCAM, PairCAM, evaluate, functional, images, metrics
from facexai._tensor_store import Store
from facexai.evaluate import Config, engine
from facexai.evaluate import shards as stages
from facexai.evaluate._steps import mean_of, summed
from facexai.evaluate.context import RunContext
from facexai.evaluate.engine import ahead
from facexai.evaluate.samples import examples

pytestmark = [
    pytest.mark.filterwarnings("ignore:a map of pair .* has one sign"),
    pytest.mark.filterwarnings("ignore:. rivals asked for, this classifier has"),
]
PEOPLE, EACH, ENROLLED = 4, 5, 2


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of faces, one of them broken, and a list of pairs."""
    folder = tmp_path_factory.mktemp("data")
    drawn = torch.Generator().manual_seed(0)
    for person in range(PEOPLE):
        base = torch.rand(3, 20, 20, generator=drawn)
        (folder / "faces" / f"p{person}").mkdir(parents=True)
        for k in range(EACH):
            noisy = (base + 0.6 * torch.rand(3, 20, 20, generator=drawn) - 0.3).clamp(0, 1)
            images.save(noisy, folder / "faces" / f"p{person}" / f"{k}.png")
    (folder / "faces" / "p1" / "9.png").write_bytes(b"broken")
    rows = [
        f"faces/p{a}/{i}.png,faces/p{b}/{j}.png,{int(a == b)}"
        for a in range(PEOPLE)
        for b in range(PEOPLE)
        for i, j in ((0, 1), (2, 3))
    ]
    rows.insert(3, "faces/p1/9.png,faces/p1/0.png,1")
    (folder / "pairs.csv").write_text("first,second,same\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def model():
    return ownmodel.make_small()


CLASSES = Config(
    "faces",
    explainers=({"method": "sdd", "rivals": 2, "name": "sdd"}, "hirescam", "cam"),
    metrics=("deletion", "retention", "insertion", "narrowness", "overlap"),
    enrol=ENROLLED,
    micro_batch=4,
    shard=1,
    steps=3,
)
PAIRS = Config("pairs.csv", explainers=("fggb", "corrrise"), metrics=("deletion",), limit=12, micro_batch=4, shard=1)
FEW = Config("faces", explainers=("sdd", "cam"), metrics=("deletion", "narrowness"), enrol=2, micro_batch=4, shard=1)


def whole(root, model):
    """Gallery, probes and people in memory."""
    photos = {f"p{p}": images.load([root / "faces" / f"p{p}" / f"{k}.png" for k in range(EACH)]) for p in range(PEOPLE)}
    people = model.gallery({name: faces[:ENROLLED] for name, faces in photos.items()}, scale="calibrated")
    probes = torch.cat([faces[ENROLLED:] for faces in photos.values()])
    return people, probes, [name for name in photos for _ in range(EACH - ENROLLED)]


# ---- the same numbers as in memory ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_a_run_about_people_says_what_the_metrics_say(root, model, tmp_path):
    """In double precision: a calibrated scale makes the last bits of a float32 cosine, which follow the size of the
    batch, visible in probabilities."""
    model.net.double()
    made = evaluate.run(CLASSES, tmp_path / "out", model=model, base=root)
    people, probes, names = whole(root, model)
    methods = {"sdd": SDD(HiResCAM(people), rivals=2), "hirescam": HiResCAM(people), "cam": CAM(people)}
    assert list(made.measured) == list(methods)
    items = [0, 1, 2, 3, 4, 5, *range(7, 13)]  # the seventh photo is broken
    for name, method in methods.items():
        why = method(probes)
        for metric in ("deletion", "retention"):
            own = getattr(metrics, metric)(people, probes, why, items=items, identities=names)
            found = made.measured[name][metric]
            for kind, one in {"own": own, **own.controls}.items():
                other = found if kind == "own" else found.controls[kind]
                np.testing.assert_allclose(other.values, one.values, atol=1e-6, err_msg=f"{name}, {metric}, {kind}")
            assert found.interval == pytest.approx(own.interval, abs=1e-6)
            assert list(found.probability.items) == items
        curve = metrics.insertion(people, probes, why, 3, items=items, identities=names)
        found = made.measured[name]["insertion"]
        np.testing.assert_allclose(found.values, curve.values, atol=1e-4)
        np.testing.assert_allclose(found.controls["random"].values, curve.controls["random"].values, atol=1e-4)
        narrow = metrics.narrowness(why)
        assert made.measured[name]["narrowness"].half_mass.mean == pytest.approx(narrow.half_mass.mean)
        torch.testing.assert_close(made.mean_maps[name], metrics.mean_map(why.maps).float(), atol=1e-5, rtol=0)
    overlap = metrics.class_overlap(methods["sdd"](probes))
    assert made.measured["sdd"]["overlap"].after.mean == pytest.approx(overlap.after.mean)
    assert "overlap" not in made.measured["cam"]
    assert made.report["classifier"]["scale"] == pytest.approx(people.scale)
    predicted = people.logits(probes).argmax(1).tolist()
    right = np.mean([people.names[t] == name for t, name in zip(predicted, names, strict=True)])
    assert made.report["classifier"]["identified"] == pytest.approx(right)


@pytest.mark.filterwarnings("ignore:the left-out photos")
@pytest.mark.parametrize("ties", ["fields", "signed"])
def test_a_run_breaks_ties_as_the_metrics_do(root, model, tmp_path, ties, monkeypatch):
    """Maps after a ReLU, nine tenths of whose cells are 0; the area is larger than what is positive."""
    published = functional.gradcam

    def sparse(activations, gradients):
        maps = published(activations, gradients)
        return maps - maps.flatten(1).quantile(0.9, dim=1)[:, None, None]

    monkeypatch.setattr(functional, "gradcam", sparse)
    model.net.double()
    asked = ("deletion", "retention", "insertion", "deletion-curve")
    config = Config(
        "faces",
        explainers=("gradcam", "cam"),
        metrics=asked,
        enrol=ENROLLED,
        area=0.7,
        steps=3,
        micro_batch=4,
        ties=ties,
    )
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    people, probes, names = whole(root, model)
    options = {"items": [0, 1, 2, 3, 4, 5, *range(7, 13)], "identities": names, "ties": ties}
    for name, method in {"gradcam": GradCAM(people), "cam": CAM(people)}.items():
        why = method(probes)
        own = {metric: getattr(metrics, metric)(people, probes, why, 0.7, **options) for metric in asked[:2]}
        own["insertion"] = metrics.insertion(people, probes, why, 3, **options)
        own["deletion-curve"] = metrics.deletion_curve(people, probes, why, 3, **options)
        for metric, result in own.items():
            found = made.measured[name][metric]
            assert found.recipe["ties"] == result.recipe["ties"] == (ties if name == "gradcam" else "fields")
            for kind, one in {"own": result, **result.controls}.items():
                other = found if kind == "own" else found.controls[kind]
                np.testing.assert_allclose(other.values, one.values, atol=1e-6, err_msg=f"{name}, {metric}, {kind}")
                np.testing.assert_allclose(other.ties.values, one.ties.values, atol=1e-12)
    tied = made.measured["gradcam"]["deletion"].ties.share.mean
    assert (tied > 0.05) is (ties == "fields")
    assert made.report["details"]["gradcam"]["deletion"][0]["tied"] == tied
    assert made.table.rows[0]["tied"] == tied
    shown = examples(tmp_path / "out", 12).measured
    assert [one.recipe["ties"] for one in shown] == [ties] * 4
    assert shown[0].ties.share.mean == pytest.approx(tied)
    assert sorted(shown[0].probability.values) == sorted(made.measured["gradcam"]["deletion"].probability.values)


@pytest.mark.parametrize("part", ["similar", "auto"])
@pytest.mark.parametrize("perturb", ["fame", "epfl-inferred"])
def test_a_run_about_pairs_says_what_the_metrics_say(root, model, tmp_path, part, perturb):
    config = Config("pairs.csv", explainers=("fggb", "paircam"), micro_batch=4, shard=1, part=part, protocol=perturb)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    listed = metrics.read_pairs(root / "pairs.csv")
    good = [p for p in range(len(listed)) if p != 3]
    index, same = listed.index[good], listed.same[good]
    faces = {i: images.load(listed.images[i]) for i in set(index.flatten().tolist())}
    first, second = (torch.cat([faces[i] for i in index[:, side].tolist()]) for side in (0, 1))
    names, others = ([f"faces/{listed.images[i].parent.name}" for i in index[:, s].tolist()] for s in (0, 1))
    limit = made.report["decision"]["threshold"]
    methods = {"fggb": FGGB(model, limit), "paircam": PairCAM(model, threshold=limit)}
    options = {"identities": names, "partners": others, "items": good}
    for name, method in methods.items():
        maps = method(first, second)
        for metric in ("deletion", "insertion"):
            asked = getattr(metrics, f"verification_{metric}")
            own = asked(model, first, second, maps, same, perturb, part, **options)
            found = made.measured[name][metric]
            assert own.recipe["accepted from"] == pytest.approx(limit)
            for kind, one in {"own": own, **own.controls}.items():
                other = found if kind == "own" else found.controls[kind]
                np.testing.assert_allclose(other.cosines, one.cosines, atol=2e-5, err_msg=f"{name}, {metric}, {kind}")
                np.testing.assert_array_equal(other.correct, one.correct)
            assert found.interval == pytest.approx(own.interval, rel=1e-3)  # single draws decide by the last digits
            assert found.area.identities == own.area.identities
            assert found.area.partners == own.area.partners
            assert set(found.area.partners) <= set(others)
            assert found.p_value("centre") == pytest.approx(own.p_value("centre"), rel=0.02)
            assert found.recipe["interval"] == own.recipe["interval"]
    assert made.report["counts"]["measured"] == len(own.correct)


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_what_is_observed_once_serves_sdd_and_its_base(root, model, tmp_path, monkeypatch):
    seen, observe = [], HiResCAM.observe

    def counted(self, faces):
        seen.append(len(faces))
        return observe(self, faces)

    monkeypatch.setattr(HiResCAM, "observe", counted)
    entries = ("hirescam", {"method": "sdd", "rivals": 2}, {"method": "sdd", "rivals": 1})
    config = Config("faces", explainers=entries, metrics=("narrowness",), enrol=ENROLLED, scale=9.0)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert seen == [1, 1, 1, 12]  # tried on noise, then all at once
    assert set(made.measured) == {"hirescam", "sdd, rivals=2", "sdd, rivals=1"}
    assert made.report["counts"]["measured"] == 12


def test_a_worker_observes_every_face_once(root, model, tmp_path, monkeypatch):
    seen, observe = [], FGGB.observe

    def counted(self, faces):
        seen.append(len(faces))
        return observe(self, faces)

    monkeypatch.setattr(FGGB, "observe", counted)
    monkeypatch.setattr("facexai.evaluate.verification._MEMORY", 1)  # all but the latest go to disk
    config = Config("pairs.csv", explainers=("fggb",), metrics=("deletion",), micro_batch=4, shard=1)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert made.report["counts"]["measured"] == 32
    assert seen == [1] * (2 + 16)  # two of noise, to try the explainer
    assert not list((tmp_path / "out").glob("evidence*"))


def test_a_network_with_classes_of_its_own_needs_no_gallery(root, model, tmp_path):
    own = ownmodel.make_small()
    logits = type(own)(own.net, own.spec, output="logits", names=[f"p{k}" for k in range(12)])
    config = Config("faces", explainers=("cam",), metrics=("deletion",), micro_batch=4)
    made = evaluate.run(config, tmp_path / "out", model=logits, base=root)
    assert made.report["counts"] == {"items": 21, "enrolled": 0, "measured": 20, "unreadable": 1}
    with pytest.raises(ValueError, match="classes of its own: leave gallery out"):
        evaluate.run(Config("faces", gallery="faces"), tmp_path / "other", model=logits, base=root)


def test_photos_without_people_against_a_gallery(root, model, tmp_path):
    config = Config("faces/p0", gallery="faces", explainers=("cam",), metrics=("deletion",), scale=10.0, limit=3)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert made.report["counts"] == {"items": 3, "enrolled": 21, "measured": 3, "unreadable": 1}
    assert "gallery/p1/9.png" in (tmp_path / "out" / "unreadable.csv").read_text()
    assert made.measured["cam"]["deletion"].probability.identities is None
    assert made.measured["cam"]["deletion"].controls["other-image"] is not None
    one = evaluate.run(
        Config("faces/p0", gallery="faces", explainers=("cam",), scale=10.0, limit=1),
        tmp_path / "1",
        model=model,
        base=root,
    )
    gone = one.measured["cam"]["deletion"]
    assert gone.controls["mean-map"] is gone.controls["other-image"] is None
    assert gone.reasons.keys() == {"mean-map", "other-image"}
    (root / "listed.csv").write_text("image;identity\nfaces/p0/3.png;p0\nfaces/p2/4.png;p2\n")
    listed = Config(
        "listed.csv", gallery="faces", explainers=("cam",), metrics=("retention", "deletion-curve"), scale=10.0
    )
    made = evaluate.run(listed, tmp_path / "2", model=model, base=root)
    assert made.report["counts"]["measured"] == 2
    assert [row["map"] for row in made.table.rows] == ["cam", "centre prior"]


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="needs os.O_NOFOLLOW")
def test_timings_are_not_written_through_a_link(tmp_path):
    """They are a courtesy: the work goes on without them."""
    shards = stages.Shards(Store(tmp_path), SimpleNamespace(name="a", index=range(3)), 2, 2)
    engine.note_time(tmp_path, 1, shards, 0, 0.5)
    assert json.loads((tmp_path / "timings-1.jsonl").read_text()) == {"shard": "a-0000000", "items": 2, "seconds": 0.5}
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "timings-0.jsonl").symlink_to(tmp_path / "mine.txt")
    engine.note_time(tmp_path, 0, shards, 0, 0.5)
    assert (tmp_path / "mine.txt").read_text() == "mine"


# ---- whoever works -------------------------------------------------------------------------------------------------


def files(folder):
    """What a run says, without its timings."""
    return {
        name: (folder / name).read_bytes() for name in ("results.json", "results.txt", "items.csv", "unreadable.csv")
    }


@pytest.mark.filterwarnings("ignore:the left-out photos")
@pytest.mark.parametrize("config", [FEW, PAIRS], ids=["people", "pairs"])
def test_readers_and_shards_change_no_bit(root, model, tmp_path, config):
    from dataclasses import replace

    evaluate.run(config, tmp_path / "one", model=model, base=root, readers=1)
    expected = files(tmp_path / "one")
    for name, readers, shard in (("none", 0, 1), ("seven", 7, 1), ("large", 2, 3)):
        evaluate.run(replace(config, shard=shard), tmp_path / name, model=model, base=root, readers=readers)
        assert files(tmp_path / name) == expected, name
    shards = [len(list((tmp_path / name / "shards").iterdir())) for name in ("one", "large")]
    assert shards[0] > shards[1] > 0


def written(root, folder, config):
    """The configuration as a file, for other processes."""
    values = {"data": config.data, "model": "ownmodel:make_small"}
    values |= {"metrics": list(config.metrics), "micro_batch": 4, "shard": 1}
    values |= {"enrol": config.enrol, "limit": config.limit}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value not in ([], None)]
    named = [one if isinstance(one, str) else one["method"] for one in config.explainers]
    lines.append(f"explainers = {json.dumps(named)}")
    path = root / f"{folder}.toml"
    path.write_text("\n".join(lines))
    return path


def environment():
    import os

    return {**os.environ, "PYTHONPATH": str(Path(ownmodel.__file__).parent), "OMP_NUM_THREADS": "1"}


def one_thread(root, path, out):
    """The same run in this process."""
    evaluate.run(evaluate.read(path), out, base=root, threads=1)
    return files(out)


@pytest.mark.slow
@pytest.mark.parametrize("config", [FEW, PAIRS], ids=["people", "pairs"])
def test_torchruns_ranks_change_no_bit(root, tmp_path, config, request):
    path = written(root, request.node.callspec.id, config)
    expected = one_thread(root, path, tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "facexai", "evaluate"]
    command += [str(path), "--out", str(tmp_path / "two"), "--threads", "1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr  # torchrun would take 1, a photo is broken, for a rank that failed
    assert files(tmp_path / "two") == expected
    ranks = {path.name for path in (tmp_path / "two").glob("timings-*.jsonl")}
    assert ranks == {"timings-0.jsonl", "timings-1.jsonl"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_rays_actors_change_no_bit(root, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        for kind, config in {"people": FEW, "pairs": PAIRS}.items():
            path = written(root, f"ray-{kind}", config)
            expected = one_thread(root, path, tmp_path / f"{kind}-one")
            out = tmp_path / kind
            made = evaluate.run(evaluate.read(path), out, base=root, engine="ray", actors=2, threads=1)
            assert files(out) == expected
            assert len(list(out.glob("timings-*.jsonl"))) == 2
            assert len(made) > 0
        assert ray.is_initialized()  # it was there before
    finally:
        ray.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux")
def test_rays_processes_end_with_a_run_that_is_killed(root, tmp_path):
    pytest.importorskip("ray")
    path = written(root, "ray-killed", FEW)
    command = [sys.executable, "-m", "facexai", "evaluate", str(path), "--out", str(tmp_path / "out")]
    run = subprocess.Popen([*command, "--engine", "ray", "--threads", "1"], env=environment(), cwd=root)
    try:
        until(lambda: any("raylet" in line for line in children(run.pid).values()))
        started = children(run.pid)
    finally:
        run.kill()
        run.wait()
    until(lambda: all(command_line(pid) != line for pid, line in started.items()))
    assert (tmp_path / "out" / "lock-0.json").exists()
    evaluate.run(evaluate.read(path), tmp_path / "out", base=root, threads=1)  # the lock of a dead process is taken


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def children(parent):
    """{process: command line} of the processes that one has started."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return {int(pid): command_line(pid) for pid in listed.read_text().split()} if listed.exists() else {}


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


# ---- whatever breaks -----------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys

import facexai.cli, facexai.evaluate.run, numpy as np, ownmodel, torch
torch.set_num_threads(1)
rng, replace = np.random.default_rng(0), os.replace

def dies(source, target):
    global left
    left -= 1
    if left == 0 and where == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

for kill in range(20):  # a child each, so that everything is imported once
    left, where = (int(rng.integers(1, 3)), "before after".split()[int(rng.integers(2))]) if kill < 10 else (-1, "")
    child = os.fork()
    if child == 0:
        os.replace = dies
        os._exit(facexai.cli.main(["evaluate", sys.argv[1], "--out", sys.argv[2], "--threads", "1"]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shards = sum(name.endswith(".safetensors") for name in os.listdir(sys.argv[2] + "/shards"))
    print(code, shards, os.path.exists(sys.argv[2] + "/results.json"))
    if code != -signal.SIGKILL:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("config", [FEW, PAIRS], ids=["people", "pairs"])
def test_a_run_that_is_killed_ten_times_ends_as_if_nothing_had_happened(root, tmp_path, config, request):
    path = written(root, f"killed-{request.node.callspec.id}", config)
    expected = one_thread(root, path, tmp_path / "whole")
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), str(path), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=root, timeout=300)
    lines = [line.split() for line in done.stdout.splitlines() if line.split()[-1] in ("True", "False")]
    assert [line[0] for line in lines] == ["-9"] * 10 + ["1"], done.stdout + done.stderr
    shards = [int(line[1]) for line in lines]
    assert shards == sorted(shards)
    assert shards[0] < shards[5] < shards[-1]
    assert [line[2] for line in lines] == ["False"] * 10 + ["True"]
    assert files(tmp_path / "out") == expected
    assert not list((tmp_path / "out").rglob(".*"))


def test_a_finished_run_is_not_worked_on_again(root, model, tmp_path, monkeypatch):
    evaluate.run(PAIRS, tmp_path / "out", model=model, base=root)
    expected = files(tmp_path / "out")
    monkeypatch.setattr("facexai.evaluate.context.RunContext.face", None)  # no photo is asked for
    evaluate.run(PAIRS, tmp_path / "out", model=model, base=root)
    assert files(tmp_path / "out") == expected


def test_another_run_does_not_mix(root, model, tmp_path):
    from dataclasses import replace

    evaluate.run(PAIRS, tmp_path, model=model, base=root)
    with pytest.raises(ValueError, match=r"holds another run \(seed was 0, is 3\); choose another folder"):
        evaluate.run(replace(PAIRS, seed=3), tmp_path, model=model, base=root)
    torch.nn.init.zeros_(model.net.fc.bias)
    with pytest.raises(ValueError, match="fingerprint was"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(ValueError, match="holds shards without"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root)


def test_a_damaged_shard_is_named(root, model, tmp_path):
    evaluate.run(PAIRS, tmp_path, model=model, base=root)
    shard = tmp_path / "shards" / "maps-0000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(bytes(content))
    for later in (tmp_path / "shards").glob("measure-*"):
        later.unlink()
    with pytest.raises(ValueError, match=r"maps-0000001.safetensors is damaged .*delete it, and start again"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root)
    shard.unlink()
    evaluate.run(PAIRS, tmp_path, model=model, base=root)


@pytest.mark.parametrize(("config", "gone"), [(FEW, ["measure"]), (PAIRS, ["measure"]), (PAIRS, ["maps", "measure"])])
def test_a_photo_that_was_replaced_is_named(root, model, tmp_path, config, gone):
    """By another picture of as many bytes, while the run was interrupted."""
    base = tmp_path / "data"
    shutil.copytree(root, base)
    for photo in (base / "faces").glob("p0/*.png"):
        images.save(images.load(photo)[0], photo.with_suffix(".bmp"))
        photo.unlink()
    if config.data == PAIRS.data:
        text = (base / config.data).read_text()
        (base / config.data).write_text(re.sub(r"(p0/\d)\.png", r"\1.bmp", text))
    out = tmp_path / "out"
    evaluate.run(config, out, model=model, base=base)
    expected = files(out)
    for stage in gone:
        for shard in (out / "shards").glob(f"{stage}-*"):
            shard.unlink()
    (out / "results.json").unlink()
    photos = sorted((base / "faces").glob("p0/*.bmp"))
    before = [photo.read_bytes() for photo in photos]
    for photo, other in zip(photos, before[1:] + before[:1], strict=True):
        photo.write_bytes(other)
    with pytest.raises(ValueError, match=r"p0/\d.bmp is another picture than the one this run began with"):
        evaluate.run(config, out, model=model, base=base)
    assert not (out / "results.json").exists()
    for photo, content in zip(photos, before, strict=True):
        photo.write_bytes(content)
    evaluate.run(config, out, model=model, base=base)
    assert files(out) == expected


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from facexai.cli import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
sys.exit(main(["evaluate", sys.argv[1], "--out", sys.argv[3]]))
"""


def test_a_full_disk_is_one_clear_line_and_what_is_there_stays(root, tmp_path):
    path = written(root, "full", FEW)
    script, out = tmp_path / "limited.py", tmp_path / "out"
    script.write_text(LIMITED)
    for room, told in ((100, "cannot write into"), (4000, "cannot write maps-0000000 (File too large)")):
        command = [sys.executable, str(script), str(path), environment()["PYTHONPATH"], str(out), str(room)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=root, timeout=300)
        assert done.returncode == 2
        assert told in done.stderr.splitlines()[-1], done.stderr
        assert not [
            path for path in out.rglob("*") if path.is_file() and path.suffix not in (".json", ".safetensors", ".jsonl")
        ]
    assert "what is committed stays: make room and start the same run again" in done.stderr
    assert [p.name for p in sorted((out / "shards").iterdir())] == [
        "enrol-0000000.safetensors",
        "enrol-0000001.safetensors",
    ]
    assert one_thread(root, path, out)["results.json"]


def test_folders_that_cannot_be_written(root, model, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(OSError, match=r"cannot write into .*file/out \(Not a directory\); choose another folder"):
        evaluate.run(PAIRS, tmp_path / "file" / "out", model=model, base=root)


@pytest.mark.parametrize("config", [FEW, PAIRS], ids=["people", "pairs"])
def test_a_finished_run_on_a_disk_that_is_only_read_shows_its_results(root, model, tmp_path, monkeypatch, config):
    first = evaluate.run(config, tmp_path, model=model, base=root)
    expected = files(tmp_path)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("write_csv", "write_whole", "write_json"):
        monkeypatch.setattr(f"facexai.io.{name}", refuse)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert evaluate.run(config, tmp_path, model=model, base=root).table.rows == first.table.rows
    monkeypatch.undo()
    assert files(tmp_path) == expected
    monkeypatch.setattr("facexai.io.write_csv", refuse)
    (tmp_path / "results.json").unlink()
    with pytest.raises(OSError, match=r"Read-only file system\); what is committed stays: make the folder writable"):
        evaluate.run(config, tmp_path, model=model, base=root)


def test_a_folder_that_was_deleted_meanwhile_is_named(root, model, tmp_path, monkeypatch):
    put = Store.put

    def gone(self, key, *rest):
        if key.startswith("maps"):
            shutil.rmtree(self.folder)
        put(self, key, *rest)

    monkeypatch.setattr(Store, "put", gone)
    with pytest.raises(OSError, match=r"cannot write maps-0000000 .*: the folder .*shards is gone"):
        evaluate.run(FEW, tmp_path / "out", model=model, base=root)


def test_photos_that_vanish_between_two_stages_are_recorded(root, model, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(root / "faces", copy / "faces")
    config = Config(
        "faces", explainers=("cam",), metrics=("deletion",), enrol=ENROLLED, micro_batch=4, shard=1, scale=9.0
    )
    run = evaluate.run(config, tmp_path / "out", model=model, base=copy)
    for later in (tmp_path / "out" / "shards").glob("measure-*"):
        later.unlink()
    lost = copy / "faces" / "p0" / "3.png"
    size = lost.stat().st_size
    lost.write_bytes(b"x" * size)  # the same list of files
    again = evaluate.run(config, tmp_path / "out", model=model, base=copy)
    assert again.report["counts"]["measured"] == run.report["counts"]["measured"] - 1
    assert again.report["counts"]["unreadable"] == 2


@pytest.mark.parametrize("stage", ["maps", "measure"])
def test_a_photo_that_is_removed_is_recorded_and_the_run_ends(root, model, tmp_path, monkeypatch, stage):
    copy = tmp_path / "data"
    shutil.copytree(root / "faces", copy / "faces")
    config = Config("faces", explainers=("cam",), metrics=("deletion",), enrol=2, micro_batch=4, shard=1, scale=9.0)
    commit = stages.Shards.commit

    def removing(self, shard, parts, failed):
        if (self.stage.name, shard) == (stage, 0):
            (copy / "faces" / "p3" / "4.png").unlink()
        commit(self, shard, parts, failed)

    monkeypatch.setattr(stages.Shards, "commit", removing)
    made = evaluate.run(config, tmp_path / "out", model=model, base=copy, readers=0)
    assert made.report["counts"]["measured"] == 11
    assert "p3/4.png" in (tmp_path / "out" / "unreadable.csv").read_text()


def test_photos_that_the_network_refuses_are_recorded(root, tmp_path):
    class Refusing(torch.nn.Module):
        """NaN for one person's photos."""

        def __init__(self, net, bad):
            super().__init__()
            self.net, self.bad = net, bad

        def forward(self, x):
            found = self.net(x)
            same = torch.stack([(x - one).abs().flatten(1).amax(1) < 1e-3 for one in self.bad]).any(0)
            return torch.where(same[:, None], torch.full_like(found, torch.nan), found)

    own = ownmodel.make_small()
    bad = images.load([root / "faces" / "p2" / "4.png", root / "faces" / "p3" / "2.png"])
    model = type(own)(Refusing(own.net, bad), own.spec)
    config = Config("faces", explainers=("gradcam",), metrics=("deletion",), enrol=2, micro_batch=4, shard=1, scale=9.0)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert made.report["counts"]["measured"] == 10
    rows = (tmp_path / "out" / "unreadable.csv").read_text()
    assert 'p2/4.png,"the network returned NaN or infinity' in rows
    assert "p3/2.png" in rows
    again = evaluate.run(Config(**{**vars(config), "shard": 3}), tmp_path / "b", model=model, base=root)
    assert files(tmp_path / "out") == files(tmp_path / "b")
    assert len(again) == 10


def test_troubles_of_the_machine_stop_the_run_and_are_not_taken_for_bad_photos(root, model, tmp_path, monkeypatch):
    import errno

    from PIL import Image

    config = Config("faces", explainers=("cam",), metrics=("deletion",), enrol=2, micro_batch=4, shard=1, scale=9.0)
    with monkeypatch.context() as broken:
        failure = OSError(errno.EMFILE, "Too many open files")
        broken.setattr(Image, "open", lambda *_, **__: (_ for _ in ()).throw(failure))
        with pytest.raises(OSError, match="Too many open files"):
            evaluate.run(config, tmp_path, model=model, base=root)
    assert evaluate.run(config, tmp_path, model=model, base=root).report["counts"]["unreadable"] == 1


def test_folders_are_people_only_where_the_pairs_agree(root, model, tmp_path):
    for k, name in enumerate(("a", "b", "c", "d")):
        (tmp_path / "img").mkdir(exist_ok=True)
        shutil.copy(root / "faces" / f"p{k // 2}" / f"{k % 2}.png", tmp_path / "img" / f"{name}.png")
    (tmp_path / "flat.csv").write_text("img/a.png,img/b.png,1\nimg/c.png,img/d.png,1\nimg/a.png,img/c.png,0\n")
    made = evaluate.run(Config("flat.csv", explainers=("corrrise",)), tmp_path / "out", model=model, base=tmp_path)
    deletion = made.measured["corrrise"]["deletion"]
    assert deletion.interval is not None
    assert deletion.controls["other-pair"] is not None


def test_nobody_is_enrolled_under_no_name_and_strangers_are_no_mistakes(root, model, tmp_path):
    rows = [f"faces/p{p}/{k}.png,{name}" for p, name in ((0, "p0"), (1, "p1"), (2, "")) for k in range(4)]
    (root / "some.csv").write_text("image,identity\n" + "\n".join(rows) + "\n")
    config = Config("some.csv", explainers=("cam",), metrics=("deletion",), enrol=2, scale=9.0)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert made.report["counts"] == {"items": 8, "enrolled": 4, "measured": 8, "unreadable": 0}
    about = made.report["classifier"]
    assert about["people"] == 2
    assert about["identified of"] == 4


def test_results_say_how_they_were_made(root, model, tmp_path):
    config = Config("faces", explainers=("hirescam",), metrics=("deletion", "insertion"), enrol=2, steps=2, scale=9.0)
    made = evaluate.run(config, tmp_path / "out", model=model, base=root)
    assert made.report["explainers"]["hirescam"]["layer"] == model.layer("auto")
    assert repr(made.measured["hirescam"]["deletion"]).startswith("Drop(deletion:")
    assert made.measured["hirescam"]["deletion"].recipe["area"] == 0.2
    assert made.measured["hirescam"]["insertion"].recipe == {
        "scheme": "insertion",
        "steps": 2,
        "fill": "blur",
        "seed": 0,
        "ties": "fields",
    }
    few = Config("faces", explainers=("hirescam",), metrics=("narrowness",), enrol=2, scale=9.0)
    shape = evaluate.run(few, tmp_path / "b", model=model, base=root)
    assert "half of the mass" in shape._repr_html_() or "<img" in shape._repr_html_()
    assert shape.report["details"]["hirescam"]["narrowness"][0]["half of the mass interval"]
    assert not list((tmp_path / "b" / "shards").glob("measure*"))
    pair = evaluate.run(Config("pairs.csv", explainers=("paircam",), limit=20), tmp_path / "c", model=model, base=root)
    curve = pair.measured["paircam"]["deletion"]
    assert repr(curve).startswith("PairCurve(deletion, fame, similar:")
    assert curve.recipe["threshold"] == "eer"
    assert curve.recipe["accepted from"] == pair.report["decision"]["threshold"]
    assert pair.report["counts"]["readable"] == 19


def test_the_folder_of_the_run_is_not_inside_the_data(root, model):
    with pytest.raises(ValueError, match="lies inside the data"):
        evaluate.run(Config("faces", enrol=2), root / "faces" / "out", model=model, base=root)


def test_nothing_readable_is_an_error(model, tmp_path):
    for person in ("a", "b"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        for k in range(3):
            (tmp_path / "faces" / person / f"{k}.png").write_bytes(b"broken")
    (tmp_path / "pairs.csv").write_text("faces/a/0.png,faces/b/0.png,0\nfaces/a/0.png,faces/a/1.png,1\n")
    with pytest.raises(ValueError, match=r"no photo to enrol could be read, of 4, such as a/0.png: .*not a picture"):
        evaluate.run(Config("faces", enrol=2), tmp_path / "1", model=model, base=tmp_path)
    with pytest.raises(ValueError, match=r"no pair has two photos that could be read, such as faces/a/0\.png"):
        evaluate.run(Config("pairs.csv"), tmp_path / "2", model=model, base=tmp_path)
    people = model.gallery({"a": torch.eye(12)[0], "b": torch.eye(12)[1]})
    logits = type(model)(model.net, model.spec, output="logits")
    assert len(people) == 2
    with pytest.raises(ValueError, match="nothing could be measured: no photo could be read, such as"):
        evaluate.run(Config("faces", explainers=("cam",)), tmp_path / "3", model=logits, base=tmp_path)


def test_ranks_that_stopped_are_given_up(root, model, tmp_path, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(TimeoutError, match=r"no manifest.json in .*has the first worker stopped\?"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root, patience=0.1)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(TimeoutError, match=r"shards of other ranks are missing, none came for 0\.1 s"):
        evaluate.run(PAIRS, tmp_path, model=model, base=root, patience=0.1)


WRONG = {
    "no data": ({"data": "nowhere"}, FileNotFoundError, "no folder or file"),
    "metric": ({"metrics": ("deletio",)}, ValueError, "did you mean 'deletion'"),
    "metric twice": ({"metrics": ("deletion", "deletion")}, ValueError, "named twice"),
    "metric of pairs": ({"data": "pairs.csv", "metrics": ("retention",)}, ValueError, "no metric of pairs is called"),
    "explainer": ({"explainers": ("camm",)}, ValueError, "no explainer is called 'camm'; did you mean 'cam'"),
    "explainer of pairs": ({"data": "pairs.csv", "explainers": ("cam",)}, ValueError, "no explainer is called 'cam'"),
    "option": ({"explainers": ({"method": "cam", "colour": 1},)}, ValueError, "explainer 'cam, colour=1': .*colour"),
    "no method": ({"explainers": ({"name": "cam"},)}, ValueError, "needs its method as text"),
    "twice": ({"explainers": ("cam", "cam")}, ValueError, "two explainers are called 'cam'"),
    "factory": ({"explainers": ("nowhere:make",)}, ValueError, "cannot make 'nowhere:make': ModuleNotFoundError"),
    "baseline": ({"explainers": ("captum.Limes",)}, ValueError, "did you mean 'Lime'"),
    "enrol": ({"enrol": 20}, ValueError, "no person has more than the 20 photos"),
    "layer": ({"explainers": ({"method": "hirescam", "layer": "nope"},)}, ValueError, "no layer 'nope'"),
    "rivals": ({"explainers": ({"method": "sdd", "rivals": ("p1",)},)}, ValueError, "names rivals"),
    "overlap": ({"explainers": ("cam",), "metrics": ("overlap",)}, ValueError, "only sdd has"),
    "no photos to calibrate on": ({"enrol": 1}, ValueError, "needs somebody with two enrolled photos"),
    "negative": ({"scale": -1.0}, ValueError, "expected scale > 0"),
    "center": ({"center": "enrolled"}, ValueError, "needs at least 10 people, 4 are enrolled"),
    "idle": ({"protocol": "epfl-inferred"}, ValueError, "protocol has no effect on a data set of people"),
    "idle for pairs": ({"data": "pairs.csv", "area": 0.3}, ValueError, "area has no effect on a data set of pairs"),
    "one kind": ({"data": "pairs.csv", "limit": 2}, ValueError, "expected pairs of both kinds"),
    "option of fggb": (
        {"data": "pairs.csv", "explainers": ({"method": "fggb", "tolerance": 2.0},)},
        ValueError,
        "tolerance",
    ),
    "gallery": ({"gallery": "faces/p0"}, ValueError, r"is no gallery; expected NAME/\*.jpg"),
    "nobody": ({"data": "faces/p0"}, ValueError, "have no people to enrol; name a gallery"),
    "limit": ({"limit": 0}, ValueError, "expected limit of at least 1, got 0"),
    "area": ({"area": 1.0}, ValueError, "expected an area between 0 and 1"),
    "align": ({"align": "perhaps"}, ValueError, "expected align one of"),
    "kind": ({"seed": "none"}, ValueError, "expected seed as int, got 'none'"),
    "list": ({"metrics": "deletion"}, ValueError, r"expected metrics as tuple\[str, ...\], got 'deletion'"),
    "protocol": ({"data": "pairs.csv", "protocol": "fames"}, ValueError, "did you mean 'fame'"),
    "rule": ({"data": "pairs.csv", "threshold": "eerr"}, ValueError, "eer"),
    "fill": ({"fill": "pink"}, ValueError, "expected fill"),
    "scale": ({"scale": "good"}, ValueError, "expected scale a number or 'calibrated'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_measured_is_said_in_one_line(root, model, tmp_path, wrong):
    values, kind, message = WRONG[wrong]
    given = {"data": "faces"} | ({} if "pairs.csv" in values.values() else {"enrol": ENROLLED}) | values
    with pytest.raises(kind, match=message) as caught:
        evaluate.run(Config(**given), tmp_path / "out", model=model, base=root)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("shards/*"))  # nothing ran before it was said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data = ", "config.toml is no TOML file"),
        ("model = 'x'", "lacks 'data'; it needs at least"),
        ("data = 'x'\nexplainer = ['cam']", "unknown key 'explainer'; did you mean 'explainers'"),
        ("data = 'x'\nmetrics = [1]", "expected metrics as"),
        ("data = 3", "expected data as str, got 3"),
    ],
)
def test_mistakes_in_a_configuration_file(tmp_path, text, message):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        evaluate.read(tmp_path / "config.toml")
    with pytest.raises(FileNotFoundError, match="it needs at least"):
        evaluate.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,identity\nfaces/p0/77.png,p0\n", "1 photos are not in .*such as faces/p0/77.png"),
        ("image,identity\nfaces/p0/1.png\n", "line 2: expected 2 cells"),
        ("image,identity\nfaces/p0/1.png,p0\nfaces/p0/1.png,p0\n", "names a photo twice"),
        ("image\n", "names no photos"),
    ],
)
def test_mistakes_in_a_list_of_photos(root, model, tmp_path, text, message):
    (root / "wrong.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate.run(Config("wrong.csv", enrol=1), tmp_path, model=model, base=root)


# ---- pieces --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=9) | st.integers(1, 6))
def test_the_next_other_is_that_of_a_literal_loop(people):
    count, names = (people, None) if isinstance(people, int) else (len(people), people)
    expected = []
    for i in range(count):
        circle = [(i + step) % count for step in range(1, count)]
        expected.append(next((j for j in circle if names is None or names[j] != names[i]), None))
    assert metrics.other_identity_index(count, names) == (None if None in expected else expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.booleans())
def test_sums_of_maps_do_not_depend_on_the_split(seed, cut, flat):
    cells = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(seed)) * 10 ** (seed % 7 - 3)
    if flat:
        cells[2] = 5.0
    total, size = summed(cells, (12, 20)), (12, 20)
    assert torch.equal(total, summed(cells[:cut], size) + summed(cells[cut:], size))
    from facexai.functional import upsample

    torch.testing.assert_close(mean_of(total, 7, size), metrics.mean_map(upsample(cells, size)), atol=2e-6, rtol=0)
    assert summed(cells[:0], size).equal(torch.zeros(3, 4, dtype=torch.int64))


def test_photos_are_read_ahead_within_a_bound():
    import threading

    together = threading.Barrier(3, timeout=20)  # breaks unless three are read at once

    def read(n):
        if n < 3:
            together.wait()
        return n * n

    assert list(ahead(read, range(20), 3)) == [(n, n * n) for n in range(20)]
    asked = []
    stream = ahead(lambda n: asked.append(n), range(100), 2)
    next(stream)
    stream.close()
    assert len(asked) <= 4

    def fails(n):
        raise KeyError(n)

    with pytest.raises(KeyError):
        list(ahead(fails, range(3), 2))


@pytest.mark.filterwarnings("ignore:the left-out photos")
def test_the_command_line(root, tmp_path, capsys, monkeypatch):
    from facexai.cli import main

    monkeypatch.chdir(root)
    arguments = ["evaluate", "--data", "faces", "--enrol", "2", "--model", "ownmodel:make_small", "--explainer", "cam"]
    arguments += ["--metric", "deletion", "--micro-batch", "4", "--scale", "12", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1  # a photo is broken
    told = capsys.readouterr().out
    assert "12 of 13 photos measured, 1 photos could not be read" in told
    assert "centre prior" in told
    rows = list(csv.DictReader((tmp_path / "out" / "items.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert rows[0].keys() == {"image", "identity", "predicted", "score", "cam: deletion"}
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    drops = [float(row["cam: deletion"]) for row in rows]
    assert report["details"]["cam"]["deletion"][0]["drop"] == pytest.approx(np.mean(drops), abs=1e-3)
    assert str(root) not in (tmp_path / "out" / "results.json").read_text()
    assert (tmp_path / "out" / "results.png").stat().st_size > 5000
    assert (tmp_path / "out" / "mean_maps.png").stat().st_size > 5000
    config = tmp_path / "run.toml"
    config.write_text(
        f'data = "{root}/faces"\nenrol = 2\nexplainers = [{{method = "sdd", rivals = 2, name = "two"}}]\n'
    )
    assert tomllib.loads(config.read_text())
    assert (
        main(
            [
                "evaluate",
                str(config),
                "--model",
                "ownmodel:make_small",
                "--scale",
                "12",
                "--out",
                str(tmp_path / "b"),
                "--json",
            ]
        )
        == 1
    )
    assert [row["map"] for row in json.loads(capsys.readouterr().out)["table"]] == ["two", "centre prior"]
    assert main(["evaluate", "--out", str(tmp_path / "c")]) == 2
    assert "expected a CONFIG or --data" in capsys.readouterr().err


def test_a_photo_of_an_unknown_person_that_comes_again_is_the_same_person_again():
    """Also in pairs without names; pairs of one person say which photos show the same."""
    names, index = ["a.png", "b.png", "c.png"], np.array([(0, 1), (0, 2), (1, 2)])
    data = SimpleNamespace(names=names, index=index, same=np.array([True, False, False]))
    work = SimpleNamespace(knows_people=False, data=data)
    assert RunContext.people_of_pairs.func(work) == ["a.png", "a.png", "c.png"]
