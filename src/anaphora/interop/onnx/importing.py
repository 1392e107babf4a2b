"""Models of `anaphora.models` out of ONNX files: those that `save` wrote, and those of others."""

from __future__ import annotations

import json
import os
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact import ArtifactError
from anaphora.interop.models import TASKS
from anaphora.interop.onnx.exporting import _traced, compared, computed, random_inputs
from anaphora.interop.onnx.loading import OnnxModel
from anaphora.interop.onnx.quantized import DYNAMIC_LSTM, dequantized
from anaphora.interop.onnx.reading import Array, Model, OnnxError, parse, read
from anaphora.interop.onnx.recognizing import recognized
from anaphora.interop.signatures import Signature, signatures
from anaphora.models import SavedModel
from anaphora.nn.initialization import shapes_only
from anaphora.tensor import no_grad

TOLERANCE = 1e-5
_BASE = 2**20  # ids of elements are written as two numbers below it, exact in float32


def load_model(path: str | os.PathLike[str], task: str | None = None) -> Any:
    """Make a model of `anaphora.models` of an ONNX file, to be saved, trained, or served.

    Unlike `load`, which runs any graph, this returns the model itself. Of a file that `save` wrote,
    the metadata say which, and hold its codec; the weights are found by writing the model again,
    with numbers in place of its weights, and looking where they went.

    A file of others becomes a language model, tagger, classifier or regressor, without a codec, if
    its graph has their shape: an embedding, one-hot vectors or features; RNN, LSTM or GRU layers of
    one kind and size, in one or both directions; layer normalization after each of them, or none;
    the last state, or the mean or maximum over steps, for one prediction per sequence; a linear
    layer; softmax or sigmoid. Batch or time may come first, and lengths and states may be inputs.
    LSTMs with weights in 8 bits (DynamicQuantizeLSTM) become float32 ones, with a warning.

    The result is compared with the graph on random inputs.

    Args:
        path: The file; of a model in two files, such as ``model-encoder.onnx`` and
            ``model-decoder.onnx``, the ``model.onnx`` that `save` was given.
        task: What the outputs are: "language-model", "tag", "classify" or "regress"; None if the
            graph says it: as many outputs per step as ids, or softmax or sigmoid at the end.

    Raises:
        FileNotFoundError: there is no such file.
        OnnxError: a `ValueError`: the graph has not the shape of a model, or it was changed since
            `save` wrote it; the message says what differs. `load` may run it.
        ValueError: the graph does not say what its outputs are, or it is of another task.

    >>> import tempfile
    >>> from anaphora.interop.onnx import save
    >>> from anaphora.models import SequenceRegressor
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = SequenceRegressor(num_outputs=1, hidden_size=4, input_size=3)
    ...     _ = save(model, f"{folder}/model.onnx")
    ...     again = load_model(f"{folder}/model.onnx")
    >>> all((again.state_dict()[k] == v).all() for k, v in model.state_dict().items())
    True
    """
    path = Path(path)
    parts = sorted(path.parent.glob(f"{path.stem}-*{path.suffix}")) if path.name else []
    first = path if path.exists() or not parts else parts[0]
    try:
        held = _read(first)
        if "anaphora.task" not in held.metadata:
            return recognized(held, task)
        model = _Import(path, first, held).model()
    except (ArtifactError, OnnxError) as error:
        text = str(error)
        text = text if text.startswith(str(path)) else f"{path}: {text}"
        raise OnnxError(
            f"{text}; interop.onnx.load runs graphs that are no models of anaphora"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if task is not None and type(model) is not TASKS.get(task):
        raise OnnxError(f"{path}: the file holds a {model.kind}; omit the task {task!r:.40}")
    return model


def _read(path: Path) -> Model:
    """A file, whose LSTMs with weights in 8 bits are ones of the floats that these stand for."""
    held = read(path)
    if any(node.operator == DYNAMIC_LSTM for node in held.graph.nodes):
        warnings.warn(
            "its weights in 8 bits become the float32 numbers that they stand for; quantize the "
            "model (anaphora quantize) for 8 bits as they are here",
            stacklevel=3,
        )
    return dequantized(held)


def read_model(path: Path, task: str | None = None, config: Path | None = None) -> Any:
    """As `load_model`, for ``anaphora import``.

    Raises:
        ArtifactError: the file cannot be read.
        ValueError: as for `load_model`.
    """
    if config is not None:
        raise OnnxError(f"{path}: a configuration is for files of Keras, which hold weights alone")
    try:
        return load_model(path, task)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Import:
    """The files of a model, and what their metadata say of it."""

    def __init__(self, path: Path, first: Path, held: Model) -> None:
        self.path = path
        self.files: dict[Path, Model] = {first: held}
        metadata = held.metadata
        kind = metadata.get("anaphora.task", "")
        if kind not in SavedModel.kinds or "anaphora.model" not in metadata:
            raise OnnxError("its metadata describe no model of anaphora with options")
        self.cls = SavedModel.kinds[kind]
        self.options = _plain(metadata["anaphora.model"], "options of the model")
        self.codec = _plain(metadata.get("anaphora.tokenizer", "{}"), "tokenizer")
        # What the functions of models of a directory read, for their messages.
        self.place: Any = types.SimpleNamespace(config=path, weights=path, tokenizer=path)

    def model(self) -> SavedModel:
        shapes = self._shapes()
        ids = self._numbered(shapes)
        low, high = (self._made(self._parts(ids, part)) for part in (0, 1))
        codec = self.cls.load_codec(self.place, self.codec, self.options)
        for model in (low, high):
            model.codec = codec
        flat = np.zeros(sum(array.size for array in ids.values()), low.dtype)
        held = np.zeros(flat.size, bool)
        for function, other in zip(signatures(low), signatures(high), strict=True):
            self._gather((flat, held), self._file(function), low, function, high, other)
        for name, array in ids.items():
            if array.size and not held[array].any():  # single ones may be excluded, as by a CRF
                raise OnnxError(f"it does not hold the weights {name}")
        weights = {name: flat[array] for name, array in ids.items()}
        model = self._made(weights)
        model.codec = codec
        for function in signatures(model):
            self._compare(model, function)
        return model

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters; fewer elements than the file has, or it would be wrong."""
        try:
            with shapes_only():
                blank = self.cls.from_dict(self.options, "model")
        except (TypeError, ValueError) as error:
            raise OnnxError(f"the options in its metadata are not valid: {error}") from error
        shapes = {name: parameter.shape for name, parameter in blank.named_parameters()}
        for function in signatures(blank):
            if (place := self._place(function)) not in self.files:
                self.files[place] = _read(place)
        held = sum(a.size for file in self.files.values() for a in file.graph.arrays.values())
        needed = sum(parameter.size for parameter in blank.parameters())
        if needed > held:
            raise OnnxError(f"its metadata describe a model of {needed} weights, but it has {held}")
        return shapes

    def _place(self, function: Signature) -> Path:
        if not function.name:
            return self.path
        return self.path.with_stem(f"{self.path.stem}-{function.name}")

    def _file(self, function: Signature) -> Model:
        return self.files[self._place(function)]

    def _numbered(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """The parameters with the number of each element, over all of them."""
        ids: dict[str, Array] = {}
        start = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape, dtype=np.int64))
            ids[name] = np.arange(start, start + size).reshape(shape)
            start += size
        return ids

    @staticmethod
    def _parts(ids: Mapping[str, Array], part: int) -> dict[str, Array]:
        """Two numbers for each id, exact in float32, whose difference is its upper part.

        The second ones are larger than any constant, and both differ within an array.
        """
        return {
            name: ((ids_of + part * (ids_of // _BASE)) % _BASE + 1 + part * 2 * _BASE).astype("f4")
            for name, ids_of in ids.items()
        }

    def _made(self, weights: Mapping[str, Array]) -> SavedModel:
        dtype = self.options.get("dtype", "float32")
        own = {name: array.astype(dtype) for name, array in weights.items()}
        return self.cls.made(self.place, self.options, own)

    def _gather(
        self,
        into: tuple[Array, Array],
        file: Model,
        low: SavedModel,
        function: Signature,
        high: SavedModel,
        function_of_high: Signature,
    ) -> None:
        """Put the elements of a file's arrays where they came from; constants differ nowhere."""
        firsts, seconds = (
            parse(_traced(model, one, frozenset())[0].SerializeToString()).graph.arrays
            for model, one in ((low, function), (high, function_of_high))
        )
        flat, held = into
        found = file.graph.arrays
        shapes = {name: array.shape for name, array in firsts.items()}
        if {name: array.shape for name, array in found.items()} != shapes:
            raise OnnxError("its arrays are not those of the model that its metadata describe")
        for name, first in firsts.items():
            second = seconds[name]
            derived = first != second
            if first.dtype.kind != "f" or not derived.any():
                continue
            sign = np.sign(second[derived])
            lower, other = (
                np.abs(part[derived]).astype(np.float64) - 1 for part in (first, second)
            )
            ids = lower + (other - 2 * _BASE - lower) % _BASE * _BASE
            numbers = ids.astype(np.int64)
            within = (numbers == ids) & (numbers >= 0) & (numbers < flat.size)
            if not (within & (first[derived] * sign > 0)).all():
                raise OnnxError(f"its array {name!r:.80} is no rearrangement of weights")
            flat[numbers], held[numbers] = sign * found[name][derived], True

    def _compare(self, model: SavedModel, function: Signature) -> None:
        """Compare a model with the graph that it came from."""
        graph = OnnxModel(self._file(function))
        inputs = random_inputs(function.inputs, function.smallest, 0)
        expected = computed(function, model, inputs)
        with no_grad():
            results = graph(**inputs)
        for value, result in zip(graph.graph_outputs, results, strict=True):
            error = compared(np.asarray(result), expected[value.name])
            if not error <= TOLERANCE:
                raise OnnxError(
                    f"its output {value.name} differs from that of the model by {error:.2g}: the "
                    "graph was changed since it was written"
                )


def _plain(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OnnxError(f"the {what} in its metadata are damaged: {error}") from error
    if not isinstance(value, dict):
        raise OnnxError(f"the {what} in its metadata are damaged")
    return value
