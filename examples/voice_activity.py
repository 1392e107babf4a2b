"""Where somebody speaks: the network of Silero VAD, out of its package, frame by frame.

    pip install --no-deps silero-vad
    pip install "anaphora[onnx]"
    python examples/voice_activity.py RECORDING.wav

The package silero-vad holds a small network (6 convolutions and an LSTM of 128 units) as an ONNX
file; of the package nothing else is used, so what it depends on is not needed. Each frame of 32 ms
gets the probability that it is speech; the state of the LSTM is carried from frame to frame, as
sound arrives. The recording is 16 bits, of any rate; several channels are averaged.
"""

import argparse
import importlib.util
import wave
from pathlib import Path

import numpy as np

from anaphora import no_grad
from anaphora.interop.onnx import load

RATE, FRAME, CONTEXT = 16_000, 512, 64  # Hz; samples of a frame, and before it


def network():
    """The file of the network in the package silero-vad."""
    found = importlib.util.find_spec("silero_vad")
    if found is None:
        raise SystemExit("the network is in a package: pip install --no-deps silero-vad")
    return Path(found.submodule_search_locations[0], "data", "silero_vad_16k_sequence.onnx")


def read(path):
    """The samples of a recording, from -1 to 1, at 16 kHz."""
    with wave.open(str(path)) as file:
        channels, bits, rate = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
        if bits != 16:
            raise SystemExit(f"{path}: {bits} bits; expected 16; convert it")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels)
    samples = samples.mean(axis=1) / 32768
    times = np.arange(0, len(samples) * RATE // rate) * (rate / RATE)
    return np.interp(times, np.arange(len(samples)), samples).astype(np.float32)


def frames(samples):
    """Overlapping frames [N, 576]: 512 samples with the 64 before them; the last is padded."""
    count = -(-len(samples) // FRAME)
    padded = np.zeros(CONTEXT + count * FRAME, np.float32)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]


def listen(model, heard):
    """The probability of speech of each frame, one after the other as they arrive."""
    h = c = np.zeros((1, 1, 128), np.float32)
    with no_grad():
        for frame in heard:
            probability, h, c = model(frame[None], h, c)
            yield probability.item()


def main(arguments=None):
    """Print where the speech is, and return the probability of each frame."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--threshold", type=float, default=0.5)
    options = parser.parse_args(arguments)

    model = load(network())
    probabilities = list(listen(model, frames(read(options.recording))))
    spoken = np.array([0, *(p > options.threshold for p in probabilities), 0])
    edges = np.flatnonzero(np.diff(spoken)) * FRAME / RATE
    for start, end in edges.reshape(-1, 2):
        print(f"speech from {start:.2f} to {end:.2f} s")
    return probabilities


if __name__ == "__main__":
    main()
