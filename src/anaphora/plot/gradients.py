"""The norm of the gradient at each earlier step: vanishing and exploding gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anaphora import ops
from anaphora.nn import Recurrent
from anaphora.nn.states import as_tuple
from anaphora.plot.picture import COLORS, Picture, add_legend
from anaphora.tensor import Array, Tensor, no_grad

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_norms(layers: Mapping[str, Recurrent], x: Any, *, seed: int = 0) -> Picture:
    """Plot the norm of the gradient at each step, backpropagated from the last one.

    A gradient of norm 1 in a random direction of the last step's output is backpropagated step by
    step (Hochreiter 1991; Bengio et al. 1994; Pascanu et al. 2013), through all layers and states.
    A falling line is a vanishing gradient, a rising line an exploding one.

    Args:
        layers: Unidirectional layers that read the same input, by the name to show.
        x: [T, B, I] the input ([B, T, I] for layers with ``batch_first``), or [T, I].
        seed: Seed of the random direction.

    Returns:
        A picture; its data are, for each layer, an array [T + 1]: at t the norm of the gradient of
        all states after t steps, over the full batch; at 0 that of the initial state.

    Raises:
        ValueError: a layer is bidirectional, or the input has no step.

    >>> from anaphora.nn import LSTM, RNN
    >>> layers = {"RNN": RNN(3, 4), "LSTM": LSTM(3, 4)}
    >>> norms = gradient_norms(layers, np.ones((20, 2, 3), np.float32)).data
    >>> norms["LSTM"].shape, bool(np.isclose(norms["RNN"][-1], 1)), bool(norms["RNN"][0] < 0.1)
    ((21,), True, True)
    """
    data = {name: _norms(layer, np.asarray(x), seed) for name, layer in layers.items()}
    if not data:
        raise ValueError("gradient_norms: no layers were given")

    def render(figure: Figure) -> None:
        axes = figure.subplots()
        for number, (name, norms) in enumerate(data.items()):
            back = np.arange(len(norms))[::-1]
            shown = np.where(norms > 0, norms, np.nan)  # a logarithmic axis cannot show 0
            axes.plot(back, shown, color=COLORS[number % len(COLORS)], label=name)
        axes.axhline(1, color="0.6", linewidth=0.8, zorder=0)
        axes.set_yscale("log")
        axes.set_xlabel("steps back from the loss")
        axes.set_ylabel("norm of the gradient of the state")
        add_legend(axes)

    return Picture(data, render)


def _norms(layer: Recurrent, x: Array, seed: int) -> Array:
    if layer.bidirectional:
        raise ValueError(
            "gradient_norms: a bidirectional layer has no last step; give a unidirectional layer"
        )
    layer = copy.deepcopy(layer).eval().use_int8(False).requires_grad_(False)
    layer.batch_first = False if x.ndim == 2 else layer.batch_first
    axis = 1 if layer.batch_first else 0
    T = x.shape[axis]
    if T == 0:
        raise ValueError("gradient_norms: the input has no step")
    steps = np.split(x, T, axis)

    # Forward: the states before each step.
    batch = () if x.ndim == 2 else (x.shape[1 - axis],)
    initial = layer.initial_state(*(batch or (1,))).values()
    state = tuple(array if batch else array[:, 0] for array in initial)
    befores = []
    with no_grad():
        for step in steps:
            befores.append(state)
            _, after = layer(step, state)
            state = tuple(s.data for s in as_tuple(after))

    # Backward: one step at a time, starting from the gradient of the states of the next step.
    gradients = [np.zeros_like(s) for s in state]
    top = gradients[0][-1]  # the output of the last step is the first state of the top layer
    top[...] = np.random.default_rng(seed).standard_normal(top.shape)
    top /= np.linalg.norm(top)
    norms = [_norm(gradients)]
    for step, before in zip(reversed(steps), reversed(befores), strict=True):
        leaves = [Tensor(s, requires_grad=True) for s in before]
        _, after = layer(step, leaves)
        products = [ops.sum(s * d) for s, d in zip(as_tuple(after), gradients, strict=True)]
        ops.sum(ops.stack(products)).backward()
        gradients = [
            np.zeros_like(s.data) if s.grad is None else np.asarray(s.grad) for s in leaves
        ]
        norms.append(_norm(gradients))
    return np.array(norms[::-1])


def _norm(gradients: Sequence[Any]) -> float:
    return float(np.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in gradients)))
