"""Does a restructuring change any number? Records every explainer and metric on two trees and compares them bit by bit.

    python benchmarks/golden.py --start COMMIT [--faces DIR] [--network FILE:FUNCTION] [--only TEXT] [--json OUT]

The calls of golden_calls.py run once on a temporary worktree of the start commit and once on a copy of the working
tree's ``src``, on the same machine, in one thread, with fixed batches and seeds. Every tensor, array and number of
every answer must have the same type, shape and bytes (NaN equals NaN), every recipe the same keys and values except
for what :data:`WORDING` lists. The exit code is 0 only if everything is equal and no call is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

WORDING: dict[str, Any] = {
    # What a recipe (or any other mapping in an answer) says at the start commit -> what it says now:
    #   "key": "new key", or None where it is no longer written
    #   "key = value": "new value", with the key of the start commit
    #   "+ key": a reason, for a key that only the working tree writes
    "mask = gradient": "class-gradient",
}
RENAMED: dict[str, tuple[str, ...]] = {
    # Name in golden_calls.py -> public names below ``facexai``, of which the first that a tree has is taken. A later
    # restructuring adds its names, in front where the old name stays and means something else.
    "CorrRISE of classes": ("CorrRISE",),
    "FrequencyHeatPlot of classes": ("FrequencyHeatPlot",),
    "metrics.other_identity_index": ("metrics.other_identity_index", "metrics.others"),
    "demo.drawn_networks.classifier": ("demo.drawn_networks.classifier", "demo.synthetic_networks.classifier"),
}
ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("network", "call", "tensors", "values", "result", "largest difference", "first difference")


# ---- public names -------------------------------------------------------------------------------------------------


class Missing(LookupError):
    """Says that the tree has no such public name."""


def api(name: str) -> Any:
    """Returns a public object of facexai by its name in golden_calls.py; raises Missing where the tree has none."""
    for path in RENAMED.get(name, (name,)):
        if (value := _resolved(path)) is not None:
            USED.add(path.rpartition(".")[2])
            return value
    raise Missing(name)


USED: set[str] = set()
"""The names that :func:`api` has resolved in this process."""


def _resolved(path: str) -> Any:
    value: Any = import_module("facexai")
    for part in path.split("."):
        child = getattr(value, part, None)
        if child is None and isinstance(value, ModuleType):
            name = f"{value.__name__}.{part}"
            try:
                child = import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name:  # the module exists and lacks one that it imports
                    raise
        if child is None:
            return None
        value = child
    return value


def public_names() -> list[str]:
    """Returns the names that calls should cover: public explainers that are called, and public functions of metrics."""
    explainers, metrics = (import_module(f"facexai.{name}") for name in ("explainers", "metrics"))
    names = [name for name in explainers.__all__ if "__call__" in vars(getattr(explainers, name))]
    names += [name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))]
    return sorted([*names, "explain_pairs"])


def check_origin(src: Path) -> None:
    """Stops where facexai is imported from another tree than ``src``."""
    file = Path(import_module("facexai").__file__ or "")
    if not file.resolve().is_relative_to(src.resolve()):
        raise SystemExit(f"expected facexai from {src}, got {file}")


# ---- recordings ---------------------------------------------------------------------------------------------------

Parts = dict[tuple[str, ...], "Leaf"]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Holds one value of an answer: its type by name, such as ``torch.float32``, and an array or a plain value."""

    kind: str
    value: Any


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Holds what one call returned, or why it returned nothing: it raised, or the tree has no such name."""

    parts: Parts = dataclasses.field(default_factory=dict)
    error: str | None = None
    missing: str | None = None
    seconds: float = 0.0


Recording = dict[tuple[str, str], Recorded]
"""By network and call."""


def flatten(answer: Any, path: tuple[str, ...] = ()) -> Parts:
    """Returns every value of an answer by its path: ``.field`` or property, ``[key]`` of a mapping, ``#index``."""
    if isinstance(answer, Tensor):
        bits = answer.detach().cpu().contiguous()
        bits = bits.view(torch.int16) if bits.dtype == torch.bfloat16 else bits  # which numpy does not know
        return {path: Leaf(str(answer.dtype), bits.numpy())}
    if isinstance(answer, np.ndarray | np.generic):
        return {path: Leaf(f"numpy.{answer.dtype}", np.asarray(answer))}
    if isinstance(answer, Path):
        return {path: Leaf("Path", answer.name)}  # the folder is a temporary one
    if answer is None or isinstance(answer, bool | int | float | str):
        return {path: Leaf(type(answer).__name__, answer)}
    if isinstance(answer, Mapping):
        inside = [(f"[{key}]", value) for key, value in answer.items()]
    elif isinstance(answer, list | tuple):
        inside = [("#", len(answer)), *((f"#{i}", value) for i, value in enumerate(answer))]
    elif dataclasses.is_dataclass(answer):
        inside = list(_attributes(answer))
    else:
        raise TypeError(f"expected tensors, plain values and dataclasses, got {type(answer).__name__} at {path}")
    return {key: leaf for name, value in inside for key, leaf in flatten(value, (*path, name)).items()}


