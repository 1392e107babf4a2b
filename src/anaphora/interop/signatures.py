"""What exported models take and return: names, axes and dtypes, and how a model computes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from anaphora import nn, ops
from anaphora.models import (
    ConditionalLanguageModel,
    EncoderDecoder,
    Forecaster,
    LanguageModel,
    SequenceTagger,
    VectorToSequence,
)
from anaphora.models.reader import Reader, last_outputs
from anaphora.models.sequences import SequenceToVector
from anaphora.nn.states import as_tuple, from_tuple
from anaphora.ops.recurrence import within
from anaphora.tensor import Tensor
from anaphora.tensor.hooks import thread

Values = Mapping[str, Any]


class Value(NamedTuple):
    """An input or an output.

    Attributes:
        name: Its name.
        axes: The size of each axis; a letter for a free one.
        kind: "features" (any numbers), "positive" numbers, "ids", "lengths", "flags" (booleans), or
            "state", "counts" (states that count steps), or "tags" (ids, and -100 for none).
        below: Ids are below this number.
        up_to: Lengths are at most the size of this axis.
        start: The value of a state before the first step.

    >>> Value("ids", ("T", "B"), "ids", below=10).dtype
    'int64'
    """

    name: str
    axes: tuple[int | str, ...]
    kind: str = "features"
    below: int = 0
    up_to: str = "T"
    start: float = 0.0

    @property
    def dtype(self) -> str:
        """Of its numbers."""
        integers = dict.fromkeys(("ids", "lengths", "tags"), "int64")
        return {**integers, "flags": "bool"}.get(self.kind, "float32")

    def describe(self) -> str:
        """Its axes, its dtype and what its numbers are.

        >>> Value("c", (2, "B", 4), "state").describe()
        '[2, B, 4] float32, before the first step 0'
        """
        words = f"[{', '.join(map(str, self.axes))}] {self.dtype}"
        if self.kind == "ids":
            words += f", 0 to {self.below - 1}"
        if self.kind == "tags":
            words += f", 0 to {self.below - 1}; -100 beyond the lengths"
        if self.kind == "lengths":
            words += f", 0 to {self.up_to}"
        if self.kind == "positive":
            words += ", above 0"
        if self.kind in ("state", "counts"):
            words += f", before the first step {self.start:g}"
        return words


@dataclass
class Signature:
    """A function of a model that a file holds.

    Attributes:
        name: Part of the file's name, if the model needs several files.
        inputs: What it takes.
        outputs: What it returns, in this order.
        call: Computes the outputs by name from the inputs by name: Tensors of floats, and arrays of
            integers and booleans; or from symbols for all of these.
        smallest: The sizes that free axes must have, if larger than 1: a convolution may need more.

    >>> one, = signatures(nn.GRU(input_size=3, hidden_size=4))
    >>> x, lengths, h = Tensor(np.ones((5, 2, 3))), np.array([5, 2]), Tensor(np.zeros((1, 2, 4)))
    >>> made = one.call({"x": x.astype("float32"), "lengths": lengths, "h": h.astype("float32")})
    >>> [(value.name, made[value.name].shape) for value in one.outputs]
    [('y', (5, 2, 4)), ('next_h', (1, 2, 4))]
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    call: Callable[[Values], Values] = field(repr=False)
    smallest: Mapping[str, int] = field(default_factory=dict, repr=False)


