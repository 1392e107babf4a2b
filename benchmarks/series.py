"""Classify series with the defaults, and with simple classifiers: ``python -m benchmarks.series``.

The generated sets are as small and as varied as those of the UCR and UEA archives: motions,
outlines, spectra, shapes in noise, several channels. With --data DIR the folders ecg5000 and
japanese_vowels in it are added, and small samples from ECG5000's training set. For each set: mean
and lowest accuracy of the seeds, seconds per fit, the nearest neighbor by dynamic time warping
(window 10 % of the length), and logistic regression on the values.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anaphora.data import read_series

Set = tuple[list[np.ndarray], np.ndarray, list[np.ndarray], np.ndarray]
Sample = Callable[[np.random.Generator, int], np.ndarray]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.series", description=__doc__)
    parser.add_argument("names", nargs="*", help="only sets whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=5, help="fits of each set")
    parser.add_argument("--data", type=Path, help="folder with ecg5000 and japanese_vowels")
    parser.add_argument(
        "--baselines", action="store_true", help="measure the simple classifiers too"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON line for each set")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the classifier",
    )
    options = parser.parse_args(arguments)
    chosen = {name: json_value(value) for name, _, value in (s.partition("=") for s in options.set)}
    rows = []
    for name, series in sets(options.data).items():
        if options.names and not any(part in name for part in options.names):
            continue
        rows.append(measured(name, series, options.seeds, options.baselines, chosen))
        print(json.dumps(rows[-1]) if options.json else line(rows[-1]), flush=True)
    if not options.json and rows:
        means = {k: np.nanmean([row[k] for row in rows]) for k in rows[0] if k != "set"}
        print(line({"set": "mean", **means}))


def json_value(text: str) -> Any:
    """A JSON value, or otherwise the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    shown = [row["set"].ljust(14)]
    for name, value in row.items():
        if name == "seconds":
            shown.append(f"{value:.1f} s")
        elif name != "set":
            shown.append(f"{name} {value:.1%}" if np.isfinite(value) else f"{name} -")
    return f"| {' | '.join(shown)} |"


def measured(
    name: str, series: Set, seeds: int, baselines: bool, chosen: dict[str, Any]
) -> dict[str, Any]:
    """The accuracies on one set."""
    from anaphora.estimators import RecurrentClassifier

    train, y, test, z = series
    begin, scores = time.perf_counter(), []
    for seed in range(seeds):
        scores.append(RecurrentClassifier(random_state=seed, **chosen).fit(train, y).score(test, z))
    seconds = (time.perf_counter() - begin) / seeds
    row = {"set": name, "mean": np.mean(scores), "lowest": np.min(scores), "seconds": seconds}
    if baselines:
        row |= {"DTW": nearest_by_warping(series), "linear": linear(series)}
    return row


def sets(data: Path | None) -> dict[str, Set]:
    """All sets by name."""
    found = {name: generated(name, *how) for name, how in GENERATED.items()}
    if data is not None:
        series, classes = read_series(data / "ecg5000" / "ECG5000_TRAIN.ts")
        test, answers = read_series(data / "ecg5000" / "ECG5000_TEST_float32.npy")
        y, z = (np.array([int(float(c)) for c in one]) for one in (classes, answers))
        some = np.random.default_rng(1).permutation(len(test))[:1000]  # the file is sorted by class
        test, z = [test[k] for k in some], z[some]
        for count in (50, 100, 500):
            rows = np.random.default_rng(count).permutation(len(series))[:count]
            found[f"ECG5000, {count}"] = ([series[k] for k in rows], y[rows], test, z)
        vowels = [
            read_series(data / "japanese_vowels" / f"JapaneseVowels_{part}.ts")
            for part in ("TRAIN", "TEST")
        ]
        (series, classes), (test, answers) = vowels
        found["JapaneseVowels"] = (series, np.array(classes), test, np.array(answers))
    return found


def generated(name: str, sample: Sample, classes: int, train: int, standardize: bool) -> Set:
    """A set of balanced classes, 200 series to test on."""
    generator = np.random.default_rng(sum(map(ord, name)))
    parts = []
    for count in (train, 200):
        y = np.arange(count) % classes
        series = [np.atleast_2d(sample(generator, int(c)).T).T for c in y]
        if standardize:  # as most of the UCR archive is
            series = [(x - x.mean(axis=0)) / (x.std(axis=0) + 1e-8) for x in series]
        parts += [series, y]
    return tuple(parts)  # type: ignore[return-value]


