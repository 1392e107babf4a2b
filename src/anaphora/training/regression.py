"""Predicting numbers of texts or series."""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anaphora import metrics
from anaphora.data import DataError, RegressorCodec, located, read_series, read_targets
from anaphora.models import LanguageModel, SequenceRegressor
from anaphora.models.body import PooledBody
from anaphora.models.sequences import CRITERIA
from anaphora.tensor import Array, no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.examples import example_task, in_batches
from anaphora.training.inputs import (
    SERIES,
    InputOptions,
    are_series,
    check_columns_of_tables,
    example_file,
    is_blank,
    read_inputs,
    reading,
    resolved,
)
from anaphora.training.measures import Measure
from anaphora.training.options import TaskOptions, data_option, training_option
from anaphora.training.task import Answer, EvaluationData, Paths, TrainingData

Example = tuple[Any, tuple[float, ...]]  # a text, or a series [T, I]; and its numbers

BASELINE = "root_mean_squared_error_of_mean"
"""The figure of always answering the mean of the training, in the units of the targets."""

_PREDICTION_BATCH = 256


@dataclass(kw_only=True)
class RegressorOptions(InputOptions, PooledBody, TaskOptions):
    """All options of a training of a regressor.

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
        "What is minimised, of standardised targets; huber is absolute beyond one deviation.",
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
        "series": {**SERIES, "monitor": "root_mean_squared_error"},  # unless another one is named
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        columns = self.target_columns
        if not all(columns) or len(set(columns)) < len(columns):
            raise ValueError(
                f"target_column {self.target_column!r:.80} names a column twice, or none; write "
                "names with commas between them"
            )
        if self.loss_per == "sequence":
            raise ValueError(
                "loss_per 'sequence' is for tokens; the loss of a regressor is a mean over its "
                "sequences anyway: omit it"
            )

    @property
    def target_columns(self) -> tuple[str, ...]:
        """The names of the columns with targets."""
        if self.target_column is None:
            return ()
        return tuple(next(csv.reader([self.target_column], skipinitialspace=True), ("",)))


class RegressionMeasure(Measure):
    """MSE, RMSE, MAE and R2 of a regressor, in the units of the targets, and the RMSE of a model
    that always answers the mean of the training.

    Args:
        codec: Of the regressor.

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
        """Count the answers to a batch, both as the model's own numbers."""
        self._actual.append(self._codec.decode(batch.targets))
        self._answers.append(self._codec.decode(answers))

    def figures(self) -> dict[str, float]:
        """The numbers by their names; of several outputs, over all of them."""
        actual, answers = np.concatenate(self._actual), np.concatenate(self._answers)
        if not np.isfinite(answers).all():
            return {}
        error = metrics.root_mean_squared_error(actual, answers)
        mean = np.broadcast_to(self._codec.target_mean, actual.shape)
        return {
            "mean_squared_error": error**2,
            "root_mean_squared_error": error,
            "mean_absolute_error": metrics.mean_absolute_error(actual, answers),
            "r2": metrics.r2(actual, answers),
            BASELINE: metrics.root_mean_squared_error(actual, mean),
        }

    def details(self) -> dict[str, Any]:
        """The figures of each output, where there are several."""
        names = self._codec.targets
        if len(names) == 1:
            return {}
        actual, answers = np.concatenate(self._actual), np.concatenate(self._answers)
        return {
            "targets": {
                name: {
                    "root_mean_squared_error": metrics.root_mean_squared_error(y, answer),
                    "mean_absolute_error": metrics.mean_absolute_error(y, answer),
                    "r2": metrics.r2(y, answer),
                }
                for name, y, answer in zip(names, actual.T, answers.T, strict=True)
            }
        }

    def tables(self) -> list[str]:
        """The same for people."""
        rows = self.details().get("targets", {})
        if not rows:
            return []
        width = max(map(len, (*rows, "target")))
        lines = [f"{'target':{width}}  {'RMSE':>10}  {'MAE':>10}  {'R2':>7}"]
        for name, of in rows.items():
            rmse, mae, r2 = of.values()
            lines.append(f"{name:{width}}  {rmse:10.4g}  {mae:10.4g}  {r2:7.3f}")
        return ["\n".join(lines)]