def signatures(
    model: nn.Module, example: Mapping[str, Any] | Sequence[Any] | None = None
) -> list[Signature]:
    """The functions that the files of a model hold; for a module that is no model, one.

    Args:
        model: A model, a layer, or a module with a forward of its own.
        example: Arguments of the module's forward, in order or by name: arrays, and tuples of
            arrays for states. Of floats the last axis has a fixed size, of a state also the first;
            the others are free, and those of equal size are the same axis.

    Raises:
        ValueError: the module's inputs are unknown without an example, or the example is not one.

    >>> from anaphora.models import SequenceRegressor
    >>> one, = signatures(SequenceRegressor(num_outputs=1, hidden_size=4, input_size=3))
    >>> [value.name for value in one.inputs], [value.name for value in one.outputs]
    (['inputs', 'lengths', 'h', 'c'], ['outputs', 'next_h', 'next_c'])
    """
    if example is not None:
        return [_module(model, *_exemplified(model, example))]
    make = _SIGNATURES.get(type(model).forward)
    if make is not None:
        return make(model)
    inputs = _inputs(model)
    if inputs is None:
        raise ValueError(
            f"{type(model).__name__} has a forward of its own, whose inputs are unknown: give "
            "example=(x, ...), arrays with which it can be called"
        )
    steps = {"T": _shortest(model)}
    return [_module(model, inputs, [value.name for value in inputs], steps)]


# Parts that several have


def _states(recurrent: nn.Recurrent, taken: Sequence[str] = ()) -> list[Value]:
    shapes = recurrent.state_shapes()
    return [
        Value(f"state_{name}" if name in taken else name, (first, "B", *rest), "state")
        for name, (first, *rest) in shapes.items()
    ]


def _next(states: Sequence[Value]) -> list[Value]:
    return [state._replace(name=f"next_{state.name}", kind="features") for state in states]


def _given(states: Sequence[Value], values: Values) -> Any:
    """The state of recurrent layers from inputs; None if they have none."""
    return from_tuple([values[state.name] for state in states]) if states else None


def _after(states: Sequence[Value], state: Any) -> dict[str, Any]:
    names = (f"next_{value.name}" for value in states)
    return dict(zip(names, as_tuple(state), strict=True)) if states else {}


def _sequences(model: Reader) -> Value:
    """Ids, or features."""
    if model.embedding is not None:
        return Value("ids", ("T", "B"), "ids", below=model.embedding.num_embeddings)
    return Value("inputs", ("T", "B", model.recurrent.input_size))


_LENGTHS = Value("lengths", ("B",), "lengths")


# Models


def _language_model(model: LanguageModel) -> list[Signature]:
    states = _states(model.recurrent, ("ids", "lengths"))

    def call(values: Values) -> Values:
        logits, state = model(values["ids"], _given(states, values), values["lengths"])
        return {"logits": logits, **_after(states, state)}

    logits = Value("logits", ("T", "B", model.vocabulary_size))
    inputs = [_sequences(model), _LENGTHS, *states]
    return [Signature("", inputs, [logits, *_next(states)], call)]


def _tagger(model: SequenceTagger) -> list[Signature]:
    states = _states(model.recurrent, ("ids", "inputs", "lengths"))
    words = _sequences(model)
    inputs = [words]
    if model.characters is not None:
        size = model.characters.embedding.num_embeddings
        inputs.append(Value("characters", ("W", "T", "B"), "ids", below=size))
        inputs.append(Value("character_lengths", ("T", "B"), "lengths", up_to="W"))

    def call(values: Values) -> Values:
        logits, state = model(
            values[words.name],
            _given(states, values),
            values["lengths"],
            values.get("characters"),
            values.get("character_lengths"),
        )
        made = {"logits": logits, **_after(states, state)}
        if model.crf:
            made["tags"] = _decoded(model.crf_layer, logits, values["lengths"])
        return made

    outputs = [Value("logits", ("T", "B", model.num_tags)), *_next(states)]
    if model.crf:  # of the steps of this call
        outputs.append(Value("tags", ("T", "B"), "tags", below=model.num_tags))
    return [Signature("", [*inputs, _LENGTHS, *states], outputs, call)]


def _decoded(crf: nn.CRF, logits: Any, lengths: Any) -> Any:
    """The most likely path of tags; -100 beyond the lengths."""
    if thread.interpreter is None:
        return crf.decode(logits, lengths)
    arguments = (logits, *crf._allowed(), lengths)
    return thread.interpreter.operation("crf_decode", arguments, {})


