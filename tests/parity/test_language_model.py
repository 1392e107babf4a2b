"""Ten training steps of the small model of Zaremba et al. 2014 against PyTorch's, loss by loss.

Both start from the same weights and read the same batches: V = 10,000 words, 2 layers of 200
units, 20 streams, windows of 20 steps, the state carried and detached; SGD at rate 1.0, gradients
clipped to norm 5. The loss that is differentiated is summed over the steps and averaged over the
streams, as the paper's.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from anaphora import nn, ops, optim, random
from anaphora.tensor import detach

torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")

V, H, B, T, STEPS = 10_000, 200, 20, 20, 10
TOKENS = B * (STEPS * T + 1)
PTB = Path(__file__).parents[2].parent / "shared" / "data" / "ptb" / "ptb.train.txt"
TOLERANCE = {np.float32: 1e-4, np.float64: 1e-9}


class LanguageModel(nn.Module):
    """Words to logits."""

    def __init__(self, dtype):
        self.encoder = nn.Embedding(V, H, initialization=0.1, dtype=dtype)
        self.rnn = nn.LSTM(H, H, 2, initialization=0.1, dtype=dtype)
        self.decoder = nn.Linear(H, V, initialization=0.1, dtype=dtype)

    def forward(self, ids, state=None):
        y, state = self.rnn(self.encoder(ids), state)
        return self.decoder(y), state


class PeerModel(torch.nn.Module):
    """The same in PyTorch, and by the same names."""

    def __init__(self, dtype):
        super().__init__()
        self.encoder = torch.nn.Embedding(V, H, dtype=dtype)
        self.rnn = torch.nn.LSTM(H, H, 2, dtype=dtype)
        self.decoder = torch.nn.Linear(H, V, dtype=dtype)

    def forward(self, ids, state=None):
        y, state = self.rnn(self.encoder(ids), state)
        return self.decoder(y), state


@pytest.fixture(autouse=True)
def _one_thread():
    """PyTorch's threads wait by spinning, which on a busy machine takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def losses_of_ours(model, streams):
    optimizer = optim.SGD(model.parameters(), 1.0)
    losses, state = [], None
    for start in range(0, STEPS * T, T):
        logits, state = model(streams[start : start + T], detach(state))
        loss = ops.cross_entropy(logits, streams[start + 1 : start + T + 1], reduction="sum") / B
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item() / T)
    return losses


def clip(parameters):
    """Clip to norm 5, the norm measured in double precision.

    PyTorch's own `clip_grad_norm_` adds the two million squares of the output layer up in single
    precision on a CPU. Its norm is then wrong in the fourth digit, and after three steps so are
    the losses: they differ from those of float64 by 2e-3, where ours and these agree to 1e-5.
    """
    parameters = list(parameters)
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float64) for p in parameters]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    torch.nn.utils.clip_grads_with_norm_(parameters, 5.0, norm)


def losses_of_theirs(model, streams):
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    losses, state = [], None
    streams = torch.from_numpy(streams)
    for start in range(0, STEPS * T, T):
        logits, state = model(
            streams[start : start + T], state and tuple(s.detach() for s in state)
        )
        loss = (
            torch.nn.functional.cross_entropy(
                logits.reshape(-1, V),
                streams[start + 1 : start + T + 1].reshape(-1),
                reduction="sum",
            )
            / B
        )
        optimizer.zero_grad()
        loss.backward()
        clip(model.parameters())
        optimizer.step()
        losses.append(loss.item() / T)
    return losses


def zipf_text():
    """Word numbers whose frequencies fall as one over their rank."""
    weights = 1 / np.arange(1, V + 1)
    return np.random.default_rng(6).choice(V, TOKENS, p=weights / weights.sum())


def ptb_text():
    """The first words of the Penn Treebank, numbered by frequency."""
    words = PTB.read_text(encoding="utf-8").replace("\n", " <eos> ").split()
    numbers = {word: number for number, (word, _) in enumerate(Counter(words).most_common())}
    assert len(numbers) == V
    return np.array([numbers[word] for word in words[:TOKENS]])


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        pytest.param(zipf_text, np.float32, id="zipf-float32"),
        pytest.param(zipf_text, np.float64, id="zipf-float64"),
        pytest.param(
            ptb_text,
            np.float32,
            id="ptb-float32",
            marks=pytest.mark.skipif(
                not PTB.exists(), reason="needs the Penn Treebank in ../shared/data/ptb"
            ),
        ),
    ],
)
def test_ten_training_losses(text, dtype):
    streams = np.ascontiguousarray(text().reshape(B, -1).T)  # [10 T + 1, B]
    random.seed(5)
    ours = LanguageModel(dtype)
    theirs = PeerModel({np.float32: torch.float32, np.float64: torch.float64}[dtype])
    theirs.load_state_dict(
        {name: torch.from_numpy(array.copy()) for name, array in ours.state_dict().items()}
    )
    losses, expected = losses_of_ours(ours, streams), losses_of_theirs(theirs, streams)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=TOLERANCE[dtype])
    assert abs(losses[0] - np.log(V)) < 0.1
    assert losses[-1] < losses[0] - 1  # it has learnt
