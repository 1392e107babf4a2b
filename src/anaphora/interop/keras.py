"""Models that Keras saved: ``.keras`` and ``.h5`` files, read without Keras.

A file may come from an untrusted source. Nothing in it is executed, and it cannot ask for more
memory than a small multiple of its size.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anaphora import nn
from anaphora.artifact import ArtifactError
from anaphora.artifact.files import parse_json, read_bytes
from anaphora.interop.cells import Activation, gru_cell, lstm_cell, rnn_cell
from anaphora.interop.layers import (
    MERGES,
    Masked,
    MaskedRecurrent,
    Masking,
    MaskingEmbedding,
    Pooling,
    Repeat,
    ResetBefore,
    Unmasked,
    function,
)
from anaphora.interop.models import from_layers
from anaphora.models import SavedModel
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import Array, as_tensor

__all__ = ["Sequential", "load"]

_LARGEST_CONFIG = 1 << 24  # bytes of JSON
_LARGEST_RATIO = 20  # of the sizes of a file in a zip archive and of its compressed data


class Sequential(nn.Module):
    """A Keras model whose layers follow one another, with batches [B, T, ...] as in Keras.

    Attributes:
        layers: The layers by their names in Keras; an activation of a layer comes after it, as
            NAME_activation.

    >>> model = Sequential({"dense": nn.Linear(3, 2)})
    >>> model(np.ones((4, 5, 3), np.float32)).shape
    (4, 5, 2)
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.layers = dict(layers)

    @property
    def stateful(self) -> bool:
        """Whether a layer continues from the state of the call before."""
        return any(getattr(layer, "stateful", False) for layer in self.layers.values())

    def forward(self, x: Any, state: Mapping[str, Any] | None = None) -> Any:
        """Run all layers.

        Args:
            x: Ids [B, T] or features [B, T, I].
            state: Of a stateful model: the states of its layers by name, as a call returned them,
                or None to begin anew.

        Returns:
            The output; of a stateful model, the output and the state.

        Raises:
            ValueError: a shape does not match; the message names the layer.
        """
        mask, states = None, dict(state or {})
        for name, layer in self.layers.items():
            try:
                if isinstance(layer, MaskedRecurrent):
                    before = states.get(name) if layer.stateful else None
                    x, mask, after = layer(x, mask, before)
                    if layer.stateful:
                        states[name] = after
                elif isinstance(layer, Masked):
                    x, mask = layer(x, mask)
                else:
                    x = layer(x)
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from error
        return (x, states) if self.stateful else x


def load(path: str | os.PathLike[str], config: str | os.PathLike[str] | None = None) -> Sequential:
    """Read a model of Keras 3 or Keras 2, in evaluation mode.

    Its layers must follow one another: SimpleRNN, LSTM, GRU (also CuDNN's), RNN of one of their
    cells, Bidirectional, Embedding, Masking, Dense, Conv1D, LayerNormalization, BatchNormalization,
    TimeDistributed, RepeatVector, dropouts, activations and global pooling. Activations of a cell
    become its equations, which the engine runs. What matters in training alone (optimizer,
    regularizers, recurrent dropout) is omitted; a warning says so where it is a layer's.

    Args:
        path: A ``.keras`` file, an ``.h5`` file of ``model.save``, or one of
            ``model.save_weights``.
        config: For a file of weights alone, a file with what ``model.to_json()`` returned.

    Raises:
        ImportError: h5py is missing: ``pip install 'anaphora[keras]'``.
        ArtifactError: the file is missing or damaged, or has something that cannot be read; the
            message names the layer.

    >>> load("model.txt")
    Traceback (most recent call last):
    anaphora.artifact.files.ArtifactError: model.txt: its name must end with .keras, .h5 or .hdf5
    """
    path = Path(path)
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise ArtifactError(f"{path}: its name must end with .keras, .h5 or .hdf5")
    h5py = _h5py()
    data = read_bytes(path)
    given = None if config is None else read_bytes(Path(config))
    try:
        saved = _saved(data, given, h5py)
        return _sequential(saved)
    except ValueError as error:  # what h5py and zipfile find is made one, too
        raise ArtifactError(f"{path}: {error}") from error


