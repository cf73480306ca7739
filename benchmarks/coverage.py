"""Do 95 % intervals of pairs cover the truth, and do tests keep their size? Simulated pairs whose truth is known.

Each pair of people has a number: noise of the pair, and with person effects also a number of each of the two people.
"Products" are scalar products of random vectors of the people, which no sum of person effects describes. Every
replicate draws all people anew. The oracle knows the standard deviation of the estimate over all replicates and is 1.96
of them to either side. "First person only" is the interval that takes rows of different first people for independent.
Error rates are those at a threshold at equal error rate, which each replicate estimates from its own pairs.
"""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import torch
from common import arguments, keep_rows, kept_rows, report

from facexai.metrics import Statistic, threshold
from facexai.metrics._group_rates import share_interval

PEOPLE = (42, 14)
EFFECTS = ("none", "of people", "products")
KINDS = ("all ordered", "i < j", "three partners", "disjoint", "all ordered, own too")
COLUMNS = ["measure", "people", "pairs", "person effects", "replicates", "coverage", "width / oracle", "size"]
COLUMNS += ["first person only", "within targets"]


def design(kind: str, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Both people of each pair."""
    pairs = {
        "all ordered": lambda: itertools.permutations(range(people), 2),
        "i < j": lambda: itertools.combinations(range(people), 2),
        "three partners": lambda: ((i, (i + k) % people) for i in range(people) for k in (1, 2, 3)),
        "disjoint": lambda: ((i, i + 1) for i in range(0, people, 2)),
        "all ordered, own too": lambda: itertools.product(range(people), repeat=2),
    }
    first, second = np.array(list(pairs[kind]())).T
    return first, second


def numbers(effects: str, first: np.ndarray, second: np.ndarray, people: int, drawn: np.random.Generator) -> np.ndarray:
    """A number for each pair, of mean 0 over all people."""
    if effects == "products":
        of_people = drawn.normal(size=(people, 8)) / np.sqrt(8)
        return (of_people[first] * of_people[second]).sum(1) - (first == second)
    own = drawn.normal(size=people) * (effects == "of people")
    return own[first] + own[second] + drawn.normal(size=len(first))


def by_first(values: np.ndarray, first: np.ndarray) -> bool:
    """Whether the interval that knows the first person only covers 0."""
    sums = np.bincount(first, values - values.mean())
    return bool(abs(values.mean()) <= 1.959964 * np.sqrt((sums**2).sum()) / len(values))


def row_of(head: dict, estimates: list, intervals: list, truth: float, **more) -> dict:
    low, high = np.array(intervals).T
    oracle = 2 * 1.959964 * np.std(estimates)
    covered = float(((low <= truth) & (truth <= high)).mean())
    row = {
        **head,
        "replicates": len(estimates),
        "coverage": covered,
        "width / oracle": float((high - low).mean() / oracle),
    }
    return {"size": None, "first person only": None, **row, **more}


def of_means(kind: str, people: int, effects: str, replicates: int) -> dict:
    """Means over pairs, and the test that the mean is 0."""
    first, second = design(kind, people)
    names = np.array([f"p{i:02}" for i in range(people)])
    given = {"identities": names[first].tolist(), "partners": names[second].tolist()}
    zero = Statistic.of(np.zeros(len(first)), **given)
    estimates, intervals, rejected, old = [], [], 0, 0
    for k in range(replicates):
        drawn = np.random.default_rng([k, people, KINDS.index(kind), EFFECTS.index(effects)])
        values = numbers(effects, first, second, people, drawn)
        statistic = Statistic.of(values, **given)
        estimates.append(statistic.mean)
        intervals.append(statistic.interval)
        rejected += statistic.p_value(zero) <= 0.05
        old += by_first(values, first)
    head = {"measure": "mean", "people": people, "pairs": kind, "person effects": effects}
    more = {"size": rejected / replicates, "first person only": old / replicates}
    return row_of(head, estimates, intervals, 0.0, **more)


def of_rates(kind: str, people: int, effects: str, replicates: int) -> dict:
    """The share of rejected genuine pairs at the threshold of equal error rate; four genuine pairs of each person."""
    first, second = design(kind, people)
    first, second = (np.concatenate([side, np.repeat(np.arange(people), 4)]) for side in (first, second))
    same = np.arange(len(first)) >= len(first) - 4 * people
    both = tuple(tuple(f"p{i:02}" for i in side) for side in (first, second))
    person = 0.5 * (effects == "of people")
    spread = np.sqrt(1 + 2 * person**2), np.sqrt(1 + 4 * person**2)  # of impostor and of genuine pairs
    truth = NormalDist().cdf(-2 / sum(spread))
    estimates, intervals = [], []
    for k in range(replicates):
        drawn = np.random.default_rng([k, people, KINDS.index(kind), EFFECTS.index(effects), 1])
        own = person * drawn.normal(size=people)
        scores = own[first] + own[second] + drawn.normal(size=len(first)) + 2 * same
        limit = threshold(scores, same, "eer")
        estimates.append(float((scores[same] < limit).mean()))
        intervals.append(share_interval(scores, same, "eer", limit, both, same, wrong=True))
    head = {"measure": "FNMR at EER threshold", "people": people, "pairs": kind, "person effects": effects}
    return row_of(head, estimates, intervals, truth)


def judged(row: dict) -> dict:
    """Whether a row is within .92 to .98 coverage (14 people: .88), 1.25 oracles' widths, and .03 to .07 size at 42."""
    fine = (0.92 if row["people"] == 42 else 0.88) <= row["coverage"] <= 0.98 and row["width / oracle"] <= 1.25
    if row["people"] == 42 and row["size"] is not None:
        fine = fine and 0.03 <= row["size"] <= 0.07
    return {**row, "within targets": bool(fine)}


def sentences(rows: list[dict]) -> list[str]:
    lines = []
    groups = itertools.groupby(rows, lambda row: (row["measure"], row["people"], row["person effects"] == "products"))
    for (measure, people, products), some in groups:
        some = list(some)
        covers, widths = [r["coverage"] for r in some], [r["width / oracle"] for r in some]
        sizes = [r["size"] for r in some if r["size"] is not None]
        size = f", test size {min(sizes):.3f} to {max(sizes):.3f}" if sizes else ""
        lines.append(
            f"{measure}, {people} people, {'products' if products else 'no effects and effects of people'}: coverage "
            f"{min(covers):.3f} to {max(covers):.3f}, width {min(widths):.2f} to {max(widths):.2f} times the oracle's"
            f"{size}; {sum(r['within targets'] for r in some)} of {len(some)} designs are within the targets."
        )
    return lines


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], faces=False)
    parser.add_argument("--replicates", type=int, default=2000, help="of means; default: 2000")
    parser.add_argument("--rates", type=int, default=500, help="replicates of error rates; default: 500")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cells = [
        (of_means, kind, people, effects, options.replicates)
        for people, effects, kind in itertools.product(PEOPLE, EFFECTS, KINDS)
    ]
    cells += [
        (of_rates, kind, people, effects, options.rates)
        for people, effects, kind in itertools.product(PEOPLE, EFFECTS[:2], ("i < j", "disjoint"))
    ]
    settings = {"replicates": options.replicates, "rates": options.rates}
    rows = kept_rows(options.json, settings)
    for measure, *cell in cells[len(rows) :]:
        rows.append(judged(measure(*cell)))
        print({column: rows[-1][column] for column in COLUMNS}, flush=True)
        keep_rows(options.json, settings, rows)
    report(options, rows, "scipy", columns=COLUMNS, sentences=sentences(rows), settings=settings)


if __name__ == "__main__":
    main()
