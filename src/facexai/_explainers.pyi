from facexai.explainers.cam import CAM as CAM
from facexai.explainers.corrrise import CorrRISE as CorrRISE
from facexai.explainers.eigencam import EigenCAM as EigenCAM
from facexai.explainers.fastdime import FastDiME as FastDiME
from facexai.explainers.fggb import FGGB as FGGB
from facexai.explainers.frequency import FrequencyHeatPlot as FrequencyHeatPlot
from facexai.explainers.gradcam import GradCAM as GradCAM
from facexai.explainers.gradcampp import GradCAMPlusPlus as GradCAMPlusPlus
from facexai.explainers.hirescam import HiResCAM as HiResCAM
from facexai.explainers.layercam import LayerCAM as LayerCAM
from facexai.explainers.paircam import PairCAM as PairCAM
from facexai.explainers.scorecam import ScoreCAM as ScoreCAM
from facexai.explainers.sdd import SDD as SDD
from facexai.explainers.xgradcam import XGradCAM as XGradCAM
from facexai.explainers.xssab import XSSAB as XSSAB

__all__ = [
    "CAM",
    "FGGB",
    "SDD",
    "XSSAB",
    "CorrRISE",
    "EigenCAM",
    "FastDiME",
    "FrequencyHeatPlot",
    "GradCAM",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "PairCAM",
    "ScoreCAM",
    "XGradCAM",
]
