"""The engine: the heavy numerical work, as functions of plain arrays.

Operations and optimizers call these functions and no lower-level ones. All have a NumPy
implementation (`kernels`, `crf`, `ctc`, `recurrence`, `updates`); if the native module is built,
its functions replace the slow ones, unless the environment variable ``ANAPHORA_ENGINE`` is
``numpy``.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from anaphora import settings
from anaphora.engine import updates
from anaphora.engine.crf import crf_backward, crf_decode, crf_forward
from anaphora.engine.ctc import ctc_backward, ctc_forward
from anaphora.engine.graph import pack_graph
from anaphora.engine.kernels import (
    add_along_axis,
    add_rows,
    batch_matmul,
    batch_norm_backward,
    batch_norm_forward,
    cross_entropy_backward,
    cross_entropy_forward,
    cumsum,
    dropout,
    erf,
    gather_rows,
    layer_norm_backward,
    layer_norm_forward,
    linear_cross_entropy_losses,
    matmul,
    order_rows,
    sample,
    softmax_backward,
    softmax_forward,
    sum_columns,
    sum_rows,
    take_along_axis,
)
from anaphora.engine.precision import (
    MATMUL_PRECISIONS,
    current_matmul_precision,
    matmul_precision,
    set_matmul_precision,
    with_current_precision,
)
from anaphora.engine.recurrence import (
    LayerWeights,
    PackedLayers,
    RecurrenceGradients,
    RecurrenceSteps,
    bidirectional_backward,
    bidirectional_forward,
    pack_layers,
    recurrence_backward,
    recurrence_forward,
)
from anaphora.engine.updates import *  # noqa: F403

__all__ = [
    "MATMUL_PRECISIONS",
    "LayerWeights",
    "PackedLayers",
    "RecurrenceGradients",
    "RecurrenceSteps",
    "add_along_axis",
    "add_rows",
    "batch_matmul",
    "batch_norm_backward",
    "batch_norm_forward",
    "bidirectional_backward",
    "bidirectional_forward",
    "crf_backward",
    "crf_decode",
    "crf_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "ctc_backward",
    "ctc_forward",
    "cumsum",
    "current_matmul_precision",
    "dropout",
    "erf",
    "gather_rows",
    "info",
    "layer_norm_backward",
    "layer_norm_forward",
    "linear_cross_entropy_losses",
    "matmul",
    "matmul_precision",
    "order_rows",
    "pack_graph",
    "pack_layers",
    "recurrence_backward",
    "recurrence_forward",
    "sample",
    "set_matmul_precision",
    "set_num_threads",
    "share_processors",
    "softmax_backward",
    "softmax_forward",
    "sum_columns",
    "sum_rows",
    "take_along_axis",
    "with_current_precision",
    *updates.__all__,
]


def _without_native_engine(error: ImportError) -> str:
    """The warning that the native engine is missing: why, and how to get it."""
    folder = Path(__file__).parent
    choose = "or set ANAPHORA_ENGINE=numpy to silence this warning"
    if error.name != "anaphora.engine._native" or not isinstance(error, ModuleNotFoundError):
        why = f"its native engine cannot be loaded ({error})"
        return f"anaphora runs on NumPy, slower: {why}; install it again, {choose}"
    compiler = {
        "darwin": "xcode-select --install",
        "win32": "winget install Microsoft.VisualStudio.BuildTools, with C++",
    }.get(sys.platform, "apt install g++, or dnf install gcc-c++")
    if (folder / "src").is_dir():  # only a checkout has the sources
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


_native_engine: Any = None
settings.num_threads()  # invalid settings are reported on NumPy too
if settings.instruction_set() not in (None, *settings.INSTRUCTION_SETS, *settings.EMULATED_SETS):
    raise settings.unavailable_instruction_set(settings.instruction_set() or "")
if settings.engine() == "native":
    try:
        from anaphora.engine import native as _native_engine
    except ImportError as error:
        warnings.warn(_without_native_engine(error), RuntimeWarning, stacklevel=2)
if _native_engine is not None:
    for _name in __all__:
        if hasattr(_native_engine, _name):
            globals()[_name] = getattr(_native_engine, _name)


def info(measure: bool = False) -> dict[str, Any]:
    """Which engine runs on this machine, with which instruction set and how many threads.

    The instruction set is the widest that the machine supports, or the one named by the environment
    variable ``ANAPHORA_INSTRUCTION_SET``: amx, avx512, avx2 or baseline. avx512 and avx2 give the
    same bits; amx gives other bits in float32. If the system denies a process the tile registers
    of amx, it uses avx512.

    ``bfloat16`` tells what multiplies bfloat16: "tiles" (AMX) or "dots" (AVX512_BF16), both of
    which are faster than float32; or "vectors", which are not, nor is NumPy (None).

    Args:
        measure: Also measure the peak float32 performance of one core, in GFLOP/s.

    >>> sorted(info())
    ['bfloat16', 'engine', 'instruction_set', 'threads']
    """
    if _native_engine is None:
        return {"engine": "numpy", "instruction_set": None, "threads": None, "bfloat16": None}
    found: dict[str, Any] = _native_engine.info(measure)
    return found


def set_num_threads(count: int) -> None:
    """Set the number of threads of the engine; its results do not depend on it.

    The default is the environment variable ``ANAPHORA_NUM_THREADS``, else ``OMP_NUM_THREADS``, else
    the number of processors that the process may use. On NumPy it has no effect.

    Raises:
        ValueError: the count is less than 1 or more than 1,024.

    >>> before = info()["threads"] or 1
    >>> set_num_threads(2)
    >>> info()["threads"] in (2, None)  # None on NumPy
    True
    >>> set_num_threads(before)
    """
    if not 1 <= count <= settings.MAX_THREADS:
        raise ValueError(
            f"set_num_threads: the count must be at least 1 and at most {settings.MAX_THREADS:,}, "
            f"not {count}"
        )
    if _native_engine is not None:
        _native_engine.set_num_threads(count)


def share_processors(count: int) -> None:
    """Use a share of the processors, which `count` processes use together, unless the environment
    sets the number of threads.

    >>> before = info()["threads"] or 1
    >>> share_processors(1000)
    >>> info()["threads"] in (1, None) or settings.num_threads() is not None
    True
    >>> set_num_threads(before)
    """
    if _native_engine is not None and settings.num_threads() is None:
        set_num_threads(max(1, _native_engine.available_threads() // count))
