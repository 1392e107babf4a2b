"""Models as C: compiled by each compiler that is there, they compute what a session computes."""

import ctypes
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from anaphora import engine, interop, models, nn
from anaphora.cells import cell
from anaphora.data import CharacterTokenizer, ClassifierCodec, RegressorCodec, TaggerCodec
from anaphora.equations import exp, log, maximum, minimum, relu, sigmoid, sign, softplus, tanh
from anaphora.interop.c.source import source_of
from anaphora.interop.network import network_of

STRICT = """
    -std=c99 -pedantic-errors -Wall -Wextra -Wconversion -Wshadow -Wdouble-promotion
    -Wstrict-prototypes -Wmissing-prototypes -Wundef -Werror
""".split()  # noqa: SIM905
STEPS = 1000
ALL = os.environ.get("ANAPHORA_ALL_CASES") == "1"


@cell(gates="a b n", state="x u", parameters="auto p")
def every_function(a, b, n, x, u, auto, p):
    """Every function of the vocabulary, and names that C or a layer's function has taken."""
    double = softplus(a) * 0.25 - log(1.5 + auto * auto)
    π = sigmoid(b) / (1 + abs(u))
    u = π * u + (1 - π) * tanh(n.x + double * n.h)
    x = minimum(maximum(relu(u) - exp(-(x * x)), -0.5), 0.75) + 0.125 * sign(u - p) * x
    return x, u


def randomized(model, seed):
    """A model with random parameters, biases and norms too."""
    generator = np.random.default_rng(seed)
    for parameter in model.parameters():
        with parameter.writing() as array:
            scale = min(0.3, array.shape[-1] ** -0.5)  # so that errors do not grow with the steps
            array[...] = generator.standard_normal(array.shape) * scale
    return model.eval()


def series_codec(channels):
    generator = np.random.default_rng(5)
    return {
        "mean": generator.standard_normal(channels) * 10,
        "scale": generator.uniform(0.5, 3, channels),
    }


def built(name):
    """The model of a name."""
    model = MODELS[name]()
    if name == "keywords":
        model.codec = ClassifierCodec(("no", "yes", 'what?\\ "ä"'), **series_codec(4))
    if name == "meter":
        moments = {"target_mean": np.array([3.0, -2.0]), "target_scale": np.array([0.5, 4.0])}
        model.codec = RegressorCodec(("a", "b"), **moments, **series_codec(2))
    if name == "writer":
        model.codec = CharacterTokenizer.fit("\nabcdefghijklmnopqrstuvwxyz ?")
    return randomized(model, list(MODELS).index(name))


MODELS = {
    "rnn": lambda: nn.RNN(3, 7, bias=False),
    "lstm": lambda: nn.LSTM(3, 20, num_layers=2),
    "gru": lambda: nn.GRU(2, 13, num_layers=3),
    "wide": lambda: nn.LSTM(5, 70, layer_norm=True),
    "small": lambda: nn.GRU(1, 1),
    "peepholes": lambda: nn.Recurrent("peephole_lstm", 3, 9, num_layers=2, zoneout=0.2),
    "projected": lambda: nn.LSTM(4, 18, num_layers=2, proj_size=5, layer_norm=True),
    "parallel": lambda: nn.Recurrent("mingru", 3, 8),
    "functions": lambda: nn.Recurrent(every_function, 3, 11, num_layers=2),
    "keywords": lambda: models.SequenceClassifier(3, hidden_size=9, input_size=4, pooling="mean"),
    "topics": lambda: models.SequenceClassifier(
        4, hidden_size=6, vocabulary_size=12, multi_label=True, cell="gru"
    ),
    "meter": lambda: models.SequenceRegressor(2, hidden_size=6, input_size=2, pooling="max"),
    "tags": lambda: models.SequenceTagger(5, hidden_size=12, vocabulary_size=20, num_layers=2),
    "writer": lambda: models.LanguageModel(29, hidden_size=24, num_layers=2, layer_norm=True),
    "tied": lambda: models.LanguageModel(150, hidden_size=17, tied=True, cell="coupled_lstm"),
}
WEIGHTS = ("float32", "int8")


