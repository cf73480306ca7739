"""Makes a faster copy of a network for many forward passes, and keeps it only if its outputs are the original's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, cast, final, get_args

import torch
from torch import Tensor, nn

from facexai._errors import warn
from facexai._html import words
from facexai.hooks import no_graph
from facexai.models._trial import Trial, copied, first_line, median_seconds, refuse_dependent, refuse_unsteady
from facexai.models.blackbox import BlackBox
from facexai.models.engines import Engine, EngineError, EngineName, Precision, attach, convert
from facexai.models.face_model import FaceModel
from facexai.models.folding import Pair, fold, hooked, pairs
from facexai.models.gallery import Gallery, around
from facexai.models.heads import HeadDoesNotFold

_LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_Model = TypeVar("_Model", FaceModel, Gallery)


@final
@dataclass(frozen=True, eq=False)
class Acceleration:
    """A faster copy, and what was done and measured to get it.

    Attributes:
        model: the copy; a :class:`~facexai.FaceModel`, or a :class:`~facexai.models.Gallery` around it.
        folded: names of the norms that were folded into the layer before them.
        layout: memory layout of the weights, ``"contiguous"`` or ``"channels_last"``.
        compiled: whether ``torch.compile`` was kept.
        difference: largest distance of an output row from the original's, relative to the length of the original's row.
        seconds: median seconds for one batch, of ``"original"`` and of every candidate that was verified.
        rejected: what was tried and not kept because it failed or changed the outputs, with the reason.
        engine: what runs the forward passes: ``"torch"``, ``"openvino"`` or ``"onnxruntime"``.
        precision: ``"bf16"``, or None for the network's own.
        cosine: smallest cosine between an embedding of the copy and the original's, over the images that verified it.
        score_change: largest change of a score over these images: of the cosine of two of a batch, or of a probability
            where the network outputs logits.
    """

    model: FaceModel | Gallery
    folded: tuple[str, ...]
    layout: str
    compiled: bool
    difference: float
    seconds: Mapping[str, float]
    rejected: Mapping[str, str] = field(default_factory=dict)
    engine: EngineName = "torch"
    precision: Precision = None
    cosine: float = 1.0
    score_change: float = 0.0

    _repr_html_ = words

    @property
    def kept(self) -> str:
        """The name of the copy in ``seconds``."""
        runs = Engine(self.engine, self.precision)
        return ("compiled" if self.compiled else self.layout) if runs == Engine("torch") else str(runs)

    def __str__(self) -> str:
        before, after = self.seconds["original"], self.seconds[self.kept]
        how = f"{len(self.folded)} norms folded, {self.layout}" + (", compiled" if self.compiled else "")
        how += "" if self.kept in (self.layout, "compiled") else f", {self.kept}"
        why = "".join(f"; rejected {name}: {reason}" for name, reason in self.rejected.items())
        spent = f"{1000 * after:.3g} ms instead of {1000 * before:.3g} ({before / after:.2f} times as fast)"
        agree = f"outputs within {self.difference:.1e} of their length"
        if self.precision is not None:
            agree += f", cosine at least {self.cosine:.5f}, scores within {self.score_change:.1e}"
        return f"{how}: {spent}, {agree}{why}"


def accelerate(
    model: _Model,
    images: Tensor | None = None,
    *,
    batch_size: int = 16,
    compile: bool = False,
    engine: EngineName | Literal["auto"] = "torch",
    precision: Precision = None,
) -> _Model:
    """Returns the copy that :func:`acceleration` makes; same arguments, same errors.

    >>> from facexai import FaceModel, InputSpec
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    >>> model = FaceModel(net, InputSpec(8))
    >>> fast, images = accelerate(model, batch_size=2), torch.rand(2, 3, 8, 8)
    >>> torch.allclose(fast.outputs(images), model.outputs(images), rtol=1e-4, atol=1e-5), fast.net[1]
    (True, Identity())
    """
    done = acceleration(model, images, batch_size=batch_size, compile=compile, engine=engine, precision=precision)
    return cast(_Model, done.model)


def acceleration(
    model: FaceModel | Gallery,
    images: Tensor | None = None,
    *,
    batch_size: int = 16,
    compile: bool = False,
    engine: EngineName | Literal["auto"] = "torch",
    precision: Precision = None,
) -> Acceleration:
    """Makes a verified faster copy of a network, for explainers and metrics that run it many times.

    Norms with fixed statistics are folded into the convolution or linear layer before them, both memory layouts are
    timed on one batch, in turns, and the faster is kept. Another engine then runs the passes of that copy. Nothing is
    kept that fails or changes an output.

    Args:
        model: a model, or a gallery, whose templates stay.
        images: (N, 3, H, W) RGB in [0, 1], such as those to come: all of them verify, the first batch is timed. None:
            noise, which verifies less.
        batch_size: images per forward pass, here and in the use to come.
        compile: try ``torch.compile`` too, which takes a minute. Compiled code ignores hooks, so the copy runs
            uncompiled while a layer has one.
        engine: ``"openvino"`` or ``"onnxruntime"`` (extras of these names) run the forward passes that record no
            gradient and no layer; maps and gradients come from torch. ``"auto"`` keeps the fastest that is installed.
            Conversion takes 1 to 10 s. Where an engine fails, torch runs the copy, and a warning says why.
        precision: ``"bf16"`` computes those passes in bfloat16, which CPUs with AVX-512 BF16 or AMX do two to four
            times as fast. The fingerprint changes, so that scores of two precisions never meet.

    Returns:
        An :class:`Acceleration`; its ``model`` is of the type that was given, in eval mode, and its network is the bare
        copy: a wrapper such as DataParallel is gone, and its prefix from the names of layers. All other names stay.
        A norm that was folded is an Identity with the norm's output; the output of the layer before it is the norm's
        output too, so explain at the norm or at the block. Head and CAM stay as they were. The fingerprint changes.

    Raises:
        ValueError: a ScriptModule, a network that cannot be copied, or one whose outputs are random or depend on the
            other images in the batch, so that nothing can be verified; an unknown engine or precision.

    Outputs agree within 1e-4 of the length of the original's row, for every image given and for noise in a batch of
    another size; within 5e-3 on CUDA, where convolutions round to ten bits (TF32) unless told otherwise; within 2e-2 in
    half precision, where rounding a folded weight costs that much; and within .1 with ``precision="bf16"``, where
    ``cosine`` and ``score_change`` of the result say what it costs. The original is not touched.

    Source: ours; folding is the algebra of affine maps.
    """
    face = model.model
    if isinstance(face.core, torch.jit.ScriptModule):
        raise ValueError("a ScriptModule has nothing to fold; accelerate the eager module that it was made from")
    if isinstance(face.core, BlackBox):
        raise ValueError(face.core.refusal)
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    engines = _engines(engine, precision)
    images = face.noise(batch_size) if images is None else images
    face.spec.check(images)
    with no_graph():
        batches = torch.split(images, batch_size)
        timed = batches[0]
        noise = face.noise(3 if len(timed) == 2 else 2, seed=1)
        face.outputs(timed)  # what is wrong with model or images shows here, in their own words
        refuse_dependent(face, noise)
        trial, small = (Trial.of(face, [*some, noise]) for some in (batches, [timed[:2]]))
        net = copied(face.core)
        refuse_unsteady(face, around(face, net).model, trial)
        folded, rejected = _fold(face, net, trial, small)
        verified = _layouts(face, net, trial, rejected)
        seconds = median_seconds({"original": face} | verified, timed)
        layout = min(verified, key=lambda name: seconds[name])
        kept = layout
        if compile and _compiles(face, verified, layout, trial, rejected):
            both = {name: verified[name] for name in (layout, "compiled")}
            seconds |= median_seconds({"original": face} | both, timed)
            kept = min((layout, "compiled"), key=lambda name: seconds[name])
        runs = Engine("torch")
        if found := _with_engines(face, verified[layout].net, engines, trial, rejected):
            seconds |= median_seconds({kept: verified[kept], "original": face} | found, timed)
            named = engine != "auto" or precision is not None  # what was asked for by name is kept if it holds
            kept = min(found if named else (kept, *found), key=lambda name: seconds[name])
            verified |= found
            runs = engines.get(kept, runs)
        elif engines and (engine != "auto" or precision is not None):
            reasons = "; ".join(f"{name}: {rejected[name]}" for name in engines)
            text = f"the copy runs with torch in its own precision, since {reasons}"
            warn(text)
        difference, (cosine, change) = trial.difference(verified[kept]), trial.agreement(verified[kept])
    fast = around(model, verified[kept].net)
    done = Acceleration(fast, folded, layout, kept == "compiled", difference, seconds, rejected)
    return replace(done, engine=runs.name, precision=runs.precision, cosine=cosine, score_change=change)


def _engines(engine: str, precision: str | None) -> dict[str, Engine]:
    """Returns the engines to try by name, beside torch in the network's own precision."""
    names: tuple[EngineName, ...] = get_args(EngineName)
    if engine not in (*names, "auto"):
        raise ValueError(f"expected engine 'auto', {', '.join(map(repr, names))}, got {engine!r}")
    if precision not in (None, "bf16"):
        raise ValueError(f"expected precision None or 'bf16', got {precision!r}")
    some = [Engine(name, "bf16" if precision else None) for name in names if engine in (name, "auto")]
    return {str(one): one for one in some if one != Engine("torch")}


