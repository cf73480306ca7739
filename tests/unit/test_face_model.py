"""FaceModel: outputs, embeddings, flips, centre, layers, fingerprint, pickling, messages."""

from __future__ import annotations

import dataclasses
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import FlatNet, GapNet, UnitNet, shaken
from torch import nn

from facexai import CAM, FaceModel, FaceXAIWarning, HiResCAM, InputSpec, ScoreCAM, zoo
from facexai.models import PRESETS


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112)


def test_embeddings_are_unit_rows_of_the_networks_output(images):
    net = shaken(FlatNet())
    model = FaceModel(net, "arcface")
    expected = F.normalize(net((images - 0.5) / 0.5)).detach()
    torch.testing.assert_close(model.embed(images, batch_size=2), expected)


def test_flips_are_sum_and_concatenation(images):
    net = shaken(FlatNet())
    plain, back = (net((x - 0.5) / 0.5).detach() for x in (images, images.flip(-1)))
    torch.testing.assert_close(FaceModel(net, flip="sum").embed(images), F.normalize(plain + back))
    torch.testing.assert_close(FaceModel(net, flip="concat").embed(images), F.normalize(torch.cat([plain, back], 1)))


def test_the_centre_is_subtracted_before_normalising(images):
    net, center = shaken(FlatNet()), torch.randn(32)
    raw = FaceModel(net).outputs(images).detach()
    torch.testing.assert_close(FaceModel(net, center=center).embed(images), F.normalize(raw - center))
    people = FaceModel(net, center=center).gallery({"a": images[:1], "b": images[1:]})
    why = CAM(people)(images, "a")
    torch.testing.assert_close(why.scores, people.logits(images)[:, 0])


def test_data_parallel_is_looked_through(images):
    net = shaken(FlatNet())
    model = FaceModel(nn.DataParallel(net))
    torch.testing.assert_close(model.embed(images), FaceModel(net).embed(images))
    assert model.layer("module.layer3") == "module.layer3"
    assert model.layer("auto") == "module.layer4"


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.net, self.make = shaken(FlatNet()), make

    def forward(self, x):
        return self.make(self.net(x))


@pytest.mark.parametrize(
    ("make", "took"),
    [
        (lambda e: (e, e.norm(dim=1)), 0),
        (lambda e: [None, e], 1),
        (lambda e: {"norm": e.norm(dim=1), "embedding": e}, "embedding"),
        (lambda e: {"x": e}, "x"),
    ],
)
def test_it_says_once_what_it_took(images, make, took):
    model = FaceModel(Returns(make))
    with pytest.warns(FaceXAIWarning, match="took"):
        first = model.embed(images)
    assert model.took == took
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(model.embed(images), first)
        assert torch.equal(FaceModel(model.net, take=took).embed(images), first)


def test_a_function_can_take(images):
    model = FaceModel(Returns(lambda e: {"deep": [e]}), take=lambda out: out["deep"][0])
    assert model.embed(images).shape == (3, 32)


@pytest.mark.parametrize(
    ("make", "take", "message"),
    [
        (lambda e: (e,), 3, "a tuple of 1; take=3"),
        (lambda e: {"emb": e}, "embed", "did you mean 'emb'"),
        (lambda e: e, 1, "take=1 is not in it"),
        (lambda e: "text", None, "got a str"),
        (lambda e: e[:, :, None, None].expand(-1, -1, 2, 2), None, r"expected \(N, D\)"),
        (lambda e: e[:1], None, "3 images went in and 1 rows"),
        (lambda e: e.long(), None, "floating-point"),
        (lambda e: e * float("nan"), None, r"NaN or infinity for image \[0, 1, 2\]"),
    ],
)
def test_outputs_that_do_not_serve(images, make, take, message):
    with pytest.raises(ValueError, match=message):
        FaceModel(Returns(make), take=take).embed(images)


def test_an_embedder_has_no_logits(images):
    with pytest.raises(ValueError, match=r"model\.gallery"):
        FaceModel(shaken(FlatNet())).logits(images)
    with pytest.raises(ValueError, match="take="):
        FaceModel(shaken(FlatNet()), output="logits").embed(images)