def _attributes(answer: Any) -> Iterator[tuple[str, Any]]:
    """Yields the fields, the properties and the rows of the table of an answer."""
    names = [field.name for field in dataclasses.fields(answer)]
    for name, value in inspect.getmembers_static(type(answer)):
        if isinstance(value, property | cached_property) or (name == "rows" and inspect.isfunction(value)):
            names.append(name)
    for name in names:
        if name.startswith("_") or name == "seconds":  # the clock's
            continue
        try:
            value = getattr(answer, name)
            yield f".{name}", value() if inspect.ismethod(value) else value
        except Exception as error:  # also a property that does not apply must stay as it was
            yield f".{name}", f"{type(error).__name__}: {error}"


def recorded(network: str, calls: Mapping[str, Callable[[], Any]], only: str | None = None) -> Recording:
    """Makes every call from the same random state and returns the answers, or why there is none."""
    recording: Recording = {}
    for name, call in calls.items():
        if only is not None and only not in name:
            continue
        torch.manual_seed(0)
        start = time.perf_counter()
        try:
            answer = Recorded(flatten(call()))
        except Missing as error:
            answer = Recorded(missing=str(error))
        except Exception as error:  # the other calls are still compared
            traceback.print_exc()
            answer = Recorded(error=f"{type(error).__name__}: {error}")
        recording[network, name] = dataclasses.replace(answer, seconds=time.perf_counter() - start)
    return recording


def write(folder: Path, recording: Recording, **about: Any) -> None:
    """Writes a recording as arrays.npz and record.json; nothing is pickled."""
    arrays: dict[str, np.ndarray] = {}
    calls = []
    for (network, call), answer in recording.items():
        parts = []
        for path, leaf in answer.parts.items():
            value = leaf.value
            if isinstance(value, np.ndarray):
                arrays[str(len(arrays))], value = value, len(arrays)
            parts.append([path, leaf.kind, value])
        calls.append({**vars(answer), "network": network, "call": call, "parts": parts})
    np.savez(folder / "arrays.npz", **arrays)
    (folder / "record.json").write_text(json.dumps({**about, "calls": calls}))


def read(folder: Path) -> tuple[Recording, dict[str, Any]]:
    """Returns what :func:`write` wrote."""
    about = json.loads((folder / "record.json").read_text())
    recording: Recording = {}
    with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
        for call in about.pop("calls"):
            key, parts = (call.pop("network"), call.pop("call")), {}
            for path, kind, value in call.pop("parts"):
                array = kind.startswith(("torch.", "numpy."))
                parts[tuple(path)] = Leaf(kind, arrays[str(value)] if array else value)
            recording[key] = Recorded(parts, **call)
    return recording, about


# ---- comparison ---------------------------------------------------------------------------------------------------

Difference = tuple[str, float | None]
"""What differs, in words that name the part, and by how much where that is a number."""


