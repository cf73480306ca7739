"""Enrolling people: photos, embeddings or folders in, a gallery out, with a scale by convention or measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai._errors import warn
from facexai._progress import tqdm
from facexai.hooks import no_graph
from facexai.images import AlignMode, FaceChoice, fit_to_spec, load
from facexai.images.files import people_folders
from facexai.models.face_model import FaceModel
from facexai.models.gallery import Gallery

People = Mapping[str, Tensor | str | Path | Sequence[str | Path]] | Tensor | str | Path

FEWEST_FOR_CENTER = 10
_SCALES = (1.0, 1000.0)  # where a calibrated scale is looked for
_PERFECT = 1e-4  # a loss below this says that nothing was left to calibrate
_CONVENTION = 64.0
_MOST = 50_000_000  # scores that a scale is calibrated on


@final
@dataclass(frozen=True)
class PhotoOptions:
    """Options of reading photos of people; the fields are arguments of :meth:`FaceModel.gallery`."""

    align: AlignMode = "never"
    face: FaceChoice = "only"
    batch_size: int = 64
    progress: bool = False
    names: Sequence[str] | None = None


def enrol(
    model: FaceModel,
    people: People,
    *,
    scale: float | Literal["calibrated"],
    center: Literal["enrolled"] | Tensor | None,
    how: PhotoOptions,
) -> Gallery:
    """Builds a gallery; the arguments are those of :meth:`FaceModel.gallery`."""
    if isinstance(people, Tensor):
        return _of_weights(model, people, how.names, scale, center)
    if how.names is not None:
        raise ValueError("names= belongs to class weights; people enrolled from photos are named in {name: photos}")
    if isinstance(people, str | Path):
        people = folder_photos(Path(people))
    if not isinstance(people, Mapping) or not people:
        raise ValueError("expected at least one person: {name: images, embeddings or paths}, or a folder NAME/*.jpg")
    if isinstance(scale, str) and scale != "calibrated":
        raise ValueError(f"expected scale a number or 'calibrated', got {scale!r}")
    if len({str(name) for name in people}) < len(people):
        raise ValueError("two people have the same name once names are text; give each a name of their own")
    with no_graph():
        everyone = tqdm(people.items(), desc="enrol", unit="person", disable=not how.progress or None)
        rows = {str(name): _rows(model, str(name), given, how) for name, given in everyone}
        sizes = {name: row.shape[1] for name, row in rows.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"embeddings of different sizes: {sizes}; enrol everyone with the same model")
        means = torch.stack([row.mean(0) for row in rows.values()])
        origin = _center(means, center)
        if origin is not None:
            rows = {name: row - origin for name, row in rows.items()}
            means = means - origin
        if isinstance(scale, str):
            scale = calibrated(list(rows.values()))
    return Gallery(model, tuple(rows), F.normalize(means), float(scale), origin)


def _of_weights(
    model: FaceModel,
    weights: Tensor,
    names: Sequence[str] | None,
    scale: float | Literal["calibrated"],
    center: Literal["enrolled"] | Tensor | None,
) -> Gallery:
    """Returns the class weights of a trained head, (C, D) or (D, C), as a gallery."""
    if isinstance(scale, str):
        raise ValueError("scale='calibrated' needs photos; class weights have the scale that the head was trained with")
    if weights.ndim != 2 or not weights.is_floating_point() or not torch.isfinite(weights).all():
        raise ValueError(
            f"expected finite class weights (C, D) or (D, C), got {weights.dtype} of shape {tuple(weights.shape)}"
        )
    size = model.embed(model.noise(1)).shape[1]
    if size not in weights.shape:
        raise ValueError(f"expected class weights (C, {size}) or ({size}, C), got {tuple(weights.shape)}")
    if weights.shape[0] == weights.shape[1]:
        raise ValueError(
            f"class weights {tuple(weights.shape)} could be either way round; name the rows: "
            "gallery({name: row for name, row in zip(names, weights)})"
        )
    rows = (weights if weights.shape[1] == size else weights.T).detach().to(model.device)
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    if not rows.norm(dim=1).min() > 0:
        raise ValueError(f"class {int(rows.norm(dim=1).argmin())} has zero weights, so it has no direction")
    rows = F.normalize(rows)
    origin = _center(rows, center)
    rows = rows if origin is None else F.normalize(rows - origin)
    named = tuple(str(k) for k in range(len(rows))) if names is None else tuple(str(name) for name in names)
    if len(named) != len(rows):
        raise ValueError(f"{len(named)} names for {len(rows)} classes; give one name per class")
    return Gallery(model, named, rows, float(scale), origin)


def calibrated(people: Sequence[Tensor]) -> float:
    """Returns the scale of least leave-one-out negative log-likelihood on the enrolled photos.

    Each photo is scored against everyone's template, its own person's without it; people with one photo take part as
    rivals only. With very many people an even selection is used, so that the scores fit into 400 MB.

    Args:
        people: for each person the embeddings (n, D) of the photos, centred if the gallery is.

    Returns:
        The scale; with a warning the conventional 64 where the photos are separated perfectly or not at all.

    Raises:
        ValueError: fewer than two people, or no one with two photos.

    Source: temperature scaling (Guo et al. 2017, arXiv:1706.04599) on left-out enrolment photos; ours.
    """
    from scipy.optimize import minimize_scalar

    if len(people) < 2 or all(len(rows) < 2 for rows in people):
        raise ValueError("scale='calibrated' needs at least two people, and somebody with at least two photos")
    templates = F.normalize(torch.stack([rows.mean(0) for rows in people])).double()
    able = [k for k, rows in enumerate(people) if len(rows) > 1]
    photos = sum(len(people[k]) for k in able)
    able = able[:: max(1, round(photos * len(people) / _MOST))]
    tables = []  # a person's photos against everybody's templates
    for k in able:
        scores = F.normalize(people[k]).double() @ templates.T
        rest = F.normalize(people[k].sum(0, keepdim=True) - people[k]).double()
        scores[:, k] = (F.normalize(people[k]).double() * rest).sum(1)
        tables.append(scores)

    def loss(log_scale: float) -> float:
        scaled = ((math.exp(log_scale) * table, k) for k, table in zip(able, tables, strict=True))
        total = sum(float((table.logsumexp(1) - table[:, k]).sum()) for table, k in scaled)
        return total / sum(len(table) for table in tables)

    low, high = _SCALES
    result = math.exp(float(minimize_scalar(loss, bounds=(math.log(low), math.log(high)), method="bounded").x))
    separated, useless = loss(math.log(result)) < _PERFECT, result < 1.01 * low
    if not (separated or useless):
        return result
    why = "are separated perfectly, so any large scale fits" if separated else "do not tell people apart at any scale"
    warn(
        f"the left-out photos {why}; took the conventional {_CONVENTION:g}. Give scale= a number, or enrol more photos"
    )
    return _CONVENTION


def _center(rows: Tensor, center: Literal["enrolled"] | Tensor | None) -> Tensor | None:
    """Returns the vector (D,) to subtract from unit embeddings, for the people's mean embeddings (C, D)."""
    if center is None:
        return None
    if isinstance(center, Tensor):
        if center.shape != rows.shape[1:]:
            raise ValueError(f"expected center ({rows.shape[1]},), got {tuple(center.shape)}")
        return center.to(rows)
    if center != "enrolled":
        raise ValueError(f"expected center 'enrolled', a tensor (D,) or None, got {center!r}")
    if len(rows) < FEWEST_FOR_CENTER:
        raise ValueError(
            f"center='enrolled' needs at least {FEWEST_FOR_CENTER} people for a fair mean, got {len(rows)}"
        )
    return rows.mean(0)


