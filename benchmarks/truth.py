"""Is any map true? Every method and every baseline against every control, black and blurred fill, with intervals."""

from __future__ import annotations

import warnings

import torch
from common import arguments, networks, people, report, split

from facexai import CAM, SDD, FaceXAIWarning, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, baselines, metrics

BASELINES = {
    "Saliency": {},
    "InputXGradient": {},
    "IntegratedGradients": {"n_steps": 16},
    "DeepLift": {},
    "GuidedBackprop": {},
    "GuidedGradCam": {},
    "Occlusion": {},
    "Lime": {"n_samples": 200},
}
COLUMNS = [
    "network",
    "fill",
    "map",
    "deletion",
    "deletion, 95 %",
    "random",
    "centre",
    "mean-map",
    "other-image",
    "retention",
    "retention, 95 %",
    "retention, centre",
    "cosine lost",
    "changed, %",
    "half of the mass",
]
NAMES = {"random": "its own region moved at random", "centre": "the centre prior", "other-image": "another photo's map"}
CONTROLS = ("random", "centre", "mean-map", "other-image")


def methods(gallery):
    """Name -> explainer, ours first; without baselines whose rule finds no activation module to change."""
    ours = {"CAM": CAM(gallery), "HiResCAM": HiResCAM(gallery), "Grad-CAM": GradCAM(gallery)}
    ours["Grad-CAM, cosine"] = GradCAM(gallery, similarity="cosine")
    ours |= {f"SDD({name})": SDD(base) for name, base in list(ours.items())[:3]}
    ours |= {"Grad-CAM++": GradCAMPlusPlus(gallery), "LayerCAM": LayerCAM(gallery)}
    for name, options in BASELINES.items():
        rules = baselines.RULES.get(name, ())
        if not rules or any(isinstance(module, rules) for module in gallery.model.net.modules()):
            ours[f"captum {name}"] = baselines.captum(name, gallery, **options)
    return ours


def measure(network, name, why, gallery, probes, identities, fill):
    """One row of the table."""
    gone = metrics.deletion(gallery, probes, why, fill=fill, identities=identities)
    kept = metrics.retention(gallery, probes, why, fill=fill, identities=identities)
    low, high = gone.interval
    row = {"network": network, "fill": fill, "map": name, "deletion": gone.drop}
    row["deletion, 95 %"] = f"{low:.1f} to {high:.1f}"
    row |= {"retention": kept.drop, "retention, 95 %": "{:.1f} to {:.1f}".format(*kept.interval)}
    row |= {"cosine lost": gone.score_drop, "changed, %": 100 * gone.changed, "specificity": gone.specificity}
    for control in CONTROLS:
        p, other = gone.p_value(control), gone.controls[control].drop
        row[control] = other
        row[f"beats {control}"] = bool(gone.drop > other and p < 0.05)
        row[f"p {control}"] = p
    row["retention, centre"] = kept.controls["centre"].drop
    row["half of the mass"] = metrics.narrowness(why).half_mass.mean
    return row


def sentences(rows, facts):
    """Who beats what, in plain words, from the rows alone."""
    said = []
    for network, fact in facts.items():
        said.append(
            f"{network}: layer {fact['layer']!r}, calibrated scale {fact['scale']:.1f}, {fact['probes']} probes, "
            f"rank-1 {fact['rank-1']:.3f}. Regions of the top five classes overlap by "
            f"{fact['overlap of class maps']:.2f} (IoU), after SDD by {fact['overlap after SDD']:.2f}."
        )
        for fill in ("black", "blur"):
            mine = [r for r in rows if (r["network"], r["fill"]) == (network, fill)]
            for control in ("random", "centre", "other-image"):
                winners = [r["map"] for r in mine if r[f"beats {control}"]]
                told = ", ".join(winners) if winners else "nobody"
                said.append(
                    f"{network}, {fill} fill, deletion: more than {NAMES[control]} (p < .05, uncorrected): {told}."
                )
            centre = mine[0]["retention, centre"]
            better = [r["map"] for r in mine if r["retention"] < centre]
            told = ", ".join(better) if better else "nobody"
            said.append(
                f"{network}, {fill} fill, retention: mean below the centre prior's {centre:.1f} (not tested): {told}."
            )
            pairs = [(r["map"][4:-1], r) for r in mine if r["map"].startswith("SDD(")]
            base = {r["map"]: r["deletion"] for r in mine}
            more = [f"{r['map']} {r['deletion']:.1f} against {base[name]:.1f}" for name, r in pairs]
            said.append(f"{network}, {fill} fill, deletion of SDD against its base, means: {', '.join(more)}.")
    return said


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--probes", type=int, default=2, help="photos per person; default: 2")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", FaceXAIWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="captum")
    photos, rows, facts = people(options.faces), [], {}
    for network, model in networks(options).items():
        gallery, probes, identities = split(photos, model, options.probes)
        truth = torch.tensor([gallery.index(name) for name in identities])
        right = float((gallery.logits(probes).argmax(1) == truth).double().mean())
        facts[network] = {"scale": gallery.scale, "rank-1": right, "probes": len(probes), "layer": model.layer("auto")}
        sdd = SDD(HiResCAM(gallery))(probes)
        overlap = metrics.class_overlap(sdd, identities=identities)
        facts[network] |= {"overlap of class maps": overlap.before.mean, "overlap after SDD": overlap.after.mean}
        for name, explainer in methods(gallery).items():
            why = explainer(probes)
            for fill in ("black", "blur"):
                rows.append(measure(network, name, why, gallery, probes, identities, fill))
                print(
                    {k: rows[-1][k] for k in ("network", "fill", "map", "deletion", "retention", "centre")}, flush=True
                )
    report(
        options,
        rows,
        "scipy",
        "captum",
        columns=COLUMNS,
        sentences=sentences(rows, facts),
        facts=facts,
        probes_per_person=options.probes,
        area=0.2,
    )


if __name__ == "__main__":
    main()
