"""The norms of gradients, and clipping them in place, before a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from anaphora import engine, foreign_names
from anaphora.optim.base import Parameters, named, positive
from anaphora.tensor import Array, Parameter, RowGradient


def gradient_norms(parameters: Parameters) -> dict[str, float]:
    """The 2-norm of the gradient of each parameter, to log; training loops log that of all.

    Args:
        parameters: Parameters, or pairs of name and Parameter, by which they are found; those
            without a gradient are omitted.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.nn import Linear
    >>> layer = Linear(2, 1)
    >>> layer([[3.0, 4.0]]).sum().backward()
    >>> gradient_norms(layer.named_parameters())
    {'weight': 5.0, 'bias': 1.0}
    """
    return {
        name: engine.global_norm(_arrays([parameter]))
        for name, parameter in named("gradient_norms", parameters).items()
        if parameter.grad is not None
    }


def clip_grad_norm(parameters: Parameters, max_norm: float) -> float:
    """Scale the gradients, together as one vector, to a 2-norm of at most `max_norm`.

        gradient *= min(1, max_norm / (norm + 1e-6))

    If the norm is infinite or NaN, the gradients are not changed: check the returned norm before
    the step. Source: Pascanu et al. 2013; the constants are PyTorch's.

    Args:
        parameters: Parameters, or pairs of name and Parameter; those without a gradient are
            skipped.
        max_norm: > 0; infinity only measures.

    Returns:
        The norm before clipping; 0 if there is no gradient.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([30.0, 40.0])
    >>> (weight * weight * 0.5).sum().backward()
    >>> clip_grad_norm([weight], max_norm=5.0)
    50.0
    >>> weight.grad
    array([3., 4.], dtype=float32)
    """
    chosen = list(named("clip_grad_norm", parameters).values())
    max_norm = positive("clip_grad_norm", "max_norm", max_norm)
    norm = engine.global_norm(_arrays(chosen))
    coefficient = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and coefficient < 1:
        for parameter in chosen:
            _scale(parameter, coefficient)
    return norm


@foreign_names.arguments_checked
def clip_grad_value(parameters: Parameters, limit: float) -> None:
    """Clip every element of the gradients to ``-limit <= element <= limit``.

    Args:
        parameters: Parameters, or pairs of name and Parameter; those without a gradient are
            skipped.
        limit: > 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([0.5, -3.0])
    >>> (weight * weight * 0.5).sum().backward()
    >>> clip_grad_value([weight], limit=1.0)
    >>> weight.grad
    array([ 0.5, -1. ], dtype=float32)
    """
    limit = positive("clip_grad_value", "limit", limit)
    for parameter in named("clip_grad_value", parameters).values():
        for gradient in _arrays([parameter]):
            if gradient.flags.writeable:
                np.clip(gradient, -limit, limit, out=gradient)
            else:
                parameter.grad = np.clip(gradient, -limit, limit)


def _arrays(parameters: Iterable[Parameter]) -> Iterator[Array]:
    """The existing gradients as arrays, which share their memory; for row gradients the rows."""
    for parameter in parameters:
        if isinstance(parameter.grad, RowGradient):
            yield parameter.grad.values
        elif parameter.grad is not None:
            # A NumPy scalar, set by hand, cannot be changed in place; its array can.
            parameter.grad = np.asarray(parameter.grad)
            yield parameter.grad


def _scale(parameter: Parameter, coefficient: float) -> None:
    """Scale a gradient in place; one that is read only, since other processes read it too, into a
    new array.
    """
    for gradient in _arrays([parameter]):
        if gradient.flags.writeable:
            engine.scale(gradient, coefficient)
        else:
            parameter.grad = gradient * gradient.dtype.type(coefficient)
