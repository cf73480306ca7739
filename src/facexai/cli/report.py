"""``facexai report``: one page that an auditor can open and keep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facexai._photo_names import photo_names
from facexai.cli.shared import DEFAULT_MODEL, face, model, photo_arguments, scale, show

if TYPE_CHECKING:
    from facexai.images import Aligned
    from facexai.models import FaceModel
    from facexai.report import Section


def add(commands: Any) -> None:
    """Adds the command's arguments."""
    report = commands.add_parser(
        "report",
        help="one page that says what was decided, why, and whether the explanation is true",
        description="One self-contained page and the same numbers as JSON: from folders that other commands wrote "
        "(several make one report), from photos and --gallery, or from two photos.",
    )
    report.add_argument("inputs", nargs="+", type=Path, metavar="RUN|IMAGE", help="folders of commands, or photos")
    report.add_argument("--out", type=Path, required=True, help="folder for report.html and report.json")
    report.add_argument("--gallery", type=Path, help="of photos: folder with one sub-folder of photos per person")
    report.add_argument("--photos", type=Path, help="of folders: where the photos are that their reports name")
    report.add_argument(
        "--model", help=f"a name of 'facexai models', or package.module:factory; default: {DEFAULT_MODEL}"
    )
    report.add_argument(
        "--scale",
        type=scale,
        help="of the gallery: logits per unit of cosine, or 'calibrated'; default: calibrated where somebody has two "
        "photos, else 64",
    )
    report.add_argument(
        "--threshold", type=float, help="cosine from which a pair is accepted; default: that of the runs"
    )
    report.add_argument("--threshold-source", help="where the threshold is from, in your words")
    report.add_argument("--title", help="of the page")
    report.add_argument("--items", type=int, default=12, metavar="N", help="most photos of a section; default: 12")
    report.add_argument("--seed", type=int, default=0, help="of random controls and masks; default: 0")
    photo_arguments(report)
    report.add_argument("--json", action="store_true", help="print report.json instead of a line")
    report.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from facexai import io, report
    from facexai._errors import require
    from facexai.report.from_folders import sections_of
    from facexai.report.page import free

    require("jinja2", extra="report", purpose="writing a report")
    require("matplotlib", extra="report", purpose="writing a report")
    io.output_folder(options.out)
    if options.items < 1:
        raise ValueError(f"expected --items of at least 1, got {options.items}")
    folders, photos = _inputs(options)
    network = _network(folders, photos, options)
    shown = _Photos(network, options)
    found = {path: sections_of(path, shown, options.items) for path in folders}
    shown.check()
    limit, source = _threshold(found, _networks(found, network, asked=bool(photos)), options)
    sections: dict[str, Section] = {}
    known: Any = network
    if photos:
        known, made = _of_photos(photos, network, limit, options)
        sections |= made
    for path, own in found.items():
        for heading, section in own.items():
            sections[free(heading if heading not in sections else f"{heading} ({path.name})", sections)] = section
    page = report.build(
        sections,
        model=known,
        **({} if options.title is None else {"title": options.title}),
        threshold=limit,
        threshold_source=source,
        items=options.items,
    )
    page.save(options.out)
    show(page.record, f"{page!r}  -> {options.out / 'report.html'}", as_json=options.json)
    return 0


