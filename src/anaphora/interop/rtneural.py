"""Models as RTNeural's JSON, which audio plug-ins read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact.files import write_json
from anaphora.cells import CELLS
from anaphora.engine.precision import dequantized
from anaphora.interop import Exported
from anaphora.interop.network import Layer, Network, in_8_bits, network_of
from anaphora.tensor import Array

__all__ = ["export"]


def export(model: Any, path: Path) -> Exported:
    """Write a model as the JSON that RTNeural's ``json_parser::parseJson`` reads.

    It has a layer for each recurrent one ("lstm" or "gru") and one for the linear output
    ("dense"), with weights as Keras has them. Weights in 8 bits are written as the float32 numbers
    that they stand for. Inputs are standardized, and outputs scaled to the units of the targets, by
    the weights themselves, so that the file reads and returns both in their own units.

    Args:
        model: LSTM or GRU layers, or a regressor or classifier of series whose pooling is "last"
            with such layers, as a `SequenceRegressor` of one input and one output for sound.
        path: The file.

    Raises:
        ValueError: RTNeural has no layer for a part of the model; the message says which.
        ArtifactError: the file cannot be written.

    >>> import json, tempfile
    >>> from anaphora.models import SequenceRegressor
    >>> model = SequenceRegressor(num_outputs=1, hidden_size=8, input_size=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = export(model, Path(folder, "amp.json"))
    ...     data = json.loads(Path(folder, "amp.json").read_text())
    >>> data["in_shape"], [(layer["type"], layer["shape"]) for layer in data["layers"]]
    ([None, None, 1], [('lstm', [None, None, 8]), ('dense', [None, None, 1])])
    """
    network = network_of(model)
    _check(network)
    layers = [
        _recurrent(network, layer, k == 0 and network.moments is not None)
        for k, layer in enumerate(network.layers)
    ]
    if network.output is not None:
        layers.append(_dense(network))
    write_json(path, {"in_shape": [None, None, network.input_size], "layers": layers})
    kinds = [layer["type"] for layer in layers]
    return Exported(
        [f"wrote {path}: {', '.join(kinds)}, {network.products():,} multiply-adds a step"],
        {"out": str(path), "format": "rtneural", "layers": kinds},
    )


def _check(network: Network) -> None:
    """Refuse what RTNeural has no layer for."""
    problem = None
    if network.table is not None:
        problem = "reads tokens, and RTNeural has no embeddings: expected a model of series"
    elif network.pooling != "last":
        problem = f"has the pooling {network.pooling!r}; expected 'last' (--pooling last)"
    for layer in network.layers:
        if layer.norm is not None:
            problem = "has layer norms; train it without (--no-layer-norm)"
        elif "weight_hr" in layer.weights:
            problem = "has projections; train it with proj_size=0"
        elif not any(_same_program(layer, name) for name in ("lstm", "gru")):
            problem = (
                f"has layers of {layer.cell.name!r}"
                + (" with zoneout" if layer.cell.name in ("lstm", "gru") else "")
                + "; expected lstm or gru"
            )
    if problem is not None:
        raise ValueError(f"RTNeural's JSON: the {network.kind} {problem}")


def _same_program(layer: Layer, name: str) -> bool:
    ours, theirs = layer.trace, CELLS[name].trace
    return (ours.program.inputs, ours.program.instructions, ours.gate_inputs) == (
        theirs.program.inputs, theirs.program.instructions, theirs.gate_inputs
    )  # fmt: skip


def _weight(network: Network, weight: Array) -> Array:
    """A weight [N, K], in float64, as it is computed with."""
    if network.int8:
        weight = dequantized(*in_8_bits(weight))
    return weight.astype(np.float64)


def _recurrent(network: Network, layer: Layer, standardizes: bool) -> dict[str, Any]:
    """LSTM: gates i f c o, one bias. GRU: gates z r h, two biases."""
    _, H, _ = layer.sizes
    is_lstm = _same_program(layer, "lstm")
    order = [0, 1, 2, 3] if is_lstm else [1, 0, 2]  # of ours: i f g o, r z n
    kernel = _weight(network, layer.weights["weight_ih"])
    recurrent = _weight(network, layer.weights["weight_hh"])
    zeros = np.zeros(len(kernel))
    biases = [layer.weights.get(f"bias_{half}", zeros).astype(np.float64) for half in ("ih", "hh")]
    if standardizes:
        assert network.moments is not None
        mean, deviation = network.moments
        kernel = kernel / deviation
        biases[0] = biases[0] - kernel @ mean
    rows = np.concatenate([np.arange(H) + gate * H for gate in order])
    ordered = [bias[rows] for bias in biases]
    bias = ordered[0] + ordered[1] if is_lstm else np.stack(ordered)
    return {
        "type": "lstm" if is_lstm else "gru",
        "activation": "tanh",
        "shape": [None, None, H],
        "weights": [_numbers(kernel[rows].T), _numbers(recurrent[rows].T), _numbers(bias)],
    }


def _dense(network: Network) -> dict[str, Any]:
    assert network.output is not None
    weight = _weight(network, network.output[0])
    bias = np.zeros(len(weight)) if network.output[1] is None else network.output[1]
    if network.decoding is not None:
        scale, mean = network.decoding
        weight, bias = weight * scale[:, None], bias * scale + mean
    return {
        "type": "dense",
        "activation": "" if network.answer == "scores" else network.answer,
        "shape": [None, None, len(weight)],
        "weights": [_numbers(weight.T), _numbers(bias)],
    }


def _numbers(array: Array) -> Any:
    """Nested lists of the shortest decimals of float32."""
    flat = [float(str(number)) for number in array.astype(np.float32).ravel()]
    return np.array(flat).reshape(array.shape).tolist()
