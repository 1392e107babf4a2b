"""How parameters start: bounds, orthogonality gate by gate, forget biases, seeds."""

import itertools
import math
import re

import numpy as np
import pytest

from anaphora import nn, random
from anaphora.cells import CELLS, cell
from anaphora.equations import sigmoid, tanh
from anaphora.nn import initialization as initialize

H, I, L = 12, 5, 2


@pytest.fixture(autouse=True)
def _seed():
    random.seed(11)


def layer(name="lstm", **options):
    return nn.Recurrent(name, I, H, L, bidirectional=True, dtype=np.float64, **options)


def fills(array, bound):
    """Whether numbers lie within (-bound, bound) and come near to its ends on both sides."""
    return np.abs(array).max() <= bound and array.max() > 0.8 * bound and array.min() < -0.8 * bound


@pytest.mark.parametrize("name", CELLS)
def test_pytorchs_bound_is_one_over_the_root_of_the_hidden_size_for_all(name):
    made = layer(name)
    for parameter in made.parameters():
        assert np.abs(parameter.data).max() <= 1 / math.sqrt(H)
        assert len(np.unique(parameter.data)) == parameter.size
    assert fills(made.weight_ih_l0.data, 1 / math.sqrt(H))


@pytest.mark.parametrize("name", CELLS)
def test_a_number_is_the_bound_of_all(name):
    made = layer(name, initialization=0.3)
    everything = np.concatenate([parameter.data.ravel() for parameter in made.parameters()])
    assert fills(everything, 0.3)
    assert abs(everything.std() - 0.3 / math.sqrt(3)) < 0.02


@pytest.mark.parametrize("name", [name for name, c in CELLS.items() if c.recurrent_gates])
@pytest.mark.parametrize("suffix", ["_l0", "_l0_reverse", "_l1", "_l1_reverse"])
def test_orthogonal_recurrent_matrices_gate_by_gate(name, suffix):
    made = layer(name, initialization="orthogonal")
    weight = getattr(made, "weight_hh" + suffix).data
    blocks = np.split(weight, len(CELLS[name].recurrent_gates))
    for W in blocks:
        np.testing.assert_allclose(W @ W.T, np.eye(H), atol=1e-12)
    for one, other in itertools.pairwise(blocks):
        assert not np.allclose(one, other)


def test_orthogonal_matrices_that_are_not_square_have_orthonormal_rows_or_columns():
    projected = layer(proj_size=7, initialization="orthogonal")
    for W in np.split(projected.weight_hh_l0.data, 4):  # [H, P]
        np.testing.assert_allclose(W.T @ W, np.eye(7), atol=1e-12)
    wide = nn.Linear(9, 4, initialization="orthogonal", dtype=np.float64).weight.data
    np.testing.assert_allclose(wide @ wide.T, np.eye(4), atol=1e-12)


def test_orthogonal_draws_have_no_preferred_sign():
    signs = [np.sign(initialize._orthonormal(1, 1)[0, 0]) for _ in range(200)]
    assert 60 < signs.count(1.0) < 140


@pytest.mark.parametrize("initialization", ["xavier", "orthogonal"])
@pytest.mark.parametrize("name", CELLS)
def test_xavier_bounds_are_those_of_each_gates_matrix(name, initialization):
    made = layer(name, initialization=initialization)
    for key, bound in {
        "weight_ih_l0": math.sqrt(6 / (I + H)),
        "weight_ih_l1_reverse": math.sqrt(6 / (2 * H + H)),
    }.items():
        for W in np.split(getattr(made, key).data, len(CELLS[name].input_gates)):
            assert fills(W, bound)
    for key, parameter in made.named_parameters():
        if parameter.ndim == 1:
            np.testing.assert_array_equal(parameter.data, 0, err_msg=key)


def test_xavier_reaches_recurrent_and_projection_matrices():
    made = layer(proj_size=7, initialization="xavier")
    for W in np.split(made.weight_hh_l1.data, 4):
        assert fills(W, math.sqrt(6 / (H + 7)))
    assert fills(made.weight_hr_l1.data, math.sqrt(6 / (H + 7)))


@pytest.mark.parametrize("initialization", ["pytorch", "xavier", "orthogonal", 0.1])
@pytest.mark.parametrize("name", [name for name, c in CELLS.items() if "f" in c.gates])
def test_the_biases_of_the_forget_gate_add_up_to_what_was_asked(name, initialization):
    made = layer(name, initialization=initialization, forget_bias=1.5)
    place = CELLS[name].gates.index("f") * H
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = (
            getattr(made, "bias_ih" + suffix).data[place : place + H]
            + getattr(made, "bias_hh" + suffix).data[place : place + H]
        )
        np.testing.assert_array_equal(total, 1.5)
        others = np.delete(getattr(made, "bias_ih" + suffix).data, np.arange(place, place + H))
        assert not (others == 1.5).any()


def test_a_forget_gate_of_one_half_has_its_bias_there():
    @cell(gates="n f", state="h")
    def halves(n, f, h):
        h = sigmoid(f.h) * h + tanh(n.x)
        return h

    made = layer(halves, forget_bias=2.0, initialization="xavier")
    np.testing.assert_array_equal(made.bias_ih_l0.data, np.zeros(H))
    np.testing.assert_array_equal(made.bias_hh_l0.data, np.full(H, 2.0))


def test_reset_parameters_keeps_the_forget_bias():
    made = layer(forget_bias=1.0)
    before = made.weight_hh_l0.data.copy()
    made.reset_parameters()
    assert not np.array_equal(made.weight_hh_l0.data, before)
    np.testing.assert_array_equal(made.bias_ih_l1.data[H : 2 * H], 1)


