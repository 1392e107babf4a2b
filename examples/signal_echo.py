"""Signal echo: repeat random bits some steps later, with the state carried across windows.

    python examples/signal_echo.py --delays 5 10 15 18 --window 20

Truncated backpropagation through time: gradients stop at the start of a window, states do not, so
bits of the previous window are echoed too. A delay longer than the window cannot be learned this
way, and one that is nearly as long only with difficulty, because few targets of a window have their
bit in it. So each delay continues from the model of the previous one, unless --no-curriculum is
given.
"""

import argparse

import numpy as np

from anaphora import detach, no_grad, optim, random
from anaphora.cells import CELLS
from anaphora.data import IGNORE_INDEX, SignalBatches
from anaphora.models import SequenceTagger
from anaphora.synthetic import signal_echo
from anaphora.training import Callback, Trainer, TrainingOptions


class StopWhenSolved(Callback):
    """Stop when every echo of test streams is right."""

    def __init__(self, test):
        self.test = test

    def on_step(self, trainer, loss):
        """Measure at intervals."""
        if trainer.progress.step % 50 == 0 and accuracy(trainer.model, self.test) == 1:
            trainer.request_stop("solved")


def accuracy(model, batches):
    """The share of correct echoes, with the state carried from window to window."""
    right = count = 0
    state = None
    with no_grad():
        for batch in batches:
            logits, state = model(batch.inputs, detach(state))
            expected = batch.targets != IGNORE_INDEX
            right += ((logits.data.argmax(axis=2) == batch.targets) & expected).sum()
            count += expected.sum()
    return float(right / count)


def make(options):
    """A new model."""
    random.seed(options.seed)  # initial weights
    return SequenceTagger(
        2, hidden_size=options.hidden_size, vocabulary_size=2, embedding_size=4, cell=options.cell
    )


def learn(model, delay, options):
    """Train a model for one delay; return its accuracy on test streams and the bits it took."""
    generator = np.random.default_rng((options.seed, delay))

    def streams(windows):
        bits = signal_echo(generator, windows * options.window, options.batch_size, delay)
        return SignalBatches(*bits, options.window)

    test = streams(20)
    trainer = Trainer(
        model,
        optim.Adam(model.parameters(), options.learning_rate),
        streams(200),
        TrainingOptions(max_steps=options.max_steps, clip_norm=1.0),
        callbacks=[StopWhenSolved(test)],
    )
    trainer.run()
    return accuracy(model, test), trainer.progress.tokens


def main(arguments=None):
    """Learn every delay; return the accuracy and the number of bits for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delays", type=int, nargs="+", default=[5, 10, 13, 15, 16, 17, 18])
    parser.add_argument("--window", type=int, default=20)
    parser.add_argument("--curriculum", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cell", choices=CELLS, default="gru")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--max-steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)

    found = {}
    model = make(options)
    for delay in options.delays:
        if not options.curriculum:
            model = make(options)
        right, bits = learn(model, delay, options)
        found[delay] = {"accuracy": right, "bits": bits}
        print(f"{options.cell}, delay {delay}: {right:.2%} of the echoes right after {bits:,} bits")
    return found


if __name__ == "__main__":
    main()
