"""Are maps of pairs true? Verification curves and pasted patches: every method against every control."""

from __future__ import annotations

import functools
import itertools
import json
import operator
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import arguments, data_set, faces, networks, people, report

from facexai import (
    FGGB,
    XSSAB,
    CorrRISE,
    FaceModel,
    FaceXAIWarning,
    HeadDoesNotFold,
    PairCAM,
    baselines,
    explain_pairs,
    io,
    metrics,
    perturb,
)
from facexai.metrics.pair_curves import measured
from facexai.metrics.pair_orders import COMMON
from facexai.metrics.pair_subject import pair_subject
from facexai.models import accelerate

QUESTIONS = {  # protocol and part of the map: the halves of the pairs that it is about
    ("fame", "similar"): ((True, "similar"), (False, "similar")),
    ("epfl-inferred", "similar"): ((True, "similar"),),
    ("epfl-inferred", "dissimilar"): ((False, "dissimilar"),),
}
ALIKE = 32  # faces that the faster copy of a network is verified on
SCHEMES = ("deletion", "insertion")
CONTROLS = ("random", "centre", "mean-map", "other-pair")
PATCHES = {"patch against": "dissimilar", "patch for": "similar"}
PATCH = {"size": 0.3, "shape": "ellipse", "soft": 0.02, "match_colour": True}
CAPTUM = {
    "captum IntegratedGradients": {"n_steps": 16},
    "captum Lime": {"n_samples": 200, "perturbations_per_eval": 20},
}
COLUMNS = [
    "network",
    "question",
    "map",
    "deletion",
    "deletion, 95 %",
    "deletion, centre",
    "deletion cosine",
    "deletion cosine, centre",
    "insertion",
    "insertion, 95 %",
    "insertion, centre",
    "insertion cosine",
    "insertion cosine, centre",
    "top share",
    "pointing",
    "average precision",
    "average precision, 95 %",
    "average precision, centre",
]


@dataclass
class Task:
    """Faces of one network, labelled pairs of them, and pairs with a pasted patch."""

    model: FaceModel
    images: torch.Tensor
    names: list[str]
    index: torch.Tensor  # (P, 2), genuine pairs first
    same: torch.Tensor
    threshold: float
    swapped: dict[str, perturb.PatchedPairs]
    firsts: dict[str, torch.Tensor]  # of each case, places of the images that got the patch
    seconds: dict[str, torch.Tensor]  # and of their partners

    def people(self, side: int) -> list[str]:
        """Who is in the first or the second photo of each pair."""
        return [self.names[i] for i in self.index[:, side].tolist()]


