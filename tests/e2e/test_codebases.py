"""Networks as public code bases write them, wrapped with zero changes; and the traps in their habits."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import numpy as np
import pytest
import torch
from codebases import CODE_BASES, METHODS, POINTS, AdaFace, IBasicBlock, IResNet, MagFace, gallery, trained
from codebases_nets import DIM, KPRPE, ViT
from nets import FlatNet, TokenNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from facexai import CAM, SDD, CorrRISE, FaceModel, FaceXAIWarning, GradCAM, HiResCAM, ScoreCAM, doctor, metrics, models

# what torch says of autocast without a GPU, twice; of checkpoints without gradients; of quantised networks
WORDS = ("CUDA is not available", "torch.cuda.amp.autocast", "None of the inputs have", "autograd kernel was not")
pytestmark = [pytest.mark.filterwarnings(f"ignore:.*{words}") for words in WORDS]
FOLDING = [name for name, case in CODE_BASES.items() if case.folds]


@cache
def made(name):
    """The model of a code base, made once: explaining leaves it as it was, which the tests check."""
    torch.manual_seed(0)
    return CODE_BASES[name].model()


def photos(model, count=2):
    return torch.rand(count, 3, *model.spec.height_width, generator=torch.Generator().manual_seed(3))


def people(net, spec="insightface", **options):
    return gallery(FaceModel(net, spec, **options))


def plainly(classifier):
    """People around the plain network of the same weights."""
    plain = FlatNet(dim=DIM)
    plain.load_state_dict(classifier.model.net.state_dict())
    return people(plain.eval())


def explain(name, method, classifier, images):
    """One method's cells, or for deletion the points that are lost."""
    if method == "deletion":
        return torch.tensor(metrics.deletion(classifier, images, torch.rand(images[:, 0].shape)).drop)
    if method == "CorrRISE":
        return CorrRISE(classifier, "grid", count=8)(images).cells
    refused = CODE_BASES[name].refused
    base = next((kind for kind in (CAM, HiResCAM, ScoreCAM) if kind.__name__ not in refused), HiResCAM)
    kinds = {kind.__name__: kind for kind in (CAM, HiResCAM, GradCAM, ScoreCAM)}
    explainer = SDD(base(classifier), rivals=3) if method == "SDD" else kinds[method](classifier)
    return explainer(images).cells


def snapshot(net):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    state = {name: t.numpy().tobytes() for name, t in net.state_dict().items() if isinstance(t, torch.Tensor)}
    modes = [(m.training, *(len(getattr(m, kind)) for kind in kinds)) for m in net.modules()]
    return state, modes, [(p.requires_grad, p.grad is None) for p in net.parameters()]


@pytest.mark.parametrize("name", CODE_BASES)
def test_the_doctor_knows_it(name):
    case, model = CODE_BASES[name], made(name)
    found = doctor(model)
    assert tuple(f.name for f in found.findings if f.verdict == "bad") == case.bad, found
    assert model.took == case.takes
    assert (f"folds from {case.folds!r}" in found["head"].found) == (case.folds is not None), found["head"]


@pytest.mark.filterwarnings("ignore:CAM has only 3x3 cells")
@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=[] if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, name in enumerate(CODE_BASES)
        for j, method in enumerate(METHODS)
    ],
)
def test_every_method_works_or_is_refused_in_a_sentence(name, method):
    case, model = CODE_BASES[name], made(name)
    images, classifier = photos(model), case.people(model)
    before = snapshot(model.net)
    if method in case.refused:
        with pytest.raises(ValueError, match=case.refused[method]):
            explain(name, method, classifier, images)
    else:
        values = explain(name, method, classifier, images)
        assert torch.isfinite(values).all()
        assert bool(values.any())
    assert snapshot(model.net) == before


@pytest.mark.filterwarnings("ignore:CAM has only 3x3 cells")
@pytest.mark.parametrize("name", FOLDING)
def test_cells_and_constant_are_the_score_in_double_precision(name, monkeypatch):
    case = CODE_BASES[name]
    torch.manual_seed(0)
    model = case.model()
    model.net.double()
    if case.casts:  # so that what the network casts stays double
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    images = photos(model).double()
    classifier = case.people(model)
    why = CAM(classifier)(images)
    assert why.cells.dtype == torch.float64
    assert models.completeness(model, images).max() < 1e-10
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=1e-10, atol=1e-10)
    if model.head.side == "output":
        again = HiResCAM(classifier, layer=case.folds)(images)
        torch.testing.assert_close(again.cells, why.cells, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [n for n, case in CODE_BASES.items() if case.takes is not None])