def test_a_dict_key_named_logits_is_taken_for_logits(images):
    model = FaceModel(Returns(lambda e: {"logits": e}))
    with pytest.warns(FaceXAIWarning):
        assert model.logits(images).shape == (3, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": "adafce"}, "did you mean 'adaface'"),
        ({"output": "probabilities"}, "expected output"),
        ({"flip": "mean"}, "expected flip"),
        ({"flip": "concat", "output": "logits"}, "expected flip"),
        ({"center": torch.zeros(2, 2)}, "center"),
        ({"center": torch.tensor([float("nan")])}, "center"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FaceModel(shaken(FlatNet()), **arguments)


def test_no_module_no_model():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        FaceModel(lambda x: x)


def test_a_centre_of_another_size(images):
    with pytest.raises(ValueError, match="center has 5 numbers, the embedding 32"):
        FaceModel(shaken(FlatNet()), center=torch.zeros(5)).embed(images)


def test_layers_are_those_of_the_users_network():
    model = FaceModel(shaken(FlatNet()))
    assert model.layers["layer3"] == (16, 7, 7)
    assert list(model.layers)[-2:] == ["layer4", "bn2"]
    assert model.layer("auto") == "layer4"
    with pytest.raises(ValueError, match="did you mean 'layer3'"):
        model.layer("layer_3")


def test_auto_says_when_no_map_is_large_enough():
    net = nn.Sequential(nn.Conv2d(3, 4, 32, stride=32), nn.Flatten(), nn.Linear(36, 6))
    with pytest.raises(ValueError, match="at least 7x7 cells"):
        FaceModel(net).layer("auto")


def test_the_fingerprint_follows_weights_and_recipe():
    net = shaken(GapNet())
    model = FaceModel(net)
    first = model.fingerprint
    assert FaceModel(net).fingerprint == first
    assert FaceModel(net, "adaface").fingerprint != first
    assert FaceModel(net, flip="sum").fingerprint != first
    assert FaceModel(net, center=torch.ones(10)).fingerprint != first
    state = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        net.fc.bias.add_(1)
    assert model.fingerprint != first
    net.load_state_dict(state)
    assert model.fingerprint == first


def make_model():
    torch.manual_seed(5)
    return FaceModel(shaken(GapNet()), take=None)


def test_pickling_goes_by_name_or_says_so(images, dlib_model):
    with pytest.raises(TypeError, match="from_source"):
        pickle.dumps(make_model())
    model = FaceModel.from_source(f"{__name__}:make_model")
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again.embed(images), model.embed(images))
    assert pickle.loads(pickle.dumps(dlib_model)).fingerprint == dlib_model.fingerprint


def make_with(depth: int = 1) -> FaceModel:
    return FaceModel(shaken(GapNet(depth)))


def test_a_source_may_hold_keyword_arguments(dlib_model):
    model = FaceModel.from_source(f'{__name__}:make_with?{{"depth": 7}}')
    assert model.embed(torch.rand(1, 3, 112, 112)).shape == (1, 7)
    assert pickle.loads(pickle.dumps(model)).source == model.source
    plain = zoo.load("dlib-resnet29", centre=False)
    again = pickle.loads(pickle.dumps(plain))
    assert again.center is None
    assert again.fingerprint == plain.fingerprint != dlib_model.fingerprint


OPTIONS = ("net", "spec", "take", "output", "flip", "center", "names", "forward_kwargs", "layouts")


@pytest.mark.parametrize("name", [*OPTIONS, "source"])
def test_options_are_fixed(name):
    model = make_model()
    before = getattr(model, name)
    with pytest.raises(AttributeError, match=r"make another|no setter"):
        setattr(model, name, None)
    with pytest.raises(AttributeError, match="make another"):
        delattr(model, name)
    assert getattr(model, name) is before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("builtins:dict?[1]", "JSON object"),
        ("builtins:dict?{", "JSON object"),
        ('nets:GapNet?{"nothing": 1}', "unexpected keyword"),
        ("nets", "package.module:factory"),
        ("no_such:f", "no_such"),
        ("nets:no_such", "no_such"),
        (":f", "package.module"),
    ],
)
def test_sources_that_do_not_load(source, message):
    with pytest.raises(ValueError, match=message):
        FaceModel.from_source(source)


def test_a_source_must_give_a_face_model():
    with pytest.raises(TypeError, match="returned a GapNet"):
        FaceModel.from_source("nets:GapNet")


