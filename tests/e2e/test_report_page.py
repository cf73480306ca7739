"""The report in a real browser: a reader without a network, with a mouse, with a keyboard, by day and by night."""

from __future__ import annotations

import html
import io
import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facexai import SDD, FrequencyHeatPlot, HiResCAM, PairCAM, PairSaliency, images, metrics, report
from facexai.demo.edits import question
from facexai.demo.portraits import COLLINS, HOPPER, mirrored, relit

pytestmark = pytest.mark.slow

HOSTILE = '<script>window.hacked=1</script>"><img src=x onerror="window.hacked=1"></script>{{ 7*7 }}'
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]


@pytest.fixture(scope="module")
def saved(dlib_model, tmp_path_factory) -> Path:
    """A report of everything that has something to point at, with a hostile name."""
    one, other = (images.align(p.load(), dlib_model.spec).image for p in (COLLINS, HOPPER))
    people = dlib_model.gallery({"Collins": one, HOPPER.name: other, HOSTILE: (one + other) / 2}, scale=20.0)
    faces = torch.cat([mirrored(relit(one)), mirrored(relit(other))])
    why = SDD(HiResCAM(people), rivals=2)(faces)
    pair = PairCAM(dlib_model, layer="stage2", threshold=0.4)(one, faces[:1])
    drawn, edit = question(1)
    made = report.build(
        {
            "Why this person?": report.Section(why, [metrics.deletion(people, faces, why)], [HOSTILE, "b.jpg"]),
            "Why a match?": report.Section(pair, names=[("a.jpg", HOSTILE)]),
            HOSTILE: FrequencyHeatPlot(dlib_model, masked="both", mode="preview")(one, faces[:1]),
            "Edited": edit(drawn),
        },
        model=people,
        title=HOSTILE,
        threshold=0.4,
        threshold_source=HOSTILE,
    )
    folder = tmp_path_factory.mktemp("report")
    made.save(folder)
    return folder / "report.html"


