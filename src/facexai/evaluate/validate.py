"""Checks of a configuration before the run, for what would fail after hours."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from numbers import Real
from pathlib import Path

import torch

from facexai._errors import suggest, suppress_warnings
from facexai.evaluate.config import Config
from facexai.evaluate.context import PAIR_METRICS, RunContext
from facexai.evaluate.methods import class_explainers, pair_explainers
from facexai.evaluate.verification import people
from facexai.explainers import SDD
from facexai.metrics.pair_protocol import resolve
from facexai.metrics.pair_subject import check_labels
from facexai.metrics.verification import threshold
from facexai.models import FaceModel, Gallery
from facexai.models.enroll import FEWEST_FOR_CENTER
from facexai.perturb import make_fill

CLASS_METRICS = ("deletion", "retention", "insertion", "deletion-curve", "narrowness", "overlap")

_IDLE = {
    "people": ("protocol", "part", "threshold"),
    "pairs": ("gallery", "enrol", "scale", "center", "area", "fill", "steps", "ties"),
}
"""The options that have no effect on a task."""


def check(work: RunContext, base: Path, folder: Path) -> None:
    """Refuses names, options, galleries and explainers that cannot work; explainers are tried on an image of noise.

    Raises:
        ValueError: says what, and what to do.
        ImportError: an explainer needs an extra that is missing.
    """
    config, default = work.config, {field.name: field.default for field in fields(Config)}
    for name in _IDLE[work.task]:
        if getattr(config, name) != default[name]:
            raise ValueError(f"{name} has no effect on a data set of {work.task}; leave it out")
    data = (base / config.data).absolute()
    if data.is_dir() and folder.absolute().is_relative_to(data):
        raise ValueError(f"{folder} lies inside the data, where its pictures would be measured; choose another folder")
    known = CLASS_METRICS if work.task == "people" else PAIR_METRICS
    for name in config.metrics:
        if name not in known:
            raise ValueError(f"no metric of {work.task} is called {name!r}; {suggest(name, known)}")
    if len(set(config.metrics)) < len(config.metrics):
        raise ValueError(f"a metric is named twice: {list(config.metrics)}")
    with suppress_warnings():  # about noise
        if work.task == "people":
            _people(work)
        else:
            _pairs(work)


def _people(work: RunContext) -> None:
    config, network = work.config, work.network
    make_fill(network.noise(1), config.fill)  # type: ignore[arg-type]
    classifier: FaceModel | Gallery = network if network.gives_logits else _stand_in(work)
    if network.gives_logits and network.logits(network.noise(1)).shape[1] < 2:
        raise ValueError("probabilities and margins need at least two classes, this network has one")
    explainers = class_explainers(work.explainers, classifier)
    sdd = {label: one for label, one in explainers.items() if isinstance(one, SDD)}
    for label, explainer in sdd.items():
        if not isinstance(explainer.rivals, int):
            raise ValueError(f"{label!r} names rivals, and some photo may be of one of them; give their number")
    if "overlap" in config.metrics and not sdd:
        raise ValueError("overlap compares class maps, which only sdd has; ask for it, or leave overlap out")
    for explainer in explainers.values():
        explainer(network.noise(1))


def _stand_in(work: RunContext) -> Gallery:
    """Returns a gallery of the people who will be enrolled, with random templates."""
    config = work.config
    photos = Counter(work.person(photo) for photo in work.enrolled)
    if len(photos) < 2:
        raise ValueError(f"identification needs at least two people, {len(photos)} is enrolled; name a gallery")
    if isinstance(config.scale, str):
        if config.scale != "calibrated":
            raise ValueError(f"expected scale a number or 'calibrated', got {config.scale!r}")
        if max(photos.values()) < 2:
            raise ValueError("scale='calibrated' needs somebody with two enrolled photos; raise enrol, or give a scale")
    elif not (isinstance(config.scale, Real) and config.scale > 0):
        raise ValueError(f"expected scale > 0, got {config.scale}")
    if config.center not in (None, "enrolled"):
        raise ValueError(f"expected center 'enrolled', or none, got {config.center!r}")
    if config.center is not None and len(photos) < FEWEST_FOR_CENTER:
        raise ValueError(f"center='enrolled' needs at least {FEWEST_FOR_CENTER} people, {len(photos)} are enrolled")
    size = work.network.embed(work.network.noise(1)).shape[1]
    drawn = torch.randn(len(photos), size, generator=torch.Generator().manual_seed(0))
    return work.network.gallery(dict(zip(photos, drawn, strict=True)), scale=64.0)


def _pairs(work: RunContext) -> None:
    config, network, same = work.config, work.network, work.data.same
    assert same is not None
    if network.gives_logits:
        raise ValueError("pairs need embeddings, this network gives logits; choose its embedding with take=")
    _, how = resolve(config.protocol, config.part)  # type: ignore[arg-type]
    rule = how.threshold if config.threshold is None else config.threshold
    threshold([0.5 * float(label) for label in same], same, rule)  # refuses rules, and labels that do not suffice
    who_is = people(work, range(len(same)))
    check_labels(who_is["identities"], who_is["partners"], same)
    noise = network.noise(2)
    for explainer in pair_explainers(work.explainers, network, 0.0).values():
        explainer(noise[:1], noise[1:])
