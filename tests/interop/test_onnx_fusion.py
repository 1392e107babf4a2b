"""Runs of nodes as one graph of the engine: the values of the nodes one by one."""

import numpy as np
import pytest

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from anaphora import engine  # noqa: E402
from anaphora.interop.onnx import OnnxModel, fusion  # noqa: E402
from anaphora.interop.onnx.reading import parse  # noqa: E402
from anaphora.tensor import no_grad  # noqa: E402

pytestmark = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="runs on the native engine"
)
node = helper.make_node


def model_of(nodes, inputs, outputs, arrays=()):
    """An ONNX model; inputs and arrays are NumPy arrays by name, outputs are names."""
    types = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, types[a.dtype.type], [None] * a.ndim)
            for name, a in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in dict(arrays).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ours(model):
    return OnnxModel(parse(model.SerializeToString()))


def in_runtime(model, inputs):
    """What ONNX Runtime computes."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


def fused_operators(model):
    """The operators of the last nodes of the steps of a model's only plan, and all its nodes."""
    (plan,) = model._program._plans.values()
    return [step[3].operator for step in plan.fused], len(plan.of_inputs)


def check(nodes, inputs, outputs, arrays, steps):
    """ONNX Runtime's values, at the first call and later, in so many steps."""
    made = model_of(nodes, inputs, outputs, arrays)
    model, expected = ours(made), in_runtime(made, inputs)
    with no_grad():
        first = [y.data for y in model(*inputs.values())]
        again = [y.data for y in model(*inputs.values())]
    operators, count = fused_operators(model)
    assert len(operators) == steps < count, operators
    for one, two, other in zip(first, again, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=2e-6)
        np.testing.assert_array_equal(one, two)
        assert one.shape == other.shape


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_what_moves_elements_costs_no_step(rng):
    """Pads, cuts, turns, joins and splits, between products and activations."""
    arrays = {
        "pads": np.array([0, 0, 2, 0, 0, 3]), "starts": np.array([-1, 1]),
        "shape": np.array([2, -1]),
        "ends": np.array([-9, 20]), "axes": np.array([1, 2]), "steps": np.array([-1, 2]),
        "indices": np.array([2, 0, 0]), "wide": np.array([3, 2, 1]), "split": np.array([5, 2]),
        "factors": normal(rng, 7, 1), "one": np.array([1]), "weight": normal(rng, 6, 7, 3),
        "bias": normal(rng, 6),
    }  # fmt: skip
    nodes = [
        node("Mul", ["x", "factors"], ["scaled"]),
        node("Pad", ["scaled", "pads"], ["padded"], mode="reflect"),
        node("Slice", ["padded", "starts", "ends", "axes", "steps"], ["cut"]),
        node("Conv", ["cut", "weight", "bias"], ["filtered"], pads=[2, 1], strides=[2]),
        node("Relu", ["filtered"], ["positive"]),
        node("Reshape", ["positive", "shape"], ["flat"]),
        node("Gather", ["flat", "indices"], ["gathered"], axis=1),
        node("Transpose", ["gathered"], ["turned"]),
        node("Unsqueeze", ["turned", "one"], ["raised"]),
        node("Tanh", ["raised"], ["bounded"]),
        node("Expand", ["bounded", "wide"], ["joined"]),
        node("Sub", ["joined", "bounded"], ["differences"]),
        node("Sum", ["differences", "joined", "bounded"], ["y"]),
        node("Split", ["cut", "split"], ["a", "b"], axis=1),
        node("Sigmoid", ["b"], ["z"]),
        node("Concat", ["z", "a", "b"], ["all"], axis=1),
    ]
    check(nodes, {"x": normal(rng, 2, 7, 11)}, ["y", "all"], arrays, 1)


def test_elementwise_operators(rng):
    unary = ["Abs", "Exp", "Neg", "Relu", "Sigmoid", "Sign", "Softplus", "Tanh"]
    nodes = [node(name, ["x"], [name]) for name in unary]
    nodes += [node("Sqrt", ["Abs"], ["root"]), node("Log", ["Exp"], ["log"])]
    nodes += [
        node(name, ["x", "row"], [name]) for name in ("Add", "Div", "Max", "Min", "Mul", "Sub")
    ]
    nodes += [node("Pow", ["x", "two"], ["square"]), node("Sub", ["row", "x"], ["opposite"])]
    names = [one.output[0] for one in nodes]
    arrays = {"two": np.float32(2), "row": 1 + np.abs(normal(rng, 5))}
    check(nodes, {"x": normal(rng, 3, 4, 5)}, names, arrays, 1)
    check(nodes, {"x": normal(rng, 1)}, names, arrays, 1)


