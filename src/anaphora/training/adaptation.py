"""Evaluating a language model that adapts to the text: dynamic evaluation, and a neural cache."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anaphora import ops
from anaphora.data import IGNORE_INDEX, Batch
from anaphora.generation.reading import evaluating
from anaphora.models import LanguageModel
from anaphora.models.quantization import check_trainable
from anaphora.tensor import Array, RowGradient, detach, no_grad
from anaphora.training.evaluation import Evaluation, Model


def dynamic_evaluation(
    model: Model,
    batches: Iterable[Batch],
    learning_rate: float,
    decay: float = 0.0,
    mean_squares: Mapping[str, Array] | None = None,
    epsilon: float = 0.001,
    on_batch: Callable[[int], None] = lambda tokens: None,
) -> Evaluation:
    """Evaluate a model that learns from each window after it has predicted it.

    With stochastic gradient descent, for each window with the mean loss L of its tokens:

        theta <- theta - learning_rate dL/dtheta + decay (theta_0 - theta)

    where theta_0 are the trained weights. With the mean squares MS of the gradients on the training
    text (`gradient_mean_squares`), the paper's RMS variant:

        theta <- theta - learning_rate dL/dtheta / (sqrt(MS) + epsilon)
                       + min(decay sqrt(MS) / mean(sqrt(MS)), 1) (theta_0 - theta)

    The mean is over all weights. Each window is scored before the update on it, so that no token is
    predicted by weights that have seen it. The model runs without dropout; its weights are restored
    afterwards.

    Source: Krause, Kahembwe, Murray & Renals 2018, "Dynamic Evaluation of Neural Sequence Models".
    Their language models use windows of 5 steps, and with RMS a learning rate of 0.002 and a decay
    of 0.02 for words.

    Args:
        model: As for `evaluate`.
        batches: One text in windows, as ``cover(ids, batch_size=1, window=5)``.
        learning_rate: The learning rate of the updates.
        decay: The fraction of the distance to the trained weights that each update goes back.
        mean_squares: MS of each parameter by name, for RMS; None for plain gradient descent.
        epsilon: epsilon of RMS.
        on_batch: Called after each batch with its number of tokens.

    Raises:
        ValueError: an option is out of range, the batches hold several streams or no tokens, or the
            mean squares belong to another model.

    >>> from anaphora.data import cover
    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> batches = cover(np.array([0, 1, 2] * 50), batch_size=1, window=5)
    >>> from anaphora.training import evaluate
    >>> dynamic_evaluation(model, batches, learning_rate=1.0).loss < evaluate(model, batches).loss
    True
    """
    name = "dynamic_evaluation"
    _check_range(name, "learning_rate", learning_rate, 0, math.inf)
    _check_range(name, "decay", decay, 0, 1)
    _check_range(name, "epsilon", epsilon, 0, math.inf)
    check_trainable(name, model)
    rates = _rates(model, mean_squares, learning_rate, decay, epsilon)
    total, tokens = 0.0, 0
    with evaluating(model), _restored(model) as trained:
        for batch, loss in _losses(name, model, batches, one_text=True):
            total += loss * batch.tokens
            tokens += batch.tokens
            for parameter_name, parameter in model.named_parameters():
                gradient, (rate, pull) = parameter.grad, rates[parameter_name]
                if gradient is None:
                    continue
                with parameter.writing() as weight, np.errstate(over="ignore", invalid="ignore"):
                    restoring = pull * (trained[parameter_name] - weight) if decay else None
                    if isinstance(gradient, RowGradient):
                        rows = gradient.indices
                        weight[rows] -= (
                            rate if np.ndim(rate) == 0 else rate[rows]
                        ) * gradient.values
                    else:
                        weight -= rate * gradient
                    if restoring is not None:
                        weight += restoring
            on_batch(batch.tokens)
    return _evaluation(name, model, total, tokens)


def gradient_mean_squares(model: Model, batches: Iterable[Batch]) -> dict[str, Array]:
    """Mean over batches of the squared gradient of their mean loss, for `dynamic_evaluation`.

    The model runs without dropout; its weights do not change.

    Args:
        model: As for `evaluate`.
        batches: Batches of the training text, of any batch size (the paper: 100 streams in windows
            of 5 steps).

    Returns:
        An array of the shape of each parameter, by name.

    Raises:
        ValueError: there are no batches.

    >>> from anaphora.data import batchify
    >>> model = LanguageModel(vocabulary_size=3, hidden_size=4)
    >>> found = gradient_mean_squares(model, batchify(np.array([0, 1, 2] * 50), 4, window=5))
    >>> found["output.bias"].shape
    (3,)
    """
    check_trainable("gradient_mean_squares", model)
    sums = {name: np.zeros(p.shape, p.dtype) for name, p in model.named_parameters()}
    count = 0
    with evaluating(model):
        for _ in _losses("gradient_mean_squares", model, batches, one_text=False):
            count += 1
            for name, parameter in model.named_parameters():
                gradient = parameter.grad
                if isinstance(gradient, RowGradient):
                    sums[name][gradient.indices] += gradient.values**2
                elif gradient is not None:
                    sums[name] += gradient**2
    if count == 0:
        raise ValueError("gradient_mean_squares: there are no batches")
    return {name: total / count for name, total in sums.items()}


def cache_evaluation(
    model: LanguageModel,
    batches: Iterable[Batch],
    window: int = 500,
    theta: float = 1.0,
    weight: float = 0.1,
    on_batch: Callable[[int], None] = lambda tokens: None,
) -> Evaluation:
    """Evaluate a language model with a continuous cache of recent tokens.

    The cache stores the output h_i of the last layer at each step with the next token x_i+1:

        p_cache(w) = sum_i [x_i+1 = w] exp(theta h_t . h_i) / sum_i exp(theta h_t . h_i)
        p(w) = (1 - weight) p_model(w) + weight p_cache(w)          (weight is lambda)

    The sums are over the last ``window`` steps before t; p is p_model while the cache is empty. The
    model runs without dropout; its weights do not change.

    Source: Grave, Joulin & Usunier 2017, "Improving Neural Language Models with a Continuous
    Cache". For Penn Treebank, Merity et al. 2018 use the values that are the defaults here; for
    WikiText-2 a window of 3,785, a theta of 0.66 and a weight of 0.13.

    Args:
        model: The language model.
        batches: One text in windows of any length, as ``cover(ids, batch_size=1, window=1000)``.
        window: The number of steps that the cache holds.
        theta: How strongly the cache prefers similar states; at 0 it counts tokens.
        weight: lambda, the weight of the cache.
        on_batch: Called after each batch with its number of tokens.

    Raises:
        ValueError: an option is out of range, or the batches hold several streams or no tokens.

    >>> from anaphora.data import cover
    >>> model = LanguageModel(vocabulary_size=9, hidden_size=4)
    >>> batches = cover(np.array([0, 8, 3] * 50), batch_size=1, window=20)
    >>> from anaphora.training import evaluate
    >>> cache_evaluation(model, batches).loss < evaluate(model, batches).loss
    True
    """
    name = "cache_evaluation"
    if window < 1:
        raise ValueError(f"{name}: window is {window}; expected at least 1")
    _check_range(name, "theta", theta, 0, math.inf)
    _check_range(name, "weight", weight, 0, 1)
    carries_state = getattr(batches, "carries_state", True)
    total, tokens, state = 0.0, 0, None
    keys, following = np.empty((0, 0)), np.empty(0, np.int64)  # [N, H], [N]
    # NaN and infinity show in the loss.
    with evaluating(model), no_grad(), np.errstate(all="ignore"):
        for batch in batches:
            _check_one_text(name, batch)
            h, after = model.recurrent(model.embedding(batch.inputs), state, lengths=batch.lengths)
            state = after if carries_state else None
            counted = batch.targets[:, 0] != IGNORE_INDEX
            queries, targets = h.data[counted, 0], np.asarray(batch.targets)[counted, 0]
            output = model.output
            with output.products():
                losses = ops.linear_cross_entropy(
                    queries, output.weight, output.bias, targets=targets, reduction="none"
                )
            p = np.exp(-losses.data.astype(np.float64))
            new = queries.astype(np.float64)
            keys = np.concatenate([keys[-window:], new]) if len(keys) else new
            following = np.concatenate([following[-window:], targets])
            p_cache = _cache_probabilities(theta * new, targets, keys, following, window)
            p = np.where(np.isnan(p_cache), p, (1 - weight) * p + weight * p_cache)
            total -= float(np.log(p).sum())
            tokens += batch.tokens
            on_batch(batch.tokens)
    return _evaluation(name, model, total, tokens)


def _cache_probabilities(
    queries: Array, targets: Array, keys: Array, following: Array, window: int
) -> NDArray[np.float64]:
    """p_cache of each target [T]; NaN where the cache is empty. The last T keys are the queries
    themselves; each query sees the keys before it.
    """
    scores = queries @ keys.T  # [T, N]
    places = len(keys) - len(queries) + np.arange(len(queries))[:, None] - np.arange(len(keys))
    scores[(places < 1) | (places > window)] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    matching = np.where(following == targets[:, None], weights, 0)
    probabilities: NDArray[np.float64] = matching.sum(axis=1) / weights.sum(axis=1)
    return probabilities


def _rates(
    model: Model,
    mean_squares: Mapping[str, Array] | None,
    learning_rate: float,
    decay: float,
    epsilon: float,
) -> dict[str, tuple[Any, Any]]:
    """The factors of each parameter's gradient, and of the pull to its trained value."""
    parameters = dict(model.named_parameters())
    if mean_squares is None:
        with np.errstate(over="ignore"):  # it shows in the loss
            return {
                name: (p.dtype.type(learning_rate), p.dtype.type(decay))
                for name, p in parameters.items()
            }
    shapes = {name: np.shape(mean_squares.get(name, 0.0)) for name in parameters}
    if mean_squares.keys() != parameters.keys() or any(
        shapes[name] != p.shape for name, p in parameters.items()
    ):
        raise ValueError(
            "dynamic_evaluation: mean_squares does not match the parameters of this model; compute "
            "it with gradient_mean_squares"
        )
    roots = {name: np.sqrt(mean_squares[name]) for name in parameters}
    sizes = sum(p.size for p in parameters.values())
    mean = sum(float(root.sum(dtype=np.float64)) for root in roots.values()) / sizes
    return {
        name: (
            (learning_rate / (root + epsilon)).astype(root.dtype),
            np.minimum(decay * root / (mean or 1.0), 1).astype(root.dtype),
        )
        for name, root in roots.items()
    }


