"""Weights from files: what is found, what is refused in one sentence, and that no file ever runs code or half loads."""

from __future__ import annotations

import argparse
import copy
import io
import os
import pickle
import tarfile
import warnings

import numpy as np
import pytest
import torch
from codebases import Backbone, Builder, CVLface, IResNet, MagFace
from nets import FlatNet, shaken
from safetensors.torch import save_file
from torch import nn

from facexai import CAM, FaceModel, FaceXAIWarning
from facexai.models.checkpoints import load_weights


def weights(net=None, prefix="", seed=5):
    """The state dict of another network of the same kind."""
    torch.manual_seed(seed)
    other = shaken(type(net or FlatNet())())
    return {prefix + name: tensor.clone() for name, tensor in other.state_dict().items()}


def holds(net, expected):
    state = net.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def net():
    return shaken(FlatNet())


@pytest.fixture
def file(tmp_path):
    def save(content, name="weights.pt", **options):
        if name.endswith(".safetensors"):
            save_file(content, tmp_path / name)
        else:
            torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


HEAD = torch.randn(32, 7)


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "module.model.net.", "_orig_mod.module.encoder."]
)
@pytest.mark.parametrize(
    "key", ["", "state_dict", "model", "backbone", "net", "model_state_dict", "ema", "a.state_dict"]
)
def test_places_and_prefixes(net, file, key, prefix):
    content = weights(prefix=prefix) | {"head.kernel": HEAD}
    for word in reversed(key.split(".") if key else []):
        content = {word: content, "epoch": 3, "best": 0.99, "name": "r50"}
    loaded = load_weights(net, str(file(content)))
    assert holds(net, weights())
    assert (loaded.key, loaded.prefix, loaded.missing) == (key, prefix, ())
    assert set(loaded.names) == set(weights())
    assert torch.equal(loaded.rest["head.kernel"], HEAD)


def test_safetensors(net, file):
    loaded = load_weights(net, file(weights(prefix="model.") | {"head.weight": HEAD}, "model.safetensors"))
    assert holds(net, weights())
    assert list(loaded.rest) == ["head.weight"]
    assert repr(loaded) == (
        f"Loaded({len(weights())} weights of 'model.safetensors' (without 'model.'); rest: 'head.weight' (32, 7))"
    )


def test_old_files_of_torch(net, file):
    load_weights(net, file(weights(), _use_new_zipfile_serialization=False))
    assert holds(net, weights())


def test_a_margin_head_becomes_a_gallery(net, file):
    loaded = load_weights(net, file({"state_dict": weights(prefix="model.") | {"head.kernel": nn.Parameter(HEAD)}}))
    people = FaceModel(net, "adaface").gallery(loaded.rest["head.kernel"])
    assert len(people) == 7
    assert CAM(people)(torch.rand(1, 3, 112, 112)).cells.shape == (1, 7, 7)


def test_a_head_in_another_dictionary_of_the_file(net, file):
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {"state_dict_backbone": weights(), "state_dict_softmax_fc": {"weight": HEAD}, "optimizer": optimiser}
    loaded = load_weights(net, file(content))
    assert (loaded.key, list(loaded.rest)) == ("state_dict_backbone", ["state_dict_softmax_fc.weight"])


def test_of_weights_and_their_average_the_weights_are_taken_and_it_is_said(net, file):
    path = file({"ema": weights(seed=6), "model": weights()})
    with pytest.warns(FaceXAIWarning, match=r"fit under 'model', 'ema'; took 'model'. Say key='model'"):
        loaded = load_weights(net, path)
    assert holds(net, weights())
    assert loaded.rest == {}
    load_weights(net, path, key="ema")
    assert holds(net, weights(seed=6))
    with pytest.raises(ValueError, match="no tensors under 'emma'; did you mean 'ema'"):
        load_weights(net, path, key="emma")


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (lambda: IResNet(), "features.module."),  # MagFace's file, the bare network; its last norm is called features
        (lambda: Builder(MagFace()), "features.module."),  # ... and its own builder
        (lambda: CVLface(Backbone()), ""),
        (lambda: CVLface(Backbone()), "module."),
        (lambda: nn.DataParallel(IResNet()), "backbone."),
    ],
)
def test_wrappers_on_either_side(file, make, prefix):
    net, other = shaken(make()), shaken(make())
    inner = getattr(other, "features", None) if isinstance(other, Builder) else getattr(other, "module", other)
    inner = inner.net if isinstance(inner, CVLface) else inner
    content = {prefix + name: tensor.clone() for name, tensor in inner.state_dict().items()}
    load_weights(net, file(content | {"fc7.weight": HEAD}))
    assert holds(net, other.state_dict())


