"""Models that Keras saved, against Keras itself (its PyTorch backend): values, masks, states."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

h5py = pytest.importorskip("h5py", reason="needs h5py (extra keras)")
pytest.importorskip("torch", reason="Keras needs a backend (extra peers)")
keras = pytest.importorskip("keras", reason="needs Keras (extra peers)")

from anaphora import interop, nn  # noqa: E402
from anaphora.artifact import ArtifactError  # noqa: E402
from anaphora.interop import keras as reader  # noqa: E402
from anaphora.interop.layers import OF_TENSORS  # noqa: E402

# Keras itself warns of its own code, with the newest NumPy and PyTorch.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]

L = keras.layers
V, T, B, I, H = 11, 7, 4, 3, 5


def model_of(*layers, ids=False, shape=None, batch=None):
    """A model with random weights, biases too."""
    shape = shape or ((None,) if ids else (None, I))
    model = keras.Sequential([keras.Input(batch_shape=(batch, *shape)), *layers])
    rng = np.random.default_rng(5)
    for variable in model.weights:
        numbers = rng.normal(0, 0.6, variable.shape)
        variable.assign(abs(numbers) if "variance" in variable.name else numbers)
    return model


def ids(*, padding=None):
    found = np.random.default_rng(3).integers(1, V, (B, T))
    if padding == "after":
        for row, length in enumerate((7, 3, 1, 5)):
            found[row, length:] = 0
    elif padding == "before":
        for row, length in enumerate((7, 3, 1, 5)):
            found[row, : T - length] = 0
    elif padding == "anywhere":
        found[np.random.default_rng(8).random((B, T)) < 0.5] = 0
        found[2] = 0
    return found


def features():
    return np.random.default_rng(4).normal(size=(B, T, I)).astype(np.float32)


def compare(model, x, tmp_path, *, suffixes=(".keras", ".h5"), calls=1):
    """Outputs of Keras and of each kind of file are the same."""
    expected = [keras.ops.convert_to_numpy(model(x, training=False)) for _ in range(calls)]
    for suffix in suffixes:
        path = tmp_path / f"model{suffix}"
        save(model, path)
        ours, state = reader.load(path), None
        assert not ours.training
        for wanted in expected:
            y = ours(x, state)
            if ours.stateful:
                y, state = y
            assert np.isfinite(wanted).all()
            assert y.shape == wanted.shape
            np.testing.assert_allclose(y.data, wanted, rtol=1e-5, atol=1e-5)
    return ours


def save(model, path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)


RECURRENT = {
    "SimpleRNN": lambda **o: L.SimpleRNN(H, **o),
    "LSTM": lambda **o: L.LSTM(H, **o),
    "GRU": lambda **o: L.GRU(H, **o),
    "GRU, reset before": lambda **o: L.GRU(H, reset_after=False, **o),
}
VARIANTS = [
    {},
    {"return_sequences": True},
    {"return_sequences": True, "go_backwards": True},
    {"go_backwards": True, "use_bias": False},
    {"activation": "softsign"},
    {"dropout": 0.3, "unroll": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers(kind, options, tmp_path):
    compare(model_of(RECURRENT[kind](**options)), features(), tmp_path)


@pytest.mark.parametrize("of_gates", ["hard_sigmoid", "linear"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU, reset before"])
def test_activations_of_gates(kind, of_gates, tmp_path):
    layer = RECURRENT[kind](recurrent_activation=of_gates, activation="softsign")
    ours = compare(model_of(layer), features() / 4, tmp_path)
    recurrent = next(iter(ours.layers.values())).recurrent
    assert of_gates in recurrent.kind.name


ACTIVATIONS = sorted(set(reader._ACTIVATIONS) | {"hard_sigmoid"})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, tmp_path):
    x = features() * (0.3 if name == "exponential" else 3)
    ours = compare(model_of(L.Dense(H, activation=name), L.Activation(name)), x, tmp_path)
    assert len(ours.layers) == (2 if name == "linear" else 3)
    if name not in OF_TENSORS:
        compare(model_of(L.SimpleRNN(H, activation=name)), x / 20, tmp_path)


BOTH = [
    *((kind, padding, "concat") for kind in RECURRENT for padding in (None, "before", "anywhere")),
    *(("LSTM", padding, merge) for merge in ("sum", "mul", "ave") for padding in (None, "after")),
]


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize(("kind", "padding", "merge"), BOTH)
def test_both_directions_and_masks(kind, padding, merge, sequences, tmp_path):
    layers = [
        L.Embedding(V, I, mask_zero=padding is not None),
        L.Bidirectional(RECURRENT[kind](return_sequences=True), merge_mode=merge),
        L.Bidirectional(RECURRENT[kind](return_sequences=sequences), merge_mode=merge),
        L.Dense(2),
    ]
    model = model_of(*layers, ids=True)
    compare(model, ids(padding=padding), tmp_path, suffixes=(".keras",))


def test_both_directions_apart(tmp_path):
    model = model_of(L.Bidirectional(L.LSTM(H, return_sequences=True), merge_mode=None))
    save(model, tmp_path / "model.keras")
    ours = reader.load(tmp_path / "model.keras")(features())
    for found, expected in zip(ours, model(features()), strict=True):
        np.testing.assert_allclose(found.data, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["after", "before", "anywhere"])
@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("sequences", [True, False])
def test_masks_in_one_direction(sequences, zero, backwards, padding, tmp_path):
    options = {
        "return_sequences": sequences, "zero_output_for_mask": zero, "go_backwards": backwards,
    }  # fmt: skip
    layers = [L.Embedding(V, I, mask_zero=True), L.LSTM(H, **options)]
    model = model_of(*layers, *([L.GRU(3)] if sequences else []), ids=True)
    compare(model, ids(padding=padding), tmp_path, suffixes=(".keras",))


def test_a_masking_layer(tmp_path):
    x = features()
    x[0, 2:] = x[1, :3] = x[3, 4] = -1.5
    x[2, 3, 0] = -1.5  # only one of its features: a real step
    compare(model_of(L.Masking(-1.5), L.GRU(H, return_sequences=True), L.LSTM(2)), x, tmp_path)


def test_masks_reach_pooling(tmp_path):
    layers = [L.Embedding(V, I, mask_zero=True), L.Dropout(0.3), L.GRU(H, return_sequences=True)]
    x = ids(padding="after")
    compare(model_of(*layers, L.GlobalAveragePooling1D(), ids=True), x, tmp_path)
    layers = [L.GRU(H, return_sequences=True), L.GlobalMaxPooling1D()]
    compare(model_of(*layers), features(), tmp_path)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("kind", RECURRENT)
def test_stateful_layers_continue(kind, both, tmp_path):
    layer = RECURRENT[kind](stateful=True, return_sequences=True)
    layers = [L.Bidirectional(layer) if both else layer, L.Dense(2)]
    model = model_of(*layers, shape=(T, I), batch=B)
    ours = compare(model, features(), tmp_path, calls=3, suffixes=(".keras",))
    assert ours.stateful


def test_layers_of_steps(tmp_path):
    layers = [
        L.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu"),
        L.Conv1D(4, 2, strides=2, groups=2, use_bias=False),
        L.SpatialDropout1D(0.2),
        L.TimeDistributed(L.Dense(5, activation="elu")),
        L.LayerNormalization(epsilon=0.01),
        L.LayerNormalization(center=False),
        L.LayerNormalization(scale=False),
        L.BatchNormalization(epsilon=0.01, momentum=0.9),
        L.BatchNormalization(center=False),
        L.BatchNormalization(scale=False),
        L.ReLU(negative_slope=0.3),
        L.LeakyReLU(negative_slope=0.2),
        L.ReLU(max_value=1.5),
        L.ELU(alpha=0.5),
        L.LSTM(4),
        L.RepeatVector(3),
        L.RNN(L.GRUCell(5, reset_after=False), return_sequences=True),
        L.Dense(3, use_bias=False),
        L.Softmax(),
    ]
    model = model_of(*layers)
    ours = compare(model, features(), tmp_path)
    norm = next(m for m in ours.modules() if isinstance(m, nn.BatchNorm1d))
    assert abs(norm.momentum - 0.1) < 1e-9
    same = model_of(L.Conv1D(6, 4, padding="same"), L.Dense(2))
    compare(same, features(), tmp_path)


def test_one_dimensional_models(tmp_path):
    model = model_of(L.Dense(4, activation="tanh"), L.Dense(2), shape=(I,))
    compare(model, features()[:, 0], tmp_path)


@pytest.mark.parametrize("mask", [True, False])
def test_functional_models_whose_layers_follow_one_another(mask, tmp_path):
    x = keras.Input((None,))
    y = L.Embedding(V, I, mask_zero=mask)(x)
    y = L.Bidirectional(L.LSTM(H, return_sequences=True))(y)
    model = keras.Model(x, L.Dense(2, activation="softmax")(L.GRU(H)(y)))
    compare(model, ids(padding="before"), tmp_path)


def test_functional_models_that_branch_are_refused(tmp_path):
    x = keras.Input((None, I))
    y = L.LSTM(H)(x)
    model = keras.Model(x, L.Add()([L.Dense(2)(y), L.Dense(2)(y)]))
    save(model, tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match=r"layer 'dense.*' reads lstm.*, not the layer before"):
        reader.load(tmp_path / "model.keras")


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_precisions(dtype, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = model_of(L.LSTM(H), L.Dense(2))
        save(model, tmp_path / "model.keras")
        ours = reader.load(tmp_path / "model.keras")
        x = features().astype(np.float64 if dtype == "float64" else np.float32)
        expected = model(x).detach().double().numpy()
    finally:
        keras.config.set_dtype_policy(before)
    y = ours(x)
    assert y.dtype == (np.float64 if dtype == "float64" else np.float32)
    tolerance = 1e-5 if dtype == "float64" else 0.05
    np.testing.assert_allclose(y.data, expected, rtol=tolerance, atol=tolerance)
    held = {tuple(w.shape): w.value.detach().numpy() for w in model.weights}
    kernel = ours.layers["dense" if "dense" in ours.layers else [*ours.layers][1]].weight.data
    np.testing.assert_array_equal(kernel.T, held[H, 2])


def test_bfloat16_is_widened(tmp_path, rng):
    """As Keras stores it: two bytes without a type, which an attribute names."""
    kernel = rng.normal(size=(I, 2)).astype("f")
    bits = (kernel.view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "old.h5"
    write_old(path, [("Dense", {"units": 2, "use_bias": False})], [[bits.view("V2")]])
    with pytest.raises(ArtifactError, match=r"of .V2; expected floats"):
        reader.load(path)
    with h5py.File(path, "a") as file:
        file["model_weights/l0/l0/w_0:0"].attrs["dtype"] = "bfloat16"
    found = reader.load(path).layers["l0"].weight.data.T
    np.testing.assert_array_equal(found, (bits.astype(np.uint32) << 16).view(np.float32))
    assert 0 < np.abs(found - kernel).max() < 0.02


def test_layers_that_are_a_language_model(tmp_path):
    layers = [L.Embedding(V, I), L.LSTM(H, return_sequences=True)]
    model = model_of(*layers, L.TimeDistributed(L.Dense(V, activation="softmax")), ids=True)
    save(model, tmp_path / "model.keras")
    ours = interop.read(tmp_path / "model.keras")
    assert ours.kind == "language_model"
    logits = ours(ids().T)[0].data.swapaxes(0, 1)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(shares, model(ids()).detach(), rtol=1e-4, atol=1e-6)


def test_weights_alone_need_the_architecture(tmp_path):
    model = model_of(L.Bidirectional(L.GRU(H)), L.Dense(2, activation="tanh"))
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ArtifactError, match="holds weights alone; give config=, a file with what"):
        reader.load(tmp_path / "model.weights.h5")
    (tmp_path / "model.json").write_text(model.to_json())
    ours = reader.load(tmp_path / "model.weights.h5", tmp_path / "model.json")
    np.testing.assert_allclose(
        ours(features()).data, model(features()).detach(), rtol=1e-5, atol=1e-5
    )


# What old versions wrote, by hand: there is no such Keras that installs beside PyTorch ------------


def write_old(path, layers, weights, version="2.4.0"):
    """A file of Keras 2: layers as (class, options), and the arrays of each."""
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "m",
            "layers": [
                {"class_name": kind, "config": {"name": f"l{k}", **options}}
                for k, (kind, options) in enumerate(layers)
            ],
        },
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        if version:
            file.attrs["keras_version"] = version.encode()
        group = file.create_group("model_weights")
        for k, arrays in enumerate(weights):
            of_layer = group.create_group(f"l{k}")
            names = [f"l{k}/w_{n}:0" for n in range(len(arrays))]
            for name, array in zip(names, arrays, strict=True):
                of_layer.create_dataset(name, data=array)
            if k % 2:  # long lists are cut into parts
                for n, name in enumerate(names):
                    of_layer.attrs[f"weight_names{n}"] = np.array([name.encode()])
            else:
                of_layer.attrs["weight_names"] = np.array([name.encode() for name in names])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_layers_of_cudnn(tmp_path, rng):
    """Matrices of cuDNN are [H, I] a gate, laid out as [I, H], and each gate has two biases."""
    lstm = [rng.normal(size=s).astype("f") for s in ((I, 4 * H), (H, 4 * H), (8 * H,))]
    gru = [rng.normal(size=s).astype("f") for s in ((H, 3 * H), (H, 3 * H), (6 * H,))]
    path = tmp_path / "old.h5"
    layers = [("CuDNNLSTM", {"units": H, "return_sequences": True}), ("CuDNNGRU", {"units": H})]
    write_old(path, layers, [lstm, gru])
    x = features()
    h, c, outputs = np.zeros((B, H)), np.zeros((B, H)), []
    W = [lstm[0][:, k * H : (k + 1) * H].ravel().reshape(H, I) for k in range(4)]
    R = [lstm[1][:, k * H : (k + 1) * H] for k in range(4)]
    b, rb = lstm[2][: 4 * H].reshape(4, H), lstm[2][4 * H :].reshape(4, H)
    for t in range(T):
        i, f, g, o = (x[:, t] @ W[k].T + b[k] + h @ R[k].T + rb[k] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    W = [gru[0][:, k * H : (k + 1) * H].ravel().reshape(H, H) for k in range(3)]
    R = [gru[1][:, k * H : (k + 1) * H] for k in range(3)]
    b, rb = gru[2].reshape(2, 3, H)
    h = np.zeros((B, H))
    for y in outputs:
        z, r, n = (y @ W[k].T + b[k] for k in range(3))
        z, r = (sigmoid(a + h @ R[k].T + rb[k]) for k, a in enumerate((z, r)))
        n = np.tanh(n + r * (h @ R[2].T + rb[2]))
        h = (1 - z) * n + z * h
    np.testing.assert_allclose(reader.load(path)(x).data, h, rtol=1e-5, atol=1e-5)
    write_old(path, [("LSTM", {"units": H, "return_sequences": True}), layers[1]], [lstm, gru])
    np.testing.assert_allclose(reader.load(path)(x).data, h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("version", "slope"), [("2.4.0", 0.2), (None, 0.2), ("3.1.0", 1 / 6)])
def test_hard_sigmoid_was_another_one(version, slope, tmp_path, rng):
    kernel = rng.normal(size=(I, 2)).astype("f")
    options = {"units": 2, "use_bias": False, "activation": "hard_sigmoid"}
    write_old(tmp_path / "old.h5", [("Dense", options)], [[kernel]], version)
    expected = np.clip(slope * (features() @ kernel) + 0.5, 0, 1)
    assert ((expected == 0) | (expected == 1)).any()
    found = reader.load(tmp_path / "old.h5")(features()).data
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_gru_of_keras_2_resets_before_unless_its_biases_are_two(tmp_path, rng):
    kernels = [rng.normal(size=s).astype("f") for s in ((I, 3 * H), (H, 3 * H))]
    names = []
    for bias in ((3 * H,), (2, 3 * H)):
        arrays = [*kernels, rng.normal(size=bias).astype("f")]
        write_old(tmp_path / "old.h5", [("GRU", {"units": H})], [arrays])
        names.append(reader.load(tmp_path / "old.h5").layers["l0"].recurrent.kind.name)
    assert names == ["gru_reset_before", "gru"]


# Training, and what is omitted --------------------------------------------------------------------


@pytest.mark.parametrize("of_gates", ["sigmoid", "hard_sigmoid"])
@pytest.mark.parametrize("padding", [None, "before"])
def test_gradients(of_gates, padding, tmp_path):
    """Against Keras's, through PyTorch: masks, both directions, a reset before the product."""
    model = model_of(
        L.Embedding(V, I, mask_zero=padding is not None),
        L.Bidirectional(
            L.GRU(H, return_sequences=True, reset_after=False, recurrent_activation=of_gates)
        ),
        L.LSTM(H, recurrent_activation=of_gates),
        L.Dense(1),
        ids=True,
    )
    save(model, tmp_path / "model.keras")
    ours = reader.load(tmp_path / "model.keras")
    ours(ids(padding=padding)).sum().backward()
    model(ids(padding=padding)).sum().backward()
    expected = {tuple(w.shape): w.value.grad.numpy() for w in model.trainable_weights}
    forward = next(w for w in model.weights if "forward" in w.path and "recurrent" in w.path)
    z, r, n = np.split(forward.value.grad.numpy(), 3, axis=1)
    found = dict(ours.named_parameters())
    table = (
        next(p.grad for name, p in found.items() if name.endswith("table.weight"))
        if (padding)
        else next(p.grad for name, p in found.items() if "embedding" in name)
    )
    np.testing.assert_allclose(table.dense(), expected[V, I], rtol=1e-4, atol=1e-5)
    own = next(p.grad for name, p in found.items() if name.endswith("recurrent.weight_hh_l0"))
    np.testing.assert_allclose(own, np.concatenate([r, z, n], 1).T, rtol=1e-4, atol=1e-5)


