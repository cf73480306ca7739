"""Denoisers: any function, diffusers' networks and guided-diffusion's, against formulas, loops and each other."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from untouched import same, snapshot

from facexai.denoisers import ADM, Denoiser, from_callable, from_diffusers, load_adm
from facexai.denoisers.adm_blocks import Attention, Down, Residual, Up, resampled
from facexai.functional.diffusion import Schedule, linear_alphas, respaced

ALPHAS = linear_alphas(50)
X, T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([4, 30])
NOISE, VALUES = torch.randn(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
SMALL = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,2", "attention_resolutions": "8"}
PUBLISHED = {"num_channels": 256, "attention_resolutions": "32,16,8", "resblock_updown": True, "learn_sigma": True}


def adm(seed=0, **options):
    torch.manual_seed(seed)
    return ADM(**SMALL | options).eval()


class Noisy(nn.Module):
    """A network whose answer would change in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, t):
        return self.drop(self.norm(self.layer(x)))


# ---- any function -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "values"),
    [
        (NOISE, None),
        ((NOISE, None), None),
        ([NOISE, VALUES], VALUES),
        (torch.cat([NOISE, VALUES], 1), VALUES),
        (NOISE.double(), None),
    ],
)
def test_what_a_function_may_answer(answer, values):
    asked = []
    denoiser = from_callable(lambda x, t: asked.append((x, t)) or answer, ALPHAS, (8, 8))
    assert isinstance(denoiser, Denoiser)
    noise, found = denoiser.predict(X, T)
    torch.testing.assert_close(noise, NOISE, check_dtype=False)
    assert (found is None) if values is None else torch.equal(found, values)
    assert asked[0][0] is X
    assert asked[0][1] is T
    assert torch.equal(denoiser.alphas_cumprod, ALPHAS)
    assert denoiser.alphas_cumprod is not ALPHAS


def test_a_module_is_left_as_it_was_and_runs_in_eval_mode():
    net = Noisy().train()
    net.norm.eval()
    denoiser, x = from_callable(net, ALPHAS), X.clone().requires_grad_(True)
    before = snapshot(net, x)
    first, second = denoiser.predict(x, T)[0], denoiser.predict(x, T)[0]
    assert same(before, snapshot(net, x))
    assert torch.equal(first, second)
    assert not first.requires_grad
    with torch.no_grad():
        assert torch.equal(first, net.eval()(X, T))


def test_a_module_that_fails_is_left_as_it_was():
    net = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    with pytest.raises(TypeError):
        from_callable(net, ALPHAS).predict(X, T)
    assert net.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_of_another_precision(dtype):
    net = Noisy().eval()
    expected = from_callable(net, ALPHAS).predict(X, T)[0]
    noise = from_callable(net.to(dtype), ALPHAS).predict(X, T)[0]
    assert noise.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(noise.float(), expected, rtol=0.05, atol=0.05)


def test_no_graph_and_no_inference_tensors():
    weight = torch.ones(1, requires_grad=True)
    denoiser = from_callable(lambda x, t: x * weight, ALPHAS)
    with torch.inference_mode():
        noise = denoiser.predict(X, T)[0]
    assert not noise.is_inference()
    assert not noise.requires_grad


def test_a_module_elsewhere():
    with pytest.raises(ValueError, match=r"images are on cpu, .* network on meta; move .* \.to\('cpu'\)"):
        from_callable(Noisy().to("meta"), ALPHAS).predict(X, T)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (NOISE[:1], "shape (1, 3, 8, 8) as noise"),
        (torch.zeros(2, 4, 8, 8), "shape (2, 4, 8, 8) as noise"),
        (torch.zeros(2, 6, 4, 4), "shape (2, 3, 4, 4) as noise"),
        (NOISE.long(), "torch.int64 tensor of shape (2, 3, 8, 8) as noise"),
        ((NOISE, VALUES[:, :1]), "shape (2, 1, 8, 8) as variance"),
        ((None, NOISE), "a NoneType as noise"),
        ({"sample": NOISE}, "a dict with 'sample' as noise"),
        (None, "a NoneType as noise"),
    ],
)
def test_answers_that_are_no_noise(answer, told):
    with pytest.raises(ValueError, match=r"expected the noise \(2, 3, 8, 8\) .* \(2, 6, 8, 8\); got") as error:
        from_callable(lambda x, t: answer, ALPHAS).predict(X, T)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (X[..., :6], "the denoiser takes images of 8x8, got 8x6; resize them, or load a denoiser of 8x6"),
        (X[:, :1], "expected noisy images (N, 3, H, W), floating point, got a torch.float32 tensor of shape (2, 1, 8"),
        (X[0], "got a torch.float32 tensor of shape (3, 8, 8)"),
        (X.long(), "got a torch.int64 tensor"),
    ],
)
def test_images_that_do_not_fit(x, told):
    with pytest.raises(ValueError, match="images") as error:
        from_callable(lambda x, t: x, ALPHAS, 8).predict(x, T)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("alphas", "told"),
    [
        (ALPHAS.flip(0), "fall"),
        (torch.linspace(1e-4, 0.02, 50), "betas: (1 - betas).cumprod(0)"),
        (torch.tensor([0.9, 0.5, 0.0]), "0.9 to 0, lowest 0"),
        (torch.tensor([0.9, float("nan")]), "nan"),
        (torch.tensor([[0.9, 0.5]]), "at least 2 steps, got shape (1, 2)"),
        (torch.tensor([0.9]), "got shape (1,)"),
    ],
)
def test_levels_that_cannot_be(alphas, told):
    with pytest.raises(ValueError, match="expected alphas_cumprod") as error:
        from_callable(lambda x, t: x, alphas)
    assert told in str(error.value)


