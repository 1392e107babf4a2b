"""Classify reviews of films as good or bad, with an LSTM over padded batches.

The reviews are made up; some deny what they say ("not dull"), so that the order of words counts.
"""

import argparse
import random
from collections.abc import Iterable

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

GOOD = ["brilliant", "charming", "clever", "funny", "moving", "superb", "touching", "warm"]
BAD = ["awful", "boring", "clumsy", "dull", "empty", "flat", "silly", "tired"]
THINGS = ["acting", "camera", "dialogue", "ending", "film", "music", "plot", "story"]
ADVERBS = ["almost", "quite", "really", "simply", "very"]
OPENINGS = [
    "i saw it yesterday",
    "my friends had told me about it",
    "it was on television last night",
    "we went to the cinema",
]
REMARKS = [
    "it lasts two hours",
    "the cinema was half full",
    "it was shot in black and white",
    "the director is young",
]

EMBEDDING_SIZE = 32
HIDDEN_SIZE = 32
BATCH_SIZE = 16

Example = tuple[list[int], float]
Batch = tuple[torch.Tensor, list[int], torch.Tensor]


def opinion(good: bool) -> str:
    """A sentence that praises or criticizes, perhaps by denying the opposite."""
    denied = random.random() < 0.25
    word = random.choice(GOOD if good != denied else BAD)
    thing, adverb = random.choice(THINGS), random.choice(ADVERBS)
    return f"the {thing} is {'not' if denied else adverb} {word}"


def random_review() -> tuple[str, bool]:
    """A review, and whether it is good."""
    good = random.random() < 0.5
    opinions = [opinion(good) for _ in range(random.randint(1, 3))]
    parts = [random.choice(OPENINGS), *opinions, random.choice(REMARKS)]
    if random.random() < 0.5:
        del parts[0]
    if random.random() < 0.5:
        del parts[-1]
    return " . ".join(parts) + " .", good


class Vocabulary:
    """The words that occur at least twice; 0 is the padding, 1 an unknown word."""

    def __init__(self, texts: list[str]) -> None:
        counts: dict[str, int] = {}
        for text in texts:
            for word in text.split():
                counts[word] = counts.get(word, 0) + 1
        self.words = ["<pad>", "<unk>", *sorted(w for w, count in counts.items() if count > 1)]
        self.ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """The ids of the words of a text."""
        return [self.ids.get(word, 1) for word in text.split()]


def read_reviews(count: int, seed: int) -> list[tuple[str, bool]]:
    """Reviews; the same for the same seed."""
    random.seed(seed)
    return [random_review() for _ in range(count)]


TRAIN_REVIEWS = read_reviews(1000, seed=1)
TEST_REVIEWS = read_reviews(200, seed=2)
VOCABULARY = Vocabulary([text for text, _ in TRAIN_REVIEWS])


def to_tensor(numbers: list[int] | list[float]) -> torch.Tensor:
    """Ids or labels, as the network reads them."""
    return torch.tensor(numbers)


def collate(examples: list[Example]) -> Batch:
    """Pad reviews to a batch: ids [batch, steps], lengths and labels [batch]."""
    ids = pad_sequence([to_tensor(review) for review, _ in examples], batch_first=True)
    labels = to_tensor([label for _, label in examples])
    return ids, [len(review) for review, _ in examples], labels


def batches(reviews: list[tuple[str, bool]], shuffle: bool = False) -> Iterable[Batch]:
    """The reviews in batches, for one epoch after the other."""
    examples = [(VOCABULARY.encode(text), float(good)) for text, good in reviews]
    return DataLoader(examples, batch_size=BATCH_SIZE, shuffle=shuffle, collate_fn=collate)


class SentimentClassifier(torch.nn.Module):
    """Reads a review, and returns the logit of a good one."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(len(VOCABULARY), EMBEDDING_SIZE, padding_idx=0)
        self.dropout = torch.nn.Dropout(dropout)
        self.lstm = torch.nn.LSTM(EMBEDDING_SIZE, HIDDEN_SIZE, batch_first=True)
        self.output = torch.nn.Linear(HIDDEN_SIZE, 1)

    def forward(self, ids: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Map ids [batch, steps] to logits [batch]."""
        x = self.dropout(self.embedding(ids))
        x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(x)
        return self.output(self.dropout(h[-1]))[:, 0]


def train(model: SentimentClassifier, steps: int, shuffle: bool = True) -> list[float]:
    """Train for several epochs, and return the losses."""
    criterion = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters())
    losses: list[float] = []
    loader = batches(TRAIN_REVIEWS, shuffle)
    model.train()
    while len(losses) < steps:
        for ids, lengths, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(ids, lengths), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
        print(f"step {len(losses)}: loss {sum(losses[-30:]) / len(losses[-30:]):.3f}")
    return losses


def accuracy(model: SentimentClassifier, reviews: list[tuple[str, bool]]) -> float:
    """The share of reviews that are classified as they should be."""
    model.eval()
    right = 0
    with torch.no_grad():
        for ids, lengths, labels in batches(reviews):
            found = (model(ids, lengths) > 0).tolist()
            right += sum(a == bool(b) for a, b in zip(found, labels.tolist(), strict=True))
    return right / len(reviews)


def probability(model: SentimentClassifier, text: str) -> float:
    """The probability that a review is good."""
    ids, lengths, _ = collate([(VOCABULARY.encode(text), 0.0)])
    model.eval()
    with torch.no_grad():
        return model(ids, lengths).sigmoid().item()


def main() -> None:
    """Train, and classify other reviews."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = SentimentClassifier()
    train(model, options.steps)
    print(f"{accuracy(model, TEST_REVIEWS):.1%} of the test reviews are right")
    for text in ("the plot is not dull .", "the plot is not funny ."):
        print(f"{text} {probability(model, text):.2f}")


if __name__ == "__main__":
    main()