def test_what_is_taken_of_several_outputs_is_said(name):
    torch.manual_seed(0)
    model = CODE_BASES[name].model(take=None)
    with pytest.warns(FaceXAIWarning, match="took element 0. Say take=0 to agree"):
        rows = model.embed(photos(model))
    torch.testing.assert_close(rows, made(name).embed(photos(model)))


@pytest.mark.filterwarnings("ignore:CAM has only 3x3 cells")
@pytest.mark.parametrize("name", [n for n, case in CODE_BASES.items() if "HiResCAM" not in case.refused])
def test_train_mode_frozen_norms_and_frozen_weights_change_nothing(name):
    """Fine-tuning as people do it: train mode, norms in eval mode, parameters that never require a gradient."""
    case = CODE_BASES[name]
    torch.manual_seed(0)
    model = case.model()
    images, method = photos(model), "HiResCAM" if "CAM" in case.refused else "CAM"
    methods = (method, "GradCAM")
    loose = [explain(name, m, case.people(model), images) for m in methods]
    model.net.requires_grad_(False)
    expected = [explain(name, m, case.people(model), images) for m in methods]
    near = 1e-5 if name == "EdgeFace" else 0.0  # torch multiplies tokens in a permuted layout by another routine then
    for one, other in zip(expected, loose, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near * float(other.abs().max()))
    model.net.train()
    for module in model.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    before, random = snapshot(model.net), torch.get_rng_state()
    for values, m in zip(expected, methods, strict=True):
        assert torch.equal(explain(name, m, case.people(model), images), values)
    assert doctor(model).ok == (not case.bad)
    assert snapshot(model.net) == before
    assert torch.equal(random, torch.get_rng_state())


# ---- hooks and operations in place ------------------------------------------------------------------------------


def test_full_backward_hooks_fail_inside_such_blocks_and_our_methods_do_not():
    """``out += identity`` behind the hooked norm is what torch forbids."""
    net = trained(IResNet())
    classifier = people(net)
    images = photos(classifier.model)
    hook = net.layer3[0].bn3.register_full_backward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="BackwardHookFunction"):
        net(images.clone().requires_grad_())
    for layer in ("bn2", "layer4"):  # a hook that another tool left behind, before the layer
        assert HiResCAM(classifier, layer=layer)(images).cells.any()
    assert CAM(classifier)(images).cells.any()
    assert len(net.layer3[0].bn3._backward_hooks) == 1
    hook.remove()
    for kind in (HiResCAM, GradCAM, ScoreCAM):
        assert kind(classifier, layer="layer3.0.bn3")(images).cells.any()


