"""Inference: a layer fed step by step, in blocks or whole sequences, and text sampled."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import small
from benchmarks.work import Peers, Runs, Work, framework_runs

Feed = Callable[[np.ndarray], np.ndarray]  # [I] -> [H]: runs one step, and keeps the state


@dataclass(frozen=True)
class StreamingStep(Work):
    """One step of one sequence through LSTM layers, with the state carried over."""

    name: str
    H: int
    L: int = 2
    streams: bool = False  # whether the weights exceed a core's caches
    precision: str = "float32"  # of the weights

    def operations(self) -> float:
        """Forward alone."""
        return 2.0 * self.L * 4 * self.H * 2 * self.H

    def bytes_read(self) -> float | None:
        """The bytes of the weights, if they come from memory."""
        size = 1.0 if self.precision == "int8" else 4.0
        return size * self.L * 4 * self.H * 2 * self.H if self.streams else None

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework, with the same weights.

        Raises:
            AssertionError: a peer's outputs differ from those of anaphora.
        """
        from anaphora import nn

        layer = nn.LSTM(self.H, self.H, self.L)
        weights = {name: p.data for name, p in layer.named_parameters()}
        feeds: dict[str, Feed] = {"anaphora": layer.session(weights=self.precision).feed}
        if peers.torch is not None and self.precision == "float32":
            feeds["torch"] = self._torch(peers.torch, weights)
        if peers.onnxruntime is not None:
            feeds["onnxruntime"] = self._onnxruntime(peers, weights)

        inputs = np.random.default_rng(0).normal(size=(3, self.H)).astype(np.float32)
        outputs = {name: np.array([feed(x) for x in inputs]) for name, feed in feeds.items()}
        for name in feeds:
            tolerance = 1e-5 if self.precision == "float32" else 0.01
            np.testing.assert_allclose(
                outputs[name], outputs["anaphora"], rtol=0, atol=tolerance, err_msg=name
            )
        return {name: _feeding(feed, inputs[0]) for name, feed in feeds.items()}

    def _torch(self, torch: Any, weights: dict[str, np.ndarray]) -> Feed:
        layer = torch.nn.LSTM(self.H, self.H, self.L)
        layer.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
        state: Any = None

        def feed(x: np.ndarray) -> np.ndarray:
            nonlocal state
            with torch.inference_mode():
                y, state = layer(torch.from_numpy(x)[None], state)
            output: np.ndarray = y[0].numpy()
            return output

        return feed

    def _onnxruntime(self, peers: Peers, weights: dict[str, np.ndarray]) -> Feed:
        model = _onnx_model(weights, self.H, self.L)
        session = _onnx_session(peers, model if self.precision == "float32" else _in_int8(model))
        names = [input.name for input in session.get_inputs()][1:]
        state = {name: np.zeros((1, 1, self.H), np.float32) for name in names}

        def feed(x: np.ndarray) -> np.ndarray:
            y, *after = session.run(None, {"x": x.reshape(1, 1, -1), **state})
            state.update(zip(names, after, strict=True))
            output: np.ndarray = y.reshape(-1)
            return output

        return feed


def _feeding(feed: Feed, x: np.ndarray) -> Callable[[], None]:
    def run() -> None:
        feed(x)

    return run


@dataclass(frozen=True)
class Forward(Work):
    """Whole sequences through one layer, without a gradient."""

    name: str
    cell: str
    T: int
    B: int
    I: int
    H: int
    both: bool = False  # directions

    def operations(self) -> float:
        """Forward alone."""
        gates = {"lstm": 4, "gru": 3, "rnn": 1}[self.cell]
        return 2.0 * (1 + self.both) * self.T * self.B * gates * self.H * (self.I + self.H)

    def runs(self, peers: Peers) -> Runs:
        """The same layer in each framework.

        Raises:
            AssertionError: a peer's outputs differ from those of anaphora.
        """
        from anaphora import nn, no_grad

        kind = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}[self.cell]
        layer: Any = getattr(nn, kind)(self.I, self.H, bidirectional=self.both)
        x = np.random.default_rng(0).normal(size=(self.T, self.B, self.I)).astype(np.float32)
        weights = {name: p.data for name, p in layer.named_parameters()}

        def ours() -> np.ndarray:
            with no_grad():
                output: np.ndarray = layer(x)[0].data
            return output

        outputs = {"anaphora": ours}
        if peers.torch is not None:
            outputs["torch"] = self._torch(peers.torch, kind, weights, x)
        if peers.onnxruntime is not None:
            outputs["onnxruntime"] = self._onnxruntime(peers, kind, weights, x)
        expected = ours()
        for name, output in outputs.items():
            np.testing.assert_allclose(output(), expected, rtol=0, atol=1e-4, err_msg=name)
        return {name: _discarding(output) for name, output in outputs.items()}

    def _torch(
        self, torch: Any, kind: str, weights: dict[str, np.ndarray], x: np.ndarray
    ) -> Callable[[], np.ndarray]:
        layer = getattr(torch.nn, kind)(self.I, self.H, bidirectional=self.both)
        layer.load_state_dict({name: torch.tensor(w) for name, w in weights.items()})
        tensor = torch.from_numpy(x)

        def run() -> np.ndarray:
            with torch.inference_mode():
                output: np.ndarray = layer(tensor)[0].numpy()
            return output

        return run

    def _onnxruntime(
        self, peers: Peers, kind: str, weights: dict[str, np.ndarray], x: np.ndarray
    ) -> Callable[[], np.ndarray]:
        session = _onnx_session(peers, _onnx_layer(kind, weights, self.I, self.H, self.both))

        def run() -> np.ndarray:  # [T, directions, B, H]
            y: np.ndarray = session.run(None, {"x": x})[0]
            return y.transpose(0, 2, 1, 3).reshape(self.T, self.B, -1)

        return run


