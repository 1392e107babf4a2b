"""The layers without a loop over time: values, gradients, messages."""

import re

import numpy as np
import pytest

from anaphora import nn, random
from anaphora.tensor import RowGradient, Tensor

DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-12, "atol": 1e-12}}


@pytest.fixture
def numbers():
    random.seed(7)
    return np.random.default_rng(7)


# Linear


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("leading", [(), (4,), (5, 4)])
def test_linear_is_x_times_the_transposed_weight_plus_the_bias(numbers, dtype, leading):
    layer = nn.Linear(3, 2, dtype=dtype)
    x = Tensor(numbers.normal(size=(*leading, 3)).astype(dtype), requires_grad=True)
    dy = numbers.normal(size=(*leading, 2)).astype(dtype)
    y = layer(x)
    y.backward(dy)
    weight, bias = layer.weight.data, layer.bias.data
    assert weight.shape == (2, 3)
    assert y.dtype == dtype
    expected = np.einsum("...i,oi->...o", x.data, weight) + bias
    rows, d_rows = x.data.reshape(-1, 3), dy.reshape(-1, 2)
    np.testing.assert_allclose(y.data, expected, **TOLERANCE[dtype])
    np.testing.assert_allclose(x.grad, (d_rows @ weight).reshape(x.shape), **TOLERANCE[dtype])
    np.testing.assert_allclose(layer.weight.grad, d_rows.T @ rows, **TOLERANCE[dtype])
    np.testing.assert_allclose(layer.bias.grad, d_rows.sum(axis=0), **TOLERANCE[dtype])


def test_linear_without_a_bias(numbers):
    layer = nn.Linear(3, 2, bias=False)
    x = numbers.normal(size=(4, 3)).astype(np.float32)
    assert list(layer.state_dict()) == ["weight"]
    np.testing.assert_allclose(layer(x).data, x @ layer.weight.data.T, rtol=1e-6)


def test_linear_tells_what_does_not_fit():
    layer = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=re.escape("shape (4, 5) for a weight of shape (2, 3)")):
        layer(np.ones((4, 5), np.float32))
    with pytest.raises(TypeError, match=r"float64 and float32 do not mix"):
        layer(Tensor(np.ones((4, 3))))


# Conv1d

CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": (0, 3), "dilation": 2},
    {"padding": "same", "groups": 3, "bias": False},
    {"padding": "causal", "stride": 3},
    {"padding": 4, "stride": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_conv1d_of_ragged_batches_gives_each_sequence_what_it_has_alone(numbers, options):
    layer = nn.Conv1d(6, 9, 4, **options, dtype=np.float64)
    first = nn.Conv1d(6, 9, 4, **options, batch_first=True, dtype=np.float64)
    first.load_state_dict(layer.state_dict())
    lengths = np.array([11, 0, 7, 4, 1, 12])
    x = numbers.normal(size=(12, 6, 6))
    y = layer(x, lengths=lengths)
    found = layer.output_lengths(lengths)
    assert y.dtype == np.float64
    assert len(y) == layer.output_lengths([12])[0] == found[-1]
    assert found[1] == 0
    for row, (steps, given) in enumerate(zip(found, lengths, strict=True)):
        if steps:
            alone = layer(x[:given, row])
            assert alone.shape == (steps, 9)
            np.testing.assert_array_equal(y.data[:steps, row], alone.data)
        elif given:
            with pytest.raises(ValueError, match="shorter than the filter"):
                layer(x[:given, row])
        assert not y.data[steps:, row].any()
    other = first(x.swapaxes(0, 1), lengths=lengths)
    np.testing.assert_array_equal(other.data.swapaxes(0, 1), y.data)
    np.testing.assert_array_equal(first(x[:, 0]).data, layer(x[:, 0]).data)


def test_what_lies_beyond_a_length_has_no_gradient(numbers):
    layer = nn.Conv1d(3, 2, 3, padding=2, dtype=np.float64)
    x = Tensor(numbers.normal(size=(5, 2, 3)), requires_grad=True)
    layer(x, lengths=[5, 2]).backward(numbers.normal(size=(7, 2, 2)))
    assert x.grad[:, 0].all()
    assert x.grad[:2, 1].all()
    assert not x.grad[2:, 1].any()


def test_conv1d_is_initialized_as_asked():
    random.seed(3)
    layer = nn.Conv1d(6, 40, 5, groups=2)
    bound = 1 / np.sqrt(15)
    for parameter in layer.parameters():
        assert 0.8 * bound < np.abs(parameter.data).max() <= bound
    layer = nn.Conv1d(6, 40, 5, groups=2, initialization="xavier")
    assert 0.9 * np.sqrt(6 / 215) < np.abs(layer.weight.data).max() <= np.sqrt(6 / 215)
    assert not layer.bias.data.any()
    rows = nn.Conv1d(3, 8, 5, initialization="orthogonal").weight.data.reshape(8, 15)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-6)
    layer.reset_parameters(0.5)
    assert 0.45 < np.abs(layer.weight.data).max() <= 0.5
    assert layer.bias.data.all()


