"""The context of a run: configuration, data, network, and the photos that are enrolled and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

from facexai import zoo
from facexai._errors import told
from facexai._tensor_store import Store
from facexai.evaluate.config import Config
from facexai.evaluate.data import DataSet, opened
from facexai.evaluate.methods import Entry, label
from facexai.evaluate.shards import Face, Shards, Stage
from facexai.images import fit_to_spec
from facexai.metrics._identities import linked_people
from facexai.models import FaceModel

PAIR_METRICS = ("deletion", "insertion")


@final
@dataclass(frozen=True, eq=False)
class RunContext:
    """The configuration, data, network and store of a run, the same for every worker.

    Attributes:
        config: what is measured.
        data: photos to measure, then those of the gallery's folder.
        network: the model, on its device.
        store: of the shards.
        probes: numbers of the photos to measure; empty for pairs.
        enrolled: numbers of the photos that people are enrolled with; empty for pairs and for networks with classes.
        knows_people: whether the data set has identities.
    """

    config: Config
    data: DataSet
    network: FaceModel
    store: Store
    probes: Sequence[int]
    enrolled: Sequence[int]
    knows_people: bool

    @property
    def task(self) -> Literal["people", "pairs"]:
        """The kind of data set."""
        return "people" if self.data.index is None else "pairs"

    @property
    def explainers(self) -> Sequence[Entry]:
        """The configured ones, or the default."""
        return self.config.explainers or (("sdd",) if self.task == "people" else ("fggb",))

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the explainers."""
        return [label(entry) for entry in self.explainers]

    @property
    def metrics(self) -> Sequence[str]:
        """The configured ones, or the default."""
        return self.config.metrics or (("deletion", "retention") if self.task == "people" else PAIR_METRICS)

    def person(self, photo: int) -> str:
        """Returns the identity in a photo; the photo's name where the data set has none."""
        identity = "" if self.data.identities is None else self.data.identities[photo]
        return identity or self.data.names[photo]

    @cached_property
    def people_of_pairs(self) -> Sequence[str]:
        """The identity in each photo of the pairs, for intervals and tests.

        If the data set has no identities, photos that genuine pairs link show one person, any other photo a person
        of its own. So a photo that comes again is the same person again.
        """
        if self.knows_people or self.data.index is None or self.data.same is None:
            return [self.person(photo) for photo in range(len(self.data.names))]
        return linked_people(self.data.names, self.data.index, self.data.same)

    def shards(self, stage: Stage, before: Shards | None = None) -> Shards:
        """Returns the shards of a stage; ``before`` are those of an earlier stage that read the same photos."""
        batch = self.config.micro_batch
        return Shards(self.store, stage, batch, batch * self.config.shard, before)

    def face(self, photo: int) -> Face:
        """Returns a photo as the network's input.

        Raises:
            FileNotFoundError, ValueError: it cannot be read, or shows no single face.
        """
        raw, config = self.data.photo(photo), self.config
        image = fit_to_spec(raw, self.network.spec, when=config.align, face=config.face).image  # type: ignore[arg-type]
        return Face(image, self.data.sha256(photo))

    def why(self, shards: Shards) -> str:
        """Returns, for messages, one photo that a stage could not read, with the reason."""
        return next((f"{self.data.names[photo]}: {reason}" for photo, reason in shards.failed().items()), "none")


def opened_work(config: Config, base: Path, folder: Path, model: FaceModel | None, device: str | None) -> RunContext:
    """Opens the data set and the network, and selects the photos to enrol and to measure.

    Args:
        config: what to measure.
        base: folder that the paths in the configuration are relative to.
        folder: of the run.
        model: instead of the configuration's.
        device: where to put the network; None: where it is.

    Raises:
        ValueError, FileNotFoundError: nothing to measure, a gallery that is unexpected or missing, no such device.
    """
    data = opened(base / config.data, None if config.images is None else base / config.images)
    network = zoo.by_name(config.model) if model is None else model
    if device is not None:
        try:
            network.net.to(device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"cannot use the device {device!r}: {told(error)}") from error
    network.outputs(network.noise(1))  # what a network returns is known after its first pass
    joined, probes, enrolled = _divided(config, data, network, base)
    return RunContext(config, joined, network, Store(folder / "shards"), probes, enrolled, data.identities is not None)


def _divided(
    config: Config, data: DataSet, network: FaceModel, base: Path
) -> tuple[DataSet, Sequence[int], Sequence[int]]:
    """Returns all photos, those to measure, and those to enrol."""
    if data.index is not None:
        return data.first_pairs(config.limit), (), ()
    photos = range(len(data.names))
    if network.gives_logits:
        if config.gallery is not None:
            raise ValueError("this network has classes of its own: leave gallery out")
        return data, photos[: config.limit], ()
    if config.gallery is not None:
        joined = _with_gallery(data, base / config.gallery)
        return joined, photos[: config.limit], range(len(photos), len(joined.names))
    if data.identities is None:
        raise ValueError("these photos have no people to enrol; name a gallery, a folder NAME/*.jpg")
    enrolled: list[int] = []
    probes: list[int] = []
    seen = dict.fromkeys(data.identities, 0)
    for photo, person in enumerate(data.identities):
        (enrolled if person and seen[person] < config.enrol else probes).append(photo)
        seen[person] += 1
    if not probes:
        raise ValueError(f"no person has more than the {config.enrol} photos that are enrolled; pass a smaller enrol")
    return data, probes[: config.limit], enrolled


def _with_gallery(data: DataSet, folder: Path) -> DataSet:
    people = opened(folder, None)
    if people.identities is None:
        raise ValueError(f"{folder} is no gallery; expected NAME/*.jpg, one folder per person")
    own = ["" for _ in data.names] if data.identities is None else list(data.identities)
    names = [*data.names, *(f"gallery/{name}" for name in people.names)]
    return DataSet([*data.sources, *people.sources], names, [*own, *people.identities])
