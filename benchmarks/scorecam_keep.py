"""Score-CAM with few channels: how near does ``keep=`` come to the exact map, on real photos?

Also how different the three algorithms of that name are on the same photos, from one masked pass; with ``--out`` ten
pictures of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from common import arguments, networks, people, report, split

from facexai import ScoreCAM, perturb, plots
from facexai.metrics.sanity import rank_correlation

KEEP = (16, 32, 64, 128, 256)
WEIGHTS = ("probability", "softmax-probability", "softmax-logit")


def pearson(a, b):
    """Correlation (N,) of maps (N, H, W), as numbers."""
    a, b = (m.flatten(1).double() - m.flatten(1).double().mean(1, keepdim=True) for m in (a, b))
    size = (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)
    return (a * b).sum(1) / size


def top_overlap(a, b, share=0.2):
    """Intersection over union (N,) of the largest fifths of two maps; the same fields break the ties of both."""
    first, second = (perturb.top_area(maps, share) for maps in (a, b))
    return (first & second).flatten(1).sum(1) / (first | second).flatten(1).sum(1)


def row(name, what, maps, exact):
    """One line: how near these maps are to the exact ones."""
    return {
        "network": name,
        "map": what,
        "Pearson": float(pearson(maps, exact).median()),
        "Pearson, least": float(pearson(maps, exact).min()),
        "Spearman": float(torch.as_tensor(rank_correlation(maps, exact)).median()),
        "top 20 %, IoU": float(top_overlap(maps, exact).median()),
    }


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=10, help="photos, one per person; default: 10")
    parser.add_argument("--out", type=Path, help="folder for a picture of each photo, for your own eyes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name, model in networks(options).items():
        gallery, probes, _ = split(people(options.faces), model, 1)
        probes = probes[: options.photos]
        explainer = ScoreCAM(gallery, relu=False)
        evidence = explainer.observe(probes)
        exact = explainer.answer(evidence)
        channels = model.layers[exact.recipe["layer"]][0]
        for keep in [k for k in KEEP if k < channels]:
            maps = ScoreCAM(gallery, keep=keep, relu=False)(probes).maps
            rows.append(row(name, f"keep={keep} of {channels}", maps, exact.maps))
        variants = {w: ScoreCAM(gallery, weights=w).answer(evidence) for w in WEIGHTS}
        for weights in WEIGHTS[1:]:
            rows.append(row(name, f"weights={weights}", variants[weights].maps, variants["probability"].maps))
        if options.out:
            draw(options.out, name, probes, variants)
    report(options, rows, "scipy", photos=options.photos, scale="calibrated")


def draw(out, name, photos, variants) -> None:
    """A picture of each photo with the three maps."""
    out.mkdir(parents=True, exist_ok=True)
    for n, photo in enumerate(photos):
        figure = plots.figure(10.4, 3.0)
        axes = figure.subplots(1, 1 + len(variants))
        plots.photo(axes[0], photo)
        for place, (weights, why) in zip(axes[1:], variants.items(), strict=True):
            plots.overlay(place, photo, why.maps[n], **plots.colours(why.maps[n]))
            place.set_title(f"{weights}: {why.name(int(why.targets[n]))}", fontsize=7)
        plots.save(figure, out / f"{name}_{n}.png")


if __name__ == "__main__":
    main()