@pytest.mark.parametrize("initialization", ["pytorch", "xavier", "orthogonal", 0.1])
@pytest.mark.parametrize(
    "make",
    [
        lambda i: nn.LSTM(I, H, proj_size=3, initialization=i),
        lambda i: nn.Linear(I, H, initialization=i),
        lambda i: nn.Embedding(I, H, initialization=i),
    ],
)
def test_the_same_seed_gives_the_same_weights(make, initialization):
    random.seed(5)
    first, second = make(initialization).state_dict(), make(initialization).state_dict()
    random.seed(5)
    again = make(initialization).state_dict()
    for name in first:
        np.testing.assert_array_equal(again[name], first[name])
    assert not np.array_equal(*(next(iter(state.values())) for state in (first, second)))


def test_linear_schemes():
    W = nn.Linear(40, 30, dtype=np.float64)
    assert fills(W.weight.data, 1 / math.sqrt(40))
    assert np.abs(W.bias.data).max() <= 1 / math.sqrt(40)
    assert W.bias.data.any()
    W = nn.Linear(40, 30, initialization="xavier", dtype=np.float64)
    assert fills(W.weight.data, math.sqrt(6 / 70))
    np.testing.assert_array_equal(W.bias.data, 0)
    W = nn.Linear(40, 30, initialization=0.1, dtype=np.float64)
    assert fills(W.weight.data, 0.1)
    assert fills(W.bias.data, 0.1)


def test_embedding_schemes():
    table = nn.Embedding(100, 50).weight.data
    assert abs(table.mean()) < 0.07  # five standard deviations of the mean of 5,000 draws
    assert abs(table.std() - 1) < 0.05
    assert fills(nn.Embedding(100, 50, initialization=0.1, dtype=np.float64).weight.data, 0.1)


@pytest.mark.parametrize("value", [0, -0.1, math.inf, math.nan, None, "uniform"])
def test_bad_initialisations_are_reported(value):
    with pytest.raises(ValueError, match=re.escape(f"initialization {value!r}")):
        nn.LSTM(I, H, initialization=value)


@pytest.mark.parametrize("make", [nn.Linear, nn.LSTM, nn.GRU])
def test_bfloat16_is_no_dtype(make):
    with pytest.raises(
        ValueError, match=r"^dtype 'bfloat16': parameters are float32 or float64; for"
    ):
        make(3, 4, dtype="bfloat16")


# PyTorch's functions

MATRIX, FILTERS = (40, 30), (20, 10, 3)


@pytest.mark.parametrize("shape", [MATRIX, FILTERS], ids=str)
@pytest.mark.parametrize(
    ("fill", "deviation"),
    [
        (lambda p: nn.init.xavier_uniform_(p, 1.5), lambda i, o: 1.5 * math.sqrt(2 / (i + o))),
        (lambda p: nn.init.xavier_normal_(p, 1.5), lambda i, o: 1.5 * math.sqrt(2 / (i + o))),
        (nn.init.kaiming_uniform_, lambda i, _: math.sqrt(2 / i)),
        (
            lambda p: nn.init.kaiming_uniform_(p, 2.0, "fan_out"),
            lambda _, o: math.sqrt(2 / (1 + 4) / o),
        ),
        (
            lambda p: nn.init.kaiming_normal_(p, mode="fan_out", nonlinearity="tanh"),
            lambda _, o: 5 / 3 / math.sqrt(o),
        ),
        (lambda p: nn.init.normal_(p, 0.0, 0.3), lambda *_: 0.3),
        (lambda p: nn.init.uniform_(p, -0.3, 0.3), lambda *_: 0.3 / math.sqrt(3)),
    ],
)
def test_a_parameter_is_filled_with_samples(fill, deviation, shape):
    parameter = nn.Parameter(np.ones(shape))
    assert fill(parameter) is parameter
    inputs, outputs = (shape[k] * math.prod(shape[2:]) for k in (1, 0))
    expected = deviation(inputs, outputs)
    assert parameter.data.std() == pytest.approx(expected, rel=0.1)
    assert abs(parameter.data.mean()) < 0.15 * expected
    assert len(np.unique(parameter.data)) == parameter.size
    largest = np.abs(parameter.data).max() / expected
    assert largest > 2 or 1.65 < largest <= math.sqrt(3)  # normal, or uniform


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 2, 3)], ids=str)
def test_orthonormal_rows_or_columns_times_a_factor(shape):
    parameter = nn.init.orthogonal_(nn.Parameter(np.ones(shape)), gain=2.0)
    W = parameter.data.reshape(shape[0], -1)
    W = W if shape[0] <= W.shape[1] else W.T
    np.testing.assert_allclose(W @ W.T, 4 * np.eye(len(W)), atol=1e-12)


def test_numbers_and_vectors():
    bias = nn.Parameter([1.0, 2.0])
    assert nn.init.zeros_(bias).data.tolist() == [0, 0]
    assert nn.init.ones_(bias).data.tolist() == [1, 1]
    assert nn.init.constant_(bias, 0.5).data.tolist() == [0.5, 0.5]
    for call, message in (
        (lambda: nn.init.xavier_normal_(bias), r"^a Tensor of shape \(2,\) has no inputs and outp"),
        (lambda: nn.init.orthogonal_(bias), r"^a Tensor of shape \(2,\) has no inputs and outputs"),
        (lambda: nn.init.calculate_gain("none"), r"^nonlinearity 'none' is not one of linear, co"),
        (lambda: nn.init.kaiming_normal_(nn.Parameter([[1.0]]), mode="in"), r"^mode 'in' is not"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_gains_are_pytorchs():
    torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
    for name in ("linear", "conv1d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    gain = torch.nn.init.calculate_gain("leaky_relu", 0.3)
    assert nn.init.calculate_gain("leaky_relu", 0.3) == gain
