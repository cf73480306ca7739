"""How far does a reader have to jump to follow one call? Files, functions and moves between files.

    python benchmarks/hops.py [--json OUT]
    PYTHONPATH=OTHER/src python benchmarks/hops.py      # the same for another tree

``sys.setprofile`` records the sequence of all calls of Python functions whose code lies in the package, in the thread
that makes the call. ``files`` and ``functions`` count the different files and functions of that sequence; ``moves``
counts the pairs of successive calls that lie in different files. A return is no call, and so no move. A generator that
goes on after a ``yield`` counts as a call, since a reader has to go back to it. Bodies of modules and classes, which
run on import, do not count. Lambdas and comprehensions count as calls of the file and the function that contain them.

Each row is a second call: the first one has imported what is imported lazily, and for HiResCAM and FGGB has looked at
the same network. ``evaluate.run`` enrols nine photos and measures nine others, with CAM and deletion, into a new folder
and on a network that is new to it. Its photos are decoded in other threads, which are not recorded; its number of calls
varies by a few, since it waits for them, the other counts do not.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from common import arguments, report
from golden import git
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from nets import FlatNet, shaken

import facexai
from facexai import FGGB, FaceModel, FaceXAIWarning, HiResCAM, evaluate, images

PACKAGE = Path(facexai.__file__).resolve().parent
ANONYMOUS = ("<lambda>", "<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
PEOPLE = 9


def sequence(call: Callable[[], Any], package: Path = PACKAGE) -> list[tuple[str, str]]:
    """Returns the file and the qualified name of every call of a function of the package, in order."""
    calls: list[tuple[str, str]] = []
    root = f"{package}{os.sep}"

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(root) and code.co_flags & inspect.CO_OPTIMIZED:
            calls.append((code.co_filename.removeprefix(root), named(code.co_qualname)))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return calls


def named(qualified: str) -> str:
    """Returns the function that a lambda or a comprehension is written in, others by their own name.

    >>> named("HiResCAM.observe.<locals>.<lambda>"), named("explain")
    ('HiResCAM.observe', 'explain')
    """
    parts = qualified.split(".")
    while len(parts) > 1 and parts[-1] in (*ANONYMOUS, "<locals>"):
        parts.pop()
    return ".".join(parts)


def hops(calls: list[tuple[str, str]]) -> dict[str, int]:
    """Returns the counts of a sequence of calls.

    >>> hops([("a.py", "f"), ("a.py", "g"), ("b.py", "h"), ("a.py", "f")])
    {'files': 2, 'functions': 3, 'moves': 2, 'calls': 4}
    """
    moves = sum(before != after for (before, _), (after, _) in pairwise(calls))
    return {
        "files": len({file for file, _ in calls}),
        "functions": len(set(calls)),
        "moves": moves,
        "calls": len(calls),
    }


def network() -> FaceModel:
    """Returns a network whose last map is 7x7, with the head of most face networks and 32 embedding dimensions."""
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


def photos(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed))


def class_map() -> Callable[[], Any]:
    """Returns a second HiResCAM call."""
    model, faces = network(), photos(4)
    explainer = HiResCAM(model.gallery({f"p{i}": faces[i : i + 1] for i in range(3)}))
    explainer(faces[2:3])
    return lambda: explainer(faces[3:])


def pair() -> Callable[[], Any]:
    """Returns a second FGGB pair, with eight copies of a face per pass."""
    faces, explainer = photos(4), FGGB(network(), threshold=0.2, chunk=8)
    explainer(faces[:1], faces[1:2])
    return lambda: explainer(faces[2:3], faces[3:])


def run(folder: Path) -> Callable[[], Any]:
    """Returns a second run over nine people with two photos each, of which the first is enrolled."""
    for person in range(PEOPLE):
        (folder / "faces" / f"p{person}").mkdir(parents=True)
        for number, noise in enumerate(0.6 * photos(2, person) - 0.3):
            face = (photos(1, PEOPLE + person)[0] + noise).clamp(0, 1)
            images.save(face, folder / "faces" / f"p{person}" / f"{number}.png")
    config = evaluate.Config("faces", explainers=("cam",), metrics=("deletion",), enrol=1, scale=9.0)
    evaluate.run(config, folder / "first", model=network(), base=folder)
    model = network()
    return lambda: evaluate.run(config, folder / "second", model=model, base=folder)


def main() -> None:
    options = arguments(__doc__.splitlines()[0], faces=False).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FaceXAIWarning)
    with tempfile.TemporaryDirectory() as folder:
        calls = {
            "HiResCAM, second call": class_map(),
            "FGGB, second pair": pair(),
            f"evaluate.run, {PEOPLE} photos": run(Path(folder)),
        }
        rows = [{"call": name, **hops(sequence(call))} for name, call in calls.items()]
    sizes = [len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")]
    text = f"The package has {len(sizes)} files with {sum(sizes):,} lines."
    definition = "Moves are pairs of successive calls of functions of the package that lie in different files."
    report(options, rows, sentences=[definition, text], **origin())


def origin() -> dict[str, Any]:
    """Returns the commit of the tree that was measured, and whether it had changes; nothing where there is no git."""
    try:
        commit, changes = (git(*command, root=PACKAGE) for command in (("rev-parse", "HEAD"), ("status", "-s", ".")))
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": commit, "git dirty": bool(changes)}


if __name__ == "__main__":
    main()
