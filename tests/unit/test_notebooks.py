"""Every public answer shows itself in a notebook: escaped, for one as for many, and without matplotlib in words."""

from __future__ import annotations

import builtins
import re
import sys

import numpy as np
import pytest
import torch

import facexai
from facexai import FaceModel, HiResCAM, InputSpec, evaluate, images, metrics, models, perturb
from facexai import results as answers
from facexai._html import table
from facexai.demo import synthetic

EVIL = "<script>alert(1)</script>"
"""A name of a person, of a group, of a method."""


def gallery() -> facexai.Gallery:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(196, 8))
    return FaceModel(net, InputSpec(16)).gallery({EVIL: torch.rand(2, 3, 16, 16), "bo": torch.rand(2, 3, 16, 16)})


PEOPLE = gallery()
FACES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SHIFTED = FACES.roll(1, 0)
SAME = np.array([True, False] * 10)
SCORES = np.linspace(0, 1, 20)


def saliency(count: int = 3, rivals: int = 0) -> answers.Saliency:
    base = HiResCAM(PEOPLE, layer="0")
    faces = FACES[:count]
    return facexai.SDD(base, rivals=rivals)(faces, EVIL) if rivals else base(faces, EVIL)


def pairs(count: int) -> answers.PairSaliency:
    images = torch.rand(count, 2, 3, 8, 8)
    return answers.PairSaliency(
        torch.randn(count, 2, 4, 4), (8, 8), torch.rand(count), 0.5, {"method": EVIL}, images=images
    )


def everybody(count: int) -> answers.GallerySaliency:
    return answers.GallerySaliency(torch.randn(count, 2, 4, 4), (8, 8), torch.rand(count, 2), (EVIL, "bo"))


def heat(count: int) -> answers.FrequencyHeat:
    rows = torch.randn(count, 4)
    names = {"targets": torch.zeros(count, dtype=torch.int64), "names": (EVIL,)}
    return answers.FrequencyHeat(rows, torch.arange(5.0), rows.abs(), torch.rand(count), (8, 8), 0.7, **names)


def edited(count: int) -> answers.Counterfactual:
    faces, rows = torch.rand(count, 3, 8, 8), torch.rand(count)
    masks, path = torch.ones(count, 8, 8, dtype=torch.bool), torch.rand(count, 3)
    flipped, calls = torch.ones(count, dtype=torch.bool), torch.ones(count, dtype=torch.int64)
    return answers.Counterfactual(
        faces, faces.flip(-1), masks, rows, -rows, flipped, rows, calls, path, {"method": EVIL}
    )


def measured(count: int) -> metrics.Drop:
    return metrics.deletion(PEOPLE, FACES[:count], saliency(count))


def grouped() -> metrics.Bias:
    rows = answers.FrequencyHeat(
        torch.rand(8, 4), torch.arange(5.0), torch.rand(8, 4), torch.rand(8), (8, 8), 0.7, recipe={"mode": EVIL}
    )
    return metrics.bias(rows, [EVIL, "b"] * 4, same=[True] * 4 + [False] * 4, draws=9)


def audit() -> metrics.ShortcutAudit:
    return metrics.shortcut_audit(lambda x: x.mean((1, 2, 3)), FACES, 1 - FACES, no_op=FACES, labels=[0, 1, 0])


def pair_curve() -> metrics.PairCurve:
    values = np.stack([SAME[:, None] * np.ones(4), SCORES[:, None] * np.ones(4)], 2)
    return metrics.PairCurve.of(values, items=range(20), identities=None, recipe={"scheme": EVIL})


