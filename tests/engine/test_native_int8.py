"""int8 weights on the native engine: the bits of the definition, and the same bits everywhere."""

import copy
import pickle

import numpy as np
import pytest

from anaphora import engine, nn, ops
from anaphora.cells import CELLS, cell
from anaphora.data import TaggerCodec
from anaphora.engine import kernels, recurrence
from anaphora.engine.precision import (
    MAX_INT8_TERMS,
    dequantized,
    int8_weights,
    matmul_precision,
    quantized,
)
from anaphora.models import (
    EncoderDecoder,
    Forecaster,
    LanguageModel,
    SequenceClassifier,
    SequenceTagger,
)
from anaphora.tensor import no_grad

_native = pytest.importorskip("anaphora.engine._native", reason="the native engine is not built")
native = pytest.importorskip("anaphora.engine.native")

layers_run_native = pytest.mark.skipif(
    engine.info()["engine"] != "native", reason="layers do not run on the native engine"
)
FUSED = ["amx", "avx512", "avx2", "amx-emulated"]  # sets whose equations have the same bits
EDGES = [1, 2, 3, 4, 5, 15, 16, 17, 31, 33, 63, 64, 65, 130]


def normal(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def spread(rng, *shape):
    """Numbers whose rows, and columns, differ widely in size."""
    rows, columns = rng.integers(-8, 9, (shape[0], 1)), rng.integers(-8, 9, (1, shape[1]))
    return (rng.standard_normal(shape) * np.exp2(rows) * np.exp2(columns)).astype(np.float32)


def round_half_even(x):
    below = np.floor(x)
    up = (x - below > 0.5) | ((x - below == 0.5) & (below % 2 == 1))
    return below + up


def defined(x, weight, bias=None):
    """The definition: number by number, with one rounding for each operation."""
    f = np.float32
    y = np.zeros((len(x), len(weight)), f)
    for n, w in enumerate(weight):
        s = f(np.max(np.abs(w), initial=0)) / f(127)
        mantissa, exponent = np.frexp(np.float64(s))
        s = f(np.ldexp(np.ceil(mantissa * 2**16), exponent - 16))
        q = [int(round_half_even(np.float64(f(k) / s))) if s else 0 for k in w]
        for m, row in enumerate(x):
            largest = f(np.max(np.abs(row), initial=0))
            r, by = largest / f(127), f(127) / largest if largest else f(0)
            p = [int(round_half_even(np.float64(f(k) * by))) for k in row]
            y[m, n] = f(sum(a * b for a, b in zip(p, q, strict=True))) * (r * s)
    return y if bias is None else y + bias


# Weights in 8 bits --------------------------------------------------------------------------------


def test_quantized_weights(rng):
    weight = (rng.standard_normal((300, 70)) * np.exp2(rng.integers(-95, 110, (300, 1)))).astype(
        "f"
    )
    integers, scales = quantized(weight)
    assert integers.dtype == np.int8
    assert scales.dtype == np.float32
    assert (np.abs(integers.astype(int)).max(axis=1) == 127).all()
    assert (scales.view(np.uint32) & 0xFF == 0).all()  # 16 significant bits
    exact = integers.astype(np.float64) * scales[:, None].astype(np.float64)
    values = dequantized(integers, scales)
    np.testing.assert_array_equal(values, exact)  # nothing is rounded
    step = scales[:, None].astype(np.float64)
    assert (np.abs(exact - weight) <= 0.5 * step * (1 + 1e-6)).all()
    for again, first in zip(quantized(values), (integers, scales), strict=True):
        np.testing.assert_array_equal(again, first)


def test_quantized_extremes():
    f, tiny = np.float32, np.float32(2.0**-100)
    weight = np.array(
        [[0, -0.0], [tiny, 0], [np.nextafter(tiny, f(0)), 0], [1e-45, -1e-45],
         [np.nan, 1], [np.inf, 1], [2.0**127, 0], [np.nextafter(f(2.0**127), f(0)), 1]], f,
    )  # fmt: skip
    integers, scales = quantized(weight)
    assert integers[:4].tolist() == [[0, 0], [127, 0], [0, 0], [0, 0]]
    assert scales[[0, 2, 3]].tolist() == [0, 0, 0]
    assert np.isnan(scales[4:7]).all()
    assert integers[7].tolist() == [127, 0]
    assert np.isfinite(dequantized(integers, scales)[7]).all()
    assert quantized(np.zeros((0, 3), f))[0].shape == (0, 3)
    assert quantized(np.zeros((2, 0), f))[1].tolist() == [0, 0]


# Products -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_products_have_the_bits_of_the_definition(seed, instruction_set):
    rng = np.random.default_rng(seed)
    M, N, K = (int(rng.choice([1, 3, 7, 18])) for _ in range(3))
    x, weight, bias = spread(rng, M, K), spread(rng, N, K), normal(rng, N)
    expected = defined(x, weight, bias)
    with int8_weights():
        np.testing.assert_array_equal(kernels.matmul(x, weight.T, bias), expected)
        np.testing.assert_array_equal(native.matmul(x, weight.T, bias), expected)


@pytest.mark.parametrize("seed", range(12))
def test_products_of_every_size_and_layout(seed, instruction_set, native_settings):
    rng = np.random.default_rng(seed)
    M, N, K = (int(rng.choice(EDGES)) for _ in range(3))
    x, weight, bias = spread(rng, M, K), spread(rng, N, K), normal(rng, N)
    layouts = [np.ascontiguousarray, np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2]]
    with int8_weights():
        expected = kernels.matmul(x, weight.T, bias)
        for threads in (1, 2, 3):
            native_settings.set_num_threads(threads)
            for of_x in layouts:
                for of_weight in layouts:
                    found = native.matmul(of_x(x), of_weight(weight.T), bias)
                    np.testing.assert_array_equal(found, expected)
        for m in range(min(M, 3)):  # alone
            np.testing.assert_array_equal(
                native.matmul(x[m : m + 1], weight.T, bias)[0], expected[m]
            )


