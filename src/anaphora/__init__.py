"""Anaphora: a deep-learning framework for recurrent networks.

A cell is its equations: a few lines of Python become a recurrence with its gradient, for
training, evaluation and generation. `cells` holds those that come with the package, `nn` the
layers, `models` whole models, `training` the loop, `text` what turns a text into batches.
"""

from typing import TYPE_CHECKING

from anaphora import _startup as _startup  # isort: skip  # first: imports may be interrupted
from anaphora import cells, engine, equations, foreign_names, nn, ops, optim, random
from anaphora.cells import Cell, Gate, cell
from anaphora.tensor import Parameter, RowGradient, Tensor, detach, differentiable, hook, no_grad

if TYPE_CHECKING:
    from anaphora import artifact, generation, models, plot, tasks, tensor, text, training

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Gate",
    "Parameter",
    "RowGradient",
    "Tensor",
    "__version__",
    "artifact",
    "cell",
    "cells",
    "detach",
    "differentiable",
    "engine",
    "equations",
    "generation",
    "hook",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plot",
    "random",
    "tasks",
    "tensor",
    "text",
    "training",
]

_IMPORTED_WHEN_USED = ("artifact", "generation", "models", "plot", "tasks", "text", "training")


def __dir__() -> list[str]:
    return sorted({*globals(), *_IMPORTED_WHEN_USED})


def _elsewhere(name: str) -> str | None:
    """Where a name is that is asked of the package, and belongs to one of its parts."""
    for part in (nn, ops, optim, cells):
        if name in part.__all__:
            return f"write {part.__name__}.{name}"
    return None


if not TYPE_CHECKING:  # type checkers are to know what there is
    __getattr__ = foreign_names.module_getattr(
        "anaphora", _elsewhere, parts=(*_IMPORTED_WHEN_USED, "estimators")
    )
