"""Reports: the record, its schema, regions and sentences, and a page that shows nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import FlatNet, shaken

from facexai import (
    CAM,
    SDD,
    CorrRISE,
    Counterfactual,
    FaceModel,
    FrequencyHeat,
    FrequencyHeatPlot,
    HiResCAM,
    InputSpec,
    PairCAM,
    PairSaliency,
    metrics,
    report,
)
from facexai.report import charts, pictures
from facexai.report.regions import REGIONS, regions, sentences, shares

HOSTILE = '<script>window.hacked=1</script>"><img src=x onerror=alert(1)>{{ 7*7 }}</script>'


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


@pytest.fixture(scope="module")
def people(model):
    return model.gallery(
        {HOSTILE: torch.rand(1, 3, 112, 112), "bo": torch.rand(1, 3, 112, 112), "cy": torch.rand(1, 3, 112, 112)}
    )


@pytest.fixture(scope="module")
def faces():
    return torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def edits(*, control=False):
    """Two edits, or their control without guidance."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    edited = images.clone()
    edited[:, :, 8:16, 8:16] = 0.5
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, 8:16, 8:16] = True
    recipe = {"method": "FastDiME (fastdime)", "seed": 3, "denoiser": {"denoiser": "a", "fingerprint": "f" * 16}}
    scales = torch.zeros(2) if control else torch.tensor([8.0, 15.0])
    rows = (torch.tensor([2.0, 1.0]), torch.tensor([-1.5, 0.5]), torch.tensor([True, False]), scales)
    return Counterfactual(images, edited, masks, *rows, torch.tensor([60, 180]), torch.randn(2, 60), recipe)


def group_findings():
    rng = np.random.default_rng(0)
    heat = FrequencyHeat(
        torch.from_numpy(rng.random((40, 12))),
        torch.arange(13.0),
        torch.ones(40, 12),
        torch.from_numpy(rng.random(40)),
        (112, 112),
        0.69,
    )
    people = [f"{i % 2}-{i // 4}" for i in range(40)]
    same = [i % 4 < 2 for i in range(40)]
    others = [name if alike else f"{name}, other" for name, alike in zip(people, same, strict=True)]
    return metrics.bias(heat, [HOSTILE, "others"] * 20, identities=people, partners=others, same=same, draws=99)


@pytest.fixture(scope="module")
def everything(model, people, faces):
    why = SDD(HiResCAM(people), rivals=2)(faces)
    first, second = faces[:2], faces[1:]
    pair = PairCAM(model, threshold=0.2)(first, second)
    protocol = metrics.Protocol(pairs="all", threshold=0.2, steps=4)
    rng = np.random.default_rng(1)
    roc = metrics.roc(np.r_[rng.normal(0.6, 0.2, 50), rng.normal(0.1, 0.2, 150)], [True] * 50 + [False] * 150)
    found = edits()

    def decision(images):
        return images.mean((1, 2, 3))

    return report.build(
        {
            HOSTILE: report.Section(
                why,
                [metrics.deletion(people, faces, why), metrics.insertion(people, faces, why, steps=3)],
                [HOSTILE, "b.jpg", "c.jpg"],
                note=HOSTILE,
            ),
            "exact": CAM(people)(faces),
            "pairs": report.Section(
                pair,
                [metrics.verification_deletion(model, first, second, pair, [True, False], protocol)],
                [(HOSTILE, "b.jpg"), ("b.jpg", "c.jpg")],
            ),
            "everybody": CorrRISE(model, count=20).against(people)(faces),
            "bands": FrequencyHeatPlot(model, masked="both", width=16.0)(first, second),
            "classes of bands": FrequencyHeatPlot(people, width=16.0)(faces),
            "edits": found,
            "shortcut": metrics.shortcut_audit(decision, found.images, found.counterfactuals, no_op=found.images),
            "groups": group_findings(),
            "rates": roc,
            "table": metrics.faithfulness({"SDD": why}, people, faces, steps=0),
        },
        model=people,
        title=HOSTILE,
        threshold=0.2,
        threshold_source=HOSTILE,
        made="2026-01-02T03:04:05+00:00",
    )


# ---- the record -----------------------------------------------------------------------------------------------------


def test_the_record_is_what_the_schema_says(everything):
    jsonschema.Draft202012Validator.check_schema(report.schema())
    jsonschema.validate(everything.record, report.schema())
    kinds = {section["kind"] for section in everything.record["sections"]}
    assert kinds == {"classes", "pairs", "frequency", "counterfactuals", "shortcut", "groups", "roc", "table"}


