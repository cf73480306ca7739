"""Explainers: frozen dataclasses that are called with images. Observe once, answer many."""

from facexai import _explainers
from facexai._explainers import *  # noqa: F403
from facexai.explainers._class_maps import ClassMaps, Evidence, answer, check_evidence, explain
from facexai.explainers._masked_forward import MaskedEvidence
from facexai.explainers.batch import explain_pairs
from facexai.explainers.frequency_modes import ModeAgreement
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