def read(path: Path, task: str | None, config: Path | None) -> SavedModel:
    """For `interop.read`: the model with the weights of a file."""
    layers = load(path, config).layers
    try:
        return from_layers(layers, task)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError('Keras files need an extra: pip install "anaphora[keras]"') from error
    return h5py


# The files ----------------------------------------------------------------------------------------


class _Saved(NamedTuple):
    """What a file holds: the model's configuration, Keras's version, and weights by layer."""

    config: Mapping[str, Any]
    version: int
    weights: Callable[[Sequence[Mapping[str, Any]]], list[list[Array]]]


def _saved(data: bytes, config: bytes | None, h5py: Any) -> _Saved:
    """Take a file apart.

    Raises:
        ValueError: it is damaged.
    """
    if data[:4] == b"PK\x03\x04":
        archive = _Archive(data)
        if config is None:
            config = archive.read("config.json", _LARGEST_CONFIG)
        metadata = _json(archive.read("metadata.json", _LARGEST_CONFIG), "metadata.json")
        hdf5 = _HDF5(archive.read("model.weights.h5", len(data) * _LARGEST_RATIO), h5py)
        return _Saved(_json(config, "config.json"), _version(metadata), hdf5.by_class)
    hdf5 = _HDF5(data, h5py)
    stored = hdf5.text(hdf5.file, "model_config")
    config = stored.encode() if config is None and stored else config
    if config is None:
        raise ValueError(
            "holds weights alone; give config=, a file with what model.to_json() returned, or save "
            "with model.save('model.keras')"
        )
    found = _json(config, "the configuration")
    if (layers := hdf5.group(hdf5.file, "layers", "_layer_checkpoint_dependencies")) is not None:
        return _Saved(found, 3, lambda configs: hdf5.by_class(configs, layers))
    weights = hdf5.group(hdf5.file, "model_weights") or hdf5.file
    version = hdf5.text(hdf5.file, "keras_version") or hdf5.text(weights, "keras_version")
    return _Saved(
        found,
        _version({"keras_version": version}),
        lambda configs: hdf5.by_name(configs, weights),
    )


def _version(metadata: Mapping[str, Any]) -> int:
    """The first number of Keras's version; 2 if there is none, as in old files."""
    found = re.match(r"(\d{1,4})\.", str(metadata.get("keras_version")))
    return int(found[1]) if found else 2


