"""Compares a copy of a network with the original, by its outputs and by its time."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facexai.functional import at_least_float32
from facexai.hooks import exclusive, seeded
from facexai.models._row_mixing import known_to_mix
from facexai.models.face_model import FaceModel

_DOCTOR = "facexai.doctor(model) looks for the cause"
_CLOSE, _CLOSE_ON_CUDA, _CLOSE_IN_HALF = 1e-4, 5e-3, 2e-2
_CLOSE_IN_BF16 = 1e-1
_ROUNDS, _BUDGET = (3, 15), 2.0  # at least and at most; seconds of measuring in between


@dataclass(frozen=True, eq=False)
class Trial:
    """Batches of images, the original's outputs for them, and the distance that is allowed to a copy's outputs."""

    batches: Sequence[Tensor]
    expected: Sequence[Tensor]
    allowed: float

    @classmethod
    def of(cls, face: FaceModel, batches: Sequence[Tensor]) -> Trial:
        """Returns the trial of a model on these batches."""
        outputs = [face.outputs(batch).clone() for batch in batches]
        return cls(batches, outputs, allowed_distance(face, outputs[0]))

    def in_bf16(self) -> Trial:
        """Returns the same trial with the distance that is allowed to a copy that computes in bfloat16."""
        return replace(self, allowed=max(self.allowed, _CLOSE_IN_BF16))

    def difference(self, face: FaceModel) -> float:
        """Returns the largest distance of an output row from the original's, relative to the original's length."""
        pairs = zip(self.batches, self.expected, strict=True)
        return max(distance(face.outputs(batch), expected) for batch, expected in pairs)

    def agreement(self, face: FaceModel) -> tuple[float, float]:
        """Returns the smallest cosine of a feature to the original's, and the largest change of a score.

        Scores are the cosines of all pairs of images in a batch, or, where the network outputs logits, the
        probabilities of all classes.
        """
        smallest, largest = 1.0, 0.0
        for batch, expected in zip(self.batches, self.expected, strict=True):
            after, before = (face.features(rows).double() for rows in (face.outputs(batch), expected))
            smallest = min(smallest, float(F.cosine_similarity(after, before).min()))
            changes = _scores(after, face.gives_logits) - _scores(before, face.gives_logits)
            largest = max(largest, float(changes.abs().max()))
        return smallest, largest

    def refusal(self, face: FaceModel) -> str | None:
        """Returns why a copy cannot take the original's place, or None if it can."""
        try:
            difference = self.difference(face)
        except Exception as error:  # whatever the changed network raises
            return first_line(error)
        return None if difference <= self.allowed else f"changes outputs by {difference:.1e} of their length"


def _scores(features: Tensor, logits: bool) -> Tensor:
    if logits:
        return features.softmax(1)
    unit = F.normalize(features)
    return unit @ unit.T


def allowed_distance(face: FaceModel, outputs: Tensor) -> float:
    """Returns the distance that rounding alone explains on this device and in this precision."""
    if {t.dtype for t in (*tensors_of(face.net), outputs)} & {torch.float16, torch.bfloat16}:
        return _CLOSE_IN_HALF
    return _CLOSE_ON_CUDA if outputs.is_cuda else _CLOSE


def distance(rows: Tensor, expected: Tensor) -> float:
    """Returns the largest distance between two rows, relative to the length of the expected one."""
    rows, expected = at_least_float32(rows), at_least_float32(expected)
    tiny = torch.finfo(expected.dtype).tiny
    return float(((rows - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=tiny)).max())


def first_line(error: Exception) -> str:
    """Returns the type of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"


def tensors_of(net: nn.Module) -> list[Tensor]:
    """Returns parameters and buffers."""
    return [*net.parameters(), *net.buffers()]


def copied(core: nn.Module) -> nn.Module:
    """Returns a copy of the network in eval mode that shares nothing with it.

    Raises:
        ValueError: it cannot be copied, or its copy is not one.
    """
    name = type(core).__name__
    try:
        with exclusive(core):  # another thread's hooks are not copied
            net = copy.deepcopy(core)
    except Exception as error:  # whatever the parts of the user's network raise
        raise ValueError(
            f"cannot copy {name}: {first_line(error)}; copy.deepcopy(net) has to work: take off weight_norm or "
            "pruning, and drop what the network keeps from its last run"
        ) from error
    own = tensors_of(core)
    tensors = {id(t) for t in own} | {t.untyped_storage().data_ptr() for t in own if t.numel()}
    shared = {id(m) for m in core.modules()} & {id(m) for m in net.modules()} or any(
        id(t) in tensors or (t.numel() and t.untyped_storage().data_ptr() in tensors) for t in tensors_of(net)
    )
    if shared:
        raise ValueError(
            f"cannot copy {name}: copy.deepcopy(net) shares modules or weights with it; remove __deepcopy__"
        )
    return net.eval()


def refuse_dependent(face: FaceModel, noise: Tensor) -> None:
    """Refuses a network that gives an image another output alone than in a batch.

    Raises:
        ValueError: it does, or it does not run on batches of both sizes.
    """
    name = type(face.core).__name__
    try:
        together, alone = face.outputs(noise), face.outputs(noise[:1])
    except Exception as error:  # whatever the user's network raises for a batch of another size
        raise ValueError(
            f"nothing can be verified: {name} does not run on batches of {len(noise)} and of 1 image "
            f"({first_line(error)}); {_DOCTOR}"
        ) from error
    apart = distance(alone, together[:: len(noise)])
    if known_to_mix(face.core) or apart > allowed_distance(face, together):
        raise ValueError(
            f"nothing can be verified: an image alone gives {name} another output than in a batch, so the outputs "
            f"depend on the other images, or are random; {_DOCTOR}"
        )


def refuse_unsteady(face: FaceModel, twin: FaceModel, trial: Trial) -> None:
    """Refuses a network whose unchanged copy has other outputs.

    Raises:
        ValueError: it does.
    """
    gpus = sorted({t.device.index for t in tensors_of(face.net) if t.is_cuda})
    with seeded(None, face.net):
        for device in ("cpu", *(f"cuda:{gpu}" for gpu in gpus)):
            torch.rand(1, device=device)  # every pass starts from the caller's random state: start from another
        reason = trial.refusal(twin)
    if reason is not None:
        raise ValueError(
            f"nothing can be verified: an unchanged copy of {type(face.core).__name__} differs from it ({reason}), so "
            f"the outputs are random or depend on earlier calls; {_DOCTOR}"
        )


def median_seconds(models: Mapping[str, FaceModel], images: Tensor) -> dict[str, float]:
    """Returns the median seconds of a forward pass of each model, measured in turns, so that other load slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in models}

    def measure_round() -> float:
        start = time.perf_counter()
        for name, model in models.items():
            before = time.perf_counter()
            model.outputs(images)  # it looks for NaN, and so waits for an accelerator
            seconds[name].append(time.perf_counter() - before)
        return time.perf_counter() - start

    measure_round()  # warm up
    rounds = min(max(int(_BUDGET / max(measure_round(), 1e-9)), _ROUNDS[0]), _ROUNDS[1])
    for _ in range(rounds - 1):
        measure_round()
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}