def inputs_of(network, steps=STEPS):
    """Random inputs, in the units of the training."""
    generator = np.random.default_rng(8)
    if network.table is not None:
        return generator.integers(0, len(network.table), steps).astype(np.int32)
    x = generator.standard_normal((steps, network.input_size)).astype(np.float32)
    if network.moments is not None:
        x = (x * network.moments[1] + network.moments[0]).astype(np.float32)
    return x


class Exported:
    """The files of all models, their inputs and what sessions answer."""

    def __init__(self, folder):
        self.folder = folder
        self.names, self.networks, self.inputs, self.expected, self.sources = [], {}, {}, {}, {}
        for model_name in MODELS:
            for weights in WEIGHTS:
                model = built(model_name)
                name = f"{model_name}_{weights}"
                model.use_int8(weights == "int8")
                network = network_of(model)
                source = source_of(network, name)
                (folder / f"{name}.c").write_text(source.code, "utf-8")
                (folder / f"{name}.h").write_text(source.header, "utf-8")
                self.names.append(name)
                self.networks[name], self.sources[name] = network, source
                self.inputs[name] = inputs_of(network)
                self.expected[name] = np.asarray(model.session().feed(self.inputs[name]))

    def files(self, names=None):
        return [str(self.folder / f"{name}.c") for name in names or self.names]

    def check(self, name, outputs, *, exact=None):
        """Compare with a session: floats within 1e-6, and with 8 bits the same integers."""
        expected = self.expected[name].astype(np.float32)
        outputs = np.asarray(outputs).reshape(expected.shape)
        if name.endswith("int8") and (fuses() if exact is None else exact):
            assert same_integers(name, outputs, expected)
        else:
            tolerance = 1e-6 if name.endswith("float32") else 0.05
            assert (np.abs(outputs - expected) <= tolerance * np.maximum(1, np.abs(expected))).all()


def same_integers(name, outputs, expected):
    """Whether numbers are the same to the last bits, as they are where no integer differs."""
    if name.startswith(("keywords", "topics")):  # probabilities
        return np.abs(outputs - expected).max() <= 2e-7
    return np.array_equal(outputs, expected)


def fuses():
    """Whether this engine's functions have fused multiply-adds, as those of the C files have."""
    info = engine.info()
    return info["engine"] == "native" and info["instruction_set"] != "baseline"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return Exported(tmp_path_factory.mktemp("c"))


def tool(*names):
    """Skip where a program is missing; other compilers than ``cc`` are for all cases alone."""
    for name in names:
        if name != "cc" and not ALL:
            pytest.skip("ANAPHORA_ALL_CASES=1 compiles with others too")
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    return names[0]


def compile_all(command, what):
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"{what}: {done.stderr[:4000]}"


class Library:
    """A compiled model, called through its functions."""

    def __init__(self, library, name, network):
        self.library, self.name, self.network = library, name, network
        self.state = ctypes.create_string_buffer(1 << 16)
        self.reset()

    def reset(self):
        self.library[f"{self.name}_reset"](self.state)

    def step(self, x):
        y = np.full(self.network.output_size, np.nan, np.float32)
        step = self.library[f"{self.name}_step"]
        if self.network.table is not None:
            self.returned = step(self.state, ctypes.c_int32(int(x)), pointer(y))
        else:
            step(self.state, pointer(x), pointer(y))
        return y

    def feed(self, inputs):
        return [self.step(x) for x in inputs]


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


