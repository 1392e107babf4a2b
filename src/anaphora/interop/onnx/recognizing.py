"""Models of `anaphora.models` out of graphs that others wrote, where these have their shape.

The layers of a graph are found from an output back to the inputs, past all that moves elements
without changing them. Whatever its layout, the model that they make is then run beside the graph
on random inputs, and must compute the same.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from anaphora import cells, nn, ops
from anaphora.cells import CELLS, Cell
from anaphora.engine.precision import products_in
from anaphora.interop.models import Parts
from anaphora.interop.onnx.cells import activations_of, cell_of
from anaphora.interop.onnx.exporting import compared
from anaphora.interop.onnx.loading import OnnxModel
from anaphora.interop.onnx.program import captured
from anaphora.interop.onnx.reading import Array, Graph, Model, Node, OnnxError, Value
from anaphora.interop.onnx.recurrent import GATES, RecurrentNode
from anaphora.models import SavedModel
from anaphora.nn.reset_before import half_gru
from anaphora.tensor import no_grad

TOLERANCE = 1e-5
"""The largest difference of an output, relative to its largest number or to 1."""

_MOVES = {
    "Cast", "Concat", "Dropout", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that move or pick elements of their first input (Concat: of all)."""
_MOST_ONE_HOT = 10**4  # ids, whose table is their square
_PICKS = {"Gather", "Slice", "Split"}
_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_POOLS = {
    "ReduceMean": "mean", "GlobalAveragePool": "mean", "ReduceMax": "max", "GlobalMaxPool": "max",
}  # fmt: skip

_GATED = activations_of(["Sigmoid", "Tanh", "Tanh"], [], [])
_RESETS_FIRST = cell_of("GRU", _GATED[:2], resets_first=True)
_BUILT_IN: dict[Cell, Cell] = {
    cell_of("LSTM", _GATED): cells.lstm,
    cell_of("LSTM", _GATED, peepholes=True): cells.peephole_lstm,
    cell_of("GRU", _GATED[:2]): cells.gru,
    _RESETS_FIRST: half_gru,
}
"""The cells of nodes whose attributes make one of ours, whose gates have the same names."""


def recognized(model: Model, task: str | None = None) -> SavedModel:
    """The model of `anaphora.models` that computes a graph, in evaluation mode, without a codec.

    Args:
        model: What a file holds.
        task: "language-model", "tag", "classify" or "regress"; None for the one that fits.

    Raises:
        OnnxError: the graph has another shape, or computes something else; the message names the
            node, or the difference.
        ValueError: the graph does not say what its outputs are, or not those of the task.
    """
    graph = _Graph(model)
    network, failed = None, list[tuple[int, OnnxError]]()
    for output in model.graph.outputs:
        found = _Network(graph, output)
        try:
            found.walk()
        except OnnxError as error:
            failed.append((len(found.said), error))
            continue
        network = found
        break
    if network is None:
        raise max(failed, key=lambda pair: pair[0])[1]
    made = _compared(network, task)
    for output in model.graph.outputs:
        if not network.explains(output.name):
            warnings.warn(f"the output {output} of the graph is omitted", stacklevel=2)
    return made