def test_large_products(instruction_set, native_settings, rng):
    native_settings.set_num_threads(2)
    for M, N, K in [(200, 70, 515), (70, 300, 1100), (40, 1030, 64)]:
        x, weight = normal(rng, M, K), normal(rng, N, K)
        with int8_weights():
            found = native.matmul(x, weight.T)
            np.testing.assert_array_equal(found, kernels.matmul(x, weight.T))
        exact = x.astype(np.float64) @ weight.T.astype(np.float64)
        assert 0 < np.abs(found - exact).max() < 0.06 * K**0.5


def test_no_multiplication_and_addition_are_fused(instruction_set, rng):
    """Among so many numbers some become half an integer only when their product is rounded."""
    x, weight = normal(rng, 3000, 1000), normal(rng, 2, 1000)
    by = np.float32(127) / np.abs(x).max(axis=1, keepdims=True)
    halves = (x * by) % 1 == 0.5
    fused = (x.astype(np.float64) * by) % 1 == 0.5
    assert (halves & ~fused).sum() > 5
    with int8_weights():
        np.testing.assert_array_equal(native.matmul(x, weight.T), kernels.matmul(x, weight.T))


def test_errors_are_those_of_rounding_to_8_bits(instruction_set, rng):
    """Against float64, of operands that are quantized independently of the package."""
    x, weight = spread(rng, 33, 257), spread(rng, 40, 257)
    r, s = (np.abs(a).max(axis=1, keepdims=True) / 127.0 for a in (x, weight))
    exact = (np.rint(x / r) * r) @ (np.rint(weight / s) * s).T
    with int8_weights():
        found = native.matmul(x, weight.T)
    size = np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64)
    # A scale that is rounded up may move a weight that is nearly half way between integers.
    assert (np.abs(found - exact) <= 2e-4 * size + 4 * (r * s.T) * 127).all()


def test_the_longest_sums(instruction_set, rng):
    K = MAX_INT8_TERMS
    x, weight = np.ones((2, K + 1), np.float32), np.ones((3, K + 1), np.float32)
    x[1], weight[1] = -1, -1
    with int8_weights():
        np.testing.assert_array_equal(
            native.matmul(x[:, :K], weight[:, :K].T), kernels.matmul(x[:, :K], weight[:, :K].T)
        )
        found = native.matmul(x, weight.T)
    np.testing.assert_array_equal(found, native.matmul(x, weight.T))  # in float32
    np.testing.assert_array_equal(np.sign(found), [[1, -1, 1], [-1, 1, -1]])