def test_the_repr_is_short_and_names_the_fingerprint():
    model = FaceModel(shaken(UnitNet()), "adaface", take=0, flip="sum")
    assert repr(model).startswith("FaceModel(UnitNet, InputSpec(size=(112, 112), channels='BGR'")
    assert model.fingerprint in repr(model)


def test_channels_are_turned_for_bgr_networks(images):
    spec = InputSpec(112, channels="BGR", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    expected = torch.stack([(images[:, 2] - 0.3) / 4, (images[:, 1] - 0.2) / 2, images[:, 0] - 0.1], 1)
    torch.testing.assert_close(spec.prepare(images), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size"),
        ({"size": (1, 2, 3)}, "size"),
        ({"channels": "GBR"}, "'RGB', 'BGR' or 'L'"),
        ({"channels": "L", "mean": (0.1, 0.2, 0.3)}, "one finite number for mean with channels='L'"),
        ({"channels": "L", "std": (1.0, 1.0, 1.0)}, "one finite number for std"),
        ({"channels": "L", "std": 0}, "zero"),
        ({"std": 0}, "zero"),
        ({"mean": (1.0, 2.0)}, "three"),
        ({"mean": float("nan")}, "finite"),
        ({"range": 0}, "range"),
        ({"crop": (5, 0, 1, 1)}, "crop"),
    ],
)
def test_bad_specs(arguments, message):
    with pytest.raises(ValueError, match=message):
        InputSpec(**arguments)


def test_presets_differ_where_the_code_bases_do():
    black, white = torch.zeros(1, 3, 112, 112), torch.ones(1, 3, 112, 112)
    ranges = {
        name: (float(spec.prepare(black).min()), float(spec.prepare(white).max()))
        for name, spec in __import__("facexai").models.PRESETS.items()
        if spec.size == (112, 112)
    }
    assert ranges["arcface"] == (-1.0, 1.0)
    assert ranges["magface"] == (0.0, 1.0)
    assert ranges["facex-zoo"] == (-127.5 / 128, 127.5 / 128)


def test_the_presets_are_those_of_the_code_bases():
    half, facenet = {"mean": 0.5, "std": 0.5}, {"mean": 127.5, "std": 128.0, "range": 255.0}
    expected = {
        "arcface": InputSpec(112, **half),
        "insightface": InputSpec(112, **half),
        "cvlface": InputSpec(112, **half),
        "elasticface": InputSpec(112, **half),
        "curricularface": InputSpec(112, **half),
        "edgeface": InputSpec(112, **half),
        "adaface": InputSpec(112, channels="BGR", **half),
        "magface": InputSpec(112, channels="BGR"),
        "facex-zoo": InputSpec(112, channels="BGR", **facenet),
        "facenet-pytorch": InputSpec(160, **facenet, crop=(-10, -10, 122, 122)),
        "mobilefacenet": InputSpec((112, 96), **facenet, crop=(8, 0, 104, 112)),
        "dlib": InputSpec(150, mean=(122.782, 117.001, 104.298), std=256.0, range=255.0, crop=(7, 22, 105, 120)),
    }
    assert expected == PRESETS


def test_logits_never_pass_for_embeddings(images):
    model = FaceModel(Returns(lambda e: {"logits": e}))
    with pytest.warns(FaceXAIWarning), pytest.raises(ValueError, match="gives logits"):
        model.embed(images)
    with pytest.warns(FaceXAIWarning), pytest.raises(ValueError, match="do not concatenate"):
        FaceModel(Returns(lambda e: {"logits": e}), flip="concat").logits(images)


def test_names_must_fit_the_classes(images):
    with pytest.raises(ValueError, match="2 names for 32 classes"):
        FaceModel(shaken(FlatNet()), output="logits", names=["a", "b"]).logits(images)
    with pytest.raises(ValueError, match="distinct"):
        FaceModel(shaken(FlatNet()), output="logits", names=["a", "a"])
    with pytest.raises(TypeError, match="center as a tensor"):
        FaceModel(shaken(FlatNet()), center=[0.0])


def test_a_failing_forward_says_what_it_was_given(images):
    model = FaceModel(shaken(FlatNet()), InputSpec(96))
    with pytest.raises(RuntimeError) as failure:
        model.embed(torch.rand(1, 3, 96, 96))
    assert "does the spec fit the network?" in failure.value.__notes__[0]
    assert "(1, 3, 96, 96)" in failure.value.__notes__[0]


