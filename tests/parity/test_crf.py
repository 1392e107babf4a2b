"""The conditional random field against pytorch-crf's algorithm, which the benchmarks have."""

from pathlib import Path

import numpy as np
import pytest

from anaphora import nn
from anaphora.tensor import Tensor

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

T, B, C = 23, 5, 7
LENGTHS = np.array([23, 11, 1, 13, 9])
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-6}, np.float64: {"rtol": 1e-9, "atol": 1e-12}}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_gradients_and_paths(dtype, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    from benchmarks.crf import TorchCRF

    rng = np.random.default_rng(5)
    emissions, tags = (2 * rng.standard_normal((T, B, C))).astype(dtype), rng.integers(0, C, (T, B))
    ours, peer = nn.CRF(C, initialization=1.0, dtype=dtype), TorchCRF(torch, C)
    peer.parameters = [torch.tensor(p.data, requires_grad=True) for p in ours.parameters()]
    x, y = Tensor(emissions, requires_grad=True), torch.tensor(emissions, requires_grad=True)
    mask = torch.arange(T)[:, None] < torch.tensor(LENGTHS)
    loss, peer_loss = ours.loss(x, tags, LENGTHS), peer.loss(y, torch.tensor(tags), mask)
    loss.backward()
    peer_loss.backward()
    pairs = [(loss.data, peer_loss.detach()), (x.grad, y.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(ours.parameters(), peer.parameters, strict=True)]
    for found, expected in pairs:
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected.numpy(), **TOLERANCE[dtype])
    decoded = ours.decode(emissions, LENGTHS)
    with torch.inference_mode():
        for b, path in enumerate(peer.decode(y, mask)):
            assert decoded[: LENGTHS[b], b].tolist() == path