def _json(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        value = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return value


class _Archive:
    """A zip archive in memory, whose files must be as large as they say, and not much larger than
    their compressed data.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise ValueError(f"is damaged: {error}; copy it again") from error

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file.

        Raises:
            ValueError: it is missing, damaged, or larger than the limit.
        """
        try:
            member = self.zip.getinfo(name)
        except KeyError:
            held = ", ".join(sorted(self.zip.namelist())[:8])
            raise ValueError(
                f"has no {name}, which model.save('model.keras') writes; it holds {held:.300}"
            ) from None
        if member.file_size > min(limit, _LARGEST_RATIO * member.compress_size + 4096):
            raise ValueError(
                f"{name} would be {member.file_size:,} bytes from {member.compress_size:,} "
                "compressed ones, more than a model needs; save it again"
            )
        try:
            with self.zip.open(member) as file:
                data = file.read(member.file_size + 1)
        except Exception as error:  # zlib, zipfile, bz2 and lzma raise their own
            raise ValueError(f"{name} is damaged: {error}; copy the file again") from error
        if len(data) != member.file_size:
            raise ValueError(f"{name} is truncated; copy the file again")
        return data


class _HDF5:
    """An HDF5 file in memory.

    Only groups and arrays of the file itself are read, not what links lead to, and no array that is
    larger than the file.
    """

    def __init__(self, data: bytes, h5py: Any) -> None:
        self.size, self.h5py = len(data), h5py
        self.left = len(data)  # bytes of arrays that may still be read
        with _damage():
            self.file = h5py.File(io.BytesIO(data), "r")

    def child(self, parent: Any, name: str) -> Any:
        """A member of a group, or None."""
        with _damage():
            link = parent.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, self.h5py.HardLink):
                raise ValueError(f"{name!r:.80} is a link to elsewhere, which is not followed")
            return parent[name]

    def group(self, parent: Any, *names: str) -> Any:
        """The first of these members that is a group, or None."""
        found = (self.child(parent, name) for name in names)
        return next((g for g in found if isinstance(g, self.h5py.Group)), None)

    def text(self, parent: Any, name: str) -> str | None:
        """An attribute that is a string, or None."""
        value = self.attribute(parent, name)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return value if isinstance(value, str) else None

    def texts(self, parent: Any, name: str) -> list[str]:
        """An attribute that is a list of strings, which may be cut into name0, name1, ..."""
        found: list[str] = []
        for part in itertools.chain([name], (f"{name}{number}" for number in itertools.count())):
            values = self.attribute(parent, part)
            if values is None and part != name:
                return found
            found += [] if values is None else _strings(values)
        return found

    def attribute(self, parent: Any, name: str) -> Any:
        """An attribute, or None; not one that is larger than the file."""
        with _damage():
            if name not in parent.attrs:
                return None
            held = parent.attrs.get_id(name)
            if int(np.prod(held.shape, dtype=object)) * held.dtype.itemsize > self.size:
                raise ValueError(f"its attribute {name!r:.80} is larger than the file")
            return parent.attrs[name]

    def array(self, dataset: Any, name: str) -> Array:
        """The numbers of a dataset; of bfloat16 and float16 as float32.

        Raises:
            ValueError: they are not floats, are elsewhere, or would be larger than the file.
        """
        with _damage():
            if not isinstance(dataset, self.h5py.Dataset):
                raise ValueError(f"{name!r:.80} is not an array")
            if dataset.is_virtual or dataset.external:
                raise ValueError(f"{name!r:.80} lies in another file, which is not read")
            bfloat16 = dataset.dtype.itemsize == 2 and dataset.attrs.get("dtype") == "bfloat16"
            if not bfloat16 and dataset.dtype.kind != "f":
                raise ValueError(f"{name!r:.80} is of {dataset.dtype!s:.40}; expected floats")
            size = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
            self.left -= size
            if self.left < 0:
                raise ValueError(
                    f"its arrays, such as {name!r:.80} of {list(dataset.shape)!s:.60}, would be "
                    "larger than the file, which is damaged or was compressed; save it again"
                )
            values = np.asarray(dataset[()])
        if bfloat16:
            bits = values.view(np.uint16).reshape(values.shape).astype(np.uint32)
            return (bits << np.uint32(16)).view(np.float32)
        return values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)

    # Keras 3: a group for each layer, named by its class and its number among those of the class

    def by_class(
        self, configs: Sequence[Mapping[str, Any]], layers: Any = None
    ) -> list[list[Array]]:
        """The arrays of each layer."""
        if layers is None:
            layers = self.group(self.file, "layers", "_layer_checkpoint_dependencies")
            if layers is None:
                raise ValueError("model.weights.h5 has no group of layers; save the model again")
        found, counts = [], dict[str, int]()
        for config in configs:
            name = _snake_case(str(config.get("class_name")))
            number = counts[name] = counts.get(name, -1) + 1
            group = self.group(layers, f"{name}_{number}" if number else name)
            found.append([] if group is None else [*self._arrays(group, name)])
        return found

    def _arrays(self, group: Any, place: str, depth: int = 4) -> Iterator[Array]:
        """The variables of a layer, and of the layers and cells inside it, as Keras orders them."""
        variables = self.group(group, "vars")
        number = 0
        while variables is not None and (v := self.child(variables, f"{number}")) is not None:
            yield self.array(v, f"{place}/vars/{number}")
            number += 1
        for name in ("cell", "layer", "forward_layer", "backward_layer") if depth else ():
            if (inner := self.group(group, name)) is not None:
                yield from self._arrays(inner, f"{place}/{name}", depth - 1)

    # Keras 2: a group for each layer with its name, and an attribute with the names of its arrays

    def by_name(self, configs: Sequence[Mapping[str, Any]], layers: Any) -> list[list[Array]]:
        """The arrays of each layer."""
        found = []
        for config in configs:
            group = self.group(layers, str(_inner(config).get("name")))
            arrays = []
            for name in [] if group is None else self.texts(group, "weight_names"):
                member = group
                for part in name.split("/"):
                    if not isinstance(member, self.h5py.Group):
                        raise ValueError(f"has no array {name!r:.80}; save the model again")
                    member = self.child(member, part)
                arrays.append(self.array(member, name))
            found.append(arrays)
        return found


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """A context in which whatever h5py raises for a damaged file is a ValueError."""
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:
            raise
        raise ValueError(f"is not an intact HDF5 file: {error!s:.200}; copy it again") from error


