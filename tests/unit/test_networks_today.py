"""Networks compiled in place, with adapters, without gradients, and schedulers of zero terminal SNR."""

from __future__ import annotations

import pytest
import torch
from nets import FlatNet, shaken
from torch import nn

from facexai import CAM, FaceModel, HiResCAM, InputSpec, ScoreCAM
from facexai.models.heads import HeadDoesNotFold
from facexai.turns import eval_scope

FACES = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return shaken(FlatNet()).eval()


def people(net):
    return FaceModel(net, InputSpec(112)).gallery({"a": torch.arange(32.0), "b": torch.ones(32)})


def no_compiler(*_, **__):
    raise AssertionError("compiled code ran")


@pytest.mark.parametrize("part", ["", "layer4"])
@pytest.mark.parametrize("training", [False, True])
def test_a_network_that_was_compiled_in_place_is_looked_through(part, training):
    expected = HiResCAM(people(network()), layer="layer4")(FACES, targets="a").maps
    net = network().train(training)
    net.get_submodule(part).compile(backend=no_compiler)
    compiled = net.get_submodule(part)._compiled_call_impl
    why = HiResCAM(people(net), layer="layer4")(FACES, targets="a")
    assert torch.equal(why.maps, expected)
    assert torch.equal(CAM(people(net))(FACES, targets="a").maps, CAM(people(network()))(FACES, targets="a").maps)
    assert net.get_submodule(part)._compiled_call_impl is compiled
    assert net.training == training
    with eval_scope(net), eval_scope(net):
        assert net.get_submodule(part)._compiled_call_impl is None
    with pytest.raises(ValueError, match="from inside"), eval_scope(net):
        raise ValueError("from inside")
    assert net.get_submodule(part)._compiled_call_impl is compiled


class Lora(nn.Module):
    """What PEFT puts in the place of a linear layer."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base.out_features, bias=False)})

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def test_a_head_with_adapters_names_the_way_out():
    net = network()
    name = next(name for name, module in net.named_modules() if isinstance(module, nn.Linear))
    base = net.get_submodule(name)
    net.set_submodule(name, Lora(base))
    with pytest.raises(HeadDoesNotFold, match=r"merge_and_unload\(\)") as refusal:
        CAM(people(net))(FACES, targets="a")
    assert f"{name!r}" in str(refusal.value)
    merged = network()
    layer, lora = merged.get_submodule(name), net.get_submodule(name)
    with torch.no_grad():
        layer.weight += lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    assert CAM(people(merged))(FACES, targets="a").maps.shape == (2, 112, 112)


def test_keep_without_gradients_says_leave_keep_out():
    class Detached(FlatNet):
        def forward(self, x):
            return super().forward(x).detach()

    torch.manual_seed(0)
    net = shaken(Detached()).eval()
    with pytest.raises(ValueError, match="leave keep out"):
        ScoreCAM(people(net), layer="layer4", keep=2)(FACES, targets="a")
    assert ScoreCAM(people(net), layer="layer4")(FACES, targets="a").maps.shape == (2, 112, 112)


def test_zero_terminal_snr_is_refused_by_the_name_of_its_setting():
    diffusers = pytest.importorskip("diffusers")
    from facexai.denoisers import from_diffusers

    unet = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
    )
    settings = {"prediction_type": "v_prediction"}
    for kind in (diffusers.DDPMScheduler, diffusers.DDIMScheduler):
        with pytest.raises(ValueError, match="rescale_betas_zero_snr=True"):
            from_diffusers(unet, kind(rescale_betas_zero_snr=True, **settings))
        assert from_diffusers(unet, kind(**settings)).prediction == "v_prediction"
