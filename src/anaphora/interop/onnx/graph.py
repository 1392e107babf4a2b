"""A graph of ONNX nodes while it is built: unique names, shared constants, bodies of loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Array = NDArray[Any]

OPSET = 17
"""The version of the standard's operators: the first with LayerNormalization (2022)."""
IR_VERSION = 8
CONTRIBUTED = "com.microsoft"
"""The domain of the operators that ONNX Runtime adds to the standard."""

_SMALL = 64  # bytes: constants of the same value up to this size are one


class Graph:
    """Nodes in the order of their computation, with the constants that they read.

    The body of a loop is a graph of its own, whose nodes may read values of the outer one; all
    names and constants belong to the outermost. Names begin with a slash, or have a dot as those of
    parameters, so that none is that of an input or an output.
    """

    def __init__(self, outer: Graph | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.root: Graph = self if outer is None else outer.root
        self.scope = ""
        self.contributed = False
        self.constants: dict[str, onnx.TensorProto] = {}
        self._taken: set[str] = set()
        self._same: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def name(self, wanted: str) -> str:
        """A unique name like this one."""
        taken, name, number = self.root._taken, wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        return name

    def node(
        self, operator: str, *inputs: str, named: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output; return its name."""
        return self.nodes_of(operator, *inputs, named=[named], domain=domain, **attributes)[0]

    def nodes_of(
        self,
        operator: str,
        *inputs: str,
        named: list[str],
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs, whose names may be proposed; return their names."""
        scope = self.root.scope
        outputs = [self.name(f"/{scope}{wanted or operator.lower()}") for wanted in named]
        self.nodes.append(
            onnx.helper.make_node(
                operator, inputs, outputs, outputs[0], domain=domain, **attributes
            )
        )
        self.root.contributed |= domain == CONTRIBUTED
        return outputs

    def constant(self, array: Any, name: str = "") -> str:
        """A constant; floats are float32. With a name it is found again by that."""
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        root = self.root
        key = (str(array.dtype), array.shape, array.tobytes() if array.nbytes <= _SMALL else b"")
        if not name and array.nbytes <= _SMALL and key in root._same:
            return root._same[key]
        made = self.name(name if "." in name else f"/{name or 'constant'}")
        root.constants[made] = onnx.numpy_helper.from_array(np.asarray(array, order="C"), made)
        if not name and array.nbytes <= _SMALL:
            root._same[key] = made
        return made

    def integers(self, *values: int) -> str:
        """A vector of constant integers."""
        return self.constant(np.array(values, np.int64))