def _sequence_to_vector(model: SequenceToVector) -> list[Signature]:
    """With states, in one direction: the prediction from all steps so far."""
    words, size = _sequences(model), model.recurrent.output_size
    states, memory = [], []
    if not model.bidirectional:
        states = _states(model.recurrent, (words.name, "lengths", "total", "steps", "maximum"))
        if model.pooling == "mean":
            memory = [Value("total", ("B", size), "state"), Value("steps", ("B",), "counts")]
        if model.pooling == "max":
            memory = [Value("maximum", ("B", size), "state", start=-np.inf)]
        if model.pooling == "last" and model.layer_norm:
            memory = [Value("steps", ("B",), "counts")]

    def pooled(y: Any, state: Any, values: Values) -> tuple[Any, dict[str, Any]]:
        T, lengths = y.shape[0], values["lengths"]
        if model.pooling == "last":
            last = last_outputs(model.recurrent, state)
            if not model.layer_norm:
                return last, {}
            steps = _floats(lengths, last) + values.get("steps", 0.0)
            normalized = getattr(model.recurrent, f"norm_l{model.num_layers - 1}")(last)
            nonempty = ops.minimum(steps, 1.0).reshape(steps.shape[0], 1)  # 0 or 1
            return nonempty * normalized, {"steps": steps}
        if model.pooling == "mean":
            total = y.sum(axis=0) + values.get("total", 0.0)
            steps = _floats(lengths, total) + values.get("steps", 0.0)
            divisors = ops.maximum(steps, 1.0).reshape(steps.shape[0], 1)
            return total / divisors, {"total": total, "steps": steps}
        active = within(lengths, T).reshape(T, y.shape[1], 1)
        maximum = ops.where(active, y, -np.inf).max(axis=0)
        if memory:
            maximum = ops.maximum(maximum, values["maximum"])
        empty = _is_lowest(maximum)
        return ops.where(empty, 0.0, maximum), {"maximum": maximum}

    def call(values: Values) -> Values:
        y, state = model.read(values[words.name], _given(states, values), values["lengths"])
        vector, kept = pooled(y, state, values)
        after = {f"next_{name}": value for name, value in kept.items() if memory}
        outputs = model.output(model.pooled_drop(vector))
        return {"outputs": outputs, **_after(states, state), **after}

    outputs = Value("outputs", ("B", model.output.out_features))
    kept = [*states, *memory]
    return [Signature("", [words, _LENGTHS, *kept], [outputs, *_next(kept)], call)]


def _floats(lengths: Any, like: Tensor) -> Any:
    """Lengths as floats of the dtype of another Tensor."""
    if isinstance(lengths, Tensor):
        return lengths.astype(like.dtype)
    return Tensor(np.asarray(lengths).astype(like.dtype))


def _is_lowest(x: Tensor) -> Any:
    return x <= np.finfo(np.float32).min


def _forecaster(model: Forecaster) -> list[Signature]:
    """A step, or several, of the network; values are scaled, and sampled, by who runs it."""
    N, F, past = model.target_size, model.feature_size, model.past
    states = _states(model.recurrent, ("values", "observed", "features", "scale"))
    inputs = [
        Value("values", (f"T+{past}", "B", N)),
        Value("observed", (f"T+{past}", "B", N), "flags"),
        *([Value("features", ("T", "B", F))] if F else []),
        Value("scale", ("B", N), "positive"),
    ]

    def call(values: Values) -> Values:
        scaled = values["values"]
        lagged = [scaled[past - lag : -lag] for lag in model.lags]  # each [T, B, N]
        T, B = lagged[0].shape[:2]
        lags = ops.stack(lagged, axis=-1)  # [T, B, N, K]
        before = _as_floats(values["observed"], scaled)[past - 1 : -1]
        typical = np.asarray(model.typical_scale, model.dtype)
        size = ops.broadcast_to(ops.log(values["scale"] / typical), (T, B, N))
        features = [values["features"]] if F else []
        parts = [lags.reshape(T, B, N * len(model.lags)), before, *features, size]
        y, state = model.recurrent(ops.concatenate(parts, axis=-1), _given(states, values))
        linear: Any = lags
        J = model.linear_features
        if J:
            known = values["features"][:, :, :J].reshape(T, B, 1, J)
            linear = ops.concatenate([lags, ops.broadcast_to(known, (T, B, N, J))], axis=-1)
        return {"parameters": model._raw(model.drop(y), linear), **_after(states, state)}

    parameters = Value("parameters", ("T", "B", N, model.head.size))
    return [Signature("", [*inputs, *states], [parameters, *_next(states)], call)]


