"""The configuration of a run: every option that changes a number, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

from facexai import _toml
from facexai.metrics._ties import BREAKS

_EXAMPLE = 'data = "faces"\nexplainers = ["sdd", "hirescam"]'
_PATHS = ("data", "images", "gallery")


@final
@dataclass(frozen=True)
class Config:
    """A run over a data set; see :func:`facexai.evaluate.run`.

    Args:
        data: a folder ``NAME/*.jpg``; a folder of photos; a CSV of ``image`` and perhaps ``identity``; or labelled
            pairs as :func:`facexai.metrics.read_pairs` takes them: LFW's ``pairs.txt``, a CSV of first,second,same, a
            packed ``.bin``.
        model: name of :func:`facexai.zoo.names`, or ``package.module:factory``.
        explainers: names, or tables of ``method``, perhaps ``name``, and the options of the explainer; see
            :mod:`facexai.evaluate.methods`. Default: ``sdd``, for pairs ``fggb``.
        metrics: of ``deletion``, ``retention``, ``insertion``, ``deletion-curve``, ``narrowness``, ``overlap``; for
            pairs of ``deletion``, ``insertion``. Default: ``deletion`` and ``retention``, for pairs both.
        images: folder of the photos that a CSV or a list of pairs names; default: that of the file.
        align, face: as for :func:`facexai.images.fit_to_spec`.
        limit: measure the first so many photos or pairs only.
        gallery: folder ``NAME/*.jpg`` of enrolled people; default: the first ``enrol`` photos of each
            person in ``data``.
        enrol: photos of each person that are enrolled; the others are measured.
        scale, center: of the gallery, as for :meth:`facexai.FaceModel.gallery`.
        area, fill: of deletion and retention; the fill of ``deletion-curve`` and the area of ``overlap``, too.
        steps: of curves over classes.
        protocol, part, threshold: of curves over pairs; threshold: instead of the protocol's rule.
        ties: ``"fields"`` or ``"signed"``, what decides among equal values of class maps; see
            :class:`facexai.metrics._batch.Options`.
        seed: of everything random.
        micro_batch: photos or pairs that go through the network together; fixes the last bits of every number.
        shard: micro-batches that are committed together.
    """

    data: str
    model: str = "dlib-resnet29"
    explainers: tuple[str | Mapping[str, Any], ...] = ()
    metrics: tuple[str, ...] = ()
    images: str | None = None
    align: str = "auto"
    face: str = "only"
    limit: int | None = None
    gallery: str | None = None
    enrol: int = 8
    scale: float | str = "calibrated"
    center: str | None = None
    area: float = 0.2
    fill: str | float = "black"
    steps: int = 10
    protocol: str = "fame"
    part: str = "similar"
    threshold: float | str | None = None
    ties: str = "fields"
    seed: int = 0
    micro_batch: int = 16
    shard: int = 8

    def __post_init__(self) -> None:
        _toml.checked({field.name: getattr(self, field.name) for field in fields(self)}, Config, "Config")
        for name in ("limit", "enrol", "steps", "micro_batch", "shard"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}")
        for name, choices in (("align", ("auto", "always", "never")), ("face", ("only", "largest")), ("ties", BREAKS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"expected {name} one of {list(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.area < 1:
            raise ValueError(f"expected an area between 0 and 1, got {self.area}")

    def record(self) -> dict[str, Any]:
        """Returns every option as JSON: file names without folders, and not the size of shards."""
        options = asdict(self) | {"explainers": list(self.explainers), "metrics": list(self.metrics)}
        options |= {name: Path(value).name for name in _PATHS if (value := options[name]) is not None}
        return {name: value for name, value in options.items() if name != "shard"}


def read(path: str | Path, **instead: Any) -> Config:
    """Returns the configuration of a TOML file, with these options instead of the file's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no TOML, an unknown key, no ``data``, or a value of another type.
    """
    return _toml.read(Path(path), Config, ("data",), _EXAMPLE, instead)