@pytest.fixture(scope="module", params=[
        "cc -O2", "cc -O3 -march=native", "cc -Os", "clang -O2", "clang -O3 -march=native",
    ],
)  # fmt: skip
def library(request, exported):
    compiler, *options = request.param.split()
    tool(compiler)
    if "-O2" not in options and not ALL:
        pytest.skip("ANAPHORA_ALL_CASES=1 compiles with more options too")
    path = exported.folder / f"{request.param.replace(' ', '')}.so"
    command = [compiler, *options, *STRICT, "-shared", "-fPIC", *exported.files(), "-o", str(path)]
    compile_all(command, request.param)
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", MODELS)
def test_steps_are_those_of_a_session(library, exported, name, weights):
    name = f"{name}_{weights}"
    model = Library(library, name, exported.networks[name])
    first = model.feed(exported.inputs[name])
    exported.check(name, first)
    model.reset()
    assert np.array_equal(model.feed(exported.inputs[name][:5]), first[:5])


def test_where_compilers_fuse_operations_the_integers_are_the_same(exported):
    tool("cc")
    names = ["lstm_int8", "functions_int8", "writer_int8"]
    path = exported.folder / "gnu.so"
    command = ["cc", "-O3", "-march=native", "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC"]
    compile_all([*command, *exported.files(names), "-o", str(path)], "gnu11")
    library = ctypes.CDLL(str(path))
    for name in names:
        exported.check(
            name, Library(library, name, exported.networks[name]).feed(exported.inputs[name])
        )


def test_fast_math_is_refused(exported):
    """It would remove the roundings of exp() and others."""
    tool("cc")
    command = ["cc", "-Ofast", "-c", *exported.files(["gru_float32"]), "-o", "/dev/null"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode != 0
    assert "compile without -ffast-math" in done.stderr


MAIN = """
#include <stdio.h>
#include "{name}.h"
static {name}_state state;
static {type} inputs[{steps} * {inputs}];
static float y[{outputs}];
int main(void)
{{
    size_t steps = fread(inputs, sizeof *inputs, {steps} * {inputs}, stdin) / {inputs};
    {name}_reset(&state);
    for (size_t t = 0; t < steps; t++) {{
        {name}_step(&state, {x}, y);
        fwrite(y, sizeof *y, {outputs}, stdout);
    }}
    return 0;
}}
"""


@pytest.mark.parametrize("name", ["lstm", "functions", "keywords", "writer"])
@pytest.mark.parametrize(
    ("weights", "options"),
    [("float32", ""), ("int8", ""), ("int8", "-march=armv8.2-a+dotprod")],
)
def test_on_aarch64(exported, name, weights, options):
    compiler = tool("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    name = f"{name}_{weights}"
    network = exported.networks[name]
    tokens = network.table is not None
    main = exported.folder / f"main_{name}.c"
    size = 1 if tokens else network.input_size
    main.write_text(
        MAIN.format(
            name=name, type="int32_t" if tokens else "float", steps=STEPS, inputs=size,
            outputs=network.output_size, x="inputs[t]" if tokens else f"inputs + t * {size}",
        )
    )  # fmt: skip
    program = exported.folder / f"arm_{name}"
    command = [compiler, "-O2", *options.split(), *STRICT, "-static", *exported.files([name])]
    command.append(str(main))
    compile_all([*command, "-o", str(program)], "aarch64")
    done = subprocess.run(
        ["qemu-aarch64-static", str(program)], input=exported.inputs[name].tobytes(),
        capture_output=True, check=True,
    )  # fmt: skip
    exported.check(name, np.frombuffer(done.stdout, np.float32))


NODE = """
const fs = require("fs");
const [file, name, tokens, inputs, outputs, state_size] = process.argv.slice(2);
const e = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(file))).exports;
const data = fs.readFileSync(0), size = 4 * inputs;
const state = e.__heap_base.value + 64 & ~63, x = state + Number(state_size) + 64;
const y = x + size + 64, end = y + 4 * outputs;
while (e.memory.buffer.byteLength < end) e.memory.grow(1);
e[name + "_reset"](state);
const out = Buffer.alloc(data.length / size * 4 * outputs);
for (let t = 0; t < data.length / size; t++) {
    const memory = Buffer.from(e.memory.buffer);
    if (tokens === "1") {
        e[name + "_step"](state, data.readInt32LE(4 * t), y);
    } else {
        data.copy(memory, x, t * size, (t + 1) * size);
        e[name + "_step"](state, x, y);
    }
    memory.copy(out, t * 4 * outputs, y, y + 4 * outputs);
}
fs.writeSync(1, out);
"""


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            "",
            ("gru_int8", "functions_float32", "functions_int8", "keywords_float32", "writer_int8"),
        ),
        ("-msimd128", ("writer_float32", "writer_int8", "functions_int8")),
    ],
)
def test_in_wasm(exported, options, names):
    tool("clang", "wasm-ld", "node")
    script = exported.folder / "run.js"
    script.write_text(NODE)
    for name in names:
        network, file = exported.networks[name], exported.folder / f"{name}.wasm"
        command = ["clang", "--target=wasm32", "-O2", "-ffreestanding", "-nostdlib", *STRICT]
        command += ["-mbulk-memory", *options.split(), "-Wl,--no-entry"]
        command += [f"-Wl,--export={name}_{part}" for part in ("reset", "step")]
        command += ["-Wl,--export=__heap_base", *exported.files([name]), "-o", str(file)]
        compile_all(command, "wasm32")
        tokens = network.table is not None
        arguments = [
            "1" if tokens else "0", 1 if tokens else network.input_size, network.output_size,
            exported.sources[name].state_bytes,
        ]  # fmt: skip
        done = subprocess.run(
            ["node", str(script), str(file), name, *map(str, arguments)],
            input=exported.inputs[name].tobytes(), capture_output=True, check=True,
        )  # fmt: skip
        exported.check(name, np.frombuffer(done.stdout, np.float32))


