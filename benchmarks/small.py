"""Small layers in plain C, compiled for their sizes: what a session in blocks is compared with."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anaphora import nn
from anaphora.interop.c.source import source_of
from anaphora.interop.network import network_of

_SOURCE = Path(__file__).with_name("small.c")
_OPTIONS = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]


def compiled(
    cell: str, H: int, weights: dict[str, np.ndarray]
) -> Callable[[np.ndarray], np.ndarray] | None:
    """A layer [T, 1] -> [T, H] that keeps its state; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        library = str(Path(directory) / "small.so")
        command = [compiler, *_OPTIONS, f"-DH={H}", str(_SOURCE), "-o", library, "-lm"]
        subprocess.run(command, check=True)
        function = getattr(ctypes.CDLL(library), cell)
    layer = np.zeros((H + 3) * 4 * H + 2 * H, np.float32)
    rows = layer[: (H + 3) * 4 * H].reshape(H + 3, 4 * H)
    gates = len(weights["bias_ih_l0"])
    rows[0, :gates] = weights["weight_ih_l0"][:, 0]
    rows[1 : H + 1].reshape(-1)[: H * 4 * H] = _padded(weights["weight_hh_l0"].T, 4 * H)
    rows[H + 1, :gates], rows[H + 2, :gates] = weights["bias_ih_l0"], weights["bias_hh_l0"]

    def run(x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), H), np.float32)
        function(*(ctypes.c_void_p(a.ctypes.data) for a in (layer, x, y)), ctypes.c_int(len(x)))
        return y

    return run


_LOOP = """
#include "layer.h"
static layer_state state;
void run(const float *x, float *y, int steps)
{
    for (int t = 0; t < steps; t++)
        layer_step(&state, x + t, y + t * LAYER_OUTPUT_SIZE);
}
"""


def exported(layer: nn.Recurrent) -> Callable[[np.ndarray], np.ndarray] | None:
    """What `anaphora export` writes of a layer of one input; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = source_of(network_of(layer), "layer")
    with tempfile.TemporaryDirectory() as directory:
        files = {"layer.c": source.code, "layer.h": source.header, "loop.c": _LOOP}
        for name, text in files.items():
            Path(directory, name).write_text(text)
        library = str(Path(directory) / "layer.so")
        code = [str(Path(directory, name)) for name in ("layer.c", "loop.c")]
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", *code, "-o", library]
        subprocess.run(command, check=True)
        function = ctypes.CDLL(library).run

    def run(x: np.ndarray) -> np.ndarray:
        y = np.empty((len(x), layer.output_size), np.float32)
        function(*(ctypes.c_void_p(a.ctypes.data) for a in (x, y)), ctypes.c_int(len(x)))
        return y

    return run


def _padded(rows: np.ndarray, columns: int) -> np.ndarray:
    return np.pad(rows, ((0, 0), (0, columns - rows.shape[1]))).ravel()
