"""What a checkpoint of a training contains besides its arrays."""

from __future__ import annotations

import dataclasses
from typing import Any, NotRequired, TypedDict

from anaphora import schema
from anaphora.nn.states import as_tuple
from anaphora.tensor import Tensor

__all__ = ["Checkpoint", "Progress", "state_tensors"]


@dataclasses.dataclass
class Progress:
    """The progress of a training run, as saved in checkpoints.

    Attributes:
        epoch: Complete passes over the data.
        position: Batches of the current pass that are done.
        step: Updates so far.
        tokens: Tokens trained on so far.
        seconds: Time spent so far.
        best_loss: The loss of the best evaluation, whose weights are kept; None before the first.
        best: The figure of the best evaluation that ``monitor`` names.
        evaluations_since_best: Evaluations after the best.
        evaluated_step: The step of the last evaluation.
        interval_loss: The sum of losses since the last record.
        interval_tokens: Tokens since the last record.

    >>> progress = Progress(epoch=1, position=3, step=103)
    >>> Progress(**dataclasses.asdict(progress)) == progress  # as through a checkpoint
    True
    """

    epoch: schema.Count = 0
    position: schema.Count = 0
    step: schema.Count = 0
    tokens: schema.Count = 0
    seconds: schema.NotNegative = 0.0
    best_loss: float | None = None
    evaluations_since_best: schema.Count = 0
    evaluated_step: schema.Count = 0
    interval_loss: float = 0.0
    interval_tokens: schema.Count = 0
    best: float | None = None

    def __post_init__(self) -> None:
        if self.evaluated_step > self.step:
            raise ValueError(
                f"evaluated_step is {self.evaluated_step}; expected at most step, which is "
                f"{self.step}"
            )
        if self.best is None:  # in old checkpoints, which only monitored the loss
            self.best = self.best_loss


class OptimizerState(TypedDict):
    """The state of the optimizer in a checkpoint, besides its arrays."""

    optimizer: str
    learning_rate: schema.NotNegative
    options: dict[str, Any]
    steps: dict[str, schema.Count]
    averaged_steps: NotRequired[schema.Count | None]
    average_decay: NotRequired[schema.NotNegative]
    initial_learning_rate: NotRequired[schema.NotNegative]
    groups: NotRequired[list[GroupState]]


class GroupState(TypedDict):
    """The state of a group of parameters in a checkpoint."""

    parameters: list[str]
    learning_rate: schema.NotNegative | None
    weight_decay: schema.NotNegative | None


class ScheduleState(TypedDict):
    """The state of any schedule in a checkpoint."""

    schedule: str
    initial_learning_rate: schema.NotNegative
    learning_rate: schema.NotNegative
    factor: NotRequired[schema.NotNegative]
    best_loss: NotRequired[float | None]
    evaluations_without_best: NotRequired[schema.Count]
    losses: NotRequired[list[float]]
    of: NotRequired[ScheduleState]


class RandomState(TypedDict):
    """The state of the package's random generator in a checkpoint."""

    bit_generator: str
    state: dict[str, int]
    has_uint32: int
    uinteger: int


class Checkpoint(TypedDict):
    """The metadata of ``checkpoint/state.safetensors``."""

    progress: Progress
    optimizer: OptimizerState
    schedule: ScheduleState | None
    random: RandomState
    state_is_tuple: bool
    metrics_size: schema.Count


def state_tensors(state: Any) -> tuple[Tensor, ...]:
    """The Tensors of a state, which is None, a Tensor or a tuple of Tensors.

    Raises:
        TypeError: it is anything else.
    """
    tensors = () if state is None else as_tuple(state)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "a checkpoint can only save a state that is a Tensor or a tuple of Tensors; the "
                f"loss returned one with a {type(tensor).__name__}"
            )
    return tensors