@dataclass(frozen=True)
class Block(Work):
    """A step of a small layer of one input and one row, fed in blocks of samples, on one thread."""

    name: str
    cell: str
    H: int
    count = 4410

    def runs(self, peers: Peers) -> Runs:
        """A session, and a loop in C whose sizes are known when it is compiled.

        Raises:
            AssertionError: the outputs differ.
        """
        from anaphora import nn

        layer: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[self.cell](1, self.H)
        x = np.random.default_rng(0).normal(size=(self.count, 1)).astype(np.float32)
        weights = {name: p.data for name, p in layer.named_parameters()}
        loop = small.compiled(self.cell, self.H, weights)
        runs: Runs = {"anaphora": _discarding(partial(layer.session().feed, x))}
        if loop is not None:
            expected = layer.session().feed(x[:100])
            np.testing.assert_allclose(loop(x[:100]), expected, rtol=0, atol=1e-4)
            runs["C"] = _discarding(partial(loop, x))
        return runs


@dataclass(frozen=True)
class ExportedBlock(Work):
    """The same beside what `anaphora export` writes of the layer, compiled for this machine."""

    name: str
    cell: str
    H: int
    weights: str = "float32"
    count = 4410

    def runs(self, peers: Peers) -> Runs:
        """A session, and the exported layer step by step.

        Raises:
            AssertionError: the outputs differ.
        """
        from anaphora import nn

        layer: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[self.cell](1, self.H).eval()
        layer.use_int8(self.weights == "int8")
        x = np.random.default_rng(0).normal(size=(self.count, 1)).astype(np.float32)
        exported = small.exported(layer)
        runs: Runs = {"anaphora": _discarding(partial(layer.session().feed, x))}
        if exported is not None:
            expected = layer.session().feed(x[:100])
            tolerance = 1e-6 if self.weights == "float32" else 0.02
            np.testing.assert_allclose(exported(x[:100]), expected, rtol=0, atol=tolerance)
            runs["C"] = _discarding(partial(exported, x))
        return runs


def _discarding(function: Callable[[], np.ndarray]) -> Callable[[], None]:
    def run() -> None:
        function()

    return run


def _onnx_session(peers: Peers, model: bytes) -> Any:
    options = peers.onnxruntime.SessionOptions()
    options.intra_op_num_threads = peers.threads
    return peers.onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


# The gates in the order of ONNX, as numbers of the gates in the order of PyTorch.
_ONNX_GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def _reordered(kind: str, weight: np.ndarray) -> np.ndarray:
    gates = np.split(weight, len(_ONNX_GATES[kind]))
    return np.concatenate([gates[n] for n in _ONNX_GATES[kind]])


def _onnx_weights(
    kind: str, weights: dict[str, np.ndarray], layer: int, both: bool = False
) -> list[np.ndarray]:
    """W, R and B of the operator; their first axis is that of directions."""
    endings = [f"_l{layer}", f"_l{layer}_reverse"][: 1 + both]

    def stacked(name: str) -> np.ndarray:
        return np.stack([_reordered(kind, weights[name + ending]) for ending in endings])

    biases = [stacked("bias_ih"), stacked("bias_hh")]
    return [stacked("weight_ih"), stacked("weight_hh"), np.concatenate(biases, axis=1)]


def _onnx_layer(kind: str, weights: dict[str, np.ndarray], I: int, H: int, both: bool) -> bytes:
    """One layer: x [T, B, I] -> y [T, directions, B, H]."""
    from onnx import helper

    constants = dict(zip("WRB", _onnx_weights(kind, weights, 0, both), strict=True))
    options: dict[str, Any] = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if both else "forward"
    node = helper.make_node(
        kind, ["x", *constants], ["y"], hidden_size=H, direction=direction, **options
    )
    return _onnx_graph([node], {"x": ["T", "B", I]}, {"y": ["T", 1 + both, "B", H]}, constants)


