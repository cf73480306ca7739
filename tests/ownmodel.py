"""A model that the command line finds by name."""

import torch
from nets import FlatNet, shaken
from pair_methods import Small

from facexai import FaceModel, InputSpec


def make() -> FaceModel:
    torch.manual_seed(0)
    return FaceModel(shaken(FlatNet()), "arcface")


def make_small() -> FaceModel:
    torch.manual_seed(4)
    return FaceModel(shaken(Small()), InputSpec(20))


def wrong_size() -> FaceModel:
    return FaceModel(shaken(FlatNet()), InputSpec(96))


def broken() -> FaceModel:
    raise KeyError("weights")


class Random(torch.nn.Dropout):
    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5)


def make_random() -> FaceModel:
    """A network that is random in eval mode too."""
    model = make()
    return FaceModel(torch.nn.Sequential(model.net, Random()), model.spec)
