"""Explainers: frozen dataclasses that are called with images. Observe once, answer many."""

from facexai.explainers.cam import CAM
from facexai.explainers.classmaps import ClassMaps, Evidence
from facexai.explainers.gradcam import GradCAM
from facexai.explainers.gradcampp import GradCAMPlusPlus
from facexai.explainers.hirescam import HiResCAM
from facexai.explainers.layercam import LayerCAM
from facexai.explainers.masked import MaskedEvidence
from facexai.explainers.scorecam import ScoreCAM
from facexai.explainers.sdd import SDD

__all__ = [
    "CAM",
    "SDD",
    "ClassMaps",
    "Evidence",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "MaskedEvidence",
    "ScoreCAM",
]
