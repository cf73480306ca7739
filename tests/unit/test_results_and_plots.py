"""What a result draws: raw values, escaped names, no global state."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from nets import FlatNet, shaken
from PIL import Image

from facexai import SDD, FaceModel, FaceXAIWarning, HiResCAM, Saliency, metrics

plots = pytest.importorskip("facexai.plots")
pytest.importorskip("matplotlib")


def saliency(n=2, rivals=3, **fields):
    extra = {}
    if rivals:
        extra = {
            "rivals": torch.arange(1, 1 + rivals).expand(n, -1),
            "rival_scores": torch.rand(n, rivals),
            "class_cells": torch.randn(n, 1 + rivals, 7, 7),
        }
    values = {
        "cells": torch.randn(n, 7, 7),
        "size": (28, 21),
        "targets": torch.zeros(n, dtype=torch.long),
        "scores": torch.ones(n),
        "names": ("<script>alert(1)</script>", "$x^2$", "c", "d"),
        "recipe": {"method": "SDD(CAM)", "layer": "l"},
        "images": torch.rand(n, 3, 28, 21),
    }
    return Saliency(**values | extra | fields)


def test_it_draws_a_readable_picture():
    why = saliency()
    for figure in (why.plot(), why.plot_rivals(), saliency(images=None).plot(), saliency(n=9, rivals=0).plot()):
        picture = Image.open(io.BytesIO(plots.png(figure)))
        low, high = picture.convert("L").getextrema()
        assert high - low > 200
    assert len(why.plot_rivals().axes) == 2 * 6 + 1


def test_a_long_title_stays_inside_of_a_narrow_figure():
    figure = plots.overlays(torch.rand(1, 8, 8), torch.rand(1, 3, 8, 8), ["ann"], label="a method at a layer " * 5)
    figure.draw_without_rendering()
    extent = figure._suptitle.get_window_extent()
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1


def test_a_notebook_gets_one_escaped_element():
    html = saliency()._repr_html_()
    assert html.startswith("<figure")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert 'src="data:image/png;base64,' in html
    assert saliency(rivals=0)._repr_html_() != html
    assert saliency().plot()._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-2.0, 1.0], ("RdBu_r", -2.0, 2.0)),
        ([0.0, 3.0], ("inferno", 0.0, 3.0)),
        ([1.0, 3.0], ("inferno", 0.0, 3.0)),
        ([-3.0, -1.0], ("inferno_r", -3.0, 0.0)),
        ([0.0, 0.0], ("inferno", 0.0, 1.0)),
        ([float("nan"), 2.0], ("inferno", 0.0, 2.0)),
    ],
)
def test_colours_keep_zero_and_raw_values(values, expected):
    how = plots.colours(torch.tensor(values))
    assert (how["cmap"], how["vmin"], how["vmax"]) == expected


def test_no_picture_is_half_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        plots.save(saliency().plot(), tmp_path / "no" / "a.png")
    plots.save(saliency().plot(), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_pyplot_is_not_touched():
    code = (
        "import sys, torch; from facexai import Saliency;"
        "Saliency(torch.rand(1,2,2),(8,8),torch.tensor([0]),torch.tensor([1.]))._repr_html_();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wrong_images_and_missing_rivals():
    with pytest.raises(ValueError, match="the 2 explained images"):
        saliency().plot(torch.rand(3, 3, 28, 21))
    with pytest.raises(ValueError, match="has no rivals"):
        saliency(rivals=0).plot_rivals()
    with pytest.raises(ValueError, match=r"cells \(N, h, w\)"):
        saliency(scores=torch.ones(5))


def test_shares_of_a_region():
    why = saliency(rivals=0)
    left = torch.zeros(28, 21, dtype=torch.bool)
    left[:, :10] = True
    torch.testing.assert_close(why.share(left) + why.share(~left), torch.ones(2))
    assert torch.equal(why.share(torch.zeros_like(left)), torch.zeros(2))
    with pytest.raises(ValueError, match="boolean mask"):
        why.share(left.float())


def test_the_repr_names_method_layer_and_targets():
    assert repr(saliency(names=("Ann", "b", "c", "d"))) == (
        "Saliency(SDD(CAM) at 'l', 2 images, 7x7 cells, targets: Ann, Ann)"
    )
    assert saliency(names=None).name(3) == "3"


def test_a_notebook_without_matplotlib_gets_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = saliency(names=("<b>", "b", "c", "d"))._repr_html_()
    assert shown.startswith("<pre>")
    assert "facexai[plot]" in shown
    assert "<b>" not in shown


def test_a_notebook_draws_a_few_of_many():
    assert "the first 8 are drawn" in saliency(n=9)._repr_html_()


def test_names_in_any_script_draw_without_a_warning():
    why = saliency(names=("\u5f20\u4f1f", "b", "c", "d"))
    assert plots.png(why.plot())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("shown", [True, False])
def test_numbers_of_colour_bars_are_inside_the_picture(count, shown):
    maps = torch.randn(count, 2, 30, 30, generator=torch.Generator().manual_seed(0)) * 0.2
    drawn = plots.pairs(maps, torch.rand(count, 2, 3, 30, 30) if shown else None, ["pair"] * count, label="cosine")
    drawn.canvas.draw()
    right = drawn.bbox.width
    axes = [one for part in drawn.subfigs for one in part.axes]
    assert len(axes) == count * (5 if shown else 3)
    for one in axes:
        assert one.get_tightbbox().x1 <= right + 1


def test_warnings_name_the_users_line():
    """However deep in the library they arise."""
    model = FaceModel(shaken(FlatNet()), "arcface")
    images = torch.rand(2, 3, 112, 112)
    people = model.gallery({"ann": images[:1], "bo": images[1:]})
    constant = torch.ones(2, 112, 112)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics.deletion(people, images, constant)  # the line that is named
        SDD(HiResCAM(people), rivals=1)(images)
    files = {Path(warning.filename).name for warning in caught if issubclass(warning.category, FaceXAIWarning)}
    assert files == {Path(__file__).name}
