"""Conditional random fields: a training step of only the layer, and decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs


@dataclass(frozen=True)
class CRFStep(Work):
    """The loss of a batch and its gradients, or the best paths; lengths are from 0.26 T to T.

    PyTorch has no such layer; ours is compared with the algorithm of the package pytorch-crf,
    written in PyTorch's operations.
    """

    name: str
    T: int
    B: int
    C: int
    decodes: bool = False

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        rng = np.random.default_rng(0)
        emissions = rng.normal(size=(self.T, self.B, self.C)).astype(np.float32)
        tags = rng.integers(0, self.C, (self.T, self.B))
        lengths = rng.integers(round(0.26 * self.T), self.T + 1, self.B)
        lengths[0] = self.T
        return framework_runs(peers, self._anaphora, self._torch, emissions, tags, lengths)

    def _anaphora(
        self, emissions: np.ndarray, tags: np.ndarray, lengths: np.ndarray
    ) -> Callable[[], None]:
        from anaphora import Tensor, nn

        crf = nn.CRF(self.C)
        tensor = Tensor(emissions, requires_grad=True)

        def step() -> None:
            crf.loss(tensor, tags, lengths).backward()
            crf.zero_grad()
            tensor.grad = None

        def decode() -> None:
            crf.decode(emissions, lengths)

        return decode if self.decodes else step

    def _torch(
        self, torch: Any, emissions: np.ndarray, tags: np.ndarray, lengths: np.ndarray
    ) -> Callable[[], None]:
        crf = TorchCRF(torch, self.C)
        tensor = torch.tensor(emissions, requires_grad=True)
        path, mask = torch.tensor(tags), torch.arange(self.T)[:, None] < torch.tensor(lengths)

        def step() -> None:
            crf.loss(tensor, path, mask).backward()
            for parameter in crf.parameters:
                parameter.grad = None
            tensor.grad = None

        def decode() -> None:
            with torch.inference_mode():
                crf.decode(tensor, mask)

        return decode if self.decodes else step


class TorchCRF:
    """The algorithm of pytorch-crf in PyTorch's operations.

    Args:
        torch: The module.
        tags: C, the number of tags.
    """

    def __init__(self, torch: Any, tags: int) -> None:
        self.torch = torch
        shapes = (tags, tags), (tags,), (tags,)
        self.parameters = [torch.empty(s).uniform_(-0.1, 0.1).requires_grad_() for s in shapes]

    def loss(self, emissions: Any, tags: Any, mask: Any) -> Any:
        """The mean negative log-likelihood per tag; emissions [T, B, C], tags and mask [T, B]."""
        torch, (transitions, start, end) = self.torch, self.parameters
        rows, real = torch.arange(tags.shape[1]), mask.to(emissions.dtype)
        score = start[tags[0]] + emissions[0, rows, tags[0]]
        log_sum = start + emissions[0]
        for t in range(1, len(tags)):
            score = score + transitions[tags[t - 1], tags[t]] * real[t]
            score = score + emissions[t, rows, tags[t]] * real[t]
            paths = log_sum[:, :, None] + transitions + emissions[t][:, None]
            log_sum = torch.where(mask[t][:, None], torch.logsumexp(paths, dim=1), log_sum)
        last = tags[mask.long().sum(dim=0) - 1, rows]
        losses = torch.logsumexp(log_sum + end, dim=1) - (score + end[last])
        return losses.sum() / real.sum()

    def decode(self, emissions: Any, mask: Any) -> list[list[int]]:
        """The best path of each row."""
        torch, (transitions, start, end) = self.torch, self.parameters
        score, history = start + emissions[0], []
        for t in range(1, len(emissions)):
            best, before = (score[:, :, None] + transitions + emissions[t][:, None]).max(dim=1)
            score = torch.where(mask[t][:, None], best, score)
            history.append(before)
        ends, paths = mask.long().sum(dim=0) - 1, []
        for b in range(emissions.shape[1]):
            path = [int((score[b] + end).argmax())]
            for before in reversed(history[: ends[b]]):
                path.append(int(before[b][path[-1]]))
            paths.append(path[::-1])
        return paths
