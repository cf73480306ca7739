"""The example that trains a classifier of people: as published, whatever stops it, and explained completely."""

from __future__ import annotations

import csv
import json
import sys
import types
from pathlib import Path

import numpy as np
import ownmodel
import pytest
import torch
from nets import FlatNet, UnitNet, shaken
from PIL import Image

from facexai import CAM, FaceModel, FaceXAIWarning, HeadDoesNotFold, InputSpec, images

pytestmark = pytest.mark.slow

PEOPLE, PHOTOS, EPOCHS = ("ann", "bo", "cleo", "dai, jr."), 20, 12


@pytest.fixture(scope="module")
def example():
    import finetune_classifier

    return finetune_classifier


def embedder() -> FaceModel:
    """A network of random weights whose batch norms know the statistics of coarse patterns, and with a centre."""
    torch.manual_seed(0)
    net = FlatNet().train()
    net.dropout.eval()
    net(torch.rand(64, 3, 7, 7).repeat_interleave(16, 2).repeat_interleave(16, 3) - 0.5)
    return FaceModel(net.eval(), "arcface", center=torch.linspace(-0.1, 0.1, 32))


@pytest.fixture(scope="module", autouse=True)
def toy():
    """The module that ``--model toy:make`` names."""
    module = sys.modules["toy"] = types.ModuleType("toy")
    module.make, module.wrong_size = embedder, ownmodel.wrong_size
    yield module
    del sys.modules["toy"]


