"""The layers of an export that are more than operations: recurrence, attention, characters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx

from anaphora import cells, nn, ops
from anaphora.cells import Cell
from anaphora.data import IGNORE_INDEX
from anaphora.engine.precision import MAX_INT8_TERMS, quantized
from anaphora.equations import Program
from anaphora.interop.onnx import operations  # noqa: F401 - registers them
from anaphora.interop.onnx.graph import CONTRIBUTED, Array
from anaphora.interop.onnx.symbols import OPERATIONS, TYPES, ExportError, Symbol, Tracer
from anaphora.models.decoder import Decoder
from anaphora.models.reader import CharacterLayer, last_outputs
from anaphora.nn.kinds import CellLayer, without_padding
from anaphora.nn.pooling import over_time
from anaphora.nn.reset_before import half_gru
from anaphora.nn.states import as_tuple, from_tuple
from anaphora.ops.convolution import Padding, padding_sizes
from anaphora.tensor import Tensor


class Node(NamedTuple):
    """An operator of the standard that computes a cell.

    Attributes:
        operator: RNN, LSTM or GRU.
        gates: The cell's gates in the operator's order; "-f" is 1 - f, from negated weights.
        peepholes: The cell's parameters in the operator's order.
        attributes: Of the node.
    """

    operator: str
    gates: tuple[str, ...]
    peepholes: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = {}


NODES: tuple[tuple[Cell, Node], ...] = (
    (cells.rnn, Node("RNN", ("a",))),
    (cells.rnn_relu, Node("RNN", ("a",), (), {"activations": ["Relu"]})),
    (cells.lstm, Node("LSTM", ("i", "o", "f", "g"))),
    (cells.peephole_lstm, Node("LSTM", ("i", "o", "f", "g"), ("p_i", "p_o", "p_f"))),
    (cells.coupled_lstm, Node("LSTM", ("-f", "o", "f", "g"))),
    (cells.gru, Node("GRU", ("z", "r", "n"), (), {"linear_before_reset": 1})),
    (cells.mgu, Node("GRU", ("-f", "f", "n"), (), {"linear_before_reset": 1})),
)
"""The cells that an operator computes; 1 - sigmoid(f) is sigmoid(-f)."""

RESETS_FIRST = Node("GRU", ("z", "r", "n"))
"""That of `nn.ResetBeforeGRU`."""

FUNCTIONS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "negative": "Neg",
    "sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "exp": "Exp", "log": "Log",
    "softplus": "Softplus", "abs": "Abs", "maximum": "Max", "minimum": "Min", "sign": "Sign",
}  # fmt: skip
"""The operator of each function of the vocabulary of equations."""


def node_of(cell: Cell) -> Node | None:
    """The operator that computes a cell, by its program and the names of gates and parameters."""
    if not cell.fused:
        return None
    for known, node in NODES:
        a, b = cell.program, known.program
        if (a.inputs, a.instructions, a.outputs) == (b.inputs, b.instructions, b.outputs):
            return node
    return None


@dataclasses.dataclass
class _Direction:
    """One direction of one layer: its parameters, with where they come from."""

    layer: nn.Recurrent
    suffix: str
    parameters: Mapping[str, Any]

    def rows(self, name: str, order: tuple[str, ...], gates: tuple[str, ...]) -> Array:
        """The rows of a weight or bias in an operator's order of gates."""
        array = self.parameters[name].data
        H = self.layer.hidden_size
        blocks = []
        for gate in order:
            start = gates.index(gate.lstrip("-")) * H
            block = array[start : start + H]
            blocks.append(-block if gate.startswith("-") else block)
        return np.concatenate(blocks)


