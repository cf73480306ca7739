"""A faster copy of a network for many forward passes, kept only if its outputs are those of the original."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final, overload

import torch
from torch import Tensor, nn

from facexai._html import words
from facexai.functional import at_least_float32
from facexai.hooks import exclusive, no_graph, seeded
from facexai.models._row_mixing import known_to_mix
from facexai.models.blackbox import BlackBox
from facexai.models.face_model import FaceModel
from facexai.models.folding import Pair, fold, hooked, pairs
from facexai.models.gallery import Gallery, around
from facexai.models.heads import HeadDoesNotFold

_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_CLOSE, _CLOSE_ON_CUDA, _CLOSE_IN_HALF = 1e-4, 5e-3, 2e-2
_DOCTOR = "facexai.doctor(model) looks for the cause"
_ROUNDS, _BUDGET = (3, 15), 2.0  # at least and at most; seconds of measuring in between


@final
@dataclass(frozen=True, eq=False)
class Acceleration:
    """A faster copy, and what was done and measured to get it.

    Attributes:
        model: the copy; a :class:`~facexai.FaceModel`, or a :class:`~facexai.models.Gallery` around it.
        folded: names of the norms that were folded into the layer before them.
        layout: memory layout of the weights, ``"contiguous"`` or ``"channels_last"``.
        compiled: whether ``torch.compile`` was kept.
        difference: largest distance of an output row from the original's, in lengths of the original's row.
        seconds: median seconds for one batch, of ``"original"`` and of every candidate that was verified.
        rejected: what was tried and not kept because it crashed or changed the outputs, with the reason.
    """

    model: FaceModel | Gallery
    folded: tuple[str, ...]
    layout: str
    compiled: bool
    difference: float
    seconds: Mapping[str, float]
    rejected: Mapping[str, str] = field(default_factory=dict)

    _repr_html_ = words

    def __str__(self) -> str:
        before, after = self.seconds["original"], self.seconds["compiled" if self.compiled else self.layout]
        how = f"{len(self.folded)} norms folded, {self.layout}" + (", compiled" if self.compiled else "")
        why = "".join(f"; rejected {name}: {reason}" for name, reason in self.rejected.items())
        spent = f"{1000 * after:.3g} ms instead of {1000 * before:.3g} ({before / after:.2f} times as fast)"
        return f"{how}: {spent}, outputs within {self.difference:.1e} of their length{why}"


@overload
def accelerate(
    model: FaceModel, images: Tensor | None = None, *, batch_size: int = 16, compile: bool = False
) -> FaceModel: ...


@overload
def accelerate(
    model: Gallery, images: Tensor | None = None, *, batch_size: int = 16, compile: bool = False
) -> Gallery: ...


def accelerate(
    model: FaceModel | Gallery, images: Tensor | None = None, *, batch_size: int = 16, compile: bool = False
) -> FaceModel | Gallery:
    """Returns the copy that :func:`acceleration` makes; its arguments, its errors.

    >>> from facexai import FaceModel, InputSpec
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    >>> model = FaceModel(net, InputSpec(8))
    >>> fast, images = accelerate(model, batch_size=2), torch.rand(2, 3, 8, 8)
    >>> torch.allclose(fast.outputs(images), model.outputs(images), rtol=1e-4, atol=1e-5), fast.net[1]
    (True, Identity())
    """
    return acceleration(model, images, batch_size=batch_size, compile=compile).model


def acceleration(
    model: FaceModel | Gallery, images: Tensor | None = None, *, batch_size: int = 16, compile: bool = False
) -> Acceleration:
    """Returns a verified faster copy of a network, for explainers and measures that run it many times.

    Norms with fixed statistics are folded into the convolution or linear layer before them, both memory layouts are
    timed on one batch, taking turns, and the faster is kept. Whatever crashes or changes an output is not kept.

    Args:
        model: a model, or a gallery, whose templates stay.
        images: (N, 3, H, W) RGB in [0, 1], such as those to come: all of them verify, the first batch is timed. None:
            noise, which verifies less.
        batch_size: images per forward pass, here and in the use to come.
        compile: try ``torch.compile`` too, which takes a minute. Compiled code ignores hooks, so the copy runs
            uncompiled while a layer has a hook.

    Returns:
        An :class:`Acceleration`; its ``model`` is of the type that was given, in eval mode, and its network is the bare
        copy: a wrapper such as DataParallel is gone, and its prefix from the names of layers. All other names stay.
        A norm that was folded is an Identity with the norm's output; the output of the layer before it is the norm's
        output too, so explain at the norm or at the block. Head and CAM stay as they were. The fingerprint changes.

    Raises:
        ValueError: a ScriptModule, a network that cannot be copied, or one whose outputs are random or depend on the
            other images in the batch, so that nothing can be verified.

    Outputs agree within 1e-4 of the length of the original's row, for every image given and for noise in a batch of
    another size; within 5e-3 on CUDA, where convolutions round to ten bits (TF32) unless told otherwise, and within
    2e-2 in half precision, where rounding a folded weight costs that much. The original is not touched.

    Source: ours; folding is the algebra of affine maps.
    """
    face = model.model
    if isinstance(face.core, torch.jit.ScriptModule):
        raise ValueError("a ScriptModule has nothing to fold; accelerate the eager module that it was made from")
    if isinstance(face.core, BlackBox):
        raise ValueError(face.core.refusal)
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    images = face.noise(batch_size) if images is None else images
    face.spec.check(images)
    with no_graph():
        batches = torch.split(images, batch_size)
        timed = batches[0]
        noise = face.noise(3 if len(timed) == 2 else 2, seed=1)
        face.outputs(timed)  # what is wrong with model or images shows here, in their own words
        _refuse_dependent(face, noise)
        trial, small = (_Trial.of(face, [*some, noise]) for some in (batches, [timed[:2]]))
        net = _copied(face.core)
        _refuse_unsteady(face, net, trial)
        folded, rejected = _fold(face, net, trial, small)
        verified = _layouts(face, net, trial, rejected)
        seconds = _seconds({"original": face} | verified, timed)
        layout = min(verified, key=lambda name: seconds[name])
        kept = layout
        if compile and _compiles(face, verified, layout, trial, rejected):
            seconds |= _seconds({name: verified[name] for name in (layout, "compiled")} | {"original": face}, timed)
            kept = min((layout, "compiled"), key=lambda name: seconds[name])
        difference = trial.difference(verified[kept])
    fast = around(model, verified[kept].net)
    return Acceleration(fast, folded, layout, kept == "compiled", difference, seconds, rejected)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Images in batches, the original's outputs for them, and how far a copy may be from those."""

    batches: Sequence[Tensor]
    expected: Sequence[Tensor]
    allowed: float

    @classmethod
    def of(cls, face: FaceModel, batches: Sequence[Tensor]) -> _Trial:
        outputs = [face.outputs(batch).clone() for batch in batches]
        return cls(batches, outputs, _allowed(face, outputs[0]))

    def difference(self, face: FaceModel) -> float:
        """Returns the largest distance of an output row from the original's, in lengths of the original's row."""
        known = zip(self.batches, self.expected, strict=True)
        return max(_apart(face.outputs(batch), expected) for batch, expected in known)

    def refusal(self, face: FaceModel) -> str | None:
        """Returns why a copy does not serve, or None."""
        try:
            difference = self.difference(face)
        except Exception as error:  # whatever the changed network raises
            return _said(error)
        return None if difference <= self.allowed else f"changes outputs by {difference:.1e} of their length"