def _onnx_graph(
    nodes: list[Any],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, np.ndarray],
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def tensors(shapes: dict[str, list[int | str]]) -> list[Any]:
        make = helper.make_tensor_value_info
        return [make(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(
        nodes,
        "layers",
        tensors(inputs),
        tensors(outputs),
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


def _onnx_model(weights: dict[str, np.ndarray], H: int, L: int) -> bytes:
    """LSTM layers for one step: x, h_0, c_0, h_1, ... -> y, h_0', c_0', h_1', ..."""
    from onnx import helper

    constants = {"axes": np.array([1])}
    nodes, before, after = [], [], []
    x = "x"
    for k in range(L):
        names = [f"W_{k}", f"R_{k}", f"B_{k}"]
        constants |= dict(zip(names, _onnx_weights("LSTM", weights, k), strict=True))
        nodes += [
            helper.make_node(
                "LSTM",
                [x, *names, "", f"h_{k}", f"c_{k}"],
                [f"directions_{k}", f"h_{k}'", f"c_{k}'"],
                hidden_size=H,
            ),
            helper.make_node("Squeeze", [f"directions_{k}", "axes"], [f"y_{k}"]),
        ]
        x = f"y_{k}"  # [T, B, H]
        before += [f"h_{k}", f"c_{k}"]
        after += [f"h_{k}'", f"c_{k}'"]
    shape: list[int | str] = [1, 1, H]
    inputs, outputs = (dict.fromkeys(names, shape) for names in (["x", *before], [x, *after]))
    return _onnx_graph(nodes, inputs, outputs, constants)


def _in_int8(model: bytes) -> bytes:
    """A model whose LSTM layers are DynamicQuantizeLSTM."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        logging.disable(logging.WARNING)  # it asks for a pass that an LSTM does not need
        quantize_dynamic(onnx.load_from_string(model), path, op_types_to_quantize=["LSTM"])
        logging.disable(logging.NOTSET)
        return path.read_bytes()


@dataclass(frozen=True)
class Sampling(Work):
    """One more character of each of B texts: embedding, LSTM, output layer, softmax, sampling."""

    name: str
    V: int
    H: int
    B: int
    L: int = 2
    temperature: float = 0.8
    precision: str = "float32"  # of the weights
    count = 50

    def operations(self) -> float:
        """Forward alone."""
        return 2.0 * self.B * (self.L * 4 * self.H * 2 * self.H + self.H * self.V)

    def runs(self, peers: Peers) -> Runs:
        """Several characters at a time, continuing from the previous run."""
        if self.precision != "float32":
            return {"anaphora": self._anaphora()}
        return framework_runs(peers, self._anaphora, self._torch)

    def _anaphora(self) -> Callable[[], None]:
        from anaphora.models import LanguageModel

        model = LanguageModel(self.V, hidden_size=self.H, num_layers=self.L)
        session = model.session(batch_size=self.B, weights=self.precision)
        rng = np.random.default_rng(0)
        ids = np.zeros(self.B, np.int64)

        def run() -> None:
            nonlocal ids
            uniforms = rng.random((self.count, self.B))
            ids = session.generate(ids, uniforms, temperature=self.temperature)[-1]

        return run

    def _torch(self, torch: Any) -> Callable[[], None]:
        embedding = torch.nn.Embedding(self.V, self.H)
        recurrent = torch.nn.LSTM(self.H, self.H, self.L)
        output = torch.nn.Linear(self.H, self.V)
        ids, state = torch.zeros(1, self.B, dtype=torch.int64), None

        def run() -> None:
            nonlocal ids, state
            sampled = []
            with torch.inference_mode():
                for _ in range(self.count):
                    y, state = recurrent(embedding(ids), state)
                    p = torch.softmax(output(y[0]) / self.temperature, dim=-1)
                    ids = torch.multinomial(p, 1).T
                    sampled.append(ids)
                torch.cat(sampled)

        return run


@dataclass(frozen=True)
class InInt8(Work):
    """Work with weights in 8 bits, beside the same in float32."""

    name: str
    work: StreamingStep | Sampling

    @property
    def count(self) -> int:
        """That of the work."""
        return self.work.count

    def operations(self) -> float:
        """Those of the work."""
        return self.work.operations()

    def runs(self, peers: Peers) -> Runs:
        """The runs of both precisions; float32's have it in their names."""
        rounded = dataclasses.replace(self.work, precision="int8").runs(peers)
        return rounded | {f"{name} float32": run for name, run in self.work.runs(peers).items()}
