"""Reading ONNX files: a checked protobuf as plain graphs of nodes and arrays.

Nothing of a file is trusted: sizes are compared with the bytes that are there before memory is
asked for, external data lies in the folder of the file, and every value is computed before it is
read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

LARGEST_FILE = 2**31 - 1
"""The most bytes that a protobuf can have."""

DTYPES: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype("<f4"),
    onnx.TensorProto.DOUBLE: np.dtype("<f8"),
    onnx.TensorProto.FLOAT16: np.dtype("<f2"),
    onnx.TensorProto.INT8: np.dtype("i1"),
    onnx.TensorProto.INT16: np.dtype("<i2"),
    onnx.TensorProto.INT32: np.dtype("<i4"),
    onnx.TensorProto.INT64: np.dtype("<i8"),
    onnx.TensorProto.UINT8: np.dtype("u1"),
    onnx.TensorProto.UINT16: np.dtype("<u2"),
    onnx.TensorProto.UINT32: np.dtype("<u4"),
    onnx.TensorProto.UINT64: np.dtype("<u8"),
    onnx.TensorProto.BOOL: np.dtype("bool"),
}
"""NumPy's name of each type of element that is read."""

_FIELDS = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
}  # the others: int32_data


class OnnxError(ValueError):
    """An ONNX file that is damaged, or holds what cannot be run; the message says where."""


@dataclass(frozen=True)
class Value:
    """An input or an output of a graph.

    Attributes:
        name: Its name.
        dtype: Of its elements; None if the file does not say.
        shape: A number for each axis of a known size, a name or "" for the others; None if the
            file does not say.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        axes = (
            "..."
            if self.shape is None
            else ", ".join(str(a) if a != "" else "?" for a in self.shape)
        )
        return f"{self.name} {self.dtype or 'of any type'} [{axes}]"


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Attributes:
        operator: Its name; of another domain than the standard's as ``domain:name``.
        name: The name of the node, or of its first output if it has none.
        inputs: The names of what it reads; "" for an input that is omitted.
        outputs: The names of what it computes; "" for an output that is omitted.
        attributes: Numbers, texts, lists of these, arrays and graphs, by name.
        version: Of the operators of its domain that the file uses.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    version: int

    def __str__(self) -> str:
        return f"{self.operator} node {self.name!r:.80}"

    def error(self, message: str) -> OnnxError:
        """An error that names the node."""
        return OnnxError(f"{self}: {message}")

    def get(self, name: str, default: Any, kind: type | None = None) -> Any:
        """An attribute, or a default; an error if its type is not that of the default."""
        value = self.attributes.get(name, default)
        kind = kind or type(default)
        if value is not default and type(value) is not kind:
            raise self.error(f"attribute {name!r} is {value!r:.40}, expected {kind.__name__}")
        return value


@dataclass(frozen=True)
class Graph:
    """A graph: nodes in the order of their computation, and the arrays that they read."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    arrays: Mapping[str, Array] = field(repr=False)


@dataclass(frozen=True)
class Model:
    """What an ONNX file holds: a graph, and texts by name (its metadata)."""

    graph: Graph
    metadata: Mapping[str, str]
    producer: str


def read(path: str | os.PathLike[str]) -> Model:
    """Read and check an ONNX file.

    Raises:
        FileNotFoundError: there is no such file.
        OnnxError: it is damaged; the message says where.
    """
    path = Path(path)
    if (size := path.stat().st_size) > LARGEST_FILE:
        raise OnnxError(
            f"{path}: {size} bytes, but an ONNX file has at most {LARGEST_FILE}; larger models "
            "keep their weights in files beside it"
        )
    return parse(path.read_bytes(), path.parent, str(path))


def parse(data: bytes, folder: Path | None = None, where: str = "ONNX model") -> Model:
    """Read and check an ONNX model.

    Args:
        data: The serialized model.
        folder: The one in which its external data may lie; None for none.
        where: What messages start with.

    Raises:
        OnnxError: it is damaged; the message says where.
    """
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's DecodeError, whose module depends on its version
        raise OnnxError(f"{where}: not an ONNX file, or a damaged one ({error})") from None
    if not proto.HasField("graph"):
        raise OnnxError(f"{where}: not an ONNX file, or an empty one: it holds no graph")
    try:
        return _Reader(proto, folder).model()
    except OnnxError as error:
        raise OnnxError(f"{where}: {error}") from error.__cause__