def test_dropout_drops_in_training(tmp_path):
    model = model_of(L.LSTM(H, dropout=0.5, return_sequences=True))
    save(model, tmp_path / "model.keras")
    ours = reader.load(tmp_path / "model.keras")
    assert not np.array_equal(ours.train()(features()).data, ours.eval()(features()).data)


def test_recurrent_dropout_is_omitted_with_a_warning(tmp_path):
    save(model_of(L.LSTM(H, recurrent_dropout=0.5)), tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="recurrent_dropout is omitted; it only matters in train"):
        reader.load(tmp_path / "model.keras")


# What cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([L.Dense(2), L.UnitNormalization()], r"\(UnitNormalization\): a layer of th"),
        ([L.LSTM(H, activation="glu")], "its activation glu is not one of linear, tanh, sigmoid"),
        ([L.LSTM(H, activation="gelu")], "activation 'gelu' is none that the equations of a cell"),
        ([L.LSTM(H, activation="softmax")], "activation 'softmax' is none that the equations"),
        ([L.TimeDistributed(L.BatchNormalization())], "of a BatchNormalization, which cannot be r"),
        ([L.Bidirectional(L.LSTM(H), backward_layer=L.GRU(H, go_backwards=True))], "differ in kin"),
        ([L.Bidirectional(L.LSTM(H), backward_layer=L.LSTM(3, go_backwards=True))], "in units: 5 "),
        ([L.RNN([L.LSTMCell(3), L.LSTMCell(4)])], "its layer is a StackedRNNs?"),
    ],
)
def test_what_cannot_be_read_is_named(layers, message, tmp_path):
    save(model_of(*layers), tmp_path / "model.keras")
    with pytest.raises(ArtifactError, match=rf"model\.keras: layer .*{message}"):
        reader.load(tmp_path / "model.keras")