@pytest.mark.parametrize("size", [0, -8, (8,), (8, 8, 8), 8.0, (8, 0), "88"])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="expected size as pixels"):
        from_callable(lambda x, t: x, ALPHAS, size)


def test_no_function():
    with pytest.raises(TypeError, match="expected a function of noisy images and steps, got Tensor"):
        from_callable(X, ALPHAS)


# ---- guided-diffusion's network ---------------------------------------------------------------------------------


def count(**options):
    with torch.device("meta"):
        return sum(p.numel() for p in ADM(**PUBLISHED | options).parameters())


def test_the_published_networks_have_as_many_parameters():
    assert count(image_size=256, num_head_channels=64) == 552_814_086
    assert count(image_size=256, num_head_channels=64, channel_mult="1,1,2,2,4,4") == 552_814_086
    # Dhariwal and Nichol 2021, arXiv:2105.05233, millions; those networks also have a vector for each of 1000 classes
    small = {"num_channels": 192, "num_res_blocks": 3, "num_head_channels": 64}
    for paper, width, options in (
        (296, 768, {"image_size": 64, **small}),
        (422, 1024, {"image_size": 128}),
        (554, 1024, {"image_size": 256, "num_head_channels": 64}),
        (559, 1024, {"image_size": 512, "num_head_channels": 64}),
    ):
        assert round((count(**options) + 1000 * width) / 1e6) == paper


def test_names_and_shapes_are_those_of_the_checkpoints():
    with torch.device("meta"):
        weights = ADM(image_size=256, num_head_channels=64, **PUBLISHED).state_dict()
    shapes = {
        "time_embed.0.weight": (1024, 256),
        "time_embed.2.weight": (1024, 1024),
        "input_blocks.0.0.weight": (256, 3, 3, 3),
        "input_blocks.1.0.in_layers.0.weight": (256,),
        "input_blocks.1.0.in_layers.2.weight": (256, 256, 3, 3),
        "input_blocks.1.0.emb_layers.1.weight": (512, 1024),
        "input_blocks.1.0.out_layers.0.weight": (256,),
        "input_blocks.1.0.out_layers.3.weight": (256, 256, 3, 3),
        "input_blocks.3.0.out_layers.3.weight": (256, 256, 3, 3),
        "input_blocks.7.0.skip_connection.weight": (512, 256, 1, 1),
        "input_blocks.10.1.norm.weight": (512,),
        "input_blocks.10.1.qkv.weight": (1536, 512, 1),
        "input_blocks.10.1.proj_out.weight": (512, 512, 1),
        "middle_block.1.qkv.bias": (3072,),
        "middle_block.2.out_layers.3.bias": (1024,),
        "output_blocks.0.0.in_layers.2.weight": (1024, 2048, 3, 3),
        "output_blocks.2.2.in_layers.2.weight": (1024, 1024, 3, 3),
        "output_blocks.17.0.skip_connection.weight": (256, 512, 1, 1),
        "out.0.weight": (256,),
        "out.2.weight": (6, 256, 3, 3),
    }
    assert {name: tuple(weights[name].shape) for name in shapes} == shapes
    assert "input_blocks.3.0.op.weight" not in weights
    plain = adm().state_dict()
    assert plain["input_blocks.2.0.op.weight"].shape == (32, 32, 3, 3)
    assert plain["output_blocks.1.2.conv.weight"].shape == (64, 64, 3, 3)
    assert plain["out.2.weight"].shape == (3, 32, 3, 3)


def group_norm(x, weight, bias):
    """Image by image, group by group."""
    out = torch.empty_like(x)
    width = x.shape[1] // 32
    for n in range(len(x)):
        for g in range(32):
            part = x[n, g * width : (g + 1) * width]
            mean = part.sum() / part.numel()
            variance = ((part - mean) ** 2).sum() / part.numel()
            for c in range(g * width, (g + 1) * width):
                out[n, c] = (x[n, c] - mean) / torch.sqrt(variance + 1e-5) * weight[c] + bias[c]
    return out


def silu(x):
    return x / (1 + torch.exp(-x))


