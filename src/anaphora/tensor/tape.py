"""The tape: recorded operations, and the backward pass over them."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np

from anaphora.engine import current_matmul_precision, matmul_precision
from anaphora.tensor.hooks import enter, leave, thread
from anaphora.tensor.rows import Array, Gradient, RowGradient

if TYPE_CHECKING:
    from anaphora.tensor.tensor import Tensor

Pullback: TypeAlias = Callable[..., Any]


class Edge(NamedTuple):
    """The source of an input of an operation, to which its gradient is sent."""

    target: Node | Tensor
    output: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Version:
    """Counts the in-place changes of an array; its views share the counter.

    While the array is `shared` with another Tensor, the next change copies it first.
    """

    __slots__ = ("number", "shared")

    def __init__(self, shared: bool = False) -> None:
        self.number = 0
        self.shared = shared


class Node:
    """One recorded operation."""

    __slots__ = (
        "edges",
        "operation",
        "order",
        "output_count",
        "precision",
        "pullback",
        "single",
        "versions",
    )

    counter = itertools.count()

    def __init__(
        self,
        operation: str,
        edges: tuple[Edge | None, ...],
        pullback: Pullback | tuple[Pullback, ...],
        output_count: int | None,
        versions: tuple[tuple[Tensor, Version, int], ...],
    ) -> None:
        self.operation = operation
        self.edges = edges
        self.pullback: Pullback | tuple[Pullback, ...] | None = pullback
        self.single = output_count is None  # the value is not a tuple
        self.output_count = 1 if output_count is None else output_count
        self.versions = versions
        self.precision = current_matmul_precision()  # of the backward pass too
        if self.precision == "int8":
            raise RuntimeError(
                f"{operation}: int8 weights are for inference, so that nothing can be recorded for "
                "a backward pass; use anaphora.no_grad(), or train with float32 weights"
            )
        self.order = -next(Node.counter)  # newest first

    def __lt__(self, other: Node) -> bool:
        return self.order < other.order

    def gradients(self, outputs: list[Gradient | None]) -> Iterator[tuple[Edge, Gradient]]:
        """Pull the gradients of the outputs back to the inputs that need one."""
        pullback = self.pullback
        if pullback is None:
            raise RuntimeError(
                f"{self.operation}: backward ran through this graph before and freed it; run the "
                "forward pass again, or call the first backward with retain_graph=True"
            )
        for tensor, version, number in self.versions:
            if version.number != number:
                raise RuntimeError(
                    f"{self.operation}: an input of shape {tensor.shape} was changed in place "
                    "after it was used here, so the gradient would be wrong; change it after "
                    "backward, or run the forward pass again"
                )
        argument = outputs[0] if self.single else tuple(outputs)
        if isinstance(pullback, tuple):
            pairs = (
                (edge, pull(argument))
                for edge, pull in zip(self.edges, pullback, strict=True)
                if edge is not None
            )
        else:
            pulled = pullback(argument)
            pulled = pulled if isinstance(pulled, tuple) else (pulled,)
            pairs = ((e, d) for e, d in zip(self.edges, pulled, strict=True) if e is not None)
        for edge, gradient in pairs:
            if gradient is not None:
                yield edge, self._checked(edge, gradient)

    def _checked(self, edge: Edge, gradient: Any) -> Gradient:
        if isinstance(gradient, np.generic):
            gradient = np.asarray(gradient, edge.dtype)  # NumPy 1 promotes scalars to float64
        checked: Gradient = gradient
        if not isinstance(gradient, RowGradient):
            checked = _unbroadcast(np.asarray(gradient), edge.shape)
        if checked.shape != edge.shape or checked.dtype != edge.dtype:
            raise RuntimeError(
                f"{self.operation}: its pullback gave a gradient {checked.dtype}{checked.shape} "
                f"for an input {edge.dtype}{edge.shape}; fix the pullback"
            )
        return checked


def _unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which an input of this shape was broadcast."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    stretches = zip(shape, gradient.shape[max(extra, 0) :], strict=False)
    if extra < 0 or any(before not in (1, after) for before, after in stretches):
        return gradient  # not a broadcast: the caller reports it
    stretched = [axis for axis, size in enumerate(shape, start=extra) if size == 1]
    return np.asarray(gradient.sum(axis=(*range(extra), *stretched))).reshape(shape)


class _Accumulator:
    """Sums gradients; adds in place only into arrays that it owns."""

    __slots__ = ("owned", "total")

    def __init__(self) -> None:
        self.total: Gradient | None = None
        self.owned = False

    def add(self, gradient: Gradient) -> None:
        if self.total is None:
            self.total = gradient
        elif self.owned and isinstance(self.total, np.ndarray) and isinstance(gradient, np.ndarray):
            self.total += gradient
        else:
            self.total = add_gradients(self.total, gradient)
            self.owned = True


def add_gradients(a: Gradient, b: Gradient) -> Gradient:
    """The sum as a new gradient."""
    total = a + b
    return total if isinstance(total, RowGradient) else np.asarray(total)  # not a NumPy scalar


def run_backward(root: Node, output: int, seed: Array, retain_graph: bool) -> None:
    """Run backward from `root`, newest operation first, without recursion."""
    pending: dict[Node, list[_Accumulator]] = {}
    leaves: dict[Tensor, _Accumulator] = {}
    queue: list[Node] = []

    def send(target: Node | Tensor, output: int, gradient: Gradient) -> None:
        if not isinstance(target, Node):
            leaves.setdefault(target, _Accumulator()).add(gradient)
            return
        if target not in pending:
            pending[target] = [_Accumulator() for _ in range(target.output_count)]
            heapq.heappush(queue, target)
        if isinstance(gradient, RowGradient):
            gradient = gradient.dense()  # only leaves get sparse gradients; pullbacks get arrays
        pending[target][output].add(gradient)

    taken = {id(seed)}

    def settle(leaf: Tensor) -> None:
        """Add the complete gradient of a leaf to its ``grad``."""
        total = cast(Gradient, leaves[leaf].total)
        if isinstance(total, np.ndarray) and (
            isinstance(total.base, np.ndarray) or id(total) in taken
        ):
            total = total.copy()  # may be another leaf's too, and clipping works in place
        taken.add(id(total))
        leaf._add_gradient(total)

    waiting: Counter[Tensor] = Counter() if thread.on_gradient is None else _uses(root)
    send(root, output, seed)
    while queue:
        node = heapq.heappop(queue)
        totals = [accumulator.total for accumulator in pending.pop(node)]
        enter("backward", node.operation, tuple(totals))
        same = node.precision == current_matmul_precision()
        with nullcontext() if same else matmul_precision(node.precision):
            pairs = list(node.gradients(totals))
        leave("backward", node.operation, tuple(gradient for _, gradient in pairs))
        for edge, gradient in pairs:
            send(edge.target, edge.output, gradient)
        edges = node.edges
        if not retain_graph:
            node.pullback, node.edges, node.versions = None, (), ()
        for leaf in _leaves(edges) if waiting else ():
            waiting[leaf] -= 1
            if not waiting[leaf] and leaf in leaves:
                settle(leaf)
                del leaves[leaf]
                cast(Callable[[Any], None], thread.on_gradient)(leaf)
    for leaf in leaves:
        settle(leaf)


def _leaves(edges: tuple[Edge | None, ...]) -> Iterator[Tensor]:
    for edge in edges:
        if edge is not None and not isinstance(edge.target, Node):
            yield edge.target


def _uses(root: Node) -> Counter[Tensor]:
    """How many inputs of recorded operations each leaf is."""
    uses: Counter[Tensor] = Counter()
    seen, pending = {root}, [root]
    while pending:
        edges = pending.pop().edges
        uses.update(_leaves(edges))
        nodes = {edge.target for edge in edges if edge and isinstance(edge.target, Node)} - seen
        seen |= nodes
        pending += nodes
    return uses
