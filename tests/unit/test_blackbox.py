"""Functions, ScriptModules and compiled networks in the place of eager ones."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from nets import FlatNet, GapNet, UnitNet, shaken
from torch import nn

from facexai import CAM, SDD, FaceModel, FaceXAIWarning, HiResCAM, InputSpec, baselines, doctor, metrics, models

SPEC = InputSpec(64, channels="BGR", mean=0.5, std=0.5)


@pytest.fixture
def net():
    return shaken(GapNet(16))


@pytest.fixture
def faces():
    return torch.rand(4, 3, 64, 64)


def session(net):
    """What an ONNX session's run is to its users: float32 arrays in, a list of arrays out."""

    def run(x: np.ndarray) -> list[np.ndarray]:
        assert (x.dtype, x.ndim, x.shape[1]) == (np.float32, 4, 3)
        with torch.no_grad():
            return [net(torch.from_numpy(x)).numpy()]

    return run


def enrolled(model, faces):
    return model.gallery({"ann": faces[:2], "bo": faces[2:]})


def test_a_session_embeds_as_its_network_does(net, faces):
    model = FaceModel.from_callable(session(net), SPEC, take=0)
    torch.testing.assert_close(model.embed(faces), FaceModel(net, SPEC).embed(faces))
    assert "session" in repr(model)


@pytest.mark.parametrize("space", ["rgb01", "bgr01", "rgb_uint8", "bgr_uint8"])
def test_every_space(faces, space):
    """Colours, range, order and axes are what the name says; the eight-bit spaces round."""
    seen = []

    def function(x):
        seen.append(x.copy())
        return np.ones((len(x), 4), np.float32) * np.arange(4)

    FaceModel.from_callable(function, SPEC, space=space).embed(faces)
    expected = faces if space.startswith("rgb") else faces.flip(1)
    seen = seen[-1:]  # the calls before look whether images mix
    if space.endswith("uint8"):
        assert (seen[0].dtype, seen[0].shape, seen[0].flags.c_contiguous) == (np.uint8, (4, 64, 64, 3), True)
        assert np.array_equal(seen[0], (255 * expected).round().byte().permute(0, 2, 3, 1).numpy())
    else:
        assert np.array_equal(seen[0], expected.numpy())


