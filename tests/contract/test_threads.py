"""Threads that share one network give what one thread gives, bit for bit, also beside the user's own forward."""

from __future__ import annotations

import copy
import os
import pickle
import random
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from allpairspy import AllPairs
from everything import SIZE, calls, equal, faces, keeping, network, quietly
from torch import nn
from untouched import same, snapshot

from facexai import CAM, FaceModel, FaceXAIWarning, HiResCAM, InputSpec, turns
from facexai._errors import suppress_warnings
from facexai.hooks import capture, eval_mode, eval_scope, exclusive, no_graph, trace
from facexai.images import mtcnn

pytestmark = pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
PATIENCE = 120.0
NAMES = tuple(calls(network()))


@pytest.fixture(autouse=True)
def _restless():
    """Threads change places as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works, patience=PATIENCE):
    """Run functions at the same time; their errors are raised, and so is waiting for one another for ever."""
    barrier, errors = threading.Barrier(len(works)), []

    def run(work):
        try:
            barrier.wait(patience)
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    until = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "the threads wait for one another"


def asking(name, call, expected, rounds):
    def work():
        for number in range(rounds):
            assert equal(call(), expected), f"{name} differs in round {number}"

    return work


@pytest.mark.parametrize(
    ("name", "threads", "training"), [tuple(row) for row in AllPairs([NAMES, [2, 4], [False, True]])]
)
def test_the_same_call_in_several_threads(name, threads, training):
    net = network(training=training)
    expected = quietly(calls(net)[name])
    before = snapshot(net, faces())
    cold = calls(net)[name]  # the threads find out together what a first use finds out
    together(*(asking(name, cold, expected, 1 if threads == 4 else 2) for _ in range(threads)))
    assert same(before, snapshot(net, faces()))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_everything_at_once(training):
    """Four threads, each in an order of its own, over everything that a network is used for."""
    net = network(training=training)
    known = calls(net)
    expected = {name: quietly(call) for name, call in known.items()}
    before = snapshot(net, faces())

    def work(seed):
        order = random.Random(seed).sample(NAMES, len(NAMES))
        return lambda: [asking(name, known[name], expected[name], 1)() for name in order]

    together(*(work(seed) for seed in range(4)))
    assert same(before, snapshot(net, faces()))


def test_the_users_own_forward_and_gradients_beside():
    net = network()
    known = calls(net)
    explained = [n for n in NAMES if n not in ("acceleration", "pair_faithfulness", "faithfulness")]
    expected = {name: quietly(known[name]) for name in explained}
    images, done = faces(), threading.Event()

    def forward():
        x = images.clone().requires_grad_()
        rows = net(x)
        return [rows.detach(), *torch.autograd.grad(rows.square().sum(), x)]

    theirs, rounds = forward(), []

    def user():
        while not done.is_set():
            assert equal(forward(), theirs)
            with torch.no_grad():
                assert not net(images).requires_grad
            assert torch.is_grad_enabled()
            rounds.append(1)

    def explain():
        try:
            for name in explained:
                asking(name, known[name], expected[name], 3)()
        finally:
            done.set()

    together(user, explain)
    assert len(rounds) > 20


def test_results_are_saved_loaded_and_drawn_in_threads(tmp_path):
    filters = list(warnings.filters)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    net = network()
    made = [keeping(net, folder) for folder in folders]
    expected = {name: call() for name, call in made[0].items() if name.startswith("load")}

    def work(mine):
        def run():
            for name, call in mine.items():
                found = call()
                assert name not in expected or equal(found, expected[name])

        return run

    together(*(work(mine) for mine in made))
    assert warnings.filters == filters


def test_muted_threads_leave_no_filter_behind():
    filters, step = list(warnings.filters), threading.Barrier(2, timeout=5)

    def first():
        with suppress_warnings():
            step.wait()
            time.sleep(0.05)

    def second():
        step.wait()
        with suppress_warnings():
            pass

    together(first, second)
    assert warnings.filters == filters
    with pytest.warns(FaceXAIWarning):
        warnings.warn("heard again", FaceXAIWarning)


class Forgetful(nn.Module):
    """Keeps what it is doing on itself, as much research code does, so two threads must not be inside."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.kept = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4 * 49, 6), None

    def forward(self, x):
        self.kept = self.conv(x)
        time.sleep(0)  # lets another thread in
        return self.fc(self.kept.flatten(1))


def test_a_network_that_keeps_state_is_run_by_one_thread_at_a_time():
    torch.manual_seed(2)
    model = FaceModel(Forgetful().eval(), InputSpec(SIZE))
    shown = [faces(seed=k) for k in range(4)]
    expected = [model.embed(images) for images in shown]
    together(*(asking("embed", lambda i=i: model.embed(shown[i]), expected[i], 50) for i in range(4)))


