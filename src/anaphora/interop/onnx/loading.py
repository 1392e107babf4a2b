"""ONNX models as modules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.cells import Cell
from anaphora.interop.onnx.operators import STATIC
from anaphora.interop.onnx.program import Program
from anaphora.interop.onnx.reading import Array, Graph, Model, OnnxError, Value, graphs, read
from anaphora.nn import Module
from anaphora.tensor import Parameter, Tensor, recording

_UNTRAINED = {
    "BatchNormalization": (3, 4), "Clip": (1, 2), "Pow": (1,), "Range": (0, 1, 2),
    "DequantizeLinear": (1, 2), "QuantizeLinear": (1, 2),
    "com.microsoft:DynamicQuantizeLSTM": (3, 8, 9, 10, 11),
}  # fmt: skip
"""Inputs of operators, by position, that are numbers about the model and no weights of it."""


def load(path: str | os.PathLike[str]) -> OnnxModel:
    """Read an ONNX file as a module, which is called with the inputs of its graph.

    Every RNN, GRU and LSTM of the standard, whatever its attributes, runs as a `Cell` made for it,
    fused forward and backward; DynamicQuantizeLSTM of ONNX Runtime runs in 8 bits, forward only.

    Args:
        path: The file. External data must lie in its folder.

    Raises:
        FileNotFoundError: there is no such file.
        OnnxError: a `ValueError`: the file is damaged, or a node cannot be run; the message names
            the node.

    >>> import onnx, tempfile
    >>> from onnx import TensorProto, helper
    >>> x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["T"]) for n in "xy")
    >>> graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     onnx.save(helper.make_model(graph), f"{folder}/relu.onnx")
    ...     model = load(f"{folder}/relu.onnx")
    >>> model([-1.0, 2.0])
    (Tensor([0., 2.], dtype=float32),)
    """
    path = Path(path)
    try:
        return OnnxModel(read(path))
    except OnnxError as error:
        text = str(error)
        raise OnnxError(text if text.startswith(str(path)) else f"{path}: {text}") from error


class OnnxModel(Module):
    """A module that computes an ONNX graph; `load` makes one of a file.

    It is called with the inputs of the graph in their order, or by name, and returns a tuple of the
    outputs: Tensors, or arrays of integers or booleans. The floating-point arrays of the graph are
    its parameters (``weights.NAME``), but for those that are single numbers, statistics of a batch
    normalization or bounds; so it can be trained. Under `no_grad` it computes on plain arrays, and
    what depends on the shapes of the inputs or on the parameters alone is computed once.

    Attributes:
        weights: The parameters by the names of the arrays.
        metadata: The texts that the file holds, by name.
        graph_inputs: The inputs of the graph.
        graph_outputs: The outputs of the graph.

    Raises:
        OnnxError: the graph holds what cannot be run.
    """

    def __init__(self, model: Model) -> None:
        graph = model.graph
        self.weights = {
            name: Parameter(graph.arrays[name])
            for name in graph.arrays
            if name in set(_trained(graph))
        }
        self.metadata = dict(model.metadata)
        self.graph_inputs = graph.inputs
        self.graph_outputs = graph.outputs
        self._model = model
        self._program = Program(graph, self.weights)
        self.eval()

    @property
    def cells(self) -> dict[str, tuple[Cell, ...]]:
        """The cells of each recurrent node by its name, one for each direction."""
        return {name: node.cells for name, node in self._program.recurrent.items()}

    def forward(self, *inputs: Any, **named: Any) -> tuple[Any, ...]:
        """Compute the outputs.

        Args:
            inputs: Of the graph, in their order.
            named: The others, by name.

        Raises:
            TypeError: an input is missing, unknown or given twice, or of another dtype.
            ValueError: an input has another shape than the graph says, or a node cannot compute.
        """
        if not (named or recording()):
            with np.errstate(all="ignore"):
                known = self._program.again(inputs)
            if known is not None:
                return tuple([_output(value) for value in known])
        if len(inputs) != len(self.graph_inputs) or named:
            inputs = tuple(self._given(inputs, named))
        given = [
            _converted(value, one) for value, one in zip(self.graph_inputs, inputs, strict=True)
        ]
        records = recording() and (
            any(isinstance(value, Tensor) for value in given)
            or any(parameter.requires_grad for parameter in self.weights.values())
        )
        with np.errstate(all="ignore"):
            if not records:
                given = [v.data if isinstance(v, Tensor) else v for v in given]
            outputs = self._program(given, records)
        return tuple(map(_output, outputs))

    def _given(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
        """The inputs in their order."""
        names = [value.name for value in self.graph_inputs]
        if len(inputs) > len(names):
            raise TypeError(f"OnnxModel: {len(inputs)} inputs, expected {self._expected()}")
        rest = names[len(inputs) :]
        if wrong := [name for name in named if name not in rest]:
            what = "was given twice" if wrong[0] in names else "is not an input of the graph"
            raise TypeError(f"OnnxModel: {wrong[0]!r} {what}; expected {self._expected()}")
        if missing := [name for name in rest if name not in named]:
            raise TypeError(f"OnnxModel: no {missing[0]!r}; expected {self._expected()}")
        yield from inputs
        yield from (named[name] for name in rest)

    def _expected(self) -> str:
        return "; ".join(map(str, self.graph_inputs)) or "none"

    def extra_repr(self) -> str:
        """The graph's inputs and outputs, its recurrent nodes and the equations of their cells."""
        lines = [
            f"inputs: {self._expected()}",
            f"outputs: {'; '.join(map(str, self.graph_outputs))}",
        ]
        for name, cells in self.cells.items():
            for cell in dict.fromkeys(cells):
                lines.append(
                    f"{name}: {cell.name}({' '.join(cell.gates)}; {' '.join(cell.states)})"
                )
                lines += [f"    {line}" for line in cell.program.lines()]
        return "\n".join(["", *lines, ""])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_program"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._program = Program(self._model.graph, self.weights)