def test_extremes_of_products(instruction_set):
    f = np.float32
    largest, tiny = np.nextafter(f(2.0**127), f(0)), f(2.0**-100)
    rows = np.array(
        [[1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [1, np.nan, 0, 0, 0], [np.inf, 1, 0, 0, 0],
         [-np.inf, np.nan, 1, 2, 3], [2.0**127, 0, 0, 0, 0], [largest, 1, 0, 0, 0],
         [tiny, 0, 0, 0, 0], [np.nextafter(tiny, f(0)), 0, 0, 0, 0], [1e-40, 1e-40, 0, 0, 0],
         [1, 1e-40, -1e-40, 0.5 / 127, 1.5 / 127], [-0.0, 0, 0, 0, 0], [1e-25, 1e-25, 0, 0, 0]], f,
    )  # fmt: skip
    with int8_weights():
        found, expected = native.matmul(rows, rows.T), kernels.matmul(rows, rows.T)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found[1]), False)
    for bad in (2, 3, 4, 5):
        assert np.isnan(found[bad]).all()
        assert np.isnan(found[:, bad]).all()
    good = [0, 1, 6, 7, 8, 9, 10, 11, 12]
    assert not np.isnan(found[np.ix_(good, good)][:, [0, 1, 3]]).any()
    assert not found[np.ix_([1, 8, 9, 11], good)].any()  # they count as 0


def test_sizes_of_0(instruction_set):
    for M, N, K in [(0, 3, 4), (3, 0, 4), (3, 4, 0)]:
        x, weight, bias = np.ones((M, K), "f"), np.ones((N, K), "f"), np.arange(N, dtype="f")
        with int8_weights():
            np.testing.assert_array_equal(
                native.matmul(x, weight.T, bias), np.broadcast_to(bias, (M, N))
            )


def test_only_weights_of_float32(instruction_set, rng):
    a, b = normal(rng, 2, 5, 7), normal(rng, 2, 7, 3)
    plain = native.batch_matmul(a, b), native.matmul(a[0], b[0], gradient="input")
    wide = native.matmul(a[0].astype("d"), b[0].astype("d"))
    with int8_weights():
        np.testing.assert_array_equal(native.batch_matmul(a, b), plain[0])
        np.testing.assert_array_equal(native.matmul(a[0], b[0], gradient="input"), plain[1])
        np.testing.assert_array_equal(native.matmul(a[0].astype("d"), b[0].astype("d")), wide)
        assert (native.matmul(a[0], b[0]) != plain[1]).any()


@pytest.mark.parametrize(("N", "V", "K"), [(1, 5, 7), (40, 70, 130), (90, 33, 64), (3, 300, 17)])
def test_losses_are_those_of_the_logits(N, V, K, instruction_set, rng):
    x, weight, bias = spread(rng, N, K) / 99, normal(rng, V, K), normal(rng, V)
    targets = rng.integers(0, V, N)
    with int8_weights():
        logits = native.matmul(x, weight.T, bias)
        found = native.linear_cross_entropy_losses(x, weight, bias, targets)
    np.testing.assert_array_equal(found, native.cross_entropy_forward(logits, targets)[0])


def test_rows_of_a_table(instruction_set, rng):
    table, ids = spread(rng, 20, 13), rng.integers(0, 20, (3, 4))
    expected = dequantized(*quantized(table))[ids]
    with int8_weights():
        np.testing.assert_array_equal(native.gather_rows(table, ids), expected)
        np.testing.assert_array_equal(kernels.gather_rows(table, ids), expected)
    np.testing.assert_array_equal(native.gather_rows(table, ids), table[ids])


# The recurrence -----------------------------------------------------------------------------------


def forward(p, module, **options):
    with int8_weights():
        found = module.recurrence_forward(p.trace, p.x, p.initial, p.weights, save=False, **options)
    return [found.output, *found.final]