def _strings(values: Any) -> list[str]:
    flat = np.asarray(values, object).reshape(-1)
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in flat]


def _snake_case(name: str) -> str:
    """As Keras names the groups of layers."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# The layers ---------------------------------------------------------------------------------------


def _inner(config: Any) -> Mapping[str, Any]:
    """The configuration of a layer itself, within that of its class."""
    found = config.get("config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _sequential(saved: _Saved) -> Sequential:
    """Build the model of a file.

    Raises:
        ValueError: a layer cannot be read, or does not match its weights.
    """
    configs = _chain(saved.config)
    arrays = saved.weights(configs)
    held = [array for of_layer in arrays for array in of_layer]
    dtype = np.float64 if any(array.dtype == np.float64 for array in held) else np.float32
    layers: dict[str, nn.Module] = {}
    for config, weights in zip(configs, arrays, strict=True):
        layer = _Layer(config, weights, saved.version, dtype)
        if layer.kind in _NOTHING:
            continue
        try:
            modules = layer.modules()
        except (TypeError, ValueError) as error:
            raise ValueError(f"layer {layer.name!r:.80} ({layer.kind:.40}): {error}") from error
        for suffix, module in modules.items():
            if layers.setdefault(name := layer.name + suffix, module) is not module:
                raise ValueError(f"two layers have the name {name!r:.80}")
    if not layers:
        raise ValueError("its model has no layers")
    return Sequential(layers).eval()


def _chain(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The configurations of the layers of a model in which each reads the one before."""
    kind, config = model.get("class_name"), model.get("config")
    if kind == "Sequential" and isinstance(config, list):  # Keras 2.0
        layers: Any = config
    elif kind in ("Sequential", "Functional", "Model") and isinstance(config, dict):
        layers = config.get("layers")
    else:
        raise ValueError(
            f"its model is a {kind!s:.60}; a Sequential can be read, or a Functional whose layers "
            "follow one another"
        )
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("its configuration has no list of layers")
    if kind != "Sequential":
        before: str | None = None
        for layer in layers:
            name = str(layer.get("name") or _inner(layer).get("name"))
            if layer.get("class_name") in _MASK_OPERATIONS:
                continue
            sources = [*_sources(layer.get("inbound_nodes"))]
            if sources != ([] if before is None else [before]):
                raise ValueError(
                    f"layer {name!r:.80} reads {', '.join(sources) or 'nothing'!s:.200}, not the "
                    f"layer before it alone, {before!s:.80}; only such chains can be read"
                )
            before = name
    return layers


_NOTHING = {"InputLayer", "NotEqual", "Any"}
"""Layers that do nothing here: the input, and the mask that Keras 3 writes as operations."""
_MASK_OPERATIONS = {"NotEqual", "Any"}


def _sources(nodes: Any) -> Iterator[str]:
    """The names of the layers that a layer reads, by its first arguments."""
    if isinstance(nodes, dict):
        if isinstance(history := nodes.get("keras_history"), list) and history:
            yield str(history[0])
        else:
            yield from _sources(nodes["args"] if "args" in nodes else nodes.get("config"))
    elif isinstance(nodes, list):
        if len(nodes) in (3, 4) and isinstance(nodes[0], str):  # Keras 2: [name, 0, 0, {}]
            yield nodes[0]
        else:
            for node in nodes:
                yield from _sources(node)


_ACTIVATIONS: dict[str, Activation] = {
    name: (name, ())
    for name in (
        "linear", "tanh", "sigmoid", "relu", "softplus", "softsign", "elu", "selu", "silu", "mish",
        "log_sigmoid", "softmax", "log_softmax", "gelu",
    )
} | {
    "exponential": ("exp", ()),
    "swish": ("silu", ()),
    "relu6": ("clipped", (0.0, 6.0)),
    "hard_tanh": ("clipped", (-1.0, 1.0)),
    "tanh_shrink": ("tanhshrink", ()),
    "hard_silu": ("hard_silu", (1 / 6,)),
    "hard_swish": ("hard_silu", (1 / 6,)),
    "leaky_relu": ("leaky_relu", (0.2,)),
}  # fmt: skip


