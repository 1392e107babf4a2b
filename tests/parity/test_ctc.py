"""The CTC loss against PyTorch's: values and gradients, both precisions, every reduction."""

import numpy as np
import pytest

from anaphora import ops
from anaphora.tensor import Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

T, B, V, S = 23, 5, 7, 6
LENGTHS = np.array([23, 11, 19, 13, 9])
TARGET_LENGTHS = np.array([6, 3, 0, 5, 6])
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-9, "atol": 1e-11}}


def both(logits, targets, lengths, reduction, blank, impossible="raise"):
    """Loss and gradient of the logits: ours, then PyTorch's."""
    ours = Tensor(logits, requires_grad=True)
    loss = ops.ctc_loss(
        ours, targets, lengths, TARGET_LENGTHS, blank, reduction=reduction, impossible=impossible
    )
    peer = torch.tensor(logits, requires_grad=True)
    peer_loss = torch.nn.functional.ctc_loss(
        torch.log_softmax(peer, -1),
        torch.tensor(targets.T),
        torch.tensor(lengths),
        torch.tensor(TARGET_LENGTHS),
        blank=blank,
        reduction=reduction,
        zero_infinity=impossible == "zero",
    )
    dy = np.random.default_rng(1).normal(size=loss.shape).astype(logits.dtype)
    loss.backward(dy)
    peer_loss.backward(torch.tensor(dy))
    return (loss.data, ours.grad), (peer_loss.detach().numpy(), peer.grad.numpy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("blank", [0, 4])
def test_loss_and_gradient_are_pytorchs(dtype, reduction, blank):
    rng = np.random.default_rng(5)
    labels = np.delete(np.arange(V), blank)[:3]  # few, so that neighbours are often equal
    logits = (3 * rng.standard_normal((T, B, V))).astype(dtype)
    targets = rng.choice(labels, (S, B))
    found, expected = both(logits, targets, LENGTHS, reduction, blank)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, **TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_impossible_rows_of_loss_zero_are_pytorchs(reduction):
    rng = np.random.default_rng(6)
    logits = rng.standard_normal((T, B, V))
    lengths = np.array([5, 11, 19, 13, 4])
    found, expected = both(logits, rng.integers(1, V, (S, B)), lengths, reduction, 0, "zero")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, **TOLERANCE[np.float64])
    assert not found[1][:, [0, 4]].any()
