"""Connectionist temporal classification: the loss of a batch and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs


@dataclass(frozen=True)
class CTCStep(Work):
    """Softmax, loss and the gradient of the logits; targets of 5 to S labels, all T steps."""

    name: str
    T: int
    B: int
    V: int
    S: int

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(self.T, self.B, self.V)).astype(np.float32)
        targets = rng.integers(1, self.V, (self.S, self.B))
        counts = rng.integers(min(5, self.S), self.S + 1, self.B)
        return framework_runs(peers, self._anaphora, self._torch, logits, targets, counts)

    def _anaphora(
        self, logits: np.ndarray, targets: np.ndarray, counts: np.ndarray
    ) -> Callable[[], None]:
        from anaphora import Tensor, ops

        tensor = Tensor(logits, requires_grad=True)

        def step() -> None:
            tensor.grad = None
            ops.ctc_loss(tensor, targets, target_lengths=counts).backward()

        return step

    def _torch(
        self, torch: Any, logits: np.ndarray, targets: np.ndarray, counts: np.ndarray
    ) -> Callable[[], None]:
        tensor, labels = torch.tensor(logits, requires_grad=True), torch.tensor(targets.T.copy())
        lengths, ends = torch.full((self.B,), self.T), torch.tensor(counts)

        def step() -> None:
            tensor.grad = None
            log_p = torch.log_softmax(tensor, -1)
            torch.nn.functional.ctc_loss(log_p, labels, lengths, ends).backward()

        return step
