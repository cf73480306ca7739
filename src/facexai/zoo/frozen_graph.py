"""Frozen TensorFlow graphs: their nodes and constants, read from the bytes without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from facexai._errors import truncate

Value = int | float | bytes | tuple[int, ...] | NDArray[Any]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FLOAT, _INT32 = 1, 3
_DTYPES = {_FLOAT: np.dtype("<f4"), _INT32: np.dtype("<i4")}
_MOST_AXES, _MOST_NUMBERS = 8, 2**31 - 1


@final
@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a graph.

    Attributes:
        op: its kind, such as ``"Conv2D"``.
        inputs: names of the nodes it takes, in order; those it merely waits for (``^name``) are left out.
        attributes: numbers, switches and kinds of number as they are, text as bytes, lists of integers as a tuple,
            a tensor as an array (which cannot be written to). Shapes, functions and other lists are left out.
    """

    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Value]


def read_graph(data: bytes) -> dict[str, Node]:
    """Returns the nodes of a serialised ``GraphDef`` by name, in the order of the file.

    Args:
        data: content of the ``.pb`` file. Arrays of the nodes are views of it.

    Raises:
        ValueError: truncated, no such graph, or one with a tensor that holds neither float32 nor int32.

    Time and memory are bounded by the number of bytes. Source: the Protocol Buffers encoding and TensorFlow's
    ``graph.proto``, ``node_def.proto``, ``attr_value.proto``, ``tensor.proto`` (field numbers only); ours.

    >>> read_graph(bytes.fromhex("0a0d0a01781204 52656c75 1a02696e"))
    {'x': Node(op='Relu', inputs=('in',), attributes={})}
    """
    nodes: dict[str, Node] = {}
    whole = _Span(memoryview(data), 0, len(data))
    for number, value in whole.fields():
        if number == 1:
            span = whole.part(value)
            name, node = _node(span)
            if not name or not node.op or name in nodes:
                span.refuse(f"expected a node with an operation and a name of its own, got {name!r}, {node.op!r}")
            nodes[name] = node
    if not nodes:
        whole.refuse("there is no node")
    return nodes


