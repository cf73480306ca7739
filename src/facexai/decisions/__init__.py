"""What a counterfactual tries to change: one logit for each image, positive means yes."""

from facexai.decisions._common import Size, resized
from facexai.decisions.base import Decision, check_count, recipe_of, rows, score, scored, steady
from facexai.decisions.classification import Binary, OfClass, binary, of_class
from facexai.decisions.verification import Verification, verification

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
