"""Faces for the examples: drawn people, changed copies of two portraits, or a user's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from facexai import images
from facexai.demo import synthetic
from facexai.demo.portraits import COLLINS, HOPPER, jpeg, mirrored, relit
from facexai.images.files import people_folders
from facexai.input_spec import InputSpec

_MARGIN = 0.08  # of a drawing's side, on each side: face networks want faces that fill the picture


def cartoons(
    spec: InputSpec, count: int, each: int, *, seed: int = 0, glasses: Tensor | None = None
) -> dict[str, Tensor]:
    """Returns drawn people without masks; the same bits on every machine up to the resize.

    Face networks distinguish them, though not as well as real people: of 24 with four drawings each, dlib's network
    orders pairs of one and of two people with an area under the ROC curve of .91, FaceNet with .85. With glasses and
    masks put on at random it is .74 and .77.

    Args:
        spec: of the network that will see them.
        count: of people.
        each: drawings of each: another pose, light, expression and background.
        seed: of everything.
        glasses: (count,) bool, True for people who always wear glasses; None: no one does.

    Returns:
        {name: (each, 3, H, W)}, in [0, 1].

    >>> cartoons(InputSpec(112), 2, 3)["cartoon 1"].shape
    torch.Size([3, 3, 112, 112])
    """
    worn = torch.zeros(count, dtype=torch.bool) if glasses is None else glasses
    worn = worn.repeat_interleave(each)
    who = [number for number in range(count) for _ in range(each)]
    forced = {"glasses": worn, "mask": torch.zeros_like(worn)}
    height, width = spec.height_width
    side = min(max(height, width), 256)
    cut = round(_MARGIN * side)
    faces = synthetic.faces(len(who), size=side, seed=seed, people=who, attributes=forced).images
    faces = images.resize(faces[:, :, cut : side - cut, cut : side - cut], (height, width)).clamp(0, 1)
    return {f"cartoon {number}": part for number, part in enumerate(torch.split(faces, each))}


def portraits(spec: InputSpec, each: int = 4) -> dict[str, Tensor]:
    """Returns changed copies of two portraits, at most four of each: n = 2, an illustration, not an evaluation.

    Args:
        spec: of the network that will see them.
        each: the portrait, re-lit, mirrored and compressed, all of it.

    Returns:
        {name: (each, 3, H, W)}, in [0, 1].
    """
    result = {}
    for portrait in (COLLINS, HOPPER):
        face = images.align(portrait.load(), spec).image
        copies = torch.cat([face, relit(face), jpeg(mirrored(face)), jpeg(relit(mirrored(face)))])
        result[portrait.name] = copies[:each]
    return result


def people(folder: str | Path, spec: InputSpec, most: int, each: int) -> dict[str, Tensor]:
    """Returns the faces of a folder as the network's input.

    Args:
        folder: one sub-folder of photos per person.
        spec: which aligned photos follow; others are aligned.
        most: people at most, by name.
        each: photos of each person; people with fewer are left out.

    Returns:
        {name: (each, 3, H, W)}, in [0, 1].

    Raises:
        FileNotFoundError: no such folder.
        ValueError: fewer than two people with so many photos, or a photo without a face.
    """
    root = Path(folder)
    found: dict[str, Tensor] = {}
    for person, files in people_folders(root).items():
        photos = files[:each]
        if len(photos) == each and len(found) < most:
            faces = [images.fit_to_spec(images.load(path), spec, when="auto", face="largest").image for path in photos]
            found[person] = torch.cat(faces)
    if len(found) < 2:
        raise ValueError(f"{root}: expected two people with {each} photos or more, found {len(found)}")
    return found
