"""Running ONNX graphs: once in full for each shape of the inputs, and then what depends on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from anaphora import engine, ops
from anaphora.interop.cells import stacked
from anaphora.interop.onnx.fusion import Recorded, fused
from anaphora.interop.onnx.operators import OPERATORS, STATIC, Shaped, check_size
from anaphora.interop.onnx.quantized import DYNAMIC_LSTM, QuantizedLstm
from anaphora.interop.onnx.reading import Array, Graph, Node, OnnxError, graphs
from anaphora.interop.onnx.recurrent import RecurrentNode
from anaphora.tensor import Parameter, Tensor

_KNOWN, _WEIGHTS, _INPUTS = range(3)
"""What a value depends on: the shapes of the inputs; the parameters too; the inputs too."""

KNOWN = {*OPERATORS, "If", "Scan", DYNAMIC_LSTM}
"""The operators that can be run."""

PLANS = 16
"""The most shapes of inputs for which a program remembers what depends on them."""

Slots = list[Any]


@dataclass(frozen=True)
class _Step:
    """A node, or an If whose branches have steps: the slots that it reads and writes."""

    node: Node
    function: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    branches: tuple[tuple[list[_Step], tuple[int, ...]], ...] = ()  # of If: if False, if True


@dataclass
class _Plan:
    """The part of a program that depends on more than the shapes of the inputs."""

    template: Slots  # the values that depend on them alone
    of_weights: list[Recorded] = field(default_factory=list)
    of_inputs: list[Recorded] = field(default_factory=list)
    kinds: Slots = field(default_factory=list)  # the shape and dtype of each value
    results: tuple[int, ...] = ()
    same: dict[int, int] = field(default_factory=dict)  # slots that hold what another one holds
    versions: tuple[tuple[Array, int], ...] = ()
    base: Slots | None = None  # the template, with what depends on the parameters
    fused: list[Recorded] = field(default_factory=list)  # of_inputs, for this base


class Program:
    """A graph that can be called.

    Args:
        graph: The graph.
        parameters: Those of its arrays that are parameters, by name.
        captured: Names of values outside the graph that it reads, given after its inputs.

    Raises:
        OnnxError: a node is of an operator that is not known, or its attributes are wrong.
    """

    def __init__(
        self,
        graph: Graph,
        parameters: Mapping[str, Parameter] | None = None,
        captured: Sequence[str] = (),
    ) -> None:
        self._numbers = itertools.count(1)  # slot 0 is None, for omitted inputs
        self._constants: dict[int, Array] = {}
        self._parameters: list[tuple[int, Parameter]] = []
        self.recurrent: dict[str, RecurrentNode] = {}
        names: dict[str, int] = {"": 0}
        self._inputs = [
            names.setdefault(name, next(self._numbers))
            for name in (*(value.name for value in graph.inputs), *captured)
        ]
        self._steps, self._results = self._compiled(graph, [names], parameters or {})
        self._size = next(self._numbers)
        self._plans: dict[Any, _Plan] = {}

    def _compiled(
        self, graph: Graph, scopes: list[dict[str, int]], parameters: Mapping[str, Parameter]
    ) -> tuple[list[_Step], tuple[int, ...]]:
        scope = scopes[-1]
        for name, array in graph.arrays.items():
            scope[name] = next(self._numbers)
            if name in parameters:
                self._parameters.append((scope[name], parameters[name]))
            else:
                self._constants[scope[name]] = array

        def slot(name: str) -> int:
            return next(names[name] for names in reversed(scopes) if name in names)

        steps = []
        for node in graph.nodes:
            inputs = tuple(slot(name) for name in node.inputs)
            branches: tuple[Any, ...] = ()
            function: Callable[..., Any] = _nothing
            if node.operator == "If":
                branches = tuple(
                    self._compiled(branch, [*scopes, {}], {}) for branch in _branches(node)
                )
            elif node.operator == "Scan":
                scan = Scan(node)
                function = scan
                inputs += tuple(slot(name) for name in scan.captured)
            else:
                function = self._function(node)
            outputs = tuple(next(self._numbers) for _ in node.outputs)
            scope.update((n, s) for n, s in zip(node.outputs, outputs, strict=True) if n)
            steps.append(_Step(node, function, inputs, outputs, branches))
        return steps, tuple(slot(value.name) for value in graph.outputs)

    def _function(self, node: Node) -> Callable[..., Any]:
        if node.operator == DYNAMIC_LSTM:
            return QuantizedLstm(node)
        prepare = OPERATORS.get(node.operator)
        if prepare is None:
            known = ", ".join(sorted(KNOWN))
            raise node.error(f"the operator is not known; known are {known}")
        function = prepare(node)
        if isinstance(function, RecurrentNode):
            self.recurrent[node.name] = function
        return function

    # Running

    def __call__(self, inputs: Sequence[Any], recorded: bool) -> list[Any]:
        """Compute the outputs.

        Args:
            inputs: Arrays, or Tensors.
            recorded: Whether parameters take part as Tensors, so that they get gradients.

        Raises:
            OnnxError: a node cannot compute; the message names it.
        """
        key = tuple([_signature(value) for value in inputs])
        plan = self._plans.get(key)
        if plan is None:
            return self._first_call(inputs, recorded, key)
        return self._planned(plan, inputs, recorded)

    def again(self, inputs: Sequence[Any]) -> list[Any] | None:
        """The outputs for arrays of shapes and dtypes that were computed before; else None."""
        for value in inputs:
            if type(value) is not np.ndarray:
                return None
        plan = self._plans.get(tuple([_signature(value) for value in inputs]))
        return None if plan is None else self._planned(plan, inputs, recorded=False)

    def _planned(self, plan: _Plan, inputs: Sequence[Any], recorded: bool) -> list[Any]:
        steps = plan.of_inputs
        if recorded:
            slots = plan.template.copy()
            for slot, parameter in self._parameters:
                slots[slot] = parameter
            _run(plan.of_weights, slots)
        else:
            slots = self._with_weights(plan).copy()
            if engine.current_matmul_precision() == "float32":
                steps = plan.fused
        for slot, value in zip(self._inputs, inputs, strict=True):
            slots[slot] = value
        _run(steps, slots)
        return [slots[number] for number in plan.results]

    def _with_weights(self, plan: _Plan) -> Slots:
        """The values that depend on no input, computed anew where a parameter has changed."""
        if plan.base is None or not self._is_current(plan):
            versions = tuple((p._data, p._version.number) for _, p in self._parameters)  # type: ignore[union-attr]
            base = plan.template.copy()
            for slot, parameter in self._parameters:
                base[slot] = parameter.data.view()  # a new object, so that what is packed is too
            _run(plan.of_weights, base)
            plan.fused = fused(plan.of_inputs, base, plan.kinds, plan.results)
            plan.base, plan.versions = base, versions
        return plan.base

    def _is_current(self, plan: _Plan) -> bool:
        """Whether the parameters are those of the plan's base."""
        for (_, p), (array, number) in zip(self._parameters, plan.versions, strict=True):
            if p._data is not array or p._version.number != number:  # type: ignore[union-attr]
                return False
        return True

    def _first_call(self, inputs: Sequence[Any], recorded: bool, key: Any) -> list[Any]:
        """Compute the outputs node by node, and remember what depends on the inputs."""
        slots: Slots = [None] * self._size
        levels = [_KNOWN] * self._size
        for slot, array in self._constants.items():
            slots[slot] = array
        for slot, parameter in self._parameters:
            slots[slot] = parameter if recorded else parameter.data
            levels[slot] = _WEIGHTS
        for slot, value in zip(self._inputs, inputs, strict=True):
            slots[slot] = value
            levels[slot] = _KNOWN if _is_option(value) else _INPUTS
        plan = _Plan([])
        if self._walk(self._steps, slots, levels, plan):
            plan.results = tuple(plan.same.get(number, number) for number in self._results)
            plan.template = [
                value if level == _KNOWN else None
                for value, level in zip(slots, levels, strict=True)
            ]
            plan.kinds = [None if value is None else (value.shape, value.dtype) for value in slots]
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[key] = plan
            if not recorded:
                return self._planned(plan, inputs, recorded)  # the bits of all later calls
        return [slots[number] for number in self._results]

    def _walk(self, steps: list[_Step], slots: Slots, levels: list[int], plan: _Plan) -> bool:
        """Run steps; return whether all shapes depend on nothing but those of the inputs."""
        reusable = True
        for step in steps:
            level = max((levels[number] for number in step.inputs), default=_KNOWN)
            operator = step.node.operator
            if step.branches:
                reusable &= level == _KNOWN
                steps_of, results = step.branches[_condition(step.node, slots[step.inputs[0]])]
                reusable &= self._walk(steps_of, slots, levels, plan)
                if len(results) != len(step.outputs):
                    raise step.node.error(
                        f"a branch has {len(results)} outputs, expected {len(step.outputs)}"
                    )
                for target, source in zip(step.outputs, results, strict=True):
                    slots[target], levels[target] = slots[source], levels[source]
                    plan.same[target] = plan.same.get(source, source)
                continue
            _run([(step.function, step.inputs, step.outputs, step.node)], slots)
            if operator in ("Shape", "Size"):
                level = _KNOWN
            static = STATIC.get(operator, ())
            reusable &= all(
                levels[step.inputs[k]] == _KNOWN for k in static if k < len(step.inputs)
            )
            for number in step.outputs:
                levels[number] = level
            if level == _KNOWN:
                continue
            if operator == "Identity":
                plan.same[step.outputs[0]] = plan.same.get(step.inputs[0], step.inputs[0])
                continue
            function = step.function
            if isinstance(function, (Shaped, RecurrentNode)):
                function = function.at(*[slots[number] for number in step.inputs])
            inputs = tuple(plan.same.get(number, number) for number in step.inputs)
            recorded = plan.of_weights if level == _WEIGHTS else plan.of_inputs
            recorded.append((function, inputs, step.outputs, step.node))
        return reusable


