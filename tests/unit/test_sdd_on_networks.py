"""SDD over explainers: rivals, identities on CAM, edge cases."""

from __future__ import annotations

import pytest
import torch
from nets import GapNet, shaken
from torch import nn

from facexai import CAM, SDD, FaceModel, FaceXAIWarning, HiResCAM, InputSpec


@pytest.fixture
def classifier():
    return FaceModel(shaken(GapNet()).double(), InputSpec(64), output="logits", names=[f"c{i}" for i in range(10)])


@pytest.fixture
def images():
    return torch.rand(4, 3, 64, 64, dtype=torch.float64)


class Shifted(nn.Module):
    """A network whose first logit is target minus the mean of rivals: the theorem about plain differences."""

    def __init__(self, net, target, rivals):
        super().__init__()
        self.net, self.mix = net, nn.Linear(10, 1, bias=False).double()
        row = torch.zeros(10, dtype=torch.float64)
        row[target], row[rivals] = 1.0, -1.0 / len(rivals)
        self.mix.weight.data.copy_(row)

    def forward(self, x):
        return self.mix(self.net(x))


def test_unscaled_sdd_is_the_cam_of_the_mean_difference_of_logits(classifier, images):
    rivals = [1, 4, 7]
    why = SDD(CAM(classifier), rivals=rivals, scale="none", amplify="none")(images, 2)
    mixed = FaceModel(Shifted(classifier.net, 2, rivals), InputSpec(64), output="logits")
    expected = CAM(mixed)(images, 0)
    torch.testing.assert_close(why.cells, 3 * expected.cells, rtol=1e-9, atol=1e-12)


def test_rivals_are_the_next_most_probable_classes(classifier, images):
    why = SDD(CAM(classifier), rivals=4)(images)
    top = classifier.logits(images).topk(5).indices
    assert torch.equal(why.targets, top[:, 0])
    assert torch.equal(why.rivals, top[:, 1:])
    torch.testing.assert_close(why.rival_scores, classifier.logits(images).gather(1, why.rivals))


def test_rivals_of_another_target_include_the_predicted_class(classifier, images):
    predicted = classifier.logits(images).argmax(1)
    why = SDD(CAM(classifier))(images, [(int(p) + 1) % 10 for p in predicted])
    assert torch.equal(why.rivals[:, 0], predicted)


def test_ties_keep_the_order_of_the_index(images):
    net = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), nn.Linear(128, 6))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    why = SDD(CAM(FaceModel(net, InputSpec(64), output="logits")), rivals=3)(images.float())
    assert why.targets.tolist() == [0] * 4
    assert why.rivals.tolist() == [[1, 2, 3]] * 4
    assert (why.cells == 0).all()


def test_named_rivals_and_class_cells(classifier, images):
    why = SDD(HiResCAM(classifier, layer="conv"), rivals=["c3", 5])(images, "c1")
    assert why.rivals.tolist() == [[3, 5]] * 4
    torch.testing.assert_close(why.class_cells[:, 1], HiResCAM(classifier, layer="conv")(images, "c3").cells)


def test_relu_drops_what_speaks_against(classifier, images):
    why = SDD(HiResCAM(classifier, layer="conv"), relu=True)(images)
    assert (why.class_cells >= 0).all()


def test_too_many_rivals_are_cut_with_a_word(classifier, images):
    with pytest.warns(FaceXAIWarning, match="has 9 beside the target"):
        why = SDD(CAM(classifier), rivals=20)(images)
    assert why.rivals.shape == (4, 9)
    assert why.recipe["sdd"]["rivals"] == 9


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda c: SDD(CAM(c), rivals=0), ValueError, "at least one"),
        (lambda c: SDD(CAM(c), rivals=[]), ValueError, "at least one"),
        (lambda c: SDD(CAM(c), rivals="c3"), TypeError, r"\['c3'\]"),
        (lambda c: SDD(c), TypeError, "SDD wraps an explainer"),
        (lambda c: SDD(CAM(c), rivals=["c1"]), ValueError, "among its rivals"),
        (lambda c: SDD(CAM(c), rivals=["c2", 2]), ValueError, "distinct"),
        (lambda c: SDD(CAM(c), rivals=["c22"]), ValueError, "did you mean 'c2'"),
        (lambda c: SDD(CAM(c), rivals=[99]), ValueError, "from 0 to 9"),
        (lambda c: SDD(CAM(c), power=-1), ValueError, "power > 0"),
        (lambda c: SDD(CAM(c), amplify="x"), ValueError, "amplify one of"),
    ],
)
def test_bad_arguments(classifier, images, make, error, message):
    with pytest.raises(error, match=message):
        make(classifier)(images, "c1")


def test_one_class_has_no_rivals():
    net = nn.Sequential(nn.Conv2d(3, 2, 8, stride=8), nn.Flatten(), nn.Linear(128, 1))
    with pytest.raises(ValueError, match="at least two classes"):
        SDD(CAM(FaceModel(net, InputSpec(64), output="logits")))(torch.rand(1, 3, 64, 64))
