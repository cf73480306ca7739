"""Pair explainers: identities of the mathematics, literal references, and what the user is told."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import FlatNet, shaken
from pair_methods import METHODS, Small, faces
from scipy import stats

from facexai import FGGB, SDD, XSSAB, CorrRISE, FaceModel, FaceXAIWarning, InputSpec, PairCAM, functional, perturb
from facexai.explainers import jacobian

pytestmark = pytest.mark.filterwarnings("ignore:a map of pair .* has one sign")


@pytest.fixture
def model():
    torch.manual_seed(4)
    return FaceModel(shaken(Small()).double(), InputSpec(20))


def literal_fggb(model, image, partner, threshold, *, differentiate):
    """One backward pass per number of the embedding, as the paper says it."""
    x = image[None].clone().requires_grad_()
    e = model.features(model.outputs(x))
    f = F.normalize(e) if differentiate == "unit" else e
    other = F.normalize(model.features(model.outputs(partner[None])))
    w = F.normalize(e)[0].detach() * other[0].detach()
    total = torch.zeros(image.shape[1:], dtype=image.dtype)
    for k in range(f.shape[1]):
        (gradient,) = torch.autograd.grad(f[0, k], x, retain_graph=True)
        size = gradient[0].abs().sum(0)
        total += size / (size.norm() + 1e-8) * (w[k] - threshold / f.shape[1])
    return total


# ---- FGGB --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("differentiate", ["unit", "raw"])
@pytest.mark.parametrize("chunk", [1, 5, 64, "auto"])
def test_fggb_is_the_literal_loop(model, differentiate, chunk):
    a, b = faces(model), faces(model, seed=1)
    why = FGGB(model, 0.3, differentiate, chunk=chunk)(a, b)
    for p in range(3):
        for side, (x, y) in enumerate(((a, b), (b, a))):
            expected = literal_fggb(model, x[p], y[p], 0.3, differentiate=differentiate)
            torch.testing.assert_close(why.maps[p, side], expected, rtol=1e-5, atol=1e-7, check_dtype=False)


@pytest.mark.parametrize("flip", ["sum", "concat"])
def test_fggb_of_flipped_networks_is_the_literal_loop(flip):
    torch.manual_seed(4)
    model = FaceModel(shaken(Small()).double(), InputSpec(20), flip=flip)
    a, b = faces(model), faces(model, seed=1)
    why = FGGB(model, 0.3, chunk=4)(a, b)
    expected = literal_fggb(model, a[1], b[1], 0.3, differentiate="unit")
    torch.testing.assert_close(why.maps[1, 0], expected, rtol=1e-5, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(why.scores, (model.embed(a) * model.embed(b)).sum(1))


def test_half_precision_evidence_costs_what_is_said(model):
    a, b = faces(model), faces(model, seed=1)
    exact, half = FGGB(model, 0.3)(a, b).maps, FGGB(model, 0.3, half=True)(a, b).maps
    assert 0 < (exact - half).abs().max() < 1e-3 * exact.abs().max()
    kept = FGGB(model, 0.3, half=True).observe(a)
    assert kept.parts["basis"].dtype == torch.float16


def test_fggb_is_affine_in_the_threshold(model):
    a, b = faces(model), faces(model, seed=1)
    maps = [FGGB(model, t)(a, b).maps for t in (0.0, 0.2, 0.6)]
    torch.testing.assert_close(maps[1], maps[0] + (maps[2] - maps[0]) / 3)


def test_the_weights_sum_to_the_cosine_and_the_parts_are_disjoint(model):
    a, b = faces(model), faces(model, seed=1)
    why = FGGB(model, 0.9)(a, b)
    torch.testing.assert_close(why.scores, (model.embed(a) * model.embed(b)).sum(1))
    assert not ((why.similar > 0) & (why.dissimilar > 0)).any()
    torch.testing.assert_close(why.similar - why.dissimilar, why.maps)


def test_a_face_and_itself_has_nothing_against_at_threshold_zero(model):
    a = faces(model)
    with pytest.warns(FaceXAIWarning, match="one sign everywhere"):
        why = FGGB(model, 0.0)(a, a)
    assert not why.dissimilar.any()
    assert why.one_sign.all()
    torch.testing.assert_close(why.scores, torch.ones(3, dtype=torch.float64))


def test_fggb_does_not_change_with_the_length_of_the_output(model):
    a, b = faces(model), faces(model, seed=1)
    expected = FGGB(model, 0.3)(a, b).maps
    model.net.fc.weight.data *= 7
    model.net.fc.bias.data *= 7
    torch.testing.assert_close(FGGB(FaceModel(model.net, model.spec), 0.3)(a, b).maps, expected)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.5, 0.9])
def test_what_the_tolerance_leaves_out_is_within_its_bound(model, tolerance):
    a, b = faces(model), faces(model, seed=1)
    exact, near = FGGB(model, 0.3)(a, b), FGGB(model, 0.3, tolerance=tolerance)(a, b)
    gone = (exact.maps - near.maps).flatten(2).norm(dim=2)
    bound = torch.tensor(near.recipe["bound"], dtype=torch.float64)[:, None]
    assert (gone <= bound + 1e-6).all()
    weights = ((model.embed(a) * model.embed(b)) - 0.3 / 12).abs()
    assert (bound[:, 0] <= tolerance * weights.sum(1) + 1e-9).all()
    assert near.recipe["approximate"] == any(near.recipe["dropped_numbers"])
    assert (max(near.recipe["dropped_numbers"]) > 0) == (tolerance >= 0.05)
    with pytest.raises(ValueError, match="tolerance= needs the partner"):
        FGGB(model, 0.3, tolerance=tolerance).observe(a)


def test_the_chunk_is_chosen_once(model):
    chosen = jacobian.chunk_size(model, "auto")
    assert chosen in (4, 8, 16)
    assert jacobian.chunk_size(model, "auto") == chosen


# ---- xSSAB -------------------------------------------------------------------------------------------------------


def test_xssab_is_autograd_through_the_length(model):
    """And the two parts of the cosine add up to it."""
    a, b = faces(model), faces(model, seed=1)
    why = XSSAB(model, 0.2)(a, b)
    for p in range(3):
        x = a[p : p + 1].clone().requires_grad_()
        f, g = F.normalize(model.features(model.outputs(x))), model.embed(b[p : p + 1])
        agree = (f * g >= 0.2 / 12).detach().double()
        parts = [(f * mask * g).sum() for mask in (agree, 1 - agree)]
        torch.testing.assert_close(sum(parts).detach(), why.scores[p])
        grads = [torch.autograd.grad(part, x, retain_graph=True)[0][0].abs().mean(0) for part in parts]
        torch.testing.assert_close(why.maps[p, 0], grads[0] - grads[1], check_dtype=False)


def test_evidence_with_a_graph_does_not_pickle(model):
    import pickle

    with pytest.raises(TypeError, match="holds a gradient graph"):
        pickle.dumps(XSSAB(model, 0.2).observe(faces(model)))


# ---- CorrRISE ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["patches", "grid"])
def test_corrrise_is_scipys_correlation(model, masks):
    a, b = faces(model, 2), faces(model, 2, seed=1)
    explainer = CorrRISE(model, masks, count=30, cells=4, keep=0.6)
    why = explainer(a, b)
    drawn = (
        perturb.black_patches(30, (20, 20))
        if masks == "patches"
        else perturb.grid_masks(30, (20, 20), cells=4, keep=0.6)
    )
    cosines = (model.embed(a[0] * drawn[:, None].double()) @ model.embed(b[:1]).T)[:, 0].numpy()
    correlate = stats.spearmanr if masks == "patches" else stats.pearsonr
    for y, x in ((0, 0), (3, 7), (10, 10), (19, 4)):
        seen = drawn[:, y, x].numpy()
        expected = 0.0 if np.ptp(seen) == 0 else correlate(seen, cosines).statistic
        assert float(why.maps[0, 0, y, x]) == pytest.approx(expected, abs=1e-6)


def test_corrrise_of_classes_and_its_sdd(model):
    people = model.gallery({f"p{k}": faces(model, 2, seed=k) for k in range(4)})
    a = faces(model, 2)
    explainer = CorrRISE(people, count=25)
    evidence = explainer.observe(a)
    why = explainer.answer(evidence, ["p1", "p2"])
    masks = perturb.black_patches(25, (20, 20))
    scores = people.cosines(a[0] * masks[:, None].double())[:, 1].numpy()
    seen = masks[:, 9, 9].numpy()
    assert float(why.maps[0, 9, 9]) == pytest.approx(stats.spearmanr(seen, scores).statistic, abs=1e-6)
    margin = CorrRISE(people, count=25, score="margin")
    both = people.cosines(a[0] * masks[:, None].double()).numpy()
    rest = np.delete(both, 1, 1).max(1)
    expected = stats.spearmanr(seen, both[:, 1] - rest).statistic
    assert float(margin.answer(evidence, "p1").maps[0, 9, 9]) == pytest.approx(expected, abs=1e-6)
    sharp = SDD(explainer, rivals=2).answer(evidence)
    assert sharp.recipe["method"] == "SDD(CorrRISE)"
    assert sharp.cells.shape == (2, 20, 20)
    pair = CorrRISE(model, count=25).against(people)(a)
    torch.testing.assert_close(pair.maps[0, 1], why.maps[0])


def test_pixels_that_are_never_hidden_are_zero():
    masks = torch.ones(5, 4, 4)
    masks[:2, 0, 0] = 0
    masks = functional.centred(masks)
    maps = functional.correlation_maps(masks, torch.rand(3, 5), (4, 4))
    assert maps[:, 0, 0].all()
    assert not maps[:, 1:].any()
    assert not functional.correlation_maps(masks, torch.full((5,), 0.3), (4, 4)).any()


def test_ranks_are_scipys():
    values = torch.tensor(np.random.default_rng(0).integers(0, 6, (4, 15)))
    assert np.array_equal(functional.ranks(values).numpy(), stats.rankdata(values.numpy(), axis=1))


def test_corrrise_asks_black_boxes():
    weights = np.random.default_rng(0).normal(size=(3 * 16 * 16, 8))
    model = FaceModel.from_callable(lambda x: x.reshape(len(x), -1) @ weights, InputSpec(16), space="rgb01")
    a, b = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    assert CorrRISE(model, count=20)(a, b).maps.any()
    for kind in (FGGB, XSSAB):
        with pytest.raises(ValueError, match="can be asked, not looked into"):
            kind(model, 0.2)(a, b)


class Detached(Small):
    def forward(self, x):
        return super().forward(x.detach())


@pytest.mark.parametrize("kind", [FGGB, XSSAB])
def test_a_network_without_gradients_is_sent_to_corrrise(kind):
    model = FaceModel(shaken(Detached()).requires_grad_(False), InputSpec(20))
    a = torch.rand(1, 3, 20, 20)
    with pytest.raises(ValueError, match=r"CorrRISE\(model\) asks without gradients"):
        kind(model, 0.2)(a, a)
    assert CorrRISE(model, count=9)(a, a).maps.any()


@pytest.mark.parametrize(
    "make", [perturb.black_patches, lambda n, s, seed=0: perturb.grid_masks(n, s, cells=7, keep=0.5, seed=seed)]
)
def test_masks_are_seeded_and_uneven(make):
    first, again, other = make(40, (112, 96)), make(40, (112, 96)), make(40, (112, 96), seed=1)
    assert first.shape == (40, 112, 96)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0 <= float(first.min()) < float(first.max()) <= 1
    assert (first.mean(0) < 1).float().mean() > 0.8


# ---- PairCAM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [None, "sum", "concat"])
def test_paircam_is_complete_and_so_is_its_table(flip):
    torch.manual_seed(1)
    model = FaceModel(shaken(FlatNet()).double(), "arcface", flip=flip)
    a, b = faces(model), faces(model, seed=1)
    why = PairCAM(model)(a, b)
    torch.testing.assert_close(why.cells.sum((2, 3)) + why.constant, why.scores[:, None].expand(-1, 2))
    whole = PairCAM(model).observe(a), PairCAM(model).observe(b)
    for p in range(3):
        spread = [
            functional.upsample(PairCAM(model)._spread(PairCAM(model)._evidence(e), model.embed(x))[p], (7, 7))
            for e, x in zip(whole, (a, b), strict=True)
        ]
        total = (spread[0].sum((1, 2)) * spread[1].sum((1, 2))).sum()
        torch.testing.assert_close(why.table[p].sum(), total)
        torch.testing.assert_close(
            why.table[p].sum((2, 3)), torch.einsum("kab,k->ab", spread[0], spread[1].sum((1, 2)))
        )


def test_the_table_is_a_loop_over_cells(model):
    a, b = faces(model, 1), faces(model, 1, seed=1)
    why = PairCAM(model)(a, b)
    fc = model.net.fc.weight.detach()
    scale = (model.net.norm.weight / (model.net.norm.running_var + model.net.norm.eps).sqrt()).detach()
    adds = []
    for x in (a, b):
        with torch.no_grad():
            maps = model.net.act(model.net.conv(x))[0] * scale[:, None, None]
            length = model.outputs(x).norm()
        adds.append(torch.einsum("kchw,chw->khw", fc.view(12, 6, 9, 9), maps) / length)
    for p, q in (((0, 0), (0, 0)), ((3, 4), (8, 1)), ((8, 8), (0, 5))):
        expected = (adds[0][:, p[0], p[1]] * adds[1][:, q[0], q[1]]).sum()
        assert float(why.table[0, p[0], p[1], q[0], q[1]]) == pytest.approx(float(expected), rel=1e-4)


def test_a_finer_layer_is_of_first_order_and_agrees_where_it_is_exact(model):
    a, b = faces(model), faces(model, seed=1)
    exact, first = PairCAM(model)(a, b), PairCAM(model, layer="act")(a, b)
    torch.testing.assert_close(first.cells, exact.cells, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(first.table, exact.table, rtol=1e-4, atol=1e-6)
    assert first.recipe["order"].startswith("first order")
    assert first.constant is None


def test_matches_are_rows_of_the_table(model):
    why = PairCAM(model)(faces(model), faces(model, seed=1))
    cell = functional.upsample(why.table[1, 4, 8][None], (20, 20))[0]
    torch.testing.assert_close(why.matches(10, 19, pair=1), cell)
    found = why.strongest(4, pair=1)
    assert [value for *_, value in found] == sorted((value for *_, value in found), reverse=True)
    assert found[0][2] == pytest.approx(float(why.table[1].max()))
    assert len({place for place, *_ in found}) == len(found)
    with pytest.raises(ValueError, match="expected a pixel of the 20x20 image"):
        why.matches(20, 0)
    with pytest.raises(ValueError, match=r"PairCAM.* has"):
        XSSAB(model, 0.1)(faces(model), faces(model, seed=1)).matches(0, 0)


# ---- every method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_one_face_may_stand_for_all(model, name):
    explainer = METHODS[name](model)
    a, b = faces(model), faces(model, seed=1)
    one = explainer.answer(explainer.observe(a[:1]), explainer.observe(b))
    each = [explainer(a[:1], b[p : p + 1]) for p in range(3)]
    torch.testing.assert_close(one.cells, torch.cat([w.cells for w in each]))
    torch.testing.assert_close(one.scores, torch.cat([w.scores for w in each]))
    with pytest.raises(ValueError, match="expected evidence of as many second faces"):
        explainer.answer(explainer.observe(a[:2]), explainer.observe(b))


@pytest.mark.parametrize("name", METHODS)
def test_everybody_enrolled_is_a_partner(model, name):
    explainer = METHODS[name](model)
    a, b = faces(model), faces(model, seed=1)
    people = model.gallery({f"p{k}": row for k, row in enumerate(model.embed(b))})
    found = explainer.against(people)(a)
    assert found.maps.shape == (3, 3, 20, 20)
    for k in range(3):
        pair = explainer.answer(explainer.observe(a), explainer.observe(b[k : k + 1]))
        torch.testing.assert_close(found.cells[:, k], pair.cells[:, 0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.scores[:, k], pair.scores)
    assert [n for n, _ in found.ranked()] == [people.names[i] for i in found.scores[0].argsort(descending=True)]


@pytest.mark.parametrize("name", ["FGGB", "XSSAB"])
def test_a_gallery_with_a_centre_is_refused_where_it_cannot_be_seen_through(model, name):
    centred = model.gallery({f"p{k}": row for k, row in enumerate(torch.randn(12, 12))}, center="enrolled")
    with pytest.raises(ValueError, match="give the centre to the model instead"):
        METHODS[name](model).against(centred)(faces(model))


@pytest.mark.parametrize("name", METHODS)
def test_it_is_refused_in_one_sentence(model, name):
    explainer = METHODS[name](model)
    a = faces(model)
    with pytest.raises(ValueError, match="as many second images as first"):
        explainer(a, a[:2])
    with pytest.raises(ValueError, match="20"):
        explainer(torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24))
    other = METHODS[name](FaceModel(shaken(Small()).double(), InputSpec(20)))
    with pytest.raises(ValueError, match="this evidence is of model"):
        other.answer(explainer.observe(a), explainer.observe(a))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: FGGB(m, 1.5), "threshold from -1 to 1"),
        (lambda m: FGGB(m, None), "metrics.threshold finds it"),
        (lambda m: FGGB(m, 0.2, "l2"), "differentiate one of"),
        (lambda m: FGGB(m, 0.2, tolerance=1.2), "tolerance from 0 to 1"),
        (lambda m: FGGB(m, 0.2, chunk=0), "chunk of at least 1"),
        (lambda m: CorrRISE(m, chunk="8"), "chunk of at least 1"),
        (lambda m: FGGB(m, np.True_), "threshold from -1 to 1"),
        (lambda m: FGGB(m, "0.3"), "threshold from -1 to 1"),
        (lambda m: CorrRISE(m, "boxes"), "masks one of"),
        (lambda m: CorrRISE(m, count=1), "at least 3 masks"),
        (lambda m: CorrRISE(m, "grid", keep=1.0), "keep between 0 and 1"),
        (lambda m: FGGB(FaceModel(m.net, m.spec, output="logits"), 0.1), "gives logits, pairs need embeddings"),
    ],
)
def test_bad_options(model, make, message):
    with pytest.raises(ValueError, match=message):
        make(model)


def test_a_gallery_is_no_model(model):
    people = model.gallery({"ann": faces(model), "bo": faces(model, seed=1)})
    with pytest.raises(TypeError, match=r"got Gallery; its \.model"):
        FGGB(people, 0.2)
    with pytest.raises(TypeError, match="two batches of faces"):
        CorrRISE(model)(faces(model))


def test_evidence_of_other_choices_is_refused(model):
    a = faces(model)
    evidence = CorrRISE(model, count=20).observe(a)
    with pytest.raises(ValueError, match="this evidence was made with"):
        CorrRISE(model, count=21).answer(evidence, evidence)
    with pytest.raises(ValueError, match="this evidence is CorrRISE's, not FGGB's"):
        FGGB(model, 0.1).answer(evidence, evidence)


def test_a_result_draws_and_saves_itself(model, tmp_path):
    from facexai import PairSaliency, load

    a, b = faces(model), faces(model, seed=1)
    why = PairCAM(model, threshold=0.1)(a, b)
    why.save(tmp_path / "why.npz")
    again = load(tmp_path / "why.npz")
    assert isinstance(again, PairSaliency)
    assert torch.equal(again.cells, why.cells)
    assert torch.equal(again.table, why.table)
    assert (again.threshold, again.recipe["method"]) == (0.1, "PairCAM")
    assert torch.equal(again.accepted, why.accepted)
    assert "<img" in why._repr_html_()
    for picture in (why.plot(), why[:1].plot(torch.stack([a, b], 1)[:1]), again.plot(), why.plot_matches(3)):
        assert picture.axes
    with pytest.raises(ValueError, match=r"torch\.stack\(\[first, second\], 1\)"):
        why.plot(a)
    assert "match" in repr(why)


def test_counts(model):
    """What every method asks of the network."""
    seen = {"images": 0, "backward": 0}

    class Counting(Small):
        def forward(self, x):
            seen["images"] += len(x)
            out = super().forward(x)
            if out.requires_grad:
                out.register_hook(lambda _: seen.update(backward=seen["backward"] + 1))
            return out

    torch.manual_seed(4)
    counting = FaceModel(shaken(Counting()).double(), InputSpec(20))
    assert counting.structure.memory > 0  # looks once
    a, b = faces(model, 1), faces(model, 1, seed=1)

    def asked(run):
        seen.update(images=0, backward=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
        return seen["images"], seen["backward"]

    assert asked(lambda: XSSAB(counting, 0.2)(a, b)) == (2, 4)
    assert asked(lambda: CorrRISE(counting, count=20)(a, b)) == (42, 0)
    PairCAM(counting)(a, b)  # finds the head
    assert asked(lambda: PairCAM(counting)(a, b)) == (2, 0)
    explainer = FGGB(counting, 0.2, chunk=4)
    images, backward = asked(lambda: explainer(a, b))
    assert (images, backward) == (2 * (4 + 1), 2 * 3)
    evidence = explainer.observe(a), explainer.observe(faces(model, 5, seed=2))
    assert asked(lambda: explainer.answer(*evidence)) == (0, 0)


# ---- what evidence and results must not do -----------------------------------------------------------------------


def test_evidence_of_two_models_does_not_join(model):
    other = FaceModel(shaken(Small()).double(), InputSpec(20))
    pieces = [PairCAM(m).observe(faces(model)) for m in (model, other)]
    with pytest.raises(ValueError, match="does not join"):
        type(pieces[0]).joined(pieces)
    with pytest.raises(ValueError, match="at least one evidence"):
        type(pieces[0]).joined([])


@pytest.mark.parametrize("name", METHODS)
def test_evidence_of_another_method_is_refused_in_words(model, name):
    explainer = METHODS[name](model)
    for other in METHODS.values():
        evidence = other(model).observe(faces(model))
        if type(other(model)) is not type(explainer) or other(model).portable != explainer.portable:
            with pytest.raises(ValueError, match="observe the images with this explainer"):
                explainer.answer(evidence, evidence)


class Keyed(Small):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.mark.parametrize("name", METHODS)
def test_logits_are_refused_as_soon_as_they_are_seen(name):
    a = torch.rand(1, 3, 20, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceXAIWarning)
        with pytest.raises(ValueError, match="gives logits, pairs need embeddings"):
            METHODS[name](FaceModel(shaken(Keyed()), InputSpec(20)))(a, a)


class Shifted(Small):
    def forward(self, x, shift):
        return super().forward(x * shift)


@pytest.mark.filterwarnings("ignore:.*is rounding noise")  # of an identical pair
@pytest.mark.parametrize("name", METHODS)
def test_other_arguments_are_one_row_for_all(name):
    net = shaken(Shifted())
    one = FaceModel(net, InputSpec(20), forward_kwargs={"shift": torch.ones(1, 1, 1, 1)})
    a = torch.rand(2, 3, 20, 20)
    torch.testing.assert_close(METHODS[name](one)(a, a).scores, torch.ones(2, dtype=torch.float64))
    rows = FaceModel(net, InputSpec(20), forward_kwargs={"shift": torch.ones(2, 1, 1, 1)})
    with pytest.raises(ValueError, match="one row of forward_kwargs for all images"):
        METHODS[name](rows)(a, a)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_photos_in_half_precision_give_maps_in_full(name, dtype):
    torch.manual_seed(4)
    single = FaceModel(shaken(Small()), InputSpec(20))
    a, b = (torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(k)).to(dtype) for k in (0, 1))
    why, expected = METHODS[name](single)(a, b), METHODS[name](single)(a.float(), b.float())
    assert why.cells.dtype == torch.float32
    torch.testing.assert_close(why.cells, expected.cells, rtol=1e-3, atol=1e-3 * float(expected.cells.abs().max()))


@pytest.mark.parametrize("chunk", [3, 32, 100])
def test_no_map_is_drawn_from_rounding(chunk):
    """Masks of a black face change nothing, but the size of a batch changes last bits."""
    torch.manual_seed(1)
    flat = FaceModel(shaken(FlatNet()), "arcface")
    black, other = torch.zeros(1, 3, 112, 112), torch.rand(1, 3, 112, 112)
    assert not CorrRISE(flat, count=100, chunk=chunk)(black, other).maps[:, 0].any()


def test_a_picture_and_accepted_say_the_same():
    from facexai import PairSaliency

    why = PairSaliency(torch.zeros(1, 2, 2, 2), (2, 2), torch.tensor([0.7]), 0.7)
    assert bool(why.accepted) == ("no match" not in repr(why))


def test_a_slice_of_a_result_is_of_its_pairs(model):
    why = FGGB(model, 0.3, tolerance=0.5)(faces(model), faces(model, seed=1))
    assert len(why[1:].recipe["bound"]) == len(why[1:]) == 2
    with pytest.raises(TypeError, match="a slice such as"):
        why[0]
    assert len(FGGB(model, 0.3, tolerance=0.9999999)(faces(model), faces(model, seed=1))) == 3


def test_the_pictures_do_not_hold_a_graph(model):
    a = faces(model).requires_grad_()
    assert not PairCAM(model)(a, a).images.requires_grad


def test_two_faces_for_a_gallery_are_a_mistake_in_words(model):
    people = model.gallery({"ann": faces(model), "bo": faces(model, seed=1)})
    with pytest.raises(TypeError, match=r"CorrRISE\(model\)\(first, second\)"):
        CorrRISE(people, count=9)(faces(model), faces(model))
    named = CorrRISE(people, count=9)(faces(model), targets="bo")
    assert named.targets.tolist() == [1, 1, 1]


def test_paircams_constant_is_the_folds(model, monkeypatch):
    """So a broken map cannot hide in it."""
    from facexai import CAM

    original = CAM.fold
    monkeypatch.setattr(CAM, "fold", lambda self, e, c: (lambda m, k: (7 * m + 3, k))(*original(self, e, c)))
    why = PairCAM(model)(faces(model), faces(model, seed=1))
    assert (why.cells.sum((2, 3)) + why.constant - why.scores[:, None]).abs().min() > 1e-3


def test_a_head_that_does_not_fold_is_sent_to_a_layer():
    from nets import TokenNet

    model = FaceModel(shaken(TokenNet("cls")), "arcface")
    with pytest.raises(ValueError, match=r"PairCAM\(model, layer=\.\.\.\) explains"):
        PairCAM(model)(torch.rand(1, 3, 112, 112), torch.rand(1, 3, 112, 112))


def test_what_is_differentiated_is_recorded(model):
    assert PairCAM(model, layer="conv")(faces(model), faces(model)).recipe["similarity"] == "dot"
    assert FGGB(model, 0.1, chunk=4)(faces(model), faces(model, seed=1)).recipe["chunk"] == 4
