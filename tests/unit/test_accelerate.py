"""accelerate: a faster copy with the original's outputs and maps, or a reason; the original untouched."""

from __future__ import annotations

import copy
import random
import warnings
from collections import Counter
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from nets import FlatNet, GapNet, UnitNet, shaken
from planted import SPEC, Net, apart
from torch import nn

from facexai import FaceModel
from facexai.models import Acceleration, Gallery, accelerate, acceleration

MODULE = import_module("facexai.models._trial")


@pytest.fixture(autouse=True)
def _one_round(monkeypatch):
    monkeypatch.setattr(MODULE, "_ROUNDS", (1, 1))


@pytest.fixture
def images():
    return torch.rand(3, 3, 112, 112)


@pytest.fixture
def small():
    return torch.rand(5, 3, 16, 16)


def snapshot(net):
    return {
        "modules": [(name, id(module)) for name, module in net.named_modules()],
        "tensors": [
            (name, id(t), t._version, t.clone(), t.stride()) for name, t in net.state_dict(keep_vars=True).items()
        ],
        "modes": [module.training for module in net.modules()],
        "hooks": [tuple(m._forward_hooks) + tuple(m._forward_pre_hooks) for m in net.modules()],
        "random": torch.get_rng_state(),
    }


def same(before, after):
    old, new = (snap.pop("tensors") for snap in (before, after))
    assert [t[:3] + t[4:] for t in old] == [t[:3] + t[4:] for t in new]
    assert all(torch.equal(a[3].view(-1), b[3].view(-1)) for a, b in zip(old, new, strict=True))
    assert torch.equal(before.pop("random"), after.pop("random"))
    assert before == after


# ---- the original, and what surrounds the network --------------------------------------------------------------------


def test_the_original_stays_as_it_was(small):
    net = Net().train()
    net.norm.eval()
    net.fc.register_forward_hook(lambda m, i, o: None)
    before = snapshot(net)
    fast = accelerate(FaceModel(net, SPEC), small)
    with torch.no_grad():
        for tensor in (*fast.net.parameters(), *fast.net.buffers()):
            tensor.zero_()
    same(before, snapshot(net))


def test_the_original_stays_as_it_was_after_failure(small):
    net = Net(lambda net, x: net.end(F.dropout(net.norm(net.conv(x)), 0.5, True))).train()
    before = snapshot(net)
    with pytest.raises(ValueError, match=r"facexai\.doctor"):
        accelerate(FaceModel(net, SPEC), small)
    same(before, snapshot(net))


def test_a_gallery_keeps_its_people(images):
    people = FaceModel(shaken(FlatNet())).gallery({"ann": images[:1], "bo": images[1:]}, scale=10.0)
    fast = accelerate(people, images)
    assert isinstance(fast, Gallery)
    assert (fast.names, fast.scale, fast.fingerprint) == (people.names, people.scale, people.fingerprint)
    assert isinstance(fast.model.net.features, nn.Identity)
    torch.testing.assert_close(fast.logits(images), people.logits(images))


@pytest.mark.parametrize("flip", ["sum", "concat"])
def test_flip_centre_and_names_stay(images, flip):
    model = FaceModel(shaken(FlatNet()), "adaface", flip=flip, center=torch.randn(32), names=["a"])
    fast = accelerate(model, images[:2])
    assert (fast.spec, fast.flip, fast.names) == (model.spec, flip, ("a",))
    assert fast.center is model.center
    torch.testing.assert_close(fast.embed(images), model.embed(images))


def test_logits_and_tuples_stay(images):
    model = FaceModel(shaken(UnitNet()), take=0, output="logits")
    fast = accelerate(model, images)
    assert fast.output == "logits"
    torch.testing.assert_close(fast.logits(images), model.logits(images))
    with pytest.warns(match="took"):
        assert accelerate(FaceModel(shaken(UnitNet())), images).take == 0  # the copy does not warn again


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_looked_through(small, wrap):
    model = FaceModel(wrap(Net()), SPEC)
    done = acceleration(model, small)
    assert done.folded == ("norm",)
    assert type(done.model.net) is Net


def test_the_callers_grad_mode_and_inference_mode_do_not_matter(small):
    with torch.inference_mode():
        fast = accelerate(FaceModel(Net(), SPEC), small)
    assert fast.outputs(small.requires_grad_()).requires_grad
    assert fast.net.conv.weight.requires_grad


# ---- layouts --------------------------------------------------------------------------------------------------------


class Views(FlatNet):
    """Flattens by ``view``, which refuses a map whose channels come last in memory."""

    def forward(self, x):
        x = self.bn2(self.layer4(self.layer3(self.stem(x))))
        return self.features(self.fc(x.view(len(x), -1)))


