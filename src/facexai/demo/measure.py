"""The measurements of the demonstration: distances, maps, and shares inside a region with known truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from facexai import zoo
from facexai.demo.edits import question
from facexai.demo.portraits import CHANGES, COLLINS, HOPPER, eye_region, jpeg, pasted, relit
from facexai.explainers import SDD, CorrRISE, FrequencyHeatPlot, HiResCAM, ScoreCAM
from facexai.explainers._class_maps import Explainer
from facexai.images import Aligned, align
from facexai.models import FaceModel, Gallery
from facexai.results import Counterfactual, FrequencyHeat, PairSaliency, Saliency

PEOPLE = (COLLINS, HOPPER)
_MASKS = 200  # of CorrRISE
_EDITED = 4  # drawn faces that lose their glasses
LIMIT = 0.6
"""dlib's own rule: the same person if the descriptors are closer than this."""


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """Numbers for the JSON, and data for the figures."""

    numbers: dict[str, Any]
    photos: list[Tensor]
    aligned: list[Aligned]
    own: Saliency
    blend: Tensor
    towards: list[Saliency]
    pastes: Tensor
    region: Tensor
    paste_maps: list[Saliency]
    pairs: PairSaliency
    heat: FrequencyHeat
    edits: Counterfactual


def descriptors(model: FaceModel, images: Tensor) -> Tensor:
    """Returns dlib's own descriptors, (N, 128), not centred and not scaled."""
    with torch.no_grad():
        return model.outputs(images)


def _to_each(rows: Tensor, enrolled: Tensor) -> list[dict[str, float]]:
    distances = torch.cdist(rows.double(), enrolled.double())
    return [{p.name: round(float(d), 4) for p, d in zip(PEOPLE, row, strict=True)} for row in distances]


def measure() -> Measured:
    """Computes everything that the demonstration shows."""
    model = zoo.load("dlib-resnet29")
    plain = FaceModel(model.net, "dlib")  # dlib's own descriptor, to which the limit of 0.6 applies
    photos = [person.load() for person in PEOPLE]
    aligned = [align(photo, model.spec) for photo in photos]
    faces = [a.image for a in aligned]
    people = model.gallery({p.name: face for p, face in zip(PEOPLE, faces, strict=True)})
    enrolled = descriptors(plain, torch.cat(faces))

    probes = torch.cat([change(face) for face in faces for change in CHANGES.values()])
    changed = iter(_to_each(descriptors(plain, probes), enrolled))
    blend = (faces[0] + faces[1]) / 2
    steps = torch.linspace(0, 1, 41)
    slide = torch.cat([(1 - s) * faces[0] + s * faces[1] for s in steps])
    slid = _to_each(descriptors(plain, slide), enrolled)
    both = [max(row.values()) < LIMIT for row in slid]
    numbers: dict[str, Any] = {
        "model": repr(model),
        "limit": LIMIT,
        "people": {p.name: {"file": p.file, "sha256": p.sha256, "rights": p.rights} for p in PEOPLE},
        "distance_between_the_two": _to_each(enrolled[:1], enrolled)[0][PEOPLE[1].name],
        "changed_copies": {p.name: {name: next(changed) for name in CHANGES} for p in PEOPLE},
        "blend": _to_each(descriptors(plain, blend), enrolled)[0],
        "slide": [{"share_of_second": round(float(s), 4), **row} for s, row in zip(steps, slid, strict=True)],
        "share_of_the_slide_accepted_as_both": round(sum(both) / len(both), 4),
    }
    own = HiResCAM(people)(torch.cat([jpeg(relit(face)) for face in faces]), [p.name for p in PEOPLE])
    towards = _towards(people, blend)
    pastes, region, maps = _known_truth(people, plain, faces, enrolled, numbers)
    partners = [jpeg(relit(faces[0])), blend, faces[1]]
    pairs = _pairs(model, faces[0], partners, numbers)
    heat = _heat(model, faces[0], partners, numbers)
    bespectacled, edit = question(_EDITED)
    edited = edit(bespectacled)
    numbers["counterfactuals"] = {
        "drawn_faces_with_glasses": len(edited),
        "without_glasses_to_the_classifier": int(edited.flipped.sum()),
        "free_to_change": round(float(edited.masks.float().mean()), 4),
    }
    return Measured(numbers, photos, aligned, own, blend, towards, pastes, region, maps, pairs, heat, edited)


