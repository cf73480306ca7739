"""Frequency heat plots: what they cost against a loop over bands, and how near the fast modes are to the exact one.

The naive loop transforms the whole plane for every band, takes the band out, transforms back and embeds one image; the
partner is embedded once. For many pairs it is timed on 20 of them and scaled. Agreement is over pairs of photos, half
of them genuine; the control, zero fill, has hybrid's exact bands and zeros for the others.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, faces, interleaved, networks, people, report

from facexai import FaceXAIWarning, FrequencyHeatPlot

COLUMNS = ["network", "task", "s", "in forward passes", "times as fast as naive", "Pearson", "Spearman", "top 5"]
COLUMNS += ["relative L1"]
MEASURES = {"pearson": "Pearson", "spearman": "Spearman", "top": "top 5", "relative_l1": "relative L1"}


def rings(size):
    """Ring of every coefficient around the middle of the shifted transform."""
    y, x = (torch.arange(n) - n // 2 for n in size)
    return torch.hypot(y[:, None].double() * size[1] / size[0], x[None].double()).round(decimals=9).floor().long()


def embed(model, images):
    return F.normalize(model.features(model.outputs(images, in_range=False)))


def naive(model, first, second):
    """One band at a time, one pair at a time."""
    index = rings(model.spec.height_width)
    rows = []
    with torch.no_grad():
        for image, partner in zip(first.split(1), second.split(1), strict=True):
            other = embed(model, partner)[0]
            base = embed(model, image)[0] @ other
            row = []
            for band in range(int(index.max()) + 1):
                shifted = torch.fft.fftshift(torch.fft.fft2(image), dim=(-2, -1))
                held = torch.fft.ifft2(torch.fft.ifftshift(shifted * (index == band), dim=(-2, -1))).real
                row.append(base - embed(model, image - held)[0] @ other)
            rows.append(torch.stack(row))
    return torch.stack(rows)


def pairs_of(photos, count):
    """(count, 2) places in a list of two photos per person: half genuine, half of neighbours."""
    drawn = np.random.default_rng(0)
    genuine = [(2 * i, 2 * i + 1) for i in range(photos // 2)]
    impostor = [(2 * i, (2 * i + 3) % photos) for i in range(photos // 2)]
    half = count // 2
    chosen = [[kind[i] for i in drawn.permutation(len(kind))[:half]] for kind in (genuine, impostor)]
    return torch.tensor(chosen[0] + chosen[1])


def one_pair(name, model, images, rounds):
    """Rows of one pair in every mode."""
    first, second = images[:1], images[1:2]
    modes = {mode: FrequencyHeatPlot(model, mode=mode) for mode in ("exact", "hybrid", "preview")}
    apart = float((modes["exact"](first, second).influence - naive(model, first, second)).abs().max())
    assert apart < 1e-4, f"exact and the naive loop differ by {apart:.1e}"
    tasks = {"naive loop, one pair": lambda: naive(model, first, second)}
    tasks |= {f"facexai {mode}, one pair": lambda e=explainer: e(first, second) for mode, explainer in modes.items()}
    with torch.no_grad():
        model.structure  # noqa: B018  (the first look at a network is not what is measured)
        forward = interleaved({"x": lambda: model.outputs(first)}, rounds=15)["x"]
    seconds = interleaved(tasks, rounds=rounds)
    base = seconds["naive loop, one pair"]
    return [row(name, task, s, s / forward, base / s) for task, s in seconds.items()]


def row(name, task, seconds=None, forwards=None, faster=None, **measures):
    made = {"network": name, "task": task, "s": seconds, "in forward passes": forwards}
    return {**dict.fromkeys(COLUMNS), **made, "times as fast as naive": faster, **measures}


def many_pairs(name, model, images, options):
    """Rows of many pairs of few images; the naive loop is timed on some of them and scaled."""
    drawn = np.random.default_rng(1)
    count = len(images)
    index = torch.from_numpy(np.stack([drawn.choice(count, 2, replace=False) for _ in range(options.pairs)]))
    timed = index[: options.timed]
    start = time.perf_counter()
    expected = naive(model, images[timed[:, 0]], images[timed[:, 1]])
    slow = (time.perf_counter() - start) * options.pairs / len(timed)
    explainer = FrequencyHeatPlot(model)
    start = time.perf_counter()
    seen = explainer.observe(images)
    found = torch.cat([explainer.answer(seen[i : i + 1], seen[j : j + 1]).influence for i, j in index.tolist()])
    fast = time.perf_counter() - start
    apart = float((found[: len(timed)] - expected).abs().max())
    assert apart < 1e-4, f"exact and the naive loop differ by {apart:.1e}"
    what = f"{options.pairs} pairs of {count} images"
    return [
        row(name, f"naive loop, {what} ({len(timed)} timed, scaled)", slow, faster=1.0),
        row(name, f"facexai exact, {what}", fast, faster=slow / fast),
    ]


def agreement(rows, name, model, images, count):
    """Adds the agreement of the fast modes to their rows, and the control."""
    index = pairs_of(len(images), count)
    table = FrequencyHeatPlot(model).compare_modes(images[index[:, 0]], images[index[:, 1]])
    for mode, values in table.means.items():
        told = {MEASURES[measure]: value for measure, value in values.items()}
        task = f"facexai {mode}, one pair" if mode != "zero fill" else "zero fill (control)"
        own = next((r for r in rows if (r["network"], r["task"]) == (name, task)), None)
        if own is None:
            rows.append(row(name, task, **told))
        else:
            own |= told


def sentences(rows, options):
    told = []
    for name in dict.fromkeys(r["network"] for r in rows):
        own = {r["task"]: r for r in rows if r["network"] == name}
        many = next(r for task, r in own.items() if task.startswith("facexai exact,") and "images" in task)
        exact, hybrid = own["facexai exact, one pair"], own["facexai hybrid, one pair"]
        data_set, zero = f"{options.pairs} pairs of {options.images} images", own["zero fill (control)"]
        told.append(
            f"{name}: exact {exact['times as fast as naive']:.3g} times as fast as the naive loop for one pair, "
            f"{many['times as fast as naive']:.3g} times for {data_set}; hybrid at {hybrid['s'] / exact['s']:.2f} of "
            f"exact's time, relative L1 {hybrid['relative L1']:.2f}, top 5 {hybrid['top 5']:.2f} over {options.agree} "
            f"pairs (zero fill {zero['relative L1']:.2f}); preview "
            f"{own['facexai preview, one pair']['in forward passes']:.1f} forward passes."
        )
    return told


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=100, help="of the data set; default: 100")
    parser.add_argument("--pairs", type=int, default=1000, help="of the data set; default: 1000")
    parser.add_argument("--timed", type=int, default=20, help="pairs that the naive loop is timed on; default: 20")
    parser.add_argument("--agree", type=int, default=60, help="pairs for the agreement of modes; default: 60")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    photos = people(options.faces)
    each = -(-options.images // len(photos))
    paths = [path for own in photos.values() for path in own[:each]][: options.images]
    two = [path for own in photos.values() for path in own[:2]]
    if len(paths) < options.images or len(two) // 2 < options.agree // 2:
        raise SystemExit(f"expected {options.images} photos and {options.agree // 2} people with two, there are fewer")
    rows = []
    for name, model in networks(options).items():
        pairs = faces(two, model)
        rows += one_pair(name, model, pairs, options.rounds)
        agreement(rows, name, model, pairs, options.agree)
        rows += many_pairs(name, model, faces(paths, model), options)
        report(options, rows, columns=COLUMNS, sentences=sentences(rows, options), rounds=options.rounds)


if __name__ == "__main__":
    main()
