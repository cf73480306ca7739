"""The doctor: checks a wrapped network and which explanations it can have, with findings and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from facexai._html import words
from facexai.functional import at_least_float32, completeness_error
from facexai.hooks import capture, grad_scope, in_training, no_graph, seeded
from facexai.models._choice import choice
from facexai.models._finding import Finding, Verdict
from facexai.models._recognition import ALIKE, compared, of_input, of_reference, reference_of
from facexai.models._row_mixing import known_to_mix
from facexai.models.blackbox import BlackBox
from facexai.models.face_model import FaceModel
from facexai.models.gallery import Gallery
from facexai.models.heads import HeadDoesNotFold, completeness_limit
from facexai.models.input_variants import (
    Labelled,
    Pairs,
    Variant,
    compare,
    cosines,
    describe,
    labelled,
)
from facexai.models.outputs import ALONE

if TYPE_CHECKING:
    from facexai.images import AlignMode

_MARKS = {"good": "ok ", "note": "-  ", "bad": "BAD"}
_SAME = {torch.float64: 1e-9, torch.float32: 1e-4}  # of an embedding's length
_SAME_HALF = 3e-2
_SIZES = (1, 2, 3, 4, 5, 8, 16, 32)  # of batches, tried where a network does not run


@final
@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The result of :func:`doctor`.

    Attributes:
        model: the model in words.
        findings: in the order of the checks.
        layers: {name: (channels, h, w)} of the layers that gradient methods can explain.
        variants: ways to prepare the input, best first; empty without labelled pairs.
    """

    model: str
    findings: tuple[Finding, ...]
    layers: dict[str, tuple[int, int, int]]
    variants: tuple[Variant, ...] = ()

    @property
    def ok(self) -> bool:
        """Returns whether no check failed."""
        return all(finding.verdict != "bad" for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        """Returns the finding of that name."""
        return next(finding for finding in self.findings if finding.name == name)

    def __str__(self) -> str:
        lines = [self.model]
        for finding in self.findings:
            lines.append(f"  {_MARKS[finding.verdict]} {finding.name:<14} {finding.found}")
            if finding.advice:
                lines.append(f"      {'':<14} -> {finding.advice}")
        for i, v in enumerate(self.variants):
            head = "  input variants, best first: separation d', AUC" if i == 0 else ""
            lines += [head] if head else []
            lines.append(f"      {v.separation:6.2f}  {v.auc:.4f}  {v.name}")
        return "\n".join(lines)

    _repr_html_ = words

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, as JSON can hold them."""
        return {
            "model": self.model,
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "layers": {name: list(shape) for name, shape in self.layers.items()},
            "variants": describe(self.variants),
        }


def doctor(
    model: FaceModel | Gallery,
    pairs: Pairs | None = None,
    *,
    align: AlignMode = "never",
    most: int | None = 10,
    batch_size: int = 32,
    reference: FaceModel | Gallery | None = None,
) -> Diagnosis:
    """Checks a wrapped network before anything is explained with it.

    Args:
        model: a FaceModel, or a gallery, whose model is meant.
        pairs: labelled faces, to find out whether the input is prepared rightly: (first, second, same), images
            (P, 3, H, W) twice and labels (P,), True or 1 for one person, False or 0 for two; or {name: images}; or a
            folder ``NAME/*.jpg``.
        align: detect and align the faces of a folder, as in :meth:`FaceModel.gallery`.
        most: photos of each person that are used, the first ones; None: all. Time grows with the square of the photos.
        batch_size: images per forward pass.
        reference: a network that is known to recognise people, such as one of the zoo, or the original of a port: how
            much better it separates the same faces. Photos of a folder are read at its own size, tensors are resized.

    Returns:
        A :class:`Diagnosis`, which prints itself. It checks: kind and size of the output, and, if it
        holds several tensors (N, D) and ``take`` was not given, what each gives on the faces; whether the output is
        finite, depends on the image, is the same twice and in any batch; whether a gradient reaches the image;
        whether the head folds, with the completeness error; which layers have maps; and with pairs, which of the
        channel orders, means and standard deviations separates people best (one channel has no order), and, with ten
        people or more, whether the best of them recognises people at all: an AUC below .8 or a separation below 1 is
        bad.

    Raises:
        TypeError: no FaceModel.
        ValueError: pairs of another form, labels of other values; a reference without pairs. What the network does
            wrong is a finding.

    Cost: some twenty forward passes of a few images and one backward pass; with faces 15 times those, 5 times where the
    network takes one channel; one more each if its own input is another, and two with a reference, one of them its own.

    Source: ours.

    >>> from facexai import InputSpec
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5))
    >>> print(doctor(FaceModel(net, InputSpec(8)))["head"].found)
    folds from '0', 6x6 cells of 4 channels, into 5 numbers; completeness error ...
    """
    model = model.model if isinstance(model, Gallery) else model
    if not isinstance(model, FaceModel):
        raise TypeError(f"expected a FaceModel or a gallery, got {type(model).__name__}; FaceModel(net, spec)")
    known = reference_of(reference, pairs)
    faces = None if pairs is None else labelled(model, pairs, align=align, most=most)
    images = model.noise(4) if faces is None else faces.images[:4]
    findings: list[Finding] = []
    if isinstance(rows := _run(model, images), Finding):
        return Diagnosis(repr(model), (rows,), {})
    if isinstance(alone := _alone(model, images), Finding):
        return Diagnosis(repr(model), (alone,), {})
    layers: dict[str, tuple[int, int, int]] = {}
    open_choice = choice(model, images, faces)
    findings += [open_choice] if open_choice is not None else []
    findings += [_output(model, rows), _length(model, rows), _mode(model), *_values(model, images, rows, faces)]
    findings += [_gradient(model, images), _head(model, rows.shape[1])]
    found, layers = _layers(model)
    findings.append(found)
    variants: tuple[Variant, ...] = ()
    if faces is None:
        advice = "give labelled faces, doctor(model, pairs): the wrong channel order or mean is the commonest mistake"
        findings.append(Finding("input", "note", f"not checked: {model.spec}", advice))
    else:
        variants = compare(model, faces, batch_size)
        findings += of_input(model, variants, int(faces.owner.max()) + 1)
    if known is not None and faces is not None and pairs is not None:
        comparison = compared(model, known, faces, pairs, align=align, most=most, batch_size=batch_size)
        findings.append(of_reference(comparison))
    return Diagnosis(repr(model), tuple(findings), layers, variants)


def completeness(model: FaceModel, images: Tensor, seed: int = 0) -> Tensor:
    """Returns the completeness error (N,) of the folded head for images and random directions.

    Raises:
        HeadDoesNotFold: there is no folded head.
    """
    head = model.head
    with no_graph():
        with capture(model.net, head.layer, side=head.side) as a, capture(model.net, head.last) as e:
            model.outputs(images)
        activations, output = at_least_float32(head.layout.map(a.last)), at_least_float32(e.last.flatten(1))
        drawn = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        weights, constant = head.pull(r := drawn.to(output))
        return completeness_error((weights * activations).sum(1), constant, r, output)


# ---- the findings, one function each ----------------------------------------------------------------------------


def _run(model: FaceModel, images: Tensor) -> Tensor | Finding:
    try:
        with no_graph():
            return model.outputs(images)
    except Exception as error:  # whatever the network raises
        told = "; ".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]).replace("\n", " ")
        return Finding("runs", "bad", told, _batch_advice(model))


def _alone(model: FaceModel, images: Tensor) -> Tensor | Finding | None:
    """Returns a function that runs on several images and not on one has a fixed batch; of torch
    modules "batch" says so.
    """
    return _run(model, images[:1]) if isinstance(model.core, BlackBox) else None


def _batch_advice(model: FaceModel) -> str:
    """Returns what to do about a network that does not run, by the batch sizes on which it does."""
    advice = "the spec's size and channels must fit the network; see the error"
    sizes = [size for size in _SIZES if _runs(model, size)]
    if not sizes:
        return advice
    words = f"it runs on {' and '.join(map(str, sizes))} images at a time, of {_SIZES} that were tried"
    if not isinstance(model.core, BlackBox):
        return words
    fixed = "" if sizes[0] == 1 else ", fixed=True"
    return f"{words}: FaceModel.from_callable(function, batch_size={sizes[0]}{fixed})"


def _runs(model: FaceModel, size: int) -> bool:
    try:
        with no_graph():
            model.outputs(model.noise(size))
    except Exception:  # whatever the network raises
        return False
    return True


def _output(model: FaceModel, rows: Tensor) -> Finding:
    size, kind = rows.shape[1], str(rows.dtype).removeprefix("torch.")
    took = "" if model.took is None else f", element {model.took!r} of what the network returns"
    what = f"{size} class logits" if model.gives_logits else f"an embedding of {size} numbers"
    sums = rows.float().sum(1)
    if bool((rows >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all()) and size > 1:
        advice = "take the output before the softmax: explanations are of logits, and probabilities saturate"
        return Finding("output", "bad", f"{size} probabilities ({kind}){took}", advice)
    return Finding("output", "good", f"{what} ({kind}){took}")


def _length(model: FaceModel, rows: Tensor) -> Finding:
    lengths = rows.float().norm(dim=1)
    low, high = float(lengths.min()), float(lengths.max())
    if model.gives_logits:
        return Finding("length", "good", f"logits from {float(rows.min()):.3g} to {float(rows.max()):.3g}")
    if max(abs(low - 1), abs(high - 1)) < 1e-3:
        return Finding("length", "good", "the network normalises its embedding to length 1 itself")
    return Finding("length", "good", f"raw embeddings of length {low:.3g} to {high:.3g}; facexai normalises")


def _mode(model: FaceModel) -> Finding:
    training = in_training(model.net)
    if training:
        found = f"{training} modules are in train mode; facexai evaluates in eval mode and puts them back"
        return Finding("mode", "note", found, "net.eval() if the rest of your code should agree")
    return Finding("mode", "good", "eval mode")


def _values(model: FaceModel, images: Tensor, rows: Tensor, faces: Labelled | None) -> Iterator[Finding]:
    """Checks that outputs are finite on extreme images, differ between images, repeat, and do not
    depend on the batch.
    """
    tolerance = _SAME.get(model.dtype, _SAME_HALF)
    flat = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, *images.shape[1:]).to(images)
    answer = _run(model, flat)
    if isinstance(answer, Finding):
        yield Finding("finite", "bad", f"black, grey and white images: {answer.found}", "check weights and precision")
    else:
        yield Finding("finite", "good", "finite on black, grey and white images")
    yield _varies(model, rows, faces)
    # calls restore the random state, so equal seeds would hide dropout
    with seeded(1, model.net), no_graph():
        again = _run(model, images)
    if isinstance(again, Finding):
        yield Finding("repeatable", "bad", f"the same images a second time: {again.found}", "see the error")
        return
    yield _agreement(
        "repeatable",
        "the same images twice",
        again,
        rows,
        tolerance,
        "something random runs in eval mode (F.dropout without training=self.training?): no map can be trusted",
    )
    if known_to_mix(model.core):
        found = "another image beside an image changes its output, or its place in a layer"
        yield Finding("batch", "bad", found, ALONE)
        return
    branches = rows.view(-1, len(images), rows.shape[1])
    lone = [_run(model, image[None]) for image in images]
    if any(isinstance(row, Finding) for row in lone):
        advice = "the network needs batches: explain several images at a time, and read maps with care"
        yield Finding("batch", "bad", next(row.found for row in lone if isinstance(row, Finding)), advice)
        return
    single = torch.stack([row for row in lone if isinstance(row, Tensor)], 1)
    yield _agreement(
        "batch",
        "one image alone and in a batch",
        single,
        branches,
        tolerance,
        "an image's output depends on the others (batch statistics, pooling over the batch); explain one at a time",
    )


def _varies(model: FaceModel, rows: Tensor, faces: Labelled | None) -> Finding:
    apart = _apart(F.normalize(rows[:1].float()), F.normalize(rows[1:].float()))
    advice = "the weights are not loaded, or the input's range is far off"
    if apart < 8 * torch.finfo(rows.dtype).eps:
        return Finding("varies", "bad", f"different images give the same output within {apart:.1e}", advice)
    scores = None if faces is None else cosines(model, model.spec, faces, len(rows))
    if scores is None:
        return Finding("varies", "good", "different images give different outputs")
    smallest = float(scores.min())
    found = f"the smallest cosine between two of the faces is {smallest:.4f}"
    if smallest > ALIKE:
        return Finding("varies", "note", f"{found}: the network hardly tells faces apart", advice)
    return Finding("varies", "good", found)


def _apart(a: Tensor, b: Tensor) -> float:
    """Returns the largest distance of rows, in units of their length."""
    a, b = a.double(), b.double()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1).clamp(min=1e-12)).max())


def _agreement(name: str, what: str, a: Tensor, b: Tensor, tolerance: float, advice: str) -> Finding:
    apart = _apart(a, b)
    if apart <= tolerance:
        return Finding(name, "good", f"{what}: {'equal' if apart == 0 else f'equal within {apart:.0e}'}")
    return Finding(name, "bad", f"{what}: {apart:.1e} of the output's length apart", advice)


def _gradient(model: FaceModel, images: Tensor) -> Finding:
    if isinstance(model.core, BlackBox):
        return Finding("gradient", "note", "none: the model is a function", "black-box methods and metrics work")
    advice = "gradient methods do not work (no_grad, detach, NumPy or quantised weights inside?); CAM and metrics may"
    try:
        with grad_scope(model.net):
            x = images.detach().clone().requires_grad_()
            outputs = model.outputs(x)
            gradient = torch.autograd.grad(outputs.square().sum(), x)[0] if outputs.requires_grad else None
    except RuntimeError as error:
        return Finding("gradient", "bad", f"none: {str(error).splitlines()[0]}", advice)
    if gradient is None or not bool(gradient.any()):
        return Finding("gradient", "bad", "no gradient of the output reaches the image", advice)
    if not bool(torch.isfinite(gradient).all()):
        return Finding("gradient", "bad", "the gradient at the image is NaN or infinite", "check precision and weights")
    return Finding("gradient", "good", "reaches the image")


def _head(model: FaceModel, size: int) -> Finding:
    try:
        head = model.head
    except HeadDoesNotFold as refusal:
        return Finding("head", "note", str(refusal), "CAM does not exist for it")
    except ValueError as refusal:
        return Finding("head", "note", str(refusal))
    error, limit = float(completeness(model, model.noise()).max()), completeness_limit(model.dtype)
    c, h, w = head.shape
    end = ", then divided by its length" if head.unit else ""
    what = f"folds from {head.layer!r}, {h}x{w} cells of {c} channels, into {size} numbers{end}"
    found = f"{what}; completeness error {error:.1e}"
    if not error <= limit:
        return Finding("head", "bad", found, "CAM will refuse; use HiResCAM(classifier, layer=...)")
    return Finding("head", "good", found)


def _layers(model: FaceModel) -> tuple[Finding, dict[str, tuple[int, int, int]]]:
    try:
        layers = model.layers
    except ValueError as refusal:
        return Finding("layers", "note", str(refusal)), {}
    sizes: dict[str, str] = {}
    for name, (_, h, w) in layers.items():
        sizes[f"{h}x{w}"] = name
    advice = ""
    try:
        auto = f"layer='auto' is {model.structure.default!r}"
        advice = model.structure.missing or ""
    except ValueError as refusal:
        auto = str(refusal)
    deepest = ", ".join(f"{size} until {name!r}" for size, name in sizes.items())
    verdict: Verdict = "good" if layers and not advice else "note"
    return Finding("layers", verdict, f"{len(layers)} with maps: {deepest or 'none'}; {auto}", advice), layers
