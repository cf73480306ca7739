"""How often do tests of spectral bias reject where groups cannot differ, and do they find a planted difference?

Photos of random patterns, one per person, through a small random network. People are split at random into two groups,
again and again, and pairs are formed within the groups by several designs. ``pair_bias`` permutes people and computes
the pairs that they then form; ``bias`` with both people of every row permutes people together with all whom pairs link
to them, and has no p-value where too few such parts are left. "First person only" takes rows for rows about the first
person, which is wrong for pairs. The planted difference: the patterns of the second group lie in finer bands.
"""

from __future__ import annotations

import numpy as np
import torch
from common import arguments, keep_rows, kept_rows, report
from torch import nn

from facexai import FaceModel, FrequencyHeatPlot, InputSpec, functional, metrics

SIZE, PEOPLE = 24, 20
DESIGNS = (
    "all ordered",
    "i < j",
    "three partners",
    "one random partner",
    "disjoint",
    "reused partner",
    "unequal groups",
)
COLUMNS = ["pairs", "splits", "pair_bias", "bias, both people", "tested", "first person only"]
COLUMNS += ["planted, pair_bias p", "planted, bias p"]


def patterns(low: float, high: float, count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 3, H, W) random patterns of the bands from ``low`` up to ``high``, of equal contrast, on some noise."""
    layout = functional.bands((SIZE, SIZE))
    noise = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    kept = (layout.cells >= low) & (layout.cells < high)
    images = torch.fft.irfft2(torch.fft.rfft2(noise) * kept, s=(SIZE, SIZE))
    images = images / images.flatten(1).std(1)[:, None, None, None]
    return (0.5 + 0.1 * images + 0.03 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def network() -> FaceModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(800, 32))
    return FaceModel(net.eval().requires_grad_(False), InputSpec(SIZE))


def paired(kind: str, people: np.ndarray, drawn: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs within one group, in a random order of its people."""
    order, count = drawn.permutation(people).tolist(), len(people)
    if kind in ("all ordered", "unequal groups"):
        return [(i, j) for i in order for j in order if i != j]
    if kind == "i < j":
        return [(i, j) for a, i in enumerate(order) for j in order[a + 1 :]]
    if kind == "three partners":
        return [(i, order[(a + k) % count]) for a, i in enumerate(order) for k in (1, 2, 3)]
    if kind == "one random partner":
        return [(i, int(drawn.choice([j for j in order if j != i]))) for i in order]
    if kind == "disjoint":
        return [(order[a], order[a + 1]) for a in range(0, count - 1, 2)]
    return [(i, order[0]) for i in order[1:]]


class Tested:
    """The three tests of one set of photos."""

    def __init__(self, photos: torch.Tensor, draws: int) -> None:
        self.explainer = FrequencyHeatPlot(MODEL, width=4, masked="both")
        self.evidence, self.draws = self.explainer.observe(photos), draws
        count = len(photos)
        rows = [self.explainer.answer(self.evidence[i : i + 1], self.evidence) for i in range(count)]
        self.rows = torch.cat([heat.influence for heat in rows]).double().numpy().reshape(count, count, -1)
        self.names = [f"p{i:02}" for i in range(count)]

    def p_values(self, kind: str, first: np.ndarray, seed: int) -> list[float | None]:
        """Of both people permuted with pairs computed again, of rows with both people, and of rows with the first."""
        drawn = np.random.default_rng([seed, DESIGNS.index(kind)])
        groups = np.where(first, "a", "b")
        index = np.array([pair for group in "ab" for pair in paired(kind, np.flatnonzero(groups == group), drawn)])
        common = {"draws": self.draws, "seed": seed}
        exact = metrics.pair_bias(
            self.explainer, self.evidence, index, groups.tolist(), identities=self.names, **common
        )
        rows, labels = self.rows[index[:, 0], index[:, 1]], groups[index[:, 0]].tolist()
        one, other = ([self.names[i] for i in side] for side in index.T)
        both = metrics.bias(rows, labels, identities=one, partners=other, **common)
        try:
            lone = metrics.bias(rows, labels, identities=one, **common).p_value
        except ValueError:  # one first person in a group
            lone = None
        return [exact.p_value, both.p_value, lone]


MODEL = network()


def rejections(kind: str, splits: int, draws: int) -> dict:
    """The share of random splits with p <= .05, over as many sets of photos as there are hundreds of splits."""
    p_values = []
    for at in range(splits):
        if at % 100 == 0:
            tested = Tested(patterns(2, 10, PEOPLE, torch.Generator().manual_seed(at)), draws)
        size = 6 if kind == "unequal groups" else PEOPLE // 2
        first = np.isin(np.arange(PEOPLE), np.random.default_rng(at).permutation(PEOPLE)[:size])
        p_values.append(tested.p_values(kind, first, at))
    exact, both, lone = ([p for p in column if p is not None] for column in zip(*p_values, strict=True))
    shares = [float(np.mean(np.array(column) <= 0.05)) if column else None for column in (exact, both, lone)]
    return {
        "pair_bias": shares[0],
        "bias, both people": shares[1],
        "tested": len(both) / splits,
        "first person only": shares[2],
    }


def planted(kind: str, draws: int) -> dict:
    """p of a difference that is there."""
    size = 6 if kind == "unequal groups" else PEOPLE // 2
    generator = torch.Generator().manual_seed(1)
    photos = torch.cat([patterns(2, 5, size, generator), patterns(7, 10, PEOPLE - size, generator)])
    exact, both, _ = Tested(photos, draws).p_values(kind, np.arange(PEOPLE) < size, 0)
    return {"planted, pair_bias p": exact, "planted, bias p": both}


def sentences(rows: list[dict]) -> list[str]:
    exact, lone = ([r[name] for r in rows if r[name] is not None] for name in ("pair_bias", "first person only"))
    both = [r["bias, both people"] for r in rows if r["bias, both people"] is not None]
    strongest = max(r["planted, pair_bias p"] for r in rows)
    return [
        f"pair_bias rejects at .05 in {100 * min(exact):.1f} to {100 * max(exact):.1f} % of the splits of {len(rows)} "
        f"designs; the planted difference is found with p at most {strongest:.3f}.",
        f"bias with both people of each row rejects in {100 * min(both):.1f} to {100 * max(both):.1f} % of the splits "
        f"that it tests; the first person only: {100 * min(lone):.1f} to {100 * max(lone):.1f} %.",
    ]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--splits", type=int, default=1000, help="of each design; default: 1000")
    parser.add_argument("--draws", type=int, default=199, help="permutations of each test; default: 199")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = {"splits": options.splits, "draws": options.draws, "people": PEOPLE}
    rows = kept_rows(options.json, settings)
    for kind in DESIGNS[len(rows) :]:
        rows.append(
            {
                "pairs": kind,
                "splits": options.splits,
                **rejections(kind, options.splits, options.draws),
                **planted(kind, 999),
            }
        )
        print(rows[-1], flush=True)
        keep_rows(options.json, settings, rows)
    report(options, rows, "scipy", columns=COLUMNS, sentences=sentences(rows), settings=settings)


if __name__ == "__main__":
    main()
