"""Looking inside, and leaving no trace."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from nets import FlatNet, shaken
from torch import nn

from facexai.hooks import capture, eval_scope, no_graph


class InPlace(nn.Module):
    """A layer whose output is changed in place twice before the network ends."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.conv(x)
        out.mul_(2)
        return self.relu(out)


def test_what_follows_in_place_does_not_change_what_was_captured():
    net, x = InPlace(), torch.randn(1, 3, 5, 5)
    with capture(net, "conv") as seen:
        changed = net(x)
    assert torch.equal(seen.tensor, net.conv(x))
    assert torch.equal(changed, net(x))


def test_the_graph_starts_at_the_layer_also_with_frozen_weights_and_under_no_grad():
    net = InPlace().requires_grad_(False)
    x = torch.randn(1, 3, 5, 5)
    with no_graph(), capture(net, "conv", graph="start") as seen:
        out = net(x)
    (gradient,) = torch.autograd.grad(out.sum(), seen.tensor)
    assert torch.equal(gradient, 2.0 * (net.conv(x) > 0))
    assert torch.is_grad_enabled()


def test_the_hook_is_gone_after_success_and_failure():
    net = InPlace()
    with capture(net, "conv"), capture(net, "relu", side="input"):
        net(torch.randn(1, 3, 5, 5))
    with pytest.raises(RuntimeError), capture(net, "conv"):
        net(torch.randn(1, 4, 5, 5))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_layer_that_runs_twice_or_never_is_named():
    class Twice(InPlace):
        def forward(self, x):
            return self.relu(self.conv(self.relu(x)))

    net = Twice()
    net.unused = nn.Identity()
    with capture(net, "relu") as seen, capture(net, "unused") as unseen:
        net(torch.randn(1, 3, 5, 5))
    with pytest.raises(ValueError, match="'relu' ran 2 times"):
        _ = seen.tensor
    with pytest.raises(ValueError, match="'unused' did not run"):
        _ = unseen.tensor


def test_a_layer_that_gives_a_tuple_is_named():
    class Tuple(nn.Module):
        def forward(self, x):
            return x, x

    net = nn.Sequential(Tuple())
    with pytest.raises(ValueError, match="'0' gives a tuple"), capture(net, "0"):
        net(torch.zeros(1))


def test_modes_and_random_state_come_back():
    net = shaken(FlatNet())
    net.layer3.train()
    net.bn2.train()
    modes, state = [m.training for m in net.modules()], torch.get_rng_state()
    with eval_scope(net):
        assert not any(m.training for m in net.modules())
        torch.rand(3)
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_with_its_own_train_is_respected():
    class Stubborn(FlatNet):
        def train(self, mode=True):
            super().train(mode)
            self.bn2.train(False)
            return self

    net = Stubborn().train()
    with eval_scope(net):
        assert not net.layer3.training
    assert net.layer3.training
    assert not net.bn2.training


def test_looking_into_a_network_does_not_load_torchs_compiler():
    """It would take longer than the rest of a first explanation."""
    code = (
        "import sys, torch, facexai\n"
        "net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5))\n"
        "facexai.FaceModel(net, facexai.InputSpec(8)).head\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
