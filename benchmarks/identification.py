"""Does the network recognise people as published? Verification over all pairs, and 1:N identification."""

from __future__ import annotations

import torch
from common import arguments, faces, networks, people, report

from facexai import FaceModel
from facexai.functional import auc


def measure(name: str, model: FaceModel, photos: dict) -> dict:
    """One row: AUC over all pairs, and rank-1 with every second photo enrolled."""
    rows = {person: model.embed(faces(paths, model)) for person, paths in photos.items()}
    everyone = torch.cat(list(rows.values()))
    person = torch.cat([torch.full((len(r),), i) for i, r in enumerate(rows.values())])
    upper = torch.ones(len(everyone), len(everyone)).triu(1).bool()
    scores, same = (everyone @ everyone.T)[upper].numpy(), (person[:, None] == person[None])[upper].numpy()
    gallery = model.gallery({p: r[::2] for p, r in rows.items()})
    probes = torch.cat([r[1::2] for r in rows.values()])
    truth = torch.cat([torch.full((len(r[1::2]),), i) for i, r in enumerate(rows.values())])
    right = (probes @ gallery.templates.T).argmax(1) == truth
    return {
        "network": name,
        "pairs": len(scores),
        "AUC": auc(scores, same),
        "probes": len(truth),
        "rank-1": float(right.double().mean()),
        "fingerprint": model.fingerprint,
    }


def dlib_rule(model: FaceModel, photos: dict) -> dict:
    """dlib's own rule on its own descriptor: the same person if the L2 distance is below 0.6."""
    plain = FaceModel(model.net, model.spec)
    with torch.no_grad():
        rows = [torch.cat([plain.outputs(part) for part in faces(p, model).split(64)]) for p in photos.values()]
    everyone = torch.cat(rows).double()
    person = torch.cat([torch.full((len(r),), i) for i, r in enumerate(rows)])
    upper = torch.ones(len(everyone), len(everyone)).triu(1).bool()
    distance, same = torch.cdist(everyone, everyone)[upper], (person[:, None] == person[None])[upper]
    return {
        "network": "dlib, not centred, L2",
        "pairs": len(distance),
        "AUC": auc(-distance, same),
        "accuracy at 0.6": float(((distance < 0.6) == same).double().mean()),
    }


def main() -> None:
    options = arguments(__doc__).parse_args()
    torch.set_num_threads(options.threads)
    photos = people(options.faces)
    rows = []
    for name, model in networks(options).items():
        rows.append(measure(name, model, photos))
        if "dlib" in name:
            rows.append(dlib_rule(model, photos))
    columns = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: row.get(key) for key in columns} for row in rows]
    report(options, rows)


if __name__ == "__main__":
    main()
