"""What each method cannot tell, for those who read a report without the documentation."""

from __future__ import annotations

from typing import Any

GENERAL = (
    "A map says where the network's score comes from. It does not say that the network is right.",
    "A map that its controls equal tells no more than they do: the centre of the picture finds any aligned face.",
    "A few photos illustrate; they evaluate nothing. Intervals and p-values stand where enough was measured.",
    "Colours lie half over the grey photo: read values with the pointer or the arrow keys, not from the colour.",
    "Regions of the face are ellipses around the landmarks that photos are aligned to, not this face's own outline.",
)
"""Of every report."""

_LIMITS: dict[str, tuple[str, ...]] = {
    "CAM": (
        "Exact: cells and constant add up to the score. Its cells are few, and it says nothing about earlier layers.",
    ),
    "HiResCAM": (
        "Exact where everything behind the layer is affine, elsewhere first order: the farther from the head, the less "
        "the cells add up to.",
    ),
    "GradCAM": ("Averages gradients over the map, which discards where a channel matters; shows no evidence against.",),
    "GradCAMPlusPlus": ("As Grad-CAM; depends on the scale of the score.",),
    "LayerCAM": ("Counts positive gradients only: what speaks against the person is invisible.",),
    "ScoreCAM": ("The network never saw faces through smooth black masks; the weights follow the scale of the score.",),
    "SDD": (
        "Compares with the rivals that were enrolled, and with no others. The power makes the map narrow, not truer.",
        "Its formula is reconstructed from published text and figures.",
    ),
    "FGGB": (
        "Gradients of single pixels; where a map has one sign everywhere its shape says little about the pair.",
        "Details of the method are reconstructed.",
    ),
    "XSSAB": ("Gradients of two scores. Where a map has one sign everywhere its shape says little about the pair.",),
    "CorrRISE": ("A sample of random masks: another seed gives a slightly different map. Details are reconstructed.",),
    "PairCAM": (
        "What a cell matched is what adds to the cosine together with it, not what a person would call alike.",
    ),
    "FrequencyHeatPlot": (
        "A face without a band of frequencies is a picture that the network never saw. Bands hold unequal energy.",
        "Details of the method are reconstructed.",
    ),
    "captum": (
        "A baseline of captum's: what its own documentation says holds.",
        "Gradients of pixels are noisy, and a magnitude has no sign.",
    ),
    "FastDiME": (
        "Edits look like the denoiser's training data. What it could not draw was not tried.",
        "Without a control that edits nothing, a difference may be the denoiser's reconstruction.",
    ),
}

_FINDINGS: dict[str, tuple[str, ...]] = {
    "groups": (
        "Differences between groups also come from their photos: compare the energy-matched distance.",
        "Distances are too small where groups differ, the more so the fewer the people: compare groups of equal size.",
    ),
    "shortcut": ("Strong shortcuts are told, weak ones hardly: a difference near that of the control proves nothing.",),
    "roc": ("Rates hold for pairs like these; rates below one over the number of impostor pairs cannot be measured.",),
    "table": ("Controls that mark a fixed place are hard to beat on aligned faces; look at them before the best row.",),
}


FINDINGS = {"groups": "groups of people", "shortcut": "shortcut audits", "roc": "error rates", "table": "tables"}
"""How the kinds of findings are called."""


def limits(section: dict[str, Any]) -> list[dict[str, Any]]:
    """The limits of the methods and of the kind of finding of one section's record."""
    told = []
    for name, said in _LIMITS.items():
        if any(_names(method, name) for method in (str(section["method"]), *_methods(section["recipe"]))):
            told.append({"about": name, "limits": list(said)})
    if section["kind"] in _FINDINGS:
        told.append({"about": FINDINGS[section["kind"]], "limits": list(_FINDINGS[section["kind"]])})
    return told


def _names(method: str, name: str) -> bool:
    return method == name or method.startswith((f"{name}(", f"{name} ")) or f"({name})" in method


def _methods(recipe: Any) -> list[str]:
    """Of the explainers of a run."""
    held = recipe.get("explainers") if isinstance(recipe, dict) else None
    found = held.values() if isinstance(held, dict) else ()
    return [str(one["method"]) for one in found if isinstance(one, dict) and "method" in one]
