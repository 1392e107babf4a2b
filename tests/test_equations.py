"""Equations: traced programs, their adjoints, and the message for each mistake."""

import math
import sys

import numpy as np
import pytest

from anaphora import equations, ops
from anaphora.cells import Cell, cell, lstm, rnn
from anaphora.equations import (
    FUNCTIONS,
    EquationError,
    Instruction,
    Program,
    abs,
    adjoint,
    exp,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    softplus,
    tanh,
    trace,
)
from anaphora.tensor import Tensor


def program_of(function, gates="a b", states="h"):
    return trace(function, gates.split(), states.split()).program


def numeric_gradient(function, arguments, k, epsilon=1e-6):
    moved = [list(arguments), list(arguments)]
    moved[0][k], moved[1][k] = arguments[k] + epsilon, arguments[k] - epsilon
    return (function(*moved[0]) - function(*moved[1])) / (2 * epsilon)


# The vocabulary --------------------------------------------------------------------------------

UNARY = {
    "sigmoid": (sigmoid, lambda x: 1 / (1 + math.exp(-x))),
    "tanh": (tanh, math.tanh),
    "relu": (relu, lambda x: max(x, 0.0)),
    "exp": (exp, math.exp),
    "log": (log, math.log),
    "softplus": (softplus, lambda x: math.log(1 + math.exp(x))),
    "abs": (abs, math.fabs),
    "negative": (lambda x: -x, lambda x: -x),
    "sign": (sign, lambda x: math.copysign(1, x)),
}
BINARY = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "maximum": maximum,
    "minimum": minimum,
}


def test_every_function_is_tested_here():
    assert UNARY.keys() | BINARY.keys() == FUNCTIONS.keys()


