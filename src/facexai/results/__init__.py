"""Answers: frozen, with raw values and units, that draw, save and describe themselves."""

from facexai.results.pairs import GallerySaliency, PairSaliency
from facexai.results.saliency import Saliency, load

__all__ = ["GallerySaliency", "PairSaliency", "Saliency", "load"]
