"""The adding problem with a cell of one's own: a minimal gated unit, written out by hand."""

import argparse
import math

import numpy as np

import anaphora as torch
from anaphora import nn

LENGTH = 20
HIDDEN_SIZE = 32
BATCH_SIZE = 32
BASELINE = 1 / 6  # the mean squared error of always predicting 1

Array = np.typing.NDArray[np.float32]


def make_batch(generator: np.random.Generator, count: int, length: int) -> tuple[Array, Array]:
    """Sequences [length, count, 2] of numbers and marks, and the sums of the two marked numbers.

    One mark is in the first half of each sequence, the other one in the second (Hochreiter &
    Schmidhuber 1997).
    """
    numbers = generator.random((length, count))
    marks = np.zeros((length, count))
    rows = np.arange(count)
    marks[generator.integers(0, length // 2, count), rows] = 1
    marks[generator.integers(length // 2, length, count), rows] = 1
    sums = (numbers * marks).sum(0)
    return np.stack([numbers, marks], -1).astype(np.float32), sums.astype(np.float32)


class Problem:
    """Batches of the problem, new ones without end."""

    def __init__(self, seed: int, length: int = LENGTH) -> None:
        self.generator = np.random.default_rng(seed)
        self.length = length

    def batch(self, count: int = BATCH_SIZE) -> tuple[torch.Tensor, torch.Tensor]:
        """Sequences [length, count, 2] and sums [count]."""
        x, y = make_batch(self.generator, count, self.length)
        return torch.Tensor(x), torch.Tensor(y)


class MinimalGatedUnit(nn.Module):
    """One gate decides what is kept and what is read (Zhou et al. 2016)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.w_f = self.matrix(input_size, hidden_size)
        self.u_f = self.matrix(hidden_size, hidden_size)
        self.b_f = nn.Parameter(torch.ones(hidden_size))
        self.w_h = self.matrix(input_size, hidden_size)
        self.u_h = self.matrix(hidden_size, hidden_size)
        self.b_h = nn.Parameter(torch.zeros(hidden_size))

    def matrix(self, rows: int, columns: int) -> nn.Parameter:
        """Random weights, whose products have about the size of what they multiply."""
        return nn.Parameter(torch.randn(rows, columns) / math.sqrt(rows))

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """The next state, from an input [batch, input_size] and a state [batch, hidden_size]."""
        f = (x @ self.w_f + h @ self.u_f + self.b_f).sigmoid()
        candidate = (x @ self.w_h + (f * h) @ self.u_h + self.b_h).tanh()
        return (1 - f) * h + f * candidate


class AddingNetwork(nn.Module):
    """Runs the cell over a sequence, and reads the sum from its last state."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.cell = MinimalGatedUnit(2, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map sequences [length, batch, 2] to sums [batch]."""
        h = torch.zeros(x.shape[1], self.cell.hidden_size)
        for step in x:
            h = self.cell(step, h)
        return self.output(h).squeeze(-1)


class AddingLSTM(nn.Module):
    """The same with a layer of LSTM, to compare with."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, hidden_size)
        self.output = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map sequences [length, batch, 2] to sums [batch]."""
        outputs, _ = self.lstm(x)
        return self.output(outputs[-1]).squeeze(-1)


Network = AddingNetwork | AddingLSTM


def train(model: Network, steps: int) -> list[float]:
    """Train on new sequences, and return the losses."""
    criterion = nn.MSELoss()
    optimizer = torch.optim.RMSprop(model.parameters(), learning_rate=3e-3)
    problem = Problem(seed=1)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        x, y = problem.batch()
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        torch.optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()

        losses.append(loss.item())
        if step % 200 == 0:
            print(f"step {step}: loss {sum(losses[-200:]) / 200:.4f}")
    return losses


def evaluate(model: Network, length: int, count: int = 200) -> tuple[float, float]:
    """The mean squared error of new sequences, and the share of sums that are right to 0.1."""
    x, y = Problem(seed=2, length=length).batch(count)
    model.eval()
    with torch.no_grad():
        errors: list[float] = (model(x) - y).abs().tolist()
    mean_square = sum(error * error for error in errors) / count
    right = sum(error < 0.1 for error in errors) / count
    return mean_square, right


def main() -> None:
    """Train, and add in longer sequences too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    parser.add_argument("--hidden-size", type=int, default=HIDDEN_SIZE, help="units of the network")
    options = parser.parse_args()
    torch.random.seed(options.seed)
    print(f"always predicting 1: error {BASELINE:.4f}")
    models: list[Network] = [AddingNetwork(options.hidden_size), AddingLSTM(options.hidden_size)]
    for model in models:
        print(type(model).__name__)
        train(model, options.steps)
        for length in (LENGTH, 2 * LENGTH, 4 * LENGTH):
            mean_square, right = evaluate(model, length)
            print(
                f"{length} steps: error {mean_square:.4f}, {right:.0%} of the sums are right to 0.1"
            )


if __name__ == "__main__":
    main()