def _as_floats(flags: Any, like: Tensor) -> Any:
    return _floats(flags, like)


def _conditional(model: ConditionalLanguageModel) -> list[Signature]:
    """Two files: the encoder, and a step of the decoder."""
    if type(model).encode not in (EncoderDecoder.encode, VectorToSequence.encode):
        raise ValueError(
            f"{type(model).__name__} has an encode of its own, which is not a file's; export its "
            "encoder and its decoder by themselves, as modules"
        )
    decoder = model.decoder
    states = _states(decoder.recurrent, ("ids", "lengths", "memory", "keys"))
    started = [state._replace(kind="features") for state in states]
    attention = decoder.attention
    memory = []
    if attention is not None:
        keys: Any = getattr(attention, "key").out_features  # noqa: B009 - of both kinds
        memory = [
            Value("memory", ("S", "B", attention.state_size)),
            Value("keys", ("S", "B", keys)),
        ]
    if isinstance(model, EncoderDecoder):
        size = model.source_vocabulary_size
        source = [
            Value("source", ("S", "B"), "ids", below=size),
            Value("source_lengths", ("B",), "lengths", up_to="S"),
        ]
    else:
        source = [Value("source", ("B", model.initial.in_features))]  # type: ignore[attr-defined]

    def encode(values: Values) -> Values:
        if isinstance(model, VectorToSequence):
            x, recurrent = values["source"], decoder.recurrent
            sizes = len(states), recurrent.num_layers, recurrent.hidden_size
            first = ops.tanh(model.initial(x)).reshape(x.shape[0], *sizes).transpose(1, 2, 0, 3)
            return {state.name: first[k] for k, state in enumerate(states)}
        assert isinstance(model, EncoderDecoder)
        x = model.drop(model.embedding(values["source"]))
        y, final = model.encoder(x, lengths=values["source_lengths"])
        joined = [model._joined(one) for one in as_tuple(final)]
        made = {state.name: one for state, one in zip(states, joined, strict=True)}
        if attention is not None:
            made |= {"memory": y, "keys": attention.keys(y)}
        return made

    def decode(values: Values) -> Values:
        remembered = None
        if attention is not None:
            S, B = values["memory"].shape[:2]
            mask = within(values["source_lengths"], S).transpose(1, 0).reshape(B, 1, S)
            remembered = nn.Memory(values["memory"], values["keys"], mask)
        features, state, weights = decoder(
            values["ids"], _given(states, values), remembered, values["lengths"]
        )
        made = {"logits": decoder.output(features), **_after(states, state)}
        return made if weights is None else made | {"weights": weights}

    ids = Value("ids", ("T", "B"), "ids", below=decoder.vocabulary_size)
    logits = Value("logits", ("T", "B", decoder.vocabulary_size))
    attended = [*memory, source[1]] if memory else []
    weights = [Value("weights", ("T", "B", "S"))] if memory else []
    return [
        Signature("encoder", source, [*memory, *started], encode),
        Signature(
            "decoder",
            [ids, _LENGTHS, *attended, *states],
            [logits, *_next(states), *weights],
            decode,
        ),
    ]


# Modules that are no models


def _recurrent(layer: nn.Recurrent) -> list[Signature]:
    states = _states(layer, ("x", "lengths"))
    sequence = ("B", "T") if layer.batch_first else ("T", "B")

    def call(values: Values) -> Values:
        y, state = layer(values["x"], _given(states, values), values["lengths"])
        return {"y": y, **_after(states, state)}

    x, y = Value("x", (*sequence, layer.input_size)), Value("y", (*sequence, layer.output_size))
    return [Signature("", [x, _LENGTHS, *states], [y, *_next(states)], call)]


