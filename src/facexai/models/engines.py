"""Engines that run the forward passes of a copy: OpenVINO, ONNX Runtime, and torch in bfloat16.

The copy stays a torch module with all its layers. A pass that records no gradient and has no hook goes to the engine;
every other pass runs the copy itself in float32, so that feature maps and gradients never depend on the engine.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from facexai.models.folding import hooked

EngineName = Literal["torch", "openvino", "onnxruntime"]
Precision = Literal["bf16"] | None
Run = Callable[[Tensor], Any]
"""One forward pass of the network: its input to whatever it returns."""


class EngineError(RuntimeError):
    """Says why an engine cannot run this network."""


@final
@dataclass(frozen=True)
class Engine:
    """The runtime of a copy's forward passes, and its precision.

    Attributes:
        name: ``"torch"``, ``"openvino"`` or ``"onnxruntime"``.
        precision: ``"bf16"`` if the passes compute in bfloat16, None if in float32.
    """

    name: EngineName
    precision: Precision = None

    def __str__(self) -> str:
        return self.name if self.precision is None else f"{self.name} {self.precision}"


def engine_of(net: nn.Module) -> Engine | None:
    """Returns the engine of a network that :func:`attach` returned, None of any other."""
    return getattr(net.__dict__.get("_compiled_call_impl"), "engine", None)  # which a copy of the module lacks


def precision_of(net: nn.Module) -> str:
    """Returns the precision of a network's engine, "" for the network's own."""
    engine = engine_of(net)
    return "" if engine is None or engine.precision is None else engine.precision


def convert(net: nn.Module, x: Tensor, engine: Engine) -> Run:
    """Returns a function that runs the network's forward pass in an engine.

    Args:
        net: a copy in eval mode with float32 weights on the CPU.
        x: (N, C, H, W), N of at least 2: its own input, to trace it with. The batch size stays free.
        engine: OpenVINO or ONNX Runtime, or torch in bfloat16.

    Raises:
        EngineError: the package is missing, or the network does not convert, with the reason.

    The threads are torch's at this moment.
    """
    if engine.name == "torch":
        return _torch_bf16(net)
    if x.device.type != "cpu" or x.dtype != torch.float32:
        raise EngineError(f"{engine.name} runs float32 networks on the CPU, this one takes {x.dtype} on {x.device}")
    with torch.no_grad():
        leaves, tree = tree_flatten(net(x))
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        kinds = sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor)})
        raise EngineError(f"the network returns {', '.join(kinds)} beside tensors, which {engine.name} does not")
    make = _openvino if engine.name == "openvino" else _onnxruntime
    with _silent(), torch.no_grad():
        try:
            return make(_Flat(net), x, engine.precision, tree)
        except EngineError:
            raise
        except Exception as error:  # whatever a converter raises
            line = (str(error) or "no message").strip().splitlines()[0]
            raise EngineError(f"{engine.name} does not convert the network: {type(error).__name__}: {line}") from error


def attach(net: nn.Module, run: Run, engine: Engine) -> nn.Module:
    """Returns the network, whose forward passes the engine runs where nothing records gradients or has a hook.

    Args:
        net: a copy that nobody else holds.
        run: what :func:`convert` returned for the same weights.
        engine: the engine of ``run``.
    """
    eager: Any = net._call_impl
    process = os.getpid()

    def call(*args: Any, **kwargs: Any) -> Any:
        plain = len(args) == 1 and not kwargs and not torch.is_grad_enabled() and os.getpid() == process
        if not plain or any(hooked(module) for module in net.modules()):
            return eager(*args, **kwargs)
        return run(args[0])

    call.engine = engine  # type: ignore[attr-defined]
    net._compiled_call_impl = call
    return net


class _Flat(nn.Module):
    """The network with its output as a flat tuple, which every converter takes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(tree_flatten(self.net(x))[0])


def _torch_bf16(net: nn.Module) -> Run:
    twin = copy.deepcopy(net).to(torch.bfloat16)

    def run(x: Tensor) -> Any:
        return tree_map(_float, twin(x.to(torch.bfloat16)))

    return run


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value


def _openvino(net: nn.Module, x: Tensor, precision: Precision, tree: TreeSpec) -> Run:
    openvino = _imported("openvino")
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError("this CPU has no bfloat16 instructions")
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if precision is None else "bf16",  # its default is bf16 where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(openvino.convert_model(net, example_input=x), "CPU", settings)
    ports = range(len(compiled.outputs))

    def run(x: Tensor) -> Any:
        outputs = compiled(x.contiguous().numpy())
        return tree_unflatten([torch.from_numpy(outputs[port]) for port in ports], tree)

    return run


def _onnxruntime(net: nn.Module, x: Tensor, precision: Precision, tree: TreeSpec) -> Run:
    onnxruntime, _ = _imported("onnxruntime"), _imported("onnxscript", "onnxruntime")
    if precision is not None:
        raise EngineError("ONNX Runtime has no bfloat16 convolutions on CPUs")
    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=(batch,), verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(x: Tensor) -> Any:
        outputs = session.run(None, {name: x.contiguous().numpy()})
        return tree_unflatten([torch.from_numpy(output) for output in outputs], tree)

    return run


def _imported(package: str, extra: str | None = None) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise EngineError(f'{package} is not installed: pip install "facexai[{extra or package}]"') from error


@contextmanager
def _silent() -> Iterator[None]:
    """Converters warn about every traced shape and log; what matters is checked by values afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
