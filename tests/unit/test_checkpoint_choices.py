"""Loading weights chooses nothing silently: copies under prefixes, ranges of types, tied and lazy weights."""

from __future__ import annotations

import ast
import copy
import re

import pytest
import torch
from nets import FlatNet, shaken
from safetensors.torch import save_file
from torch import nn

from facexai.denoisers import ADM, load_adm
from facexai.models.checkpoints import load_weights

HEAD = torch.randn(32, 7)


def weights(prefix="", seed=5):
    torch.manual_seed(seed)
    return {prefix + name: tensor.clone() for name, tensor in shaken(FlatNet()).state_dict().items()}


def holds(net, expected):
    state = net.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def net():
    return shaken(FlatNet())


@pytest.fixture
def file(tmp_path):
    def save(content, name="weights.pt"):
        (save_file if name.endswith(".safetensors") else torch.save)(content, tmp_path / name)
        return tmp_path / name

    return save


def refused(net, path, message, **options):
    """The refusal's text; the network has to be bit by bit what it was."""
    before = copy.deepcopy(net.state_dict())
    versions = [t._version for t in net.state_dict(keep_vars=True).values()]
    with pytest.raises(ValueError, match=message) as error:
        load_weights(net, path, **options)
    assert holds(net, before)
    assert [t._version for t in net.state_dict(keep_vars=True).values()] == versions  # nothing was written and undone
    assert "nothing was loaded" in str(error.value)
    assert len(str(error.value)) < 900
    return str(error.value)


# ---- copies under several prefixes ------------------------------------------------------------------------------

PAIRS = [
    ("backbone.", "encoder."),
    ("module.backbone.", "module.encoder."),
    ("", "model."),
    ("features.", "_orig_mod."),
]


def both(one, two, **changed):
    return weights(prefix=one, seed=5) | weights(prefix=two, seed=6) | changed


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_two_copies_are_refused_and_the_advice_loads_each(net, file, one, two, strict):
    path = file({"state_dict": both(one, two) | {"head.kernel": HEAD}})
    told = refused(net, path, "holds weights that fit in 2 ways", strict=strict)
    for prefix in (one, two):
        assert (f"without '{prefix}'" if prefix else "as they are") in told
    advice = [ast.literal_eval(text) for text in re.findall(r"prefixes=(\[.*?\])", told)]
    taken = {}
    for prefixes in advice:
        loaded = load_weights(net, path, prefixes=prefixes)
        taken[loaded.prefix] = copy.deepcopy(net.state_dict())
    assert taken.keys() == {one, two}
    for prefix, seed in ((one, 5), (two, 6)):
        assert all(torch.equal(taken[prefix][name], value) for name, value in weights(seed=seed).items())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("prefixes", "seed"),
    [
        (["student.", "teacher."], 5),
        (["teacher.", "student."], 6),
        (["nothing.", "teacher.", "student."], 6),
        ("student.", 5),
        (("teacher.",), 6),
    ],
)
def test_the_first_prefix_in_the_order_given_is_taken(net, file, prefixes, seed, strict):
    load_weights(net, file(both("student.", "teacher.")), prefixes=prefixes, strict=strict)
    assert holds(net, weights(seed=seed))


def test_the_first_prefix_that_fits_is_taken(net, file):
    content = both("student.", "teacher.")
    content["student.fc.weight"] = HEAD
    load_weights(net, file(content), prefixes=["student.", "teacher."])
    assert holds(net, weights(seed=6))


@pytest.mark.parametrize("prefixes", [["module.", "teacher.", "student."], ["teacher.", "module.", "student."]])
def test_the_order_counts_behind_a_common_wrapper(net, file, prefixes):
    load_weights(net, file(both("module.student.", "module.teacher.")), prefixes=prefixes)
    assert holds(net, weights(seed=6))


def test_names_without_a_prefix_come_last_unless_they_are_asked_for(net, file):
    path = file(both("", "teacher."))
    load_weights(net, path, prefixes=["teacher."])
    assert holds(net, weights(seed=6))
    load_weights(net, path, prefixes=["", "teacher."])
    assert holds(net, weights(seed=5))


def test_copies_on_a_wrapped_network(file):
    net = nn.DataParallel(shaken(FlatNet()))
    path = file(both("backbone.", "encoder."))
    told = refused(net, path, "without 'backbone.', for 'module.' of the network; without 'encoder.'")
    advice = [ast.literal_eval(text) for text in re.findall(r"prefixes=(\[.*?\])", told)]
    for prefixes, seed in zip(advice, (5, 6), strict=True):
        load_weights(net, path, prefixes=prefixes)
        assert holds(net.module, weights(seed=seed))


def test_one_file_for_two_halves_of_a_network(file):
    net = nn.ModuleDict({"backbone": shaken(FlatNet()), "encoder": shaken(FlatNet())})
    path, other = file(weights()), copy.deepcopy(net["backbone"].state_dict())
    refused(net, path, "missing in the file")
    told = refused(
        net, path, "as they are, for 'backbone.' of the network; as they are, for 'encoder.' of", strict=False
    )
    assert "prefixes=['', 'encoder.']" in told
    load_weights(net, path, strict=False, prefixes=["", "encoder."])
    assert holds(net["encoder"], weights())
    assert holds(net["backbone"], other)


