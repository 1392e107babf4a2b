"""Continue sine waves: two LSTM cells, step by step, trained by L-BFGS in float64."""

import argparse

import numpy as np
import torch

PERIOD = 10
LENGTH = 80
WAVES = 20
HIDDEN_SIZE = 16

Waves = np.typing.NDArray[np.float64]
State = tuple[torch.Tensor, torch.Tensor]


def make_waves(count: int = WAVES, length: int = LENGTH) -> Waves:
    """Sines with random phases, [count, length]."""
    phases = np.random.default_rng(2).integers(-4 * PERIOD, 4 * PERIOD, (count, 1))
    return np.sin((np.arange(length) + phases) / PERIOD)


def to_tensor(waves: Waves) -> torch.Tensor:
    """Waves as the network reads them."""
    return torch.from_numpy(waves)


class WavePredictor(torch.nn.Module):
    """Predicts each next value, and may read its own predictions after the end of the input."""

    def __init__(self, hidden_size: int = HIDDEN_SIZE) -> None:
        super().__init__()
        self.lstm1 = torch.nn.LSTMCell(1, hidden_size)
        self.lstm2 = torch.nn.LSTMCell(hidden_size, hidden_size)
        self.linear = torch.nn.Linear(hidden_size, 1)

    def forward(self, waves: torch.Tensor, future: int = 0) -> torch.Tensor:
        """Map waves [waves, steps] to predictions [waves, steps + future]."""
        state1: State | None = None
        state2: State | None = None
        outputs: list[torch.Tensor] = []
        steps = waves.shape[1]
        for step in range(steps + future):
            x = waves[:, step : step + 1] if step < steps else outputs[-1]
            state1 = self.lstm1(x, state1)
            state2 = self.lstm2(state1[0], state2)
            outputs.append(self.linear(state2[0]))
        return torch.cat(outputs, dim=1)


def train(model: WavePredictor, steps: int) -> list[float]:
    """Train on all waves but three, and return the losses before the steps."""
    model.double()
    waves = to_tensor(make_waves())
    inputs, targets = waves[3:, :-1], waves[3:, 1:]
    criterion = torch.nn.MSELoss()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.8)
    losses: list[float] = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        return loss

    model.train()
    for step in range(1, steps + 1):
        loss = optimizer.step(closure)
        losses.append(loss.item())
        print(f"step {step}: loss before it {losses[-1]:.6f}")
    return losses


def test_loss(model: WavePredictor) -> float:
    """The loss over the three waves that were kept."""
    waves = to_tensor(make_waves())[:3]
    model.eval()
    with torch.no_grad():
        predictions = model(waves[:, :-1])
        return torch.nn.MSELoss()(predictions, waves[:, 1:]).item()


def continuation(model: WavePredictor, future: int) -> list[list[float]]:
    """What follows the three waves, as the network continues them."""
    waves = to_tensor(make_waves())[:3]
    model.eval()
    with torch.no_grad():
        values: list[list[float]] = model(waves, future)[:, -future:].tolist()
    return values


def expected(future: int) -> list[list[float]]:
    """What really follows them."""
    values: list[list[float]] = make_waves(length=LENGTH + future)[:3, -future:].tolist()
    return values


def draw(values: list[float], columns: int = 41) -> str:
    """One line of characters a value, a wave from top to bottom."""
    middle = columns // 2
    lines = []
    for value in values:
        place = min(max(round(middle + value * middle), 0), columns - 1)
        lines.append(" " * place + "o")
    return "\n".join(lines)


def compare(model: WavePredictor, future: int = 2 * PERIOD) -> None:
    """Print how far the continuations are from the waves, at several distances."""
    found, actual = continuation(model, future), expected(future)
    for distance in (1, PERIOD // 2, PERIOD, future):
        errors = [
            abs(a[distance - 1] - b[distance - 1]) for a, b in zip(found, actual, strict=True)
        ]
        print(f"{distance:3d} steps ahead: mean error {sum(errors) / len(errors):.4f}")


def main() -> None:
    """Train, and continue the three waves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = WavePredictor()
    train(model, options.steps)
    print(f"loss over waves that were kept: {test_loss(model):.6f}")
    compare(model)
    print(draw(continuation(model, 3 * PERIOD)[0]))


if __name__ == "__main__":
    main()
