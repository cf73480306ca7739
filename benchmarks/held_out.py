"""Do the sentences about classes hold for people on whom nothing was chosen? Paired differences, drawn by person."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from common import arguments, networks, people, report, split

from facexai import CAM, SDD, CorrRISE, FaceXAIWarning, Gallery, GradCAM, HiResCAM, metrics
from facexai.metrics import Drop, Statistic

BASES = {"CAM": CAM, "HiResCAM": HiResCAM, "Grad-CAM": GradCAM}
SCHEMES = {"deletion": metrics.deletion, "retention": metrics.retention}
ELSEWHERE = {"random": "its own region elsewhere", "centre": "the centre of the picture"}


def explainers(gallery: Gallery, masks: int) -> dict[str, Any]:
    """Bases, SDD over each of them and CorrRISE."""
    bases = {name: make(gallery) for name, make in BASES.items()}
    return {
        **bases,
        **{f"SDD({name})": SDD(base) for name, base in bases.items()},
        "CorrRISE": CorrRISE(gallery, count=masks),
    }


def compared(name: str, mine: Drop, against: str, other: Drop, scheme: str) -> dict[str, Any]:
    """By how many points the first is better: more lost in deletion, less in retention."""
    sign = 1 if scheme == "deletion" else -1
    gain = Statistic.of(
        sign * (mine.probability.values - other.probability.values),
        items=mine.probability.items,
        identities=mine.probability.identities,
    )
    low, high = gain.interval
    row = {"map": name, "lost": mine.drop, "against": against, "lost there": other.drop, "better by": gain.mean}
    sure = "better" if low > 0 else "worse" if high < 0 else "not decided"
    ratio = mine.drop / other.drop if scheme == "deletion" and other.drop > 0 else None
    return row | {"95 %": f"{low:.1f} to {high:.1f}", "verdict": sure, "ratio": ratio}


def rows_of(drops: dict[str, Drop], scheme: str) -> list[dict[str, Any]]:
    """Every map against its controls, SDD against its base."""
    rows = []
    for name, drop in drops.items():
        if name.startswith("SDD("):
            rows.append(compared(name, drop, "its base", drops[name[4:-1]], scheme))
        rows += [compared(name, drop, text, drop.controls[key], scheme) for key, text in ELSEWHERE.items()]
    return rows


def sentences(rows: list[dict[str, Any]], facts: dict[str, Any]) -> list[str]:
    """What held and what did not, from the rows alone."""
    texts = [
        f"{network}: layer {fact['layer']!r}, calibrated scale {fact['scale']:.1f}, {fact['people']} people, "
        f"{fact['probes']} probes, rank-1 {fact['rank-1']:.3f}."
        for network, fact in facts.items()
    ]
    for name, against in dict.fromkeys((row["map"], row["against"]) for row in rows):
        cells = [row for row in rows if (row["map"], row["against"]) == (name, against)]
        for scheme in SCHEMES:
            counts = by_verdict([row for row in cells if row["scheme"] == scheme])
            texts.append(f"{name} against {against}, {scheme}, points: {'; '.join(counts)}.")
    return texts


def by_verdict(cells: list[dict[str, Any]]) -> list[str]:
    """The networks and fills of each verdict that was given, in words."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "not decided": []}
    for row in cells:
        found[row["verdict"]].append(f"{row['network']} {row['fill']} ({row['better by']:+.1f}, {row['95 %']})")
    return [f"{verdict}: {', '.join(some)}" for verdict, some in found.items() if some]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=40, help="the first that have enough photos; default: 40")
    parser.add_argument("--probes", type=int, default=2, help="photos per person; default: 2")
    parser.add_argument("--masks", type=int, default=500, help="of CorrRISE; default: 500")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    many = {name: photos for name, photos in people(options.faces).items() if len(photos) >= 8 + options.probes}
    photos, rows, facts = dict(list(many.items())[: options.people]), [], {}
    for network, model in networks(options).items():
        gallery, probes, identities = split(photos, model, options.probes)
        truth = torch.tensor([gallery.index(name) for name in identities])
        right = float((gallery.logits(probes).argmax(1) == truth).double().mean())
        facts[network] = {"scale": gallery.scale, "rank-1": right, "layer": model.layer("auto")}
        facts[network] |= {"people": len(photos), "probes": len(probes)}
        maps = {name: explainer(probes) for name, explainer in explainers(gallery, options.masks).items()}
        for fill in ("black", "blur"):
            for scheme, metric in SCHEMES.items():
                drops = {
                    name: metric(gallery, probes, why, fill=fill, identities=identities) for name, why in maps.items()
                }
                where = {"network": network, "fill": fill, "scheme": scheme}
                rows += [where | row for row in rows_of(drops, scheme)]
                print(network, fill, scheme, flush=True)
    report(
        options,
        rows,
        "scipy",
        sentences=sentences(rows, facts),
        facts=facts,
        probes_per_person=options.probes,
        masks=options.masks,
        area=0.2,
    )


if __name__ == "__main__":
    main()
