"""Tag the words of sentences: a bidirectional LSTM and a conditional random field, by hand."""

import argparse
import random

import torch
from torch import nn

WORDS = {
    "DET": ["a", "every", "the", "this"],
    "ADJ": ["old", "quiet", "round", "small"],
    "NOUN": ["bird", "book", "child", "light", "round", "walk"],
    "VERB": ["light", "reads", "sees", "walk"],
    "ADV": ["often", "quickly", "there"],
    "ADP": ["in", "near", "with"],
}
PATTERNS = [
    "DET NOUN VERB DET NOUN",
    "DET ADJ NOUN VERB ADV",
    "DET NOUN ADV VERB DET ADJ NOUN",
    "DET NOUN ADP DET NOUN VERB DET NOUN",
    "ADV DET ADJ NOUN VERB",
]
TAGS = list(WORDS)
VOCABULARY = sorted({word for words in WORDS.values() for word in words})
WORD_TO_ID = {word: number for number, word in enumerate(VOCABULARY)}
TAG_TO_ID = {tag: number for number, tag in enumerate(TAGS)}

EMBEDDING_SIZE = 16
HIDDEN_SIZE = 24


def random_sentence() -> tuple[list[str], list[str]]:
    """Words and their tags; some words have one of two, by what stands beside them."""
    tags = random.choice(PATTERNS).split()
    return [random.choice(WORDS[tag]) for tag in tags], tags


def to_tensor(items: list[str], ids: dict[str, int]) -> torch.Tensor:
    """The ids of words or tags, [steps]."""
    return torch.tensor([ids[item] for item in items])


class CRF(nn.Module):
    """A linear-chain conditional random field (Lafferty et al. 2001) over the tags."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(tags))
        self.end = nn.Parameter(torch.randn(tags))
        self.transitions = nn.Parameter(torch.randn(tags, tags))  # from a row to a column

    def log_partition(self, emissions: torch.Tensor) -> torch.Tensor:
        """The logarithm of the sum over all paths, by the forward algorithm."""
        alpha = self.start + emissions[0]
        for emission in emissions[1:]:
            alpha = (alpha[:, None] + self.transitions).logsumexp(0) + emission
        return (alpha + self.end).logsumexp(0)

    def score(self, emissions: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        """The score of one path."""
        score = self.start[tags[0]] + self.end[tags[-1]]
        score = score + emissions[torch.arange(len(tags)), tags].sum()
        return score + self.transitions[tags[:-1], tags[1:]].sum()

    def forward(self, emissions: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        """The negative log-likelihood of tags."""
        return self.log_partition(emissions) - self.score(emissions, tags)

    def decode(self, emissions: torch.Tensor) -> list[int]:
        """The best path, by the algorithm of Viterbi."""
        best = self.start + emissions[0]
        pointers: list[list[int]] = []
        for emission in emissions[1:]:
            arriving = best[:, None] + self.transitions
            best, places = arriving.max(dim=0)
            best = best + emission
            pointers.append(places.tolist())
        path = [int((best + self.end).argmax().item())]
        for back in reversed(pointers):
            path.append(back[path[-1]])
        return path[::-1]


class Tagger(nn.Module):
    """Emissions from a bidirectional LSTM, and a CRF that reads them."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), EMBEDDING_SIZE)
        self.lstm = nn.LSTM(EMBEDDING_SIZE, hidden_size, bidirectional=True)
        self.output = nn.Linear(2 * hidden_size, len(TAGS))
        self.crf = CRF(len(TAGS))

    def emissions(self, words: torch.Tensor) -> torch.Tensor:
        """A score of each tag for each word, [steps, tags]."""
        hidden, _ = self.lstm(self.embedding(words))
        return self.output(hidden)

    def forward(self, words: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        """The loss of a sentence."""
        return self.crf(self.emissions(words), tags)

    def predict(self, words: list[str]) -> list[str]:
        """The tags of words."""
        with torch.no_grad():
            path = self.crf.decode(self.emissions(to_tensor(words, WORD_TO_ID)))
        return [TAGS[number] for number in path]


def train(model: Tagger, steps: int) -> list[float]:
    """Train on one sentence a step, and return the losses."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        words, tags = random_sentence()
        optimizer.zero_grad()
        loss = model(to_tensor(words, WORD_TO_ID), to_tensor(tags, TAG_TO_ID))
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {sum(losses[-100:]) / 100:.3f}")
    return losses


def accuracy(model: Tagger, sentences: int = 100) -> float:
    """The share of words in new sentences whose tag is right."""
    model.eval()
    right = total = 0
    for _ in range(sentences):
        words, tags = random_sentence()
        right += sum(a == b for a, b in zip(model.predict(words), tags, strict=True))
        total += len(tags)
    return right / total


def main() -> None:
    """Train, and tag a sentence whose words have several tags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    model = Tagger()
    train(model, options.steps)
    print(f"{accuracy(model):.1%} of the words are right")
    words = ["the", "round", "light", "often", "light", "this", "round", "walk"]
    print(*(f"{word}/{tag}" for word, tag in zip(words, model.predict(words), strict=True)))


if __name__ == "__main__":
    main()
