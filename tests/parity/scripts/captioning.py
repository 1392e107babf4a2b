"""Describe small pictures: an encoder, and an LSTM that writes the caption.

Each picture shows one shape, of some size, somewhere; the caption says which.
"""

import argparse
import random

import numpy as np
import torch
from torch import nn

SIZE = 16
SHAPES = ["circle", "cross", "frame", "square"]
COLORS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 0.8, 0.2), "blue": (0.2, 0.3, 1.0)}
ROWS = ["top", "middle", "bottom"]
COLUMNS = ["left", "centre", "right"]

START, END = "<start>", "<end>"
WORDS = [START, END, "a", "at", "the", "large", "small", *COLORS, *SHAPES, *ROWS, *COLUMNS]
WORD_TO_ID = {word: number for number, word in enumerate(WORDS)}
MAX_WORDS = 10

EMBEDDING_SIZE = 32
HIDDEN_SIZE = 64
BATCH_SIZE = 32

Picture = np.typing.NDArray[np.float32]


def mask_of(shape: str, row: int, column: int, radius: int) -> np.typing.NDArray[np.bool_]:
    """Where the pixels of a shape are, [SIZE, SIZE]."""
    y, x = np.mgrid[:SIZE, :SIZE]
    y, x = np.abs(y - row), np.abs(x - column)
    inside = (y <= radius) & (x <= radius)
    if shape == "circle":
        return np.asarray(y * y + x * x <= radius * radius + 1)
    if shape == "cross":
        return np.asarray(inside & ((y == 0) | (x == 0)))
    if shape == "frame":
        return np.asarray(inside & ((y == radius) | (x == radius)))
    return np.asarray(inside)


def random_picture() -> tuple[Picture, str]:
    """A picture [3, SIZE, SIZE] and its caption."""
    shape, color = random.choice(SHAPES), random.choice(list(COLORS))
    row, column, large = random.randrange(3), random.randrange(3), random.random() < 0.5
    centre = [int(SIZE * (place + 0.5) / 3) for place in (row, column)]
    mask = mask_of(shape, centre[0], centre[1], 3 if large else 2)
    picture = np.random.default_rng(random.randrange(10**6)).uniform(0, 0.1, (3, SIZE, SIZE))
    picture[:, mask] = np.array(COLORS[color])[:, None]
    size, place = "large" if large else "small", f"{ROWS[row]} {COLUMNS[column]}"
    return picture.astype(np.float32), f"a {size} {color} {shape} at the {place}"


def encode(caption: str) -> list[int]:
    """The ids of the words of a caption, between start and end."""
    return [WORD_TO_ID[word] for word in (START, *caption.split(), END)]


def random_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [batch, 3, SIZE, SIZE] and captions [batch, words]."""
    pairs = [random_picture() for _ in range(BATCH_SIZE)]
    pictures = np.stack([picture for picture, _ in pairs])
    captions = [encode(caption) for _, caption in pairs]
    return torch.from_numpy(pictures), torch.tensor(captions)


class Encoder(nn.Module):
    """Turns a picture into the first state of the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * SIZE * SIZE, 128),
            nn.ReLU(),
            nn.Linear(128, HIDDEN_SIZE),
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Map pictures [batch, 3, SIZE, SIZE] to [batch, HIDDEN_SIZE]."""
        return self.layers(pictures)


class Decoder(nn.Module):
    """Writes a caption, word by word."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), EMBEDDING_SIZE)
        self.lstm = nn.LSTM(EMBEDDING_SIZE, HIDDEN_SIZE, batch_first=True)
        self.output = nn.Linear(HIDDEN_SIZE, len(WORDS))

    def forward(
        self, words: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Map words [batch, steps] to logits [batch, steps, words] and the state."""
        hidden, (h, c) = self.lstm(self.embedding(words), state)
        return self.output(hidden), (h, c)


class Captioner(nn.Module):
    """An encoder of pictures, and a decoder of captions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def first_state(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The state with which the decoder begins: what the picture shows."""
        c = self.encoder(pictures).unsqueeze(0)
        return c.tanh(), c

    def forward(self, pictures: torch.Tensor, captions: torch.Tensor) -> torch.Tensor:
        """The logits of each next word, [batch, steps - 1, words]."""
        logits, _ = self.decoder(captions[:, :-1], self.first_state(pictures))
        return logits

    def describe(self, picture: Picture) -> str:
        """The caption whose words are each the most probable."""
        self.eval()
        words = [START]
        with torch.no_grad():
            state = self.first_state(torch.from_numpy(picture[None]))
            previous = torch.full((1, 1), WORD_TO_ID[START])
            while words[-1] != END and len(words) <= MAX_WORDS:
                logits, state = self.decoder(previous, state)
                previous = logits.argmax(-1)
                words.append(WORDS[int(previous.item())])
        return " ".join(words[1:-1])


def train(model: Captioner, steps: int) -> list[float]:
    """Train on random pictures, and return the losses."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        pictures, captions = random_batch()
        optimizer.zero_grad()
        logits = model(pictures, captions)
        loss = criterion(logits.flatten(0, 1), captions[:, 1:].flatten())
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {sum(losses[-50:]) / 50:.3f}")
    return losses


def accuracy(model: Captioner, count: int = 50) -> float:
    """The share of new pictures whose caption is right in every word."""
    pairs = [random_picture() for _ in range(count)]
    return sum(model.describe(picture) == caption for picture, caption in pairs) / count


def main() -> None:
    """Train, and describe new pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    model = Captioner()
    train(model, options.steps)
    print(f"{accuracy(model):.0%} of new captions are right")
    for _ in range(3):
        picture, caption = random_picture()
        print(f"{caption}: {model.describe(picture)}")


if __name__ == "__main__":
    main()