@pytest.mark.parametrize("make", [IResNet, lambda: MagFace(dropout=nn.Dropout2d)])
def test_additions_dropout_and_activations_in_place_change_no_map(make, monkeypatch):
    net = trained(make())
    net.prelu, net.layer4[0].prelu = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    classifier = people(net)
    images = photos(classifier.model)
    layers = ("bn1", "layer3.0.bn3", "layer4.0.bn2", "layer4.0.bn3", "bn2")
    found = [kind(classifier, layer=layer)(images).cells for kind in (HiResCAM, ScoreCAM) for layer in layers]

    def forward(self, x):
        out = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return out + (x if self.downsample is None else self.downsample(x))

    monkeypatch.setattr(IBasicBlock, "forward", forward)
    net.prelu.inplace = net.layer4[0].prelu.inplace = net.dropout.inplace = False
    apart = [kind(classifier, layer=layer)(images).cells for kind in (HiResCAM, ScoreCAM) for layer in layers]
    for a, b in zip(found, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


# ---- memory ------------------------------------------------------------------------------------------------------


def test_channels_last_weights_meet_view():
    """AdaFace's ``.view`` cannot flatten them, which is said in torch's words; flatten and reshape can."""
    net = trained(AdaFace())
    images, classifier = torch.rand(2, 3, 112, 112), people(net, "adaface", take=0)
    expected = CAM(classifier)(images).cells
    net.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible") as error:
        CAM(classifier)(images)
    assert "while AdaFace ran on its input (2, 3, 112, 112)" in error.value.__notes__[0]
    assert "view size" in doctor(classifier.model)["runs"].found
    net.to(memory_format=torch.contiguous_format)
    assert torch.equal(CAM(classifier)(images).cells, expected)
    other = people(trained(IResNet()))
    expected = CAM(other)(images).cells
    other.model.net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(CAM(other)(images).cells, expected, rtol=1e-4, atol=1e-4)


def test_acceleration_falls_back_to_contiguous_weights():
    classifier = people(trained(AdaFace()), "adaface", take=0)
    images = torch.rand(2, 3, 112, 112)
    fast = models.acceleration(classifier, images, batch_size=2)
    assert (fast.layout, list(fast.rejected)) == ("contiguous", ["channels_last"])
    assert "view size" in fast.rejected["channels_last"]
    torch.testing.assert_close(CAM(fast.model)(images).cells, CAM(classifier)(images).cells, rtol=1e-3, atol=1e-3)


def test_photos_that_come_from_numpy_meet_view():
    batch = torch.from_numpy(np.random.default_rng(0).random((2, 112, 112, 3), np.float32)).permute(0, 3, 1, 2)
    classifier = people(trained(AdaFace()), "adaface", take=0)
    assert torch.equal(CAM(classifier)(batch).cells, CAM(classifier)(batch.contiguous()).cells)


# ---- autocast ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["insightface ViT", "insightface IResNet, fp16"])
def test_autocast_for_a_gpu_changes_nothing_on_a_cpu(name, monkeypatch):
    classifier = gallery(made(name))
    images = photos(classifier.model)
    found = [kind(classifier)(images).cells for kind in (CAM, HiResCAM, GradCAM)]
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.cuda.amp, "autocast", lambda *_: nullcontext())
    for cells, kind in zip(found, (CAM, HiResCAM, GradCAM), strict=True):
        assert torch.equal(kind(classifier)(images).cells, cells)


class Half(FlatNet):
    """insightface with ``fp16=True`` where autocast acts: the maps are half, and the head is given them as float."""

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.dropout(torch.flatten(self.bn2(self.layer4(self.layer3(self.stem(x)))), 1))
        return self.features(self.fc(x.float()))


def test_autocast_that_acts_is_explained_by_gradients():
    torch.manual_seed(1)
    half = people(trained(Half(dim=DIM)))
    found, expected = (HiResCAM(who, layer="layer3")(photos(half.model), 0).cells for who in (half, plainly(half)))
    assert torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99


def test_autocast_that_acts_before_a_float_head_folds():
    classifier = people(trained(Half(dim=DIM)))
    why = CAM(classifier)(photos(classifier.model), 0)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=2e-2, atol=0.2)


# ---- gradient checkpointing, and forwards without gradients ------------------------------------------------------


class Checkpointed(FlatNet):
    reentrant = False

    def forward(self, x):
        x = self.stem(x)
        for block in (self.layer3, self.layer4):
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))


def twins(reentrant):
    """A network that checkpoints its blocks, and the same without."""
    ours = people(trained(Checkpointed(dim=DIM)))
    ours.model.net.reentrant = reentrant
    return ours, plainly(ours)


@pytest.mark.parametrize("kind", [HiResCAM, GradCAM, ScoreCAM])
@pytest.mark.parametrize("layer", ["stem", "layer3", "layer3.bn2", "layer4", "bn2"])
def test_checkpoints_are_seen_through(layer, kind):
    ours, plain = twins(reentrant=False)
    images = photos(plain.model)
    torch.testing.assert_close(kind(ours, layer=layer)(images).cells, kind(plain, layer=layer)(images).cells)
    torch.testing.assert_close(CAM(ours)(images).cells, CAM(plain)(images).cells)
    assert doctor(ours.model).ok


@pytest.mark.parametrize("layer", ["stem", "layer3", "layer3.bn2", "of the doctor"])
def test_checkpoints_are_seen_through_in_train_mode(layer):
    ours, plain = twins(reentrant=False)
    ours.model.net.train()
    before = snapshot(ours.model.net)
    if layer == "of the doctor":
        assert doctor(ours.model)["gradient"].verdict == "good"
    else:
        found, expected = (HiResCAM(who, layer=layer)(photos(plain.model)).cells for who in (ours, plain))
        torch.testing.assert_close(found, expected)
    assert snapshot(ours.model.net) == before


