"""ROC, thresholds and ten folds against literal loops, identities, and what they refuse."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from facexai import FaceXAIWarning, functional, metrics

few = settings(max_examples=60, deadline=None)


@st.composite
def labelled_scores(draw):
    """Scores on a coarse grid, so that many are tied, with labels of both kinds."""
    count = draw(st.integers(2, 40))
    scores = draw(st.lists(st.integers(-8, 8), min_size=count, max_size=count))
    labels = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    labels[0], labels[1] = True, False
    return np.array(scores) / 8, np.array(labels)


def rates(scores, labels, threshold):
    """FMR and FNMR, word by word."""
    accepted = scores >= threshold
    return (accepted & ~labels).sum() / (~labels).sum(), (~accepted & labels).sum() / labels.sum()


@few
@given(labelled_scores())
def test_auc_counts_every_pair_of_pairs(data):
    scores, labels = data
    wins = [1.0 if g > i else 0.5 if g == i else 0.0 for g in scores[labels] for i in scores[~labels]]
    found = metrics.auc(scores, labels)
    assert found == pytest.approx(np.mean(wins), abs=1e-12)
    statistic = stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert found == pytest.approx(statistic / (labels.sum() * (~labels).sum()), abs=1e-12)
    assert metrics.roc(scores, labels).auc == found
    assert metrics.auc(-scores, labels) == pytest.approx(1 - found, abs=1e-12)
    assert metrics.auc(np.exp(3 * scores) - 7, labels) == found  # only the order counts


def assert_placed(threshold, scores, score):
    """The threshold decides about all scores as that score does, and is far from each of them."""
    np.testing.assert_array_equal(scores >= threshold, scores >= score)
    assert np.abs(scores - threshold).min() >= 0.999 * 5e-6


@few
@given(labelled_scores())
def test_the_curve_and_the_equal_error_rate_by_a_loop(data):
    scores, labels = data
    curve = metrics.roc(scores, labels)
    assert curve.thresholds[0] == np.inf
    assert (curve.far[0], curve.tar[0], curve.far[-1], curve.tar[-1]) == (0, 0, 1, 1)
    best = None
    for place, threshold in enumerate(sorted(set(scores), reverse=True), 1):
        false_match, missed = rates(scores, labels, threshold)
        assert (curve.thresholds[place], curve.far[place]) == (threshold, false_match)
        assert curve.tar[place] == pytest.approx(1 - missed)
        gap = abs(false_match - missed)
        if best is None or gap < best[0] - 1e-12:
            best = (gap, threshold, (false_match + missed) / 2)
    assert curve.eer == pytest.approx(best[2])
    assert_placed(curve.eer_threshold, scores, best[1])


@few
@given(labelled_scores(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_tar_at_far_is_the_best_that_a_threshold_reaches(data, far):
    scores, labels = data
    curve = metrics.roc(scores, labels)
    reached = [(0.0, np.inf)]
    for threshold in set(scores):
        false_match, missed = rates(scores, labels, threshold)
        if false_match <= far:
            reached.append((1 - missed, threshold))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceXAIWarning)
        assert curve.tar_at(far) == pytest.approx(max(reached)[0])
        lowest = min(threshold for _, threshold in reached)
        if lowest == np.inf:
            with pytest.raises(ValueError, match="impostor pairs have the highest scores"):
                curve.threshold_at(far)
        else:
            assert curve.threshold_at(far) == metrics.threshold(scores, labels, f"far={far}")
            assert_placed(curve.threshold_at(far), scores, lowest)


@few
@given(labelled_scores())
def test_the_most_accurate_threshold_by_a_loop(data):
    scores, labels = data
    right = {t: int(((scores >= t) == labels).sum()) for t in sorted(set(scores), reverse=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceXAIWarning)
        if max(right.values()) < (~labels).sum():
            with pytest.raises(ValueError, match="accepting nobody"):
                metrics.threshold(scores, labels, "accuracy")
        else:
            assert_placed(metrics.threshold(scores, labels, "accuracy"), scores, max(right, key=right.get))


def test_separable_scores_have_no_error():
    scores, labels = [0.9, 0.7, 0.2, -0.3], [1, 1, 0, 0]
    curve = metrics.roc(scores, labels)
    assert (curve.auc, curve.eer, curve.eer_threshold, curve.tar_at(0.0)) == (1.0, 0.0, pytest.approx(0.45), 1.0)
    for rule in ("eer", "accuracy", "far=0"):
        assert metrics.threshold(scores, labels, rule) == pytest.approx(0.45)
    assert (np.array(scores) >= 0.45).tolist() == [bool(label) for label in labels]


def test_equal_scores_say_nothing():
    curve = metrics.roc(np.zeros(4), [1, 0, 1, 0])
    assert (curve.auc, curve.eer, curve.eer_threshold, curve.tar_at(0.5)) == (0.5, 0.5, -5e-6, 0.0)


def test_tensors_arrays_and_lists_agree_to_the_bit():
    scores, labels = torch.randn(50, dtype=torch.float32), torch.arange(50) % 3 == 0
    wanted = metrics.roc(scores, labels)
    for other in (scores.numpy(), scores.tolist(), scores.double(), scores.clone().requires_grad_()):
        found = metrics.roc(other, labels.numpy())
        np.testing.assert_array_equal(found.thresholds, wanted.thresholds)
        assert (found.auc, found.eer) == (wanted.auc, wanted.eer)
    threshold = metrics.threshold(scores, labels)
    assert int((scores >= threshold).sum()) == int((scores.double() >= threshold).sum())


def test_too_few_impostors_for_a_rate_are_said():
    scores = np.concatenate([np.linspace(0.3, 0.9, 100), np.linspace(-0.5, 0.5, 200)])
    labels = np.arange(300) < 100
    curve = metrics.roc(scores, labels)
    with pytest.warns(FaceXAIWarning, match=r"FAR 0.001 cannot be resolved with 200 impostor pairs, it takes 1000"):
        assert curve.tar_at(1e-3) == curve.tar_at(0.0)
    with pytest.warns(FaceXAIWarning, match="cannot be resolved"):
        metrics.threshold(scores, labels, "far=1e-3")
    metrics.threshold(scores, labels, "far=0.005")  # one of 200
    with pytest.raises(ValueError, match="from 0 to 1"):
        curve.tar_at(1.5)
    with pytest.raises(ValueError, match="from 0 to 1"):
        curve.tar_at(float("nan"))


def test_distances_by_mistake_are_noticed():
    with pytest.warns(FaceXAIWarning, match="negate distances"):
        metrics.threshold(np.linspace(0, 1, 40), np.arange(40) < 20)
    metrics.threshold([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])  # so few pairs may be chance


@pytest.mark.parametrize("rule", [0.31, "0.31", np.float32(0.31), torch.tensor(0.31)])
def test_a_number_is_its_own_threshold(rule):
    assert metrics.threshold(None, None, rule) == pytest.approx(0.31)
    assert metrics.threshold([0.2, 0.5], [True, True], rule) == pytest.approx(0.31)  # of one kind


@pytest.mark.parametrize("rule", ["far", "far=", "far=x", "EER", "", True, None, float("nan"), "inf", [1, 2]])
def test_other_rules_get_one_clear_error(rule):
    with pytest.raises(ValueError, match="expected the rule 'eer', 'accuracy', 'far=1e-3' or a finite number"):
        metrics.threshold([0.1, 0.2], [0, 1], rule)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [True], r"shapes \(2,\) and \(1,\)"),
        ([[0.1, 0.2]], [[True, False]], r"scores \(P,\)"),
        ([], [], "both kinds"),
        ([0.1, 0.2], [True, True], "2 pairs of one person and 0 pairs of two"),
        ([0.1, 0.2], [1, -1], "got -1 in row 1"),
        ([0.1, float("nan"), float("inf")], [True, False, False], "in 2 of 3 pairs"),
        (["a", "b"], [True, False], "one number per pair"),
        ([0.1, 0.2], [True, None], "True and False, or 1 and 0, in labels, got None in row 1"),
    ],
)
def test_bad_scores_get_one_clear_error(scores, labels, message):
    for function in (metrics.roc, metrics.auc, metrics.threshold, functional.sweep):
        with pytest.raises(ValueError, match=message):
            function(scores, labels)


def test_the_plot_shows_curves_and_equal_error_rates():
    pytest.importorskip("matplotlib")
    from PIL import Image

    from facexai import plots

    rng = np.random.default_rng(0)
    labels = np.arange(400) < 200
    curve = metrics.roc(rng.normal(0.4 * labels, 0.2), labels)
    other = metrics.roc([0.9, 0.1], [1, 0])
    figure = curve.plot(name="$a_1$", others={"b": other})
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_legend().get_texts()][:2] == [
        f"$a_1$, EER {100 * curve.eer:.2f} %",
        "b, EER 0.00 %",
    ]
    assert (axes.get_xlim()[0], axes.get_xlabel()) == (1 / 200, "false accept rate, FAR")
    for drawn in (figure, other.plot()):
        low, high = Image.open(io.BytesIO(plots.png(drawn))).convert("L").getextrema()
        assert high - low > 200
    assert "AUC" in repr(curve)


def literal_ten_fold(unit, index, same):
    """The protocol as one would write it down."""
    distances = np.array([((unit[a] - unit[b]) ** 2).sum() for a, b in index])
    grid, accuracies, thresholds = np.arange(0, 4, 0.01), [], []
    sizes = [len(same) // 10 + (fold < len(same) % 10) for fold in range(10)]
    for fold in range(10):
        test = np.zeros(len(same), bool)
        test[sum(sizes[:fold]) : sum(sizes[: fold + 1])] = True
        best, best_accuracy = None, -1.0
        for threshold in grid:
            accuracy = np.mean((distances[~test] < threshold) == same[~test])
            if accuracy > best_accuracy:
                best, best_accuracy = threshold, accuracy
        thresholds.append(best)
        accuracies.append(np.mean((distances[test] < best) == same[test]))
    return accuracies, thresholds


@pytest.mark.parametrize("count", [60, 67])
@pytest.mark.parametrize("protocol", ["insightface", "facenet"])
def test_ten_folds_by_a_loop(protocol, count):
    rng = np.random.default_rng(count)
    centres = rng.normal(size=(40, 8))
    who = rng.integers(0, 40, size=(count, 2))
    who[::2, 1] = who[::2, 0]
    raw = (centres[who.ravel()] + rng.normal(scale=0.7, size=(2 * count, 8))).astype(np.float32) * 5
    mirrored = (raw + rng.normal(scale=2.0, size=raw.shape)).astype(np.float32)
    index, same = np.arange(2 * count).reshape(-1, 2), who[:, 0] == who[:, 1]
    flipped = mirrored if protocol == "insightface" else None
    found = metrics.ten_fold(
        torch.from_numpy(raw), torch.from_numpy(index), torch.from_numpy(same), flipped=flipped, protocol=protocol
    )
    rows = raw.astype(float) + (mirrored if protocol == "insightface" else 0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    accuracies, thresholds = literal_ten_fold(unit, index, same)
    np.testing.assert_array_equal(found.accuracies, accuracies)
    np.testing.assert_array_equal(found.thresholds, thresholds)
    assert found.mean == pytest.approx(np.mean(accuracies))
    assert found.std == pytest.approx(np.std(accuracies))
    assert 0.6 < found.mean < 1
    np.testing.assert_allclose(found.scores, [unit[a] @ unit[b] for a, b in index], atol=1e-12)
    np.testing.assert_array_equal(found.scores > 0.25, found.distances < 1.5)
    assert protocol in repr(found)


def test_lengths_and_shared_images_do_not_matter_where_they_should_not():
    rng = np.random.default_rng(0)
    rows, index = rng.normal(size=(12, 4)), rng.integers(0, 12, size=(40, 2))
    same = np.arange(40) % 2 == 0
    plain = metrics.ten_fold(rows, index, same, protocol="facenet")
    scaled = metrics.ten_fold(rows * rng.uniform(1, 9, size=(12, 1)), index, same, protocol="facenet")
    np.testing.assert_allclose(plain.distances, scaled.distances, atol=1e-12)
    added = metrics.ten_fold(rows, index, same, flipped=rows)
    np.testing.assert_allclose(plain.distances, added.distances, atol=1e-12)
    uneven = metrics.ten_fold(rows * rng.uniform(1, 9, size=(12, 1)), index, same, flipped=rows[::-1])
    assert not np.allclose(uneven.distances, metrics.ten_fold(rows, index, same, flipped=rows[::-1]).distances)


def test_identical_images_are_not_below_a_threshold_of_zero():
    """Both code bases accept strictly below the threshold: at 0 even equal embeddings are strangers."""
    rows, index, same = np.eye(2), [(0, 0), (0, 1)] * 10, [True, False] * 10
    found = metrics.ten_fold(rows, index, same, protocol="facenet")
    assert found.mean == 1
    np.testing.assert_array_equal(found.thresholds, 0.01)


def test_a_sorted_list_of_pairs_is_said():
    rows, index = np.eye(2), [(0, 0)] * 20 + [(0, 1)] * 20
    with pytest.warns(FaceXAIWarning, match="10 of 10 folds hold pairs of one kind"):
        metrics.ten_fold(rows, index, [True] * 20 + [False] * 20, protocol="facenet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "lfw"}, r"protocol one of \('insightface', 'facenet'\), got 'lfw'"),
        ({"protocol": "insightface"}, "needs flipped="),
        ({"flipped": np.eye(3)}, "takes no flipped="),
        ({"protocol": "insightface", "flipped": np.eye(4)}, r"flipped of shape \(3, 3\)"),
        ({"embeddings": np.eye(3)[0]}, r"embeddings \(n, D\)"),
        ({"embeddings": [["a"] * 3] * 3}, "as numbers"),
        ({"embeddings": np.full((3, 3), np.nan)}, "finite embeddings"),
        ({"embeddings": np.zeros((3, 3))}, "embedding 0 is zero"),
        ({"index": [(0, 3)] * 20}, "from 0 to 2"),
        ({"index": [(0, -1)] * 20}, "from 0 to 2"),
        ({"index": [(0, 0.5)] * 20}, "from 0 to 2"),
        ({"index": [(0, 1)] * 19}, r"shapes \(19, 2\) and \(20,\)"),
        ({"same": [2] * 20}, "got 2 in row 0"),
        ({"embeddings": np.eye(3) * 1e200}, "embedding 0 is too long"),
        ({"index": [(0, 1)] * 9, "same": [True] * 9}, "at least 10 pairs"),
    ],
)
def test_what_ten_fold_refuses(change, message):
    given = {"embeddings": np.eye(3), "index": [(0, 1)] * 20, "same": [True, False] * 10, "protocol": "facenet"}
    with pytest.raises(ValueError, match=message):
        metrics.ten_fold(**(given | change))