def test_the_schema_refuses_what_is_not_in_it(everything):
    for change in ({"format": 2}, {"more": 1}, {"decisions": [{"name": "x"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**everything.record, **change}, report.schema())


def test_networks_seeds_and_limits_are_told(everything, people):
    record = everything.record
    own = record["networks"][0]
    assert own["fingerprint"] == people.model.fingerprint
    assert own["people"] == 3
    assert own["input"]["height"] == 112
    assert own["parameters"] == sum(p.numel() for p in people.model.net.parameters())
    assert any(n["fingerprint"] == "f" * 16 for n in record["networks"])
    assert {(row["heading"], row["seed"]) for row in record["seeds"]} >= {("edits", 3), ("everybody", 0), ("groups", 0)}
    about = {one["about"] for one in record["limits"]}
    assert {
        "SDD",
        "HiResCAM",
        "CAM",
        "PairCAM",
        "CorrRISE",
        "FrequencyHeatPlot",
        "FastDiME",
        "groups of people",
        "error rates",
    } <= about
    assert record["threshold"] == {"values": [0.2], "source": HOSTILE, "note": ""}


def test_decisions_stand_once_with_all_that_explain_them(everything):
    rows = everything.record["decisions"]
    assert len({json.dumps([row[k] for k in ("name", "decision", "score", "unit")]) for row in rows}) == len(rows)
    assert not any(row["name"].startswith("image") for row in rows)  # what an edit changed is no decision
    edited = next(section for section in everything.record["sections"] if section["kind"] == "counterfactuals")
    assert [item["flipped"] for item in edited["items"]] == [True, False]
    assert "not changed" in everything.html


def test_item_controls_are_the_metrics_own_numbers(model, people, faces):
    why = CAM(people)(faces)
    drop = metrics.deletion(people, faces, why)
    (section,) = report.build({"why": report.Section(why, [drop])}).record["sections"]
    for n, item in enumerate(section["items"]):
        one, score = item["controls"]
        assert score["rows"][0]["value"] == pytest.approx(drop.score.values[n])
        assert [row["value"] for row in one["rows"]] == [
            pytest.approx(m.probability.values[n]) for m in (drop, *drop.controls.values())
        ]
        lost = [row["name"] for row in score["rows"][1:] if score["rows"][0]["value"] <= row["value"]]
        assert ("better than every control" in score["sentence"]) == (not lost)
        assert score["sentence"].endswith(f"no better than: {', '.join(lost)}.") or not lost
        assert "better" not in one["sentence"]  # probabilities saturate
    over, _ = section["measured"]
    assert over["rows"][0]["value"] == pytest.approx(drop.drop)
    assert over["rows"][1]["p"] == pytest.approx(drop.p_value("random"))


def test_matches_are_the_largest_of_the_table(model, faces):
    why = PairCAM(model)(faces[:1], faces[1:2])
    (section,) = report.build(why).record["sections"]
    first, second = section["items"][0]["matches"]
    h, w = why.table.shape[1:3]
    flat = why.table[0].reshape(h * w, h * w)
    for cell in range(h * w):
        for held, row in ((first[cell], flat[cell]), (second[cell], flat[:, cell])):
            best = row.argsort(descending=True)[: len(held)].tolist()
            assert [int(partner) for partner, _ in held] == best or len(set(row.tolist())) < len(row)
            assert all(value == pytest.approx(float(row[int(partner)]), rel=1e-3) for partner, value in held)


def test_maps_with_a_value_per_pixel_are_told_as_block_means(model, faces):
    why = CorrRISE(model, count=30)(faces[:1], faces[1:2])
    (section,) = report.build(why).record["sections"]
    view = section["items"][0]["sides"][0]["view"]
    cells = torch.tensor(view["cells"])
    assert cells.shape == (32, 32)
    assert view["note"].startswith("values are means over blocks of 3.5x3.5 pixels")
    mean = torch.tensor(block_means(why.cells[0, 0].tolist(), (32, 32)))
    torch.testing.assert_close(cells, mean, rtol=1e-4, atol=1e-6)


def block_means(rows, blocks):
    """The literal mean of equal blocks: every pixel counts by the part of it that lies in the block, in fractions."""
    height, width = len(rows), len(rows[0])
    high, wide = Fraction(height, blocks[0]), Fraction(width, blocks[1])

    def part(pixel, block, length):
        return max(Fraction(0), min(Fraction(pixel + 1), (block + 1) * length) - max(Fraction(pixel), block * length))

    return [
        [
            sum(
                float(part(y, i, high) * part(x, j, wide) / (high * wide)) * rows[y][x]
                for y in range(int(i * high), min(int((i + 1) * high) + 1, height))
                for x in range(int(j * wide), min(int((j + 1) * wide) + 1, width))
            )
            for j in range(blocks[1])
        ]
        for i in range(blocks[0])
    ]


def test_a_pixel_that_blocks_share_counts_once():
    pixel = torch.zeros(112, 112)
    pixel[3, 3] = 1  # blocks of 3.5 pixels: a quarter of it in each of four
    values, _ = pictures._told(pixel)
    assert float(values.sum()) * 3.5**2 == pytest.approx(1, abs=1e-12)
    assert values[:2, :2].flatten().tolist() == pytest.approx([0.25 / 3.5**2] * 4)
    assert int((values != 0).sum()) == 4


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 2**31 - 1))
def test_told_values_add_up_to_the_map(height, width, seed):
    cells = torch.randn(height, width, generator=torch.Generator().manual_seed(seed))
    values, note = pictures._told(cells)
    h, w = values.shape
    assert (h, w) == (min(height, 32), min(width, 32))
    assert bool(note) == ((h, w) != (height, width))
    assert float(values.double().sum()) * height / h * width / w == pytest.approx(float(cells.double().sum()), abs=1e-4)
    even, _ = pictures._told(torch.full((height, width), 0.7))
    torch.testing.assert_close(even.float(), torch.full((h, w), 0.7))


@pytest.mark.parametrize("size", [(112, 112), (33, 50), (160, 40), (12, 113)])
def test_told_values_are_the_means_of_equal_blocks(size):
    cells = torch.randn(*size, generator=torch.Generator().manual_seed(3))
    values, _ = pictures._told(cells)
    expected = torch.tensor(block_means(cells.tolist(), tuple(values.shape)), dtype=torch.float64)
    torch.testing.assert_close(values.double(), expected)


def test_the_same_results_make_the_same_report(people, faces):
    def made():
        return report.build(CAM(people)(faces), model=people, made="2026-01-02T03:04:05+00:00")

    first, second = made(), made()
    assert first.html == second.html
    assert json.dumps(first.record) == json.dumps(second.record)


