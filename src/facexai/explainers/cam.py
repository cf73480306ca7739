"""CAM for face networks: the head folded into a weight for every cell and channel of the last map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai._errors import warn
from facexai.explainers._class_maps import Evidence, asked, check_explainable, check_kind, explain, saliency
from facexai.functional import at_least_float32, completeness_error
from facexai.hooks import capture, no_graph
from facexai.models import FaceModel, WhiteBox
from facexai.models.heads import completeness_limit
from facexai.models.targets import Targets
from facexai.results import Saliency

_FEW_CELLS = 6
_AT_ONCE = 2**22  # weights of the head that are held at once


@final
@dataclass(frozen=True, eq=False)
class CAM:
    """Class activation map: the exact contribution of every spatial location of the last feature
    map to a class's logit.

    The head, from the last spatial map to the output, is affine in most face networks and is folded into one weight
    per cell, channel and class. Cells and ``.constant`` add up to the logit; this completeness is checked on every
    call.

    Args:
        classifier: a gallery, or a FaceModel with ``output="logits"``.
        layer: always the head's input, ``"auto"``; other layers are :class:`~facexai.HiResCAM`'s.

    Raises:
        HeadDoesNotFold: on use, where the head is not affine; names HiResCAM.
        ValueError: on use, where completeness fails.

    Cost: one forward pass for any number of classes. Evidence is portable: plain tensors, any gallery.

    Source: Zhou et al. 2016, arXiv:1512.04150, sec. 2 (no ReLU), for global average pooling and a linear layer;
    the folding of flattened heads is ours and exact.

    >>> import torch
    >>> from facexai import FaceModel, InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5))
    >>> model = FaceModel(net, InputSpec(8), output="logits")
    >>> why = CAM(model)(torch.rand(2, 3, 8, 8), targets=3)
    >>> why.cells.shape, why.maps.shape
    (torch.Size([2, 6, 6]), torch.Size([2, 8, 8]))
    >>> torch.allclose(why.cells.sum((1, 2)) + why.constant, why.scores, atol=1e-5)
    True
    """

    classifier: WhiteBox
    layer: Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_explainable(self.classifier)
        if self.layer != "auto":
            raise ValueError(
                f"CAM's layer is always the head's input, got layer={self.layer!r}; "
                f"HiResCAM(classifier, layer={self.layer!r}) explains any layer"
            )

    __call__ = explain

    def observe(self, images: Tensor) -> Evidence:
        """Runs one forward pass and keeps the head's input and output.

        Raises:
            HeadDoesNotFold: the head is not affine.
        """
        warn_of_few_cells("CAM", self.classifier.model, "HiResCAM(classifier, layer=...)")
        return observe_head(self.classifier.model, images)

    def answer(self, evidence: Evidence, targets: Targets = None) -> Saliency:
        """Returns the map of any class from evidence. Only a model that was never used runs: twice
        noise, to find its head.

        Returns:
            A Saliency with ``.constant`` (N,): cells and constant add up to the score.
        """
        logits, chosen = asked(self.classifier, evidence, targets)
        maps, constants = self.fold(evidence, chosen[:, None])
        return saliency(
            self.classifier,
            maps[:, 0],
            logits,
            chosen,
            constant=constants[:, 0],
            recipe={**self.recipe(evidence), "relu": False},
        )

    def class_maps(self, evidence: Evidence, classes: Tensor) -> Tensor:
        """Returns maps (N, K, h, w) of classes (N, K) in logits."""
        return self.fold(evidence, classes)[0]

    def fold(self, evidence: Evidence, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Returns maps (N, K, h, w) of classes (N, K), and the constants (N, K) that the cells leave to the score."""
        check_kind(evidence, "folded", "auto")
        model, head = self.classifier.model, self.classifier.model.head
        assert evidence.head is not None
        with no_graph():
            activations, e = at_least_float32(evidence.activations), at_least_float32(evidence.head)
            _check_end(e, at_least_float32(evidence.outputs), head.unit, evidence.activations.dtype)
            features = model.features(evidence.outputs)
            directions = model.branch_directions(self.classifier.directions(features, classes)).to(e)
            if head.unit:  # the network divides by the length of e itself; it counts as a constant
                directions = directions / e.norm(dim=1).clamp(min=1e-12)[:, None, None]
            maps, left = [], []
            some = max(1, _AT_ONCE // activations.numel())
            for part in torch.split(directions, some, dim=1):  # many classes at once, not all: a gallery can be large
                weights, constant = head.pull(part.flatten(0, 1))
                weights, constant = weights.view(*part.shape[:2], *weights.shape[1:]), constant.view(part.shape[:2])
                cells = torch.stack([(w * activations).sum(1) for w in weights.unbind(1)], 1)
                _check_completeness(cells, constant, part, e, evidence.activations.dtype)
                maps.append(model.merge(cells))
                left.append(constant - (part * e[:, None]).sum(2))
            scores = self.classifier.score(features, classes)
            return torch.cat(maps, 1), scores + torch.cat(left, 1).view(-1, *scores.shape).sum(0)

    def recipe(self, evidence: Evidence) -> dict[str, Any]:
        """Returns every choice that changes a number."""
        return {"method": "CAM", "layer": evidence.layer, "similarity": "dot", "flip": self.classifier.model.flip}


def warn_of_few_cells(method: str, model: FaceModel, finer: str) -> None:
    """Warns if the head's input is coarse, and names layers with more detail."""
    h, w = model.head.shape[1:]
    if min(h, w) < _FEW_CELLS:
        warn(
            f"{method} has only {h}x{w} cells in this network; {finer} shows finer maps; layers and their cells are in "
            "model.layers"
        )


def observe_head(model: FaceModel, images: Tensor) -> Evidence:
    """Runs one forward pass and returns the input and the output of the head."""
    head = model.head
    with (
        capture(model.net, head.layer, side=head.side) as seen,
        capture(model.net, head.last) as end,
        no_graph(),
    ):
        outputs = model.outputs(images)
    return Evidence(head.layout.map(seen.last), outputs, end.last.flatten(1), head.layer, model.fingerprint, "folded")


def _check_completeness(cells: Tensor, constant: Tensor, r: Tensor, e: Tensor, dtype: torch.dtype) -> None:
    """Checks the completeness of all images and classes; cells (N, K, h, w), constant (N, K), r (N, K, D), e (N, D)."""
    errors = completeness_error(
        cells.flatten(0, 1), constant.flatten(), r.flatten(0, 1), e.repeat_interleave(r.shape[1], 0)
    )
    error, limit = float(errors.max()), completeness_limit(dtype)
    if not error <= limit:
        raise ValueError(
            f"CAM's cells do not add up to the score: error {error:.1e}, allowed {limit:.0e}. The head does more than "
            "its modules say (a functional step, a change between calls); use HiResCAM(..., layer=...)"
        )


def _check_end(e: Tensor, outputs: Tensor, unit: bool, dtype: torch.dtype) -> None:
    """Checks that the network returns the output of its head for these images, not only for the noise that the
    head was found with.
    """
    expected = F.normalize(e) if unit else e
    error = float(((expected - outputs).norm(dim=1) / outputs.norm(dim=1).clamp(min=1e-12)).max())
    limit = completeness_limit(dtype)
    if not error <= limit:
        raise ValueError(
            f"the network changes the output of its head: by {error:.1e} of its length, allowed {limit:.0e}; "
            "use HiResCAM(..., layer=...)"
        )
