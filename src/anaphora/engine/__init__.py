"""The engine: what is numerically heavy, as functions of plain arrays.

Operations and optimisers call these functions and nothing below them. They are written with NumPy;
a native module may take the place of any of them without anybody else noticing.
"""

from anaphora.engine.kernels import (
    cross_entropy_backward,
    cross_entropy_forward,
    dropout_mask,
    layer_norm_backward,
    layer_norm_forward,
    log_softmax,
    matmul,
    sum_rows,
)
from anaphora.engine.recurrence import (
    RecurrenceGradients,
    RecurrenceSteps,
    recurrence_backward,
    recurrence_forward,
)
from anaphora.engine.updates import (
    adagrad_update,
    adam_update,
    average_update,
    global_norm,
    rmsprop_update,
    sgd_update,
)

__all__ = [
    "RecurrenceGradients",
    "RecurrenceSteps",
    "adagrad_update",
    "adam_update",
    "average_update",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "dropout_mask",
    "global_norm",
    "info",
    "layer_norm_backward",
    "layer_norm_forward",
    "log_softmax",
    "matmul",
    "recurrence_backward",
    "recurrence_forward",
    "rmsprop_update",
    "sgd_update",
    "sum_rows",
]


def info() -> dict[str, str]:
    """What the engine is made of on this machine."""
    import numpy

    return {"engine": "numpy", "numpy": numpy.__version__}
