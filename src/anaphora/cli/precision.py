"""The options ``--matmul-precision`` and ``--weights`` of commands that use a trained model."""

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

Weights = Annotated[
    Literal["float32", "int8"] | None,
    typer.Option(
        "--weights",
        metavar="NAME",
        help="int8 computes with weights in 8 bits, for a quarter of their memory; float32 does "
        "not.",
        show_default="int8 for a directory that anaphora quantize wrote, else float32",
    ),
]


@contextlib.contextmanager
def products_in(precision: str, *models: Any) -> Iterator[None]:
    """Compute matrix products in a precision, and say so where that is slower than float32.

    Args:
        precision: "float32" or "bfloat16".
        *models: The models, whose dtype or weights may refuse it.
    """
    with reported_misuse():
        for one in models:
            check_matmul_precision(precision, one.dtype)
            if one.weights == "int8" and precision == "bfloat16":
                raise ValueError(
                    "--matmul-precision bfloat16 cannot be combined with --weights int8, the "
                    "default of a quantized directory: omit one, or give --weights float32"
                )
    with engine.matmul_precision(precision):
        if notice := matmul_precision_notice():
            complain(notice)
        yield
