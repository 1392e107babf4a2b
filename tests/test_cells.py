"""The cells: their equations compared with plain formulas, and their programs."""

import copy
import functools
import math

import numpy as np
import pytest

from anaphora import nn, ops
from anaphora.cells import (
    CELLS,
    Gate,
    cell,
    coupled_lstm,
    gru,
    lstm,
    mgu,
    mingru,
    peephole_lstm,
    rnn,
    rnn_relu,
)
from anaphora.equations import EquationError, tanh
from anaphora.tensor import Parameter, Tensor


def s(x):
    return 1 / (1 + math.exp(-x))


def plain_lstm(i, f, g, o, h, c):
    c = s(f) * c + s(i) * math.tanh(g)
    return s(o) * math.tanh(c), c


def plain_peephole(i, f, g, o, h, c, p_i, p_f, p_o):
    new = s(f + p_f * c) * c + s(i + p_i * c) * math.tanh(g)
    return s(o + p_o * new) * math.tanh(new), new


def plain_coupled(f, g, o, h, c):
    c = s(f) * c + (1 - s(f)) * math.tanh(g)
    return s(o) * math.tanh(c), c


def plain_gru(r, z, n, h):
    n = math.tanh(n.x + s(r) * n.h)
    return (1 - s(z)) * n + s(z) * h


PLAIN = {
    rnn: lambda a, h: math.tanh(a),
    rnn_relu: lambda a, h: max(a, 0),
    lstm: plain_lstm,
    gru: plain_gru,
    peephole_lstm: plain_peephole,
    coupled_lstm: plain_coupled,
    mgu: lambda f, n, h: (1 - s(f)) * h + s(f) * math.tanh(n.x + s(f) * n.h),
    mingru: lambda z, n, h: (1 - s(z.x)) * h + s(z.x) * n.x,
}


def arguments(cell, rng, shape):
    """Random arrays for all arguments of a cell's equations."""

    def draw():
        return np.asarray(rng.standard_normal(shape))

    complete = cell.program.inputs
    gates = [draw() if name in complete else Gate(draw(), draw()) for name in cell.gates]
    return [*gates, *(draw() for _ in (*cell.states, *cell.parameters))]


def each(function, argument):
    return Gate(*map(function, argument)) if isinstance(argument, Gate) else function(argument)


def states(returned):
    return list(returned) if isinstance(returned, tuple) else [returned]


def test_every_cell_is_tested_here():
    assert set(PLAIN) == set(CELLS.values())


