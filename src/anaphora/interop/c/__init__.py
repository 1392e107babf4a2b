"""Models as C99: one file and a header, without dependencies and without allocation."""

from __future__ import annotations

import contextlib
import copy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.artifact.files import atomic_write
from anaphora.data import TaggerCodec
from anaphora.interop import Exported
from anaphora.interop.c.source import Source, source_of
from anaphora.interop.network import Network, network_of
from anaphora.tensor import Array

__all__ = ["export"]

_OPTIONS = ("-O3", "-march=native")
_MAX_RUN_BYTES = 8_000_000  # of weights that are compiled to be run; more take minutes
_TOLERANCE = 1e-5


def export(model: Any, path: Path) -> Exported:
    """Write a model as PATH, a C99 file, and its header, PATH with ``.h``.

    The names in the file begin with that of the file: ``lamp_reset`` and ``lamp_step`` in lamp.c.
    The header says how they are called. A model that computes with int8 weights has these in the
    file. Where there is a C compiler called ``cc``, the file is compiled, its outputs are compared
    with those of the model's session, and a step is timed.

    Args:
        model: A language model, classifier, regressor or tagger that runs step by step, or
            recurrent layers of any traced cell.
        path: The file; its name without the suffix must be an identifier of C.

    Raises:
        ValueError: the model cannot be exported, or the name is no identifier; or the compiled file
            computes something else than the session. No file is then written.
        ArtifactError: a file cannot be written.

    >>> import tempfile
    >>> from anaphora.nn import GRU
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exported = export(GRU(input_size=3, hidden_size=4), Path(folder, "lamp.c"))
    ...     "lamp_step" in Path(folder, "lamp.h").read_text()
    True
    >>> exported.record["weight_bytes"], exported.record["state_bytes"]
    (432, 16)
    """
    network = network_of(model)
    source = source_of(network, path.stem)
    header = path.with_suffix(".h")
    run = _run(model, network, source, path.stem)
    existed = header.exists()
    atomic_write(header, source.header.encode())
    try:
        atomic_write(path, source.code.encode())
    except BaseException:
        if not existed:
            with contextlib.suppress(OSError):
                header.unlink()
        raise
    figures = {
        "weight_bytes": source.weight_bytes,
        "state_bytes": source.state_bytes,
        "stack_bytes": source.stack_bytes,
        "multiply_adds": source.products,
    }
    lines = [
        f"wrote {path} and {header}",
        f"weights {source.weight_bytes:,} bytes ({'int8' if network.int8 else 'float32'}), state "
        f"{source.state_bytes:,}, stack of a step about {source.stack_bytes:,}",
    ]
    record: dict[str, Any] = {
        "out": str(path),
        "header": str(header),
        "format": "c",
        "weights": "int8" if network.int8 else "float32",
        **figures,
    }
    if run is None:
        lines.append(f"a step: {source.products:,} multiply-adds; it was not compiled and run here")
    else:
        difference, nanoseconds = run
        record |= {"difference": difference, "step_ns": nanoseconds}
        lines.append(
            f"a step: {source.products:,} multiply-adds, {nanoseconds:,} ns here (cc "
            f"{' '.join(_OPTIONS)}); differs from the session by at most {difference:.1g}"
        )
    return Exported(lines, record)


def _run(model: Any, network: Network, source: Source, name: str) -> tuple[float, int] | None:
    """How much the compiled file's outputs differ from the session's, and nanoseconds of a step.

    None without a compiler, or if the file does not compile with its options.
    """
    compiler = shutil.which("cc")
    if compiler is None or source.weight_bytes > _MAX_RUN_BYTES:
        return None
    x, expected = _inputs_and_outputs(model, network)
    size = "-DTOKENS" if network.table is not None else f"-DINPUTS={network.input_size}"
    main = Path(__file__).with_name("main.c")
    with tempfile.TemporaryDirectory() as folder:
        code, header, program = (Path(folder, f"{name}{end}") for end in (".c", ".h", ""))
        code.write_text(source.code, "utf-8")
        header.write_text(source.header, "utf-8")
        command = [
            compiler, *_OPTIONS, f"-DMODEL={name}", f'-DHEADER="{name}.h"', size,
            f"-DOUTPUTS={network.output_size}", f"-I{folder}", str(code), str(main),
            "-o", str(program),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
            done = subprocess.run(
                [str(program)], input=x.tobytes(), check=True, capture_output=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError):
            return None
    found = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    difference = float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())
    # With 8 bits a last bit may decide to which integer a number is rounded.
    if not difference <= (0.1 if network.int8 else _TOLERANCE):
        raise ValueError(
            f"{name}.c differs from the session by {difference:.1g}, relative to outputs above 1; "
            "expected at most 1e-05: please report this, with the model"
        )
    return difference, int(done.stderr)


def _inputs_and_outputs(model: Any, network: Network) -> tuple[Array, Array]:
    """Random inputs of 64 steps, and what a session answers."""
    generator = np.random.default_rng(0)
    if network.table is not None:
        ids = generator.integers(0, len(network.table), 64).astype(np.int32)
        if isinstance(model.codec, TaggerCodec):  # with it, a session reads words
            model = copy.copy(model)
            model.codec = None
        return ids, np.asarray(model.session().feed(ids))
    x = generator.standard_normal((64, network.input_size)).astype(np.float32)
    if network.moments is not None:
        mean, deviation = network.moments
        x = (x * deviation + mean).astype(np.float32)
    return x, np.asarray(model.session().feed(x))