def test_the_same_network_in_two_wrappers_is_one_network():
    torch.manual_seed(2)
    net = Forgetful().eval()
    inner, outer = FaceModel(net, InputSpec(SIZE)), FaceModel(nn.DataParallel(net), InputSpec(SIZE))
    shown = faces(), faces(seed=9)
    expected = inner.embed(shown[0]), inner.embed(shown[1])
    together(
        asking("inner", lambda: inner.embed(shown[0]), expected[0], 50),
        asking("outer", lambda: outer.embed(shown[1]), expected[1], 50),
    )


class Dice(nn.Module):
    """Draws from torch's generator in eval mode too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * SIZE * SIZE, 6)

    def forward(self, x):
        return self.fc(x.flatten(1)) + torch.rand(6)


def test_a_network_that_draws_random_numbers_draws_the_same_in_every_thread():
    torch.manual_seed(2)
    model, images = FaceModel(Dice().eval(), InputSpec(SIZE)), faces()
    state, expected = torch.get_rng_state(), model.embed(faces())
    together(*(asking("embed", lambda: model.embed(images), expected, 50) for _ in range(4)))
    assert torch.equal(torch.get_rng_state(), state)


def test_train_mode_comes_back_with_the_last_one_out():
    net = network(training=True)
    modes, inside, out = [m.training for m in net.modules()], threading.Event(), threading.Event()

    def long():
        with eval_mode(net):
            inside.set()
            assert out.wait(30)
            assert not any(m.training for m in net.modules())

    def short():
        assert inside.wait(30)
        with eval_scope(net):
            pass
        with eval_scope(net.block):  # a part of it, as another network may share it
            assert not net.block.training
        assert not net.block.training
        out.set()

    together(long, short)
    assert [m.training for m in net.modules()] == modes


def test_another_threads_calls_are_not_seen():
    net, images = network(), faces()

    def other():
        with ThreadPoolExecutor(1) as pool, torch.no_grad():
            return pool.submit(net, images[:1]).result(30)

    for side in ("output", "input"):
        with no_graph(), capture(net, "block", side=side, graph="start") as seen:
            net(images)
            other()
        assert (seen.calls, len(seen.tensor)) == (1, 2)
    with exclusive(net):
        assert copy.deepcopy(net)
    with capture(net, "block"):
        assert other().shape == (1, 10)


def test_turns_nest_and_do_not_follow_the_network():
    net = network()
    with exclusive(net), exclusive(net), capture(net, "block"), eval_scope(net):
        assert copy.deepcopy(net.fc).weight.shape == net.fc.weight.shape
    again = pickle.loads(pickle.dumps(net))
    assert "turn" not in str(vars(again))
    people = FaceModel(net, InputSpec(SIZE)).gallery({"a": torch.eye(10)[0], "b": torch.eye(10)[1]})
    with exclusive(net):  # a turn of ours does not keep us out
        assert len(CAM(people)(faces())) == 2


def test_an_error_gives_the_turn_back():
    net = network()
    people = FaceModel(net, InputSpec(SIZE)).gallery({"a": torch.eye(10)[0], "b": torch.eye(10)[1]})
    explainer = HiResCAM(people, layer="block")
    expected = explainer(faces())
    hook = net.fc.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explainer(faces())
    hook.remove()
    together(asking("HiResCAM", lambda: explainer(faces()), expected, 1))


def test_networks_that_run_each_other_crosswise_are_refused():
    """Each of two networks asks the other one from inside, in two threads: one of them is told, none waits for ever."""
    one, two = (FaceModel(network(), InputSpec(SIZE)) for _ in range(2))
    inside, refused, asking = threading.Barrier(2), [], threading.local()

    def ask(other):
        def hook(*_):
            if not getattr(asking, "already", False):
                asking.already = True
                inside.wait(30)
                other.embed(faces())

        return hook

    def embed(model):
        try:
            model.embed(faces())
        except RuntimeError as error:
            refused.append(str(error))

    handles = [one.net.register_forward_hook(ask(two)), two.net.register_forward_hook(ask(one))]
    together(lambda: embed(one), lambda: embed(two), patience=60)
    assert [("wait for each other" in words) for words in refused] == [True]
    for handle in handles:
        handle.remove()
    assert torch.equal(one.embed(faces()), one.embed(faces()))


class Merging(nn.Linear):
    """Does more than set a flag when it is put into eval mode, as adapters do that merge their weights."""

    def train(self, mode=True):
        if mode != self.training:
            with torch.no_grad():
                self.weight.mul_(0.5 if mode else 2.0)
        return super().train(mode)


def test_a_train_method_of_the_users_is_not_called():
    net = nn.Sequential(nn.Flatten(), Merging(3 * SIZE * SIZE, 4))
    before, expected = net[1].weight.clone(), net(faces())
    embedded = FaceModel(net, InputSpec(SIZE)).embed(faces())
    assert torch.equal(net[1].weight, before)
    assert net[1].training
    assert torch.allclose(embedded, nn.functional.normalize(expected), atol=1e-6)


@pytest.mark.parametrize("side", ["output", "input"])
def test_a_copy_that_was_made_meanwhile_is_not_changed(side):
    """It has our hook for ever, which must be deaf when the explanation is over."""
    net = network()
    with no_graph(), capture(net, "block", side=side, graph="start"):
        twin = copy.deepcopy(net)
        net(faces())
    with torch.no_grad():
        assert not twin(faces()).requires_grad
        assert torch.equal(twin(faces()), net(faces()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("held", ["turn", "seed", "filters", "detector", "eval mode"])
def test_a_fork_does_not_inherit_what_another_thread_holds(held):
    net, taken, over = network(training=True), threading.Event(), threading.Event()
    modes = [m.training for m in net.modules()]
    said: list[int] = []
    block = {
        "turn": lambda: exclusive(net),
        "seed": lambda: turns.seeded(1, net),
        "filters": suppress_warnings,
        "detector": lambda: mtcnn._turns.lock,
        "eval mode": lambda: eval_mode(net),
    }[held]

    def holder():
        with block():
            taken.set()
            assert over.wait(30)

    def work():
        with block():
            pass

    def forker():
        assert taken.wait(30)
        child = os.fork()
        if child == 0:  # no assertion here: the child must end, whatever happens
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            thread.join(20)
            os._exit(int(thread.is_alive() or [m.training for m in net.modules()] != modes))
        said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()

    together(holder, forker)
    assert said == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("block", [lambda net: capture(net, "block", graph="start"), lambda net: traced(net)])
def test_a_fork_has_no_hooks_of_another_thread(block):
    """The first thread of the child may get the number of the thread that the hooks listened to."""
    net, taken, over = network(), threading.Event(), threading.Event()
    said: list[int] = []

    def holder():
        with block(net):
            taken.set()
            assert over.wait(30)

    def forker():
        assert taken.wait(30)
        child = os.fork()
        if child == 0:
            recorded = []

            def run():
                with torch.no_grad():
                    recorded.append(net(faces()).requires_grad)

            for _ in range(5):
                thread = threading.Thread(target=run, daemon=True)
                thread.start()
                thread.join(20)
            hooks = [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks]
            os._exit(int(recorded != [False] * 5 or bool(hooks)))
        said.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        over.set()

    together(holder, forker)
    assert said == [0]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_inside_a_block_has_no_hooks_and_the_parent_keeps_its_own():
    """As of a network that starts workers, which run it for themselves."""
    net = network()
    with no_graph(), capture(net, "block", graph="start") as seen:
        child = os.fork()
        if child == 0:
            with torch.no_grad():
                recorded = net(faces()).requires_grad
            os._exit(int(recorded or any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())))
        net(faces())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert seen.tensor.requires_grad


@contextmanager
def traced(net):
    """A trace that is not over before the block is."""
    begun, over = threading.Event(), threading.Event()

    def run():
        begun.set()
        assert over.wait(30)
        return net(faces())

    thread = threading.Thread(target=lambda: trace(run, dict(net.named_modules())))
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_state_that_another_thread_seeded_never_comes_back(monkeypatch):
    """The random state is read while another thread has seeded it, which ends right then."""
    net, before = network(), torch.get_rng_state()
    inside, leave, left = threading.Event(), threading.Event(), threading.Event()

    def seeding():
        with turns.seeded(1, net):
            inside.set()
            leave.wait(10)
        left.set()

    read, mine = torch.get_rng_state, threading.get_ident()

    def read_late(*args):
        state = read(*args)
        if threading.get_ident() == mine and not leave.is_set():
            leave.set()
            left.wait(10)
        return state

    other = threading.Thread(target=seeding)
    other.start()
    assert inside.wait(10)
    monkeypatch.setattr(torch, "get_rng_state", read_late)
    with turns.eval_scope(net):
        pass
    monkeypatch.undo()
    other.join(10)
    assert torch.equal(torch.get_rng_state(), before)
