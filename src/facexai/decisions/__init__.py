"""The decisions that counterfactuals change: one logit for each image, positive means yes."""

from typing import TYPE_CHECKING

from facexai import _renamed
from facexai.decisions._common import Size, resized
from facexai.decisions.base import Decision, check_count, eval_mode, recipe_of, score, score_batched, select
from facexai.decisions.classification import Binary, ClassMargin, binary, of_class
from facexai.decisions.verification import Verification, verification

__all__ = [
    "Binary",
    "ClassMargin",
    "Decision",
    "Size",
    "Verification",
    "binary",
    "check_count",
    "eval_mode",
    "of_class",
    "recipe_of",
    "resized",
    "score",
    "score_batched",
    "select",
    "verification",
]

if not TYPE_CHECKING:
    __getattr__ = _renamed.getter(__name__)
