"""Optimizers, gradient clipping, learning rate schedules, and freezing.

A complete training step:

>>> import numpy as np
>>> from anaphora.tensor import Parameter
>>> weight = Parameter(np.array([3.0, 4.0]))
>>> optimizer = SGD([("weight", weight)], learning_rate=1.0)
>>> schedule = ExponentialDecay(optimizer)
>>> schedule.on_epoch(0)
>>> optimizer.zero_grad()
>>> (weight * weight).sum().backward()
>>> norm = clip_grad_norm([weight], max_norm=5.0)
>>> optimizer.step()
>>> weight.data.round(3)
array([0., 0.])
"""

from typing import TYPE_CHECKING

from anaphora import foreign_names
from anaphora.optim.base import Optimizer
from anaphora.optim.clipping import clip_grad_norm, clip_grad_value
from anaphora.optim.freezing import discriminative_groups, freeze, layer_groups, matching
from anaphora.optim.optimizers import ASGD, SGD, Adagrad, Adam, AdamW, RMSprop
from anaphora.optim.schedules import (
    Constant,
    Cosine,
    ExponentialDecay,
    NonMonotonicTrigger,
    ReduceOnPlateau,
    Schedule,
    WarmUp,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "asgd": ASGD,
}
"""The optimizers, by their names on the command line."""

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "exponential": ExponentialDecay,
    "plateau": ReduceOnPlateau,
    "cosine": Cosine,
    "nonmonotonic": NonMonotonicTrigger,
}
"""The schedules, by their names on the command line; `WarmUp` wraps any of them."""

__all__ = [
    "ASGD",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "ExponentialDecay",
    "NonMonotonicTrigger",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "WarmUp",
    "clip_grad_norm",
    "clip_grad_value",
    "discriminative_groups",
    "freeze",
    "layer_groups",
    "matching",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.optim")
