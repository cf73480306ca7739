"""Faces for the examples: a folder of yours, or changed copies of the two portraits of the demonstration."""

from __future__ import annotations

from pathlib import Path

import torch

from facexai import FaceModel, images
from facexai.demo.portraits import COLLINS, HOPPER, jpeg, mirrored, relit


def people(folder: Path | None, model: FaceModel, most: int, each: int) -> list[torch.Tensor]:
    """Faces (each, 3, H, W) of every person, as the network wants them.

    Args:
        folder: one sub-folder of photos per person; None: the portraits, which illustrate and evaluate nothing.
        model: whose input specification aligned photos follow.
        most: people at most.
        each: photos of each person; who has fewer is left out.
    """
    if folder is None:
        faces = [images.align(portrait.load(), model.spec).image for portrait in (COLLINS, HOPPER)]
        return [torch.cat([f, relit(f), jpeg(mirrored(f)), jpeg(relit(mirrored(f)))][:each]) for f in faces]
    found = []
    for person in sorted(p for p in folder.iterdir() if p.is_dir()):
        photos = images.photo_files(person)[:each]
        if len(photos) == each and len(found) < most:
            faces = [images.fitted(images.load(path), model.spec, when="auto", face="largest").image for path in photos]
            found.append(torch.cat(faces))
    return found