class _Graph:
    """A graph: what computes each value, and which values depend on the inputs' numbers."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.inputs = {value.name: value for value in model.graph.inputs}
        self.nodes: dict[str, Node] = {}
        self.varying = set(self.inputs)
        self.constant = set(model.graph.arrays)
        for node in model.graph.nodes:
            read = set(_read(node))
            self.nodes.update((name, node) for name in node.outputs if name)
            if read <= self.constant:
                self.constant.update(node.outputs)
            if node.operator not in ("Shape", "Size") and read & self.varying:
                self.varying.update(node.outputs)

    def array(self, name: str) -> Array | None:
        """The value of what depends on the arrays of the graph alone; else None."""
        arrays = self.model.graph.arrays
        if name in arrays or name not in self.constant or not name:
            return arrays.get(name)
        needed, wanted = [], {name}
        for node in reversed(self.model.graph.nodes):
            if wanted & set(node.outputs):
                needed.append(node)
                wanted.update(_read(node))
        graph = Graph(
            "constants",
            (),
            (Value(name, None, None),),
            tuple(reversed(needed)),
            {key: array for key, array in arrays.items() if key in wanted},
        )
        with no_grad():
            (value,) = OnnxModel(Model(graph, {}, ""))()
        return np.asarray(value.data)

    def sources(self, name: str) -> tuple[list[str], list[Node]]:
        """The values whose elements a value has, and the nodes that move them, from it back."""
        found, moves, left = dict[str, None](), list[Node](), [name]
        while left:
            name = left.pop()
            node = self.nodes.get(name)
            if node is None or node.operator not in _MOVES or _nth(node, 0) not in self.varying:
                found[name] = None
                continue
            moves.append(node)
            left += node.inputs if node.operator == "Concat" else node.inputs[:1]
        return list(found), moves


def _read(node: Node) -> Iterator[str]:
    """The names of the values that a node reads, in its graphs too."""
    yield from filter(None, node.inputs)
    for value in node.attributes.values():
        if isinstance(value, Graph):
            yield from captured(value)


def _nth(node: Node, k: int) -> str:
    """The name of an input of a node; "" if it has none there."""
    return node.inputs[k] if k < len(node.inputs) else ""


class _Layer(NamedTuple):
    """A recurrent layer: one node, or one for each direction; and the norm after it."""

    nodes: tuple[Node, ...]
    norm: tuple[Array, Array] | None


class _Network:
    """The layers of a graph, found from one of its outputs back to an input."""

    def __init__(self, graph: _Graph, output: Value) -> None:
        self.graph = graph
        self.output = output
        self.said: list[str] = []  # what was found, from the output on
        self.values = {output.name}
        self.activation = "linear"
        self.linear: tuple[Array, Array | None] | None = None
        self.poolings: list[str | None] = []  # those that are possible
        self.layers: list[_Layer] = []  # the last one first
        self.table: Array | None = None
        self.input: Value | None = None
        self.states: set[str] = set()  # inputs
        self.lengths = ""  # an input
        self._norm: tuple[Array, Array] | None = None
        self._picked = False  # whether there is a node that may pick a step

    def walk(self) -> None:
        """Find all layers.

        Raises:
            OnnxError: there is something else.
        """
        name = self.output.name
        while name:
            self.values.add(name)
            sources, moves = self.graph.sources(name)
            self._picked |= any(node.operator in _PICKS for node in moves)
            makers = [self.graph.nodes.get(source) for source in sources]
            nodes = [node for node in makers if node is not None]
            if len(nodes) == len(makers) and all(node.operator in GATES for node in nodes):
                name = self._recurrent(sources, nodes)
            elif len(sources) > 1:
                what = " and ".join(str(n or repr(s)) for n, s in zip(makers, sources, strict=True))
                self.refuse(f"what is joined of {what:.200}")
            else:
                name = self._layer(sources[0], makers[0])

    def _layer(self, source: str, node: Node | None) -> str:
        """One layer that is not recurrent; the value that it reads, or "" at the end."""
        if node is None:
            return self._input(source)
        self.values.add(source)
        if self.layers and (table := self._embedding(node)) is not None:
            self.table, indices = table, _nth(node, 1 if node.operator == "Gather" else 0)
            self.said.append(f"an embedding {list(self.table.shape)}")
            found, _ = self.graph.sources(indices)
            return self._input(found[0], " and ".join(found))
        if node.operator in _ACTIVATIONS and self.linear is None and self.activation == "linear":
            self.activation = _ACTIVATIONS[node.operator]
            self.said.append(self.activation)
            return _nth(node, 0)
        if self.linear is None and (linear := self._linear(node)) is not None:
            name, weight, bias = linear
            self.linear = weight, bias
            self.said.append(f"a linear layer of {len(weight)} outputs")
            return name
        if self.linear and (norm := self._layer_norm(node)) is not None and self._norm is None:
            name, self._norm = norm[0], norm[1:]
            self.said.append("a layer normalization")
            return name
        if node.operator in _POOLS and not (self.layers or self.poolings):
            self.poolings = [_POOLS[node.operator]]
            self.said.append(f"the {self.poolings[0]} over steps")
            return _nth(node, 0)
        return self.refuse(str(node))

    def refuse(self, what: str) -> NoReturn:
        """Say what is there, and what a model has there."""
        if self.layers:
            expected = "an RNN, LSTM or GRU, an embedding (a constant table), or an input"
        elif self.linear is not None:
            expected = "an RNN, LSTM or GRU, or the mean or maximum of its outputs over steps"
        else:
            expected = "softmax, sigmoid, or a linear layer with constant weights"
        before = f"after {', '.join(self.said)} it" if self.said else "it"
        raise OnnxError(
            f"it does not have the shape of a model: from its output {self.output.name!r:.80} "
            f"back, {before} has {what}; a model has {expected} there"
        )

    def explains(self, name: str) -> bool:
        """Whether an output of the graph is one of the layers' values, or a recurrent state."""
        sources, _ = self.graph.sources(name)
        ours = {id(node) for layer in self.layers for node in layer.nodes}
        return name in self.values or all(id(self.graph.nodes.get(s)) in ours for s in sources)

    # Layers

    def _input(self, name: str, shown: str = "") -> str:
        """The end: an input of the graph."""
        value = self.graph.inputs.get(name)
        if value is None or not self.layers:
            self.refuse(f"{shown or name!r:.80}, {'an input' if value else 'no input'}")
        if (value.dtype is not None and value.dtype.kind == "f") is (self.table is not None):
            self.refuse(f"the input {value}")
        self.input = value
        return ""

    def _pair(self, node: Node) -> tuple[str, Array] | None:
        """Of a node of two operands, the one that varies, and the one that is constant."""
        first, second = _nth(node, 0), _nth(node, 1)
        for varying, constant in ((first, second), (second, first)):
            array = self.graph.array(constant)
            if array is not None and varying in self.graph.varying:
                return varying, array
        return None

    def _linear(self, node: Node) -> tuple[str, Array, Array | None] | None:
        """What a linear layer reads, its weight [O, I] and its bias."""
        array, bias = self.graph.array, None
        if node.operator == "Gemm":
            weight = array(_nth(node, 1))
            if _nth(node, 2):
                bias = array(_nth(node, 2))
                if bias is None:
                    return None
                bias = bias * node.get("beta", 1.0)
            if weight is None or weight.ndim != 2 or node.get("transA", 0):
                return None
            weight = weight if node.get("transB", 0) else weight.T
            weight = weight * node.get("alpha", 1.0)
            name = _nth(node, 0)
        else:
            if node.operator == "Add":
                if (pair := self._pair(node)) is None:
                    return None
                name, bias = pair
                sources, _ = self.graph.sources(name)
                node = self.graph.nodes.get(sources[0], node) if len(sources) == 1 else node
            if node.operator != "MatMul" or (weight := array(_nth(node, 1))) is None:
                return None
            if weight.ndim != 2:
                return None
            self.values.update(node.outputs)
            name, weight = _nth(node, 0), weight.T
        if bias is not None:
            if bias.size not in (1, len(weight)):
                return None
            bias = np.broadcast_to(bias.reshape(-1), len(weight)).astype(weight.dtype)
        return name, weight, bias

    def _layer_norm(self, node: Node) -> tuple[str, Array, Array] | None:
        """What a layer normalization reads, its weight and its bias; also one in single steps."""
        array = self.graph.array
        if node.operator == "LayerNormalization":
            weight = array(_nth(node, 1))
            bias = array(_nth(node, 2))
            if weight is None:
                return None
            return _nth(node, 0), weight, np.zeros_like(weight) if bias is None else bias
        # ((x - mean(x)) / deviation) * weight + bias
        found: list[Array] = []
        for operator in ("Add", "Mul"):
            if node.operator != operator or (pair := self._pair(node)) is None:
                return None
            found.append(pair[1])
            node = self.graph.nodes.get(pair[0], node)
        centred = self.graph.nodes.get(_nth(node, 0))
        if node.operator != "Div" or centred is None or centred.operator != "Sub":
            return None
        mean = self.graph.nodes.get(_nth(centred, 1))
        if mean is None or mean.operator != "ReduceMean" or _nth(mean, 0) != _nth(centred, 0):
            return None
        return _nth(centred, 0), found[1], found[0]

    def _embedding(self, node: Node) -> Array | None:
        """The table of an embedding, or of one-hot vectors."""
        if node.operator == "Gather" and node.get("axis", 0) == 0:
            table = self.graph.array(_nth(node, 0))
            return table if table is not None and table.ndim == 2 else None
        if node.operator == "OneHot":
            depth, values = self.graph.array(_nth(node, 1)), self.graph.array(_nth(node, 2))
            if depth is None or values is None or depth.size != 1 or values.tolist() != [0, 1]:
                return None
            V = float(depth.reshape(()))
            return np.eye(int(V), dtype=values.dtype) if 0 < V <= _MOST_ONE_HOT else None
        return None

    def _recurrent(self, sources: list[str], nodes: list[Node]) -> str:
        """One recurrent layer; the value that it reads."""
        if self.linear is None:
            self.refuse(str(nodes[0]))
        order = {id(node): k for k, node in enumerate(self.graph.model.graph.nodes)}
        top = max(nodes, key=lambda node: order[id(node)])
        reads = self.graph.sources(_nth(top, 0))[0]
        layer = {id(node): node for node in nodes if self.graph.sources(_nth(node, 0))[0] == reads}
        if not self.layers and not self.poolings:
            own = [s for s in sources if id(self.graph.nodes[s]) in layer]
            every = all(self.graph.nodes[s].outputs[0] == s for s in own)
            self.poolings = ["last"] if not every else [None, "last"] if self._picked else [None]
        elif len(layer) < len({id(node) for node in nodes}):
            self.refuse(f"what is joined of {' and '.join(map(str, nodes)):.200}")
        ordered = sorted(layer.values(), key=lambda node: node.get("direction", "forward"))
        directions = [d for node in ordered for d in RecurrentNode(node).reverse]
        if directions not in ([False], [False, True]):
            self.refuse(f"{top} in reverse alone")
        self.layers.append(_Layer(tuple(ordered), self._norm))
        self._norm = None
        self.said.append(f"the {top}")
        for node in ordered:
            self._options(node)
        return _nth(top, 0)

    def _options(self, node: Node) -> None:
        """The inputs of a recurrent node besides what it reads and its weights."""
        lengths, *states = (_nth(node, k) for k in (4, 5, 6))
        for name in filter(None, states):
            array = self.graph.array(name)
            if array is not None and array.any():
                self.refuse(f"{node}, which starts from a state that is not 0")
            if name in self.graph.varying:
                given, _ = self.graph.sources(name)
                if not set(given) <= set(self.graph.inputs):
                    self.refuse(f"{node}, which starts from a state that is computed")
                self.states.update(given)
        if lengths in self.graph.varying:
            given, _ = self.graph.sources(lengths)
            if len(given) != 1 or self.lengths not in ("", given[0]):
                self.refuse(f"{node}, whose lengths are not one input")
            self.lengths = given[0]

    # The model

    def parts(self, pooling: str | None) -> Parts:
        """The network as parts of a model.

        Raises:
            OnnxError: its layers differ, or are of a kind that models do not have.
        """
        assert self.linear is not None
        arrays: dict[str, Array] = {}
        cells_of, sizes = set[str | Cell](), set[tuple[int, int]]()
        layers = self.layers[::-1]
        for k, layer in enumerate(layers):
            suffixes = iter((f"_l{k}", f"_l{k}_reverse"))
            count = 0
            for node in layer.nodes:
                for cell, own in self._directions(node):
                    suffix = next(suffixes)
                    arrays.update((name + suffix, array) for name, array in own.items())
                    cells_of.add(cell)
                    count += 1
                    H = own["weight_hh"].shape[1]
            sizes.add((H, count))
            if layer.norm is not None:
                arrays[f"norm_l{k}.weight"], arrays[f"norm_l{k}.bias"] = layer.norm
        norms = {layer.norm is not None for layer in layers}
        if len(cells_of) > 1 or len(sizes) > 1 or len(norms) > 1:
            raise OnnxError(
                "its recurrent layers differ in their kind, size, directions or normalization; "
                f"those of a model are alike: {', '.join(reversed(self.said))}"
            )
        (cell,), ((H, D),), (norm,) = cells_of, sizes, norms
        body: dict[str, Any] = {
            "hidden_size": H, "num_layers": len(layers), "bidirectional": D == 2,
        }  # fmt: skip
        return Parts(
            cell,
            arrays,
            body | {"layer_norm": True} if norm else body,
            self.linear,
            self.table,
            pooling,
            "" if self.activation == "linear" else self.activation.removeprefix("log_"),
        )

    def _directions(self, node: Node) -> Iterator[tuple[str | Cell, dict[str, Array]]]:
        """The cell, by its name if it has one, and the parameters of each direction of a node."""
        recurrent = RecurrentNode(node)
        if recurrent.resets_first and any(cell is not _RESETS_FIRST for cell in recurrent.cells):
            raise node.error(
                "its reset gate multiplies before the matrix product (linear_before_reset is 0); "
                "layers of models have that with tanh and sigmoid alone, and no clip"
            )
        names = [_nth(node, k) for k in (1, 2, 3, 7)]
        W, R, B, P = (self.graph.array(name) for name in names)
        if W is None or R is None or any(n and self.graph.array(n) is None for n in names):
            raise node.error("its weights are computed from inputs, and not constant")
        if W.ndim != 3:
            raise node.error(f"W has the shape {W.shape}, expected 3 axes")
        recurrent.check(np.zeros((1, 1, W.shape[2]), W.dtype), W, R, B, None, None, None, P)
        H = R.shape[2]
        for d, theirs in enumerate(recurrent.cells):
            ours = _BUILT_IN.get(theirs, theirs)
            given = recurrent.weights(W[d], R[d], None if B is None else B[d], P, d)
            gates = [gate for gate in ours.gates if gate != "first"]  # of half a GRU, no weight
            rows = np.concatenate([np.arange(H) + H * theirs.gates.index(gate) for gate in gates])
            own = {
                name: getattr(given, name)[rows]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                if getattr(given, name) is not None
            }
            own |= dict(zip(theirs.parameters, given.parameters, strict=True))
            if recurrent.resets_first:
                yield nn.ResetBeforeGRU.name, own
            else:
                yield ours.name if CELLS.get(ours.name) is ours else ours, own