def test_a_script_module_embeds_and_says_that_it_cannot_be_explained(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(shaken(GapNet()), images)
    model = FaceModel(script, InputSpec(112))
    assert model.embed(images).shape == (3, 10)
    with pytest.raises(ValueError, match="wrap the eager module"):
        CAM(model.gallery({"a": images[:1]}))(images)


def test_auto_takes_the_deepest_map_of_fourteen_cells_else_seven(dlib_model):
    def net(*strides):
        convs = [nn.Conv2d(3, 3, 1, stride=s) for s in strides]
        return nn.Sequential(*convs, nn.Flatten(), nn.LazyLinear(4))

    assert FaceModel(net(4, 2, 2), InputSpec(112)).layer("auto") == "1"  # 28, 14, 7 cells
    assert FaceModel(net(9, 1, 2), InputSpec(112)).layer("auto") == "2"  # 13, 13, 7
    assert dlib_model.layer("auto") == "stage2"


class Guided(FlatNet):
    """Wants keypoints beside the image, one row for each."""

    def forward(self, x, keypoints, *, gain=1.0):
        return super().forward(x) * gain + keypoints.flatten(1).sum(1, keepdim=True)


def test_other_arguments_of_forward_go_with_the_images():
    net, images = shaken(Guided()), torch.rand(3, 3, 112, 112)
    rows = torch.rand(3, 5, 2)
    with torch.no_grad():
        expected = F.normalize(net((images - 0.5) / 0.5, rows, gain=2.0))
    model = FaceModel(net, "arcface", forward_kwargs={"keypoints": rows, "gain": 2.0})
    torch.testing.assert_close(model.embed(images), expected)
    torch.testing.assert_close(model.embed(images, batch_size=2), expected)
    people = model.gallery({f"p{i}": torch.randn(32) for i in range(3)})
    for explainer in (HiResCAM(people, layer="layer3"), ScoreCAM(people, layer="layer3", chunk=5)):
        why = explainer(images, 1)
        for n in range(3):  # masked copies of an image take its row
            alone = FaceModel(net, "arcface", forward_kwargs={"keypoints": rows[n : n + 1], "gain": 2.0})
            one = dataclasses.replace(explainer, classifier=dataclasses.replace(people, model=alone))
            torch.testing.assert_close(one(images[n : n + 1], 1).cells[0], why.cells[n], rtol=1e-4, atol=1e-4)


def test_other_arguments_of_forward_are_checked_and_known():
    net, images = shaken(Guided()), torch.rand(2, 3, 112, 112)
    one, three = (FaceModel(net, "arcface", forward_kwargs={"keypoints": torch.zeros(n, 5, 2)}) for n in (1, 3))
    assert one.embed(images).shape == (2, 32)
    assert one.fingerprint != three.fingerprint
    assert one.layers == three.layers
    with pytest.raises(ValueError, match="has 3 rows, the batch 2 images"):
        three.outputs(images)
    for call in (three.embed, lambda x: three.gallery({"a": x}), lambda x: three.embed(torch.cat([x, x, x[:1]]))):
        with pytest.raises(ValueError, match="has 3 rows"):
            call(images)
    with pytest.raises(TypeError, match=r"torch\.as_tensor"):
        FaceModel(net, "arcface", forward_kwargs={"keypoints": torch.zeros(1, 5, 2).numpy()})
    prints = {
        FaceModel(net, "arcface", forward_kwargs=kwargs).fingerprint
        for kwargs in (
            {"keypoints": torch.zeros(1, 5, 2)},
            {"keypoints": torch.zeros(1, 2, 5)},
            {"keypoints": torch.zeros(1, 5, 2).bfloat16()},
            {"keypoints": [torch.zeros(5000)]},
            {"keypoints": [torch.zeros(4999)]},
            {"keypoints": torch.zeros(1, 5, 2), "gain": 2.0},
        )
    }
    assert len(prints) == 6
    with pytest.raises(ValueError, match="cannot mirror"):
        FaceModel(net, "arcface", flip="sum", forward_kwargs={"keypoints": torch.zeros(1, 5, 2)})
    with pytest.raises(TypeError, match="expected forward_kwargs"):
        FaceModel(net, "arcface", forward_kwargs=[1])
