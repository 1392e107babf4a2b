"""The task "regress": numbers for texts or series."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import metrics
from anaphora.data import DataError, RegressorCodec, read_targets
from anaphora.models import SequenceRegressor
from anaphora.models.body import PooledBody
from anaphora.models.sequences import CRITERIA
from anaphora.tensor import Array
from anaphora.training.examples import evaluation_data
from anaphora.training.inputs import (
    SERIES,
    InputOptions,
    predictions,
    read_examples,
    reading,
    sequence_task,
)
from anaphora.training.measures import Measure
from anaphora.training.options import TaskOptions, data_option, training_option
from anaphora.training.task import Answer, EvaluationData, Paths

Example = tuple[Any, tuple[float, ...]]  # a text, or a series [T, I]; and its numbers

BASELINE = "root_mean_squared_error_of_mean"
"""The RMSE of always predicting the mean of the training targets, in their units."""


@dataclass(kw_only=True)
class RegressorOptions(InputOptions, PooledBody, TaskOptions):
    """All options for training a regressor.

    >>> RegressorOptions.make(loss="huber").monitor
    'root_mean_squared_error'
    >>> RegressorOptions.make(target_column='price,"length, in m"').target_columns
    ('price', 'length, in m')
    """

    target_column: str | None = data_option(
        None,
        "Column of the translations, or of the numbers (several: price,area), in tables.",
        reading=True,
    )
    loss: str = training_option(
        "squared",
        "Loss on standardized targets; huber is linear beyond one standard deviation.",
        tuple(CRITERIA),
    )

    presets = {  # noqa: RUF012 - it is never changed
        "default": {
            "minimum_count": 2,
            "validation_share": 0.1,
            "cell": "gru",
            "hidden_size": 64,
            "bidirectional": True,
            "dropout": 0.1,
            "pooling": "mean",
            "learning_rate": 0.004,
            "schedule": "cosine",
            "max_steps": 2000,
            "evaluate_every": 100,
            "monitor": "root_mean_squared_error",
        },
        "series": {**SERIES, "monitor": "root_mean_squared_error"},  # the default for series
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        columns = self.target_columns
        if not all(columns) or len(set(columns)) < len(columns):
            raise ValueError(
                f"target_column {self.target_column!r:.80} has a repeated or an empty name; "
                "separate names with commas"
            )
        if self.loss_per == "sequence":
            raise ValueError(
                "loss_per 'sequence' is for tokens; the loss of a regressor is a mean over "
                "sequences anyway: omit it"
            )

    @property
    def target_columns(self) -> tuple[str, ...]:
        """The names of the columns with targets."""
        if self.target_column is None:
            return ()
        return tuple(next(csv.reader([self.target_column], skipinitialspace=True), ("",)))


class RegressionMeasure(Measure):
    """MSE, RMSE, MAE and R2 of a regressor, in the units of the targets, and the RMSE of always
    predicting the mean of the training targets.

    Args:
        codec: The codec of the regressor.

    >>> import types
    >>> measure = RegressionMeasure(RegressorCodec.fit([("a", (20.0,)), ("b", (40.0,))]))
    >>> batch = types.SimpleNamespace(targets=np.array([[-1.0], [1.0]]))  # 20 and 40
    >>> measure.update(batch, answers=np.array([[-0.5], [1.0]]))  # 25 and 40
    >>> measure.figures()["mean_absolute_error"], measure.figures()[BASELINE]
    (2.5, 10.0)
    """

    def __init__(self, codec: RegressorCodec) -> None:
        self._codec = codec
        self._actual: list[Array] = []
        self._answers: list[Array] = []

    def update(self, batch: Any, answers: Array) -> None:
        """Add the predictions for a batch; these and its targets are standardized."""
        self._actual.append(self._codec.decode(batch.targets))
        self._answers.append(self._codec.decode(answers))

    def figures(self) -> dict[str, float]:
        """The figures by name, over all outputs."""
        actual, answers = np.concatenate(self._actual), np.concatenate(self._answers)
        if not np.isfinite(answers).all():
            return {}
        mean = np.broadcast_to(self._codec.target_mean, actual.shape)
        errors = _errors(actual, answers)
        return {
            "mean_squared_error": errors["root_mean_squared_error"] ** 2,
            **errors,
            BASELINE: metrics.root_mean_squared_error(actual, mean),
        }

    def details(self) -> dict[str, Any]:
        """The figures of each output, if there are several."""
        names = self._codec.targets
        if len(names) == 1:
            return {}
        actual, answers = np.concatenate(self._actual), np.concatenate(self._answers)
        return {
            "targets": {
                name: _errors(y, answer)
                for name, y, answer in zip(names, actual.T, answers.T, strict=True)
            }
        }

    def tables(self) -> list[str]:
        """A table of the figures of each output, if there are several."""
        rows = self.details().get("targets", {})
        if not rows:
            return []
        width = max(map(len, (*rows, "target")))
        lines = [f"{'target':{width}}  {'RMSE':>10}  {'MAE':>10}  {'R2':>7}"]
        for name, errors in rows.items():
            rmse, mae, r2 = errors.values()
            lines.append(f"{name:{width}}  {rmse:10.4g}  {mae:10.4g}  {r2:7.3f}")
        return ["\n".join(lines)]


def _errors(actual: Array, answers: Array) -> dict[str, float]:
    return {
        "root_mean_squared_error": metrics.root_mean_squared_error(actual, answers),
        "mean_absolute_error": metrics.mean_absolute_error(actual, answers),
        "r2": metrics.r2(actual, answers),
    }


def regress(model: SequenceRegressor, examples: Sequence[Any]) -> Iterator[Array]:
    """Yield the numbers [O] predicted for each text or series, in the units of the targets.

    Args:
        model: A regressor with its codec, in evaluation mode.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as for `RegressorCodec.encode_input`.
        ValueError: a prediction is NaN or infinite.

    >>> model = SequenceRegressor(num_outputs=1, hidden_size=3, vocabulary_size=2).eval()
    >>> model.codec = RegressorCodec.fit([("a", (20.0,)), ("b", (40.0,))])
    >>> [numbers.shape for numbers in regress(model, ["abba", "ab"])]
    [(1,), (1,)]
    """
    return predictions("regress", model, examples)


def _numbers(options: RegressorOptions, path: Any, answers: Any) -> list[tuple[float]]:
    """The targets in a file of series."""
    if answers is None:
        raise DataError(
            f"{path} has no targets, which training and evaluation need: write the number of each "
            "series after a last colon in .ts files, with @targetLabel true in the header. "
            "anaphora predict needs no targets"
        )
    if isinstance(answers[0], str):
        raise DataError(
            f"{path} has classes, such as {answers[0]!r}, but regress needs numbers: for numeric "
            "targets, write @targetLabel true instead of @classLabel; for classes, use --task "
            "classify"
        )
    return [(float(answer),) for answer in answers]


_read = functools.partial(
    read_examples,
    reader="regressor",
    nothing="no files to regress: give tables with --column and --target-column, or series with "
    "numbers, such as .ts files",
    of_texts=lambda options, path: read_targets(
        path, options.column, options.target_columns, options.encoding, options.format
    ),
    answers_of=_numbers,
    targets=True,
)


def _fit(
    options: RegressorOptions, training: list[Example], held_out: list[Example]
) -> RegressorCodec:
    names = options.target_columns or ("target",)
    return RegressorCodec.fit(training, held_out, targets=names, **reading(options, training))


def _set_criterion(options: RegressorOptions, model: Any) -> None:
    model.criterion = options.loss
    model.loss_kind = None  # its loss is of standardized targets


def _measure_of(options: RegressorOptions, model: Any, codec: RegressorCodec) -> Measure:
    return RegressionMeasure(codec)


def _evaluation(
    options: RegressorOptions, model: SequenceRegressor, files: Paths, batch_size: int | None
) -> EvaluationData:
    _set_criterion(options, model)
    return evaluation_data(_read, None, _measure_of, options, model, files, batch_size)


def _to_answer(
    options: RegressorOptions, model: SequenceRegressor, one: Any, found: Array | None
) -> Answer:
    record: dict[str, Any] = {"text": one} if isinstance(one, str) else {}
    names, numbers = model.codec.targets, [] if found is None else found.tolist()
    if len(names) > 1:
        record["predictions"] = dict(zip(names, numbers, strict=False))
    else:
        record["prediction"] = numbers[0] if numbers else None
    return Answer(record, "\t".join(f"{number:.6g}" for number in numbers))


def _report(options: RegressorOptions, record: Mapping[str, Any], short: bool = False) -> str:
    """The error in the units of the targets, and that of the mean of the training targets."""
    error, mean = (record.get(name) for name in ("root_mean_squared_error", BASELINE))
    if short or error is None or mean is None:  # a loss alone is of standardized targets
        return ""
    if error < mean:
        return f"root mean squared error {error:.4g} (predicting the training mean: {mean:.4g})"
    return (
        f"root mean squared error {error:.4g}, no better than predicting the training mean "
        f"({mean:.4g})"
    )


REGRESS = sequence_task(
    name="regress",
    model=SequenceRegressor,
    options=RegressorOptions,
    files="tables, or series with numbers",
    unit="numbers",
    columns=("column", "target_column"),
    read_examples=_read,
    targets=True,
    fit=_fit,
    begin=lambda options, trainer, initial: _set_criterion(options, trainer.model),
    evaluation=_evaluation,
    measure_of=_measure_of,
    predict=regress,
    to_answer=_to_answer,
    report=_report,
)
"""Predicts numbers for each text or series."""
