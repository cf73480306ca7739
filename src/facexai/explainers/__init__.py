"""Explainers: frozen dataclasses that are called with images. Observe once, answer many."""

from facexai import _explainers
from facexai._explainers import *  # noqa: F403
from facexai.explainers.classmaps import ClassMaps, Evidence, answer, check_evidence, explain
from facexai.explainers.frequency_modes import ModeAgreement
from facexai.explainers.many_pairs import explain_pairs
from facexai.explainers.masked import MaskedEvidence
from facexai.explainers.pairs import FaceEvidence

__all__ = [
    "ClassMaps",
    "Evidence",
    "FaceEvidence",
    "MaskedEvidence",
    "ModeAgreement",
    "answer",
    "check_evidence",
    "explain",
    "explain_pairs",
]
__all__ += _explainers.__all__