def test_calls_name_the_layer(tmp_path):
    save(model_of(L.LSTM(H, name="reader")), tmp_path / "model.keras")
    with pytest.raises(
        ValueError, match=r"layer 'reader': an input of shape \(2, 4\); expected \["
    ):
        reader.load(tmp_path / "model.keras")(np.ones((2, 4)))


# Damaged and hostile files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a small model in both kinds of file."""
    folder = tmp_path_factory.mktemp("small")
    model = model_of(L.Embedding(V, I, mask_zero=True), L.Bidirectional(L.LSTM(2)), ids=True)
    found = {}
    for suffix in (".keras", ".h5"):
        save(model, folder / f"model{suffix}")
        found[suffix] = (folder / f"model{suffix}").read_bytes()
    return found


def changed(data, **members):
    """A .keras file with other members; bytes, or None to leave one out."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name in source.namelist():
            value = members.get(name.split(".")[0], source.read(name))
            if value is not None:
                out.writestr(name, value)
    return target.getvalue()


def refused(tmp_path, data, message, suffix=".keras"):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"^{re.escape(str(path))}: .*{message}"):
        reader.load(path)


def test_damaged_archives(small, tmp_path):
    data = small[".keras"]
    refused(tmp_path, b"", "is not an intact HDF5 file")
    refused(tmp_path, data[:3000], "is damaged: File is not a zip file; copy it again")
    refused(tmp_path, changed(data, config=None), "has no config.json, which model.save")
    refused(tmp_path, changed(data, config=b"{"), "config.json is not valid JSON")
    refused(tmp_path, changed(data, config=b"[]"), "config.json is not a JSON object")
    refused(tmp_path, changed(data, config=b"{}"), "its model is a None; a Sequential can be read")
    refused(tmp_path, changed(data, model=b"x"), "is not an intact HDF5 file")
    refused(
        tmp_path, changed(data, config=b'{"class_name": "Sequential", "config": {}}'), "no list"
    )
    bomb = b'{"a": "' + b" " * (1 << 23) + b'"}'
    refused(
        tmp_path, changed(data, config=bomb), r"config.json would be 8,388,6.. bytes from 8,..."
    )
    refused(tmp_path, changed(data, model=bytes(1 << 23)), "model.weights.h5 would be 8,388,608")


def edited(data, change):
    """A .keras file whose first recurrent layer's options are changed."""
    config = json.loads(zipfile.ZipFile(io.BytesIO(data)).read("config.json"))
    change(config["config"]["layers"])
    return changed(data, config=json.dumps(config).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c[1]["config"].update(input_dim=10**12), r"makes weight \[1000000000000, 3\], "),
        (lambda c: c[1]["config"].update(input_dim=True), "its input_dim is True; expected int"),
        (lambda c: c[1]["config"].pop("output_dim"), "its output_dim is None; expected int"),
        (lambda c: c[2]["config"]["layer"]["config"].update(units=10**9), "its kernels are .* fo"),
        (lambda c: c[2]["config"]["layer"].update(class_name="Dense"), "its layer is a Dense; ex"),
        (lambda c: c[2]["config"].update(layer=3), "has no layer"),
        (lambda c: c[2]["config"].update(merge_mode="max"), "its merge_mode is 'max'"),
        (lambda c: c[1].update(class_name="Dense"), r"Dense\): its weights have the shapes"),
        (lambda c: c.append(c[1]), "embedding"),
        (lambda c: c.clear(), "its model has no layers"),
        (lambda c: c.append(3), "its configuration has no list of layers"),
    ],
)  # fmt: skip
def test_configurations_that_lie(change, message, small, tmp_path):
    data = edited(small[".keras"], change)
    refused(tmp_path, data, message)


