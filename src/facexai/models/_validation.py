"""Validates the options of a FaceModel: output, mirrored branch, other arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from facexai.models.flip import Flip

Output = Literal["auto", "embedding", "logits"]
ForwardKwargs = Mapping[str, Any] | None


def check_options(
    net: object, output: str, flip: Flip, center: object, names: Sequence[str] | None, kwargs: ForwardKwargs
) -> None:
    """Refuses options of :class:`facexai.FaceModel` that do not exist or do not go together."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(net).__name__}")
    if output not in ("auto", "embedding", "logits"):
        raise ValueError(f"expected output 'auto', 'embedding' or 'logits', got {output!r}")
    if flip not in (None, "sum", "concat") or (flip == "concat" and output == "logits"):
        raise ValueError(f"expected flip None, 'sum' or (for embeddings) 'concat', got {flip!r} with output={output!r}")
    if center is not None and not isinstance(center, Tensor):
        raise TypeError(f"expected center as a tensor (D,), got {type(center).__name__}; torch.tensor(center)")
    if center is not None and (output == "logits" or center.ndim != 1 or not torch.isfinite(center).all()):
        raise ValueError("expected center (D,), finite, for a network that gives embeddings")
    if names is not None and len(set(names)) != len(names):
        raise ValueError("expected distinct class names")
    if kwargs is not None and (not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs)):
        raise TypeError(f"expected forward_kwargs as {{name: value}}, got {type(kwargs).__name__}")
    odd = next((name for name, value in (kwargs or {}).items() if not _plain(value)), None)
    if odd is not None:
        raise TypeError(
            "expected tensors, numbers or text in forward_kwargs, got "
            f"{type((kwargs or {})[odd]).__name__} for {odd!r}; torch.as_tensor(array)"
        )
    if kwargs and flip is not None:
        raise ValueError("flip mirrors the images and cannot mirror forward_kwargs; leave one of them out")


def check_classes(count: int, names: Sequence[str] | None, *, logits: bool) -> None:
    """Refuses embeddings where logits are needed, and a number of names that differs from the number of classes."""
    if not logits:
        raise ValueError(
            "this network gives embeddings, which have no classes: enrol people with "
            "model.gallery({name: images}), or say FaceModel(net, spec, output='logits') if they are logits"
        )
    if names is not None and len(names) != count:
        raise ValueError(f"{len(names)} names for {count} classes; give one name per class")


def check_device(images: object, device: torch.device) -> None:
    """Refuses images on another device than the network."""
    if isinstance(images, Tensor) and images.device != device:
        raise ValueError(f"images are on {images.device}, the network on {device}; images.to(model.device)")


def bound(kwargs: ForwardKwargs, images: int, index: Tensor | None, device: torch.device) -> dict[str, Any]:
    """Returns the network's other arguments for a batch.

    Args:
        kwargs: tensors hold one row for all images, or a row for each; other values are passed as they are.
        images: M images in the batch.
        index: (M,), whose row each image takes, such as the image that a masked copy was made of; None: its own.
        device: of the network.

    Raises:
        ValueError: rows and images do not match.
    """
    result: dict[str, Any] = {}
    for name, value in (kwargs or {}).items():
        if isinstance(value, Tensor) and value.ndim > 0:
            if len(value) == 1:
                value = value.expand(images, *value.shape[1:])
            elif index is not None and (index.numel() == 0 or int(index.max()) < len(value)):
                value = value[index.to(value.device)]
            elif len(value) != images:
                raise ValueError(
                    f"forward_kwargs[{name!r}] has {len(value)} rows, the batch {images} images; give one row for all "
                    f"images, or exactly those {len(value)} images at a time"
                )
            value = value.to(device)
        result[name] = value
    return result


def digest(kwargs: ForwardKwargs) -> bytes:
    """Returns what identifies the other arguments, for a fingerprint."""
    known = hashlib.sha256()
    for name, value in sorted((kwargs or {}).items()):
        known.update(name.encode() + _content(value))
    return known.digest() if kwargs else b""


def _content(value: Any) -> bytes:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return f"{value.dtype}{tuple(value.shape)}".encode() + flat.numpy().tobytes()
    if isinstance(value, list | tuple):
        return b"[" + b",".join(_content(part) for part in value) + b"]"
    return repr(value).encode()


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, Tensor | bool | int | float | str)