@final
@dataclass(frozen=True, eq=False)
class _Span:
    """A stretch of the file. A message in it is a row of fields: a number, and an integer or a stretch."""

    data: memoryview
    start: int
    end: int

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(
            f"frozen graph, bytes {self.start} to {self.end}: {truncate(why)}; the file is damaged or no such graph"
        )

    def fields(self) -> Iterator[tuple[int, int | _Span]]:
        at = self.start
        while at < self.end:
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            if number == 0:
                self.refuse(f"expected a field number before byte {at}, got 0")
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value
                continue
            if wire == _LENGTH:
                size, at = self._varint(at)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                self.refuse(f"expected wire type 0, 1, 2 or 5 before byte {at}, got {wire}")
            if size > self.end - at:
                self.refuse(f"field {number} needs {size} bytes from byte {at}, only {self.end - at} are left")
            yield number, _Span(self.data, at, at + size)
            at += size

    def _varint(self, at: int) -> tuple[int, int]:
        """Decodes a varint: seven bits a byte, lowest first, the top bit set in all but the last byte; returns
        the next offset, too.
        """
        value = 0
        for shift in range(0, 70, 7):
            if at >= self.end:
                self.refuse(f"an integer is cut off at byte {at}")
            byte = self.data[at]
            value, at = value | (byte & 0x7F) << shift, at + 1
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at
        self.refuse(f"an integer before byte {at} has more than 64 bits")

    def part(self, value: int | _Span) -> _Span:
        if isinstance(value, int):
            self.refuse(f"expected a stretch of bytes, got the integer {value}")
        return value

    def number(self, value: int | _Span) -> int:
        """Returns a signed integer of 64 bits."""
        if not isinstance(value, int):
            self.refuse(f"expected an integer, got {value.end - value.start} bytes at byte {value.start}")
        return value - (1 << 64) if value >> 63 else value

    def numbers(self, value: int | _Span) -> list[int]:
        """Decodes one integer, or a packed row of them."""
        if isinstance(value, int):
            return [self.number(value)]
        result, at = [], value.start
        while at < value.end:
            one, at = value._varint(at)
            result.append(self.number(one))
        return result

    def raw(self) -> bytes:
        return bytes(self.data[self.start : self.end])

    def text(self) -> str:
        try:
            return self.raw().decode()
        except UnicodeDecodeError:
            self.refuse("expected a name in UTF-8")

    def array(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        if (self.end - self.start) % dtype.itemsize:
            self.refuse(f"expected a multiple of {dtype.itemsize} bytes, got {self.end - self.start}")
        return np.frombuffer(self.data[self.start : self.end], dtype)


def _node(span: _Span) -> tuple[str, Node]:
    name, op, inputs, attributes = "", "", [], {}
    for number, value in span.fields():
        if number == 1:
            name = span.part(value).text()
        elif number == 2:
            op = span.part(value).text()
        elif number == 3:
            inputs.append(span.part(value).text().removesuffix(":0"))
        elif number == 5:
            key, attribute = _entry(span.part(value))
            if attribute is not None:
                attributes[key] = attribute
    return name, Node(op, tuple(i for i in inputs if not i.startswith("^")), attributes)


def _entry(span: _Span) -> tuple[str, Value | None]:
    """Returns one attribute: its name and its value."""
    key, attribute = "", None
    for number, value in span.fields():
        if number == 1:
            key = span.part(value).text()
        elif number == 2:
            attribute = _attribute(span.part(value))
    return key, attribute


def _attribute(span: _Span) -> Value | None:
    result: Value | None = None
    for number, value in span.fields():
        if number == 1:
            result = _integers(span.part(value))
        elif number == 2:
            result = span.part(value).raw()
        elif number in (3, 5, 6):  # integer, switch, kind of number
            result = span.number(value)
        elif number == 4:
            floats = span.part(value).array(_DTYPES[_FLOAT])
            if len(floats) != 1:
                span.refuse(f"expected one float, got {len(floats)}")
            result = float(floats[0])
        elif number == 8:
            result = _tensor(span.part(value))
    return result


def _integers(span: _Span) -> tuple[int, ...] | None:
    """Returns a list's integers; None for a list of other things."""
    found: list[int] = []
    for number, value in span.fields():
        if number == 3:
            found += span.numbers(value)
    return tuple(found) if found else None


def _tensor(span: _Span) -> NDArray[Any]:
    kind, content = 0, None
    shape: tuple[int, ...] = ()
    floats: list[NDArray[Any]] = []
    integers: list[int] = []
    for number, value in span.fields():
        if number == 1:
            kind = span.number(value)
        elif number == 2:
            shape = _shape(span.part(value))
        elif number == 4:
            content = span.part(value)
        elif number == 5:
            floats.append(span.part(value).array(_DTYPES[_FLOAT]))
        elif number == 7:
            integers += span.numbers(value)
    if kind not in _DTYPES:
        span.refuse(f"expected a tensor of float32 (1) or int32 (3), got kind {kind}")
    if not all(-(2**31) <= i < 2**31 for i in integers):
        span.refuse("expected integers of 32 bits")
    if content is not None:
        flat = content.array(_DTYPES[kind])
    elif kind == _FLOAT:
        flat = np.concatenate([np.empty(0, _DTYPES[_FLOAT]), *floats])
    else:
        flat = np.array(integers, _DTYPES[_INT32])
    flat.flags.writeable = False
    size = math.prod(shape)
    if len(flat) != size and not (content is None and len(flat) == 1):  # one number may stand for all
        span.refuse(f"expected {size} numbers for shape {shape}, got {len(flat)}")
    return flat.reshape(shape) if len(flat) == size else np.broadcast_to(flat, shape)


def _shape(span: _Span) -> tuple[int, ...]:
    shape: list[int] = []
    for number, value in span.fields():
        if number == 2:
            sizes = [span.number(v) for n, v in span.part(value).fields() if n == 1]
            shape.append(sizes[-1] if sizes else 0)
    if len(shape) > _MOST_AXES or min(shape, default=1) < 1 or math.prod(shape) > _MOST_NUMBERS:
        span.refuse(f"expected at most {_MOST_AXES} sizes of 1 or more, got {shape[: _MOST_AXES + 1]}")
    return tuple(shape)
