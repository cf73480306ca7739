"""Networks of one channel: images stay RGB, and everything is as for the RGB network that computes the luma itself."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from everything import EMBEDDING, SIZE, calls, faces, quietly
from nets import GapNet, shaken
from PIL import Image
from torch import nn

from facexai import FaceModel, FrequencyHeatPlot, HiResCAM, InputSpec, ScoreCAM, doctor, load, report
from facexai.models import acceleration

LUMA = (0.299, 0.587, 0.114)
SPEC, COLOUR = InputSpec(SIZE, "L", mean=0.4, std=0.5), InputSpec(SIZE, mean=0.4, std=0.5)


def one_channel():
    torch.manual_seed(1)
    net = GapNet(EMBEDDING)
    net.conv = nn.Conv2d(1, 8, 8, stride=8)
    return shaken(net)


def in_colour():
    """The same network with the weights of the luma in its first layer."""
    net, grey = GapNet(EMBEDDING), one_channel()
    weights = grey.state_dict()
    weights["conv.weight"] = weights["conv.weight"] * torch.tensor(LUMA)[:, None, None]
    net.load_state_dict(weights)
    return net.eval()


def numbers(answer):
    """Every tensor, array and float of an answer, with the place where it is."""
    if dataclasses.is_dataclass(answer):
        answer = {part.name: getattr(answer, part.name) for part in dataclasses.fields(answer)}
    if isinstance(answer, list | tuple):
        answer = dict(enumerate(answer))
    if isinstance(answer, dict):
        return {f"{key}.{rest}": leaf for key, value in answer.items() for rest, leaf in numbers(value).items()}
    numeric = isinstance(answer, torch.Tensor | np.ndarray | float | np.floating)
    return {"": torch.as_tensor(answer)} if numeric else {}


OURS, TWIN = (quietly(lambda made=made: calls(*made)) for made in ((one_channel(), SPEC), (in_colour(), COLOUR)))
CORRELATED = ("CorrRISE", "explain_pairs")  # cosines near 1, of whose last bits it takes the correlation


@pytest.mark.parametrize("name", [name for name in OURS if name != "randomisation"])  # draws weights by their shape
def test_everything_is_as_for_the_network_that_computes_the_luma_itself(name):
    if name == "captum":
        pytest.importorskip("captum")
    ours, twin = (numbers(quietly(made[name])) for made in (OURS, TWIN))
    assert list(ours) == list(twin)
    for place, value in ours.items():
        assert value.shape == twin[place].shape, place
        scale = float(twin[place].double().abs().nan_to_num().max()) if twin[place].numel() else 0.0
        close = 2e-3 if name in CORRELATED else 1e-4
        torch.testing.assert_close(value, twin[place], rtol=1e-3, atol=close * scale + 1e-6, equal_nan=True, msg=place)


# ---- the conversion ----------------------------------------------------------------------------------------------


def test_prepare_by_the_letter():
    spec, images = InputSpec((3, 2), "L", mean=127.5, std=128.0, range=255.0), torch.rand(2, 3, 3, 2)
    prepared = spec.prepare(images)
    assert prepared.shape == (2, 1, 3, 2)
    assert prepared.is_contiguous()
    for n in range(2):
        for y in range(3):
            for x in range(2):
                red, green, blue = (float(v) for v in images[n, :, y, x])
                luma = 0.299 * red + 0.587 * green + 0.114 * blue
                assert float(prepared[n, 0, y, x]) == pytest.approx((255 * luma - 127.5) / 128, abs=1e-5)


def test_the_luma_is_pillows_without_its_rounding():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    luma = InputSpec((40, 50), "L", range=255.0).prepare(images)[0, 0].numpy()
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float64)
    assert np.abs(luma - grey).max() <= 0.5 + 1e-2  # Pillow's weights have 16 bits
    levels = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    torch.testing.assert_close(InputSpec(16, "L").prepare(levels)[:, 0], levels[:, 0], rtol=0, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    model = FaceModel(one_channel().double(), SPEC)
    images = faces(1).double().requires_grad_(True)
    torch.autograd.gradcheck(InputSpec(SIZE, "L", mean=0.4, std=0.5).prepare, (images,), fast_mode=True)
    (gradient,) = torch.autograd.grad(model.outputs(images)[0, 3], images)
    step = 1e-6
    for channel, y, x in ((0, 20, 30), (1, 20, 30), (2, 20, 30), (1, 7, 48)):
        with torch.no_grad():
            moved = images.clone()
            moved[0, channel, y, x] += step
            slope = (model.outputs(moved) - model.outputs(images))[0, 3] / step
        assert float(gradient[0, channel, y, x]) == pytest.approx(float(slope), rel=1e-4, abs=1e-8)
    ratio = gradient / torch.tensor(LUMA, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1])
    torch.testing.assert_close(ratio[:, 2], ratio[:, 1])


def test_grey_images_get_one_clear_error():
    with pytest.raises(ValueError, match=r"in RGB, got shape \(2, 1, 56, 56\); grey photos: images.expand"):
        SPEC.check(torch.rand(2, 1, SIZE, SIZE))


def test_specs_of_colours_keep_their_words():
    """Fingerprints, and with them saved evidence and runs, depend on the repr."""
    assert repr(COLOUR) == "InputSpec(size=(56, 56), channels='RGB', mean=0.4, std=0.5, range=1.0)"
    assert repr(SPEC) == "InputSpec(size=(56, 56), channels='L', mean=0.4, std=0.5, range=1.0)"
    net = one_channel()
    fingerprints = {FaceModel(net, spec).fingerprint for spec in (SPEC, COLOUR, InputSpec(SIZE, "L", std=0.5))}
    assert len(fingerprints) == 3


# ---- what depends on it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["pixels", "input"])
def test_what_scorecam_shows_the_network(space):
    """One channel, one image: black in pixels, or zero in the network's own input, by the letter."""
    net, image, seen = one_channel(), faces(1), []
    people = FaceModel(net, SPEC).gallery({"ann": torch.randn(EMBEDDING), "bo": torch.randn(EMBEDDING)})
    kept = []
    assert "block" in people.model.layers  # looks at the network before it is watched
    handles = [
        net.block.register_forward_hook(lambda _, __, out: kept.append(out.detach().clone())),
        net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone())),
    ]
    ScoreCAM(people, layer="block", mask_space=space, chunk=1)(image, "ann")
    for handle in handles:
        handle.remove()
    masks = F.interpolate(kept[0], (SIZE, SIZE), mode="bilinear", align_corners=False)[0]
    masks = [(m - m.min()) / (m.max() - m.min()) for m in masks if m.max() > m.min()]
    luma = sum(weight * channel for weight, channel in zip(LUMA, image[0], strict=True))
    shown = torch.cat(seen)[-len(masks) :, 0]
    for mask, got in zip(masks, shown, strict=True):
        expected = (luma * mask - 0.4) / 0.5 if space == "pixels" else (luma - 0.4) / 0.5 * mask
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


