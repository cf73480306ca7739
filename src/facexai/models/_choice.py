"""A network that returns several tensors: which of them may be the embedding, and what each gives on faces."""

from __future__ import annotations

from functools import reduce
from typing import Any

from torch import Tensor

from facexai.functional import auc
from facexai.hooks import no_graph
from facexai.models._finding import Finding
from facexai.models.face_model import FaceModel
from facexai.models.input_variants import Labelled, Moments, cosines
from facexai.models.outputs import candidates, default_take, taking


def choice(model: FaceModel, images: Tensor, faces: Labelled | None) -> Finding | None:
    """Returns a finding where the user left open which of several (N, D) tensors is meant; None: nothing is open.

    Args:
        model: the model, which has run.
        images: (N, 3, H, W), for one more pass.
        faces: labelled faces, on which every tensor is tried, in one pass for each; None: only shapes are reported.
    """
    if model.take is not None or model.took is None:
        return None
    fit: dict[tuple[int | str, ...], Tensor] = {}

    def look(output: Any) -> Tensor:
        fit.update(candidates(output, len(next(iter(_tensors(output))))))
        taken: Tensor = output[default_take(output)]
        return taken

    with no_graph():
        _twin(model, look).outputs(images)
    if len(fit) < 2:
        return None
    words = "; ".join(_said(model, path, rows, faces) for path, rows in fit.items())
    found = f"{len(fit)} tensors of the output may be the embedding, {model.took!r} was taken: {words}"
    return Finding("choice", "bad", found, "pass the one that is meant, FaceModel(net, spec, take=...)")


def _tensors(output: Any) -> list[Tensor]:
    values = output.values() if hasattr(output, "values") else output
    return [value for value in values if isinstance(value, Tensor)]


def _twin(model: FaceModel, take: Any) -> FaceModel:
    return FaceModel(model.net, model.spec, take=take, forward_kwargs=model.forward_kwargs)


def _said(model: FaceModel, path: tuple[int | str, ...], rows: Tensor, faces: Labelled | None) -> str:
    words = f"{taking(path)} has {rows.shape[1]} numbers"
    if faces is None:
        return words
    twin = _twin(model, lambda output: reduce(lambda value, key: value[key], path, output))
    scores = cosines(twin, model.spec, faces, len(rows))
    if scores is None:
        return f"{words} and fails on the faces"
    return f"{words}, AUC {auc(scores, faces.same):.4f}, separation {Moments(scores, faces).separation():.2f}"
