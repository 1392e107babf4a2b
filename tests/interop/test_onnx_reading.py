"""ONNX files that are damaged or hostile: a message, bounded memory, never a crash."""

import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from anaphora.interop.onnx import OnnxError, OnnxModel, load, operators  # noqa: E402
from anaphora.interop.onnx.operators import registry  # noqa: E402
from anaphora.interop.onnx.reading import parse  # noqa: E402
from anaphora.tensor import no_grad  # noqa: E402

MUTATIONS = 20_000 if os.environ.get("ANAPHORA_ALL_CASES") == "1" else 400


def info(name, shape=(None, None), kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs=("x",), outputs=("y",), arrays=(), opset=17):
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name) for name in inputs],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        list(arrays),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refused(model, message, *inputs):
    """The model is refused with a message, when it is read or when it is called."""
    with pytest.raises(OnnxError, match=message):
        OnnxModel(parse(model.SerializeToString()))(*inputs)


def relu(source="x", target="y"):
    return helper.make_node("Relu", [source], [target])


X = np.ones((2, 3), np.float32)


@pytest.fixture(autouse=True)
def small_values(monkeypatch):
    """Values have at most 4 MiB, so that tests take little memory."""
    assert registry.LARGEST <= 2**28
    monkeypatch.setattr(registry, "LARGEST", 2**20)


@pytest.mark.parametrize("data", [b"", b"\x08\x07", b"not a model", b"\xff" * 1000])
def test_what_is_no_model(data, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(OnnxError, match=r"model.onnx: not an ONNX file"):
        load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "model.onnx")


def test_every_truncation_is_told(tmp_path):
    array = numpy_helper.from_array(X, "w")
    data = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])], arrays=[array]
    ).SerializeToString()
    told = 0
    for size in range(len(data)):
        try:
            OnnxModel(parse(data[:size]))(X)
        except (OnnxError, TypeError):  # TypeError: it has no inputs yet
            told += 1
    assert told > len(data) // 2  # the last bytes may be missing: they say which operators


def test_a_graph_with_a_cycle():
    nodes = [relu("b", "a"), relu("a", "b"), relu("b", "y")]
    refused(model_of(nodes), r"Relu node 'a': reads 'b', which no node before it computes: the")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (model_of([relu(), relu()]), r"Relu node 'y': computes 'y', which is already there"),
        (model_of([relu()], outputs=["z"]), r"the output 'z' is computed by no node"),
        (model_of([relu()], outputs=[]), r"graph 'graph' has no outputs"),
        (model_of([relu()], inputs=["x", "x"]), r"two inputs of the same name"),
        (
            model_of([helper.make_node("Relu", ["x"], ["y"], domain="com.example")]),
            r"com.example:Relu node 'y': the file does not say which version",
        ),
        (
            model_of([helper.make_node("If", ["x"], ["y"])]),
            r"If node 'y': has no else_branch, or one with inputs",
        ),
        (
            model_of([helper.make_node("Scan", ["x"], ["y"])]),
            r"Scan node 'y': has no body",
        ),
        (
            model_of([helper.make_node("Reshape", ["x", ""], ["y"])]),
            r"Reshape node 'y': of float32\(2, 3\), nothing: ",
        ),
        (
            model_of([helper.make_node("Relu", [], ["y"])]),
            r"Relu node 'y': of nothing: ",
        ),
        (
            model_of([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 5])]),
            r"Transpose node 'y': of float32\(2, 3\): ",
        ),
        (
            model_of([helper.make_node("Softmax", ["x"], ["y"], axis=4)]),
            r"Softmax node 'y': axis 4 of a value of 2 axes",
        ),
    ],
)  # fmt: skip
def test_graphs_that_do_not_fit_together(model, message):
    refused(model, message, X)


def test_a_sequence_as_an_input():
    model = model_of([relu()])
    model.graph.input[0].CopyFrom(
        helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    )
    refused(model, "'x' is a sequence, expected a tensor", X)


def test_functions_are_explained():
    model = model_of([relu()])
    domain = helper.make_opsetid("", 17)
    model.functions.append(helper.make_function("own", "Twice", ["x"], ["y"], [relu()], [domain]))
    refused(model, "it defines the function 'Twice'.*inline_local_functions")


