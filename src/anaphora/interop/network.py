"""A model as formats without graphs hold it: input, a stack of cells, pooling, a linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anaphora import cells, nn
from anaphora.engine.precision import MAX_INT8_TERMS, quantized
from anaphora.equations import Trace
from anaphora.models import (
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)
from anaphora.nn.kinds import CellLayer
from anaphora.tensor import Array

Floats = NDArray[np.float32]

_READERS = (LanguageModel, SequenceClassifier, SequenceRegressor, SequenceTagger)


class Layer(NamedTuple):
    """One layer of a cell.

    Attributes:
        cell: The cell as it runs in evaluation, with zoneout if the layer has it.
        trace: Its program.
        sizes: I, H, and the size of the first state, P or H.
        weights: By PyTorch's names without the layer, such as ``weight_ih`` [Gx*H, I].
        parameters: The cell's own, [H] each, by name.
        norm: Weight and bias of the layer norm after it; None for none.
        epsilon: Of the layer norm.

    >>> network_of(nn.LSTM(3, 4, proj_size=2)).layers[0].sizes
    (3, 4, 2)
    """

    cell: cells.Cell
    trace: Trace
    sizes: tuple[int, int, int]
    weights: dict[str, Floats]
    parameters: dict[str, Floats]
    norm: tuple[Floats, Floats] | None
    epsilon: float


@dataclass(frozen=True)
class Network:
    """What a model computes step by step, as arrays.

    Attributes:
        kind: What it is, for people.
        int8: Whether the products of weights are those of 8 bits.
        input_size: I of the first layer.
        table: [V, I] the vectors of ids; None for features.
        moments: Mean and deviation [I] by which features are standardized; None for neither.
        layers: The recurrent layers.
        pooling: "last", "mean" or "max" over the outputs so far.
        output: Weight [O, N] and bias [O] (or None) of the linear layer; None for none.
        answer: What follows: "scores", "softmax" or "sigmoid".
        decoding: Scale and mean [O] of the targets; None for neither.
        labels: The names of the outputs; () if they have none.
        tied: Whether the table is the output's weight.

    >>> network = network_of(nn.GRU(3, 4, num_layers=2))
    >>> network.input_size, len(network.layers), network.output_size
    (3, 2, 4)
    """

    kind: str
    int8: bool
    input_size: int
    table: Floats | None
    moments: tuple[Array, Array] | None
    layers: Sequence[Layer]
    pooling: str = "last"
    output: tuple[Floats, Floats | None] | None = None
    answer: str = "scores"
    decoding: tuple[Array, Array] | None = None
    labels: Sequence[str] = ()
    tied: bool = False

    @property
    def output_size(self) -> int:
        """The numbers that a step returns."""
        return len(self.output[0]) if self.output is not None else self.layers[-1].sizes[2]

    def products(self) -> int:
        """The multiply-adds of a step."""
        weights = [array for layer in self.layers for array in layer.weights.values()]
        if self.output is not None:
            weights.append(self.output[0])
        return sum(array.size for array in weights if array.ndim == 2)


def network_of(model: Any) -> Network:
    """The network of a model, or of recurrent layers alone.

    Raises:
        ValueError: the model computes something else; the message says what.

    >>> model = SequenceClassifier(num_classes=3, hidden_size=4, input_size=2, pooling="mean")
    >>> network_of(model).answer
    'softmax'
    >>> network_of(nn.Linear(3, 4))
    Traceback (most recent call last):
    ValueError: Linear cannot be exported so: expected recurrent layers, or a ...
    """
    name = type(model).__name__
    if isinstance(model, nn.Recurrent):
        return Network(
            f"{name} stack", model.in_int8, model.input_size, None, None, _layers(name, model)
        )
    if not isinstance(model, _READERS):
        raise ValueError(
            f"{name} cannot be exported so: expected recurrent layers, or a language model, "
            "classifier, regressor or tagger, which read a sequence step by step"
        )
    _check(name, model)
    codec, table = model.codec, None
    moments = None
    if model.embedding is not None:
        table = _finite("embedding", model.embedding.weight.data)
    elif codec is not None:
        moments = np.atleast_1d(codec.mean), np.atleast_1d(codec.scale)
    pooling, answer, decoding = "last", "scores", None
    if isinstance(model, (SequenceClassifier, SequenceRegressor)):
        pooling = model.pooling
    if isinstance(model, SequenceClassifier):
        answer = "sigmoid" if model.multi_label else "softmax"
    if isinstance(model, SequenceRegressor) and codec is not None:
        size = model.num_outputs
        decoding = (
            np.broadcast_to(codec.target_scale, size),
            np.broadcast_to(codec.target_mean, size),
        )
    bias = model.output.bias
    return Network(
        model.kind.replace("_", " "),
        model.in_int8,
        model.recurrent.input_size,
        table,
        moments,
        _layers(name, model.recurrent),
        pooling,
        (
            _finite("output.weight", model.output.weight.data),
            None if bias is None else _finite("output.bias", bias.data),
        ),
        answer,
        decoding,
        _labels(model),
        table is not None and model.embedding.weight is model.output.weight,
    )


def _check(name: str, model: Any) -> None:
    """Refuse what a network does not say."""
    base = next(base for base in _READERS if isinstance(model, base))
    if type(model).forward is not base.forward or type(model).read is not base.read:
        raise ValueError(f"{name} computes something other than {base.__name__}; export that")
    if model.characters is not None:
        raise ValueError(
            f"{name} also reads the characters of each word, which cannot be exported so; make it "
            "without num_characters"
        )
    if getattr(model, "crf", False):
        raise ValueError(
            f"{name} has a CRF, which chooses tags from the complete sequence; train it without "
            "(--no-crf)"
        )
    if getattr(model.codec, "frames", None) is not None:
        raise ValueError(
            f"{name} reads frames of several steps, which cannot be exported so; train it with "
            "single steps (--max-frames 0)"
        )


def _layers(name: str, recurrent: nn.Recurrent) -> list[Layer]:
    if recurrent.bidirectional:
        raise ValueError(
            f"{name} is bidirectional, so it reads a sequence from its end too and cannot run "
            "step by step; train it with bidirectional=False (--no-bidirectional)"
        )
    kind = recurrent.kind
    if type(recurrent).forward is not nn.Recurrent.forward or not isinstance(kind, CellLayer):
        raise ValueError(
            f"{name} has layers of {kind.name!r}, which are no cell and have no program"
        )
    if recurrent.trainable_state:
        raise ValueError(
            f"{name} has trained initial states, and what is exported starts at 0; train it "
            "without trainable_state"
        )
    cell = kind.cell
    if not cell.fused:
        raise ValueError(
            f"{name} has the cell {cell.name!r}, whose equations were not traced (fused=False), "
            "so it has no program to export"
        )
    if recurrent.dtype != np.float32:
        raise ValueError(
            f"{name} is of {recurrent.dtype}; expected float32: train it with dtype float32"
        )
    running = cells.zoneout(cell, recurrent.zoneout) if recurrent.zoneout else cell
    layers = []
    for k in range(recurrent.num_layers):
        weights = {
            own: _finite(f"{own}_l{k}", parameter.data)
            for own, parameter in recurrent._parameters(f"_l{k}").items()
        }
        parameters = {own: weights.pop(own) for own in cell.parameters}
        norm = None
        if recurrent.layer_norm:
            module = getattr(recurrent, f"norm_l{k}")
            norm = (
                _finite(f"norm_l{k}.weight", module.weight.data),
                _finite(f"norm_l{k}.bias", module.bias.data),
            )
        size = recurrent.output_size
        layers.append(
            Layer(
                running,
                running.trace,
                (size if k else recurrent.input_size, recurrent.hidden_size, size),
                weights,
                parameters,
                norm,
                module.epsilon if recurrent.layer_norm else 0.0,
            )
        )
    return layers


def _labels(model: Any) -> tuple[str, ...]:
    """The names of the outputs, from the codec."""
    sizes = ("vocabulary_size",) if isinstance(model, LanguageModel) else _SIZES
    entries = {} if model.codec is None else model.codec.entries()
    return next((tuple(entries[size]) for size in sizes if size in entries), ())


_SIZES = ("num_classes", "num_outputs", "num_tags")


def _finite(name: str, array: Array) -> Floats:
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or an infinite number; train again")
    return np.ascontiguousarray(array, np.float32)


def in_8_bits(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Integers [N, K] and scales [N] of a weight, as products of 8 bits have them.

    Raises:
        ValueError: the sums of its products may not fit into int32, or it has numbers beyond 2^127.

    >>> in_8_bits(np.array([[0.5, -1.27]], np.float32))[0].tolist()
    [[50, -127]]
    """
    integers, scales = quantized(weight)
    if weight.shape[1] > MAX_INT8_TERMS or not np.isfinite(scales).all():
        raise ValueError(
            f"a weight {list(weight.shape)} cannot be exported in 8 bits: expected at most "
            f"{MAX_INT8_TERMS} columns, and numbers below 2^127"
        )
    return integers, scales
