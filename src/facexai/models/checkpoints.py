"""Loads weights from a checkpoint file into a network, after checking them. Nothing in the file is ever executed."""

from __future__ import annotations

import itertools
import re
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from facexai._errors import suggest, truncate, warn
from facexai.models._pickle_guard import TORCHSCRIPT, checked
from facexai.models._weight_fit import Fit, weights_among
from facexai.models._weight_fit import fit as fit_of
from facexai.models._weight_values import beyond_range, check_initialised, few, tied_to, unfit, unwritable
from facexai.models.outputs import describe

PREFIXES = ("module.", "model.", "backbone.", "net.", "encoder.", "features.", "_orig_mod.")
"""What wrappers and training code write before the names of weights."""

_PLACES = ("", "state_dict", "model_state_dict", "model", "net", "network", "backbone", "encoder", "weights")
_AVERAGES = ("ema", "average", "teacher", "swa")  # where a smoothed copy of the weights is kept
_DEPTH = 3  # dictionaries in dictionaries
_MOST_PLACES = 10_000  # dictionaries that are looked into; a small file can hold one in another a thousand times
_SHOWN = 4  # names in an error
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch's old format begins
_STRANGERS = (
    ((b"version https://git-lfs",), "it is a Git LFS pointer, not the file: git lfs pull"),
    ((b"<!", b"<h", b"<H", b"<?"), "it is a web page, perhaps a download that asked for a click"),
    ((b"\x89HDF",), "it is an HDF5 file of another library"),
    ((b"\x08",), "it looks like an ONNX network: FaceModel.from_callable takes a session of it"),
)


@final
@dataclass(frozen=True, eq=False)
class Loaded:
    """The result of :func:`load_weights`.

    Attributes:
        path: the file.
        key: where in the file the weights were: ``"state_dict"``, ``"model.state_dict"``, ``""`` for the file itself.
        prefix: the prefix of their names that was removed.
        names: of the network's weights that were set.
        missing: of the network's weights that are not in the file and stay as they were; only without ``strict``. A
            further name of a tied weight that was set is not missing.
        rest: tensors of the file that the network has no place for, by their names in the file, such as the class
            weights of a margin head: ``model.gallery(loaded.rest["head.kernel"])``.
    """

    path: Path
    key: str
    prefix: str
    names: tuple[str, ...]
    missing: tuple[str, ...] = ()
    rest: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        lost = f"; missing: {few(self.missing)}" if self.missing else ""
        rest = [f"{name!r} {tuple(tensor.shape)}" for name, tensor in self.rest.items()]
        more = f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else ""
        left = f"; rest: {', '.join(rest[:_SHOWN])}{more}" if rest else ""
        return f"Loaded({len(self.names)} weights of {_source(self.path, self.key, self.prefix)}{lost}{left})"