@pytest.mark.parametrize(
    ("dims", "kind", "raw", "message"),
    [
        ([2, 3], TensorProto.FLOAT, bytes(20), r"\[2, 3\] of float32, 24 bytes, but 20 bytes"),
        ([2**40, 2**40], TensorProto.FLOAT, bytes(24), r"array 'w' has the shape .* but 24 bytes"),
        ([2**62, 4], TensorProto.FLOAT, b"", r"array 'w' has the shape .* but 0 bytes of data"),
        ([-1, -6], TensorProto.FLOAT, bytes(24), r"array 'w' has the shape \[-1, -6\]"),
        ([1] * 100, TensorProto.FLOAT, bytes(4), r"array 'w' has the shape \[1, 1"),
        ([6], TensorProto.STRING, bytes(24), r"array 'w' has elements of type string"),
        ([6], 77, bytes(24), r"array 'w' has elements of type number 77"),
    ],
)
def test_sizes_that_lie(dims, kind, raw, message):
    array = TensorProto(name="w", dims=dims, data_type=kind, raw_data=raw)
    refused(model_of([helper.make_node("Add", ["x", "w"], ["y"])], arrays=[array]), message)


def test_numbers_that_are_too_few():
    array = TensorProto(name="w", dims=[10**9], data_type=TensorProto.FLOAT, float_data=[1.0])
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], arrays=[array])
    refused(model, r"array 'w' has the shape \[1000000000\], but 1 numbers")


def test_every_type_of_element_is_read_as_numpy_helper_reads_it(rng):
    for dtype in ("f4", "f8", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"):
        values = (100 * rng.standard_normal((2, 3))).astype(dtype)
        raw = numpy_helper.from_array(values, "w")
        fields = helper.make_tensor("w", raw.data_type, (2, 3), values.ravel())
        for array in (raw, fields):
            model = model_of([helper.make_node("Identity", ["w"], ["y"])], (), arrays=[array])
            (read,) = OnnxModel(parse(model.SerializeToString()))()
            read = np.asarray(read)
            assert read.dtype == values.dtype
            np.testing.assert_array_equal(read, values)


# Values that are much larger than the file


def sizes(*numbers):
    return numpy_helper.from_array(np.array(numbers, np.int64), "sizes")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("ConstantOfShape", ["sizes"], ["y"]), "more than .* elements"),
        (helper.make_node("Expand", ["x", "sizes"], ["y"]), "more than .* elements"),
        (helper.make_node("Tile", ["x", "sizes"], ["y"]), "more than .* elements"),
        (helper.make_node("Pad", ["x", "pads"], ["y"]), "more than .* elements"),
        (helper.make_node("Range", ["zero", "count", "one"], ["y"]), "more than .* elements"),
    ],
    ids=lambda value: getattr(value, "op_type", None),
)
def test_a_billion_elements_are_not_made(node, message):
    arrays = [
        sizes(1000, 1000, 1000) if node.op_type != "Tile" else sizes(30000, 30000),
        numpy_helper.from_array(np.array([0, 0, 0, 10**9]), "pads"),
        *(
            numpy_helper.from_array(np.array(n), name)
            for n, name in ((0, "zero"), (10**9, "count"), (1, "one"))
        ),
    ]
    x = np.ones((1, 1), np.float32)
    refused(model_of([node], arrays=arrays), f"{node.op_type} node 'y': would make.*{message}", x)


def test_values_that_double_with_each_node():
    nodes = [helper.make_node("Concat", [f"v{k}"] * 2, [f"v{k + 1}"], axis=0) for k in range(60)]
    nodes.append(relu("v60"))
    refused(model_of(nodes, inputs=["v0"]), "Concat node 'v1[5-9]': would make a value", X)


def test_values_that_grow_by_broadcasting():
    nodes = [
        helper.make_node("Flatten", ["x"], ["row"], axis=0),
        helper.make_node("Transpose", ["row"], ["column"]),
        helper.make_node("Add", ["row", "column"], ["y"]),
    ]
    wide = np.zeros((1, 10_000), np.float32)
    refused(model_of(nodes), r"Add node 'y': would make a value of shape \[10000, 10000\]", wide)
    nodes[2] = helper.make_node("MatMul", ["column", "row"], ["y"])
    refused(model_of(nodes), r"MatMul node 'y': would make a value of", wide)


# Data in other files


def external(tmp_path, location, **entries):
    """A model whose array lies in a file."""
    array = TensorProto(name="w", dims=[2, 3], data_type=TensorProto.FLOAT)
    array.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        array.external_data.add(key=key, value=str(value))
    folder = tmp_path / "models"
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], arrays=[array])
    path.write_bytes(model.SerializeToString())
    return path


