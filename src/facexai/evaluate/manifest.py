"""The manifest identifies the run of a folder, so that two runs are never mixed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

import facexai
from facexai import io
from facexai._errors import short_repr, truncate
from facexai.evaluate.context import RunContext

FILE = "manifest.json"
_FORMAT = 1
_POLL = 0.2


def manifest_of(work: RunContext) -> dict[str, Any]:
    """Returns configuration, versions, the model's fingerprint and the digest of the data."""
    record: dict[str, Any] = {"format": _FORMAT, "task": work.task}
    record |= {f"config {name}": value for name, value in _choices(work).items()}
    versions = {"facexai": facexai.__version__, "torch": torch.__version__, "numpy": np.__version__}
    versions["pillow"] = PIL.__version__  # decodes the photos
    record |= {f"version of {name}": str(value).partition("+")[0] for name, value in versions.items()}
    record |= {"model": repr(work.network), "fingerprint": work.network.fingerprint}
    record |= {"photos": len(work.data.names), "data": work.data.digest, "shard": work.config.shard}
    counts = {"enrolled": len(work.enrolled), "measured": len(work.probes)}
    manifest: dict[str, Any] = json.loads(json.dumps(record | counts, default=list))
    return manifest


def _choices(work: RunContext) -> dict[str, Any]:
    given = work.config.record() | {"explainers": list(work.explainers), "metrics": list(work.metrics)}
    return {name: value for name, value in given.items() if name != "model"}  # it is told apart by its fingerprint


def claim(folder: Path, manifest: dict[str, Any], *, first: bool, patience: float) -> dict[str, Any]:
    """Claims the folder for this run, or continues the same run in it.

    Args:
        folder: of the run.
        manifest: of this run.
        first: whether this worker writes it; the others wait for it.
        patience: seconds to wait.

    Returns:
        the manifest.

    Raises:
        ValueError: the folder holds another run.
        OSError: it cannot be written.
        TimeoutError: the first worker did not write it.
    """
    file, started = folder / FILE, time.monotonic()
    if first and not file.is_file():
        if (folder / "shards").is_dir() and any((folder / "shards").iterdir()):
            raise ValueError(f"{folder} holds shards without {FILE}; choose another folder, or delete this one")
        try:
            (folder / "shards").mkdir(parents=True, exist_ok=True)
            io.write_json(file, manifest)
        except OSError as error:
            raise OSError(f"cannot write into {folder} ({error.strerror or error}); choose another folder") from error
    while not file.is_file():
        if time.monotonic() - started > patience:
            raise TimeoutError(f"no {FILE} in {folder} after {patience:g} s; has the first worker stopped?")
        time.sleep(_POLL)
    try:
        recorded = io.read_json(file)
    except ValueError as error:
        raise ValueError(f"{error}; choose another folder, or delete this one") from error
    if recorded != manifest:
        different = [k for k in {**recorded, **manifest} if recorded.get(k) != manifest.get(k)]
        values = (
            (truncate(k.removeprefix("config "), 80), short_repr(recorded.get(k)), short_repr(manifest.get(k)))
            for k in different[:3]
        )
        differences = "; ".join(f"{name} was {was}, is {now}" for name, was, now in values)
        raise ValueError(f"{folder} holds another run ({differences}); choose another folder, or delete this one")
    return manifest
