"""A closed-set classifier of people on top of any face embedder: trained here, explained as any other network.

python examples/studies/finetune_classifier.py FACES --out trained     # FACES/NAME/*.jpg; pip install "facexai[demo]"

The recipe of Shadman et al. 2025 (arXiv:2505.03837): every person's photos split 80/10/10, cross-entropy, AdamW with
learning rate .005, a tenth of it after 10 of 20 epochs. Their text names no augmentation and no early stopping, so
there is none: the weights are those of the last epoch. One linear layer takes what ``FaceModel.features`` gives, the
raw embedding, not normalised, less the model's centre where it has one. Where the embedder ends in affine layers, CAM
folds them with it and is exact: ``CAM(load("trained"))(faces)``. FaceNet divides by the length: HiResCAM explains it.

``--train head`` freezes the embedder and computes embeddings once. ``--train all`` trains the whole network, in eval
mode: batches of so few photos would replace batch-norm statistics by noise, dropout stays off, and what is trained is
what is explained. Give it a smaller --lr: steps of .005 destroy dlib's network, whose weights are about .01; 1e-5
trains it. The same command goes on after the last complete epoch and ends with the same bits (on a CPU with the same
number of threads; on a GPU only with ``torch.use_deterministic_algorithms``).
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from checkpoint import keep, resume
from torch import Tensor, nn

from facexai import FaceModel, InputSpec, images, zoo
from facexai.functional import at_least_float32
from facexai.io import output_folder, write_csv, write_json, write_whole
from facexai.models import load_weights
from facexai.models.outputs import Take, select

Pairs = list[tuple[Path, str]]  # photo, identity


@dataclass(frozen=True)
class Recipe:
    """Every option that changes the weights; ``model`` is a name of the zoo or package.module:factory."""

    model: str = "dlib-resnet29"
    align: str = "auto"
    train: str = "head"
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or not 0 < self.lr <= 1:
            raise ValueError("expected at least one epoch, at least one photo per batch and a learning rate in (0, 1]")


class Classifier(nn.Module):
    """Logits ``head(embedder(x) - center)`` of people, as one module."""

    def __init__(self, net: nn.Module, head: nn.Linear, center: Tensor | None = None, take: Take | None = None) -> None:
        super().__init__()
        self.embedder, self.take, self.center, self.head = net, take, nn.Identity(), head
        if center is not None:  # a batch norm that does nothing but subtract, exactly, is a module that CAM folds
            self.center = nn.BatchNorm1d(len(center), eps=0.0, affine=False).to(head.weight).eval()
            self.center.running_mean.copy_(center)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.center(at_least_float32(select(self.embedder(x), self.take, len(x)))))


def read(folder: Path, spec: InputSpec, align: str) -> tuple[dict[str, list[Path]], dict[Path, Tensor]]:
    """Everybody's usable photos, and their faces (3, H, W) in 8 bits; says which photos and people are left out."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}, expected one sub-folder of photos per person")
    photos: dict[str, list[Path]] = {p.name: [] for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] != "."}
    faces, lost = {}, 0
    for path in (path for name in photos for path in images.photo_files(folder / name)):
        photo = None
        try:
            photo = images.load(path)
            face = images.fit_to_spec(photo, spec, when=align, face="largest").image[0]
        except (ValueError, OSError) as error:
            if photo is not None and align == "never":  # not one bad photo, but photos of another size
                raise ValueError(f"{path}: {error}") from error
            print(f"left out {error if photo is None else f'{path}: {error}'}")
            lost += 1
        else:
            photos[path.parent.name].append(path)
            faces[path] = (face * 255).round().to(torch.uint8)  # where nothing was aligned, the very pixels of the file
    few = [name for name, paths in photos.items() if len(paths) < 3]
    if lost or few:
        print(f"left out {lost} photos, and people with fewer than 3 usable photos: {', '.join(few) or 'none'}")
    if len(photos) - len(few) < 2:
        raise ValueError(f"{folder}: expected two people with 3 usable photos or more, found {len(photos) - len(few)}")
    return {name: paths for name, paths in photos.items() if name not in few}, faces