@pytest.mark.parametrize("B", [1, 3])
def test_layers_carry_their_states(B, rng):
    T, I, H = 2, 5, 17
    arrays = {"W": normal(rng, 1, 4 * H, I), "R": 0.3 * normal(rng, 1, 4 * H, H)}
    arrays |= {"B": normal(rng, 1, 8 * H), "V": normal(rng, H, 3)}
    nodes = [
        node("Tanh", ["x"], ["z"]),
        node("LSTM", ["z", "W", "R", "B", "", "h"], ["y", "hn", "cn"], hidden_size=H),
        node("LSTM", ["z", "W", "R", "B", "", "hn", "cn"], ["y2", "hn2", "cn2"], hidden_size=H),
        node("MatMul", ["y2", "V"], ["v"]),
    ]
    inputs = {"x": normal(rng, T, B, I), "h": normal(rng, 1, B, H)}
    made = model_of(nodes, inputs, ["hn", "cn", "v", "hn2"], arrays)
    kept = {name: array.copy() for name, array in inputs.items()}
    with no_grad():
        model = ours(made)
        model(*inputs.values())
        found = model(*inputs.values())
    for y, expected in zip(found, in_runtime(made, inputs), strict=True):
        np.testing.assert_allclose(y.data, expected, atol=1e-5)
    for name, array in inputs.items():
        np.testing.assert_array_equal(array, kept[name])
    assert len(fused_operators(model)[0]) == 1


def test_batch_normalization_and_products_follow_the_parameters(rng):
    arrays = {name: np.abs(normal(rng, 4)) + 0.5 for name in ("scale", "bias", "mean", "variance")}
    arrays |= {"weight": normal(rng, 4, 6)}
    nodes = [
        node("BatchNormalization", ["x", *list(arrays)[:4]], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MatMul", ["r", "weight"], ["y"]),
    ]
    inputs = {"x": normal(rng, 3, 4)}
    check(nodes, inputs, ["y"], arrays, 1)
    model = ours(model_of(nodes, inputs, ["y"], arrays))
    with no_grad():
        before = model(inputs["x"])[0].data
        with model.weights["weight"].writing() as weight:
            weight *= 2
        np.testing.assert_allclose(model(inputs["x"])[0].data, 2 * before, rtol=1e-6)


def test_what_the_engine_does_not_compute_stands_between_runs(rng):
    nodes = [
        node("Exp", ["x"], ["a"]), node("Tanh", ["a"], ["b"]), node("Add", ["a", "b"], ["c"]),
        node("Softmax", ["c"], ["d"], axis=-1),
        node("Mul", ["d", "b"], ["e"]), node("Sqrt", ["a"], ["f"]), node("Add", ["e", "f"], ["y"]),
    ]  # fmt: skip
    inputs = {"x": normal(rng, 3, 4)}
    check(nodes, inputs, ["y"], {}, 3)
    model = ours(model_of(nodes, inputs, ["y"]))
    with no_grad():
        model(inputs["x"])
    assert fused_operators(model)[0] == ["Add", "Softmax", "Add"]


@pytest.mark.parametrize(
    ("shape", "dtype"), [((fusion.LARGEST + 1,), np.float32), ((5,), np.float64)]
)
def test_large_values_and_other_dtypes_are_computed_one_by_one(shape, dtype, rng):
    nodes = [node("Exp", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Tanh", ["b"], ["y"])]
    x = rng.standard_normal(shape).astype(dtype)
    model = ours(model_of(nodes, {"x": x}, ["y"]))
    with no_grad():
        found = model(x)[0].data
    assert fused_operators(model) == (["Exp", "Neg", "Tanh"], 3)
    np.testing.assert_allclose(found, np.tanh(-np.exp(x)), rtol=1e-5)


def test_products_of_another_precision_are_computed_one_by_one(rng):
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])]
    inputs, arrays = {"x": normal(rng, 3, 40)}, {"w": normal(rng, 40, 50)}
    model = ours(model_of(nodes, inputs, ["y"], arrays))
    with no_grad():
        exact = model(inputs["x"])[0].data
        with engine.matmul_precision("bfloat16"):
            rounded = model(inputs["x"])[0].data
        np.testing.assert_array_equal(model(inputs["x"])[0].data, exact)
    assert 1e-4 < np.abs(rounded - exact).max() < 0.3


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_constants_of_zeros(zero, rng):
    """A run adds its own zeros, not what the last run has left in the memory."""
    x = {"x": normal(rng, 3, 130)}
    nodes = [
        node("Tanh", ["x"], ["bounded"]),
        node("Add", ["bounded", "constant"], ["moved"]),
        node("Abs", ["moved"], ["positive"]),
        node("Sub", ["constant", "positive"], ["y"]),
    ]
    check(nodes, x, ["y"], {"constant": normal(rng, 3, 130)}, steps=1)
    check(nodes, x, ["y"], {"constant": np.full((3, 130), zero, np.float32)}, steps=1)