def test_conv1d_tells_what_does_not_fit():
    with pytest.raises(ValueError, match="in_channels=3 and out_channels=4 must be multiples of g"):
        nn.Conv1d(3, 4, 2, groups=2)
    with pytest.raises(ValueError, match="Conv1d: kernel_size must be an integer of at least 1"):
        nn.Conv1d(3, 4, 0)
    with pytest.raises(ValueError, match="padding 'reflect' is not a number of zeros"):
        nn.Conv1d(3, 4, 2, padding="reflect")
    layer = nn.Conv1d(3, 4, 2, batch_first=True)
    with pytest.raises(
        ValueError, match=r"^Conv1d: .* \(5, 3, 9\); expected \[B, T, I\] or \[T, I"
    ):
        layer(np.ones((5, 3, 9)))
    with pytest.raises(ValueError, match="lengths from 4 to 10, but the sequences have 9 steps"):
        layer(np.ones((2, 9, 3)), lengths=[4, 10])
    with pytest.raises(TypeError, match="there is no argument 'mask': write lengths="):
        layer(np.ones((2, 9, 3)), mask=[4, 10])


def test_conv1d_shows_its_options():
    layer = nn.Conv1d(6, 9, 4, padding="causal", groups=3, bias=False, batch_first=True)
    expected = "6, 9, kernel_size=4, padding='causal', groups=3, bias=False, batch_first=True"
    assert repr(layer) == f"Conv1d({expected}) (72 parameters)"


def test_conv1d_in_8_bits_is_near(numbers):
    layer = nn.Conv1d(6, 9, 4, groups=3)
    x = numbers.normal(size=(12, 5, 6)).astype(np.float32)
    expected = layer(x).data
    found = layer.use_int8()(x).data
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


LAYERS = {
    "linear": lambda dtype: (nn.Linear(3, 2, dtype=dtype), (5, 4, 3)),
    "conv1d": lambda dtype: (nn.Conv1d(3, 2, 2, dtype=dtype), (5, 4, 3)),
    "layer_norm": lambda dtype: (nn.LayerNorm(3, dtype=dtype), (5, 4, 3)),
    "lstm": lambda dtype: (nn.LSTM(3, 2, bidirectional=True, dtype=dtype), (5, 4, 3)),
    "gru": lambda dtype: (nn.GRU(3, 2, batch_first=True, dtype=dtype), (4, 5, 3)),
    "rnn": lambda dtype: (nn.RNN(3, 2, dtype=dtype), (5, 3)),
    "attention": lambda dtype: (nn.AdditiveAttention(3, 3, dtype=dtype), (5, 4, 3)),
    "sequential": lambda dtype: (
        nn.Sequential(nn.Dropout(0.0), nn.Linear(3, 2, dtype=dtype)),
        (5, 4, 3),
    ),
}


def called(layer, x):
    result = layer(x, x) if isinstance(layer, nn.Attention) else layer(x)
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_arrays_and_lists_are_converted_to_the_layers_dtype(numbers, name, dtype):
    layer, shape = LAYERS[name](dtype)
    integral = numbers.integers(-3, 4, shape)
    expected = called(layer, Tensor(integral, dtype=dtype))
    assert expected.dtype == dtype
    of_booleans = called(layer, Tensor(integral > 0, dtype=dtype))
    np.testing.assert_array_equal(called(layer, integral > 0).data, of_booleans.data)
    for kind in ("f2", "f4", "f8", "i1", "i4", "i8"):
        found = called(layer, integral.astype(kind))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found.data, expected.data)
    swapped = np.dtype(dtype).newbyteorder()
    np.testing.assert_array_equal(called(layer, integral.astype(swapped)).data, expected.data)
    for nested in (integral.tolist(), integral.astype(float).tolist(), tuple(integral.tolist())):
        np.testing.assert_array_equal(called(layer, nested).data, expected.data)
    for bad in (np.ones(shape, complex), np.full(shape, "a"), np.full(shape, None)):
        with pytest.raises(TypeError, match=r": cannot hold .*; give numbers of one dtype"):
            called(layer, bad)
    if name != "sequential":
        other = np.float64 if dtype == np.float32 else np.float32
        with pytest.raises(TypeError, match=r"float(64|32) .*\.astype\(\)"):
            called(layer, Tensor(integral, dtype=other))
    if dtype == np.float32:
        large = np.where(integral == integral.flat[0], 1e300, integral)
        with pytest.raises(ValueError, match=r": 1e\+300 is too large for float32; scale the numb"):
            called(layer, large)
        infinite = np.where(integral == integral.flat[0], np.inf, integral)
        with np.errstate(invalid="ignore"):
            called(layer, infinite)  # was given, and is not of our making


