"""The doctor finds what was planted, and nothing in a healthy network."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import DepthwiseHead, FlatNet, GapNet, NormHead, TokenNet, UnitNet, shaken
from red_faces import RIGHT, Reds, people
from torch import nn

from facexai import FaceModel, InputSpec, doctor
from facexai.input_spec import PRESETS

SPEC = InputSpec(112, mean=0.5, std=0.5)


def healthy(net=None, spec=SPEC, **options):
    return FaceModel(shaken(FlatNet()) if net is None else net, spec, **options)


def bad(diagnosis):
    return [finding.name for finding in diagnosis.findings if finding.verdict == "bad"]


@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_a_healthy_network_has_nothing(flip):
    found = doctor(healthy(flip=flip))
    assert found.ok, str(found)
    assert "an embedding of 32 numbers (float32)" in found["output"].found
    assert "raw embeddings" in found["length"].found
    assert "folds from 'layer4', 7x7 cells of 16 channels, into 32 numbers" in found["head"].found
    assert "layer='auto' is 'layer4'" in found["layers"].found
    assert found.layers["layer3"] == (16, 7, 7)
    assert found["input"].verdict == "note"
    assert "labelled faces" in found["input"].advice
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True
    assert "<pre>" in found._repr_html_()


def test_it_leaves_the_network_alone():
    net = shaken(FlatNet())
    net.layer4.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    rng = torch.get_rng_state()
    found = doctor(healthy(net))
    assert "train mode" in found["mode"].found
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.layer4.conv1.training
    assert not net.layer3.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_every_kind_of_network():
    found = doctor(healthy(shaken(UnitNet()), "adaface", take=0))
    assert "normalises its embedding to length 1 itself" in found["length"].found
    assert "then divided by its length" in found["head"].found
    assert "element 0 of what the network returns" in found["output"].found
    assert "10 class logits" in doctor(healthy(shaken(GapNet()), output="logits"))["output"].found
    assert "14x14 cells of 8 channels" in doctor(healthy(shaken(TokenNet())))["head"].found
    assert "7x6 cells" in doctor(healthy(shaken(DepthwiseHead()), "mobilefacenet"))["head"].found
    assert "LayerNorm" in doctor(healthy(NormHead().eval()))["head"].found
    assert doctor(healthy().gallery({"a": torch.randn(32)})).ok


class Sick(FlatNet):
    """A healthy network but for what is done to its embedding."""

    def __init__(self, do):
        super().__init__()
        self.do = do

    def forward(self, x):
        return self.do(self, super().forward(x))


PLANTED = {
    "random": (lambda net, e: nn.functional.dropout(e, 0.5), "repeatable", "random"),
    "pooled over the batch": (lambda net, e: e - e.mean(0), "batch", "depends on the others"),
    "rescaled by the batch": (lambda net, e: e / e.std(), "batch", "depends on the others"),
    "constant": (lambda net, e: torch.ones_like(e) + 1e-9 * e, "varies", "weights are not loaded"),
    "probabilities": (lambda net, e: e.softmax(1), "output", "before the softmax"),
    "detached": (lambda net, e: e.detach(), "gradient", "gradient methods do not work"),
    "NaN": (lambda net, e: e / (e[:1].abs().sum() > 1e9), "runs", "see the error"),
    "NaN on black": (lambda net, e: e * (0 / net.dark) if net.black else e, "finite", "precision"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_it_finds_what_was_planted(name):
    do, where, advice = PLANTED[name]
    net = shaken(Sick(do))
    net.black, net.dark = False, torch.zeros(())
    if name == "NaN on black":
        net.register_forward_pre_hook(lambda net, args: setattr(net, "black", bool((args[0][:1] == -1).all())))
    found = doctor(healthy(net))
    assert where in bad(found), str(found)
    assert advice in found[where].advice
    assert not found.ok


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_healthy(dtype):
    found = doctor(healthy(shaken(FlatNet()).to(dtype)))
    assert found.ok, str(found)


def test_a_second_pass_that_fails_is_a_finding():
    net, calls = shaken(FlatNet()), []

    def tired(*_):
        calls.append(1)
        if len(calls) == 5:  # two passes look whether images mix
            raise RuntimeError("only twice")

    net.register_forward_pre_hook(tired)
    found = doctor(healthy(net))
    assert "only twice" in found["repeatable"].found
    assert not found.ok


def test_batch_statistics_are_found():
    class Head(FlatNet):
        def __init__(self):
            super().__init__()
            self.features = nn.BatchNorm1d(32, track_running_stats=False)

    class Map(FlatNet):
        def __init__(self):
            super().__init__()
            self.layer4.bn1 = nn.BatchNorm2d(16, track_running_stats=False)

    found = doctor(healthy(Map()))
    assert bad(found) == ["batch"]
    assert "one at a time" in found["batch"].advice
    assert "images one at a time" in found.model
    found = doctor(healthy(Head()))  # one image alone has no statistics
    assert bad(found) == ["runs"]
    assert "depends on the others in its batch" in found["runs"].found


def test_a_quantised_network_has_no_gradient():
    with warnings.catch_warnings():  # torch deprecates its own quantisation, in several words
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(shaken(FlatNet()), {nn.Linear}, dtype=torch.qint8)
        found = doctor(healthy(net))
    assert "gradient" in bad(found), str(found)
    assert found["repeatable"].verdict == "good"


def test_a_network_of_another_size_is_one_finding():
    found = doctor(healthy(spec=InputSpec(96)))
    assert bad(found) == ["runs"]
    assert "does the spec fit" in found["runs"].found
    assert str(found).count("\n") == 2


def test_functions_and_script_modules_are_described_not_blamed():
    net = shaken(GapNet(functional=True))
    found = doctor(FaceModel.from_callable(lambda x: net(torch.from_numpy(x)).detach().numpy(), SPEC, name="r50"))
    assert found.ok, str(found)
    assert "is a function" in found["head"].found
    assert found["gradient"].verdict == "note"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(net, torch.rand(1, 3, 112, 112))
    found = doctor(healthy(scripted))
    assert found.ok, str(found)
    assert "ScriptModule" in found["layers"].found
    assert found["gradient"].verdict == "good"


def test_the_right_input_is_confirmed():
    found = doctor(FaceModel(Reds(), RIGHT), people())
    assert found["input"].verdict == "good", str(found)
    assert found.variants[0].separation >= found.variants[-1].separation
    assert "no other way separates clearly better" in found["input"].found
    assert "input variants, best first" in str(found)


@pytest.mark.parametrize("count", [2, 5, 9])
def test_few_people_are_no_reason_to_judge(count):
    found = doctor(FaceModel(Reds(), replace(RIGHT, channels="BGR")), people(count))
    assert found["input"].verdict == "note"
    assert "at least 10 are needed" in found["input"].found
    assert len(found.variants) == 14


def test_noise_is_not_called_wrong():
    """Nothing to find: faces without identity, a network that knows nobody."""
    torch.manual_seed(0)
    for _ in range(3):
        faces = {f"p{k}": torch.rand(3, 3, 16, 16) for k in range(12)}
        assert doctor(FaceModel(Reds(), RIGHT), faces)["input"].verdict != "bad"


@pytest.mark.parametrize("wrong", [replace(RIGHT, channels="BGR"), replace(RIGHT, range=255.0, mean=0.0, std=1.0)])
def test_the_wrong_input_is_found(wrong):
    found = doctor(FaceModel(Reds(), wrong), people())
    assert bad(found)[-1] == "input", str(found)
    assert repr(RIGHT) in found["input"].advice
    assert found.variants[0].spec == RIGHT
    assert found.variants[0].behind == (0.0, 0.0)


def test_pairs_say_the_same_as_people():
    faces = people()
    first = torch.cat([f[0:1] for f in faces.values()] * 2)
    second = torch.cat([f[1:2] for f in faces.values()] + [f[2:3] for f in reversed(faces.values())])
    same = torch.tensor([True] * 12 + [False] * 12)
    assert doctor(FaceModel(Reds(), RIGHT), (first, second, same))["input"].verdict == "good"
    found = doctor(FaceModel(Reds(), replace(RIGHT, channels="BGR")), (first, second, same))
    assert found.variants[0].spec.channels == "RGB"
    assert found["input"].verdict == "bad"


def test_separation_and_auc_are_what_they_say():
    faces = people(5, 3)
    variant = next(v for v in doctor(FaceModel(Reds(), RIGHT), faces).variants if v.spec == RIGHT)
    unit = FaceModel(Reds(), RIGHT).embed(torch.cat(list(faces.values()))).double()
    genuine, impostor = [], []
    for i in range(15):
        for j in range(i + 1, 15):
            (genuine if i // 3 == j // 3 else impostor).append(float(unit[i] @ unit[j]))
    spread = ((np.var(genuine) + np.var(impostor)) / 2) ** 0.5
    assert variant.separation == pytest.approx((np.mean(genuine) - np.mean(impostor)) / spread, rel=1e-5)
    wins = [1.0 if g > i else 0.5 if g == i else 0.0 for g in genuine for i in impostor]
    assert variant.auc == pytest.approx(np.mean(wins), rel=1e-9)


def test_a_function_that_takes_photos_varies_the_channel_order_only():
    def function(x):
        return Reds()(torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1).numpy()

    model = FaceModel.from_callable(function, InputSpec(16), space="bgr_uint8")
    found = doctor(model, people())
    assert len(found.variants) == 2
    assert "BGR" in found["input"].found
    assert found["input"].verdict == "bad"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ((torch.rand(2, 3, 16, 16),), "a tuple of 1"),
        ((torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.tensor([True])), "different lengths"),
        ((torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16), torch.ones(2)), "both kinds"),
        ({"a": torch.rand(2, 3, 16, 16)}, "two people"),
        ({"a": torch.rand(1, 3, 16, 16), "b": torch.rand(1, 3, 16, 16)}, "two photos of one"),
        ({}, "labelled pairs"),
        ([1, 2], "labelled pairs"),
    ],
)
def test_bad_pairs_get_one_clear_error(pairs, message):
    with pytest.raises(ValueError, match=message):
        doctor(FaceModel(Reds(), RIGHT), pairs)


def test_a_bare_network_is_told_what_to_do():
    with pytest.raises(TypeError, match=r"FaceModel\(net, spec\)"):
        doctor(FlatNet())


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [{"channels": "BGR"}, {"mean": 0.0, "std": 1.0, "range": 1.0}, {"mean": 0.0, "std": 1.0, "range": 255.0}],
)
def test_the_wrong_input_of_a_real_network_is_found(dlib_model, lfw, crops, wrong):
    faces = {name: crops(photos[:3], "dlib") for name, photos in list(lfw.items())[:20]}
    model = FaceModel(dlib_model.net, replace(dlib_model.spec, **wrong), center=dlib_model.center)
    found = doctor(model, faces)
    assert "input" in bad(found), str(found)
    assert found.variants[0].spec == dlib_model.spec


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "preset", "people", "photos"),
    [
        *(("mobileface", preset, 12, 3) for preset in ("insightface", "adaface", "magface", "facex-zoo", "dlib")),
        ("facenet", "magface", 20, 3),
        ("facenet", "adaface", 42, 4),  # it hardly minds the order of the channels: twenty people do not show it
    ],
)
def test_another_code_bases_preset_is_found(request, lfw, crops, network, preset, people, photos):
    """FaceNet's own differs from insightface's by less than a grey level, so that one is right for it."""
    right = request.getfixturevalue({"facenet": "facenet_model"}.get(network, network))
    faces = {name: crops(files[:photos], network) for name, files in list(lfw.items())[:people]}
    given = {key: getattr(PRESETS[preset], key) for key in ("channels", "mean", "std", "range")}
    found = doctor(FaceModel(right.net, replace(right.spec, **given), center=right.center), faces)
    assert "input" in bad(found), str(found)
    best, noise = found.variants[0].spec, torch.rand(1, 3, *right.spec.height_width)
    assert (best.prepare(noise) - right.spec.prepare(noise)).abs().max() < 0.02 * right.spec.prepare(noise).std()


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dlib", "mobileface", "facenet"])
def test_real_networks_are_healthy(request, lfw, crops, network):
    model = request.getfixturevalue({"dlib": "dlib_model", "facenet": "facenet_model"}.get(network, network))
    faces = {name: crops(photos[:3], network) for name, photos in list(lfw.items())[:20]}
    found = doctor(model, faces)
    assert found.ok, str(found)
    assert found["input"].verdict == "good"


# ---- does it recognise anybody? -------------------------------------------------------------------------------------


class Blurred(Reds):
    """A conversion that broke: nearly the same vector whatever the face shows."""

    def forward(self, x):
        return 100 + 1e-3 * x.flatten(1)[:, :4]


class Padded(Reds):
    """A port with an error: half of what the original sees comes from another place."""

    def forward(self, x):
        red = super().forward(x)
        return torch.cat([red[:, :1], x[:, 1, :3, 0]], 1)


def test_a_network_that_recognises_nobody_is_not_ok():
    found = doctor(FaceModel(Blurred(), RIGHT), people())
    assert bad(found)[-1] == "recognition"
    assert "weights not loaded, wrongly converted, or crops are not faces" in found["recognition"].advice
    assert max(v.auc for v in found.variants) < 0.8
    assert found["varies"].verdict == "note"
    assert "hardly tells faces apart" in found["varies"].found
    assert not found.ok


def test_a_network_that_recognises_people_reaches_the_floor():
    found = doctor(FaceModel(Reds(), RIGHT), faces := people())
    assert found["recognition"].verdict == "good"
    best = found.variants[0]
    assert best.interval[0] < best.separation < best.interval[1]
    unit = FaceModel(Reds(), RIGHT).embed(torch.cat(list(faces.values())))
    smallest = float((unit @ unit.T).min())
    assert found["varies"].found == f"the smallest cosine between two of the faces is {smallest:.4f}"
    assert found["varies"].verdict == "good"


@pytest.mark.parametrize("count", [2, 9])
def test_few_people_are_not_judged_by_the_floor(count):
    names = [finding.name for finding in doctor(FaceModel(Blurred(), RIGHT), people(count)).findings]
    assert "recognition" not in names


def test_a_port_with_an_error_is_behind_its_reference():
    known, faces = FaceModel(Reds(), RIGHT), people()
    found = doctor(FaceModel(Padded(), RIGHT), faces, reference=known)
    own = next(v for v in found.variants if v.spec == RIGHT)
    original = next(v for v in doctor(known, faces).variants if v.spec == RIGHT)
    assert f"AUC {own.auc:.4f}, separation {own.separation:.2f}" in found["reference"].found
    assert f"reference {original.auc:.4f}, {original.separation:.2f}" in found["reference"].found
    assert found["reference"].verdict == "bad"
    assert "padding" in found["reference"].advice
    same = doctor(known, faces, reference=known.gallery(faces))
    assert same["reference"].verdict == "good"
    assert "+0.00 to +0.00" in same["reference"].found
    assert doctor(known, people(5), reference=known)["reference"].verdict == "note"


def test_a_reference_of_another_size_sees_resized_faces():
    large = replace(RIGHT, size=(32, 32))

    class Half(Reds):
        def forward(self, x):
            return super().forward(nn.functional.avg_pool2d(x, 2))

    found = doctor(FaceModel(Reds(), RIGHT), people(), reference=FaceModel(Half(), large))
    assert found["reference"].verdict == "good"


def test_a_reference_needs_faces_and_is_a_model():
    model = FaceModel(Reds(), RIGHT)
    with pytest.raises(ValueError, match="labelled faces; pass them"):
        doctor(model, reference=model)
    with pytest.raises(TypeError, match="expected reference as a FaceModel"):
        doctor(model, people(), reference=model.net)
