"""ONNX Runtime's DynamicQuantizeLSTM, and the standard's operators on 8-bit integers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from anaphora.interop.cells import stacked
from anaphora.interop.onnx.operators import Function, axis_of, check_size, operator
from anaphora.interop.onnx.reading import Array, Model, Node
from anaphora.interop.onnx.recurrent import RecurrentNode
from anaphora.tensor import Tensor


class Quantized(NamedTuple):
    """``value = scale * (integers - zero_point)``, of unsigned 8-bit integers."""

    integers: Array
    scale: Any
    zero_point: Any


def quantize(x: Array) -> Quantized:
    """An array in 8 bits, the range of its values and 0 mapped to 0..255.

    >>> quantize(np.array([-1.0, 0.0, 1.55], np.float32)).integers
    array([  0, 100, 255], dtype=uint8)
    """
    if not x.size:
        return Quantized(x.astype(np.uint8), np.float32(1), np.uint8(0))
    low, high = np.minimum(x.min(), 0), np.maximum(x.max(), 0)
    scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1)
    zero_point = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
    integers = np.clip(np.rint(x / scale) + zero_point, 0, 255).astype(np.uint8)
    return Quantized(integers, scale, zero_point)


class Weight8(NamedTuple):
    """A weight of 8-bit integers [K, N] less its zero point, and its scale, one or [N].

    The integers are held as floats in which every sum of a product with 0..255 is exact.
    """

    integers: Array
    scale: Array

    @classmethod
    def of(cls, integers: Array, scale: Array, zero_point: Array | None) -> Weight8:
        """Of integers, their scale and their zero point."""
        zero = 0 if zero_point is None else zero_point.astype(np.int32)
        centred = integers.astype(np.int32) - zero
        largest = np.abs(centred).sum(axis=0).max(initial=0) * 255
        return cls(centred.astype(np.float32 if largest < 2**24 else np.float64), scale)

    def product(self, x: Array) -> Array:
        """``x W`` with the rows of x in 8 bits, all by one scale."""
        rows = quantize(x)
        centred = rows.integers.astype(self.integers.dtype) - rows.zero_point
        scale = (rows.scale * self.scale).astype(np.float32)
        y: Array = (centred @ self.integers).astype(np.float32) * scale
        return y


class QuantizedLstm:
    """A DynamicQuantizeLSTM node: an LSTM whose products are of 8-bit integers.

    The weights W [D, I, 4H] and R [D, H, 4H] have a scale and a zero point for each direction or
    each column. X is quantized with one scale, h at every step with one for all rows; what follows
    is float32.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.inner = RecurrentNode(node, "LSTM")
        self._weights: tuple[tuple[Any, ...], list[tuple[Weight8, Weight8]]] = ((), [])

    @property
    def cells(self) -> Any:
        """Of each direction."""
        return self.inner.cells

    def __call__(self, *inputs: Any) -> tuple[Array, ...]:
        """The outputs Y, Y_h and Y_c; a product of integers has no gradient."""
        arrays = [value.data if isinstance(value, Tensor) else value for value in inputs]
        x, W, R, B, lengths, h, c, P, *numbers = arrays + [None] * (8 - len(arrays))
        inner = self.inner
        if len(numbers) != 4 or any(n is None for n in (numbers[0], numbers[2])):
            raise self.node.error("got no scales of W and R")
        for name, value in (("W", W), ("R", R)):
            if value is None or value.ndim != 3 or value.dtype not in (np.int8, np.uint8):
                raise self.node.error(f"{name} is not of 8-bit integers [D, I, 4H]")
        if inner.layout:
            raise self.node.error("layout 1, which the operator does not have")
        inner.check(
            x, _floats(W).transpose(0, 2, 1), _floats(R).transpose(0, 2, 1), B, lengths, h, c, P
        )
        if x.dtype != np.float32:
            raise self.node.error(f"X is {x.dtype}, expected float32")
        D, H = len(inner.reverse), R.shape[1]
        for name, value in zip(
            ("W_scale", "W_zero_point", "R_scale", "R_zero_point"), numbers, strict=True
        ):
            if value is not None and value.shape not in ((D,), (D, 4 * H), (1,), ()):
                raise self.node.error(
                    f"{name} has the shape {value.shape}, expected {(D,)} or {(D, 4 * H)}"
                )
        rows = x.shape[1]
        outputs, hs, cs = [], [], []
        for d, (W8, R8) in enumerate(self._packed(W, R, numbers)):
            start = [np.zeros((rows, H), np.float32) if s is None else s[d] for s in (h, c)]
            output, final = self._direction(
                d,
                x,
                W8,
                R8,
                None if B is None else B[d],
                lengths,
                start,
                None if P is None else P[d],
            )
            outputs.append(output)
            hs.append(final[0])
            cs.append(final[1])
        return stacked(outputs, 1), np.stack(hs), np.stack(cs)

    def _packed(self, W: Array, R: Array, numbers: Any) -> list[tuple[Weight8, Weight8]]:
        key = (W, R, *numbers)
        known, weights = self._weights
        if len(known) != len(key) or any(a is not b for a, b in zip(known, key, strict=True)):
            W_scale, W_zero, R_scale, R_zero = (
                None if n is None else np.broadcast_to(n, n.shape or (1,)) for n in numbers
            )

            def at(d: int, value: Array | None) -> Any:
                return None if value is None else value[d if len(value) > 1 else 0]

            weights = [
                (
                    Weight8.of(W[d], at(d, W_scale), at(d, W_zero)),
                    Weight8.of(R[d], at(d, R_scale), at(d, R_zero)),
                )
                for d in range(len(self.inner.reverse))
            ]
            self._weights = (key, weights)
        return weights

    def _direction(
        self,
        d: int,
        x: Array,
        W: Weight8,
        R: Weight8,
        B: Array | None,
        lengths: Array | None,
        start: list[Array],
        P: Array | None,
    ) -> tuple[Array, list[Array]]:
        T, rows, I = x.shape
        H = start[0].shape[1]
        cell = self.inner.cells[d]
        ends = np.full(rows, T) if lengths is None else lengths.astype(np.int64)
        halves = W.product(x.reshape(T * rows, I)).reshape(T, rows, 4 * H)
        bias = np.zeros(4 * H, np.float32) if B is None else B[: 4 * H] + B[4 * H :]
        names = ("i", "o", "f", "g")
        used = [k for k, name in enumerate(names) if name in cell.gates]
        peepholes = [] if P is None else [P[k * H : (k + 1) * H] for k in range(3)][: len(used) - 1]
        output = np.zeros((T, rows, H), np.float32)
        h, c = (np.array(state) for state in start)
        for t in range(T):
            active = t < ends
            if not active.any():
                break
            at = ends - 1 - t if self.inner.reverse[d] else np.full(rows, t)
            now = halves[np.where(active, at, 0), np.arange(rows)]
            # The range of h counts the rows that have just ended too, as in ONNX Runtime.
            gates = now + R.product(np.where((t <= ends)[:, None], h, 0)) + bias
            values = [gates[:, k * H : (k + 1) * H] for k in used]
            new_h, new_c = cell(*values, h, c, *peepholes)
            h = np.where(active[:, None], new_h, h)
            c = np.where(active[:, None], new_c, c)
            which = np.flatnonzero(active)
            output[at[which], which] = new_h[which]
        empty = (ends == 0)[:, None]  # a row without steps ends in zeros
        return output, [np.where(empty, 0, state).astype(np.float32) for state in (h, c)]


