"""Engines: the same outputs, maps and gradients from torch, another precision never mistaken for the network's own."""

from __future__ import annotations

import copy
import json
import os
import threading
import warnings
from importlib import import_module
from pathlib import Path

import old_build
import pytest
import torch
from nets import FlatNet, GapNet, UnitNet, shaken
from torch import nn

from facexai import FGGB, CorrRISE, FaceModel, FaceXAIWarning, HiResCAM, InputSpec, ScoreCAM
from facexai import images as images_
from facexai.cli import main
from facexai.models import acceleration, engines
from facexai.models.engines import Engine, engine_of

SMALL = InputSpec(32)
INSTALLED = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnxscript")}


@pytest.fixture(params=list(INSTALLED))
def engine(request):
    for package in INSTALLED[request.param]:
        pytest.importorskip(package)
    return request.param


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(4))


def has_bf16():
    openvino = pytest.importorskip("openvino")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def passes(monkeypatch):
    """The number of images of each pass that an engine ran."""
    sizes, module = [], import_module("facexai.models.accelerate")

    def convert(net, x, engine):
        run = engines.convert(net, x, engine)

        def counted(x):
            sizes.append(len(x))
            return run(x)

        return counted

    monkeypatch.setattr(module, "convert", convert)
    return sizes


@pytest.mark.parametrize("make", [FlatNet, GapNet, UnitNet])
def test_outputs_are_those_of_torch_for_every_batch_size(make, engine, images):
    model = FaceModel(shaken(make()), take=0 if make is UnitNet else None)
    done = acceleration(model, images, engine=engine)
    assert (done.engine, done.precision, done.kept) == (engine, None, engine)
    assert done.seconds[engine] > 0
    for n in (1, 2, 3, 7):
        batch = images[torch.arange(n) % 3]
        with torch.no_grad():
            torch.testing.assert_close(done.model.outputs(batch), model.outputs(batch), rtol=1e-4, atol=1e-5)
    assert f"engine='{engine}'" in repr(done.model)