def _run(steps: Sequence[Recorded], slots: Slots) -> None:
    for function, inputs, outputs, node in steps:
        try:
            value = function(*[slots[number] for number in inputs])
            if type(value) is tuple:
                for number, one in zip(outputs, value, strict=False):
                    slots[number] = one
            else:
                slots[outputs[0]] = value
        except OnnxError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            given = ", ".join(_described(slots[number]) for number in inputs)
            raise node.error(f"of {given or 'nothing'}: {error}") from error


def _described(value: Any) -> str:
    return "nothing" if value is None else f"{value.dtype}{value.shape}"


def _is_option(value: Any) -> bool:
    """Whether an input is a single integer or boolean, which often chooses a branch."""
    return value.ndim == 0 and value.dtype.kind in "iub"


def _signature(value: Any) -> Any:
    """What a plan depends on of an input: shape and dtype, and an option's value."""
    return (value.shape, value.dtype, value.item() if _is_option(value) else None)


def _nothing(*_: Any) -> None:
    raise AssertionError


def _condition(node: Node, value: Any) -> int:
    if value is None or value.size != 1:
        raise node.error(f"a condition of {_described(value)}, expected one number")
    return int(bool(np.asarray(value).reshape(())))


def _branches(node: Node) -> Iterator[Graph]:
    """The graphs of If: what is computed if the condition is False, and if it is True."""
    for name in ("else_branch", "then_branch"):
        branch = node.get(name, None, Graph)
        if branch is None or branch.inputs:
            raise node.error(f"has no {name}, or one with inputs")
        yield branch


