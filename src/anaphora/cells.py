"""The cells: each a few lines of equations, from which everything else is derived.

To write a new one, see `cell`. Gates are passed as pre-activations, ``x W_ih^T + b_ih + h W_hh^T +
b_hh``; if the equations use only ``n.x`` or ``n.h``, the other half has no weights and no bias.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NotRequired, TypedDict

from anaphora import notebook, schema
from anaphora.equations import (
    Adjoint,
    EquationError,
    Instruction,
    Program,
    Trace,
    apply,
    check_references,
    relu,
    sigmoid,
    sign,
    tanh,
    trace,
)

__all__ = [
    "CELLS",
    "Cell",
    "Gate",
    "cell",
    "coupled_lstm",
    "gru",
    "lstm",
    "mgu",
    "mingru",
    "peephole_lstm",
    "rnn",
    "rnn_relu",
    "zoneout",
]


_LARGEST = 3.4028234663852886e38  # of float32


class Gate(NamedTuple):
    """A gate that a cell uses in halves: the input half and the recurrent half.

    >>> float(gru(0.0, 0.0, Gate(x=0.0, h=0.0), 1.0))
    0.5
    """

    x: Any
    h: Any


class _CellData(TypedDict):
    name: str
    gates: list[str]
    states: list[str]
    parameters: list[str]
    inputs: list[str]
    instructions: list[list[str | int | float]]
    outputs: list[int | float]
    names: list[str]
    named: dict[str, int]
    initial: NotRequired[dict[str, float]]


class Cell:
    """A recurrent cell: its equations, and the programs derived from them.

    Calling a cell evaluates its equations once, on NumPy arrays, Tensors or symbols. The order of
    the arguments is gates, states, parameters; a gate used in halves is given as a `Gate`.

    A cell is immutable: its copy is the cell itself, and it is pickled by reference, as a function
    is: by its module and qualified name.

    Attributes:
        name: The name of the function that holds the equations.
        gates: Names of the gates, in the order in which the weights are stored.
        states: Names of the states; the first is the output, and what ``W_hh`` multiplies.
        parameters: Names of the vectors of ``H`` parameters that the cell owns.
        initial: The numbers with which parameters start, by name; the others start as the layer's
            initialization says.
        fused: Whether the equations were traced to a program; otherwise they run step by step.
        input_gates: The gates that have an input half (rows of ``W_ih``).
        recurrent_gates: The gates that have a recurrent half (rows of ``W_hh``).

    >>> h, c = lstm(0.0, 0.0, 0.0, 0.0, 0.0, 2.0)  # i f g o, then h c
    >>> float(c)
    1.0
    >>> rnn
    cell rnn: gates a; state h
    forward, 1 instruction:
        h' = tanh(a)
        return h: h'
    backward, 3 instructions, from the saved h':
        u1 = h' * h'
        u2 = 1 - u1
        d(a) = d(h') * u2
        return d(a): d(a), d(h): 0
    """

    def __init__(
        self,
        equations: Callable[..., Any],
        gates: str,
        state: str,
        parameters: str = "",
        fused: bool = True,
        initial: Mapping[str, float] = {},
    ) -> None:
        self.name = getattr(equations, "__name__", "cell")
        self.equations = equations
        self.gates = tuple(gates.split())
        self.states = tuple(state.split())
        self.parameters = tuple(parameters.split())
        self.fused = fused
        self.initial = dict(initial)
        self._origin: tuple[Callable[..., Cell], tuple[Any, ...]] | None = None
        functools.update_wrapper(self, equations)
        try:
            self._check_declaration()
            check_references(equations, fused)
            self._trace = (
                trace(equations, self.gates, self.states, self.parameters) if fused else None
            )
        except EquationError as error:
            raise EquationError(f"cell {self.name!r}: {error}") from error.__cause__
        inputs = self._trace.program.inputs if self._trace else self.gates
        self.input_gates = tuple(g for g in self.gates if g in inputs or f"{g}.x" in inputs)
        self.recurrent_gates = tuple(g for g in self.gates if g in inputs or f"{g}.h" in inputs)

    def _check_declaration(self) -> None:
        names = (*self.gates, *self.states, *self.parameters)
        expected = f"def {self.name}({', '.join(names)})"
        if not self.gates or not self.states:
            raise EquationError('a cell needs gates and states, as in @cell(gates="a", state="h")')
        for name in names:
            if not name.isidentifier() or names.count(name) > 1:
                raise EquationError(
                    f"{name!r} is not a unique name: gates, state and parameters are different "
                    "names, separated by spaces"
                )
        for name, value in self.initial.items():
            if name not in self.parameters:
                raise EquationError(
                    f"initial has {name!r}, which is not one of the parameters: "
                    f"{' '.join(self.parameters) or 'there are none'}"
                )
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise EquationError(f"initial[{name!r}] must be a number, not {value!r}")
            if not abs(value) <= _LARGEST:
                raise EquationError(f"initial[{name!r}] must be a finite float32, not {value}")
        signature = inspect.signature(self.equations)
        if tuple(signature.parameters) != names:
            raise EquationError(
                f"the function takes {signature}; its arguments are the gates, the states and the "
                f"parameters, as declared: {expected}"
            )

    def __call__(self, *arguments: Any) -> Any:
        """Evaluate the equations once; see the class for the arguments."""
        return self.equations(*arguments)

    @property
    def trace(self) -> Trace:
        """The traced equations.

        Raises:
            EquationError: the cell was declared with ``fused=False``.
        """
        if self._trace is None:
            raise EquationError(
                f"cell {self.name!r} was declared with fused=False: it has no program"
            )
        return self._trace

    @property
    def program(self) -> Program:
        """The straight-line program of one step."""
        return self.trace.program

    @property
    def adjoint(self) -> Adjoint:
        """The backward program of one step, with the forward values that it needs."""
        return self.trace.adjoint

    def reads_output_state(self) -> bool:
        """Whether the equations themselves read the state that ``W_hh`` multiplies."""
        return self.program.inputs.index(self.states[0]) in self.program.reads()

    def to_dict(self) -> dict[str, Any]:
        """The cell as plain values: its program, from which `from_dict` restores it.

        Raises:
            EquationError: the cell was declared with ``fused=False``, so that it has no program; or
                its program has a constant that is not finite.

        >>> rnn.to_dict()["instructions"]
        [['tanh', 0]]
        """
        program = self.program
        for operand in itertools.chain(
            program.outputs, *(i.operands for i in program.instructions)
        ):
            if not math.isfinite(operand):
                raise EquationError(
                    f"cell {self.name!r} has the constant {operand}, which cannot be saved"
                )
        return {
            "name": self.name,
            "gates": list(self.gates),
            "states": list(self.states),
            "parameters": list(self.parameters),
            "inputs": list(program.inputs),
            "instructions": [[i.function, *i.operands] for i in program.instructions],
            "outputs": list(program.outputs),
            "names": list(program.names),
            "named": dict(self.trace.named),
            **({"initial": dict(self.initial)} if self.initial else {}),
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Cell:
        """Restore the cell that `to_dict` described: only its program is run, no other code.

        Raises:
            ValueError: the data is damaged; the message names the field.

        >>> again = Cell.from_dict(lstm.to_dict())
        >>> again.program == lstm.program, float(again(0.0, 0.0, 0.0, 0.0, 0.0, 2.0)[1])
        (True, 1.0)
        """
        parts: _CellData = schema.convert(data, _CellData, "cell")
        name = parts["name"]
        instructions = []
        for number, instruction in enumerate(parts["instructions"]):
            function, *operands = instruction or [""]
            if not isinstance(function, str) or not all(map(_is_operand, operands)):
                raise ValueError(f"cell.instructions[{number}] is not a function with its operands")
            instructions.append(Instruction(function, tuple(operands)))  # type: ignore[arg-type]
        states = parts["states"]
        try:
            program = Program(
                tuple(parts["inputs"]),
                tuple(instructions),
                tuple(parts["outputs"]),
                tuple(states),
                tuple(parts["names"]),
            )
        except ValueError as error:
            raise ValueError(f"cell: {error}") from error

        def equations(*arguments: Any) -> Any:
            by_name: dict[str, Any] = dict(zip(names, arguments, strict=True))
            read = (input.partition(".") for input in program.inputs)
            values = [getattr(by_name[n], half) if half else by_name[n] for n, _, half in read]
            for instruction in program.instructions:
                operands = [values[o] if type(o) is int else o for o in instruction.operands]
                values.append(apply(instruction.function, *operands))
            after = tuple(program.results(values))
            return after if len(after) > 1 else after[0]

        names = (*parts["gates"], *states, *parts["parameters"])
        if wrong := [i for i in program.inputs if i.partition(".")[0] not in names]:
            raise ValueError(
                f"cell.inputs has {wrong[0]!r}, which is not a gate, state or parameter"
            )
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        try:
            signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
            equations.__signature__ = signature  # type: ignore[attr-defined]
            equations.__name__ = equations.__qualname__ = name
            made = Cell(
                equations,
                " ".join(parts["gates"]),
                " ".join(states),
                " ".join(parts["parameters"]),
                initial=parts.get("initial", {}),
            )
        except (EquationError, ValueError) as error:  # also for an invalid name
            raise ValueError(f"cell: {error}") from error
        traced = made.trace
        if (traced.program.inputs, traced.program.instructions, traced.program.outputs) != (
            program.inputs, program.instructions, program.outputs
        ):  # fmt: skip
            raise ValueError("cell.instructions are not those of a traced cell")
        if any(not 0 <= number < len(program.names) for number in parts["named"].values()):
            raise ValueError("cell.named has a number without a value")
        if missing := [name for name in states if name not in parts["named"]]:
            raise ValueError(f"cell.named has no state {missing[0]!r}")
        named = dict(parts["named"])
        made._trace = Trace(program, traced.gate_inputs, traced.states, named)
        made._origin = Cell.from_dict, (dict(data),)  # called again by unpickling
        return made

    def __copy__(self) -> Cell:
        return self

    def __deepcopy__(self, memo: Any) -> Cell:
        return self

    def __reduce__(self) -> Any:
        if self._origin is not None:
            return self._origin
        place = (
            getattr(self.equations, "__module__", None) or "",
            getattr(self.equations, "__qualname__", self.name),
        )
        try:
            defined = _defined(*place)
        except (ImportError, AttributeError, ValueError):
            defined = None
        if defined is self:
            return _unpickled, place
        if defined is self.equations:
            names = (" ".join(n) for n in (self.gates, self.states, self.parameters))
            return Cell, (self.equations, *names, self.fused, self.initial)
        raise pickle.PicklingError(
            f"cell {self.name!r} cannot be pickled: {'.'.join(place)}, by which another process "
            "would look it up, is a different object; define the cell at the top level of a "
            "module, under its own name"
        )

    def __repr__(self) -> str:
        head = f"cell {self.name}: gates {' '.join(self.gates)}; state {' '.join(self.states)}"
        if self.parameters:
            head += f"; parameters {' '.join(self.parameters)}"
        if not self.fused:
            return f"{head}; not fused"
        saved = ", ".join(self.program.names[n] for n in self.adjoint.saved)
        forward, backward = self.program, self.adjoint.program
        return "\n".join(
            [
                head,
                f"forward, {_counted(forward)}:",
                *(f"    {line}" for line in forward.lines()),
                f"backward, {_counted(backward)}, from the saved {saved}:",
                *(f"    {line}" for line in backward.lines()),
            ]
        )

    def _repr_html_(self) -> str:
        """The equations, forward and, folded, backward."""
        rows = [
            [kind, " ".join(names)]
            for kind, names in (
                ("gates", self.gates), ("states", self.states), ("parameters", self.parameters),
            )
            if names
        ]  # fmt: skip
        summary = f"cell <b>{notebook.escaped(self.name)}</b>"
        content = notebook.table(["", "names"], rows)
        if not self.fused:
            return notebook.folded(summary, content + "not fused")
        saved = ", ".join(self.program.names[n] for n in self.adjoint.saved)
        forward, backward = self.program, self.adjoint.program
        label = notebook.escaped(f"backward, {_counted(backward)}, from the saved {saved}")
        content += f"forward, {_counted(forward)}:{notebook.code(forward.lines())}"
        content += notebook.folded(label, notebook.code(backward.lines()), is_open=False)
        return notebook.folded(summary, content)


def _is_operand(value: Any) -> bool:
    """Whether it is the index of a value or a finite constant."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _defined(module: str, qualified_name: str) -> Any:
    value: Any = importlib.import_module(module)
    for name in qualified_name.split("."):
        value = getattr(value, name)
    return value


def _unpickled(module: str, qualified_name: str) -> Cell:
    """The cell of that name."""
    try:
        found = _defined(module, qualified_name)
    except (ImportError, AttributeError) as error:
        raise _not_found(module, qualified_name, str(error)) from error
    if not isinstance(found, Cell):
        raise _not_found(module, qualified_name, f"it is now a {type(found).__name__}")
    return found


def _not_found(module: str, qualified_name: str, reason: str) -> pickle.UnpicklingError:
    advice = "make it importable under this name"
    if module == "__main__":
        advice = "another program pickled it: move the cell to a module that both import"
    return pickle.UnpicklingError(
        f"the cell {module}.{qualified_name} was not found ({reason}), and a cell is pickled by "
        f"reference; {advice}"
    )


def _counted(program: Program) -> str:
    count = len(program.instructions)
    return f"{count} instruction{'' if count == 1 else 's'}"


def cell(
    *,
    gates: str,
    state: str,
    parameters: str = "",
    fused: bool = True,
    initial: Mapping[str, float] = {},
) -> Callable[[Callable[..., Any]], Cell]:
    """Turn a function of gates, states and parameters into a `Cell`.

    Args:
        gates: Names of the gates, in the order in which their weights are stored.
        state: Names of the states; the first is the output of the cell.
        parameters: Names of vectors of ``H`` parameters that the cell owns, such as peepholes.
        fused: Trace the equations to a program. If False, they may use any operation on Tensors
            (and Python's ``if``); the recurrence then runs step by step on the tape, slower, and
            every gate has both halves.
        initial: The number with which a parameter starts, by its name; the others start as the
            layer's initialization says.

    Trainable values must be arguments: equations that read a Parameter or a module from outside are
    refused, and traced equations may not read outside arrays and Tensors either.

    Raises:
        EquationError: the declaration or the equations have a mistake; the message says which.

    >>> @cell(gates="f n", state="h")
    ... def leaky(f, n, h):
    ...     f = sigmoid(f)
    ...     return f * h + (1 - f) * tanh(n)
    >>> float(leaky(0.0, 0.0, 1.0))
    0.5
    """
    return lambda equations: Cell(equations, gates, state, parameters, fused, initial)


@cell(gates="a", state="h")
def rnn(a, h):  # type: ignore[no-untyped-def]
    """The simple recurrent network (Elman 1990).

    >>> round(float(rnn(0.5, 0.0)), 4)
    0.4621
    """
    h = tanh(a)
    return h


@cell(gates="a", state="h")
def rnn_relu(a, h):  # type: ignore[no-untyped-def]
    """The simple recurrent network with a rectifier (Le, Jaitly & Hinton 2015).

    >>> float(rnn_relu(-1.0, 0.0)), float(rnn_relu(2.0, 0.0))
    (0.0, 2.0)
    """
    h = relu(a)
    return h


@cell(gates="i f g o", state="h c")
def lstm(i, f, g, o, h, c):  # type: ignore[no-untyped-def]
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    >>> h, c = lstm(-100.0, 100.0, 1.0, -100.0, 0.0, 2.0)  # f open, i and o closed: c is kept
    >>> round(float(h), 4), float(c)
    (0.0, 2.0)
    """
    i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + i * g
    h = o * tanh(c)
    return h, c


@cell(gates="r z n", state="h")
def gru(r, z, n, h):  # type: ignore[no-untyped-def]
    """Gated recurrent unit (Cho et al. 2014), in cuDNN's form: the reset gate multiplies after
    the matrix product.

    >>> float(gru(0.0, 100.0, Gate(x=1.0, h=1.0), 0.25))  # z open: the state is kept
    0.25
    """
    r, z = sigmoid(r), sigmoid(z)
    n = tanh(n.x + r * n.h)
    h = (1 - z) * n + z * h
    return h


@cell(gates="i f g o", state="h c", parameters="p_i p_f p_o")
def peephole_lstm(i, f, g, o, h, c, p_i, p_f, p_o):  # type: ignore[no-untyped-def]
    """LSTM whose gates see the cell state (Gers & Schmidhuber 2000).

    >>> h, c = peephole_lstm(0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 50.0, 0.0)  # c opens f
    >>> float(c)
    2.0
    """
    i, f, g = sigmoid(i + p_i * c), sigmoid(f + p_f * c), tanh(g)
    c = f * c + i * g
    o = sigmoid(o + p_o * c)
    h = o * tanh(c)
    return h, c


@cell(gates="f g o", state="h c")
def coupled_lstm(f, g, o, h, c):  # type: ignore[no-untyped-def]
    """LSTM whose input gate is coupled to its forget gate: i = 1 - f (Greff et al. 2015).

    >>> h, c = coupled_lstm(-100.0, 100.0, 0.0, 0.0, 2.0)  # f closed: g replaces c
    >>> float(c)
    1.0
    """
    f, g, o = sigmoid(f), tanh(g), sigmoid(o)
    c = f * c + (1 - f) * g
    h = o * tanh(c)
    return h, c


@cell(gates="f n", state="h")
def mgu(f, n, h):  # type: ignore[no-untyped-def]
    """Minimal gated unit (Zhou et al. 2016), its gate after the matrix product, as in `gru`.

    >>> float(mgu(-100.0, Gate(x=1.0, h=1.0), 0.25))  # f closed: the state is kept
    0.25
    """
    f = sigmoid(f)
    n = tanh(n.x + f * n.h)
    h = (1 - f) * h + f * n
    return h


@cell(gates="z n", state="h")
def mingru(z, n, h):  # type: ignore[no-untyped-def]
    """A GRU whose gates read the input only: no recurrent weights (Feng et al. 2024).

    >>> float(mingru(Gate(x=0.0, h=None), Gate(x=1.0, h=None), 3.0))  # half old, half new
    2.0
    """
    z = sigmoid(z.x)
    h = (1 - z) * h + z * n.x
    return h


def zoneout(inner: Cell, rate: float | None = None) -> Cell:
    """A cell with zoneout (Krueger et al. 2017): units randomly keep their previous states.

        state = renew * state + (1 - renew) * state_before

    Args:
        inner: The cell; its equations must be traced.
        rate: The fraction of a state that is kept: ``renew`` is 1 - rate, the expectation, for
            evaluation. If None, each state gets a gate after those of the cell, such as
            ``renew_h``, which has an input half only and no gradient: 0 where a unit keeps its
            state, any positive number where it takes the new one.

    Raises:
        EquationError: the cell was declared with ``fused=False``.

    >>> zoneout(rnn).gates, float(zoneout(rnn)(0.5, Gate(x=0.0, h=None), 0.25))  # kept
    (('a', 'renew_h'), 0.25)
    >>> float(zoneout(rnn, rate=0.75)(0.0, 1.0))
    0.75
    """
    _ = inner.trace  # raises if untraced, where the new gates would have recurrent halves
    gates, states = len(inner.gates), len(inner.states)
    added = tuple(f"renew_{state}" for state in inner.states) if rate is None else ()

    @functools.wraps(inner.equations)
    def equations(*arguments: Any) -> Any:
        own, rest = arguments[:gates], arguments[gates + len(added) :]
        shares: list[Any]
        if rate is None:
            shares = [sign(gate.x) for gate in arguments[gates : gates + states]]
        else:
            shares = [1 - rate] * states
        new = inner(*own, *rest)
        triples = zip(shares, new if type(new) is tuple else (new,), rest[:states], strict=True)
        after = tuple(renew * state + (1 - renew) * before for renew, state, before in triples)
        return after if states > 1 else after[0]

    names = (*inner.gates, *added, *inner.states, *inner.parameters)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    equations.__signature__ = signature  # type: ignore[attr-defined]
    cell = Cell(
        equations,
        " ".join((*inner.gates, *added)),
        " ".join(inner.states),
        " ".join(inner.parameters),
        initial=inner.initial,
    )
    cell._origin = zoneout, (inner, rate)  # called again by unpickling
    return cell


CELLS: dict[str, Cell] = {
    "rnn": rnn,
    "rnn_relu": rnn_relu,
    "lstm": lstm,
    "gru": gru,
    "peephole_lstm": peephole_lstm,
    "coupled_lstm": coupled_lstm,
    "mgu": mgu,
    "mingru": mingru,
}
"""The built-in cells, by name."""