def _activation(name: Any, version: int) -> Activation:
    """What an activation of Keras is here.

    Raises:
        ValueError: nothing.
    """
    if isinstance(name, dict):  # a function or a layer, in full
        name = _inner(name).get("name") or name.get("config") or name.get("class_name")
    if name is None:
        return "linear", ()
    if name == "hard_sigmoid":  # Keras 3 changed it
        return "hard_sigmoid", (1 / 6 if version >= 3 else 0.2,)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join([*_ACTIVATIONS, "hard_sigmoid"])
        raise ValueError(f"its activation {name!s:.60} is not one of {known}")
    return _ACTIVATIONS[name]


class _Layer:
    """One layer of a file, and the modules that it becomes."""

    def __init__(
        self, config: Mapping[str, Any], weights: list[Array], version: int, dtype: Any
    ) -> None:
        self.kind = str(config.get("class_name"))
        self.config = _inner(config)
        self.weights = weights
        self.version = version
        self.dtype = dtype
        self.name = str(self.config.get("name", self.kind))

    # Options, with checks: a file may say anything

    def option(self, name: str, kind: type, default: Any = None) -> Any:
        value = self.config.get(name, default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"its {name} is {value!r:.60}; expected {kind.__name__}")
        return value

    def single(self, name: str, default: int) -> int:
        """An integer that may stand in a list of one."""
        value = self.config.get(name, default)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"its {name} is {value!r:.60}; expected one integer")
        return value

    def activation(self, name: str = "activation", default: str = "linear") -> Activation:
        return _activation(self.config.get(name, default), self.version)

    def inside(self, name: str) -> _Layer:
        """The layer in this one."""
        found = self.config.get(name)
        if not isinstance(found, dict):
            raise ValueError(f"has no {name}")
        return _Layer(found, self.weights, self.version, self.dtype)

    def arrays(self, *dimensions: int) -> list[Array]:
        """The weights, with these numbers of axes."""
        if [array.ndim for array in self.weights] != [*dimensions]:
            raise ValueError(
                f"its weights have the shapes {[list(a.shape) for a in self.weights]!s:.200}; "
                f"expected {len(dimensions)} with {', '.join(map(str, dimensions))} axes"
            )
        return self.weights

    # What it becomes

    def modules(self) -> dict[str, nn.Module]:
        """The modules by what is added to the layer's name: "" and perhaps an activation."""
        if self.kind in _RECURRENT or self.kind in ("RNN", "Bidirectional"):
            return {"": self.recurrent()}
        if self.kind == "TimeDistributed":
            return self.time_distributed()
        if self.kind not in _PLAIN:
            known = ", ".join([*_RECURRENT, "RNN", "Bidirectional", "TimeDistributed", *_PLAIN])
            raise ValueError(f"a layer of this class cannot be read; expected {known}")
        module = _PLAIN[self.kind](self)
        activation = self.activation() if self.kind in ("Dense", "Conv1D") else ("linear", ())
        if activation == ("linear", ()):
            return {"": module}
        return {"": module, "_activation": function(activation[0], *activation[1])}

    def filled(self, module: nn.Module, **arrays: Array) -> Any:
        """A module made without memory, with its parameters."""
        for name, parameter in module.named_parameters():
            if parameter.shape != arrays[name].shape:
                raise ValueError(
                    f"its configuration makes {name} {list(parameter.shape)}, its weights "
                    f"{list(arrays[name].shape)}"
                )
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"its {name} has numbers that are not finite")
            parameter.assign(arrays[name])
        return module

    def dense(self) -> nn.Module:
        bias = self.option("use_bias", bool, True)
        kernel, *rest = self.arrays(*((2, 1) if bias else (2,)))
        with shapes_only():
            layer = nn.Linear(len(kernel), self.option("units", int), bias, dtype=self.dtype)
        module: nn.Module = self.filled(layer, weight=kernel.T, **_bias(rest))
        return module

    def convolution(self) -> nn.Module:
        bias = self.option("use_bias", bool, True)
        kernel, *rest = self.arrays(*((3, 1) if bias else (3,)))  # [K, I / groups, O]
        padding = self.config.get("padding", "valid")
        if padding not in ("valid", "same", "causal"):
            raise ValueError(f"its padding is {padding!r:.60}")
        if self.config.get("data_format") == "channels_first":
            raise ValueError("its data_format is channels_first; features must come last")
        groups = self.option("groups", int, 1)
        with shapes_only():
            layer = nn.Conv1d(
                kernel.shape[1] * groups,
                self.option("filters", int),
                self.single("kernel_size", 0),
                self.single("strides", 1),
                0 if padding == "valid" else padding,
                self.single("dilation_rate", 1),
                groups,
                bias,
                batch_first=True,
                dtype=self.dtype,
            )
        weight = kernel.transpose(2, 1, 0)
        return Unmasked(
            self.filled(layer, weight=weight, **dict(zip(["bias"], rest, strict=False)))
        )

    def embedding(self) -> nn.Module:
        (table,) = self.arrays(2)
        with shapes_only():
            layer = nn.Embedding(
                self.option("input_dim", int), self.option("output_dim", int), dtype=self.dtype
            )
        module: nn.Embedding = self.filled(layer, weight=table)
        return MaskingEmbedding(module) if self.option("mask_zero", bool, False) else module

    def layer_norm(self) -> nn.Module:
        scale, center = self.option("scale", bool, True), self.option("center", bool, True)
        if self.config.get("rms_scaling"):
            raise ValueError("its rms_scaling, which subtracts no mean, cannot be read")
        given = self.arrays(*[1] * (scale + center))
        self.check_axis()
        if not given:
            raise ValueError("without scale and center it cannot be read")
        weight = given[0] if scale else np.ones_like(given[0])
        bias = {"bias": given[-1]} if center else {}
        with shapes_only():
            layer = nn.LayerNorm(
                len(weight), self.option("epsilon", float, 1e-3), center, dtype=self.dtype
            )
        module: nn.Module = self.filled(layer, weight=weight, **bias)
        return module

    def batch_norm(self) -> nn.Module:
        scale, center = self.option("scale", bool, True), self.option("center", bool, True)
        *given, mean, variance = self.arrays(*[1] * (scale + center + 2))
        self.check_axis()
        size = len(mean)
        with shapes_only():
            layer = nn.BatchNorm1d(
                size,
                self.option("epsilon", float, 1e-3),
                1 - self.option("momentum", float, 0.99),
                batch_first=True,
                dtype=self.dtype,
            )
        weight = given[0] if scale else np.ones_like(mean)
        bias = given[-1] if center else np.zeros_like(mean)
        module: nn.BatchNorm1d = self.filled(layer, weight=weight, bias=bias)
        for buffer, values in ((module.running_mean, mean), (module.running_var, variance)):
            if values.shape != (size,) or not np.isfinite(values).all() or buffer is None:
                raise ValueError("its statistics differ in size, or are not finite")
            with buffer.writing() as array:
                array[...] = values
        return module

    def check_axis(self) -> None:
        """Refuse another axis of features than the last."""
        axis = self.config.get("axis", -1)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if axis not in (-1, 1, 2) or isinstance(axis, bool):
            raise ValueError(f"its axis is {axis!r:.60}; it must be the last, -1")

    def rate(self, name: str = "rate") -> float:
        found: float = self.option(name, float, 0.0)
        return found

    def time_distributed(self) -> dict[str, nn.Module]:
        inner = self.inside("layer")
        if inner.kind not in _STEPWISE:
            raise ValueError(
                f"of a {inner.kind:.40}, which cannot be read; expected one of "
                f"{', '.join(_STEPWISE)}"
            )
        return inner.modules()

    def relu(self) -> nn.Module:
        slope, top = self.config.get("negative_slope"), self.config.get("max_value")
        if self.config.get("threshold") or (slope and top):
            raise ValueError("with a threshold, or a slope and a maximum, it cannot be read")
        if slope:
            return function("leaky_relu", self.option("negative_slope", float))
        return function("relu") if top is None else function("clipped", 0.0, float(top))

    def leaky_relu(self) -> nn.Module:
        name = "negative_slope" if "negative_slope" in self.config else "alpha"
        return function("leaky_relu", self.option(name, float, 0.3))

    def softmax(self) -> nn.Module:
        if self.config.get("axis", -1) != -1:
            raise ValueError("its axis must be the last, -1")
        return function("softmax")

    # Recurrent layers

    def recurrent(self) -> nn.Module:
        """A recurrent layer in one or both directions."""
        if self.kind != "Bidirectional":
            cell = _Direction(self)
            return cell.layer([cell], go_backwards=cell.goes_backwards)
        merge = (
            "none"
            if self.config.get("merge_mode", "concat") is None
            else (self.config.get("merge_mode", "concat"))
        )
        if merge not in MERGES:
            raise ValueError(f"its merge_mode is {merge!r:.60}; expected {', '.join(MERGES)}")
        half = len(self.weights) // 2
        inner, backward = self.inside("layer"), self.inside("layer")
        if isinstance(self.config.get("backward_layer"), dict):
            backward = self.inside("backward_layer")
        inner.weights, backward.weights = self.weights[:half], self.weights[half:]
        cells = [_Direction(inner), _Direction(backward)]
        if cells[0].goes_backwards:
            raise ValueError("its first layer goes backwards; it must go forwards")
        for name in ("kind", "units", "use_bias", "activations", "stateful", "return_sequences"):
            values = [getattr(cell, name) for cell in cells]
            if values[0] != values[1]:
                raise ValueError(f"its layers differ in {name}: {values[0]} and {values[1]}")
        module: MaskedRecurrent = cells[0].layer(cells, merge=merge)
        module.zero_output = module.return_sequences
        return module