def compare(start: Recording, now: Recording, wording: Mapping[str, Any] = WORDING) -> list[dict[str, Any]]:
    """Returns a row for every call of both recordings; ``result`` is equal, new, differs, gone or failed."""
    rows = []
    for network, call in {**start, **now}:
        before, after = (side.get((network, call), Recorded(missing=call)) for side in (start, now))
        result, changes = _result(before, after, wording)
        tensors = sum(isinstance(leaf.value, np.ndarray) for leaf in before.parts.values())
        row: dict[str, Any] = {"network": network, "call": call, "tensors": tensors, "values": len(before.parts)}
        row |= {"result": result, "differences": len(changes)}
        sizes = [size for _, size in changes if size is not None and math.isfinite(size)]
        row["largest difference"] = max(sizes, default=None)
        row["first difference"] = changes[0][0] if changes else None
        rows.append(row | {"s at start": round(before.seconds, 3), "s now": round(after.seconds, 3)})
    return rows


def _result(before: Recorded, after: Recorded, wording: Mapping[str, Any]) -> tuple[str, list[Difference]]:
    if after.missing is not None:
        return "gone", [(f"the working tree has no {after.missing}", None)]
    errors = {"at the start": before.error, "now": after.error}
    changes: list[Difference] = [(f"{side}: {error}", None) for side, error in errors.items() if error]
    if before.missing is not None or changes:
        return ("failed" if before.missing is None else "new"), changes
    changes = differences(before.parts, after.parts, wording)
    return "differs" if changes else "equal", changes


