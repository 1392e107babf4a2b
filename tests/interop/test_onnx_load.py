"""ONNX models in: the standard's own tests, ONNX Runtime beside ours, gradients, calls."""

import copy
import functools
import os
import pickle
import re
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

import onnx.backend.base  # noqa: E402
import onnx.backend.test  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from anaphora import optim  # noqa: E402
from anaphora.cells import Cell  # noqa: E402
from anaphora.interop.onnx import OnnxError, OnnxModel, load  # noqa: E402
from anaphora.interop.onnx.cells import ACTIVATIONS, Activation, cell_of  # noqa: E402
from anaphora.interop.onnx.reading import parse  # noqa: E402
from anaphora.tensor import Tensor, no_grad  # noqa: E402

ALL = os.environ.get("ANAPHORA_ALL_CASES") == "1"
RANDOM_CASES = 501 if ALL else 60
OVERFLOWING = {158}
"""The random cases in which ONNX Runtime overflows, and ours do not."""
TYPES = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "bool": TensorProto.BOOL, "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
}  # fmt: skip


def model_of(nodes, inputs, outputs, arrays=(), opset=17, contributed=False):
    """An ONNX model; inputs and arrays are NumPy arrays by name, outputs are names."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, TYPES[str(a.dtype)], [None] * a.ndim) for name, a in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in dict(arrays).items()],
    )
    domains = [helper.make_opsetid("", opset)]
    if contributed:
        domains.append(helper.make_opsetid("com.microsoft", 1))
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def ours(model):
    return OnnxModel(parse(model.SerializeToString()))


def in_runtime(model, inputs):
    """What ONNX Runtime computes, on one thread (more would quantize rows apart)."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for value in model.graph.output:  # it wants types, which it infers
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


# The standard's own tests


class Prepared:
    def __init__(self, model):
        self.model = model

    def run(self, inputs):
        with no_grad():
            return tuple(np.asarray(value) for value in self.model(*inputs))


class Backend(onnx.backend.base.Backend):
    """Anaphora for the standard's runner."""

    @classmethod
    def prepare(cls, model, device="CPU", **options):
        return Prepared(ours(model))

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


RECURRENT = [
    "rnn_seq_length", "gru_seq_length", "lstm_with_peepholes",
    *(
        f"{operator}_{name}"
        for operator in ("simple_rnn", "gru", "lstm")
        for name in ("batchwise", "bidirectional", "defaults", "reverse", "with_initial_bias")
    ),
]  # fmt: skip
OTHERS = re.compile(
    r"test_(add|sub|mul|div|pow|mod|neg|abs|sqrt|exp|log|reciprocal|floor|ceil|round|sign|min|max|"
    r"sum|mean|relu|sigmoid|tanh|leakyrelu|elu|hardsigmoid|softplus|softsign|thresholdedrelu|clip|"
    r"softmax|logsoftmax|reduce_(sum|mean|max|min|l2|sum_square)|argmax|argmin|matmul|gemm|"
    r"batchnorm|layer_normalization|if|scan9|constant|constantofshape|shape|size|cast|gather|"
    r"gather_elements|slice|"
    r"concat|split|squeeze|unsqueeze|transpose|reshape|flatten|expand|tile|range|"
    r"(constant|reflect|edge|wrap)_pad|where|equal|greater|less|not|and|or|xor|identity|dropout|"
    r"prelu|globalaverage|globalmax|dynamicquantizelinear|dequantizelinear|quantizelinear|"
    r"matmulinteger)(_\w+)?_cpu"
)
NOT_READ = re.compile(  # types of elements, sequences, training, empty maxima, loops
    r"(?i)bfloat16|float8|e4m3|e5m2|e8m0|u?int[24]($|_|\D)|float4|string|_opt_|sequence|_seq_|"
    r"training_mode|empty_set|range_\w+_expanded|layer_normalization_(?!\w*_expanded)|"
    r"reduce_min_bool|blocked|quantizelinear_u?int16"
)