def assert_all_equal(found, expected):
    for array, wanted in zip(found, expected, strict=True):
        assert not np.isnan(array).any()
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(("B", "H"), [(1, 40), (7, 65), (2, 200), (13, 130)])
@pytest.mark.parametrize(
    ("name", "P"),
    [("rnn", 29), ("lstm", None), ("lstm", 29), ("gru", None), ("mingru", None),
     ("peephole_lstm", None)],
)  # fmt: skip
def test_recurrences(name, B, H, P, native_settings, problem, rng):
    """Every instruction set, number of threads and batch gives the same bits."""
    p = problem(CELLS[name], rng, np.float32, T=4, B=B, H=H, P=P, I=21)
    lengths = np.arange(B, dtype=np.int64)[::-1] % 5
    expected = None
    for instructions in FUSED:
        try:
            native_settings.use_instruction_set(instructions)
        except ValueError:
            continue
        for threads in (1, 3):
            native_settings.set_num_threads(threads)
            for options in ({}, {"lengths": lengths, "reverse": True}):
                found = forward(p, native, **options)
                if not options:
                    expected = expected or found
                    assert_all_equal(found, expected)
                    alone = p.rows(slice(B - 1, B))
                    for one, all_rows in zip(forward(alone, native), found, strict=True):
                        np.testing.assert_array_equal(
                            one, all_rows[:, -1:] if one.ndim == 3 else all_rows[-1:]
                        )
                else:
                    for b in range(B):
                        short = p.rows(slice(b, b + 1), slice(0, lengths[b]))
                        output = forward(short, native, reverse=True)[0]
                        np.testing.assert_array_equal(found[0][: lengths[b], b], output[:, 0])
    numpy = forward(p, recurrence)
    for array, wanted in zip(numpy, expected, strict=True):
        np.testing.assert_allclose(array, wanted, atol=0.05)


@cell(gates="n m", state="h")
def fading(n, m, h):
    return 0.25 * (n - m.x * h)


@pytest.mark.parametrize(("name", "P"), [("rnn_relu", None), ("rnn_relu", 6), ("fading", None)])
@pytest.mark.parametrize("B", [1, 5])
def test_recurrences_of_plain_equations_have_the_bits_of_numpy(
    B, name, P, instruction_set, problem, rng
):
    p = problem({**CELLS, "fading": fading}[name], rng, np.float32, T=5, B=B, H=37, P=P, I=9)
    for options in ({}, {"lengths": np.arange(B) % 6, "reverse": True}):
        assert_all_equal(forward(p, native, **options), forward(p, recurrence, **options))


@pytest.mark.parametrize("I", [3, 40])
def test_input_in_the_step_or_before(I, instruction_set, problem, rng):
    """Few rows multiply a span's input before its steps, more rows in the step: the same bits."""
    p = problem(CELLS["lstm"], rng, np.float32, T=6, B=9, H=70, I=I)
    together = forward(p, native)[0]
    for b in range(9):
        np.testing.assert_array_equal(
            forward(p.rows(slice(b, b + 1)), native)[0][:, 0], together[:, b]
        )


# Sessions -----------------------------------------------------------------------------------------


@cell(gates="n", state="h", fused=False)
def unfused(n, h):
    return 0.5 * h + ops.tanh(n)


LAYERS = {
    "own cell": lambda: nn.Recurrent(fading, 9, 40, num_layers=2),
    "unfused cell": lambda: nn.Recurrent(unfused, 9, 20, num_layers=2),
    "rnn": lambda: nn.RNN(9, 33, num_layers=2, nonlinearity="relu"),
    "lstm": lambda: nn.LSTM(9, 33, num_layers=2),
    "gru": lambda: nn.GRU(9, 40, num_layers=2, layer_norm=True),
    "projected": lambda: nn.LSTM(9, 33, num_layers=3, proj_size=17),
    "peephole": lambda: nn.Recurrent("peephole_lstm", 9, 70),
    "wide": lambda: nn.LSTM(9, 300),
}