def _allowed(face: FaceModel, outputs: Tensor) -> float:
    if {t.dtype for t in (*_tensors(face.net), outputs)} & {torch.float16, torch.bfloat16}:
        return _CLOSE_IN_HALF
    return _CLOSE_ON_CUDA if outputs.is_cuda else _CLOSE


def _apart(rows: Tensor, expected: Tensor) -> float:
    rows, expected = at_least_float32(rows), at_least_float32(expected)
    tiny = torch.finfo(expected.dtype).tiny
    return float(((rows - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=tiny)).max())


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def _copied(core: nn.Module) -> nn.Module:
    """Returns a copy of the network in eval mode that shares nothing with it.

    Raises:
        ValueError: it cannot be copied, or its copy is not one.
    """
    name = type(core).__name__
    try:
        with exclusive(core):  # nobody else's hooks are copied
            net = copy.deepcopy(core)
    except Exception as error:  # whatever the parts of the user's network raise
        raise ValueError(
            f"cannot copy {name}: {_said(error)}; copy.deepcopy(net) has to work: take off weight_norm or pruning, and "
            "drop what the network keeps from its last run"
        ) from error
    tensors = {id(t) for t in _tensors(core)} | {t.untyped_storage().data_ptr() for t in _tensors(core) if t.numel()}
    shared = {id(m) for m in core.modules()} & {id(m) for m in net.modules()} or any(
        id(t) in tensors or (t.numel() and t.untyped_storage().data_ptr() in tensors) for t in _tensors(net)
    )
    if shared:
        raise ValueError(
            f"cannot copy {name}: copy.deepcopy(net) shares modules or weights with it; remove __deepcopy__"
        )
    return net.eval()


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


