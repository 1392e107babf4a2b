"""Spoken digits: name the digit of a recording, or write out a string of them letter by letter.

    python examples/spoken_digits.py FOLDER
    python examples/spoken_digits.py FOLDER --model ctc

The folder has the recordings of the Free Spoken Digit Dataset, `D_speaker_N.wav`: digit D, said for
the N-th time. In the official split N = 0 to 4 are for testing; their speakers are also in the
training set. The first model answers with one of ten classes. The second is trained by
connectionist temporal classification: it reads strings of 1 to 5 digits, recordings of one speaker
joined, and writes "seven one two", although it is never told where a digit or a letter begins.
"""

import argparse
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anaphora import no_grad, ops, optim, random
from anaphora.cells import CELLS
from anaphora.data import IGNORE_INDEX, SampledBatches, SequenceBatches, moments
from anaphora.generation import ctc_beam_search, ctc_greedy
from anaphora.models import SequenceClassifier, SequenceTagger
from anaphora.training import Callback, Trainer, TrainingOptions

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LABELS = "_ " + "".join(sorted(set("".join(WORDS))))  # class 0 is the blank, 1 between words
LONGEST = 5  # digits of a string
RATE, WINDOW, HOP, POINTS = 8000, 200, 80, 512  # Hz; samples: 25 ms every 10 ms; of the transform


class Recording(NamedTuple):
    """A digit said once: samples from -1 to 1 at 8 kHz."""

    digit: int
    speaker: str
    take: int
    samples: np.ndarray


def read_recordings(folder):
    """All recordings of a folder, in the order of their names."""
    recordings = []
    for path in sorted(folder.glob("[!.]*.wav")):
        digit, speaker, take = path.stem.split("_")
        with wave.open(str(path)) as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            if form != (1, 16, RATE):
                raise SystemExit(
                    "{}: {} channels of {} bits at {} Hz; expected 1 of 16 at {}; convert "
                    "it".format(path, *form, RATE)
                )
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        recordings.append(Recording(int(digit), speaker, int(take), samples))
    return recordings


def mel_filters(bands):
    """Adjacent triangles on the mel scale, [bands, frequencies] (Davis & Mermelstein 1980)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)  # Hz
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.fft.rfftfreq(POINTS, 1 / RATE)
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling))


def log_mel(samples, filters):
    """The logarithm of the energy in each band, every 10 ms: [T, bands]."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * np.hanning(WINDOW), POINTS)
    return np.log(np.abs(spectrum) ** 2 @ filters.T + 1e-6)


