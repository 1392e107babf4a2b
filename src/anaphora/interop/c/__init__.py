"""Models as C99: one file and a header, without dependencies and without allocation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
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
_MAX_RUN_WEIGHTS = 500_000  # more take a compiler minutes
_TOLERANCE = 1e-5
_INT8_TOLERANCE = 0.1


def export(model: Any, path: Path) -> Exported:
    """Write a model as PATH, a C99 file, and its header, PATH with ``.h``.

    The names in the file begin with that of the file: ``lamp_reset`` and ``lamp_step`` in lamp.c.
    The header says how they are called. A model that computes with int8 weights has these in the
    file. Where there is a C compiler called ``cc``, a file of up to half a million weights is
    compiled, its outputs are compared with those of the model's session, and a step is timed.

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

    With 8 bits the same file in float32 is compared first: a difference in a last bit may round a
    number to another integer, so that a tolerance for them alone would let a wrong gate pass.

    None without a compiler, if the file does not compile with its options, or if the model is
    large.

    Raises:
        ValueError: they differ by more than roundings.
    """
    table = 0 if network.table is None else network.table.size
    if shutil.which("cc") is None or network.products() + table > _MAX_RUN_WEIGHTS:
        return None
    found = None
    for int8 in (False, True) if network.int8 else (False,):
        tried = dataclasses.replace(network, int8=int8)
        x, expected = _inputs_and_outputs(model, tried)
        code = source if int8 == network.int8 else source_of(tried, name)
        done = _compiled_and_run(tried, code, name, x)
        if done is None:
            return None
        outputs = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
        difference = float((np.abs(outputs - expected) / np.maximum(1, np.abs(expected))).max())
        tolerance = _INT8_TOLERANCE if int8 else _TOLERANCE
        if not difference <= tolerance:
            raise ValueError(
                f"{name}.c differs from the session by {difference:.1g}, relative to outputs above "
                f"1; expected at most {tolerance:g}: please report this, with the model"
            )
        found = difference, int(done.stderr)
    return found


def _compiled_and_run(
    network: Network, source: Source, name: str, x: Array
) -> subprocess.CompletedProcess[bytes] | None:
    """The run of main.c with a source, on inputs; None if something failed."""
    size = "-DTOKENS" if network.table is not None else f"-DINPUTS={network.input_size}"
    main = Path(__file__).with_name("main.c")
    with tempfile.TemporaryDirectory() as folder:
        code, header, program = (Path(folder, f"{name}{end}") for end in (".c", ".h", ""))
        code.write_text(source.code, "utf-8")
        header.write_text(source.header, "utf-8")
        command = [
            "cc", *_OPTIONS, f"-DMODEL={name}", f'-DHEADER="{name}.h"', size,
            f"-DOUTPUTS={network.output_size}", f"-I{folder}", str(code), str(main),
            "-o", str(program),
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True)
            return subprocess.run(
                [str(program)], input=x.tobytes(), check=True, capture_output=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError):
            return None


def _inputs_and_outputs(model: Any, network: Network) -> tuple[Array, Array]:
    """Random inputs of 64 steps, and what a session answers with the network's weights."""
    weights = "int8" if network.int8 else "float32"
    generator = np.random.default_rng(0)
    if network.table is not None:
        ids = generator.integers(0, len(network.table), 64).astype(np.int32)
        if isinstance(model.codec, TaggerCodec):  # with it, a session reads words
            model = copy.copy(model)
            model.codec = None
        return ids, np.asarray(model.session(weights=weights).feed(ids))
    x = generator.standard_normal((64, network.input_size)).astype(np.float32)
    if network.moments is not None:
        mean, deviation = network.moments
        x = (x * deviation + mean).astype(np.float32)
    return x, np.asarray(model.session(weights=weights).feed(x))
