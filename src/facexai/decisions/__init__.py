"""What a counterfactual tries to change: one logit for each image, positive means yes."""

from facexai.decisions.asking import Decision, check_count, recipe_of, rows, score, scored, steady
from facexai.decisions.classes import Binary, OfClass, binary, of_class
from facexai.decisions.faces import Verification, verification
from facexai.decisions.shared import Size, resized

__all__ = [
    "Binary",
    "Decision",
    "OfClass",
    "Size",
    "Verification",
    "binary",
    "check_count",
    "of_class",
    "recipe_of",
    "resized",
    "rows",
    "score",
    "scored",
    "steady",
    "verification",
]