def _trained(graph: Graph) -> Iterator[str]:
    """The names of the arrays that are weights: floats that layers read, but no single numbers."""
    numbers = {
        name
        for one in graphs(graph)
        for node in one.nodes
        for table in (STATIC, _UNTRAINED)
        for k, name in enumerate(node.inputs)
        if k in table.get(node.operator, ())
    }
    for name, array in graph.arrays.items():
        if array.dtype in (np.float32, np.float64) and array.ndim and name not in numbers:
            yield name


def _converted(value: Value, given: Any) -> Any:
    """An input as the graph declares it: an array, or the Tensor that was given."""
    name = value.name
    if isinstance(given, Tensor):
        if value.dtype is not None and given.dtype != value.dtype:
            raise TypeError(
                f"OnnxModel: {name!r} is a Tensor of {given.dtype}, expected {value}; convert it "
                "with .astype(): arrays and lists are converted automatically, Tensors are not"
            )
        array: Any = given if given.dtype.kind == "f" else given.data
    elif given is None:
        raise TypeError(f"OnnxModel: {name!r} is None, expected {value}")
    else:
        array = np.asarray(given)
        if value.dtype is not None and array.dtype != value.dtype:
            fits = np.can_cast(array.dtype, value.dtype, "same_kind") or not array.size
            if array.dtype.kind not in "fiub" or not (fits or _integral(array, value.dtype)):
                raise TypeError(f"OnnxModel: {name!r} is of {array.dtype}, expected {value}")
            array = array.astype(value.dtype)
    shape = value.shape
    if shape is not None and (
        len(shape) != array.ndim
        or any(type(a) is int and a != b for a, b in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"OnnxModel: {name!r} has the shape {array.shape}, expected {value}")
    return array


def _integral(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether integers fit into another type of integers."""
    if array.dtype.kind not in "iub" or dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    return bool(array.min() >= limits.min and array.max() <= limits.max)


def _output(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value
    array = np.array(value)  # a copy, since it may be an input, or be kept for the next call
    return Tensor._result(array, None, 0) if array.dtype.kind == "f" else array