# The comparison


def _compared(network: _Network, task: str | None) -> SavedModel:
    """The model, compared with the graph.

    Raises:
        OnnxError: the two differ, however the layout is read.
        ValueError: no task fits.
    """
    graph = OnnxModel(network.graph.model)
    best, reason = np.inf, ""
    unfit: ValueError | None = None
    for pooling in network.poolings:
        parts = network.parts(pooling)
        try:
            model = parts.model(task)
        except ValueError as error:
            unfit = error
            continue
        for inputs, x, lengths in _inputs(network, parts):
            try:
                with no_grad():
                    results = graph(**inputs)
            except (TypeError, ValueError) as error:
                reason = str(error)
                continue
            found = dict(zip((v.name for v in graph.graph_outputs), results, strict=True))
            expected = _computed(model, network.activation, x, lengths)
            best = min(best, _difference(np.asarray(found[network.output.name].data), expected))
            if best <= TOLERANCE:
                return model
    if np.isfinite(best) or unfit is None:
        shape = ", ".join(reversed(network.said))
        why = f"its output differs by {best:.2g}" if np.isfinite(best) else reason or "its shape"
        raise OnnxError(
            f"it has the layers of a model ({shape}), but computes something else than they do in "
            f"a model: {why}"
        )
    raise unfit