def passed(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether something was compared and all calls of the start commit are bit-equal."""
    results = {row["result"] for row in rows}
    return "equal" in results and results <= {"equal", "new"}


def differences(start: Parts, now: Parts, wording: Mapping[str, Any]) -> list[Difference]:
    """Returns how the answer now differs from the one at the start commit."""
    expected = dict(filter(None, (_reworded(path, leaf, wording) for path, leaf in start.items())))
    changes: list[Difference] = []
    for path, leaf in expected.items():
        change = _change(leaf, now[path]) if path in now else ("is gone", None)
        if change is not None:
            changes.append((f"{''.join(path)} {change[0]}", change[1]))
    prefixes = {path[:length] for path in expected for length in range(len(path) + 1)}
    for path in now:
        added = next((name for length, name in enumerate(path, 1) if path[:length] not in prefixes), None)
        # A new field or property changes no number; a new key of a recipe has to be listed.
        if added is not None and not added.startswith(".") and f"+ {added[1:-1]}" not in wording:
            changes.append((f"{''.join(path)} is new", None))
    return changes


def _reworded(path: tuple[str, ...], leaf: Leaf, wording: Mapping[str, Any]) -> tuple[tuple[str, ...], Leaf] | None:
    """Returns a part of the start commit as the working tree words it, or None where that no longer writes it."""
    keys = [name[1:-1] for name in path if name.startswith("[")]
    if any(wording.get(key, key) is None for key in keys):
        return None
    if keys and path[-1].startswith("[") and not isinstance(leaf.value, np.ndarray):
        entry = f"{keys[-1]} = {leaf.value}"
        leaf = Leaf(type(wording[entry]).__name__, wording[entry]) if entry in wording else leaf
    return tuple(f"[{wording.get(n[1:-1], n[1:-1])}]" if n.startswith("[") else n for n in path), leaf


def _change(start: Leaf, now: Leaf) -> Difference | None:
    """Returns how two values differ; None where their types, shapes and bits are equal."""
    a, b = start.value, now.value
    if start.kind != now.kind:
        return f"was {start.kind}, is {now.kind}", None
    if not isinstance(a, np.ndarray):
        if repr(a) == repr(b):  # which knows 0.0 from -0.0, and not NaN from NaN
            return None
        return f"was {a!r:.60}, is {b!r:.60}", abs(b - a) if start.kind in ("int", "float") else None
    if a.shape != b.shape:
        return f"was of shape {a.shape}, is {b.shape}", None
    bits = [np.frombuffer(array.tobytes(), np.uint8).reshape(a.size, a.itemsize) for array in (a, b)]
    different = (bits[0] != bits[1]).any(1).reshape(a.shape)
    if a.dtype.kind == "f":
        different &= ~(np.isnan(a) & np.isnan(b))
    if not different.any():
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        size = float(np.abs(a[different].astype(np.float64) - b[different].astype(np.float64)).max())
    return f"differs in {int(different.sum())} of {a.size} numbers, by {size:.3g} at most", size


# ---- two trees ----------------------------------------------------------------------------------------------------


def git(*arguments: str, root: Path = ROOT) -> str:
    """Returns what a git command prints."""
    done = subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextlib.contextmanager
def worktree(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """Makes a temporary worktree of a commit and removes it at the end, also after an error."""
    with tempfile.TemporaryDirectory(prefix="facexai-golden-") as folder:
        place = Path(folder) / "tree"
        git("worktree", "add", "--detach", str(place), commit, root=root)
        try:
            yield place
        finally:
            git("worktree", "remove", "--force", str(place), root=root)


def record(src: Path, out: Path, arguments: Sequence[str]) -> tuple[Recording, dict[str, Any]]:
    """Runs golden_calls.py on a source tree in a process of its own and returns its recording."""
    out.mkdir()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, "PYTHONPATH": str(src), "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(Path(__file__).with_name("golden_calls.py")), "--src", str(src), "--out", str(out)]
    subprocess.run([*command, *arguments], check=True, env=environment)
    return read(out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", required=True, help="commit before the restructuring")
    parser.add_argument("--faces", type=Path, help="folder NAME/*.jpg as of other benchmarks; default: two portraits")
    parser.add_argument("--network", action="append", default=[], metavar="FILE:FUNCTION", help="default: the zoo")
    parser.add_argument("--only", help="record the calls whose name has this text in it")
    parser.add_argument("--json", type=Path, help="write the comparison to this file")
    return parser.parse_args()


def main() -> int:
    from common import report  # here, since golden_calls.py imports this file on trees that `common` may not fit

    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktree is removed then, too
    torch.set_num_threads(1)
    arguments = [text for network in options.network for text in ("--network", network)]
    arguments += ["--faces", str(options.faces.resolve())] if options.faces else []
    arguments += ["--only", options.only] if options.only else []
    commits = {"start": git("rev-parse", options.start), "now": git("rev-parse", "HEAD")}
    with tempfile.TemporaryDirectory(prefix="facexai-golden-") as folder, worktree(options.start) as tree:
        copy = Path(folder) / "now" / "src"  # of the working tree, which others may edit while this runs
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        dirty = bool(git("status", "--porcelain", "--", "src"))
        start, before = record(tree / "src", Path(folder) / "start", arguments)
        now, after = record(copy, Path(folder) / "recording", arguments)
    new = sorted(set(after["uncovered"]) - set(before["public"]))
    rows = [*compare(start, now), *({**dict.fromkeys(COLUMNS), "call": name, "result": "new"} for name in new)]
    if options.faces is None:
        del options.faces  # so that the report looks for no data set
    seconds = {"start": before["seconds"], "now": after["seconds"]}
    about = {"commits": commits, "git dirty": dirty, "seconds": seconds, "wording": WORDING}
    report(options, rows, columns=COLUMNS, sentences=sentences(rows, before, after), **about)
    return 0 if passed(rows) else 1


def sentences(rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Returns a summary of the table."""
    counts = Counter(row["result"] for row in rows)
    tensors, values = (sum(row.get(name) or 0 for row in rows) for name in ("tensors", "values"))
    results = ", ".join(f"{count} {result}" for result, count in counts.items())
    text = [f"{len(rows)} calls with {tensors} tensors and {values} values, tensors included: {results}."]
    text.append(f"The recordings took {before['seconds']:.0f} s at the start commit and {after['seconds']:.0f} s now.")
    if uncovered := sorted({*before["uncovered"], *after["uncovered"]} & set(before["public"])):
        text.append(f"Public names that no call covers: {', '.join(uncovered)}.")
    return text


if __name__ == "__main__":
    raise SystemExit(main())
