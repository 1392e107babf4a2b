"""The option ``--matmul-precision`` of commands that use a trained model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from anaphora import engine
from anaphora.cli.output import complain, reported_misuse
from anaphora.training.options import check_matmul_precision, matmul_precision_notice

MatmulPrecision = Annotated[
    Literal[engine.MATMUL_PRECISIONS],  # type: ignore[valid-type]
    typer.Option(
        "--matmul-precision",
        metavar="NAME",
        help="Precision of the operands of matrix products, whatever that of the training was: "
        "float32 or bfloat16.",
    ),
]


@contextlib.contextmanager
def products_in(precision: str, *options: Any) -> Iterator[None]:
    """Compute matrix products in a precision, and say so where that is slower than float32.

    Args:
        precision: "float32" or "bfloat16".
        *options: Of the models, whose dtype may refuse it.
    """
    with reported_misuse():
        for one in options:
            check_matmul_precision(precision, one.dtype)
    with engine.matmul_precision(precision):
        if notice := matmul_precision_notice():
            complain(notice)
        yield
