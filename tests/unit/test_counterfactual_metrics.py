"""Counterfactuals and shortcuts measured by hand, and what the measures refuse."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import GapNet, shaken
from torch import Tensor, nn

from facexai import FaceModel, InputSpec, decisions, metrics
from facexai.perturb._ties import tie_fields


@dataclass(frozen=True)
class Edited:
    """What the measures ask of a result."""

    images: Tensor
    counterfactuals: Tensor
    masks: Tensor
    before: Tensor
    after: Tensor


def bright(x):
    """Positive where more than half of the picture is white."""
    return 16 * (x.mean((1, 2, 3)) - 0.5)


def edited(images, counterfactuals, decision=bright):
    masks = (images != counterfactuals).any(1)
    return Edited(images, counterfactuals, masks, decision(images), decision(counterfactuals))


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


@pytest.fixture
def four():
    """Four 2x2 pictures: the first two lose their white pixels, the third gets one that does not suffice."""
    images, others = torch.zeros(4, 3, 2, 2), torch.zeros(4, 3, 2, 2)
    images[0], images[1] = 1, 0.75
    others[1, :, 0] = 0.75
    others[2, :, 0, 0] = 0.5
    return edited(images, others)


# ---- quality ------------------------------------------------------------------------------------------------------


def test_edits_by_hand(four):
    found = metrics.counterfactual(four)
    np.testing.assert_array_equal(found.flipped.values, [1, 1, 0, 0])
    np.testing.assert_allclose(found.l0.values, [1, 0.5, 0.25, 0])
    np.testing.assert_allclose(found.l1.values, [1, 0.375, 0.125, 0])
    np.testing.assert_allclose(found.l2.values, [1, 0.75 * 0.5**0.5, 0.25, 0])
    np.testing.assert_allclose(found.area.values, found.l0.values)
    assert found.flip_rate == 0.5
    assert (found.cout, found.identity, found.held_out, found.held_out_rate) == (None, None, None, None)
    assert found.columns()["L1"] == found.l1.mean
    assert found.columns()["COUT"] is None
    assert "4 images: 50% changed the decision, 43.8% of the pixels" in repr(found)


def test_one_colour_is_a_changed_pixel():
    images = torch.full((1, 3, 2, 2), 0.5)
    others = images.clone()
    others[0, 1, 0, 0] = 0.8
    found = metrics.counterfactual(edited(images, others))
    assert found.l0.mean == 0.25
    assert found.l1.mean == pytest.approx(0.3 / 12)
    assert found.l2.mean == pytest.approx(0.3 / 12**0.5)


def test_cout_by_hand():
    """One of four white pixels decides; the steps show 0, 2 and 4 pixels of the edit."""
    images, others = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    others[0, :, 0, 0], others[0, :, 1, 1], others[0, :, 0, 1] = 1, 0.9, 0.5

    def one(x):
        return 8 * x[:, 0, 0, 0] - 2 + 0 * x.sum((1, 2, 3)) + x[:, 0, 0, 1]

    p = sigmoid([-2, 6, 6.5])  # yes, the new answer, with 0, 2 and 3 changed pixels
    curve = 2 * p - 1
    expected = (curve[0] + curve[1]) / 4 + (curve[1] + curve[2]) / 4
    assert metrics.cout(one, images, others, steps=2) == pytest.approx(expected)
    back = metrics.cout(lambda x: -one(x), images, others, steps=2)
    assert back == pytest.approx(expected)
    found = metrics.counterfactual(edited(images, others, one), decision=one, steps=2)
    assert found.cout.mean == pytest.approx(expected)
    assert found.recipe["steps"] == 2


def test_an_edit_of_nothing_keeps_the_old_answer():
    images = torch.rand(3, 3, 4, 4)
    p = sigmoid(bright(images).abs())
    np.testing.assert_allclose(metrics.cout(bright, images, images.clone()), 1 - 2 * p, rtol=1e-6)


def literal_cout(decision, image, other, steps):
    """Step after step, pixel after pixel."""
    away = (other - image).abs().sum(1).flatten()
    order = sorted(range(len(away)), key=lambda k: (-float(away[k]), k))
    old, curve, shares = float(decision(image)) > 0, [], []
    for k in range(steps + 1):
        count = round(k * len(order) / steps)
        mixed = image.clone()
        for pixel in order[:count]:
            mixed.flatten(2)[:, :, pixel] = other.flatten(2)[:, :, pixel]
        yes = float(decision(mixed).double().sigmoid())
        curve.append((1 - yes if old else yes) - (yes if old else 1 - yes))
        shares.append(count / len(order))
    return np.trapezoid(curve, shares)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 7))
def test_cout_is_that_of_the_literal_loop(seed, steps, batch_size):
    drawn = torch.Generator().manual_seed(seed)
    images = torch.rand(3, 3, 3, 4, generator=drawn)
    others = torch.where(torch.rand(3, 1, 3, 4, generator=drawn) < 0.5, images, torch.rand(3, 3, 3, 4, generator=drawn))
    weights = 30 * torch.randn(3, 3, 4, generator=drawn)

    def decision(x):
        return ((x - 0.5) * weights).sum((1, 2, 3))

    found = metrics.cout(decision, images, others, steps, batch_size)
    expected = [literal_cout(decision, images[i : i + 1], others[i : i + 1], steps) for i in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (np.abs(found) <= 1).all()


def test_cout_asks_no_picture_twice():
    images, others = torch.zeros(2, 3, 10, 10), torch.zeros(2, 3, 10, 10)
    others[0, :, 0, :4] = 1
    asked = []

    def counted(x):
        asked.append(len(x))
        return bright(x)

    metrics.cout(counted, images, others, steps=50)
    assert 0 not in asked
    # which two of the four equal pixels changes nothing here, so that four fields suffice
    ways = {frozenset(field.flatten()[:4].argsort()[-2:].tolist()) for field in tie_fields((10, 10), 0)}
    assert sum(asked) == 2 + len(ways) + 1  # 0, 4 and two of the four pixels of the first, nothing of the second


class Twisted:
    """A decision that holds a sign for each image."""

    def __init__(self, signs):
        self.signs = signs

    def rows(self, index):
        return Twisted(self.signs[index])

    def __call__(self, x):
        return self.signs * bright(x)


def test_a_decision_that_holds_something_for_each_image(four):
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    twisted = metrics.counterfactual(four, decision=Twisted(signs), held_out=Twisted(signs), steps=4, batch_size=3)
    plain = metrics.counterfactual(four, decision=bright, held_out=bright, steps=4)
    np.testing.assert_allclose(twisted.cout.values, plain.cout.values)
    np.testing.assert_array_equal(plain.held_out.values, [1, 1])
    np.testing.assert_array_equal(twisted.held_out.values, [1, 0])  # changed too, the other way
    np.testing.assert_array_equal(twisted.held_out.items, [0, 1])


def test_held_out_by_hand(four):
    # of the first two, whose decision changed, this one sees the first change only
    first = metrics.counterfactual(four, held_out=lambda x: x.mean((1, 2, 3)) - 0.9, identities=["a", "b", "a", "b"])
    np.testing.assert_array_equal(first.held_out.values, [1, 0])
    assert first.held_out.identities == ("a", "b")
    assert first.held_out_rate == 0.5
    none = dataclasses.replace(four, after=four.before)
    assert metrics.counterfactual(none, held_out=bright).held_out is None


def test_identity_is_the_cosine_of_embeddings():
    model = FaceModel(shaken(GapNet(16)), InputSpec(64))
    images, others = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    others[1] = images[1]
    found = metrics.counterfactual(edited(images, others), embedder=model, batch_size=2)
    expected = (model.embed(images) * model.embed(others)).sum(1)
    np.testing.assert_allclose(found.identity.values, expected, rtol=1e-5)
    assert found.identity.values[1] == pytest.approx(1)
    assert found.recipe["embedder"] == model.fingerprint
    small, smaller = (decisions.resized(x, (48, 48)).clamp(0, 1) for x in (images, others))
    again = metrics.counterfactual(edited(small, smaller), embedder=model)
    resized = [model.embed(decisions.resized(x, (64, 64))) for x in (small, smaller)]
    np.testing.assert_allclose(again.identity.values, (resized[0] * resized[1]).sum(1), rtol=1e-5)


def test_qualities_of_parts_add(four):
    def part(which, items):
        rows = Edited(*(getattr(four, field.name)[which] for field in dataclasses.fields(four)))
        return metrics.counterfactual(rows, decision=bright, held_out=bright, steps=4, items=items)

    whole = part(slice(0, 4), None)
    both = part([1, 3], [1, 3]) + part([0, 2], [0, 2])
    for field in dataclasses.fields(whole):
        mine, theirs = getattr(whole, field.name), getattr(both, field.name)
        if isinstance(mine, metrics.Statistic):
            np.testing.assert_array_equal(mine.values, theirs.values)
            np.testing.assert_array_equal(mine.items, theirs.items)
    unchanged = part([2, 3], [2, 3])
    assert unchanged.held_out is None
    np.testing.assert_array_equal((unchanged + part([0, 1], [0, 1])).held_out.values, [1, 1])
    with pytest.raises(ValueError, match="different recipes"):
        _ = whole + metrics.counterfactual(four)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"counterfactuals": torch.zeros(4, 3, 2, 3)}, {}, ValueError, "one shape"),
        ({"images": np.zeros((4, 3, 2, 2))}, {}, ValueError, "got ndarray"),
        ({"counterfactuals": torch.full((4, 3, 2, 2), 2.0)}, {}, ValueError, r"in \[0, 1\]"),
        ({"counterfactuals": torch.full((4, 3, 2, 2), float("nan"))}, {}, ValueError, "NaN"),
        ({"masks": torch.zeros(4, 2, 2)}, {}, TypeError, "boolean masks"),
        ({"masks": torch.zeros(4, 1, 2, 2, dtype=torch.bool)}, {}, ValueError, r"masks \(4, 2, 2\)"),
        ({"after": torch.zeros(3)}, {}, ValueError, "4 scores"),
        ({"before": torch.full((4,), float("nan"))}, {}, ValueError, "finite scores"),
        ({}, {"steps": 0, "decision": bright}, ValueError, "at least one step"),
        ({}, {"items": [0, 1]}, ValueError, "one item number"),
        ({}, {"identities": ["a"]}, ValueError, "one identity for each of the 4 images"),
        ({}, {"decision": lambda x: x.mean((2, 3))}, ValueError, "one logit per image"),
    ],
)
def test_results_that_are_refused(four, change, options, error, message):
    with pytest.raises(error, match=message):
        metrics.counterfactual(dataclasses.replace(four, **change), **options)


# ---- shortcuts ----------------------------------------------------------------------------------------------------


def white(values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 2, 2).clone()


def mark(x):
    """A decision that follows the first pixel, the shortcut, and a little the rest."""
    return 4 * x[:, 0, 0, 0] - 2 + 2 * x[:, 0, 1, 1]


@pytest.fixture
def study():
    """Four pictures of two tasks; the first and the third have the shortcut, the counterparts the opposite."""
    images = white([0.0, 0.0, 0.5, 0.5])
    images[:, :, 0, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None]
    others = images.clone()
    others[:, :, 0, 0] = 1 - images[:, :, 0, 0]
    return images, others


def test_a_mad_of_decisions(study):
    images, others = study
    found = metrics.mad(mark, images, others)
    p, q = sigmoid([2, -2, 3, -1]), sigmoid([-2, 2, -1, 3])
    np.testing.assert_allclose(found.signed.values, p - q, rtol=1e-6)
    np.testing.assert_allclose(found.absolute.values, abs(p - q), rtol=1e-6)
    still = metrics.mad(mark, images, images.clone())
    assert (still.mad, still.md, still.p_value) == (0, 0, 1)
    # two logits 0 and s have the softmax that one logit s has as sigmoid
    classifier = FaceModel(Two(), InputSpec(2), output="logits")
    np.testing.assert_allclose(metrics.mad(classifier, images, others, 1).signed.values, p - q, rtol=1e-5)
    with pytest.raises(ValueError, match="no classes, got the class 1"):
        metrics.mad(mark, images, others, 1)


class Two(nn.Module):
    def forward(self, x):
        return torch.stack([0 * mark(x), mark(x)], 1)


class Named(nn.Module):
    """A network with one output that calls its last layer logits, as some do."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(12, 1)

    def forward(self, x):
        return self.logits(x.flatten(1))


