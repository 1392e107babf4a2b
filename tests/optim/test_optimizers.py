"""Each optimiser against its formula, written here once more, plainly, in float64."""

import json
import math

import numpy as np
import pytest

from anaphora import ops
from anaphora.optim import ASGD, LBFGS, OPTIMIZERS, SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from anaphora.tensor import Parameter, RowGradient

# The formulas, element by element ---------------------------------------------------------------


def sgd(p, gradients, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    v = 0.0
    for g in gradients:
        g = g + weight_decay * p
        v = momentum * v + g
        p = p - lr * (g + momentum * v if nesterov else v)
    return p


def adam(p, gradients, lr, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
    return p


def adamw(p, gradients, lr, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        p = p - lr * weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + epsilon)
    return p


def rmsprop(
    p, gradients, lr, alpha=0.99, epsilon=1e-8, momentum=0.0, centered=False, weight_decay=0.0
):
    s = a = v = 0.0
    for g in gradients:
        g = g + weight_decay * p
        s = alpha * s + (1 - alpha) * g**2
        a = alpha * a + (1 - alpha) * g if centered else 0.0
        v = momentum * v + g / (np.sqrt(s - a**2) + epsilon)
        p = p - lr * v
    return p


def adagrad(p, gradients, lr, epsilon=1e-10, weight_decay=0.0):
    s = 0.0
    for g in gradients:
        g = g + weight_decay * p
        s = s + g**2
        p = p - lr * g / (np.sqrt(s) + epsilon)
    return p


CASES = [
    (SGD, sgd, {}),
    (SGD, sgd, {"weight_decay": 0.1}),
    (SGD, sgd, {"momentum": 0.9}),
    (SGD, sgd, {"momentum": 0.9, "weight_decay": 0.1}),
    (SGD, sgd, {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    (Adam, adam, {}),
    (Adam, adam, {"betas": (0.5, 0.7), "epsilon": 0.1, "weight_decay": 0.3}),
    (Adam, adam, {"betas": (0.0, 0.9)}),
    (AdamW, adamw, {}),
    (AdamW, adamw, {"betas": (0.5, 0.7), "epsilon": 0.1, "weight_decay": 0.3}),
    (RMSprop, rmsprop, {}),
    (RMSprop, rmsprop, {"alpha": 0.6, "epsilon": 0.1, "weight_decay": 0.3}),
    (RMSprop, rmsprop, {"alpha": 0.6, "momentum": 0.7}),
    # Epsilon keeps a small variance from making small differences of rounding large.
    (RMSprop, rmsprop, {"alpha": 0.6, "epsilon": 0.01, "momentum": 0.7, "centered": True}),
    (Adagrad, adagrad, {}),
    (Adagrad, adagrad, {"epsilon": 0.1, "weight_decay": 0.3}),
    (ASGD, sgd, {}),
    (ASGD, sgd, {"weight_decay": 0.1}),
]
IDS = [f"{kind.__name__}-{options}" for kind, _, options in CASES]
SHAPES = {"scalar": (), "bias": (5,), "weight": (4, 3), "three.axes": (2, 3, 4), "empty": (0, 3)}


def make(dtype, shapes=SHAPES, seed=0):
    """Parameters by name, and ten lists of gradients."""
    generator = np.random.default_rng(seed)
    parameters = {
        name: Parameter(generator.standard_normal(shape).astype(dtype))
        for name, shape in shapes.items()
    }
    gradients = [
        {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
        for _ in range(10)
    ]
    return parameters, gradients


def run(optimizer, parameters, steps):
    for gradients in steps:
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()


def assert_same_bits(parameters, others):
    for name, parameter in parameters.items():
        assert parameter.data.tobytes() == others[name].data.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "formula", "options"), CASES, ids=IDS)
def test_ten_steps_equal_the_formula(kind, formula, options, dtype):
    parameters, steps = make(dtype)
    start = {name: p.data.astype(np.float64) for name, p in parameters.items()}
    run(kind(parameters.items(), 0.05, **options), parameters, steps)
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    for name, parameter in parameters.items():
        gradients = [step[name].astype(np.float64) for step in steps]
        assert parameter.dtype == dtype
        np.testing.assert_allclose(
            parameter.data,
            formula(start[name], gradients, 0.05, **options),
            rtol=tolerance,
            atol=tolerance,
            err_msg=name,
        )


@pytest.mark.parametrize(("kind", "formula", "options"), CASES, ids=IDS)
def test_arrays_larger_than_a_block_and_of_any_layout(kind, formula, options):
    shapes = {"tall": (40_000, 2), "wide": (2, 40_000), "long": (70_001,)}
    parameters, steps = make(np.float64, shapes)
    parameters["transposed"] = Parameter(parameters["tall"].data.T)  # in Fortran's order
    assert not parameters["transposed"].data.flags.c_contiguous
    for step in steps:
        step["transposed"] = np.ascontiguousarray(step["tall"].T)
    start = parameters["tall"].data.copy(), parameters["long"].data.copy()
    run(kind(parameters.items(), 0.05, **options), parameters, steps[:3])
    tall, long = (
        formula(p, [step[name] for step in steps[:3]], 0.05, **options)
        for p, name in zip(start, ("tall", "long"), strict=True)
    )
    np.testing.assert_allclose(parameters["tall"].data, tall, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(parameters["long"].data, long, rtol=1e-12, atol=1e-12)
    assert np.array_equal(parameters["transposed"].data, parameters["tall"].data.T)


def test_a_step_leaves_gradients_and_dtypes_alone():
    for kind, _, options in CASES:
        parameters, steps = make(np.float32)
        before = {name: g.copy() for name, g in steps[0].items()}
        optimizer = kind(parameters.items(), np.float64(0.05), **options)
        run(optimizer, parameters, steps[:1])
        for name, parameter in parameters.items():
            assert np.array_equal(parameter.grad, before[name])
        assert {a.dtype for a in optimizer.state_dict()["arrays"].values()} <= {np.dtype("f4")}


def test_centred_rmsprop_survives_a_constant_gradient():
    # s - a**2 is 0 but for rounding, which may make it negative.
    weight = Parameter(np.zeros(1000, np.float32))
    optimizer = RMSprop([weight], 0.001, alpha=0.5, epsilon=0.1, centered=True)
    for _ in range(400):
        weight.grad = np.linspace(-3, 3, 1000, dtype=np.float32)
        optimizer.step()
    assert np.isfinite(weight.data).all()


def test_a_parameter_without_a_gradient_is_skipped_with_its_step_count():
    for kind, formula, options in CASES:
        parameters, steps = make(np.float64, {"often": (3,), "seldom": (3,)})
        start = {name: p.data.copy() for name, p in parameters.items()}
        optimizer = kind(parameters.items(), 0.05, **options)
        for number, gradients in enumerate(steps):
            optimizer.zero_grad()
            parameters["often"].grad = gradients["often"]
            if number in (3, 7):
                parameters["seldom"].grad = gradients["seldom"]
            optimizer.step()
        for name, taken in {"often": steps, "seldom": [steps[3], steps[7]]}.items():
            expected = formula(start[name], [g[name] for g in taken], 0.05, **options)
            np.testing.assert_allclose(parameters[name].data, expected, rtol=1e-12)


def test_zero_grad_sets_none_and_the_learning_rate_counts_from_the_next_step():
    weight = Parameter([1.0])
    optimizer = SGD([weight], 0.5)
    weight.grad = np.ones(1, np.float32)
    optimizer.step()
    assert weight.data[0] == 0.5
    optimizer.learning_rate = 0.25
    assert optimizer.learning_rate == 0.25
    optimizer.step()
    assert weight.data[0] == 0.25
    optimizer.zero_grad()
    assert weight.grad is None
    optimizer.step()
    assert weight.data[0] == 0.25


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "formula", "options"), CASES, ids=IDS)
def test_rows_equal_the_dense_gradient_bit_for_bit(kind, formula, options, dtype):
    tables, optimizers = [], []
    for _ in range(2):
        table = Parameter(np.random.default_rng(1).standard_normal((6, 3)).astype(dtype))
        tables.append(table)
        optimizers.append(kind([("table", table)], 0.05, **options))
    generator = np.random.default_rng(2)
    # Row 5 is never read; a row is read twice; then nothing is; then all but 5.
    for number, ids in enumerate(([1, 3, 1], [], [2, 3], [4, 3, 2, 1, 0], [0])):
        if number == 2 and kind is ASGD:
            for optimizer in optimizers:
                optimizer.start_averaging()
        values = generator.standard_normal((len(ids), 3)).astype(dtype)
        rows = RowGradient(np.array(ids, np.int64), values, (6, 3))
        for table, gradient in zip(tables, (rows, rows.dense()), strict=True):
            table.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    assert tables[0].data.tobytes() == tables[1].data.tobytes()
    states = [optimizer.state_dict()["arrays"] for optimizer in optimizers]
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name


@pytest.mark.parametrize(("kind", "formula", "options"), CASES, ids=IDS)
def test_no_dense_table_is_made(kind, formula, options, monkeypatch):
    monkeypatch.setattr(RowGradient, "dense", lambda self: pytest.fail("made a dense table"))
    table = Parameter(np.zeros((6, 3)))
    table.grad = RowGradient(np.array([2]), np.ones((1, 3)), (6, 3))
    kind([table], 0.5, **options).step()
    assert np.flatnonzero(table.data.any(axis=1)).tolist() == [2]


def test_an_optimizer_of_ones_own_is_given_the_dense_table():
    class Descent(Optimizer):
        def _update(self, array, gradient, state, step, learning_rate, options):
            assert type(gradient) is np.ndarray
            array -= learning_rate * gradient

    table = Parameter(np.ones((3, 1)))
    table.grad = RowGradient(np.array([1]), np.full((1, 1), 4.0), (3, 1))
    Descent([table], 0.25).step()
    assert table.data.tolist() == [[1], [0], [1]]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("kind", "formula"), [(Adam, adam), (AdamW, adamw)])
def test_lazy_rows_move_only_when_they_are_read(kind, formula, weight_decay):
    start = np.random.default_rng(3).standard_normal((5, 2))
    table = Parameter(start)
    optimizer = kind([("table", table)], 0.05, weight_decay=weight_decay, lazy_rows=True)
    m, v, expected = np.zeros((5, 2)), np.zeros((5, 2)), start.copy()
    for step, row in enumerate([1, 1, 4, 1, 0], start=1):  # the steps of all rows count
        values = np.random.default_rng(step).standard_normal((1, 2))
        table.grad = RowGradient(np.array([row]), values, (5, 2))
        optimizer.step()
        g = values[0]
        if kind is Adam:
            g = g + weight_decay * expected[row]
        else:
            expected[row] -= 0.05 * weight_decay * expected[row]
        m[row] += 0.1 * (g - m[row])
        v[row] += 0.001 * (g**2 - v[row])
        root = np.sqrt(v[row] / (1 - 0.999**step)) + 1e-8
        expected[row] -= 0.05 * m[row] / (1 - 0.9**step) / root
    np.testing.assert_allclose(table.data, expected, rtol=1e-12)
    assert (table.data[[2, 3]] == start[[2, 3]]).all()
    assert not (table.data[[0, 1, 4]] == start[[0, 1, 4]]).any()


def test_lazy_rows_of_a_dense_gradient_are_all_rows():
    tables = [Parameter(np.ones((4, 2))) for _ in range(2)]
    optimizers = [Adam([tables[0]], 0.1, lazy_rows=True), Adam([tables[1]], 0.1)]
    for step in range(3):
        for table, optimizer in zip(tables, optimizers, strict=True):
            table.grad = np.zeros((4, 2))
            table.grad[step] = 1.0
            optimizer.step()
    np.testing.assert_array_equal(tables[0].data, tables[1].data)


def test_lazy_rows_are_saved_and_not_mixed_with_others():
    lazy, dense = (
        Adam([("table", Parameter(np.ones((4, 2))))], lazy_rows=k) for k in (True, False)
    )
    assert "lazy_rows=True" in repr(lazy)
    assert "lazy_rows" not in repr(dense)
    lazy.load_state_dict(lazy.state_dict())
    with pytest.raises(ValueError, match=r"Adam: .*lazy_rows"):
        dense.load_state_dict(lazy.state_dict())
    with pytest.raises(ValueError, match=r"Adam: .*lazy_rows"):
        lazy.load_state_dict(dense.state_dict())


def test_momentum_and_weight_decay_move_rows_that_were_not_read():
    table = Parameter(np.ones((2, 1)))
    optimizer = SGD([table], 0.5, momentum=0.5)
    for row in (0, 1):
        table.grad = RowGradient(np.array([row]), np.ones((1, 1)), (2, 1))
        optimizer.step()
    assert table.data.tolist() == [[1 - 0.5 - 0.25], [0.5]]
    optimizer = SGD([table], 0.5, weight_decay=0.5)
    table.grad = RowGradient(np.array([1]), np.ones((1, 1)), (2, 1))
    optimizer.step()
    assert table.data.tolist() == [[0.25 * 0.75], [0.5 * 0.75 - 0.5]]


# Averaged SGD -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_averages_are_the_means_of_the_values_since_the_start(dtype):
    parameters, steps = make(dtype)
    optimizer = ASGD(parameters.items(), 0.05)
    run(optimizer, parameters, steps[:4])
    with optimizer.averaged():  # not started: nothing to put in
        assert_same_bits(parameters, {name: p.data for name, p in parameters.items()})
    optimizer.start_averaging()
    assert optimizer.averaging
    values = {name: [] for name in parameters}
    for step in steps[4:]:
        run(optimizer, parameters, [step])
        optimizer.start_averaging()  # has started before
        for name, parameter in parameters.items():
            values[name].append(parameter.data.astype(np.float64))
    before = {name: Parameter(p.data) for name, p in parameters.items()}
    with optimizer.averaged():
        for name, parameter in parameters.items():
            assert parameter.dtype == dtype
            np.testing.assert_allclose(parameter.data, np.mean(values[name], axis=0), rtol=1e-5)
        with optimizer.averaged():
            pass
        assert not np.array_equal(parameters["weight"].data, before["weight"].data)
        with pytest.raises(RuntimeError, match="ASGD: a step within averaged"):
            optimizer.step()
    assert_same_bits(parameters, before)


def test_averaged_gives_the_parameters_back_when_the_evaluation_fails():
    parameters, steps = make(np.float32)
    optimizer = ASGD(parameters.items(), 0.05)
    optimizer.start_averaging()
    run(optimizer, parameters, steps)
    before = {name: Parameter(p.data) for name, p in parameters.items()}
    with pytest.raises(ZeroDivisionError), optimizer.averaged():
        raise ZeroDivisionError
    assert_same_bits(parameters, before)
    run(optimizer, parameters, steps[:1])


def test_averaged_leaves_the_parameters_of_other_optimizers_alone():
    parameters, _ = make(np.float32)
    optimizer = Adam(parameters.items())
    with optimizer.averaged():
        optimizer.step()


# Saving and restoring ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "formula", "options"), CASES, ids=IDS)
def test_a_restored_optimizer_continues_bit_for_bit(kind, formula, options):
    parameters, steps = make(np.float32)
    optimizer = kind(parameters.items(), 0.05, **options)
    run(optimizer, parameters, steps[:3])
    optimizer.learning_rate = 0.01
    if kind is ASGD:
        optimizer.start_averaging()
    run(optimizer, parameters, steps[3:6])
    state = optimizer.state_dict()
    copies = {name: Parameter(p.data) for name, p in parameters.items()}
    run(optimizer, parameters, steps[6:])  # must not change what was saved

    arrays = state.pop("arrays")
    state = {**json.loads(json.dumps(state)), "arrays": arrays}
    restored = kind(copies.items(), 1.0)  # learning rate and options come from the state
    restored.load_state_dict(state)
    saved = {name: array.copy() for name, array in arrays.items()}
    run(restored, copies, steps[6:])
    assert restored.learning_rate == 0.01
    assert_same_bits(parameters, copies)
    with optimizer.averaged(), restored.averaged():
        assert_same_bits(parameters, copies)
    for name, array in saved.items():
        assert np.array_equal(arrays[name], array), "the given state was changed"


def test_the_state_says_what_it_is():
    weight = Parameter([1.0])
    optimizer = SGD([("weight", weight)], 1.0, momentum=0.5)
    weight.grad = np.ones(1, np.float32)
    optimizer.step()
    assert optimizer.state_dict() == {
        "optimizer": "SGD",
        "learning_rate": 1.0,
        "options": {"momentum": 0.5, "nesterov": False, "weight_decay": 0.0},
        "steps": {"weight": 1},
        "arrays": {"weight.velocity": np.ones(1)},
    }


def changed(state, **changes):
    return {**state, **changes}


def test_a_state_that_does_not_belong_is_refused_and_nothing_changes():
    weight = Parameter(np.ones((2, 3)))
    optimizer = SGD([("weight", weight)], 1.0, momentum=0.5)
    state = optimizer.state_dict()
    array = state["arrays"]["weight.velocity"]
    no_rate = {key: value for key, value in state.items() if key != "learning_rate"}
    refused = {
        "SGD: the state is from 'Adam'; load it into the optimizer": Adam([weight]).state_dict(),
        "SGD: the state has no 'learning_rate'": no_rate,
        "SGD: the state has no parameter 'weight'": changed(state, steps={}),
        "SGD: the state has the parameter 'b', which": changed(state, steps={"weight": 0, "b": 0}),
        "SGD: the state has no array 'weight.velocity'": changed(state, arrays={}),
        "SGD: the state has the array 'b.velocity', which": changed(
            state, arrays={"weight.velocity": array, "b.velocity": array}
        ),
        r"SGD: 'weight.velocity' in the state is float64\(3, 2\), but parameter 'weight' is "
        r"float64\(2, 3\); load it together with the model": changed(
            state, arrays={"weight.velocity": array.T}
        ),
        r"SGD: 'weight.velocity' in the state is float32\(2, 3\), but": changed(
            state, arrays={"weight.velocity": array.astype(np.float32)}
        ),
        "SGD: the state has no option 'momentum'": changed(state, options={}),
    }
    for message, wrong in refused.items():
        wrong = changed(wrong, learning_rate=7.0) if "learning_rate" in wrong else wrong
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(wrong)
        assert optimizer.learning_rate == 1.0
        assert optimizer.state_dict()["steps"] == {"weight": 0}


# Messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "fast", None])
def test_a_bad_learning_rate_is_reported(kind, value):
    name = kind.__name__
    with pytest.raises(
        ValueError, match=f"{name}: learning_rate must be a finite number >= 0, not "
    ):
        kind([Parameter([1.0])], value)
    optimizer = kind([Parameter([1.0])], 0.1)
    with pytest.raises(
        ValueError, match=f"{name}: learning_rate must be a finite number >= 0, not "
    ):
        optimizer.learning_rate = value
    assert optimizer.learning_rate == 0.1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"momentum": 1.0}, "SGD: momentum must be a number >= 0 and < 1, not 1.0"),
        (SGD, {"momentum": -0.1}, "SGD: momentum must be a number >= 0 and < 1, not -0.1"),
        (SGD, {"momentum": math.nan}, "SGD: momentum must be a number >= 0 and < 1, not nan"),
        (SGD, {"nesterov": True}, "SGD: nesterov=True looks ahead along the momentum; give one"),
        (SGD, {"weight_decay": -1}, "SGD: weight_decay must be a finite number >= 0, not -1"),
        (Adam, {"betas": (0.9, 1.0)}, "Adam: each of betas must be a number >= 0 and < 1, not 1.0"),
        (AdamW, {"betas": 0.9}, "AdamW: betas are two numbers, not 0.9"),
        (Adam, {"epsilon": 0}, "Adam: epsilon must be a number > 0, not 0"),
        (
            AdamW,
            {"weight_decay": math.nan},
            "AdamW: weight_decay must be a finite number >= 0, not nan",
        ),
        (RMSprop, {"alpha": 1}, "RMSprop: alpha must be a number >= 0 and < 1, not 1"),
        (RMSprop, {"momentum": 2}, "RMSprop: momentum must be a number >= 0 and < 1, not 2"),
        (Adagrad, {"epsilon": -1e-10}, "Adagrad: epsilon must be a number > 0, not -1e-10"),
        (ASGD, {"weight_decay": -1}, "ASGD: weight_decay must be a finite number >= 0, not -1"),
    ],
)
def test_a_bad_option_is_reported(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind([Parameter([1.0])], 0.1, **options)


def test_bad_parameters_are_reported():
    a, b = Parameter([1.0]), Parameter([2.0])
    with pytest.raises(ValueError, match=r"SGD: there are no parameters; if you gave a generator"):
        SGD([], 1.0)
    with pytest.raises(ValueError, match=r"SGD: parameter '2' is the same as '0'; give it once"):
        SGD([a, b, a], 1.0)
    with pytest.raises(ValueError, match=r"SGD: parameter 'out' is the same as 'in'; give it once"):
        SGD([("in", a), ("out", a)], 1.0)
    with pytest.raises(ValueError, match=r"SGD: two parameters are named 'w'; rename one"):
        SGD([("w", a), ("w", b)], 1.0)
    with pytest.raises(
        TypeError, match=r"SGD: expects a list of parameters, not Parameter; give it"
    ):
        SGD(a, 1.0)
    with pytest.raises(TypeError, match=r"SGD: expects a list of parameters, not object; give it"):
        SGD(object(), 1.0)
    with pytest.raises(TypeError, match=r"SGD: '0' of the parameters is of type str; give Param"):
        SGD({"weight": a}, 1.0)
    with pytest.raises(TypeError, match=r"SGD: 'w' of the parameters is of type ndarray; give"):
        SGD([("w", a.data)], 1.0)


def test_a_gradient_that_does_not_fit_is_reported_before_anything_moves():
    first, weight = Parameter([1.0]), Parameter(np.ones((2, 3), np.float32))
    optimizer = SGD([("first", first), ("weight", weight)], 1.0)
    first.grad = np.ones(1, np.float32)
    for wrong in (
        np.ones((3, 2), np.float32),
        np.ones((2, 3)),
        RowGradient(np.array([1]), np.ones((1, 3), np.float32), (4, 3)),
    ):
        weight.grad = wrong
        with pytest.raises(ValueError, match=r"SGD: the gradient of parameter 'weight' is float"):
            optimizer.step()
    assert first.data[0] == 1


def test_repr_shows_the_settings():
    assert repr(ASGD([Parameter([1.0])], 30)) == (
        "ASGD(parameters=1, learning_rate=30.0, weight_decay=0.0)"
    )


# L-BFGS


def test_lbfgs_goes_on_bit_for_bit_from_its_state_and_tells_what_is_wrong():
    def made():
        rng = np.random.default_rng(3)
        ours = {"a": Parameter(rng.normal(size=(2, 3)).astype("f")), "b": Parameter([0.5])}
        return ours, LBFGS(ours.items(), 0.5, max_iterations=3, history_size=2)

    def run(parameters, optimizer, steps):
        def closure():
            optimizer.zero_grad()
            loss = (parameters["a"] ** 4).sum() + ((parameters["b"] - 2) ** 2).sum()
            loss.backward()
            return loss

        return [optimizer.step(closure).item() for _ in range(steps)]

    parameters, optimizer = made()
    assert list(optimizer.state_dict()["arrays"]) == []
    losses = run(parameters, optimizer, 2)
    assert losses[1] < losses[0]
    state = optimizer.state_dict()
    assert state["arrays"]["history"].shape == (2, 2, 7)
    copies = {name: Parameter(p.data) for name, p in parameters.items()}
    expected = run(parameters, optimizer, 2)
    restored = LBFGS(copies.items(), 3.0, max_iterations=3, history_size=2)
    restored.load_state_dict(state)
    assert run(copies, restored, 2) == expected
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(copies[name].data, parameter.data)

    with pytest.raises(ValueError, match=r"^LBFGS: line_search_fn 'wolfe' is neither 'strong_wolf"):
        LBFGS([Parameter([1.0])], line_search_fn="wolfe")
    with pytest.raises(TypeError, match=r"^LBFGS: step\(\) evaluates the loss several times; give"):
        optimizer.step()
    with pytest.raises(ValueError, match=r"^LBFGS: it moves all parameters as one vector; give no"):
        LBFGS([{"params": [Parameter([1.0])], "lr": 0.5}, {"params": [Parameter([1.0])]}], 0.1)
    with pytest.raises(ValueError, match=r"^LBFGS: its iterations are not averaged"):
        optimizer.start_averaging()
    with pytest.raises(ValueError, match=r"^LBFGS: the state is of other parameters"):
        LBFGS([("a", Parameter([1.0])), ("b", Parameter([1.0]))], 0.1).load_state_dict(state)


@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e3])
def test_a_line_search_meets_the_strong_wolfe_conditions(rate):
    weight = Parameter([-1.5, 2.0], dtype=np.float64)
    optimizer = LBFGS([weight], rate, max_iterations=1, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        x, y = weight
        loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
        loss.backward()
        return loss

    moves = 0
    for _ in range(400):
        before, loss = weight.data.copy(), closure().item()
        gradient = weight.grad.copy()
        optimizer.step(closure)
        move = weight.data - before
        if np.abs(gradient).max() < 1e-6:
            break
        after = closure().item()
        assert after <= loss + 1e-4 * (gradient @ move)
        assert abs(weight.grad @ move) <= 0.9 * abs(gradient @ move) + 1e-12
        moves += 1
    assert moves > 10
    np.testing.assert_allclose(weight.data, [1.0, 1.0], atol=1e-4)


def test_a_line_search_turns_back_from_nan_and_loses_nothing_to_an_error():
    weight = Parameter([2.0], dtype=np.float64)
    optimizer = LBFGS([weight], 100.0, max_iterations=5, line_search_fn="strong_wolfe")
    seen = []

    def closure():
        optimizer.zero_grad()
        loss = (weight - ops.log(weight)).sum() if weight.data[0] > 0 else (weight * np.nan).sum()
        loss.backward()
        seen.append(weight.data[0])
        return loss

    optimizer.step(closure)
    assert min(seen) < 0  # the first length went where the loss is NaN
    np.testing.assert_allclose(weight.data, [1.0], atol=1e-3)

    with weight.writing() as array:
        array[...] = 3
    before = weight.data.copy()

    def fails():
        if not np.array_equal(weight.data, before):
            raise ConnectionError
        return closure()

    with pytest.raises(ConnectionError):
        LBFGS([weight], line_search_fn="strong_wolfe").step(fails)
    np.testing.assert_array_equal(weight.data, before)
