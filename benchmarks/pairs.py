"""Why two faces match: what the first pair and every further partner cost, against the recipes written literally.

FGGB's loop runs one backward pass for each number of the embedding, as the paper says it, with parameters that require
gradients (as published implementations leave them) and without. xSSAB's recipe embeds both faces anew for each of its
four gradients: 12 forward and 4 backward passes. CorrRISE's embeds all masked copies again for each partner. All give
the maps of both faces, and the maps are checked against ours. The verified copy is that of ``models.accelerate``: norms
are folded, so that no gradient passes through them.
"""

from __future__ import annotations

import time
import warnings

import torch
import torch.nn.functional as F
from common import arguments, interleaved, networks, report

from facexai import FGGB, XSSAB, CorrRISE, FaceXAIWarning, functional, perturb
from facexai.explainers import jacobian
from facexai.models import accelerate

THRESHOLD = 0.3
PARTNERS = 32


def embed(model, x):
    return F.normalize(model.features(model.outputs(x)))


def literal_fggb(model, first, second):
    """A backward pass per number of the embedding, for both faces."""
    maps = []
    for image, partner in ((first, second), (second, first)):
        x = image.clone().requires_grad_()
        f = embed(model, x)
        with torch.no_grad():
            weights = f * embed(model, partner) - THRESHOLD / f.shape[1]
        total = torch.zeros(image.shape[-2:])
        for k in range(f.shape[1]):
            x.grad = None
            f[0, k].backward(retain_graph=True)
            size = x.grad[0].abs().sum(0)
            total += size / (size.norm() + 1e-8) * weights[0, k]
        maps.append(total)
    model.net.zero_grad(set_to_none=True)
    return torch.stack(maps)


def literal_xssab(model, first, second):
    """Three forward passes for each of the four gradients."""
    maps = []
    for image, partner in ((first, second), (second, first)):
        parts = []
        for sign in (True, False):
            with torch.no_grad():
                other = embed(model, partner)
                agree = embed(model, image) * other
                mask = (agree >= THRESHOLD / agree.shape[1]) == sign
            x = image.clone().requires_grad_()
            (embed(model, x) * mask * other).sum().backward()
            parts.append(x.grad[0].abs().mean(0))
        maps.append(parts[0] - parts[1])
    model.net.zero_grad(set_to_none=True)
    return torch.stack(maps)


def literal_corrrise(model, first, second, masks, chunk):
    """All masked copies of both faces embedded for this one pair."""
    maps = []
    with torch.no_grad():
        for image, partner in ((first, second), (second, first)):
            other = embed(model, partner)[0]
            scores = torch.cat([embed(model, image * part[:, None]) @ other for part in torch.split(masks, chunk)])
            ranked = functional.ranks(scores)
            maps.append(functional.correlation_maps(functional.centred(masks), ranked, tuple(masks.shape[1:])))
    return torch.stack(maps)


