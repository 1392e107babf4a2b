"""Models and operations around the recurrence: training steps, and single operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs


@dataclass(frozen=True)
class ClassifierStep(Work):
    """A full step of a GRU that reads ragged sequences of ids: loss, backward, Adam."""

    name: str
    T: int
    B: int
    V: int
    E: int
    H: int
    C: int = 6

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        rng = np.random.default_rng(0)
        ids, targets = rng.integers(0, self.V, (self.T, self.B)), rng.integers(0, self.C, self.B)
        lengths = ragged(rng, self.T, self.B)
        return framework_runs(peers, self._anaphora, self._torch, ids, lengths, targets)

    def _anaphora(
        self, ids: np.ndarray, lengths: np.ndarray, targets: np.ndarray
    ) -> Callable[[], None]:
        from anaphora.data import Batch
        from anaphora.models import SequenceClassifier

        model = SequenceClassifier(
            self.C, hidden_size=self.H, vocabulary_size=self.V, embedding_size=self.E, cell="gru"
        )
        batch = Batch(ids, targets, lengths)
        return training_step(model, batch)

    def _torch(
        self, torch: Any, ids: np.ndarray, lengths: np.ndarray, targets: np.ndarray
    ) -> Callable[[], None]:
        nn = torch.nn
        embedding, output = nn.Embedding(self.V, self.E), nn.Linear(self.H, self.C)
        recurrent = nn.GRU(self.E, self.H)
        optimizer = torch.optim.Adam(
            [p for m in (embedding, recurrent, output) for p in m.parameters()]
        )
        tokens, ends, classes = torch.tensor(ids), torch.tensor(lengths), torch.tensor(targets)

        def step() -> None:
            packed = nn.utils.rnn.pack_padded_sequence(
                embedding(tokens), ends, enforce_sorted=False
            )
            nn.functional.cross_entropy(output(recurrent(packed)[1][0]), classes).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step


@dataclass(frozen=True)
class EncoderDecoderStep(Work):
    """A full step of LSTMs with multiplicative attention: loss, backward, Adam."""

    name: str
    S: int
    T: int
    B: int
    V: int
    H: int

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        rng = np.random.default_rng(0)
        source, lengths = rng.integers(1, self.V, (self.S, self.B)), ragged(rng, self.S, self.B)
        ids = rng.integers(1, self.V, (self.T + 1, self.B))
        return framework_runs(peers, self._anaphora, self._torch, source, lengths, ids)

    def _anaphora(
        self, source: np.ndarray, lengths: np.ndarray, ids: np.ndarray
    ) -> Callable[[], None]:
        from anaphora.data import PairBatch
        from anaphora.models import EncoderDecoder

        model = EncoderDecoder(
            self.V, self.V, hidden_size=self.H, num_layers=1, attention="multiplicative"
        )
        batch = PairBatch(ids[:-1], ids[1:], source=source, source_lengths=lengths)
        return training_step(model, batch)

    def _torch(
        self, torch: Any, source: np.ndarray, lengths: np.ndarray, ids: np.ndarray
    ) -> Callable[[], None]:
        nn, H = torch.nn, self.H
        read, written = nn.Embedding(self.V, H), nn.Embedding(self.V, H)
        encoder, decoder = nn.LSTM(H, H // 2, bidirectional=True), nn.LSTM(H, H)
        key, combine = nn.Linear(H, H, bias=False), nn.Linear(2 * H, H, bias=False)
        output = nn.Linear(H, self.V)
        modules = read, written, encoder, decoder, key, combine, output
        optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()])
        tokens, ends, targets = torch.tensor(source), torch.tensor(lengths), torch.tensor(ids)
        beyond = (torch.arange(self.S)[None] >= ends[:, None])[:, None]

        def step() -> None:
            packed = nn.utils.rnn.pack_padded_sequence(read(tokens), ends, enforce_sorted=False)
            y, final = encoder(packed)
            states = nn.utils.rnn.pad_packed_sequence(y, total_length=self.S)[0].transpose(0, 1)
            initial = tuple(part.transpose(0, 1).reshape(1, self.B, H) for part in final)
            queries = decoder(written(targets[:-1]), initial)[0]
            scores = queries.transpose(0, 1) @ key(states).transpose(1, 2)
            weights = scores.masked_fill(beyond, -torch.inf).softmax(-1)
            contexts = (weights @ states).transpose(0, 1)
            features = torch.tanh(combine(torch.cat([contexts, queries], -1)))
            logits = output(features).reshape(-1, self.V)
            nn.functional.cross_entropy(logits, targets[1:].reshape(-1)).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step


@dataclass(frozen=True)
class LinearNorm(Work):
    """A linear layer and layer normalisation of N rows, forward and backward."""

    name: str
    N: int
    H: int

    def operations(self) -> float:
        """Forward, and twice as much backward."""
        return 6.0 * self.N * self.H * self.H

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        x = np.random.default_rng(0).normal(size=(self.N, self.H)).astype(np.float32)
        return framework_runs(peers, self._anaphora, self._torch, x)

    def _anaphora(self, x: np.ndarray) -> Callable[[], None]:
        from anaphora import Tensor, nn

        linear, norm = nn.Linear(self.H, self.H), nn.LayerNorm(self.H)
        return gradient_step(Tensor(x, requires_grad=True), linear, norm)

    def _torch(self, torch: Any, x: np.ndarray) -> Callable[[], None]:
        linear, norm = torch.nn.Linear(self.H, self.H), torch.nn.LayerNorm(self.H)
        return gradient_step(torch.tensor(x, requires_grad=True), linear, norm)


@dataclass(frozen=True)
class Convolution(Work):
    """A convolution over time, forward and backward, each framework with its own layout."""

    name: str
    T: int
    B: int
    I: int
    O: int
    K: int
    stride: int = 1

    def operations(self) -> float:
        """Forward, and twice as much backward."""
        steps = (self.T - self.K) // self.stride + 1
        return 6.0 * steps * self.B * self.O * self.I * self.K

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        x = np.random.default_rng(0).normal(size=(self.T, self.B, self.I)).astype(np.float32)
        return framework_runs(peers, self._anaphora, self._torch, x)

    def _anaphora(self, x: np.ndarray) -> Callable[[], None]:
        from anaphora import Tensor, nn

        layer = nn.Conv1d(self.I, self.O, self.K, self.stride)
        return gradient_step(Tensor(x, requires_grad=True), layer)

    def _torch(self, torch: Any, x: np.ndarray) -> Callable[[], None]:
        layer = torch.nn.Conv1d(self.I, self.O, self.K, self.stride)
        tensor = torch.tensor(x.transpose(1, 2, 0).copy(), requires_grad=True)
        return gradient_step(tensor, layer)


@dataclass(frozen=True)
class BatchNorm(Work):
    """A batch normalization in training, forward and backward, each in its own layout."""

    name: str
    T: int
    B: int
    I: int

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        x = np.random.default_rng(0).normal(size=(self.T, self.B, self.I)).astype(np.float32)
        return framework_runs(peers, self._anaphora, self._torch, x)

    def _anaphora(self, x: np.ndarray) -> Callable[[], None]:
        from anaphora import Tensor, nn

        return gradient_step(Tensor(x, requires_grad=True), nn.BatchNorm1d(self.I))

    def _torch(self, torch: Any, x: np.ndarray) -> Callable[[], None]:
        tensor = torch.tensor(x.transpose(1, 2, 0).copy(), requires_grad=True)
        return gradient_step(tensor, torch.nn.BatchNorm1d(self.I))


@dataclass(frozen=True)
class SelfAttention(Work):
    """Multi-head attention of a sequence to itself, forward and backward."""

    name: str
    T: int
    B: int
    E: int
    heads: int

    def operations(self) -> float:
        """Four products by weights and two of steps by steps, and twice as much backward."""
        per_step = 4 * 2 * self.E * self.E + 2 * 2 * self.T * self.E
        return 3.0 * per_step * self.T * self.B

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        x = np.random.default_rng(0).normal(size=(self.T, self.B, self.E)).astype(np.float32)
        return framework_runs(peers, self._anaphora, self._torch, x)

    def _anaphora(self, x: np.ndarray) -> Callable[[], None]:
        from anaphora import Tensor, nn

        return self._step(Tensor(x, requires_grad=True), nn.MultiheadAttention(self.E, self.heads))

    def _torch(self, torch: Any, x: np.ndarray) -> Callable[[], None]:
        layer = torch.nn.MultiheadAttention(self.E, self.heads)
        return self._step(torch.tensor(x, requires_grad=True), layer)

    def _step(self, x: Any, layer: Any) -> Callable[[], None]:
        def step() -> None:
            x.grad = None
            layer(x, x, x, need_weights=False)[0].sum().backward()
            layer.zero_grad()

        return step


@dataclass(frozen=True)
class AdamUpdate(Work):
    """One update of n numbers by Adam."""

    name: str
    n: int

    def runs(self, peers: Peers) -> Runs:
        """An update of each framework."""
        from anaphora import optim
        from anaphora.tensor import Parameter

        gradient = np.random.default_rng(0).normal(size=self.n).astype(np.float32)
        parameter = Parameter(np.zeros(self.n, np.float32))
        parameter.grad = gradient
        runs: Runs = {"anaphora": optim.Adam([parameter]).step}
        if peers.torch is not None:
            torch = peers.torch
            other = torch.zeros(self.n, requires_grad=True)
            other.grad = torch.tensor(gradient)
            optimizer = torch.optim.Adam([other])

            def step() -> None:
                optimizer.step()

            runs["torch"] = step
        return runs


def ragged(rng: np.random.Generator, T: int, B: int) -> np.ndarray:
    """Lengths from 0.26 T to T, the first of them T."""
    lengths = rng.integers(max(1, round(0.26 * T)), T + 1, B)
    lengths[0] = T
    return lengths


def training_step(model: Any, batch: Any) -> Callable[[], None]:
    """A step of one of our models: loss, backward, Adam."""
    from anaphora import optim

    optimizer = optim.Adam(model.named_parameters())

    def step() -> None:
        model.loss(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def gradient_step(x: Any, *layers: Any) -> Callable[[], None]:
    """Forward and backward of layers of either framework, one after the other."""

    def step() -> None:
        x.grad = None
        y = x
        for layer in layers:
            y = layer(y)
        y.sum().backward()
        for layer in layers:
            layer.zero_grad()

    return step