class Scan:
    """ONNX's Scan: a graph over the steps of its inputs, which carries states.

    Raises:
        OnnxError: an attribute is wrong.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        body = node.get("body", None, Graph)
        if body is None or node.version < 9:
            raise node.error("has no body, or is of a version before 9")
        self.captured = tuple(captured(body))
        self.program = Program(body, captured=self.captured)
        self.scanned = node.get("num_scan_inputs", 0)
        self.states = len(body.inputs) - self.scanned
        results = len(body.outputs) - self.states
        if (
            self.scanned < 1
            or self.states < 0
            or results < 0
            or len(node.inputs) != len(body.inputs)
        ):
            raise node.error(
                f"{len(node.inputs)} inputs, {self.scanned} of them scanned, for a body of "
                f"{len(body.inputs)} inputs and {len(body.outputs)} outputs"
            )

        def numbers(name: str, count: int) -> list[int]:
            given = node.get(name, (0,) * count, tuple)
            if len(given) != count:
                raise node.error(f"attribute {name!r} has {len(given)} numbers, expected {count}")
            return list(given)

        self.in_reverse = numbers("scan_input_directions", self.scanned)
        self.out_reverse = numbers("scan_output_directions", results)
        self.in_axes = numbers("scan_input_axes", self.scanned)
        self.out_axes = numbers("scan_output_axes", results)

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """The final states, and the results of all steps, stacked."""
        states = list(values[: self.states])
        given = values[self.states : self.states + self.scanned]
        rest = values[self.states + self.scanned :]
        lengths = {value.shape[axis] for value, axis in zip(given, self.in_axes, strict=True)}
        if len(lengths) != 1 or lengths == {0}:
            raise self.node.error(f"inputs of {sorted(lengths)} steps, expected one number above 0")
        (T,) = lengths
        columns = []
        for value, axis, reverse in zip(given, self.in_axes, self.in_reverse, strict=True):
            k = axis % value.ndim
            column = (
                list(ops.unstack(value, k))
                if isinstance(value, Tensor)
                else [value.take(t, k) for t in range(T)]
            )
            columns.append(column[::-1] if reverse else column)
        collected: list[list[Any]] = [[] for _ in self.out_axes]
        for step in zip(*columns, strict=True):
            results = self.program([*states, *step, *rest], recorded=False)
            states = results[: self.states]
            for kept, value in zip(collected, results[self.states :], strict=True):
                if not kept:
                    check_size(self.node, (T, *value.shape))
                kept.append(value)
        sequences = [
            stacked(kept[::-1] if reverse else kept, axis)
            for kept, axis, reverse in zip(collected, self.out_axes, self.out_reverse, strict=True)
        ]
        return (*states, *sequences)


def captured(graph: Graph) -> Iterator[str]:
    """The names that a graph, or one inside it, reads from outside, each once."""
    inside = {value.name for one in graphs(graph) for value in one.inputs}
    inside |= {name for one in graphs(graph) for name in one.arrays}
    inside |= {name for one in graphs(graph) for node in one.nodes for name in node.outputs}
    read = [
        name
        for one in graphs(graph)
        for names in (*(node.inputs for node in one.nodes), [value.name for value in one.outputs])
        for name in names
    ]
    yield from dict.fromkeys(name for name in read if name and name not in inside)