def test_own_prefixes(net, file):
    path = file(weights(prefix="student.core."))
    with pytest.raises(ValueError, match="has 0"):
        load_weights(net, path)
    load_weights(net, path, prefixes=["student.", "core."])
    load_weights(net, path, prefixes="student.core.")
    assert holds(net, weights())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_precisions_are_cast_to_the_networks(net, file, dtype):
    load_weights(net, file({name: t.to(dtype) if t.is_floating_point() else t for name, t in weights().items()}))
    assert net.fc.weight.dtype == torch.float32
    torch.testing.assert_close(net.fc.weight, weights()["fc.weight"], rtol=1e-2, atol=1e-2)


def test_modes_gradients_and_frozen_weights_stay(net, file):
    net.train()
    net.stem.weight.requires_grad_(False)
    kept, fingerprint = net.fc.weight, FaceModel(net, "adaface").fingerprint
    with torch.inference_mode():
        load_weights(net, file(weights()))
    assert net.fc.weight is kept
    assert not net.fc.weight.is_inference()
    assert net.training
    assert not net.stem.weight.requires_grad
    assert FaceModel(net, "adaface").fingerprint != fingerprint


def test_old_norms_without_a_counter_are_complete(net, file):
    loaded = load_weights(net, file({n: t for n, t in weights().items() if "num_batches" not in n}))
    assert loaded.missing == ()


# ---- what does not fit ------------------------------------------------------------------------------------------


def without(*names):
    return {name: t for name, t in weights().items() if name not in names}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("fc.weight", "fc.bias") | {"fv.weight": HEAD}, r"2 missing.*'fc.weight', 'fc.bias'; did you mean 'fv"),
        (weights() | {"layer4.9.conv1.weight": HEAD}, r"1 more in the file: 'layer4.9.conv1.weight'"),
        (weights() | {"fc.weight": HEAD}, r"1 of another shape: 'fc.weight' expected \(32, 784\), got \(32, 7\)"),
        (weights() | {"fc.bias": torch.zeros(32).char()}, r"1 of another type.*'fc.bias' expected torch.float32, got"),
        (weights() | {"fc.bias": torch.zeros(32) + 0j}, "got torch.complex64"),
        ({"a.b": HEAD, "c.d": HEAD}, r"(?s)it has '[a-z.]*a.b', .*; FlatNet has 'stem.weight'.*prefixes="),
        (weights(prefix="m.") | {"fc.weight": weights()["fc.weight"]}, "and .* more; did you mean 'm."),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_does_not_fit_is_told_at_once_and_nothing_is_loaded(net, file, content, message, prefix):
    before = copy.deepcopy(net.state_dict())
    path = file({"state_dict": {prefix + name: tensor for name, tensor in content.items()}})
    with pytest.raises(ValueError, match=message) as error:
        load_weights(net, path)
    assert "nothing was loaded" in str(error.value)
    assert len(str(error.value)) < 900
    assert holds(net, before)


def test_several_complaints_come_together(net, file):
    content = without("fc.bias") | {"fc.weight": HEAD, "layer3.new": HEAD}
    with pytest.raises(ValueError, match=r"(?s)1 missing.*1 more in the file.*1 of another shape.*that depth"):
        load_weights(net, file(content))


def test_not_strict_takes_what_both_have_and_says_what_is_missing(net, file):
    before = net.fc.bias.clone()
    loaded = load_weights(net, file(without("fc.bias") | {"layer4.new": HEAD}), strict=False)
    assert holds(net, without("fc.bias"))
    assert torch.equal(net.fc.bias, before)
    assert (loaded.missing, list(loaded.rest)) == (("fc.bias",), ["layer4.new"])
    assert "missing: 'fc.bias'" in repr(loaded)
    for wrong in ({"fc.weight": HEAD}, {"a": HEAD}):
        with pytest.raises(ValueError, match="nothing was loaded"):
            load_weights(net, file(wrong), strict=False)


def test_a_failure_half_way_leaves_the_old_weights(net, file):
    before = copy.deepcopy(net.state_dict())
    path = file(weights())

    def fail(*_):
        raise KeyboardInterrupt

    net.features._load_from_state_dict = fail  # the last module that loads
    with pytest.raises(KeyboardInterrupt):
        load_weights(net, path)
    assert holds(net, before)


