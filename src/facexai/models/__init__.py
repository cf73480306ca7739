"""Face models: any torch module with its input specification, and people enrolled with it."""

from facexai.input_spec import PRESETS, InputSpec
from facexai.models._finding import Finding
from facexai.models.accelerate import Acceleration, accelerate, acceleration
from facexai.models.checkpoints import Loaded, load_weights
from facexai.models.doctor import Diagnosis, completeness, doctor
from facexai.models.face_model import FaceModel
from facexai.models.gallery import Gallery
from facexai.models.heads import Head, HeadDoesNotFold, completeness_limit
from facexai.models.protocols import Classifier, Embedder, WhiteBox

__all__ = [
    "PRESETS",
    "Acceleration",
    "Classifier",
    "Diagnosis",
    "Embedder",
    "FaceModel",
    "Finding",
    "Gallery",
    "Head",
    "HeadDoesNotFold",
    "InputSpec",
    "Loaded",
    "WhiteBox",
    "accelerate",
    "acceleration",
    "completeness",
    "completeness_limit",
    "doctor",
    "load_weights",
]