CORTEX_M4 = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]

CORTEX_M4_MODELS = ["functions_float32", "functions_int8", "keywords_int8", "writer_float32"]


@pytest.mark.parametrize(
    "compiler",
    [
        ["arm-none-eabi-gcc", *CORTEX_M4],
        ["clang", "--target=thumbv7em-none-eabihf", "-mcpu=cortex-m4"],
    ],
    ids=["gcc", "clang"],
)
def test_compiles_for_a_cortex_m4(exported, compiler, tmp_path):
    tool(compiler[0])
    for name in CORTEX_M4_MODELS:
        target = tmp_path / f"{name}.o"
        command = [*compiler, "-O2", "-ffreestanding", *STRICT, "-c", *exported.files([name])]
        compile_all([*command, "-o", str(target)], name)


def test_a_library_in_cpp(exported, tmp_path):
    """The header can be included from C++."""
    tool("c++")
    program = tmp_path / "main.cpp"
    program.write_text(
        '#include "lstm_float32.h"\nlstm_float32_state state;\n'
        "int main() { lstm_float32_reset(&state); return 0; }\n"
    )
    command = ["c++", "-Wall", "-Wextra", "-Werror", f"-I{exported.folder}", "-c", str(program)]
    compile_all([*command, "-o", str(tmp_path / "main.o")], "C++")


def test_nothing_is_called_but_the_compilers_own_functions(exported):
    """No library, and no memory is allocated."""
    tool("cc", "nm")
    for name in ("functions_int8", "writer_float32", "keywords_int8"):
        target = exported.folder / f"{name}.o"
        compile_all(["cc", "-O2", "-c", *exported.files([name]), "-o", str(target)], name)
        listed = subprocess.run(
            ["nm", "-u", str(target)], capture_output=True, encoding="utf-8", check=True
        ).stdout.split()
        called = {word for word in listed if word != "U" and not word.startswith("_")}
        assert called <= {"memset", "memcpy"}