@layers_run_native
@pytest.mark.parametrize("B", [None, 1, 3, 20])
@pytest.mark.parametrize("name", LAYERS)
def test_sessions_are_the_layer(name, B, instruction_set, native_settings, rng):
    layer = LAYERS[name]()
    x = normal(rng, 6, *(() if B is None else (B,)), 9)
    with int8_weights(), no_grad():
        y, _ = layer(x)
    with no_grad():
        assert np.abs(y.data - layer(x)[0].data).max() > 1e-4
    session = layer.session(B, weights="int8")
    steps = session.fork()
    other = pickle.loads(pickle.dumps(session))
    fed = np.concatenate([session.feed(x[:2]), session.feed(x[2:])])
    np.testing.assert_array_equal(fed, y.data)
    native_settings.set_num_threads(3)
    np.testing.assert_array_equal([steps.feed(step) for step in x], y.data)
    np.testing.assert_array_equal(other.feed(x), y.data)
    np.testing.assert_array_equal(session.resized(B).feed(x), y.data)
    steps.load_state_dict(session.state_dict())
    np.testing.assert_array_equal(steps.feed(x), session.feed(x))


@layers_run_native
def test_whole_sequences_agree(instruction_set, native_settings, rng):
    """Batch, padding and both directions."""
    layer = nn.LSTM(9, 33, num_layers=2, bidirectional=True)
    x, lengths = normal(rng, 6, 5, 9), np.array([6, 2, 0, 5, 3])
    with int8_weights(), no_grad():
        y = layer(x, lengths=lengths)[0].data
        native_settings.set_num_threads(3)
        np.testing.assert_array_equal(layer(x, lengths=lengths)[0].data, y)
        for b, length in enumerate(lengths):
            if length:
                np.testing.assert_array_equal(layer(x[:length, b])[0].data, y[:length, b])


@layers_run_native
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("V", [7, 60])  # 7: the products of the embedding are tabulated
def test_language_models(V, tie, instruction_set, rng):
    model = LanguageModel(
        vocabulary_size=V, hidden_size=40, embedding_size=40, num_layers=2, tied=tie
    )
    ids = rng.integers(0, V, (8, 3))
    with int8_weights(), no_grad():
        logits = model.eval()(ids)[0].data
    session = model.session(3, weights="int8")
    np.testing.assert_array_equal(session.fork().feed(ids), logits)
    np.testing.assert_array_equal(model.session(weights="int8").feed(ids[:, 1]), logits[:, 1])
    sampled = session.generate(ids, np.zeros((4, 3)), temperature=0)
    np.testing.assert_array_equal(sampled[0], logits[-1].argmax(axis=1))
    with no_grad():
        assert (model(ids)[0].data != logits).any()


@layers_run_native
def test_models_of_sequences(instruction_set, rng):
    x = normal(rng, 7, 2, 3)
    classifier = SequenceClassifier(num_classes=4, hidden_size=12, input_size=3, pooling="mean")
    with int8_weights(), no_grad():
        logits = classifier.eval()(x[:, :1])
        expected = ops.softmax(logits).data[0]
    session = classifier.session(weights="int8")
    np.testing.assert_allclose(session.feed(x[:, 0])[-1], expected, rtol=1e-5)
    assert np.abs(classifier.session().feed(x[:, 0])[-1] - expected).max() > 1e-5
    tagger = SequenceTagger(num_tags=3, hidden_size=12, vocabulary_size=9, crf=True)
    ids = rng.integers(0, 9, (7, 2))
    with int8_weights(), no_grad():
        scores = tagger.eval()(ids)[0].data
    tagging = tagger.session(2, keep_scores=True, weights="int8")
    np.testing.assert_array_equal(tagging.feed(ids), scores)
    assert copy.copy(tagging).tags().shape == (7, 2)


@layers_run_native
@pytest.mark.parametrize("attention", ["additive", "multiplicative", None])
def test_translation(attention, native_settings, rng):
    """Alone or in a batch with padding, and on every instruction set but the one without FMA."""
    model = EncoderDecoder(20, 30, hidden_size=24, num_layers=2, attention=attention).eval()
    source, inputs = rng.integers(0, 20, (9, 3)), rng.integers(0, 30, (5, 3))
    lengths, found = [9, 4, 6], []
    for instructions in FUSED:
        try:
            native_settings.use_instruction_set(instructions)
        except ValueError:
            continue
        with no_grad():
            plain = model(source, inputs, source_lengths=lengths)[0].data
            with int8_weights():
                logits = model(source, inputs, source_lengths=lengths)[0].data
                for b, length in enumerate(lengths):
                    alone = model(source[:length, b : b + 1], inputs[:, b : b + 1])[0].data
                    np.testing.assert_array_equal(alone, logits[:, b : b + 1])
        assert 0 < np.abs(logits - plain).max() < 0.1
        found.append(logits)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@layers_run_native