def regress(model: SequenceRegressor, examples: Sequence[Any]) -> Iterator[Array]:
    """Yield for each text or series the numbers [O] that the model predicts, in their units.

    Args:
        model: A regressor with its codec, ready to evaluate.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as `RegressorCodec.encode_input`.
        ValueError: the model's numbers are not finite.

    >>> model = SequenceRegressor(num_outputs=1, hidden_size=3, vocabulary_size=2).eval()
    >>> model.codec = RegressorCodec.fit([("a", (20.0,)), ("b", (40.0,))])
    >>> [numbers.shape for numbers in regress(model, ["abba", "ab"])]
    [(1,), (1,)]
    """
    for start, part in in_batches(examples, _PREDICTION_BATCH):
        with located(f"an example after the first {start:,}" if start else "an example"):
            batch = model.codec.input_batch(part, model.dtype)
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            numbers = model.codec.decode(model(batch.inputs, batch.lengths).data)
        check_scores("regress", numbers)
        yield from numbers


def _read(options: RegressorOptions, paths: Paths) -> list[Example]:
    if not paths:
        raise DataError(
            "nothing was given to regress: name tables with --column and --target-column, or "
            "series with numbers, such as .ts files"
        )
    if are_series(options, paths, "regressor"):
        return [example for path in paths for example in _series_with_targets(options, path)]
    more = options.column, options.target_columns, options.encoding, options.format
    return [example for path in paths for example in read_targets(path, *more)]


def _series_with_targets(options: RegressorOptions, path: Any) -> list[Example]:
    series, answers = read_series(path, options.encoding, options.format, targets=True)
    if answers is None:
        raise DataError(
            f"{path} has no targets; to train or to evaluate, give each series its number: in .ts "
            "files after a last colon, with @targetLabel true in the header. anaphora predict "
            "reads series without"
        )
    if isinstance(answers[0], str):
        raise DataError(
            f"{path} has classes, such as {answers[0]!r}, and regress needs numbers: if these are "
            "numbers to predict, write @targetLabel true in place of @classLabel; for classes "
            "there is --task classify"
        )
    return [(one, (float(answer),)) for one, answer in zip(series, answers, strict=True)]


def _check_files(given: Mapping[str, Any], paths: Paths) -> None:
    check_columns_of_tables(("column", "target_column"), given, paths)


def _fit(
    options: RegressorOptions, training: list[Example], held_out: list[Example]
) -> RegressorCodec:
    names = options.target_columns or ("target",)
    return RegressorCodec.fit(training, held_out, targets=names, **reading(options, training))


def _begin(
    options: RegressorOptions, model: SequenceRegressor, data: TrainingData | None = None
) -> None:
    model.criterion = options.loss
    model.loss_kind = None  # type: ignore[assignment, misc]  # its loss is of standardised targets


def _answer(
    options: RegressorOptions, model: SequenceRegressor, inputs: Sequence[Any]
) -> Iterator[Answer]:
    found = regress(model, [one for one in inputs if not is_blank(one)])
    names = model.codec.targets
    for one in inputs:
        text = {"text": one} if isinstance(one, str) else {}
        numbers: list[float] = [] if is_blank(one) else next(found).tolist()
        prediction: Any = numbers[0] if numbers else None
        if len(names) > 1:
            prediction = dict(zip(names, numbers, strict=False))
        key = "prediction" if len(names) == 1 else "predictions"
        yield Answer({**text, key: prediction}, "\t".join(f"{n:.6g}" for n in numbers))


def _report(options: RegressorOptions, record: Mapping[str, Any], short: bool = False) -> str:
    """The error in the units of the targets, and that of the mean of the training."""
    error, mean = (record.get(name) for name in ("root_mean_squared_error", BASELINE))
    if short or error is None or mean is None:  # a loss alone is one of standardised targets
        return ""
    if error < mean:
        return f"root mean squared error {error:.4g} (always the mean of the training: {mean:.4g})"
    return (
        f"root mean squared error {error:.4g}, no better than always the mean of the training, "
        f"{mean:.4g}"
    )


_TASK = example_task(
    name="regress",
    model=SequenceRegressor,
    starts=(LanguageModel,),
    options=RegressorOptions,
    files="tables, or series with numbers",
    unit="numbers",
    rows="sequences",
    read_examples=_read,
    check_files=_check_files,
    fit=_fit,
    begin=_begin,
    measure_of=lambda options, model, codec: RegressionMeasure(codec),
    resolve=resolved,
    inputs=functools.partial(read_inputs, targets=True),
    answer=_answer,
    report=_report,
    example_file=example_file,
)


def _evaluation(
    options: RegressorOptions, model: SequenceRegressor, files: Paths, batch_size: int | None
) -> EvaluationData:
    _begin(options, model)
    return _TASK.evaluation(options, model, files, batch_size)


REGRESS = dataclasses.replace(_TASK, evaluation=_evaluation)
"""Numbers for each text or series."""
