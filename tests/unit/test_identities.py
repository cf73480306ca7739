"""Unknown people count as people of their own wherever identities are taken."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_methods import Small
from torch import nn

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, Saliency, metrics
from facexai.metrics import Protocol, Statistic
from facexai.metrics._identities import people_of

MARKERS = [None, float("nan"), "", "  ", np.nan, np.float32("nan"), np.datetime64("NaT"), torch.tensor(torch.nan)]
PEOPLE = ["ann", None, float("nan"), "bo", "", "ann"]
NAMED = ["ann", "v1", "v2", "bo", "v4", "ann"]
"""The same people by names that sort as those of unknown people, since the order of people decides what is drawn."""

few = settings(max_examples=40, deadline=None)
markers = st.sampled_from(MARKERS)


@st.composite
def identities(draw):
    """Identities with and without unknown people, and the same with a unique name for each of them."""
    known = draw(st.lists(st.sampled_from(["ann", "bo", "cy", "?"]), min_size=2, max_size=12))
    given_names = [draw(markers) if name == "?" else name for name in known]
    return given_names, [f"v{i}" if name == "?" else name for i, name in enumerate(known)]


@few
@given(identities())
def test_each_unknown_person_counts_as_a_person_of_their_own(people):
    unknown, named = people
    values = np.random.default_rng(len(named)).normal(size=len(named))
    one, other = Statistic.of(values, identities=unknown), Statistic.of(values, identities=named)
    assert len(set(one.identities)) == len(set(named))
    assert one.bootstrap(draws=50) == other.bootstrap(draws=50)
    zero = Statistic.of(np.zeros(len(values)), identities=unknown)
    assert one.p_value(zero) == other.p_value(Statistic.of(zero.values, identities=named))


@few
@given(identities(), st.randoms(use_true_random=False))
def test_which_markers_stand_for_the_unknown_changes_nothing(people, random):
    unknown, named = people
    places = [i for i, name in enumerate(named) if name[0] == "v"]
    changed = list(unknown)
    for i, other in zip(places, random.sample(places, len(places)), strict=True):
        changed[i] = unknown[other]  # permuted
    renamed = [random.choice(MARKERS) if i in places else name for i, name in enumerate(named)]
    values = np.arange(len(named)) ** 2.0
    found = Statistic.of(values, identities=unknown)
    for same in (changed, renamed):
        again = Statistic.of(values, identities=same)
        assert again.identities == found.identities


@few
@given(identities(), st.integers(1, 11), st.booleans())
def test_parts_add_to_the_whole(people, cut, restart):
    """Unknown people of two parts stay different people, also where a part is built of the names of another."""
    unknown, _ = people
    cut = min(cut, len(unknown) - 1)
    values, items = np.arange(len(unknown)) ** 2.0, np.arange(len(unknown))
    whole = Statistic.of(values, identities=unknown)
    parts = [Statistic.of(values[s], items=items[s], identities=unknown[s]) for s in (slice(cut), slice(cut, None))]
    if restart:
        parts = [Statistic.of(part.values, items=part.items, identities=part.identities) for part in parts]
    for joined in (parts[0] + parts[1], parts[1] + parts[0]):
        assert joined.identities == whole.identities
        assert joined.bootstrap(draws=50) == whole.bootstrap(draws=50)


def test_a_statistic_that_is_built_by_hand_follows_the_rule():
    built = Statistic(np.array([1.0, 2.0, 4.0]), np.arange(3), (None, "", "ann"))
    assert built.identities == ("unknown person, item 0", "unknown person, item 1", "ann")
    assert "3" in built._repr_html_()


@pytest.mark.parametrize("marker", [None, float("nan"), ""])
def test_eighteen_unknown_people_are_not_one(marker):
    """Two groups of 20 rows; of the first, 18 people are unknown."""
    rows = np.random.default_rng(4).random((40, 6))
    groups = ["a"] * 20 + ["b"] * 20
    known = [f"b{i}" for i in range(20)]
    found = metrics.bias(rows, groups, identities=["ann", "bo", *[marker] * 18, *known], draws=199)
    named = metrics.bias(rows, groups, identities=["ann", "bo", *(f"v{i}" for i in range(2, 20)), *known], draws=199)
    assert found.people == {"a": 20, "b": 20}
    assert found.record() == named.record()
    merged = metrics.bias(rows, groups, identities=["ann", "bo", *["v"] * 18, *known], draws=199)
    assert merged.people == {"a": 3, "b": 20}  # the difference is large enough to be seen
    assert abs(merged.p_value - found.p_value) > 0.1
    alone = metrics.bias(rows, groups, draws=199)
    assert metrics.bias(rows, groups, identities=[marker] * 40, draws=199).record() == alone.record()


def test_names_are_text_and_numbers_have_one_name():
    numbers = [7, 7.0, np.int64(7), np.float32(7), torch.tensor(7), "7", np.array(7)]
    assert set(people_of(numbers, range(7))) == {"7"}
    column = np.array([1.0, np.nan, 1.0])  # whole numbers beside a missing one become floats
    assert people_of(column, [5, 6, 7]) == ("1", "unknown person, item 6", "1")
    assert people_of(torch.tensor([1, 2]), range(2)) == ("1", "2")
    masked = np.ma.array(["ann", "ann"], mask=[False, True])
    assert people_of(masked, range(2)) == ("ann", "unknown person, item 1")
    assert people_of((name for name in ("ann", "bo")), range(2)) == ("ann", "bo")
    assert people_of([0, False, 0.5, "nan"], range(4)) == ("0", "False", "0.5", "nan")


class Missing:
    """As pandas.NA: it equals nothing and has no truth value."""

    def __ne__(self, other):
        return self

    __eq__ = __ne__
    __hash__ = None

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def test_missing_values_of_tables_are_unknown():
    assert people_of([Missing(), np.ma.masked, b" "], range(3)) == people_of([None] * 3, range(3))


@pytest.mark.parametrize(
    ("given_names", "message"),
    [
        ([], "one identity for each of the 3 images, got 0; pass None for an unknown person"),
        (["a", "b"], "for each of the 3 images, got 2"),
        ("abc", "a sequence with one identity for each of the 3 images, got str"),
        ({"a": 1, "b": 2, "c": 3}, "got dict"),
        ({"a", "b", "c"}, "got set"),
        (3, "got int"),
        (np.array("abc"), "got ndarray"),
        ([["a"], ["b"], ["c"]], "one identity per row, row 0 has a list of 1"),
        (np.array([["a"], ["b"], ["c"]]), "row 0 has a list of 1"),
        (["a", "b", "unknown person, item 1"], "unknown person of another item than 2, the item of row 2"),
    ],
)
def test_what_is_no_row_of_identities_is_one_clear_error(given_names, message):
    with pytest.raises(ValueError, match=message):
        Statistic.of([1.0, 2.0, 3.0], identities=given_names)


def test_the_next_other_person():
    assert metrics.other_identity_index(3, [None, "", float("nan")]) == [1, 2, 0]
    assert metrics.other_identity_index(3, ["a", None, "a"]) == [1, 2, 1]
    with pytest.raises(ValueError, match="each of the 3 images, got 2"):
        metrics.other_identity_index(3, ["a", "b"])


# ---- every metric that takes identities --------------------------------------------------------------------------


class Halves:
    """A classifier of the left and the right half, which counts its passes."""

    passes = 0

    def logits(self, images):
        self.passes += 1
        half = images.shape[-1] // 2
        return 4 * torch.stack([images[..., :half].mean((1, 2, 3)), images[..., half:].mean((1, 2, 3))], 1)


class Logits(nn.Module):
    def __init__(self):
        super().__init__()
        self.passes, self.fc = 0, nn.Linear(192, 3)

    def forward(self, x):
        self.passes += 1
        return self.fc(x.flatten(1))


class Edited:
    def __init__(self, images, edited):
        self.images, self.counterfactuals, self.masks = images, edited, (images != edited).any(1)
        self.before, self.after = torch.tensor([1.0] * len(images)), torch.tensor([-1.0] * len(images))


def explain(images, targets=None):
    targets = torch.arange(len(images)) % 2 if targets is None else targets
    return Saliency(images.mean(1) * torch.rand(8, 8), (8, 8), targets, torch.zeros(len(images)))


def pair_call(name, **more):
    def call(identities):
        torch.manual_seed(0)
        model = FaceModel(Small(size=8), InputSpec(8))
        first, second, maps = torch.rand(6, 3, 8, 8), torch.rand(6, 3, 8, 8), torch.randn(6, 2, 8, 8)
        argument = {"maps": maps} if "verification" in name else {"methods": {"one": maps}}
        how = Protocol(threshold=0.3, steps=2, pairs="genuine" if more else "all")
        same = [1, 1, 1, 1, 1, 0]
        given = {"model": model, "first": first, "second": second, "same": same, "protocol": how}
        others = [*identities[:5], "zoe"] if len(identities) == 6 else None  # of the only pair of two people
        return getattr(metrics, name)(**argument, **given, identities=identities, partners=others)

    return call


def class_call(name, **more):
    def call(identities):
        torch.manual_seed(0)
        images, asked = torch.rand(6, 3, 8, 8), Halves()
        try:
            return getattr(metrics, name)(asked, images, torch.rand(6, 8, 8), identities=identities, **more)
        except ValueError:
            assert asked.passes == 0, "identities are checked before the network runs"
            raise

    return call


def faithfulness(identities):
    torch.manual_seed(0)
    images, passes = torch.rand(6, 3, 8, 8), []

    def explainer(images):
        passes.append(1)
        return explain(images)

    try:
        return metrics.faithfulness({"one": explainer}, Halves(), images, steps=1, identities=identities)
    except ValueError:
        assert not passes
        raise


def located(name, *, table=False):
    def call(identities):
        torch.manual_seed(0)
        maps, masks = torch.rand(6, 8, 8), torch.rand(6, 8, 8) < 0.3
        return getattr(metrics, name)({"one": maps} if table else maps, masks, identities=identities)

    return call


def sanity(name):
    def call(identities):
        torch.manual_seed(0)
        model = FaceModel(Logits(), InputSpec(8), output="logits")
        images, targets, calls = torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.long), []

        def explainer(images, targets):
            calls.append(1)
            return explain(images, targets)

        try:
            if name == "stability":
                return metrics.stability(explainer, images, targets, draws=1, identities=identities)
            return metrics.randomisation(lambda c: explainer, model, images, targets, identities=identities)
        except ValueError:
            assert not calls
            raise

    return call


def counterfactual(identities):
    torch.manual_seed(0)
    images, passes = torch.rand(6, 3, 8, 8), []

    def held_out(images):
        passes.append(1)
        return images.mean((1, 2, 3)) - 0.5

    try:
        return metrics.counterfactual(Edited(images, 1 - images), held_out=held_out, identities=identities)
    except ValueError:
        assert not passes
        raise


def shortcut(name):
    def call(identities):
        torch.manual_seed(0)
        images, passes = torch.rand(6, 3, 8, 8), []

        def decide(images):
            passes.append(1)
            return images.mean((1, 2, 3)) - 0.5

        more = {"labels": [1, 0] * 3, "shortcut": [1, 1, 1, 0, 0, 0]} if name == "shortcut_audit" else {}
        try:
            return getattr(metrics, name)(decide, images, 1 - images, identities=identities, **more)
        except ValueError:
            assert not passes
            raise

    return call


def overlap(identities):
    torch.manual_seed(0)
    cells = torch.rand(6, 2, 4, 4)
    why = Saliency(cells[:, 0], (8, 8), torch.zeros(6, dtype=torch.long), torch.zeros(6), class_cells=cells)
    return metrics.class_overlap(why, identities=identities)


def bias(identities):
    rows = np.random.default_rng(0).random((6, 4))
    return metrics.bias(rows, ["a", "a", "b", "b", "b", "a"], identities=identities, draws=19)


CALLS = {
    **{name: class_call(name) for name in ("deletion", "retention", "prediction_change")},
    **{name: class_call(name, steps=2) for name in ("insertion", "deletion_curve")},
    **{name: pair_call(name) for name in ("verification_deletion", "verification_insertion", "pair_faithfulness")},
    "verification_deletion, genuine": pair_call("verification_deletion", genuine=True),
    **{name: located(name) for name in ("top_share", "pointing", "average_precision")},
    "localisation": located("localisation", table=True),
    **{name: sanity(name) for name in ("stability", "randomisation")},
    **{name: shortcut(name) for name in ("mad", "shortcut_audit")},
    "faithfulness": faithfulness,
    "narrowness": lambda identities: metrics.narrowness(
        torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0)), identities=identities
    ),
    "class_overlap": overlap,
    "counterfactual": counterfactual,
    "bias": bias,
}


def numbers(result):
    """Everything that a result says: its statistics with their intervals and numbers of people, its rows, its text."""
    if isinstance(result, Statistic):
        return [result.values.tolist(), result.interval, len({*result.identities, *(result.partners or ())})]
    if isinstance(result, metrics.Bias):
        return result.record()
    if isinstance(result, Mapping):
        return {name: numbers(value) for name, value in result.items()}
    if isinstance(result, tuple | list):
        return [numbers(value) for value in result]
    if dataclasses.is_dataclass(result):
        fields = {field.name: numbers(getattr(result, field.name)) for field in dataclasses.fields(result)}
        properties = {name: numbers(getattr(result, name, None)) for name in ("auroc", "by_shortcut", "specific")}
        return {**fields, **properties, "text": re.sub(r"unknown person, item (\d)", r"v\1", str(result))}
    return result.tolist() if hasattr(result, "tolist") else result


def test_every_metric_is_asked():
    """A metric with an argument ``identities``, or with options that hold it, is in the table of calls."""
    functions = {name: asked for name in metrics.__all__ if inspect.isfunction(asked := getattr(metrics, name))}
    taking = {
        name
        for name, asked in functions.items()
        if {"identities", "options"} & inspect.signature(asked).parameters.keys()
    }
    assert taking - {"other_identity_index", "pair_bias"} == {name.partition(",")[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
def test_every_metric_counts_unknown_people_each(name):
    found, named = numbers(CALLS[name](PEOPLE)), numbers(CALLS[name](NAMED))
    np.testing.assert_equal(found, named)
    again = numbers(CALLS[name](["ann", "", None, "bo", np.nan, "ann"]))
    np.testing.assert_equal(found, again)
    with pytest.raises(ValueError, match=r"one identity for each of the 6 (images|pairs|rows), got 0"):
        CALLS[name]([])


def test_unknown_people_are_partners_of_each_other():
    """With all people unknown the controls of another person exist; as one person they did not."""
    gone = CALLS["deletion"]([None] * 6)
    assert gone.controls["other-image"] is not None
    assert gone.probability.interval == CALLS["deletion"]([f"v{i}" for i in range(6)]).probability.interval
    assert CALLS["verification_deletion"]([""] * 6).controls["other-pair"] is not None
    rows = CALLS["localisation"]([None] * 6).rows
    assert "other-pair of one" in [row["map"] for row in rows]


def test_a_table_of_methods_draws_people_for_every_interval():
    """Also for the widths of the maps, as a run over a data set does."""
    people = ["ann"] * 3 + ["bo"] * 3
    torch.manual_seed(0)
    images = torch.rand(6, 3, 8, 8)
    why = explain(images)
    table = metrics.faithfulness({"one": why}, Halves(), images, steps=0, identities=people)
    wanted = metrics.narrowness(why, identities=people).half_mass.interval
    assert table.rows[0]["half of the mass interval"] == wanted
    assert wanted != metrics.narrowness(why).half_mass.interval


def test_results_of_parts_with_unknown_people_add():
    torch.manual_seed(0)
    images, maps = torch.rand(6, 3, 8, 8), torch.rand(6, 8, 8)
    reference = metrics.Reference(metrics.mean_map(maps), maps[metrics.other_identity_index(6, PEOPLE)])

    def measured(items):
        rows = metrics.Reference(reference.mean_map, reference.other_maps[items])
        people = [PEOPLE[i] for i in items]
        return metrics.deletion(
            Halves(), images[items], maps[items], identities=people, items=items, reference=rows, batch_size=1
        )

    whole = measured(range(6))
    for cut in (2, 3):
        parts = [measured(list(part)) for part in (range(cut), range(cut, 6))]
        joined = parts[1] + parts[0]
        for one, other in ((joined, whole), (joined.controls["other-image"], whole.controls["other-image"])):
            np.testing.assert_array_equal(one.values, other.values)
            assert one.probability.identities == other.probability.identities
        assert joined.interval == whole.interval


def test_heat_plots_of_unknown_people():
    model = FaceModel(Small().eval(), InputSpec(20))
    heat = FrequencyHeatPlot(model)(torch.rand(8, 3, 20, 20), torch.rand(8, 3, 20, 20))
    found = metrics.bias(heat, ["a", "b"] * 4, identities=[None] * 8, same=[1, 0] * 4, rule=0.5, draws=19)
    assert dict(found.people) == {"a": 4, "b": 8}  # the pairs of group b are of two people each
    assert "4 people" in repr(found)


def test_every_order_of_markers_is_the_same_people():
    for order in itertools.permutations([None, float("nan"), ""]):
        assert people_of(order, range(3)) == people_of([None] * 3, range(3))