DYNAMIC_LSTM = "com.microsoft:DynamicQuantizeLSTM"


def dequantized(model: Model) -> Model:
    """A model whose LSTMs of 8-bit weights are LSTMs of the floats that these stand for.

    It computes what they do but for the roundings of inputs and states to 8 bits. Weights keep
    their names. Where weights or scales are computed, a node remains as it is.
    """
    graph = model.graph
    nodes, floats, unused = list[Node](), dict[str, Array](), set[str]()
    for node in graph.nodes:
        inputs = [*node.inputs, *("",) * (12 - len(node.inputs))]
        weights, numbers = inputs[1:3], inputs[8:]
        if node.operator != DYNAMIC_LSTM or any(
            name and name not in graph.arrays for name in (*weights, *numbers)
        ):
            nodes.append(node)
            continue
        for k, name in enumerate(weights):
            weight, scale, zero = (
                graph.arrays.get(n) for n in (name, numbers[2 * k], numbers[2 * k + 1])
            )
            if weight is None or weight.ndim != 3 or scale is None:
                raise node.error("got no weights [D, I, 4H], or no scales of them")
            inputs[k + 1] = name if name not in floats else f"{node.name}: {name}"
            floats[inputs[k + 1]] = _dequantized(weight, scale, zero).transpose(0, 2, 1)
        unused.update(numbers)
        own = {"operator": "LSTM", "inputs": tuple(inputs[:8]), "version": 14}
        nodes.append(dataclasses.replace(node, **own))  # type: ignore[arg-type]
    unused.difference_update(name for node in nodes for name in node.inputs)
    kept = {name: array for name, array in graph.arrays.items() if name not in unused}
    return dataclasses.replace(
        model, graph=dataclasses.replace(graph, nodes=tuple(nodes), arrays=kept | floats)
    )


