"""Forecast a series of several sines, a trend and noise, with an LSTM over windows."""

import argparse

import numpy as np

import anaphora as torch
from anaphora import nn
from anaphora.training import DataLoader, TensorDataset

LENGTH = 800
TEST_LENGTH = 200
WINDOW = 48
HORIZON = 12

HIDDEN_SIZE = 32
BATCH_SIZE = 32

BLOCKS = "▁▂▃▄▅▆▇█"

Array = np.typing.NDArray[np.float32]


def load_series() -> Array:
    """The demand for something, hour by hour: days, weeks, growth and chance."""
    generator = np.random.default_rng(1)
    hours = np.arange(LENGTH)
    day = np.sin(2 * np.pi * hours / 24)
    week = 0.5 * np.sin(2 * np.pi * hours / 168 + 1)
    trend = 0.002 * hours
    noise = 0.1 * generator.standard_normal(LENGTH)
    return (10 + 3 * day + 3 * week + 3 * trend + noise).astype(np.float32)


class Scaler:
    """Standardizes numbers by the mean and deviation of the training part."""

    def __init__(self, values: Array) -> None:
        self.mean = float(values.mean())
        self.deviation = float(values.std())

    def transform(self, values: Array) -> Array:
        """Standardize."""
        return (values - self.mean) / self.deviation

    def inverse(self, values: Array) -> Array:
        """Undo `transform`."""
        return values * self.deviation + self.mean


def windows(values: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """All windows [windows, WINDOW, 1], and what follows each, [windows, HORIZON]."""
    views = np.lib.stride_tricks.sliding_window_view(values, WINDOW + HORIZON)
    x, y = views[:, :WINDOW, None].copy(), views[:, WINDOW:].copy()
    return torch.Tensor(x), torch.Tensor(y)


SERIES = load_series()
SCALER = Scaler(SERIES[:-TEST_LENGTH])
TRAIN_VALUES = SCALER.transform(SERIES[:-TEST_LENGTH])
TEST_VALUES = SCALER.transform(SERIES[-TEST_LENGTH - WINDOW :])


class LSTMForecaster(nn.Module):
    """Reads a window, and returns all values of the horizon at once."""

    def __init__(self, num_layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN_SIZE, num_layers, batch_first=True, dropout=dropout)
        self.head = nn.Sequential(
            nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE),
            nn.ReLU(),
            nn.Linear(HIDDEN_SIZE, HORIZON),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map windows [batch, WINDOW, 1] to forecasts [batch, HORIZON]."""
        hidden, _ = self.lstm(x)
        return x[:, -1] + self.head(hidden[:, -1])  # what changes after the last value


def train(model: LSTMForecaster, steps: int, shuffle: bool = True) -> list[float]:
    """Train for several epochs, and return the losses."""
    dataset = TensorDataset(*windows(TRAIN_VALUES))
    loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=shuffle, drop_last=True)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), learning_rate=5e-3)
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                break
        mean = sum(losses[-len(loader) :]) / len(losses[-len(loader) :])
        print(f"step {len(losses)}: loss {mean:.4f}")
    return losses


def forecast(model: LSTMForecaster, values: Array) -> tuple[Array, Array]:
    """Forecasts from each window of standardized values, and what came, as they were measured."""
    x, y = windows(values)
    model.eval()
    with torch.no_grad():
        predictions = model(x).numpy()
    return SCALER.inverse(predictions), SCALER.inverse(y.numpy())


def mean_absolute_error(predictions: Array, actual: Array) -> float:
    """The mean distance between forecasts and what came."""
    return float(np.abs(predictions - actual).mean())


def naive_forecasts(values: Array) -> dict[str, Array]:
    """Forecasts without a network, that repeat what was measured."""
    x, _ = windows(values)
    return {
        "the last value": SCALER.inverse(x[:, -1:, 0].numpy()),
        "the day before": SCALER.inverse(x[:, -24 : -24 + HORIZON, 0].numpy()),
    }


def sparkline(values: Array) -> str:
    """Numbers as a line of blocks, from the lowest to the highest value of the series."""
    low, high = float(SERIES.min()), float(SERIES.max())
    shares = (np.clip(values, low, high) - low) / (high - low)
    return "".join(BLOCKS[round(float(share) * (len(BLOCKS) - 1))] for share in shares)


def main() -> None:
    """Train, and compare with the day before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.random.seed(options.seed)
    print(f"{LENGTH} hours, of which the last {TEST_LENGTH} are for the test")
    model = LSTMForecaster()
    train(model, options.steps)
    predictions, actual = forecast(model, TEST_VALUES)
    print(f"mean absolute error of the LSTM: {mean_absolute_error(predictions, actual):.3f}")
    for name, naive in naive_forecasts(TEST_VALUES).items():
        print(f"of {name}: {mean_absolute_error(naive, actual):.3f}")
    for hour in range(HORIZON):
        error = mean_absolute_error(predictions[:, hour], actual[:, hour])
        print(f"{hour + 1:2d} hours ahead: {error:.3f}")
    for start in (0, 6, 12, 18):
        print(f"{sparkline(predictions[start])} forecast, {sparkline(actual[start])} measured")


if __name__ == "__main__":
    main()
