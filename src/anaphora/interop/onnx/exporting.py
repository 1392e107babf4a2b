"""Models as ONNX files, run in ONNX Runtime and compared before they are kept."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import anaphora
from anaphora import nn
from anaphora.artifact import ArtifactError, atomic_write
from anaphora.engine.precision import dequantized, products_in, quantized
from anaphora.interop import Exported
from anaphora.interop.onnx.graph import CONTRIBUTED, IR_VERSION, OPSET
from anaphora.interop.onnx.layers import MODULES
from anaphora.interop.onnx.symbols import TYPES, Dim, ExportError, Symbol, Tracer
from anaphora.interop.signatures import Signature, Value, Values, signatures
from anaphora.models.quantization import int8_parameters
from anaphora.models.saved import SavedModel
from anaphora.tensor import Parameter, Tensor, no_grad
from anaphora.tensor.hooks import interpreting

Array = NDArray[Any]

TOLERANCE = 1e-5
"""The largest difference of an output, relative to its largest number or to 1."""
INT8_TOLERANCE = 0.1
"""The same between two ways to round to 8 bits."""
_LARGEST = 2**31 - 1  # bytes of a file: a limit of Protocol Buffers

__all__ = ["ExportError", "describe", "export", "save"]


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    example: Mapping[str, Any] | Sequence[Any] | None = None,
) -> Exported:
    """Write a model, or any Module, as an ONNX file, after running it in ONNX Runtime.

    T and B are free; lengths are an input where the model takes them; states are inputs and
    outputs, so that a text or a signal can be read in pieces. Layers of the cells rnn, rnn_relu,
    lstm, peephole_lstm, coupled_lstm, gru and mgu become nodes RNN, LSTM and GRU; those of other
    cells, with a projection or zoneout, a Scan over their equations. The file is in float32. Of a
    model with weights in 8 bits, LSTMs become DynamicQuantizeLSTM, an operator of ONNX Runtime, and
    other weights are rounded as they are in the model.

    Models that generate a sequence from a source become two files: of ``model.onnx``,
    ``model-encoder.onnx`` and ``model-decoder.onnx``. A tagger with a CRF also returns the tags.

    If ONNX Runtime is installed, the file is run on random inputs, states and lengths, and compared
    with the model.

    Args:
        model: The model; its mode does not matter: it is written as in evaluation.
        path: The file; an existing one is replaced.
        example: For a module with a forward of its own: arguments for it; see
            `interop.signatures.signatures`. The module may use operations of `anaphora.ops` and
            other modules.

    Returns:
        What was written: inputs, outputs, and the largest difference.

    Raises:
        ExportError: the model cannot be written, or the file computes something else. Nothing is
            written then.
        ArtifactError: the file cannot be written.

    >>> import tempfile
    >>> from anaphora.nn import GRU
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exported = save(GRU(input_size=3, hidden_size=4), f"{folder}/layer.onnx")
    >>> [value["name"] for value in exported.record["files"][0]["inputs"]]
    ['x', 'lengths', 'h']
    """
    path = Path(path)
    if not isinstance(model, nn.Module):
        raise TypeError(f"save: {type(model).__name__} is not a Module; give a model or a layer")
    written = copy.deepcopy(model).eval()
    in_int8 = _rounded(written)
    try:
        functions = signatures(written, example)
    except ValueError as error:
        raise ExportError(str(error)) from error
    made: list[tuple[Path, bytes, dict[str, Any]]] = []
    for function in functions:
        place = path.with_stem(f"{path.stem}-{function.name}") if function.name else path
        made.append((place, *_written(written, function, place, in_int8)))
    for place, data, _ in made:
        atomic_write(place, data)
    lines = []
    for place, data, record in made:
        lines += _lines(place, data, record, bool(in_int8))
    return Exported(lines, {"format": "onnx", "files": [record for _, _, record in made]})


def export(model: nn.Module, path: Path) -> Exported:
    """As `save`, for ``anaphora export``."""
    return save(model, path)


def describe(path: Path) -> dict[str, Any]:
    """What an ONNX file says of itself: producer, opset, inputs, outputs, and metadata.

    Raises:
        ArtifactError: the file cannot be read, or is no ONNX file.

    >>> import tempfile
    >>> from anaphora.nn import Linear
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(Linear(3, 2), f"{folder}/layer.onnx")
    ...     describe(Path(folder, "layer.onnx"))["outputs"]
    {'output': '[T, B, 2] float32'}
    """
    try:
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ArtifactError(f"{path}: is not an ONNX file: {error}") from error
    if not proto.HasField("graph"):
        raise ArtifactError(f"{path}: is not an ONNX file: it has no graph")
    constants = {constant.name for constant in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    return {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "opset": {one.domain or "ai.onnx": one.version for one in proto.opset_import},
        "inputs": {value.name: _type(value) for value in inputs},
        "outputs": {value.name: _type(value) for value in proto.graph.output},
        "metadata": {entry.key: entry.value for entry in proto.metadata_props},
    }


def _type(value: onnx.ValueInfoProto) -> str:
    """The dtype and the axes of an input or an output."""
    if not value.type.HasField("tensor_type"):
        return str(value.type.WhichOneof("value") or "unknown")
    tensor = value.type.tensor_type
    sizes = (dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "?")
             for dim in tensor.shape.dim)  # fmt: skip
    known = tensor.elem_type != onnx.TensorProto.UNDEFINED
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if known else "unknown"
    return f"[{', '.join(map(str, sizes))}] {dtype}"


def _rounded(model: nn.Module) -> frozenset[int]:
    """Make a model float32, with the weights that it computes with in 8 bits.

    Returns:
        The modules that had such, by their id.
    """
    chosen = set(int8_parameters(model))
    modules = {name: module for name, module in model.named_modules() if module.in_int8}
    for prefix, module in modules.items():
        for name, value in vars(module).items():
            if isinstance(value, Parameter) and f"{prefix}.{name}".removeprefix(".") in chosen:
                with value.writing() as array:
                    array[...] = dequantized(*quantized(array))
    model.use_int8(False)
    return frozenset(map(id, modules.values()))


def _written(
    model: nn.Module, function: Signature, path: Path, in_int8: frozenset[int]
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a file, and what to say of it."""
    proto, outputs = _traced(model, function, frozenset())
    record: dict[str, Any] = {
        "out": str(path),
        "opset": OPSET,
        "inputs": [_plain(value) for value in function.inputs],
        "outputs": [_plain(value) for value in outputs],
    }
    data = _bytes(proto, path)
    difference = _difference(data, function, model, path, TOLERANCE)
    if in_int8:
        proto, _ = _traced(model, function, in_int8)
        record["dynamic_quantize_lstm"] = any(n.domain == CONTRIBUTED for n in proto.graph.node)
        if record["dynamic_quantize_lstm"]:
            data = _bytes(proto, path)
            difference = _difference(data, function, model, path, INT8_TOLERANCE)
    record |= {"bytes": len(data), "largest_difference": difference}
    return data, record