def test_the_figures_are_those_of_the_compiler(exported):
    """Sizes of the struct, of the weights and of the stack, as the header has them."""
    tool("cc", "size")
    for name in exported.names[::3]:
        source = exported.sources[name]
        target = exported.folder / f"{name}_size.o"
        check = exported.folder / f"{name}_size.c"
        check.write_text(
            f'#include "{name}.c"\n'
            f"char same[sizeof({name}_state) == {source.state_bytes} ? 1 : -1];\n"
        )
        command = ["cc", "-O2", "-fstack-usage", "-c", str(check), "-o", str(target)]
        compile_all(command, name)
        frames = {}
        for line in target.with_suffix(".su").read_text().splitlines():
            place, frame, *_ = line.split("\t")
            frames[place.rpartition(":")[2]] = int(frame)
        layers = [frame for function, frame in frames.items() if "_layer_" in function]
        assert frames[f"{name}_step"] + max(layers, default=0) <= source.stack_bytes
        assert str(source.weight_bytes) in (exported.folder / f"{name}.h").read_text()
        printed = subprocess.run(
            ["size", str(target)], capture_output=True, encoding="utf-8", check=True
        ).stdout
        text, data, *_ = map(int, printed.splitlines()[1].split()[:3])
        assert source.weight_bytes <= text + data <= source.weight_bytes + 30_000


def test_two_layers_of_128_in_8_bits_take_less_than_300_kilobytes(tmp_path):
    tool("arm-none-eabi-gcc", "arm-none-eabi-size")
    model = models.SequenceClassifier(12, hidden_size=128, num_layers=2, input_size=40)
    source = source_of(network_of(randomized(model, 3).use_int8()), "spotter")
    (tmp_path / "spotter.c").write_text(source.code)
    (tmp_path / "spotter.h").write_text(source.header)
    target = str(tmp_path / "spotter.o")
    command = ["arm-none-eabi-gcc", *CORTEX_M4, "-O2", "-ffreestanding", "-c"]
    command.append(str(tmp_path / "spotter.c"))
    compile_all([*command, "-o", target], "Cortex-M4")
    printed = subprocess.run(
        ["arm-none-eabi-size", target], capture_output=True, encoding="utf-8", check=True
    ).stdout
    assert int(printed.splitlines()[1].split()[3]) < 300_000
    assert source.state_bytes == 2 * 2 * 128 * 4
    assert source.stack_bytes < 6000


# Tokens


@pytest.fixture
def writer(exported):
    tool("cc")
    path = exported.folder / "writer.so"
    if not path.exists():
        names = ["writer_float32", "writer_int8"]
        compile_all(["cc", "-O2", "-shared", "-fPIC", *exported.files(names), "-o", str(path)], "")
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (1.0, 12, 0.9), (0.0, 0, 1.0), (2.0, 99, 1.0)],
)
def test_sampled_tokens_are_those_of_a_session(
    writer, exported, weights, temperature, top_k, top_p
):
    name = f"writer_{weights}"
    model = built("writer").use_int8(weights == "int8")
    uniforms = np.random.default_rng(4).random(300)
    expected = model.session().generate([3, 1, 4], uniforms, temperature, top_k, top_p)
    compiled = Library(writer, name, exported.networks[name])
    sample = writer[f"{name}_sample"]
    sample.argtypes = [
        ctypes.c_void_p, ctypes.c_double, ctypes.c_int32, ctypes.c_double, ctypes.c_double,
    ]  # fmt: skip
    scores = compiled.feed([3, 1, 4])[-1]
    found = []
    for uniform in uniforms:
        found.append(sample(scores.ctypes.data, temperature, top_k, top_p, uniform))
        scores = compiled.step(found[-1])
    assert found == expected.tolist()


