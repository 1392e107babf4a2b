"""A frame of Silero VAD beside ONNX Runtime: ``python -m benchmarks.shipped [--seconds S]``.

The network is that of the package (``pip install --no-deps silero-vad``); a frame is 576 samples,
32 ms of sound, and the state is carried from frame to frame. One thread; what is compared is a call
from Python, with arrays that are already there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from anaphora import engine, no_grad
from benchmarks.measure import interleaved

GRAPHS = ("silero_vad_16k_sequence", "silero_vad_16k_op15")


def graphs() -> dict[str, Path]:
    """The files of the package by name.

    Raises:
        SystemExit: the package, or ONNX Runtime, is not installed.
    """
    for package in ("silero_vad", "onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise SystemExit(
                f"{package} is not installed: pip install --no-deps silero-vad, and pip install "
                '"anaphora[onnx]"'
            )
    folder = find_spec("silero_vad").submodule_search_locations[0]  # type: ignore[union-attr, index]
    return {name: Path(folder, "data", f"{name}.onnx") for name in GRAPHS}


def inputs_of(name: str) -> dict[str, np.ndarray]:
    """One frame, and the state before it."""
    sound = (0.1 * np.random.default_rng(0).standard_normal((1, 576))).astype(np.float32)
    if name.endswith("sequence"):
        state = {key: np.zeros((1, 1, 128), np.float32) for key in "hc"}
        return {"input": sound, **state}
    return {"input": sound, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16_000)}


def in_anaphora(path: Path, inputs: dict[str, np.ndarray]) -> Callable[[], None]:
    """A call of the graph as a module."""
    from anaphora.interop.onnx import load

    model, arrays = load(path), tuple(inputs.values())

    @no_grad()
    def run() -> None:
        model(*arrays)

    return run


def in_onnx_runtime(path: Path, inputs: dict[str, np.ndarray]) -> Callable[[], None]:
    """A call of ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run() -> None:
        session.run(None, inputs)

    return run


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Measure, print and return the seconds of a frame."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="about, for each graph")
    options = parser.parse_args(arguments)
    engine.set_num_threads(1)
    medians = {}
    for name, path in graphs().items():
        inputs = inputs_of(name)
        runs = {
            "anaphora": in_anaphora(path, inputs),
            "ONNX Runtime": in_onnx_runtime(path, inputs),
        }
        medians[name] = interleaved(runs, options.seconds)
        a, b = medians[name].values()
        print(
            f"{name}: anaphora {1e6 * a:.1f} us, ONNX Runtime {1e6 * b:.1f} us, ratio {b / a:.2f}"
        )
    return medians


if __name__ == "__main__":
    main()
