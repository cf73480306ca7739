"""The calls that golden.py records: every explainer and every public metric on one network, with fixed choices.

    PYTHONPATH=SRC python benchmarks/golden_calls.py --src SRC --out FOLDER [--faces DIR] [--network FILE:FUNCTION]

The same file runs on an old and on a new tree. It therefore imports no other benchmark than golden.py, and takes every
public name through :func:`golden.api`, which knows what the name becomes later.
"""

from __future__ import annotations

import argparse
import dataclasses
import runpy
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from types import FunctionType
from typing import Any

import golden
import torch
from golden import api
from torch import Tensor

Calls = dict[str, Callable[[], Any]]
LAZY = (FunctionType, type(cache(len)))  # arguments that are computed when the call is made

ZOO = ("dlib-resnet29", "facenet-casia")
PEOPLE, PHOTOS, PROBES = 6, 4, 3
CHUNK, BATCH = 8, 4  # images per pass of explainers and of metrics; fixed, since they change the last bits
COUNT, WIDTH = 8, 16.0  # masks of CorrRISE, width of a band
MOST_DIMENSIONS = 256  # FGGB takes one gradient per embedding dimension: wider networks leave most of them out
MOST_LAYERS = 100  # randomisation makes one map per layer: deeper networks leave it out


def later(name: str, *given: Any, **more: Any) -> Callable[[], Any]:
    """Returns a call of a public function, whose arguments may be functions that compute them."""

    def value(argument: Any) -> Any:
        return argument() if isinstance(argument, LAZY) else argument

    return lambda: api(name)(*map(value, given), **{key: value(option) for key, option in more.items()})


# ---- photos -------------------------------------------------------------------------------------------------------


def portraits(spec: Any) -> dict[str, Tensor]:
    """Returns people made of the two portraits in the public domain: blends, mirrored, with noise and other light."""
    align = api("images.align")
    one, other = (align(api(f"demo.portraits.{name}").load(), spec).image for name in ("COLLINS", "HOPPER"))
    faces = {"Collins": one, "Hopper": other, "blend": 0.6 * one + 0.4 * other, "second blend": 0.3 * one + 0.7 * other}
    faces |= {"Collins upside down": one.flip(-2), "Hopper upside down": other.flip(-2)}
    generator, light = torch.Generator().manual_seed(0), torch.tensor([1.0, 1.0, 0.85, 1.1])[:, None, None, None]
    people = {}
    for name, face in faces.items():
        photos = torch.cat([face, face, face.flip(-1), face.flip(-1)])
        noise = torch.randn(photos.shape, generator=generator) * 0.03
        people[name] = ((photos + noise) * light).clamp(0, 1)
    return people


def from_folder(folder: Path, spec: Any) -> dict[str, Tensor]:
    """Returns photos NAME/*.jpg of 160x160 whose centre 112x112 is the ArcFace template, cut for the network."""
    left, top, right, bottom = (round(side) + 24 for side in spec.crop)
    people: dict[str, Tensor] = {}
    for person in sorted(folder.iterdir()):
        files = sorted(person.glob("*.jpg"))[:PHOTOS]
        if len(files) == PHOTOS and len(people) < PEOPLE:
            photos = api("images.load")(files)
            people[person.name] = api("images.resize")(photos[:, :, top:bottom, left:right], spec.height_width)
    if len(people) < PEOPLE:
        raise SystemExit(f"expected {PEOPLE} people with {PHOTOS} photos each in {folder}, got {len(people)}")
    return people


class Faces:
    """Holds a network and its photos {person: (4, 3, H, W)}: two to enrol and two probes of each person."""

    def __init__(self, model: Any, photos: dict[str, Tensor]) -> None:
        self.model, self.photos, self.names = model, photos, list(photos)
        self.people = model.gallery({name: rows[:2] for name, rows in photos.items()}, scale="calibrated")
        self.first, self.second = (torch.stack([rows[k] for rows in photos.values()]) for k in (2, 3))
        self.probes, self.identities = self.first[:PROBES], self.names[:PROBES]
        self.pairs = torch.cat([self.first[:2]] * 2), torch.cat([self.second[:2], self.second[:2].flip(0)])
        self.same = [True, True, False, False]
        self.thin = next(iter(model.layers))  # the first layer with a map; few channels make ScoreCAM cheap
        self.dimensions = int(model.embed(self.probes[:1]).shape[1])
        self.saliency = cache(lambda: api("HiResCAM")(self.people)(self.probes))
        self.maps = lambda: self.saliency().maps
        self.pair_maps = cache(lambda: api("CorrRISE")(model, count=COUNT, chunk=CHUNK)(*self.pairs))


