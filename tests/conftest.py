"""What tests of several folders share: random numbers, random cells, and the check of gradients."""

import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from anaphora import engine
from anaphora.cells import cell
from anaphora.tensor import RowGradient, Tensor

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras takes TensorFlow otherwise

# Tests write thousands of small files, and programs; in memory none of them waits for a disk.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir():
    found = os.statvfs(MEMORY)
    if found.f_bavail * found.f_frsize > 2**30 and not found.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

gc.disable()  # until all tests are collected, which only makes objects

# The same examples in each run, so that a change is judged by what it changes. New ones are
# searched for on purpose: pytest --hypothesis-profile random.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None)
settings.load_profile("repeatable")

# The folders and files, from the root of the tests, that take most of the time: trainings, and
# commands in processes of their own.
SLOW = {
    "cli", "distributed", "engine", "interop", "parity", "serve", "training", "test_artifact.py",
    "test_benchmarks.py", "test_documentation.py", "test_estimators.py", "test_examples.py",
    "test_forecasting_estimator.py", "test_imports.py", "test_project.py", "test_searches.py",
    "test_tensor.py",
}  # fmt: skip


def pytest_collection_modifyitems(config, items):
    """Mark all other tests quick, and leave out what a sample leaves out."""
    functions = {}
    for item in items:
        if item.path.relative_to(Path(__file__).parent).parts[0] not in SLOW:
            item.add_marker("quick")
        if item.get_closest_marker("pairs") and os.environ.get("ANAPHORA_ALL_CASES") != "1":
            functions.setdefault((item.path, item.originalname), []).append(item)
    left_out = {item for of_one in functions.values() for item in _beside_pairs(of_one)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


def _beside_pairs(items):
    """The items of a function without which each pair of its parameters' values still occurs."""
    pairs = {}
    for item in items:
        given, values = dict(item.callspec.params), []
        for mark in item.iter_markers("parametrize"):  # its names have their values together
            names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
            values.append((*names, *(id(given.pop(name.strip())) for name in names)))
        values += [(name, id(value)) for name, value in given.items()]  # of fixtures
        pairs[item] = set(itertools.combinations(values, 2))
    missing = set().union(*pairs.values())
    while missing:
        item = max(pairs, key=lambda item: len(pairs[item] & missing))
        missing -= pairs.pop(item)
    return list(pairs)


def pytest_collection_finish():
    """What was collected stays to the end; looking through it for garbage would take seconds."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers(config):
    """One process a core runs the tests; single files and tests run without, to be debugged."""
    single = all("::" in given or given.endswith(".py") for given in config.args)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 0 if single or cores in (None, 1) else min(cores, 8)


def pytest_xdist_setupnodes():
    """Each of these processes, and what it starts, runs on one thread unless a test sets more."""
    for library in ("ANAPHORA", "OMP", "OPENBLAS"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _threads():
    """A test, or a page of the guide, that sets them does not leave that to those that follow.

    Two processes of two threads on two cores took three times as long for the tutorial.
    """
    before = engine.info()["threads"]
    yield
    if engine.info()["threads"] != before:
        engine.set_num_threads(before)


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture(scope="session")
def fresh_interpreter():
    """Runs code in an interpreter that has imported nothing but NumPy; returns what it printed."""
    program = Path(__file__).with_name("fresh_interpreter.py")
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(program)],
        encoding="utf-8", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip

        def run(code):
            process.stdin.write(json.dumps(code) + "\n")
            process.stdin.flush()
            status, out, err = json.loads(process.stdout.readline())
            assert status == 0, err
            return out

        yield run
        process.stdin.close()


def gradient(tensor):
    """The gradient of a leaf as an array; what nothing flowed back to has gradient 0."""
    if tensor.grad is None:
        return np.zeros_like(tensor.data)
    return tensor.grad.dense() if isinstance(tensor.grad, RowGradient) else tensor.grad


def _outputs(operation, inputs):
    value = operation(*inputs)
    return list(value) if isinstance(value, tuple) else [value]


def _gradients(operation, arrays, cotangents, expected):
    """The gradients of sum(cotangent * output), by the tape, of the inputs that are expected."""
    inputs = [
        Tensor(a, requires_grad=k in expected) if a is not None else None
        for k, a in enumerate(arrays)
    ]
    for output, cotangent in zip(_outputs(operation, inputs), cotangents, strict=True):
        assert output.dtype == cotangent.dtype
        if output.requires_grad:
            output.backward(cotangent, retain_graph=True)
    found = [gradient(inputs[k]) for k in expected]
    for k, array in zip(expected, found, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.shape == arrays[k].shape
        assert array.dtype == arrays[k].dtype
    others = [i for k, i in enumerate(inputs) if i is not None and k not in expected]
    assert all(i.grad is None for i in others)
    return found


def _check_gradients(operation, *arrays, epsilon=1e-6, tolerance=1e-6):
    """Hold the pullback of an operation on float64 arrays to central differences.

    Shapes and dtypes first, then the derivative along random directions, then each input alone,
    then float32 against float64. An input may be None; the operation may return a tuple.
    """
    rng = np.random.default_rng(2)
    given = [k for k, a in enumerate(arrays) if a is not None]
    values = [output.data for output in _outputs(operation, arrays)]
    cotangents = [rng.standard_normal(v.shape) for v in values]
    gradients = _gradients(operation, arrays, cotangents, given)

    def loss(moved):
        outputs = _outputs(operation, moved)
        return sum((c * o.data).sum() for c, o in zip(cotangents, outputs, strict=True))

    for _ in range(3):
        directions = [None if a is None else rng.standard_normal(a.shape) for a in arrays]

        def moved(step, directions=directions):
            pairs = zip(arrays, directions, strict=True)
            return [None if a is None else np.asarray(a + step * d) for a, d in pairs]

        numeric = (loss(moved(epsilon)) - loss(moved(-epsilon))) / (2 * epsilon)
        pulled = sum((g * directions[k]).sum() for k, g in zip(given, gradients, strict=True))
        scale = sum(np.abs(g * directions[k]).sum() for k, g in zip(given, gradients, strict=True))
        assert abs(numeric - pulled) <= tolerance * max(1, scale)

    for k, expected in zip(given, gradients, strict=True):
        (alone,) = _gradients(operation, arrays, cotangents, [k])
        np.testing.assert_array_equal(alone, expected)

    single = [None if a is None else a.astype(np.float32) for a in arrays]
    found = _gradients(operation, single, [c.astype(np.float32) for c in cotangents], given)
    for k, array in enumerate(found):
        np.testing.assert_allclose(array, gradients[k], rtol=2e-3, atol=2e-4)


@pytest.fixture
def check_gradients():
    return _check_gradients


# bfloat16 -------------------------------------------------------------------------------------


def _nearest_bfloat16(x):
    """Numbers with 8 significant bits, ties to even, 0 below 2^-126; in the dtype of x."""
    x = np.asarray(x)
    with np.errstate(over="ignore", invalid="ignore"):
        fractions, exponents = np.frexp(x.astype(np.float64))
        found = np.ldexp(np.rint(fractions * 256) / 256, exponents).astype(np.float32)
    return np.where(np.abs(x) < 2.0**-126, np.copysign(np.float32(0), x), found).astype(x.dtype)


@pytest.fixture(scope="session")
def nearest_bfloat16():
    """Rounding to bfloat16, independent of the package's."""
    return _nearest_bfloat16


# Random cells ----------------------------------------------------------------------------------

FORMS = [
    "{a} + {b}",
    "{a} - {b}",
    "{a} * tanh({b})",
    "{a} / (1 + abs({b}))",
    "-{a}",
    "sigmoid({a})",
    "tanh({a})",
    "relu({a})",
    "exp(tanh({a}))",
    "log(1.5 + abs({a}))",
    "softplus({a})",
    "abs({a})",
    "maximum({a}, {b})",
    "minimum({a}, {b})",
]
# Of what is not 0 in a batch, but in its padding: their derivatives at 0 are not finite.
SINGULAR = ["{a} / abs({a})", "exp(-1 / abs({a}))", "tanh(log(abs({a})))"]
HALVES = {"whole": ["{}"], "both": ["{}.x", "{}.h"], "input": ["{}.x"], "recurrent": ["{}.h"]}


@st.composite
def _random_cells(draw, singular=False):
    """A cell from the vocabulary, and whether its output state may be projected."""
    gates = [f"g{k}" for k in range(draw(st.integers(1, 3)))]
    states = [f"s{k}" for k in range(draw(st.integers(1, 3)))]
    parameters = [f"p{k}" for k in range(draw(st.integers(0, 2)))]
    atoms = [
        half.format(gate) for gate in gates for half in HALVES[draw(st.sampled_from([*HALVES]))]
    ]
    expected = [*atoms, *parameters]  # a cell uses all of these
    read = draw(st.lists(st.sampled_from(states), unique=True))
    pool = [*expected, *read, "0.5", "-2"]
    lines = []
    for k in range(draw(st.integers(0, 6))):
        form = draw(st.sampled_from(FORMS))
        value = form.format(a=draw(st.sampled_from(pool)), b=draw(st.sampled_from(pool)))
        lines.append(f"v{k} = {value} + {draw(st.sampled_from(atoms))}")
        pool.append(f"v{k}")
    if singular:
        inputs = [atom for atom in atoms if not atom.endswith(".h")] or ["1.0"]
        value = draw(st.sampled_from(SINGULAR)).format(a=draw(st.sampled_from(inputs)))
        lines.append(f"singular = {value}")
        expected.append("singular")
    for state in states:
        new = draw(st.sampled_from([v for v in pool if v not in ("0.5", "-2", *parameters)]))
        rest = " + ".join(expected) if state == states[0] else draw(st.sampled_from(atoms))
        lines.append(f"new_{state} = tanh({new} + 0.3 * ({rest}))")
    lines.append(f"return {', '.join(f'new_{state}' for state in states)}")
    arguments = ", ".join([*gates, *states, *parameters])
    source = "\n    ".join([f"def drawn({arguments}):", *lines])
    names = {}
    exec("from anaphora.equations import *\n" + source, names)
    declare = cell(gates=" ".join(gates), state=" ".join(states), parameters=" ".join(parameters))
    return declare(names["drawn"]), states[0] not in read


@pytest.fixture(scope="session")
def random_cells():
    """The strategy that draws cells."""
    return _random_cells()


@pytest.fixture(scope="session")
def singular_cells():
    """The strategy that draws cells whose derivatives are not finite where an input is 0."""
    return _random_cells(singular=True)
