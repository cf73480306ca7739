"""Whatever fails wherever: everything is as it was, nothing half-written is left, and the next call is right."""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import random
import signal
import threading
import time

import pytest
import torch
from everything import calls, equal, faces, keeping, network
from faults import BACKWARD, at_moment, fail_everywhere, interrupted, interrupting, state
from untouched import same

from facexai import FaceModel, HiResCAM, InputSpec, load

pytestmark = pytest.mark.filterwarnings("ignore::facexai.FaceXAIWarning")
FULL = "FACEXAI_CALLS" in os.environ  # every call of every module, not some
MOST = 10**9 if FULL else None
NAMES = tuple(calls(network()))
OURS = ("facexai/turns.py", "facexai/hooks.py", "contextlib.py", "torch/utils/hooks.py", "torch/autograd/grad_mode.py")


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_at_any_call_of_any_module(name):
    count = fail_everywhere(name, most=MOST or 14)
    assert count >= 9


@pytest.mark.parametrize("name", BACKWARD)
def test_a_failure_in_the_backward_pass(name):
    count = fail_everywhere(name, most=MOST or 8, backward=True)
    assert count >= 1


@pytest.mark.parametrize("name", ["embed", "HiResCAM", "XSSAB", "deletion"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_ctrl_c_at_every_moment_of_going_in_and_out(name, training, mode):
    """While hooks, modes, grad mode and random state are set and put back, and in the hooks themselves."""
    net, images = network(training=training), faces()
    call = calls(net)[name]
    with mode():
        expected = call()
        before = state(net, images)
        count = at_moment(call, OURS, -1).count
        some = range(count) if FULL or count < 40 else sorted(random.Random(1).sample(range(count), 40))
        for at in some:
            moment = at_moment(call, OURS, at)
            assert same(before, state(net, images)), f"moment {at} of {count}"
            assert moment.raised
            assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert equal(call(), expected)


def test_a_turn_that_was_interrupted_is_given_back():
    net = network(training=True)
    call = calls(net)["HiResCAM"]
    expected = call()
    for at in range(0, at_moment(call, OURS, -1).count, 1 if FULL else 5):
        at_moment(call, OURS, at)
        answers = []
        other = threading.Thread(target=lambda: answers.append(call()), daemon=True)  # noqa: B023
        other.start()
        other.join(60)
        assert answers, f"moment {at}: another thread waits for ever"
        assert equal(answers[0], expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may hit a finaliser
@pytest.mark.parametrize("send", [_thread.interrupt_main, lambda: os.kill(os.getpid(), signal.SIGINT)])
@pytest.mark.parametrize("name", ["HiResCAM", "FGGB", "FastDiME", "deletion_curve", "verification_deletion"])
def test_ctrl_c_at_random_times(name, send):
    net, images = network(training=True), faces()
    call = calls(net)[name]
    expected = call()
    start = time.perf_counter()
    call()
    times = 1 + int(0.1 / (time.perf_counter() - start))  # long enough for a signal to arrive within
    drawn, hits = random.Random(5), 0
    before = state(net, images)
    with interrupting():
        for _ in range(100 if FULL else 12):
            hits += interrupted(lambda: [call() for _ in range(times)], drawn.uniform(0, 0.1), send)
            assert same(before, state(net, images))
    assert equal(call(), expected)
    assert hits > 0


def test_a_failure_inside_a_hook():
    """Of ours, which reads the layer's output, and of the user's, at the same layer."""
    net, images = network(training=True), faces()
    people = FaceModel(net, InputSpec(56)).gallery({"a": torch.eye(10)[0], "b": torch.eye(10)[1]})
    explainer = HiResCAM(people, layer="block")
    expected, before = explainer(images, "a"), state(net, images)
    count = at_moment(lambda: explainer(images, "a"), ("facexai/hooks.py",), -1).count
    for at in range(count):
        assert at_moment(lambda: explainer(images, "a"), ("facexai/hooks.py",), at).raised
        assert same(before, state(net, images))

    class Broken(torch.Tensor):
        """A layer's output whose copy fails."""

        def clone(self, *_, **__):
            raise MemoryError("no room for a copy")

    hook = net.block.register_forward_hook(lambda _, __, output: output.as_subclass(Broken))
    with_hook = state(net, images)
    with pytest.raises(MemoryError):
        explainer(images, "a")
    assert same(with_hook, state(net, images))
    hook.remove()
    assert equal(explainer(images, "a"), expected)


def test_between_batches(monkeypatch):
    net, images = network(training=True), faces(5)
    model = FaceModel(net, InputSpec(56))
    expected, before = model.embed(images, batch_size=2), state(net, images)
    for stop in range(3):
        seen = []
        outputs = FaceModel.outputs

        def counted(self, *args, seen=seen, stop=stop, outputs=outputs, **kwargs):
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(1)
            return outputs(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(FaceModel, "outputs", counted)
            with pytest.raises(KeyboardInterrupt):
                model.embed(images, batch_size=2)
        assert same(before, state(net, images))
    assert torch.equal(model.embed(images, batch_size=2), expected)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the interrupted zipfile
@pytest.mark.parametrize("kind", ["saliency", "pair", "frequency", "counterfactual"])
def test_an_interrupted_save_leaves_the_old_file_or_the_new_one(kind, tmp_path):
    save = keeping(network(), tmp_path)[f"save {kind}"]
    save()
    others = sorted(tmp_path.iterdir())
    file = tmp_path / f"{kind}.npz"
    expected, places_ = load(file), ("zipfile.py", "facexai/results/parts.py", "numpy/lib/_npyio_impl.py")
    count = at_moment(save, places_, -1).count
    some = range(count) if FULL else sorted(random.Random(1).sample(range(count), min(count, 30)))
    for at in some:
        with contextlib.suppress(ValueError):  # what zipfile says of its own open file
            at_moment(save, places_, at)
        assert sorted(tmp_path.iterdir()) == others
        assert equal(load(file), expected)
    gc.collect()