def test_more_items_than_asked_for_are_counted_not_drawn(people, faces):
    made = report.build(CAM(people)(faces), items=1)
    (section,) = made.record["sections"]
    assert (len(section["items"]), section["of"]) == (1, 3)
    assert "1 of 3 are shown" in made.html


# ---- regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["arcface", "dlib", "facenet-pytorch", "mobilefacenet"])
def test_regions_are_a_partition(name):
    masks = regions(InputSpec.of(name))
    assert tuple(masks) == REGIONS
    assert torch.stack(list(masks.values())).sum(0).eq(1).all()
    assert all(mask.any() for mask in masks.values())


def test_regions_hold_the_landmarks():
    from facexai.images import template

    for name in ("arcface", "dlib", "mobilefacenet"):
        spec = InputSpec.of(name)
        masks, points = regions(spec), template(spec).round().astype(int)
        where = ("eyes and brows", "eyes and brows", "nose", "mouth", "mouth")
        for region, (x, y) in zip(where, points, strict=True):
            assert masks[region][y, x], (name, region)


@given(st.integers(0, 10_000))
def test_shares_of_all_regions_add_up_to_one(seed):
    values = torch.randn(112, 112, generator=torch.Generator().manual_seed(seed))
    rows = shares(values, regions(InputSpec(112)))
    for kind in ("area", "for", "against"):
        assert sum(row[kind] for row in rows) == pytest.approx(1, abs=1e-6)


def test_sentences_say_the_measured_shares_and_nothing_else():
    masks = regions(InputSpec(112))
    rows = shares(masks["mouth"].float(), masks)
    assert sentences(rows, "what speaks for Ann") == [
        f"Of what speaks for Ann, 100 % lies on the mouth, where an even map would have {100 * rows[2]['area']:.0f} %.",
        "0 % lies around the face, on hair, ears, clothes and background.",
    ]
    assert sentences(rows, "what speaks against", "against") == []
    assert sentences(shares(torch.zeros(112, 112), masks), "nothing") == []


def test_without_a_model_nothing_is_said_about_regions(people, faces):
    (section,) = report.build(CAM(people)(faces)).record["sections"]
    assert section["items"][0]["regions"] == []
    assert section["items"][0]["sentences"] == []


# ---- the page -------------------------------------------------------------------------------------------------------


