"""Networks that return several tensors: every one is named, with the argument that takes it."""

from __future__ import annotations

import pytest
import torch
from red_faces import RIGHT, Reds, people
from torch import nn

from facexai import FaceModel, FaceXAIWarning, InputSpec, doctor

FACES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Several(Reds):
    """Returns what a function makes of its embedding, (N, 4)."""

    def __init__(self, returns):
        super().__init__()
        self.returns = returns

    def forward(self, x):
        return self.returns(super().forward(x))


def logits(e):
    return torch.cat([0 * e.repeat(1, 24) + 1, e.new_zeros(len(e), 4)], 1) + 1e-3 * e[:, :1]


def test_the_warning_lists_every_tensor_with_its_shape_and_the_argument():
    model = FaceModel(Several(lambda e: (logits(e), e, [e[:, 0]])), RIGHT)
    with pytest.warns(FaceXAIWarning) as caught:
        assert model.embed(FACES).shape == (2, 100)
    words = str(caught[0].message)
    assert "a tuple of 3 with 0: (2, 100), 1: (2, 4), 2.0: (2,)" in words
    assert "took element 0. Say take=0 to agree" in words
    assert "FaceModel(net, spec, take=...)" in words


@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
def test_the_doctor_says_what_each_of_several_tensors_gives_on_faces():
    net, faces = Several(lambda e: (logits(e), e)), people()
    found = doctor(FaceModel(net, RIGHT), faces)
    own = next(v for v in doctor(FaceModel(net, RIGHT, take=1), faces).variants if v.spec == RIGHT)
    assert found["choice"].verdict == "bad"
    assert "take=0 has 100 numbers, AUC" in found["choice"].found
    assert f"take=1 has 4 numbers, AUC {own.auc:.4f}, separation {own.separation:.2f}" in found["choice"].found
    assert "take=..." in found["choice"].advice
    without = doctor(FaceModel(net, RIGHT))
    assert "take=0 has 100 numbers; take=1 has 4 numbers" in without["choice"].found
    assert not without.ok


@pytest.mark.parametrize(
    ("returns", "take"),
    [
        (lambda e: (logits(e), e), 1),  # the user chose
        (lambda e: (e, e[:, :1]), None),  # a length is no embedding
        (lambda e: e, None),
    ],
)
@pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
def test_nothing_is_left_to_choose(returns, take):
    names = [finding.name for finding in doctor(FaceModel(Several(returns), RIGHT, take=take)).findings]
    assert "choice" not in names


@pytest.mark.parametrize(
    ("returns", "take", "fits"),
    [
        (lambda e: {"Age": e[:, 0], "Recognition": e}, "Age", "take='Recognition' (2, 4)"),
        (lambda e: [{"age": e[:, 0]}, {"id": e}], None, "take=lambda output: output[1]['id'] (2, 4)"),
        (lambda e: (e[:1], e), 0, "take=1 (2, 4)"),
        (lambda e: {"Age": 3, "Recognition": e}, "Age", "take='Recognition' (2, 4)"),
    ],
)
def test_a_refusal_names_the_element_that_fits(returns, take, fits):
    with pytest.raises(ValueError, match="expected") as refusal:
        FaceModel(Several(returns), RIGHT, take=take).outputs(FACES)
    assert f"what fits: {fits}" in str(refusal.value)


def test_a_function_that_merges_rows_is_named():
    model = FaceModel.from_callable(lambda x: x.mean((0, 2, 3))[None], InputSpec(16))
    with pytest.raises(ValueError, match="one row for all of its images") as refusal:
        model.embed(FACES)
    assert "batch_size=1" in str(refusal.value)
    alone = FaceModel.from_callable(lambda x: x.mean((0, 2, 3))[None], InputSpec(16), batch_size=1)
    torch.testing.assert_close(alone.embed(FACES), nn.functional.normalize(FACES.mean((2, 3))))
