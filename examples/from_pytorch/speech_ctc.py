"""Recognize spoken digits without alignment: a convolution, a GRU in both directions, and CTC.

The recordings are made up: each digit is a few sounds, each a row of frames of a spectrum.
"""

import argparse
import itertools

import numpy as np

import anaphora as torch

DIGITS = "0123456789"
BANDS = 12
SOUNDS = 9
SOUNDS_PER_DIGIT = 2
BLANK = 0  # digit d is the label d + 1

HIDDEN_SIZE = 48
BATCH_SIZE = 8

Array = np.typing.NDArray[np.float32]


class Speaker:
    """Says digits; each time a little differently."""

    def __init__(self, seed: int) -> None:
        voice = np.random.default_rng(0)
        self.spectra = voice.uniform(0, 3, (SOUNDS, BANDS))
        pairs = list(itertools.permutations(range(SOUNDS), SOUNDS_PER_DIGIT))
        self.sounds = [pairs[k] for k in voice.permutation(len(pairs))[: len(DIGITS)]]
        self.chance = np.random.default_rng(seed)

    def pause(self) -> Array:
        """A few frames of noise."""
        return self.frames(np.zeros(BANDS), int(self.chance.integers(1, 4)))

    def frames(self, spectrum: np.typing.NDArray[np.float64], count: int) -> Array:
        """Frames of one sound, with noise."""
        noise = self.chance.normal(0, 0.3, (count, BANDS))
        return (spectrum + noise).astype(np.float32)

    def say(self, text: str) -> Array:
        """The frames of a string of digits, [steps, BANDS]."""
        parts = [self.pause()]
        for digit in text:
            for sound in self.sounds[DIGITS.index(digit)]:
                steps = int(self.chance.integers(2, 6))
                parts.append(self.frames(self.spectra[sound], steps))
            parts.append(self.pause())
        return np.concatenate(parts)

    def text(self) -> str:
        """Two to five digits."""
        return "".join(self.chance.choice(list(DIGITS), self.chance.integers(2, 6)))


def to_tensor(recordings: list[Array]) -> torch.Tensor:
    """Recordings side by side, [steps, batch, BANDS], with zeros after the end of each."""
    frames = np.zeros((max(map(len, recordings)), len(recordings), BANDS), np.float32)
    for number, recording in enumerate(recordings):
        frames[: len(recording), number] = recording
    return torch.Tensor(frames)


def labels_of(texts: list[str]) -> list[int]:
    """The labels of all texts, one after the other."""
    return [DIGITS.index(digit) + 1 for text in texts for digit in text]


class Recognizer(torch.nn.Module):
    """Log-probabilities of the labels for each frame."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(BANDS, hidden_size, kernel_size=3, padding=1)
        self.norm = torch.nn.LayerNorm(hidden_size)
        self.gru = torch.nn.GRU(hidden_size, hidden_size, bidirectional=True)
        self.output = torch.nn.Linear(2 * hidden_size, len(DIGITS) + 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Map frames [steps, batch, BANDS] to log-probabilities [steps, batch, labels]."""
        features = self.conv(frames)
        hidden, _ = self.gru(self.norm(features).relu())
        return self.output(hidden).log_softmax(-1)


def train(model: Recognizer, steps: int) -> list[float]:
    """Train on recordings that are made on the way, and return the losses."""
    criterion = torch.nn.CTCLoss(blank=BLANK)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate=5e-3)
    speaker = Speaker(seed=1)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        texts = [speaker.text() for _ in range(BATCH_SIZE)]
        recordings = [speaker.say(text) for text in texts]
        targets = torch.Tensor(labels_of(texts))

        optimizer.zero_grad()
        frames = [len(recording) for recording in recordings]
        labels = [len(text) for text in texts]
        loss = criterion(model(to_tensor(recordings)), targets, frames, labels)
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {sum(losses[-50:]) / 50:.3f}")
    return losses


def greedy(labels: list[int]) -> str:
    """The text of the most probable labels: repeated ones once, without blanks."""
    return "".join(DIGITS[k - 1] for k, _ in itertools.groupby(labels) if k != BLANK)


def transcribe(model: Recognizer, recording: Array) -> str:
    """What was said."""
    model.eval()
    with torch.no_grad():
        best = model(to_tensor([recording])).argmax(-1)
    return greedy(best[:, 0].tolist())


def edit_distance(found: str, expected: str) -> int:
    """The number of insertions, deletions and substitutions between two texts."""
    row = list(range(len(expected) + 1))
    for i, a in enumerate(found, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(expected, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def error_rate(model: Recognizer, count: int = 40) -> float:
    """The errors in new recordings, divided by the number of digits."""
    speaker = Speaker(seed=2)
    errors = digits = 0
    for _ in range(count):
        text = speaker.text()
        errors += edit_distance(transcribe(model, speaker.say(text)), text)
        digits += len(text)
    return errors / digits


def main() -> None:
    """Train, and count errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.random.seed(options.seed)
    model = Recognizer()
    train(model, options.steps)
    print(f"{error_rate(model):.1%} of the digits are wrong")
    speaker = Speaker(seed=3)
    for text in ("42", "31415", "2718"):
        print(f"said {text}, heard {transcribe(model, speaker.say(text))}")


if __name__ == "__main__":
    main()
