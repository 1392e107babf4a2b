"""A language model of words: two layers of LSTM, truncated backpropagation, tied weights."""

import argparse
import math
import random

import anaphora as torch
from anaphora import nn

SUBJECTS = {
    "singular": ["a farmer", "the miller", "our neighbour", "the old captain"],
    "plural": ["two farmers", "the millers", "our neighbours", "some captains"],
}
VERBS = {
    "singular": ["buys", "carries", "finds", "paints", "sells"],
    "plural": ["buy", "carry", "find", "paint", "sell"],
}
OBJECTS = ["a boat", "bread", "fish", "the house", "three horses", "wood"]
TIMES = ["at night", "before noon", "every day", "in spring", "on sundays"]
RELATIVES = ["who {} {}", "that {} {}"]

EMBEDDING_SIZE = 64
BATCH_SIZE = 10
WINDOW = 20
CLIP = 0.25

State = tuple[torch.Tensor, torch.Tensor]


def random_sentence() -> str:
    """A sentence in which the verb agrees with a subject that may be far before it."""
    number = random.choice(list(SUBJECTS))
    words = [random.choice(SUBJECTS[number])]
    if random.random() < 0.4:
        relative = random.choice(RELATIVES)
        words.append(relative.format(random.choice(VERBS[number]), random.choice(OBJECTS)))
    words += [random.choice(VERBS[number]), random.choice(OBJECTS)]
    if random.random() < 0.5:
        words.append(random.choice(TIMES))
    return " ".join(words) + " <eos>"


class Dictionary:
    """Numbers the words in the order in which they occur."""

    def __init__(self) -> None:
        self.word_to_id: dict[str, int] = {}
        self.words: list[str] = []

    def add(self, word: str) -> int:
        """The number of a word, which is new or known."""
        if word not in self.word_to_id:
            self.word_to_id[word] = len(self.words)
            self.words.append(word)
        return self.word_to_id[word]

    def __len__(self) -> int:
        return len(self.words)


class Corpus:
    """Texts for training and validation, as ids."""

    def __init__(self, train_sentences: int = 1000, valid_sentences: int = 200) -> None:
        random.seed(1)
        self.dictionary = Dictionary()
        self.train = self.tokenize([random_sentence() for _ in range(train_sentences)])
        self.valid = self.tokenize([random_sentence() for _ in range(valid_sentences)])

    def tokenize(self, sentences: list[str]) -> list[int]:
        """The ids of all words, in one list."""
        return [self.dictionary.add(word) for line in sentences for word in line.split()]


CORPUS = Corpus()


def to_columns(ids: list[int], columns: int) -> torch.Tensor:
    """The text in columns of equal length, side by side: [steps, columns]."""
    length = len(ids) // columns
    return torch.Tensor(ids[: columns * length]).reshape(columns, length).T


def get_batch(text: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A window of inputs, and the words that follow them."""
    length = min(WINDOW, len(text) - 1 - start)
    return text[start : start + length], text[start + 1 : start + 1 + length]


class WordModel(nn.Module):
    """Embedding, LSTM, and an output layer that has the weights of the embedding."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Embedding(len(CORPUS.dictionary), EMBEDDING_SIZE)
        self.lstm = nn.LSTM(EMBEDDING_SIZE, EMBEDDING_SIZE, num_layers=2, dropout=dropout)
        self.decoder = nn.Linear(EMBEDDING_SIZE, len(CORPUS.dictionary))
        self.decoder.weight = self.encoder.weight

    def forward(
        self, words: torch.Tensor, state: State | None = None
    ) -> tuple[torch.Tensor, State]:
        """Map words [steps, batch] to logits [steps * batch, words] and the state."""
        hidden, (h, c) = self.lstm(self.dropout(self.encoder(words)), state)
        logits = self.decoder(self.dropout(hidden))
        return logits.flatten(0, 1), (h, c)


def evaluate(model: WordModel, text: torch.Tensor) -> float:
    """The mean loss over a text."""
    criterion = nn.CrossEntropyLoss(reduction="sum")
    model.eval()
    total = 0.0
    state: State | None = None
    with torch.no_grad():
        for start in range(0, len(text) - 1, WINDOW):
            inputs, targets = get_batch(text, start)
            logits, state = model(inputs, state)
            total += criterion(logits, targets.flatten()).item()
    return total / ((len(text) - 1) * BATCH_SIZE)


def train(model: WordModel, steps: int) -> list[float]:
    """Train with truncated backpropagation through time, and return the losses.

    The learning rate is divided when an epoch did not improve the validation loss.
    """
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), learning_rate=5.0)
    train_text = to_columns(CORPUS.train, BATCH_SIZE)
    valid_text = to_columns(CORPUS.valid, BATCH_SIZE)
    losses: list[float] = []
    best = math.inf
    while len(losses) < steps:
        state: State | None = None
        model.train()
        for start in range(0, len(train_text) - 1, WINDOW):
            inputs, targets = get_batch(train_text, start)
            model.zero_grad()
            logits, (h, c) = model(inputs, state)
            loss = criterion(logits, targets.flatten())
            loss.backward()
            torch.optim.clip_grad_norm(model.parameters(), CLIP)
            optimizer.step()
            state = h.detach(), c.detach()
            losses.append(loss.item())
            if len(losses) == steps:
                break
        valid_loss = evaluate(model, valid_text)
        print(f"step {len(losses)}: validation perplexity {math.exp(valid_loss):.2f}")
        if valid_loss >= best:
            optimizer.learning_rate /= 4
        best = min(best, valid_loss)
    return losses


def continuation(model: WordModel, beginning: str, words: int = 8) -> str:
    """The most probable words after a beginning."""
    model.eval()
    text = beginning.split()
    with torch.no_grad():
        for _ in range(words):
            ids = [CORPUS.dictionary.word_to_id[word] for word in text]
            logits, _ = model(to_columns(ids, 1))
            text.append(CORPUS.dictionary.words[int(logits[-1].argmax().item())])
            if text[-1] == "<eos>":
                break
    return " ".join(text)


def main() -> None:
    """Train, and complete two beginnings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.random.seed(options.seed)
    model = WordModel()
    train(model, options.steps)
    print(continuation(model, "the miller who sells bread"))
    print(continuation(model, "the millers who sell bread"))


if __name__ == "__main__":
    main()