def test_forecasts(instruction_set, rng):
    model = Forecaster(hidden_size=24, context=6, lags=(1, 2), distribution="gaussian")
    values = rng.standard_normal((20, 1)).cumsum(axis=0)
    with int8_weights():
        expected = model.predict(values[:, None], 3, paths=5)
    session = model.session(weights="int8")
    session.feed(values)
    np.testing.assert_array_equal(session.forecast(3, paths=5), expected[:, :, 0])
    np.testing.assert_array_equal(session.fork().forecast(3, paths=5), expected[:, :, 0])
    plain = model.session()
    plain.feed(values)
    assert (plain.forecast(3, paths=5) != expected[:, :, 0]).any()
    with pytest.raises(ValueError, match="weights is 'int4'"):
        model.session(weights="int4")


@layers_run_native
def test_words_with_characters(rng):
    """Layers before the session's: an embedding, and recurrent layers over characters."""
    sentences = [(["The", "dog", "barks"], ["D", "N", "V"]), (["Dogs", "bark"], ["N", "V"])]
    codec = TaggerCodec.fit(sentences, minimum_count=1, lowercase=True)
    sizes = {"character_embedding_size": 3, "character_hidden_size": 5}
    model = SequenceTagger(**codec.sizes(), hidden_size=12, embedding_size=7, **sizes)
    model.codec = codec
    words = ["the", "brakes", "bark"]
    with int8_weights(), no_grad():
        expected = model.eval().scores(codec.input_batch([words])).data[:, 0]
    session = model.session(weights="int8")
    np.testing.assert_array_equal([session.feed(word) for word in words], expected)
    assert (model.session().feed(words) != expected).any()


@layers_run_native
def test_the_size_of_sessions(instruction_set):
    """A quarter of float32's, and little beside it: scales, biases, padding."""
    models = [nn.LSTM(256, 256, num_layers=2)]
    for V in (60, 100, 2000):  # tabulated; tabulated in float32 alone; not tabulated
        models.append(LanguageModel(vocabulary_size=V, hidden_size=256))
    for model in models:
        numbers = sum(p.size for p in model.parameters())
        assert 0.9 * numbers < model.session(weights="int8")._packed.bytes < 1.12 * numbers


def test_weights_that_a_session_refuses():
    layer = nn.GRU(3, 4)
    with pytest.raises(ValueError, match="weights is 'int4'; expected 'float32' or 'int8'"):
        layer.session(weights="int4")
    with pytest.raises(ValueError, match="weights='int8' for layers of float64"):
        nn.GRU(3, 4, dtype=np.float64).session(weights="int8")


def test_nothing_is_recorded():
    layer, x = nn.Linear(3, 2), np.ones((1, 3), np.float32)
    with (
        int8_weights(),
        pytest.raises(RuntimeError, match="linear: int8 weights are for inference"),
    ):
        layer(x)
    assert layer(x).requires_grad
    with int8_weights(), matmul_precision("bfloat16"):
        assert layer(x).requires_grad
    with pytest.raises(ValueError, match="precision of matrix products is 'int8'"):
        matmul_precision("int8").__enter__()


# A session without the native engine, in float32 bits of NumPy.
def test_sessions_on_numpy(monkeypatch, rng):
    layer = nn.LSTM(9, 12, num_layers=2)
    monkeypatch.setattr(type(layer), "pack", lambda *_: None)
    x = normal(rng, 6, 9)
    with int8_weights(), no_grad():
        y = layer(x)[0].data
    session = layer.session(weights="int8")
    assert session._packed is None
    np.testing.assert_array_equal([session.feed(step) for step in x], y)
    assert (layer.session().feed(x) != y).any()
