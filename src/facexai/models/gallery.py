"""Enrolled people as a classifier, so that every class method explains 1:N identification."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn

from facexai._errors import short_repr, suggest
from facexai._html import facts
from facexai.hooks import no_graph
from facexai.models.face_model import FaceModel

_MOST_NAMED = 20  # in a notebook


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

    >>> import torch
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
        if not 0 < self.scale < math.inf:
            raise ValueError(f"expected scale > 0 and finite, got {self.scale}")

    def __repr__(self) -> str:
        centred = ", centred" if self.center is not None else ""
        return f"Gallery({len(self.names)} people, scale={self.scale:g}{centred}, {self.model!r})"

    def _repr_html_(self) -> str:
        few = ", ".join(self.names[:_MOST_NAMED]) + (", ..." if len(self) > _MOST_NAMED else "")
        told = {"people": f"{len(self)}: {few}", "scale": float(self.scale), "centred": self.center is not None}
        return facts({**told, "model": repr(self.model), "fingerprint": self.fingerprint}, "Gallery")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def fingerprint(self) -> str:
        """Returns sixteen hexadecimal digits: names, templates, scale and centre; not the model's,
        which has its own.
        """
        digest = hashlib.sha256(f"{self.names}|{self.scale}".encode())
        for tensor in (self.templates, self.center):
            digest.update(b"" if tensor is None else tensor.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()[:16]

    def index(self, name: str) -> int:
        """Returns the class index of a person.

        Raises:
            ValueError: no person of that name is enrolled.
        """
        if name not in self.names:
            raise ValueError(f"nobody enrolled is called {short_repr(name)}; {suggest(name, self.names)}")
        return self.names.index(name)

    def _unit(self, features: Tensor, detach_norm: bool) -> tuple[Tensor, Tensor]:
        """Returns unit (and centred) rows, and the factor (N, 1) by which a direction of theirs
        scales in feature space.
        """
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
        """Computes ``scale * cosine`` as a differentiable function of the model's features.

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
        """Returns derivative of the logits of targets (N, K) by the features with lengths fixed: (N, K, D)."""
        _, factor = self._unit(features, detach_norm=True)
        return self.scale * factor[:, :, None] * self.templates.to(features)[targets]

    def logits(self, images: Tensor) -> Tensor:
        """Computes ``scale * cosine`` of images (N, 3, H, W) to every person: (N, C)."""
        with no_graph():
            return self.score(self.model.features(self.model.outputs(images)))

    def cosines(self, images: Tensor) -> Tensor:
        """Returns the cosine of images (N, 3, H, W) to every person: (N, C), between -1 and 1."""
        return self.logits(images) / self.scale


def around(classifier: Gallery | FaceModel, net: nn.Module) -> Gallery | FaceModel:
    """Returns the same classifier with another network of the same kind, such as a changed copy; templates stay."""
    model = classifier.model
    twin = FaceModel(
        net,
        model.spec,
        take=model.took,
        output=model.output,
        flip=model.flip,
        center=model.center,
        names=model.names,
        forward_kwargs=model.forward_kwargs,
        layouts=model.layouts,
    )
    return twin if isinstance(classifier, FaceModel) else replace(classifier, model=twin)