def _inputs(module: nn.Module) -> list[Value] | None:
    """The inputs of a layer, or of the first layer of a Sequential; None if they are unknown."""
    forward = type(module).forward
    if forward is nn.Sequential.forward:
        layers = [layer for layer in module if not isinstance(layer, nn.Dropout)]  # type: ignore[attr-defined]
        return (_inputs(layers[0]) or [None])[:1] if layers else None  # type: ignore[list-item]
    if forward is nn.Recurrent.forward:
        return _recurrent(module)[0].inputs  # type: ignore[arg-type]
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return [Value("x", ("T", "B", module.in_features))]
    if isinstance(module, nn.Conv1d) and forward is nn.Conv1d.forward:
        axes = ("B", "T") if module.batch_first else ("T", "B")
        return [Value("x", (*axes, module.in_channels)), _LENGTHS]
    if isinstance(module, (nn.BatchNorm1d, nn.GroupNorm)) and forward in (
        nn.BatchNorm1d.forward, nn.GroupNorm.forward,
    ):  # fmt: skip
        axes, batch = ("B", "T") if module.batch_first else ("T", "B"), nn.BatchNorm1d
        size = module.num_features if isinstance(module, batch) else module.num_channels
        return [Value("x", (*axes, size)), _LENGTHS]
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and forward in (
        nn.LayerNorm.forward, nn.RMSNorm.forward,
    ):  # fmt: skip
        return [Value("x", ("T", "B", module.normalized_shape))]
    if isinstance(module, nn.Highway) and forward is nn.Highway.forward:
        return [Value("x", ("T", "B", module.gates[0].in_features))]
    if isinstance(module, nn.MultiheadAttention) and forward is nn.MultiheadAttention.forward:
        first = module.batch_first
        queries, keys = (("B", "T"), ("B", "S")) if first else (("T", "B"), ("S", "B"))
        return [
            Value("query", (*queries, module.embed_dim)),
            Value("key", (*keys, module.kdim)),
            Value("value", (*keys, module.vdim)),
            Value("lengths", ("B",), "lengths", up_to="S"),
        ]
    if isinstance(module, nn.Embedding) and forward is nn.Embedding.forward:
        return [Value("ids", ("T", "B"), "ids", below=module.num_embeddings)]
    if isinstance(module, nn.Attention) and forward is nn.Attention.forward:
        return [
            Value("queries", ("T", "B", module.query_size)),
            Value("states", ("S", "B", module.state_size)),
            Value("lengths", ("B",), "lengths", up_to="S"),
        ]
    return None


def _exemplified(
    module: nn.Module, example: Mapping[str, Any] | Sequence[Any]
) -> tuple[list[Value], list[Any], dict[str, int]]:
    """The inputs that an example shows, their names as forward takes them, and its sizes."""
    name = type(module).__name__
    try:
        bind = inspect.signature(module.forward).bind
        bound = bind(**example) if isinstance(example, Mapping) else bind(*example)
    except TypeError as error:
        raise ValueError(f"{name}: the example does not fit its forward: {error}") from None
    given = {key: value for key, value in bound.arguments.items() if value is not None}
    letters: dict[int, str] = {}
    arrays = {key: _arrays(name, key, value) for key, value in given.items()}
    for one in (array for several in arrays.values() for array in several):
        if one.ndim == 1 and one.dtype.kind in "iu":
            letters.setdefault(len(one), "B")
    sizes = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
    values: list[Value] = []
    names: list[Any] = []
    for key, several in arrays.items():
        own = [f"{key}_{k}" for k in range(len(several))] if type(given[key]) is tuple else [key]
        names.append((key, own) if type(given[key]) is tuple else key)
        for label, one in zip(own, several, strict=True):
            values.append(_shown(label, one, key, letters, sizes))
    return values, names, {letter: size for size, letter in letters.items()}