def test_tuples_and_dictionaries_keep_their_form(engine, images):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = FlatNet()

        def forward(self, x):
            rows = self.net(x)
            return {"logits": rows[:, :4], "more": (rows, [2 * rows])}

    model = FaceModel(shaken(Both()), take=lambda output: output["more"][1][0])
    done = acceleration(model, images, engine=engine)
    assert done.engine == engine
    torch.testing.assert_close(done.model.embed(images), model.embed(images), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:a map of pair")
def test_what_needs_a_layer_or_a_gradient_runs_in_torch(engine, images, passes):
    model = FaceModel(shaken(FlatNet()))
    fast = acceleration(model, images, engine=engine).model
    before = copy.deepcopy(fast.net.state_dict())
    passes.clear()
    gallery = fast.gallery({"ann": images[:1], "bo": images[1:2], "cy": images[2:]})
    assert passes == [1, 1, 1]
    known = model.gallery({"ann": images[:1], "bo": images[1:2], "cy": images[2:]})
    torch.testing.assert_close(HiResCAM(gallery)(images).maps, HiResCAM(known)(images).maps, rtol=1e-4, atol=1e-5)
    pair, own = (FGGB(m, threshold=0.2)(images[:1], images[1:2]) for m in (fast, model))
    torch.testing.assert_close(pair.maps, own.maps, rtol=1e-3, atol=1e-5)
    passes.clear()
    fast.outputs(images)  # records gradients
    with torch.no_grad():
        handle = fast.net.register_forward_hook(lambda *_: None)
        fast.outputs(images)
        handle.remove()
        assert not passes
        fast.outputs(images)
    assert passes == [3]
    assert all(torch.equal(value, before[name]) for name, value in fast.net.state_dict().items())


def test_maps_that_come_from_many_passes_agree_and_use_the_engine(engine, images, passes):
    model = FaceModel(shaken(FlatNet()))
    fast = acceleration(model, images, engine=engine).model
    people = {"ann": images[:1], "bo": images[1:2], "cy": images[2:]}
    passes.clear()
    ours, theirs = (ScoreCAM(m.gallery(people))(images[:1]).maps for m in (fast, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    rise = [CorrRISE(m, count=40, seed=1)(images[:1], images[1:2]).maps for m in (fast, model)]
    torch.testing.assert_close(*rise, rtol=1e-3, atol=1e-4)
    assert sum(passes) > 40


def test_bf16_is_another_network_to_thresholds_and_evidence(images):
    if not has_bf16():
        pytest.skip("this CPU has no bfloat16 instructions")
    model = FaceModel(shaken(FlatNet()))
    single, half = (acceleration(model, images, engine="openvino", precision=p) for p in (None, "bf16"))
    assert (half.engine, half.precision, half.kept) == ("openvino", "bf16", "openvino bf16")
    assert half.model.fingerprint != single.model.fingerprint
    assert single.cosine > 1 - 1e-6
    assert 0.99 < half.cosine < 1
    assert 0 < half.score_change < 0.05
    assert "cosine at least" in str(half)
    evidence = HiResCAM(single.model.gallery({"ann": images[:1], "bo": images[1:2]})).observe(images)
    with pytest.raises(ValueError, match="this evidence is of model"):
        HiResCAM(half.model.gallery({"ann": images[:1], "bo": images[1:2]})).answer(evidence)


def test_torch_in_bf16_computes_rows_in_bf16_and_maps_in_float32(images):
    model = FaceModel(shaken(FlatNet()))
    done = acceleration(model, images, engine="torch", precision="bf16")
    assert (done.engine, done.precision) == ("torch", "bf16")
    people = {"ann": images[:1], "bo": images[1:2]}
    assert done.model.embed(images).dtype == torch.float32
    assert not torch.equal(done.model.embed(images), model.embed(images))
    torch.testing.assert_close(done.model.embed(images), model.embed(images), rtol=0, atol=0.02)
    evidence = [HiResCAM(m.gallery(people)).observe(images) for m in (done.model, model)]
    torch.testing.assert_close(evidence[0].activations, evidence[1].activations, rtol=1e-4, atol=1e-5)


def test_what_does_not_convert_runs_in_torch_and_says_so(engine, images):
    class Odd(FlatNet):
        def forward(self, x):
            return super().forward(x), "text"

    model = FaceModel(shaken(Odd()), take=0)
    with pytest.warns(FaceXAIWarning, match=f"{engine}: the network returns str beside tensors"):
        done = acceleration(model, images, engine=engine)
    assert (done.engine, done.precision) == ("torch", None)
    torch.testing.assert_close(done.model.embed(images), model.embed(images), rtol=1e-4, atol=1e-5)


def test_a_conversion_that_changes_outputs_is_not_kept(monkeypatch, images):
    module = import_module("facexai.models.accelerate")
    monkeypatch.setattr(module, "convert", lambda net, x, engine: lambda x: 1.1 * net(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = acceleration(FaceModel(shaken(FlatNet())), images, engine="auto")
    assert done.engine == "torch"
    assert all("changes outputs by 1.0e-01" in done.rejected[name] for name in INSTALLED)


def test_a_missing_package_is_named_with_its_extra(monkeypatch, images):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(engines, "import_module", missing)
    for name in INSTALLED:
        with pytest.warns(FaceXAIWarning, match=rf'{name} is not installed: pip install "facexai\[{name}\]"'):
            acceleration(FaceModel(shaken(FlatNet())), images, engine=name)


def test_unknown_choices_are_refused(images):
    model = FaceModel(shaken(FlatNet()))
    with pytest.raises(ValueError, match="expected engine 'auto', 'torch', 'openvino', 'onnxruntime', got 'tensorrt'"):
        acceleration(model, images, engine="tensorrt")
    with pytest.raises(ValueError, match="expected precision None or 'bf16', got 'int8'"):
        acceleration(model, images, precision="int8")


def test_a_copy_of_the_copy_and_a_forked_child_run_in_torch(engine, images):
    fast = acceleration(FaceModel(shaken(FlatNet())), images, engine=engine).model
    twin = FaceModel(copy.deepcopy(fast.net))
    assert engine_of(twin.net) is None
    torch.testing.assert_close(twin.embed(images), fast.embed(images), rtol=1e-4, atol=1e-5)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # the engine's threads are not in the child
        expected = fast.embed(images[:1])
        os.write(write, b"1" if expected.shape == (1, 32) else b"0")
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"1"
    os.close(read)
    os.waitpid(child, 0)


def test_threads_share_it(engine, images):
    fast = acceleration(FaceModel(shaken(FlatNet())), images, engine=engine).model
    expected, rows = fast.embed(images), [None] * 6

    def work(k):
        rows[k] = fast.embed(images)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(row, expected) for row in rows)


def test_an_engine_has_a_name():
    assert (str(Engine("openvino")), str(Engine("torch", "bf16"))) == ("openvino", "torch bf16")


def test_commands_run_on_a_verified_copy_and_record_it(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    for k, person in enumerate(("ann", "bo")):
        (tmp_path / "people" / person).mkdir(parents=True)
        images_.save(old_build.faces()[k], tmp_path / "people" / person / "0.png")
    photos = [str(tmp_path / "people" / person / "0.png") for person in ("ann", "bo")]
    (tmp_path / "pairs.csv").write_text(f"first,second,same\n{photos[0]},{photos[1]},0\n{photos[0]},{photos[0]},1\n")
    chosen = ["--model", "old_build:model", "--engine", engine, "--json"]
    commands = {
        "explain": [
            photos[0],
            str(tmp_path / "missing.png"),
            "--gallery",
            str(tmp_path / "people"),
            "--method",
            "scorecam",
        ],
        "compare": [*photos, "--method", "corrrise"],
        "frequency": photos,
        "verify": [str(tmp_path / "pairs.csv")],
    }
    for command, arguments in commands.items():
        code = main([command, *arguments, "--out", str(tmp_path / command), *chosen])
        report = json.loads(capsys.readouterr().out)
        assert code == (command == "explain"), command  # one photo is missing
        recipe = report["explained"][0]["recipe"] if command == "explain" else report.get("recipe", report)
        assert f"engine='{engine}'" in recipe["model"], command
