"""Everything that runs a network, on a small one, by name: explainers, metrics, galleries and what looks at a model."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nets import GapNet, shaken
from rows import CLASSES, PAIRS, small
from torch import nn

from facexai import (
    SDD,
    FaceModel,
    FaceXAIWarning,
    FastDiME,
    FrequencyHeatPlot,
    HiResCAM,
    InputSpec,
    PairCAM,
    ScoreCAM,
    baselines,
    decisions,
    denoisers,
    doctor,
    explain_pairs,
    load,
    metrics,
)
from facexai.functional.diffusion import linear_alphas
from facexai.models import acceleration

SIZE, EMBEDDING, ALPHAS = 56, 10, linear_alphas(30)
TARGETS = [1, 3]
WIDTH = {"width": 8, "masked": "both"}


def network(*, training: bool = False) -> nn.Module:
    """A network of seven cells with batch norms and in-place operations; as a user may have it, or in eval mode."""
    torch.manual_seed(1)
    net = shaken(GapNet(EMBEDDING))
    if training:  # half in train mode, some weights frozen, gradients lying around, a hook of the user's
        net.block.train()
        net.conv.weight.requires_grad_(False)
        net.fc.weight.grad = torch.ones_like(net.fc.weight)
        net.register_forward_hook(lambda *_: None)
    return net


def faces(count: int = 2, seed: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def gaussian(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact estimate of the noise for images around grey."""
    left = ALPHAS[t].to(x)[:, None, None, None]
    return (1 - left).sqrt() * x / (left * 0.25 + 1 - left)


Calls = dict[str, Callable[[], Any]]


def calls(net: nn.Module, spec: InputSpec | None = None) -> Calls:
    """What the user may do with this network, each a call without arguments whose answer is always the same."""
    model = FaceModel(net, spec or InputSpec(SIZE))
    rows = torch.randn(5, EMBEDDING, generator=torch.Generator().manual_seed(2))
    people = model.gallery({f"p{i}": row for i, row in enumerate(rows)})
    images, pair = faces(), (faces(1, 4), faces(1, 5))
    return explaining(model, people, images, pair) | measuring(model, people, images, pair) | looking(model, images)


def explaining(model: FaceModel, people: Any, images: Any, pair: Any) -> Calls:
    one = linear_edit(people)
    explainers = {
        row.cls if row.about == ("classes",) else f"{row.cls} of classes": small(row, people, "block")
        for row in CLASSES
    }
    explainers |= {
        "ScoreCAM, keep": ScoreCAM(people, layer="block", keep=4),
        "SDD": SDD(HiResCAM(people, layer="block"), rivals=2),
    }
    pairs = {row.cls: small(row, model, "block") for row in PAIRS} | {
        "PairCAM, block": PairCAM(model, layer="block", table=False),
        "FrequencyHeatPlot": FrequencyHeatPlot(model, **WIDTH),
        "FrequencyHeatPlot, hybrid": FrequencyHeatPlot(model, **WIDTH, mode="hybrid", exact_bands=2),
    }
    made: Calls = {name: partial(explainer, images, TARGETS) for name, explainer in explainers.items()}
    made |= {name: partial(explainer, *pair) for name, explainer in pairs.items()}
    made["FastDiME"] = lambda: dataclasses.replace(one(images), seconds=0.0)
    made["explain_pairs"] = lambda: list(
        explain_pairs(pairs["CorrRISE"], images, [(0, 1), (1, 0)], memory=0, batch_size=1)
    )
    made["captum"] = lambda: baselines.captum("Lime", people, n_samples=8)(images, TARGETS)
    return made


def linear_edit(people: Any) -> FastDiME:
    few = {"respacing": 12, "start": 4, "warmup": 2, "scales": (2.0,)}
    return FastDiME(decisions.of_class(people, 1, 3), denoisers.from_callable(gaussian, ALPHAS), **few)


