"""What a network looks like from outside: its layers with maps, and its head, from one forward pass of noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from facexai.hooks import quiet_grad, trace
from facexai.models.heads import Head, HeadDoesNotFold, find_head

_CELLS = (14, 7)


@final
@dataclass(frozen=True, eq=False)
class Structure:
    """The head, or why it does not fold, and the layers that run once and give a map: name -> (channels, h, w)."""

    head: Head | HeadDoesNotFold
    layers: dict[str, tuple[int, int, int]]

    def default(self) -> str:
        """The layer that ``"auto"`` takes: the deepest before the head with at least 14x14 cells, else 7x7.

        Raises:
            ValueError: there is none of 7x7.

        Source: a compromise that was measured, ``benchmarks/layers.py``: under black fill deeper maps find much less in
        deletion, and finer ones mark speckle that harms any image; under blur no resolution wins everywhere.
        """
        skip = frozenset() if isinstance(self.head, HeadDoesNotFold) else self.head.names
        for cells in _CELLS:
            large = [n for n, (_, h, w) in self.layers.items() if min(h, w) >= cells and n not in skip]
            if large:
                return large[-1]
        raise ValueError(f"no layer gives a map of at least {_CELLS[-1]}x{_CELLS[-1]} cells; name one of {self.layers}")


def look(net: nn.Module, core: nn.Module, run: Callable[[Tensor], Tensor], images: Tensor) -> Structure:
    """Watch every module during one forward pass.

    Args:
        net: the user's network, whose names count.
        core: the network inside a wrapper such as DataParallel.
        run: gives the network's output for images.
        images: (2, 3, H, W).

    Raises:
        ValueError: a ScriptModule, whose modules cannot be watched.
    """
    if isinstance(core, torch.jit.ScriptModule):
        raise ValueError("a ScriptModule embeds, but it cannot be looked into; wrap the eager module it came from")
    modules = {name: module for name, module in net.named_modules() if name and module is not core}
    with quiet_grad():
        calls, outputs = trace(lambda: run(images), modules)
    runs, layers = Counter(call.name for call in calls), {}
    for call in calls:
        y = call.output
        if y is not None and y.ndim == 4 and y.is_floating_point() and runs[call.name] == 1:
            layers[call.name] = (int(y.shape[1]), int(y.shape[2]), int(y.shape[3]))
    try:
        return Structure(find_head(calls, outputs), layers)
    except HeadDoesNotFold as refusal:
        return Structure(refusal.with_traceback(None), layers)
