"""Translate dates as people write them to ISO 8601: a GRU encoder, attention, a GRU decoder."""

import argparse
import datetime
import random

import anaphora as torch
from anaphora import nn

FORMATS = ["%d %B %Y", "%B %d, %Y", "%d %b %y", "%a %d %b %Y", "%d/%m/%Y", "%d.%m.%y"]
PAD, START, END = "_", "<", ">"
SOURCE_CHARACTERS = PAD + " ,./0123456789ABCDFGHIJLMNOPRSTUVWYabcdefghiklmnoprstuvwxyz"
TARGET_CHARACTERS = PAD + START + END + "-0123456789"
SOURCE_TO_ID = {character: number for number, character in enumerate(SOURCE_CHARACTERS)}
TARGET_TO_ID = {character: number for number, character in enumerate(TARGET_CHARACTERS)}

EMBEDDING_SIZE = 24
HIDDEN_SIZE = 64
BATCH_SIZE = 32
TARGET_LENGTH = len("2026-11-27") + 1  # with the end


def random_pair() -> tuple[str, str]:
    """A date in some format, and in that of ISO 8601."""
    day = datetime.date(1950, 1, 1) + datetime.timedelta(days=random.randrange(36500))
    return day.strftime(random.choice(FORMATS)), day.isoformat()


def encode_sources(texts: list[str]) -> list[list[int]]:
    """Ids of the characters of dates, padded to the longest."""
    longest = max(map(len, texts))
    return [[SOURCE_TO_ID[c] for c in text.ljust(longest, PAD)] for text in texts]


def encode_targets(texts: list[str]) -> list[list[int]]:
    """Ids of the characters of translations, with the end."""
    return [[TARGET_TO_ID[c] for c in text + END] for text in texts]


def random_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Sources [batch, steps] and targets [batch, steps]."""
    pairs = [random_pair() for _ in range(BATCH_SIZE)]
    source = encode_sources([written for written, _ in pairs])
    target = encode_targets([standard for _, standard in pairs])
    return torch.Tensor(source), torch.Tensor(target)


class Encoder(nn.Module):
    """Reads the date in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SOURCE_CHARACTERS), EMBEDDING_SIZE, padding_idx=0)
        self.gru = nn.GRU(EMBEDDING_SIZE, HIDDEN_SIZE, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * HIDDEN_SIZE, HIDDEN_SIZE)

    def forward(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs of all steps, and the state with which the decoder begins."""
        outputs, _ = self.gru(self.embedding(source))
        return outputs, self.bridge(outputs.mean(1)).tanh()


class Attention(nn.Module):
    """The additive attention of Bahdanau et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE)
        self.key = nn.Linear(2 * HIDDEN_SIZE, HIDDEN_SIZE, bias=False)
        self.score = nn.Linear(HIDDEN_SIZE, 1, bias=False)

    def forward(
        self, state: torch.Tensor, outputs: torch.Tensor, source: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the context [batch, 2 H] and the weights [batch, steps, 1]."""
        energy = (self.query(state)[:, None] + self.key(outputs)).tanh()
        padding = source[:, :, None] == 0
        weights = self.score(energy).masked_fill(padding, -1e9).softmax(1)
        return (weights * outputs).sum(1), weights


class Translator(nn.Module):
    """Encoder, attention and decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.attention = Attention()
        self.embedding = nn.Embedding(len(TARGET_CHARACTERS), EMBEDDING_SIZE)
        self.cell = nn.GRUCell(EMBEDDING_SIZE + 2 * HIDDEN_SIZE, HIDDEN_SIZE)
        self.output = nn.Linear(HIDDEN_SIZE, len(TARGET_CHARACTERS))

    def forward(
        self, source: torch.Tensor, target: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """The logits of each step; with a target each step reads the character before it."""
        outputs, state = self.encoder(source)
        previous = torch.full((len(source),), TARGET_TO_ID[START])
        logits = []
        for step in range(TARGET_LENGTH):
            context, _ = self.attention(state, outputs, source)
            x = torch.ops.concatenate([self.embedding(previous), context], axis=1)
            state = self.cell(x, state)
            logits.append(self.output(state))
            previous = logits[-1].argmax(1) if target is None else target[:, step]
        return logits


def train(model: Translator, steps: int) -> list[float]:
    """Train on random dates, and return the losses."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate=5e-3)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        source, target = random_batch()
        optimizer.zero_grad()
        loss = torch.zeros(())
        for number, logits in enumerate(model(source, target)):
            loss = loss + criterion(logits, target[:, number])
        loss = loss / TARGET_LENGTH
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 50 == 0:
            print(f"step {step}: loss {sum(losses[-50:]) / 50:.3f}")
    return losses


def accuracy(model: Translator, batches: int = 5) -> float:
    """The share of new dates whose translation is right in every character."""
    model.eval()
    right = 0
    with torch.no_grad():
        for _ in range(batches):
            source, target = random_batch()
            steps = [logits.argmax(1).tolist() for logits in model(source)]
            found = list(map(list, zip(*steps, strict=True)))
            right += sum(a == b for a, b in zip(found, target.tolist(), strict=True))
    return right / (batches * BATCH_SIZE)


def main() -> None:
    """Train, and count how many new dates are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.random.seed(options.seed)
    model = Translator()
    train(model, options.steps)
    print(f"{accuracy(model):.0%} of new dates are right")


if __name__ == "__main__":
    main()
