"""Shared by the tests of the engines: inputs of a recurrence, and all its results."""

import numpy as np
import pytest

from anaphora.engine import LayerWeights


class Problem:
    """Random inputs of a cell, and the cotangents of its outputs.

    Shapes: T steps, B rows, I inputs (0: the gates' input halves are given), H hidden units; P is
    the size of the first state if it is projected.
    """

    def __init__(self, cell, rng, dtype=np.float64, T=4, B=3, H=7, P=None, I=5):
        def normal(*shape, scale=0.7):
            return (scale * rng.standard_normal(shape)).astype(dtype)

        Gx, Gh = len(cell.input_gates), len(cell.recurrent_gates)
        sizes = [H if P is None else P, *(H for _ in cell.states[1:])]
        self.trace = cell.trace
        self.x = normal(T, B, I or Gx * H)
        self.weight_ih = normal(Gx * H, I, scale=1 / I**0.5) if I else None
        self.bias_ih = normal(Gx * H) if I else None
        self.initial = [normal(B, size) for size in sizes]
        self.weight_hh = normal(Gh * H, sizes[0], scale=1 / max(1, sizes[0]) ** 0.5) if Gh else None
        self.bias_hh = normal(Gh * H) if Gh else None
        self.weight_hr = None if P is None else normal(P, H, scale=1 / H**0.5)
        self.parameters = [normal(H) for _ in cell.parameters]
        self.d_output = normal(T, B, sizes[0])
        self.d_final = [normal(B, size) for size in sizes]

    def copy(self, change=np.array):
        """The same problem, with a function applied to each array."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                value = change(value)
            elif isinstance(value, list):
                value = [None if array is None else change(array) for array in value]
            setattr(other, name, value)
        return other

    def rows(self, rows, steps=slice(None)):
        """The same problem for some rows and steps, with the same weights."""
        other = self.copy()
        other.x, other.d_output = self.x[steps, rows], self.d_output[steps, rows]
        other.initial = [state[rows] for state in self.initial]
        other.d_final = [d[rows] for d in self.d_final]
        return other

    @property
    def weights(self):
        return LayerWeights(
            self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr,
            self.parameters,
        )  # fmt: skip

    def forward(self, engine, lengths=None, reverse=False, record=False):
        return engine.recurrence_forward(
            self.trace, self.x, self.initial, self.weights, lengths, reverse, record
        )

    def backward(self, engine, steps, lengths=None, reverse=False):
        return engine.recurrence_backward(
            self.trace, steps, self.d_output, self.d_final, self.x, self.weights, lengths, reverse
        )

    def results(self, engine, lengths=None, reverse=False, record=False):
        """Every value and every gradient, by name."""
        steps = self.forward(engine, lengths, reverse, record)
        return self.named_results(steps, self.backward(engine, steps, lengths, reverse))

    @staticmethod
    def named_results(steps, d):
        """What a forward and a backward pass returned, by name."""
        found = {"output": steps.output} | {f"final {k}": s for k, s in enumerate(steps.final)}
        found |= {f"value {name}": values for name, values in steps.named.items()}
        found |= {f"d state {k}": s for k, s in enumerate(d.states)}
        found |= {f"d parameter {k}": p for k, p in enumerate(d.weights.parameters)}
        names = ("weight_ih", "bias_ih", "weight_hh", "bias_hh", "weight_hr")
        weights = {"d x": d.x} | {f"d {name}": getattr(d.weights, name) for name in names}
        return found | {name: array for name, array in weights.items() if array is not None}


@pytest.fixture(scope="session")
def problem():
    """The class of problems: ``problem(cell, rng, dtype, T=, B=, H=, P=)``."""
    return Problem


@pytest.fixture
def native_settings():
    """The native module; its threads and instruction set are restored afterwards."""
    _native = pytest.importorskip("anaphora.engine._native", reason="the engine is not built")
    threads, instructions = _native.get_num_threads(), _native.instruction_set()
    yield _native
    _native.set_num_threads(threads)
    _native.use_instruction_set(instructions)


def _select(native_settings, name):
    try:
        native_settings.use_instruction_set(name)
    except ValueError:
        pytest.skip(f"this machine or build has no {name}")
    return name


@pytest.fixture(params=["amx", "avx512", "avx2", "baseline"])
def instructions(request, native_settings):
    """Select each instruction set in turn; skip the test with those that are missing."""
    _select(native_settings, request.param)


@pytest.fixture(params=["amx", "avx512", "avx2", "baseline", "amx-emulated"])
def instruction_set(request, native_settings):
    """The name of each instruction set in turn, the emulated one too."""
    return _select(native_settings, request.param)


@pytest.fixture
def tile_registers(native_settings):
    """Select tile registers; emulated ones where the machine has none."""
    for name in ("amx", "amx-emulated"):
        try:
            return native_settings.use_instruction_set(name)
        except ValueError:
            continue
    pytest.skip("the emulation of tile registers needs AVX2 on this processor")