def recurrent(
    t: Tracer, layer: nn.Recurrent, x: Any, state: Any = None, lengths: Any = None
) -> tuple[Any, Any]:
    """A stack of layers: a node for each layer that the standard has, else loops."""
    kind = layer.kind
    if not isinstance(kind, (CellLayer, nn.StepKind, nn.ResetBeforeGRU)):
        raise ExportError(
            f"layers of the kind {kind.name!r} cannot be exported; those of a Cell and of a "
            "StepKind can"
        )
    if layer.trainable_state:
        raise ExportError(
            "trained initial states (trainable_state) cannot be exported, whose states start at 0; "
            "train without them"
        )
    if not isinstance(x, Symbol):
        raise ExportError("its input does not depend on an input of the file")
    if lengths is not None and not isinstance(lengths, Symbol):
        raise ExportError("lengths must be an input of the file, not constant numbers")
    single = x.ndim == 2
    if single:
        x = x.reshape(x.shape[0], 1, x.shape[1])
    elif layer.batch_first:
        x = x.transpose(1, 0, 2)
    assert isinstance(x, Symbol)
    states = None if state is None else [_batched(s, single) for s in as_tuple(state)]
    if isinstance(kind, nn.ResetBeforeGRU) and kind.half is not half_gru:
        raise ExportError(f"{kind.name!r} cannot be exported; with tanh and sigmoid it can")
    cell = kind.cell if isinstance(kind, CellLayer) else None
    if cell is not None and layer.zoneout:
        cell = cells.zoneout(cell, layer.zoneout)
    node = None if layer.proj_size or cell is None else node_of(cell)
    if isinstance(kind, nn.ResetBeforeGRU):  # its weights are those of a GRU
        cell, node = cells.gru, RESETS_FIRST
    finals: list[list[Any]] = []
    for k in range(layer.num_layers):
        directions = [
            _Direction(layer, suffix, layer._parameters(suffix)) for suffix in layer._suffixes(k)
        ]
        D = len(directions)
        initial = None
        if states is not None:
            initial = [s if len(s) == D else s[k * D : (k + 1) * D] for s in states]
        x, final = (
            _node(t, node, directions, cell, x, initial, lengths)
            if node is not None and cell is not None
            else _loops(t, directions, cell, x, initial, lengths)
        )
        if layer.layer_norm:
            x = getattr(layer, f"norm_l{k}")(x)
        finals.append(final)
    assert isinstance(x, Symbol)
    if layer.layer_norm and lengths is not None:
        x = t.where(_active(t, lengths, x), x, 0.0)
    after = [
        states_of[0] if len(states_of) == 1 else ops.concatenate(states_of)
        for states_of in zip(*finals, strict=True)
    ]
    if single:
        x = x.reshape(x.shape[0], x.shape[2])
        after = [s.reshape(s.shape[0], s.shape[2]) for s in after]
    elif layer.batch_first:
        x = x.transpose(1, 0, 2)
    return x, from_tuple(after)


def recurrent_cell(t: Tracer, module: nn.RecurrentCell, x: Any, state: Any = None) -> Any:
    """One step of a cell."""
    kind = module.kind
    if x.ndim == 1 or state is None:
        raise ExportError("one step can be exported of a batch [B, I] and a state [B, H]")
    given = module._parameters()
    halves = ops.linear(x, given["weight_ih"], given.get("bias_ih"))
    states = list(as_tuple(state))
    return from_tuple(_step(t, kind.cell, halves, states, given, module.hidden_size))  # type: ignore[arg-type]


def _batched(state: Any, single: bool) -> Any:
    return state.reshape(state.shape[0], 1, state.shape[1]) if single else state


def _active(t: Tracer, lengths: Symbol, x: Symbol) -> Symbol:
    """[T, B, 1] whether each step is within the length of its row."""
    T, B = x.shape[:2]
    return lengths.active(T).reshape(T, B, 1)  # type: ignore[return-value]