def _rows(model: FaceModel, name: str, given: object, how: PhotoOptions) -> Tensor:
    """Returns a person's unit embeddings (n, D)."""
    if isinstance(given, str | Path):
        given = [given]
    if isinstance(given, Sequence) and not isinstance(given, Tensor):
        given = read_photos(model, name, given, align=how.align, face=how.face)
    if not isinstance(given, Tensor) or given.ndim not in (1, 2, 3, 4) or given.numel() == 0:
        what = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
        raise ValueError(
            f"{name!r}: expected images (n, 3, H, W), embeddings (n, D) or photo paths, at least one, got {what}"
        )
    if given.ndim >= 3:
        rows = model.embed(given if given.ndim == 4 else given[None], how.batch_size)
    else:
        if not given.is_floating_point() or not torch.isfinite(given).all():
            raise ValueError(f"{name!r}: expected finite floating-point embeddings")
        rows = F.normalize(given.detach().reshape(-1, given.shape[-1]).to(model.device))
    if not rows.mean(0).norm() > 1e-6:
        raise ValueError(f"{name!r}: the mean embedding is zero, so it has no direction")
    return rows


def read_photos(model: FaceModel, name: str, paths: Sequence[object], *, align: AlignMode, face: FaceChoice) -> Tensor:
    """Returns photos of one person prepared for the model: (n, 3, H, W) on its device."""
    if not paths or not all(isinstance(path, str | Path) for path in paths):
        raise ValueError(f"{name!r}: expected photo paths, at least one")
    photos = []
    for path in paths:
        try:
            photos.append(fit_to_spec(load(str(path)), model.spec, when=align, face=face).image)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return torch.cat(photos).to(model.device)


def folder_photos(folder: Path) -> dict[str, list[str | Path]]:
    """{person: photos} of a folder ``NAME/*.jpg``; people without photos are left out, with a warning."""
    found = people_folders(folder)
    empty = [name for name, files in found.items() if not files]
    people: dict[str, list[str | Path]] = {name: [*files] for name, files in found.items() if files}
    if not people:
        raise ValueError(f"{folder} holds no photos; expected NAME/*.jpg (or png, webp, bmp), one folder per person")
    if empty:
        warn(f"no photos of {', '.join(empty[:8])}: not enrolled")
    return people