class _Reader:
    """Makes plain values of a protobuf."""

    def __init__(self, proto: Any, folder: Path | None) -> None:
        self.proto = proto
        self.folder = folder
        self.versions = {_domain(entry.domain): entry.version for entry in proto.opset_import}

    def model(self) -> Model:
        if len(self.proto.functions):
            raise OnnxError(
                f"it defines the function {self.proto.functions[0].name!r:.60}, and functions are "
                "not read; onnx.inliner.inline_local_functions puts their nodes in their place"
            )
        graph = self.graph(self.proto.graph, ())
        metadata = {entry.key: entry.value for entry in self.proto.metadata_props}
        return Model(graph, metadata, self.proto.producer_name)

    def graph(self, proto: Any, outside: tuple[set[str], ...]) -> Graph:
        if len(proto.sparse_initializer):
            raise OnnxError(f"graph {proto.name!r:.60} has sparse arrays, which are not read")
        arrays: dict[str, Array] = {}
        for tensor in proto.initializer:
            if tensor.name in arrays:
                raise OnnxError(f"two arrays have the name {tensor.name!r:.80}")
            arrays[tensor.name] = self.array(tensor, f"array {tensor.name!r:.80}")
        inputs = tuple(_value(v) for v in proto.input if v.name not in arrays)
        own = {*arrays, *(value.name for value in inputs)}
        scopes = (own, *outside)
        if len(own) != len(arrays) + len(inputs):
            raise OnnxError(f"graph {proto.name!r:.60} has two inputs of the same name")
        nodes = []
        for number, entry in enumerate(proto.node):
            node = self.node(entry, number, scopes)
            for name in node.inputs:
                if name and not any(name in scope for scope in scopes):
                    raise node.error(
                        f"reads {name!r:.80}, which no node before it computes: the graph has a "
                        "cycle, or its nodes are not in order"
                    )
            for name in filter(None, node.outputs):
                if name in own:
                    raise node.error(f"computes {name!r:.80}, which is already there")
                own.add(name)
            nodes.append(node)
        outputs = tuple(_value(v) for v in proto.output)
        for value in outputs:
            if not any(value.name in scope for scope in scopes):
                raise OnnxError(f"the output {value.name!r:.80} is computed by no node")
        if not outputs:
            raise OnnxError(f"graph {proto.name!r:.60} has no outputs")
        return Graph(proto.name, inputs, outputs, tuple(nodes), arrays)

    def node(self, proto: Any, number: int, scopes: tuple[set[str], ...]) -> Node:
        domain = _domain(proto.domain)
        operator = f"{domain}:{proto.op_type}" if domain else proto.op_type
        named = next(filter(None, (proto.name, *proto.output)), f"number {number}")
        if domain not in self.versions:
            raise OnnxError(
                f"{operator} node {named!r:.80}: the file does not say which version of the "
                f"operators of {domain or 'the standard'!r} it uses"
            )
        node = Node(
            operator, named, tuple(proto.input), tuple(proto.output), {}, self.versions[domain]
        )
        attributes: dict[str, Any] = {}
        for attribute in proto.attribute:
            if not isinstance(attribute.name, str):  # protobuf's way to give what is not UTF-8
                raise node.error(f"the attribute {attribute.name!r:.40} is not UTF-8")
            attributes[attribute.name] = self.attribute(attribute, node, scopes)
        return Node(operator, named, node.inputs, node.outputs, attributes, node.version)

    def attribute(self, proto: Any, node: Node, scopes: tuple[set[str], ...]) -> Any:
        kinds = onnx.AttributeProto
        if proto.ref_attr_name:
            raise node.error(f"attribute {proto.name!r:.40} refers to one of a function")
        if proto.type == kinds.GRAPH:
            return self.graph(proto.g, scopes)
        if proto.type == kinds.TENSOR:
            return self.array(proto.t, f"{node}: attribute {proto.name!r:.40}")
        if proto.type in (kinds.FLOAT, kinds.INT):
            return proto.f if proto.type == kinds.FLOAT else proto.i
        if proto.type == kinds.STRING:
            return _text(proto.s, node)
        if proto.type in (kinds.FLOATS, kinds.INTS):
            return tuple(proto.floats if proto.type == kinds.FLOATS else proto.ints)
        if proto.type == kinds.STRINGS:
            return tuple(_text(value, node) for value in proto.strings)
        raise node.error(f"attribute {proto.name!r:.40} has a type that is not read")

    def array(self, proto: Any, what: str) -> Array:
        """The array of a TensorProto; its size is that of the data, whatever it claims."""
        kind = onnx.TensorProto
        dtype = DTYPES.get(proto.data_type)
        if dtype is None:
            raise OnnxError(
                f"{what} has elements of type {_type_name(proto.data_type)}; read are "
                f"{', '.join(sorted(map(str, DTYPES.values())))}"
            )
        shape = tuple(proto.dims)
        if any(size < 0 for size in shape) or len(shape) > 32:
            raise OnnxError(f"{what} has the shape {_shape(shape)}")
        count = math.prod(shape)
        bytes_ = count * dtype.itemsize
        if proto.data_location == kind.EXTERNAL:
            data = self.external(proto, what, bytes_)
        elif proto.HasField("raw_data"):
            data = proto.raw_data
        else:
            numbers = getattr(proto, _FIELDS.get(proto.data_type, "int32_data"))
            if len(numbers) != count:
                raise OnnxError(f"{what} has the shape {_shape(shape)}, but {len(numbers)} numbers")
            if dtype == np.float16:
                bits = np.array(numbers, np.int32) & 0xFFFF
                return bits.astype(np.uint16).view(np.float16).reshape(shape)
            return np.array(numbers).astype(dtype).reshape(shape)
        if len(data) != bytes_:
            raise OnnxError(
                f"{what} has the shape {_shape(shape)} of {dtype}, {bytes_} bytes, but {len(data)} "
                "bytes of data"
            )
        if dtype == np.bool_:
            array: Array = np.frombuffer(data, np.uint8) != 0
            return array.reshape(shape)
        array = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
        return array.reshape(shape)

    def external(self, proto: Any, what: str, bytes_: int) -> bytes:
        """The data of an array in a file beside the model, which must lie in its folder."""
        entries = {entry.key: entry.value for entry in proto.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise OnnxError(f"{what} lies in the file {location!r:.80}, but there is no folder")
        parts = location.replace("\\", "/").split("/")
        root = os.path.realpath(self.folder)
        if not location or os.path.isabs(location) or ".." in parts or "\0" in location:
            raise OnnxError(
                f"{what} lies in the file {location!r:.80}; it must be in the folder of the model"
            )
        file = os.path.realpath(os.path.join(root, location))
        if os.path.commonpath([root, file]) != root:
            raise OnnxError(
                f"{what} lies in the file {location!r:.80}, a link out of the folder of the model"
            )
        if not os.path.isfile(file):
            raise OnnxError(f"{what} lies in the file {location!r:.80}, which is not there")
        numbers = []
        for key, default in (("offset", 0), ("length", bytes_)):
            text = entries.get(key, str(default))
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise OnnxError(f"{what}: its {key} is {text!r:.40}, expected a number of bytes")
            numbers.append(int(text))
        offset, length = numbers
        size = os.path.getsize(file)
        if length != bytes_ or offset + length > size:
            raise OnnxError(
                f"{what} has {bytes_} bytes, and would lie in bytes {offset} to {offset + length} "
                f"of {location!r:.80}, which has {size}"
            )
        with open(file, "rb") as opened:
            opened.seek(offset)
            return opened.read(bytes_)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _value(proto: Any) -> Value:
    """An input or output of a graph, which must be a tensor."""
    kind = proto.type.WhichOneof("value")
    if kind not in (None, "tensor_type"):
        raise OnnxError(f"{proto.name!r:.80} is a {kind.removesuffix('_type')}, expected a tensor")
    tensor = proto.type.tensor_type
    dtype = None
    if tensor.elem_type:
        dtype = DTYPES.get(tensor.elem_type)
        if dtype is None:
            raise OnnxError(
                f"{proto.name!r:.80} has elements of type {_type_name(tensor.elem_type)}, which "
                "are not read"
            )
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            axis.dim_value if axis.WhichOneof("value") == "dim_value" else axis.dim_param
            for axis in tensor.shape.dim
        )
    return Value(proto.name, dtype, shape)


def _type_name(number: int) -> str:
    """The name of a type of elements."""
    try:
        return str(onnx.TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"number {number}"


def _text(value: bytes, node: Node) -> str:
    try:
        text: str = value.decode()
        return text
    except UnicodeDecodeError:
        raise node.error(f"the text {value!r:.40} is not UTF-8") from None


def _shape(shape: Sequence[int]) -> str:
    return str(list(shape))[:80]


def graphs(graph: Graph) -> Iterator[Graph]:
    """A graph, and those in the attributes of its nodes."""
    yield graph
    for node in graph.nodes:
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from graphs(value)
