"""Explainers: frozen dataclasses that are called with images. Observe once, answer many."""

from facexai.explainers.cam import CAM
from facexai.explainers.classmaps import ClassMaps, Evidence, answer, check_evidence, explain
from facexai.explainers.corrrise import CorrRISE
from facexai.explainers.fastdime import FastDiME
from facexai.explainers.fggb import FGGB
from facexai.explainers.frequency import FrequencyHeatPlot
from facexai.explainers.frequency_modes import ModeAgreement
from facexai.explainers.gradcam import GradCAM
from facexai.explainers.gradcampp import GradCAMPlusPlus
from facexai.explainers.hirescam import HiResCAM
from facexai.explainers.layercam import LayerCAM
from facexai.explainers.many_pairs import explain_pairs
from facexai.explainers.masked import MaskedEvidence
from facexai.explainers.paircam import PairCAM
from facexai.explainers.pairs import FaceEvidence
from facexai.explainers.scorecam import ScoreCAM
from facexai.explainers.sdd import SDD
from facexai.explainers.xssab import XSSAB

__all__ = [
    "CAM",
    "FGGB",
    "SDD",
    "XSSAB",
    "ClassMaps",
    "CorrRISE",
    "Evidence",
    "FaceEvidence",
    "FastDiME",
    "FrequencyHeatPlot",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "MaskedEvidence",
    "ModeAgreement",
    "PairCAM",
    "ScoreCAM",
    "answer",
    "check_evidence",
    "explain",
    "explain_pairs",
]