def split(photos: Mapping[str, Sequence[Path]], seed: int) -> dict[str, Pairs]:
    """Each person's photos 80/10/10, at least one in every part, whoever else is there."""
    parts: dict[str, Pairs] = {"train": [], "validation": [], "test": []}
    for name, paths in sorted(photos.items()):
        if len(paths) < 3:
            raise ValueError(f"{name!r} has {len(paths)} photos, expected one each to train, validate and test on")
        order = sorted(paths)
        random.Random(f"{seed}/{name}").shuffle(order)
        held = max(1, round(len(order) / 10))
        for part, chosen in zip(parts, (order[2 * held :], order[:held], order[held : 2 * held]), strict=True):
            parts[part] += [(path, name) for path in chosen]
    return parts


def assemble(model: FaceModel, names: Sequence[str], recipe: Recipe) -> FaceModel:
    """The untrained classifier; where all of it will be trained, around a copy, since the embedder is its owner's."""
    if model.flip is not None or model.forward_kwargs or model.gives_logits:
        raise ValueError("expected a model that gives embeddings, without flip and forward_kwargs")
    with torch.no_grad():
        features = model.features(model.outputs(model.noise(1)))
    head = nn.utils.skip_init(nn.Linear, features.shape[1], len(names), dtype=features.dtype)
    numbers, bound = torch.Generator().manual_seed(recipe.seed), features.shape[1] ** -0.5
    for weights in head.parameters():  # as nn.Linear draws them, but not from the global random state
        nn.init.uniform_(weights, -bound, bound, generator=numbers)
    core = copy.deepcopy(model.core).eval().requires_grad_(True) if recipe.train == "all" else model.core
    net = Classifier(core, head.to(features.device), model.center, model.took)
    return FaceModel(net, model.spec, output="logits", names=names)


def embeddings(model: FaceModel, faces: Mapping[Path, Tensor], size: int) -> dict[Path, Tensor]:
    """What the linear layer takes, of every photo, in batches: a frozen embedder runs here and never again."""
    paths, found = list(faces), {}
    for batch in (paths[i : i + size] for i in range(0, len(paths), size)):
        with torch.no_grad():
            pixels = torch.stack([faces[path] for path in batch]).to(model.device).float() / 255
            found |= zip(batch, model.features(model.outputs(pixels)), strict=True)
    return found


def run_epoch(
    classifier: FaceModel, inputs: Mapping[Path, Tensor], pairs: Pairs, size: int, optimizer: Any = None
) -> dict[str, float]:
    """Mean loss and accuracy of batches of that size; with an optimizer, as they were when they were trained on."""
    net, spec, loss, right = classifier.net, classifier.spec, 0.0, 0  # what is trained of it is in eval mode
    for batch in (pairs[i : i + size] for i in range(0, len(pairs), size)):
        x = torch.stack([inputs[path] for path, _ in batch]).to(classifier.device)
        labels = torch.tensor([classifier.names.index(name) for _, name in batch], device=classifier.device)
        with torch.set_grad_enabled(optimizer is not None):
            logits = net.head(x) if x.ndim == 2 else net(spec.prepare(x.float() / 255).to(classifier.dtype))
            mean = F.cross_entropy(logits, labels)
        if not math.isfinite(mean.item()):
            raise ValueError("the loss is no longer finite: train into another folder, with a smaller --lr")
        if optimizer is not None:
            optimizer.zero_grad()
            mean.backward()
            optimizer.step()
        loss, right = loss + mean.item() * len(batch), right + int((logits.argmax(1) == labels).sum())
    return {"loss": loss / len(pairs), "accuracy": right / len(pairs)}


