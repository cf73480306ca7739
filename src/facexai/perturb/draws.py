"""Randomness that depends on the item, not on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def generator(seed: int, item: int, purpose: str) -> torch.Generator:
    """Returns a generator that depends on the seed, the item and the purpose, not on the batch or the order."""
    digest = hashlib.sha256(f"{seed}|{item}|{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def check_items(items: Sequence[int] | None, n: int) -> Sequence[int]:
    """Returns the items, or 0 to n - 1; one for each image."""
    items = range(n) if items is None else items
    if len(items) != n:
        raise ValueError(f"expected one item number for each of the {n} images, got {len(items)}")
    return items