def _pairs(model: FaceModel, face: Tensor, partners: list[Tensor], numbers: dict[str, Any]) -> PairSaliency:
    """Compares one face with a copy of it, the blend and the other person; each image is observed once."""
    first, second = (p.name for p in PEOPLE)
    explainer = CorrRISE(model, count=_MASKS)
    seen = explainer.observe(torch.cat([face, *partners]))
    why: PairSaliency = explainer.answer(seen[:1], seen[1:])
    names = (f"a re-lit JPEG copy of {first}", "the 50/50 blend", second)
    numbers["pairs"] = [
        {"first": first, "second": name, "cosine": round(float(score), 4)}
        for name, score in zip(names, why.scores, strict=True)
    ]
    both = torch.stack([face.expand(len(partners), -1, -1, -1), torch.cat(partners)], 1)
    return replace(why, images=both)


def _heat(model: FaceModel, face: Tensor, partners: list[Tensor], numbers: dict[str, Any]) -> FrequencyHeat:
    """Explains the same pairs by frequency bands."""
    explainer = FrequencyHeatPlot(model, masked="both")
    seen = explainer.observe(torch.cat([face, *partners]))
    heat = explainer.answer(seen[:1], seen[1:])
    for row, influence in zip(numbers["pairs"], heat.influence, strict=True):
        k = int(influence.abs().argmax())
        row["strongest_band"] = {
            "cycles_per_face": [round(float(edge), 2) for edge in heat.face_edges[k : k + 2]],
            "influence": round(float(influence[k]), 4),
        }
    return replace(heat, images=torch.stack([face.expand(len(partners), -1, -1, -1), torch.cat(partners)], 1))


def _towards(people: Gallery, image: Tensor) -> list[Saliency]:
    """Returns the maps of HiResCAM, SDD and Score-CAM for each person."""
    twice = image.expand(2, -1, -1, -1)
    base = HiResCAM(people)
    evidence = base.observe(twice)
    names = list(people.names)
    asked = ScoreCAM(people)
    return [base.answer(evidence, names), SDD(base, rivals=1).answer(evidence, names), asked(twice, names)]


def _known_truth(
    people: Gallery, plain: FaceModel, faces: list[Tensor], enrolled: Tensor, numbers: dict[str, Any]
) -> tuple[Tensor, Tensor, list[Saliency]]:
    """Measures the share of each map on pasted eyes of the other person, with and without the paste."""
    region = eye_region(people.model.spec)
    copies = [jpeg(relit(face)) for face in faces]
    pastes = torch.cat([pasted(copies[1 - donor], copies[donor], region) for donor in (0, 1)])
    hosts = torch.cat([copies[1], copies[0]])
    distances = _to_each(descriptors(plain, pastes), enrolled)
    before = _to_each(descriptors(plain, hosts), enrolled)
    donors = list(people.names)
    base = HiResCAM(people)
    seen, unseen = base.observe(pastes), base.observe(hosts)
    methods: dict[str, Explainer] = {"HiResCAM": base, "SDD": SDD(base, rivals=1)}
    maps = [method.answer(seen, donors) for method in methods.values()]
    controls = [method.answer(unseen, donors) for method in methods.values()]
    numbers["layer"] = seen.layer
    numbers["eye_region_share_of_picture"] = round(float(region.float().mean()), 4)
    numbers["pasted_eyes"] = [
        {
            "eyes_of": donors[i],
            "face_of": donors[1 - i],
            "distance": distances[i],
            "distance_before": before[i],
            "share_inside": {
                name: {
                    f"towards {donors[i]}": round(float(maps[m].share(region)[i]), 4),
                    "same map without the paste": round(float(controls[m].share(region)[i]), 4),
                }
                for m, name in enumerate(methods)
            },
        }
        for i in (0, 1)
    ]
    return pastes, region, maps
