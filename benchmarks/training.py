"""Training: full steps of language models, layers, and only the recurrence."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs


@dataclass(frozen=True)
class LanguageModelStep(Work):
    """A full step: forward, loss, backward, clip to norm 5, SGD."""

    name: str
    V: int
    H: int
    T: int
    B: int
    L: int = 2
    dropout: float = 0.0
    precision: str = "float32"

    def operations(self) -> float:
        """Forward and backward, which is twice as much."""
        per_token = 2 * self.L * 4 * self.H * 2 * self.H + 2 * self.H * self.V
        return 3.0 * per_token * self.T * self.B

    def runs(self, peers: Peers) -> Runs:
        """One step of each framework, from its own initial weights."""
        return framework_runs(peers, self.anaphora, self.torch)

    def _ids(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, self.V, (self.T + 1, self.B))

    def anaphora(self) -> Callable[[], None]:
        """A step of anaphora, continuing from the state of the previous step."""
        from anaphora import detach, matmul_precision, optim
        from anaphora.data import Batch
        from anaphora.models import LanguageModel

        model = LanguageModel(
            self.V,
            hidden_size=self.H,
            num_layers=self.L,
            dropout=self.dropout,
            initialization=0.05,
        )
        optimizer = optim.SGD(model.named_parameters(), learning_rate=0.1)
        ids = self._ids()
        batch = Batch(ids[:-1], ids[1:])
        state: Any = None

        def step() -> None:
            nonlocal state
            with matmul_precision(self.precision):
                loss, after = model.loss(batch, state)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            state = detach(after)

        return step

    def torch(self, torch: Any) -> Callable[[], None]:
        """The same for PyTorch."""
        embedding = torch.nn.Embedding(self.V, self.H)
        recurrent = torch.nn.LSTM(self.H, self.H, self.L, dropout=self.dropout)
        output, dropout = torch.nn.Linear(self.H, self.V), torch.nn.Dropout(self.dropout)
        parameters = [*embedding.parameters(), *recurrent.parameters(), *output.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        ids = torch.tensor(self._ids())
        inputs, targets = ids[:-1], ids[1:]
        state: Any = None

        def step() -> None:
            nonlocal state
            with _autocast(torch, self.precision):
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
class Layer(Work):
    """Forward and backward of one layer; ragged ones have lengths sampled from 0.26 T to T."""

    name: str
    cell: str
    T: int
    B: int
    H: int
    ragged: bool = False
    precision: str = "float32"

    def operations(self) -> float:
        """As for `LanguageModelStep`; in ragged batches only the active steps count."""
        gates = {"lstm": 4, "gru": 3, "rnn": 1, "peephole_lstm": 4}[self.cell]
        steps = self._lengths().sum() if self.ragged else self.T * self.B
        return 3.0 * 2 * gates * self.H * 2 * self.H * float(steps)

    def _lengths(self) -> np.ndarray:
        return np.random.default_rng(0).integers(round(0.26 * self.T), self.T + 1, self.B)

    def runs(self, peers: Peers) -> Runs:
        """Forward and backward of each framework."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.T, self.B, self.H)).astype(np.float32)
        dy = rng.normal(size=x.shape).astype(np.float32)
        return framework_runs(peers, self._anaphora, self._torch, x, dy)

    def _anaphora(self, x: np.ndarray, dy: np.ndarray) -> Callable[[], None]:
        from anaphora import Tensor, matmul_precision, nn

        layer = nn.Recurrent(self.cell, self.H, self.H)
        lengths = self._lengths() if self.ragged else None
        tensor = Tensor(x, requires_grad=True)

        def run() -> None:
            with matmul_precision(self.precision):
                y, _ = layer(tensor, lengths=lengths)
            y.backward(dy)
            layer.zero_grad()
            tensor.grad = None

        return run

    def _torch(self, torch: Any, x: np.ndarray, dy: np.ndarray) -> Callable[[], None]:
        tensor, gradient = torch.tensor(x, requires_grad=True), torch.tensor(dy)
        if self.cell == "peephole_lstm":
            layer: Any = _torch_peephole(torch, self.H)
        else:
            kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[self.cell]
            layer = kind(self.H, self.H)
        rnn = torch.nn.utils.rnn

        def run() -> None:
            with _autocast(torch, self.precision):
                if self.ragged:
                    packed = rnn.pack_padded_sequence(
                        tensor, torch.tensor(self._lengths()), enforce_sorted=False
                    )
                    y, _ = rnn.pad_packed_sequence(layer(packed)[0], total_length=self.T)
                else:
                    y, _ = layer(tensor)
            y.backward(gradient.to(y.dtype))
            layer.zero_grad()
            tensor.grad = None

        return run