class _Direction:
    """One direction of a recurrent layer."""

    def __init__(self, layer: _Layer) -> None:
        if layer.kind == "RNN":
            outer, layer = layer.config, layer.inside("cell")
            layer.kind = layer.kind.removesuffix("Cell")
            layer.config = {**layer.config, **outer}
        if layer.kind not in _RECURRENT:
            raise ValueError(
                f"its layer is a {layer.kind:.40}; expected one of {', '.join(_RECURRENT)}"
            )
        self.source = layer
        self.kind = layer.kind.removeprefix("CuDNN").removeprefix("Simple")
        self.units = layer.option("units", int)
        self.use_bias = layer.option("use_bias", bool, True)
        self.stateful = layer.option("stateful", bool, False)
        self.return_sequences = layer.option("return_sequences", bool, False)
        self.goes_backwards = layer.option("go_backwards", bool, False)
        self.activations = [layer.activation(default="tanh")]
        if self.kind != "RNN":
            self.activations.append(layer.activation("recurrent_activation", "sigmoid"))
        for name, reason in (
            ("return_state", "returns its state, which no layer after it takes"),
            ("time_major", "has time first, which Keras 3 does not know"),
        ):
            if layer.config.get(name):
                raise ValueError(reason)
        if layer.config.get("recurrent_dropout"):
            warnings.warn(
                f"layer {layer.name!r:.80}: recurrent_dropout is omitted; it only matters in "
                "training, where nn.Recurrent has weight_dropout",
                stacklevel=8,
            )
        self.gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[self.kind]
        self.reset_after = self._converted()

    def _converted(self) -> bool:
        """Bring the weights into the order of ours; return whether a GRU resets after the product.

        Kernels are [I, G*H] and [H, G*H]. Keras's gates are i f c o, ours too; and z r h, for ours
        r z n. CuDNN's old layers have other kernels, and two biases in a row.
        """
        H, G = self.units, self.gates
        axes = self.source.weights[2].ndim if len(self.source.weights) == 3 else 1
        kernel, recurrent, *rest = self.source.arrays(2, 2, *([axes] if self.use_bias else []))
        bias = rest[0] if rest else np.zeros(0, kernel.dtype)
        if kernel.shape[1] != G * H or recurrent.shape != (H, G * H):
            raise ValueError(
                f"its kernels are {list(kernel.shape)} and {list(recurrent.shape)}; expected "
                f"[I, {G * H}] and {[H, G * H]} for {H} units"
            )
        cudnn = self.use_bias and bias.shape == (2 * G * H,) and G > 1
        if self.use_bias and bias.shape not in ((G * H,), (2 * G * H,), (2, G * H)):
            raise ValueError(f"its bias is {list(bias.shape)}; expected {[G * H]}")
        if cudnn:
            I = len(kernel)
            kernel = np.hstack([k.reshape(H, I).T for k in np.hsplit(kernel, G)])
            recurrent = np.hstack([k.T for k in np.hsplit(recurrent, G)])
        halves = bias.reshape(2, -1) if bias.size == 2 * G * H else np.stack([bias, 0 * bias])
        order = [1, 0, 2] if G == 3 else [*range(G)]

        def ours(matrix: Array) -> Array:
            blocks = np.split(matrix, G, axis=-1)
            return np.concatenate([blocks[k] for k in order], axis=-1).T

        self.weights = {"weight_ih": ours(kernel), "weight_hh": ours(recurrent)}
        if self.use_bias:
            self.weights |= {"bias_ih": ours(halves[0]), "bias_hh": ours(halves[1])}
            return bool(bias.size == 2 * G * H)
        default = self.source.version >= 3 or self.source.kind == "CuDNNGRU"
        found: bool = self.source.option("reset_after", bool, default) if G == 3 else False
        return found

    def layer(
        self, directions: Sequence[_Direction], *, go_backwards: bool = False, merge: str = "concat"
    ) -> MaskedRecurrent:
        """The layer of these directions, of which this is the first."""
        rate = self.source.rate("dropout")
        cell: Any
        if self.kind == "GRU" and not self.reset_after:
            cell = ResetBefore(*self.activations)
        else:
            cell = {"RNN": rnn_cell, "LSTM": lstm_cell, "GRU": gru_cell}[self.kind](
                *self.activations
            )
        plain = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}.get(getattr(cell, "name", ""))
        make: Any = plain or (lambda *sizes, **options: nn.Recurrent(cell, *sizes, **options))
        with shapes_only():
            recurrent = make(
                self.weights["weight_ih"].shape[1],
                self.units,
                bias=self.use_bias,
                bidirectional=len(directions) == 2,
                dtype=self.source.dtype,
            )
        arrays = {
            f"{name}_l0{suffix}": array
            for direction, suffix in zip(directions, ("", "_reverse"), strict=False)
            for name, array in direction.weights.items()
        }
        return MaskedRecurrent(
            self.source.filled(recurrent, **arrays),
            return_sequences=self.return_sequences,
            go_backwards=go_backwards,
            merge=merge,
            zero_output=self.source.option("zero_output_for_mask", bool, False),
            stateful=self.stateful,
            dropout=rate,
        )


