"""HiResCAM and Grad-CAM against slow literal references, and their refusals."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from nets import Block, FlatNet, GapNet, shaken
from torch import nn

from facexai import CAM, FaceModel, FaceXAIWarning, GradCAM, GradCAMPlusPlus, HiResCAM, InputSpec, LayerCAM, functional


@pytest.fixture
def people():
    model = FaceModel(shaken(FlatNet()).double(), "arcface")
    return model.gallery({f"p{i}": torch.randn(32).double() for i in range(4)}, scale=10.0)


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112, dtype=torch.float64)


def literal(people, images, layer, target, formula, *, cosine=False):
    """One image at a time, by the letter: run to the layer, go on from a leaf, differentiate."""
    net, maps = people.model.net, []
    for image in images:
        x = net.stem(people.model.spec.prepare(image[None]))
        if layer == "layer3":
            x = net.layer3(x)
        a = x.detach().clone().requires_grad_()
        y = net.layer4(a.clone() if layer == "layer3" else net.layer3(a.clone()))
        f = net.features(net.fc(torch.flatten(net.bn2(y), 1)))[0]
        length = f.norm() if cosine else f.norm().detach()
        score = people.scale * (f / length) @ people.templates[target]
        (g,) = torch.autograd.grad(score, a)
        a = a.detach()
        rows = [[formula(a[0, :, i, j], g[0, :, i, j], g[0], a[0]) for j in range(7)] for i in range(7)]
        maps.append(torch.tensor(rows))
    return torch.stack(maps).double()


def hires(a, g, *_):
    return sum(float(x * y) for x, y in zip(a, g, strict=True))


def grad(a, _, g, __):
    return max(0.0, sum(float(x * channel.mean()) for x, channel in zip(a, g, strict=True)))


def layer_cam(a, g, *_):
    return max(0.0, sum(float(x) * max(float(y), 0.0) for x, y in zip(a, g, strict=True)))


def plus_plus(scale):
    """Derivatives of Y = exp(s), s the score without the gallery's scale, whose own second derivative is zero."""

    def formula(a, _, g, whole):
        g = g / scale
        floor, cell = 1e-12 * float((g**2).max()), 0.0
        for k in range(len(a)):
            total, weight = float(whole[k].sum()), 0.0
            for value in g[k].flatten().tolist():
                below = 2 * value**2 + total * value**3
                if value > 0 and below > floor:
                    weight += value**2 / below * value
            cell += weight * float(a[k])
        return max(0.0, cell)

    return formula


@pytest.mark.parametrize("layer", ["stem", "layer3"])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_they_equal_the_letter(people, images, layer, similarity):
    formulas = {HiResCAM: hires, GradCAM: grad, LayerCAM: layer_cam, GradCAMPlusPlus: plus_plus(people.scale)}
    for make, formula in formulas.items():
        why = make(people, layer=layer, similarity=similarity)(images, "p2")
        expected = literal(people, images, layer, 2, formula, cosine=similarity == "cosine")
        torch.testing.assert_close(why.cells, expected, rtol=1e-5, atol=1e-6)