def _inputs(options: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Makes the sections of folders and of photos.

    Raises:
        ValueError: neither, or an option that would be ignored.
    """
    from facexai.report.from_folders import is_run

    if gone := next((path for path in options.inputs if not path.exists()), None):
        raise ValueError(f"no file or folder {gone}")
    folders = [path for path in options.inputs if path.is_dir()]
    photos = [path for path in options.inputs if not path.is_dir()]
    if known := next((path for path in photos if is_run(path.parent) and path.suffix == ".json"), None):
        raise ValueError(f"{known} is a file of a command; give its folder, {known.parent}")
    if odd := next((path for path in folders if not is_run(path)), None):
        raise ValueError(f"{odd} is no folder that a command wrote (explain, compare, verify, evaluate, ...)")
    for name in ("gallery", "scale") if not photos else ("scale",) if options.gallery is None else ():
        if getattr(options, name) is not None:
            of = "photos, and there are none" if not photos else "--gallery, and there is none"
            raise ValueError(f"--{name} belongs to {of}")
    if options.photos is not None and not options.photos.is_dir():
        raise ValueError(f"--photos {options.photos} is no folder")
    if options.photos is not None and not folders:
        raise ValueError("--photos belongs to folders of commands, and there are none")
    return folders, photos


def _threshold(
    sections: dict[Path, dict[str, Section]], networks: set[str | None], options: argparse.Namespace
) -> tuple[float | None, str | None]:
    """Returns the given threshold, else that of the folders' pairs, else one that a folder has for these networks."""
    from facexai.report.from_folders import decided_with, threshold_of

    source = options.threshold_source
    if options.threshold is not None:
        return options.threshold, source
    if any(decided_with(path) is not None for path in sections):
        return None, source
    thresholds = [threshold for path in sections if (threshold := threshold_of(path)) is not None]
    fitting = [threshold for threshold in thresholds if networks <= {threshold.network}]
    if thresholds and not fitting:
        _say(f"{thresholds[0].path.name}: this threshold is not used: some decisions here are of another network")
    # the threshold of an audit is about its groups
    fitting = [threshold for threshold in fitting if threshold.path.name == "verify.json"] or fitting
    if len({threshold.value for threshold in fitting}) > 1 and networks:
        values = ", ".join(f"{threshold.value!r} in {threshold.path}" for threshold in fitting)
        raise ValueError(f"several thresholds for one network: {values}; pass --threshold")
    if len({(threshold.value, threshold.network) for threshold in fitting}) != 1:
        return None, source
    return fitting[0].value, fitting[0].where if source is None else f"{source} ({fitting[0].where})"


def _networks(found: dict[Path, dict[str, Section]], network: FaceModel | None, *, asked: bool) -> set[str | None]:
    """Returns fingerprints of the networks that decide on the page; ``asked``: the network decides about photos."""
    from facexai.report.thresholds import networks_behind

    own = None if network is None else network.fingerprint
    results = [section.result for sections in found.values() for section in sections.values()]
    return {*networks_behind(results, own), *([own] if asked else [])}


def _say(step: str) -> None:
    print(f"report: {step}", file=sys.stderr)


def _network(folders: list[Path], photos: list[Path], options: argparse.Namespace) -> FaceModel | None:
    """Returns the network of the report; for folders the default one only if it alone made them."""
    from facexai.report.from_folders import networks_of

    if options.model is not None or photos:
        return model(options.model or DEFAULT_MODEL)
    fingerprints = {fingerprint for folder in folders for fingerprint in networks_of(folder)}
    if len(fingerprints) != 1:
        return None
    try:
        network = model(DEFAULT_MODEL)
    except ImportError:
        return None
    return network if {network.fingerprint} == fingerprints else None


def _of_photos(
    photos: list[Path], network: FaceModel | None, limit: float | None, options: argparse.Namespace
) -> tuple[Any, dict[str, Section]]:
    import torch

    from facexai.report.from_images import MOST_PHOTOS, enrolled_photo, of_pair, of_people

    assert network is not None
    if len(photos) > MOST_PHOTOS:
        raise ValueError(f"{len(photos)} photos, a report takes {MOST_PHOTOS}; 'facexai evaluate' takes data sets")
    if options.gallery is None and len(photos) != 2:
        count = "one photo" if len(photos) == 1 else f"{len(photos)} photos"
        raise ValueError(f"{count} without --gallery: give two photos to compare, or a gallery of people")
    faces = torch.cat([face(path, network, options).image.to(network.device) for path in photos])
    called = photo_names(photos)
    how = {"when": options.align, "face": options.face}
    if options.gallery is None:
        pair = (called[0], called[1])
        sections = of_pair(faces[:1], faces[1:], pair, network, threshold=limit, seed=options.seed, say=_say)
        return network, sections
    choices = {"align": options.align, "face": options.face, "scale": _scale(options)}
    people = network.gallery(options.gallery, **choices, progress=sys.stderr.isatty())
    if len(people) < 2:
        raise ValueError(f"{options.gallery} holds one person; a report about who is in a photo needs at least two")
    enrolled = enrolled_photo(options.gallery, network, **how)
    return people, of_people(faces, called, people, enrolled, threshold=limit, seed=options.seed, say=_say)


def _scale(options: argparse.Namespace) -> float | str:
    """Returns the gallery's scale: calibrated where possible, since probabilities saturate at 64."""
    from facexai.images.files import people_folders

    if options.scale is not None:
        return options.scale  # type: ignore[no-any-return]
    people = people_folders(options.gallery) if options.gallery.is_dir() else {}
    return "calibrated" if any(len(photos) > 1 for photos in people.values()) else 64.0


class _Photos:
    """Finds photos of ``--photos`` by name; ``asked`` is True once a photo was requested."""

    def __init__(self, network: FaceModel | None, options: argparse.Namespace) -> None:
        self.network, self.options, self.asked = network, options, False

    def __call__(self, name: str, how: Mapping[str, Any], sha256: str) -> Aligned | None:
        """Returns a photo by its name, which comes from a file and must not lead out of the folder of photos."""
        from facexai import images, io

        folder: Path | None = self.options.photos
        self.asked = True
        if folder is None or self.network is None:
            return None
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise FileNotFoundError("no such photo in --photos")
        if io.sha256_of(path) != sha256:
            raise ValueError("the photo of this name in --photos is another one than that which was explained")
        chosen = {"when": self.options.align, "face": self.options.face} | dict(how)
        return images.fit_to_spec(images.load(path), self.network.spec, **chosen)

    def check(self) -> None:
        """Refuses ``--photos`` where it would be ignored."""
        if self.options.photos is not None and not self.asked:
            raise ValueError("--photos: none of the folders has maps of photos")
        if self.options.photos is not None and self.network is None:
            raise ValueError("--photos needs --model, the one network that made all of this")
