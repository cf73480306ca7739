"""What a newcomer does: every block of Python and every command of every page runs as it is written.

Each page runs in a folder of its own that has the files the pages speak of: portraits in the public domain and drawn
people. Pages about other code bases run in ``test_code_base_pages.py``, with stand-ins for those code bases, and pages
about networks of libraries in ``test_networks.py``, with these libraries.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pages
import pytest
import torch
from codebases import CODE_BASES
from networks import NETWORKS
from pages import ROOT

from facexai import CorrRISE, images
from facexai.cli import main

OF_CODE_BASES = {f"docs/code_bases/{case.page[0]}.md" for case in CODE_BASES.values()}
OF_LIBRARIES = {f"docs/networks/{case.page}.md" for case in NETWORKS.values() if case.page}
ELSEWHERE = OF_CODE_BASES | OF_LIBRARIES
RUNNABLE = {page: [block for block in pages.blocks(page) if pages.runs(block)] for page in pages.pages()}
HERE = sorted(page for page, blocks in RUNNABLE.items() if blocks and page not in ELSEWHERE)
TOOLS = ("pip", "pytest", "ruff", "mypy", "sphinx-build")
"""Commands that set up and check: ``.ci/run`` runs them, in fresh environments."""

PACKAGE = """
import torch
from facexai import FaceModel, InputSpec

def factory():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 16, stride=16), torch.nn.ReLU(), torch.nn.BatchNorm2d(8), torch.nn.Flatten(),
        torch.nn.Linear(648, 32),
    )
    return FaceModel(net, InputSpec(150))

def bright():
    return lambda photos: 8 * (photos.mean((1, 2, 3)) - 0.6)
"""
AUDIT = """
pairs = "pairs.csv"
groups = "groups.csv"
mode = "hybrid"
exact_bands = 4
draws = 99
"""


@pytest.fixture(scope="session")
def world(enrolled, tmp_path_factory) -> Path:
    """The folder of a user who has photos of two people, and aligned ones of more."""
    from facexai import InputSpec
    from facexai.demo.people import cartoons
    from facexai.demo.portraits import COLLINS, HOPPER, jpeg, relit

    root = tmp_path_factory.mktemp("world")
    shutil.copytree(enrolled, root, dirs_exist_ok=True)
    for portrait, name, letter in ((COLLINS, "Collins", "a"), (HOPPER, "Hopper", "b")):
        images.save(relit(portrait.load()), root / "enrolled" / name / "b.png")
        images.save(jpeg(portrait.load()), root / f"{letter}.jpg")
    shutil.copy(root / "b.jpg", root / "other.jpg")
    photos = [root / name for name in ("who.jpg", "other.jpg", "a.jpg", "b.jpg")]
    (root / "photos").mkdir()
    rows, groups = [], []
    for name, faces in cartoons(InputSpec(150), count=4, each=9).items():
        person = name.replace(" ", "_")
        for number, face in enumerate(faces):
            path = root / "faces" / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save(face, path)
            if number < 2:
                photos.append(root / f"{person}_{number}.png")
                shutil.copy(path, photos[-1])
                groups.append((photos[-1].name, "ab"[len(groups) // 4], person))
    for path in photos:
        shutil.copy(path, root / "photos" / path.name)
    for first, _, one in groups:
        rows += [(first, second, int(one == other)) for second, _, other in groups if first < second]
    for name, columns, table in (
        ("pairs.csv", ("first", "second", "same"), [row for row in rows if group(row[0]) == group(row[1])]),
        ("groups.csv", ("image", "group", "identity"), groups),
    ):
        with (root / name).open("w", newline="") as file:
            csv.writer(file).writerows([columns, *table])
    (root / "audit.toml").write_text(AUDIT)
    for person in ("Ann_One", "Bo_Two"):  # as LFW comes
        for number in (1, 2):
            path = root / "lfw" / person / f"{person}_{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.save(images.load(root / "faces" / f"cartoon_{'AB'.index(person[0])}" / f"{number}.png"), path)
    (root / "pairs.txt").write_text("Ann_One\t1\t2\nAnn_One\t1\tBo_Two\t1\n")
    (root / "yourpackage").mkdir()
    (root / "yourpackage" / "__init__.py").touch()
    (root / "yourpackage" / "models.py").write_text(PACKAGE)
    return root


def group(photo: str) -> str:
    """Of a drawn person's photo."""
    return "a" if photo < "cartoon_2" else "b"


@contextlib.contextmanager
def inside(folder: Path):
    """Work in a folder, with the user's own package beside the photos.

    CorrRISE asks about 500 masked copies of each face where nobody says how many: here about 60.
    """
    mine = ("yourpackage", "yourpackage.models")
    defaults = [60 if value == 500 else value for value in CorrRISE.__init__.__defaults__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CorrRISE.__init__, "__defaults__", tuple(defaults))
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for name in mine:
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        yield
    for name in mine:
        sys.modules.pop(name, None)


