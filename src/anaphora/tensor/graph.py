"""The recorded graph of a Tensor, as a list of plain tuples."""

from __future__ import annotations

from typing import NamedTuple

from anaphora.tensor.tape import Node
from anaphora.tensor.tensor import Tensor


class Input(NamedTuple):
    """An input of an operation that needs a gradient.

    Attributes:
        source: The index of the operation that computed it; or the Tensor, if it is a leaf.
        shape: Its shape.

    >>> Input(source=0, shape=(2, 3)).shape
    (2, 3)
    """

    source: int | Tensor
    shape: tuple[int, ...]


class Operation(NamedTuple):
    """One recorded operation.

    Attributes:
        name: Its name, as in `anaphora.ops`.
        inputs: Its inputs that need a gradient, in order.

    >>> Operation("tanh", (Input(0, (2, 3)),)).name
    'tanh'
    """

    name: str
    inputs: tuple[Input, ...]


def recorded_graph(tensor: Tensor) -> list[Operation]:
    """The operations that computed a Tensor, oldest first.

    Only operations that a gradient flows through are recorded; a leaf has none.

    Raises:
        RuntimeError: backward has freed the graph.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> [operation.name for operation in recorded_graph((x * x).sum())]
    ['multiply', 'sum']
    """
    if tensor._node is None:
        return []
    found = {tensor._node}
    waiting = [tensor._node]
    while waiting:
        node = waiting.pop()
        if node.pullback is None:
            raise RuntimeError(
                f"recorded_graph: backward ran through {node.operation} and freed the graph; call "
                "this before backward, or backward with retain_graph=True"
            )
        targets = {edge.target for edge in node.edges if edge is not None}
        new = [target for target in targets if isinstance(target, Node) and target not in found]
        found.update(new)
        waiting.extend(new)
    nodes = sorted(found, reverse=True)  # the order of a node is newest first
    numbers = {node: number for number, node in enumerate(nodes)}

    def inputs(node: Node) -> tuple[Input, ...]:
        return tuple(
            Input(numbers[e.target] if isinstance(e.target, Node) else e.target, e.shape)
            for e in node.edges
            if e is not None
        )

    return [Operation(node.operation, inputs(node)) for node in nodes]
