"""The layers without a loop over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from anaphora import ops
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.module import Module
from anaphora.options import check_shares, check_sizes
from anaphora.tensor import Tensor, as_tensor


class Linear(Module):
    """``y = x W^T + b``.

    Shapes: x [..., I]; weight [O, I]; bias [O]; returns [..., O].

    Args:
        in_features: I.
        out_features: O.
        bias: Whether to add b.
        initialization: "pytorch" (uniform(-a, a), a = 1 / sqrt(I), for both), "xavier" or
            "orthogonal" (b is 0), or a number for uniform(-a, a).
        dtype: float32 or float64.

    Raises:
        ValueError: a size is below 1, or the initialization is unknown.

    >>> layer = Linear(3, 2)
    >>> layer(np.ones((5, 4, 3), np.float32)).shape
    (5, 4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = initialize.parameter((out_features, in_features), dtype)
        self.bias = initialize.parameter((out_features,), dtype) if bias else None
        self.reset_parameters(initialization)

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the parameters again."""
        initialize.check(initialization)
        if not initialize.is_enabled():
            return
        if isinstance(initialization, str) and initialization != "pytorch":
            scheme = initialize.xavier if initialization == "xavier" else initialize.orthogonal
            scheme(self.weight)
            if self.bias is not None:
                initialize.constant(self.bias, 0)
            return
        bound = (
            1 / math.sqrt(self.in_features)
            if initialization == "pytorch"
            else float(initialization)
        )
        for parameter in self.parameters():
            initialize.uniform(parameter, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [..., I]; returns [..., O]."""
        result: Tensor = ops.linear(x, self.weight, self.bias)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors, one for each token; its gradient is sparse (`RowGradient`).

    Shapes: ids [...] integers; weight [V, E]; returns [..., E].

    Args:
        num_embeddings: V.
        embedding_dim: E.
        dropout: The share of the table's vectors that are 0 in a training call, at all positions
            of their ids; the others are divided by 1 - dropout (Gal & Ghahramani 2016).
        initialization: A number for uniform(-a, a); any name means the normal distribution of
            deviation 1, as in PyTorch.
        dtype: float32 or float64.

    Raises:
        ValueError: a size or the dropout is out of range, or the initialization is unknown.

    >>> table = Embedding(10, 3)
    >>> table([[1, 7], [7, 0]]).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dropout: float = 0.0,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        check_shares(self, dropout=dropout)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.dropout = dropout
        self.weight = initialize.parameter((num_embeddings, embedding_dim), dtype)
        self.reset_parameters(initialization)

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the table again."""
        initialize.check(initialization)
        if not initialize.is_enabled():
            return
        if isinstance(initialization, str):
            initialize.normal(self.weight, 1)
        else:
            initialize.uniform(self.weight, initialization)

    def forward(self, ids: Any) -> Tensor:
        """Shapes: ids [...]; returns [..., E]."""
        result: Tensor = ops.embedding(self.weight, ids)
        if self.dropout and self.training:
            rows = Tensor(np.ones((self.num_embeddings, 1), self.weight.dtype))
            result = result * ops.embedding(ops.dropout(rows, self.dropout), ids)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        dropout = f", dropout={self.dropout}" if self.dropout else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{dropout}"


class Dropout(Module):
    """Set elements to 0 with probability ``p`` while training; divide the others by ``1 - p``.

    Args:
        p: The probability of being dropped, 0 <= p < 1.
        locked: Drop the same elements at every step of [T, B, ...] (the variational dropout of
            Gal & Ghahramani 2016).

    Raises:
        ValueError: p is outside 0 <= p < 1.

    >>> dropout = Dropout(0.5).eval()
    >>> dropout(Tensor([1.0, 2.0]))
    Tensor([1., 2.], dtype=float32)
    """

    def __init__(self, p: float = 0.5, locked: bool = False) -> None:
        check_shares(self, p=p)
        self.p = p
        self.locked = locked

    def forward(self, x: Any) -> Any:
        """Shapes: x [...], or [T, B, ...] if locked; returns the same.

        Anything but a Tensor becomes an array, which the next layer converts to its dtype.
        """
        if not isinstance(x, Tensor):
            return self.forward(as_tensor(x, None, "Dropout: an input")).data
        if not self.training:
            return x
        return ops.dropout(x, self.p, shared_axes=(0,) if self.locked else ())

    def extra_repr(self) -> str:  # noqa: D102
        return f"p={self.p}, locked={self.locked}"


class LayerNorm(Module):
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over the last axis.

    Shapes: x [..., H]; weight [H]; bias [H]; returns [..., H]. Source: Ba et al. 2016.

    Args:
        normalized_shape: H.
        epsilon: Added to the variance.
        bias: Whether there is a bias.
        dtype: float32 or float64.

    Raises:
        ValueError: H is below 1; at the call, the last axis of x is not H.

    >>> LayerNorm(2, epsilon=0)([[1.0, 3.0]])
    Tensor([[-1.,  1.]], dtype=float32, requires_grad=True)
    """

    def __init__(
        self,
        normalized_shape: int,
        epsilon: float = 1e-5,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, normalized_shape=normalized_shape)
        self.normalized_shape = normalized_shape
        self.epsilon = epsilon
        self.weight = initialize.parameter((normalized_shape,), dtype, 1)
        self.bias = initialize.parameter((normalized_shape,), dtype) if bias else None

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0, their initial values."""
        initialize.constant(self.weight, 1)
        if self.bias is not None:
            initialize.constant(self.bias, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [..., H]; returns the same."""
        if np.shape(x)[-1:] != (self.normalized_shape,):
            raise ValueError(
                f"LayerNorm: an input of shape {np.shape(x)}; its last axis must be "
                f"normalized_shape={self.normalized_shape}"
            )
        result: Tensor = ops.layer_norm(x, self.weight, self.bias, epsilon=self.epsilon)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.normalized_shape}, epsilon={self.epsilon}"


class Sequential(Module):
    """Modules in sequence, each applied to the result of the previous one.

    After a recurrent layer (any module with ``returns_state``) the next module gets the output;
    the last module's result is returned unchanged. To carry states, or to pass ``lengths``, call
    the layers yourself.

    Parameters are named ``0.weight``, ``1.weight``, ... by the position of their module.

    Raises:
        TypeError: an argument is not a Module.

    >>> layers = Sequential(Linear(3, 4), LayerNorm(4))
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    >>> from anaphora.nn import LSTM
    >>> Sequential(LSTM(3, 4), Linear(4, 2))(np.ones((5, 2, 3), np.float32)).shape
    (5, 2, 2)
    """

    def __init__(self, *modules: Module) -> None:
        for number, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {module!r} is not a Module; wrap it in one")
            setattr(self, str(number), module)

    def forward(self, x: Any) -> Any:
        """Run the modules in order."""
        carries_state = False
        for module in self:
            x = module(x[0] if carries_state else x)
            carries_state = module.returns_state
        return x

    def _modules(self) -> list[Module]:
        return [module for module in vars(self).values() if isinstance(module, Module)]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules())

    def __len__(self) -> int:
        return len(self._modules())

    def __getitem__(self, index: int) -> Module:
        return self._modules()[index]
