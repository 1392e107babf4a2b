"""`anaphora import`: files of others become model directories that are used in Python."""

import json

import numpy as np
import pytest
import safetensors.numpy
from typer.testing import CliRunner

import anaphora
from anaphora import nn, random
from anaphora.cli.app import app
from anaphora.data import CharacterTokenizer
from anaphora.models import LanguageModel


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout, result.stderr


@pytest.fixture
def model():
    random.seed(3)
    return LanguageModel(11, hidden_size=5, embedding_size=3, cell="gru").eval()


def test_weights_of_a_language_model(model, tmp_path):
    file, out = tmp_path / "model.safetensors", tmp_path / "out"
    safetensors.numpy.save_file(model.state_dict(), file)
    printed, said = run("import", file, out, "--json")
    count = sum(parameter.size for parameter in model.parameters())
    assert json.loads(printed) == {
        "out": str(out), "task": "language_model", "parameter_count": count, "warnings": [],
    }  # fmt: skip
    assert f"a language model of {count:,} parameters, which takes ids or features" in said
    ids = np.array([[1, 2], [10, 0]])
    np.testing.assert_array_equal(anaphora.load(out)(ids)[0].data, model(ids)[0].data)
    assert "recurrent.weight_ih_l0" in run("info", out)[0]
    assert "the model has no vocabulary" in run("generate", out, code=1)[1]
    assert "already holds a model" in run("import", file, out, code=1)[1]
    run("import", file, out, "--overwrite", "--task", "classify")
    assert type(anaphora.load(out)).__name__ == "SequenceClassifier"


def test_what_does_not_fit_leaves_no_directory(tmp_path):
    layers = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2))
    file, out = tmp_path / "model.safetensors", tmp_path / "out"
    safetensors.numpy.save_file(layers.state_dict(), file)
    assert (
        "does not say what its 2 outputs are; give the task" in run("import", file, out, code=2)[1]
    )
    assert "sing" in run("import", file, out, "--task", "sing", code=2)[1]
    assert "its name must end with .keras" in run("import", tmp_path / "a.pb", out, code=1)[1]
    assert "No such file" in run("import", tmp_path / "a.safetensors", out, code=1)[1]
    file.write_bytes(b"\x80\x04")
    assert "is not a readable safetensors file" in run("import", file, out, code=1)[1]
    assert not out.exists()