def test_a_layout_that_crashes_is_not_kept(images):
    done = acceleration(FaceModel(shaken(Views())), images)
    assert done.layout == "contiguous"
    assert list(done.seconds) == ["original", "contiguous"]
    assert "view size is not compatible" in done.rejected["channels_last"]
    assert len(done.folded) == 5


def test_a_layout_that_changes_outputs_is_not_kept(small):
    def forward(net, x):
        y = net.norm(net.conv(x))
        return net.end(y + float(y.is_contiguous(memory_format=torch.channels_last)))

    done = acceleration(FaceModel(Net(forward), SPEC), small)
    assert done.layout == "contiguous"
    assert "changes outputs by" in done.rejected["channels_last"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that only networks move."""
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(MODULE, "time", SimpleNamespace(perf_counter=lambda: now.time))
    return now


@pytest.mark.parametrize("slow", ["contiguous", "channels_last"])
def test_the_faster_layout_is_kept(small, clock, slow):
    def forward(net, x):
        y = net.conv(x)
        last = y.is_contiguous(memory_format=torch.channels_last)
        clock.time += 3.0 if last == (slow == "channels_last") else 2.0
        return net.end(y)

    done = acceleration(FaceModel(Net(forward), SPEC), small)
    assert done.layout != slow
    assert done.seconds == {"original": 2.0 + (slow == "contiguous"), slow: 3.0, done.layout: 2.0}
    weight = done.model.net.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (done.layout == "channels_last")


def test_the_median_counts(small, clock, monkeypatch):
    monkeypatch.setattr(MODULE, "_ROUNDS", (5, 5))
    runs = Counter()

    def forward(net, x):
        y = net.norm(net.conv(x))
        last = y.is_contiguous(memory_format=torch.channels_last)
        runs[net] += 1
        clock.time += 100.0 if runs[net] % 3 == 0 else 2.0 + last
        return net.end(y)

    done = acceleration(FaceModel(Net(forward), SPEC), small)
    assert done.layout == "contiguous"
    assert done.seconds == {"original": 2.0, "contiguous": 2.0, "channels_last": 3.0}


def test_the_batch_that_is_timed_is_the_users(small):
    sizes = []

    def forward(net, x):
        sizes.append(len(x))
        return net.end(net.norm(net.conv(x)))

    acceleration(FaceModel(Net(forward), SPEC), small, batch_size=4)
    assert sizes.count(4) > sizes.count(1)  # two images are what the look for mixing takes
    assert set(sizes) >= {1, 2, 4}  # alone, noise of another size
    sizes.clear()
    acceleration(FaceModel(Net(forward), SPEC), batch_size=2)
    assert max(sizes, key=sizes.count) == 2
    assert 3 in sizes


# ---- compiling ------------------------------------------------------------------------------------------------------


def test_compiling_that_fails_is_not_kept(small, monkeypatch):
    def fails(self):
        raise RuntimeError("no compiler\nlong story")

    monkeypatch.setattr(nn.Module, "compile", fails)
    done = acceleration(FaceModel(Net(), SPEC), small, compile=True)
    assert not done.compiled
    assert done.rejected == {"compiled": "RuntimeError: no compiler"}
    assert done.folded == ("norm",)


def compiled_as(monkeypatch, make):
    """Stands for torch.compile, which takes a minute: it calls what ``make`` made of the module's own call."""

    def compile_(self):
        self._compiled_call_impl = make(self._call_impl)

    monkeypatch.setattr(nn.Module, "compile", compile_)


def test_compiled_code_that_changes_outputs_is_not_kept(small, monkeypatch):
    compiled_as(monkeypatch, lambda call: lambda x: call(x) + 1)
    done = acceleration(FaceModel(Net(), SPEC), small, compile=True)
    assert not done.compiled
    assert "changes outputs" in done.rejected["compiled"]


@pytest.mark.parametrize("faster", [True, False])
def test_compiled_code_is_kept_if_faster_and_hides_no_layers(small, clock, monkeypatch, faster):
    calls = []

    def make(call):
        def compiled(x):
            calls.append(len(x))
            start, y = clock.time, call(x)
            clock.time = start + (0.5 if faster else 1.5)
            return y

        return compiled

    def forward(net, x):
        clock.time += 1.0
        return net.end(net.norm(net.conv(x)))

    compiled_as(monkeypatch, make)
    done = acceleration(FaceModel(Net(forward), SPEC), small, compile=True)
    assert done.compiled is faster
    assert done.seconds["compiled"] == (0.5 if faster else 1.5)
    assert set(done.seconds) == {"original", "contiguous", "channels_last", "compiled"}
    calls.clear()
    done.model.outputs(small)
    assert calls == [5] * faster
    seen = []
    handle = done.model.net.norm.register_forward_hook(lambda m, i, o: seen.append(len(o)))
    done.model.outputs(small)
    handle.remove()
    assert seen == [5]
    assert calls == [5] * faster  # compiled code would not run the hook


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torch_compile_itself(small, monkeypatch):
    eager = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: eager(self, backend="eager"))
    model = FaceModel(shaken(GapNet()))
    people = model.gallery({"a": torch.randn(10), "b": torch.randn(10)})
    images = torch.rand(2, 3, 112, 112)
    done = acceleration(people, images, compile=True)
    assert "compiled" in done.seconds
    assert "compiled" not in done.rejected
    fast = FaceModel(
        import_module("facexai.models.accelerate")._compiled(done.model.model.net)
    )  # whether it is faster is not known here
    assert apart(fast, model, images) < 1e-5
    assert fast.layers == model.layers
    copied = copy.deepcopy(fast.net)
    nn.init.zeros_(copied.fc.weight)
    assert apart(FaceModel(copied), model, images) > 1e-3  # the copy runs its own weights
    assert apart(fast, model, images) < 1e-5