def convolve(x, weight, bias):
    """The sum of one shifted image for each place of the kernel."""
    reach = weight.shape[-1] // 2
    height, width = x.shape[2:]
    padded = torch.zeros(*x.shape[:2], height + 2 * reach, width + 2 * reach, dtype=x.dtype)
    padded[:, :, reach : reach + height, reach : reach + width] = x
    out = bias[None, :, None, None].expand(len(x), -1, height, width).clone()
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            out += torch.einsum("nchw,dc->ndhw", padded[:, :, i : i + height, j : j + width], weight[:, :, i, j])
    return out


def halved(x):
    return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4


def doubled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def shake(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return module.double().eval().requires_grad_(False)


@pytest.mark.parametrize("scale_shift", [True, False])
@pytest.mark.parametrize(("way", "channels"), [(None, 64), ("down", 32), ("up", 32), (None, 32)])
def test_a_residual_block_by_hand(scale_shift, way, channels):
    block = shake(Residual(32, channels, 12, scale_shift=scale_shift, resample=way))
    x, embedding = torch.randn(2, 32, 4, 6).double(), torch.randn(2, 12).double()
    w = block.state_dict()
    change = {None: lambda maps: maps, "down": halved, "up": doubled}[way]
    h = change(silu(group_norm(x, w["in_layers.0.weight"], w["in_layers.0.bias"])))
    h = convolve(h, w["in_layers.2.weight"], w["in_layers.2.bias"])
    told = (silu(embedding) @ w["emb_layers.1.weight"].T + w["emb_layers.1.bias"])[:, :, None, None]
    if scale_shift:
        h = group_norm(h, w["out_layers.0.weight"], w["out_layers.0.bias"])
        h = h * (1 + told[:, :channels]) + told[:, channels:]
    else:
        h = group_norm(h + told, w["out_layers.0.weight"], w["out_layers.0.bias"])
    h = convolve(silu(h), w["out_layers.3.weight"], w["out_layers.3.bias"])
    short = change(x)
    if channels != 32:
        short = convolve(short, w["skip_connection.weight"], w["skip_connection.bias"])
    torch.testing.assert_close(block(x, embedding), short + h)


@pytest.mark.parametrize("new_order", [True, False])
def test_attention_by_hand(new_order):
    channels, heads = 64, 4
    block, x = shake(Attention(channels, heads, new_order=new_order)), torch.randn(2, channels, 2, 3).double()
    w, width = block.state_dict(), channels // heads
    cells = x.reshape(2, channels, 6)
    rows = group_norm(cells[..., None], w["norm.weight"], w["norm.bias"])[..., 0]
    rows = torch.einsum("dc,ncl->ndl", w["qkv.weight"][:, :, 0], rows) + w["qkv.bias"][:, None]
    seen = torch.zeros_like(cells)
    for n in range(2):
        for head in range(heads):
            starts = [k * channels + head * width if new_order else (3 * head + k) * width for k in range(3)]
            query, key, value = (rows[n, start : start + width] for start in starts)
            for cell in range(6):
                like = torch.stack([(query[:, cell] * key[:, other]).sum() for other in range(6)]) / math.sqrt(width)
                share = torch.exp(like) / torch.exp(like).sum()
                seen[n, head * width : (head + 1) * width, cell] = sum(share[o] * value[:, o] for o in range(6))
    out = cells + torch.einsum("dc,ncl->ndl", w["proj_out.weight"][:, :, 0], seen) + w["proj_out.bias"][:, None]
    torch.testing.assert_close(block(x), out.reshape(x.shape))


def test_changes_of_size():
    x = torch.randn(1, 32, 4, 6)
    torch.testing.assert_close(resampled(x, "up"), doubled(x))
    torch.testing.assert_close(resampled(x, "down"), halved(x))
    assert resampled(x, None) is x
    down, up = Down(32), Up(32)
    whole = nn.functional.conv2d(x, down.op.weight, down.op.bias, padding=1)
    torch.testing.assert_close(down(x), whole[:, :, ::2, ::2])
    torch.testing.assert_close(up(x), up.conv(doubled(x)))
    net = ADM(image_size=32, num_channels=32, channel_mult=(1, 2, 2), attention_resolutions=(16,), resblock_updown=True)
    sizes = []
    for block in [*net.input_blocks, *net.output_blocks]:
        block.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
    net(torch.zeros(1, 3, 32, 32), torch.tensor([3]))
    assert sizes == [32] * 3 + [16] * 3 + [8] * 3 + [8, 8, 16] + [16, 16, 32] + [32] * 3


def test_the_step_is_told_by_cosines_and_sines():
    net, seen = adm(time_scale=0.5), []
    net.time_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(torch.zeros(2, 3, 16, 16), torch.tensor([0, 300]))
    for k in range(16):
        angle = 150 / 10000 ** (k / 16)
        assert seen[0][1, k] == pytest.approx(math.cos(angle), abs=2e-5)
        assert seen[0][1, 16 + k] == pytest.approx(math.sin(angle), abs=2e-5)
    assert torch.equal(seen[0][0], torch.cat([torch.ones(16), torch.zeros(16)]))


def test_the_step_counts():
    net, x = adm(), torch.randn(1, 3, 16, 16)
    assert not torch.allclose(net(x, torch.tensor([1])), net(x, torch.tensor([40])), atol=1e-3)


# ---- its files --------------------------------------------------------------------------------------------------


def saved(path, weights):
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    return path


NOISY = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["ema.pt", "model.pth", "model.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_checkpoint_is_loaded_whole(tmp_path, name, dtype):
    net = adm(learn_sigma=True)
    path = saved(tmp_path / name, {n: t.to(dtype) for n, t in net.state_dict().items()})
    state = torch.get_rng_state()
    denoiser = load_adm(path, **SMALL, learn_sigma=True, diffusion_steps=500)
    assert torch.equal(state, torch.get_rng_state())
    saved(path, adm(seed=9, learn_sigma=True).state_dict())  # what was loaded does not depend on the file any more
    net.to(dtype).float()
    weights = denoiser.function.state_dict()
    assert list(weights) == list(net.state_dict())
    assert all(torch.equal(weights[n], t) and weights[n].dtype == torch.float32 for n, t in net.state_dict().items())
    assert isinstance(denoiser, Denoiser)
    assert denoiser.size == (16, 16)
    assert torch.equal(denoiser.alphas_cumprod, linear_alphas(500))
    with torch.no_grad():
        expected = net(NOISY, T)
    noise, values = denoiser.predict(NOISY, T)
    assert torch.equal(noise, expected[:, :3])
    assert torch.equal(values, expected[:, 3:])
    assert not any(p.requires_grad for p in denoiser.function.parameters())


def test_three_channels_have_no_variance(tmp_path):
    net = adm()
    denoiser = load_adm(str(saved(tmp_path / "a.pt", {"model": net.state_dict(), "step": 7})), **SMALL)
    noise, values = denoiser.predict(NOISY, T)
    assert values is None
    torch.testing.assert_close(noise, net(NOISY, T).detach())


def test_old_files_and_inference_mode(tmp_path):
    net = adm()
    torch.save(net.state_dict(), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with torch.inference_mode():
        denoiser = load_adm(tmp_path / "a.pt", **SMALL)
    assert not any(p.is_inference() for p in denoiser.function.parameters())
    torch.testing.assert_close(denoiser.predict(NOISY, T)[0], net(NOISY, T).detach())


def test_rescaled_steps(tmp_path):
    net = adm()
    denoiser = load_adm(
        saved(tmp_path / "a.pt", net.state_dict()), **SMALL, diffusion_steps=4000, rescale_timesteps=True
    )
    expected = net(NOISY, torch.tensor([1, 10])).detach()
    torch.testing.assert_close(denoiser.predict(NOISY, torch.tensor([4, 40]))[0], expected)


class Stranger:
    pass


def edited(**changes):
    weights = adm().state_dict()
    for name, tensor in changes.items():
        weights[name.replace("__", ".")] = tensor
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: edited(out__2__weight=None, out__0__bias=None), ["2 missing in the file: 'out.0.bias', 'out.2.weigh"]),
        (
            lambda: edited(input_blocks__9__0__weight=X),
            ["1 more in the file: 'input_blocks.9.0.weight'", "options"],
        ),
        (
            lambda: adm(learn_sigma=True).state_dict(),
            ["2 of another shape: 'out.2.weight' expected (3, 32, 3, 3), got (6, 32, 3, 3), 'out.2.bias' exp"],
        ),
        (lambda: edited(out__2__bias=torch.zeros(3).long()), ["'out.2.bias' expected torch.float32, got torch.int64"]),
        (lambda: edited(label_emb__weight=torch.zeros(9, 128)), ["trained with classes (label_emb)", "1 more"]),
        (
            lambda: {"module." + n: t for n, t in edited().items()},
            ["128 missing in the file", "and 124 more", "'module.time_embed.0.weight'"],
        ),
        (lambda: {"ema": edited(), "model": edited()}, ["holds weights under 'model', 'ema'; save the one to use"]),
        (lambda: {"ema": edited(), "other": Stranger()}, ["Stranger beside its tensors", "runs whatever code"]),
        (lambda: [1, 2], ["holds a list of 2, expected names with tensors"]),
    ],
)
def test_files_that_do_not_fit(tmp_path, content, told):
    with pytest.raises(ValueError, match=r"^'a\.pt'") as error:
        load_adm(saved(tmp_path / "a.pt", content()), **SMALL)
    for words in told:
        assert words in str(error.value)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize(("share", "told"), [(0.7, "truncated"), (0.001, "'a\\."), (0, "is empty")])
