"""Temporal order: in a hundred steps of distractors only two symbols and their order matter.

    python examples/temporal_order.py --cell gru --classes 8

The task of Hochreiter & Schmidhuber 1997 (experiments 6a and 6b); `--length 10` is easy. Training
stops when 99 % of a test set are right, and the number of sequences it took is printed. `--cell
rnn` shows that a simple recurrent network stays at chance level.
"""

import argparse

import numpy as np

from anaphora import no_grad, optim, random
from anaphora.cells import CELLS
from anaphora.data import Batch, SampledBatches
from anaphora.models import SequenceClassifier
from anaphora.synthetic import TEMPORAL_SYMBOLS, temporal_order
from anaphora.training import Callback, Trainer, TrainingOptions

PUBLISHED = {4: 31_390, 8: 571_100}
"""The number of sequences that the LSTM of 1997 needed, by the number of classes."""


class StopWhenSolved(Callback):
    """Measure the accuracy on a test set periodically; stop when it reaches the goal."""

    def __init__(self, test, goal, every):
        self.test, self.goal, self.every = test, goal, every
        self.accuracy = 0.0

    def on_step(self, trainer, loss):
        """Measure at intervals."""
        progress = trainer.progress
        if progress.step % self.every == 0:
            self.accuracy = accuracy(trainer.model, self.test)
            print(f"{progress.tokens:8,} sequences: loss {loss:.4f}, accuracy {self.accuracy:.2%}")
            if self.accuracy >= self.goal:
                trainer.request_stop("solved")


def accuracy(model, batch):
    """The share of correctly classified sequences."""
    with no_grad():
        predicted = model(batch.inputs, batch.lengths).data.argmax(axis=1)
    return float((predicted == batch.targets).mean())


def main(arguments=None):
    """Train until the task is solved; return the accuracy and the sequences that it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--classes", type=int, choices=PUBLISHED, default=4)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--hidden-size", type=int, default=32)
    parser.add_argument("--forget-bias", type=float, help="such as 5, for LSTM")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--max-sequences", type=int, default=600_000)
    parser.add_argument("--test-sequences", type=int, default=2560)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    one_hot = np.eye(len(TEMPORAL_SYMBOLS), dtype=np.float32)

    def sample(generator, batch_size=options.batch_size):
        ids, order, lengths = temporal_order(generator, batch_size, options.classes, options.length)
        return Batch(one_hot[ids], order, lengths)

    random.seed(options.seed)  # initial weights
    test = sample(np.random.default_rng((options.seed, 1)), options.test_sequences)
    model = SequenceClassifier(
        options.classes,
        hidden_size=options.hidden_size,
        input_size=len(TEMPORAL_SYMBOLS),
        cell=options.cell,
        forget_bias=options.forget_bias,
    )
    watch = StopWhenSolved(test, goal=0.99, every=100)
    trainer = Trainer(
        model,
        optim.Adam(model.parameters(), options.learning_rate),
        SampledBatches(sample, count=100),
        TrainingOptions(
            max_steps=max(1, options.max_sequences // options.batch_size),
            clip_norm=1.0,
            seed=options.seed,
        ),
        callbacks=[watch],
    )
    reason = trainer.run()
    found = {"accuracy": accuracy(model, test), "sequences": trainer.progress.tokens}
    print(
        f"{reason}: {options.cell}, {options.classes} classes, length {options.length}: accuracy "
        f"{found['accuracy']:.2%} after {found['sequences']:,} sequences (the LSTM of 1997, at "
        f"length 100: {PUBLISHED[options.classes]:,})"
    )
    return found


if __name__ == "__main__":
    main()
