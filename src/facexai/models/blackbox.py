"""Black boxes: ONNX sessions, NumPy functions, remote services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from facexai.input_spec import Channels, InputSpec

Space = Literal["input", "rgb01", "bgr01", "grey01", "rgb_uint8", "bgr_uint8", "grey_uint8"]

_SPACES: dict[str, tuple[Channels, float]] = {
    "rgb01": ("RGB", 1.0),
    "bgr01": ("BGR", 1.0),
    "grey01": ("L", 1.0),
    "rgb_uint8": ("RGB", 255.0),
    "bgr_uint8": ("BGR", 255.0),
    "grey_uint8": ("L", 255.0),
}
"""Channels and range of every space but ``"input"``."""


def seen_by(space: Space, spec: InputSpec) -> InputSpec:
    """Returns the spec that makes images of a space; the size stays.

    >>> seen_by("bgr_uint8", InputSpec(112)).range
    255.0
    """
    if space == "input":
        return spec
    if space not in _SPACES:
        raise ValueError(f"expected space one of {('input', *_SPACES)}, got {space!r}")
    channels, reach = _SPACES[space]
    return replace(spec, channels=channels, mean=0.0, std=1.0, range=reach)


@final
class BlackBox(nn.Module):
    """A function on NumPy arrays in the place of a network; see :meth:`facexai.FaceModel.from_callable`."""

    def __init__(
        self,
        function: Callable[[np.ndarray], Any],
        space: Space,
        batch_size: int | None,
        name: str | None,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        if not callable(function) or isinstance(function, nn.Module):
            kind = type(function).__name__
            raise TypeError(f"expected a function of NumPy arrays, got {kind}; a torch module goes into FaceModel(net)")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
        if fixed and batch_size is None:
            raise ValueError("expected batch_size with fixed=True: how many images the function takes")
        kind = getattr(function, "__qualname__", type(function).__qualname__)
        self.function, self.space, self.batch_size, self.name = function, space, batch_size, name or kind
        self.fixed = fixed
        # a buffer, so that the fingerprint knows the name: the function's weights are out of reach
        told = f"{self.name}|{space}".encode()
        self.register_buffer("identity", torch.tensor(list(told), dtype=torch.uint8))

    def __repr__(self) -> str:
        return f"BlackBox({self.name!r}, space={self.space!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        return BlackBox(self.function, self.space, self.batch_size, self.name, self.fixed)  # sessions cannot be copied

    @property
    def refusal(self) -> str:
        """Returns why a method that needs layers or gradients does not work."""
        return (
            f"{self.name!r} is a function: it can be asked, not looked into, so it has no weights, layers or gradients;"
            " use metrics and methods that only change pixels, or wrap the torch module in FaceModel(net)"
        )

    def check(self, x: Tensor) -> None:
        """Refuses input that requires a gradient."""
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(self.refusal)

    def forward(self, x: Tensor) -> Any:
        """Returns the function's answer for its input (N, C, H, W), with arrays as tensors."""
        array = x.detach().cpu().numpy()
        if self.space.endswith("uint8"):
            array = np.ascontiguousarray(array.round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
            array = array[..., 0] if self.space == "grey_uint8" else array
        step = self.batch_size or len(array)
        parts = [array[i : i + step] for i in range(0, len(array), step)]
        answers = [self._answer(part, step) for part in parts]
        return answers[0] if len(answers) == 1 else _joined(answers)

    def _answer(self, part: np.ndarray, step: int) -> Any:
        """Returns the function's answer for one batch, filled up where its size is fixed."""
        if not self.fixed or len(part) == step:
            return _tensors(self.function(part), len(part))
        filled = np.concatenate([part, np.repeat(part[-1:], step - len(part), axis=0)])
        return _first(_tensors(self.function(filled), step), len(part), step)


def _first(answer: Any, images: int, step: int) -> Any:
    """Returns the rows of the first images, where an answer has a row for each image of a filled batch."""
    if isinstance(answer, Mapping):
        return {key: _first(value, images, step) for key, value in answer.items()}
    if isinstance(answer, tuple):
        return tuple(_first(part, images, step) for part in answer)
    return answer[:images] if isinstance(answer, Tensor) and answer.ndim > 0 and len(answer) == step else answer


def _tensors(answer: Any, images: int) -> Any:
    """Converts the arrays of an output to tensors; a single row for a single image becomes (1, D)."""
    if isinstance(answer, Mapping):
        return {key: _tensors(value, images) for key, value in answer.items()}
    if isinstance(answer, tuple) or (
        isinstance(answer, list) and any(isinstance(part, np.ndarray | Tensor) for part in answer)
    ):
        return tuple(_tensors(part, images) for part in answer)
    if isinstance(answer, Tensor):
        rows = answer.detach().cpu()
    else:
        try:
            rows = torch.from_numpy(np.array(answer))  # a copy: the function may use its memory again
        except (TypeError, ValueError):
            return answer
    return rows[None] if images == 1 and rows.ndim == 1 else rows


def _joined(answers: list[Any]) -> Any:
    first = answers[0]
    if isinstance(first, Tensor):
        rows = all(answer.ndim == first.ndim > 0 for answer in answers)  # else something that is no row per image
        return torch.cat(answers) if rows else first
    if isinstance(first, Mapping):
        return {key: _joined([answer[key] for answer in answers]) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined(list(parts)) for parts in zip(*answers, strict=True))
    return first