class Stripes(nn.Module):
    """Knows people by the grey of four stripes, (x - .5) / .5; where values leave -1 to 1 it sees nothing."""

    def forward(self, x):
        assert x.shape[1] == 1
        grey = x[:, 0].unflatten(2, (4, 4)).mean(3).mean(1)
        return torch.where(grey.abs() <= 1, grey, 1.0)


def people():
    drawn = torch.Generator().manual_seed(0)
    shades = torch.rand(12, 1, 1, 4, generator=drawn).repeat_interleave(4, -1)
    noise = 0.05 * torch.randn(12, 4, 16, 16, generator=drawn)
    grey = (shades + noise).clamp(0, 1)
    return {f"p{k}": images[:, None].expand(-1, 3, -1, -1) for k, images in enumerate(grey)}


def test_the_doctor_tries_what_one_channel_can_be():
    right = InputSpec(16, "L", mean=0.5, std=0.5)
    found = doctor(FaceModel(Stripes(), right), people())
    assert found["input"].verdict == "good", str(found)
    assert {v.name for v in found.variants} == {f"L, {way}" for way in ("x", "(x - .5) / .5", "255 x", ODD)}
    wrong = doctor(FaceModel(Stripes(), InputSpec(16, "L", mean=0.1, range=255.0)), people())
    assert wrong["input"].verdict == "bad"
    assert wrong.variants[0].spec in (right, InputSpec(16, "L", mean=127.5, std=128.0, range=255.0))
    assert len(wrong.variants) == 5
    black_box = FaceModel.from_callable(lambda x: x.reshape(len(x), -1)[:, :9], InputSpec(16), space="grey01")
    assert [v.name for v in doctor(black_box, people()).variants] == ["L, as specified"]


ODD = "(255 x - 127.5) / 128"


def test_a_network_of_one_channel_with_a_spec_of_three_is_one_finding():
    found = doctor(FaceModel(one_channel(), COLOUR))
    assert [f.name for f in found.findings] == ["runs"]
    assert "size and channels must fit the network" in found["runs"].advice


def test_a_faster_copy_is_verified():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    model, images = FaceModel(shaken(net), InputSpec(8, "L", mean=0.5)), torch.rand(4, 3, 8, 8)
    done = acceleration(model, batch_size=2)
    assert (done.folded, done.model.spec) == (("1",), model.spec)
    torch.testing.assert_close(done.model.outputs(images), model.outputs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("space", "shape", "kind"),
    [("input", (4, 1, 8, 6), np.float32), ("grey01", (4, 1, 8, 6), np.float32), ("grey_uint8", (4, 8, 6), np.uint8)],
)
def test_functions_get_one_channel(space, shape, kind):
    seen, images = [], torch.rand(4, 3, 8, 6)

    def function(x):
        seen.append(x.copy())
        return x.reshape(len(x), -1).astype(np.float32)

    model = FaceModel.from_callable(function, InputSpec((8, 6), "L", mean=0.25, std=0.5), space=space)
    assert model.embed(images).shape == (4, 48)
    seen = seen[-1:]  # the calls before look whether images mix
    assert (seen[0].shape, seen[0].dtype) == (shape, kind)
    luma = sum(weight * images[:, c].double() for c, weight in enumerate(LUMA)).numpy()
    expected = {"input": (luma - 0.25) / 0.5, "grey01": luma, "grey_uint8": (255 * luma).round()}[space]
    np.testing.assert_allclose(seen[0].reshape(4, 8, 6), expected, atol=1e-5)


def test_results_and_reports_are_saved_and_read(tmp_path):
    model, images = FaceModel(one_channel(), SPEC), faces()
    people = model.gallery({f"p{k}": torch.randn(EMBEDDING) for k in range(4)})
    why = HiResCAM(people, layer="block")(images, "p1")
    heat = FrequencyHeatPlot(model, width=8)(images[:1], images[1:])
    for name, result in (("why", why), ("heat", heat)):
        result.save(tmp_path / f"{name}.npz")
        assert load(tmp_path / f"{name}.npz").recipe == result.recipe
    record = report.build({"Why?": report.Section(why, images=images)}, model=people).record
    jsonschema.validate(json.loads(json.dumps(record)), report.schema())
    assert "'channels': 'L'" in str(record)
