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
from anaphora.optim.clipping import clip_grad_norm, clip_grad_value, gradient_norms
from anaphora.optim.freezing import discriminative_groups, freeze, layer_groups, matching
from anaphora.optim.lbfgs import LBFGS
from anaphora.optim.optimizers import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
)
from anaphora.optim.schedules import (
    Constant,
    Cosine,
    ExponentialDecay,
    NonMonotonicTrigger,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    StepDecay,
    WarmUp,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "nadam": NAdam,
    "radam": RAdam,
    "adadelta": Adadelta,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "asgd": ASGD,
}
"""The optimizers, by their names on the command line; `LBFGS` is for a loop of your own."""

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "exponential": ExponentialDecay,
    "plateau": ReduceOnPlateau,
    "cosine": Cosine,
    "nonmonotonic": NonMonotonicTrigger,
}
"""The schedules, by their names on the command line; `WarmUp` wraps any of them.

`StepDecay` and `OneCycle` are for a loop of your own, or the argument of a `Trainer`.
"""

__all__ = [
    "ASGD",
    "LBFGS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "ExponentialDecay",
    "NAdam",
    "NonMonotonicTrigger",
    "OneCycle",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_grad_norm",
    "clip_grad_value",
    "discriminative_groups",
    "freeze",
    "gradient_norms",
    "layer_groups",
    "matching",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.optim")