def test_data_in_the_folder_are_read(tmp_path):
    path = external(tmp_path, "data/weights.bin", offset=8, length=24)
    (path.parent / "data").mkdir()
    (path.parent / "data" / "weights.bin").write_bytes(bytes(8) + (7 * X).tobytes() + b"more")
    np.testing.assert_array_equal(load(path)(X)[0].data, 8 * X)


def test_data_outside_of_the_folder_are_not(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(24))
    for location in ("../secret.bin", str(secret), "a/../../secret.bin", "..\\secret.bin", ""):
        with pytest.raises(OnnxError, match="it must be in the folder of the model"):
            load(external(tmp_path, location))
    path = external(tmp_path, "link.bin")
    (path.parent / "link.bin").symlink_to(secret)
    with pytest.raises(OnnxError, match=r"'link.bin', a link out of the folder of the model"):
        load(path)
    path = external(tmp_path, "linked/secret.bin")
    (path.parent / "linked").symlink_to(tmp_path)
    with pytest.raises(OnnxError, match="a link out of the folder of the model"):
        load(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "has 24 bytes, and would lie in bytes 0 to 24 of 'weights.bin', which has 10"),
        ({"length": 10**15}, "would lie in bytes 0 to 1000000000000000"),
        ({"offset": 10**15}, "would lie in bytes 1000000000000000"),
        ({"offset": -8}, "its offset is '-8', expected a number of bytes"),
        ({"length": "9" * 40}, "its length is '9+"),
    ],
)
def test_places_of_data_that_lie(entries, message, tmp_path):
    path = external(tmp_path, "weights.bin", **entries)
    (path.parent / "weights.bin").write_bytes(bytes(10))
    with pytest.raises(OnnxError, match=message):
        load(path)


def test_data_that_are_not_there(tmp_path):
    with pytest.raises(OnnxError, match=r"'weights.bin', which is not there"):
        load(external(tmp_path, "weights.bin"))
    (tmp_path / "models" / "weights.bin").mkdir()
    with pytest.raises(OnnxError, match=r"'weights.bin', which is not there"):
        load(external(tmp_path, "weights.bin"))


# Mutations


def originals():
    """Models that use every part of the format that is read."""
    r = np.random.default_rng(0)

    def array(name, *shape):
        return numpy_helper.from_array(r.standard_normal(shape).astype("f"), name)

    def integers(name, *numbers):
        return numpy_helper.from_array(np.array(numbers), name)

    node = helper.make_node
    body = helper.make_graph(
        [node("MatMul", ["h_in", "U"], ["a"]), node("Add", ["a", "step"], ["b"]),
         node("Tanh", ["b"], ["h_out"]), node("Identity", ["h_out"], ["kept"])],
        "body", [info("h_in"), info("step")], [info("h_out"), info("kept")],
    )  # fmt: skip
    branches = {
        f"{name}_branch": helper.make_graph([node(op, ["s"], [name])], name, [], [info(name)])
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    first = model_of(
        [
            node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([0]), "axes")),
            node("LSTM", ["x", "W", "R", "B"], ["y3", "h"], hidden_size=4, clip=3.0,
                 activations=["HardSigmoid", "Tanh", "Elu"], activation_alpha=[0.3, 1.0]),
            node("Squeeze", ["h", "axes"], ["last"]),
            node("Shape", ["last"], ["sizes"]), node("ConstantOfShape", ["sizes"], ["zeros"]),
            node("Scan", ["zeros", "y3s", ], ["s", "all"], body=body, num_scan_inputs=1),
            node("ReduceSum", ["s"], ["total"], keepdims=0), node("Cast", ["total"], ["any"], to=9),
            node("If", ["any"], ["y"], **branches),
        ],
        arrays=[array("W", 1, 16, 3), array("R", 1, 16, 4), array("B", 1, 32), array("U", 4, 4)],
    )  # fmt: skip
    squeeze = node("Squeeze", ["y3", "one"], ["y3s"])
    first.graph.node.insert(2, squeeze)
    first.graph.initializer.append(integers("one", 1))
    first.graph.input[0].CopyFrom(info("x", ["T", "B", 3]))
    second = model_of(
        [
            node("Pad", ["x", "pads"], ["p"], mode="reflect"),
            node("Unsqueeze", ["p", "one"], ["u"]), node("Conv", ["u", "f"], ["c"], strides=[2]),
            node("Transpose", ["c"], ["t"], perm=[2, 0, 1]),
            node("GRU", ["t", "W", "R"], ["g", "h"], hidden_size=2, direction="bidirectional"),
            node("Transpose", ["g"], ["g2"], perm=[0, 2, 1, 3]),
            node("Reshape", ["g2", "shape"], ["r"]),
            node("Slice", ["r", "zero", "one", "one"], ["v"]),
            node("Concat", ["v", "v"], ["w"], axis=-1), node("Gemm", ["w", "G"], ["z"], alpha=0.5),
            node("Softmax", ["z"], ["q"]), node("Gather", ["q", "zero"], ["y"], axis=1),
        ],
        arrays=[
            array("f", 3, 1, 4), array("W", 2, 6, 3), array("R", 2, 6, 2), array("G", 2, 3),
            integers("pads", 0, 2, 0, 1), integers("one", 1), integers("zero", 0),
            integers("shape", -1, 4),
        ],
    )  # fmt: skip
    return [
        (first.SerializeToString(), r.standard_normal((5, 2, 3)).astype("f")),
        (second.SerializeToString(), r.standard_normal((2, 9)).astype("f")),
    ]


