"""A model that the command line finds by name."""

import torch
from nets import FlatNet, shaken

from facexai import FaceModel, InputSpec


def make() -> FaceModel:
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


def wrong_size() -> FaceModel:
    return FaceModel(shaken(FlatNet()), InputSpec(96))


def broken() -> FaceModel:
    raise KeyError("weights")
