"""Graphs that others wrote become models that compute what ONNX Runtime computes of the graph."""

import json
import os
import re
import warnings

import numpy as np
import pytest
from typer.testing import CliRunner

onnx = pytest.importorskip("onnx", reason="needs ONNX (extra onnx)")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra onnx)")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import anaphora  # noqa: E402
from anaphora.cli.app import app  # noqa: E402
from anaphora.interop.onnx import OnnxError, load_model  # noqa: E402
from anaphora.models import (  # noqa: E402
    LanguageModel,
    SequenceClassifier,
    SequenceRegressor,
    SequenceTagger,
)

V, E, H, O = 11, 6, 7, 4
DAMAGED = 3_000 if os.environ.get("ANAPHORA_ALL_CASES") else 200
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.fixture
def random():
    return np.random.default_rng(5)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def outputs(path, **inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


class Build:
    """A graph, node by node."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.nodes, self.arrays, self.count = [], {}, 0

    def array(self, value):
        name = f"a{len(self.arrays)}"
        value = np.asarray(value)
        self.arrays[name] = value.astype(np.float32) if value.dtype.kind == "f" else value
        return name

    def weight(self, *shape):
        return self.array(self.random.normal(size=shape) / 2)

    def node(self, operator, *inputs, outputs=1, named=None, **attributes):
        names = named or [f"v{self.count}_{k}" for k in range(outputs)]
        self.count += 1
        self.nodes.append(
            helper.make_node(operator, list(inputs), names, f"n{self.count}", **attributes)
        )
        return names[0] if outputs == 1 else names

    def recurrent(self, operator, x, size, D=1, lengths="", states=(), peepholes=False, **options):
        G, random = GATES[operator], self.weight
        inputs = [x, random(D, G * H, size), random(D, G * H, H), random(D, 2 * G * H)]
        inputs += [lengths, *states]
        if peepholes:
            inputs += [""] * (7 - len(inputs)) + [random(D, 3 * H)]
        while not inputs[-1]:
            del inputs[-1]
        if D == 2:
            options["direction"] = "bidirectional"
        return self.node(
            operator, *inputs, outputs=3 if operator == "LSTM" else 2, hidden_size=H, **options
        )

    def linear(self, x, size, outputs, **options):
        y = self.node("MatMul", x, self.weight(size, outputs))
        return self.node("Add", self.weight(outputs), y, **options)

    def merged(self, y, D=1):
        """[T, D, B, H] to [T, B, D*H]."""
        y = self.node("Transpose", y, perm=[0, 2, 1, 3])
        return self.node("Reshape", y, self.array(np.array([0, 0, D * H])))

    def save(self, path, inputs, *outputs, opset=17):
        """Inputs are name=(type, axes)."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(n, t, axes) for n, (t, axes) in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            [numpy_helper.from_array(a, n) for n, a in self.arrays.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        made.ir_version = 8
        onnx.save(made, path)
        return str(path)


IDS = (TensorProto.INT64, ["T", "B"])
FEATURES = (TensorProto.FLOAT, ["T", "B", E])


def ids_of(random, *shape):
    return random.integers(0, V, shape)


# Graphs of PyTorch --------------------------------------------------------------------------------


@pytest.fixture
def torch():
    found = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
    found.manual_seed(7)
    return found


def exported(torch, module, path, *inputs, names=("x",), free=None):
    free = {"x": {0: "b", 1: "t"}} if free is None else free
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), inputs, str(path), input_names=list(names), dynamic_axes=free,
            dynamo=False,
        )  # fmt: skip
    return str(path)


def network(torch, layer, outputs, embedded=True, end=lambda y, state: y, norm=False):
    nn = torch.nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(V, E) if embedded else nn.Identity()
            self.layer = layer
            self.drop = nn.Dropout(0.4)
            D = 2 if layer.bidirectional else 1
            self.norm = nn.LayerNorm(D * H) if norm else nn.Identity()
            self.output = nn.Linear(D * H, outputs)

        def forward(self, x, *state):
            y, state = self.layer(self.drop(self.table(x)), state or None)
            return self.output(self.drop(end(self.norm(y), state)))

    return Network()