@contextlib.contextmanager
def as_a_user():
    """Warnings about what the world is too small for are none about the page."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*beside the target")  # two people, four rivals asked for
        warnings.filterwarnings("ignore", message="probabilities are saturated")  # they are easy to tell apart
        warnings.filterwarnings("ignore", message="a map of pair")  # FGGB of one person's two photos
        yield


def run_command(command: str, demonstration: Path) -> None:
    """One command of a page."""
    words = shlex.split(command)
    if words[0] in TOOLS:
        return
    if words[:2] == ["facexai", "demo"]:  # once in a session; it takes a minute
        shutil.copytree(demonstration, words[words.index("--out") + 1])
        return
    if words[0] == "torchrun":
        runner = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        subprocess.run(runner, check=True, capture_output=True, text=True, timeout=300)
        return
    assert words[0] == "facexai", f"{command!r}: nobody knows how to run this"
    with as_a_user():
        assert main(words[1:]) == 0, command


def walk(page: str, folder: Path, demonstration: Path) -> None:
    """Everything that a page says, in its order."""
    torch.manual_seed(0)
    names: dict = {"__name__": "__main__"}
    with inside(folder):
        for block in pages.blocks(page):
            if block.kind == "toml":
                tomllib.loads(block.text)
                (folder / block.text.split()[1].rstrip(";")).write_text(block.text)
            elif pages.runs(block) == "python":
                with as_a_user():
                    exec(compile(block.text, block.where, "exec"), names)
            elif pages.runs(block) == "bash":
                for command in pages.commands(block):
                    run_command(command, demonstration)


@pytest.fixture(scope="session")
def after_readme(world, demonstration, tmp_path_factory) -> Path:
    """The folder of somebody who did everything that the README says."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(world, folder, dirs_exist_ok=True)
    walk("README.md", folder, demonstration[0])
    return folder


STARTS_AFTER_README = {"docs/report.md"}  # reports are about what the other commands wrote


@pytest.mark.slow
def test_every_block_of_the_readme_runs(after_readme):
    for name in ("why.npz", "out/demo.json", "explained", "run/results.json", "report/report.html"):
        assert (after_readme / name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in HERE if page != "README.md"])
def test_every_block_of_the_page_runs(page, tmp_path, request):
    start = request.getfixturevalue("after_readme" if page in STARTS_AFTER_README else "world")
    shutil.copytree(start, tmp_path, dirs_exist_ok=True)
    shows = any("facexai demo" in block.text for block in RUNNABLE[page])
    walk(page, tmp_path, request.getfixturevalue("demonstration")[0] if shows else tmp_path)


# ---- and nothing is left out -------------------------------------------------------------------------------------


def test_no_page_is_left_out():
    """Pages with code run here, or are a code base's, of which all have a test."""
    assert {page for page in RUNNABLE if page.startswith(("docs/code_bases/", "docs/networks/"))} == ELSEWHERE
    assert not [block for page in ELSEWHERE for block in RUNNABLE[page] if block.kind != "python"]
    assert {page for page, blocks in RUNNABLE.items() if blocks} == set(HERE) | ELSEWHERE
    assert {"README.md", "docs/index.md", "docs/methods/cam.md", "docs/how_to/run_on_ray.md"} <= set(HERE)
    marked = sum(
        (ROOT / page).read_text().count("```python") + (ROOT / page).read_text().count("```bash") for page in RUNNABLE
    )
    found = [block for blocks in RUNNABLE.values() for block in blocks]
    assert marked == sum(block.kind in ("python", "bash") for block in found) > 100


def said() -> list[str]:
    """Every command of the pages that run here."""
    every = [block for page in HERE for block in RUNNABLE[page] if pages.runs(block) == "bash"]
    return [command for block in every for command in pages.commands(block)]


def test_what_does_not_run_here_runs_in_fresh_environments():
    script = (ROOT / ".ci" / "run").read_text()
    tools = {shlex.split(command)[0] for command in said()} & set(TOOLS)
    assert tools == set(TOOLS)
    assert all(re.search(rf"(^|&& |\s){tool}( |$)", script, re.M) for tool in tools)
    for command in said():
        if command.startswith("pip install") and "test,docs,lint" not in command:  # those two apart, there
            assert command in script


def test_every_command_is_on_a_page():
    """The synopsis and the pages that run: no subcommand that nobody shows."""
    shown = {shlex.split(command)[1] for command in said() if command.startswith("facexai ")}
    synopsis = pages.blocks("docs/commands.md")[0].text
    listed = {line.split()[1] for line in synopsis.splitlines() if line.startswith("facexai ")}
    assert listed - shown <= {"models"}
    assert shown <= listed