def _refuse_dependent(face: FaceModel, noise: Tensor) -> None:
    """Refuse a network that gives an image another output alone than in a batch.

    Raises:
        ValueError: it does, or it does not run on batches of both sizes.
    """
    name = type(face.core).__name__
    try:
        together, alone = face.outputs(noise), face.outputs(noise[:1])
    except Exception as error:  # whatever the user's network raises for a batch of another size
        raise ValueError(
            f"nothing can be verified: {name} does not run on batches of {len(noise)} and of 1 image ({_said(error)}); "
            f"{_DOCTOR}"
        ) from error
    apart = _apart(alone, together[:: len(noise)])
    if known_to_mix(face.core) or apart > _allowed(face, together):
        raise ValueError(
            f"nothing can be verified: an image alone gives {name} another output than in a batch, so the outputs "
            f"depend on the other images, or are random; {_DOCTOR}"
        )


def _refuse_unsteady(face: FaceModel, net: nn.Module, trial: _Trial) -> None:
    """Refuse a network of which an unchanged copy differs.

    Raises:
        ValueError: it does.
    """
    gpus = sorted({t.device.index for t in _tensors(face.net) if t.is_cuda})
    with seeded(None, face.net):
        for device in ("cpu", *(f"cuda:{gpu}" for gpu in gpus)):
            torch.rand(1, device=device)  # every pass starts from the caller's random state: start from another
        reason = trial.refusal(around(face, net).model)
    if reason is not None:
        raise ValueError(
            f"nothing can be verified: an unchanged copy of {type(face.core).__name__} differs from it ({reason}), so "
            f"the outputs are random or depend on earlier calls; {_DOCTOR}"
        )


def _fold(face: FaceModel, net: nn.Module, trial: _Trial, small: _Trial) -> tuple[tuple[str, ...], dict[str, str]]:
    """Fold what can be folded, in place: the names of those norms, and of the others the reasons.

    All at once if that holds; else one by one, tried on few images, and at last on all of them.
    """

    def twin() -> FaceModel:
        return around(face, net).model

    head = _head(twin())
    found = pairs(net, lambda: twin().outputs(small.batches[-1]))

    def reason(wanted: _Trial) -> str | None:
        changed = wanted.refusal(twin())
        if changed is None and head is not None and _head(twin()) != head:
            return "moves the head, and CAM with it"
        return changed

    rejected = {f"folding {pair.norm}": "moves CAM's constant into its cells" for pair in found if _enters(head, pair)}
    found = [pair for pair in found if not _enters(head, pair)]
    undo = [fold(net, pair) for pair in found]
    if not found or reason(trial) is None:
        return tuple(pair.norm for pair in found), rejected
    for back in reversed(undo):
        back()
    kept, undo = [], []
    for pair in found:
        back = fold(net, pair)
        why = reason(small)
        if why is None:
            kept.append(pair.norm)
            undo.append(back)
        else:
            back()
            rejected[f"folding {pair.norm}"] = why
    why = reason(trial) if kept else None
    if why is not None:
        for back in reversed(undo):
            back()
        rejected |= {f"folding {name}": why for name in kept}
        kept = []
    return tuple(kept), rejected


