"""Operations with the names of NumPy and PyTorch, against PyTorch: values and gradients."""

import numpy as np
import pytest

import anaphora
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
    ("std", lambda x: x.std(1, ddof=1), lambda x: x.std(1), X),
    ("prod", lambda x: x.prod(1), lambda x: x.prod(1), np.where(np.abs(X) < 0.2, 0, X)),
    ("logsumexp", lambda x: x.logsumexp((0, 2)), lambda x: x.logsumexp((0, 2)), X * 20),
    ("erf", ops.erf, torch.erf, X),
    ("glu", lambda x: ops.glu(x, 1), lambda x: functional.glu(x, 1), X),
    (
        "cosine_similarity",
        lambda x, y: ops.cosine_similarity(x, y, axis=-1),
        lambda x, y: functional.cosine_similarity(x, y, dim=-1),
        *(X, normal(4, 5)),
    ),
    ("cosine_similarity, axis 1", ops.cosine_similarity, functional.cosine_similarity, X, X + 1),
    ("norm", lambda x: x.norm(), lambda x: x.norm(), X),
    ("norm 3", lambda x: x.norm(3, 1), lambda x: x.norm(3, 1), X),
    ("norm inf, ties", lambda x: x.norm(np.inf), lambda x: x.norm(np.inf), np.ones((2, 3))),
    ("norm of zeros", lambda x: x.norm(), lambda x: x.norm(), np.zeros((2, 3))),
    ("min, ties", lambda x: x.min(1), lambda x: x.amin(1), np.round(X)),
    (
        "clip to limits",
        lambda x: x.clip(-1, 1),
        lambda x: x.clamp(-1, 1),
        np.array([-2.0, -1.0, 0.0, 1.0, 2.0]),
    ),
    (
        "einsum of three",
        lambda *xs: ops.einsum("bn,anm,bm->ba", *xs),
        lambda *xs: torch.einsum("bn,anm,bm->ba", *xs),
        *(normal(2, 3), normal(5, 3, 4), normal(2, 4)),
    ),
    (
        "einsum of batches and heads",
        lambda *xs: ops.einsum("...qhd,...khd->...hqk", *xs),
        lambda *xs: torch.einsum("...qhd,...khd->...hqk", *xs),
        *(normal(2, 3, 4, 5), normal(2, 6, 4, 5)),
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


def test_creation_has_pytorchs_dtypes():
    for theirs, ours in (
        (torch.zeros(2, 3), anaphora.zeros(2, 3)),
        (torch.zeros((2, 3)), anaphora.zeros((2, 3))),
        (torch.ones(4), anaphora.ones(4)),
        (torch.full((2,), 3), anaphora.full((2,), 3)),
        (torch.full((2,), 3.0), anaphora.full((2,), 3.0)),
        (torch.arange(3), anaphora.arange(3)),
        (torch.zeros_like(torch.arange(3)), anaphora.zeros_like(anaphora.arange(3))),
        (torch.ones_like(torch.rand(2)), anaphora.ones_like(anaphora.rand(2))),
        (torch.full_like(torch.rand(2), 3), anaphora.full_like(anaphora.rand(2), 3)),
        (torch.arange(0, 1, 0.25), anaphora.arange(0, 1, 0.25)),
    ):
        assert str(theirs.dtype).removeprefix("torch.") == str(ours.dtype)
        np.testing.assert_array_equal(ours.data, theirs.numpy())