def train(
    model: FaceModel, faces: Mapping[Path, Tensor], parts: Mapping[str, Pairs], out: Path, recipe: Recipe
) -> FaceModel:
    """The classifier after the last epoch, also written into the folder ``out``, where a run that was stopped goes on.

    ``faces`` are those of :func:`read`, ``parts`` those of :func:`split`; the model is left as it is.
    """
    faces = {path: faces[path] for pairs in parts.values() for path, _ in pairs}
    names, photos = sorted({name for _, name in parts["train"]}), hashlib.sha256()
    for path, name in (pair for pairs in parts.values() for pair in pairs):
        photos.update(f"{name}/{path.name}".encode(errors="surrogateescape") + faces[path].numpy().tobytes())
    facts = {"embedder": model.fingerprint, "spec": repr(model.spec), "photos": photos.hexdigest()[:16]}
    facts |= asdict(recipe)
    classifier = assemble(model, names, recipe)
    learned = classifier.net if recipe.train == "all" else classifier.net.head
    optimizer = torch.optim.AdamW(learned.parameters(), lr=recipe.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.1)
    stateful = {"weights": learned, "optimizer": optimizer, "scheduler": scheduler}
    history = resume(out / "checkpoint.pt", facts, stateful, "history") or []
    out.mkdir(parents=True, exist_ok=True)
    (out / "classifier.json").unlink(missing_ok=True)  # is written last: a folder that has one is complete
    size, inputs = recipe.batch_size, faces if recipe.train == "all" else embeddings(model, faces, recipe.batch_size)
    for epoch in range(len(history) + 1, recipe.epochs + 1):
        order = list(parts["train"])
        random.Random(f"{recipe.seed}/{epoch}").shuffle(order)  # by the epoch alone, so that a run can go on with it
        trained = run_epoch(classifier, inputs, order, size, optimizer)
        validated = run_epoch(classifier, inputs, parts["validation"], size)
        scheduler.step()
        history.append({"epoch": epoch, "train": trained, "validation": validated})
        best = max(history, key=lambda row: row["validation"]["accuracy"])
        keep(out / "checkpoint.pt", facts, stateful, epoch=epoch, history=history, best=best)
        print(f"epoch {epoch}: loss {trained['loss']:.3f}, validation accuracy {validated['accuracy']:.2%}")
    weights = {name: tensor.detach().cpu().clone() for name, tensor in learned.state_dict().items()}
    write_whole(out / "classifier.safetensors", lambda file: file.write(safetensors.torch.save(weights)))
    write_json(out / "history.json", {"epochs": history, "test": run_epoch(classifier, inputs, parts["test"], size)})
    for part, pairs in parts.items():
        write_part(out / f"{part}.csv", pairs)
    write_json(out / "classifier.json", {"names": names, "recipe": facts})
    return classifier


def write_part(path: Path, pairs: Pairs) -> None:
    """One part, its paths relative to the folder of people: those of one machine mean nothing on another."""
    write_csv(path, ["image", "identity"], [(f"{photo.parent.name}/{photo.name}", name) for photo, name in pairs])


def load(folder: str | Path) -> FaceModel:
    """The classifier that :func:`train` left in a folder, on the embedder that its recipe names."""
    folder = Path(folder)
    if not (folder / "classifier.json").is_file():
        raise FileNotFoundError(f"no classifier in {folder}; if training was stopped, the same command goes on with it")
    stored = json.loads((folder / "classifier.json").read_text("utf-8"))
    recipe = Recipe(**{field.name: stored["recipe"][field.name] for field in fields(Recipe)})
    model = zoo.by_name(recipe.model)
    fact, found = ("embedder", model.fingerprint) if recipe.train == "head" else ("spec", repr(model.spec))
    if found != stored["recipe"][fact]:
        raise ValueError(
            f"{recipe.model} is another network now ({fact} {found}) than the classifier in {folder} was trained on "
            f"({stored['recipe'][fact]}); train again"
        )
    classifier = assemble(model, stored["names"], recipe)
    load_weights(classifier.net if recipe.train == "all" else classifier.net.head, folder / "classifier.safetensors")
    return classifier


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, split, train, and say how often the classifier is right about photos that it never saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, metavar="FACES", help="folder NAME/*.jpg, at least 3 photos of everybody")
    parser.add_argument("--out", type=Path, required=True, help="folder for classifier, history, parts and checkpoint")
    parser.add_argument("--model", default=Recipe.model, help="of 'facexai models', or package.module:factory")
    when = "find and align faces; auto: in photos that do not have the model's size"
    parser.add_argument("--align", choices=("auto", "always", "never"), default=Recipe.align, help=when)
    parser.add_argument("--train", choices=("head", "all"), default=Recipe.train, help="the linear layer, or all")
    for option, kind in (("epochs", int), ("batch-size", int), ("lr", float), ("seed", int)):
        default = getattr(Recipe, option.replace("-", "_"))
        parser.add_argument(f"--{option}", type=kind, default=default, help=f"default: {default}")
    options = parser.parse_args(arguments)
    try:
        recipe = Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})
        out, model = output_folder(options.out), zoo.by_name(recipe.model)
        photos, faces = read(options.faces, model.spec, recipe.align)
        classifier = train(model, faces, split(photos, recipe.seed), out, recipe)
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from None
    test = json.loads((out / "history.json").read_text())["test"]
    print(
        f"test accuracy {test['accuracy']:.2%}, {len(classifier.names)} people; now CAM or HiResCAM(load({str(out)!r}))"
    )


if __name__ == "__main__":
    main()
