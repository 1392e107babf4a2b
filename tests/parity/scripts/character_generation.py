"""Generate text, character by character, with an LSTM that has read a small story."""

import argparse
import math
import random

import torch
from torch import nn

ANIMALS = ["cat", "dog", "fox", "hen", "owl", "pig"]
PLACES = ["barn", "garden", "house", "river", "wood"]
VERBS = ["jumped", "ran", "slept", "walked", "waited"]
ADJECTIVES = ["big", "brown", "little", "old", "quick"]
PREPOSITIONS = ["behind", "beside", "in", "near"]

EMBEDDING_SIZE = 24
HIDDEN_SIZE = 96
BATCH_SIZE = 8
WINDOW = 32

State = tuple[torch.Tensor, torch.Tensor]


def sentence() -> str:
    """A sentence of the story."""
    animal, other = random.sample(ANIMALS, 2)
    adjective, place = random.choice(ADJECTIVES), random.choice(PLACES)
    verb, preposition = random.choice(VERBS), random.choice(PREPOSITIONS)
    return random.choice(
        [
            f"the {adjective} {animal} {verb} {preposition} the {place}. ",
            f"the {animal} saw the {other} {preposition} the {place}. ",
            f"the {animal} and the {other} {verb}. ",
        ]
    )


def story(sentences: int = 300) -> str:
    """The text to learn; the same whenever it is made."""
    random.seed(1)
    return "".join(sentence() for _ in range(sentences))


TEXT = story()
TRAIN_TEXT, TEST_TEXT = TEXT[:-2000], TEXT[-2000:]
CHARACTERS = sorted(set(TEXT))
CHARACTER_TO_ID = {character: number for number, character in enumerate(CHARACTERS)}


def encode(text: str) -> torch.Tensor:
    """The ids of characters, [characters]."""
    return torch.tensor([CHARACTER_TO_ID[character] for character in text])


def decode(ids: list[int]) -> str:
    """The text that ids stand for."""
    return "".join(CHARACTERS[number] for number in ids)


class CharacterModel(nn.Module):
    """Predicts each next character from those before."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(CHARACTERS), EMBEDDING_SIZE)
        self.lstm = nn.LSTM(EMBEDDING_SIZE, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, len(CHARACTERS))

    def forward(self, ids: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Map ids [batch, steps] to logits [batch, steps, characters] and the state."""
        hidden, (h, c) = self.lstm(self.embedding(ids), state)
        return self.output(hidden), (h, c)


def windows(ids: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Consecutive windows of inputs and targets; row b of each continues row b of the last."""
    length = (len(ids) - 1) // BATCH_SIZE
    inputs = ids[: BATCH_SIZE * length].reshape(BATCH_SIZE, length)
    targets = ids[1 : BATCH_SIZE * length + 1].reshape(BATCH_SIZE, length)
    starts = range(0, length - WINDOW + 1, WINDOW)
    return [(inputs[:, k : k + WINDOW], targets[:, k : k + WINDOW]) for k in starts]


def train(model: CharacterModel, steps: int) -> list[float]:
    """Read the story again and again; return the losses."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    batches = windows(encode(TRAIN_TEXT))
    losses: list[float] = []
    state: State | None = None
    model.train()
    for step in range(steps):
        inputs, targets = batches[step % len(batches)]
        if step % len(batches) == 0:
            state = None  # the story begins again

        optimizer.zero_grad()
        logits, (h, c) = model(inputs, state)
        loss = criterion(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        state = h.detach(), c.detach()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {sum(losses[-100:]) / 100:.3f}")
    return losses


def bits_per_character(model: CharacterModel, text: str) -> float:
    """The mean loss over a text, in bits."""
    model.eval()
    criterion = nn.CrossEntropyLoss()
    ids = encode(text)
    with torch.no_grad():
        logits, _ = model(ids[:-1].reshape(1, -1))
        loss = criterion(logits[0], ids[1:])
    return loss.item() / math.log(2)


def generate(model: CharacterModel, start: str, length: int, temperature: float = 0.7) -> str:
    """Continue a text, sampling one character after the other."""
    model.eval()
    ids = [CHARACTER_TO_ID[character] for character in start]
    state: State | None = None
    text = encode(start)
    with torch.no_grad():
        for _ in range(length):
            logits, state = model(text.reshape(1, -1), state)
            probabilities = (logits[0, -1] / temperature).softmax(-1)
            text = torch.multinomial(probabilities, 1)
            ids += text.tolist()
    return decode(ids)


def main() -> None:
    """Train, and generate at several temperatures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    print(f"{len(TRAIN_TEXT)} characters to learn, such as: {TRAIN_TEXT[:60]}")
    model = CharacterModel()
    train(model, options.steps)
    print(f"{bits_per_character(model, TEST_TEXT):.3f} bits a character of the rest of the story")
    for temperature in (0.3, 0.7, 1.2):
        print(f"temperature {temperature}: {generate(model, 'the ', 120, temperature)}")


if __name__ == "__main__":
    main()