def test_eight_bit_photos_arrive_exactly():
    """Every grey level k / 255 comes back as k."""
    levels = torch.arange(256).float().div(255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    seen = []
    model = FaceModel.from_callable(
        lambda x: seen.append(x.copy()) or x.reshape(len(x), -1).astype(np.float32), InputSpec(16), space="rgb_uint8"
    )
    model.embed(levels)
    assert np.array_equal(seen[0][0, :, :, 0].ravel(), np.arange(256))


def test_calls_are_no_larger_than_the_function_takes(faces):
    sizes = []

    def function(x):
        sizes.append(len(x))
        return {"feature": x.mean((2, 3)), "shape": [1, 2]}

    model = FaceModel.from_callable(function, InputSpec(64), batch_size=3, take="feature")
    whole = FaceModel.from_callable(lambda x: x.mean((2, 3)), InputSpec(64))
    torch.testing.assert_close(model.embed(faces), whole.embed(faces))
    assert sizes[-2:] == [3, 1]
    assert sizes[:-2] == [2, 2]  # once: do two images mix?
    model.embed(faces)
    assert sizes[4:] == [3, 1]


def test_a_function_of_one_photo_may_return_one_row(faces):
    model = FaceModel.from_callable(lambda x: list(x[0].mean((1, 2))), InputSpec(64), batch_size=1)
    assert model.embed(faces).shape == (4, 3)


@pytest.mark.parametrize("batch_size", [None, 2, 8])
def test_a_function_that_squeezes_single_photos(faces, batch_size):
    model = FaceModel.from_callable(lambda x: x.mean((2, 3)).squeeze(), InputSpec(64), batch_size=batch_size)
    whole = FaceModel.from_callable(lambda x: x.mean((2, 3)), InputSpec(64))
    for count in (1, 3):
        torch.testing.assert_close(model.embed(faces[:count]), whole.embed(faces[:count]))


def test_black_box_methods_and_metrics_work(net, faces):
    box, white = FaceModel.from_callable(session(net), SPEC, take=0), FaceModel(net, SPEC)
    maps = torch.rand(4, 64, 64)
    for ours, theirs in zip(*(_all(enrolled(m, faces), faces, maps) for m in (box, white)), strict=True):
        torch.testing.assert_close(ours, theirs)


def _all(people, faces, maps):
    yield people.logits(faces)
    for metric in (metrics.deletion, metrics.retention):
        result = metric(people, faces, maps)
        yield torch.tensor([result.drop, result.controls["random"].drop])
    pytest.importorskip("captum")
    yield baselines.captum("Occlusion", people)(faces[:1]).cells


@pytest.mark.parametrize("make", [CAM, HiResCAM, lambda c: SDD(HiResCAM(c, layer="x"))])
def test_methods_that_look_inside_refuse_in_one_sentence(net, faces, make):
    people = enrolled(FaceModel.from_callable(session(net), SPEC, take=0, name="r50.onnx"), faces)
    with pytest.raises(ValueError, match=r"'r50.onnx' is a function: it can be asked, not looked into") as refusal:
        make(people)(faces)
    assert not getattr(refusal.value, "__notes__", ())


def test_gradients_refuse_in_one_sentence(net, faces):
    pytest.importorskip("captum")
    people = enrolled(FaceModel.from_callable(session(net), SPEC, take=0), faces)
    with pytest.raises(ValueError, match="no weights, layers or gradients"):
        baselines.captum("IntegratedGradients", people)(faces[:1])
    with pytest.raises(ValueError, match="no weights, layers or gradients"):
        people.model.outputs(faces.clone().requires_grad_())
    with pytest.raises(ValueError, match="asked, not looked into"):
        models.accelerate(people)
    with pytest.raises(ValueError, match="no weights"):
        metrics.randomisation(lambda c: baselines.captum("Occlusion", c), people, faces, torch.zeros(4).long())


def test_its_name_is_its_identity(net):
    a, b, again = (FaceModel.from_callable(session(net), SPEC, name=name) for name in ("a", "b", "a"))
    assert a.fingerprint == again.fingerprint != b.fingerprint
    assert a.fingerprint != FaceModel.from_callable(session(net), SPEC, space="rgb01", name="a").fingerprint
    assert copy.deepcopy(a.net).function is a.net.function


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (3, {}, TypeError, "expected a function"),
        (nn.Linear(1, 1), {}, TypeError, r"FaceModel\(net\)"),
        (len, {"space": "hsv"}, ValueError, "expected space one of"),
        (len, {"batch_size": 0}, ValueError, "at least 1"),
    ],
)
def test_bad_arguments_get_one_clear_error(function, options, error, message):
    with pytest.raises(error, match=message):
        FaceModel.from_callable(function, **options)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: None, "floating-point tensor"),
        (lambda x: "text", "floating-point tensor"),
        (lambda x: np.zeros((len(x), 4), np.int64), "floating-point tensor"),
        (lambda x: np.zeros((1, 4), np.float32), "one row per image"),
        (lambda x: np.zeros(4, np.float32), r"expected \(N, D\)"),
        (lambda x: np.full((len(x), 4), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_bad_answers_get_one_clear_error(faces, answer, message):
    with pytest.raises(ValueError, match=message):
        FaceModel.from_callable(answer, InputSpec(64)).embed(faces)


def test_its_own_errors_come_with_a_note(faces):
    def fail(x):
        raise RuntimeError("connection lost")

    with pytest.raises(RuntimeError, match="connection lost") as error:
        FaceModel.from_callable(fail, InputSpec(64)).embed(faces)
    assert "does the spec fit" in error.value.__notes__[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", [torch.jit.script, lambda net: torch.jit.trace(net, torch.rand(1, 3, 64, 64))])
def test_script_modules_are_asked_not_looked_into(faces, how):
    eager = shaken(GapNet(16, functional=True))
    eager.block = nn.Identity()
    model, plain = FaceModel(how(eager), SPEC), FaceModel(eager, SPEC)
    torch.testing.assert_close(model.embed(faces), plain.embed(faces))
    people = enrolled(model, faces)
    assert metrics.deletion(people, faces, torch.rand(4, 64, 64)).drop is not None
    with pytest.raises(ValueError, match="ScriptModule can be asked, not looked into"):
        HiResCAM(people)(faces)
    image = faces.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.outputs(image).sum(), image)
    assert gradient.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_is_looked_through(faces):
    """Hooks and compilation do not go together: the network inside is run as it is."""
    eager = shaken(FlatNet())
    images = torch.rand(2, 3, 112, 112)
    model = FaceModel(torch.compile(eager), "arcface")
    assert model.core is eager
    assert model.head.layer == "_orig_mod.layer4"
    people = model.gallery({"a": torch.randn(32), "b": torch.randn(32)})
    plain = FaceModel(eager, "arcface").gallery(dict(zip(people.names, people.templates, strict=True)))
    torch.testing.assert_close(CAM(people)(images, "a").cells, CAM(plain)(images, "a").cells)
    assert FaceModel(nn.DataParallel(torch.compile(eager)), "arcface").core is eager


@pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered:UserWarning")
def test_a_quantised_network_answers_and_says_that_no_gradient_comes(faces):
    with warnings.catch_warnings():  # torch deprecates its own quantisation, in several words
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(shaken(GapNet(16)), {nn.Linear}, dtype=torch.qint8)
    people = enrolled(FaceModel(net, SPEC), faces)
    assert people.logits(faces).shape == (4, 2)
    with pytest.raises(ValueError, match="no gradient from the score reaches layer 'block'"):
        HiResCAM(people, layer="block")(faces)


def test_tuples_of_a_function_are_said(faces):
    net = shaken(UnitNet())
    images = torch.rand(2, 3, 112, 112)

    def function(x):
        with torch.no_grad():
            return tuple(part.numpy() for part in net(torch.from_numpy(x)))

    model = FaceModel.from_callable(function, "adaface")
    with pytest.warns(FaceXAIWarning, match="took element 0"):
        rows = model.embed(images)
    torch.testing.assert_close(rows, FaceModel(net, "adaface", take=0).embed(images))


# ---- fixed batches --------------------------------------------------------------------------------------------------


def takes(count, seen=None):
    """What a network that was exported with a fixed batch is: another number of images is an error."""

    def session(x):
        if len(x) != count:
            raise RuntimeError(f"Got invalid dimensions for input: index: 0 Got: {len(x)} Expected: {count}")
        if seen is not None:
            seen.append(x.copy())
        return [x.mean((2, 3)), {"norm": x.mean((1, 2, 3)), "version": np.arange(5)}]

    return session


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("images", [1, 2, 3, 4])
def test_a_fixed_batch_is_filled_up_and_the_filling_dropped(faces, count, images):
    seen = []
    model = FaceModel.from_callable(takes(count, seen), InputSpec(64), batch_size=count, fixed=True, take=0)
    expected = torch.nn.functional.normalize(faces[:images].mean((2, 3)))
    torch.testing.assert_close(model.embed(faces[:images]), expected)
    calls = -(-images // count)
    given = np.concatenate(seen[-calls:])
    assert np.array_equal(given[:images], faces[:images].numpy())
    assert all(np.array_equal(image, faces[images - 1].numpy()) for image in given[images:])
    normed = FaceModel.from_callable(
        takes(count), InputSpec(64), batch_size=count, fixed=True, take=lambda out: out[1]["norm"].reshape(-1, 1)
    )
    assert normed.outputs(faces[:images]).shape == (images, 1)
    assert "version" in copy.deepcopy(normed.core)(faces[:images])[1]


def test_fixed_needs_the_size():
    with pytest.raises(ValueError, match="expected batch_size with fixed=True"):
        FaceModel.from_callable(takes(2), InputSpec(64), fixed=True)


@pytest.mark.parametrize(("count", "given"), [(2, None), (2, 2), (8, None), (5, 5)])
def test_the_doctor_names_a_fixed_batch(count, given):
    found = doctor(FaceModel.from_callable(takes(count), InputSpec(64), batch_size=given, take=0))
    assert not found.ok
    assert "invalid dimensions" in found["runs"].found
    assert f"batch_size={count}, fixed=True" in found["runs"].advice
    assert doctor(FaceModel.from_callable(takes(count), InputSpec(64), batch_size=count, fixed=True, take=0)).ok


def test_the_doctor_names_a_network_of_one_image():
    found = doctor(FaceModel.from_callable(takes(1), InputSpec(64), take=0))
    assert "FaceModel.from_callable(function, batch_size=1)" in found["runs"].advice
    assert doctor(FaceModel.from_callable(takes(1), InputSpec(64), batch_size=1, take=0)).ok
