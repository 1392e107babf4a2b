"""Train a model of a guitar amplifier, and write it as sound, as C, and as JSON for plug-ins.

    python examples/amplifier.py --out amplifier                  # a simulated tube stage
    python examples/amplifier.py dry.wav processed.wav            # a recording of a real one

The two files, mono and of 16 bits, are what went into a device and what came out of it. The model
is an LSTM that reads a sample at a time. Its loss is the error-to-signal ratio after a pre-emphasis
filter, 1 - 0.85 z^-1, which weighs high frequencies as ears do, plus that of the mean (Wright,
Damskagg & Valimaki 2019). It is trained on windows of 2,048 samples, at many places of the
recording at once, with the states carried from one window to the next.

The folder then has dry.wav, processed.wav and model.wav, the part that was not trained on; a model
directory; amp.c and amp.h (see docs/guide/c.md); and amp.json for plug-ins that use RTNeural.
"""

import argparse
import wave
from pathlib import Path

import numpy as np

from anaphora import detach, interop, no_grad, optim, random
from anaphora.cells import CELLS
from anaphora.models import SequenceRegressor

RATE = 44_100  # samples a second


def plucked_strings(seconds, generator):
    """Dry sound: notes of a plucked string, by the loop of Karplus & Strong 1983."""
    sound = np.zeros(int(seconds * RATE))
    start = 0
    while start < len(sound):
        period = RATE / (82.4 * 2 ** (generator.integers(0, 30) / 12))
        length = min(int(generator.uniform(0.15, 0.7) * RATE), len(sound) - start)
        size = int(period)
        line = generator.uniform(-1, 1, size) * generator.uniform(0.15, 0.8)
        for first in range(start, start + length, size):
            count = min(size, start + length - first)
            sound[first : first + count] += line[:count]
            line = 0.498 * (line + np.roll(line, 1))
        start += length
    return np.clip(sound, -1, 1)


def tube_stage(dry):
    """A tube with memory: loud sound charges the capacitor at its grid and moves its bias."""
    processed = np.empty_like(dry)
    bias = low = coupled = before = tone = 0.0
    for n, x in enumerate(dry):
        coupled = 0.995 * (coupled + x - before)  # a high-pass filter
        before = x
        grid = 6 * coupled - bias
        bias += 0.002 * (max(grid, 0.0) - 0.25 * bias)  # it charges fast and drains slowly
        plate = np.tanh(grid) if grid < 0 else np.tanh(0.6 * grid) / 0.6
        tone += 0.35 * (plate - tone)  # a low-pass filter
        low = 0.999 * low + 0.001 * tone
        processed[n] = 0.5 * (tone - low)
    return processed


def read_sound(path):
    """Samples of -1 to 1 of a mono .wav file of 16 bits."""
    with wave.open(str(path)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise SystemExit(
                f"{path}: {file.getnchannels()} channels of {8 * file.getsampwidth()} bits; "
                "expected one of 16 bits"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768.0


def write_sound(path, sound):
    """A mono .wav file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        samples = np.clip(np.rint(sound * 32767), -32768, 32767)
        file.writeframes(samples.astype("<i2").tobytes())


def loss_of(outputs, targets):
    """The error-to-signal ratio of outputs [T, ...] after pre-emphasis, plus that of the mean."""
    error = outputs - targets
    emphasized, signal = (x[1:] - 0.85 * x[:-1] for x in (error, targets))
    ratio = (emphasized * emphasized).mean() / ((signal * signal).mean() + 1e-5)
    mean = error.mean(axis=0)
    return ratio + (mean * mean).mean() / ((targets * targets).mean() + 1e-5)


def train(model, dry, processed, options):
    """Train on all places of a recording at once: [T, B, 1], in windows with carried state."""
    T = len(dry) // options.batch_size
    shape = (options.batch_size, T)
    x, y = (s[: T * options.batch_size].reshape(shape).T[..., None] for s in (dry, processed))
    starts = range(0, T - options.window + 1, options.window)
    optimizer = optim.Adam(model.named_parameters(), learning_rate=options.learning_rate)
    schedule = optim.Cosine(optimizer, total_steps=options.epochs * len(starts))
    model.train()
    for epoch in range(options.epochs):
        state, losses = None, []
        for n, start in enumerate(starts):
            schedule.on_step(epoch * len(starts) + n)
            part = slice(start, start + options.window)
            outputs, state = model.read(x[part], detach(state))
            loss = loss_of(model.output(outputs), y[part])
            optimizer.zero_grad()
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}", flush=True)


def main(arguments=None):
    """Train, write the results, and return the loss of the part that was not trained on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sounds", type=Path, nargs="*", metavar="WAV", help="dry and processed")
    parser.add_argument("--seconds", type=float, default=40.0, help="of simulated sound")
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--hidden-size", type=int, default=16)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("amplifier"))
    options = parser.parse_args(arguments)
    if len(options.sounds) not in (0, 2):
        parser.error("give two files, dry and processed sound, or none")

    random.seed(options.seed)
    if options.sounds:
        dry, processed = map(read_sound, options.sounds)
        if len(dry) != len(processed):
            raise SystemExit(f"{len(dry)} and {len(processed)} samples; expected equally many")
    else:
        dry = plucked_strings(options.seconds, np.random.default_rng(options.seed))
        processed = tube_stage(dry)
    held_out = len(dry) // 5
    if len(dry) - held_out < options.batch_size * options.window or options.window < 2:
        raise SystemExit(
            f"{len(dry)} samples are too few for --batch-size {options.batch_size} windows of "
            f"{options.window}; give more sound, or smaller ones"
        )
    dry, processed = dry.astype(np.float32), processed.astype(np.float32)

    model = SequenceRegressor(
        1, hidden_size=options.hidden_size, input_size=1, cell=options.cell, pooling="last"
    )
    train(model, dry[:-held_out], processed[:-held_out], options)

    session = model.eval().session()
    heard = session.feed(dry[-held_out:, None])  # one prediction after each sample
    with no_grad():
        loss = float(loss_of(heard, processed[-held_out:, None]))
    options.out.mkdir(parents=True, exist_ok=True)
    for name, sound in (("dry", dry), ("processed", processed), ("model", heard[:, 0])):
        write_sound(options.out / f"{name}.wav", sound[-held_out:])
    model.save(options.out / "model")
    files = ["amp.c", "amp.json"] if options.cell in ("lstm", "gru") else ["amp.c"]
    for name in files:
        print(*interop.export(model, options.out / name).lines, sep="\n")
    print(f"loss of {held_out / RATE:.1f} seconds that were not trained on: {loss:.4f}")
    return {"loss": loss}


if __name__ == "__main__":
    main()