_Ends = tuple[str, str, frozenset[str]]


def _head(face: FaceModel) -> _Ends | None:
    """Returns where the affine head begins and what belongs to it, if there is one."""
    try:
        head = face.head
    except HeadDoesNotFold:
        return None
    return head.layer, head.side, head.names


def _enters(head: _Ends | None, pair: Pair) -> bool:
    """Returns whether a norm of the head would be folded into a layer outside, whose map the head explains."""
    return head is not None and pair.norm in head[2] and pair.layer not in head[2]


def _layouts(face: FaceModel, net: nn.Module, trial: _Trial, rejected: dict[str, str]) -> dict[str, FaceModel]:
    """Returns copies in every memory layout that holds; reasons of the others go to ``rejected``.

    Raises:
        ValueError: none holds.
    """
    verified: dict[str, FaceModel] = {}
    for layout, form in _LAYOUTS.items():
        try:
            moved = copy.deepcopy(net).to(memory_format=form)  # type: ignore[call-overload]
        except RuntimeError as error:  # weights with five axes have no such layout
            rejected[layout] = _said(error)
            continue
        twin = around(face, moved).model
        why = trial.refusal(twin)
        if why is None:
            verified[layout] = twin
        else:
            rejected[layout] = why
    if not verified:
        raise ValueError(f"no memory layout holds: {rejected}; use the model as it is")
    return verified


def _compiles(
    face: FaceModel, verified: dict[str, FaceModel], layout: str, trial: _Trial, rejected: dict[str, str]
) -> bool:
    """Returns whether the copy in this layout can be compiled; it joins ``verified``, or its reason ``rejected``."""
    try:
        twin = around(face, _compiled(verified[layout].net)).model
        why = trial.refusal(twin)
    except Exception as error:  # whatever a missing compiler raises
        why = _said(error)
    if why is None:
        verified["compiled"] = twin
    else:
        rejected["compiled"] = why
    return why is None


def _compiled(net: nn.Module) -> nn.Module:
    """Returns a compiled copy that runs uncompiled while any module has a hook, which compiled code would ignore."""
    twin = copy.deepcopy(net)
    twin.compile()
    fast: Any = twin._compiled_call_impl
    eager: Any = twin._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        watched = any(hooked(module) for module in twin.modules())
        return (eager if watched else fast)(*args, **kwargs)

    twin._compiled_call_impl = call
    return twin


def _seconds(models: Mapping[str, FaceModel], images: Tensor) -> dict[str, float]:
    """Returns the median seconds of a forward pass of each model; they take turns, so that other load
    slows all of them.
    """
    spent: dict[str, list[float]] = {name: [] for name in models}

    def round_() -> float:
        start = time.perf_counter()
        for name, model in models.items():
            before = time.perf_counter()
            model.outputs(images)  # it looks for NaN, and so waits for an accelerator
            spent[name].append(time.perf_counter() - before)
        return time.perf_counter() - start

    round_()  # warm up
    rounds = min(max(int(_BUDGET / max(round_(), 1e-9)), _ROUNDS[0]), _ROUNDS[1])
    for _ in range(rounds - 1):
        round_()
    return {name: statistics.median(values[1:]) for name, values in spent.items()}