# ---- explainers ---------------------------------------------------------------------------------------------------


def basics(f: Faces) -> Calls:
    """Returns the calls that the others depend on: photos, embeddings, templates, logits."""
    return {
        "photos": lambda: f.photos,
        "FaceModel.embed": lambda: f.model.embed(f.first),
        "Gallery": lambda: {"templates": f.people.templates, "scale": float(f.people.scale)},
        "Gallery.logits": lambda: f.people.logits(f.probes),
    }


def class_maps(f: Faces) -> Calls:
    """Returns the calls of every explainer of classes."""
    x, others = f.probes, f.names[1 : PROBES + 1]

    def make(name: str, **more: Any) -> Any:
        return api(name)(f.people, **more)

    def score(**more: Any) -> Any:
        return make("ScoreCAM", layer=f.thin, chunk=CHUNK, **more)

    def rise(**more: Any) -> Any:
        return make("CorrRISE of classes", count=COUNT, chunk=CHUNK, **more)

    names, explainers = ["CAM", "HiResCAM", "GradCAM", "GradCAMPlusPlus", "LayerCAM"], api("explainers")
    for name in sorted(set(explainers.__all__) - {*names, "ScoreCAM"}):  # explainers of classes that are added later
        if "classifier" in getattr(getattr(explainers, name), "__dataclass_fields__", ()):
            names.append(name)
    calls: Calls = {name: lambda name=name: make(name)(x) for name in names}
    calls |= {f"{name}, named": lambda name=name: make(name)(x, others) for name in names[:2]}
    for w in ("probability", "softmax-probability", "softmax-logit"):
        calls[f"ScoreCAM, {w}"] = lambda w=w: score(weights=w)(x[:1], others[:1])
    return calls | {
        "HiResCAM, relu": lambda: make("HiResCAM", relu=True)(x),
        "HiResCAM, cosine": lambda: make("HiResCAM", similarity="cosine")(x),
        "ScoreCAM, keep": lambda: score(keep=6)(x),
        "ScoreCAM, as torchcam": lambda: score(convention="torchcam", keep=6)(x),
        "SDD over HiResCAM": lambda: api("SDD")(make("HiResCAM"))(x),
        "SDD over CAM, kl, two rivals": lambda: api("SDD")(make("CAM"), rivals=2, divergence="kl")(x),
        "SDD over GradCAM, exp, named": lambda: api("SDD")(make("GradCAM"), rivals=f.names[4:], amplify="exp")(x),
        "SDD over LayerCAM, plain": lambda: api("SDD")(make("LayerCAM"), scale="none", amplify="none", relu=True)(x),
        "SDD over ScoreCAM, power 5": lambda: api("SDD")(score(keep=6), power=5.0)(x),
        "SDD over CorrRISE": lambda: api("SDD")(rise(), rivals=2)(x[:1]),
        "CorrRISE of classes, patches": lambda: rise()(x[:2]),
        "CorrRISE of classes, grid, margin": lambda: rise(masks="grid", score="margin")(x[:2], others[:2]),
        "captum Saliency": lambda: api("baselines.captum")("Saliency", f.people)(x),
    }