def _autocast(torch: Any, precision: str) -> contextlib.AbstractContextManager[Any]:
    """PyTorch's context for the forward pass."""
    if precision == "float32":
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[Any] = torch.autocast("cpu", torch.bfloat16)
    return context


@dataclass(frozen=True)
class InBfloat16(Work):
    """Work with products in bfloat16, PyTorch's under autocast, beside the same in float32."""

    name: str
    work: LanguageModelStep | Layer

    def missing(self) -> str | None:
        """What multiplies bfloat16 faster than float32."""
        from anaphora import engine

        has_unit = engine.info()["bfloat16"] in ("dots", "tiles")
        return None if has_unit else "needs AVX512_BF16 or AMX"

    def operations(self) -> float:
        """Those of the work."""
        return self.work.operations()

    def runs(self, peers: Peers) -> Runs:
        """The runs of both precisions; float32's have it in their names."""
        rounded = dataclasses.replace(self.work, precision="bfloat16").runs(peers)
        return rounded | {f"{name} float32": run for name, run in self.work.runs(peers).items()}


def _torch_peephole(torch: Any, H: int) -> Any:
    """A custom cell as usual in PyTorch: a loop over steps."""

    class Peephole(torch.nn.Module):  # type: ignore[misc]
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


@dataclass(frozen=True)
class Recurrence(Work):
    """Only the recurrence of an LSTM layer, forward and backward, from an already projected input.

    No peer offers it separately from the projection.
    """

    name: str
    T: int
    B: int
    H: int

    def operations(self) -> float:
        """The recurrent products: forward, of the gradient of the state, and of the weights."""
        return 3.0 * 2 * self.T * self.B * 4 * self.H * self.H

    def runs(self, peers: Peers) -> Runs:
        """A call forward and a call backward of the engine."""
        from anaphora import engine
        from anaphora.cells import lstm

        rng = np.random.default_rng(0)

        def uniform(*shape: int) -> np.ndarray:
            return rng.uniform(-1, 1, shape).astype(np.float32)

        T, B, H = self.T, self.B, self.H
        x_gates, d_output = uniform(T, B, 4 * H), uniform(T, B, H)
        initial = [uniform(B, H), uniform(B, H)]
        weights = engine.LayerWeights(weight_hh=uniform(4 * H, H) / np.float32(H**0.5))

        def run() -> None:
            steps = engine.recurrence_forward(lstm.trace, x_gates, initial, weights)
            engine.recurrence_backward(lstm.trace, steps, d_output, [None, None], x_gates, weights)

        return {"anaphora": run}


@dataclass(frozen=True)
class EmbeddingStep(Work):
    """N tokens looked up in a table, the gradient of its rows, and Adam; lazily as SparseAdam."""

    name: str
    V: int
    E: int
    N: int
    lazy: bool = False

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        ids = np.random.default_rng(0).integers(0, self.V, self.N)
        return framework_runs(peers, self._anaphora, self._torch, ids)

    def _anaphora(self, ids: np.ndarray) -> Callable[[], None]:
        from anaphora import nn, optim

        embedding = nn.Embedding(self.V, self.E)
        optimizer = optim.Adam(embedding.parameters(), lazy_rows=self.lazy)

        def step() -> None:
            embedding(ids).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def _torch(self, torch: Any, ids: np.ndarray) -> Callable[[], None]:
        embedding, tokens = torch.nn.Embedding(self.V, self.E, sparse=self.lazy), torch.tensor(ids)
        kind = torch.optim.SparseAdam if self.lazy else torch.optim.Adam
        optimizer = kind(embedding.parameters())

        def step() -> None:
            embedding(tokens).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        return step
