"""Inference: a layer fed step by step, and text sampled character by character."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.work import Peers, Runs, Work, framework_runs

Feed = Callable[[np.ndarray], np.ndarray]  # [I] -> [H]: runs one step, and keeps the state


@dataclass(frozen=True)
class StreamingStep(Work):
    """One step of one sequence through LSTM layers, with the state carried over."""

    name: str
    H: int
    L: int = 2
    streams: bool = False  # whether the weights exceed a core's caches

    def operations(self) -> float:
        """Forward alone."""
        return 2.0 * self.L * 4 * self.H * 2 * self.H

    def bytes_read(self) -> float | None:
        """The bytes of the weights, if they come from memory."""
        return 4.0 * self.L * 4 * self.H * 2 * self.H if self.streams else None

    def runs(self, peers: Peers) -> Runs:
        """A step of each framework, with the same weights.

        Raises:
            AssertionError: a peer's outputs differ from those of anaphora.
        """
        from anaphora import nn

        layer = nn.LSTM(self.H, self.H, self.L)
        weights = {name: p.data for name, p in layer.named_parameters()}
        feeds: dict[str, Feed] = {"anaphora": layer.session().feed}
        if peers.torch is not None:
            feeds["torch"] = self._torch(peers.torch, weights)
        if peers.onnxruntime is not None:
            feeds["onnxruntime"] = self._onnxruntime(peers, weights)

        inputs = np.random.default_rng(0).normal(size=(3, self.H)).astype(np.float32)
        outputs = {name: np.array([feed(x) for x in inputs]) for name, feed in feeds.items()}
        for name in feeds:
            np.testing.assert_allclose(
                outputs[name], outputs["anaphora"], rtol=0, atol=1e-5, err_msg=name
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
        ort = peers.onnxruntime
        options = ort.SessionOptions()
        options.intra_op_num_threads = peers.threads
        model = _onnx_model(weights, self.H, self.L)
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
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


def _onnx_model(weights: dict[str, np.ndarray], H: int, L: int) -> bytes:
    """LSTM layers for one step: x, h_0, c_0, h_1, ... -> y, h_0', c_0', h_1', ..."""
    from onnx import TensorProto, helper, numpy_helper

    def reordered(weight: np.ndarray) -> np.ndarray:
        i, f, g, o = np.split(weight, 4)
        return np.concatenate([i, o, f, g])[None]  # ONNX's order, and an axis of directions

    def tensor(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    constants = {"axes": np.array([1])}
    nodes, before, after = [], [], []
    x = "x"
    for k in range(L):
        constants[f"W_{k}"] = reordered(weights[f"weight_ih_l{k}"])
        constants[f"R_{k}"] = reordered(weights[f"weight_hh_l{k}"])
        biases = (reordered(weights[f"bias_{half}_l{k}"]) for half in ("ih", "hh"))
        constants[f"B_{k}"] = np.concatenate([*biases], axis=1)
        nodes += [
            helper.make_node(
                "LSTM",
                [x, f"W_{k}", f"R_{k}", f"B_{k}", "", f"h_{k}", f"c_{k}"],
                [f"directions_{k}", f"h_{k}'", f"c_{k}'"],
                hidden_size=H,
            ),
            helper.make_node("Squeeze", [f"directions_{k}", "axes"], [f"y_{k}"]),
        ]
        x = f"y_{k}"  # [T, B, H]
        before += [f"h_{k}", f"c_{k}"]
        after += [f"h_{k}'", f"c_{k}'"]
    graph = helper.make_graph(
        nodes,
        "lstm",
        [tensor(name, [1, 1, H]) for name in ["x", *before]],
        [tensor(name, [1, 1, H]) for name in [x, *after]],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class Sampling(Work):
    """One more character of each of B texts: embedding, LSTM, output layer, softmax, sampling."""

    name: str
    V: int
    H: int
    B: int
    L: int = 2
    temperature: float = 0.8
    count = 50

    def operations(self) -> float:
        """Forward alone."""
        return 2.0 * self.B * (self.L * 4 * self.H * 2 * self.H + self.H * self.V)

    def runs(self, peers: Peers) -> Runs:
        """Several characters at a time, continuing from the previous run."""
        return framework_runs(peers, self._anaphora, self._torch)

    def _anaphora(self) -> Callable[[], None]:
        from anaphora.models import LanguageModel

        session = LanguageModel(self.V, hidden_size=self.H, num_layers=self.L).session(
            batch_size=self.B
        )
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