def test_a_layer_called_logits_makes_no_classifier(study):
    net = Named()
    found = metrics.mad(net, *study)
    p, q = (decisions.score_batched(net, x).sigmoid() for x in study)
    np.testing.assert_allclose(found.signed.values, p - q)


def test_an_audit_by_hand(study):
    images, others = study
    noise = (images + 0.05).clamp(0, 1)
    people = ["a", "b", "c", "d"]
    kinds = {"labels": [0, 0, 1, 1], "shortcut": torch.tensor([1, 0, 1, 0])}
    audit = metrics.shortcut_audit(mark, images, others, no_op=noise, identities=people, **kinds)
    p, q, r = sigmoid([2, -2, 3, -1]), sigmoid([-2, 2, -1, 3]), sigmoid([2.1, -1.7, 3.1, -0.7])
    np.testing.assert_allclose(audit.mad.absolute.values, abs(p - q), rtol=1e-6)
    np.testing.assert_allclose(audit.no_op.signed.values, p - r, rtol=1e-5)
    np.testing.assert_allclose(audit.beyond_no_op.values, abs(p - q) - abs(p - r), rtol=1e-5)
    assert audit.beyond_no_op_p_value == pytest.approx(2 / 16)  # all four more than the control: 2 of 16 patterns
    np.testing.assert_allclose(audit.by_shortcut[1].signed.values, (p - q)[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(audit.by_shortcut[0].signed.values, (p - q)[[1, 3]], rtol=1e-6)
    assert audit.by_shortcut[1].md > 0 > audit.by_shortcut[0].md
    np.testing.assert_allclose(audit.directed.values, (p - q) * [1, -1, 1, -1], rtol=1e-6)
    assert "with minus without" in audit.text()
    # 2 and -2 are of no, 3 and -1 of yes; the counterparts have -2, 2 and -1, 3
    assert (audit.auroc.before, audit.auroc.after) == (0.75, 0.75)
    assert audit.auroc.interval[0] <= 0 <= audit.auroc.interval[1]
    text = audit.text()
    assert repr(audit) == text
    for word in ("4 images of 4 people", "no-op control", "p = 0.12", "without the shortcut", "AUROC, counterparts"):
        assert word in text


def test_an_audit_of_a_shortcut_that_decides(study):
    images, others = study
    audit = metrics.shortcut_audit(lambda x: 8 * x[:, 0, 0, 0] - 4, images, others, labels=[1, 0, 1, 0])
    assert (audit.auroc.before, audit.auroc.after) == (1, 0)
    assert audit.auroc.interval == (-1, -1)
    one = metrics.shortcut_audit(mark, images, others, labels=[1, 0, 1, 0], identities=["a"] * 4)
    assert one.auroc.interval is None
    assert one.text()


def test_an_audit_without_anything_else(study):
    images, _ = study
    audit = metrics.shortcut_audit(mark, images, images.clone())
    assert audit.mad.mad == 0
    assert (audit.no_op, audit.beyond_no_op, audit.beyond_no_op_p_value, audit.auroc) == (None, None, None, None)
    assert audit.by_shortcut == {}
    assert audit.directed is None
    assert len(audit.text().splitlines()) == 3
    same = metrics.shortcut_audit(mark, images, images, no_op=images, labels=[1] * 4, shortcut=[1] * 4)
    assert same.beyond_no_op_p_value == 1
    assert same.auroc is None
    assert list(same.by_shortcut) == [1]


def test_audits_of_parts_add(study):
    def part(which):
        kinds = {"labels": np.array([0, 0, 1, 1])[which], "shortcut": np.array([1, 0, 1, 0])[which]}
        people = [["a", "b", "a", "b"][k] for k in which]
        images, others = (x[which] for x in study)
        return metrics.shortcut_audit(mark, images, others, no_op=images, items=which, identities=people, **kinds)

    whole, both = part([0, 1, 2, 3]), part([3, 0]) + part([2, 1])
    assert both.text() == whole.text()
    np.testing.assert_array_equal(both.before.values, whole.before.values)
    with pytest.raises(ValueError, match="labels and the other does not"):
        _ = part([0, 1]) + metrics.shortcut_audit(
            mark, *(x[2:] for x in study), no_op=study[0][2:], items=[2, 3], identities=["a", "b"]
        )


def test_an_audit_of_a_classifier(study):
    images, others = study
    classifier = FaceModel(Two(), InputSpec(2), output="logits")
    audit = metrics.shortcut_audit(classifier, images, others, target=1)
    decided = metrics.shortcut_audit(decisions.of_class(classifier, 1), images, others)
    np.testing.assert_allclose(audit.before.values, decided.before.values, rtol=1e-5)
    np.testing.assert_allclose(audit.mad.signed.values, decided.mad.signed.values, rtol=1e-5)
    with pytest.raises(ValueError, match="say which one"):
        metrics.shortcut_audit(classifier, images, others)
    with pytest.raises(ValueError, match="from 0 to 1"):
        metrics.shortcut_audit(classifier, images, others, target=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 1, 2, 1]}, "in labels, got 2 in row 2"),
        ({"labels": [0, 1]}, "True or False for each of the 4 images"),
        ({"shortcut": [0.5] * 4}, "in shortcut, got 0.5 in row 0"),
        ({"no_op": torch.zeros(4, 3, 2, 3)}, "same shape"),
        ({"counterparts": torch.zeros(3, 3, 2, 2)}, "same shape"),
        ({"target": 1}, "no classes"),
    ],
)
def test_audits_that_are_refused(study, options, message):
    given = {"counterparts": study[1], **options}
    with pytest.raises(ValueError, match=message):
        metrics.shortcut_audit(mark, study[0], given.pop("counterparts"), **given)


def test_aurocs_do_not_saturate():
    images = torch.linspace(0.4, 0.9, 8)[:, None, None, None].expand(8, 3, 2, 2)
    labels = [0] * 4 + [1] * 4
    audit = metrics.shortcut_audit(lambda x: 400 * x.mean((1, 2, 3)), images, images.flip(0), labels=labels)
    assert (audit.auroc.before, audit.auroc.after) == (1.0, 0.0)


def test_pixels_beyond_one_are_refused():
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.mad(lambda x: x.mean((1, 2, 3)), images * 255, images * 200)