def _with_engines(
    face: FaceModel, net: nn.Module, engines: Mapping[str, Engine], trial: Trial, rejected: dict[str, str]
) -> dict[str, FaceModel]:
    """Returns copies of the network that these engines run, verified; reasons of the others go to ``rejected``."""
    verified: dict[str, FaceModel] = {}
    x = face.spec.prepare(face.noise(2)).to(face.dtype)
    for name, engine in engines.items():
        try:
            twin = around(face, attach(copy.deepcopy(net), convert(net, x, engine), engine)).model
        except EngineError as error:
            rejected[name] = str(error)
            continue
        why = (trial if engine.precision is None else trial.in_bf16()).refusal(twin)
        if why is None:
            verified[name] = twin
        else:
            rejected[name] = why
    return verified


def _fold(face: FaceModel, net: nn.Module, trial: Trial, small: Trial) -> tuple[tuple[str, ...], dict[str, str]]:
    """Folds norms in place; returns the names of those that were folded, and the reasons of the others.

    All at once if that holds; else one by one, tried on few images, and at last on all of them.
    """

    def twin() -> FaceModel:
        return around(face, net).model

    head = _head(twin())
    found = pairs(net, lambda: twin().outputs(small.batches[-1]))

    def reason(wanted: Trial) -> str | None:
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
    """Returns where the affine head begins and which modules belong to it, or None without one."""
    try:
        head = face.head
    except HeadDoesNotFold:
        return None
    return head.layer, head.side, head.names


def _enters(head: _Ends | None, pair: Pair) -> bool:
    """Returns whether a norm of the head would be folded into a layer outside, whose map the head explains."""
    return head is not None and pair.norm in head[2] and pair.layer not in head[2]


def _layouts(face: FaceModel, net: nn.Module, trial: Trial, rejected: dict[str, str]) -> dict[str, FaceModel]:
    """Returns verified copies in each memory layout; reasons of the others go to ``rejected``.

    Raises:
        ValueError: none holds.
    """
    verified: dict[str, FaceModel] = {}
    for layout, form in _LAYOUTS.items():
        try:
            moved = copy.deepcopy(net).to(memory_format=form)  # type: ignore[call-overload]
        except RuntimeError as error:  # weights with five axes have no such layout
            rejected[layout] = first_line(error)
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
    face: FaceModel, verified: dict[str, FaceModel], layout: str, trial: Trial, rejected: dict[str, str]
) -> bool:
    """Returns whether the copy in this layout compiles; adds it to ``verified``, or the reason to ``rejected``."""
    try:
        twin = around(face, _compiled(verified[layout].net)).model
        why = trial.refusal(twin)
    except Exception as error:  # whatever a missing compiler raises
        why = first_line(error)
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