def test_equal_copies_and_nested_wrappers_are_no_choice(net, file):
    load_weights(net, file(weights(prefix="backbone.") | weights(prefix="encoder.")))  # one module under two names
    assert holds(net, weights())
    load_weights(net, file(weights(prefix="module.model.backbone.") | {"n_averaged": torch.tensor(3)}, "ema.pt"))
    assert holds(net, weights())


def test_part_of_a_second_copy_is_no_choice_unless_parts_are_asked_for(net, file):
    content = both("backbone.", "encoder.")
    del content["encoder.fc.bias"]
    load_weights(net, file(content))
    assert holds(net, weights(seed=5))
    del content["backbone.stem.bias"]
    refused(net, file(content), "1 missing in the file")
    refused(net, file(content), r"prefixes=\['backbone.'\] or prefixes=\['encoder.'\]", strict=False)


def test_counters_of_batches_do_not_decide_between_copies(net, file):
    content = {n: t for n, t in both("backbone.", "encoder.").items() if n[0] == "b" or "num_batches" not in n}
    refused(net, file(content), "fit in 2 ways")
    places = {"ema": weights(seed=6), "model": {n: t for n, t in weights().items() if "num_batches" not in n}}
    with pytest.warns(UserWarning, match=r"fit under 'model', 'ema'; took 'model'"):
        load_weights(net, file(places))


# ---- values that the network's type cannot hold -----------------------------------------------------------------


class Odd(nn.Module):
    """Parameters and buffers of one type each."""

    def __init__(self, dtype=torch.float32, shape=(3,)):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("values", torch.ones(shape, dtype=dtype))


def changed(net, **values):
    return {n: t.clone() for n, t in net.state_dict().items()} | values


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        (torch.float16, torch.tensor([1.0, -1e30, 2.0]), r"'values' holds 1e\+30 in torch.float32, expected .*float16"),
        (torch.float16, torch.tensor([1.0, 65520.0, 2.0]), r"holds 6.55e\+04"),
        (torch.bfloat16, torch.full((3,), 3.4e38), "torch.bfloat16"),
        (torch.float32, torch.full((3,), 1e300, dtype=torch.float64), "torch.float32"),
        (torch.complex64, torch.full((3,), 1e300j, dtype=torch.complex128), "torch.complex64"),
        (torch.float8_e4m3fn, torch.full((3,), 1e3), "torch.float8_e4m3fn"),
        (torch.int32, torch.tensor([1, 2**40, 3]), "holds 1099511627776 in torch.int64, expected .*int32"),
        (torch.uint8, torch.tensor([1, -1, 3]), "holds -1"),
        (torch.bool, torch.tensor([0, 2, 1]), "holds 2"),
    ],
)
def test_values_out_of_range_are_refused(file, dtype, values, told, strict):
    net = Odd(dtype)
    text = refused(
        net, file(changed(net, values=values)), rf"1 out of the range of the network's type: .*{told}", strict=strict
    )
    assert "of that depth" not in text