_RECURRENT = ("SimpleRNN", "LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU")

_PLAIN: dict[str, Callable[[_Layer], nn.Module]] = {
    "Dense": _Layer.dense,
    "Embedding": _Layer.embedding,
    "LayerNormalization": _Layer.layer_norm,
    "BatchNormalization": _Layer.batch_norm,
    "Conv1D": _Layer.convolution,
    "Masking": lambda layer: Masking(layer.rate("mask_value")),
    "Dropout": lambda layer: nn.Dropout(layer.rate()),
    "SpatialDropout1D": lambda layer: _LockedDropout(layer.rate()),
    "Activation": lambda layer: _function(layer.activation()),
    "ReLU": _Layer.relu,
    "LeakyReLU": _Layer.leaky_relu,
    "ELU": lambda layer: function("elu", layer.option("alpha", float, 1.0)),
    "Softmax": _Layer.softmax,
    "GlobalAveragePooling1D": lambda layer: Pooling("mean"),
    "GlobalMaxPooling1D": lambda layer: Pooling("max"),
    "RepeatVector": lambda layer: Repeat(layer.option("n", int)),
}
"""What makes the module of a layer, by its class."""

_STEPWISE = ("Dense", "Dropout", "LayerNormalization", "Activation", "ReLU", "LeakyReLU", "ELU")
"""Classes that compute each step by itself, so that a TimeDistributed changes nothing."""


def _bias(rest: Sequence[Array]) -> dict[str, Array]:
    return {"bias": rest[0]} if rest else {}


def _function(activation: Activation) -> nn.Module:
    return function(activation[0], *activation[1])


class _LockedDropout(nn.Dropout):
    """A dropout of [B, T, I] that drops the same features at all steps."""

    def __init__(self, p: float) -> None:
        super().__init__(p, locked=True)

    def forward(self, x: Any) -> Any:
        """Shapes: x [B, T, I]; returns the same."""
        x = as_tensor(x, None, "SpatialDropout1D: an input")
        return super().forward(x.transpose(1, 0, 2)).transpose(1, 0, 2)