def _node(
    t: Tracer,
    node: Node,
    directions: list[_Direction],
    cell: Cell,
    x: Symbol,
    initial: list[Any] | None,
    lengths: Symbol | None,
) -> tuple[Symbol, list[Any]]:
    """One layer, in both directions, as a node of the standard; states are [D, B, H]."""
    layer, suffix, D = directions[0].layer, directions[0].suffix, len(directions)
    H = layer.hidden_size

    def stacked(name: str, gates: tuple[str, ...]) -> Array:
        return np.stack([d.rows(name, node.gates, gates) for d in directions])

    prefix = t.graph.root.scope
    weights = stacked("weight_ih", cell.input_gates), stacked("weight_hh", cell.recurrent_gates)
    B = P = ""
    if layer.bias:
        halves = stacked("bias_ih", cell.input_gates), stacked("bias_hh", cell.recurrent_gates)
        B = t.array(f"{prefix}B{suffix}", np.concatenate(halves, axis=1))
    if node.peepholes:
        vectors = [
            np.concatenate([d.parameters[name].data for name in node.peepholes]) for d in directions
        ]
        P = t.array(f"{prefix}P{suffix}", np.stack(vectors))
    ends = "" if lengths is None else t.graph.node("Cast", lengths.value, to=onnx.TensorProto.INT32)
    before = [""] * len(cell.states) if initial is None else [s.value for s in initial]
    options = {
        "hidden_size": H,
        "direction": "bidirectional" if D == 2 else "forward",
        **node.attributes,
    }
    if "activations" in options:
        options["activations"] = list(options["activations"]) * D
    outputs = [f"Y{suffix}", *(f"{name}{suffix}" for name in cell.states)]
    widest = max(weights[0].shape[2], weights[1].shape[2])
    if id(layer) in t.in_int8 and node.operator == "LSTM" and widest <= MAX_INT8_TERMS:
        pairs = [_in_int8(weight) for weight in weights]
        W, R = (t.array(f"{prefix}{n}{suffix}", q) for n, (q, _) in zip("WR", pairs, strict=True))
        scales = [
            t.array(f"{prefix}{n}_scale{suffix}", s) for n, (_, s) in zip("WR", pairs, strict=True)
        ]
        zero = t.array(f"{prefix}zero_points{suffix}", np.zeros(pairs[0][1].shape, np.int8))
        inputs = [x.value, W, R, B, ends, *before, P, scales[0], zero, scales[1], zero]
        made = t.graph.nodes_of(
            "DynamicQuantizeLSTM", *inputs, named=outputs, domain=CONTRIBUTED, **options
        )
    else:
        W, R = (t.array(f"{prefix}{n}{suffix}", w) for n, w in zip("WR", weights, strict=True))
        inputs = [x.value, W, R, B, ends, *before, P]
        while not inputs[-1]:
            del inputs[-1]
        made = t.graph.nodes_of(node.operator, *inputs, named=outputs, **options)
    T, rows, _ = x.shape
    y = t.made(made[0], (T, D, rows, H))
    output = y.transpose(0, 2, 1, 3).reshape(T, rows, D * H)
    after: list[Any] = [t.made(name, (D, rows, H)) for name in made[1:]]
    if lengths is not None and initial is not None:  # rows without a step keep their states
        nonempty = (lengths > 0).reshape(rows, 1)
        after = [t.where(nonempty, new, old) for new, old in zip(after, initial, strict=True)]
    return output, after  # type: ignore[return-value]


def _in_int8(weight: Array) -> tuple[Array, Array]:
    """Weights [D, G*H, K] as integers [D, K, G*H] with scales [D, G*H]."""
    pairs = [quantized(one.astype(np.float32)) for one in weight]
    return np.stack([q.T for q, _ in pairs]), np.stack([scales for _, scales in pairs])


def _loops(
    t: Tracer,
    directions: list[_Direction],
    cell: Cell | None,
    x: Symbol,
    initial: list[Any] | None,
    lengths: Symbol | None,
) -> tuple[Any, list[Any]]:
    """One layer as a loop for each direction; states are [D, B, ...]."""
    D = len(directions)
    outputs, finals = [], []
    for direction, parts in enumerate(directions):
        before = None if initial is None else [s[direction] for s in initial]
        output, final = _loop(t, parts, cell, x, before, lengths, direction == 1)
        outputs.append(output)
        finals.append(final)
    after = [ops.stack(states) for states in zip(*finals, strict=True)]
    return outputs[0] if D == 1 else ops.concatenate(outputs, axis=-1), after


