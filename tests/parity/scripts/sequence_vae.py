"""A variational autoencoder of curves: a GRU encodes a sequence, another one draws it again."""

import argparse

import numpy as np
import torch
from torch import nn

STEPS = 24
LATENT_SIZE = 4
HIDDEN_SIZE = 32
BATCH_SIZE = 32
NOISE = 0.05

Curves = np.typing.NDArray[np.float32]


def random_curves(generator: np.random.Generator, count: int) -> Curves:
    """Waves whose height, frequency, phase and decay differ: [count, STEPS, 1]."""
    time = np.linspace(0, 1, STEPS)
    height = generator.uniform(0.5, 1, (count, 1))
    frequency = generator.uniform(0.5, 2, (count, 1))
    phase = generator.uniform(0, np.pi, (count, 1))
    decay = generator.uniform(0, 2, (count, 1))
    curves = height * np.sin(2 * np.pi * frequency * time + phase) * np.exp(-decay * time)
    curves += NOISE * generator.standard_normal((count, STEPS))
    return curves[:, :, None].astype(np.float32)


def to_tensor(curves: Curves) -> torch.Tensor:
    """Curves as the network reads them."""
    return torch.from_numpy(curves)


class Encoder(nn.Module):
    """Reads a curve, and returns the mean and the logarithm of the variance of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, HIDDEN_SIZE, batch_first=True)
        self.mean = nn.Linear(HIDDEN_SIZE, LATENT_SIZE)
        self.log_variance = nn.Linear(HIDDEN_SIZE, LATENT_SIZE)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map curves [batch, STEPS, 1] to two Tensors [batch, LATENT_SIZE]."""
        _, h = self.gru(x)
        return self.mean(h[-1]), self.log_variance(h[-1])


class Decoder(nn.Module):
    """Draws a curve from its code, which it reads at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.initial = nn.Linear(LATENT_SIZE, HIDDEN_SIZE)
        self.gru = nn.GRU(LATENT_SIZE, HIDDEN_SIZE, batch_first=True)
        self.output = nn.Linear(HIDDEN_SIZE, 1)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """Map codes [batch, LATENT_SIZE] to curves [batch, STEPS, 1]."""
        inputs = code[:, None].repeat(1, STEPS, 1)
        hidden, _ = self.gru(inputs, self.initial(code).tanh()[None])
        return self.output(hidden)


class SequenceVAE(nn.Module):
    """Encoder, a code that is sampled, and decoder (Kingma & Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder()

    def sample(self, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
        """A code from a normal distribution; in evaluation its mean."""
        if not self.training:
            return mean
        deviation = (0.5 * log_variance).exp()
        return mean + deviation * torch.randn(deviation.shape)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The curve drawn again, and the mean and logarithm of the variance of its code."""
        mean, log_variance = self.encoder(x)
        return self.decoder(self.sample(mean, log_variance)), mean, log_variance


def divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """The Kullback-Leibler divergence from the standard normal distribution, in nats a curve."""
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()


def weight_of_divergence(step: int) -> float:
    """The divergence counts more and more during the first steps."""
    return 0.02 * min(1.0, step / 150)


def train(model: SequenceVAE, steps: int) -> list[float]:
    """Train on random curves, and return the losses."""
    criterion = nn.MSELoss(reduction="sum")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    generator = np.random.default_rng(1)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        x = to_tensor(random_curves(generator, BATCH_SIZE))
        optimizer.zero_grad()
        drawn, mean, log_variance = model(x)
        reconstruction = criterion(drawn, x) / BATCH_SIZE
        loss = reconstruction + weight_of_divergence(step) * divergence(mean, log_variance)
        loss.backward()
        optimizer.step()

        losses.append(loss.item())
        if step % 100 == 0:
            print(f"step {step}: loss {sum(losses[-100:]) / 100:.3f}")
    return losses


def reconstruction_error(model: SequenceVAE, count: int = 100) -> float:
    """The root of the mean squared error of new curves that are drawn again."""
    x = to_tensor(random_curves(np.random.default_rng(2), count))
    model.eval()
    with torch.no_grad():
        drawn, _, _ = model(x)
        return float(((drawn - x) ** 2).mean().sqrt())


def plot(curve: list[float], rows: int = 7) -> str:
    """A curve in characters."""
    heights = [round((value + 1) / 2 * (rows - 1)) for value in curve]
    lines = (
        "".join("*" if height == row else " " for height in heights)
        for row in reversed(range(rows))
    )
    return "\n".join(line.rstrip() for line in lines)


def between(model: SequenceVAE, points: int = 3) -> list[list[float]]:
    """Curves whose codes lie between those of two curves."""
    x = to_tensor(random_curves(np.random.default_rng(3), 2))
    model.eval()
    with torch.no_grad():
        codes, _ = model.encoder(x)
        shares = [k / (points - 1) for k in range(points)]
        mixed = [(1 - share) * codes[:1] + share * codes[1:] for share in shares]
        return [model.decoder(code)[0, :, 0].tolist() for code in mixed]


def main() -> None:
    """Train, and draw curves between two others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--seed", type=int, default=1, help="for the initial weights and the data")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = SequenceVAE()
    train(model, options.steps)
    print(f"error of new curves: {reconstruction_error(model):.3f}, of which noise {NOISE}")
    for curve in between(model):
        print(plot(curve), end=f"\n{'-' * STEPS}\n")


if __name__ == "__main__":
    main()
