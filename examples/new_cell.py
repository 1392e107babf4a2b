"""A new cell in five lines, compared with an LSTM, and a look at its gate at work.

    python examples/new_cell.py --steps 500

The task is the adding problem of Hochreiter & Schmidhuber 1997: each step brings a random number,
two of them are marked, and the target at the end of the sequence is their sum. A model that always
answers 1 has the error 1/6.
"""

import argparse

import numpy as np

from anaphora import cell, nn, ops, optim, random
from anaphora.equations import sigmoid, tanh


@cell(gates="f n", state="h")
def forgetful(f, n, h):
    """Write exactly as much as is forgotten: one gate and one state."""
    f, n = sigmoid(f), tanh(n)
    h = f * h + (1 - f) * n
    return h


class Adder(nn.Module):
    """A recurrent layer, and a linear layer that gives one number from its last output.

    Shapes: x [T, B, 2]; returns [B].
    """

    def __init__(self, cell, hidden_size):
        self.recurrent = nn.Recurrent(cell, input_size=2, hidden_size=hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, x):
        """Read sequences, and answer with one number each."""
        y, _ = self.recurrent(x)
        return self.output(y[-1]).reshape(-1)


def make_batch(generator, length, batch_size):
    """Sample sequences [T, B, 2], a number and a mark per step, and the marked sums [B]."""
    x = np.zeros((length, batch_size, 2), np.float32)
    x[:, :, 0] = generator.random((length, batch_size))
    rows = np.arange(batch_size)
    x[generator.integers(0, length // 2, batch_size), rows, 1] = 1
    x[generator.integers(length // 2, length, batch_size), rows, 1] = 1
    return x, (x[:, :, 0] * x[:, :, 1]).sum(axis=0)


def train(cell, arguments):
    """Train a model with this cell on new random sequences at every step; return it."""
    random.seed(arguments.seed)  # initial weights
    generator = np.random.default_rng(arguments.seed)
    model = Adder(cell, arguments.hidden_size)
    optimizer = optim.Adam(model.parameters(), learning_rate=0.01)
    count = sum(parameter.size for parameter in model.parameters())
    for step in range(1, arguments.steps + 1):
        x, sums = make_batch(generator, arguments.length, batch_size=64)
        error = ops.mean_squared_error(model(x), sums)
        error.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % max(1, arguments.steps // 5) == 0:
            name = model.recurrent.cell.name
            print(
                f"{name:>9}, {count} parameters, step {step}: mean squared error {error.item():.4f}"
            )
    return model


def main():
    """Print the traced program, train both cells, and show the gate of the new one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--hidden-size", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    print(forgetful, end="\n\n")
    train("lstm", arguments)
    model = train(forgetful, arguments)

    x, sums = make_batch(np.random.default_rng(arguments.seed + 1), arguments.length, batch_size=1)
    _, _, named = model.recurrent.record(x)  # every value that the equations name, [T, B, H]
    unit = named["f_l0"][:, 0].std(axis=0).argmax()
    print(f"\nThe gate f of unit {unit}, which varies most; * marks the numbers to add:")
    for t, ((number, mark), f) in enumerate(zip(x[:, 0], named["f_l0"][:, 0, unit], strict=True)):
        bar = "#" * round(40 * float(f))
        print(f"{t:3} {number:.2f} {'*' if mark else ' '}  f = {f:.2f} {bar}")
    print(f"expected {sums[0]:.2f}, answered {model(x).item():.2f}")


if __name__ == "__main__":
    main()
