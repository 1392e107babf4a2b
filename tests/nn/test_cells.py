"""Single steps of cells: the bits of the layers, gradients, messages."""

import re

import numpy as np
import pytest

from anaphora import nn, random
from anaphora.cells import CELLS, cell
from anaphora.equations import tanh
from anaphora.nn.states import as_tuple
from anaphora.tensor import Tensor


@cell(gates="a b", state="h c", parameters="p")
def own(a, b, h, c, p):
    c = tanh(a + p * c)
    return tanh(b.x + c * b.h), c


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [*CELLS, own], ids=str)
def test_a_loop_of_steps_has_the_bits_of_the_layer(kind, dtype):
    random.seed(4)
    layer = nn.Recurrent(kind, 3, 5, dtype=dtype)
    step = nn.RecurrentCell(kind, 3, 5, dtype=dtype)
    state = {name.removesuffix("_l0"): values for name, values in layer.state_dict().items()}
    assert step.load_state_dict(state) == ([], [])
    rng = np.random.default_rng(3)
    x = Tensor(rng.normal(size=(7, 2, 3)).astype(dtype), requires_grad=True)
    initial = [
        Tensor(rng.normal(size=(2, 5)).astype(dtype), requires_grad=True) for _ in layer.cell.states
    ]
    y, final = layer(x, tuple(s.reshape(1, 2, 5) for s in initial))
    current = tuple(initial) if len(initial) > 1 else initial[0]
    outputs = []
    for one in x:
        current = step(one, current)
        outputs.append(as_tuple(current)[0])
        np.testing.assert_array_equal(outputs[-1].data, y.data[len(outputs) - 1])
    for one, other in zip(as_tuple(current), as_tuple(final), strict=True):
        np.testing.assert_array_equal(one.data, other.data[0])
    dy = rng.normal(size=y.shape).astype(dtype)
    y.backward(dy)
    expected = [x.grad, *(s.grad for s in initial), *(p.grad for p in layer.parameters())]
    for tensor in (x, *initial):
        tensor.grad = None
    sum((h * d).sum() for h, d in zip(outputs, dy, strict=True)).backward()
    found = [x.grad, *(s.grad for s in initial), *(p.grad for p in step.parameters())]
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_one_sequence_without_a_state_starts_at_zero():
    step = nn.LSTMCell(3, 5)
    x = np.ones(3, np.float32)
    h, c = step(x)
    other, _ = step(x[None], (np.zeros((1, 5)), np.zeros((1, 5))))
    assert h.shape == c.shape == (5,)
    np.testing.assert_array_equal(h.data, other.data[0])
    again, _ = step(x, (h, c))
    assert not np.array_equal(again.data, h.data)


def test_cells_are_initialized_as_layers_are():
    for options in ({}, {"initialization": "orthogonal", "forget_bias": 2.0}):
        random.seed(3)
        layer = nn.LSTM(3, 5, **options)
        random.seed(3)
        step = nn.LSTMCell(3, 5, **options)
        for name, values in step.state_dict().items():
            np.testing.assert_array_equal(values, getattr(layer, f"{name}_l0").data)
    assert list(nn.GRUCell(3, 4, bias=False).state_dict()) == ["weight_ih", "weight_hh"]
    assert nn.LSTMCell(3, 4).to(np.float64)(np.ones((2, 3)))[0].dtype == np.float64


def test_cells_tell_what_does_not_fit():
    step = nn.LSTMCell(3, 5)
    x = np.ones((2, 3), np.float32)
    for call, message in (
        (lambda: step(np.ones((4, 2, 3))), "shape (4, 2, 3); expected [B, I] or [I] with I = 3: o"),
        (lambda: step(x, np.ones((2, 5))), "the state of 'lstm' is (h, c), 2 Tensors; 1 were giv"),
        (lambda: step(x, (np.ones((2, 5)), np.ones((1, 5)))), "c of shape (1, 5); expected (2, 5)"),
        (lambda: step(x[0], (np.ones((1, 5)),) * 2), "a state h of shape (1, 5); expected (5,)"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="sin"), "'sin' is neither 'tanh' nor 'relu'"),
        (lambda: nn.RecurrentCell("elman", 3, 4), "cell 'elman' is neither one of rnn"),
        (lambda: nn.RecurrentCell("gru", 3, 4, forget_bias=1.0), "forget_bias needs biases and a"),
        (lambda: nn.GRUCell(0, 4), "GRUCell: input_size must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
    assert repr(nn.GRUCell(3, 4, bias=False)) == "GRUCell(gru, 3, 4, bias=False) (84 parameters)"
