"""Answers: frozen, with raw values and units, that draw, save and describe themselves."""

from facexai.results.counterfactual import Counterfactual
from facexai.results.files import load
from facexai.results.frequency import FrequencyHeat
from facexai.results.pairs import GallerySaliency, PairSaliency
from facexai.results.saliency import Saliency

__all__ = ["Counterfactual", "FrequencyHeat", "GallerySaliency", "PairSaliency", "Saliency", "load"]
