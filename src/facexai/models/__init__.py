"""Face models as their users have them: any torch module, what it wants to see, and people enrolled with it."""

from facexai.input_spec import PRESETS, InputSpec
from facexai.models.face_model import FaceModel
from facexai.models.gallery import Gallery
from facexai.models.heads import Head, HeadDoesNotFold
from facexai.models.protocols import Classifier, Embedder, WhiteBox

__all__ = [
    "PRESETS",
    "Classifier",
    "Embedder",
    "FaceModel",
    "Gallery",
    "Head",
    "HeadDoesNotFold",
    "InputSpec",
    "WhiteBox",
]
