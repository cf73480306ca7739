"""Tensors in files, by key: written whole, checked when they are read, so that work can stop at any moment."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from safetensors import torch as safetensors
from torch import Tensor

from facexai._errors import truncate
from facexai.io import write_whole

_TOLD = "facexai"  # one key: safetensors does not keep the order of several, and equal content shall be equal bytes


@final
@dataclass(frozen=True)
class Store:
    """A folder of safetensors files, one for each key.

    Attributes:
        folder: must exist when something is written.

    >>> import tempfile
    >>> store = Store(Path(tempfile.mkdtemp()))
    >>> store.put("first", {"x": torch.ones(2)}, {"by": "hand"})
    >>> store.get("first"), store.told("first"), "second" in store
    ({'x': tensor([1., 1.])}, {'by': 'hand'}, False)
    """

    folder: Path

    def path(self, key: str) -> Path:
        """Returns where the tensors of a key are, or would be."""
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def put(self, key: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any] | None = None) -> None:
        """Writes tensors and their metadata as JSON can hold it; all of it or nothing.

        Raises:
            OSError: the disk is full, the folder is missing or not writable. Nothing is left behind.
        """
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        said = {"told": dict(told or {}), "sums": {name: _sum(tensor) for name, tensor in held.items()}}
        text = json.dumps({**said, "check": _check(said)}, sort_keys=True, allow_nan=False)
        content = safetensors.save(held, {_TOLD: text})
        write_whole(self.path(key), lambda file: file.write(content))

    def get(self, key: str, names: Sequence[str] | None = None, *, device: str = "cpu") -> dict[str, Tensor]:
        """Returns the tensors of a key, or those of them that are named.

        Raises:
            FileNotFoundError: nothing was put there.
            ValueError: the file is damaged.
            KeyError: a name that is not there.
        """
        found, sums, path = {}, self._header(key)["sums"], self.path(key)
        wanted = list(sums) if names is None else list(names)
        try:
            with safe_open(str(path), "pt") as file:
                for name in wanted:
                    if name not in sums:
                        raise KeyError(f"{path.name} has no tensor {name!r}")
                    found[name] = file.get_tensor(name)
        except (KeyError, OSError, MemoryError):
            raise
        except Exception as error:  # of a type of safetensors' own
            raise _damaged(path, error) from error
        for name, tensor in found.items():
            if _sum(tensor) != sums[name]:
                raise _damaged(path, f"{name} is not what was written")
        return {name: tensor.to(device) for name, tensor in found.items()}

    def names(self, key: str) -> list[str]:
        """Returns the names of the tensors of a key; errors are those of :meth:`told`."""
        return list(self._header(key)["sums"])

    def told(self, key: str) -> dict[str, Any]:
        """Returns the metadata that was stored with the tensors of a key.

        Raises:
            FileNotFoundError: nothing was put there.
            ValueError: the file is damaged.
        """
        result: dict[str, Any] = self._header(key)["told"]
        return result

    def _header(self, key: str) -> dict[str, Any]:
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        with path.open("rb"):  # where the machine cannot, Python says so and safetensors that there is no such file
            pass
        try:
            with safe_open(str(path), "pt") as file:
                result: dict[str, Any] = json.loads(file.metadata()[_TOLD])
                if result.keys() == {"told", "sums", "check"}:
                    if result.pop("check") != _check(result):
                        raise ValueError("what is said about the tensors is not what was written")
                    return result
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of a type of safetensors' own, or no metadata of ours
            raise _damaged(path, error) from error
        raise _damaged(path, "it was written by something else")


def _sum(tensor: Tensor) -> int:
    """Returns a checksum of type, shape and bytes: disks fail, and a partial file may still have the right length."""
    kind = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, kind)


def _check(said: Mapping[str, Any]) -> int:
    """Returns a checksum of the metadata of tensors."""
    read = json.loads(json.dumps(said, allow_nan=False))  # as it comes back, with text as keys
    return zlib.crc32(json.dumps(read, sort_keys=True).encode())


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(f"{path} is damaged ({truncate(why)}); delete it, and start again what wrote it")