def _losses(
    name: str, model: Model, batches: Iterable[Batch], one_text: bool
) -> Iterator[tuple[Batch, float]]:
    """Yield each batch with its loss, after the backward pass."""
    carries_state = getattr(batches, "carries_state", True)
    state = None
    for batch in batches:
        if one_text:
            _check_one_text(name, batch)
        with np.errstate(over="ignore", invalid="ignore"):
            loss, after = model.loss(batch, state)
            state = detach(after) if carries_state else None
            loss.backward()
        yield batch, loss.item()
        for _, parameter in model.named_parameters():
            parameter.grad = None


@contextlib.contextmanager
def _restored(model: Model) -> Iterator[dict[str, Array]]:
    """Yield a copy of a model's weights, and restore them at the end."""
    trained = {name: p.data.copy() for name, p in model.named_parameters()}
    try:
        yield trained
    finally:
        for name, parameter in model.named_parameters():
            parameter.grad = None
            parameter.assign(trained[name])


def _check_one_text(name: str, batch: Batch) -> None:
    if batch.inputs.shape[1] != 1:
        raise ValueError(
            f"{name}: a batch has {batch.inputs.shape[1]} streams; expected one (batch_size 1), as "
            "parallel streams would learn from each other's future"
        )


def _check_range(name: str, option: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and math.isfinite(value)):
        limits = f"{low} <= {option}" + ("" if high == math.inf else f" <= {high}")
        raise ValueError(f"{name}: {option} is {value}; expected {limits}")


def _evaluation(name: str, model: Any, total: float, tokens: int) -> Evaluation:
    if tokens == 0:
        raise ValueError(f"{name}: the batches have no tokens to predict")
    return Evaluation(total / tokens, tokens, None, getattr(model, "loss_kind", None))