@pytest.mark.parametrize("cell", PLAIN, ids=lambda c: c.name)
def test_equations_are_those_of_the_literature(cell, rng):
    given = arguments(cell, rng, (4, 3))
    found = states(cell(*given))
    for index in np.ndindex(4, 3):
        numbers = [each(lambda a, index=index: float(a[index]), a) for a in given]
        expected = states(PLAIN[cell](*numbers))
        np.testing.assert_allclose([state[index] for state in found], expected, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", PLAIN, ids=lambda c: c.name)
def test_arrays_tensors_and_symbols_agree(cell, dtype, rng):
    given = [each(lambda a: a.astype(dtype), a) for a in arguments(cell, rng, (4, 3))]
    numbers = states(cell(*given))
    tensors = [state.data for state in states(cell(*(each(Tensor, a) for a in given)))]

    by_name = {}
    for name, argument in zip((*cell.gates, *cell.states, *cell.parameters), given, strict=True):
        halves = isinstance(argument, Gate)
        by_name |= (
            {f"{name}.x": argument.x, f"{name}.h": argument.h} if halves else {name: argument}
        )
    values = cell.program.values([by_name[name] for name in cell.program.inputs])
    for a, b, c in zip(numbers, tensors, cell.program.results(values), strict=True):
        assert a.dtype == b.dtype == c.dtype == dtype
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_size_of_the_programs():
    sizes = {
        name: (
            len(c.program.instructions),
            len(c.adjoint.program.instructions),
            len(c.adjoint.saved),
        )
        for name, c in CELLS.items()
    }
    assert sizes["lstm"] == (9, 22, 6)
    assert sizes["gru"] == (9, 17, 6)
    assert sizes["rnn"] == (1, 3, 1)


def test_halves_of_the_gates():
    assert gru.input_gates == gru.recurrent_gates == ("r", "z", "n")
    assert mingru.input_gates == ("z", "n")
    assert mingru.recurrent_gates == ()
    assert lstm.recurrent_gates == lstm.gates == ("i", "f", "g", "o")


def test_which_cells_read_their_output_state():
    reading = {name for name, c in CELLS.items() if c.reads_output_state()}
    assert reading == {"gru", "mgu", "mingru"}


def test_a_cell_has_the_metadata_of_its_function():
    assert lstm.name == lstm.__name__ == "lstm"
    assert lstm.__doc__.startswith("Long short-term memory")
    assert copy.deepcopy(lstm).program == lstm.program


GRU = """\
cell gru: gates r z n; state h
forward, 9 instructions:
    r' = sigmoid(r)
    z' = sigmoid(z)
    t1 = r' * n.h
    t2 = n.x + t1
    n = tanh(t2)
    t3 = 1 - z'
    t4 = t3 * n
    t5 = z' * h
    h' = t4 + t5
    return h: h'
backward, 17 instructions, from the saved n.h, h, r', z', n, t3:
    u1 = d(h') * h
    d(h) = d(h') * z'
    d(t3) = d(h') * n
    d(n) = d(h') * t3
    u2 = -d(t3)
    d(z') = u1 + u2
    u3 = n * n
    u4 = 1 - u3
    d(t2) = d(n) * u4
    d(r') = d(t2) * n.h
    d(n.h) = d(t2) * r'
    u5 = 1 - z'
    u6 = z' * u5
    d(z) = d(z') * u6
    u7 = 1 - r'
    u8 = r' * u7
    d(r) = d(r') * u8
    return d(r): d(r), d(z): d(z), d(n.x): d(t2), d(n.h): d(n.h), d(h): d(h)"""


def test_a_traced_cell_prints_its_program():
    assert repr(gru) == GRU
    assert repr(peephole_lstm).startswith(
        "cell peephole_lstm: gates i f g o; state h c; parameters p_i p_f p_o\nforward, 15 "
    )


def test_a_cell_that_is_not_fused_has_no_program():
    @cell(gates="a", state="h", fused=False)
    def branching(a, h):
        return a if a > h else h

    assert repr(branching) == "cell branching: gates a; state h; not fused"
    assert branching.input_gates == branching.recurrent_gates == ("a",)
    assert branching(2.0, 1.0) == 2.0
    with pytest.raises(EquationError, match="'branching' was declared with fused=False"):
        branching.program  # noqa: B018


def test_a_cell_has_one_name():
    assert {name: cell.name for name, cell in CELLS.items()} == {name: name for name in CELLS}


# What equations read from outside --------------------------------------------------------------

weight, constant, projection = Parameter(np.ones(4)), np.ones(4), nn.Linear(4, 4)


def scaled(a):
    return a * weight


class Owner(nn.Module):
    def __init__(self):
        self.weight = Parameter([1.0])

    def equations(self, a, h):
        return tanh(a) * self.weight


def closure():
    inner = {"weights": [Parameter([1.0])]}
    return lambda a, h: tanh(a) * inner["weights"][0]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("equations", "name"),
    [
        (lambda a, h: tanh(a) * weight, "weight"),
        (lambda a, h: scaled(tanh(a)), "weight"),
        (lambda a, h: sum(tanh(a) * w for w in (weight,)), "weight"),
        (lambda a, h: projection(a), "projection"),
        (Owner().equations, "self"),
        (closure(), "inner"),
        (functools.partial(lambda w, a, h: tanh(a) * w, weight), "argument 0"),
    ],
)
def test_trainable_values_must_be_arguments(equations, name, fused):
    message = rf"the equations read '{name}' \(\w+\), which would be neither trained nor saved.*"
    with pytest.raises(EquationError, match=message + "declare its numbers in parameters= and"):
        cell(gates="a", state="h", fused=fused)(equations)


def test_arrays_in_traced_equations_are_refused():
    def equations(a, h):
        return tanh(a) * float(constant[0])

    with pytest.raises(EquationError, match=r"the equations read 'constant', an array outside of"):
        cell(gates="a", state="h")(equations)
    unfused = cell(gates="a", state="h", fused=False)(equations)  # reads it at every step
    assert float(unfused(0.5, 0.0)) == pytest.approx(math.tanh(0.5))


x = Parameter([1.0])


def test_an_attribute_named_like_a_global_is_not_one():
    @cell(gates="a", state="h")
    def halves(a, h):
        return tanh(a.x) * 0.5 + a.h

    assert halves.input_gates == ("a",)


def test_parameters_of_objects_outside_are_refused():
    weight = Parameter(np.ones((4, 4), np.float32))

    class Holder:
        def __init__(self):
            self.deep = {"weight": [weight]}

        def equations(self, a, h):
            return ops.tanh(a) @ self.deep["weight"][0]

    holder = Holder()

    def equations(a, h):
        return ops.tanh(a) @ holder.deep["weight"][0]

    for function, name in ((equations, "holder"), (holder.equations, "self")):
        with pytest.raises(EquationError, match=f"the equations read '{name}' .*Holder.*, which"):
            cell(gates="a", state="h", fused=False)(function)