def test_broken_files(tmp_path, name, share, told):
    path = saved(tmp_path / name, edited())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=told):
        load_adm(path, **SMALL)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_adm(tmp_path / "a.pt", **SMALL)
    with pytest.raises(ValueError, match="is a folder, expected a checkpoint"):
        load_adm(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"class_cond": True}, "expected an unconditional one"),
        ({"noise_schedule": "sqrt"}, r"expected noise_schedule one of \('linear', 'cosine'\), got 'sqrt'"),
        ({"diffusion_steps": 20}, "at least 21 diffusion_steps of a linear schedule, got 20"),
        ({"diffusion_steps": 1, "noise_schedule": "cosine"}, "at least 2 diffusion_steps"),
        ({"channel_mult": None}, r"expected channel_mult for images of 16; it is known for \[64, 128, 256, 512\]"),
        ({"channel_mult": "1,x"}, "expected positive numbers, such as .* got '1,x'"),
        ({"channel_mult": (1, 0)}, "expected positive numbers"),
        ({"attention_resolutions": 8}, "expected positive numbers, .* got 8"),
        ({"num_channels": 48}, r"multiples of 32 channels, got num_channels=48 and \[48, 96\]"),
        ({"image_size": 15}, "images of 15 cannot be halved 1 times"),
        ({"num_heads": 5}, "64 channels cannot be shared by heads of num_heads=5"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_head_channels": 48}, "num_head_channels=48"),
        ({"num_head_channels": 0}, "num_head_channels=0"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        load_adm(tmp_path / "not-opened.pt", **SMALL | options)


# ---- diffusers --------------------------------------------------------------------------------------------------

BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "attention_head_dim": 32,
    "norm_eps": 1e-5,
}


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture
def unet(diffusers):
    def make(seed=0, sample_size=16, **options):
        torch.manual_seed(seed)
        return diffusers.UNet2DModel(sample_size, **BLOCKS | options).eval()

    return make


def test_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r'needs the package \'diffusers\': pip install "facexai\[diffusion\]"'):
        from_diffusers(tmp_path)


