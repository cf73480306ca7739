"""Contexts of a network's passes: exclusive use, eval mode, random state and grad mode, all restored afterwards.

Threads may share a network. They take turns with it (:func:`alone`); train mode comes back when the last thread that
needs eval mode is done.

Ctrl-C may arrive anywhere, also on the way back. So every ``finally`` below begins again where it was interrupted; and
a ``with`` block whose end was interrupted before it began ends late, when Python forgets the error: :func:`_restored`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import RLock, get_ident, local
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from facexai._locks import ForkSafeLock


@dataclass(eq=False)
class _Held:
    """A module in eval mode, uncompiled: its state to restore, and the number of users."""

    mode: bool
    compiled: Any = None
    users: set[object] = field(default_factory=set)


@dataclass(eq=False)
class _Turn:
    """A lock with its owner."""

    lock: Any = field(default_factory=RLock)
    owner: int | None = None


def _forked() -> None:
    """Forgets what other threads did, which do not exist in a forked child."""
    for module, held in _held.items():
        _put_back(module, held)
    for table in (_held, _turns, _wanted, _seeder, _times):
        table.clear()
    _seeding.lock, _seeding.owner = RLock(), None


_guard = ForkSafeLock(_forked)  # of the tables here; held for moments, never while a network runs
_turns: WeakKeyDictionary[nn.Module, _Turn] = WeakKeyDictionary()
_held: WeakKeyDictionary[nn.Module, _Held] = WeakKeyDictionary()
_wanted: dict[int, _Turn] = {}  # by thread, what it waits for
_seeding = _Turn()  # torch's generator
_seeder: dict[object, int] = {}  # the thread that has seeded torch's generator, once for each level
_times: Counter[int] = Counter()  # by thread, how often it began or ended to seed


def unwrapped(net: nn.Module) -> nn.Module:
    """Returns the network without a wrapper of DataParallel or ``torch.compile``."""
    if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(net.module)
    original = getattr(net, "_orig_mod", None)  # torch.compile keeps the network under this name
    return unwrapped(original) if isinstance(original, nn.Module) else net


@contextmanager
def exclusive(net: nn.Module) -> Iterator[None]:
    """Gives this thread exclusive use of a network: one thread of this library at a time runs, hooks and copies it.

    A thread may take its turn again inside. The lock is not part of the network, so that it copies and pickles as
    before; it is held for a pass or for the gradients of one question.

    Raises:
        RuntimeError: the thread that has the turn waits for one that this thread has. Only networks that run another
            one inside come to this, two of them crosswise.
    """
    with _guard.lock:
        turn = _turns.setdefault(unwrapped(net), _Turn())
    with _taken(turn):
        yield


@contextmanager
def _taken(turn: _Turn) -> Iterator[None]:
    me = get_ident()
    try:
        with _guard.lock:
            if turn.owner != me:
                _wanted[me] = turn
                _check_for_a_circle(me)
        with turn.lock:
            _wanted.pop(me, None)
            again, turn.owner = turn.owner == me, me
            try:
                yield
            finally:
                if not again:
                    turn.owner = None
    finally:
        _wanted.pop(me, None)


def _check_for_a_circle(me: int) -> None:
    """Raises an error where threads would wait for each other without end."""
    thread, seen = _wanted[me].owner, set[int | None]()
    while thread in _wanted and thread not in seen:
        seen.add(thread)
        thread = _wanted[thread].owner
        if thread == me:
            raise RuntimeError(
                "two threads wait for each other: each runs a network and asks, from inside it, for the one that the "
                "other runs; let one thread do both, or run them one after the other"
            )


def _compiled_in_place(module: nn.Module) -> Any:
    """Returns what ``module.compile()`` calls instead of the module, ignoring its hooks; None for other modules."""
    compiled = module.__dict__.get("_compiled_call_impl")
    return compiled if hasattr(compiled, "_torchdynamo_orig_callable") else None


def _put_back(module: nn.Module, held: _Held) -> None:
    module.training = held.mode
    if held.compiled is not None:
        module._compiled_call_impl = held.compiled


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode inside; the mode of every submodule is restored when the last user of
    eval mode is done.

    What ``module.compile()`` compiled in place runs uncompiled inside, like a network of ``torch.compile(net)``.

    For long work: other threads may have their turn with the network meanwhile. Flags are set, ``train()`` is not
    called: where a class does more there, such as merging weights, it could not be undone.
    """
    token, kept = object(), list[nn.Module]()

    def back() -> None:
        with _guard.lock:
            for module in kept:
                held = _held.get(module)
                if held is None or token not in held.users:
                    continue
                if len(held.users) == 1:  # the mode first: whoever interrupts this finds the token and does it again
                    _put_back(module, held)
                    del _held[module]
                else:
                    held.users.discard(token)

    try:
        with _guard.lock:
            modules = list(net.modules())
            training = [module for module in modules if module.training or _compiled_in_place(module)]
            if training or _held:
                kept += modules if training else [module for module in modules if module in _held]
            for module in kept:
                _held.setdefault(module, _Held(module.training, _compiled_in_place(module))).users.add(token)
            for module in training:
                module.training = False
                if _compiled_in_place(module):
                    module._compiled_call_impl = None
        yield
    finally:
        if kept:
            try:
                back()
            except KeyboardInterrupt:
                back()
                raise


