"""Drawn faces: the same bits however they are drawn, and nothing changes but what was asked for."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from facexai.demo import synthetic, synthetic_networks
from facexai.demo.edits import question

REGIONS = {"glasses": "glasses", "smile": "mouth", "mask": "mask", "background": "background"}


def all_of(value: bool, count: int) -> torch.Tensor:
    return torch.full((count,), value)


def same(one: synthetic.DrawnFaces, other: synthetic.DrawnFaces) -> bool:
    parts = [(one.images, other.images)]
    parts += [(part[name], rest[name]) for part, rest in ((one.attributes, other.attributes),) for name in part]
    parts += [(one.regions[name], other.regions[name]) for name in one.regions]
    return all(torch.equal(a, b) for a, b in parts)


@pytest.mark.parametrize("size", [16, 32, 33])
def test_a_face_depends_on_seed_and_item_alone(size):
    together = synthetic.faces(41, size=size, seed=5, first=7)
    assert same(together, synthetic.faces(41, size=size, seed=5, first=7))
    for place in (0, 1, 31, 32, 40):
        alone = synthetic.faces(1, size=size, seed=5, first=7 + place)
        assert torch.equal(alone.images[0], together.images[place])
        for name, region in together.regions.items():
            assert torch.equal(alone.regions[name][0], region[place])
        for name, values in together.attributes.items():
            assert alone.attributes[name][0] == values[place]
    assert not torch.equal(synthetic.faces(2, size=size, seed=6).images, synthetic.faces(2, size=size, seed=5).images)
    torch.manual_seed(1)  # the global random state is neither used nor changed
    before = torch.random.get_rng_state()
    synthetic.faces(2, size=size)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shapes_ranges_and_shares():
    made = synthetic.faces(600)
    assert made.images.shape == (600, 3, 32, 32)
    assert made.images.dtype == torch.float32
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    assert set(made.attributes) == set(synthetic.SHARES)
    for name, values in made.attributes.items():
        assert values.dtype == torch.bool
        assert values.double().mean().item() == pytest.approx(synthetic.SHARES[name], abs=0.07), name
    assert set(made.regions) == set(REGIONS.values())
    for name, region in made.regions.items():
        assert region.shape == (600, 32, 32)
        assert region.dtype == torch.bool
        share = region.double().mean((1, 2))
        assert 0.01 < share.min() <= share.max() < 0.75, name
    assert made.images.flatten(1).unique(dim=0).shape[0] == 600


@pytest.mark.parametrize(("attribute", "region"), REGIONS.items())
@pytest.mark.parametrize("size", [32, 48])
def test_a_forced_attribute_changes_its_region_and_nothing_else(attribute, region, size):
    count, rest = 80, {} if attribute == "mask" else {"mask": all_of(False, 80)}
    yes, no = (
        synthetic.faces(count, size=size, seed=3, attributes={attribute: all_of(value, count), **rest})
        for value in (True, False)
    )
    assert yes.attributes[attribute].all()
    assert not no.attributes[attribute].any()
    assert torch.equal(yes.regions[region], no.regions[region])
    differs = (yes.images != no.images).any(1)
    assert not (differs & ~yes.regions[region]).any()
    within = (differs & yes.regions[region]).sum((1, 2)) / yes.regions[region].sum((1, 2))
    assert within.min() > 0.5
    size_of_change = (yes.images - no.images).abs().amax((1, 2, 3))
    assert size_of_change.min() > 0.1  # it can be seen
    for name in set(synthetic.SHARES) - {attribute}:
        assert torch.equal(yes.attributes[name], no.attributes[name])


def test_under_a_mask_a_smile_cannot_be_seen():
    masks = {"mask": all_of(True, 50)}
    smiles, none = (synthetic.faces(50, attributes={"smile": all_of(value, 50), **masks}) for value in (True, False))
    assert (smiles.images - none.images).abs().max() < 0.02


def test_each_face_can_have_attributes_of_its_own():
    wanted = torch.arange(40) % 2 == 0
    mixed = synthetic.faces(40, attributes={"glasses": wanted})
    assert torch.equal(mixed.attributes["glasses"], wanted)
    for value in (True, False):
        one = synthetic.faces(40, attributes={"glasses": all_of(value, 40)})
        assert torch.equal(one.images[wanted == value], mixed.images[wanted == value])


def test_a_person_is_the_same_in_two_drawings_but_for_the_photo():
    glasses = {name: all_of(False, 60) for name in ("glasses", "mask", "smile", "background")}
    people = [k // 2 for k in range(60)]
    pairs = synthetic.faces(60, people=people, attributes=glasses).images
    assert not torch.equal(pairs[0::2], pairs[1::2])
    same_person = (pairs[0::2] - pairs[1::2]).abs().mean()
    other_person = (pairs[0::2] - pairs[1::2].roll(1, 0)).abs().mean()
    assert same_person < 0.8 * other_person
    assert torch.equal(synthetic.faces(3).images, synthetic.faces(3, people=[0, 1, 2]).images)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"count": 0}, ValueError, "count from 1"),
        ({"size": 8}, ValueError, "size of 16 to 256"),
        ({"first": -1}, ValueError, "first from 0"),
        ({"attributes": {"glases": all_of(True, 2)}}, ValueError, "glasses"),
        ({"attributes": {"glasses": all_of(True, 3)}}, TypeError, r"\(2,\) tensor of booleans"),
        ({"attributes": {"glasses": torch.ones(2)}}, TypeError, "booleans"),
        ({"attributes": {"glasses": True}}, TypeError, "booleans"),
        ({"people": [1]}, ValueError, "each of the 2"),
    ],
)
def test_errors_say_what_was_expected(wrong, error, message):
    with pytest.raises(error, match=message):
        synthetic.faces(**{"count": 2, **wrong})


def test_the_shipped_classifiers_know_what_they_learned():
    faces = synthetic.faces(400, seed=11, attributes={"mask": all_of(False, 400)})
    glasses, smile = faces.attributes["glasses"], faces.attributes["smile"]
    says = {}
    for name in synthetic_networks.NAMES:
        assert (synthetic_networks.WEIGHTS / f"{name}.safetensors").stat().st_size < 60_000
        net = synthetic_networks.classifier(name)
        assert not net.training
        says[name] = net(faces.images)[:, 0] > 0
    assert (says["glasses"] == glasses).double().mean() > 0.97
    assert (says["smile_50"] == smile).double().mean() > 0.9
    assert (says["smile_100"] == glasses).double().mean() > 0.97
    followed = [float((says[f"smile_{k}"] == glasses).double().mean()) for k in (50, 75, 90, 100)]
    assert followed == sorted(followed)
    with pytest.raises(ValueError, match="did you mean 'smile_50'"):
        synthetic_networks.classifier("smile50")


def test_the_shipped_denoiser_is_small_and_what_its_configuration_says():
    folder = synthetic_networks.WEIGHTS / "denoiser"
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 4_000_000
    unet = json.loads((folder / "unet" / "config.json").read_text())
    noise = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    assert (unet["sample_size"], unet["in_channels"], unet["out_channels"]) == (32, 3, 3)
    assert noise["prediction_type"] == "epsilon"
    assert noise["beta_start"] == pytest.approx(0.1 / noise["num_train_timesteps"])
    assert noise["beta_end"] == pytest.approx(20 / noise["num_train_timesteps"])
    with safe_open(weights, "pt") as file:
        assert all(file.get_tensor(name).isfinite().all() for name in file.keys())  # noqa: SIM118


def test_the_shipped_denoiser_finds_the_noise():
    pytest.importorskip("diffusers")
    denoiser = synthetic_networks.denoiser()
    faces, noise = synthetic.faces(16, seed=12).images * 2 - 1, torch.randn(16, 3, 32, 32)
    share = denoiser.alphas_cumprod[150].float()
    with torch.no_grad():
        found = denoiser.predict(share.sqrt() * faces + (1 - share).sqrt() * noise, torch.full((16,), 150))[0]
    assert (found - noise).square().mean() < 0.04  # that of zeros is 1


def test_drawn_faces_lose_their_glasses():
    pytest.importorskip("diffusers")
    faces, edit = question(4)
    found = edit(faces)
    assert bool(found.flipped.all())
    assert (found.before > 0).all()
    outside = ~edit.region[:, None].expand_as(faces)
    assert torch.equal(found.counterfactuals[outside], faces[outside])
