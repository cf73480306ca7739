"""Explainers by name, for configurations and command lines.

The name of an explainer, such as ``hirescam`` (``sdd-hirescam``: SDD over it), ``captum.NAME`` for a baseline, or
``package.module:function``, which is called with the gallery or network (for pairs: the network and the threshold) and
the options, and returns an explainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from facexai import baselines
from facexai._errors import short_repr, suggest, truncate
from facexai._registry import Row, about, class_methods
from facexai.explainers import SDD
from facexai.models import FaceModel, WhiteBox

Entry = str | Mapping[str, Any]

_SDD = {field.name for field in fields(SDD)} - {"base"}


def label(entry: Entry) -> str:
    """Returns an entry's label in tables: its ``name``, or method and options."""
    if isinstance(entry, str):
        return entry
    if "name" in entry:
        return str(entry["name"])
    options = [f"{key}={value}" for key, value in entry.items() if key != "method"]
    return ", ".join([str(entry.get("method")), *options])


def class_explainers(entries: Sequence[Entry], classifier: WhiteBox) -> dict[str, Any]:
    """Returns explainers of classes by label.

    Raises:
        ValueError: unknown names or options, two entries of one label.
    """
    return _by_label(entries, lambda method, options: class_explainer(method, classifier, **options))


def pair_explainers(entries: Sequence[Entry], model: FaceModel, threshold: float) -> dict[str, Any]:
    """Returns explainers of pairs by label; errors are those of :func:`class_explainers`.

    FGGB uses ``chunk=8`` by default: the fastest value differs between machines, and so would the bits.
    """

    def make(method: str, options: dict[str, Any]) -> Any:
        fixed = {"chunk": 8} if method == "fggb" else {}
        return pair_explainer(method, model, threshold=threshold, **(fixed | options))

    return _by_label(entries, make)


def class_explainer(method: str, classifier: WhiteBox, **options: Any) -> Any:
    """Returns an explainer of classes; ``sdd`` and ``sdd-NAME`` take the options of both.

    >>> from facexai import FaceModel, InputSpec
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(576, 9))
    >>> class_explainer("sdd-cam", FaceModel(net, InputSpec(14), output="logits"), rivals=2).rivals
    2
    """
    if ":" in method:
        return _from_module(method, classifier, **options)
    if method.startswith("captum."):
        return baselines.captum(method.partition(".")[2], classifier, **options)  # type: ignore[arg-type]
    if method == "sdd" or method.startswith("sdd-"):
        own = {name: value for name, value in options.items() if name in _SDD}
        base = {name: value for name, value in options.items() if name not in _SDD}
        return SDD(class_explainer(method.partition("-")[2] or "hirescam", classifier, **base), **own)
    return _class_named(about("classes"), method, class_methods())(classifier, **options)


def pair_explainer(method: str, model: FaceModel, *, threshold: float | None, **options: Any) -> Any:
    """Returns an explainer of pairs."""
    if ":" in method:
        return _from_module(method, model, threshold, **options)
    rows = about("pairs")
    return _class_named(rows, method, rows)(model, threshold=threshold, **options)


def _class_named(rows: Mapping[str, Row], method: str, shown: Iterable[str]) -> Any:
    if method not in rows:
        raise ValueError(f"no explainer is called {method!r}; {suggest(method, shown)}")
    return rows[method].load()


def _by_label(entries: Sequence[Entry], make: Any) -> dict[str, Any]:
    explainers: dict[str, Any] = {}
    for entry in entries:
        options = {} if isinstance(entry, str) else {k: v for k, v in entry.items() if k not in ("method", "name")}
        method = entry if isinstance(entry, str) else entry.get("method")
        if not isinstance(method, str):
            raise ValueError(f"an explainer needs its method as text, got {entry!r}")
        if label(entry) in explainers:
            raise ValueError(f"two explainers are called {label(entry)!r}; give one of them another name")
        try:
            explainers[label(entry)] = make(method, options)
        except TypeError as error:
            raise ValueError(f"explainer {label(entry)!r}: {error}") from error
    return explainers


def _from_module(source: str, *arguments: Any, **options: Any) -> Any:
    module, _, function = source.partition(":")
    try:
        return getattr(import_module(module), function)(*arguments, **options)
    except (Exception, SystemExit) as error:  # whatever the user's module or function raises, scripts that end included
        reason = f"{type(error).__name__}: {truncate(error)}"
        raise ValueError(f"cannot make {short_repr(source)}: {reason}") from error