@functools.cache
def standard_tests():
    """The tests of the standard for the CPU, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        standard = onnx.backend.test.BackendTest(Backend, __name__)
    return {
        name: cls(name)
        for cls in standard.test_cases.values()
        for name in vars(cls)
        if name.endswith("_cpu")
    }


def test_these_are_all_tests_of_recurrent_operators():
    pattern = re.compile(r"test_(simple_rnn|rnn|gru|lstm)_\w+_cpu")
    names = {name for name in standard_tests() if pattern.fullmatch(name)}
    assert names == {f"test_{name}_cpu" for name in RECURRENT}
    assert len(names) == 18


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_operators_pass_the_tests_of_the_standard(name):
    standard_tests()[f"test_{name}_cpu"].debug()


@pytest.mark.filterwarnings("ignore")  # of the references
def test_other_operators_pass_the_tests_of_the_standard():
    cases = {
        name: case
        for name, case in standard_tests().items()
        if OTHERS.fullmatch(name) and not NOT_READ.search(name)
    }
    assert len(cases) > 550
    failed = {}
    for name, case in cases.items():
        try:
            case.debug()
        except Exception as error:
            failed[name] = str(error)[:200]
    assert not failed


# Every combination of attributes, beside ONNX Runtime

WITH_ALPHA = [name for name, function in ACTIVATIONS.items() if function.alpha is not None]
WITH_BETA = [name for name, function in ACTIVATIONS.items() if function.beta is not None]
INPUTS = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]


def random_case(seed, dtype=np.float32, operator=None):
    """A node of random attributes, and its inputs."""
    r = np.random.default_rng(seed)
    operator = operator or ["RNN", "GRU", "LSTM"][seed % 3]
    T, B, I, H = (int(n) for n in r.permutation(np.arange(1, 8))[:4])
    D = int(r.integers(1, 3))
    G = {"RNN": 1, "GRU": 3, "LSTM": 4}[operator]
    functions = {"RNN": 1, "GRU": 2, "LSTM": 3}[operator] * D
    attributes = {
        "hidden_size": H,
        "direction": "bidirectional" if D == 2 else str(r.choice(["forward", "reverse"])),
    }
    if r.random() < 0.85:
        names = [str(name) for name in r.choice(list(ACTIVATIONS), functions)]
        attributes["activations"] = names
        alphas = [r.uniform(0.2, 1) for name in names if name in WITH_ALPHA]
        betas = [r.uniform(-0.5, 0.8) for name in names if name in WITH_BETA]
        if alphas:
            attributes["activation_alpha"] = alphas
        if betas:
            attributes["activation_beta"] = betas
    if r.random() < 0.5:
        attributes["clip"] = r.uniform(0.2, 2)
    if operator == "LSTM" and r.random() < 0.4:
        attributes["input_forget"] = 1
    if operator == "GRU":
        attributes["linear_before_reset"] = int(r.integers(2))

    def normal(*shape):
        return (0.35 * r.standard_normal(shape)).astype(dtype)

    inputs = {"X": normal(T, B, I), "W": normal(D, G * H, I), "R": normal(D, G * H, H)}
    if r.random() < 0.7:
        inputs["B"] = normal(D, 2 * G * H)
    if r.random() < 0.5:
        inputs["sequence_lens"] = r.integers(0, T + 1, B).astype(np.int32)
    if r.random() < 0.6:
        inputs["initial_h"] = normal(D, B, H)
    if operator == "LSTM" and r.random() < 0.6:
        inputs["initial_c"] = normal(D, B, H)
    if operator == "LSTM" and r.random() < 0.5:
        inputs["P"] = normal(D, 3 * H)
    given = [name if name in inputs else "" for name in INPUTS]
    while not given[-1]:
        given.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator == "LSTM" else 2]
    return helper.make_node(operator, given, outputs, **attributes), inputs, outputs


@pytest.mark.parametrize("seed", range(RANDOM_CASES))
def test_random_attributes_compute_what_onnx_runtime_computes(seed):
    node, inputs, outputs = random_case(seed)
    model = model_of([node], inputs, outputs, opset=14)
    expected = in_runtime(model, inputs)
    module = ours(model)
    for results in (module(**inputs), module(**inputs)):  # node by node; then by the plan
        for name, result, value in zip(outputs, results, expected, strict=True):
            if not np.isfinite(value).all():  # its Softplus is log(1 + exp(x)), which overflows
                assert seed in OVERFLOWING
                assert np.isfinite(result).all()
                continue
            np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_random_cases_hold_every_attribute():
    """What they are a proof of: each activation, clip, and so on, many times."""
    seen = {}
    for seed in range(RANDOM_CASES):
        node, inputs, _ = random_case(seed)
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        keys = [(node.op_type, name.decode()) for name in values.get("activations", ())] + [
            name for name in ("clip", "input_forget") if name in values
        ]
        keys += [("linear_before_reset", values.get("linear_before_reset")), values["direction"]]
        for key in (*keys, *inputs):
            seen[key] = seen.get(key, 0) + 1
    assert {key[1] for key in seen if type(key) is tuple and key[0] == "LSTM"} == set(ACTIVATIONS)
    for key in ("clip", "input_forget", ("linear_before_reset", 0), ("linear_before_reset", 1),
                b"forward", b"reverse", b"bidirectional", *INPUTS):  # fmt: skip
        assert seen[key] >= 3, key


@pytest.mark.parametrize("seed", range(0, RANDOM_CASES, 5))
def test_layout_1_is_layout_0_with_the_batch_first(seed):
    """ONNX Runtime has no layout 1."""
    node, inputs, outputs = random_case(seed)
    expected = ours(model_of([node], inputs, outputs))(**inputs)
    node.attribute.append(helper.make_attribute("layout", 1))
    swapped = {
        name: a.swapaxes(0, 1).copy() if name in ("X", "initial_h", "initial_c") else a
        for name, a in inputs.items()
    }
    results = ours(model_of([node], swapped, outputs))(**swapped)
    for result, value in zip(results, expected, strict=True):
        axes = (2, 0, 1, 3) if value.ndim == 4 else (1, 0, 2)
        np.testing.assert_array_equal(result.data, value.data.transpose(axes))


@pytest.mark.parametrize("seed", range(1000, 1024))
def test_gradients_are_those_of_differences(seed):
    """Of every input, along one random direction, in float64: the fused backward pass."""
    node, inputs, outputs = random_case(seed, np.float64)
    module = ours(model_of([node], inputs, outputs))
    r = np.random.default_rng(seed)
    floats = [name for name, a in inputs.items() if a.dtype == np.float64]
    directions = {name: r.standard_normal(inputs[name].shape) for name in floats}
    weights = [r.standard_normal(value.shape) for value in module(**inputs)]

    def total(values):
        return sum(
            (result * weight).sum()
            for result, weight in zip(module(**values), weights, strict=True)
        )

    tensors = {
        name: Tensor(a, requires_grad=True) if name in floats else a for name, a in inputs.items()
    }
    total(tensors).backward()
    slope = sum((tensors[name].grad * directions[name]).sum() for name in floats)
    step = 1e-6

    def moved(sign):
        changed = {name: inputs[name] + sign * step * directions[name] for name in floats}
        with no_grad():
            return total(inputs | changed).item()

    np.testing.assert_allclose(slope, (moved(1) - moved(-1)) / (2 * step), rtol=2e-6, atol=1e-7)


def test_activations_are_found_whatever_their_case_and_take_their_numbers_in_order():
    node, inputs, outputs = random_case(2)
    assert node.op_type == "LSTM"
    del node.attribute[:]
    names = ["hardsigmoid", "ScaledTanh", "LEAKYRELU"]
    node.attribute.extend(
        helper.make_attribute(name, value)
        for name, value in {
            "hidden_size": inputs["R"].shape[2], "activations": names * len(inputs["W"]),
            "activation_alpha": [0.3, 1.5, 0.1] * len(inputs["W"]),
            "activation_beta": [0.4, 0.7] * len(inputs["W"]),
            "direction": "bidirectional" if len(inputs["W"]) == 2 else "forward",
        }.items()
    )  # fmt: skip
    model = model_of([node], inputs, outputs, opset=14)
    ((cell, *_),) = ours(model).cells.values()
    functions = (
        Activation("HardSigmoid", 0.3, 0.4), Activation("ScaledTanh", 1.5, 0.7),
        Activation("LeakyRelu", 0.1),
    )  # fmt: skip
    expected = cell_of("LSTM", functions, peepholes="P" in inputs)
    assert [(i.function, np.round(i.operands, 6).tolist()) for i in cell.program.instructions] == [
        (i.function, np.round(i.operands, 6).tolist()) for i in expected.program.instructions
    ]
    for result, value in zip(ours(model)(**inputs), in_runtime(model, inputs), strict=True):
        np.testing.assert_allclose(result, value, atol=1e-5)


def test_cells_are_equations_that_repr_prints():
    node, inputs, outputs = random_case(5)
    module = ours(model_of([node], inputs, outputs))
    cells = [cell for found in module.cells.values() for cell in found]
    assert len(cells) == len(inputs["W"])
    for cell in cells:
        assert isinstance(cell, Cell)
        assert cell.fused
        assert "backward" in repr(cell)
        for line in cell.program.lines():
            assert line in repr(module)


# 8 bits


def quantized_case(seed, unsigned=False, columns=False, peepholes=False, states=False, lengths=None,
                   B=3, D=1, **attributes):  # fmt: skip
    """A DynamicQuantizeLSTM node, its inputs, and its arrays."""
    r = np.random.default_rng(seed)
    T, I, H = 4, 5, 6
    normal = lambda *shape: (0.5 * r.standard_normal(shape)).astype(np.float32)  # noqa: E731
    low, high, dtype = (0, 256, np.uint8) if unsigned else (-127, 128, np.int8)
    scales = lambda: r.uniform(0.002, 0.006, (D, 4 * H) if columns else (D,)).astype(np.float32)  # noqa: E731
    zeros = np.full((D, 4 * H) if columns else (D,), 128 if unsigned else 0, dtype)
    arrays = {
        "W": r.integers(low, high, (D, I, 4 * H)).astype(dtype),
        "R": r.integers(low, high, (D, H, 4 * H)).astype(dtype),
        "B": normal(D, 8 * H), "W_scale": scales(), "W_zero": zeros, "R_scale": scales(),
        "R_zero": zeros,
    }  # fmt: skip
    if peepholes:
        arrays["P"] = normal(D, 3 * H)
    inputs = {"X": normal(T, B, I)}
    if lengths is not None:
        inputs["L"] = np.array(lengths, np.int32)
    if states:
        inputs |= {"h": normal(D, B, H), "c": normal(D, B, H)}
    names = ["X", "W", "R", "B", "L", "h", "c", "P", "W_scale", "W_zero", "R_scale", "R_zero"]
    node = helper.make_node(
        "DynamicQuantizeLSTM",
        [name if name in inputs or name in arrays else "" for name in names],
        ["Y", "Y_h", "Y_c"],
        domain="com.microsoft", hidden_size=H, **attributes,
    )  # fmt: skip
    return model_of([node], inputs, ["Y", "Y_h", "Y_c"], arrays, 14, contributed=True), inputs


@pytest.mark.parametrize(
    "options",
    [
        {}, {"unsigned": True}, {"columns": True}, {"peepholes": True}, {"states": True}, {"B": 1},
        {"D": 2, "direction": "bidirectional"}, {"direction": "reverse", "lengths": [4, 1, 0]},
        {"lengths": [4, 2, 3]}, {"clip": 0.5}, {"input_forget": 1},
        {"activations": ["HardSigmoid", "Softsign", "Tanh"]},
    ],
    ids=str,
)  # fmt: skip
def test_lstms_in_8_bits_compute_what_onnx_runtime_computes(options):
    """A state that lies near the middle of two integers may be rounded to the other one, since the
    last digits of a sigmoid differ: rarely, and then by a step of 1/255 times a weight.
    """
    differences = []
    for seed in range(6):
        model, inputs = quantized_case(seed, **options)
        pairs = zip(ours(model)(**inputs), in_runtime(model, inputs), strict=True)
        differences.append(max(np.abs(np.asarray(a) - b).max() for a, b in pairs))
    assert sorted(differences)[3] < 1e-6
    assert max(differences) < 2e-3


def test_lstms_in_8_bits_explain_what_they_lack():
    model, inputs = quantized_case(0)
    model.graph.node[0].input[8] = ""
    with pytest.raises(OnnxError, match=r"DynamicQuantizeLSTM node 'Y': got no scales of W and R"):
        ours(model)(**inputs)


# Around them


def small_model():
    """An LSTM whose last output is read by a linear layer, with arrays of all kinds."""
    r = np.random.default_rng(3)
    normal = lambda *shape: (0.3 * r.standard_normal(shape)).astype(np.float32)  # noqa: E731
    node = helper.make_node
    arrays = {
        "W": normal(1, 20, 3), "R": normal(1, 20, 5), "B": normal(1, 40), "weight": normal(2, 5),
        "bias": normal(2), "half": np.array(0.5, np.float32), "axes": np.array([0], np.int64),
    }  # fmt: skip
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["y", "h"], "encoder", hidden_size=5),
        node("Squeeze", ["h", "axes"], ["last"]),
        node("Gemm", ["last", "weight", "bias"], ["z"], transB=1),
        node("Mul", ["z", "half"], ["scores"]),
    ]
    x = normal(6, 4, 3)
    return model_of(nodes, {"x": x}, ["scores"], arrays), x


def test_arrays_of_floats_are_parameters_but_single_numbers():
    model, _ = small_model()
    module = ours(model)
    assert [name for name, _ in module.named_parameters()] == [
        f"weights.{name}" for name in ("W", "R", "B", "weight", "bias")
    ]
    assert not module.training


def test_results_follow_the_parameters_and_the_shapes():
    """What is kept between calls is computed anew where a parameter has changed."""
    model, x = small_model()
    module = ours(model)
    with no_grad():
        before = module(x)[0].data.copy()
        np.testing.assert_array_equal(module(x)[0].data, before)
        with module.weights["R"].writing() as array:
            array[...] *= 2
    changed = ours(model)
    changed.load_state_dict(module.state_dict())
    with no_grad():
        (after,), (fresh,) = module(x), changed(x)
        assert np.abs(after.data - before).max() > 1e-3
        np.testing.assert_array_equal(after.data, fresh.data)
        for T in (1, 3, 30):  # more steps than are run with packed weights, too
            longer = np.resize(x, (T, 4, 3))
            np.testing.assert_array_equal(module(longer)[0].data, ours_like(module, longer))
    np.testing.assert_allclose(module(x)[0].data, after.data, atol=1e-6)  # as it is recorded


def ours_like(module, x):
    """The result of a copy, which has kept nothing."""
    return copy.deepcopy(module)(x)[0].data


def test_a_loaded_model_trains():
    model, x = small_model()
    module = ours(model)
    target = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    optimizer = optim.Adam(module.parameters(), learning_rate=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((module(x)[0] - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_loaded_model_is_copied_and_pickled():
    model, x = small_model()
    module = ours(model)
    expected = module(x)[0].data
    for again in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        np.testing.assert_array_equal(again(x)[0].data, expected)
        with again.weights["bias"].writing() as array:
            array[...] = 7
        assert (again(x)[0].data != expected).all()
    np.testing.assert_array_equal(module(x)[0].data, expected)


def test_inputs_are_given_in_order_or_by_name():
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    nodes = [helper.make_node("Sub", ["a", "b"], ["c"])]
    module = ours(model_of(nodes, {"a": a, "b": b}, ["c"]))
    for (result,) in (module(a, b), module(a, b=b), module(b=b, a=a), module(a.tolist(), b)):
        np.testing.assert_array_equal(result.data, a - b)
    given = np.ones((1, 1))
    for inputs, named, message in [
        ((a,), {}, r"no 'b'; expected a float32 \[\?, \?\]; b float32"),
        ((a, b, a), {}, r"3 inputs, expected a float32"),
        ((a,), {"c": b}, r"'c' is not an input of the graph"),
        ((a, b), {"b": b}, r"'b' was given twice"),
        ((a, None), {}, r"'b' is None"),
        ((a, b.astype(complex)), {}, r"'b' is of complex128, expected b float32"),
        ((a, Tensor(given)), {}, r"'b' is a Tensor of float64, expected b float32 .*astype"),
    ]:
        with pytest.raises(TypeError, match=f"OnnxModel: {message}"):
            module(*inputs, **named)
    with pytest.raises(
        ValueError, match=r"'b' has the shape \(3,\), expected b float32 \[\?, \?\]"
    ):
        module(a, b[0])


def test_inputs_of_integers_take_whatever_holds_their_numbers():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    ids = np.array([1, 3])
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"])]
    module = ours(model_of(nodes, {"ids": ids}, ["rows"], {"table": table}))
    for given in (ids, ids.astype(np.uint8), ids.astype(np.uint64), [1, 3]):
        np.testing.assert_array_equal(module(given)[0].data, table[ids])
    module([0, -1])[0].sum().backward()
    np.testing.assert_array_equal(module.weights["table"].grad.dense()[:, 0], [1, 0, 0, 1])
    with pytest.raises(TypeError, match="'ids' is of float64"):
        module([1.5])
    with pytest.raises(OnnxError, match=r"Gather node 'rows': indices from 4 to 4 of an axis of 4"):
        module([4])


def test_results_are_not_the_memory_of_inputs_or_of_the_model():
    x = np.ones(3, np.float32)
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(3)))
    nodes = [helper.make_node("Identity", ["x"], ["y"]), constant]
    module = ours(model_of(nodes, {"x": x}, ["y", "k"]))
    y, k = module(x)
    x[0], k[0] = 5, 5
    assert y.data.tolist() == [1, 1, 1]
    assert module(x)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("options", [
    {}, {"strides": [2]}, {"dilations": [2]}, {"pads": [2, 1]}, {"group": 2},
    {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER", "strides": [2]}, {"auto_pad": "VALID"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_over_time_compute_what_onnx_runtime_computes(options, bias, rng):
    x = rng.standard_normal((3, 4, 9)).astype(np.float32)
    weight = rng.standard_normal((6, 4 // options.get("group", 1), 4)).astype(np.float32)
    arrays = {"w": weight} | ({"b": rng.standard_normal(6).astype(np.float32)} if bias else {})
    nodes = [helper.make_node("Conv", ["x", *arrays], ["y"], **options)]
    model = model_of(nodes, {"x": x}, ["y"], arrays)
    (expected,) = in_runtime(model, {"x": x})
    module = ours(model)
    np.testing.assert_allclose(module(x)[0], expected, atol=1e-5)  # recorded
    with no_grad():
        np.testing.assert_allclose(module(x)[0], expected, atol=1e-5)


def test_what_other_versions_of_operators_said_by_attributes(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["x"], ["a"], axes=[1]),
        node("Slice", ["a"], ["b"], axes=[2, 3], starts=[1, -3], ends=[3, 9]),
        node("Softmax", ["b"], ["c"], axis=2),  # over all axes from the second on
        node("Squeeze", ["c"], ["d"], axes=[1]),
        node("Pad", ["d"], ["e"], pads=[0, 1, 0, 0, 0, 2], mode="constant", value=0.5),
        node("ReduceSum", ["e"], ["f"], axes=[1], keepdims=0),
        node("Clip", ["f"], ["y"], min=0.4, max=2.0),
    ]
    model = model_of(nodes, {"x": x}, ["y"], opset=9)
    np.testing.assert_allclose(ours(model)(x)[0], in_runtime(model, {"x": x})[0], atol=1e-6)


def test_branches_are_chosen_by_shapes_and_by_values(rng):
    """Both are followed at each call, whatever an earlier call did."""
    node = helper.make_node

    def branch(name, operator):
        value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node(operator, ["x"], [f"{name}_out"])], name, [], [value])

    constant = {"one": np.array([1]), "zero": np.array(0.0, np.float32)}
    branches = {"then_branch": branch("a", "Neg"), "else_branch": branch("b", "Exp")}
    nodes = [
        node("Shape", ["x"], ["shape"]), node("Equal", ["shape", "one"], ["single"]),
        node("If", ["single"], ["by_shape"], **branches),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["by_value"], **branches),
    ]  # fmt: skip
    module = ours(model_of(nodes, {"x": np.ones(1, "f")}, ["by_shape", "by_value"], constant))
    for _ in range(2):
        for x in (np.ones(1, "f"), -np.ones(1, "f"), np.ones(2, "f"), -np.ones(2, "f")):
            by_shape, by_value = module(x)
            np.testing.assert_array_equal(by_shape.data, -x if len(x) == 1 else np.exp(x))
            np.testing.assert_array_equal(by_value.data, -x if x.sum() > 0 else np.exp(x))


def test_single_integers_choose_branches_too():
    node = helper.make_node

    def branch(name, operator):
        value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node(operator, ["x"], [f"{name}_out"])], name, [], [value])

    nodes = [
        node("Equal", ["rate", "wanted"], ["same"]),
        node("If", ["same"], ["y"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Exp")),
    ]
    inputs = {"x": np.ones(2, "f"), "rate": np.array(8000)}
    module = ours(model_of(nodes, inputs, ["y"], {"wanted": np.array(16000)}))
    for rate in (16000, 8000, 16000, 8000):
        expected = -np.ones(2, "f") if rate == 16000 else np.exp(np.ones(2, "f"))
        np.testing.assert_array_equal(module(inputs["x"], rate)[0].data, expected)


def test_batch_normalization_is_folded_and_its_scale_trains(rng):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    arrays = {
        name: rng.uniform(0.5, 2, 4).astype(np.float32) for name in ("scale", "bias", "mean", "var")
    }
    nodes = [helper.make_node("BatchNormalization", ["x", *arrays], ["y"], epsilon=0.01)]
    model = model_of(nodes, {"x": x}, ["y"], arrays)
    module = ours(model)
    (y,) = module(x)
    np.testing.assert_allclose(y, in_runtime(model, {"x": x})[0], atol=1e-5)
    y.sum().backward()
    assert list(module.weights) == ["scale", "bias"]
    shape = (1, 4, 1)
    normal = (x - arrays["mean"].reshape(shape)) / np.sqrt(arrays["var"].reshape(shape) + 0.01)
    np.testing.assert_allclose(module.weights["scale"].grad, normal.sum((0, 2)), rtol=1e-4)


def test_an_operator_that_is_not_known_is_named_with_its_node(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["y"], "mixing")]
    path = tmp_path / "model.onnx"
    onnx.save(model_of(nodes, {"x": np.ones(2, "f")}, ["y"]), path)
    with pytest.raises(
        OnnxError, match=r"model.onnx: Det node 'mixing': the operator is not known"
    ):
        load(path)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"activations": ["Sigmoid", "Tanh"]}, "2 activations, expected 3 for each of 1"),
        ({"activations": ["Sigmoid", "Tanh", "Swish"]}, "activation 'Swish' is not one of"),
        ({"activations": ["Sigmoid", "Affine", "Tanh"]}, "activation Affine needs"),
        ({"direction": "backward"}, "direction 'backward' is not one of forward, reverse"),
        ({"clip": -1.0}, "clip -1; expected a number above 0"),
        ({"clip": "big"}, "attribute 'clip' is 'big', expected float"),
        ({"layout": 2}, "layout 2 is neither 0 nor 1"),
    ],
)  # fmt: skip
def test_wrong_attributes_are_told(attributes, message):
    node, inputs, outputs = random_case(2)
    kept = [a for a in node.attribute if a.name == "hidden_size"]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(*item) for item in attributes.items())])
    with pytest.raises(OnnxError, match=f"LSTM node 'Y': {re.escape(message)}"):
        ours(model_of([node], inputs, outputs))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("W", lambda a: a[:, :-1], r"W has the shape .* expected"),
        ("R", lambda a: a[0], r"R got shape .* expected 3 axes"),
        ("sequence_lens", lambda a: a + 100, r"sequence_lens from \d+ to \d+, but the input has"),
        ("initial_h", lambda a: a.astype(np.float64), r"initial_h is float64, but X float32"),
    ],
)
def test_wrong_inputs_are_told(name, change, message):
    seed = next(s for s in range(500) if name in random_case(s)[1])
    node, inputs, outputs = random_case(seed)
    inputs[name] = change(inputs[name])
    with pytest.raises(OnnxError, match=rf"{node.op_type} node 'Y': {message}"):
        ours(model_of([node], inputs, outputs))(**inputs)