def _inputs(
    network: _Network, parts: Parts
) -> Iterator[tuple[dict[str, Array], Array, Array | None]]:
    """Random inputs in each layout that the declared shapes allow: those of the graph, and for the
    model x [T, B] or [T, B, I] and lengths.
    """
    value = network.input
    assert value is not None
    embedding, generator = parts.embedding, np.random.default_rng(0)
    features = "" if embedding is not None else "I"
    I = parts.recurrent["weight_ih_l0"].shape[1]
    declared: Sequence[int | str] = ("",) * 3 if value.shape is None else value.shape
    if embedding is not None and value.shape is None:
        declared = declared[:2]
    for roles in dict.fromkeys(itertools.permutations(_roles(len(declared), features))):
        sizes = {"T": 5, "B": 3, "I": I, "1": 1}
        named: dict[str, int] = {}
        for role, size in zip(roles, declared, strict=True):
            if type(size) is int and role in "TB":
                sizes[role] = size
            elif type(size) is str and size:
                named[size] = sizes[role]
        if any(type(n) is int and n != sizes[r] for r, n in zip(roles, declared, strict=True)):
            continue
        if "B" not in roles:
            sizes["B"] = 1
        shape = tuple(sizes[role] for role in roles)
        if embedding is not None:
            given = generator.integers(0, len(embedding), shape).astype(value.dtype or np.int64)
        else:
            given = generator.normal(size=shape).astype(value.dtype or np.float32)
        order = [roles.index(role) for role in ("T", "B", "I") if role in roles]
        axes = [sizes[role] for role in ("T", "B", *features)]
        rest = [k for k in range(len(roles)) if k not in order]
        x = given.transpose(*order, *rest).reshape(axes)
        lengths = None
        inputs = {value.name: given}
        for name in network.graph.inputs:
            if name in network.states:
                inputs[name] = _state(network.graph.inputs[name], sizes["B"], named)
            elif name == network.lengths:
                lengths = generator.integers(1, sizes["T"] + 1, sizes["B"])
                lengths[0] = sizes["T"]
                dtype = network.graph.inputs[name].dtype or np.int32
                inputs[name] = lengths.astype(dtype)
            elif name != value.name:
                raise OnnxError(
                    f"its input {network.graph.inputs[name]} is none of ids, features, lengths, or "
                    "a recurrent state, which models read"
                )
        yield inputs, x, lengths


