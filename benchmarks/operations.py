"""Single operations on Tensors, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Operation(Work):
    """An operation on arrays of floats, and its gradients for a random one of the result.

    Attributes:
        shapes: Those of the floats.
        anaphora: Our operation: it gets our `ops`, and Tensors of the floats and of the indices.
        torch: The same of PyTorch, which gets ``torch``.
        indices: The shape of some indices, below `places`; None for an operation without.
        places: How many elements there are along their axis.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    anaphora: Callable[..., Any]
    torch: Callable[..., Any]
    indices: tuple[int, ...] | None = None
    places: int = 1

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework."""
        rng = np.random.default_rng(0)
        floats = tuple(rng.normal(size=shape).astype(np.float32) for shape in self.shapes)
        integers: Arrays = ()
        if self.indices is not None:
            integers = (rng.integers(0, self.places, self.indices),)
        return framework_runs(peers, self._anaphora, self._torch, floats, integers)

    def _anaphora(self, floats: Arrays, integers: Arrays) -> Callable[[], None]:
        from anaphora import Tensor, ops

        tensors = [Tensor(x, requires_grad=True) for x in floats]
        indices = [Tensor(i) for i in integers]
        return _step(lambda: self.anaphora(ops, *tensors, *indices), tensors, lambda dy: dy)

    def _torch(self, torch: Any, floats: Arrays, integers: Arrays) -> Callable[[], None]:
        tensors = [torch.tensor(x, requires_grad=True) for x in floats]
        indices = [torch.tensor(i) for i in integers]
        return _step(lambda: self.torch(torch, *tensors, *indices), tensors, torch.tensor)


def _step(
    forward: Callable[[], Any], tensors: list[Any], converted: Callable[[np.ndarray], Any]
) -> Callable[[], None]:
    shape = tuple(forward().shape)
    dy = converted(np.random.default_rng(1).normal(size=shape).astype(np.float32))

    def step() -> None:
        for tensor in tensors:
            tensor.grad = None
        forward().backward(dy)

    return step


_STEPS = (200, 32, 128)  # T, B, H

OPERATIONS = [
    Operation(
        "cumsum over time, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x: ops.cumsum(x, 0),
        lambda torch, x: torch.cumsum(x, 0),
    ),
    Operation(
        "cumsum over units, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x: ops.cumsum(x, -1),
        lambda torch, x: torch.cumsum(x, -1),
    ),
    Operation(
        "gather over time, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x, i: ops.take_along_axis(x, i, 0),
        lambda torch, x, i: torch.gather(x, 0, i),
        indices=_STEPS,
        places=200,
    ),
    Operation(
        "gather one unit, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x, i: ops.take_along_axis(x, i, -1),
        lambda torch, x, i: torch.gather(x, -1, i),
        indices=(200, 32, 1),
        places=128,
    ),
    Operation(
        "index 500 steps, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x, i: x[i],
        lambda torch, x, i: x[i],
        indices=(500,),
        places=200,
    ),
    Operation(
        "index a step of each row, T 200 B 32",
        (_STEPS,),
        lambda ops, x, i: x[i, np.arange(32)],
        lambda torch, x, i: x[i, torch.arange(32)],
        indices=(32,),
        places=200,
    ),
    Operation(
        "repeat 4 times, T 200 B 8 H 128",
        ((200, 8, 128),),
        lambda ops, x: ops.repeat(x, 4, 1),
        lambda torch, x: torch.repeat_interleave(x, 4, 1),
    ),
    Operation(
        "sort, T 200 B 32 H 128",
        (_STEPS,),
        lambda ops, x: ops.sort(x, -1),
        lambda torch, x: torch.sort(x, -1)[0],
    ),
    Operation(
        "10 largest, N 64 V 10000",
        ((64, 10_000),),
        lambda ops, x: ops.topk(x, 10)[0],
        lambda torch, x: torch.topk(x, 10)[0],
    ),
    Operation(
        "einsum bthe,bshe->bhts, T 100 B 16",
        ((16, 100, 8, 32), (16, 100, 8, 32)),
        lambda ops, a, b: ops.einsum("bthe,bshe->bhts", a, b),
        lambda torch, a, b: torch.einsum("bthe,bshe->bhts", a, b),
    ),
    Operation(
        "einsum bi,oij,bj->bo, B 512 I 128",
        ((512, 128), (64, 128, 96), (512, 96)),
        lambda ops, a, w, b: ops.einsum("bi,oij,bj->bo", a, w, b),
        lambda torch, a, w, b: torch.einsum("bi,oij,bj->bo", a, w, b),
    ),
    Operation(
        "einsum tbi,tij->tbj, T 50 B 32 I 64",
        ((50, 32, 64), (50, 64, 48)),
        lambda ops, a, b: ops.einsum("tbi,tij->tbj", a, b),
        lambda torch, a, b: torch.einsum("tbi,tij->tbj", a, b),
    ),
]