# ---- files that are none ----------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def tarred(content, path):
    """torch's oldest format, and a name by which it looks like a pickle."""
    data = pickle.dumps(content, protocol=2)
    name = "\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for member in (name, "storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.mark.parametrize(
    "write",
    [torch.save, legacy, tarred, lambda content, path: path.write_bytes(pickle.dumps(content))],
    ids=["zip", "legacy", "tar", "pickle"],
)
def test_a_malicious_file_does_not_run(net, tmp_path, write):
    path, mark = tmp_path / "free_weights.pt", tmp_path / "it-ran"
    write({"state_dict": weights(), "extra": Malicious(mark)}, path)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"unpickled, which runs whatever code.*convert it once.*weights_only=False"):
        load_weights(net, path)
    assert not mark.exists()
    assert holds(net, before)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": {}, "args": argparse.Namespace(lr=1)}, "argparse.Namespace beside its tensors"),
        ({"state_dict": {}, "best": np.float64(0.9)}, "numpy.*scalar"),
        (nn.Linear(2, 2), r"torch.nn.modules.linear.Linear.*or .state_dict\(\) if it is a whole network"),
    ],
)
def test_what_needs_unpickling_is_refused_with_the_way_out(net, file, content, named):
    with pytest.raises(ValueError, match=named) as error:
        load_weights(net, file(content, "epoch.ckpt"))
    assert "epoch.ckpt" in str(error.value)


def torchscript(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), str(path))


BROKEN = {
    "empty.pt": (lambda p: p.touch(), "'empty.pt' is empty"),
    "empty.safetensors": (lambda p: p.touch(), "is empty"),
    "text.pt": (lambda p: p.write_text("hello, world, I am no checkpoint"), "neither safetensors nor of torch.save"),
    "short.pt": (lambda p: p.write_bytes(b"a"), "is not a checkpoint"),
    "page.pth": (lambda p: p.write_text("<!DOCTYPE html><html>"), "web page"),
    "lfs.pth": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "lfs.safetensors": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "net.onnx": (lambda p: p.write_bytes(b"\x08\x07\x12\x07pytorch"), "from_callable"),
    "keras.h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5"),
    "arrays.npz": (lambda p: np.savez(p, a=np.zeros(3)), "another kind of file"),
    "script.pt": (torchscript, "TorchScript archive.*torch.jit.load"),
    "tensor.pt": (lambda p: torch.save(torch.zeros(3), p), r"holds a torch.float32 tensor of shape \(3,\), expected"),
    "list.pt": (lambda p: torch.save([torch.zeros(3)], p), "holds a list of 1, expected names with tensors"),
    "numbers.pt": (lambda p: torch.save({"epoch": 3}, p), "a dict with 'epoch', expected names with tensors"),
    "noise.pt": (lambda p: p.write_bytes(b"PK" + bytes(range(200))), "truncated, or another kind"),
    "noise.safetensors": (lambda p: p.write_bytes(bytes(range(200))), "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_no_checkpoints_get_one_clear_error(net, tmp_path, name):
    write, message = BROKEN[name]
    write(tmp_path / name)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        load_weights(net, tmp_path / name)
    assert "\n" not in str(error.value)
    assert holds(net, before)


@pytest.mark.parametrize("name", ["weights.pt", "legacy.pt", "weights.safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_truncated_files_get_one_clear_error(net, file, name, share):
    path = file(weights(), name, **({"_use_new_zipfile_serialization": False} if name == "legacy.pt" else {}))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"download it again|would have to be unpickled"):
        load_weights(net, path)


def test_paths_that_are_no_files(net, file, tmp_path):
    file(weights(), "backbone.pth")
    with pytest.raises(FileNotFoundError, match=r"backbon.pth.*did you mean 'backbone.pth'"):
        load_weights(net, tmp_path / "backbon.pth")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_weights(net, tmp_path / "no" / "folder.pth")
    with pytest.raises(ValueError, match=r"is a folder.*there are: 'backbone.pth'"):
        load_weights(net, tmp_path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match=r"is a folder.*no file in it"):
        load_weights(net, tmp_path / "bare")
    with pytest.raises(TypeError, match=r"of a FaceModel it is model\.net"):
        load_weights(FaceModel(net), tmp_path / "backbone.pth")