def in_training(net: nn.Module) -> int:
    """Returns how many modules the user has in train mode, also while they are in eval mode for an explanation."""
    with _guard.lock:
        return sum(_held[module].mode if module in _held else module.training for module in net.modules())


class _Open(local):
    """The states that this thread restores, innermost last."""

    def __init__(self) -> None:
        self.grad: list[object] = []
        self.random: list[object] = []


_open = _Open()


@contextmanager
def _restored(levels: list[object], back: Callable[[], object]) -> Iterator[None]:
    """Puts something back at the end, unless the block around this one has done so: then this one ends late."""
    token = object()

    def end() -> None:
        if token in levels:
            back()
            del levels[levels.index(token) :]

    try:
        levels.append(token)
        yield
    finally:
        try:
            end()
        except KeyboardInterrupt:
            end()
            raise


# ---- random numbers ---------------------------------------------------------------------------------------------


@contextmanager
def seeded(seed: int | None, net: nn.Module) -> Iterator[None]:
    """Seeds torch's random state for one thread at a time, and restores it afterwards.

    Args:
        seed: from which to start; None: from where it is.
        net: on whose devices.
    """
    token = object()
    with _taken(_seeding):
        try:
            _seeder[token] = get_ident()
            _times[get_ident()] += 1
            with _own_random(net):
                if seed is not None:
                    torch.manual_seed(seed)
                yield
        finally:
            _times[get_ident()] += 1
            _seeder.pop(token, None)


def _shared() -> bool:
    """Returns whether another thread has seeded the generator and is drawing from it."""
    return any(thread != get_ident() for thread in tuple(_seeder.values()))


def _others() -> int:
    """Returns a value that changes whenever another thread starts or stops seeding."""
    return sum(times for thread, times in tuple(_times.items()) if thread != get_ident())


@contextmanager
def _own_random(net: nn.Module) -> Iterator[None]:
    """Restores the random state of the network's devices afterwards, unless another thread uses it."""
    gpus = sorted({p.device.index for p in net.parameters() if p.is_cuda}) if torch.cuda.is_available() else []
    before, shared = _others(), _shared()  # read first: a state of another thread's seeding must not come back
    states, state = [torch.cuda.get_rng_state(gpu) for gpu in gpus], torch.get_rng_state()

    def back() -> None:
        if shared or _shared() or _others() != before:
            return
        if not torch.equal(torch.get_rng_state(), state):
            torch.set_rng_state(state)
        for gpu, of_gpu in zip(gpus, states, strict=True):
            torch.cuda.set_rng_state(of_gpu, gpu)

    with _restored(_open.random, back):
        yield


# ---- both, and gradients ----------------------------------------------------------------------------------------


@contextmanager
def eval_scope(net: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode inside, and restores the mode of every submodule and the random state afterwards.

    Other threads of this library wait for their turn with the network.

    >>> net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval())
    >>> with eval_scope(net):
    ...     print(net[0].training)
    False
    >>> net[0].training, net[1].training
    (True, False)
    """
    with exclusive(net), eval_mode(net), _own_random(net):
        yield


def _no_inference() -> AbstractContextManager[None]:
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()


@contextmanager
def _grad_mode(enabled: bool) -> Iterator[None]:
    with _restored(_open.grad, partial(torch.set_grad_enabled, torch.is_grad_enabled())), _no_inference():
        torch.set_grad_enabled(enabled)
        yield


@contextmanager
def no_graph() -> Iterator[None]:
    """Disables graphs inside, also for a caller in inference mode: tensors can still take part in a graph afterwards.

    >>> with torch.inference_mode(), no_graph():
    ...     torch.zeros(1).is_inference()
    False
    """
    with _grad_mode(False):
        yield


@contextmanager
def grad_scope(net: nn.Module) -> Iterator[None]:
    """Records graphs inside, whatever the caller's grad mode, with the network in eval mode.

    Eval mode also for the backward pass: checkpointed blocks run again there.

    >>> net = nn.Linear(2, 1)
    >>> with torch.inference_mode(), grad_scope(net):
    ...     net(torch.ones(1, 2)).requires_grad
    True
    """
    with _grad_mode(True), eval_scope(net):
        yield