def _loop(
    t: Tracer,
    direction: _Direction,
    cell: Cell | None,
    x: Symbol,
    initial: list[Any] | None,
    lengths: Symbol | None,
    reverse: bool,
) -> tuple[Symbol, list[Symbol]]:
    """One direction as a Scan, whose body is the cell's program, or what the step of a kind writes.

    States are [B, ...].
    """
    layer, given = direction.layer, direction.parameters
    shapes = layer.kind.state_shapes(layer)
    B = x.shape[1]
    if initial is None:
        zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32))
        initial = [
            t.made(t.graph.node("ConstantOfShape", t.sizes((B, *shape)), value=zero), (B, *shape))
            for shape in shapes.values()
        ]
    read: Any = x if cell is None else ops.linear(x, given["weight_ih"], given.get("bias_ih"))
    scanned = [read] if lengths is None else [read, _active(t, lengths, x)]

    def next_states(x: Symbol, before: list[Symbol]) -> list[Any]:
        if cell is None:
            kind: Any = layer.kind
            return list(kind.step(layer, x, tuple(before), given))
        new = _step(t, cell, x, before, given, layer.hidden_size)
        if layer.proj_size:
            new[0] = ops.linear(new[0], given["weight_hr"])
        return new

    def step(before: list[Symbol], read: list[Symbol]) -> tuple[list[Any], list[Any]]:
        new = next_states(read[0], before)
        if lengths is None:
            return new, [new[0]]
        kept = [
            t.where(read[1].reshape(B, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(new, before, strict=True)
        ]
        return kept, [t.where(read[1], new[0], 0.0)]

    names = [f"{name}{direction.suffix}" for name in (*shapes, "Y")]
    after, (output,) = scan(t, step, initial, scanned, names, reverse)
    return output, after


def scan(
    t: Tracer,
    step: Callable[[list[Symbol], list[Symbol]], tuple[list[Any], list[Any]]],
    initial: list[Any],
    scanned: list[Symbol],
    names: list[str],
    reverse: bool = False,
) -> tuple[list[Symbol], list[Symbol]]:
    """A loop over the first axis, as a Scan.

    Args:
        t: The tracer.
        step: From the states and one element of all that is scanned, the new states, and outputs.
        initial: The states before the first step.
        scanned: [T, ...] each.
        names: Of the states and the outputs.
        reverse: From the last step to the first.

    Returns:
        The final states, and the outputs of all steps [T, ...].
    """
    info = onnx.helper.make_tensor_value_info
    with t.body() as body:
        states = [_inside(t, name, s.shape, s) for name, s in zip(names, initial, strict=False)]
        steps = [_inside(t, "step", s.shape[1:], s) for s in scanned]
        new, outputs = step(states, steps)
        written = [body.node("Identity", value.value) for value in (*new, *outputs)]
        graph = onnx.helper.make_graph(
            body.nodes,
            names[-1],
            [info(s.value, TYPES[s.dtype.kind], [None] * s.ndim) for s in (*states, *steps)],
            [
                info(name, TYPES[value.dtype.kind], [None] * value.ndim)
                for name, value in zip(written, (*new, *outputs), strict=True)
            ],
        )
    made = t.graph.nodes_of(
        "Scan",
        *(s.value for s in (*initial, *scanned)),
        named=names,
        body=graph,
        num_scan_inputs=len(scanned),
        scan_input_directions=[int(reverse)] * len(scanned),
        scan_output_directions=[int(reverse)] * len(outputs),
    )
    final, stacked = made[: len(new)], made[len(new) :]
    T = scanned[0].shape[0]
    return (
        [t.made(n, s.shape, s.dtype) for n, s in zip(final, initial, strict=True)],
        [t.made(n, (T, *s.shape), s.dtype) for n, s in zip(stacked, outputs, strict=True)],
    )


def _inside(t: Tracer, name: str, shape: Any, like: Symbol) -> Symbol:
    """An input of a body."""
    return t.made(t.graph.name(f"/{t.graph.root.scope}{name}"), shape, like.dtype)


class _Gate(Symbol):
    """The sum of a gate's halves, with the halves as attributes."""

    __slots__ = ("h", "x")

    h: Any
    x: Any


def _step(
    t: Tracer, cell: Cell, x: Symbol, states: list[Symbol], given: Mapping[str, Any], H: int
) -> list[Any]:
    """The states after one step, from the input halves of the gates [B, Gx*H]."""
    x_halves = dict(zip(cell.input_gates, _blocks(x, H), strict=True))
    h_halves: dict[str, Any] = {}
    if "weight_hh" in given:
        h = ops.linear(states[0], given["weight_hh"], given.get("bias_hh"))
        h_halves = dict(zip(cell.recurrent_gates, _blocks(h, H), strict=True))
    parameters = [given[name] for name in cell.parameters]
    if not cell.fused:  # its equations run on symbols themselves
        gates = []
        for name in cell.gates:
            total = x_halves[name] + h_halves[name]
            summed = _Gate(t, total.value, total.shape, total.dtype)
            summed.x, summed.h = x_halves[name], h_halves[name]
            gates.append(summed)
        new = list(as_tuple(cell(*gates, *states, *parameters)))
    else:
        own = dict(zip(cell.states, states, strict=True)) | dict(
            zip(cell.parameters, parameters, strict=True)
        )
        inputs = []
        for name in cell.program.inputs:
            gate, _, half = name.partition(".")
            if half:
                inputs.append((x_halves if half == "x" else h_halves)[gate])
            else:
                inputs.append(own[gate] if gate in own else x_halves[gate] + h_halves[gate])
        new = _run(t, cell.program, inputs)
    shape = (x.shape[0], H)
    return [
        value
        if isinstance(value, Symbol) and value.ndim == 2
        else ops.broadcast_to(t.elementwise("Add", value, states[0] * 0.0), shape)
        for value in new
    ]


def _blocks(x: Any, H: int) -> list[Any]:
    """[B, G*H] as G blocks [B, H]."""
    G = x.shape[1] // H
    return [x] if G == 1 else [x[:, g * H : (g + 1) * H] for g in range(G)]


def _run(t: Tracer, program: Program, inputs: list[Any]) -> list[Any]:
    """A program's outputs; values have the names that the author gave them."""
    values = list(inputs)
    for number, instruction in enumerate(program.instructions, start=len(inputs)):
        operands = [values[o] if type(o) is int else o for o in instruction.operands]
        operator = FUNCTIONS[instruction.function]
        values.append(t.elementwise(operator, *operands, named=program.names[number]))
    return program.results(values)


# Convolution


def conv1d(
    t: Tracer,
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Any:
    """`ops.conv1d`: the standard's Conv has time last."""
    K = weight.shape[2]
    pads = padding_sizes(padding, K, stride, dilation)
    keeps = stride == 1 and sum(pads) == dilation * (K - 1)
    if x.ndim == 2:
        rows = x.reshape(x.shape[0], 1, x.shape[1])
        y = conv1d(t, rows, weight, bias, stride, pads, dilation, groups)
        return y.reshape(y.shape[0], y.shape[2])
    inputs = [x.transpose(1, 2, 0).value, t.name(weight)]
    value = t.graph.node(
        "Conv",
        *(inputs if bias is None else [*inputs, t.name(bias)]),
        kernel_shape=[K],
        strides=[stride],
        pads=list(pads),
        dilations=[dilation],
        group=groups,
    )
    steps = x.shape[0] if keeps else None
    return t.made(value, (x.shape[1], weight.shape[0], steps)).transpose(2, 0, 1)


def output_lengths(
    t: Tracer, lengths: Symbol, padding: int, K: int, stride: int, dilation: int
) -> Symbol:
    """`window_counts` of `anaphora.nn.pooling`; division is towards 0, so first comes a maximum."""
    last = t.elementwise("Add", lengths, padding - dilation * (K - 1) - 1)
    count = t.elementwise("Div", t.elementwise("Max", last, 0), stride)
    some = t.elementwise("And", lengths > 0, last >= 0, dtype=np.bool_)
    return t.elementwise("Mul", t.elementwise("Add", count, 1), t.cast(some, np.int64))


def pool(t: Tracer, module: Any, x: Any, lengths: Any = None) -> Any:
    """`nn.MaxPool1d` and `nn.AvgPool1d`: the standard's pools have time last."""
    if module.ceil_mode:
        raise ExportError("ceil_mode=True cannot be exported; without partial windows a pool can")
    is_max = isinstance(module, nn.MaxPool1d)
    options: dict[str, Any] = (
        {"dilations": [module.dilation]}
        if is_max
        else {"count_include_pad": int(module.count_include_pad)}
    )
    if lengths is not None and not is_max and not module.count_include_pad:
        raise ExportError(
            "count_include_pad=False cannot be exported with lengths, whose ends the standard's "
            "pool does not know"
        )

    def pooled(x: Any, ends: Any) -> Any:
        if ends is not None:
            x = t.where(_active(t, ends, x), x, -np.inf if is_max else 0.0)
        value = t.graph.node(
            "MaxPool" if is_max else "AveragePool",
            x.transpose(1, 2, 0).value,
            kernel_shape=[module.kernel_size],
            strides=[module.stride],
            pads=[module.padding] * 2,
            **options,
        )
        y = t.made(value, (*x.shape[1:], None)).transpose(2, 0, 1)
        return y if ends is None else without_padding(y, module.output_lengths(ends))

    return over_time(type(module).__name__, x, lengths, module.batch_first, pooled)


# Normalization


def group_norm(t: Tracer, module: nn.GroupNorm, x: Any, lengths: Any = None) -> Any:
    """`nn.GroupNorm.forward`: means over steps and the features of a group."""
    if x.ndim == 2:
        rows = x.reshape(x.shape[0], 1, x.shape[1])
        y = group_norm(t, module, rows if module.batch_first else rows.transpose(1, 0, 2))
        return y.reshape(x.shape)

    def normalized(x: Any, ends: Any) -> Any:
        T, B, I = x.shape
        size = I // module.num_groups

        def masked(values: Any) -> Any:
            flat = values.reshape(T, B, I)
            return without_padding(flat, ends).reshape(T, B, module.num_groups, size)

        def mean(values: Any) -> Any:
            if ends is None:
                return values.mean(axis=(0, 3), keepdims=True)
            count = t.elementwise("Max", t.cast(ends, t.dtype) * float(size), float(size))
            return values.sum(axis=(0, 3), keepdims=True) / count.reshape(1, B, 1, 1)

        groups = masked(x)
        centred = masked(groups - mean(groups))
        y = centred * ops.power(mean(centred * centred) + module.epsilon, -0.5)
        y = y.reshape(T, B, I)
        if module.weight is not None and module.bias is not None:
            y = y * module.weight + module.bias
        return without_padding(y, ends)

    return over_time("GroupNorm", x, lengths, module.batch_first, normalized)


# Attention and models


def attention(
    t: Tracer, module: nn.Attention, queries: Any, states: Any, lengths: Any = None
) -> tuple[Any, Any]:
    """Contexts and weights."""
    return module.attend(queries, remembered(module, states, lengths))


def remembered(module: nn.Attention, states: Any, lengths: Any, keys: Any = None) -> nn.Memory:
    """The memory of states [S, B, E] with lengths that are symbols, or None."""
    mask: Any = np.ones((1, 1, 1), np.bool_)
    if lengths is not None:
        S, B = states.shape[:2]
        mask = lengths.active(S).transpose(1, 0).reshape(B, 1, S)
    return nn.Memory(states, module.keys(states) if keys is None else keys, mask)


def decoder(
    t: Tracer, module: Decoder, ids: Any, state: Any, memory: Any = None, lengths: Any = None
) -> tuple[Any, Any, Any]:
    """`Decoder.forward`, for a memory with as many rows as there are targets."""
    y, state = module.recurrent(module.drop(module.embedding(ids)), state, lengths=lengths)
    weights = None
    if module.attention is not None:
        contexts, weights = module.attention.attend(y, memory)
        y = ops.tanh(module.combine(ops.concatenate([contexts, y], axis=-1)))
    return module.drop(y), state, weights


def character_layer(t: Tracer, module: CharacterLayer, characters: Any, lengths: Any) -> Any:
    """`CharacterLayer.forward`."""
    flat = characters.reshape(characters.shape[0], -1)
    _, state = module.recurrent(module.embedding(flat), lengths=lengths.reshape(-1))
    h: Tensor = last_outputs(module.recurrent, state)
    return h.reshape(*lengths.shape, h.shape[1])


def crf_decode(
    t: Tracer, emissions: Symbol, transitions: Array, start: Array, end: Array, lengths: Symbol
) -> Symbol:
    """`ops.crf_decode`: the best path of tags, forward for its score, and back along it."""
    T, B, C = emissions.shape
    active = lengths.active(T)  # [T, B]
    same = np.arange(C)[None]

    def best(scores: Any, axis: int) -> Symbol:
        shape = [size for k, size in enumerate(scores.shape) if k != axis]
        return t.made(t.graph.node("ArgMax", scores.value, axis=axis, keepdims=0), shape, np.int64)

    def forward(states: list[Symbol], read: list[Symbol]) -> tuple[list[Any], list[Any]]:
        (score,), (emission, within, step) = states, read
        within = within.reshape(B, 1)  # type: ignore[assignment]
        paths = score.reshape(B, C, 1) + transitions  # [B, from, to]
        new = t.where(step == 0, start, paths.max(axis=1)) + emission
        before = t.graph.node("Where", within.value, best(paths, 1).value, t.name(same))
        return [t.where(within, new, score)], [t.made(before, (B, C), np.int64)]

    def backward(states: list[Symbol], read: list[Symbol]) -> tuple[list[Any], list[Any]]:
        index = t.name(states[0].reshape(B, 1))
        value = t.graph.node("GatherElements", read[0].value, index, axis=1)
        return [t.made(value, (B, 1), np.int64).reshape(B)], [states[0]]

    # All steps, though the first has none before it: ONNX Runtime has no loops of no steps.
    initial: Any = emissions[0] * 0.0
    scanned: list[Any] = [emissions, active, t.range(T)]
    (score,), (before,) = scan(t, forward, [initial], scanned, ["score", "before"])
    last = best(score + end, 1)
    _, (path,) = scan(t, backward, [last], [before], ["tag", "path"], reverse=True)
    padding = t.graph.constant(np.int64(IGNORE_INDEX))
    tags = t.graph.node("Where", active.value, path.value, padding)
    return t.made(tags, (T, B), np.int64)


OPERATIONS.update(conv1d=conv1d, crf_decode=crf_decode, output_lengths=output_lengths)

MODULES: dict[Any, Callable[..., Any]] = {
    nn.Recurrent.forward: recurrent,
    nn.Attention.forward: attention,
    nn.MaxPool1d.forward: pool,
    nn.AvgPool1d.forward: pool,
    nn.GroupNorm.forward: group_norm,
    nn.RecurrentCell.forward: recurrent_cell,
    nn.LSTMCell.forward: recurrent_cell,
    Decoder.forward: decoder,
    CharacterLayer.forward: character_layer,
}
"""What writes a module, by the forward that it has; others run their own, on symbols."""