def mutated(data, r):
    """Bytes of which a few were changed, removed, doubled or exchanged."""
    out = bytearray(data)
    for _ in range(int(r.integers(1, 5))):
        at = int(r.integers(len(out)))
        kind = r.integers(5)
        if kind == 0:
            out[at] = int(r.integers(256))
        elif kind == 1:
            out[at] ^= 1 << int(r.integers(8))
        elif kind == 2:
            del out[at : at + int(r.integers(1, 9))]
        elif kind == 3:
            out[at:at] = out[at : at + int(r.integers(1, 30))]
        else:
            out[at:at] = bytes([0xFF] * int(r.integers(1, 9)) + [1])
    return bytes(out)


NUMBERS = [-(2**63), -1, 0, 1, 2, 3, 7, 1000, 2**31, 2**40, 2**63 - 1]


def rewired(data, r):
    """A model that is well-formed, with other operators, inputs, attributes or shapes."""
    model = onnx.ModelProto.FromString(data)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    for _ in range(int(r.integers(1, 4))):
        node = graph.node[int(r.integers(len(graph.node)))]
        array = graph.initializer[int(r.integers(len(graph.initializer)))]
        kind = r.integers(6)
        if kind == 0:
            node.op_type = str(r.choice([*operators.OPERATORS, "If", "Scan"]))
        elif kind == 1 and node.input:
            node.input[int(r.integers(len(node.input)))] = str(r.choice([*names, ""]))
        elif kind == 2 and node.attribute:
            attribute = node.attribute[int(r.integers(len(node.attribute)))]
            attribute.i = int(r.choice(NUMBERS))
            attribute.f = float(r.choice([0, -1, 1e30, np.inf, np.nan]))
            for k in range(len(attribute.ints)):
                attribute.ints[k] = int(r.choice(NUMBERS))
        elif kind == 3 and array.data_type == TensorProto.INT64:
            values = [int(n) for n in r.choice(NUMBERS, len(array.raw_data) // 8)]
            array.raw_data = np.array(values, np.int64).tobytes()
        elif kind == 4:
            array.dims[:] = [int(n) for n in r.permutation(list(array.dims))]
        else:
            array.data_type = int(r.integers(1, 13))
    return model.SerializeToString()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutations_are_told_or_computed():
    """Whatever comes: a message of ours, or a result."""
    cases = originals()
    for data, x in cases:
        assert np.isfinite(np.asarray(OnnxModel(parse(data))(x)[0])).all()
    r = np.random.default_rng(1)
    told = computed = 0
    for number in range(MUTATIONS):
        data, x = cases[number % 2]
        try:
            change = mutated if r.random() < 0.5 else rewired
            module = OnnxModel(parse(change(data, r)))
            with no_grad():
                module(*[x] * len(module.graph_inputs))
                module(*[x] * len(module.graph_inputs))
            computed += 1
        except (ValueError, TypeError):  # TypeError: of inputs that are not declared
            told += 1
    assert told > 0.3 * MUTATIONS
    assert computed > 0.05 * MUTATIONS