def load_weights(
    net: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    key: str | None = None,
    prefixes: Sequence[str] = PREFIXES,
) -> Loaded:
    """Loads the weights of a checkpoint file into a network: all that fit, or none.

    The dictionary of weights is found in the file by its names, and prefixes of wrappers are removed, in the
    way that makes most names agree. Nothing is copied before every name, shape, type and range has been checked, and
    nothing is chosen silently: several sets of weights that fit are named, and none is loaded unless one is selected.

    Args:
        net: the network, on any device and of any floating type; weights are cast to it.
        path: a file of safetensors, or of ``torch.save`` if it holds nothing but tensors and plain values.
        strict: refuse weights that are missing in the file, and weights in the file for modules that the network has
            in another depth. Tensors of modules that it has not, such as a margin head, never disturb.
        key: which dictionary of the file, such as ``"ema"``, where several fit.
        prefixes: prefixes of the names, each one or several times. If weights occur under several prefixes,
            such as a student's and a teacher's, those under the first of these that fits are taken; with the default
            they are refused unless they are equal. ``""`` means names without a prefix.

    Returns:
        :class:`Loaded`, with the tensors that were left over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder; an empty, truncated or unknown file; one that would have to be unpickled, which could
            run any code; names, shapes or types that do not fit, all of them in one message; finite values that the
            network's type cannot hold, such as 1e30 in float16; values that differ although the network ties their
            names; a network with lazy modules that have not run, or on the meta device; several sets of weights under
            several prefixes. The network stays as it was.

    Source: ours.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> net, path = nn.Sequential(nn.Linear(2, 2)), Path(folder.name, "epoch9.pt")
    >>> weights = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    >>> torch.save({"epoch": 9, "state_dict": {**weights, "head.kernel": torch.ones(2, 5)}}, path)
    >>> load_weights(net, path)
    Loaded(2 weights of 'epoch9.pt' ('state_dict', without 'module.'); rest: 'head.kernel' (2, 5))
    >>> folder.cleanup()
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"expected a torch.nn.Module, got {type(net).__name__}; of a FaceModel it is model.net")
    file = Path(path)
    places = places_in(file)
    wanted = {name: t for name, t in net.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    check_initialised(type(net).__name__, wanted)
    chains, ordered = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes), prefixes is not PREFIXES
    fits = {place: fit_of(wanted, t, chains, strict=strict, ordered=ordered) for place, t in places.items()}
    where = _chosen(fits, file, key)
    fit, tensors = fits[where], places[where]
    _check_single(fit, file, where)
    found = {name: tensors[fit.names[name]] for name in wanted if name in fit.names}
    absent = weights_among(name for name in wanted if name not in found)
    tied = tied_to(absent, wanted, found)
    missing = tuple(name for name in absent if name not in tied)
    _check(net, wanted, found, missing, fit if strict else None, tensors, _source(file, where, fit.prefix))
    _copy(net, found)
    used = {fit.names[name] for name in found}
    rest = {name: tensor for name, tensor in tensors.items() if name not in used}
    for place in (p for p in places if p != where and not fits[p].twin(places[p]) and not p.startswith("optim")):
        rest |= {f"{place}.{name}": tensor for name, tensor in places[place].items()}
    return Loaded(file, where, fit.prefix, tuple(found), missing, rest)


# ---- the file ---------------------------------------------------------------------------------------------------


def places_in(file: Path) -> dict[str, dict[str, Tensor]]:
    """Returns every dictionary of tensors in a file of weights, by the keys that lead to it; nothing is unpickled.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_weights`.
    """
    return _places(_read(_existing(file)), file)


def _existing(path: Path) -> Path:
    """Returns the path, if there is a file with something in it."""
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())
        hint = suggest(path.name, inside) if inside else "there is no file in it"
        raise ValueError(f"{str(path)!r} is a folder, expected a checkpoint; name the file in it; {hint}")
    if not path.exists():
        beside = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if path.parent.is_dir() else []
        hint = f"; {suggest(path.name, beside)}" if beside else ""
        raise FileNotFoundError(f"there is no file {str(path)!r}{hint}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name!r} is empty; copy or download it again")
    return path


def _read(path: Path) -> Any:
    """Returns the content of the file: tensors and plain values, in dictionaries."""
    with path.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(b"PK"):
        return _read_torch(path)
    known = next((told for signs, told in _STRANGERS if start.startswith(signs)), None)
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and known is None):
        return _read_safetensors(path)
    if start.startswith(b"\x80") and _LEGACY in start and not tarfile.is_tarfile(path):
        return _read_torch(path)
    if start.startswith(b"\x80"):
        raise ValueError(_refusal(path, "a pickle"))
    raise ValueError(f"{path.name!r} is not a checkpoint: {known or 'it is neither safetensors nor of torch.save'}")


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.load_file(str(path), device="cpu")
    except Exception as error:  # of a type of safetensors' own
        told = truncate(error)
        raise ValueError(f"{path.name!r} cannot be read ({told}): truncated? copy or download it again") from None


def _read_torch(path: Path) -> Any:
    """Returns a file of ``torch.save``, by the reader that builds tensors and plain values only."""
    # older versions of torch run it in spite of weights_only
    if any(name.endswith(TORCHSCRIPT) for name in checked(path)):
        raise ValueError(f"{path.name!r} is a TorchScript archive, a network and no checkpoint: torch.jit.load it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the storage types of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling, runtime, end of file, key: whatever a broken file provokes
        known = re.search(r"GLOBAL ([\w.]+)", str(error))
        if known and not known[1].startswith("torch._"):  # a name of torch's own that it does not know is a broken one
            raise ValueError(_refusal(path, f"{truncate(known[1], 80)} beside its tensors")) from None
        told = truncate((str(error) or type(error).__name__).splitlines()[0].split(". ")[0])
        raise ValueError(
            f"{path.name!r} cannot be read as a checkpoint of torch.save ({told}): truncated, or another kind of file? "
            "copy or download it again"
        ) from None


def _refusal(path: Path, what: str) -> str:
    return (
        f"{path.name!r} holds {what}: to read it, it would have to be unpickled, which runs whatever code the file "
        "holds, so facexai does not. If you trust its source, convert it once where its own code is: "
        f"torch.save(torch.load({path.name!r}, weights_only=False)['state_dict'], 'weights.pt'), "
        "or .state_dict() if it is a whole network"
    )


def _places(content: Any, path: Path) -> dict[str, dict[str, Tensor]]:
    """Returns every dictionary of the file that holds tensors by name, by the keys that lead to it,
    likely ones first.
    """
    found: dict[str, dict[str, Tensor]] = {}
    seen = itertools.count(1)

    def visit(value: Any, way: tuple[str, ...]) -> None:
        if not isinstance(value, Mapping) or len(way) > _DEPTH:
            return
        if next(seen) > _MOST_PLACES:
            raise ValueError(f"{path.name!r} holds more than {_MOST_PLACES} dictionaries, expected a state dict")
        named = {name: item for name, item in value.items() if isinstance(name, str)}
        tensors = {name: item for name, item in named.items() if isinstance(item, Tensor)}
        if tensors:
            found[".".join(way)] = tensors
        for name, item in named.items():
            visit(item, (*way, name))

    visit(content, ())
    if not found:
        raise ValueError(f"{path.name!r} holds {describe(content)}, expected names with tensors, a state dict")
    return {key: found[key] for key in sorted(found, key=_likely)}


def _likely(key: str) -> tuple[bool, int]:
    """Sorts usual names first and averages last; the others keep the order of the file."""
    first = key.split(".")[0]
    return any(word in key for word in _AVERAGES), _PLACES.index(first) if first in _PLACES else len(_PLACES)


# ---- the fit ----------------------------------------------------------------------------------------------------


def _chosen(fits: Mapping[str, Fit], path: Path, key: str | None) -> str:
    """Returns the place with the most matching names; of equal ones the first, with a warning."""
    if key is not None:
        if key not in fits:
            raise ValueError(f"{path.name!r} has no tensors under {key!r}; {suggest(key, fits)}")
        return key
    best = max(fits, key=lambda place: fits[place].score)
    equal = [place for place in fits if fits[place].score == fits[best].score]
    if len(equal) > 1 and fits[best].score[0] > 0:
        warn(f"{path.name!r} holds weights that fit under {few(equal)}; took {best!r}. Say key={best!r} to agree")
    return best


def _check_single(fit: Fit, path: Path, key: str) -> None:
    """Refuses several copies of the network's weights if none was selected."""
    if not fit.copies:
        return
    several = sorted((fit, *fit.copies), key=lambda copy: copy.rank)
    raise ValueError(
        f"{_source(path, key, '')} holds weights that fit in {len(several)} ways: "
        f"{'; '.join(copy.described for copy in several)}; nothing was loaded. Pass the one to take: "
        f"{' or '.join(f'prefixes={copy.argument}' for copy in several)}"
    )


def _check(
    net: nn.Module,
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    missing: Sequence[str],
    fit: Fit | None,
    tensors: Mapping[str, Tensor],
    source: str,
) -> None:
    """Refuses weights that do not fit, in one message; with a fit also names that only one side has.

    Raises:
        ValueError: one line for each kind of thing that does not fit.
    """
    lines = [*([] if fit is None else _one_sided(wanted, missing, fit)), *unfit(wanted, found)]
    if not found:
        lines = [f"it has {few(list(tensors))}; {type(net).__name__} has {few(list(wanted))}"]
        lines.append("does something else stand before the names? prefixes= takes it away")
    elif lines:
        advice = "is the network of that depth, width and embedding size? strict=False takes the names that both have"
        lines.append(advice)
    lines += [*beyond_range(wanted, found), *unwritable(wanted, found)]
    if lines:
        told = "\n  ".join(lines)
        agree = f"of whose {len(wanted)} names it has {len(found)}; nothing was loaded"
        raise ValueError(f"{source} does not fit {type(net).__name__}, {agree}:\n  {told}")


def _one_sided(wanted: Mapping[str, Tensor], missing: Sequence[str], fit: Fit) -> list[str]:
    """Returns lines about names that are missing in the file, and about those that the network
    lacks in a module it has.
    """
    lines = []
    spare = [name for name in fit.names if name not in wanted]
    if missing:
        hint = f"; {suggest(missing[0], spare)}" if spare else ""
        lines.append(f"{len(missing)} missing in the file: {few(missing)}{hint}")
    if own := _inside(wanted, spare, fit.around):
        lines.append(f"{len(own)} more in the file: {few(own)}")
    return lines


def _inside(wanted: Mapping[str, Tensor], spare: Sequence[str], around: str) -> list[str]:
    """Returns those of the spare names that belong to a module which the network has, but with fewer layers."""
    modules = {name.removeprefix(around).split(".")[0] for name in wanted if "." in name.removeprefix(around)}
    return [n for n in spare if n.startswith(around) and n.removeprefix(around).split(".")[0] in modules]


def _copy(net: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Copies values by the network's own loading, and restores the old ones if that fails half way."""
    state = {name: tensor for name, tensor in net.state_dict().items() if isinstance(tensor, Tensor)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.inference_mode(False), torch.no_grad():
        try:
            net.load_state_dict(dict(found), strict=False)
        except BaseException:
            for name, tensor in state.items():
                tensor.copy_(before[name])
            raise


def _source(path: Path, key: str, prefix: str) -> str:
    parts = [repr(key)] if key else []
    parts += [f"without {prefix!r}"] if prefix else []
    return repr(path.name) + (f" ({', '.join(parts)})" if parts else "")