# ---- what is refused ------------------------------------------------------------------------------------------------


def random_by_python(net, x):
    return net.end(net.norm(net.conv(x))) * (1 + random.random())


def random_by_torch(net, x):
    return net.end(net.norm(net.conv(x))) + torch.rand(6)


def by_batch_statistics(net, x):
    y = net.conv(x)
    return net.end((y - y.mean((0, 2, 3), keepdim=True)) / y.std((0, 2, 3), keepdim=True))


def by_position(net, x):
    return net.end(net.norm(net.conv(x))).roll(1, 0)


def by_fixed_batch(net, x):
    return net.end(net.norm(net.conv(x))).view(5, 6)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (random_by_python, "random"),
        (random_by_torch, "random or depend on earlier calls"),
        (by_batch_statistics, "depend on the other images"),
        (by_position, "depend on the other images"),
        (by_fixed_batch, "does not run on batches of 2 and of 1"),
    ],
)
def test_networks_that_cannot_be_verified_are_refused(small, forward, message):
    with pytest.raises(ValueError, match=message) as refusal:
        accelerate(FaceModel(Net(forward), SPEC), small)
    assert "facexai.doctor(model)" in str(refusal.value)


def test_batch_statistics_are_refused(small):
    net = Net()
    net.norm = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(ValueError, match="depend on the other images"):
        accelerate(FaceModel(net, SPEC), small)


def test_a_network_that_counts_its_calls_is_refused(small):
    net = Net(lambda net, x: net.end(net.norm(net.conv(x))) + net.count.add_(1))
    net.register_buffer("count", torch.zeros(1))
    with pytest.raises(ValueError, match=r"facexai\.doctor"):
        accelerate(FaceModel(net, SPEC), small)


def test_a_script_module_is_refused(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(shaken(GapNet()), images)
    with pytest.raises(ValueError, match="nothing to fold"):
        accelerate(FaceModel(script), images)


class NoCopy(Net):
    def __deepcopy__(self, memo):
        return self


def test_networks_that_do_not_copy_are_refused(small):
    net = Net()
    net.kept = net.conv.weight * 1  # as old weight_norm and pruning leave it
    with pytest.raises(ValueError, match="cannot copy Net: RuntimeError: Only Tensors created explicitly"):
        accelerate(FaceModel(net, SPEC), small)
    with pytest.raises(ValueError, match="shares modules or weights"):
        accelerate(FaceModel(NoCopy(), SPEC), small)


def test_bad_arguments(small):
    model = FaceModel(Net(), SPEC)
    with pytest.raises(ValueError, match="batch_size of at least 1, got 0"):
        accelerate(model, small, batch_size=0)
    with pytest.raises(ValueError, match="this network takes 16x16"):
        accelerate(model, torch.rand(1, 3, 8, 8))
    with pytest.raises(RuntimeError) as failure:
        accelerate(FaceModel(nn.Linear(5, 2), SPEC), small)
    assert "does the spec fit" in failure.value.__notes__[0]


# ---- precision, words ---------------------------------------------------------------------------------


def test_half_precision_has_its_own_tolerance(images):
    model = FaceModel(shaken(FlatNet()).bfloat16())
    done = acceleration(model, images)
    assert len(done.folded) == 5
    assert 1e-4 < done.difference < 2e-2  # rounded weights: far from float32's limit
    assert done.model.net.layer3.conv1.weight.dtype == torch.bfloat16
    assert apart(done.model, model, images) < 2e-2


def test_it_says_what_it_did_in_one_line(images):
    text = str(acceleration(FaceModel(shaken(Views())), images))
    assert text.startswith("5 norms folded, contiguous: ")
    assert "rejected channels_last: RuntimeError: view size" in text
    assert "\n" not in text
    done = Acceleration(FaceModel(Net()), ("a",), "channels_last", True, 1e-7, {"original": 0.02, "compiled": 0.01})
    assert str(done) == (
        "1 norms folded, channels_last, compiled: 10 ms instead of 20 (2.00 times as fast), outputs within 1.0e-07 of "
        "their length"
    )