def test_checkpoints_of_pytorch(model, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch (extra peers)")
    state = {f"module.{name}": torch.tensor(a) for name, a in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "model.pt")
    run("import", tmp_path / "model.pt", tmp_path / "out")
    ids = np.array([[1, 2], [10, 0]])
    np.testing.assert_array_equal(anaphora.load(tmp_path / "out")(ids)[0].data, model(ids)[0].data)


def test_files_of_keras(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py (extra keras)")
    rng = np.random.default_rng(3)
    layers = [
        ("LSTM", {"units": 4, "recurrent_dropout": 0.1}, [(3, 16), (4, 16), (16,)]),
        ("Dense", {"units": 2, "activation": "softmax"}, [(4, 2), (2,)]),
    ]
    config = [{"class_name": k, "config": {"name": k, **o}} for k, o, _ in layers]
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        for name, _, shapes in layers:
            group = file.create_group(f"model_weights/{name}")
            group.attrs["weight_names"] = [f"w{k}" for k in range(len(shapes))]
            for k, shape in enumerate(shapes):
                group.create_dataset(f"w{k}", data=rng.normal(size=shape).astype("f"))
    said = run("import", tmp_path / "model.h5", tmp_path / "out")[0]
    assert "note: layer 'LSTM': recurrent_dropout is omitted" in said
    model = anaphora.load(tmp_path / "out")
    from anaphora.interop import keras

    with pytest.warns(UserWarning, match="recurrent_dropout"):
        theirs = keras.load(tmp_path / "model.h5")
    x = rng.normal(size=(5, 2, 3)).astype("f")
    logits = model(x).data
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(theirs(x.swapaxes(0, 1)).data, expected, rtol=1e-5)


def test_a_foreign_gru_that_resets_before_the_product(tmp_path):
    """It becomes a directory, which is streamed and exported again."""
    onnx = pytest.importorskip("onnx", reason="needs onnx (extra onnx)")
    from anaphora.interop.onnx import load

    rng, make = np.random.default_rng(4), onnx.helper
    shapes = {"W": (1, 15, 3), "R": (1, 15, 5), "B": (1, 30), "V": (5, 2)}
    arrays = {n: rng.normal(size=shape).astype("f") for n, shape in shapes.items()}
    nodes = [
        make.make_node("GRU", ["x", "W", "R", "B"], ["y3"], hidden_size=5),
        make.make_node("Squeeze", ["y3", "one"], ["h"]),
        make.make_node("MatMul", ["h", "V"], ["scores"]),
        make.make_node("Softmax", ["scores"], ["y"], axis=-1),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        nodes, "g", [make.make_tensor_value_info("x", floats, ["T", "B", 3])],
        [make.make_tensor_value_info("y", floats, ["T", "B", 2])],
        [onnx.numpy_helper.from_array(a, n) for n, a in (arrays | {"one": np.array([1])}).items()],
    )  # fmt: skip
    opset = [make.make_opsetid("", 17)]
    onnx.save(make.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "a.onnx")
    run("import", tmp_path / "a.onnx", tmp_path / "out", "--task", "tag")
    model = anaphora.load(tmp_path / "out")
    assert model.cell == "gru_reset_before"
    x = rng.normal(size=(7, 2, 3)).astype("f")
    h, expected = np.zeros((2, 5)), []
    W, R, B = (arrays[n][0] for n in "WRB")
    for step in x:  # gates z r n; the standard's equations
        z, r, n = np.split(step @ W.T + B[:15] + B[15:], 3, axis=-1)
        z, r = (1 / (1 + np.exp(-a - h @ U.T)) for a, U in ((z, R[:5]), (r, R[5:10])))
        h = (1 - z) * np.tanh(n + (r * h) @ R[10:].T) + z * h
        expected.append(h @ arrays["V"])
    np.testing.assert_allclose(model(x)[0].data, expected, rtol=1e-4, atol=1e-5)
    session = model.session()
    found = [session.feed(step) for step in x[:, 0]]
    np.testing.assert_allclose(found, np.array(expected)[:, 0], rtol=1e-4, atol=1e-5)
    run("export", tmp_path / "out", tmp_path / "b.onnx")
    assert "GRU" in [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node]
    start = np.zeros((1, 2, 5), "f")
    scores = np.asarray(load(tmp_path / "b.onnx")(x, np.array([7, 7]), start)[0])
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_onnx_files_that_were_exported(model, tmp_path):
    """With their vocabulary, so that the directory is used like any other."""
    pytest.importorskip("onnx", reason="needs onnx (extra onnx)")
    model.codec = CharacterTokenizer.fit(["abcdefghijk"])
    model.save(tmp_path / "model")
    file, out = tmp_path / "model.onnx", tmp_path / "out"
    run("export", tmp_path / "model", file)
    said = run("import", file, out, "--task", "language-model")[0]
    assert f"wrote {out}: a language model of " in said
    assert "vocabulary" not in said
    again = anaphora.load(out)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    assert again.codec.to_dict() == model.codec.to_dict()
    assert "omit the task 'tag'" in run("import", file, tmp_path / "b", "--task", "tag", code=2)[1]
    assert "No such file" in run("import", tmp_path / "c.onnx", tmp_path / "b", code=1)[1]
    file.write_bytes(b"\x80\x04")
    assert "not an ONNX file" in run("import", file, tmp_path / "b", code=2)[1]
    assert not (tmp_path / "b").exists()