@pytest.mark.parametrize("train", [False, True])
def test_reentrant_checkpoints_are_refused_and_what_needs_no_gradient_works(train):
    ours, plain = twins(reentrant=True)
    images = photos(plain.model)
    ours.model.net.train(train)
    before = snapshot(ours.model.net)
    torch.testing.assert_close(CAM(ours)(images).cells, CAM(plain)(images).cells)
    torch.testing.assert_close(HiResCAM(ours, layer="bn2")(images).cells, HiResCAM(plain, layer="bn2")(images).cells)
    assert ScoreCAM(ours, layer="layer3")(images).cells.any()
    for layer in ("layer3", "layer3.bn2", "layer4"):
        with pytest.raises(ValueError, match="no gradient from the score reaches layer"):
            HiResCAM(ours, layer=layer)(images)
    assert "use_reentrant=False" in doctor(ours.model)["gradient"].found
    assert snapshot(ours.model.net) == before


def test_a_layer_before_reentrant_checkpoints_is_refused_in_a_sentence():
    ours, _ = twins(reentrant=True)
    with pytest.raises(ValueError, match=r"use_reentrant=False"):
        HiResCAM(ours, layer="stem")(photos(ours.model))


class WithoutGradients(FlatNet):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def test_a_forward_without_gradients_is_explained():
    """The graph starts behind it, at the layer."""
    ours = people(trained(WithoutGradients(dim=DIM)))
    found, expected = (HiResCAM(who, layer="layer3")(photos(ours.model)).cells for who in (ours, plainly(ours)))
    torch.testing.assert_close(found, expected)


class ClassToken(TokenNet):
    """A class token, and a forward that keeps gradients away: by no_grad, or by reentrant checkpoints."""

    how = "no_grad"

    def forward(self, x):
        with torch.no_grad() if self.how == "no_grad" else nullcontext():
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
            for block in self.blocks:
                x = block(x) if self.how == "no_grad" else checkpoint(block, x, use_reentrant=True)
            return self.feature(self.norm(x)[:, 0])


@pytest.mark.parametrize("how", ["no_grad", "reentrant"])
def test_a_class_token_without_gradients_is_looked_at(how):
    net = trained(ClassToken("cls"))
    net.how = how
    classifier = people(net)
    assert doctor(classifier.model)["head"].verdict == "note"
    assert ScoreCAM(classifier, layer="blocks.0")(photos(classifier.model)).cells.any()


# ---- grids -------------------------------------------------------------------------------------------------------


def test_patches_of_nine_pixels_leave_the_last_four_unseen():
    """144 tokens of 9x9 patches are 108 pixels; the map is drawn over all 112."""
    model = FaceModel(trained(ViT()), "insightface")
    assert model.layers["blocks.1"] == (12, 12, 12)
    images = photos(model)
    rows = model.embed(images)
    images[:, :, 108:], images[:, :, :, 108:] = 0, 1
    assert torch.equal(model.embed(images), rows)


def test_auto_takes_the_deepest_map_of_fourteen_rows_of_a_tall_image():
    model = made("MobileFaceNet")
    assert model.layers[model.layer("auto")][1:] == (14, 12)


# ---- a second argument -------------------------------------------------------------------------------------------


def test_a_missing_argument_is_a_finding():
    found = doctor(FaceModel(trained(KPRPE(), keypoints=POINTS.expand(8, -1, -1)), "cvlface"))
    assert "missing 1 required positional argument: 'keypoints'" in found["runs"].found


def test_key_points_are_given_to_every_image_and_matter():
    net = trained(KPRPE(), keypoints=POINTS.expand(8, -1, -1))
    model, other = (FaceModel(net, "cvlface", forward_kwargs={"keypoints": p}) for p in (POINTS, POINTS.flip(-1)))
    images = photos(model, 3)
    torch.testing.assert_close(model.embed(images)[1:2], model.embed(images[1:2]))
    assert (model.embed(images) - other.embed(images)).norm(dim=1).min() > 1e-3
    with torch.no_grad():
        expected = net(2 * images - 1, POINTS.expand(3, -1, -1))
    torch.testing.assert_close(model.outputs(images), expected)
    why = CAM(gallery(model))(images)
    torch.testing.assert_close(why.cells.sum((1, 2)) + why.constant, why.scores, rtol=1e-4, atol=1e-4)