def _roles(rank: int, features: str) -> list[str]:
    """What the axes of an input of a number of axes are, in some order."""
    roles = ["T", *features]
    if rank > len(roles):
        roles.insert(1, "B")
    if rank < len(roles):
        raise OnnxError(f"its input has {rank} axes; a model reads {len(roles)} or more")
    return roles + ["1"] * (rank - len(roles))


def _state(value: Value, B: int, named: Mapping[str, int]) -> Array:
    """A state of zeros."""
    shape = (1, B, 1) if value.shape is None else value.shape
    sizes = [size if type(size) is int else named.get(str(size), B) for size in shape]
    return np.zeros(sizes, value.dtype or np.float32)


def _computed(model: Any, activation: str, x: Array, lengths: Array | None) -> Array:
    """What a model returns, with the activation that the graph has at its end."""
    with no_grad(), products_in("float32"), np.errstate(all="ignore"):
        result = model(x, lengths=lengths)
        scores = result[0] if type(result) is tuple else result
        return np.asarray(
            scores.data if activation == "linear" else getattr(ops, activation)(scores).data
        )


def _difference(found: Array, expected: Array) -> float:
    """The difference, in whichever order the axes are."""
    if found.size != expected.size:
        return np.inf
    return min(
        compared(found, expected.transpose(axes).reshape(found.shape))
        for axes in itertools.permutations(range(expected.ndim))
    )