def pair_maps(f: Faces) -> Calls:
    """Returns the calls of every explainer of pairs."""
    first, second = f.pairs
    pair = (first[:1], second[:1])

    def make(name: str, *given: Any, **more: Any) -> Any:
        return api(name)(f.model, *given, **more)

    def fggb(**more: Any) -> Any:
        return make("FGGB", 0.3, chunk=CHUNK, **more)

    def rise(*given: Any, **more: Any) -> Any:
        return make("CorrRISE", *given, count=COUNT, chunk=CHUNK, **more)

    def many(explainer: Any) -> list[Any]:
        return list(api("explain_pairs")(explainer, f.first, [(0, 1), (2, 1)], memory=0, batch_size=2))

    few = {"tolerance": 0.9} if f.dimensions > MOST_DIMENSIONS else {}
    calls: Calls = {f"FGGB, {d}": lambda d=d: fggb(differentiate=d, **few)(*pair) for d in ("unit", "raw")}
    if not few:
        calls["FGGB, tolerance"] = lambda: fggb(tolerance=0.7)(*pair)
        calls["FGGB, half, against"] = lambda: fggb(half=True).against(f.people)(pair[0])
    return calls | {
        "XSSAB": lambda: make("XSSAB", 0.3)(first, second),
        "XSSAB, against": lambda: make("XSSAB", 0.3).against(f.people)(pair[0]),
        "CorrRISE, patches": f.pair_maps,
        "CorrRISE, grid": lambda: rise("grid", threshold=0.3)(*pair),
        "CorrRISE, against": lambda: rise().against(f.people)(pair[0]),
        "PairCAM, head": lambda: make("PairCAM", threshold=0.3)(first, second),
        "PairCAM, head, against": lambda: make("PairCAM").against(f.people)(first),
        "PairCAM, finer layer": lambda: make("PairCAM", layer=f.model.layer("auto"), table=False)(first, second),
        "explain_pairs": lambda: many(rise()),
        "explain_pairs, XSSAB": lambda: many(make("XSSAB", 0.3)),
    }


def frequencies(f: Faces) -> Calls:
    """Returns frequency heat plots of pairs and of classes, in every mode."""
    first, second = (images[1:3] for images in f.pairs)  # a genuine and an impostor pair
    few: dict[str, Any] = {"width": WIDTH, "chunk": CHUNK, "exact_bands": 2}

    def plot(**more: Any) -> Any:
        return api("FrequencyHeatPlot")(f.model, **{**few, **more})

    def pair(**more: Any) -> Any:
        return plot(**more)(first, second)

    calls: Calls = {}
    for mode in ("exact", "hybrid", "preview"):
        classes = later("FrequencyHeatPlot of classes", f.people, mode=mode, **few)
        calls[f"FrequencyHeatPlot of classes, {mode}"] = lambda classes=classes: classes()(f.probes[:2])
        for side in ("first", "both"):
            calls[f"FrequencyHeatPlot, {mode}, {side}"] = partial(pair, mode=mode, masked=side)
    sectors = {"masked": "second", "limit": "circle", "keep_dc": True, "sectors": 2, "width": 30.0}
    return calls | {
        "FrequencyHeatPlot, sectors, circle, second": lambda: plot(**sectors)(first[:1], second[:1]),
        "FrequencyHeatPlot.compare_modes": lambda: plot().compare_modes(first[:1], second[:1]),
    }


def edits(f: Faces) -> Calls:
    """Returns calls of FastDiME on the decisions of this network, and of the metrics of its edits."""
    x, darker = f.probes[:2], f.probes[:2] * 0.6
    person = later("decisions.of_class", f.people, f.names[0])
    same = later("decisions.verification", f.model, f.second[:1], 0.4)

    def edited(decision: Any) -> Any:
        few = {"respacing": 12, "start": 4, "warmup": 2, "scales": (2.0,), "batch_size": 2}
        alphas = api("functional.diffusion.linear_alphas")(30)
        denoiser = api("denoisers.from_callable")(lambda images, _: images * 0.3, alphas)
        return api("FastDiME")(decision, denoiser, **few)(x)

    more = {"embedder": f.model, "held_out": same, "decision": person, "steps": 2, "batch_size": BATCH}
    return {
        "FastDiME, of a person": lambda: edited(person()),
        "FastDiME, of a pair": lambda: edited(same()),
        "counterfactual": later("metrics.counterfactual", lambda: edited(person()), **more),
        "cout": later("metrics.cout", person, x, darker, steps=2, batch_size=BATCH),
        "mad": later("metrics.mad", f.people, x, darker, 1, batch_size=BATCH),
        "mad, decision": later("metrics.mad", person, x, darker, batch_size=BATCH),
        "shortcut_audit": later("metrics.shortcut_audit", person, x, darker, batch_size=BATCH),
    }


