"""A short name for exactly these weights, so that evidence of one network is never read as another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_known: WeakKeyDictionary[nn.Module, tuple[object, str]] = WeakKeyDictionary()


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}


def _stamp(net: nn.Module) -> tuple[object, ...]:
    """Returns changes whenever a weight is replaced or written to; several times faster than a state dict."""
    if isinstance(net, torch.jit.ScriptModule):
        held: Iterator[Tensor] = chain(net.parameters(), net.buffers())
    else:
        kept = (chain(m._parameters.values(), m._buffers.values()) for m in net.modules())
        held = (tensor for tensor in chain.from_iterable(kept) if tensor is not None)
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in held)


def recipe_hash(recipe: bytes, center: Tensor | None, options: bytes) -> str:
    """Returns sixteen hexadecimal digits for a network with the choices around it."""
    mean = b"" if center is None else center.detach().cpu().float().numpy().tobytes()
    return hashlib.sha256(recipe + mean + options).hexdigest()[:16]


def fingerprint(net: nn.Module) -> str:
    """Returns sixteen hexadecimal digits of the SHA-256 of class name and state dict.

    Hashed again only when a weight was replaced or written to; 24 million parameters take about 0.1 s.

    >>> net = nn.Linear(2, 2)
    >>> before = fingerprint(net)
    >>> _ = nn.init.zeros_(net.bias)
    >>> len(before), before == fingerprint(net)
    (16, False)
    """
    stamp = _stamp(net)
    known = _known.get(net)
    if known is not None and known[0] == stamp:
        return known[1]
    digest = hashlib.sha256(type(net).__name__.encode())
    for name, value in _state(net).items():
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    result = digest.hexdigest()[:16]
    _known[net] = (stamp, result)
    return result