def measure(name, model, rounds):
    """Rows of one network."""
    first, second, more = model.noise(1, seed=1), model.noise(1, seed=2), model.noise(PARTNERS, seed=3)
    size = embed(model, first).shape[1]
    with torch.no_grad():
        model.structure  # noqa: B018  (the first look at a network is not what is measured)
    fggb, xssab = FGGB(model, THRESHOLD), XSSAB(model, THRESHOLD)
    corrrise, fast = CorrRISE(model), accelerate(model, torch.cat([first, second]))
    quick = {"FGGB": FGGB(fast, THRESHOLD), "xSSAB": XSSAB(fast, THRESHOLD)}
    chunk = jacobian.chunk_size(model, "auto")
    masks = perturb.black_patches(corrrise.count, model.spec.height_width)
    forward = forward_seconds(model, first)
    evidence = fggb.observe(first), fggb.observe(more)
    asked = corrrise.observe(first), corrrise.observe(more[:4])

    def with_gradients(wanted, run):
        def task():
            model.net.requires_grad_(wanted)
            return run()

        return task

    tasks = {
        "FGGB, literal loop": with_gradients(True, lambda: literal_fggb(model, first, second)),
        "FGGB, literal loop, frozen weights": with_gradients(False, lambda: literal_fggb(model, first, second)),
        "facexai FGGB, first pair": with_gradients(True, lambda: fggb(first, second).maps[0]),
        "facexai FGGB, first pair, verified copy": lambda: quick["FGGB"](first, second).maps[0],
        "facexai FGGB, further partner": lambda: fggb.answer(evidence[0], evidence[1]).maps,
        "xSSAB, literal recipe": with_gradients(True, lambda: literal_xssab(model, first, second)),
        "facexai xSSAB, pair": with_gradients(True, lambda: xssab(first, second).maps[0]),
        "facexai xSSAB, pair, verified copy": lambda: quick["xSSAB"](first, second).maps[0],
        "CorrRISE, literal recipe": lambda: literal_corrrise(model, first, second, masks, 16),
        "facexai CorrRISE, first pair": lambda: corrrise(first, second).maps[0],
        "facexai CorrRISE, further partner": lambda: corrrise.answer(*asked).maps,
    }
    check(tasks)
    share = {"facexai FGGB, further partner": PARTNERS, "facexai CorrRISE, further partner": 4}
    seconds = {t: s / share.get(t, 1) for t, s in interleaved(tasks, rounds=rounds).items()}
    base = {"network": name, "numbers": size, "chunk": chunk}
    return [base | {"task": t, "s": s, "in forward passes": s / forward} for t, s in seconds.items()]


def forward_seconds(model, image):
    """Median of one forward pass of one image."""
    with torch.no_grad():
        return interleaved({"x": lambda: model.outputs(image)}, rounds=15)["x"]


def check(tasks) -> None:
    """Ours and the literal recipes give the same maps."""
    for ours, theirs, near in (
        ("facexai FGGB, first pair", "FGGB, literal loop", 1e-5),
        ("facexai FGGB, first pair, verified copy", "FGGB, literal loop", 1e-2),  # kinks of clamped activations
        ("facexai xSSAB, pair", "xSSAB, literal recipe", 1e-4),
        (
            "facexai xSSAB, pair, verified copy",
            "xSSAB, literal recipe",
            1e-2,
        ),  # a number near its limit may change side
        ("facexai CorrRISE, first pair", "CorrRISE, literal recipe", 1e-2),  # ranks of nearly equal scores,
    ):
        a, b = tasks[ours](), tasks[theirs]()
        apart = float((a - b).abs().max() / b.abs().max())
        assert apart < near, f"{ours} and {theirs} are {apart:.1e} of the largest value apart"


def sentences(rows):
    """The ratios that matter, from the rows."""
    told = []
    for name in dict.fromkeys(r["network"] for r in rows):
        own = {r["task"]: r for r in rows if r["network"] == name}
        s = {task: row["s"] for task, row in own.items()}
        size, first = own["FGGB, literal loop"]["numbers"], own["facexai FGGB, first pair"]
        ratios = {
            "FGGB's first pair faster than the loop by": s["FGGB, literal loop"] / s["facexai FGGB, first pair"],
            "than the loop with frozen weights by": s["FGGB, literal loop, frozen weights"]
            / s["facexai FGGB, first pair"],
            "on the verified copy by": s["FGGB, literal loop"] / s["facexai FGGB, first pair, verified copy"],
            "a further partner by": s["FGGB, literal loop"] / s["facexai FGGB, further partner"],
            "in forward passes per number": first["in forward passes"] / (2 * size),
            "xSSAB by": s["xSSAB, literal recipe"] / s["facexai xSSAB, pair"],
            "on the verified copy xSSAB by": s["xSSAB, literal recipe"] / s["facexai xSSAB, pair, verified copy"],
            "CorrRISE's further partner by": s["CorrRISE, literal recipe"] / s["facexai CorrRISE, further partner"],
        }
        told.append(f"{name}: " + ", ".join(f"{what} {r:.3g}" for what, r in ratios.items()))
    return told


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    rows, start = [], time.perf_counter()
    for name, model in networks(options).items():
        rows += measure(name, model, options.rounds)
        report(options, rows, rounds=options.rounds, sentences=sentences(rows))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
