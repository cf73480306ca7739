"""The figures of the demonstration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from facexai import plots
from facexai.demo.measure import LIMIT, PEOPLE, Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00")  # distinct for colour-blind readers


def portraits(m: Measured) -> Figure:
    """Draws the photo with the detected face, the aligned face, and the map projected onto the photo."""
    figure = plots.figure(8.4, 6.2)
    grid = figure.subplots(2, 3)
    back = [a.warp_back(m.own.maps[i : i + 1])[0] for i, a in enumerate(m.aligned)]
    for i, (person, photo, aligned) in enumerate(zip(PEOPLE, m.photos, m.aligned, strict=True)):
        plots.photo(grid[i, 0], photo[0])
        face = aligned.face
        assert face is not None
        x, y, w, h = face.box
        grid[i, 0].plot([x, x + w, x + w, x, x], [y, y, y + h, y + h, y], color="white", linewidth=1.5)
        grid[i, 0].scatter(*face.landmarks.T, s=9, color="white", edgecolors="black", linewidths=0.5)
        grid[i, 0].set_title(f"{person.name} ({person.rights})", fontsize=9)
        plots.photo(grid[i, 1], aligned.image[0])
        grid[i, 1].set_title("found, aligned, enrolled", fontsize=9)
        plots.overlay(grid[i, 2], photo[0], back[i], **plots.colours(back[i]))
        grid[i, 2].set(xlim=(x - 0.7 * h, x + w + 0.7 * h), ylim=(y + 1.6 * h, y - 0.6 * h))
        grid[i, 2].set_title(f"what speaks for {person.name} in a\nre-lit JPEG copy (HiResCAM)", fontsize=9)
    return figure


def blend(m: Measured) -> Figure:
    """Draws the evidence for each of the two identities in the blend."""
    figure = plots.figure(11.0, 6.0)
    grid = figure.subplots(2, 4)
    distances = m.numbers["blend"]
    for i, person in enumerate(PEOPLE):
        plots.photo(grid[i, 0], m.blend[0])
        grid[i, 0].set_title(
            f"50/50 blend\nis {distances[person.name]:.2f} from {person.name}\n(limit {LIMIT})", fontsize=9
        )
        kinds = {"HiResCAM": "logits", "SDD": "amplified", "Score-CAM": "activation"}
        for column, (name, why) in enumerate(zip(kinds, m.towards, strict=True), start=1):
            how = plots.colours(why.maps[i])
            drawn = plots.overlay(grid[i, column], m.blend[0], why.maps[i], **how)
            rival = f",\nnot {PEOPLE[1 - i].name}" if name == "SDD" else ""
            grid[i, column].set_title(f"{name}: what speaks for\n{person.name}{rival}", fontsize=9)
            plots.bar(figure, grid[i, column], drawn, kinds[name])
    return figure


def slide(m: Measured) -> Figure:
    """Draws both distances while the blend moves from one person to the other."""
    figure = plots.figure(7.6, 4.2)
    axes = figure.subplots()
    at = [100 * row["share_of_second"] for row in m.numbers["slide"]]
    lines = [[row[p.name] for row in m.numbers["slide"]] for p in PEOPLE]
    accepted = [a < LIMIT and b < LIMIT for a, b in zip(*lines, strict=True)]
    axes.fill_between(at, 0, 1, where=accepted, transform=axes.get_xaxis_transform(), color="#F0E442", alpha=0.35)
    for person, line, colour, style in zip(PEOPLE, lines, _COLOURS, ("-", "--"), strict=True):
        axes.plot(at, line, style, color=colour, linewidth=2, label=f"distance to {person.name}")
    axes.axhline(LIMIT, color="black", linewidth=1, linestyle=":")
    limit_at = (46, LIMIT)
    axes.annotate(
        f"same person below {LIMIT}", limit_at, xytext=(0, 4), textcoords="offset points", fontsize=8, ha="center"
    )
    if any(accepted):
        middle = sum(x for x, ok in zip(at, accepted, strict=True) if ok) / sum(accepted)
        axes.annotate("passes\nas both", (middle, 0.04), ha="center", fontsize=9)
    axes.set(xlim=(0, 100), ylim=(0, None))
    axes.set_xlabel(f"share of {PEOPLE[1].name} in the blend (%); the ends are the enrolled pictures themselves")
    axes.set_ylabel("L2 distance of dlib descriptors")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=2)
    return figure


def truth(m: Measured) -> Figure:
    """Draws one person's eyes in the other's face, and the share of each map on them."""
    figure = plots.figure(8.4, 6.4)
    grid = figure.subplots(2, 3)
    for i, row in enumerate(m.numbers["pasted_eyes"]):
        plots.photo(grid[i, 0], m.pastes[i])
        grid[i, 0].set_title(f"{row['face_of']}\nwith the eyes of\n{row['eyes_of']}", fontsize=9)
        for column, (name, why) in enumerate(zip(("HiResCAM", "SDD"), m.paste_maps, strict=True), start=1):
            positive = why.maps[i].clamp(min=0)
            drawn = plots.overlay(grid[i, column], m.pastes[i], positive, **plots.colours(positive))
            plots.bar(figure, grid[i, column], drawn, "logits" if name == "HiResCAM" else "amplified")
            shares = row["share_inside"][name]
            inside, without = shares[f"towards {row['eyes_of']}"], shares["same map without the paste"]
            grid[i, column].set_title(
                f"{name} towards {row['eyes_of']}:\n{inside:.0%} inside, {without:.0%} without the paste", fontsize=9
            )
        for axes in grid[i]:
            axes.contour(m.region.to(torch.float32).numpy(), levels=[0.5], colors="white", linewidths=1.2)
    area = m.numbers["eye_region_share_of_picture"]
    figure.suptitle(f"known truth: the white frame holds {area:.0%} of the picture", fontsize=10)
    return figure


def pairs(m: Measured) -> Figure:
    """Draws the parts of two images that support and oppose their match."""
    titles = [f"{row['first']} and {row['second']}: cosine {row['cosine']:.2f}" for row in m.numbers["pairs"]]
    label = "CorrRISE: red where the cosine falls when the spot is hidden, blue where it rises"
    return plots.pairs(m.pairs.maps, m.pairs.images, titles, label=label)


def frequencies(m: Measured) -> Figure:
    """Draws the frequency bands that the decisions about the same pairs use."""
    return m.heat.plot()


def counterfactuals(m: Measured) -> Figure:
    """Draws synthetic faces with their counterfactuals without glasses."""
    return m.edits.plot()


FIGURES = {
    "1_portraits": portraits,
    "2_blend": blend,
    "3_slide": slide,
    "4_known_truth": truth,
    "5_pairs": pairs,
    "6_frequencies": frequencies,
    "7_counterfactuals": counterfactuals,
}
"""The functions by file name without ending."""
