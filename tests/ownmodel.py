"""A model that the command line finds by name."""

import torch
from nets import FlatNet, shaken

from facexai import FaceModel


def make() -> FaceModel:
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")
