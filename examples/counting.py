"""Counting: n words are followed by n b and n a; does a network count beyond its training?

    python examples/counting.py --longest 10

In a^n b^n a^n everything after the first b is determined. A language model reads sequences up to
--longest, some of them with unknown words in place of the first a's. Then it continues a prompt of
n words and one b: a continuation is right if every word up to the end is. The task is that of Gers
& Schmidhuber 2001, with one more block.
"""

import argparse

import numpy as np

from anaphora import no_grad, optim, random
from anaphora.cells import CELLS
from anaphora.data import SequenceBatches
from anaphora.models import LanguageModel
from anaphora.synthetic import COUNTING_TOKENS, count_block
from anaphora.training import Trainer, TrainingOptions


def continues(model, ids):
    """Whether the model continues from the first b as the sequence does.

    If the most likely word after every correct prefix is right, so is the text that the model
    generates.
    """
    with no_grad():
        logits, _ = model(ids[:-1, None])
    predicted = logits.data[:, 0].argmax(axis=1)
    start = list(ids).index(COUNTING_TOKENS.index("b"))
    return bool((predicted[start:] == ids[start + 1 :]).all())


def batches_of(sequences, batch_size):
    """Batches whose targets are the next words."""
    return SequenceBatches(
        [ids[:-1] for ids in sequences], [ids[1:] for ids in sequences], batch_size, per_step=True
    )


def main(arguments=None):
    """Train, and return the shares of right continuations and the largest n counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--longest", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--unknown-share", type=float, default=0.2)
    parser.add_argument("--hidden-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    random.seed(options.seed)  # initial weights
    generator = np.random.default_rng(options.seed)
    sizes = generator.integers(1, options.longest + 1, options.sequences)
    unknown = generator.random(options.sequences) < options.unknown_share
    sequences = [count_block(n, u) for n, u in zip(sizes, unknown, strict=True)]
    first, second = int(0.8 * len(sequences)), int(0.9 * len(sequences))
    validation, test = sequences[first:second], sequences[second:]

    model = LanguageModel(len(COUNTING_TOKENS), hidden_size=options.hidden_size, cell=options.cell)
    Trainer(
        model,
        optim.Adam(model.parameters(), options.learning_rate),
        batches_of(sequences[:first], options.batch_size),
        TrainingOptions(epochs=options.epochs, clip_norm=1.0, seed=options.seed),
        validation=batches_of(validation, len(validation)),
    ).run()

    def right(blocks):
        return float(np.mean([continues(model, ids) for ids in blocks]))

    largest = 0
    while largest < 1000 and continues(model, count_block(largest + 1)):
        largest += 1
    found = {
        "test": right(test),
        "unknown_words": right([count_block(n, True) for n in range(1, options.longest + 1)]),
        "largest_n": largest,
    }
    print(
        f"{options.cell}, trained on n = 1 to {options.longest}: {found['test']:.1%} of the test "
        f"split right, {found['unknown_words']:.1%} of the prompts of unknown words; counts to "
        f"{largest}"
    )
    return found


if __name__ == "__main__":
    main()