def test_arrays_that_lie(tmp_path):
    path = tmp_path / "bad.h5"
    dense = ("Dense", {"units": 2, "use_bias": False})

    def write(create):
        write_old(path, [dense], [[]])
        with h5py.File(path, "a") as file:
            group = file["model_weights/l0"]
            create(group)
            group.attrs["weight_names"] = np.array([b"w"])
        return path.read_bytes()

    large = write(lambda g: g.create_dataset("w", (10**6, 10**6), "f4", chunks=(10, 10)))
    refused(
        tmp_path, large, "its arrays, such as 'w' of .1000000, 1000000., would be larger", ".h5"
    )
    text = write(lambda g: g.create_dataset("w", data=[b"text"]))
    refused(tmp_path, text, "'w' is of object; expected floats", ".h5")
    nan = write(lambda g: g.create_dataset("w", data=np.full((3, 2), np.nan, "f4")))
    refused(tmp_path, nan, "its weight has numbers that are not finite", ".h5")
    (tmp_path / "secret.h5").write_bytes(nan)

    def link(group):
        group["w"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/model_weights/l0/w")

    refused(tmp_path, write(link), "'w' is a link to elsewhere, which is not followed", ".h5")

    def outside(group):
        (tmp_path / "raw").write_bytes(bytes(24))
        group.create_dataset("w", (3, 2), "f4", external=[(str(tmp_path / "raw"), 0, 24)])

    refused(tmp_path, write(outside), "'w' lies in another file, which is not read", ".h5")

    def soft(group):
        group["w"] = h5py.SoftLink("/model_weights")

    refused(tmp_path, write(soft), "'w' is a link to elsewhere", ".h5")
    missing = write(lambda g: None)
    refused(tmp_path, missing, "'w' is not an array", ".h5")


def test_names(tmp_path):
    with pytest.raises(ArtifactError, match=r"model\.pb: its name must end with \.keras, \.h5"):
        reader.load("model.pb")
    with pytest.raises(ArtifactError, match="No such file or directory; check the path"):
        reader.load(tmp_path / "none.keras")


FUZZ = """
import io, json, random, resource, sys, warnings, zipfile
from pathlib import Path
warnings.simplefilter("ignore")
import h5py
import numpy as np
from anaphora import interop  # noqa: E402
from anaphora.artifact import ArtifactError
from anaphora.interop import keras
data, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), hard))
rng, read = random.Random(int(sys.argv[3])), 0
x = np.array([[1, 2, 0]])

def mutated(data):
    bad = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        place, kind = rng.randrange(len(bad)), rng.randrange(4)
        if kind == 0:
            bad[place] = rng.randrange(256)
        elif kind == 1:
            bad[place : place + 8] = rng.choice((b"\\xff" * 8, bytes(8), rng.randbytes(8)))
        elif kind == 2:
            bad[place] ^= 1 << rng.randrange(8)
        else:
            del bad[place : place + rng.choice((1, 8, 1000))]
    return bytes(bad)

def edited(text):
    value = json.loads(text)
    nodes, places = [value], []
    while nodes:
        node = nodes.pop()
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                nodes.append(node[key])
    for _ in range(rng.choice((1, 2, 4))):
        node, key = rng.choice(places)
        node[key] = rng.choice(
            (None, -1, 0, 10**12, 1e300, "x", "LSTM", "relu", [], {}, True, [1, 2], {"config": 3})
        )
    return json.dumps(value).encode()

for number in range(int(sys.argv[4])):
    kind = rng.randrange(4)
    if path.suffix == ".h5" or kind == 0:
        bad = mutated(data)
    else:
        source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
        with zipfile.ZipFile(target, "w") as out:
            for name in source.namelist():
                member = source.read(name)
                if name == "config.json" and kind != 1:
                    member = edited(member)
                elif name == "model.weights.h5" and kind != 2:
                    member = mutated(member)
                out.writestr(name, member)
        bad = target.getvalue()
    path.write_bytes(bad)
    try:
        model = keras.load(path)
    except ArtifactError:
        continue
    read += 1
    try:
        model(x)
    except (ValueError, IndexError, TypeError):
        pass
print(read)
"""


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_mutations(suffix, small, tmp_path):
    """Nothing but our own errors, in limited memory, and never the end of the process."""
    (tmp_path / f"source{suffix}").write_bytes(small[suffix])
    count = int(os.environ.get("ANAPHORA_MUTATIONS", "100"))
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, tmp_path / f"source{suffix}", tmp_path / f"bad{suffix}", "1",
         str(count)],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert 0 < int(done.stdout) < count