class Shown(HTMLParser):
    """Visible text outside of numbers, the numbers, and what a page must not have."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.values: list[float] = []
        self.within: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        held = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "data":
            self.values.append(float(held["value"]))
        if "data-value" in held:
            self.values.append(float(held["data-value"]))
        if tag not in ("meta", "img", "input", "path", "rect"):
            self.within.append("number" if tag == "data" or "data-value" in held else tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in ("meta", "img", "input", "path", "rect"):
            self.within.pop()

    def handle_data(self, text):
        if not {"script", "style", "number"} & set(self.within):
            self.text.append(text)


def shown(page: str) -> Shown:
    parser = Shown()
    parser.feed(page)
    return parser


def numbers_of(value):
    if isinstance(value, dict):
        for held in value.values():
            yield from numbers_of(held)
    elif isinstance(value, list):
        for held in value:
            yield from numbers_of(held)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def strings_of(value):
    if isinstance(value, dict):
        for name, held in value.items():
            yield str(name)
            yield from strings_of(held)
    elif isinstance(value, list):
        for held in value:
            yield from strings_of(held)
    elif isinstance(value, str):
        yield value


def test_the_record_holds_every_number_that_the_page_shows(everything):
    page, record = shown(everything.html), everything.record
    assert len(page.values) > 400
    assert set(page.values) <= set(numbers_of(record))
    token = re.compile(r"\d[\d.,]*\d|\d")
    allowed = {t for text in strings_of(record) for t in token.findall(text)} | {"95"}  # of "intervals of 95 %"
    plain = {k: v for k, v in record.items() if k != "sections"} | {"r": [s["recipe"] for s in record["sections"]]}
    plain["of"] = [[s["of"], len(s["items"])] for s in record["sections"]]
    for value in numbers_of(plain):
        allowed |= {f"{value:g}", repr(value), str(int(value)), *token.findall(json.dumps(value))}
    for section in record["sections"]:
        for view in (v for item in section["items"] for v in item.get("views", ())):
            allowed |= set(token.findall(view["title"]))
    for text in page.text:
        for found in token.findall(text):
            tips = "cycles per face:" in text  # the tip of a bar says its band, which stands in the table too
            assert found in allowed or tips, (found, text)


def test_the_page_and_the_file_hold_the_same_record(everything, tmp_path):
    everything.save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    inside = re.search(r'<script type="application/json" id="record">(.*?)</script>', page, re.S).group(1)
    assert json.loads(inside) == json.loads((tmp_path / "out" / "report.json").read_text("utf-8")) == everything.record


def test_the_page_stands_alone(everything):
    page = everything.html
    assert not re.search(r"https?://", page.replace("http-equiv", ""))
    for tag, name, value in shown(page).attributes:
        assert not name.startswith("on"), (tag, name)
        assert name != "style", (tag, value)
        if name in ("src", "href"):
            assert value.startswith(("data:image/png;base64,", "#")), (tag, value[:40])
    assert page.count("<script") == 2
    policy = next(v for tag, name, v in shown(page).attributes if (tag, name) == ("meta", "content") and "src" in v)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_hostile_names_are_text(everything):
    page = everything.html
    assert "<script>window" not in page
    assert "<img src=x" not in page
    assert "{{ 7*7 }}" in page
    assert "&lt;script&gt;window.hacked=1&lt;/script&gt;" in page


def test_every_picture_and_chart_has_words(everything):
    page = shown(everything.html)
    images = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert len(images) == sum(1 for tag, name, _ in page.attributes if (tag, name) == ("img", "src"))
    assert sum(bool(value) for value in images) > 20
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert labels
    assert all(labels)


def test_it_draws_itself_in_a_notebook(everything, monkeypatch):
    drawn = everything._repr_html_()
    assert drawn.startswith("<iframe")
    assert "<script>" not in drawn
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert "facexai[report]" in everything._repr_html_()
    with pytest.raises(ImportError, match=r"facexai\[report\]"):
        _ = everything.html


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_what_does_not_belong_is_refused(model, people, faces):
    why = CAM(people)(faces)
    with pytest.raises(ValueError, match="at least one result"):
        report.build([])
    with pytest.raises(TypeError, match="expected a result of facexai"):
        report.build({"odd": object()})
    with pytest.raises(ValueError, match="'CAM': expected a name for each of the 3 items"):
        report.build(report.Section(why, names=["a"]))
    other = metrics.deletion(people, faces[:2], CAM(people)(faces[:2]))
    with pytest.raises(ValueError, match="measurements of the 3 items"):
        report.build(report.Section(why, [other]))
    with pytest.raises(TypeError, match=r"metrics\.deletion"):
        report.build(report.Section(why, ["deletion"]))
    torch.manual_seed(5)
    stranger = FaceModel(shaken(FlatNet()), "arcface")
    with pytest.raises(ValueError, match="fingerprint"):
        report.build(why, model=stranger)
    with pytest.raises(ValueError, match="without a threshold"):
        report.build(why, threshold_source="EER")
    for items in (0, True, "3", 2.0):
        with pytest.raises(ValueError, match="items of at least 1"):
            report.build(why, items=items)
    assert len(report.build(why, items=np.int64(2)).record["sections"][0]["items"]) == 2
    with pytest.raises(ValueError, match="from -1 to 1, a cosine, got 7"):
        report.build(why, threshold=7.0)
    with pytest.raises(ValueError, match="one name for each photo, got"):
        report.build(report.Section(why, names=[("a", "b")] * 3))
    pair = PairCAM(model)(faces[:1], faces[1:2])
    for names in (("a",), ("a", "b", "c")):
        with pytest.raises(ValueError, match=r"names of pairs as \(first, second\)"):
            report.build(report.Section(pair, names=[names]))
    with pytest.raises(TypeError, match="expected a result of facexai"):
        report.build({"a": {"kind": "roc"}})
    with pytest.raises(ValueError, match="at least one row"):
        report.build(metrics.Table((), {}, {}))


def test_what_was_measured_about_other_maps_is_refused(model, people, faces):
    why, other = CAM(people)(faces), HiResCAM(people)(faces)
    for measure in (metrics.deletion, metrics.insertion):
        with pytest.raises(ValueError, match="about maps of method 'HiResCAM', this result has 'CAM'"):
            report.build(report.Section(why, [measure(people, faces, other)]))
    torch.manual_seed(6)
    stranger = FaceModel(shaken(FlatNet()), "arcface").gallery({n: faces[k : k + 1] for k, n in enumerate("abc")})
    with pytest.raises(ValueError, match="about maps of fingerprint"):
        report.build(report.Section(why, [metrics.retention(stranger, faces, CAM(stranger)(faces))]))
    asked = CAM(people)(faces, targets="bo")
    with pytest.raises(ValueError, match="about maps of targets"):
        report.build(report.Section(why, [metrics.deletion(people, faces, asked)]))
    early, late = (HiResCAM(people, layer=layer)(faces) for layer in [*people.model.layers][-2:])
    with pytest.raises(ValueError, match="about maps of layer"):
        report.build(report.Section(late, [metrics.deletion(people, faces, early)]))
    halves = [
        metrics.deletion(people, faces[part], CAM(people)(faces[part]), items=list(range(3))[part])
        for part in (slice(0, 2), slice(2, 3))
    ]
    assert halves[0].recipe["explained"]["targets"] == why.targets[:2].tolist()
    assert "targets" not in (halves[0] + halves[1]).recipe["explained"]
    report.build(report.Section(why, [halves[1] + halves[0]]))
    raw = metrics.deletion(people, faces[:1], why.maps[:1], items=[7])
    assert "explained" not in (halves[0] + raw).recipe
    protocol = metrics.Protocol(pairs="all", threshold=0.2, steps=3)
    first, second = PairCAM(model)(faces[:2], faces[1:]), PairCAM(model)(faces[1:], faces[:2])
    alone = (faces[:2], faces[:2])
    for maps, images, wrong in (
        (first, (faces[:2], faces[1:]), False),
        (second, (faces[1:], faces[:2]), False),  # the same cosines: nothing that a curve could tell
        (PairCAM(model)(*alone), alone, True),
    ):
        curve = metrics.verification_insertion(model, *images, maps, [True, False], protocol)
        if wrong:
            with pytest.raises(ValueError, match="about other pairs"):
                report.build(report.Section(first, [curve]))
        else:
            report.build(report.Section(first, [curve]))
    both = (faces[:2], faces[1:])
    curve = metrics.verification_insertion(model, *both, first.maps, [True, False], protocol)
    with pytest.raises(TypeError, match="PairCurve, which is not about maps of a Saliency"):
        report.build(report.Section(CAM(people)(faces[:2]), [curve]))
    with pytest.raises(TypeError, match="Drop, which is not about maps of a PairSaliency"):
        report.build(report.Section(first, [metrics.deletion(people, faces[:2], why.maps[:2])]))


def test_nothing_is_half_written(everything, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError):
        everything.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


# ---- charts ---------------------------------------------------------------------------------------------------------


def test_broad_names_leave_the_bars_their_room():
    for name in ("M" * 99, "\u4eba" * 99, "n" * 99):
        drawn = str(charts.bars([{"name": name, "value": 1.0}], "x"))
        label = float(re.search(r'class="name" x="([\d.]+)"', drawn)[1])
        shown = re.search(r">([^<]*)\u2026</text>", drawn)[1]
        assert label < 220
        assert 8 <= len(shown) < 28


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_bars_are_as_long_as_their_numbers(values):
    rows = [{"name": f"n{k}", "value": v, "control": False} for k, v in enumerate(values)]
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="16"', str(charts.bars(rows, "x")))]
    longest = max(abs(v) for v in values)
    for width, value in zip(widths, values, strict=True):
        if longest:
            assert width <= 480
            assert abs(width / max(widths) - abs(value) / longest) < 0.02 or width == 1


def test_nan_is_refused_by_name(model, people, faces):
    why = CAM(people)(faces)
    for name, part in (("cells", why.cells), ("scores", why.scores)):
        bad = replace(why, **{name: torch.full_like(part, torch.nan)})
        with pytest.raises(ValueError, match=rf"'why': expected finite numbers, got NaN or infinity in \.{name}"):
            report.build({"why": bad})
    with pytest.raises(ValueError, match="finite number"):
        report.build(why, threshold=float("nan"))


def test_images_are_those_of_the_result(people, faces):
    why = CAM(people)(faces)
    for images in (faces[:1], faces[:, :, :50], (faces * 255).byte(), faces * 255, faces - 1, [None, None]):
        with pytest.raises(ValueError, match=r"expected (images|pixels)"):
            report.build(report.Section(why, images=images))
    report.build(report.Section(why, images=[None, faces[1], None]))


def test_what_would_be_lost_is_refused(model, people, faces):
    heat = FrequencyHeatPlot(people, width=28.0)(faces)
    with pytest.raises(ValueError, match="take no measured"):
        report.build(report.Section(heat, ["deletion"]))
    with pytest.raises(ValueError, match="takes no names"):
        report.build(report.Section(group_findings(), names=["a"]))
    with pytest.raises(TypeError, match="no_op"):
        report.build(report.Section(edits(), ["junk"]))
    with pytest.raises(ValueError, match="heading '1'"):
        report.build({1: heat, "1": heat})


def test_the_no_op_control_stands_beside_a_counterfactual():
    found = edits()
    (section,) = report.build(report.Section(found, [edits(control=True)])).record["sections"]
    assert section["items"][0]["control"]["moved"] == pytest.approx(section["items"][0]["moved"])
    assert "No control without guidance" in report.build(found).html
    with pytest.raises(ValueError, match="control without guidance, got one with up to 15"):
        report.build(report.Section(found, [found]))
    control = edits(control=True)
    with pytest.raises(ValueError, match="about other images"):
        report.build(report.Section(found, [replace(control, images=control.images.flip(0))]))
    with pytest.raises(ValueError, match="of the 2 images, got one of 1"):
        report.build(report.Section(found, [control[:1]]))
    stranger = {**control.recipe, "denoiser": {"denoiser": "a", "fingerprint": "e" * 16}}
    with pytest.raises(ValueError, match="made with another denoiser"):
        report.build(report.Section(found, [replace(control, recipe=stranger)]))


def test_tables_hold_whatever_somebody_put_there():
    row = {
        "map": "a",
        "n": 3,
        "yes": True,
        "interval": (1.0, 2.5),
        "none": None,
        "odd": {},
        "list": [],
        "names": ["x", "y"],
    }
    page = report.build(metrics.Table((row, {"map": "b"}), {}, {})).html
    found = dict(re.findall(r'<th scope="row">(\w+)</th><td>(.*?)</td>', page))
    told = {name: re.sub("<.*?>", "", text) for name, text in found.items()}
    none = "\u2013"
    assert told == {
        "n": "3",
        "yes": "yes",
        "interval": "1 to 2.5",
        "none": none,
        "odd": "",
        "list": "",
        "names": "x, y",
    }


# ---- decisions and thresholds ---------------------------------------------------------------------------------------


def test_what_was_asked_about_is_not_what_was_decided(people, faces):
    logits = people.logits(faces)
    (section,) = report.build(CAM(people)(faces, targets="bo")).record["sections"]
    assert [item["asked"] for item in section["items"]] == ["bo"] * 3
    nearest = [people.names[k] for k in logits.argmax(1).tolist()]
    assert [item["nearest"] for item in section["items"]] == nearest
    # the score is bo's: beside another person's name it would be a wrong decision
    assert [item["decision"] for item in section["items"]] == [who if who == "bo" else None for who in nearest]


def test_one_photo_has_one_decision_whoever_is_asked_about(people, faces):
    every = {who: CAM(people)(faces[:1], targets=who) for who in people.names}
    for threshold in (None, 0.2):
        (row,) = report.build(every, threshold=threshold).record["decisions"]
        assert row["decision"] == people.names[int(people.logits(faces[:1]).argmax())]


def test_who_does_not_reach_the_threshold_is_nobody(people, faces):
    images = torch.stack([faces[0], faces[0].flip(0)])[1:]
    cosine = float(people.cosines(images).max())
    for limit, nobody in ((cosine - 1e-4, False), (cosine + 1e-4, True)):
        (row,) = report.build(CAM(people)(images), threshold=limit).record["decisions"]
        assert (row["score"], row["unit"]) == (pytest.approx(cosine, abs=1e-5), "cosine")  # what the threshold is about
        assert (row["decision"] == "nobody") == nobody
        assert row["threshold"] == limit


def test_the_threshold_that_is_told_is_the_one_that_decided(model, faces):
    low, high = (PairCAM(model, threshold=t)(faces[:1], faces[1:2]) for t in (0.2, 0.4))
    with pytest.raises(ValueError, match=r"decided with the threshold 0\.2, the report is given 0\.9"):
        report.build(low, threshold=0.9, threshold_source="EER")
    with pytest.raises(ValueError, match=r"decided with \[0\.2, 0\.4\]; leave it out"):
        report.build([low, high], threshold_source="EER")
    both = report.build([low, high]).record
    assert both["threshold"]["values"] == [0.2, 0.4]
    assert "decided with several: each decides about its own result" in both["threshold"]["note"]
    assert [row["threshold"] for row in both["decisions"]] == [0.2, 0.4]


def test_one_threshold_decides_about_everything(model, people, faces):
    pair = PairCAM(model)(faces[:1], faces[1:2])
    cosine = float(pair.scores[0])
    everybody = CorrRISE(model, count=10).against(people)(faces[:1])
    best = float(everybody.scores.max())
    made = report.build([pair, everybody], threshold=(cosine + best) / 2).record
    assert [row["decision"] for row in made["decisions"]] == [
        "match" if cosine > best else "no match",
        "nobody" if cosine > best else people.names[int(everybody.scores[0].argmax())],
    ]
    assert {row["threshold"] for row in made["decisions"]} == {(cosine + best) / 2}
    (silent,) = report.build(pair).record["sections"][0]["items"]
    assert (silent["decision"], silent["threshold"]) == (None, None)


def test_a_threshold_of_one_network_decides_nothing_about_another(model, people, faces):
    torch.manual_seed(7)
    stranger = FaceModel(shaken(FlatNet()), "arcface")
    asked = PairCAM(stranger, threshold=0.99)(faces[:1], faces[1:2])
    why = CAM(people)(faces[:1])
    rows = report.build([asked, why]).record["decisions"]
    assert [row["threshold"] for row in rows] == [0.99, None]
    assert rows[1]["decision"] == why.name(int(why.predicted[0]))
    with pytest.raises(ValueError, match="a threshold holds for one network, these decisions are of 2"):
        report.build([PairCAM(stranger)(faces[:1], faces[1:2]), why], threshold=0.5)
    report.build([PairCAM(model)(faces[:1], faces[1:2]), why], threshold=0.5)


def test_each_threshold_decides_about_its_own_network(model, people, faces):
    torch.manual_seed(7)
    stranger = FaceModel(shaken(FlatNet()), "arcface").gallery({n: torch.rand(1, 3, 112, 112) for n in "xyz"})
    pair = (faces[:1], faces[1:2])
    low, high = PairCAM(model, threshold=-1.0)(*pair), PairCAM(stranger.model, threshold=1.0)(*pair)
    made = report.build([low, high, CAM(people)(faces[1:]), CAM(stranger)(faces[1:])])
    assert made.record["threshold"]["values"] == [-1.0, 1.0]
    assert made.record["threshold"]["note"] == "each decides about results of its own network and no other"
    rows = made.record["decisions"]
    assert [row["threshold"] for row in rows] == [-1.0, 1.0, -1.0, -1.0, 1.0, 1.0]
    assert [row["decision"] == "nobody" for row in rows[2:]] == [False, False, True, True]
    prints = [model.fingerprint, stranger.model.fingerprint]
    assert [row["network"] for row in rows] == [*prints, *[one for one in prints for _ in range(2)]]
    assert made.html.count(f"<code>{prints[1]}</code></td>") == 3


def test_a_result_that_names_no_network_is_of_the_one_that_is_given(model, faces):
    known = PairCAM(model)(faces[:1], faces[1:2])
    unknown = replace(known, recipe={})
    with pytest.raises(ValueError, match=r"of 2 \(.*, one that is not told\)"):
        report.build([known, unknown], threshold=0.1)
    rows = report.build([known, unknown], threshold=0.1, model=model).record["decisions"]
    assert [row["threshold"] for row in rows] == [0.1, 0.1]


def test_a_threshold_that_decides_nothing_says_so(people, faces):
    why = CAM(people)(faces)
    of_logits = replace(why, recipe={k: v for k, v in why.recipe.items() if k != "scale"})
    told = report.build(of_logits, threshold=0.4)
    assert told.record["threshold"]["note"] == "no decision of this page rests on it"
    assert "no decision of this page rests on it" in told.html
    assert report.build(why, threshold=0.4).record["threshold"]["note"] == ""
    assert report.build(why, threshold=np.float32(0.5)).record["threshold"]["values"] == [0.5]


def test_people_of_another_gallery_are_not_counted(people, faces):
    others = people.model.gallery({"x": faces[:1], "y": faces[1:2]})
    assert report.build(CAM(people)(faces), model=people).record["networks"][0]["people"] == 3
    assert report.build([CAM(people)(faces), CAM(others)(faces)], model=people).record["networks"][0]["people"] is None


def test_tables_of_another_network_are_refused(people, faces):
    torch.manual_seed(8)
    stranger = FaceModel(shaken(FlatNet()), "arcface").gallery({n: faces[k : k + 1] for k, n in enumerate("xyz")})
    table = metrics.faithfulness({"CAM": CAM(stranger)}, stranger, faces, steps=0)
    with pytest.raises(ValueError, match="'Table' was made with a network of fingerprint"):
        report.build(table, model=people)
    report.build(table, model=stranger)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"measured": 3}, TypeError, "measured as a list, got int"),
        ({"measured": None}, TypeError, "measured as a list, got NoneType"),
        ({"names": (n for n in "abc")}, TypeError, "names as a list, got generator"),
        (
            {"images": np.zeros((3, 3, 8, 8))},
            TypeError,
            "images as a tensor, or a list of tensors and None, got ndarray",
        ),
        ({"images": [1, 2, 3]}, TypeError, "images as a tensor, or a list of tensors and None, got int"),
        ({"note": 3}, TypeError, "note as a sentence, got int"),
        ({"of": -1}, ValueError, "of as the number of all items, got -1"),
        ({"of": "7"}, ValueError, "of as the number of all items, got '7'"),
        ({"of": True}, ValueError, "of as the number of all items, got True"),
    ],
)
def test_what_no_section_can_hold(given, error, message):
    with pytest.raises(error, match=f"expected {message}"):
        report.Section(edits(), **given)


def test_what_no_report_can_be_made_with(people, faces):
    why = CAM(people)(faces)
    with pytest.raises(ValueError, match="of=1, but the result holds 3 items"):
        report.build(report.Section(why, of=1))
    with pytest.raises(TypeError, match="model as the FaceModel or Gallery that was explained, got str"):
        report.build(why, model="arcface")
    with pytest.raises(TypeError, match="threshold_source in words, got int"):
        report.build(why, threshold=0.4, threshold_source=3)
    with pytest.raises(TypeError, match=r"GallerySaliency, .* got int"):
        report.build(3)


def test_every_seed_behind_a_control_is_told(people, faces):
    why = CAM(people)(faces[:1])
    made = report.build(report.Section(why, [metrics.deletion(people, faces[:1], why, seed=77, fill="noise")]))
    assert [row["seed"] for row in made.record["seeds"]] == [77]
    (section,) = made.record["sections"]
    assert section["measured_by"][0]["fill"] == "noise"
    assert "how it was measured" in made.html
    drawn = metrics.deletion(people, faces[:1], why, seed=np.int64(78), fill="noise")
    assert [row["seed"] for row in report.build(report.Section(why, [drawn])).record["seeds"]] == [78]


def test_correspondences_are_told_cell_by_cell_however_many(model, faces):
    table = torch.rand(1, 40, 40, 40, 40, generator=torch.Generator().manual_seed(3))
    why = PairSaliency(table.sum((3, 4))[:, None].repeat(1, 2, 1, 1), (112, 112), torch.ones(1), table=table)
    (section,) = report.build(why).record["sections"]
    (item,) = section["items"]
    assert len(item["sides"][0]["view"]["cells"]) == 40
    assert len(item["matches"][0]) == 1600
    assert item["matches"][0][1599][0][0] == int(table[0, 39, 39].argmax())


def test_curves_that_explain_both_kinds_get_no_verdict(model, faces):
    pair = PairCAM(model)(faces[:2], faces[1:])
    protocol = metrics.Protocol(pairs="all", threshold=0.2, steps=3)
    auto = metrics.verification_deletion(model, faces[:2], faces[1:], pair, [True, False], protocol, part="auto")
    (section,) = report.build(report.Section(pair, [auto])).record["sections"]
    assert all("better" not in item["controls"][0]["sentence"] for item in section["items"])
    assert all("p" not in row for row in section["measured"][0]["rows"])


def test_every_explainer_has_limits():
    from facexai.report.caveats import limits

    methods = "CAM HiResCAM GradCAM GradCAMPlusPlus LayerCAM ScoreCAM SDD(CAM) FGGB XSSAB CorrRISE PairCAM"
    for method in [*methods.split(), "FrequencyHeatPlot", "FastDiME (fastdime)", "captum Saliency"]:
        assert limits({"method": method, "kind": "classes", "recipe": {}}), method
    run = {"explainers": {"a": {"method": "PairCAM"}, "b": {"method": "SDD(HiResCAM)"}}}
    table = {"method": "table", "kind": "table", "recipe": run, "rows": [{"map": "a", "deletion": 1.0}]}
    about = [one["about"] for one in limits(table)]
    assert about == ["HiResCAM", "SDD", "PairCAM", "deletion, retention, insertion", "tables"]
    wrapped = limits({"method": "SDD(captum Saliency)", "kind": "classes", "recipe": {}})
    assert [one["about"] for one in wrapped] == ["SDD", "captum"]
    (own,) = limits({"method": "my own method", "kind": "classes", "recipe": {}})
    assert "Nothing is known here" in own["limits"][0]
    heat = {"method": "FrequencyHeatPlot", "kind": "frequency"}
    exact, fast = (limits({**heat, "recipe": {}, "tried": tried})[0]["limits"] for tried in ("all", "some"))
    assert "estimated from gradients" not in " ".join(exact)
    assert "estimated from gradients" in " ".join(fast)


def test_a_magnitude_speaks_neither_for_nor_against(people, faces):
    why = CAM(people)(faces[:1])
    why = replace(why, cells=why.cells.abs(), recipe={**why.recipe, "unit": "magnitude", "method": "captum Saliency"})
    made = report.build(why, model=people)
    (item,) = made.record["sections"][0]["items"]
    assert "magnitude" in item["views"][0]["unit"]
    assert not any("speaks" in sentence for sentence in item["sentences"])
    assert "of what speaks against, %" not in made.html


def test_the_edits_numbers_are_about_what_they_say():
    found = edits()
    (section,) = report.build(found).record["sections"]
    for n, item in enumerate(section["items"]):
        change = (found.counterfactuals[n] - found.images[n]).abs()
        assert item["moved"] == pytest.approx(float(change.mean()), rel=1e-5)
        assert item["moved"] < float(change[:, found.masks[n]].mean()) / 10  # most of the picture stayed
        assert "Over the whole picture" in item["sentences"][0]


def test_bands_are_told_as_they_were_found(model, people, faces):
    for mode, how, verb in (
        ("exact", "each band of the second face was taken out", "the cosine (falls|rises) by"),
        ("preview", "nothing of the second face was taken out", "the cosine would (fall|rise) by about"),
        ("hybrid", "bands of the second face: the 2 of most energy", "the cosine would (fall|rise) by about"),
    ):
        chosen = {"exact_bands": 2} if mode == "hybrid" else {}
        heat = FrequencyHeatPlot(model, masked="second", width=6.0, mode=mode, **chosen)(faces[:1], faces[1:2])
        (section,) = report.build(heat).record["sections"]
        assert how in section["how"]
        assert re.search(f"without it {verb} ", section["items"][0]["sentences"][0])
    assert "of the photo" in report.build(FrequencyHeatPlot(people, width=28.0)(faces)).record["sections"][0]["how"]


def test_directions_of_bands_are_not_told_as_bands(model, faces):
    heat = FrequencyHeatPlot(model, width=14.0, sectors=4)(faces[:1], faces[1:2])
    made = report.build(heat)
    (section,) = made.record["sections"]
    assert section["how"].startswith("each direction of each band of the first face was taken out alone")
    assert (section["directions"], section["tried"]) == (4, "all")
    sentence = section["items"][0]["sentences"][0]
    assert re.search("the cosine (loses|gains) without its 4 directions, one at a time, adds up to", sentence)
    assert "without it the" not in sentence
    assert "without each band" not in made.html


def test_hybrid_that_took_out_everything_estimated_nothing(model, faces):
    pair = (faces[:1], faces[1:2])
    every, some = (FrequencyHeatPlot(model, width=14.0, mode="hybrid", exact_bands=n)(*pair) for n in (500, 2))
    exact = report.build(FrequencyHeatPlot(model, width=14.0)(*pair)).record
    told = report.build(every).record
    for name in ("how", "tried"):
        assert told["sections"][0][name] == exact["sections"][0][name]
    assert told["limits"] == exact["limits"]
    assert "estimated" in report.build(some).record["sections"][0]["how"]
    assert report.build(some).record["limits"] != exact["limits"]


def test_what_a_result_does_not_tell_is_said(model, people, faces):
    heat = FrequencyHeatPlot(model, width=28.0)(faces[:1], faces[1:2])
    record = report.build([replace(heat, recipe={}), replace(CAM(people)(faces), recipe={})]).record
    assert "does not tell whether bands of the pair were taken out or estimated" in record["sections"][0]["how"]
    (unnamed,) = (one for one in record["limits"] if one["about"] == "a method that is not named")
    assert "whoever made it" in unnamed["limits"][0]


@pytest.mark.parametrize("width", [1.0, 7.0, 30.0])
def test_shares_of_octaves_are_those_of_whole_bands(model, faces, width):
    heat = FrequencyHeatPlot(model, width=width)(faces[:1], faces[1:2])
    (section,) = report.build(heat).record["sections"]
    (item,) = section["items"]
    told = re.findall(r"(over|under)? ?([\d.]+) % at ([\d.]+) to ([\d.]+\d|\d)", item["sentences"][1])
    assert told
    total = sum(abs(band["influence"]) for band in item["bands"])
    for _, share, low, high in told:
        inside = [b for b in item["bands"] if b["low"] >= float(low) * 0.998 and b["high"] <= float(high) * 1.002]
        assert 100 * sum(abs(b["influence"]) for b in inside) / total == pytest.approx(float(share), abs=0.6)
    assert [low for *_, low, _ in told[1:]] == [high for *_, high in told[:-1]]
    assert float(told[0][2]) == 0
    assert float(told[-1][3]) == pytest.approx(item["bands"][-1]["high"], rel=2e-3)


def test_a_smoothed_drawing_says_so(model, faces):
    tiny = InputSpec(32)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.Flatten(), torch.nn.Linear(512, 16))
    why = CorrRISE(FaceModel(net, tiny), count=20)(faces[:1, :, :32, :32], faces[1:2, :, :32, :32])
    (section,) = report.build(why).record["sections"]
    assert [side["view"]["note"] for side in section["items"][0]["sides"]] == ["drawn smoothed"] * 2


def test_groups_say_where_their_threshold_is_from():
    found = group_findings()
    (section,) = report.build(found).record["sections"]
    assert section["rule"] == "rule eer over all groups"
    given = replace(found, recipe={**found.recipe, "rule": "0.3"})
    assert report.build(given).record["sections"][0]["rule"] == "given"


def test_an_even_map_has_no_region():
    masks = regions(InputSpec(112))
    assert sentences(shares(torch.ones(112, 112), masks), "what speaks for Ann") == [
        "Of what speaks for Ann, no region holds more than an even map would."
    ]