def drawn_calls() -> Calls:
    """Returns the variants of FastDiME with the classifier and the denoiser of drawn faces, and its metrics."""

    def edited(**more: Any) -> Any:
        faces, explainer = api("demo.edits.question")(2)
        few = {"respacing": 20, "start": 5, "warmup": 2, "scales": (8.0, 15.0), "batch_size": 2}
        return dataclasses.replace(explainer, **{**few, **more})(faces)

    def decision(name: str) -> Any:
        return api("decisions.binary")(api("demo.drawn_networks.classifier")(name))

    def audit() -> Any:
        edit, control = edited(), edited(scales=(0.0,)).counterfactuals
        return api("metrics.shortcut_audit")(decision("smile_100"), edit.images, edit.counterfactuals, no_op=control)

    variants = ("fastdime", "fastdime-2", "fastdime-2+", "unmasked", "dime")
    return {f"FastDiME, {name}": lambda name=name: edited(variant=name) for name in variants} | {
        "FastDiME, gradient mask": lambda: edited(mask="gradient", gradient_at="current", l1_on="x0", rescaled=True),
        "counterfactual": lambda: api("metrics.counterfactual")(edited(), held_out=decision("smile")),
        "shortcut_audit": audit,
    }


# ---- metrics ------------------------------------------------------------------------------------------------------


def class_metrics(f: Faces) -> Calls:
    """Returns the calls of metrics of class maps."""
    classes, options = (f.people, f.probes), {"identities": f.identities, "batch_size": BATCH}
    single, hires = torch.tensor([1]), later("HiResCAM", f.people)
    sdd = later("SDD", hires, rivals=2)

    def parts() -> Any:
        drops = []
        for items in ([0], [1, 2]):
            few = {"items": items, "identities": [f.identities[i] for i in items]}
            drops.append(api("metrics.deletion")(f.people, f.probes[items], f.maps()[items], **few))
        return drops[0] + drops[1]

    drops = ("deletion", "retention", "prediction_change")
    calls = {name: later(f"metrics.{name}", *classes, f.saliency, **options) for name in drops}
    for name in ("deletion_curve", "insertion"):
        calls[name] = later(f"metrics.{name}", *classes, f.saliency, steps=2, **options)
    calls["deletion, noise"] = later("metrics.deletion", *classes, f.maps, 0.1, "noise")
    if len(f.model.layers) <= MOST_LAYERS:
        calls["randomisation"] = later("metrics.randomisation", lambda: api("HiResCAM"), f.people, f.probes[:1], single)
    methods = cache(lambda: {"HiResCAM": hires(), "SDD": sdd()})
    return calls | {
        "deletion, two parts": parts,
        "faithfulness": later("metrics.faithfulness", methods, f.people, f.probes[:2], steps=0),
        "stability": later("metrics.stability", hires, f.probes[1:2], single, draws=1),
        "narrowness": later("metrics.narrowness", f.saliency, identities=f.identities),
        "class_overlap": later("metrics.class_overlap", lambda: sdd()(f.probes)),
        "mean_map": later("metrics.mean_map", f.maps),
        "others": later("metrics.other_identity_index", 4, ["ann", "ann", "bo", "ann"]),
    }


