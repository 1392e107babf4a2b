"""Training: the loop, its options, evaluation, checkpoints and logs."""

from typing import TYPE_CHECKING

from anaphora import foreign_names
from anaphora.training.adaptation import (
    cache_evaluation,
    dynamic_evaluation,
    gradient_mean_squares,
)
from anaphora.training.backtesting import (
    Forecast,
    ForecastScores,
    backtest,
    before_backtest,
    seasonal_naive,
)
from anaphora.training.callbacks import Callback, GradualUnfreezing, MetricsFile, TensorBoard
from anaphora.training.checkpoint import Progress
from anaphora.training.classification import CLASSIFY, ClassifierOptions, classify
from anaphora.training.evaluation import Evaluation, evaluate, loss_figures, loss_unit, perplexity
from anaphora.training.forecaster import FittedForecaster, ForecasterOptions, fit_forecaster
from anaphora.training.forecasting import FORECAST
from anaphora.training.language_model import (
    LANGUAGE_MODEL,
    LanguageModelOptions,
    evaluation_batches,
)
from anaphora.training.learning_rate import LearningRateSweep, find_learning_rate
from anaphora.training.loader import DataLoader, Dataset, TensorDataset, collate
from anaphora.training.options import TaskOptions, TrainingOptions
from anaphora.training.preparation import check_changes, prepare_training, resume_training
from anaphora.training.presets import PRESETS
from anaphora.training.progress import ProgressBar
from anaphora.training.regression import REGRESS, RegressorOptions, regress
from anaphora.training.start import Start
from anaphora.training.tagging import TAG, TaggerOptions, tag
from anaphora.training.task import Answer, EvaluationData, Task, TrainingData
from anaphora.training.tasks import TASKS, task_of
from anaphora.training.trainer import Trainer, TrainingDiverged
from anaphora.training.translation import TRANSLATE, TranslatorOptions

__all__ = [
    "CLASSIFY",
    "FORECAST",
    "LANGUAGE_MODEL",
    "PRESETS",
    "REGRESS",
    "TAG",
    "TASKS",
    "TRANSLATE",
    "Answer",
    "Callback",
    "ClassifierOptions",
    "DataLoader",
    "Dataset",
    "Evaluation",
    "EvaluationData",
    "FittedForecaster",
    "Forecast",
    "ForecastScores",
    "ForecasterOptions",
    "GradualUnfreezing",
    "LanguageModelOptions",
    "LearningRateSweep",
    "MetricsFile",
    "Progress",
    "ProgressBar",
    "RegressorOptions",
    "Start",
    "TaggerOptions",
    "Task",
    "TaskOptions",
    "TensorBoard",
    "TensorDataset",
    "Trainer",
    "TrainingData",
    "TrainingDiverged",
    "TrainingOptions",
    "TranslatorOptions",
    "backtest",
    "before_backtest",
    "cache_evaluation",
    "check_changes",
    "classify",
    "collate",
    "dynamic_evaluation",
    "evaluate",
    "evaluation_batches",
    "find_learning_rate",
    "fit_forecaster",
    "gradient_mean_squares",
    "loss_figures",
    "loss_unit",
    "perplexity",
    "prepare_training",
    "regress",
    "resume_training",
    "seasonal_naive",
    "tag",
    "task_of",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.training")
