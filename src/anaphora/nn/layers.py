"""The layers without a loop over time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, cast, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from anaphora import foreign_names, ops
from anaphora.nn import initialization as initialize
from anaphora.nn.initialization import Initialization
from anaphora.nn.kinds import without_padding
from anaphora.nn.module import Forward, Module
from anaphora.nn.pooling import over_time, window_counts
from anaphora.ops.convolution import Padding, padding_sizes
from anaphora.options import check_shares, check_sizes
from anaphora.tensor import Array, Operand, Parameter, Tensor, as_tensor

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Y_co = TypeVar("Y_co", default=Tensor, covariant=True)
else:
    from typing import TypeVar

    Y_co = TypeVar("Y_co", covariant=True)


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
        _initialize(self.weight, self.bias, initialization)

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [..., I]; returns [..., O]."""
        result: Tensor = ops.linear(x, self.weight, self.bias)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Conv1d(Module):
    """A convolution over time, `ops.conv1d`, whose parameters are PyTorch's.

        y[s] = b + sum over k of W[:, :, k] x[s * stride + k * dilation - before]

    Shapes: x [T, B, I], or [B, T, I] with ``batch_first``, or [T, I]; weight [O, I / groups, K];
    bias [O]; returns [S, B, O] (layout as x) with
    ``S = (T + before + after - dilation * (K - 1) - 1) // stride + 1``. PyTorch's x is [B, I, T]:
    ``x.transpose(2, 0, 1)`` of it is ours.

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: K.
        stride: The number of steps from one output to the next.
        padding: The number of zeros at both ends of a sequence, or (before, after); "same" for as
            many as keep T; "causal" for all of them before.
        dilation: The number of steps from one term to the next.
        groups: The number of equal blocks of features, each with filters of its own.
        bias: Whether to add b.
        batch_first: Sequences are [B, T, ...] instead of [T, B, ...].
        initialization: As for `Linear`; the number of inputs of an output is K * I / groups.
        dtype: float32 or float64.

    Raises:
        ValueError: an option is out of range, or I or O is not a multiple of groups; at the call,
            as for `ops.conv1d`.

    >>> layer = Conv1d(3, 2, kernel_size=5, stride=2, padding="causal")
    >>> layer(np.ones((8, 4, 3), np.float32)).shape
    (4, 4, 2)
    >>> layer.output_lengths([8, 5, 0])
    array([4, 3, 0])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: Padding = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        batch_first: bool = False,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(
            self,
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
            groups=groups,
        )
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv1d: in_channels={in_channels} and out_channels={out_channels} must be "
                f"multiples of groups={groups}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.batch_first = batch_first
        self._padding = padding_sizes(padding, kernel_size, stride, dilation)
        shape = (out_channels, in_channels // groups, kernel_size)
        self.weight = initialize.parameter(shape, dtype)
        self.bias = initialize.parameter((out_channels,), dtype) if bias else None
        self.reset_parameters(initialization)

    def reset_parameters(self, initialization: Initialization = "pytorch") -> None:
        """Initialize the parameters again."""
        _initialize(self.weight, self.bias, initialization)

    def output_lengths(self, lengths: ArrayLike) -> Array:
        """[B]: the numbers of outputs of sequences of these lengths, 0 for too short ones."""
        return window_counts(
            "Conv1d", lengths, sum(self._padding), self.kernel_size, self.stride, self.dilation
        )

    @foreign_names.arguments_checked
    def forward(self, x: Operand, lengths: ArrayLike | None = None) -> Tensor:
        """Convolve a batch of sequences, or one.

        Args:
            x: [T, B, I], or [B, T, I] with ``batch_first``; [T, I] is one sequence.
            lengths: [B] integers in 0..T: the number of steps of each sequence. What is beyond
                counts as the zeros of padding does, so a sequence has the outputs that it has
                alone; outputs beyond `output_lengths`, the lengths for the next layer, are 0.

        Returns:
            [S, B, O], layout as x.

        Raises:
            ValueError: the shapes do not match.
        """

        def convolved(x: Tensor, ends: Array | None) -> Tensor:
            y: Tensor = ops.conv1d(
                without_padding(x, ends),
                self.weight,
                self.bias,
                self.stride,
                self._padding,
                self.dilation,
                self.groups,
            )
            return y if ends is None else without_padding(y, self.output_lengths(ends))

        return over_time(
            "Conv1d", x, lengths, self.batch_first, convolved, self.weight.dtype, self.in_channels
        )

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
            if (value := getattr(self, name)) != default:
                options += f", {name}={value!r}"
        options += "" if self.bias is not None else ", bias=False"
        return options + (", batch_first=True" if self.batch_first else "")


class Embedding(Module):
    """A table of vectors, one for each token; its gradient is sparse (`RowGradient`).

    Shapes: ids [...] integers; weight [V, E]; returns [..., E].

    Args:
        num_embeddings: V.
        embedding_dim: E.
        padding_idx: An id whose vector starts as 0 and has no gradient; -1 is the last.
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
        padding_idx: int | None = None,
        *,
        dropout: float = 0.0,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        check_shares(self, dropout=dropout)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        if padding_idx is not None:
            if not -num_embeddings <= padding_idx < num_embeddings:
                raise ValueError(
                    f"Embedding: padding_idx {padding_idx} is outside the table of "
                    f"{num_embeddings} vectors"
                )
            padding_idx %= num_embeddings
        self.padding_idx = padding_idx
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
        if self.padding_idx is not None:
            with self.weight.writing() as array:
                array[self.padding_idx] = 0

    @classmethod
    def from_pretrained(
        cls, embeddings: ArrayLike, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """An embedding with given vectors; `data.read_vectors` reads them from a file.

        Args:
            embeddings: [V, E], which are copied.
            freeze: Whether the table is not trained.
            padding_idx: An id whose vector has no gradient; it is as given.

        Raises:
            ValueError: it is not a table, or a number is not finite.

        >>> table = Embedding.from_pretrained([[1.0, 2.0], [3.0, 4.0]])
        >>> table([1]).data, table.weight.requires_grad
        (array([[3., 4.]], dtype=float32), False)
        """
        vectors = as_tensor(embeddings, None, "Embedding: vectors").data
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ValueError(
                f"Embedding: vectors of shape {vectors.shape}; expected [V, E], and all finite"
            )
        dtype = np.float64 if vectors.dtype == np.float64 else np.float32
        V, E = vectors.shape
        with initialize.shapes_only():
            embedding = cls(V, E, padding_idx, dtype=dtype)
        embedding.weight.assign(vectors)
        embedding.weight.requires_grad = not freeze
        return embedding

    def forward(self, ids: Operand) -> Tensor:
        """Shapes: ids [...]; returns [..., E]."""
        result: Tensor = ops.embedding(self.weight, ids, self.padding_idx)
        if self.dropout and self.training:
            rows = Tensor(np.ones((self.num_embeddings, 1), self.weight.dtype))
            result = result * ops.embedding(ops.dropout(rows, self.dropout), ids)
        return result

    def extra_repr(self) -> str:  # noqa: D102
        options = f"{self.num_embeddings}, {self.embedding_dim}"
        options += "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return options + (f", dropout={self.dropout}" if self.dropout else "")


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

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: x [...], or [T, B, ...] if locked; returns the same.

        Anything but a Tensor becomes an array, which the next layer converts to its dtype.
        """
        given: Any = x
        if not isinstance(given, Tensor):
            array: Any = self.forward(as_tensor(given, None, "Dropout: an input")).data
            return array  # type: ignore[no-any-return]
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

    def forward(self, x: Operand) -> Tensor:
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


class Sequential(Module, Generic[Y_co]):
    """Modules in sequence, each applied to the result of the previous one.

    After a recurrent layer (any module with ``returns_state``) the next module gets the output;
    the last module's result is returned unchanged. To carry states, or to pass ``lengths``, call
    the layers yourself.

    Parameters are named ``0.weight``, ``1.weight``, ... by the position of their module, or by the
    names of a dictionary.

    Args:
        modules: The modules, or a dictionary of them by name.

    Raises:
        TypeError: an argument is not a Module.

    >>> layers = Sequential(Linear(3, 4), LayerNorm(4))
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    >>> from anaphora.nn import LSTM
    >>> Sequential(LSTM(3, 4), Linear(4, 2))(np.ones((5, 2, 3), np.float32)).shape
    (5, 2, 2)
    """

    @overload
    def __init__(self, *modules: *tuple[*tuple[Module, ...], Forward[..., Y_co]]) -> None: ...
    @overload
    def __init__(self: Sequential[Tensor], *modules: Module | Mapping[str, Module]) -> None: ...
    def __init__(self, *modules: Any) -> None:  # type: ignore[misc] # mypy: starred tuples
        given: Any = enumerate(modules)
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            given = modules[0].items()
        for name, module in given:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {module!r} is not a Module; wrap it in one")
            setattr(self, str(name), module)

    def append(self, module: Module) -> Self:
        """Add a module after the last; return the modules."""
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: {module!r} is not a Module; wrap it in one")
        setattr(self, str(len(self)), module)
        return self

    def forward(self, x: Any) -> Y_co:
        """Run the modules in order."""
        carries_state = False
        for module in self:
            x = module(x[0] if carries_state else x)
            carries_state = module.returns_state
        return cast(Y_co, x)

    def _modules(self) -> list[Module]:
        return [module for module in vars(self).values() if isinstance(module, Module)]

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules())

    def __len__(self) -> int:
        return len(self._modules())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module | Sequential:
        found = self._modules()[index]
        return Sequential(*found) if isinstance(found, list) else found


class Highway(Module):
    """Highway layers: each mixes a transformation of its input with the input itself.

        t = sigmoid(W_t x + b_t)
        y = t * relu(W_h x + b_h) + (1 - t) * x

    Shapes: x [..., I]; returns the same. Parameters: ``transforms.k.weight`` (W_h) and
    ``gates.k.weight`` (W_t), [I, I], with their biases. Source: Srivastava et al. 2015.

    Args:
        size: I.
        num_layers: The number of such layers, each of which reads the output of the one before.
        gate_bias: The bias b_t at the start; below 0 most of the input passes.
        initialization: As for `Linear`.
        dtype: float32 or float64.

    Raises:
        ValueError: a size is below 1, or the initialization is unknown.

    >>> Highway(3, num_layers=2)(np.ones((5, 2, 3), np.float32)).shape
    (5, 2, 3)
    """

    def __init__(
        self,
        size: int,
        num_layers: int = 1,
        *,
        gate_bias: float = -2.0,
        initialization: Initialization = "pytorch",
        dtype: DTypeLike = np.float32,
    ) -> None:
        check_sizes(self, size=size, num_layers=num_layers)
        self.transforms, self.gates = (
            [
                Linear(size, size, initialization=initialization, dtype=dtype)
                for _ in range(num_layers)
            ]
            for _ in range(2)
        )
        if initialize.is_enabled():
            for gate in self.gates:
                assert gate.bias is not None
                initialize.constant(gate.bias, gate_bias)

    def forward(self, x: Operand) -> Tensor:
        """Shapes: x [..., I]; returns the same."""
        x = as_tensor(x, self.gates[0].weight.dtype, "Highway: an input")
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            t = ops.sigmoid(gate(x))
            x = t * ops.relu(transform(x)) + (1 - t) * x
        return x


def _initialize(weight: Parameter, bias: Parameter | None, initialization: Initialization) -> None:
    """Initialize a weight [O, ...], of which each row makes one output, and its bias."""
    initialize.check(initialization)
    if not initialize.is_enabled():
        return
    if isinstance(initialization, str) and initialization != "pytorch":
        scheme = initialize.xavier if initialization == "xavier" else initialize.orthogonal
        scheme(weight)
        if bias is not None:
            initialize.constant(bias, 0)
        return
    inputs = math.prod(weight.shape[1:])
    bound = 1 / math.sqrt(inputs) if initialization == "pytorch" else float(initialization)
    for parameter in (weight, bias):
        if parameter is not None:
            initialize.uniform(parameter, bound)