def test_dropout_leaves_arrays_to_the_layer_after_it():
    for mode in (True, False):
        layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2, dtype=np.float64)).train(mode)
        assert layers(np.ones((4, 3))).dtype == np.float64
        assert layers(np.ones((4, 3), int)).dtype == np.float64
        assert layers([[1.0, 2.0, 3.0]]).shape == (1, 2)
    given = nn.Dropout(0.5)(np.ones((200, 3)))
    assert set(np.unique(given)) == {0.0, 2.0}


def test_empty_ids_are_ids():
    assert nn.Embedding(7, 3)([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 2), "Linear: in_features must be an integer of at least 1"),
        (lambda: nn.Linear(3, -2), "out_features must be an integer of at least 1, not -2"),
        (lambda: nn.Linear(3, 2.5), "out_features must be an integer of at least 1, not 2.5"),
        (lambda: nn.Embedding(0, 2), "Embedding: num_embeddings must be"),
        (lambda: nn.Embedding(5, 0), "Embedding: embedding_dim must be"),
        (lambda: nn.LayerNorm(0), "LayerNorm: normalized_shape must be"),
        (lambda: nn.Linear(3, 2, initialization="best"), "'best' is not one of pytorch, xavier"),
        (lambda: nn.Embedding(3, 2, initialization=1e308), "1e+308: uniform(-a, a) needs a positi"),
        (
            lambda: nn.LSTM(3, 2, forget_bias=1e308),
            "forget_bias must be a finite number of float32",
        ),
        (lambda: nn.Embedding(3, 2, initialization=-1.0), "-1.0: uniform(-a, a) needs a positive"),
        (lambda: nn.Dropout(1.0), "Dropout: p must be >= 0 and < 1, not 1.0"),
        (lambda: nn.Dropout(-0.1), "Dropout: p must be >= 0"),
        (lambda: nn.Dropout(float("nan")), "Dropout: p must be >= 0"),
    ],
)
def test_bad_options_are_reported(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


# Embedding


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("id_type", [np.uint8, np.int32, np.int64])
def test_embedding_looks_rows_up(numbers, dtype, id_type):
    table = nn.Embedding(7, 3, dtype=dtype)
    ids = numbers.integers(0, 7, size=(5, 4)).astype(id_type)
    y = table(ids)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.data, table.weight.data[ids])
    np.testing.assert_array_equal(table(ids.tolist()).data, y.data)


def test_the_gradient_of_an_embedding_is_rows_with_repeated_ones_summed(numbers):
    table = nn.Embedding(7, 3, dtype=np.float64)
    ids = np.array([[5, 2, 5], [0, 5, 2]])
    dy = numbers.normal(size=(2, 3, 3))
    table(ids).backward(dy)
    gradient = table.weight.grad
    assert isinstance(gradient, RowGradient)
    np.testing.assert_array_equal(gradient.indices, [0, 2, 5])
    expected = [dy[1, 0], dy[0, 1] + dy[1, 2], dy[0, 0] + dy[0, 2] + dy[1, 1]]
    np.testing.assert_allclose(gradient.values, expected, rtol=1e-14)
    dense = np.zeros((7, 3))
    dense[[0, 2, 5]] = expected
    np.testing.assert_allclose(gradient.dense(), dense, rtol=1e-14)


def test_gradients_of_tied_embeddings_add_up(numbers):
    """The table is read by rows at the bottom and multiplied as a whole at the top."""
    table, output = nn.Embedding(5, 3, dtype=np.float64), nn.Linear(3, 5, False, dtype=np.float64)
    output.weight = table.weight
    ids, dy = np.array([4, 1, 4]), numbers.normal(size=(3, 5))
    output(table(ids)).backward(dy)
    weight = table.weight.data
    expected = dy.T @ weight[ids]
    np.add.at(expected, ids, dy @ weight)
    np.testing.assert_allclose(table.weight.grad, expected, rtol=1e-12)


def test_embedding_tells_bad_ids():
    table = nn.Embedding(7, 3)
    with pytest.raises(IndexError, match=r"ids from 2 to 7 for a table of 7 rows"):
        table([2, 7])
    with pytest.raises(IndexError, match=r"ids from -1 to 2"):
        table([2, -1])
    with pytest.raises(TypeError, match=r"ids are integers, not float64"):
        table([0.5])