def test_diffusers_is_imported_late_and_says_nothing(diffusers):
    code = (
        "import sys, facexai.denoisers as d; assert 'diffusers' not in sys.modules; d.diffusers._library().UNet2DModel"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_a_denoiser_loads_without_a_word(diffusers):
    """Neither progress nor diffusers' own log of casting reaches the user."""
    code = "from facexai.demo import synthetic_networks; synthetic_networks.denoiser()"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_noise_is_the_networks_own(diffusers, unet):
    net, scheduler = unet(dropout=0.5).train(), diffusers.DDPMScheduler(50)
    denoiser = from_diffusers(net, scheduler)
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.size, denoiser.prediction, denoiser.variance) == ((16, 16), "epsilon", "small")
    assert torch.equal(denoiser.alphas_cumprod, scheduler.alphas_cumprod.double())
    before = snapshot(net, NOISY)
    noise, values = denoiser.predict(NOISY, T)
    assert same(before, snapshot(net, NOISY))
    with torch.no_grad():
        assert torch.equal(noise, net.eval()(NOISY, T).sample)
    assert values is None
    with pytest.raises(ValueError, match="the denoiser takes images of 16x16, got 8x8"):
        denoiser.predict(X, T)


@pytest.mark.parametrize(("size", "expected"), [((16, 24), (16, 24)), ([16, 24], (16, 24)), (None, None)])
def test_sizes_of_networks(diffusers, unet, size, expected):
    assert from_diffusers(unet(sample_size=size), diffusers.DDPMScheduler()).size == expected


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_what_is_predicted_becomes_noise(diffusers, unet, monkeypatch, prediction):
    scheduler = diffusers.DDPMScheduler(1000, prediction_type=prediction)
    net, t = unet(), torch.tensor([5, 900])
    clean, noise = torch.rand_like(NOISY) * 2 - 1, torch.randn_like(NOISY)
    noisy = scheduler.add_noise(clean, noise, t)
    truth = {"epsilon": noise, "sample": clean, "v_prediction": scheduler.get_velocity(clean, noise, t)}[prediction]
    monkeypatch.setattr(net, "forward", lambda *_, **__: (truth,))
    found, _ = from_diffusers(net, scheduler).predict(noisy, t)
    torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_precision(diffusers, unet, dtype):
    scheduler = diffusers.DDPMScheduler(50, prediction_type="v_prediction")
    expected = from_diffusers(unet(), scheduler).predict(NOISY, T)[0]
    noise = from_diffusers(unet().to(dtype), scheduler).predict(NOISY, T)[0]
    assert noise.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(noise.float(), expected, rtol=0.1, atol=0.1)


def test_variances(diffusers, unet):
    learned = from_diffusers(unet(out_channels=6), diffusers.DDPMScheduler(50, variance_type="learned_range"))
    noise, values = learned.predict(NOISY, T)
    with torch.no_grad():
        both = learned.unet(NOISY, T).sample
    assert torch.equal(torch.cat([noise, values], 1), both)
    without_a_word = from_diffusers(unet(out_channels=6), diffusers.DDIMScheduler(50))
    assert torch.equal(without_a_word.predict(NOISY, T)[1], values)
    large = from_diffusers(unet(), diffusers.DDPMScheduler(50, variance_type="fixed_large"))
    assert torch.equal(large.predict(NOISY, T)[1], torch.ones_like(NOISY))