def smooth(generator: np.random.Generator, T: int, width: float) -> np.ndarray:
    """Noise of deviation 1 that is correlated over about `width` steps, [T]."""
    reach = int(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    noise = np.convolve(generator.standard_normal(T + 2 * reach), kernel, "valid")
    return noise / np.sqrt((kernel**2).sum())


def bump(t: np.ndarray, center: float, width: float) -> np.ndarray:
    """A Gaussian bump."""
    return np.exp(-0.5 * ((t - center) / width) ** 2)


def step(t: np.ndarray, at: float, width: float) -> np.ndarray:
    """A smooth step from 0 to 1."""
    return 1 / (1 + np.exp(-(t - at) / width))


def gesture(g: np.random.Generator, c: int) -> np.ndarray:
    """A hand goes up and down; in one class it dips at both ends first."""
    t = np.arange(150.0)
    up, down, pace = g.normal(45, 5), g.normal(105, 6), g.uniform(4, 7)
    x = step(t, up, pace) - step(t, down, pace)
    x = x - c * g.uniform(0.05, 0.12) * (bump(t, up - 18, 5) + bump(t, down + 22, 7))
    return x + 0.03 * smooth(g, 150, 6) + 0.004 * g.standard_normal(150)


def demand(g: np.random.Generator, c: int) -> np.ndarray:
    """A day's power demand, hour by hour; winter evenings are higher."""
    t = np.arange(24.0)
    x = bump(t, g.normal(10, 0.7), 2.5) * g.normal(1, 0.12)
    x = x + (0.75 + 0.35 * c + g.normal(0, 0.13)) * bump(t, g.normal(19.5 - c, 0.6), 2)
    return x - 0.8 * bump(t, 3.5, 2.5) + 0.09 * g.standard_normal(24)


def outline(g: np.random.Generator, c: int) -> np.ndarray:
    """Distances around an arrow head: classes differ slightly in base and barbs."""
    t = np.linspace(0, 1, 251)
    t = t + 0.02 * smooth(g, 251, 50)
    x = 2 * np.abs(t - 0.5) ** g.normal(1, 0.12) + 0.25 * np.cos(4 * np.pi * t)
    barb = g.normal(0.12, 0.012)
    height = [0.0, 0.22, 0.22][c] * g.normal(1, 0.25)
    width = [0.03, 0.02, 0.045][c]
    x = x + height * (bump(t, 0.5 - barb, width) + bump(t, 0.5 + barb, width))
    return x + 0.07 * smooth(g, 251, 18) + 0.01 * g.standard_normal(251)


def leaf(g: np.random.Generator, c: int) -> np.ndarray:
    """Distances around a leaf from anywhere on it; classes differ in lobes and teeth."""
    T = 427
    t = np.linspace(0, 2 * np.pi, T, endpoint=False) + g.uniform(0, 2 * np.pi)
    t = t + 0.15 * np.sin(t + g.uniform(0, 6))
    lobes = [2, 3, 5, 5, 7, 3][c]
    sharp = [1, 1, 1, 3, 1, 3][c]
    x = (
        g.normal(1, 0.25) * np.cos(t)
        + 0.8 * g.normal(1, 0.2) * np.abs(np.cos(lobes * t / 2)) ** sharp
    )
    teeth = [0.03, 0.08, 0.03, 0.05, 0.02, 0.08][c] * g.uniform(0.7, 1.3)
    x = x + teeth * np.sin(g.normal(30, 2) * t) + 0.15 * smooth(g, T, 25)
    return x + 0.02 * g.standard_normal(T)


def plane(g: np.random.Generator, c: int) -> np.ndarray:
    """Outlines of seven machines: each class has wings at different places."""
    t = np.arange(144.0)
    shape = np.random.default_rng(100 + c)
    x = sum(
        shape.uniform(0.5, 1.5) * bump(t, at + g.normal(0, 2), shape.uniform(3, 9))
        for at in shape.uniform(10, 134, 5)
    )
    return x + 0.12 * smooth(g, 144, 8) + 0.05 * g.standard_normal(144)


def shapes(g: np.random.Generator, c: int) -> np.ndarray:
    """Cylinder, bell and funnel in noise (Saito 1994)."""
    t = np.arange(128.0)
    a = g.integers(16, 33)
    b = a + g.integers(32, 97)
    inside = (t >= a) & (t <= b)
    form = [np.ones(128), (t - a) / (b - a), (b - t) / (b - a)][c]
    return (6 + g.standard_normal()) * inside * form + g.standard_normal(128)


def transient(g: np.random.Generator, c: int) -> np.ndarray:
    """A fault in a plant: a step or none, with an oscillation before it or none."""
    t = np.arange(275.0)
    at = g.uniform(80, 200)
    x = (c % 2) * 2 * step(t, at, g.uniform(2, 6)) + (1 - c % 2) * step(t, at, 3) * np.exp(
        -np.maximum(t - at, 0) / 25
    ) * 2
    start = g.uniform(15, 50)
    wave = np.sin((t - start) / g.uniform(3, 4)) * np.exp(-np.abs(t - start) / 12) * (t > start)
    return x + (c // 2) * 0.7 * wave + 0.05 * g.standard_normal(275)


def two_steps(g: np.random.Generator, c: int) -> np.ndarray:
    """Two jumps up or down, anywhere, in noise (Geurts 2002)."""
    x = g.standard_normal(128)
    first = g.integers(2, 45)
    for at, up in ((first, c // 2), (g.integers(first + 18, 108), c % 2)):
        sign = 1 if up else -1
        x[at : at + 8], x[at + 8 : at + 16] = -5 * sign, 5 * sign
    return x


def oscillation(g: np.random.Generator, c: int) -> np.ndarray:
    """Mean-reverting random walks: each class has its own frequency."""
    frequency, damping = [0.05, 0.065, 0.085][c], 0.97
    a, b = 2 * damping * np.cos(2 * np.pi * frequency), -(damping**2)
    x = np.zeros(300)
    noise = g.standard_normal(300)
    for t in range(2, 300):
        x[t] = a * x[t - 1] + b * x[t - 2] + noise[t]
    return x[100:] + 0.5 * g.standard_normal(200)


def walk(g: np.random.Generator, c: int) -> np.ndarray:
    """Random walks with a wave in them, whose period depends on the class."""
    t = np.arange(160.0)
    wave = np.sin(2 * np.pi * t / [14, 18, 24, 32][c] + g.uniform(0, 6))
    return np.cumsum(g.standard_normal(160)) * 0.35 + 1.2 * wave


def exercise(g: np.random.Generator, c: int) -> np.ndarray:
    """Six channels of a watch in their own units: standing, walking, running, a racket game."""
    t = np.arange(100.0)
    period, force = [40, 12, 7, 15][c] * g.uniform(0.85, 1.15), [0.4, 4.0, 12.0, 7.0][c]
    phase = g.uniform(0, 6, 6)
    channels = []
    for k in range(6):
        wave = np.sin(2 * np.pi * t / period + phase[k]) + 0.5 * np.sin(4 * np.pi * t / period)
        if c == 3:
            wave = wave * bump(t, g.uniform(20, 80), 15) * 2
        channels.append(force * g.uniform(0.2, 1.2) * wave * [1, 1, 1, 0.2, 0.2, 0.2][k])
    return np.stack(channels, axis=1) + 0.3 * g.standard_normal((100, 6))


def appliance(g: np.random.Generator, c: int) -> np.ndarray:
    """A minute of an appliance's current, 1,000 steps: cycles, levels and noise differ."""
    T, x, t = 1000, np.zeros(1000), 0
    levels = [(0, 3), (0, 2, 3), (1, 3), (0, 3), (0, 1)][c]
    length = [60, 60, 30, 150, 90][c]
    k = g.integers(len(levels))
    while t < T:
        stop = t + int(g.gamma(4, length / 4)) + 5
        x[t:stop] = levels[k % len(levels)] * g.normal(1, 0.08)
        t, k = stop, k + 1
    return x + [0.1, 0.1, 0.3, 0.1, 0.05][c] * g.standard_normal(T)


GENERATED: dict[str, tuple[Sample, int, int, bool]] = {
    "gesture": (gesture, 2, 50, True),
    "demand": (demand, 2, 67, True),
    "outline": (outline, 3, 36, True),
    "leaf": (leaf, 6, 200, True),
    "plane": (plane, 7, 105, True),
    "shapes": (shapes, 3, 30, True),
    "transient": (transient, 4, 100, True),
    "two steps": (two_steps, 4, 100, True),
    "oscillation": (oscillation, 3, 60, True),
    "walk": (walk, 4, 80, True),
    "exercise": (exercise, 4, 40, False),
    "appliance": (appliance, 5, 100, False),
}


def nearest_by_warping(series: Set, window: float = 0.1) -> float:
    """The accuracy of the nearest neighbor by dynamic time warping (Sakoe and Chiba 1978).

    It is NaN, not measured, if series are longer than 300 steps.
    """
    train, y, test, z = series
    if max(len(x) for x in train) > 300:
        return float("nan")
    answers = [y[np.argmin(warped_distances(x, train, window))] for x in test[:200]]
    return float(np.mean(np.asarray(answers) == z[:200]))


def warped_distances(x: np.ndarray, others: list[np.ndarray], window: float) -> np.ndarray:
    """The squared distances along the best alignment with each of the others."""
    found = np.empty(len(others))
    by_length: dict[int, list[int]] = {}
    for k, other in enumerate(others):
        by_length.setdefault(len(other), []).append(k)
    for length, rows in by_length.items():
        y = np.stack([others[k] for k in rows])  # [N, U, I]
        reach = max(int(window * max(len(x), length)), abs(len(x) - length)) + 1
        before = np.full((length + 1, len(rows)), np.inf)
        before[0] = 0
        for t in range(len(x)):
            now = np.full((length + 1, len(rows)), np.inf)
            center = round(t * length / len(x))
            for u in range(max(0, center - reach), min(length, center + reach + 1)):
                cost = np.square(y[:, u] - x[t]).sum(axis=1)
                now[u + 1] = cost + np.minimum(np.minimum(before[u + 1], before[u]), now[u])
            before = now
        found[rows] = before[length]
    return found


def linear(series: Set) -> float:
    """The accuracy of logistic regression on the values, shorter series padded with zeros."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, y, test, z = series
    size = max(len(x) for x in (*train, *test))
    table, rows = (
        np.stack([np.pad(x, ((0, size - len(x)), (0, 0))).ravel() for x in part])
        for part in (train, test)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(model.fit(table, y).score(rows, z))


if __name__ == "__main__":
    main()
