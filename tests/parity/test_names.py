"""Operations with the names of NumPy and PyTorch, against PyTorch: values and gradients."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
functional = torch.nn.functional

TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-10, "atol": 1e-10}}


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


WIDE = np.concatenate([normal(4, 5) * 5, [[-50, 0, 50, 20, -20]]])
X = normal(3, 4, 5)

# A name; our operation; PyTorch's; arrays.
CASES = [
    ("silu", ops.silu, functional.silu, WIDE),
    ("gelu", ops.gelu, functional.gelu, WIDE),
    (
        "gelu, tanh",
        lambda x: ops.gelu(x, approximate="tanh"),
        lambda x: functional.gelu(x, approximate="tanh"),
        WIDE,
    ),
    ("elu", lambda x: ops.elu(x, 0.7), lambda x: functional.elu(x, 0.7), WIDE),
    ("leaky_relu", ops.leaky_relu, functional.leaky_relu, WIDE),
    (
        "pad",
        lambda x: ops.pad(x, {-1: (2, 1)}, constant_values=3),
        lambda x: functional.pad(x, (2, 1), value=3),
        X,
    ),
    (
        "pad, reflect",
        lambda x: ops.pad(x, {-1: (2, 1)}, "reflect"),
        lambda x: functional.pad(x, (2, 1), "reflect"),
        X,
    ),
    (
        "pad, replicate",
        lambda x: ops.pad(x, {-1: (2, 6)}, "edge"),
        lambda x: functional.pad(x, (2, 6), "replicate"),
        X,
    ),
    (
        "pad, circular",
        lambda x: ops.pad(x, {-1: (2, 1)}, "wrap"),
        lambda x: functional.pad(x, (2, 1), "circular"),
        X,
    ),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_values_and_gradients_are_pytorchs(case, dtype):
    _, ours, theirs, *arrays = case
    arrays = [np.asarray(a, dtype) for a in arrays]
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, peer = ours(*tensors), theirs(*peers)
    assert (y.shape, y.dtype) == (tuple(peer.shape), dtype)
    np.testing.assert_allclose(y.data, peer.detach().numpy(), **TOLERANCE[dtype])
    dy = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    y.backward(dy)
    peer.backward(torch.tensor(dy))
    for tensor, other in zip(tensors, peers, strict=True):
        assert tensor.grad.dtype == dtype
        np.testing.assert_allclose(tensor.grad, other.grad.numpy(), **TOLERANCE[dtype])


def test_one_hot():
    ids = np.array([[2, 0, 1], [3, 3, 0]])
    expected = functional.one_hot(torch.tensor(ids), 5).numpy()
    np.testing.assert_array_equal(ops.one_hot(ids, 5).data, expected)