def pair_metrics(f: Faces) -> Calls:
    """Returns the calls of metrics of pair maps, and of localisation."""
    pairs, options = (f.model, *f.pairs), {"identities": ["ann", "bo"] * 2, "batch_size": BATCH}
    masks = torch.zeros(PROBES, *f.model.spec.height_width, dtype=torch.bool)
    height, width = masks.shape[1:]
    masks[:, height // 4 : height // 2, width // 5 : width - width // 5] = True  # the eyes of an aligned face

    def curve(name: str, part: str = "similar", **choices: Any) -> Callable[[], Any]:
        protocol = later("metrics.Protocol", steps=2, **choices)
        return later(f"metrics.{name}", *pairs, f.pair_maps, f.same, protocol, part, **options)

    def methods() -> dict[str, Any]:
        return {"CorrRISE": f.pair_maps(), "flipped": f.pair_maps().maps.flip(0)}

    def patch() -> Any:
        swapped = api("perturb.patch_swap")(f.pairs, f.first[2:])
        return {"swapped": swapped, "table": api("metrics.localisation")({"map": f.pair_maps()}, swapped.masks)}

    few = later("metrics.Protocol", steps=2)
    hard = {"perturb": "both", "fill": "blur", "rank": "blurred", "pairs": "genuine"}
    return {
        "verification_deletion": curve("verification_deletion"),
        "verification_deletion, blurred, auto": curve("verification_deletion", "auto", **hard),
        "verification_insertion": curve("verification_insertion"),
        "pair_faithfulness": later("metrics.pair_faithfulness", methods, *pairs, f.same, few, **options),
        "localisation": later(
            "metrics.localisation", lambda: {"HiResCAM": f.maps(), "flipped": f.maps().flip(0)}, masks
        ),
        "localisation of a patch": patch,
        "top_share": later("metrics.top_share", f.maps, masks),
        "pointing": later("metrics.pointing", f.maps, masks, 5.0),
        "average_precision": later("metrics.average_precision", f.maps, masks, identities=f.identities),
    }


def verification(f: Faces) -> Calls:
    """Returns the calls of metrics of scores, embeddings and groups."""
    index = list(combinations(range(2 * PEOPLE), 2))
    same = [i // 2 == j // 2 for i, j in index]

    @cache
    def rows() -> Tensor:
        return torch.nn.functional.normalize(f.model.embed(torch.stack([f.first, f.second], 1).flatten(0, 1)))

    def scores() -> Tensor:
        return torch.stack([rows()[i] @ rows()[j] for i, j in index])

    def roc() -> Any:
        curve = api("metrics.roc")(scores(), same)
        return {"curve": curve, "tar": curve.tar_at(0.1), "threshold": curve.threshold_at(0.1)}

    def heat() -> Any:
        first, second = torch.cat([f.first] * 2), torch.cat([f.second, f.second.roll(1, 0)])
        return api("FrequencyHeatPlot")(f.model, width=40.0, chunk=CHUNK)(first, second)

    def listed() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b", "c"):
                api("images.save")(f.first[0], Path(folder) / f"{name}.png")
            (Path(folder) / "pairs.csv").write_text("a.png,b.png,1\na.png,c.png,0\n")
            return api("metrics.read_pairs")(Path(folder) / "pairs.csv")

    def bias_of_pairs() -> Any:
        compare, plot = api("metrics.pair_bias"), api("FrequencyHeatPlot")(f.model, width=40.0, chunk=CHUNK)
        faces, people = torch.cat([f.first, f.second]), ["a", "a", "a", "b", "b", "b"] * 2
        pairs = [(i, j) for i in range(len(people)) for j in range(len(people)) if i != j]
        return compare(plot, plot.observe(faces), pairs, people, identities=f.names * 2, draws=99)

    groups = {"same": [True] * PEOPLE + [False] * PEOPLE, "identities": f.names * 2, "draws": 99}
    return {f"threshold, {r}": later("metrics.threshold", scores, same, r) for r in ("eer", "far=0.1", "accuracy")} | {
        "auc": later("metrics.auc", scores, same),
        "roc": roc,
        "ten_fold, insightface": lambda: api("metrics.ten_fold")(rows(), index, same, flipped=rows().flip(1)),
        "ten_fold, facenet": later("metrics.ten_fold", rows, index, same, protocol="facenet"),
        "bias": later("metrics.bias", heat, ["a", "a", "a", "b", "b", "b"] * 2, **groups),
        "pair_bias": bias_of_pairs,
        "pair_groups": later("metrics.pair_groups", ["a", "a", "b"], [(0, 1), (1, 2)]),
        "rank_correlation": later("metrics.rank_correlation", range(7), [1.0, 0.5, 2.0, 4.0, 3.0, 6.0, 5.0]),
        "read_pairs": listed,
    }


# ---- recording ----------------------------------------------------------------------------------------------------


def network_calls(f: Faces) -> Calls:
    """Returns everything that is recorded of one network."""
    kinds = (basics, class_maps, pair_maps, frequencies, edits, class_metrics, pair_metrics, verification)
    return {name: call for kind in kinds for name, call in kind(f).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--src", "--out", "--faces"):
        parser.add_argument(name, type=Path, required=name != "--faces")
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--only")
    options = parser.parse_args()
    golden.check_origin(options.src)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    recording = golden.recorded("drawn faces", drawn_calls(), options.only)
    for name in options.network or ZOO:
        file, _, function = name.rpartition(":")
        model = runpy.run_path(file)[function]() if options.network else api("zoo.load")(name)
        photos = portraits(model.spec) if options.faces is None else from_folder(options.faces, model.spec)
        recording |= golden.recorded(function, network_calls(Faces(model, photos)), options.only)
    public, seconds = golden.public_names(), time.perf_counter() - start
    uncovered = [] if options.only else sorted(set(public) - golden.USED)
    golden.write(options.out, recording, public=public, uncovered=uncovered, seconds=round(seconds, 1))


if __name__ == "__main__":
    main()
