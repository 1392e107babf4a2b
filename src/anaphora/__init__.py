"""Anaphora: a deep-learning framework for recurrent networks.

A cell is its equations: a few lines of Python become a recurrence with its gradient, for
training, evaluation and generation. `cells` holds those that come with the package, `nn` the
layers, `models` whole models, `training` the loop, `text` what turns a text into batches.
"""

__version__ = "0.1.0"

from anaphora import _startup as _startup  # isort: skip  # first: imports may be interrupted
from anaphora import cells, engine, equations, nn, ops, optim, random, text
from anaphora.cells import Cell, Gate, cell
from anaphora.tensor import Parameter, RowGradient, Tensor, detach, differentiable, hook, no_grad

__all__ = [
    "Cell",
    "Gate",
    "Parameter",
    "RowGradient",
    "Tensor",
    "__version__",
    "cell",
    "cells",
    "detach",
    "differentiable",
    "engine",
    "equations",
    "hook",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "random",
    "text",
]
