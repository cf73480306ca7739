"""Enrolled people as a classifier, so that every class method explains 1:N identification."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from facexai._messages import FaceXAIWarning, near_matches
from facexai.hooks import quiet_grad
from facexai.images import When, Which, fitted, load, photo_files
from facexai.models.face_model import FaceModel

People = Mapping[str, Tensor | str | Path | Sequence[str | Path]] | str | Path

_FEWEST_FOR_CENTER = 10


@final
@dataclass(frozen=True, eq=False)
class Gallery:
    """People enrolled with a model; a white-box classifier.

    A person's template is the mean of the person's unit embeddings, scaled to length 1.

    Attributes:
        model: the :class:`~facexai.FaceModel` that embeds.
        names: C people.
        templates: (C, D) unit rows.
        scale: logits per unit of cosine.
        center: (D,) subtracted from unit embeddings before the cosine, or None.

    >>> from facexai import FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> people = FaceModel(net, InputSpec(2)).gallery({"ann": torch.eye(2)[0], "bo": torch.eye(2)[1]}, scale=1.0)
    >>> people.score(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """

    model: FaceModel
    names: tuple[str, ...]
    templates: Tensor
    scale: float = 64.0
    center: Tensor | None = None

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names) or len(self.names) != len(self.templates):
            raise ValueError(f"expected one distinct name per template, got {len(self.names)} names")
        if not self.scale > 0:
            raise ValueError(f"expected scale > 0, got {self.scale}")

    def __repr__(self) -> str:
        centred = ", centred" if self.center is not None else ""
        return f"Gallery({len(self.names)} people, scale={self.scale:g}{centred}, {self.model!r})"

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits: names, templates, scale and centre; not the model's, which has its own."""
        digest = hashlib.sha256(f"{self.names}|{self.scale}".encode())
        for tensor in (self.templates, self.center):
            digest.update(b"" if tensor is None else tensor.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()[:16]

    def index(self, name: str) -> int:
        """The class index of a person.

        Raises:
            ValueError: nobody of that name is enrolled.
        """
        if name not in self.names:
            raise ValueError(f"nobody enrolled is called {name!r}; {near_matches(name, self.names)}")
        return self.names.index(name)

    def _unit(self, features: Tensor, detach_norm: bool) -> tuple[Tensor, Tensor]:
        """Unit (and centred) rows, and the factor (N, 1) by which a direction of theirs scales in feature space."""
        if features.shape[1] != self.templates.shape[1]:
            raise ValueError(
                f"the model's embedding has {features.shape[1]} numbers, the gallery's templates "
                f"{self.templates.shape[1]}; enrol with the same model and flip"
            )
        norm = features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        norm = norm.detach() if detach_norm else norm
        unit = features / norm
        if self.center is None:
            return unit, 1 / norm
        moved = unit - self.center.to(unit)
        again = moved.norm(dim=1, keepdim=True).clamp(min=1e-12)
        again = again.detach() if detach_norm else again
        return moved / again, 1 / (norm * again)

    def score(self, features: Tensor, targets: Tensor | None = None, detach_norm: bool = True) -> Tensor:
        """``scale * cosine`` as a differentiable function of the model's features.

        Args:
            features: (N, D) of :meth:`FaceModel.features`.
            targets: (N, K) class indices; None: all.
            detach_norm: treat the lengths of the probe's vectors as constants, so that the gradient is that of
                the dot product with the unit template (the default target of explanations); False: of the cosine.

        Returns:
            (N, C), or (N, K) with targets.
        """
        unit, _ = self._unit(features, detach_norm)
        logits = self.scale * unit @ self.templates.to(unit).T
        return logits if targets is None else logits.gather(1, targets)

    def directions(self, features: Tensor, targets: Tensor) -> Tensor:
        """Derivative of the logits of targets (N, K) by the features with lengths fixed: (N, K, D)."""
        _, factor = self._unit(features, detach_norm=True)
        return self.scale * factor[:, :, None] * self.templates.to(features)[targets]

    def logits(self, images: Tensor) -> Tensor:
        """``scale * cosine`` of images (N, 3, H, W) to every person: (N, C)."""
        with quiet_grad():
            return self.score(self.model.features(self.model.outputs(images)))

    def cosines(self, images: Tensor) -> Tensor:
        """Cosine of images (N, 3, H, W) to every person: (N, C), between -1 and 1."""
        return self.logits(images) / self.scale


@final
@dataclass(frozen=True)
class Reading:
    """How photos of people are read; the fields are arguments of :meth:`FaceModel.gallery`."""

    align: When = "never"
    face: Which = "only"
    batch_size: int = 64
    progress: bool = False


def enrol(
    model: FaceModel,
    people: People,
    *,
    scale: float,
    center: Literal["enrolled"] | Tensor | None,
    how: Reading,
) -> Gallery:
    """Build a gallery; the arguments are those of :meth:`FaceModel.gallery`."""
    if isinstance(people, str | Path):
        people = _folder(Path(people))
    if not isinstance(people, Mapping) or not people:
        raise ValueError("expected at least one person: {name: images, embeddings or paths}, or a folder NAME/*.jpg")
    if len({str(name) for name in people}) < len(people):
        raise ValueError("two people have the same name once names are text; give each a name of their own")
    with quiet_grad():
        everyone = tqdm(people.items(), desc="enrol", unit="person", disable=not how.progress or None)
        means = {str(name): _mean(model, str(name), given, how) for name, given in everyone}
        sizes = {name: len(mean) for name, mean in means.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"embeddings of different sizes: {sizes}; enrol everyone with the same model")
        stacked = torch.stack(list(means.values()))
        origin = _center(stacked, center)
        templates = F.normalize(stacked if origin is None else stacked - origin)
    return Gallery(model, tuple(means), templates, float(scale), origin)


def _center(rows: Tensor, center: Literal["enrolled"] | Tensor | None) -> Tensor | None:
    """What to subtract from unit embeddings, (D,), for the people's mean embeddings (C, D)."""
    if center is None:
        return None
    if isinstance(center, Tensor):
        if center.shape != rows.shape[1:]:
            raise ValueError(f"expected center ({rows.shape[1]},), got {tuple(center.shape)}")
        return center.to(rows)
    if center != "enrolled":
        raise ValueError(f"expected center 'enrolled', a tensor (D,) or None, got {center!r}")
    if len(rows) < _FEWEST_FOR_CENTER:
        raise ValueError(
            f"center='enrolled' needs at least {_FEWEST_FOR_CENTER} people for a fair mean, got {len(rows)}"
        )
    return rows.mean(0)


def _mean(model: FaceModel, name: str, given: object, how: Reading) -> Tensor:
    """A person's mean unit embedding (D,)."""
    if isinstance(given, str | Path):
        given = [given]
    if isinstance(given, Sequence) and not isinstance(given, Tensor):
        given = _photos(model, name, given, how)
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
    mean = rows.mean(0)
    if not mean.norm() > 1e-6:
        raise ValueError(f"{name!r}: the mean embedding is zero, so it has no direction")
    return mean


def _photos(model: FaceModel, name: str, paths: Sequence[object], how: Reading) -> Tensor:
    if not paths or not all(isinstance(path, str | Path) for path in paths):
        raise ValueError(f"{name!r}: expected photo paths, at least one")
    photos = []
    for path in paths:
        try:
            photos.append(fitted(load(str(path)), model.spec, when=how.align, face=how.face).image)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return torch.cat(photos).to(model.device)


def _folder(folder: Path) -> dict[str, list[str | Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with a sub-folder of photos per person")
    found = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    people: dict[str, list[str | Path]] = {person.name: list(photo_files(person)) for person in found}
    empty = [name for name, files in people.items() if not files]
    people = {name: files for name, files in people.items() if files}
    if not people:
        raise ValueError(f"{folder} holds no photos; expected NAME/*.jpg (or png, webp, bmp), one folder per person")
    if empty:
        warnings.warn(f"no photos of {', '.join(empty[:8])}: not enrolled", FaceXAIWarning, stacklevel=4)
    return people