# Dropout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_drops_the_share_p_and_keeps_the_expectation(numbers, p, dtype):
    x = Tensor(np.ones((200, 300), dtype), requires_grad=True)
    y = nn.Dropout(p)(x)
    y.sum().backward()
    assert y.dtype == dtype
    kept = y.data != 0
    # 60,000 draws: five standard deviations of the share are 5 * sqrt(p (1 - p) / 60000) <= 0.011.
    assert abs((1 - kept.mean()) - p) < 0.011
    np.testing.assert_allclose(y.data[kept], 1 / (1 - p), rtol=1e-6)
    np.testing.assert_array_equal(x.grad, y.data)


def test_dropout_draws_anew_and_the_seed_repeats_it():
    x = Tensor(np.ones((20, 30), np.float32))
    dropout = nn.Dropout(0.5)
    random.seed(3)
    first, second = dropout(x).data, dropout(x).data
    random.seed(3)
    np.testing.assert_array_equal(dropout(x).data, first)
    assert not np.array_equal(first, second)


def test_a_locked_mask_is_the_same_at_every_step_and_differs_elsewhere(numbers):
    x = numbers.uniform(1, 2, size=(6, 20, 30))
    y = nn.Dropout(0.5, locked=True)(Tensor(x)).data
    kept = y != 0
    assert (kept == kept[0]).all()
    np.testing.assert_allclose(y, x * kept[0] * 2, rtol=1e-12)
    assert not (kept[0] == kept[0, 0]).all()
    assert not (kept[0] == kept[0, :, :1]).all()


@pytest.mark.parametrize("locked", [False, True])
def test_dropout_does_nothing_in_evaluation_or_at_rate_0(locked):
    x = Tensor(np.ones((6, 4, 5)))
    assert nn.Dropout(0.5, locked).eval()(x) is x
    assert nn.Dropout(0.0, locked)(x) is x


# LayerNorm


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_is_its_formula(numbers, dtype, bias):
    layer = nn.LayerNorm(7, epsilon=0.1, bias=bias, dtype=dtype)
    np.testing.assert_array_equal(layer.weight.data, np.ones(7))
    for parameter in layer.parameters():
        with parameter.writing() as array:
            array[...] = numbers.normal(size=7)
    x = (3 + 2 * numbers.normal(size=(5, 4, 7))).astype(dtype)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 0.1) * layer.weight.data
    expected = expected + layer.bias.data if bias else expected
    y = layer(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y.data, expected, **TOLERANCE[dtype])


@pytest.mark.parametrize(("H", "shape"), [(7, (4, 1)), (1, (4, 7)), (7, ())])
def test_layer_norm_tells_a_wrong_size(H, shape):
    message = f"LayerNorm: an input of shape {shape}; its last axis must be normalized_shape={H}"
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.LayerNorm(H)(np.ones(shape, np.float32))


# Sequential


def test_sequential_runs_its_modules_in_order(numbers):
    layers = [nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)]
    model = nn.Sequential(*layers)
    x = numbers.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x).data, layers[2](layers[1](layers[0](x))).data)
    assert len(model) == 3
    assert list(model) == layers
    assert model[1] is layers[1]
    assert model[-1] is layers[2]
    assert list(model.state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias",
    ]  # fmt: skip


def test_the_same_module_twice_is_run_twice_and_learnt_once(numbers):
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    x = numbers.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(x).data, layer(layer(x)).data)
    assert len(list(model.parameters())) == 2


def test_sequential_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"Sequential: .*tanh.* is not a Module"):
        nn.Sequential(nn.Linear(3, 4), np.tanh)


def test_an_empty_sequential_gives_back_what_it_got():
    x = Tensor([1.0])
    assert nn.Sequential()(x) is x


def test_sequential_hands_on_the_output_of_a_recurrent_layer():
    lstm, gru, linear = nn.LSTM(3, 4), nn.GRU(4, 5, bidirectional=True), nn.Linear(10, 2)
    x = np.random.default_rng(2).standard_normal((6, 2, 3)).astype(np.float32)
    expected = linear(gru(lstm(x)[0])[0])
    np.testing.assert_array_equal(nn.Sequential(lstm, gru, linear)(x).data, expected.data)
    y, (h, c) = nn.Sequential(nn.Linear(3, 3), lstm)(x)  # the last one's value is as it is
    assert (y.shape, h.shape, c.shape) == ((6, 2, 4), (1, 2, 4), (1, 2, 4))


def test_sequential_hands_on_any_other_tuple_as_it_is():
    class Two(nn.Module):
        def forward(self, x):
            return x, x * 2.0

    class Sum(nn.Module):
        def forward(self, both):
            return both[0] + both[1]

    assert nn.Sequential(Two(), Sum())(Tensor([1.0])).data.tolist() == [3]