@pytest.fixture
def opened(chromium, saved):
    """Opens the page from its file; at the end nothing was said on the console and nothing was fetched."""
    contexts, said, asked = [], [], []

    def open_(scheme: str = "light", width: int = 1280, **how):
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(saved.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def picture(element) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(float)


@pytest.mark.parametrize(("scheme", "width"), [*LOOKS, ("light", 320)])
def test_it_opens_from_a_file_and_fits(opened, scheme, width):
    page = opened(scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(int(v) for v in ground[4:-1].split(",")) > 380
    assert bright == (scheme == "light")
    if folder := os.environ.get("FACEXAI_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"report_{scheme}_{width}.png", full_page=True)


def test_the_slider_goes_from_photo_to_map(opened):
    page = opened()
    figure = page.locator(".view").first
    stage, slider = figure.locator(".stage"), figure.locator("input")
    over = picture(stage)
    slider.fill("0")
    under = picture(stage)
    slider.fill("50")
    half = picture(stage)
    middle = half.shape[1] // 2
    assert abs(over - under).mean() > 5
    assert abs(half[:, : middle - 4] - over[:, : middle - 4]).mean() < 1
    assert abs(half[:, middle + 4 :] - under[:, middle + 4 :]).mean() < 1
    slider.focus()
    page.keyboard.press("Home")
    assert abs(picture(stage) - under).mean() < 5  # but for the ring of the focus nothing changed


def record_of(page) -> dict:
    return json.loads(page.locator("#record").text_content())


def test_pointing_tells_the_value_of_the_cell(opened):
    page = opened()
    view = record_of(page)["sections"][0]["items"][0]["views"][1]
    figure = page.locator(".view").nth(1)
    figure.scroll_into_view_if_needed()
    box = figure.locator(".stage").bounding_box()
    rows, columns = len(view["cells"]), len(view["cells"][0])
    for row, column in ((0, 0), (rows // 2, 3), (rows - 1, columns - 1)):
        x, y = box["width"] * (column + 0.5) / columns, box["height"] * (row + 0.5) / rows
        page.mouse.move(box["x"] + x, box["y"] + y)
        told = figure.locator(".told").text_content()
        assert told.startswith(f"row {row + 1}, column {column + 1}: ")
        value = float(told.split(": ")[1].split()[0])
        assert value == view["cells"][row][column]
        assert figure.locator(".cell").is_visible()
    page.mouse.move(1, 1)
    assert figure.locator(".told").text_content() == ""
    assert not figure.locator(".cell").is_visible()


def test_pointing_tells_the_number_of_the_record(chromium, tmp_path):
    """A map with a value per pixel, whose one pixel is shared by four blocks, and one of tiny values."""
    cells = torch.zeros(1, 2, 112, 112)
    cells[0, 0, 3, 3], cells[0, 1] = 1, 1.23456789e-7
    why = PairSaliency(cells, (112, 112), torch.tensor([0.5]), recipe={"unit": "score"})
    report.build(why).save(tmp_path)
    page = chromium.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    sides = record_of(page)["sections"][0]["items"][0]["sides"]
    values = [side["view"]["cells"] for side in sides]
    assert sum(map(sum, values[0])) * 3.5**2 == pytest.approx(1, rel=1e-4)
    for side, y, x, right in (
        (0, 3.25, 3.25, 0.020408),
        (0, 3.75, 3.75, 0.020408),
        (0, 8, 3, 0),
        (1, 50, 50, 1.2346e-7),
    ):
        figure = page.locator(".view").nth(side)
        figure.scroll_into_view_if_needed()
        box = figure.locator(".stage").bounding_box()
        page.mouse.move(box["x"] + box["width"] * x / 112, box["y"] + box["height"] * y / 112)
        text = figure.locator(".told").text_content()
        shown = float(text.split(": ")[1].split()[0])
        assert shown == right == values[side][int(y / 3.5)][int(x / 3.5)]
    page.close()


def test_pointing_at_one_face_frames_what_it_matched_in_the_other(opened):
    page = opened()
    item = record_of(page)["sections"][1]["items"][0]
    pair = page.locator(".pair").first
    rows = columns = len(item["sides"][0]["view"]["cells"])
    for side in (0, 1):
        found = item["matches"][side]
        cell = max(range(len(found)), key=lambda k: sum(value for _, value in found[k]))
        figure, other = pair.locator(".view").nth(side), pair.locator(".view").nth(1 - side)
        figure.scroll_into_view_if_needed()
        box = figure.locator(".stage").bounding_box()
        page.mouse.move(
            box["x"] + box["width"] * (cell % columns + 0.5) / columns,
            box["y"] + box["height"] * (cell // columns + 0.5) / rows,
        )
        frames = other.locator(".match")
        assert frames.count() == len(found[cell]) > 1
        around, first = other.locator(".stage").bounding_box(), frames.first.bounding_box()
        partner = int(found[cell][0][0])
        place = (first["x"] - around["x"]) / around["width"], (first["y"] - around["y"]) / around["height"]
        assert place == pytest.approx(((partner % columns) / columns, (partner // columns) / rows), abs=0.02)
        assert float(frames.first.text_content()) == pytest.approx(found[cell][0][1])
    page.mouse.move(1, 1)
    assert pair.locator(".match").count() == 0


def test_everything_is_reached_and_read_by_keyboard(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    wanted = page.evaluate("document.querySelectorAll('a, .stage[tabindex], input, summary').length")
    reached, seen = 0, 0
    for _ in range(wanted + 5):
        kind = page.evaluate("document.activeElement.className + document.activeElement.tagName")
        reached += kind != "BODY"
        if "stage" in kind and not seen:
            seen += 1
            page.keyboard.press("ArrowRight")
            first = page.evaluate("document.activeElement.closest('.view').querySelector('.told').textContent")
            page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowDown")
            second = page.evaluate("document.activeElement.closest('.view').querySelector('.told').textContent")
            (row, column), (down, right) = ([int(w.strip(",:")) for w in t.split()[1:4:2]] for t in (first, second))
            assert (down, right) == (row + 1, column + 1)
            page.keyboard.press("Escape")
            assert page.evaluate("document.activeElement.closest('.view').querySelector('.told').textContent") == ""
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    assert seen
    assert reached >= wanted


CONTRASTS = """() => {
  const parse = (text) => { const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a ?? 1]; };
  const light = ([r, g, b]) => {
    const linear = [r, g, b].map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || ["SCRIPT", "STYLE", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.includes("svg") ? style.fill : style.color);
    const [high, low] = [light(ink), light(ground(element))].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), walk.currentNode.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(opened, scheme):
    found = opened(scheme).evaluate(CONTRASTS)
    assert len(found) > 100
    assert [row for row in found if row[0] < 4.5] == []


def test_it_has_names_for_those_who_do_not_see_it(opened):
    page = opened()
    assert page.evaluate("document.documentElement.lang") == "en"
    alts = page.evaluate("[...document.images].map((i) => [i.className, i.alt])")
    assert all(alt for kind, alt in alts if kind != "under")
    assert page.evaluate("[...document.querySelectorAll('svg')].every((s) => s.getAttribute('aria-label'))")
    assert page.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption.textContent)")
    assert page.evaluate("[...document.querySelectorAll('input')].every((i) => i.getAttribute('aria-label'))")
    assert page.evaluate(
        "[...document.querySelectorAll('.told')].every((o) => o.getAttribute('aria-live') == 'polite')"
    )
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(set(ids)) == len(ids)
    targets = page.evaluate("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href').slice(1))")
    assert set(targets) <= set(ids)


def test_hostile_names_are_read_and_not_run(opened):
    page = opened()
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.title() == HOSTILE
    assert page.locator("h1").text_content() == HOSTILE
    assert record_of(page)["title"] == HOSTILE
    assert page.locator("img[src='x']").count() == 0


def test_without_scripts_the_maps_are_there(opened):
    page = opened(java_script_enabled=False)
    stage = page.locator(".stage").first
    assert picture(stage).std() > 20
    assert page.locator(".told").first.text_content() == ""


def test_it_draws_itself_inside_a_notebook_page(chromium, saved, tmp_path):
    record = json.loads((saved.parent / "report.json").read_text("utf-8"))
    whole = saved.read_text("utf-8")
    cell = f'<!doctype html><iframe sandbox="allow-scripts" srcdoc="{html.escape(whole, quote=True)}"></iframe>'
    (tmp_path / "cell.html").write_text(cell, "utf-8")
    page = chromium.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "cell.html").as_uri())
    frame = page.frame_locator("iframe")
    assert frame.locator("h1").text_content() == record["title"]
    frame.locator("input").first.fill("0")
    assert "100%" in frame.locator(".over").first.evaluate("(e) => getComputedStyle(e).clipPath")
    page.close()
    assert said == []
