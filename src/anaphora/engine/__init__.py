"""The engine: what is numerically heavy, as functions of plain arrays.

Operations and optimisers call these functions and nothing below them. All are written with NumPy
(`kernels`, `recurrence`, `updates`); where the native module was built, its functions take the
place of the slow ones. The environment variable ``ANAPHORA_ENGINE=numpy`` keeps them out.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from anaphora import settings
from anaphora.engine.kernels import (
    cross_entropy_backward,
    cross_entropy_forward,
    dropout,
    gather_rows,
    layer_norm_backward,
    layer_norm_forward,
    linear_cross_entropy_losses,
    log_softmax,
    matmul,
    sample,
    sum_columns,
    sum_rows,
)
from anaphora.engine.recurrence import (
    LayerWeights,
    PackedLayers,
    RecurrenceGradients,
    RecurrenceSteps,
    pack_layers,
    recurrence_backward,
    recurrence_forward,
)
from anaphora.engine.updates import (
    adagrad_update,
    adam_update,
    average_update,
    global_norm,
    rmsprop_update,
    scale,
    sgd_update,
)

__all__ = [
    "LayerWeights",
    "PackedLayers",
    "RecurrenceGradients",
    "RecurrenceSteps",
    "adagrad_update",
    "adam_update",
    "average_update",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout",
    "gather_rows",
    "global_norm",
    "info",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_cross_entropy_losses",
    "log_softmax",
    "matmul",
    "pack_layers",
    "recurrence_backward",
    "recurrence_forward",
    "rmsprop_update",
    "sample",
    "scale",
    "set_num_threads",
    "sgd_update",
    "sum_columns",
    "sum_rows",
]


def _without_native_engine(error: ImportError) -> str:
    """Why there is no native engine, and how to get it."""
    folder = Path(__file__).parent
    choose = "or set ANAPHORA_ENGINE=numpy to be without it"
    if error.name != "anaphora.engine._native" or not isinstance(error, ModuleNotFoundError):
        why = f"its native engine cannot be loaded ({error})"
        return f"anaphora runs on NumPy, slower: {why}; install it again, {choose}"
    compiler = {
        "darwin": "xcode-select --install",
        "win32": "winget install Microsoft.VisualStudio.BuildTools, with C++",
    }.get(sys.platform, "apt install g++, or dnf install gcc-c++")
    if (folder / "src").is_dir():  # sources are in a checkout alone
        why, command = f"its native engine is not built ({error})", "pip install ."
        return (
            f"anaphora runs on NumPy, slower: {why}; build it with '{command}', which needs a "
            f"C++20 compiler ({compiler}), {choose}"
        )
    return (
        "anaphora runs on NumPy, slower: its native engine could not be compiled when it was "
        f"installed, as no C++20 compiler was found; get one ({compiler}) and install again with "
        f"'pip install --force-reinstall --no-deps --no-cache-dir .', {choose}"
    )


_face: Any = None
settings.num_threads()  # a wrong one is told on NumPy too
if settings.instruction_set() not in (None, *settings.INSTRUCTION_SETS):
    raise settings.no_instruction_set(settings.instruction_set() or "")
if settings.engine() == "native":
    try:
        from anaphora.engine import native as _face
    except ImportError as error:
        warnings.warn(_without_native_engine(error), RuntimeWarning, stacklevel=2)
if _face is not None:
    matmul = _face.matmul
    sum_columns = _face.sum_columns
    cross_entropy_forward = _face.cross_entropy_forward
    cross_entropy_backward = _face.cross_entropy_backward
    recurrence_forward = _face.recurrence_forward
    recurrence_backward = _face.recurrence_backward
    linear_cross_entropy_losses = _face.linear_cross_entropy_losses
    gather_rows = _face.gather_rows
    sum_rows = _face.sum_rows
    dropout = _face.dropout
    layer_norm_forward = _face.layer_norm_forward
    layer_norm_backward = _face.layer_norm_backward
    pack_layers = _face.pack_layers
    sample = _face.sample
    sgd_update = _face.sgd_update
    adam_update = _face.adam_update
    rmsprop_update = _face.rmsprop_update
    adagrad_update = _face.adagrad_update
    average_update = _face.average_update
    scale = _face.scale
    global_norm = _face.global_norm


def info(measure: bool = False) -> dict[str, Any]:
    """What the engine is made of on this machine.

    The instruction set is the widest that the machine has, or the one that the environment variable
    ``ANAPHORA_INSTRUCTION_SET`` names: amx, avx512, avx2 or baseline. On amx float32 has other bits
    than on avx512, where everything has the bits of avx2. Where the system refuses a process the
    tile registers of amx, it is avx512.

    Args:
        measure: Also measure the peak of float32 multiply-adds of one core, in GFLOP/s.

    >>> sorted(info())
    ['engine', 'instruction_set', 'threads']
    """
    if _face is None:
        return {"engine": "numpy", "instruction_set": None, "threads": None}
    found: dict[str, Any] = _face.info(measure)
    return found


def set_num_threads(count: int) -> None:
    """Set how many threads the engine uses; its results do not depend on it.

    At first it is all processors that the process may use, or what the environment variable
    ``ANAPHORA_NUM_THREADS`` says. On NumPy it has no effect.

    Raises:
        ValueError: the count is less than 1 or more than 1,024.

    >>> before = info()["threads"] or 1
    >>> set_num_threads(2)
    >>> info()["threads"] in (2, None)  # None on NumPy
    True
    >>> set_num_threads(before)
    """
    if not 1 <= count <= settings.MOST_THREADS:
        raise ValueError(
            f"set_num_threads: the count must be at least 1 and at most {settings.MOST_THREADS:,}, "
            f"not {count}"
        )
    if _face is not None:
        _face.set_num_threads(count)