def test_samples_exclude_tokens_and_refuse_nan(writer):
    sample = writer["writer_float32_sample"]
    sample.argtypes = [
        ctypes.c_void_p, ctypes.c_double, ctypes.c_int32, ctypes.c_double, ctypes.c_double,
    ]  # fmt: skip
    scores = np.full(29, -np.inf, np.float32)
    scores[7] = -3.0
    for uniform in (0.0, 0.5, 0.999999):
        assert sample(scores.ctypes.data, 1.0, 0, 1.0, uniform) == 7
        assert sample(scores.ctypes.data, 1.0, 3, 0.5, uniform) == 7
    for bad in (np.nan, np.inf):
        scores[3] = bad
        assert sample(scores.ctypes.data, 1.0, 0, 1.0, 0.5) == -1
    assert sample(np.full(29, -np.inf, np.float32).ctypes.data, 1.0, 0, 1.0, 0.5) == -1


def test_softmax_and_unknown_tokens(writer, exported):
    compiled = Library(writer, "writer_float32", exported.networks["writer_float32"])
    scores = compiled.step(5)
    assert compiled.returned == 0
    shares = np.empty(29, np.float32)
    writer["writer_float32_softmax"](pointer(scores), pointer(shares))
    exact = np.exp(scores.astype(np.float64) - scores.max())
    assert np.abs(shares - exact / exact.sum()).max() < 1e-6
    before = compiled.state.raw
    for unknown in (-1, 29, 2**31 - 1):
        assert np.isnan(compiled.step(unknown)).all()
        assert compiled.returned == -1
        assert compiled.state.raw == before


def test_labels_are_utf_8(exported, tmp_path):
    tool("cc")
    path = tmp_path / "labels.so"
    names = ["keywords_float32", "writer_float32"]
    compile_all(
        ["cc", *STRICT, "-shared", "-fPIC", *exported.files(names), "-o", str(path)], "labels"
    )
    library = ctypes.CDLL(str(path))
    labels = (ctypes.c_char_p * 3).in_dll(library, "keywords_float32_labels")
    assert [label.decode() for label in labels] == list(built("keywords").codec.classes)
    tokens = (ctypes.c_char_p * 29).in_dll(library, "writer_float32_labels")
    assert [token.decode() for token in tokens] == built("writer").codec.tokens_by_id()


def test_the_equations_have_the_names_of_the_author(exported):
    code = (exported.folder / "functions_float32.c").read_text()
    for line in (
        "const float double_ = ",
        "const float u03c0 = ",
        "functions_float32_softplus(a)",
        "const float auto_ = auto_l0[u];",
        "state->x_l0[u] = ",
    ):
        assert line in code
    code = (exported.folder / "lstm_int8.c").read_text()
    assert "const float c_1 = t1 + t2;" in code


# The whole way, and what is refused


def test_export_writes_runs_and_reports(tmp_path):
    model = built("lstm")
    written = interop.export(model, tmp_path / "lamp.c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lamp.c", "lamp.h"]
    record = written.record
    source = source_of(network_of(model), "lamp")
    assert (tmp_path / "lamp.c").read_text() == source.code
    assert record["weight_bytes"] == source.weight_bytes
    assert record["weights"] == "float32"
    if shutil.which("cc"):
        assert record["difference"] < 1e-6
        assert record["step_ns"] >= 1
        assert "ns here" in written.lines[-1]
    json.dumps(record)


def test_without_a_compiler_it_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    written = interop.export(built("small").use_int8(), tmp_path / "lamp.c")
    assert "difference" not in written.record
    assert written.record["weights"] == "int8"
    assert "not compiled" in written.lines[-1]


def test_a_large_model_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr("anaphora.interop.c._MAX_RUN_WEIGHTS", 10)
    assert "difference" not in interop.export(built("lstm"), tmp_path / "lamp.c").record


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_tagger_of_words_reads_their_ids(weights, tmp_path):
    sentences = [(["it", "is", "late"], ["O", "O", "T"]), (["he", "is"], ["P", "O"])]
    codec = TaggerCodec.fit(sentences)
    sizes = {**codec.sizes(), "num_characters": None}
    model = models.SequenceTagger(hidden_size=4, bidirectional=False, **sizes)
    model.codec = codec
    written = interop.export(randomized(model, 1).use_int8(weights == "int8"), tmp_path / "tags.c")
    assert '"T",' in (tmp_path / "tags.c").read_text()
    if shutil.which("cc"):
        assert written.record["difference"] < (1e-6 if weights == "float32" else 0.05)


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    tool("cc")
    original = source_of

    def wrong(network, name):
        source = original(network, name)
        assert "t1 + t2" in source.code
        return source._replace(code=source.code.replace("t1 + t2", "t1 - t2"))

    monkeypatch.setattr("anaphora.interop.c.source_of", wrong)
    with pytest.raises(ValueError, match=r"lamp\.c differs from the session by .*; expected"):
        interop.export(built("lstm"), tmp_path / "lamp.c")
    assert not list(tmp_path.iterdir())


