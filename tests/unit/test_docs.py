"""The documentation is whole: cards for methods and metrics, a reference for every name, links that lead somewhere."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pages
import pytest
from pages import DOCS, ROOT

import facexai
from facexai import explainers, metrics
from facexai._registry import EXPLAINERS

HEADINGS = [
    "Question",
    "Inputs and outputs",
    "Equation",
    "Cost",
    "Published, reconstructed, ours",
    "Verified by",
    "When not to trust it",
]
METHOD_CARDS = sorted(page for page in pages.pages() if page.startswith("docs/methods/"))
METRIC_CARDS = sorted(page for page in pages.pages() if page.startswith("docs/metrics/"))
CARDS = METHOD_CARDS + METRIC_CARDS
KINDS = {"python", "bash", "toml", "text", "{eval-rst}", "{image}", "{toctree}", "{include}"}


def sections(page: str) -> dict[str, str]:
    """Heading -> what stands under it, without the example at the end."""
    text = (ROOT / page).read_text().split("\n---\n")[0]
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))


def public_modules() -> list[str]:
    """facexai, and what it and its documentation name as modules."""
    found = {name for name in facexai.__all__ if inspect.ismodule(getattr(facexai, name))}
    return ["facexai", *(f"facexai.{name}" for name in sorted(found | {"hooks", "kernels"}))]


def public_names(module: str) -> list[str]:
    """``__all__``, or what a module defines itself."""
    found = import_module(module)
    own = [name for name, value in vars(found).items() if getattr(value, "__module__", None) == module]
    return list(getattr(found, "__all__", [name for name in own if not name.startswith("_")]))


# ---- cards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", CARDS)
def test_a_card_has_its_headings_and_an_example(card):
    text = (ROOT / card).read_text()
    assert re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)[1:] == HEADINGS
    found = sections(card)
    assert all(len(found[heading].split()) >= 3 for heading in HEADINGS)
    card_itself, example = text.split("\n---\n")
    assert "```python" not in card_itself
    assert example.strip().startswith("**Example.**")
    assert "```python" in example
    assert "../gallery/" in example
    assert "Reference:" in example
    assert re.search(r"\*\*(Published|Reconstructed|Ours)|^Ours", found["Published, reconstructed, ours"])
    assert "```text" in found["Equation"]


def test_every_explainer_has_one_card():
    callables = [
        name
        for name in explainers.__all__
        if inspect.isclass(getattr(explainers, name)) and "__call__" in vars(getattr(explainers, name))
    ]
    assert {"CAM", "SDD", "FGGB", "FrequencyHeatPlot", "FastDiME"} <= set(callables)
    told = {card: sections(card)["Inputs and outputs"] for card in METHOD_CARDS}
    for name in callables:
        assert sum(text.startswith(f"`{name}(") for text in told.values()) == 1, f"{name} has no card of its own"
    assert len(told) == len(callables)


def test_every_metric_has_one_card():
    functions = [name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))]
    assert {"deletion", "bias", "roc", "localisation"} <= set(functions)
    told = {card: sections(card)["Inputs and outputs"] for card in METRIC_CARDS}
    for name in functions:
        cards = [card for card, text in told.items() if f"`metrics.{name}(" in text]
        assert len(cards) == 1, f"metrics.{name} is told on {cards}"


def test_the_index_of_methods_is_made_of_the_registry():
    assert sorted(f"docs/methods/{row.page}.md" for row in EXPLAINERS) == METHOD_CARDS
    for page, made in (("methods", "methods.md"), ("bibliography", "papers.md"), ("reference", "classes.txt")):
        assert f"_tables/{made}" in (DOCS / f"{page}.md").read_text()


def test_the_index_of_metrics_has_every_card_once_in_its_table_and_its_tree():
    text = (DOCS / "metrics.md").read_text()
    tree = next(block.text for block in pages.blocks("docs/metrics.md") if block.kind == "{toctree}")
    for card in METRIC_CARDS:
        name = card.removeprefix("docs/").removesuffix(".md")
        assert len(re.findall(rf"^\| \[[^]]+\]\({name}\.md\) \|", text, re.M)) == 1, name
        assert name in tree.split()


@pytest.mark.parametrize("card", METHOD_CARDS)
def test_a_card_shows_arguments_that_exist(card):
    """... with the defaults that they have."""
    told = re.match(r"`(\w+)\(([^`]*)\)`", sections(card)["Inputs and outputs"])
    assert told is not None
    parameters = inspect.signature(getattr(explainers, told[1])).parameters
    for argument in filter(None, told[2].split(", ")):
        name, _, default = argument.partition("=")
        assert name in parameters, argument
        assert not default or repr(parameters[name].default) == default.replace('"', "'"), argument


@pytest.mark.parametrize("card", METRIC_CARDS)
def test_a_metrics_card_shows_arguments_that_exist(card):
    for name, given in re.findall(r"`metrics\.(\w+)\(([^`]*)\)`", sections(card)["Inputs and outputs"]):
        found = getattr(metrics, name)
        if not inspect.isfunction(found) or given == "...":
            continue
        parameters = inspect.signature(found).parameters
        for argument in given.split(", "):
            argument, _, default = argument.partition("=")
            assert argument in parameters or re.search(r"[\[(]", given), f"{name}: {argument}"
            assert not default or repr(parameters[argument].default) == default.replace('"', "'"), f"{name}: {argument}"


# ---- the reference -----------------------------------------------------------------------------------------------


def reference() -> str:
    """The page, and the names that Sphinx adds from the registry."""
    return " ".join([(DOCS / "reference.md").read_text(), *(row.cls for row in EXPLAINERS)])


@pytest.mark.parametrize("module", public_modules())
def test_every_public_name_is_in_the_reference(module):
    words = set(re.findall(r"\w+", reference()))
    missing = [name for name in public_names(module) if name not in words]
    assert not missing, f"{module}: {missing} not in docs/reference.md"


def test_every_role_names_something_that_exists():
    for page in pages.pages():
        for role, target in re.findall(r"\{py:(\w+)\}`([\w.]+)`", (ROOT / page).read_text()):
            module, _, name = target.rpartition(".")
            found = getattr(import_module(module), name)
            assert inspect.isclass(found) if role == "class" else inspect.isfunction(found), (page, target)
            assert name in reference()


# ---- links and sources -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.pages())
def test_internal_links_and_images_exist(page):
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\(([^)\s]+)\)", pages.prose(page))
    targets += [block_target(page, block.line) for block in pages.blocks(page) if block.kind == "{image}"]
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (folder / path).resolve() if path else ROOT / page
        if there.parent == DOCS / "gallery" and there.suffix == ".rst":  # made by Sphinx of the examples
            assert there.stem == "index" or (ROOT / "examples" / f"{there.stem}.py").is_file(), f"{page}: {target}"
            continue
        assert there.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in pages.anchors(there.relative_to(ROOT).as_posix()), f"{page}: {target}"


def block_target(page: str, line: int) -> str:
    """The file of an image directive."""
    return (ROOT / page).read_text().splitlines()[line - 1].split("}")[1].strip()


def test_every_page_is_in_a_tree():
    listed = {f"docs/methods/{row.page}.md" for row in EXPLAINERS}
    for page in pages.pages():
        for block in pages.blocks(page):
            if block.kind == "{toctree}":
                folder = (ROOT / page).parent.relative_to(ROOT).as_posix()
                names = [line for line in block.text.splitlines() if line and not line.startswith(":")]
                listed |= {f"{folder}/{name.split('<')[-1].rstrip('>')}.md" for name in names}
    written = {page for page in pages.pages() if page.startswith("docs/")} - {"docs/index.md"}
    assert written == listed - {"docs/gallery/index.md"}


def test_every_cited_paper_is_in_the_bibliography():
    papers = [paper for row in EXPLAINERS for paper in row.papers]
    listed = " ".join([(DOCS / "bibliography.md").read_text(), *papers])
    sources = [ROOT / page for page in pages.pages()] + sorted((ROOT / "src").rglob("*.py"))
    for source in sources:
        cited = re.findall(r"arXiv:(\d{4}\.\d{4,5})|doi (10\.\d+/[\w.\-]+\w)", source.read_text())
        missing = [number for number in map("".join, cited) if number not in listed]
        assert not missing, f"{source.name}: {missing}"


# ---- blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages.pages())
def test_blocks_say_what_they_are(page):
    """Python and commands that run are marked so, since only then a test runs them."""
    for block in pages.blocks(page):
        assert block.kind in KINDS, f"{block.where}: {block.kind}"
        if block.kind == "toml":
            assert re.match(r"# [\w.]+\.toml\b", block.text), f"{block.where}: which file is it?"
        if block.kind == "text" and page not in pages.SYNOPSES:
            assert not re.match(r"\s*(facexai|pip|python|import|from) ", block.text), f"{block.where}: is it a command?"
    fences = re.findall(r"^\s*(?:```|~~~)(.*)$", (ROOT / page).read_text(), re.M)
    assert all(closing == "" for closing in fences[1::2]), page


def test_nothing_stands_twice():
    """A paragraph of a page stands on no other page."""
    seen: dict[str, str] = {}
    for page in pages.pages():
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.S | re.M)
        for paragraph in re.split(r"\n\s*\n|\n(?=- )", text):
            words = " ".join(paragraph.split())
            if len(words) > 120 and not words.startswith("|"):
                assert words not in seen, f"{page} and {seen[words]}: {words[:80]}"
                seen[words] = page
