"""Does spectral distance between groups go with their performance gap? Small networks trained at graded imbalance.

Synthetic people: an identity is a random pattern in the band of its group, on a background of other frequencies that
changes from photo to photo. Every network sees another share of the two groups in training and is asked about people
whom it never saw.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import arguments, report
from torch import nn

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, functional, metrics

SIZE = 32
BANDS = {"coarse": (3, 6), "fine": (8, 11)}
COLUMNS = ["coarse people in training", "distance", "95 %", "p", "energy-matched", "p matched"]
COLUMNS += [f"{what} {group}" for what in ("accuracy", "FMR", "FNMR") for group in BANDS] + ["accuracy gap"]


def patterns(count, low, high, generator):
    """(count, 1, H, W), random patterns that hold the rings from ``low`` up to ``high``, of equal contrast."""
    layout = functional.bands((SIZE, SIZE))
    noise = torch.randn(count, 1, SIZE, SIZE, generator=generator)
    kept = (layout.cells >= low) & (layout.cells < high)
    made = torch.fft.irfft2(torch.fft.rfft2(noise) * kept, s=(SIZE, SIZE))
    return made / made.flatten(1).std(1)[:, None, None, None]


def photos(identity, generator):
    """Photos of identities (N, 1, H, W): another background and noise in each."""
    count = len(identity)
    background = patterns(count, 1, 12, generator)
    grey = 0.5 + 0.06 * identity + 0.06 * background + 0.02 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    return grey.clamp(0, 1).expand(-1, 3, -1, -1).contiguous()


def trained(share, people, steps, generator):
    """A network trained on people of whom this share is of the coarse group."""
    counts = {"coarse": round(share * people), "fine": people - round(share * people)}
    identity = torch.cat([patterns(n, *BANDS[group], generator) for group, n in counts.items() if n])
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, 2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 36, 64),
    )
    classes = nn.Parameter(torch.randn(people, 64, generator=generator))
    step = torch.optim.Adam([*net.parameters(), classes], 2e-3)
    for _ in range(steps):
        who = torch.randint(people, (64,), generator=generator)
        logits = 16 * F.normalize(net(photos(identity[who], generator))) @ F.normalize(classes).T
        step.zero_grad()
        F.cross_entropy(logits, who).backward()
        step.step()
    return FaceModel(net.eval().requires_grad_(False), InputSpec(SIZE, mean=0.5, std=0.1))


def test_set(people, generator):
    """Pairs of unseen people, one genuine and one impostor pair of each: photos, index, group, person, same.

    Everybody is on three photos: a probe, its partner in a genuine pair, and the partner of the next person's probe.
    """
    images, group, person, index, same = [], [], [], [], []
    for name, band in BANDS.items():
        identity, start = patterns(people, *band, generator), len(group)
        images.append(photos(identity, generator))
        for side, truth in enumerate((True, False), 1):
            images.append(photos(identity if truth else identity.roll(1, 0), generator))
            index += [(start + i, start + side * people + i) for i in range(people)]
            same += [truth] * people
        group += [name] * 3 * people
        person += [f"{name} {(i - late) % people}" for late in (0, 0, 1) for i in range(people)]
    return torch.cat(images), index, group, person, same


def measured(share, model, test):
    images, index, group, person, same = test
    explainer = FrequencyHeatPlot(model, keep_dc=True)
    found = metrics.pair_bias(explainer, explainer.observe(images), index, group, identities=person, same=same)
    own, matched = found.distances[0], found.matched[0]
    rates = {
        f"{what} {name}": getattr(found.rates[name], field)
        for what, field in (("accuracy", "accuracy"), ("FMR", "fmr"), ("FNMR", "fnmr"))
        for name in BANDS
    }
    return {
        "coarse people in training": share,
        "distance": own.value,
        "95 %": f"{own.interval[0]:.3f} to {own.interval[1]:.3f}",
        "p": own.p_value,
        "energy-matched": matched.value,
        "p matched": matched.p_value,
        **rates,
        "accuracy gap": found.gap("accuracy"),
    }


def sentences(rows):
    gaps = [r["accuracy gap"] for r in rows]
    told = []
    for what in ("distance", "energy-matched"):
        rho, p = metrics.rank_correlation([r[what] for r in rows], gaps)
        told.append(f"Over {len(rows)} networks, {what} and accuracy gap: Spearman {rho:.2f}, p = {p:.3f}.")
    return told


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--people", type=int, default=100, help="in training; default: 100")
    parser.add_argument("--unseen", type=int, default=60, help="of each group, in the test; default: 60")
    parser.add_argument("--steps", type=int, default=400, help="of training; default: 400")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    test, rows = test_set(options.unseen, torch.Generator().manual_seed(1)), []
    for i, share in enumerate((0.02, 0.1, 0.25, 0.4, 0.6, 0.75, 0.9, 0.98)):
        torch.manual_seed(i)
        model = trained(share, options.people, options.steps, torch.Generator().manual_seed(100 + i))
        rows.append(measured(share, model, test))
        print({name: rows[-1][name] for name in COLUMNS}, flush=True)
    report(options, rows, "scipy", columns=COLUMNS, sentences=sentences(rows))


if __name__ == "__main__":
    main()
