"""Anaphora: a deep-learning framework for recurrent networks.

A cell is its equations: a few lines of Python become a recurrence with its gradient, for
training, evaluation and generation. `cells` holds those that come with the package, `nn` the
layers, `models` complete models, `training` the loop, `data` the way from files to batches.
"""

from typing import TYPE_CHECKING

from anaphora import foreign_names

if TYPE_CHECKING:
    from anaphora import (
        artifact,
        cells,
        data,
        distributed,
        engine,
        equations,
        generation,
        metrics,
        models,
        nn,
        ops,
        optim,
        plot,
        random,
        synthetic,
        tensor,
        training,
    )
    from anaphora.cells import Cell, Gate, cell
    from anaphora.engine import matmul_precision, set_matmul_precision
    from anaphora.models import load
    from anaphora.tensor import (
        Parameter,
        RowGradient,
        Tensor,
        arange,
        detach,
        differentiable,
        full,
        full_like,
        hook,
        multinomial,
        no_grad,
        ones,
        ones_like,
        rand,
        rand_like,
        randint,
        randn,
        randn_like,
        zeros,
        zeros_like,
    )

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "Gate",
    "Parameter",
    "RowGradient",
    "Tensor",
    "__version__",
    "arange",
    "artifact",
    "cell",
    "cells",
    "data",
    "detach",
    "differentiable",
    "distributed",
    "engine",
    "equations",
    "full",
    "full_like",
    "generation",
    "hook",
    "load",
    "matmul_precision",
    "metrics",
    "models",
    "multinomial",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "plot",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "random",
    "set_matmul_precision",
    "synthetic",
    "tensor",
    "training",
    "zeros",
    "zeros_like",
]

# Imported lazily, so that the command line can print something early.
_PARTS = {
    "artifact": (),
    "cells": ("Cell", "Gate", "cell"),
    "cli": (),
    "data": (),
    "distributed": (),
    "engine": ("matmul_precision", "set_matmul_precision"),
    "equations": (),
    "estimators": (),
    "generation": (),
    "interop": (),
    "metrics": (),
    "models": ("load",),
    "nn": (),
    "notebook": (),
    "ops": (),
    "optim": (),
    "options": (),
    "plot": (),
    "random": (),
    "schema": (),
    "serve": (),
    "settings": (),
    "synthetic": (),
    "tensor": (
        "Parameter", "RowGradient", "Tensor", "arange", "detach", "differentiable", "full",
        "full_like", "hook", "multinomial", "no_grad", "ones", "ones_like", "rand", "rand_like",
        "randint", "randn", "randn_like", "zeros", "zeros_like",
    ),
    "training": (),
}  # fmt: skip


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _elsewhere(name: str) -> str | None:
    """Where a name is that is asked of the package, and belongs to one of its parts."""
    from anaphora import cells, nn, ops, optim

    for part in (nn, ops, optim, cells):
        if name in part.__all__:
            return f"write {part.__name__}.{name}"
    return None


if not TYPE_CHECKING:  # type checkers are to know what there is
    __getattr__ = foreign_names.module_getattr("anaphora", _elsewhere, _PARTS)
