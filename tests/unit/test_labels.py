"""Labels are True and False, or 1 and 0; every function that takes labels refuses everything else, and bad scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_methods import Small

from facexai import FaceModel, InputSpec, doctor, functional, metrics
from facexai.functional._labels import labels_of
from facexai.metrics import Protocol
from facexai.metrics.bias import check_groups

COUNT = 20
GOOD = [True, False] * 10
SCORES = [0.9, 0.1] * 10
RULES = ["eer", "accuracy", "far=0.5", 0.5, "0.5"]


def with_bad(value):
    """Labels of which the one in row 3 is bad."""
    return [*GOOD[:3], value, *GOOD[4:]]


def masked(values):
    hidden = np.ma.array(values, mask=False)
    hidden[3] = np.ma.masked
    return hidden


BAD = {
    "impostors as -1": ([1, -1] * 10, "-1 in row 1"),
    "an array of -1": (np.array([1, -1] * 10), "-1 in row 1"),
    "a tensor of -1": (torch.tensor([1.0, -1.0] * 10), r"-1\.0 in row 1"),
    "text of numbers": (["1", "0"] * 10, "'1' in row 0"),
    "an array of text": (np.array(["1", "0"] * 10), "'1' in row 0"),
    "words": (["same", "diff"] * 10, "'same' in row 0"),
    "one text": ("10" * 10, "'1' in row 0"),
    "one word among booleans": (with_bad("True"), "'True' in row 3"),
    "NaN": (with_bad(float("nan")), "nan in row 3"),
    "NaN in an array": (np.array(with_bad(np.nan), dtype=float), "nan in row 3"),
    "NaN in a tensor": (torch.tensor(with_bad(0.0)).double() * torch.tensor(with_bad(torch.nan)), "nan in row 3"),
    "None": (with_bad(None), "None in row 3"),
    "a masked value": (masked(GOOD), "None in row 3"),
    "a half": (with_bad(0.5), "0.5 in row 3"),
    "2": (with_bad(2), "2 in row 3"),
    "infinity": (with_bad(float("inf")), "inf in row 3"),
    "a complex number": (np.array(GOOD, dtype=complex), "in row 0"),
    "a list in a row": (with_bad([True]), r"\[True\] in row 3"),
    "numbers of people": (list(range(COUNT)), "2 in row 2"),
}

KINDS = {
    "booleans": GOOD,
    "tuple": tuple(GOOD),
    "numbers": [1, 0] * 10,
    "floats": [1.0, 0.0] * 10,
    "mixed": [True, 0.0, 1, np.bool_(False)] * 5,
    "scalars of numpy": [np.int64(1), np.float32(0)] * 10,
    "scalars of torch": [torch.tensor(1), torch.tensor(0.0)] * 10,
    "array": np.array(GOOD),
    "small numbers": np.array(GOOD, dtype=np.uint8),
    "half precision": np.array(GOOD, dtype=np.float16),
    "array of objects": np.array(GOOD, dtype=object),
    "tensor": torch.tensor(GOOD),
    "tensor of numbers": torch.tensor([1, 0] * 10),
    "tensor of floats": torch.tensor([1.0, 0.0] * 10, requires_grad=True),
    "tensor of bfloat16": torch.tensor(GOOD).bfloat16(),
    "no mask": np.ma.array(GOOD),
}


class Counted(Small):
    passes = 0

    def forward(self, x):
        type(self).passes += 1
        return super().forward(x)


def network():
    torch.manual_seed(0)
    Counted.passes = 0
    return FaceModel(Counted(size=8).eval(), InputSpec(8))


def unasked(call):
    """The call with labels that are refused before the network runs, and with labels that are not."""

    def checked(same):
        model, generator = network(), torch.Generator().manual_seed(1)
        before = Counted.passes
        first, second = (torch.rand(COUNT, 3, 8, 8, generator=generator) for _ in range(2))
        try:
            return call(model, first, second, same)
        except ValueError:
            assert Counted.passes == before, "labels are checked before the network runs"
            raise

    return checked


MAPS = torch.randn(COUNT, 2, 8, 8, generator=torch.Generator().manual_seed(2))
INDEX = [(i, (i + 1) % COUNT) for i in range(COUNT)]
FAST = Protocol(threshold="accuracy", steps=1)
ROWS = np.random.default_rng(0).random((COUNT, 4))
GROUPS = ["a", "a", "b", "b"] * 5
TAKES = {
    "auc": lambda same: metrics.auc(SCORES, same),
    "roc": lambda same: repr(metrics.roc(SCORES, same)),
    "sweep": lambda same: [row.tolist() for row in functional.sweep(SCORES, same)],
    **{f"threshold, {rule!r}": lambda same, rule=rule: metrics.threshold(SCORES, same, rule) for rule in RULES},
    **{
        f"bias, {rule!r}": lambda same, rule=rule: metrics.bias(
            ROWS, GROUPS, scores=SCORES, same=same, rule=rule, draws=9
        ).record()
        for rule in RULES
    },
    "bias without scores": lambda same: metrics.bias(ROWS, GROUPS, same=same, draws=9).record(),
    **{
        f"check_groups, {rule!r}": lambda same, rule=rule: check_groups(GROUPS, None, same, rule, 9, 0)
        for rule in RULES
    },
    "ten_fold": lambda same: metrics.ten_fold(ROWS, INDEX, same, protocol="facenet").mean,
    "doctor": lambda same: str(unasked(lambda m, a, b, same: doctor(m, (a, b, same)))(same)),
    "verification_deletion": unasked(
        lambda m, a, b, same: metrics.verification_deletion(m, a, b, MAPS, same, FAST, controls=()).auc
    ),
    "verification_insertion": unasked(
        lambda m, a, b, same: metrics.verification_insertion(m, a, b, MAPS, same, FAST, controls=()).auc
    ),
    "pair_faithfulness": unasked(
        lambda m, a, b, same: str(metrics.pair_faithfulness({"one": MAPS}, m, a, b, same, FAST))
    ),
    "shortcut_audit, labels": unasked(
        lambda m, a, b, same: str(metrics.shortcut_audit(lambda x: m.outputs(x)[:, 0], a, b, labels=same))
    ),
    "shortcut_audit, shortcut": unasked(
        lambda m, a, b, same: str(metrics.shortcut_audit(lambda x: m.outputs(x)[:, 0], a, b, shortcut=same))
    ),
}


@pytest.mark.parametrize("function", TAKES)
def test_every_function_refuses_every_other_label(function):
    for name, (labels, told) in BAD.items():
        with pytest.raises(ValueError, match=f"expected only True and False, or 1 and 0, in .*, got .*{told}"):
            pytest.fail(f"{name}: {TAKES[function](labels)}")


@pytest.mark.parametrize("function", TAKES)
def test_every_function_takes_every_kind_of_label(function):
    wanted = TAKES[function](GOOD)
    slow = function in ("doctor", "pair_faithfulness", "shortcut_audit, labels", "shortcut_audit, shortcut")
    for name, labels in list(KINDS.items())[2 :: 4 if slow else 1]:
        assert TAKES[function](labels) == wanted, name


def test_impostors_as_minus_one_were_genuine():
    """Right are no error of either kind; labels of -1 made an FMR of None and an FNMR of .5."""
    asked = {"scores": SCORES, "rule": 0.5, "draws": 9}
    rates = metrics.bias(ROWS, GROUPS, same=[1, 0] * 10, **asked).rates
    assert [(own.fmr, own.fnmr, own.genuine, own.impostor) for own in rates.values()] == [(0.0, 0.0, 5, 5)] * 2
    with pytest.raises(ValueError, match=r"in same, got -1 in row 1; convert the labels first"):
        metrics.bias(ROWS, GROUPS, same=[1, -1] * 10, **asked)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([True, False, 0, 1, 0.0, 1.0, -1, "1", None, float("nan"), 2, "same"]), max_size=8))
def test_the_first_bad_value_is_named(values):
    bad = [i for i, v in enumerate(values) if isinstance(v, str) or v is None or v not in (0, 1)]
    if bad:
        with pytest.raises(ValueError, match=f"got {values[bad[0]]!r} in row {bad[0]};"):
            labels_of(values)
    else:
        assert labels_of(values).tolist() == [bool(v) for v in values]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((2, 1)), r"with True or False for each of the 2 pairs, got shape \(2, 1\)"),
        (np.array(True), r"got shape \(\)"),
        ([True], r"got shape \(1,\)"),
        (None, "as a sequence, an array or a tensor, got NoneType"),
        (True, "got bool"),
        (torch.tensor(1), r"got shape \(\)"),
    ],
)
def test_other_shapes_are_one_clear_error(labels, message):
    with pytest.raises(ValueError, match=message):
        labels_of(labels, 2)


# ---- scores -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), None])
@pytest.mark.parametrize("rule", RULES)
def test_scores_that_are_no_numbers_are_refused_whatever_the_rule(rule, bad):
    scores = [*SCORES[:3], bad, *SCORES[4:]]
    given_as = [scores, np.array(scores, dtype=float), torch.tensor(np.array(scores, dtype=np.float32))]
    for some in given_as if bad is not None else [scores, masked(SCORES)]:
        for function in (metrics.roc, metrics.auc, functional.sweep, lambda a, b: metrics.threshold(a, b, rule)):
            with pytest.raises(ValueError, match="expected finite scores, got NaN or infinity in 1 of 20 pairs"):
                function(some, GOOD)
        with pytest.raises(ValueError, match="expected finite scores"):
            metrics.bias(ROWS, GROUPS, scores=some, same=GOOD, rule=rule, draws=9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e200])
def test_embeddings_that_give_no_distance_are_refused(bad):
    rows = ROWS.copy()
    rows[3, 1] = bad
    with pytest.raises(ValueError, match=r"expected finite embeddings|embedding 3 is too long"):
        metrics.ten_fold(rows, INDEX, GOOD, protocol="facenet")
    with pytest.raises(ValueError, match=r"expected finite flipped|embedding 3 is too long"):
        metrics.ten_fold(ROWS, INDEX, GOOD, flipped=rows)


@pytest.mark.parametrize("rule", RULES)
def test_a_network_without_finite_scores_is_refused_whatever_the_rule(rule):
    class Nonsense:
        def embed(self, images):
            return torch.full((len(images), 2), torch.nan)

    first, second = torch.rand(2, COUNT, 3, 8, 8)
    with pytest.raises(ValueError, match="NaN or infinite embeddings"):
        metrics.verification_deletion(
            Nonsense(), first, second, MAPS, GOOD, Protocol(threshold=0.5 if rule == "0.5" else rule)
        )


def test_a_numbers_scores_and_labels_belong_together():
    assert metrics.threshold([0.1, 0.2], [1, 1], 0.5) == 0.5  # of one kind
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        metrics.threshold([0.1, 0.2], [1], 0.5)
    assert metrics.threshold([0.1, 0.2], None, 0.5) == 0.5
    with pytest.raises(ValueError, match="finite scores"):
        metrics.threshold([0.1, float("nan")], None, 0.5)