def _arrays(name: str, key: str, value: Any) -> list[Any]:
    several = value if type(value) is tuple else (value,)
    arrays = [v.data if isinstance(v, Tensor) else np.asarray(v) for v in several]
    for array in arrays:
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name}: the example of {key} is {array.dtype}; give numbers")
    return arrays


def _shown(
    name: str, array: Any, argument: str, letters: dict[int, str], sizes: Sequence[int]
) -> Value:
    """An input from an example of it."""
    fixed = {array.ndim - 1} if array.dtype.kind == "f" else set()
    if argument.startswith("state"):
        fixed |= {0}
    free = [axis for axis in range(array.ndim) if axis not in fixed]
    if len({array.shape[axis] for axis in free}) < len(free) and array.dtype.kind != "b":
        raise ValueError(
            f"the example of {name} has the shape {array.shape}: give one whose free axes differ "
            "in size, as axes of equal size are the same one"
        )
    unused = [letter for letter in "BTSWUVXYZ" if letter not in letters.values()]
    for axis in reversed(free):
        if array.shape[axis] not in letters:
            letters[array.shape[axis]] = unused.pop(0)
    axes = tuple(letters[size] if axis in free else size for axis, size in enumerate(array.shape))
    if argument.startswith("state"):
        return Value(name, axes, "state")
    if array.dtype.kind == "b":
        return Value(name, axes, "flags")
    if array.dtype.kind == "f":
        return Value(name, axes)
    if "lengths" in argument:
        largest = int(array.max(initial=0))
        return Value(name, axes, "lengths", up_to=letters.get(largest, "T"))
    return Value(name, axes, "ids", below=min(sizes, default=int(array.max(initial=0)) + 1))


def _module(
    module: nn.Module, inputs: list[Value], names: Sequence[Any], smallest: Mapping[str, int]
) -> Signature:
    """Any module: outputs are named by their place."""

    def call(values: Values) -> Values:
        arguments = {}
        for name in names:
            if isinstance(name, tuple):
                arguments[name[0]] = tuple(values[one] for one in name[1])
            else:
                arguments[name] = values[name]
        made = list(_flat(module(*arguments.values()) if positional else module(**arguments)))
        if not made:
            raise ValueError(f"{type(module).__name__}: its forward returns no Tensor")
        return {f"output{'' if k == 0 else f'_{k + 1}'}": value for k, value in enumerate(made)}

    positional = isinstance(module, nn.Sequential)
    return Signature("", inputs, [], call, smallest)


def _shortest(module: nn.Module) -> int:
    """Steps that are enough for all convolutions, one after the other."""
    steps = 1
    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d)):
            reach = getattr(layer, "dilation", 1) * (layer.kernel_size - 1)
            steps = steps * layer.stride + reach
    return steps


def _flat(value: Any) -> Iterator[Any]:
    """The Tensors, and arrays, in nested tuples, lists and dictionaries."""
    if isinstance(value, (Tensor, np.ndarray)):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _flat(one)
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _flat(one)


def _cell(module: nn.RecurrentCell) -> list[Signature]:
    """One step."""
    states = [
        Value(f"state_{name}" if name == "x" else name, ("B", module.hidden_size), "state")
        for name in module.kind.cell.states
    ]

    def call(values: Values) -> Values:
        return _after(states, module(values["x"], _given(states, values)))

    x = Value("x", ("B", module.input_size))
    return [Signature("", [x, *states], _next(states), call)]


_SIGNATURES: dict[Any, Callable[[Any], list[Signature]]] = {
    LanguageModel.forward: _language_model,
    SequenceTagger.forward: _tagger,
    SequenceToVector.forward: _sequence_to_vector,
    Forecaster.forward: _forecaster,
    ConditionalLanguageModel.forward: _conditional,
    nn.Recurrent.forward: _recurrent,
    nn.RecurrentCell.forward: _cell,
    nn.LSTMCell.forward: _cell,
}
"""What describes a module, by the forward that it has."""