class Scheduler:
    """Stands in for one of another package."""

    def __init__(self, **config) -> None:
        self.alphas_cumprod, self.config = linear_alphas(50), config


@pytest.mark.parametrize(
    ("options", "scheduler", "told"),
    [
        ({"num_class_embeds": 5}, Scheduler(), "conditioned on classes"),
        ({"class_embed_type": "timestep"}, Scheduler(), "conditioned on classes"),
        ({"in_channels": 4}, Scheduler(), "3 channels in and 3 or 6 out, got 4 in and 3 out"),
        ({"out_channels": 1}, Scheduler(), "got 3 in and 1 out"),
        ({}, None, "give the scheduler it was trained with"),
        ({}, Scheduler(prediction_type="flow_prediction"), "got 'flow_prediction'"),
        ({}, Scheduler(variance_type="learned_range"), "needs a network of 6 channels out, got 3"),
        (
            {"out_channels": 6},
            Scheduler(variance_type="learned"),
            "without bounds; expected 'learned_range'",
        ),
        ({}, object(), "object has no alphas_cumprod; expected a scheduler such as DDPMScheduler"),
    ],
)
def test_networks_and_schedulers_that_do_not_fit(unet, options, scheduler, told):
    with pytest.raises(ValueError, match=told):
        from_diffusers(unet(**options), scheduler)


def test_schedulers_without_levels(diffusers, unet):
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no alphas_cumprod"):
        from_diffusers(unet(), diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match=r"rescale_betas_zero_snr=True: .*zero terminal SNR"):
        from_diffusers(unet(), diffusers.DDIMScheduler(rescale_betas_zero_snr=True))


def test_something_else_than_a_network(diffusers, unet):
    with pytest.raises(TypeError, match="got Linear; another network goes into from_callable"):
        from_diffusers(nn.Linear(2, 2), Scheduler())
    pipeline = diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler())
    with pytest.raises(TypeError, match=r"from_diffusers\(pipe.unet, pipe.scheduler\)"):
        from_diffusers(pipeline)


# ---- folders of diffusers ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(diffusers, unet, tmp_path):
    scheduler = diffusers.DDPMScheduler(50, prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")

    def make(flat=False, **options):
        unet(**options).save_pretrained(tmp_path if flat else tmp_path / "unet")
        scheduler.save_pretrained(tmp_path if flat else tmp_path / "scheduler")
        return tmp_path

    return make


@pytest.mark.parametrize("flat", [True, False])
def test_folders(diffusers, unet, folder, flat, capfd):
    denoiser = from_diffusers(folder(flat))
    assert capfd.readouterr() == ("", "")
    scheduler = diffusers.DDPMScheduler(50, prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    expected = from_diffusers(unet(), scheduler)
    assert torch.equal(denoiser.alphas_cumprod, expected.alphas_cumprod)
    assert (denoiser.size, denoiser.prediction) == ((16, 16), "v_prediction")
    assert torch.equal(denoiser.predict(NOISY, T)[0], expected.predict(NOISY, T)[0])


def test_a_scheduler_in_the_place_of_the_folders(diffusers, folder):
    path = folder()
    assert from_diffusers(str(path), diffusers.DDPMScheduler(70)).alphas_cumprod.shape == (70,)
    assert from_diffusers(path / "unet", diffusers.DDPMScheduler(70)).prediction == "epsilon"


def test_half_precision_and_parts_are_read_as_float32(diffusers, unet, tmp_path):
    unet().half().save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    denoiser = from_diffusers(tmp_path, diffusers.DDPMScheduler(50))
    assert {p.dtype for p in denoiser.unet.parameters()} == {torch.float32}
    torch.testing.assert_close(denoiser.predict(NOISY, T)[0], unet()(NOISY, T).sample.detach(), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["shard.bin", "../outside.safetensors"])
def test_an_index_of_parts_names_no_pickle_and_no_other_folder(diffusers, unet, tmp_path, name):
    unet().save_pretrained(tmp_path, max_shard_size="200KB")
    index = tmp_path / f"{WEIGHTS}.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["conv_out.bias"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected \.safetensors files in the same folder"):
        from_diffusers(tmp_path, diffusers.DDPMScheduler(50))


def test_pickles_are_refused_and_the_way_out_works(diffusers, folder):
    path = folder(flat=True)
    expected = from_diffusers(path).predict(NOISY, T)[0]
    from_diffusers(path).unet.save_pretrained(path, safe_serialization=False)
    (path / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"a pickle, which could run any code, .* convert it once") as error:
        from_diffusers(path)
    assert "UNet2DModel.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)" in str(error.value)
    diffusers.UNet2DModel.from_pretrained(path, use_safetensors=False, low_cpu_mem_usage=False).save_pretrained(path)
    assert torch.equal(from_diffusers(path).predict(NOISY, T)[0], expected)


WEIGHTS = "diffusion_pytorch_model.safetensors"


def rename(path, file):
    path.joinpath(file).rename(path / "away")


def rewrite(path, file, **changes):
    content = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps(content | changes))