SHOWN = {
    "Saliency": lambda: saliency(),
    "Saliency, one": lambda: saliency(1),
    "Saliency, none": lambda: saliency()._first(0),
    "SDD": lambda: saliency(3, rivals=1),
    "PairSaliency": lambda: pairs(2),
    "PairSaliency, many": lambda: pairs(9),
    "PairSaliency, none": lambda: pairs(2)[:0],
    "GallerySaliency": lambda: everybody(2),
    "GallerySaliency, none": lambda: everybody(0),
    "FrequencyHeat": lambda: heat(2),
    "FrequencyHeat, none": lambda: heat(2)[:0],
    "Counterfactual": lambda: edited(2),
    "Counterfactual, none": lambda: edited(2)[:0],
    "Drop": lambda: measured(3),
    "Drop, one": lambda: measured(1),
    "Curve": lambda: metrics.insertion(PEOPLE, FACES, saliency(), steps=3),
    "PairCurve": pair_curve,
    "Table": lambda: metrics.faithfulness({EVIL: saliency()}, PEOPLE, FACES, steps=2),
    "Table, none": lambda: metrics.Table((), {}),
    "Narrowness": lambda: metrics.narrowness(saliency()),
    "Overlap": lambda: metrics.class_overlap(saliency(3, rivals=1)),
    "Bias": grouped,
    "Distance": lambda: grouped().distances[0],
    "Rates": lambda: grouped().rates[EVIL],
    "ShortcutAudit": audit,
    "Difference": lambda: audit().mad,
    "Auroc": lambda: audit().auroc,
    "Statistic": lambda: metrics.Statistic.of([1.0, 2.0]),
    "CounterfactualQuality": lambda: metrics.counterfactual(edited(2)),
    "Roc": lambda: metrics.roc(SCORES, SAME),
    "TenFold": lambda: metrics.ten_fold(
        np.tile([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], (10, 1)),
        [(3 * i, 3 * i + j) for i in range(10) for j in (1, 2)],
        [True, False] * 10,
        protocol="facenet",
    ),
    "Randomisation": lambda: metrics.randomisation(
        lambda c: HiResCAM(c, layer="0"), PEOPLE, FACES, torch.zeros(3, dtype=torch.int64)
    ),
    "Results": lambda: evaluate.Results(
        metrics.faithfulness({EVIL: saliency()}, PEOPLE, FACES, steps=0),
        {},
        {"counts": {"measured": 3, "items": 3, "unreadable": 0}, "unit": EVIL},
        {},
        ".",
    ),
    "Diagnosis": lambda: facexai.doctor(PEOPLE),
    "FaceModel": lambda: FaceModel.from_callable(lambda x: x.mean((2, 3)), InputSpec(8), name=EVIL),
    "Gallery": lambda: PEOPLE,
    "Acceleration": lambda: models.acceleration(PEOPLE.model, FACES),
    "ModeAgreement": lambda: facexai.FrequencyHeatPlot(PEOPLE.model, exact_bands=2).compare_modes(FACES, SHIFTED),
    "Pairs": lambda: metrics.Pairs((b"", b""), np.array([[0, 1]]), np.array([True])),
    "Swapped": lambda: perturb.patch_swap((torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))),
    "Aligned": lambda: images.Aligned(torch.rand(1, 3, 8, 8), np.eye(2, 3), (9, 9)),
    "DrawnFaces": lambda: synthetic.faces(2),
}
PICTURES = {
    "Saliency",
    "SDD",
    "PairSaliency",
    "GallerySaliency",
    "FrequencyHeat",
    "Counterfactual",
    "Drop",
    "Curve",
    "PairCurve",
    "Table",
    "Bias",
    "ShortcutAudit",
    "Roc",
    "Results",
    "Aligned",
    "DrawnFaces",
}


@pytest.mark.filterwarnings("ignore:a map of pair")
@pytest.mark.parametrize("name", SHOWN)
def test_it_shows_itself_and_escapes_names(name):
    shown = SHOWN[name]()._repr_html_()
    assert shown.startswith("<")
    assert "<script" not in shown
    assert re.search(r"\w", re.sub("<[^>]*>", "", shown)), "no words"
    kind, _, many = name.partition(", ")
    assert ("<img" in shown) == (kind in PICTURES and many != "none")


@pytest.mark.parametrize("name", SHOWN)
def test_without_matplotlib_there_are_words(name, monkeypatch):
    answer, real = SHOWN[name](), builtins.__import__

    def without(module, *rest):
        if module.split(".")[0] == "matplotlib":
            raise ImportError("no matplotlib")
        return real(module, *rest)

    for module in [module for module in sys.modules if module.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    shown = answer._repr_html_()
    assert "<script" not in shown
    assert re.search(r"\w", re.sub("<[^>]*>", "", shown))


def test_every_public_class_of_answers_is_in_the_list():
    kinds = {type(make()).__name__ for make in SHOWN.values()}
    modules = (facexai, answers, metrics, models, evaluate, images, perturb)
    public = {getattr(m, n) for m in modules for n in m.__all__ if isinstance(getattr(m, n), type)}
    shows = {kind.__name__ for kind in public if hasattr(kind, "_repr_html_")}
    assert shows <= kinds
    assert not {kind for kind in vars(answers).values() if isinstance(kind, type)} - {
        kind for kind in vars(answers).values() if hasattr(kind, "_repr_html_")
    }


def test_long_tables_are_cut_and_odd_cells_are_told():
    shown = table([{"a": k, "b": None, EVIL: (0.5, 1.0)} for k in range(500)], "all")
    assert shown.count("<tr>") == 101
    assert "the first 100 of 500 rows" in shown
    assert "0.5 to 1" in shown
    assert "<script" not in shown


def test_a_progress_bar_in_a_notebook_without_widgets_does_not_complain():
    import subprocess

    code = "import facexai._progress as p; [0 for _ in p.tqdm(range(2), disable=True)]"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_long_calls_show_how_far_they_are(capsys):
    metrics.deletion(PEOPLE, FACES, saliency(), progress=True)
    facexai.FGGB(PEOPLE.model, 0.5, progress=True).observe(FACES)
    assert {"measure", "FGGB"} <= set(re.findall(r"(\w+): ", capsys.readouterr().err))
    metrics.deletion(PEOPLE, FACES, saliency())
    facexai.FGGB(PEOPLE.model, 0.5).observe(FACES)
    assert capsys.readouterr().err == ""