def test_a_language_model_of_pytorch(torch, random, tmp_path):
    layer = torch.nn.LSTM(E, H, 2, batch_first=True, dropout=0.3)
    path = exported(torch, network(torch, layer, V), tmp_path / "m.onnx", torch.zeros(2, 3).long())
    model = load_model(path)
    assert type(model) is LanguageModel
    assert (model.cell, model.num_layers, model.embedding_size) == ("lstm", 2, E)
    assert not model.training
    x = ids_of(random, 5, 9)
    close(model(x.T)[0].data.swapaxes(0, 1), outputs(path, x=x)[0])
    with pytest.raises(ValueError, match="the task classify predicts once per sequence, but the"):
        load_model(path, "classify")
    assert type(load_model(path, "tag")) is SequenceTagger


def test_states_may_be_inputs_and_outputs(torch, random, tmp_path):
    class Streaming(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.layer = torch.nn.Embedding(V, E), torch.nn.LSTM(E, H, 2)
            self.output = torch.nn.Linear(H, V)

        def forward(self, x, h, c):
            y, (h, c) = self.layer(self.table(x), (h, c))
            return h, self.output(y), c

    zeros = torch.zeros(2, 2, H)
    path = exported(
        torch, Streaming(), tmp_path / "m.onnx", torch.zeros(3, 2).long(), zeros, zeros,
        names="xhc", free={"x": {0: "t", 1: "b"}, "h": {1: "b"}, "c": {1: "b"}},
    )  # fmt: skip
    model, x = load_model(path), ids_of(random, 9, 5)
    state = [random.normal(size=(2, 5, H)).astype("f") for _ in "hc"]
    h, logits, c = outputs(path, x=x, h=state[0], c=state[1])
    found, after = model(x, tuple(state))
    close(found.data, logits)
    close(after[0].data, h)
    close(after[1].data, c)


def test_a_tagger_in_both_directions_of_pytorch(torch, random, tmp_path):
    layer = torch.nn.GRU(E, H, bidirectional=True, batch_first=True)
    module = torch.nn.Sequential(network(torch, layer, O), torch.nn.Softmax(-1))
    path = exported(torch, module, tmp_path / "m.onnx", torch.zeros(2, 3).long())
    model, x = load_model(path), ids_of(random, 5, 9)
    assert type(model) is SequenceTagger
    assert (model.cell, model.bidirectional, model.num_tags) == ("gru", True, O)
    close(softmax(model(x.T)[0].data.swapaxes(0, 1)), outputs(path, x=x)[0])


@pytest.mark.parametrize(
    ("bidirectional", "end"),
    [
        (False, "h[-1]"), (False, "y[:, -1]"), (True, "torch.cat([h[-2], h[-1]], -1)"),
        (False, "y.mean(1)"), (True, "y.max(1).values"), (True, "y.amax(1)"),
    ],
)  # fmt: skip
def test_classifiers_of_pytorch(torch, random, tmp_path, bidirectional, end):
    layer = torch.nn.LSTM(E, H, 2, bidirectional=bidirectional, batch_first=True)
    ends = lambda y, state: eval(end, {"torch": torch, "y": y, "h": state[0]})  # noqa: E731
    module = network(torch, layer, O, embedded=False, end=ends)
    path = exported(torch, module, tmp_path / "m.onnx", torch.zeros(2, 3, E))
    with pytest.raises(ValueError, match=r"m\.onnx: it does not say what its 4 outputs are; give"):
        load_model(path)
    x = random.normal(size=(5, 9, E)).astype("f")
    for task, kind in (("classify", SequenceClassifier), ("regress", SequenceRegressor)):
        model = load_model(path, task)
        assert type(model) is kind
        assert model.pooling == ("mean" if "mean" in end else "max" if "max" in end else "last")
        close(model(x.swapaxes(0, 1)).data, outputs(path, x=x)[0])


@pytest.mark.parametrize("opset", [11, 17])
def test_layer_norms_and_nonlinearities_of_pytorch(torch, random, tmp_path, opset):
    layer = torch.nn.RNN(E, H, nonlinearity="relu")
    module = torch.nn.Sequential(
        network(torch, layer, O, embedded=False, norm=True, end=lambda y, state: y[-1]),
        torch.nn.Sigmoid(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.init.normal_(module[0].norm.weight)
        torch.nn.init.normal_(module[0].norm.bias)
        torch.onnx.export(
            module.eval(), (torch.zeros(3, 2, E),), str(tmp_path / "m.onnx"), input_names=["x"],
            dynamic_axes={"x": {0: "t", 1: "b"}}, dynamo=False, opset_version=opset,
        )  # fmt: skip
    model = load_model(tmp_path / "m.onnx")
    assert (model.cell, model.layer_norm, model.multi_label) == ("rnn_relu", True, True)
    x = random.normal(size=(9, 5, E)).astype("f")
    found = 1 / (1 + np.exp(-model(x).data))
    close(found, outputs(str(tmp_path / "m.onnx"), x=x)[0])


def test_sizes_may_be_fixed(torch, random, tmp_path):
    layer = torch.nn.GRU(E, H, batch_first=True)
    module = network(torch, layer, V)
    path = exported(torch, module, tmp_path / "m.onnx", torch.zeros(1, 6).long(), free={})
    model, x = load_model(path), ids_of(random, 1, 6)
    close(model(x.T)[0].data.swapaxes(0, 1), outputs(path, x=x)[0])


# Graphs by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [0, 1])
def test_lengths_and_layouts(random, tmp_path, layout):
    b = Build()
    x = b.node("Gather", b.weight(V, E), "ids")
    lengths = b.node("Cast", "n", to=TensorProto.INT32)
    if layout:  # states are [B, D, H] then
        h = b.recurrent("LSTM", x, E, lengths=lengths, layout=1)[1]
        h = b.node("Squeeze", h, b.array(np.array([1])))
    else:
        h = b.recurrent("LSTM", x, E, lengths=lengths)[1]
        h = b.node("Squeeze", h, b.array(np.array([0])))
    y = b.node("Gemm", h, b.weight(O, H), b.weight(O), transB=1, alpha=0.5, beta=2.0)
    b.node("LogSoftmax", y, named=["y"])
    axes = ["B", "T"] if layout else ["T", "B"]
    inputs = {"ids": (TensorProto.INT64, axes), "n": (TensorProto.INT64, ["B"])}
    path = b.save(tmp_path / "m.onnx", inputs, "y")
    model = load_model(path)
    assert type(model) is SequenceClassifier
    x, n = ids_of(random, 9, 5), np.array([9, 3, 1, 4, 6])
    if layout:  # ONNX Runtime has none: the check against the graph is what there is
        return
    (expected,) = outputs(path, ids=x, n=n)
    close(np.log(softmax(model(x, n).data)), expected)


@pytest.mark.parametrize(
    ("operator", "options", "name"),
    [
        ("RNN", {}, "rnn"),
        ("RNN", {"activations": ["Softsign"]}, "rnn_softsign"),
        ("LSTM", {"peepholes": True}, "peephole_lstm"),
        ("LSTM", {"clip": 0.5}, "lstm_tanh_sigmoid"),
        ("LSTM", {"input_forget": 1, "peepholes": True}, "lstm_tanh_sigmoid"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Relu"]}, "lstm_tanh_hard_sigmoid_relu"),
        ("GRU", {"linear_before_reset": 1}, "gru"),
        ("GRU", {}, "gru_reset_before"),
        ("GRU", {"linear_before_reset": 1, "activations": ["Sigmoid", "Elu"]}, "gru_elu_sigmoid"),
    ],
)
def test_attributes_become_cells(random, tmp_path, operator, options, name):
    b, x = Build(), "x"
    if "activations" in options:
        options = {**options, "activations": options["activations"] * 2}
    for size in (E, 2 * H):
        x = b.merged(b.recurrent(operator, x, size, D=2, **options)[0], 2)
    b.linear(x, 2 * H, O, named=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y")
    model = load_model(path, "tag")
    cell = model.cell
    assert (cell if isinstance(cell, str) else cell.name) == name
    x = random.normal(size=(9, 5, E)).astype("f")
    (expected,) = outputs(path, x=x)
    close(model(x)[0].data, expected)
    model.save(tmp_path / "model")
    close(anaphora.load(tmp_path / "model")(x)[0].data, expected)


@pytest.mark.parametrize("channels", [False, True])
def test_weights_in_8_bits_become_floats(random, tmp_path, channels):
    """LSTMs that ONNX Runtime's tool has quantized, in both directions."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    b = Build()
    y = b.merged(b.recurrent("LSTM", "x", E, D=2)[0], 2)
    b.node("Softmax", b.linear(y, 2 * H, O), axis=-1, named=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y")
    quantize_dynamic(
        path, tmp_path / "q.onnx", op_types_to_quantize=["LSTM"], per_channel=channels,
        weight_type=QuantType.QInt8 if channels else QuantType.QUInt8,
    )  # fmt: skip
    assert "DynamicQuantizeLSTM" in [n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node]
    with pytest.warns(UserWarning, match="its weights in 8 bits become the float32 numbers"):
        model = load_model(tmp_path / "q.onnx", "tag")
    exact = load_model(path, "tag")
    for key, array in exact.state_dict().items():
        if "recurrent.weight" in key:
            error = np.abs(model.state_dict()[key] - array).max()
            assert 0 < error <= (array.max() - array.min()) / 250
        else:
            np.testing.assert_array_equal(model.state_dict()[key], array)
    x = random.normal(size=(9, 5, E)).astype("f")
    (theirs,) = outputs(str(tmp_path / "q.onnx"), x=x)
    np.testing.assert_allclose(softmax(model(x)[0].data), theirs, atol=0.02)


def test_two_nodes_are_two_directions(random, tmp_path):
    b = Build()
    halves = []
    for direction in ("reverse", "forward"):
        y = b.recurrent("GRU", "x", E, direction=direction, linear_before_reset=1)[0]
        halves.append(b.node("Squeeze", y, b.array(np.array([1]))))
    y = b.linear(b.node("Concat", *halves[::-1], axis=-1), 2 * H, O)
    b.node("Softmax", y, named=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y")
    model, x = load_model(path), random.normal(size=(9, 5, E)).astype("f")
    assert model.bidirectional
    close(softmax(model(x)[0].data), outputs(path, x=x)[0])
    b.nodes[-4].input[0], b.nodes[-4].input[1] = b.nodes[-4].input[1], b.nodes[-4].input[0]
    path = b.save(tmp_path / "swapped.onnx", {"x": FEATURES}, "y")
    with pytest.raises(OnnxError, match=r"but computes something else .*: its output differs by"):
        load_model(path)


def test_one_hot_ids_and_tied_weights(random, tmp_path):
    b = Build()
    x = b.node("OneHot", "ids", b.array(np.array(V)), b.array(np.array([0.0, 1.0])), axis=-1)
    y = b.merged(b.recurrent("LSTM", x, V)[0])
    b.linear(y, H, V, named=["y"])
    path = b.save(tmp_path / "m.onnx", {"ids": IDS}, "y")
    x, model = ids_of(random, 9, 5), load_model(path)
    assert model.embedding_size == V
    close(model(x)[0].data, outputs(path, ids=x)[0])
    b = Build()
    table = b.weight(V, H)
    y = b.merged(b.recurrent("LSTM", b.node("Gather", table, "ids"), H)[0])
    y = b.node("MatMul", y, b.node("Transpose", table, perm=[1, 0]))
    b.node("Identity", y, named=["y"])
    path, model = b.save(tmp_path / "m.onnx", {"ids": IDS}, "y"), load_model(tmp_path / "m.onnx")
    assert model.tied
    close(model(x)[0].data, outputs(path, ids=x)[0])


def test_other_outputs_are_told(tmp_path):
    b = Build()
    logits = b.linear(b.merged(b.recurrent("LSTM", "x", E)[0]), H, O, named=["logits"])
    b.node("Softmax", logits, named=["y"])
    b.node("ReduceSum", "x", named=["total"])
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y", "logits", "total")
    with pytest.warns(
        UserWarning, match=r"the output total float32 \[\.\.\.\] of the graph is omi"
    ):
        load_model(path)


def convolution(b):
    x = b.node("Transpose", "x", perm=[1, 2, 0])
    x = b.node("Conv", x, b.weight(E, E, 1), named=["conv"])
    y = b.recurrent("LSTM", b.node("Transpose", x, perm=[2, 0, 1]), E)[0]
    b.linear(b.merged(y), H, O, named=["y"])


def hidden_layer(b):
    y = b.node("Relu", b.linear(b.merged(b.recurrent("LSTM", "x", E)[0]), H, H))
    b.linear(y, H, O, named=["y"])


def no_linear(b):
    b.node("Identity", b.recurrent("LSTM", "x", E)[0], named=["y"])


def resets_first(b):
    b.linear(b.merged(b.recurrent("GRU", "x", E, clip=2.0)[0]), H, O, named=["y"])


def two_kinds(b):
    y = b.merged(b.recurrent("LSTM", "x", E)[0])
    b.linear(b.merged(b.recurrent("RNN", y, H)[0]), H, O, named=["y"])


def reverse(b):
    b.linear(b.merged(b.recurrent("LSTM", "x", E, direction="reverse")[0]), H, O, named=["y"])


def residual(b):
    y = b.merged(b.recurrent("LSTM", "x", E)[0])
    b.linear(b.node("Add", y, y), H, O, named=["y"])


def initial_state(b):
    state = b.array(np.ones((1, 1, H)))
    b.linear(b.merged(b.recurrent("LSTM", "x", E, states=(state,))[0]), H, O, named=["y"])


def scaled_input(b):
    y = b.recurrent("LSTM", b.node("Mul", "x", b.array(np.array(2.0))), E)[0]
    b.linear(b.merged(y), H, O, named=["y"])


def skip(b):
    y = b.node("Concat", b.merged(b.recurrent("LSTM", "x", E)[0]), "x", axis=-1)
    b.linear(y, H + E, O, named=["y"])


def epsilon(b):
    y = b.merged(b.recurrent("LSTM", "x", E)[0])
    y = b.node("LayerNormalization", y, b.weight(H), b.weight(H), epsilon=0.1)
    b.linear(y, H, O, named=["y"])


def second_step(b):
    y = b.node("Gather", b.merged(b.recurrent("LSTM", "x", E)[0]), b.array(np.array(1)), axis=0)
    b.linear(y, H, O, named=["y"])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (convolution, "after a linear layer of 4 outputs, the LSTM node 'n4' it has Conv node 'n2';"
         " a model has an RNN, LSTM or GRU, an embedding (a constant table), or an input there"),
        (hidden_layer, "after a linear layer of 4 outputs it has Relu node"),
        (no_linear, "back, it has LSTM node 'n1'; a model has softmax, sigmoid, or a linear layer"),
        (resets_first, "GRU node 'n1': its reset gate multiplies before the matrix product"),
        (two_kinds, "differ in their kind, size, directions or normalization; those of a model are "
         "alike: the LSTM node 'n1', the RNN node 'n4', a linear layer of 4 outputs"),
        (reverse, "LSTM node 'n1' in reverse alone"),
        (residual, "Add node 'n4'"),
        (initial_state, "LSTM node 'n1', which starts from a state that is not 0"),
        (scaled_input, "Mul node 'n1'"),
        (skip, "what is joined of 'x' and LSTM node 'n1'"),
        (epsilon, "(the LSTM node 'n1', a layer normalization, a linear layer of 4 outputs), "
         "but computes something else than they do in a model: its output differs by"),
        (second_step, "but computes something else than they do in a model: its output differs by"),
    ],
)  # fmt: skip
def test_other_shapes_are_explained(build, message, tmp_path):
    b = Build()
    build(b)
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y")
    with pytest.raises(OnnxError, match=re.escape(message)) as raised:
        load_model(path, "classify" if build is second_step else "tag")
    assert str(raised.value).startswith(f"{path}: ")
    assert "interop.onnx.load runs graphs that are no models of anaphora" in str(raised.value)


def rewired(data, r):
    """A graph with other operators, inputs, attributes or shapes of arrays."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    for _ in range(int(r.integers(1, 3))):
        node = graph.node[int(r.integers(len(graph.node)))]
        array = graph.initializer[int(r.integers(len(graph.initializer)))]
        kind = r.integers(6)
        if kind == 0:
            node.op_type = str(r.choice([n.op_type for n in graph.node] + ["OneHot", "Mul", "Div"]))
        elif kind == 1:
            names = [array.name, *(n for one in graph.node for n in (*one.input, *one.output)), ""]
            if node.input:
                node.input[int(r.integers(len(node.input)))] = str(r.choice(names))
        elif kind == 2 and node.input:
            del node.input[int(r.integers(len(node.input)))]
        elif kind == 3 and node.attribute:
            del node.attribute[int(r.integers(len(node.attribute)))]
        elif kind == 4:
            array.dims[:] = [int(n) for n in r.permutation(list(array.dims))] + [1] * r.integers(2)
        else:
            array.data_type = int(r.integers(1, 13))
    return model.SerializeToString()


@pytest.mark.filterwarnings("ignore")
def test_damaged_graphs_are_told_or_recognized(tmp_path):
    cases = []
    for k, options in enumerate(({}, {"layout": 1}, {"clip": 1.0})):
        b = Build(k)
        x = b.node("Gather", b.weight(V, E), "ids")
        y = b.node("Squeeze", b.recurrent("LSTM", x, E, **options)[1], b.array(np.array([k % 2])))
        b.linear(y, H, O, named=["y"])
        axes = ["B", "T"] if options.get("layout") else ["T", "B"]
        b.save(tmp_path / "x.onnx", {"ids": (TensorProto.INT64, axes)}, "y")
        cases.append((tmp_path / "x.onnx").read_bytes())
    for k in range(2):
        b = Build(k)
        y = b.merged(b.recurrent("GRU", "x", E, D=2, linear_before_reset=1)[0], 2)
        y = b.node("LayerNormalization", y, b.weight(2 * H), b.weight(2 * H))
        b.node("Softmax", b.linear(y, 2 * H, O), named=["y"])
        b.save(tmp_path / "x.onnx", {"x": FEATURES}, "y")
        cases.append((tmp_path / "x.onnx").read_bytes())
    r, told, path = np.random.default_rng(1), 0, tmp_path / "damaged.onnx"
    for number in range(DAMAGED):
        path.write_bytes(rewired(cases[number % len(cases)], r))
        try:
            load_model(path, "classify" if number % 5 < 3 else "tag")
        except ValueError as error:
            told += str(path) in str(error)
    assert 0.5 * DAMAGED < told < 0.99 * DAMAGED


# Directories --------------------------------------------------------------------------------------


def run(*arguments, code=0, stdin=None):
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


def ids_graph(path, outputs, end, V=V):
    b = Build()
    layer = b.recurrent("LSTM", b.node("Gather", b.weight(V, E), "ids"), E)
    y = layer[1] if end == "last" else b.merged(layer[0])
    if end == "last":
        y = b.node("Squeeze", y, b.array(np.array([0])))
    y = b.linear(y, H, outputs)
    b.node("Softmax" if outputs != V else "Identity", y, named=["y"])
    return b.save(path, {"ids": IDS}, "y")


def test_a_language_model_reads_and_writes(tmp_path):
    """Its characters are not sorted, and so the ids of the directory are others."""
    path, out = ids_graph(tmp_path / "m.onnx", V, "all"), tmp_path / "model"
    characters = "ba\n dcefghi"
    (tmp_path / "v.json").write_text(json.dumps([*characters]))
    assert "see --vocabulary" in run("import", path, tmp_path / "bare")[0]
    run("import", path, out, "--vocabulary", tmp_path / "v.json")
    model = anaphora.load(out)
    text = "bad cafe\n"
    theirs = np.array([[characters.index(c)] for c in text])
    found = model(model.codec.encode(text)[:, None])[0].data
    order = [characters.index(c) for c in model.codec.characters]
    assert order != sorted(order)
    close(found, outputs(path, ids=theirs)[0][..., order])
    (tmp_path / "text.txt").write_text(text * 20)
    logits = outputs(path, ids=np.array([[characters.index(c)] for c in text * 20]))[0][:-1, 0]
    losses = -np.log(softmax(logits))[
        np.arange(len(logits)), [characters.index(c) for c in (text * 20)[1:]]
    ]
    figures = json.loads(run("evaluate", out, tmp_path / "text.txt", "--json")[0])
    np.testing.assert_allclose(figures["perplexity"], np.exp(losses.mean()), rtol=1e-4)
    assert "abc" in run("generate", out, "--prompt", "abc", "--length", "9")[0]


def test_a_classifier_and_a_tagger_predict(tmp_path):
    path, out = ids_graph(tmp_path / "m.onnx", 3, "last"), tmp_path / "model"
    (tmp_path / "v.txt").write_text("".join(f"{c}\n" for c in "abcdefghij") + "<unk>\n")
    (tmp_path / "labels.txt").write_text("good\nbad\nugly\n")
    message = "the sequence classifier predicts what has names; give its labels too"
    assert message in run("import", path, out, "--vocabulary", tmp_path / "v.txt", code=2)[1]
    assert not out.exists()
    run(
        "import", path, out, "--vocabulary", tmp_path / "v.txt", "--labels", tmp_path / "labels.txt"
    )
    (tmp_path / "texts.txt").write_text("fade\nface!\n")
    found = run("predict", out, tmp_path / "texts.txt")[0].split("\n")
    for text, line in zip(("fade", "facek"), found, strict=False):
        ids = np.array([["abcdefghijk".index(c)] for c in text])
        assert line.startswith(["good", "bad", "ugly"][outputs(path, ids=ids)[0].argmax()])
    path = ids_graph(tmp_path / "t.onnx", 3, "all", V=4)
    (tmp_path / "v.txt").write_text("the\n<UNK>\ndog\ncat\n")
    (tmp_path / "labels.txt").write_text("O\nB-PER\nI-PER\n")
    out = tmp_path / "tagger"
    run(
        "import", path, out, "--vocabulary", tmp_path / "v.txt", "--labels", tmp_path / "labels.txt"
    )
    (tmp_path / "s.txt").write_text("The cat barks\n")
    tags = outputs(path, ids=np.array([[0], [3], [1]]))[0][:, 0].argmax(-1)
    printed = run("predict", out, tmp_path / "s.txt")[0].split()
    assert [printed[k] for k in (1, 3, 5)] == [["O", "B-PER", "I-PER"][k] for k in tags]
    assert anaphora.load(out).codec.scheme == "BIO"


def test_a_directory_of_a_regressor(tmp_path, random):
    b = Build()
    h = b.node("Squeeze", b.recurrent("LSTM", "x", E)[1], b.array(np.array([0])))
    b.linear(h, H, 2, named=["y"])
    path = b.save(tmp_path / "m.onnx", {"x": FEATURES}, "y")
    (tmp_path / "names.json").write_text('{"width": 1, "height": 0}')
    out = tmp_path / "model"
    run("import", path, out, "--task", "regress", "--labels", tmp_path / "names.json")
    model = anaphora.load(out)
    assert model.codec.targets == ("height", "width")
    x = random.normal(size=(5, 1, E)).astype("f")
    close(model.codec.decode(model(x).data), outputs(path, x=x)[0])
    assert (
        "it does not say what its 2 outputs are" in run("import", path, tmp_path / "b", code=2)[1]
    )