def test_a_header_is_not_left_alone(tmp_path):
    (tmp_path / "lamp.c").mkdir()
    with pytest.raises(Exception, match=r"lamp\.c"):
        interop.export(built("small"), tmp_path / "lamp.c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lamp.c"]


@cell(gates="a", state="h", fused=False)
def untraced(a, h):
    """A cell without a program."""
    return tanh(a)


class Doubled(models.LanguageModel):
    """A model that computes something of its own."""

    def forward(self, ids, state=None, lengths=None):
        """Twice the scores."""
        y, state = super().forward(ids, state, lengths)
        return 2 * y, state


REFUSED = {
    "both directions": (lambda: nn.LSTM(3, 4, bidirectional=True), "LSTM is bidirectional"),
    "a bidirectional model": (
        lambda: models.SequenceTagger(3, hidden_size=4, input_size=2, bidirectional=True),
        r"train it with bidirectional=False \(--no-bidirectional\)",
    ),
    "no program": (lambda: nn.Recurrent(untraced, 3, 4), "'untraced', whose equations were not"),
    "float64": (lambda: nn.GRU(3, 4, dtype="float64"), "GRU is of float64; expected float32"),
    "a decoder": (
        lambda: models.VectorToSequence(3, 9, hidden_size=4),
        "VectorToSequence cannot be exported so: expected recurrent layers, or",
    ),
    "an encoder and a decoder": (
        lambda: models.EncoderDecoder(7, 9, hidden_size=4), "EncoderDecoder cannot be exported"
    ),
    "a forecaster": (
        lambda: models.Forecaster(hidden_size=4, context=6), "Forecaster cannot be exported"
    ),
    "characters": (
        lambda: models.SequenceTagger(3, hidden_size=4, vocabulary_size=9, num_characters=5),
        "SequenceTagger also reads the characters of each word",
    ),
    "a crf": (
        lambda: models.SequenceTagger(3, hidden_size=4, vocabulary_size=9, crf=True),
        "SequenceTagger has a CRF",
    ),
    "another forward": (
        lambda: Doubled(9, hidden_size=4), "Doubled computes something other than LanguageModel"
    ),
    "a layer": (lambda: nn.Linear(3, 4), "Linear cannot be exported so"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_exported_is_refused_before_a_file_is_written(what, tmp_path):
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        interop.export(make(), tmp_path / "model.c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["2x.c", "my-model.c", "int.c", "über.c"])
def test_names_are_identifiers(name, tmp_path):
    with pytest.raises(ValueError, match="begins all names of the C file"):
        interop.export(built("small"), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(bad, tmp_path):
    layer = nn.GRU(3, 4)
    with layer.weight_hh_l0.writing() as array:
        array[5, 2] = bad
    with pytest.raises(ValueError, match="weight_hh_l0 has NaN or an infinite number"):
        interop.export(layer, tmp_path / "model.c")


def test_large_numbers_in_8_bits_are_refused(tmp_path):
    layer = nn.GRU(3, 4).eval()
    with layer.weight_hh_l0.writing() as array:
        array[5, 2] = 2.0**127
    with pytest.raises(ValueError, match=r"\[12, 4\] cannot be exported in 8 bits"):
        interop.export(layer.use_int8(), tmp_path / "model.c")
