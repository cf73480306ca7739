"""Errors put into the middle of things: at any call of any module, in backward passes, and Ctrl-C at any moment."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from everything import calls, equal, faces, leaves, network
from torch import nn
from torch.nn.modules import module as modules
from untouched import same, snapshot

from facexai._registry import EXPLAINERS

ERRORS = (RuntimeError, KeyboardInterrupt, MemoryError, torch.OutOfMemoryError)
HANDLED = {"doctor", "acceleration"}  # tell of a network's error instead of raising it
BACKWARD = tuple(row.cls for row in EXPLAINERS if row.needs == "gradients")  # run backward passes
BACKWARD += (
    "SDD",
    "PairCAM, block",
    "FrequencyHeatPlot, hybrid",
    "FastDiME",
    "doctor",
    "randomisation",
    "ScoreCAM, keep",
)
TRIED_AGAIN = torch.OutOfMemoryError  # with fewer images


class Fault:
    """Counts the calls of all modules, of copies too; raises at one of them or in the backward pass of its output.

    Hooks of all modules at once: a network's own are looked at by what is tested.
    """

    def __init__(self, at: int = -1, error: type[BaseException] = RuntimeError, *, backward: bool = False) -> None:
        self.at, self.error, self.backward, self.count, self.raised = at, error, backward, 0, False

    def _fail(self, *_: Any) -> None:
        self.raised = True
        raise self.error("a fault that was put here")

    def _before(self, *_: Any) -> None:
        if not self.backward:
            self.count += 1
            if self.count - 1 == self.at:
                self._fail()

    def _after(self, _: nn.Module, __: Any, output: Any) -> None:
        if self.backward and isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(self._seen)

    def _seen(self, _: torch.Tensor) -> None:
        self.count += 1
        if self.count - 1 == self.at:
            self._fail()

    def __enter__(self) -> Fault:
        self._hooks = (
            modules.register_module_forward_pre_hook(self._before),
            modules.register_module_forward_hook(self._after),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def places(call: Callable[[], Any], *, backward: bool = False, most: int = 10**9) -> list[int]:
    """Numbers of calls to fail at: all of them, or so many, the first ones and others spread over the rest."""
    with Fault(backward=backward) as meter:
        call()
    count = meter.count
    if count <= most:
        return list(range(count))
    first = most // 2
    rest = most - first
    return [*range(first), *(first + (count - 1 - first) * k // max(1, rest - 1) for k in range(rest))]


def state(net: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """What must not change; beside the network the grad mode, inference mode and memory formats."""
    return snapshot(net, images) | {
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "places": [(t.data_ptr(), t.device) for t in (*net.parameters(), *net.buffers())],
    }


def close(a: Any, b: Any) -> bool:
    """Equal but for the last bits, as in batches of another size."""
    return all(
        torch.allclose(x, y, rtol=1e-3, atol=1e-5) if isinstance(x, torch.Tensor) and x.is_floating_point() else True
        for x, y in zip(leaves(a), leaves(b), strict=True)
    )


def fail_everywhere(name: str, *, most: int, backward: bool = False) -> int:
    """Fail at one place after the other, each time with the next error; how many faults there were."""
    net, images = network(training=True), faces()
    call = calls(net)[name]
    expected, before = call(), state(net, images)
    found = places(call, backward=backward, most=most)
    for number, place in enumerate(found):
        error = ERRORS[number % len(ERRORS)]
        with Fault(place, error, backward=backward) as fault:
            try:
                answer = call()
            except (error, ValueError) as told:  # what looks at a network says in words of its own that it fails
                if not isinstance(told, error) and name not in HANDLED:
                    raise
            else:
                assert name in HANDLED or (error is TRIED_AGAIN and close(answer, expected)), (name, place, error)
        assert fault.raised
        assert same(before, state(net, images)), (name, place, error)
        if number % 4 == 3 or number == len(found) - 1:
            assert equal(call(), expected), (name, place, error)
    return len(found)


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------


class Moment:
    """Python may be interrupted where a function begins or goes on and where one written in C ends: one such moment.

    Args:
        at: which; -1: count only.
        files: ends of file names, whose moments count.
    """

    def __init__(self, at: int, files: tuple[str, ...]) -> None:
        self.at, self.files, self.count, self.raised = at, files, 0, False

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(self.files):
            self.count += 1
            if self.count - 1 == self.at:
                self.raised = True
                sys.setprofile(None)
                raise KeyboardInterrupt


def at_moment(call: Callable[[], Any], files: tuple[str, ...], at: int) -> Moment:
    """Run a call that is interrupted at one moment; the error is forgotten, and with it its traceback."""
    moment = Moment(at, files)
    try:
        sys.setprofile(moment)
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return moment


@contextmanager
def interrupting() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as it does in Python."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted(call: Callable[[], Any], seconds: float, send: Callable[[], None]) -> bool:
    """Run a call and send the signal after so many seconds; whether it arrived before the call was done."""
    timer = threading.Timer(seconds, send)
    done = False
    try:
        timer.start()
        call()
        done = True
        timer.join()
        time.sleep(0.05)  # the signal is on its way, if it did not arrive where Python ignores errors, in a finaliser
        return False
    except KeyboardInterrupt:
        return not done
    finally:
        timer.join()