def _traced(
    model: nn.Module, function: Signature, in_int8: frozenset[int]
) -> tuple[onnx.ModelProto, list[Value]]:
    """A file of a function of a model."""
    dtype = next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), np.float32)
    tracer = Tracer(model, dtype, MODULES, in_int8)
    dims: dict[str, Dim] = {}
    symbols: dict[str, Symbol] = {}
    for value in function.inputs:
        name = tracer.graph.name(value.name)
        symbols[value.name] = tracer.input(name, value.axes, value.dtype, dims)
    with no_grad(), interpreting(tracer):
        try:
            results = function.call(symbols)
        except ExportError:
            raise
        except ValueError as error:
            raise ExportError(str(error)) from error
    declared = {value.name: value for value in function.outputs}
    outputs: list[Value] = []
    for name, result in results.items():
        if not isinstance(result, Symbol):
            raise ExportError(f"its output {name} does not depend on an input of the file")
        axes = tuple(
            s if isinstance(s, int) else s.label or f"{name}_{a}"
            for a, s in enumerate(result.shape)
        )
        value = declared.get(name, Value(name, axes))
        outputs.append(value)
        made = tracer.graph.name(value.name)
        tracer.graph.nodes.append(onnx.helper.make_node("Identity", [result.value], [made], made))
    if declared and [value.name for value in outputs] != list(declared):
        outputs = [declared[name] for name in declared]
    graph = onnx.helper.make_graph(
        tracer.graph.nodes,
        type(model).__name__,
        [_info(value.name, value.axes, value.dtype) for value in function.inputs],
        [_info(value.name, value.axes, results[value.name].dtype) for value in outputs],
        list(tracer.graph.constants.values()),
    )
    domains = [onnx.helper.make_opsetid("", OPSET)]
    if tracer.graph.contributed:
        domains.append(onnx.helper.make_opsetid(CONTRIBUTED, 1))
    proto = onnx.helper.make_model(
        graph,
        opset_imports=domains,
        ir_version=IR_VERSION,
        producer_name="anaphora",
        producer_version=anaphora.__version__,
    )
    onnx.helper.set_model_props(proto, _metadata(model, function))
    return proto, outputs


