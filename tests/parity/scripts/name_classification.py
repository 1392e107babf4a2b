"""Classify names by language, letter by letter, with a plain recurrent network.

The names are made of syllables that are typical of each language.
"""

import argparse
import random

import torch

SYLLABLES = {
    "Finnish": ["aal", "hei", "kki", "la", "niemi", "nen", "pää", "vir", "ta", "jär"],
    "German": ["bach", "berg", "fried", "ger", "hoff", "mann", "schu", "stein", "wald", "zimmer"],
    "Italian": ["bel", "ca", "ferr", "gio", "lini", "ma", "netti", "ro", "ssi", "vanni"],
    "Japanese": ["fuji", "haya", "ka", "ki", "mori", "naka", "shi", "ta", "wa", "yama"],
    "Polish": ["dąb", "ewicz", "ka", "kow", "ma", "nowa", "rski", "szcz", "ski", "wal"],
}
LANGUAGES = sorted(SYLLABLES)
LETTERS = sorted({letter for parts in SYLLABLES.values() for letter in "".join(parts)})
LETTER_TO_ID = {letter: number for number, letter in enumerate(LETTERS)}

HIDDEN_SIZE = 64
LEARNING_RATE = 0.01


def random_name(language: str) -> str:
    """A name of two or three syllables."""
    return "".join(random.choices(SYLLABLES[language], k=random.randint(2, 3)))


def random_example() -> tuple[str, str]:
    """A language, and a name from it."""
    language = random.choice(LANGUAGES)
    return language, random_name(language)


def name_to_tensor(name: str) -> torch.Tensor:
    """One-hot vectors of the letters: [steps, 1, letters]."""
    ids = [[LETTER_TO_ID[letter]] for letter in name]
    return torch.nn.functional.one_hot(torch.tensor(ids), len(LETTERS)).float()


class NameClassifier(torch.nn.Module):
    """Reads a name and returns the log-probabilities of the languages."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.rnn = torch.nn.RNN(len(LETTERS), hidden_size)
        self.output = torch.nn.Linear(hidden_size, len(LANGUAGES))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """Map letters [steps, 1, letters] to log-probabilities [1, languages]."""
        _, hidden = self.rnn(letters)
        return self.output(hidden[-1]).log_softmax(-1)


def train(model: NameClassifier, steps: int) -> list[float]:
    """Train on one name a step, and return the losses."""
    criterion = torch.nn.NLLLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        language, name = random_example()
        target = torch.tensor([LANGUAGES.index(language)])

        optimizer.zero_grad()
        loss = criterion(model(name_to_tensor(name)), target)
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 500 == 0:
            print(f"step {step}: loss {sum(losses[-500:]) / 500:.3f}")
    return losses


def guesses(model: NameClassifier, name: str, count: int = 2) -> list[tuple[str, float]]:
    """The most probable languages of a name, with their probabilities."""
    model.eval()
    with torch.no_grad():
        log_probabilities = model(name_to_tensor(name))
    values, indices = log_probabilities.exp().topk(count)
    found = zip(indices[0].tolist(), values[0].tolist(), strict=True)
    return [(LANGUAGES[index], probability) for index, probability in found]


def confusion_matrix(model: NameClassifier, names: int = 20) -> list[list[float]]:
    """For each language (a row) the share of its names that is taken for each language."""
    matrix = []
    for language in LANGUAGES:
        counts = dict.fromkeys(LANGUAGES, 0)
        for _ in range(names):
            best, _ = guesses(model, random_name(language), count=1)[0]
            counts[best] += 1
        matrix.append([counts[other] / names for other in LANGUAGES])
    return matrix


def accuracy(matrix: list[list[float]]) -> float:
    """The share of names whose language is right: the mean of the diagonal."""
    return sum(row[number] for number, row in enumerate(matrix)) / len(matrix)


def print_matrix(matrix: list[list[float]]) -> None:
    """Print a confusion matrix with the names of the languages."""
    width = max(map(len, LANGUAGES)) + 2
    print(" " * width + "".join(f"{language:>{width}}" for language in LANGUAGES))
    for language, row in zip(LANGUAGES, matrix, strict=True):
        print(f"{language:<{width}}" + "".join(f"{share:>{width}.2f}" for share in row))


def main() -> None:
    """Train, and show what the network takes for what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)
    model = NameClassifier()
    train(model, options.steps)
    matrix = confusion_matrix(model)
    print_matrix(matrix)
    print(f"{accuracy(matrix):.1%} of new names are right")
    for name in ("virtanen", "rossini", "nakayama", "bergmann"):
        print(name, *(f"{language} {share:.2f}" for language, share in guesses(model, name)))


if __name__ == "__main__":
    main()