def _dequantized(weight: Array, scale: Array, zero_point: Array | None) -> Array:
    """The numbers of a weight [D, I, 4H], with a scale for each direction, or [D, 4H]."""

    def along(numbers: Array) -> Array:
        return numbers.reshape((len(numbers), 1, -1) if numbers.ndim == 2 else (-1, 1, 1))

    centred = weight.astype(np.int32)
    if zero_point is not None:
        centred = centred - along(zero_point.astype(np.int32))
    floats: Array = (centred * along(scale)).astype(np.float32)
    return floats


def _floats(value: Array) -> Array:
    """An array of that shape and float32, without memory."""
    return np.broadcast_to(np.float32(0), value.shape)


@operator("DynamicQuantizeLinear")
def _dynamic_quantize_linear(node: Node) -> Function:
    def function(x: Any) -> Any:
        integers, scale, zero_point = quantize(np.asarray(x))
        return integers, np.asarray(scale), np.asarray(zero_point)

    return function


def _along(node: Node, value: Any, axis: int, axes: int) -> Any:
    """A scale or zero point, one or one for each index of an axis, so that it broadcasts."""
    if value.size == 1:
        return value.reshape(())
    if value.ndim != 1:
        raise node.error(f"a scale or zero point of shape {value.shape}")
    k = axis_of(node, axis, axes)
    return value.reshape((-1, *(1,) * (axes - k - 1)))


@operator("DequantizeLinear")
def _dequantize_linear(node: Node) -> Function:
    axis = node.get("axis", 1)

    def function(x: Any, scale: Any, zero_point: Any = None) -> Any:
        scale = _along(node, scale, axis, x.ndim)
        integers = x.astype(np.int32)
        if zero_point is not None:
            integers = integers - _along(node, zero_point, axis, x.ndim).astype(np.int32)
        return integers.astype(scale.dtype) * scale

    return function


@operator("QuantizeLinear")
def _quantize_linear(node: Node) -> Function:
    axis = node.get("axis", 1)

    def function(x: Any, scale: Any, zero_point: Any = None) -> Any:
        x, scale = np.asarray(x), np.asarray(scale)
        dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
        if dtype not in (np.int8, np.uint8):
            raise node.error(f"to {dtype}, expected int8 or uint8")
        zero = 0 if zero_point is None else _along(node, zero_point, axis, x.ndim).astype(np.int32)
        steps = np.rint(x / _along(node, scale, axis, x.ndim)) + zero
        limits = np.iinfo(dtype)
        return np.clip(steps, limits.min, limits.max).astype(dtype)

    return function


@operator("MatMulInteger")
def _matmul_integer(node: Node) -> Function:
    def function(a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
        if a.ndim < 2 or b.ndim != 2 or a.shape[-1] != b.shape[0]:
            raise node.error(f"of shapes {a.shape} and {b.shape}")
        check_size(node, [*a.shape[:-1], b.shape[1]])
        left, right = a.astype(np.int32), b.astype(np.int32)
        if a_zero is not None:
            left = left - (a_zero if a_zero.size == 1 else a_zero[..., None]).astype(np.int32)
        if b_zero is not None:
            right = right - b_zero.astype(np.int32)
        return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int32)

    return function