def measuring(model: FaceModel, people: Any, images: Any, pair: Any) -> Calls:
    maps = torch.rand(2, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    sides = torch.rand(2, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    both, decision = (images, images.flip(0) * 0.9), decisions.of_class(people, 1, 3)
    edited = dataclasses.make_dataclass("Edited", ["images", "counterfactuals", "masks", "before", "after"])
    result = edited(images, images * 0.5, torch.ones(2, SIZE, SIZE, dtype=torch.bool), torch.ones(2), -torch.ones(2))
    few, paircam, asked = metrics.Protocol(steps=2), PairCAM(model), (model, *both, sides, [True, False])
    cam, targets = HiResCAM(people, layer="block"), torch.tensor(TARGETS)
    classes = {"deletion": {}, "retention": {}, "prediction_change": {}}
    classes |= {"deletion_curve": {"steps": 3}, "insertion": {"steps": 3}}
    made: Calls = {
        name: partial(getattr(metrics, name), people, images, maps, **more) for name, more in classes.items()
    }
    return made | {
        "faithfulness": lambda: metrics.faithfulness({"cam": cam}, people, images, steps=2),
        "verification_deletion": lambda: metrics.verification_deletion(*asked, few, controls=("random",)),
        "verification_insertion": lambda: metrics.verification_insertion(*asked, few, controls=("centre",)),
        "pair_faithfulness": lambda: metrics.pair_faithfulness({"maps": paircam}, model, *both, [True, False], few),
        "randomisation": lambda: metrics.randomisation(lambda c: HiResCAM(c, layer="block"), people, images, targets),
        "stability": lambda: metrics.stability(cam, images, targets, draws=1),
        "counterfactual": lambda: metrics.counterfactual(result, embedder=model, held_out=decision, steps=3),
        "mad": lambda: metrics.mad(people, images, images.flip(0), 1),
        "shortcut_audit": lambda: metrics.shortcut_audit(decision, images, images * 0.5),
    }


def looking(model: FaceModel, images: Any) -> Calls:
    """Each time with a FaceModel that has not looked at its network yet."""

    def fresh() -> FaceModel:
        return FaceModel(model.net, model.spec)

    return {
        "embed": lambda: model.embed(images),
        "gallery": lambda: fresh().gallery({"ann": images[:1], "bo": images[1:]}).templates,
        "structure": lambda: sorted(fresh().layers.items()),
        "doctor": lambda: str(doctor(fresh())),
        "acceleration": lambda: acceleration(fresh(), batch_size=2).folded,
    }


def keeping(net: nn.Module, folder: Path) -> Calls:
    """What is done with results: saved, loaded, drawn."""
    found = calls(net)
    saliency, pair, heat, edit = (found[name]() for name in ("CAM", "FGGB", "FrequencyHeatPlot", "FastDiME"))
    made: Calls = {}
    for name, why in (("saliency", saliency), ("pair", pair), ("frequency", heat), ("counterfactual", edit)):
        file = folder / f"{name}.npz"
        why.save(file)
        made[f"save {name}"] = partial(why.save, file)
        made[f"load {name}"] = partial(load, file)
        made[f"plot {name}"] = why.plot
        made[f"_repr_html_ {name}"] = why._repr_html_
    return made


def quietly(call: Callable[[], Any]) -> Any:
    """The answer without the library's warnings about so small a network; for one thread at a time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FaceXAIWarning)
        return call()


def leaves(answer: Any) -> list[Any]:
    """Tensors, arrays and plain values of an answer, to be compared bit for bit."""
    if dataclasses.is_dataclass(answer):
        return [leaf for part in dataclasses.fields(answer) for leaf in leaves(getattr(answer, part.name))]
    if isinstance(answer, dict):
        return [leaf for key in sorted(answer, key=str) for leaf in (key, *leaves(answer[key]))]
    if isinstance(answer, list | tuple):
        return [leaf for part in answer for leaf in leaves(part)]
    if hasattr(answer, "tobytes"):
        return [answer.tobytes()]
    return [answer]


def equal(a: Any, b: Any) -> bool:
    one, other = leaves(a), leaves(b)
    return len(one) == len(other) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y or (x != x and y != y)
        for x, y in zip(one, other, strict=True)
    )