def draw(folder: Path, people=PEOPLE, photos=PHOTOS) -> Path:
    """A coarse pattern of colours for each person, and noise of its own on each photo, at the toy network's size."""
    for number, name in enumerate(people):
        (folder / name).mkdir(parents=True)
        pattern = np.random.default_rng(number).uniform(50, 205, (7, 7, 3)).repeat(16, 0).repeat(16, 1)
        for photo in range(photos):
            noise = np.random.default_rng((number, photo)).normal(0, 25, pattern.shape)
            pixels = (pattern + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{photo:02}.png")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("faces") / "people")


def arguments(faces: Path, out: Path, what: str, **more: object) -> list[str]:
    options = {"model": "toy:make", "train": what, "epochs": EPOCHS, "batch-size": 8, **more}
    return [str(faces), "--out", str(out), *(str(a) for k, v in options.items() for a in (f"--{k}", v))]


@pytest.fixture(scope="module", params=["head", "all"])
def trained(example, faces, tmp_path_factory, request):
    """What undisturbed training leaves, once for each of the two ways."""
    out = tmp_path_factory.mktemp(request.param) / "deep" / "out"
    example.main(arguments(faces, out, request.param))
    return request.param, out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def held_out(faces: Path, out: Path) -> tuple[torch.Tensor, list[str]]:
    held = rows(out / "test.csv")
    return images.load([faces / row["image"] for row in held]), [row["identity"] for row in held]


def weights(out: Path) -> bytes:
    return (out / "classifier.safetensors").read_bytes()


# ---- the photos -------------------------------------------------------------------------------------------------


def test_every_person_is_in_all_three_parts_which_partition_the_photos(example):
    photos = {f"p{n}": [Path(f"p{n}/{k}.jpg") for k in range(n)] for n in range(3, 45)}
    parts = example.split(photos, seed=1)
    assert list(parts) == ["train", "validation", "test"]
    split = [pair for pairs in parts.values() for pair in pairs]
    assert sorted(split) == sorted((path, name) for name, paths in photos.items() for path in paths)
    for name, paths in photos.items():
        counts = [sum(name == other for _, other in pairs) for pairs in parts.values()]
        assert counts[1] == counts[2] == max(1, round(len(paths) / 10))
    assert sum(map(len, photos.values())) * 0.78 < len(parts["train"]) < sum(map(len, photos.values())) * 0.82


def test_a_split_depends_on_the_seed_and_not_on_the_order_or_on_who_else_is_there(example):
    photos = {name: [Path(f"{name}/{k}.jpg") for k in range(20)] for name in "ab"}
    parts = example.split(photos, seed=0)
    assert parts == example.split({"b": photos["b"][::-1], "a": photos["a"]}, seed=0)
    assert [pair for pair in parts["test"] if pair[1] == "b"] == example.split({"b": photos["b"]}, seed=0)["test"]
    assert parts != example.split(photos, seed=1)
    with pytest.raises(ValueError, match="'c' has 2 photos"):
        example.split({**photos, "c": photos["a"][:2]}, seed=0)


# ---- training ---------------------------------------------------------------------------------------------------


def test_it_learns_and_says_how_well(trained, faces):
    out = trained[1]
    history = json.loads((out / "history.json").read_text())
    assert history["test"]["accuracy"] > 0.9
    assert [row["epoch"] for row in history["epochs"]] == list(range(1, EPOCHS + 1))
    assert history["epochs"][-1]["train"]["loss"] < history["epochs"][0]["train"]["loss"]
    assert set(history["epochs"][0]["validation"]) == {"loss", "accuracy"}
    parts = {part: rows(out / f"{part}.csv") for part in ("train", "validation", "test")}
    listed = sorted(row["image"] for part in parts.values() for row in part)
    assert listed == sorted(path.relative_to(faces).as_posix() for path in faces.glob("*/*.png"))
    assert all({row["identity"] for row in part} == set(PEOPLE) for part in parts.values())
    assert all(str(faces) not in path.read_text() for path in out.glob("*.*") if path.suffix in (".json", ".csv"))
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == EPOCHS
    assert state["best"]["validation"]["accuracy"] == max(r["validation"]["accuracy"] for r in history["epochs"])


@pytest.mark.parametrize("complete", [0, 1, 10])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bits(
    example, trained, faces, tmp_path, monkeypatch, capsys, complete
):
    """Stopped after so many complete epochs, in the middle of the next; after 10 the learning rate falls."""
    what, undisturbed = trained
    passes, run = iter(range(1, 100)), example.run_epoch

    def stopped(classifier, inputs, pairs, size, optimizer=None):
        if next(passes) == 2 * complete + 2:  # an epoch is a pass to train and one to validate
            raise KeyboardInterrupt
        return run(classifier, inputs, pairs, size, optimizer)

    with monkeypatch.context() as patched:
        patched.setattr(example, "run_epoch", stopped)
        with pytest.raises(KeyboardInterrupt):
            example.main(arguments(faces, tmp_path, what))
    assert (tmp_path / "checkpoint.pt").exists() == (complete > 0)
    with pytest.raises(FileNotFoundError, match="the same command goes on"):
        example.load(tmp_path)
    torch.rand(7)  # what else drew random numbers does not matter
    capsys.readouterr()
    example.main(arguments(faces, tmp_path, what))
    assert capsys.readouterr().out.count("epoch ") == EPOCHS - complete
    assert weights(tmp_path) == weights(undisturbed)
    for name in ("history.json", "classifier.json", "test.csv"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()
    assert not list(tmp_path.glob(".*"))  # no temporary file is left behind


def test_done_is_done(example, trained, faces, capsys):
    what, out = trained
    before = weights(out)
    example.main(arguments(faces, out, what))
    assert "epoch " not in capsys.readouterr().out
    assert weights(out) == before


@pytest.mark.parametrize("what", ["head", "all"])
def test_model_and_random_state_are_left_as_they_were(example, faces, tmp_path, what):
    model = embedder()
    model.net.layer4.train()
    modes = [module.training for module in model.net.modules()]
    before = model.fingerprint
    photos, pixels = example.read(faces, model.spec, "never")
    parts = example.split(photos, 0)
    state = torch.get_rng_state()
    recipe = example.Recipe("toy:make", train=what, epochs=1)
    classifier = example.train(model, pixels, parts, tmp_path, recipe)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.fingerprint, [module.training for module in model.net.modules()]) == (before, modes)
    assert all(p.grad is None for p in model.net.parameters())
    moved = any(
        not torch.equal(own, theirs)
        for own, theirs in zip(model.net.parameters(), classifier.net.embedder.parameters(), strict=True)
    )
    assert moved == (what == "all")
    held, _ = held_out(faces, tmp_path)
    assert torch.equal(example.load(tmp_path).logits(held), classifier.logits(held))


def test_batch_norm_keeps_its_statistics_where_all_is_trained(example, faces, tmp_path):
    model = embedder()
    photos, pixels = example.read(faces, model.spec, "never")
    recipe = example.Recipe("toy:make", train="all", epochs=1)
    classifier = example.train(model, pixels, example.split(photos, 0), tmp_path, recipe)
    kept, now = dict(model.net.named_buffers()), dict(classifier.net.embedder.named_buffers())
    assert kept
    assert all(torch.equal(kept[name], now[name]) for name in kept)


# ---- what was trained -------------------------------------------------------------------------------------------


def test_the_loaded_classifier_is_right_and_its_map_is_complete(example, trained, faces):
    out = trained[1]
    classifier = example.load(out)
    held, identities = held_out(faces, out)
    logits = classifier.logits(held)
    right = [classifier.names[i] == name for i, name in zip(logits.argmax(1), identities, strict=True)]
    assert sum(right) / len(right) == json.loads((out / "history.json").read_text())["test"]["accuracy"]
    for person, name in enumerate(classifier.names):
        why = CAM(classifier)(held, targets=name)
        assert torch.allclose(why.cells.sum((1, 2)) + why.constant, logits[:, person], atol=1e-5)
    assert (why.recipe["layer"], tuple(why.cells.shape[1:])) == ("embedder.layer4", (7, 7))


def test_a_centre_is_subtracted_exactly_and_folds(example):
    torch.manual_seed(1)
    net, center, x = shaken(FlatNet()), torch.randn(32), torch.rand(3, 3, 112, 112)
    model, head = FaceModel(net, "arcface", center=center), torch.nn.Linear(32, 5)
    classifier = FaceModel(example.Classifier(net, head, center).eval(), "arcface", output="logits")
    assert torch.equal(classifier.logits(x), head(model.features(model.outputs(x))).detach())
    why = CAM(classifier)(x, 4)
    assert torch.allclose(why.cells.sum((1, 2)) + why.constant, why.scores, atol=1e-4)


def test_a_network_that_normalises_gives_logits_and_says_that_it_does_not_fold(example):
    model = FaceModel(shaken(UnitNet()), "arcface", take=0)
    classifier = example.assemble(model, ["ann", "bo"], example.Recipe())
    x = torch.rand(2, 3, 112, 112)
    assert torch.allclose(classifier.logits(x), classifier.net.head(model.embed(x)), atol=1e-6)
    with pytest.raises(HeadDoesNotFold):
        CAM(classifier)(x)


# ---- what is refused --------------------------------------------------------------------------------------------


def refused(example, options: list[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        example.main(options)
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_another_recipe_in_the_same_folder_is_refused(example, trained, faces, tmp_path):
    what, out = trained
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    said = refused(example, arguments(faces, out, what, seed=2, epochs=3))
    assert said.startswith(f"{out} was begun with another recipe (photos ")
    assert said.endswith("; epochs 12 there, 3 here; seed 0 there, 2 here): give that one again, or another --out")
    other = "all" if what == "head" else "head"
    assert f"(train {what} there, {other} here)" in refused(example, arguments(faces, out, other))
    assert "photos" in refused(example, arguments(draw(tmp_path / "others", PEOPLE[:3], 4), out, what))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_damaged_checkpoint_is_named(example, trained, faces, tmp_path):
    what, out = trained
    whole = (out / "checkpoint.pt").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"not a checkpoint"):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        said = refused(example, arguments(faces, tmp_path, what))
        assert said.startswith(f"{tmp_path / 'checkpoint.pt'} is damaged, truncated")
    torch.save({"epoch": 3}, tmp_path / "checkpoint.pt")
    assert "another program's: delete it" in refused(example, arguments(faces, tmp_path, what))


def test_another_embedder_is_refused(example, trained, toy, monkeypatch):
    what, out = trained
    torch.manual_seed(3)
    other = FaceModel(shaken(FlatNet()), "arcface")
    monkeypatch.setattr(toy, "make", lambda: other)
    if what == "head":
        with pytest.raises(ValueError, match=rf"another network now \(embedder {other.fingerprint}\)"):
            example.load(out)
    else:  # its weights are replaced, but not how it sees
        assert example.load(out).fingerprint != other.fingerprint
        monkeypatch.setattr(toy, "make", lambda: FaceModel(other.net, InputSpec(112)))
        with pytest.raises(ValueError, match="another network now"):
            example.load(out)


def test_photos_that_cannot_be_read_are_named_and_left_out(example, tmp_path, capsys):
    faces = draw(tmp_path / "faces", ("ann", "bo"), 5)
    (faces / "ann" / "04.png").write_bytes((faces / "ann" / "03.png").read_bytes()[:500])
    (faces / "bo" / "04.png").write_text("no picture")
    draw(tmp_path / "few", ("once",), 2).joinpath("once").rename(faces / "once")
    example.main(arguments(faces, tmp_path / "out", "head"))
    said = capsys.readouterr().out
    assert f"left out {faces / 'ann' / '04.png'} is damaged" in said
    assert f"left out {faces / 'bo' / '04.png'} is not a picture" in said
    assert "left out 2 photos, and people with fewer than 3 usable photos: once" in said
    assert json.loads((tmp_path / "out" / "classifier.json").read_text())["names"] == ["ann", "bo"]


def test_bad_input_is_one_sentence(example, faces, tmp_path):
    assert refused(example, arguments(tmp_path / "none", tmp_path / "o", "head")).startswith("no folder")
    alone = draw(tmp_path / "alone", ("ann",), 4)
    assert "expected two people" in refused(example, arguments(alone, tmp_path / "o", "head"))
    wrong = arguments(faces, tmp_path / "o", "head", model="toy:wrong_size", align="never")
    assert "00.png: 112x112 pixels, the network takes 96x96" in refused(example, wrong)
    assert "at least one epoch" in refused(example, arguments(faces, tmp_path / "o", "head", epochs=0))
    assert "toy:none" in refused(example, arguments(faces, tmp_path / "o", "head", model="toy:none"))
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(example, arguments(faces, tmp_path / "file", "head"))
    assert "learning rate" in refused(example, arguments(faces, tmp_path / "o", "head", lr="nan"))
    assert not (tmp_path / "o" / "classifier.json").exists()
    with pytest.raises(ValueError, match="without flip"):
        example.assemble(FaceModel(FlatNet(), "arcface", flip="sum"), ["a", "b"], example.Recipe())


# ---- real faces -------------------------------------------------------------------------------------------------


def test_eight_people_and_the_network_of_dlib(example, zoo_installed, lfw, crops, tmp_path):
    faces, out = tmp_path / "faces", tmp_path / "out"
    for name, photos in list(lfw.items())[:8]:
        (faces / name).mkdir(parents=True)
        for path, face in zip(photos, crops(photos, "dlib"), strict=True):
            images.save(face, faces / name / f"{path.stem}.png")
    example.main([str(faces), "--out", str(out), "--align", "never"])
    report = json.loads((out / "history.json").read_text())
    assert report["test"]["accuracy"] > 0.9
    assert len(report["epochs"]) == 20
    classifier = example.load(out)
    held, _ = held_out(faces, out)
    with pytest.warns(FaceXAIWarning, match="cells"):
        why = CAM(classifier)(held[:4])
    assert why.recipe["layer"] == "embedder.stage5"
    assert torch.allclose(why.cells.sum((1, 2)) + why.constant, classifier.logits(held[:4]).amax(1), atol=1e-5)
