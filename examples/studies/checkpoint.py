"""Checkpoints of the examples that train: a run that was stopped goes on, and one with another recipe does not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from facexai.io import write_whole


def keep(path: Path, facts: Mapping[str, Any], stateful: Mapping[str, Any], **done: Any) -> None:
    """Write the recipe, what was done so far, and the state of everything, as a whole or not at all."""
    state = {"recipe": facts, **done, **{name: part.state_dict() for name, part in stateful.items()}}
    write_whole(path, partial(torch.save, state))


def resume(path: Path, facts: Mapping[str, Any], stateful: Mapping[str, Any], done: str) -> Any:
    """What was done under that name, with the state of everything as it was then; None where nothing was."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        there, found = state["recipe"], state[done]
    except Exception as error:  # whatever a broken archive provokes
        raise ValueError(f"{path} is damaged, truncated or another program's: delete it to start again") from error
    if differs := [f"{k} {there.get(k)} there, {here} here" for k, here in facts.items() if there.get(k) != here]:
        what = "; ".join(differs)
        raise ValueError(f"{path.parent} was begun with another recipe ({what}): give that one again, or another --out")
    for name, part in stateful.items():
        part.load_state_dict(state[name])
    return found