def test_parameters_out_of_range_are_refused(net, file):
    net.half()
    path = file(weights() | {"fc.weight": torch.full((32, 784), 1e30), "fc.bias": torch.full((32,), -1e5)})
    refused(net, path, "2 out of the range.*'fc.weight' holds 1e.30.*'fc.bias' holds 1e.05")


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        (torch.float16, torch.tensor([65504.0, 65519.0, -65504.0]), torch.tensor([65504.0, 65504.0, -65504.0])),
        (torch.float16, torch.tensor([-torch.inf, torch.nan, 1e-30]), torch.tensor([-torch.inf, torch.nan, 0.0])),
        (torch.bfloat16, torch.tensor([1e30, -1.0, 0.0]), torch.tensor([1e30, -1.0, 0.0])),
        (torch.float64, torch.tensor([1e30, -1.0, 0.0]), torch.tensor([1e30, -1.0, 0.0])),
        (torch.int32, torch.tensor([-(2**31), 2**31 - 1, 0]), torch.tensor([-(2**31), 2**31 - 1, 0])),
        (torch.int64, torch.tensor([True, False, True]), torch.tensor([1, 0, 1])),
        (torch.bool, torch.tensor([0, 1, 1]), torch.tensor([False, True, True])),
        (torch.complex64, torch.tensor([1 + 2j, 0j, 3j], dtype=torch.complex128), torch.tensor([1 + 2j, 0j, 3j])),
    ],
)
def test_values_in_range_are_cast(file, dtype, values, expected):
    net = Odd(dtype)
    load_weights(net, file(changed(net, values=values)))
    assert net.values.dtype == dtype
    torch.testing.assert_close(net.values, expected.to(dtype), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("dtype", "values", "told"),
    [
        (torch.float32, torch.ones(3).to_sparse(), "torch.float32, torch.sparse_coo"),
        (torch.float32, torch.ones(3) + 1j, "torch.complex64"),
        (torch.complex64, torch.ones(3), "expected torch.complex64, got torch.float32"),
        (torch.int64, torch.ones(3), "expected torch.int64, got torch.float32"),
        (torch.float32, None, "torch.qint8"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_kinds_of_numbers_are_refused(file, dtype, values, told, strict):
    net = Odd(dtype)
    values = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8) if values is None else values
    refused(net, file(changed(net, values=values)), f"1 of another type, .*{told}", strict=strict)


@pytest.mark.parametrize(("shape", "other"), [((3,), (1,)), ((3,), ()), ((), (1,)), ((1,), ()), ((2, 3), (3,))])
@pytest.mark.parametrize("strict", [True, False])
def test_no_shape_is_broadcast(file, shape, other, strict):
    net = Odd(shape=shape)
    refused(net, file(changed(net, values=torch.zeros(other))), "1 of another shape: 'values' expected", strict=strict)


# ---- networks that cannot take values as they are ---------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self, how="same"):
        super().__init__()
        self.embed, self.out = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
        if how == "same":
            self.out.weight = self.embed.weight
        elif how == "transposed":
            self.out.weight = nn.Parameter(self.embed.weight.detach().T)
        elif how == "buffer":
            self.out.weight = None
            self.out.register_buffer("copy", self.embed.weight.detach()[2:5])

    def second(self):
        return "out.copy" if self.out.weight is None else "out.weight"


def tied_values(net, how):
    first = torch.arange(24.0).view(6, 4)
    return first, {"same": first, "transposed": first.T.contiguous(), "buffer": first[2:5].clone()}[how]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("how", ["same", "transposed", "buffer"])
def test_tied_weights_that_differ_in_the_file_are_refused(file, how, strict):
    net = Tied(how)
    first, second = tied_values(net, how)
    odd = second.clone()
    odd.view(-1)[-1] += 1
    path = file({"embed.weight": first, net.second(): odd})
    refused(net, path, rf"1 tied in the network whose values differ.*'embed.weight', '{net.second()}'", strict=strict)
    load_weights(net, file({"embed.weight": first, net.second(): second}), strict=strict)
    assert torch.equal(net.embed.weight, first)
    assert torch.equal(net.state_dict()[net.second()], second)


def test_a_tied_weight_is_set_by_either_name(file):
    for name in ("embed.weight", "out.weight"):
        net = Tied()
        loaded = load_weights(net, file({name: torch.arange(24.0).view(6, 4)}, "tied.safetensors"))
        assert loaded.missing == ()
        assert torch.equal(net.out.weight, torch.arange(24.0).view(6, 4))


def test_ties_are_compared_in_the_networks_type(file):
    net = Tied().half()
    first = torch.full((6, 4), 1.0)
    load_weights(net, file({"embed.weight": first, "out.weight": first + 1e-6}))
    assert torch.equal(net.out.weight, first.half())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("norm", [False, True])
def test_lazy_modules_are_refused_with_the_way_out(file, norm, strict):
    def make():
        return nn.Sequential(nn.LazyConv2d(2, 3), *([nn.LazyBatchNorm2d()] if norm else []))

    net, ready = make(), make()
    ready(torch.zeros(2, 3, 8, 8))
    path = file(ready.state_dict())
    with pytest.raises(ValueError, match=r"have no shape yet \(lazy modules\): '0.weight', '0.bias'") as error:
        load_weights(net, path, strict=strict)
    assert "nothing was loaded" in str(error.value)
    assert nn.parameter.is_lazy(net[0].weight)
    net(torch.zeros(2, 3, 8, 8))
    load_weights(net, path, strict=strict)
    assert holds(net, ready.state_dict())


@pytest.mark.parametrize("strict", [True, False])
def test_networks_without_memory_are_refused(file, strict):
    with torch.device("meta"):
        net = nn.Linear(3, 2)
    path = file(nn.Linear(3, 2).state_dict())
    with pytest.raises(
        ValueError, match=r"2 of the network's cannot be written: 'weight' \(torch.float32, meta\).*to_empty"
    ):
        load_weights(net, path, strict=strict)
    assert net.weight.is_meta


def test_expanded_buffers_are_refused_before_anything_is_written(file):
    net = Odd()
    net.register_buffer("values", torch.ones(1).expand(3))
    refused(
        net, file(changed(net, values=torch.arange(3.0))), r"cannot be written: 'values' \(torch.float32, expanded\)"
    )


# ---- other readers ----------------------------------------------------------------------------------------------


def test_a_denoisers_values_out_of_range_are_refused(tmp_path):
    options = {"image_size": 64, "num_channels": 32, "num_res_blocks": 1}
    content = {name: t.double() for name, t in ADM(**options).state_dict().items()}
    content["out.2.bias"][1] = 1e300
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"1 out of the range.*'out.2.bias' holds 1e\+300 in torch.float64"):
        load_adm(tmp_path / "a.pt", **options)
    content["out.2.bias"] = torch.zeros(3).to_sparse()
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"1 of another type.*sparse"):
        load_adm(tmp_path / "a.pt", **options)
