"""FastDiME against a literal version of the published algorithm, with replayed noise and an exact denoiser."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from facexai import FaceXAIWarning, FastDiME, decisions, denoisers, load
from facexai.denoisers import Denoiser
from facexai.explainers._variants import VARIANTS as TABLE
from facexai.functional.diffusion import linear_alphas, nested_strongest, respaced, top_gradient_mask

T, STEPS, START, WARMUP = 60, 24, 10, 4
ALPHAS = linear_alphas(T)
SMALL = {"respacing": STEPS, "start": START, "warmup": WARMUP, "scales": (4.0, 12.0, 20.0)}
VARIANTS = ("fastdime", "fastdime-2", "fastdime-2+", "unmasked", "dime")
MASK = {name: value for name, value in SMALL.items() if name != "warmup"} | {"variant": "maskdime"}


def small(variant):
    """Returns the options of a short run, without those that the variant does not take."""
    return MASK if variant == "maskdime" else SMALL | {"variant": variant}


class Gaussian:
    """The exact estimate of the noise for images whose pixels are normal around a given image."""

    def __init__(self, mean=0.2, spread=0.5, learned=False):
        self.mean, self.spread, self.learned = mean, spread, learned
        self.alphas_cumprod, self.size, self.seen = ALPHAS, (12, 12), []

    def predict(self, x, t):
        self.seen.append((len(x), sorted(set(t.tolist()))))
        left = ALPHAS[t].to(x)[:, None, None, None]
        noise = (1 - left).sqrt() * (x - left.sqrt() * self.mean) / (left * self.spread**2 + 1 - left)
        return noise, torch.tanh(x) if self.learned else None


HARD = torch.tensor([0.0, -3.5, 9.0, -9.0, -1.0])


class Corner:
    """Is the corner bright enough? The first image changes under some guidance, the third under none."""

    def __init__(self, hard=HARD):
        self.hard, self.seen = hard, []

    def rows(self, index):
        chosen = Corner(self.hard[index])
        chosen.seen = self.seen
        return chosen

    def __call__(self, images):
        self.seen.append(len(images))
        bright = 9 * (images[:, :, :5, :5].mean((1, 2, 3)) - 0.55)
        return bright - 0.3 * images[:, :, 8:, 8:].square().sum((1, 2, 3)) - self.hard


@pytest.fixture
def images():
    drawn = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(4))
    return drawn * torch.tensor([0.3, 0.6, 0.9, 1.0, 0.2])[:, None, None, None]


def replay(seed=0):
    stream = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=stream)


# ---- the algorithm, word for word ---------------------------------------------------------------------------------


class Literal:
    """Tables of the schedule as arrays, then one statement per line of the algorithm."""

    def __init__(self, denoiser, decision, noise, l1=0.05, dilation=5, threshold=0.15):
        self.net, self.f, self.noise = denoiser, decision, noise
        self.l1, self.dilation, self.threshold = l1, dilation, threshold
        self.map = [round(k * (T - 1) / (STEPS - 1)) for k in range(STEPS)]
        self.abar = np.array([float(ALPHAS[i]) for i in self.map])
        before = np.append(1.0, self.abar[:-1])
        self.beta = 1 - self.abar / before
        tilde = self.beta * (1 - before) / (1 - self.abar)
        self.log_tilde = np.log(np.append(tilde[1], tilde[1:]))
        self.c1 = self.beta * np.sqrt(before) / (1 - self.abar)
        self.c2 = (1 - before) * np.sqrt(1 - self.beta) / (1 - self.abar)

    @staticmethod
    def number(value, like):
        return torch.full_like(like, value)

    def q_sample(self, x, t, noise):
        a = self.abar[t]
        return self.number(np.sqrt(a), x) * x + self.number(np.sqrt(1 - a), x) * noise

    def p(self, z, t):
        eps, v = self.net.predict(z, torch.full((len(z),), self.map[t]))
        a = self.abar[t]
        x0 = self.number(np.sqrt(1 / a), z) * z - self.number(np.sqrt(1 / a - 1), z) * eps
        x0 = x0.clamp(-1, 1)
        mu = self.number(self.c1[t], z) * x0 + self.number(self.c2[t], z) * z
        log_s = self.number(self.log_tilde[t], z)
        if v is not None:
            frac = (v + 1) / 2
            log_s = frac * self.number(np.log(self.beta[t]), z) + (1 - frac) * log_s
        return mu, log_s, x0

    def grad(self, xh, y):
        xh = xh.clone().requires_grad_(True)
        loss = -(2 * y - 1) * self.f.rows(self.m)((xh + 1) / 2)
        return torch.autograd.grad(loss.sum(), xh)[0]

    def mask(self, x, xh):
        d = ((x + 1) / 2 - (xh + 1) / 2).abs().sum(1, keepdim=True)
        d = d / d.flatten(1).max(1)[0][:, None, None, None]
        return (F.max_pool2d(d, self.dilation, 1, self.dilation // 2) < self.threshold).float()

    def one_pass(self, x, z, y, lc, masked, fixed, nested):
        xh, keep = x, None
        for j, t in enumerate(range(START - 1, -1, -1)):
            mu, log_s, x0 = self.p(z, t)
            g = lc * self.grad(xh, y)
            g = g + self.l1 * torch.sign(z - x)
            n = self.noise(tuple(x.shape))
            z = mu - torch.exp(log_s) * g + (1.0 if t > 0 else 0.0) * torch.exp(0.5 * log_s) * n
            xh = x0
            if nested and t > 0:
                xh = z
                for s in range(t - 1, -1, -1):
                    mu, log_s, _ = self.p(xh, s)
                    n = self.noise(tuple(x.shape))
                    xh = mu + (1.0 if s > 0 else 0.0) * torch.exp(0.5 * log_s) * n
            if masked and j >= WARMUP:
                keep = self.mask(x, xh)
            if fixed is not None:
                keep = fixed
            if keep is not None:
                xh = (1 - keep) * xh + keep * x
                z = (1 - keep) * z + keep * self.q_sample(x, t, self.noise(tuple(x.shape)))
        if keep is not None:
            z = (1 - keep) * z + keep * x
        return z, keep

    def paste(self, picture, images, keeps):
        return picture * (1 - keeps) + images * keeps

    def run(self, images, variant, scales):
        x = 2 * images - 1
        y = 1 - (self.f(images) > 0).float()
        z0 = self.q_sample(x, START, self.noise(tuple(x.shape)))
        cf, keeps = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        done, used = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(x))
        for lc in scales:
            m = self.m = ~done
            masked, nested = variant in ("fastdime", "fastdime-2+"), variant == "dime"
            out, keep = self.one_pass(x[m], z0[m], y[m], lc, masked, None, nested)
            if "-2" in variant:
                fixed = self.mask(x[m], out)
                out, keep = self.one_pass(x[m], z0[m], y[m], lc, False, fixed, nested)
            cf[m] = out
            keeps[m] = torch.zeros_like(out[:, :1]) if keep is None else keep
            used[m] = lc
            done[m.nonzero()[:, 0]] = (self.f.rows(m)((out + 1) / 2) > 0).float() == y[m]
            if done.all():
                break
        picture = ((cf + 1) / 2).clamp(0, 1)
        return self.paste(picture, images, keeps), keeps, done, used


class LiteralMask(Literal):
    """MaskDiME, one statement per line of the algorithm; masks by sorting pixels and walking over them."""

    share, inner, grad_scale, perceptual = 0.05, 0.5, 8.0, None

    def masks(self, gradient):
        both = []
        for values in gradient.abs().mean(1).tolist():
            height, width = len(values), len(values[0])
            order = sorted(
                ((i, j) for i in range(height) for j in range(width)), key=lambda at: values[at[0]][at[1]], reverse=True
            )
            count = int(self.share * height * width)
            for few in (count, int(self.inner * count)):
                mask, reach = torch.zeros(1, height, width), self.dilation // 2
                for i, j in order[:few]:
                    for row in range(max(0, i - reach), min(height, i + reach + 1)):
                        for column in range(max(0, j - reach), min(width, j + reach + 1)):
                            mask[0, row, column] = 1
                both.append(mask)
        return torch.stack(both[::2]).to(gradient), torch.stack(both[1::2]).to(gradient)

    def one_pass(self, x, z, y, lc, masked, fixed, nested):
        inner = None
        for t in range(START - 1, -1, -1):
            mu, log_s, x0 = self.p(z, t)
            xh = x if inner is None else inner * x0 + (1 - inner) * x
            g = lc * self.grad(xh, y) / math.sqrt(self.abar[t])
            outer, inner = self.masks(g)
            g = g + self.l1 * torch.sign(z - x)
            if self.perceptual is not None:
                leaf = xh.clone().requires_grad_(True)
                loss = self.perceptual((leaf + 1) / 2, (x + 1) / 2).sum()
                g = g + torch.autograd.grad(loss, leaf)[0] / math.sqrt(self.abar[t])
            g = self.grad_scale * g
            z = mu - torch.exp(log_s) * g
            z = outer * z + (1 - outer) * self.q_sample(x, t, self.noise(tuple(x.shape)))
        return z, 1 - outer

    def paste(self, picture, images, keeps):
        return picture


class Textured(Corner):
    """No two pixels have the same gradient, so that the order of the strongest has no ties."""

    def __call__(self, images):
        stream = torch.Generator().manual_seed(9)
        first, second = torch.randn(2, 3, 12, 12, generator=stream).to(images)
        return 0.2 * ((first * images).sum((1, 2, 3)) + (second * images.square()).sum((1, 2, 3))) - self.hard / 2

    def rows(self, index):
        return Textured(self.hard[index])


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_published_algorithm_bit_for_bit(images, variant, learned):
    expected, keeps, done, used = Literal(Gaussian(learned=learned), Corner(), replay()).run(
        images, variant, SMALL["scales"]
    )
    found = FastDiME(Corner(), Gaussian(learned=learned), variant=variant, noise=replay(), **SMALL)(images)
    assert torch.equal(found.masks, keeps[:, 0] == 0)
    assert torch.equal(found.flipped, done)
    assert torch.equal(found.scales, used)
    assert torch.equal(found.counterfactuals, expected)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_maskdime_is_the_literal_loop(images, seed, dtype, learned):
    drawn = torch.rand(5, 3, 12, 12, generator=torch.Generator().manual_seed(seed)).to(dtype)
    scales = (0.125, 0.25, 0.5)
    literal = LiteralMask(Gaussian(learned=learned), Textured(), replay(seed))
    expected, keeps, done, used = literal.run(drawn, "maskdime", scales)
    found = FastDiME(Textured(), Gaussian(learned=learned), noise=replay(seed), **MASK | {"scales": scales})(drawn)
    assert torch.equal(found.masks, keeps[:, 0] == 0)
    assert torch.equal(found.flipped, done)
    assert torch.equal(found.scales, used.to(dtype))
    assert len(used.unique()) > 1, "the ladder is climbed in part"
    limit = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.counterfactuals, expected.to(dtype), rtol=0, atol=limit)


def test_maskdimes_numbers_can_be_changed(images):
    literal = LiteralMask(Gaussian(), Textured(), replay(), l1=0.1, dilation=3)
    literal.share, literal.inner, literal.grad_scale = 0.2, 0.25, 2.0
    literal.perceptual = lambda a, b: 9 * (a - b).square().mean((1, 2, 3))
    expected, keeps, *_ = literal.run(images, "maskdime", (0.5,))
    changed = {"share": 0.2, "inner": 0.25, "grad_scale": 2.0, "l1": 0.1, "dilation": 3, "scales": (0.5,)}
    more = {"noise": replay(), "perceptual": literal.perceptual}
    found = FastDiME(Textured(), Gaussian(), **more, **MASK | changed)(images)
    assert torch.equal(found.masks, keeps[:, 0] == 0)
    torch.testing.assert_close(found.counterfactuals, expected, rtol=0, atol=1e-6)
    assert {name: found.recipe[name] for name in ("share", "inner", "grad_scale")} == {
        "share": 0.2,
        "inner": 0.25,
        "grad_scale": 2.0,
    }


def test_the_ladder_fails_in_part_so_that_batches_shrink(images):
    denoiser = Gaussian()
    found = FastDiME(Corner(), denoiser, noise=replay(), **SMALL)(images)
    sizes = list(dict.fromkeys(size for size, _ in denoiser.seen))
    assert len(sizes) > 1
    assert sizes == sorted(sizes, reverse=True)
    assert len(found.scales.unique()) == 3
    assert 0 < found.flipped.sum() < len(images)
    assert (found.before > 0).any()
    assert (found.scales[~found.flipped] == SMALL["scales"][-1]).all()


# ---- what must hold whatever the images ----------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_outside_of_the_mask_are_the_very_pixels(images, variant):
    found = FastDiME(Corner(), Gaussian(), variant=variant, dilation=1, threshold=0.4, **SMALL)(images)
    kept = ~found.masks[:, None].expand_as(images)
    assert torch.equal(found.counterfactuals[kept], images[kept])
    assert found.counterfactuals.min() >= 0
    assert found.counterfactuals.max() <= 1
    assert found.masks.all() == (variant in ("unmasked", "dime"))


@pytest.mark.parametrize("variant", TABLE)
def test_a_batch_is_a_loop_and_splits_do_not_matter(images, variant):
    edit = FastDiME(Corner(), Gaussian(), **small(variant))
    whole = edit(images)
    for batch_size in (1, 2):
        parts = FastDiME(Corner(), Gaussian(), batch_size=batch_size, **small(variant))(images)
        assert torch.equal(parts.counterfactuals, whole.counterfactuals)
    one = FastDiME(Corner(HARD[3:4]), Gaussian(), **small(variant))
    alone = one(images[3:4], items=[3])
    assert torch.equal(alone.counterfactuals, whole.counterfactuals[3:4])
    assert not torch.equal(one(images[3:4], items=[0]).counterfactuals, alone.counterfactuals)


@pytest.mark.parametrize(
    ("variant", "per_scale"),
    [("fastdime", 60), ("fastdime-2", 120), ("fastdime-2+", 120), ("unmasked", 60), ("dime", 1830), ("maskdime", 60)],
)
def test_forward_passes_of_the_denoiser(images, variant, per_scale):
    long = Gaussian()
    long.alphas_cumprod = linear_alphas(500)
    global ALPHAS
    kept, ALPHAS = ALPHAS, long.alphas_cumprod
    try:
        never = FastDiME(lambda x: x.sum((1, 2, 3)) * 1e-6 + 1, long, variant=variant, scales=(1.0, 2.0))(images[:1])
    finally:
        ALPHAS = kept
    assert len(long.seen) == 2 * per_scale
    assert never.calls.tolist() == [2 * per_scale]
    assert not never.flipped.any()
    steps = [number for _, (number,) in long.seen]
    assert max(steps) == round(59 * 499 / 199)
    assert min(steps) == 0


def test_images_that_the_denoiser_returns_unchanged_give_an_empty_mask():
    class White(Gaussian):
        def predict(self, x, t):
            return torch.full_like(x, -1e4), None  # estimates that are clamped to white

    white = torch.ones(2, 3, 12, 12)
    found = FastDiME(Corner(HARD[:2]), White(), **SMALL | {"warmup": 0})(white)
    assert not found.masks.any()
    assert torch.equal(found.counterfactuals, white)


def test_a_region_bounds_every_variant(images):
    region = torch.zeros(12, 12, dtype=torch.bool)
    region[:6, :6] = True
    for variant in TABLE:
        found = FastDiME(Corner(), Gaussian(), region=region, **small(variant))(images)
        assert not found.masks[:, ~region].any()
        assert torch.equal(found.counterfactuals[..., ~region], images[..., ~region])
        assert found.masks.any()
    each = region.expand(5, 12, 12).clone()
    each[0] = False
    found = FastDiME(Corner(), Gaussian(), region=each, mask="fixed", **SMALL)(images)
    assert torch.equal(found.masks, each)
    assert torch.equal(found.counterfactuals[0], images[0])


def test_the_strongest_gradient_says_what_may_change(images):
    found = FastDiME(Corner(), Gaussian(), mask="class-gradient", share=0.05, dilation=1, **SMALL)(images)
    assert found.masks.sum((1, 2)).tolist() == [round(0.05 * 144)] * 5
    wider = FastDiME(Corner(), Gaussian(), mask="class-gradient", share=0.05, dilation=3, **SMALL)(images)
    assert (wider.masks.sum((1, 2)) > found.masks.sum((1, 2))).all()


def test_no_gradient_frees_no_pixel(images):
    kept = images.clamp(0.3, 0.7)
    found = FastDiME(lambda x: 0 * x.sum((1, 2, 3)), Gaussian(), mask="class-gradient", **SMALL)(kept)
    assert not found.masks.any()
    assert torch.equal(found.counterfactuals, kept)
    values = torch.zeros(1, 3, 6, 6)
    values[0, 1, 2, 3] = -1
    assert top_gradient_mask(values, 0.5).nonzero().tolist() == [[0, 0, 2, 3]]


def test_maskdime_leaves_noise_of_the_last_step_outside_of_its_mask(images):
    draws = []

    def noise(shape, stream=replay(5)):  # noqa: B008
        draws.append(stream(shape))
        return draws[-1]

    inside = images.clamp(0.1, 0.9)
    for decision in (Corner(), lambda x: 0 * x.sum((1, 2, 3))):
        draws.clear()
        found = FastDiME(decision, Gaussian(), noise=noise, **MASK | {"scales": (4.0,)})(inside)
        assert len(draws) == 1 + START, "the start, and each step outside of the mask: none of the posterior"
        left = float(respaced(ALPHAS, STEPS).alphas_cumprod[0])
        noised = (math.sqrt(left) * (2 * inside - 1) + math.sqrt(1 - left) * draws[-1] + 1) / 2
        outside = ~found.masks[:, None].expand_as(inside)
        assert outside.any()
        torch.testing.assert_close(found.counterfactuals[outside], noised.clamp(0, 1)[outside], rtol=0, atol=1e-6)
    assert not found.masks.any(), "no gradient frees no pixel"


def test_identical_images_have_identical_edits(images):
    twice = images[:1].expand(2, 3, 12, 12)
    for variant in TABLE:
        found = FastDiME(Corner(HARD[:1].expand(2)), Gaussian(), **small(variant))(twice, items=[7, 7])
        assert torch.equal(found.counterfactuals[0], found.counterfactuals[1])
        assert torch.equal(found.masks[0], found.masks[1])


def test_maskdimes_masks_round_down_and_contain_each_other():
    values = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    outer, inner = nested_strongest(values, 0.05, 0.5, 1)
    assert outer.sum((1, 2, 3)).tolist() == [51, 51], "of 51.2"
    assert inner.sum((1, 2, 3)).tolist() == [25, 25], "of 25.5, where .025 of all pixels are 25.6 and round to 26"
    assert (outer | ~inner).all()
    tied, few = nested_strongest(torch.ones(1, 3, 6, 6), 0.2, 0.5, 1)
    assert (int(tied.sum()), int(few.sum())) == (7, 3)
    assert (tied | ~few).all()
    least = nested_strongest(values[:1, :, :3, :3], 0.05, 0.5, 1)
    assert [int(mask.sum()) for mask in least] == [1, 1]


def test_the_old_name_of_the_mask_by_gradient_works_and_warns(images, tmp_path):
    with pytest.warns(DeprecationWarning, match=r"mask='class-gradient'.*variant='maskdime'") as caught:
        old = FastDiME(Corner(), Gaussian(), mask="gradient", **SMALL)
    assert caught[0].filename == __file__
    assert old.no_op.mask == "class-gradient"  # without another warning
    found, new = old(images), FastDiME(Corner(), Gaussian(), mask="class-gradient", **SMALL)(images)
    assert torch.equal(found.counterfactuals, new.counterfactuals)
    assert found.recipe == new.recipe
    assert found.recipe["mask"] == "class-gradient"
    replace(found, recipe={**found.recipe, "mask": "gradient"}).save(tmp_path / "before.npz")
    again = load(tmp_path / "before.npz")
    assert again.recipe["mask"] == "gradient"
    assert torch.equal(again.counterfactuals, found.counterfactuals)


def test_recipes_record_what_the_variant_decides():
    def recipe(**options):
        return FastDiME(Corner(), Gaussian(), **options)._recipe()

    base = recipe(**SMALL)
    assert {name: base[name] for name in ("warmup", "threshold", "mask", "gradient_at", "l1_on", "rescaled")} == {
        "warmup": WARMUP,
        "threshold": 0.15,
        "mask": "difference",
        "gradient_at": "previous",
        "l1_on": "z",
        "rescaled": False,
    }
    assert not {"share", "inner", "grad_scale"} & set(base)
    assert recipe(**SMALL, mask="class-gradient")["share"] == 0.1
    mask = recipe(**MASK)
    own = {"warmup": 0, "mask": "nested-gradient", "gradient_at": "blended", "l1_on": "z", "rescaled": True}
    assert {**mask, **own, "share": 0.05, "inner": 0.5, "grad_scale": 8.0} == mask
    assert "threshold" not in mask


def test_no_op_has_no_guidance(images):
    edit = FastDiME(Corner(), Gaussian(), **SMALL)
    control = edit.no_op(images)
    assert control.scales.tolist() == [0.0] * 5
    assert control.calls.tolist() == [START] * 5
    pushed = FastDiME(Corner(), Gaussian(), **SMALL | {"scales": (9.0,)})(images)
    wanted = torch.where(pushed.before > 0, -1, 1)
    assert ((pushed.after - control.after) * wanted > 0).all()


def test_options_change_what_they_say(images):
    base = FastDiME(Corner(), Gaussian(), noise=replay(), **SMALL)(images)
    for change in (
        {"gradient_at": "current"},
        {"l1_on": "x0"},
        {"rescaled": True},
        {"l1": 0.5},
        {"perceptual": lambda a, b: 9 * (a - b).square().mean((1, 2, 3))},
    ):
        other = FastDiME(Corner(), Gaussian(), noise=replay(), **SMALL | change)(images)
        assert not torch.equal(base.counterfactuals, other.counterfactuals), change
    seeds = [FastDiME(Corner(), Gaussian(), seed=seed, **SMALL)(images).counterfactuals for seed in (0, 0, 1)]
    assert torch.equal(seeds[0], seeds[1])
    assert not torch.equal(seeds[0], seeds[2])


def test_the_decisions_gradient_is_taken_once_per_step(images):
    decision = Corner()
    FastDiME(decision, Gaussian(), **SMALL | {"scales": (0.0,)})(images)
    assert len(decision.seen) == 1 + START + 1 + 1  # before, steps, flipped?, after


def test_it_works_in_inference_mode_and_leaves_a_network_alone(images):
    net = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Flatten(), torch.nn.Linear(432, 1)).train()
    with torch.inference_mode():
        found = FastDiME(net, Gaussian(), **SMALL)(images)
    assert net[0].training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert torch.isfinite(found.after).all()


def test_files_and_words(images, tmp_path):
    found = FastDiME(Corner(), Gaussian(), **SMALL)(images)
    found.save(tmp_path / "why.npz")
    again = load(tmp_path / "why.npz")
    for name in ("images", "counterfactuals", "masks", "before", "after", "flipped", "scales", "calls", "path"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    assert again.recipe == found.recipe
    assert "decisions changed" in repr(found)
    assert len(found[:2]) == 2
    assert found.path.shape == (5, START)
    assert found.differences.shape == (5, 12, 12)


def test_halves_come_back_as_the_same_numbers(images, tmp_path):
    found = FastDiME(Corner(), Gaussian(), **SMALL)(images.bfloat16())
    assert found.images.dtype == torch.bfloat16
    found.save(tmp_path / "why.npz")
    again = load(tmp_path / "why.npz")
    for name in ("images", "counterfactuals", "masks", "before", "after", "path"):
        assert torch.equal(getattr(again, name), getattr(found, name).to(getattr(again, name).dtype))


def test_pictures(images):
    pytest.importorskip("matplotlib")
    found = FastDiME(Corner(), Gaussian(), **SMALL)(images)
    assert len(found.plot().axes) >= 5 * 5
    assert "<img" in found._repr_html_()


# ---- what users get wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "fastdime2"}, "did you mean 'fastdime-2'"),
        ({"scales": ()}, "expected scales"),
        ({"scales": (-1.0,)}, "expected scales"),
        ({"start": STEPS}, "below respacing=24"),
        ({"respacing": 61}, "those that the denoiser has"),
        ({"dilation": 4}, "odd dilation"),
        ({"threshold": 0.0}, "threshold"),
        ({"warmup": -1}, "warmup"),
        ({"mask": "fixed"}, "needs region="),
        (
            {"mask": "class-gradient", "variant": "dime"},
            "variant='dime': expected mask='difference', got 'class-gradient', which goes with 'fastdime'; leave",
        ),
        ({"mask": "gradients"}, "did you mean 'class-gradient'"),
        ({"inner": 0.5}, "expected no inner, got 0.5, which goes with 'maskdime'"),
        ({"grad_scale": 8.0}, "expected no grad_scale"),
        ({"gradient_at": "blended"}, "'previous' or 'current', got 'blended', which goes with 'maskdime'"),
        ({"rescaled": 1}, r"expected rescaled one of \[False, True\]"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        FastDiME(Corner(), Gaussian(), **SMALL | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": "class-gradient"}, "variant='maskdime': expected mask='nested-gradient', got 'class-gradient'"),
        ({"mask": "fixed", "region": torch.ones(12, 12, dtype=torch.bool)}, "expected mask='nested-gradient'"),
        ({"warmup": 4}, "expected warmup=0, got 4"),
        ({"threshold": 0.15}, "expected no threshold, got 0.15"),
        ({"gradient_at": "previous"}, "expected gradient_at='blended'"),
        ({"l1_on": "x0"}, "expected l1_on='z'"),
        ({"rescaled": False}, "expected rescaled=True, got False"),
        (
            {"rescaled": False, "warmup": 4, "l1_on": "x0"},
            "l1_on='z', got 'x0'.*rescaled=True, got False.*warmup=0, got 4",
        ),
        ({"grad_scale": 0.0}, "grad_scale above 0, got 0.0"),
        ({"inner": 1.5}, r"share and inner in \(0, 1\], got 0.05 and 1.5"),
    ],
)
def test_maskdime_refuses_what_contradicts_it(change, message):
    with pytest.raises(ValueError, match=message):
        FastDiME(Corner(), Gaussian(), **MASK | change)
    FastDiME(Corner(), Gaussian(), **MASK, warmup=0, mask="nested-gradient", rescaled=True)  # its own values


def test_what_is_no_denoiser_and_no_decision():
    with pytest.raises(TypeError, match="from_callable"):
        FastDiME(Corner(), torch.nn.Identity())
    with pytest.raises(TypeError, match="can be called"):
        FastDiME(None, Gaussian())
    assert isinstance(Gaussian(), Denoiser)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (lambda x: x.detach().mean((1, 2, 3)), "no gradient reaches"),
        (lambda x: torch.ones(len(x), requires_grad=True) * 2, "no gradient reaches"),
        (lambda x: x.mean((1, 2, 3)) * float("nan"), "NaN|finite"),
        (lambda x: x.mean((2, 3)), "one logit|\\(5,\\)"),
    ],
)
def test_decisions_that_cannot_guide(images, decision, message):
    with pytest.raises(ValueError, match=message):
        FastDiME(decision, Gaussian(), **SMALL)(images)


def test_denoisers_that_go_wrong(images):
    class Wrong(Gaussian):
        def __init__(self, change, after):
            super().__init__()
            self.change, self.after = change, after

        def predict(self, x, t):
            noise, _ = super().predict(x, t)
            return (self.change(noise), None) if len(self.seen) > self.after else (noise, None)

    with pytest.raises(ValueError, match=f"NaN or infinity as noise at step {START - 4}"):
        FastDiME(Corner(), Wrong(lambda n: n / 0 * 0, 3), **SMALL)(images)
    with pytest.raises(ValueError, match="shape"):
        FastDiME(Corner(), Wrong(lambda n: n[:, :1], 0), **SMALL)(images)


def test_images_and_noise_that_do_not_fit(images):
    edit = FastDiME(Corner(), Gaussian(), **SMALL)
    with pytest.raises(ValueError, match="12"):
        edit(images[..., :8, :8])
    with pytest.raises((ValueError, TypeError)):
        edit(images * 255)
    with pytest.raises(ValueError, match="region"):
        FastDiME(Corner(), Gaussian(), region=torch.ones(3, 3, dtype=torch.bool), **SMALL)(images)
    with pytest.raises(ValueError, match="expected noise of shape"):
        FastDiME(Corner(), Gaussian(), noise=lambda shape: torch.zeros(2), **SMALL)(images)
    with pytest.raises(ValueError, match="one item number for each"):
        edit(images, items=[1])


def test_pictures_that_lose_what_the_edit_won_are_told(images):
    class Bright(Gaussian):
        def predict(self, x, t):
            noise, _ = super().predict(x, t)
            return noise, torch.ones_like(noise)  # wide steps leave [0, 1]

    def over(x):
        return 100 * (x.amax((1, 2, 3)) - 1.001)

    with pytest.warns(FaceXAIWarning, match=r"\.flipped tells of the edit"):
        FastDiME(over, Bright(), **SMALL | {"scales": (300.0,)})(images)


# ---- the schedule --------------------------------------------------------------------------------------------------


def test_the_published_setting_keeps_two_fifths_of_the_variance():
    schedule = respaced(linear_alphas(500), 200)
    assert float(schedule.alphas_cumprod[60]) == pytest.approx(0.392, abs=1e-3)
    assert len(schedule) == 200


def test_posterior_is_bayes():
    """Combining the forward step with the prior at the step before gives the same mean and variance."""
    schedule = respaced(linear_alphas(50), 50)
    left = schedule.alphas_cumprod
    for step in (1, 20, 49):
        before, now = float(left[step - 1]), float(left[step])
        alpha = now / before
        precision = 1 / (1 - before) + alpha / (1 - alpha)
        clean, noisy = (torch.tensor([[[[value]]]], dtype=torch.float64) for value in (0.3, -0.7))
        mean = (math.sqrt(before) * 0.3 / (1 - before) + math.sqrt(alpha) * -0.7 / (1 - alpha)) / precision
        assert float(schedule.posterior(clean, noisy, step)) == pytest.approx(mean, rel=1e-9)
        assert float(schedule.log_variance(step, None, clean)) == pytest.approx(-math.log(precision), rel=1e-9)


@pytest.mark.parametrize(
    "alphas", [torch.tensor([0.5, 0.9]), torch.tensor([1.0, 0.5]), torch.ones(2, 2), torch.rand(0)]
)
def test_schedules_that_cannot_be(alphas):
    with pytest.raises(ValueError, match="alphas_cumprod"):
        respaced(alphas, 2)


def test_a_decision_about_other_photos_is_refused():
    class Pairs:
        held = 3

        def __call__(self, x):
            return 20 * x.mean((1, 2, 3))

        def rows(self, index):
            return self

    den = denoisers.from_callable(lambda x, t: 0 * x, linear_alphas(50))
    with pytest.raises(ValueError, match="one reference for each of 3 images, got 2"):
        FastDiME(Pairs(), den, respacing=20, start=10, warmup=5)(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"warmup": 10}, ValueError, "warmup below start=10"),
        ({"l1": float("nan")}, ValueError, "l1 from 0"),
        ({"start": 10.0}, TypeError, "start as an integer"),
        ({"scales": 8.0}, ValueError, "expected scales such as"),
    ],
)
def test_numbers_that_would_mislead_are_refused(wrong, error, message):
    den = denoisers.from_callable(lambda x, t: 0 * x, linear_alphas(50))
    with pytest.raises(error, match=message):
        FastDiME(lambda x: x.mean((1, 2, 3)), den, **{"respacing": 20, "start": 10, "warmup": 5, **wrong})


def test_draws_do_not_depend_on_the_default_dtype():
    den = denoisers.from_callable(lambda x, t: 0 * x, linear_alphas(50))
    edit = FastDiME(lambda x: 20 * (x.mean((1, 2, 3)) - 0.5), den, respacing=20, start=10, warmup=5)
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    first = edit(images).counterfactuals
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(edit(images).counterfactuals, first)
    finally:
        torch.set_default_dtype(torch.float32)


def test_checkpointed_networks_are_left_as_they_were():
    class Checkpointed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.part = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Tanh())

        def forward(self, x):
            return torch.utils.checkpoint.checkpoint(self.part, x, use_reentrant=False).mean((1, 2, 3))[:, None]

    net = Checkpointed().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    den = denoisers.from_callable(lambda x, t: 0 * x, linear_alphas(50))
    for decision in (net, decisions.binary(net)):
        FastDiME(decision, den, respacing=20, start=10, warmup=5)(torch.rand(2, 3, 8, 8))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
