"""Other people's code bases: what is taken of their output, whether the head folds, what works or is refused.

The networks are those of ``tests/codebases.py``: the structure of each code base, random weights. Lines are those
of the block on the code base's page in ``docs/code_bases``, without imports.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import torch
from common import arguments, report

from facexai import CAM, SDD, CorrRISE, GradCAM, HeadDoesNotFold, HiResCAM, ScoreCAM, metrics
from facexai.models import completeness

ROOT = Path(__file__).resolve().parents[1]
KINDS = {"CAM": CAM, "HiResCAM": HiResCAM, "GradCAM": GradCAM, "ScoreCAM": ScoreCAM}
MASKS = 12  # of CorrRISE: enough to see that it works
SAID = 150  # characters of a refusal


def cases():
    sys.path.insert(0, str(ROOT / "tests"))
    from codebases import CODE_BASES

    return CODE_BASES


def lines(page: str, number: int) -> int:
    """Statements of a page's block that are no imports."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "code_bases" / f"{page}.md").read_text(), re.S)
    return sum(1 for line in blocks[number].splitlines() if line and not line.startswith(("import ", "from ", "#")))


def tried(methods, case, model, images) -> tuple[list[str], dict[str, str]]:
    """Methods that give a map, and for the others what they say instead."""
    works, refused, people = [], {}, case.people(model)
    for name in methods:
        try:
            if name == "deletion":
                metrics.deletion(people, images, torch.rand(images[:, 0].shape))
            elif name == "CorrRISE":
                CorrRISE(people, "grid", count=MASKS)(images)
            elif name == "SDD":
                base = next((KINDS[n] for n in ("CAM", "HiResCAM", "ScoreCAM") if n in works), HiResCAM)
                SDD(base(people), rivals=3)(images)
            else:
                KINDS[name](people)(images)
            works.append(name)
        except ValueError as error:
            refused[name] = str(error).split("; ")[0]
    return works, refused


def row(name, case) -> dict:
    from codebases import METHODS

    torch.manual_seed(0)
    model = case.model()
    images = torch.rand(2, 3, *model.spec.height_width)
    works, refused = tried(METHODS, case, model, images)
    error = None
    try:
        layer, error = model.head.layer, float(completeness(model, images).max())
    except HeadDoesNotFold:
        layer = "does not fold"
    except ValueError:
        layer = "hidden"
    said = dict.fromkeys(refused.values())
    return {
        "code base": name,
        "lines": lines(*case.page),
        "output taken": "logits" if case.options.get("output") == "logits" else model.took,
        "head": layer,
        "completeness error": error,
        "works": ", ".join(works),
        "refused": "; ".join(f"{', '.join(m for m in refused if refused[m] == text)}: {text[:SAID]}" for text in said),
    }


def main() -> None:
    options = arguments(__doc__.splitlines()[0], faces=False).parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    report(options, [row(name, case) for name, case in cases().items()])


if __name__ == "__main__":
    main()
