"""Layers and weights of others as models of `anaphora.models`, where they have their shape.

That shape is an embedding or features, recurrent layers of one kind and size, pooling for one
prediction per sequence, and a linear layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors

from anaphora import nn
from anaphora.artifact import ArtifactError
from anaphora.artifact.files import read_bytes
from anaphora.cells import CELLS, Cell
from anaphora.interop.layers import MaskedRecurrent, MaskingEmbedding, Pooling, named_function
from anaphora.models import (
    LanguageModel,
    SavedModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)
from anaphora.nn.initialization import shapes_only
from anaphora.nn.reset_before import half_gru
from anaphora.tensor import Array

__all__ = ["Parts", "from_layers", "from_state", "read_safetensors"]

TASKS = {
    "language-model": LanguageModel,
    "tag": SequenceTagger,
    "classify": SequenceClassifier,
    "regress": SequenceRegressor,
}
"""The models that can be made, by the names of their tasks."""


class Parts(NamedTuple):
    """A network that has the shape of our models.

    Attributes:
        cell: The kind of its recurrent layers.
        recurrent: Their parameters, named as those of one `nn.Recurrent`.
        sizes: The options hidden_size, num_layers and bidirectional.
        output: The weight [O, D*H] of the linear layer, and its bias [O] or None.
        embedding: The table [V, E]; None for features.
        pooling: How outputs are pooled; None for predictions at each step; "" if not known.
        activation: That of the predictions; "" if not known.
        dropout: Of the layers, in training.

    >>> Parts("gru", {}, {}, (np.ones((2, 3)), None)).pooling
    ''
    """

    cell: str | Cell
    recurrent: Mapping[str, Array]
    sizes: Mapping[str, Any]
    output: tuple[Array, Array | None]
    embedding: Array | None = None
    pooling: str | None = ""
    activation: str = ""
    dropout: float = 0.0

    def task(self) -> str:
        """The task for which such a network is used.

        Raises:
            ValueError: several are possible.
        """
        outputs, V = len(self.output[0]), None if self.embedding is None else len(self.embedding)
        if self.pooling in (None, "") and outputs == V:
            return "language-model"
        if self.pooling is None and self.activation == "softmax":
            return "tag"
        if self.pooling and self.activation in ("softmax", "sigmoid"):
            return "classify"
        if self.pooling and self.activation == "linear":
            return "regress"
        raise ValueError(
            f"it does not say what its {outputs} outputs are; give the task, one of "
            f"{', '.join(TASKS)}"
        )

    def model(self, task: str | None = None) -> SavedModel:
        """The model with these weights, in evaluation mode.

        Args:
            task: A name of `TASKS`; None for the one that fits.

        Raises:
            ValueError: none fits, or not this one.
        """
        task = self.task() if task is None else task
        if task not in TASKS:
            raise ValueError(f"the task {task!r:.40} is not one of {', '.join(TASKS)}")
        each_step, outputs = task in ("language-model", "tag"), len(self.output[0])
        if self.pooling != "" and each_step == bool(self.pooling):
            raise ValueError(
                f"the task {task} predicts {'at each step' if each_step else 'once per sequence'}, "
                f"but the network {'once per sequence' if self.pooling else 'at each step'}"
            )
        embedding, (weight, bias) = self.embedding, self.output
        body: dict[str, Any] = {
            **self.sizes, "cell": self.cell, "dropout": self.dropout,
            "dtype": str(weight.dtype),
        }  # fmt: skip
        if embedding is not None:
            body |= {"vocabulary_size": len(embedding), "embedding_size": embedding.shape[1]}
        else:
            body["input_size"] = self.recurrent["weight_ih_l0"].shape[1]
        if task == "language-model":
            if embedding is None or outputs != len(embedding) or body.pop("bidirectional"):
                raise ValueError(
                    "a language model has an embedding, as many outputs as its table has rows, and "
                    "one direction; give another task"
                )
            body["tied"] = np.array_equal(weight, embedding)
        elif task == "tag":
            body["num_tags"] = outputs
        else:
            body["num_classes" if task == "classify" else "num_outputs"] = outputs
            body["pooling"] = self.pooling or "last"
            if task == "classify" and self.activation == "sigmoid":
                body["multi_label"] = True
        with shapes_only():
            made: SavedModel = TASKS[task](**body)
        arrays = {f"recurrent.{name}": array for name, array in self.recurrent.items()}
        arrays["output.weight"] = weight
        arrays["output.bias"] = np.zeros(outputs, weight.dtype) if bias is None else bias
        if embedding is not None:
            arrays["embedding.weight"] = embedding
        for name, parameter in made.named_parameters():
            array = arrays.get(name, np.zeros(parameter.shape))  # a bias that the network lacks
            if array.shape != parameter.shape:
                raise ValueError(
                    f"{name} would be {list(parameter.shape)}, but is {list(array.shape)}"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{name} has numbers that are not finite")
            parameter.assign(array)
        return made.eval()


# Layers -------------------------------------------------------------------------------------------


def from_layers(layers: Mapping[str, nn.Module], task: str | None = None) -> SavedModel:
    """The model with the weights of layers that follow one another.

    Args:
        layers: The layers by name, in order.
        task: "language-model", "tag", "classify" or "regress"; None for the one that fits.

    Raises:
        ValueError: the layers do not have the shape of a model; the message names the first that
            does not fit.

    >>> layers = [nn.Embedding(9, 3), nn.GRU(3, 4), nn.Linear(4, 9), nn.Softmax()]
    >>> type(from_layers(dict(enumerate(layers)))).__name__
    'LanguageModel'
    """
    table, recurrents, pooling, output = None, list[nn.Recurrent](), "", None
    activation, dropout = "linear", 0.0
    for name, layer in layers.items():
        if isinstance(layer, nn.Dropout):
            dropout = max(dropout, layer.p)
        elif isinstance(layer, nn.Embedding | MaskingEmbedding) and not recurrents and not table:
            table = layer.table if isinstance(layer, MaskingEmbedding) else layer
        elif isinstance(layer, nn.Recurrent | MaskedRecurrent) and output is None and not pooling:
            recurrents.append(_plain(name, layer))
            if isinstance(layer, MaskedRecurrent):
                dropout = max(dropout, layer.dropout.p)
                pooling = "" if layer.return_sequences else "last"
        elif isinstance(layer, Pooling) and recurrents and not pooling:
            pooling = layer.kind
        elif type(layer) is nn.Linear and recurrents and output is None:
            output = layer
        elif (found := named_function(layer)) and output is not None and activation == "linear":
            activation = found[0].removeprefix("log_") if "softmax" in found[0] else found[0]
        else:
            raise ValueError(
                f"layer {name!r} ({type(layer).__name__}) is not where a model has one: embedding, "
                "recurrent layers, pooling, a linear layer, softmax or sigmoid; use the module "
                "itself, in Python"
            )
    if not recurrents or output is None:
        raise ValueError("it has no recurrent layer, or no linear layer after it")
    if activation not in ("linear", "softmax", "sigmoid"):
        raise ValueError(f"its last activation is {activation}; models have softmax or sigmoid")
    bias = None if output.bias is None else output.bias.data
    parts = Parts(
        *_stacked(recurrents),
        output=(output.weight.data, bias),
        embedding=None if table is None else table.weight.data,
        pooling=pooling or None,
        activation=activation,
        dropout=dropout,
    )
    return parts.model(task)


def _plain(name: str, layer: nn.Recurrent | MaskedRecurrent) -> nn.Recurrent:
    """The recurrent layer, if it has what the layers of a model have.

    Raises:
        ValueError: it does not.
    """
    if isinstance(layer, MaskedRecurrent):
        if layer.go_backwards or layer.merge != "concat":
            raise ValueError(
                f"layer {name!r} goes backwards, or does not concatenate its directions"
            )
        layer = layer.recurrent
    if not isinstance(_cell(layer), (str, Cell)):
        raise ValueError(f"layer {name!r} is a {layer.kind.name}, which models do not have")
    if layer.proj_size:
        raise ValueError(f"layer {name!r} has a projection, which models do not have")
    return layer


def _stacked(
    recurrents: list[nn.Recurrent],
) -> tuple[str | Cell, dict[str, Array], dict[str, Any]]:
    """The cell, the parameters and the sizes of recurrent layers as one of several layers."""
    first = recurrents[0]
    parameters: dict[str, Array] = {}
    count = 0
    cell = _cell(first)
    for layer in recurrents:
        if (_cell(layer), layer.hidden_size, layer.bidirectional) != (
            cell, first.hidden_size, first.bidirectional
        ):  # fmt: skip
            raise ValueError("its recurrent layers differ in their cell, size or directions")
        for name, parameter in layer.named_parameters():
            base, _, rest = name.rpartition("_l")
            number, _, reverse = rest.partition("_")
            place = f"_l{count + int(number)}" + (f"_{reverse}" if reverse else "")
            parameters[base + place] = parameter.data
        count += layer.num_layers
    sizes = {
        "hidden_size": first.hidden_size, "num_layers": count, "bidirectional": first.bidirectional,
    }  # fmt: skip
    return cell, parameters, sizes


def _cell(layer: nn.Recurrent) -> Any:
    """The cell of a layer as models take it: by its name if it has one."""
    kind, cell = layer.kind, layer.cell
    if isinstance(kind, nn.ResetBeforeGRU) and kind.half is half_gru:
        return kind.name
    return kind.name if CELLS.get(kind.name) is cell else cell


# States -------------------------------------------------------------------------------------------

_RECURRENT = re.compile(r"(.*?)((?:weight|bias)_(?:ih|hh))_l(\d+)((?:_reverse)?)")


def from_state(state: Mapping[str, Array], task: str | None = None) -> SavedModel:
    """The model with the weights of a PyTorch ``state_dict``, found by their names and shapes.

    One or several RNN (tanh), LSTM or GRU, an embedding or none, and a linear layer.

    Args:
        state: Arrays by name.
        task: As for `from_layers`; a state does not say how outputs are pooled, so it is needed
            unless there are as many outputs as the embedding has rows. "classify" and "regress"
            take the last step's.

    Raises:
        ValueError: it has other parts, or they do not fit; the message names them.

    >>> state = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2)).state_dict()
    >>> from_state(state, "classify").hidden_size
    4
    """
    state = {name.removeprefix("module."): np.asarray(array) for name, array in state.items()}
    groups: dict[str, dict[str, Array]] = {}
    rest: dict[str, Array] = {}
    for name, array in state.items():
        if found := _RECURRENT.fullmatch(name):
            groups.setdefault(found[1], {})[name.removeprefix(found[1])] = array
        else:
            rest[name] = array
    if not groups:
        raise ValueError(f"it has no recurrent layer (weight_ih_l0, ...): {_shown(state)}")
    layers = [_layer(prefix, arrays) for prefix, arrays in groups.items()]
    cell, recurrent, sizes = _stacked(layers)
    width = sizes["hidden_size"] * (2 if sizes["bidirectional"] else 1)
    matrices = {n.removesuffix("weight"): a for n, a in rest.items() if a.ndim == 2}
    reads = {prefix: array.shape[1] for prefix, array in matrices.items()}
    bare = [prefix for prefix in matrices if f"{prefix}bias" not in rest]
    tables = [p for p in bare if reads[p] == recurrent["weight_ih_l0"].shape[1]][:1]
    outputs = [p for p in matrices if p not in bare and reads[p] == width]
    outputs = outputs or [p for p in bare if p not in tables and reads[p] == width]
    known = {f"{p}{kind}" for p in (*outputs, *tables) for kind in ("weight", "bias")}
    if len(outputs) != 1 or rest.keys() - known:
        raise ValueError(
            "besides recurrent layers it must have one linear layer, and perhaps an embedding, and "
            f"nothing else; it has {_shown(rest)}"
        )
    (output,) = outputs
    return Parts(
        cell,
        recurrent,
        sizes,
        (matrices[output], rest.get(f"{output}bias")),
        matrices[tables[0]] if tables else None,
    ).model(task)


def _layer(prefix: str, arrays: Mapping[str, Array]) -> nn.Recurrent:
    """The recurrent layer of a state.

    Raises:
        ValueError: its arrays do not fit together.
    """
    name = prefix.rstrip(".") or "the recurrent layer"
    first, hidden = arrays.get("weight_ih_l0"), arrays.get("weight_hh_l0")
    if first is None or hidden is None or first.ndim != 2 or hidden.ndim != 2:
        raise ValueError(f"{name} lacks weight_ih_l0 or weight_hh_l0: {_shown(arrays)}")
    H = hidden.shape[1]
    cell = {1: "rnn", 3: "gru", 4: "lstm"}.get(len(first) // H if H and not len(first) % H else 0)
    if cell is None or not first.shape[1]:
        raise ValueError(f"{name} is not an RNN, LSTM or GRU by its shapes: {_shown(arrays)}")
    numbers = {int(key.rpartition("_l")[2].partition("_")[0]) for key in arrays}
    with shapes_only():
        layer = nn.Recurrent(
            cell, first.shape[1], H, len(numbers), bias="bias_ih_l0" in arrays,
            bidirectional="weight_ih_l0_reverse" in arrays,
            dtype=np.float64 if first.dtype == np.float64 else np.float32,
        )  # fmt: skip
    for key, parameter in layer.named_parameters():
        if key not in arrays or arrays[key].shape != parameter.shape:
            raise ValueError(f"{name}: {key} should be {list(parameter.shape)}: {_shown(arrays)}")
        parameter.assign(arrays[key])
    return layer


def _shown(arrays: Mapping[str, Array], count: int = 8) -> str:
    shown = [f"{name} {list(array.shape)}" for name, array in [*arrays.items()][:count]]
    return ", ".join(shown) + (f" and {len(arrays) - count} more" if len(arrays) > count else "")


def read_safetensors(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file, of bfloat16 and float16 too, which become float32.

    Raises:
        ArtifactError: the file is missing or damaged, or has numbers that are not floats.

    >>> read_safetensors(Path("missing.safetensors"))
    Traceback (most recent call last):
    anaphora.artifact.files.ArtifactError: missing.safetensors: cannot be read: No such file ...
    """
    try:
        return dict(_arrays(read_bytes(path)))
    except (safetensors.SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path}: is not a readable safetensors file: {error}") from error


def read(path: Path, task: str | None, config: Path | None) -> SavedModel:
    """For `interop.read`: the model with the weights of a safetensors file."""
    return of_state(path, read_safetensors(path), task, config)


def of_state(
    path: Path, state: Mapping[str, Array], task: str | None, config: Path | None
) -> SavedModel:
    """As `from_state`, with the file in messages; the configuration is for Keras's files."""
    if config is not None:
        raise ValueError(f"{path}: needs no configuration; omit it")
    try:
        return from_state(state, task)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(data: bytes) -> Iterator[tuple[str, Array]]:
    dtypes = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    for name, tensor in safetensors.deserialize(data):  # type: ignore[no-untyped-call]
        kind, shape = tensor["dtype"], tensor["shape"]
        if kind == "BF16":
            bits = np.frombuffer(tensor["data"], "<u2").astype(np.uint32)
            yield name, (bits << np.uint32(16)).view(np.float32).reshape(shape)
        elif kind in dtypes:
            array = np.frombuffer(tensor["data"], dtypes[kind]).reshape(shape)
            yield name, array.astype(np.float64 if kind == "F64" else np.float32)
        elif "num_batches" not in name:
            raise ValueError(f"{name!r:.80} is of {kind}; expected floats")
