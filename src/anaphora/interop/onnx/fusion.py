"""Runs of an ONNX graph's nodes as one step: a graph of the native engine.

A model that is called for a few rows at a time takes longer to call its operations than to compute
them. Here each value of such a run is an array of *places*, one for each of its elements, in one
memory: what moves elements (Reshape, Slice, Transpose, Pad, Concat ...) only rearranges places, and
is computed by the same function as on the elements themselves; so it costs nothing at a call, or
one gather with all that stands before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from anaphora import engine
from anaphora.engine.graph import (
    LINE,
    Elementwise,
    Gather,
    GraphArray,
    GraphStep,
    Layers,
    Product,
)
from anaphora.interop.onnx.operators.layers import Convolution
from anaphora.interop.onnx.reading import Array, Node
from anaphora.interop.onnx.recurrent import FewSteps

LARGEST = 2**16
"""The most elements of a value that such a run reads or makes: larger ones are worth a call."""
CONSTANTS = 2**13
"""The room for constants, with which the memory begins; place 0 holds 0."""
LARGEST_PRODUCT = 2**22
"""The most multiplications of a product: larger ones are worth all threads."""
FEWEST = 3
"""The fewest elementwise steps that are worth a run; one product or layer is."""

Recorded = tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...], Node]
Slots = Sequence[Any]

_MOVES = {
    "Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Pad", "Reshape",
    "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
_UNARY = {
    "Abs": "abs", "Exp": "exp", "Log": "log", "Neg": "negative", "Relu": "relu",
    "Sigmoid": "sigmoid", "Sign": "sign", "Softplus": "softplus", "Sqrt": "square_root",
    "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Div": "divide", "Max": "maximum", "Min": "minimum", "Mul": "multiply",
    "Sub": "subtract", "Sum": "add",
}  # fmt: skip
_RESHAPES = {"Cast", "Dropout", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
"""What only reshapes: among values of one dtype, or over axes of size 1."""


def fused(
    steps: Sequence[Recorded], slots: Slots, kinds: Slots, results: Sequence[int]
) -> list[Recorded]:
    """The steps, of which runs that the engine can compute are one step each.

    Args:
        steps: What depends on the inputs.
        slots: The values that do not, by number.
        kinds: The shape and dtype of each value, by number.
        results: The numbers of the values that are wanted.
    """
    after: list[Recorded] = []
    last_read = {number: k for k, step in enumerate(steps) for number in step[1]}
    last_read |= dict.fromkeys(results, len(steps))
    run = _Run(slots, kinds)
    for k, step in enumerate(steps):
        try:
            run.add(step)
        except _NotFusedError:
            after += [*run.closed(last_read, k), step]
            run = _Run(slots, kinds)
    return after + run.closed(last_read, len(steps))


class _NotFusedError(Exception):
    """A step that stays as it is."""


def _require(holds: Any) -> None:
    if not holds:
        raise _NotFusedError


class _Run:
    """Consecutive steps, as those of a graph of the engine."""

    def __init__(self, slots: Slots, kinds: Slots) -> None:
        self.slots, self.kinds = slots, kinds
        self.fused: list[Recorded] = []  # what stands for these steps if they are too few
        self.steps: list[GraphStep] = []
        self.given: dict[int, int] = {}  # the places of values that are computed before, by number
        self.places: dict[int, Array] = {}  # of each element of a value, by number
        self.constants = np.zeros(CONSTANTS, np.float32)
        self.constant_count = LINE
        self.memory = CONSTANTS

    def add(self, step: Recorded) -> None:
        """Add a step.

        Raises:
            _NotFusedError: it cannot be one of a graph.
        """
        function, inputs, outputs, node = step
        kinds = [self.kinds[number] for number in outputs]
        _require(all(kind is not None and kind[1] == np.float32 for kind in kinds))
        _require(all(math.prod(kind[0]) <= LARGEST for kind in kinds))
        found = self._found(function, inputs, kinds[0][0], node)
        found = found if type(found) is tuple else (found,)
        self.places |= {n: places for n, places in zip(outputs, found, strict=False) if n}
        self.fused.append(step)

    def closed(self, last_read: Mapping[int, int], end: int) -> list[Recorded]:
        """The steps, as one if they are worth it, whose results are what is read from `end` on."""
        kinds = [type(step) for step in self.steps]
        if not (Product in kinds or Layers in kinds or kinds.count(Elementwise) >= FEWEST):
            return self.fused
        made = dict.fromkeys(n for step in self.fused for n in step[2] if n in self.places)
        numbers = [number for number in made if last_read.get(number, -1) >= end]
        results: list[GraphArray] = [
            (self._adjacent(self.places[number]), self.places[number].shape) for number in numbers
        ]
        given = [(place, self.kinds[number][0]) for number, place in self.given.items()]
        constants = self.constants[: self.constant_count]
        run = engine.pack_graph(self.memory, constants, given, results, self.steps)
        if run is None:
            return self.fused

        def function(*arrays: Array) -> tuple[Array, ...]:
            return run([np.ascontiguousarray(array) for array in arrays])

        return [(function, tuple(self.given), tuple(numbers), self.fused[-1][3])]

    # Values

    def _value(self, number: int) -> Array | None:
        """A value that does not depend on the inputs; None if it does, or is omitted."""
        value = self.slots[number]
        return None if value is None else np.asarray(value)

    def _constant(self, number: int) -> Array:
        value = self._value(number)
        _require(value is not None and value.dtype == np.float32)
        assert value is not None
        return value

    def _places(self, number: int) -> Array:
        """The places of a value's elements."""
        if number not in self.places:
            value = self._value(number)
            if value is not None:
                _require(value.dtype == np.float32)
                return self._kept(value)
            _require(self.kinds[number] is not None)
            shape, dtype = self.kinds[number]
            _require(dtype == np.float32 and math.prod(shape) <= LARGEST)
            self.given[number] = self._room(math.prod(shape))
            self.places[number] = self._range(self.given[number], shape)
        return self.places[number]

    def _kept(self, value: Array) -> Array:
        """The places of a constant."""
        if not value.any() and not np.signbit(value).any():
            return np.zeros(value.shape, np.int64)
        return self._stored(value)

    def _stored(self, value: Array) -> Array:
        """The places of a constant whose elements lie one after the other, zeros too."""
        end = self.constant_count + value.size
        _require(end <= CONSTANTS)
        self.constants[self.constant_count : end] = value.reshape(-1)
        places = self._range(self.constant_count, value.shape)
        self.constant_count = end
        return places

    def _room(self, count: int) -> int:
        place, self.memory = self.memory, self.memory + -(-count // LINE) * LINE
        return place

    @staticmethod
    def _range(place: int, shape: tuple[int, ...]) -> Array:
        return np.arange(place, place + math.prod(shape)).reshape(shape)

    def _adjacent(self, places: Array) -> int:
        """Where the elements lie one after the other, in C order."""
        flat = places.reshape(-1)
        if not flat.size:
            return 0
        if (np.diff(flat) == 1).all():
            return int(flat[0])
        if flat.max() < CONSTANTS and self.constant_count + flat.size <= CONSTANTS:
            return int(self._stored(self.constants[flat]).reshape(-1)[0])
        to = self._room(flat.size)
        self.steps.append(Gather(to, np.ascontiguousarray(flat)))
        return to

    # Steps

    def _found(self, function: Any, inputs: tuple[int, ...], shape: Any, node: Node) -> Any:
        """The places of what a step makes; `shape` is that of its first output."""
        operator = node.operator
        if operator in _MOVES:
            _require(not node.get("value", 0.0))  # of Pad
            return function(*[self._moved(number) for number in inputs])
        if operator in _RESHAPES:
            places = self._places(inputs[0])
            _require(places.size == math.prod(shape))
            return places.reshape(shape)
        if operator in _UNARY:
            return self._elementwise(_UNARY[operator], self._places(inputs[0]))
        if operator in _BINARY:
            places = self._places(inputs[0])
            for number in inputs[1:]:
                places = self._elementwise(_BINARY[operator], places, self._places(number))
            return places
        if operator == "Pow":
            exponent = self._constant(inputs[1])
            _require(exponent.size == 1 and exponent.reshape(()) == 2)
            places = self._places(inputs[0])
            return self._elementwise("multiply", places, places)
        if operator == "BatchNormalization":
            places = self._places(inputs[0])
            factor, shift = function.scale(places.ndim, *map(self._constant, inputs[1:]))
            places = self._elementwise("multiply", places, self._kept(factor))
            return self._elementwise("add", places, self._kept(shift))
        if isinstance(function, Convolution):
            return self._convolution(function, *inputs)
        if operator == "MatMul":
            return self._product(self._places(inputs[0]), self._constant(inputs[1]).T)
        if isinstance(function, FewSteps):
            return self._layers(function, *inputs)
        raise _NotFusedError

    def _moved(self, number: int) -> Any:
        """What stands for an input of a function that moves elements."""
        value = self._value(number)
        if number == 0 or (value is not None and value.dtype != np.float32):
            return value
        return self._places(number)

    def _elementwise(self, name: str, a: Array, b: Array | None = None) -> Array:
        """The places of ``name(a, b)``; computed wherever a lies, and between its elements."""
        a, b = (a, a) if b is None else np.broadcast_arrays(a, b)
        _require(a.size <= LARGEST)
        if not a.size:
            return a
        if not _is_compact(a) or (b is not a and len(np.unique(a)) < a.size):
            a = self._range(self._adjacent(a), a.shape)
        first, count = int(a.min()), int(np.ptp(a)) + 1
        if not ((b - b.min()) == (a - first)).all():
            beside = np.zeros(count, np.int64)
            beside[a - first] = b
            b = self._adjacent(beside) + (a - first)
        to = self._room(count)
        self.steps.append(Elementwise(name, to, first, int(b.min()), count))
        return a + (to - first)

    def _product(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """The places of ``x weight^T + bias``, of x [..., K] and weight [N, K]."""
        _require(x.ndim > 1 and weight.ndim == 2 and x.size <= LARGEST and weight.size)
        N, K = weight.shape
        rows, row = x.size // K, -(-N // LINE) * LINE
        _require(rows * N * K <= LARGEST_PRODUCT)
        a, to = self._adjacent(x), self._room(rows * row)
        weight = np.ascontiguousarray(weight)
        self.steps.append(Product(to, row, a, rows, weight, bias))
        return self._range(to, (rows, row))[:, :N].reshape(*x.shape[:-1], N)

    def _convolution(self, convolution: Convolution, x: int, weight: int, bias: int = 0) -> Array:
        _require(convolution.groups == 1)
        filters = self._constant(weight)
        windows = convolution.windows(self._places(x), filters.shape[2])  # [N, S, C, K]
        _require(windows.size <= LARGEST)
        N, S = windows.shape[:2]
        y = self._product(
            windows.reshape(N, S, -1),
            filters.reshape(len(filters), -1),
            self._constant(bias) if bias else None,
        )
        return y.transpose(0, 2, 1)

    def _layers(self, function: FewSteps, *inputs: int) -> tuple[Array, ...]:
        x, W, R, B, _, *rest = (*inputs, *[0] * 8)[:8]
        weights = [None if n == 0 else self._constant(n) for n in (W, R, B, rest[2])]
        packed = function.recurrent.pack(*weights)
        _require(packed is not None)
        assert packed is not None
        places = self._places(x)
        T, rows, _ = places.shape
        H = self._constant(R).shape[2]
        states = []
        for number in rest[: len(function.recurrent.cells[0].states)]:
            initial = self._places(number) if number else np.zeros((1, rows, H), np.int64)
            states.append(self._room(initial.size))  # its own, since it is overwritten
            self.steps.append(Gather(states[-1], np.ascontiguousarray(initial.reshape(-1))))
        a, to = self._adjacent(places), self._room(T * rows * H)
        self.steps.append(Layers(to, a, T, rows, packed, states))
        ends = [self._range(state, (1, rows, H)) for state in states]
        return (self._range(to, (T, 1, rows, H)), *ends)


def _is_compact(places: Array) -> bool:
    """Whether to compute what lies between the elements too takes less than to gather them."""
    return int(np.ptp(places)) < 2 * places.size + LINE