def reweigh(path, changes):
    weights = load_file(path / WEIGHTS) | changes
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (lambda p: rename(p, "scheduler_config.json"), FileNotFoundError, "no scheduler_config.json.*give scheduler="),
        (lambda p: rename(p, "config.json"), FileNotFoundError, "there is no config.json"),
        (lambda p: rename(p, WEIGHTS), FileNotFoundError, f"there is no '{WEIGHTS}'"),
        (lambda p: (p / "config.json").write_text('{"a'), ValueError, r"config.json' cannot be read \(.*truncated"),
        (lambda p: (p / "config.json").write_text("[]"), ValueError, "holds no settings"),
        (
            lambda p: (p / "scheduler_config.json").write_bytes(b"\xff"),
            ValueError,
            "config.json' cannot be read",
        ),
        (lambda p: rewrite(p, "scheduler_config.json", _class_name="Nothing"), ValueError, "names 'Nothing', no sched"),
        (lambda p: rewrite(p, "scheduler_config.json", _class_name="UNet2DModel"), ValueError, "no scheduler of this"),
        (lambda p: rewrite(p, "scheduler_config.json", _class_name="SchedulerMixin"), ValueError, "describes no"),
        (lambda p: rewrite(p, "scheduler_config.json", beta_schedule="nope"), ValueError, "describes no DDPMScheduler"),
        (lambda p: rewrite(p, "scheduler_config.json", num_train_timesteps=-5), ValueError, "expected 2 to 100,000"),
        (lambda p: rewrite(p, "scheduler_config.json", num_train_timesteps=20_000_000), ValueError, "2 to 100,000"),
        (lambda p: rewrite(p, "scheduler_config.json", trained_betas=[0.1, "a"]), ValueError, "describes no"),
        (lambda p: (p / "scheduler_config.json").write_text("[" * 100_000), ValueError, "cannot be read"),
        (lambda p: rewrite(p, "config.json", _class_name="UNet2DConditionModel"), ValueError, "expected a UNet2DModel"),
        (lambda p: rewrite(p, "config.json", block_out_channels=[32, 96]), ValueError, "of another config.json"),
        (
            lambda p: reweigh(p, {"conv_out.bias": None}),
            ValueError,
            "do not fit .*: 1 missing, 0 too many: 'conv_out.b",
        ),
        (
            lambda p: reweigh(p, {"conv_up.bias": torch.ones(3)}),
            ValueError,
            "do not fit .*: 0 missing, 1 too many: 'conv_up.b",
        ),
        (
            lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:5000]),
            ValueError,
            "cannot be read .*trunc",
        ),
        (lambda p: (p / WEIGHTS).write_bytes(b""), ValueError, "cannot be read"),
        (
            lambda p: reweigh(p, {"conv_out.bias": torch.full((3,), 1e300, dtype=torch.float64)}),
            ValueError,
            "1 weights in .* are not finite as float32: 'conv_out.bias'",
        ),
    ],
)
def test_folders_that_do_not_fit(folder, spoil, kind, told):
    path = folder(flat=True)
    spoil(path)
    with pytest.raises(kind, match=told):
        from_diffusers(path)


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing is downloaded: fetch the network first"):
        from_diffusers("google/ddpm-celebahq-256")
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ValueError, match="is a file, expected the folder that diffusers' save_pretrained wrote"):
        from_diffusers(tmp_path / "a.safetensors")


# ---- against diffusers' mathematics -----------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "kept"), [(500, 200), (1000, 50), (1000, 200), (500, 500), (400, 160), (1000, 2)])
def test_the_same_steps_are_kept(diffusers, steps, kept):
    scheduler = diffusers.DDPMScheduler(steps, timestep_spacing="linspace")
    scheduler.set_timesteps(kept)
    assert torch.equal(respaced(linear_alphas(steps), kept).timesteps.flip(0), scheduler.timesteps)


@pytest.mark.parametrize(("steps", "kept"), [(100, 100), (500, 200)])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_every_step_backwards_is_diffusers_own(diffusers, steps, kept, variance):
    scheduler = diffusers.DDPMScheduler(
        steps, beta_start=0.1 / steps, beta_end=20 / steps, variance_type=variance, timestep_spacing="linspace"
    )
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), linear_alphas(steps), rtol=1e-4, atol=0)
    # in float64: in float32 its 1 - a / b has three digits
    scheduler.alphas_cumprod, scheduler.one = linear_alphas(steps), torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(kept)
    schedule = respaced(linear_alphas(steps), kept)
    z, noise, free = torch.randn(3, 1, 3, 4, 4, dtype=torch.float64)
    values = {"fixed_small": None, "fixed_large": torch.ones_like(z), "learned_range": free.clamp(-1, 1)}[variance]
    answer = torch.cat([noise, values], 1) if variance == "learned_range" else noise
    for step in range(kept):
        t = int(schedule.timesteps[step])
        out = scheduler.step(answer, t, z, generator=torch.Generator().manual_seed(step))
        clean = schedule.estimate(z, step, noise)
        torch.testing.assert_close(out.pred_original_sample, clean)
        drawn = torch.randn(z.shape, generator=torch.Generator().manual_seed(step), dtype=z.dtype)
        spread = (0.5 * schedule.log_variance(step, values, z)).exp() if step else 0.0
        torch.testing.assert_close(out.prev_sample, schedule.posterior(clean, z, step) + spread * drawn)
    assert torch.equal(schedule.log_variance(0, None, z), schedule.log_variance(1, None, z))