def _info(name: str, axes: Sequence[int | str], dtype: Any) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, TYPES[np.dtype(dtype).kind], list(axes))


def _metadata(model: nn.Module, function: Signature) -> dict[str, str]:
    """What the file says of itself, besides its graph."""
    starts = {
        value.name: value.start for value in function.inputs if value.kind in ("state", "counts")
    }
    entries: dict[str, str] = {}
    if starts:
        entries["anaphora.states"] = json.dumps({name: str(x) for name, x in starts.items()})
    if isinstance(model, SavedModel):
        entries["anaphora.task"] = model.kind
        with contextlib.suppress(ValueError):  # a cell that was not traced has no program
            entries["anaphora.model"] = json.dumps(model.options)
        if model.codec is not None:
            entries["anaphora.tokenizer"] = json.dumps(model.codec.to_dict())
    return entries


def _bytes(proto: onnx.ModelProto, path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ExportError: it is too large, or not as the standard wants it.
    """
    size = proto.ByteSize()
    if size > _LARGEST:
        raise ExportError(f"{path}: {size / 2**30:.1f} GiB, but an ONNX file has at most 2 GiB")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: the file would not be valid: {error}") from error
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _plain(value: Value) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": value.name, "axes": list(value.axes), "dtype": value.dtype}
    if value.kind in ("state", "counts"):
        entry["start"] = str(value.start) if np.isinf(value.start) else value.start
    return entry


def _lines(path: Path, data: bytes, record: Mapping[str, Any], in_int8: bool) -> list[str]:
    """What to say of a file."""
    difference = record["largest_difference"]
    lines = [f"wrote {path}: {len(data) / 1e6:.2f} MB, ONNX opset {OPSET}"]
    for kind in ("inputs", "outputs"):
        shown = (f"{v['name']} [{', '.join(map(str, v['axes']))}]" for v in record[kind])
        lines.append(f"  {kind}: {', '.join(shown)}")
    if difference is None:
        lines.append('  not compared: ONNX Runtime is not installed; pip install "anaphora[onnx]"')
    else:
        lines.append(f"  in ONNX Runtime its outputs differ from the model's by {difference:.1e}")
    if in_int8:
        quantized = record["dynamic_quantize_lstm"]
        lines.append(
            "  weights of LSTMs are in 8 bits (DynamicQuantizeLSTM of ONNX Runtime); others, "
            "rounded to 8 bits, are stored as float32"
            if quantized
            else "  no layer is an LSTM node, and only these run in 8 bits: weights, rounded to "
            "8 bits, are stored as float32"
        )
    return lines


# The comparison


def _difference(
    data: bytes, function: Signature, model: nn.Module, path: Path, tolerance: float
) -> float | None:
    """The largest difference from the model on random inputs; None without ONNX Runtime.

    Raises:
        ExportError: it is larger than the tolerance.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    largest = 0.0
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{path}: ONNX Runtime cannot load the file: {error}") from error
    for seed in range(3):
        inputs = random_inputs(function.inputs, function.smallest, seed)
        try:
            expected = computed(function, model, inputs)
        except Exception as error:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            raise ExportError(
                f"{path}: the model itself fails for random inputs {shapes}: {error}; give an "
                "example with larger sizes, if it needs these"
            ) from error
        names = [output.name for output in session.get_outputs()]
        try:
            found = dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            raise ExportError(f"{path}: ONNX Runtime cannot run the file: {error}") from error
        for name in names:
            one = compared(found[name], expected[name])
            if not one <= tolerance:
                raise ExportError(
                    f"{path}: its output {name} differs from that of the model by {one:.2g} "
                    f"(relative to its largest number, or 1), more than {tolerance:g}, in ONNX "
                    f"Runtime {onnxruntime.__version__}; no file was written"
                )
            largest = max(largest, one)
    return largest


def computed(
    function: Signature, model: nn.Module, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """What a function of a model returns for arrays."""
    dtype = next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), np.float32)
    values: Values = {
        name: Tensor(array.astype(dtype)) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
    with no_grad(), products_in("float32"):
        results = function.call(values)
    return {name: np.asarray(getattr(value, "data", value)) for name, value in results.items()}


def compared(found: Array, expected: Array) -> float:
    """The largest difference, relative to the largest number or 1; inf if NaN are elsewhere."""
    if found.shape != expected.shape:
        return np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite].astype(found.dtype), equal_nan=True):
        return np.inf
    a, b = found[finite].astype(np.float64), expected[finite].astype(np.float64)
    return float(np.abs(a - b).max(initial=0) / np.abs(b).max(initial=1))