class Ear:
    """Turns recordings into features, scaled by mean and deviation of the training recordings."""

    def __init__(self, recordings, bands):
        self.filters = mel_filters(bands)
        frames = np.concatenate([log_mel(one.samples, self.filters) for one in recordings])
        self.mean, self.deviation = moments(frames)

    def hear(self, recordings):
        """The features of joined recordings, [T, bands]."""
        frames = log_mel(np.concatenate([one.samples for one in recordings]), self.filters)
        return ((frames - self.mean) / self.deviation).astype(np.float32)

    def to_dict(self):
        """The scale, to be saved with a model."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


class Speller(SequenceTagger):
    """Scores letters and the blank at each step, without given positions of the letters."""

    kind = "speller"

    def loss(self, batch, state=None):
        """Nats per letter; ``batch.targets`` are labels [B, S], padded with -100."""
        logits, _ = self(batch.inputs, lengths=batch.lengths)
        targets = batch.targets.T
        counts = (targets != IGNORE_INDEX).sum(axis=0)
        return ops.ctc_loss(logits, targets, batch.lengths, counts), None


class PrintLoss(Callback):
    """Prints the loss of each epoch."""

    def on_record(self, trainer, record):
        """Print a line."""
        print(f"epoch {record['epoch']:.0f}: loss {record['loss']:.4f}", flush=True)


def fit(model, batches, options):
    """Train a model by Adam with a cosine schedule."""
    optimizer = optim.Adam(model.parameters(), options.learning_rate)
    schedule = optim.Cosine(optimizer, total_steps=options.epochs * len(batches))
    limits = TrainingOptions(epochs=options.epochs, seed=options.seed, log_every=len(batches))
    Trainer(model, optimizer, batches, limits, schedule=schedule, callbacks=[PrintLoss()]).run()
    model.eval()


def classify(ear, train, test, shape, options):
    """Train a classifier and return it with its results."""

    def batches(recordings):
        features = [ear.hear([one]) for one in recordings]
        return SequenceBatches(features, [one.digit for one in recordings], options.batch_size)

    model = SequenceClassifier(len(WORDS), pooling=options.pooling, **shape)
    fit(model, batches(train), options)
    confusion = np.zeros((len(WORDS), len(WORDS)), int)  # [true, answered]
    with no_grad():
        for batch in batches(test):
            answers = model(batch.inputs, batch.lengths).data.argmax(axis=1)
            np.add.at(confusion, (batch.targets, answers), 1)
    for word, row in zip(WORDS, confusion, strict=True):
        print(f"{word:>5}", *(f"{count:3}" if count else "  ." for count in row))
    accuracy = float(np.trace(confusion) / confusion.sum())
    print(f"accuracy {accuracy:.2%} of {confusion.sum():,} recordings")
    return model, {"accuracy": accuracy, "confusion": confusion}


def sample_strings(recordings, count, generator):
    """Strings of 1 to 5 recordings, each string by one speaker."""
    by_speaker = {}
    for one in recordings:
        by_speaker.setdefault(one.speaker, []).append(one)
    speakers = list(by_speaker.values())
    strings = []
    for _ in range(count):
        said = speakers[generator.integers(len(speakers))]
        places = generator.integers(len(said), size=generator.integers(1, LONGEST + 1))
        strings.append([said[place] for place in places])
    return strings


def respoken(one, generator):
    """A recording up to a tenth faster or slower, higher or lower (Ko et al. 2015)."""
    places = np.arange(0, len(one.samples) - 1, generator.uniform(0.9, 1.1))
    return one._replace(samples=np.interp(places, np.arange(len(one.samples)), one.samples))


def in_words(string):
    """The words of a string of recordings."""
    return " ".join(WORDS[one.digit] for one in string)


def string_batches(ear, strings, batch_size):
    """Strings with their labels."""
    texts = [in_words(string) for string in strings]
    labels = np.full((len(texts), max(map(len, texts))), IGNORE_INDEX)
    for row, text in zip(labels, texts, strict=True):
        row[: len(text)] = [LABELS.index(letter) for letter in text]
    return SequenceBatches([ear.hear(string) for string in strings], labels, batch_size)


def edit_distance(found, expected):
    """The number of insertions, deletions and substitutions between lists (Levenshtein 1966)."""
    row = list(range(len(expected) + 1))
    for i, one in enumerate(found, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(expected, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
            diagonal, row[j] = row[j], best
    return row[-1]


def transcribe(ear, train, test, shape, options):
    """Train a speller and return it with its results."""

    def sample(generator):
        sampled = sample_strings(train, options.batch_size, generator)
        strings = [[respoken(one, generator) for one in string] for string in sampled]
        return string_batches(ear, strings, options.batch_size)[0]

    steps = -(-len(train) // (options.batch_size * (LONGEST + 1) // 2))  # about each, once
    model = Speller(len(LABELS), **shape)
    fit(model, SampledBatches(sample, steps, options.seed), options)

    strings = sample_strings(test, options.test_strings, np.random.default_rng(0))
    measured = {}
    for name, spoken in (("recordings", [[one] for one in test]), ("strings", strings)):
        batches = string_batches(ear, spoken, options.batch_size)
        for search, pairs in written_and_said(model, batches, options.beam_size).items():
            wrong = [pair for pair in pairs if pair[0] != pair[1]]
            exact = 1 - len(wrong) / len(pairs)
            errors = sum(edit_distance(*pair) for pair in pairs)
            rate = errors / sum(len(said) for _, said in pairs)
            measured[f"{name}, {search}"] = {"exact": exact, "digit_error_rate": rate}
            print(
                f"{name}, {search}: {exact:.2%} of {len(pairs):,} exact, {rate:.2%} of digits wrong"
            )
            for pair in wrong[:5]:
                print("  wrote {!r}, expected {!r}".format(*map(" ".join, pair)))
    return model, measured


def written_and_said(model, batches, beam_size):
    """The words that each search finds for each string, next to the spoken ones."""
    pairs = {"greedy": [], "beam": []}
    with no_grad():
        for batch in batches:
            scores = model(batch.inputs, lengths=batch.lengths)[0].data
            said = [words(row[row != IGNORE_INDEX]) for row in batch.targets]
            beams = ctc_beam_search(scores, batch.lengths, beam_size)
            pairs["greedy"] += zip(map(words, ctc_greedy(scores, batch.lengths)), said, strict=True)
            pairs["beam"] += zip([words(beam[0].labels) for beam in beams], said, strict=True)
    return pairs


def words(labels):
    """The words that labels spell."""
    return "".join(LABELS[label] for label in labels).split()


def main(arguments=None):
    """Train the requested model, and return its results on the test set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("classifier", "ctc"), default="classifier")
    parser.add_argument("--bands", type=int, default=32, help="number of bands of the mel scale")
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--hidden-size", type=int, default=96)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--pooling", choices=("last", "mean", "max"), default="mean")
    parser.add_argument("--dropout", type=float, default=0.4)
    parser.add_argument("--epochs", type=int, help="20, or 40 with ctc")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--beam-size", type=int, default=10)
    parser.add_argument("--test-strings", type=int, default=500)
    parser.add_argument(
        "--validation", action="store_true", help="do not use the test set; hold out N = 5 to 9"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="save the model here")
    options = parser.parse_args(arguments)

    if options.epochs is None:
        options.epochs = 20 if options.model == "classifier" else 40

    random.seed(options.seed)  # initial weights and dropout
    recordings = read_recordings(options.folder)
    first = 5 if options.validation else 0
    test = [one for one in recordings if first <= one.take < first + 5]
    train = [one for one in recordings if one.take >= first + 5]
    if not train or not test:
        raise SystemExit(
            f"{options.folder}: {len(train)} recordings to train on and {len(test)} to test on; "
            "give the folder with all D_speaker_N.wav"
        )
    ear = Ear(train, options.bands)
    shape = {
        "input_size": options.bands,
        "hidden_size": options.hidden_size,
        "num_layers": options.num_layers,
        "cell": options.cell,
        "bidirectional": True,
        "dropout": options.dropout,
    }
    work = classify if options.model == "classifier" else transcribe
    model, measured = work(ear, train, test, shape, options)
    if options.out is not None:
        labels = WORDS if options.model == "classifier" else LABELS
        model.save(options.out, labels=labels, **ear.to_dict())
    return measured


if __name__ == "__main__":
    main()