def test_noise_is_added_alike(diffusers):
    scheduler, schedule = diffusers.DDPMScheduler(1000), respaced(linear_alphas(1000), 1000)
    noise = torch.randn_like(NOISY)
    for t in (0, 500, 999):
        expected = scheduler.add_noise(NOISY, noise, torch.tensor([t, t]))
        torch.testing.assert_close(schedule.noised(NOISY, t, noise), expected, rtol=1e-4, atol=1e-4)


def test_the_cosine_schedule(diffusers, tmp_path):
    path = saved(tmp_path / "a.pt", adm().state_dict())
    for steps in (1000, 50):
        found = load_adm(path, **SMALL, noise_schedule="cosine", diffusion_steps=steps).alphas_cumprod
        expected = diffusers.DDPMScheduler(steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod
        torch.testing.assert_close(found, expected.double(), rtol=1e-3, atol=0)
        assert isinstance(respaced(found, 20), Schedule)


def moved(weights, heads, new_order):
    """Weights of an ADM by the names of diffusers: its own network with the same structure."""
    names = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"}
    names |= {"out_layers.3": "conv2", "skip_connection": "conv_shortcut", "norm": "group_norm"}
    names |= {"op": "conv", "conv": "conv"}
    places = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        "input_blocks.1.0": "down_blocks.0.resnets.0",
        "input_blocks.2.0": "down_blocks.0.downsamplers.0",
        "input_blocks.3.0": "down_blocks.1.resnets.0",
        "input_blocks.3.1": "down_blocks.1.attentions.0",
        "middle_block.0": "mid_block.resnets.0",
        "middle_block.1": "mid_block.attentions.0",
        "middle_block.2": "mid_block.resnets.1",
        "output_blocks.0.0": "up_blocks.0.resnets.0",
        "output_blocks.0.1": "up_blocks.0.attentions.0",
        "output_blocks.1.0": "up_blocks.0.resnets.1",
        "output_blocks.1.1": "up_blocks.0.attentions.1",
        "output_blocks.1.2": "up_blocks.0.upsamplers.0",
        "output_blocks.2.0": "up_blocks.1.resnets.0",
        "output_blocks.3.0": "up_blocks.1.resnets.1",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    out = {}
    for name, tensor in weights.items():
        place = max((p for p in places if name.startswith(p + ".")), key=len)
        *inside, kind = name.removeprefix(place + ".").split(".")
        part = ".".join(inside)
        start = places[place] + "."
        if part == "qkv":
            rows = tensor.flatten(1) if tensor.ndim == 3 else tensor
            order = torch.arange(len(rows))
            parts = order.view(3, -1) if new_order else order.view(heads, 3, -1).transpose(0, 1).reshape(3, -1)
            out |= {f"{start}to_{x}.{kind}": rows[part] for x, part in zip("qkv", parts, strict=True)}
        elif part == "proj_out":
            out[f"{start}to_out.0.{kind}"] = tensor.flatten(1) if tensor.ndim == 3 else tensor
        else:
            out[f"{start}{names[part]}.{kind}" if part else start + kind] = tensor
    return out


@pytest.mark.parametrize("new_order", [True, False])
@pytest.mark.parametrize("modern", [True, False])
def test_the_whole_network_answers_as_diffusers_with_the_same_weights(unet, new_order, modern):
    first, last = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if modern else ("DownBlock2D", "UpBlock2D")
    net = adm(
        num_head_channels=32,
        resblock_updown=modern,
        use_scale_shift_norm=modern,
        learn_sigma=modern,
        use_new_attention_order=new_order,
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    other = unet(
        down_block_types=(first, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", last),
        out_channels=6 if modern else 3,
        resnet_time_scale_shift="scale_shift" if modern else "default",
        downsample_type="resnet" if modern else "conv",
        upsample_type="resnet" if modern else "conv",
        attn_norm_num_groups=32,
    )
    other.load_state_dict(moved(net.state_dict(), 2, new_order))
    with torch.no_grad():
        expected = other.double()(NOISY.double(), T).sample
        torch.testing.assert_close(net.double()(NOISY.double(), T), expected, rtol=1e-5, atol=1e-5)