def random_inputs(
    values: Sequence[Value], smallest: Mapping[str, int], seed: int
) -> dict[str, Array]:
    """Random numbers for every input, of sizes that differ; with seed 2 of the smallest sizes.

    One sequence has all steps, one none.
    """
    generator = np.random.default_rng(seed)
    axes = {axis for value in values for axis in value.axes if isinstance(axis, str)}
    sizes: dict[str, int] = {}
    for axis in sorted(axes, key=len):
        base, _, more = axis.partition("+")  # "T+5" has 5 more than T
        if base not in sizes:
            added = 0 if seed == 2 else (2, 4, 6, 3, 5, 7, 8)[(len(sizes) + 2 * seed) % 7]
            sizes[base] = smallest.get(base, 1) + added
        sizes[axis] = sizes[base] + int(more or 0)
    inputs: dict[str, Array] = {}
    for value in values:
        shape = tuple(sizes[a] if isinstance(a, str) else a for a in value.axes)
        inputs[value.name] = _random(value, shape, sizes, generator)
    return inputs


def _random(
    value: Value, shape: tuple[int, ...], sizes: Mapping[str, int], generator: np.random.Generator
) -> Array:
    if value.kind == "ids":
        return generator.integers(0, value.below, shape)
    if value.kind == "lengths":
        most = sizes.get(value.up_to, 1)
        lengths = generator.integers(0, most + 1, shape)
        lengths.flat[:2] = [most, 0][: lengths.size]
        return lengths
    if value.kind == "counts":
        return generator.integers(0, 5, shape).astype(np.float32)
    if value.kind == "flags":
        return generator.random(shape) < 0.7
    numbers = generator.normal(size=shape).astype(np.float32)
    if value.kind == "positive":
        return np.abs(numbers) + np.float32(0.5)
    if np.isinf(value.start):
        numbers[..., 0] = value.start
    return numbers