def test_the_scale_of_a_gallery_does_not_change_gradcam_plus_plus(people, images):
    """The score is exponentiated, so its unit counts: cosine, whatever the gallery's scale; logits as they are."""
    louder = dataclasses.replace(people, scale=640.0)
    a, b = (GradCAMPlusPlus(p, layer="layer3")(images, 1) for p in (people, louder))
    torch.testing.assert_close(a.cells, b.cells)
    assert (a.recipe["score_scale"], b.recipe["score_scale"]) == (10.0, 640.0)
    activations, gradients = torch.rand(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    once, scaled = (functional.gradcam_plus_plus(activations, k * gradients) for k in (1, 64))
    assert not torch.allclose(scaled / scaled.max(), once / once.max(), atol=1e-2)


def test_gradcam_plus_plus_stays_finite_where_its_denominator_vanishes():
    activations = torch.tensor([-2.0, -2.0 - 1e-13, -8.0, 0.0]).double().view(1, 4, 1, 1)  # 2 g^2 + A g^3 at g = 1
    cells = functional.gradcam_plus_plus(activations, torch.ones(1, 4, 1, 1).double())
    assert cells.item() == 0.0
    assert not functional.gradcam_plus_plus(activations, torch.zeros(1, 4, 1, 1).double()).any()
    large = functional.gradcam_plus_plus(torch.rand(1, 2, 3, 3), 1e3 * torch.randn(1, 2, 3, 3))
    assert torch.isfinite(large).all()


def test_the_cosine_of_an_identical_pair_has_no_gradient_and_dot_has():
    model = FaceModel(shaken(FlatNet()).double(), "arcface")
    image = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    people = model.gallery({"self": image, "other": torch.randn(32).double()})
    with pytest.warns(FaceXAIWarning, match="is rounding noise"):
        cosine = HiResCAM(people, layer="layer3", similarity="cosine")(image, "self").cells
    dot = HiResCAM(people, layer="layer3")(image, "self").cells
    assert dot.any()
    assert not cosine.any()


def test_logits_have_no_length_to_hold(images):
    model = FaceModel(shaken(GapNet()).double(), InputSpec(112), output="logits")
    a, b = (HiResCAM(model, layer="conv", similarity=s)(images, 1).cells for s in ("dot", "cosine"))
    assert torch.equal(a, b)


class Inner(nn.Module):
    def __init__(self, detach):
        super().__init__()
        self.conv, self.block = nn.Conv2d(3, 4, 16, stride=16), Block(4)
        self.fc, self.aside = nn.Linear(196, 6), nn.Conv2d(3, 4, 16, stride=16)
        self.detach = detach

    def forward(self, x):
        self.aside(x)
        y = self.block(self.conv(x))
        y = y.detach() if self.detach else y
        return self.fc(y.flatten(1))


@pytest.mark.parametrize(
    ("layer", "detach", "message"),
    [
        ("aside", False, "no gradient.*'aside'"),
        ("conv", True, "no gradient.*'conv'"),
        ("fc", False, r"'fc' gives shape \(1, 6\), expected a map"),
        ("convv", False, "did you mean 'conv'"),
        ("", False, "no layer ''"),
    ],
)
def test_layers_that_cannot_be_explained(layer, detach, message):
    model = FaceModel(Inner(detach).eval(), InputSpec(112), output="logits")
    with pytest.raises(ValueError, match=message):
        HiResCAM(model, layer=layer)(torch.rand(1, 3, 112, 112), 0)


def test_unknown_similarity(people):
    with pytest.raises(ValueError, match="'dot' or 'cosine'"):
        GradCAM(people, similarity="l2")


def test_auto_says_which_layer_it_took(people, images):
    assert HiResCAM(people)(images).recipe["layer"] == "layer4"


def test_cam_evidence_is_portable_and_serves_another_gallery(people, images):
    import pickle

    evidence = pickle.loads(pickle.dumps(CAM(people).observe(images)))
    others = people.model.gallery({"x": torch.randn(32).double(), "y": torch.randn(32).double()})
    torch.testing.assert_close(CAM(others).answer(evidence, "y").cells, CAM(others)(images, "y").cells)
    with pytest.raises(TypeError, match="does not pickle"):
        pickle.dumps(HiResCAM(people).observe(images))


def test_evidence_of_another_method_or_layer_is_refused(people, images):
    folded, graph = CAM(people).observe(images), HiResCAM(people, layer="layer3").observe(images)
    for explainer, evidence in ((HiResCAM(people), folded), (CAM(people), graph)):
        with pytest.raises(ValueError, match="another method's"):
            explainer.answer(evidence, 0)
    with pytest.raises(ValueError, match="of layer 'layer3', not 'layer4'"):
        HiResCAM(people, layer="layer4").answer(graph, 0)
    torch.testing.assert_close(  # one look serves both gradient methods
        GradCAM(people, layer="layer3").answer(graph, 0).cells, GradCAM(people, layer="layer3")(images, 0).cells
    )


def test_a_bare_network_is_told_what_to_do(people):
    for explainer in (CAM, HiResCAM, GradCAM, GradCAMPlusPlus, LayerCAM):
        with pytest.raises(TypeError, match=r"FaceModel\(net, spec\)\.gallery"):
            explainer(people.model.net)
    with pytest.raises(TypeError, match="name of a layer"):
        HiResCAM(people, layer=3)(torch.rand(1, 3, 112, 112))


def test_two_galleries_have_two_recipes(people, images):
    other = people.model.gallery({f"p{i}": torch.randn(32).double() for i in range(4)}, scale=10.0)
    recipes = [HiResCAM(p)(images).recipe for p in (people, other)]
    assert recipes[0]["gallery"] != recipes[1]["gallery"]
    assert recipes[0]["fingerprint"] == recipes[1]["fingerprint"]
