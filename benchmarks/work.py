"""The work that is measured: the same model, shapes and batches for each framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Runs = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class LanguageModelStep:
    """A full step: forward, loss, backward, clip to norm 5, SGD."""

    name: str
    V: int
    H: int
    T: int
    B: int
    L: int = 2
    dropout: float = 0.0

    def operations(self) -> float:
        """Multiply-adds of the matrix products, counted as two, forward and backward."""
        per_token = 2 * self.L * 4 * self.H * 2 * self.H + 2 * self.H * self.V
        return 3.0 * per_token * self.T * self.B

    def runs(self, torch: Any) -> Runs:
        """One step of each framework, from its own copy of the weights."""
        ids = np.random.default_rng(0).integers(0, self.V, (self.T + 1, self.B))
        runs: Runs = {"anaphora": self._anaphora(ids)}
        if torch is not None:
            runs["torch"] = self._torch(torch, ids)
        return runs

    def _anaphora(self, ids: np.ndarray) -> Callable[[], object]:
        from anaphora import detach, optim
        from anaphora.models import LanguageModel
        from anaphora.text import Batch

        model = LanguageModel(
            self.V, self.H, num_layers=self.L, dropout=self.dropout, initialization=0.05
        )
        optimizer = optim.SGD(model.named_parameters(), learning_rate=0.1)
        batch = Batch(ids[:-1], ids[1:])
        state: Any = None

        def step() -> None:
            nonlocal state
            loss, after = model.loss(batch, state)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            state = detach(after)

        return step

    def _torch(self, torch: Any, ids: np.ndarray) -> Callable[[], object]:
        embedding = torch.nn.Embedding(self.V, self.H)
        recurrent = torch.nn.LSTM(self.H, self.H, self.L, dropout=self.dropout)
        output, dropout = torch.nn.Linear(self.H, self.V), torch.nn.Dropout(self.dropout)
        parameters = [*embedding.parameters(), *recurrent.parameters(), *output.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        inputs, targets = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        state: Any = None

        def step() -> None:
            nonlocal state
            y, after = recurrent(dropout(embedding(inputs)), state)
            logits = output(dropout(y))
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            optimizer.zero_grad()
            state = tuple(s.detach() for s in after)

        return step


@dataclass(frozen=True)
class Layer:
    """Forward and backward of one layer; ragged ones have lengths drawn from 0.26 T to T."""

    name: str
    cell: str
    T: int
    B: int
    H: int
    ragged: bool = False

    def operations(self) -> float:
        """As of `LanguageModelStep`; of ragged batches only the steps that are real."""
        gates = {"lstm": 4, "gru": 3, "rnn": 1, "peephole_lstm": 4}[self.cell]
        steps = self._lengths().sum() if self.ragged else self.T * self.B
        return 3.0 * 2 * gates * self.H * 2 * self.H * float(steps)

    def _lengths(self) -> np.ndarray:
        return np.random.default_rng(0).integers(round(0.26 * self.T), self.T + 1, self.B)

    def runs(self, torch: Any) -> Runs:
        """Forward and backward of each framework."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.T, self.B, self.H)).astype(np.float32)
        dy = rng.normal(size=x.shape).astype(np.float32)
        runs: Runs = {"anaphora": self._anaphora(x, dy)}
        if torch is not None:
            runs["torch"] = self._torch(torch, x, dy)
        return runs

    def _anaphora(self, x: np.ndarray, dy: np.ndarray) -> Callable[[], object]:
        from anaphora import Tensor, nn

        layer = nn.Recurrent(self.cell, self.H, self.H)
        lengths = self._lengths() if self.ragged else None
        tensor = Tensor(x, requires_grad=True)

        def run() -> None:
            y, _ = layer(tensor, lengths=lengths)
            y.backward(dy)
            layer.zero_grad()
            tensor.grad = None

        return run

    def _torch(self, torch: Any, x: np.ndarray, dy: np.ndarray) -> Callable[[], object]:
        tensor, gradient = torch.tensor(x, requires_grad=True), torch.tensor(dy)
        if self.cell == "peephole_lstm":
            layer: Any = _torch_peephole(torch, self.H)
        else:
            kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[self.cell]
            layer = kind(self.H, self.H)
        rnn = torch.nn.utils.rnn

        def run() -> None:
            if self.ragged:
                packed = rnn.pack_padded_sequence(
                    tensor, torch.tensor(self._lengths()), enforce_sorted=False
                )
                y, _ = rnn.pad_packed_sequence(layer(packed)[0], total_length=self.T)
            else:
                y, _ = layer(tensor)
            y.backward(gradient)
            layer.zero_grad()
            tensor.grad = None

        return run


def _torch_peephole(torch: Any, H: int) -> Any:
    """A custom cell as one writes it in PyTorch: a loop over steps."""

    class Peephole(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.x_gates, self.h_gates = torch.nn.Linear(H, 4 * H), torch.nn.Linear(H, 4 * H)
            self.p_i, self.p_f, self.p_o = (
                torch.nn.Parameter(torch.zeros(H).uniform_(-0.1, 0.1)) for _ in range(3)
            )

        def forward(self, x: Any) -> Any:
            h = c = torch.zeros(x.shape[1], H)
            outputs = []
            for x_gates in self.x_gates(x):
                i, f, g, o = (x_gates + self.h_gates(h)).chunk(4, dim=-1)
                i, f = torch.sigmoid(i + self.p_i * c), torch.sigmoid(f + self.p_f * c)
                c = f * c + i * torch.tanh(g)
                h = torch.sigmoid(o + self.p_o * c) * torch.tanh(c)
                outputs.append(h)
            return torch.stack(outputs), (h, c)

    return Peephole()


WORK: list[LanguageModelStep | Layer] = [
    LanguageModelStep("language model step, zaremba-small", V=10_000, H=200, T=20, B=20),
    LanguageModelStep("language model step, zaremba-medium", 10_000, 650, 35, 20, dropout=0.5),
    LanguageModelStep("character model step, 2 x 128", V=65, H=128, T=50, B=50),
    LanguageModelStep("character model step, 2 x 512", V=65, H=512, T=50, B=50),
    Layer("LSTM layer, T 50 B 50 H 128", "lstm", 50, 50, 128),
    Layer("GRU layer, T 50 B 50 H 128", "gru", 50, 50, 128),
    Layer("RNN tanh layer, T 50 B 50 H 128", "rnn", 50, 50, 128),
    Layer("LSTM layer, T 100 B 32 H 64", "lstm", 100, 32, 64),
    Layer("GRU layer, T 100 B 32 H 64", "gru", 100, 32, 64),
    Layer("RNN tanh layer, T 100 B 32 H 64", "rnn", 100, 32, 64),
    Layer("ragged LSTM layer, T 50 B 50 H 128, mean length 0.63 T", "lstm", 50, 50, 128, True),
    Layer("LSTM layer, T 35 B 20 H 200", "lstm", 35, 20, 200),
    Layer("custom cell: peephole LSTM, T 35 B 20 H 200", "peephole_lstm", 35, 20, 200),
]
