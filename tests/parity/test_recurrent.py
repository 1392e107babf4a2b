"""RNN, LSTM and GRU against PyTorch's: state dicts both ways, values, and every gradient."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from anaphora import nn, random
from anaphora.tensor import Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

# PyTorch says once a process which of its implementations it takes.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

T, B, I, H, P = 6, 4, 5, 8, 3
LENGTHS = [4, 6, 1, 3]  # in no order; PyTorch packs no empty sequences
DTYPES = [np.float32, np.float64]
TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-10}}

KINDS = {
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "lstm_projected": ("LSTM", {"proj_size": P}),
    "gru": ("GRU", {}),
}
SHAPES = [
    {"num_layers": layers, "bidirectional": bidirectional}
    for layers, bidirectional in itertools.product([1, 2], [False, True])
]


class Pair(NamedTuple):
    """The same layer twice."""

    ours: nn.Recurrent
    theirs: "torch.nn.RNNBase"


def make_pair(kind, dtype, **options):
    """Layers with options, in PyTorch's random weights."""
    name, more = KINDS[kind]
    torch.manual_seed(1)
    dtypes = {np.float32: torch.float32, np.float64: torch.float64}
    theirs = getattr(torch.nn, name)(I, H, dtype=dtypes[dtype], **more, **options)
    ours = getattr(nn, name)(I, H, dtype=dtype, **more, **options)
    ours.load_state_dict(theirs.state_dict())  # PyTorch's, as it is
    return Pair(ours, theirs)


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


def as_state(states):
    return states if len(states) > 1 else states[0]


def run_ours(layer, x, states, lengths, weights):
    """Values, and the gradients of the values weighted: by name."""
    x, states = Tensor(x, requires_grad=True), [Tensor(s, requires_grad=True) for s in states]
    output, final = layer(x, as_state(tuple(states)), lengths=lengths)
    values = (output, *as_tuple(final))
    total = 0
    for value, weight in zip(values, weights, strict=True):
        total = total + (value * weight).sum()
    total.backward()
    result = {f"value {k}": value.data for k, value in enumerate(values)}
    result |= {f"d initial {k}": state.grad for k, state in enumerate(states)}
    result |= {f"d {name}": p.grad for name, p in layer.named_parameters()}
    return result | {"d x": x.grad}


def run_theirs(layer, x, states, lengths, weights):
    """As `run_ours`; sequences of unequal lengths go through PyTorch packed."""
    x = torch.tensor(x, requires_grad=True)
    states = [torch.tensor(s, requires_grad=True) for s in states]
    if lengths is None:
        output, final = layer(x, as_state(tuple(states)))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), layer.batch_first, enforce_sorted=False
        )
        output, final = layer(packed, as_state(tuple(states)))
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, layer.batch_first)
    values = (output, *as_tuple(final))
    sum((v * torch.tensor(w)).sum() for v, w in zip(values, weights, strict=True)).backward()
    result = {f"value {k}": value.detach().numpy() for k, value in enumerate(values)}
    result |= {f"d initial {k}": state.grad.numpy() for k, state in enumerate(states)}
    result |= {f"d {name}": p.grad.numpy() for name, p in layer.named_parameters()}
    return result | {"d x": x.grad.numpy()}


def compare(pair, dtype, lengths=None, batched=True):
    """Run both on random numbers, from a random state, with random gradients."""
    numbers = np.random.default_rng(2)
    layer = pair.ours
    batch = (B,) if batched else ()
    shape = (*batch, T) if layer.batch_first else (T, *batch)
    places = layer.num_layers * layer.num_directions
    sizes = [layer.proj_size or H] + [H] * (len(layer.cell.states) - 1)
    x = numbers.normal(size=(*shape, I)).astype(dtype)
    states = [numbers.normal(size=(places, *batch, n)).astype(dtype) for n in sizes]
    weights = [numbers.normal(size=(*shape, layer.output_size)).astype(dtype)]
    weights += [numbers.normal(size=s.shape).astype(dtype) for s in states]
    ours = run_ours(layer, x, states, lengths, weights)
    theirs = run_theirs(pair.theirs, x, states, lengths, weights)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].dtype == dtype
        np.testing.assert_allclose(ours[name], theirs[name], **TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind, shape, lengths, dtype):
    compare(make_pair(kind, dtype, **shape), dtype, lengths)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_batch_first_and_without_biases(kind, bias, lengths):
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": bias}
    compare(make_pair(kind, np.float64, **options), np.float64, lengths)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_without_a_batch_axis(kind, batch_first):
    pair = make_pair(kind, np.float64, num_layers=2, bidirectional=True, batch_first=batch_first)
    compare(pair, np.float64, batched=False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_state_dicts_have_the_same_names_in_the_same_order_and_move_both_ways(kind, shape, bias):
    ours, theirs = make_pair(kind, np.float32, bias=bias, **shape)
    state = theirs.state_dict()
    assert [(name, array.shape) for name, array in ours.state_dict().items()] == [
        (name, tuple(tensor.shape)) for name, tensor in state.items()
    ]
    assert [name for name, _ in ours.named_parameters()] == [
        name for name, _ in theirs.named_parameters()
    ]
    for name, tensor in state.items():
        np.testing.assert_array_equal(ours.state_dict()[name], tensor.numpy(), err_msg=name)

    random.seed(3)
    ours.reset_parameters()
    theirs.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in ours.state_dict().items()}
    )
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), ours.state_dict()[name], err_msg=name)
    compare(Pair(ours, theirs), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weights_have_pytorchs_distribution(kind):
    """Both are uniform within the same bound: nearly the same standard deviation and extremes."""
    name, more = KINDS[kind]
    more = {**more, "proj_size": 40} if "proj_size" in more else more
    random.seed(4)
    torch.manual_seed(4)
    ours = getattr(nn, name)(50, 60, 2, **more).state_dict()
    theirs = getattr(torch.nn, name)(50, 60, 2, **more).state_dict()
    for key, tensor in theirs.items():
        if tensor.ndim == 2:
            assert abs(ours[key].std() / tensor.numpy().std() - 1) < 0.05, key
            assert abs(np.abs(ours[key]).max() / tensor.abs().max().item() - 1) < 0.01, key