def chosen(photos: dict, pairs: int, most: int) -> tuple[list, list[str]]:
    """Photos and their people: as many people as have enough pairs of one person among ``most`` photos."""
    for each in range(2, most + 1):
        who = [name for name, paths in photos.items() if len(paths) >= each][: most // each]
        if len(who) * each * (each - 1) // 2 >= pairs and len(who) > 1:
            return [p for name in who for p in photos[name][:each]], [name for name in who for _ in range(each)]
    raise SystemExit(f"expected {pairs} pairs of one person among at most {most} photos; ask for fewer --pairs")


def labelled(names: list[str], pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(2 * pairs, 2) numbers of photos, and whether they show one person; seeded, each kind in the order of photos."""
    drawn = np.random.default_rng(0)
    every = list(itertools.combinations(range(len(names)), 2))
    kinds = [[p for p in every if (names[p[0]] == names[p[1]]) == same] for same in (True, False)]
    if min(len(kind) for kind in kinds) < pairs:
        raise SystemExit(f"expected {pairs} pairs of each kind, there are {[len(kind) for kind in kinds]}")
    rows = [[kind[i] for i in np.sort(drawn.choice(len(kind), pairs, replace=False))] for kind in kinds]
    return torch.tensor(rows[0] + rows[1]), torch.arange(2 * pairs) < pairs


def prepared(model: FaceModel, paths: list, names: list[str], pairs: int, swaps: int) -> Task:
    """Everything that is the same for all methods."""
    images = faces(paths, model)
    model = accelerate(model, images[:ALIKE])
    index, same = labelled(names, pairs)
    units = model.embed(images).double()  # as decisions are made
    limit = metrics.threshold((units[index[:, 0]] * units[index[:, 1]]).sum(1), same, "eer")
    drawn = np.random.default_rng(1)
    swapped, firsts, seconds = {}, {}, {}
    for case, kind in (("patch against", same), ("patch for", ~same)):
        rows = index[kind]
        rows = rows[np.sort(drawn.choice(len(rows), min(swaps, len(rows)), replace=False))]
        donors = []
        for first, second in rows.tolist():  # somebody else; or another photo of the partner
            if case == "patch against":
                fit = [i for i, name in enumerate(names) if name != names[first]]
            else:
                fit = [i for i, name in enumerate(names) if name == names[second] and i != second]
            donors.append(int(drawn.choice(fit)))
        pair = images[rows[:, 0]], images[rows[:, 1]]
        swapped[case] = perturb.patch_swap(pair, images[donors], seed=len(swapped), **PATCH)
        firsts[case], seconds[case] = rows[:, 0], rows[:, 1]
    return Task(model, images, names, index, same, limit, swapped, firsts, seconds)


def facts_of(task: Task) -> dict[str, Any]:
    """What the network does on these pairs, and what a patch does to the cosine."""
    units = task.model.embed(task.images)
    scores = (units[task.index[:, 0]] * units[task.index[:, 1]]).sum(1)
    curve = metrics.roc(scores, task.same)
    found = {"threshold": task.threshold, "EER": curve.eer, "AUC": curve.auc, "photos": len(task.images)}
    for case, made in task.swapped.items():
        partner = units[task.seconds[case]]
        before, after = ((rows * partner).sum(1) for rows in (units[task.firsts[case]], task.model.embed(made.first)))
        found[case] = {
            "pairs": len(made),
            "region": float(made.masks.double().mean()),
            "mean cosine before": float(before.mean()),
            "mean cosine after": float(after.mean()),
            "moved as expected": float(((after < before) == (case == "patch against")).double().mean()),
        }
    return found


def methods(task: Task, options: Any) -> dict[str, Any]:
    """Name -> pair explainer; captum's by name alone."""
    model, limit = task.model, task.threshold
    ours = {"FGGB": FGGB(model, limit, half=True), "xSSAB": XSSAB(model, limit)}
    for masks in ("patches", "grid"):
        ours[f"CorrRISE {masks}"] = CorrRISE(model, masks, options.masks, threshold=limit)
    ours["PairCAM"] = PairCAM(model, threshold=limit, table=False)
    if options.fine:
        ours["PairCAM, finer layer"] = PairCAM(model, model.layer("auto"), threshold=limit, table=False)
    if options.captum:
        ours |= dict.fromkeys(CAPTUM)
    return {name: made for name, made in ours.items() if not options.only or name in options.only}


def explained(task: Task, name: str, explainer: Any) -> dict[str, torch.Tensor]:
    """Signed maps (P, 2, H, W) of the labelled pairs and of those with a patch; every face is observed once."""
    images, pairs, sizes = [task.images], task.index.tolist(), {"pairs": len(task.index)}
    for case, made in task.swapped.items():
        start = sum(len(part) for part in images)
        images.append(made.first)
        pairs += [[start + k, second] for k, second in enumerate(task.seconds[case].tolist())]
        sizes[case] = len(made)
    pool = torch.cat(images)
    if explainer is None:
        maps = captum_maps(task.model, name, pool, pairs)
    else:
        told = explain_pairs(explainer, pool, [tuple(pair) for pair in pairs], progress=True)
        maps = torch.cat([why.maps.float().clone() for why in told])
    return dict(zip(sizes, torch.split(maps, list(sizes.values())), strict=True))


def captum_maps(model: FaceModel, name: str, images: torch.Tensor, pairs: list) -> torch.Tensor:
    """captum's attribution of the cosine to the probe, against a gallery of nobody but the partner; zeros for it."""
    units, found = model.embed(images), []
    for first, second in pairs:
        gallery = model.gallery({"partner": units[second][None]}, scale=1.0)
        why = baselines.captum(name.split()[1], gallery, **CAPTUM[name])(images[first][None])
        found.append(torch.stack([why.maps[0], torch.zeros_like(why.maps[0])]))
    return torch.stack(found)


def between(interval: tuple[float, float] | None, digits: int) -> str | None:
    """An interval in words; None where people are too few for one."""
    return None if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def halves(task: Task) -> dict[tuple[bool, str], Any]:
    """Subject of the genuine and of the impostor pairs by part of the map, at the threshold of all of them.

    Curves over one half are measured once and added where a protocol is about all pairs: both presets differ in nothing
    but the pairs that they are about.
    """
    how, found = metrics.Protocol(threshold=task.threshold), {}
    for same, part in dict.fromkeys(half for parts in QUESTIONS.values() for half in parts):
        rows = (task.same == same).nonzero()[:, 0]
        pair = (task.images[task.index[rows, side]] for side in (0, 1))
        who, other = ([task.people(side)[i] for i in rows.tolist()] for side in (0, 1))
        found[same, part] = pair_subject(
            task.model, *pair, task.same[rows], how, part, identities=who, partners=other, items=rows.tolist()
        )
    return found


def curves(subjects: dict, maps: torch.Tensor, same: torch.Tensor, common: dict) -> dict[str, dict[str, Any]]:
    """Question -> scheme -> curve; controls that are the same for all methods are measured once."""
    measured_once = {}
    for (kind, part), subject in subjects.items():
        for scheme in SCHEMES:
            key = kind, part, scheme
            made = measured(subject, scheme, maps[same == kind], CONTROLS, known=common.get(key))
            common[key] = {name: made.controls[name] for name in COMMON}
            measured_once[key] = made
    return {
        f"{protocol}, {part}": {
            scheme: functools.reduce(operator.add, [measured_once[(*half, scheme)] for half in parts])
            for scheme in SCHEMES
        }
        for (protocol, part), parts in QUESTIONS.items()
    }


def curve_row(made: dict[str, Any], part: str) -> dict[str, Any]:
    """Areas, intervals, controls and tests."""
    row: dict[str, Any] = {}
    for scheme, curve in made.items():
        row |= {scheme: curve.auc, f"{scheme}, 95 %": between(curve.interval, 1)}
        for control, other in curve.controls.items():
            compared = {scheme: (curve.area, other.area), f"{scheme} cosine": (curve.cosine_area, other.cosine_area)}
            for name, (mine, theirs) in compared.items():
                less = (scheme == "deletion") == (name == scheme or part == "similar")
                p = mine.p_value(theirs)
                row |= {f"{name}, {control}": theirs.mean, f"{name}, p {control}": p}
                better = mine.mean < theirs.mean if less else mine.mean > theirs.mean
                row[f"{name} beats {control}"] = None if p is None else bool(better and p < 0.05)
        row |= {f"{scheme} cosine": curve.cosine_area.mean, f"{scheme}, accuracy": curve.accuracy.tolist()}
        row[f"{scheme}, cosine"] = curve.cosine.tolist()
    return row


def patch_row(task: Task, case: str, maps: torch.Tensor) -> dict[str, Any]:
    """Localisation of the patch in the first image, with the controls."""
    directed = (maps[:, 0] * (1 if PATCHES[case] == "similar" else -1)).clamp(min=0)
    who = [task.names[i] for i in task.firsts[case].tolist()]
    partners = [task.names[i] for i in task.seconds[case].tolist()]
    made = metrics.localisation({"own": directed}, task.swapped[case].masks, identities=who, partners=partners)
    own, row = made.rows[0], {}
    for column in made.panels:
        row |= {column: own[column], f"{column}, 95 %": between(own[f"{column} interval"], 3)}
        for other in made.rows[1:]:
            control = other["map"].removesuffix(" of own").removesuffix(" prior")
            row[f"{column}, {control}"] = other[column]
    beaten = {name.removeprefix("beats "): value for name, value in own.items() if name.startswith("beats ")}
    return row | {f"average precision beats {control}": value for control, value in beaten.items()}


def sentences(rows: list[dict], facts: dict) -> list[str]:
    """Which methods beat the centre prior, and which do not."""
    said = []
    for network, fact in facts.items():
        cosines = {
            case: "from {mean cosine before:.2f} to {mean cosine after:.2f} ({moved as expected:.0%} that way)".format(
                **fact[case]
            )
            for case in PATCHES
        }
        said.append(
            f"{network}: threshold {fact['threshold']:.3f} at equal error rate {100 * fact['EER']:.1f} %, AUC "
            f"{fact['AUC']:.4f}, {fact['photos']} photos. Another person's patch moves the mean cosine of genuine "
            f"pairs {cosines['patch against']}, the partner's patch that of impostor pairs {cosines['patch for']}."
        )
        measures = [f"{scheme}{what}" for scheme in SCHEMES for what in ("", " cosine")]
        asked = [(f"{protocol}, {part}", measure) for protocol, part in QUESTIONS for measure in measures]
        asked += [(case, "average precision") for case in PATCHES]
        for question, measure in asked:
            mine = [r for r in rows if (r["network"], r["question"]) == (network, question)]
            levels = {row[name] for row in mine for name in (measure, f"{measure}, centre")}
            if len(levels) == 1:
                said.append(
                    f"{network}, {question}, {measure}: {levels.pop():.4g} for every map and for the centre prior."
                )
                continue
            kinds = {True: [], False: []}
            for row in mine:
                kinds[bool(row[f"{measure} beats centre"])].append(row["map"])
            yes, no = (", ".join(kind) if kind else "nobody" for kind in (kinds[True], kinds[False]))
            said.append(f"{network}, {question}, {measure}: beat the centre prior (p < .05): {yes}; do not: {no}.")
    return said


def settings_of(options: Any) -> dict[str, Any]:
    """What a row depends on besides the network and the method."""
    made = {name: getattr(options, name) for name in ("pairs", "photos", "swaps", "masks")}
    return {**made, "patch": PATCH, "captum": CAPTUM, "faces": data_set(options.faces)["sha256"]}


def kept_rows(options: Any, settings: dict[str, Any]) -> list[dict]:
    """Rows of an earlier run with the same settings."""
    if options.json is None or not options.json.is_file():
        return []
    content = json.loads(options.json.read_text())
    if content.get("settings") != json.loads(json.dumps(settings)):
        raise SystemExit(f"{options.json.name} holds rows with other settings; choose another --json")
    return content["rows"]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of each kind; default: 200")
    parser.add_argument("--photos", type=int, default=150, help="most photos that they are made of; default: 150")
    parser.add_argument("--swaps", type=int, default=50, help="pairs of each kind that get a patch; default: 50")
    parser.add_argument("--masks", type=int, default=500, help="masks of CorrRISE; default: 500")
    parser.add_argument("--fine", action="store_true", help="PairCAM also at the layer of layer='auto'")
    parser.add_argument("--captum", action="store_true", help="LIME and integrated gradients too")
    parser.add_argument("--only", action="append", metavar="METHOD", help="measure this method; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    settings = settings_of(options)
    rows, facts = kept_rows(options, settings), {}
    paths, names = chosen(people(options.faces), options.pairs, options.photos)
    for network, model in networks(options).items():
        rows = [r for r in rows if r["network"] != network or r["fingerprint"] == model.fingerprint]
        task = prepared(model, paths, names, options.pairs, options.swaps)
        facts[network], subjects, common = facts_of(task), halves(task), {}
        done = {r["map"] for r in rows if r["network"] == network}
        for name, explainer in methods(task, options).items():
            if name in done:
                print(f"{network}, {name}: measured already", flush=True)
                continue
            start = time.perf_counter()
            try:
                maps = explained(task, name, explainer)
            except HeadDoesNotFold as error:
                print(f"{network}, {name}: left out, {error}", flush=True)
                continue
            head = {"network": network, "map": name, "fingerprint": model.fingerprint}
            head["seconds for maps"] = time.perf_counter() - start
            found = curves(subjects, maps["pairs"], task.same, common)
            new = [{**head, "question": key, **curve_row(made, key.split(", ")[1])} for key, made in found.items()]
            new += [{**head, "question": case, **patch_row(task, case, maps[case])} for case in PATCHES]
            rows += new
            for row in new:
                print({column: row[column] for column in COLUMNS if column in row}, flush=True)
            if options.json is not None:
                io.write_json(options.json, json.loads(json.dumps({"settings": settings, "rows": rows})))
    asked = [f"{protocol}, {part}" for protocol, part in QUESTIONS] + list(PATCHES)
    rows.sort(key=lambda row: (row["network"], asked.index(row["question"])))
    rows = [{**dict.fromkeys(COLUMNS), **row} for row in rows]
    known = {name: fact for name, fact in facts.items() if any(r["network"] == name for r in rows)}
    said = sentences(rows, known)
    report(options, rows, "scipy", "captum", columns=COLUMNS, sentences=said, facts=known, settings=settings)


if __name__ == "__main__":
    main()