@pytest.mark.parametrize("name", UNARY)
def test_values_of_a_function(name, rng):
    function, plain = UNARY[name]
    x = rng.uniform(0.3, 2, 20) * (1 if name == "log" else rng.choice([-1, 1], 20))
    expected = [plain(value) for value in x]
    np.testing.assert_allclose(function(x), expected, rtol=1e-14)
    np.testing.assert_array_equal(function(Tensor(x)).data, function(x))
    assert function(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("name", FUNCTIONS)
def test_adjoint_of_a_function(name, rng):
    if name in UNARY:
        function = UNARY[name][0]
        program = program_of(lambda a, h: function(a), "a")
        arguments = [rng.uniform(0.3, 2, 20) * (1 if name == "log" else rng.choice([-1, 1], 20))]
    else:
        function = BINARY[name]
        program = program_of(lambda a, b, h: function(a, b))
        arguments = [rng.uniform(0.3, 2, 20) * rng.choice([-1, 1], 20) for _ in range(2)]
    values = program.values([*arguments, np.zeros(20)])
    (result,) = program.results(values)
    np.testing.assert_array_equal(result, function(*arguments))
    back, d = adjoint(program), rng.standard_normal(20)
    found = back.program.results(back.program.values([*(values[n] for n in back.saved), d]))
    for k in range(len(arguments)):
        expected = d * numeric_gradient(function, arguments, k)
        np.testing.assert_allclose(found[k], expected, rtol=1e-8, atol=1e-8)
    assert found[-1] == 0  # the state is not read


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_equal_operands_get_half_of_the_gradient_each(name):
    back = adjoint(program_of(lambda a, b, h: BINARY[name](a, b)))
    one = np.ones(1)
    values = [*(one for _ in back.saved), 3 * one]
    assert back.program.results(back.program.values(values))[:2] == [1.5, 1.5]


@pytest.mark.parametrize("function", [relu, abs, sign])
def test_derivatives_at_zero_are_zero(function):
    program = program_of(lambda a, h: function(a), "a")
    back, zero = adjoint(program), np.zeros(1)
    values = program.values([zero, zero])
    found = back.program.results(back.program.values([*(values[n] for n in back.saved), zero + 1]))
    assert found[0] == 0


def test_sigmoid_and_softplus_do_not_overflow():
    x = np.array([-1e4, 1e4])
    assert sigmoid(x).tolist() == [0, 1]
    assert softplus(x).tolist() == [0, 1e4]


# Programs --------------------------------------------------------------------------------------


def test_values_of_a_program_with_constants(rng):
    def function(a, b, h):
        return (2 - a) * 3 / (b + 1) - 1 / a + h * -0.5

    a, b, h = (rng.uniform(0.5, 2, (3, 4)) for _ in range(3))
    program = program_of(function)
    (result,) = program.results(program.values([a, b, h]))
    np.testing.assert_array_equal(result, function(a, b, h))


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_constants_are_constants(name):
    program = program_of(lambda a, h: a + UNARY[name][0](0.5), "a")
    assert len(program.instructions) == 1
    assert program.instructions[0].operands[1] == pytest.approx(UNARY[name][1](0.5))


def test_constants_are_folded():
    program = program_of(lambda a, b, h: a * (1.5 + sigmoid(0.0)) + b * exp(0.0) + (h + 0) / 1)
    assert program.lines() == ["t1 = a * 2", "t2 = t1 + b", "h' = t2 + h", "return h: h'"]


def test_neutral_operations_are_removed():
    program = program_of(lambda a, b, h: 1 * (0 + a) * 1 + (b - 0) / 1)
    assert program.lines()[:-1] == ["h' = a + b"]
    program = program_of(lambda a, b, h: (0 - a) * (1 / b))
    assert len(program.instructions) == 3  # 0 - a and 1 / b are not a and b


def test_the_same_instruction_is_one_value():
    program = program_of(lambda a, b, h: (a + b) * (a + b) + tanh(a) * tanh(a))
    assert [i.function for i in program.instructions] == [
        "add", "multiply", "tanh", "multiply", "add",
    ]  # fmt: skip


def test_a_constant_is_not_confused_with_a_value_number(rng):
    # Inputs are numbered a, a.x, a.h, b, b.x, b.h, h: in (a + 6.0) the 6.0 must not become h.
    def function(a, b, h):
        return (a + h) * (a + 6.0) * (b + 3.0) * (b + a)

    a, b, h = rng.standard_normal((3, 5))
    program = program_of(function)
    (result,) = program.results(program.values([a, b, h]))
    np.testing.assert_array_equal(result, function(a, b, h))


def test_unused_values_are_not_computed():
    def function(a, b, h):
        unused = exp(a) * b
        del unused
        return a + b

    assert program_of(function).instructions == (Instruction("add", (0, 1)),)


def test_numpy_numbers_are_constants():
    program = program_of(lambda a, b, h: np.float64(2) * a + np.float32(0.5) / b - np.int64(3))
    assert program.lines()[:-1] == ["t1 = 2 * a", "t2 = 0.5 / b", "t3 = t1 + t2", "h' = t3 - 3"]


ADD = Instruction("add", (0, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instructions": (Instruction("add", (0, 2)),)}, r"instruction 0 reads 2; .*int in 0..1,"),
        ({"instructions": (Instruction("add", (0, -1)),)}, "instruction 0 reads -1"),
        ({"instructions": (Instruction("add", (0, 2**31 - 1)),)}, "instruction 0 reads 2147483647"),
        ({"instructions": (Instruction("add", (0, True)),)}, "instruction 0 reads True"),
        ({"instructions": (Instruction("add", (np.int64(0), 1)),)}, r"instruction 0 reads .*0"),
        ({"instructions": (Instruction("tanh", (0, 1)),)}, "'tanh' of 2 operands; it takes 1"),
        ({"instructions": (Instruction("add", (0,)),)}, "'add' of 1 operands; it takes 2"),
        ({"instructions": (Instruction("cosh", (0,)),)}, "'cosh' of 1 operands; known are add, "),
        ({"instructions": (ADD, Instruction("tanh", (3,)))}, "instruction 1 reads 3"),
        ({"outputs": (3,)}, r"an output is 3; .*int in 0..2,"),
        ({"outputs": ("h",)}, "an output is 'h'"),
        ({"names": ("a", "h")}, "2 names and 1 output_names; expected 3 and 1, one for each value"),
        ({"output_names": ()}, "3 names and 0 output_names"),
    ],
    ids=str,
)
def test_an_invalid_program_is_refused(changes, message):
    good = {"inputs": ("a", "h"), "instructions": (ADD,), "outputs": (2,)}
    good |= {"output_names": ("h",), "names": ("a", "h", "h'")}
    assert Program(**good).results(Program(**good).values([1.0, 2.0])) == [3.0]
    with pytest.raises(ValueError, match=f"^program: .*{message}"):
        Program(**good | changes)


def test_values_are_named_after_the_variables():
    def function(a, b, h):
        gate = sigmoid(a)
        gate, other = gate * 2, tanh(b)
        h = other
        return gate * h

    traced = trace(function, ["a", "b"], ["h"])
    assert traced.program.lines() == [
        "gate = sigmoid(a)",
        "gate' = gate * 2",
        "other = tanh(b)",
        "h' = gate' * other",
        "return h: h'",
    ]
    names = {name: traced.program.names[number] for name, number in traced.named.items()}
    assert names == {"a": "a", "b": "b", "gate": "gate'", "other": "other", "h": "h'"}


def test_parameters_are_not_recorded():
    traced = trace(lambda a, h, p: a * p, ["a"], ["h"], ["p"])
    assert set(traced.named) == {"a", "h"}


def test_variables_of_other_functions_give_no_names():
    def helper(x):
        inside = sigmoid(x)
        return inside * 2

    assert program_of(lambda a, h: helper(a), "a").names == ("a", "h", "t1", "h'")


def test_gates_as_sums_as_halves_and_of_the_input_only():
    def function(w, n, x, u, h):
        return w + n.x * n.h + x.x + u.h

    traced = trace(function, ["w", "n", "x", "u"], ["h"])
    assert traced.program.inputs == ("w", "n.x", "n.h", "x.x", "u.h", "h")
    assert traced.gate_inputs == ((0, 0), (1, None), (None, 1), (2, None), (None, 2))


def test_a_state_may_take_the_value_of_another():
    def delayed(a, h, before):
        before = h
        h = tanh(a + before)
        return h, before

    assert program_of(delayed, "a", "h before").results(["a", "h", "b", "sum", "tanh"]) == [
        "tanh",
        "h",
    ]

    def same(a, h, c):
        c = c + tanh(a)
        h = c
        return h, c

    assert program_of(same, "a", "h c").outputs == (4, 4)
    assert program_of(lambda a, h, c: (tanh(a), h), "a", "h c").outputs == (3, 1)


def test_cotangents_of_one_value_in_two_states_are_summed():
    back = adjoint(program_of(lambda a, h, c: (a, a), "a", "h c"))
    one = np.ones(1)
    assert back.program.results(back.program.values([one, 10 * one]))[0] == 11


def test_tracing_restores_the_trace_function():
    def function(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(function)
    try:
        program_of(lambda a, h: tanh(a), "a")
        assert sys.gettrace() is function
        with pytest.raises(EquationError):
            program_of(lambda a, h: tanh(a) if a > 0 else h, "a")
        assert sys.gettrace() is function
    finally:
        sys.settrace(before)


# Mistakes --------------------------------------------------------------------------------------


def straight_line(a, b, h):
    return tanh(a) if a > b else h


def truth(a, b, h):
    return tanh(a or b)


def equality(a, b, h):
    return tanh(a) if a == b else h


def largest(a, b, h):
    return max(a, b)


def reads_before_assignment(a, b, h):
    g = c + a  # noqa: F821
    c = b
    return g * c


def returns_nothing(a, b, h):
    a + b


MISTAKES = {
    "unknown function": (
        lambda a, b, h: sqrt(a) + b,  # noqa: F821
        r"'sqrt' is not defined in the equations' module: the vocabulary is .*anaphora\.equations",
    ),
    "unassigned variable": (reads_before_assignment, r"failed with UnboundLocalError: .*'c'"),
    "another error": (
        lambda a, b, h: a[0] + b,
        r"failed with TypeError: .*called once with symbols",
    ),
    "numpy's name for a word": (
        lambda a, b, h: np.tanh(a) + b,
        r"numpy\.tanh is not in a cell's vocabulary: write tanh of anaphora\.equations instead",
    ),
    "numpy": (lambda a, b, h: np.sin(a) + b, r"numpy\.sin is not in a cell's vocabulary: the voc"),
    "numpy, not a ufunc": (lambda a, b, h: np.clip(a, 0, 1) + b, r"a function of NumPy or"),
    "numpy sum": (
        lambda a, b, h: np.sum(a) + b,
        r"numpy\.add is not in a cell",
    ),
    "array": (lambda a, b, h: a * np.ones(3) + b, r"multiply got array.* of type ndarray"),
    "array on the left": (lambda a, b, h: np.ones(3) * a + b, r"multiply got array.*ndarray"),
    "string": (lambda a, b, h: a + "b" + b, "add got 'b' of type str"),
    "operation on Tensors": (
        lambda a, b, h: ops.tanh(a) + b,
        r"of NumPy or anaphora\.ops does not",
    ),
    "math": (lambda a, b, h: math.tanh(a) + b, r"a function of Python's math module"),
    "float": (lambda a, b, h: float(a) + b, r"a function of Python's math module"),
    "power": (lambda a, b, h: a**2 + b, r"\*\* is not in a cell's vocabulary: write x \* x"),
    "power of a number": (lambda a, b, h: 2**a + b, r"\*\* is not in a cell's vocabulary"),
    "matrix product": (lambda a, b, h: a @ b, "elementwise: .*declare another gate instead of @"),
    "if": (straight_line, r"a straight line, .*fused=False"),
    "or": (truth, "a straight line"),
    "==": (equality, "a straight line"),
    "max": (largest, r"a straight line, .*use maximum, minimum"),
    "unused gate": (lambda a, b, h: tanh(a), r"gate 'b' is not used: use it, or remove it"),
    "gate as a sum and by halves": (
        lambda a, b, h: a + a.x + b,
        r"gate 'a' is used both as a sum and by its halves: write the sum as a\.x \+ a\.h",
    ),
    "halves of a state": (lambda a, b, h: a + b + h.x, r"only a gate has the halves \.x and \.h"),
    "halves of a value": (lambda a, b, h: a + tanh(b).h, r"only a gate has the halves"),
    "nothing returned": (returns_nothing, r"return nothing: end them with 'return h'"),
    "constant returned": (lambda a, b, h: 0.5, r"return 0\.5 for the state 'h', which depends on"),
    "too much returned": (lambda a, b, h: (a, b), r"return 2 of the 1 states h: end them with 're"),
    "list returned": (lambda a, b, h: [a + b], r"return \[.*\] for the state 'h'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_equations_is_explained(name):
    function, message = MISTAKES[name]
    with pytest.raises(EquationError, match=message):
        trace(function, ["a", "b"], ["h"])


def test_a_missing_state_is_reported():
    def one_state(a, h, c):
        c = tanh(a) + c
        h = tanh(c)
        return h

    with pytest.raises(EquationError, match=r"return 1 of the 2 states h, c: .*'return h, c'"):
        trace(one_state, ["a"], ["h", "c"])


def test_states_in_the_wrong_order_are_reported():
    def swapped(a, h, c):
        c = tanh(a) + c
        h = tanh(c)
        return c, h

    with pytest.raises(EquationError, match=r"return 'c' in place of 'h': .*'return h, c'"):
        trace(swapped, ["a"], ["h", "c"])


def test_an_unused_parameter_is_reported():
    with pytest.raises(EquationError, match=r"parameter 'q' is not used: .*parameters="):
        trace(lambda a, h, p, q: a * p, ["a"], ["h"], ["p", "q"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": "", "state": "h"}, r"a cell needs gates and states, as in @cell"),
        ({"gates": "a", "state": ""}, r"a cell needs gates and states"),
        ({"gates": "a a", "state": "h"}, r"'a' is not a unique name"),
        ({"gates": "a", "state": "a"}, r"'a' is not a unique name: .*separated by spaces"),
        ({"gates": "a,b", "state": "h"}, r"'a,b' is not a unique name"),
        ({"gates": "b", "state": "h"}, r"the function takes \(a, h\); .*def mine\(b, h\)"),
        ({"gates": "h", "state": "a"}, r"the function takes \(a, h\); .*def mine\(h, a\)"),
        ({"gates": "a", "state": "h", "parameters": "p"}, r"as declared: def mine\(a, h, p\)"),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_a_mistake_in_the_declaration_is_explained(options, message, fused):
    with pytest.raises(EquationError, match=f"^cell 'mine': .*{message}"):

        @cell(**options, fused=fused)
        def mine(a, h):
            return tanh(a)


def test_the_message_starts_with_the_cell_and_keeps_the_cause():
    with pytest.raises(EquationError, match=r"^cell 'mine': 'missing' is not defined") as raised:

        @cell(gates="a", state="h")
        def mine(a, h):
            return missing(a)  # noqa: F821

    assert isinstance(raised.value.__cause__, NameError)


def test_a_cell_without_source_works():
    """As in a REPL, without a source file."""
    names = {"cell": cell, "tanh": equations.tanh}
    exec(
        "@cell(gates='a', state='h')\ndef typed(a, h):\n    mixed = a + h\n    return tanh(mixed)",
        names,
    )
    typed = names["typed"]
    assert isinstance(typed, Cell)
    assert typed.program.lines() == ["mixed = a + h", "h' = tanh(mixed)", "return h: h'"]


def test_repr_of_a_program_is_one_short_line():
    assert repr(lstm.program) == "Program(i, f, g, o, h, c -> h, c, 9 instructions)"
    assert repr(rnn.program) == "Program(a, h -> h, 1 instruction)"
