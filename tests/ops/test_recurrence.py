"""The recurrence: fused against unfused, against NumPy written by hand, and against differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anaphora import ops
from anaphora.cells import CELLS, cell, gru, lstm, mingru, rnn
from anaphora.engine import LayerWeights
from anaphora.equations import abs, exp, log, tanh
from anaphora.tensor import RowGradient, Tensor, no_grad

T, B, I, H, P = 5, 3, 4, 7, 2  # all different
LENGTHS = [None, [5, 0, 3], [1, 4, 2]]


class Problem:
    """Random inputs for a cell, with gradients, and the cotangents of what comes out."""

    def __init__(
        self, cell, rng, dtype=np.float64, projected=False, steps=T, batch=B, hidden=H, inputs=I
    ):
        def draw(*shape):
            return Tensor((0.7 * rng.standard_normal(shape)).astype(dtype), requires_grad=True)

        self.cell = cell
        output = P if projected else hidden
        Gx, Gh = len(cell.input_gates), len(cell.recurrent_gates)
        sizes = [output, *(hidden for _ in cell.states[1:])]
        self.x = draw(steps, batch, inputs or Gx * hidden)
        self.weight_ih = draw(Gx * hidden, inputs) if inputs else None
        self.bias_ih = draw(Gx * hidden) if inputs else None
        self.states = [draw(batch, size) for size in sizes]
        self.weight_hh = draw(Gh * hidden, output) if Gh else None
        self.bias_hh = draw(Gh * hidden) if Gh else None
        self.weight_hr = draw(output, hidden) if projected else None
        self.parameters = [draw(hidden) for _ in cell.parameters]
        self.d_output = draw(steps, batch, output).data
        self.d_states = [draw(batch, size).data for size in sizes]

    def leaves(self):
        names = ("x", "weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_hr")
        leaves = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        leaves |= {f"state {k}": state for k, state in enumerate(self.states)}
        return leaves | {f"parameter {k}": p for k, p in enumerate(self.parameters)}

    def run(self, operation=ops.recurrence, **options):
        weights = LayerWeights(
            self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr,
            self.parameters,
        )  # fmt: skip
        return operation(self.cell, self.x, self.states, weights, **options)

    def loss(self, output, states):
        total = (output * self.d_output).sum()
        for state, d in zip(states, self.d_states, strict=True):
            total = total + (state * d).sum()
        return total

    def results(self, operation=ops.recurrence, **options):
        """Every value and every gradient, by name."""
        for tensor in self.leaves().values():
            tensor.grad = None
        output, states = self.run(operation, **options)
        loss = self.loss(output, states)
        if loss.requires_grad:
            loss.backward()
        values = {"output": output.data} | {f"final {k}": s.data for k, s in enumerate(states)}
        gradients = {
            f"d {name}": np.zeros_like(t.data) if t.grad is None else t.grad
            for name, t in self.leaves().items()
        }
        return values | gradients


def assert_same(found, expected, tolerance=1e-12):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(
            found[name], array, rtol=tolerance, atol=tolerance, err_msg=name
        )  # fmt: skip


def assert_pullback(problem, rng, epsilon=1e-6, **options):
    """The derivative along a random direction of all leaves together, by central differences."""
    results = problem.results(**options)
    leaves = problem.leaves()
    directions = {name: rng.standard_normal(tensor.shape) for name, tensor in leaves.items()}

    def loss_at(step):
        for name, tensor in leaves.items():
            with tensor.writing() as array:
                array += step * directions[name]
        with no_grad():
            loss = problem.loss(*problem.run(**options)).item()
        for name, tensor in leaves.items():
            with tensor.writing() as array:
                array -= step * directions[name]
        return loss

    def slope(step):
        return (loss_at(step) - loss_at(-step)) / (2 * step)

    # A cell may bend much within a step: its third derivatives fall out of these two together.
    slope_at_0 = (4 * slope(epsilon / 2) - slope(epsilon)) / 3
    products = [results[f"d {name}"] * directions[name] for name in leaves]
    scale = sum(np.abs(product).sum() for product in products)
    pulled = sum(product.sum() for product in products)
    assert abs(slope_at_0 - pulled) <= 1e-7 * max(1, scale)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("inputs", [I, 0])
@pytest.mark.parametrize("name", CELLS)
def test_fused_is_unfused(name, inputs, lengths, reverse, rng):
    problem = Problem(CELLS[name], rng, inputs=inputs)
    options = {"lengths": lengths, "reverse": reverse}
    fused = problem.results(**options)
    assert_same(fused, problem.results(ops.recurrence_unfused, **options))
    assert all(np.any(fused[f"d {name}"] != 0) for name in problem.leaves())
    assert_pullback(problem, rng, **options)

    single = Problem(CELLS[name], np.random.default_rng(1), np.float32, inputs=inputs)
    fused = single.results(**options)
    assert_same(fused, single.results(ops.recurrence_unfused, **options), 1e-4)
    assert all(array.dtype == np.float32 for array in fused.values())


PROJECTED = [name for name, c in CELLS.items() if not c.reads_output_state()]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("name", PROJECTED)
def test_projected_fused_is_unfused(name, lengths, reverse, rng):
    problem = Problem(CELLS[name], rng, projected=True)
    options = {"lengths": lengths, "reverse": reverse}
    fused = problem.results(**options)
    assert fused["output"].shape == (T, B, P)
    assert_same(fused, problem.results(ops.recurrence_unfused, **options))
    assert_pullback(problem, rng, **options)


# Random cells ----------------------------------------------------------------------------------


@settings(max_examples=80)
@given(
    data=st.data(),
    lengths=st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B),
    reverse=st.booleans(),
    projected=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_cell_fused_is_unfused(random_cells, data, lengths, reverse, projected, seed):
    sampled_cell, may_be_projected = data.draw(random_cells)
    rng = np.random.default_rng(seed)
    problem = Problem(sampled_cell, rng, projected=projected and may_be_projected)
    options = {"lengths": lengths, "reverse": reverse}
    assert_same(problem.results(**options), problem.results(ops.recurrence_unfused, **options))
    recorded, plainly = {}, {}
    problem.run(**options, record=recorded)
    problem.run(ops.recurrence_unfused, **options, record=plainly)
    assert_same({name: recorded[name] for name in plainly}, plainly)


@settings(max_examples=60)
@given(
    data=st.data(),
    lengths=st.lists(st.integers(0, T), min_size=B, max_size=B),
    reverse=st.booleans(),
    inputs=st.sampled_from([0, I]),
    seed=st.integers(0, 1000),
)
def test_cells_with_singular_points_where_the_padding_is(
    singular_cells, data, lengths, reverse, inputs, seed
):
    sampled_cell, _ = data.draw(singular_cells)
    problem = Problem(sampled_cell, np.random.default_rng(seed), inputs=inputs)
    problem.bias_ih = None
    options = {"lengths": lengths, "reverse": reverse}
    fused = problem.results(**options)
    assert all(np.isfinite(array).all() for array in fused.values())
    assert_same(fused, problem.results(ops.recurrence_unfused, **options), 1e-10)
    assert_rows_are_as_alone(problem, fused, ops.recurrence, lengths, reverse, 1e-10)


@settings(max_examples=40)
@given(
    data=st.data(),
    lengths=st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B),
    reverse=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_gradient_of_any_cell_is_its_derivative(random_cells, data, lengths, reverse, seed):
    sampled_cell, _ = data.draw(random_cells)
    rng = np.random.default_rng(seed)
    assert_pullback(Problem(sampled_cell, rng), rng, lengths=lengths, reverse=reverse)


# By hand ---------------------------------------------------------------------------------------


def logistic(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(x, h, c, W_ih, b_ih, W_hh, b_hh, d_output, dh_next, dc_next):
    """One layer as a textbook has it, forward and then backward; returns values and gradients."""
    kept, outputs, hs = [], [], [h]
    for t in range(len(x)):
        z = x[t] @ W_ih.T + b_ih + h @ W_hh.T + b_hh
        i, f, o = logistic(z[:, :H]), logistic(z[:, H : 2 * H]), logistic(z[:, 3 * H :])
        g = np.tanh(z[:, 2 * H : 3 * H])
        c_before, c = c, f * c + i * g
        h = o * np.tanh(c)
        kept.append((i, f, g, o, c_before, c))
        outputs.append(h)
        hs.append(h)
    final = h, c
    dx = np.zeros_like(x)
    dW_ih, dW_hh, db = np.zeros_like(W_ih), np.zeros_like(W_hh), np.zeros_like(b_ih)
    for t in reversed(range(len(x))):
        i, f, g, o, c_before, c = kept[t]
        dh = d_output[t] + dh_next
        dc = dc_next + dh * o * (1 - np.tanh(c) ** 2)
        dz = [dc * g * i * (1 - i), dc * c_before * f * (1 - f), dc * i * (1 - g**2)]
        dz = np.concatenate([*dz, dh * np.tanh(c) * o * (1 - o)], axis=1)
        dW_ih += dz.T @ x[t]
        dW_hh += dz.T @ hs[t]
        db += dz.sum(axis=0)
        dx[t] = dz @ W_ih
        dh_next, dc_next = dz @ W_hh, dc * f
    gates = {n: np.array([step[k] for step in kept]) for k, n in enumerate("ifgo")}
    return np.array(outputs), final, gates, [dx, dW_ih, db, dW_hh, db, dh_next, dc_next]


def gru_by_hand(x, h, W_ih, b_ih, W_hh, b_hh, d_output, dh_next):
    kept, outputs = [], []
    for t in range(len(x)):
        a, b = x[t] @ W_ih.T + b_ih, h @ W_hh.T + b_hh
        r = logistic(a[:, :H] + b[:, :H])
        z = logistic(a[:, H : 2 * H] + b[:, H : 2 * H])
        n = np.tanh(a[:, 2 * H :] + r * b[:, 2 * H :])
        kept.append((r, z, n, b[:, 2 * H :], h))
        h = (1 - z) * n + z * h
        outputs.append(h)
    dx = np.zeros_like(x)
    dW_ih, dW_hh = np.zeros_like(W_ih), np.zeros_like(W_hh)
    db_ih, db_hh = np.zeros_like(b_ih), np.zeros_like(b_hh)
    for t in reversed(range(len(x))):
        r, z, n, b_n, before = kept[t]
        dh = d_output[t] + dh_next
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (before - n) * z * (1 - z)
        dr = dn * b_n * r * (1 - r)
        da, db = np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1)
        dW_ih += da.T @ x[t]
        dW_hh += db.T @ before
        db_ih += da.sum(axis=0)
        db_hh += db.sum(axis=0)
        dx[t] = da @ W_ih
        dh_next = dh * z + db @ W_hh
    return np.array(outputs), (h,), kept, [dx, dW_ih, db_ih, dW_hh, db_hh, dh_next]


@pytest.mark.parametrize(("cell", "by_hand"), [(lstm, lstm_by_hand), (gru, gru_by_hand)])
def test_a_layer_is_what_is_written_by_hand(cell, by_hand, rng):
    G = len(cell.gates)
    x, W_ih, b_ih, W_hh, b_hh, *states = (
        Tensor(0.7 * rng.standard_normal(shape), requires_grad=True)
        for shape in ((T, B, I), (G * H, I), (G * H,), (G * H, H), (G * H,))
        + ((B, H),) * len(cell.states)
    )
    d_output = rng.standard_normal((T, B, H))
    d_states = [rng.standard_normal((B, H)) for _ in states]

    weights = LayerWeights(weight_hh=W_hh, bias_hh=b_hh)
    output, final = ops.recurrence(cell, ops.linear(x, W_ih, b_ih), states, weights)
    loss = (output * d_output).sum()
    for state, d in zip(final, d_states, strict=True):
        loss = loss + (state * d).sum()
    loss.backward()

    arrays = [t.data for t in (x, *states, W_ih, b_ih, W_hh, b_hh)]
    outputs, states_by_hand, _, gradients = by_hand(*arrays, d_output, *d_states)
    np.testing.assert_allclose(output.data, outputs, atol=1e-14)
    for found, expected in zip(final, states_by_hand, strict=True):
        np.testing.assert_allclose(found.data, expected, atol=1e-14)
    for tensor, expected in zip((x, W_ih, b_ih, W_hh, b_hh, *states), gradients, strict=True):
        np.testing.assert_allclose(tensor.grad, expected, atol=1e-12)


# The same sequence, in other pieces ------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[2, 3], [1] * T, [5, 0], [0, 4, 1]], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_chunks_with_carried_state_are_the_full_sequence(name, pieces, rng):
    def in_pieces(cell, x, states, weights):
        outputs = []
        for piece in ops.split(x, np.cumsum(pieces)[:-1].tolist()):
            output, states = ops.recurrence(cell, piece, states, weights)
            outputs.append(output)
        return ops.concatenate(outputs), states

    problem = Problem(CELLS[name], rng)
    assert_same(problem.results(in_pieces), problem.results())


def assert_rows_are_as_alone(problem, batch, operation, lengths, reverse, tolerance=1e-12):
    """Each row of a padded batch has the results of the row alone; gradients of weights add up."""
    weights = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "parameters")
    sums = {}
    for row, length in enumerate(lengths):
        alone = Problem(
            problem.cell, np.random.default_rng(1), batch=1, steps=length,
            inputs=I if problem.weight_ih is not None else 0,
        )  # fmt: skip
        alone.x = Tensor(problem.x.data[:length, [row]], requires_grad=True)
        alone.states = [Tensor(s.data[[row]], requires_grad=True) for s in problem.states]
        alone.d_output = problem.d_output[:length, [row]]
        alone.d_states = [d[[row]] for d in problem.d_states]
        for weight in weights:
            setattr(alone, weight, getattr(problem, weight))
        single = alone.results(operation, reverse=reverse)
        assert not batch["output"][length:, row].any()
        assert not batch["d x"][length:, row].any()
        pairs = [("output", batch["output"][:length]), ("d x", batch["d x"][:length])]
        for k in range(len(problem.states)):
            pairs += [(n, batch[n][None]) for n in (f"final {k}", f"d state {k}")]
        for result, in_batch in pairs:
            expected = single[result]
            np.testing.assert_allclose(
                in_batch[:, [row]].reshape(expected.shape), expected, rtol=tolerance, atol=tolerance
            )  # fmt: skip
        for name, array in single.items():
            if name.startswith(("d weight", "d bias", "d parameter")):
                sums[name] = sums.get(name, 0) + array
    for name, total in sums.items():
        np.testing.assert_allclose(batch[name], total, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("name", CELLS)
def test_a_row_alone_is_the_row_in_a_padded_batch(name, operation, reverse, rng):
    lengths = [3, 0, 5]
    problem = Problem(CELLS[name], rng)
    batch = problem.results(operation, lengths=lengths, reverse=reverse)
    assert_rows_are_as_alone(problem, batch, operation, lengths, reverse)


@cell(gates="a", state="h")
def sign_of_input(a, h):
    return tanh(a.x / abs(a.x))


@cell(gates="a b", state="h c")
def exchanged(a, b, h, c):  # each state comes from the other's place
    return c * exp(-1 / abs(a.x)), h + log(abs(b.x)) * tanh(a.h)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("inputs", [0, I])
@pytest.mark.parametrize("drawn", [sign_of_input, exchanged], ids=lambda c: c.name)
def test_no_gradient_comes_from_the_padding(drawn, inputs, operation, reverse, rng):
    lengths = [3, 0, 4]  # of 5 steps: no row has the last
    problem = Problem(drawn, rng, inputs=inputs)
    problem.bias_ih = None
    for garbage in (0.0, np.nan, np.inf):
        with problem.x.writing() as array:
            for row, length in enumerate(lengths):
                array[length:, row] = garbage
        problem.d_output = problem.d_output.copy()
        for row, length in enumerate(lengths):
            problem.d_output[length:, row] = garbage
        output, states = problem.run(operation, lengths=lengths, reverse=reverse)
        for tensor in problem.leaves().values():
            tensor.grad = None
        output.backward(problem.d_output, retain_graph=True)
        for state, d in zip(states, problem.d_states, strict=True):
            state.backward(d, retain_graph=True)
        found = {"output": output.data} | {f"final {k}": s.data for k, s in enumerate(states)}
        found |= {f"d {name}": t.grad for name, t in problem.leaves().items()}
        assert_rows_are_as_alone(problem, found, operation, lengths, reverse)


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("name", ["lstm", "rnn"])
def test_the_state_of_a_row_that_has_ended_is_not_multiplied(name, operation, rng):
    problem = Problem(CELLS[name], rng)
    lengths = [3, 0, 4]
    expected = problem.results(operation, lengths=lengths)
    with problem.states[0].writing() as array:
        array[1] = np.inf
    with np.errstate(invalid="ignore"):  # the loss itself is infinite
        found = problem.results(operation, lengths=lengths)
    assert np.isinf(found.pop("final 0")[1]).all()
    assert_same(found, {name: expected[name] for name in found}, 0)


def from_parameters(a, h, c, p):
    """One state depends on a parameter alone, the other on what comes in."""
    return p * p, c + a * h


@pytest.mark.parametrize("lengths", [None, [5, 0, 3], [4, 4, 4]], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_state_that_depends_on_parameters_alone(lengths, reverse, rng):
    declared = {"gates": "a", "state": "h c", "parameters": "p"}
    fused, unfused = (
        cell(**declared)(from_parameters),
        cell(**declared, fused=False)(from_parameters),
    )
    problem = Problem(fused, rng)
    options = {"lengths": lengths, "reverse": reverse}
    expected = problem.results(**options)
    assert_same(problem.results(ops.recurrence_unfused, **options), expected)
    problem.cell = unfused
    found = problem.results(**options)
    assert_same(found, expected)
    assert found["output"].shape == (T, B, H)
    square = problem.parameters[0].data ** 2
    for row, length in enumerate(lengths or [T] * B):
        steps = np.broadcast_to(square, (length, H))
        np.testing.assert_array_equal(found["output"][:length, row], steps)
        assert not found["output"][length:, row].any()
        last = square if length else problem.states[0].data[row]
        np.testing.assert_array_equal(found["final 0"][row], last)
    recorded, plainly = {}, {}
    problem.run(**options, record=recorded)
    problem.cell = fused
    problem.run(**options, record=plainly)
    assert_same(recorded, {name: plainly[name] for name in recorded})


@pytest.mark.parametrize("constant", [0.5, 2, np.float64(0.5), np.full(H, 0.5), np.full((B, H), 3)])
def test_a_state_that_is_constant_has_an_axis_for_the_batch(constant, rng):
    @cell(gates="a", state="h c", fused=False)
    def constant_state(a, h, c):
        return a + c, constant

    problem = Problem(constant_state, rng)
    results = problem.results()
    np.testing.assert_array_equal(results["final 1"], np.broadcast_to(constant, (B, H)))
    assert results["d weight_ih"].any()


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("garbage", [1e30, np.nan, np.inf])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_what_stands_in_the_padding_does_not_matter(name, reverse, garbage, operation, rng):
    lengths = [3, 0, 4]
    problem = Problem(CELLS[name], rng)
    clean = problem.results(operation, lengths=lengths, reverse=reverse)
    with problem.x.writing() as array:
        for row, length in enumerate(lengths):
            array[length:, row] = garbage
    for name, result in problem.results(operation, lengths=lengths, reverse=reverse).items():
        np.testing.assert_array_equal(result, clean[name])


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
def test_final_states_beside_the_sequence(operation, rng):
    lengths = [3, 0, 5]
    problem = Problem(lstm, rng)
    recorded = {}
    output, (h, c) = problem.run(operation, lengths=lengths, record=recorded)
    for row, length in enumerate(lengths):
        last = [output.data[length - 1, row], recorded["c"][length - 1, row]]
        first = [state.data[row] for state in problem.states]
        expected = last if length else first
        np.testing.assert_array_equal([h.data[row], c.data[row]], expected)
    # Reversed, the last step of every row is the one at 0.
    output, (h, _) = problem.run(operation, lengths=lengths, reverse=True)
    np.testing.assert_array_equal(h.data[[0, 2]], output.data[0, [0, 2]])


@pytest.mark.parametrize("lengths", LENGTHS[1:], ids=str)
def test_reversed_is_forward_on_each_row_turned_round(lengths, rng):
    problem = Problem(gru, rng)
    output, (final,) = problem.run(lengths=lengths, reverse=True)
    flipped = problem.x.data.copy()
    for row, length in enumerate(lengths):
        flipped[:length, row] = flipped[:length, row][::-1]
    problem.x = Tensor(flipped)
    expected, (expected_final,) = problem.run(lengths=lengths)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(
            output.data[:length, row], expected.data[:length, row][::-1], atol=1e-14
        )  # fmt: skip
    np.testing.assert_allclose(final.data, expected_final.data, atol=1e-14)


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("sizes", [(0, 3, 7), (5, 0, 7), (0, 0, 7), (5, 3, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", ["lstm", "gru", "peephole_lstm", "mingru"])
def test_small_sizes(name, sizes, operation, rng):
    steps, batch, hidden = sizes
    problem = Problem(CELLS[name], rng, steps=steps, batch=batch, hidden=hidden)
    results = problem.results(operation, lengths=[steps] * batch)
    assert results["output"].shape == sizes
    assert_same(results, problem.results(ops.recurrence_unfused))
    if steps == 0:
        for k, (state, d) in enumerate(zip(problem.states, problem.d_states, strict=True)):
            np.testing.assert_array_equal(results[f"final {k}"], state.data)
            np.testing.assert_array_equal(results[f"d state {k}"], d)


def test_one_end_of_the_results_is_enough(rng):
    problem = Problem(lstm, rng)
    for pick in (lambda y, s: y[2], lambda y, s: s[0], lambda y, s: s[1]):
        gradients = []
        for operation in (ops.recurrence, ops.recurrence_unfused):
            for tensor in problem.leaves().values():
                tensor.grad = None
            pick(*problem.run(operation)).sum().backward()
            gradients.append({n: t.grad for n, t in problem.leaves().items()})
        assert_same(*gradients)


def test_inputs_without_gradient(rng):
    problem = Problem(lstm, rng)
    expected = problem.results()
    problem.x = Tensor(problem.x.data)
    problem.states = [Tensor(state.data) for state in problem.states]
    found = problem.results()
    for name in ("output", "d weight_hh", "d bias_hh"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert problem.x.grad is None
    with no_grad():
        output, _ = problem.run()
    assert not output.requires_grad


def test_a_weight_without_bias(rng):
    problem = Problem(lstm, rng)
    problem.bias_hh = None
    assert_same(problem.results(), problem.results(ops.recurrence_unfused))


def test_a_gradient_that_comes_through_an_embedding(rng):
    table = Tensor(rng.standard_normal((6, I)), requires_grad=True)
    problem = Problem(lstm, rng)
    problem.x = ops.embedding(table, rng.integers(0, 6, (T, B)))
    problem.loss(*problem.run()).backward()
    assert isinstance(table.grad, RowGradient)


# Recording -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [5, 0, 3]], ids=str)
def test_gates_are_recorded_by_name(lengths, reverse, rng):
    problem = Problem(lstm, rng)
    recorded = {}
    output, _ = problem.run(lengths=lengths, reverse=reverse, record=recorded)
    assert set(recorded) == {"i", "f", "g", "o", "h", "c"}
    np.testing.assert_array_equal(recorded["h"], output.data)
    for row, length in enumerate(lengths or [T] * B):
        x = problem.x.data[:length, [row]]
        h, c = (state.data[[row]] for state in problem.states)
        order = slice(None, None, -1) if reverse else slice(None)
        zeros = np.zeros((length, 1, H)), np.zeros((1, H)), np.zeros((1, H))
        _, _, gates, _ = lstm_by_hand(
            x[order], h, c, problem.weight_ih.data, problem.bias_ih.data, problem.weight_hh.data,
            problem.bias_hh.data, *zeros,
        )  # fmt: skip
        for name, steps in gates.items():
            found = recorded[name][:, [row]]
            assert not found[length:].any()
            if length:
                np.testing.assert_allclose(found[:length], steps[order], atol=1e-14)


def test_a_gate_that_is_not_changed_is_recorded_as_it_comes(rng):
    problem = Problem(rnn, rng)
    recorded = {}
    output, _ = problem.run(record=recorded)
    assert set(recorded) == {"a", "h"}
    np.testing.assert_allclose(np.tanh(recorded["a"]), output.data)


def test_a_projected_state_is_recorded_before_its_projection(rng):
    problem = Problem(lstm, rng, projected=True)
    for operation in (ops.recurrence, ops.recurrence_unfused):
        recorded = {}
        output, _ = problem.run(operation, record=recorded)
        assert recorded["h"].shape == (T, B, H)
        expected = recorded["h"] @ problem.weight_hr.data.T
        np.testing.assert_allclose(output.data, expected, atol=1e-14)


# Cells that are not fused ----------------------------------------------------------------------


def test_a_cell_that_is_not_fused_has_whole_gates_with_halves(rng):
    unfused = cell(gates="r z n", state="h", fused=False)(gru.equations)
    problem = Problem(gru, rng)
    expected = problem.results(lengths=[5, 0, 3], reverse=True)
    problem.cell = unfused
    assert_same(problem.results(lengths=[5, 0, 3], reverse=True), expected)


def test_a_cell_that_is_not_fused_may_branch(rng):
    @cell(gates="a", state="h", fused=False)
    def branching(a, h):
        if a.data.sum() > 0:  # which a program cannot ask
            return ops.softmax(a)
        return a.h * 2.0 - a.x

    problem = Problem(branching, rng, inputs=0)
    output, (final,) = problem.run()
    h, both = problem.states[0].data, set()
    for t in range(T):
        x, recurrent = problem.x.data[t], h @ problem.weight_hh.data.T + problem.bias_hh.data
        a = x + recurrent
        both.add(a.sum() > 0)
        e = np.exp(a)
        h = e / e.sum(axis=1, keepdims=True) if a.sum() > 0 else 2 * recurrent - x
        np.testing.assert_allclose(output.data[t], h, atol=1e-13)
    np.testing.assert_array_equal(final.data, output.data[-1])
    assert both == {True, False}
    assert_pullback(problem, rng)


def test_a_cell_that_is_not_fused_returns_its_states(rng):
    @cell(gates="a", state="h c", fused=False)
    def forgetful(a, h, c):
        return h + a

    with pytest.raises(ValueError, match=r"^recurrence: cell 'forgetful' returned 1 of its states"):
        Problem(forgetful, rng).run()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            np.zeros((2, H)),
            ValueError,
            r"a state 'c' of shape \(2, 7\), expected \(3, 7\) for the rows",
        ),
        (np.zeros((4, 1, H)), ValueError, r"a state 'c' of shape \(4, 1, 7\), expected \(3, 7\)"),
        (None, TypeError, "returned None for the state 'c', expected a Tensor"),
    ],
    ids=str,
)
def test_a_cell_that_is_not_fused_returns_states_that_fit(value, error, message, rng):
    @cell(gates="a", state="h c", fused=False)
    def odd(a, h, c):
        return h + a, value

    with pytest.raises(
        error, match=rf"^recurrence: cell 'odd' returned {message.removeprefix('returned ')}"
    ):
        Problem(odd, rng).run()


# What does not fit -----------------------------------------------------------------------------

ONE = Tensor(np.ones((1, 1)))
SHAPES = {
    "x": (Tensor(np.ones((T, B, I + 1))), r"weight_ih of shape \(28, 4\), expected \(28, 5\)"),
    "weight_ih": (None, "bias_ih without weight_ih"),
    "bias_ih": (ONE, r"bias_ih of shape \(1, 1\), expected \(28,\)"),
    "weight_hh": (ONE, r"weight_hh of shape \(1, 1\), expected \(28, 7\)"),
    "bias_hh": (ONE, r"bias_hh of shape \(1, 1\), expected \(28,\)"),
    "weight_hr": (Tensor(np.ones((3, H))), r"weight_hr of shape \(3, 7\), expected \(7, 7\)"),
    "states": ([ONE], r"1 states, expected 2 \(h, c\)"),
    "parameters": ([ONE], r"1 parameters, expected none"),
}


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_does_not_fit_is_reported(name, operation, rng):
    problem = Problem(lstm, rng)
    wrong, message = SHAPES[name]
    setattr(problem, name, wrong)
    with pytest.raises(ValueError, match=rf"^recurrence: cell 'lstm' got {message}"):
        problem.run(operation)


def test_more_that_does_not_fit(rng):
    problem = Problem(lstm, rng)
    problem.states[1] = Tensor(np.ones((1, H)))  # NumPy would broadcast it
    with pytest.raises(ValueError, match=r"got state 'c' of shape \(1, 7\), expected \(3, 7\)"):
        problem.run()
    problem = Problem(CELLS["peephole_lstm"], rng)
    problem.parameters[2] = ONE
    with pytest.raises(ValueError, match=r"parameter 'p_o' of shape \(1, 1\), expected \(7,\)"):
        problem.run()
    problem = Problem(lstm, rng)
    problem.weight_hh = problem.bias_hh = None
    with pytest.raises(
        ValueError, match=r"4 gates with a recurrent half, so weight_hh is required"
    ):
        problem.run()
    problem = Problem(mingru, rng)
    problem.weight_hh = Tensor(np.ones((0, H)))
    with pytest.raises(ValueError, match="0 gates with a recurrent half, so weight_hh and bias_hh"):
        problem.run()
    problem = Problem(gru, rng, projected=True)
    with pytest.raises(ValueError, match=r"reads its state 'h' elementwise, so .*omit weight_hr"):
        problem.run()
    problem = Problem(lstm, rng)
    problem.x = Tensor(np.ones((T, I)))
    with pytest.raises(ValueError, match=r"x of shape \(5, 4\), expected \[T, B, I\]"):
        problem.run()
    problem = Problem(lstm, rng, inputs=0)
    problem.x = Tensor(np.ones((T, B, 3 * H)))
    with pytest.raises(ValueError, match=r"x of shape \(5, 3, 21\), expected \(5, 3, 28\)"):
        problem.run()


@pytest.mark.parametrize("operation", [ops.recurrence, ops.recurrence_unfused])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], r"lengths got int64\(2,\), expected one integer for each of the 3 rows"),
        ([[1], [2], [3]], r"lengths got int64\(3, 1\)"),
        ([1.0, 2.0, 3.0], r"lengths got float64\(3,\)"),
        ([1, 2, 6], r"lengths from 1 to 6, but the sequences have 5 steps"),
        ([-1, 2, 5], r"lengths from -1 to 5"),
    ],
)
def test_lengths_that_do_not_fit_are_reported(lengths, message, operation, rng):
    with pytest.raises(ValueError, match=f"^recurrence: {message}"):
        Problem(lstm, rng).run(operation, lengths=lengths)


def test_dtypes_do_not_mix_in_a_recurrence(rng):
    problem = Problem(lstm, rng)
    problem.bias_hh = Tensor(problem.bias_hh.data.astype(np.float32))
    with pytest.raises(TypeError, match=r"^recurrence: float64 and float32 do not mix"):
        problem.run()


def test_a_weight_that_is_changed_before_backward_is_reported(rng):
    problem = Problem(lstm, rng)
    loss = problem.loss(*problem.run())
    with problem.weight_hh.writing() as array:
        array *= 0.9
    with pytest.raises(RuntimeError, match=r"^recurrence: an input of shape \(28, 7\) was changed"):
        loss.backward()


def test_a_long_sequence_neither_recurses_nor_takes_quadratic_work(rng):
    steps = 2_000
    problem = Problem(rnn, rng, steps=steps, batch=1, hidden=1)
    assert_same(problem.results(), problem.results(ops.recurrence_unfused), 1e-10)
    assert math.isfinite(problem.weight_hh.grad.item())


@pytest.mark.parametrize("fused", [True, False])
def test_arrays_and_lists_are_taken(fused, rng):
    operation = ops.recurrence if fused else ops.recurrence_unfused
    weights = LayerWeights(
        weight_hh=Tensor((0.5 * rng.standard_normal((4 * H, H))).astype(np.float32))
    )
    x, h, c = (rng.integers(-2, 3, shape) for shape in [(T, B, 4 * H), (B, H), (B, H)])
    tensors = [Tensor(array, dtype=np.float32) for array in (x, h, c)]
    expected = operation(lstm, tensors[0], tensors[1:], weights)[0]
    for first, *states in [(x, h, c), (x.tolist(), tensors[1], c.astype(float))]:
        found = operation(lstm, first, states, weights)[0]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.data, expected.data)
