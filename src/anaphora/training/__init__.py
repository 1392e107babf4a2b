"""Training: the loop, its options, evaluation, checkpoints and logs."""

from anaphora.training.adaptation import (
    cache_evaluation,
    dynamic_evaluation,
    gradient_mean_squares,
)
from anaphora.training.batches import DrawnBatches, SequenceBatches, SignalBatches
from anaphora.training.callbacks import Callback, MetricsFile, TensorBoard
from anaphora.training.classification import ClassifierVocabulary, classify
from anaphora.training.evaluation import Evaluation, evaluate, loss_figures, perplexity
from anaphora.training.language_model import (
    LanguageModelOptions,
    evaluation_batches,
    load_language_model_options,
    prepare_language_model,
    resume_language_model,
)
from anaphora.training.options import ModelOptions, TextOptions, TrainingOptions
from anaphora.training.preparation import check_changes, prepare_training, resume_training
from anaphora.training.presets import PRESETS
from anaphora.training.tagging import TaggerVocabulary, tag
from anaphora.training.task import ExampleTask, Task, TaskOptions
from anaphora.training.tasks import TASKS, task_of
from anaphora.training.trainer import Progress, Trainer, TrainingDiverged

__all__ = [
    "PRESETS",
    "TASKS",
    "Callback",
    "ClassifierVocabulary",
    "DrawnBatches",
    "Evaluation",
    "ExampleTask",
    "LanguageModelOptions",
    "MetricsFile",
    "ModelOptions",
    "Progress",
    "SequenceBatches",
    "SignalBatches",
    "TaggerVocabulary",
    "Task",
    "TaskOptions",
    "TensorBoard",
    "TextOptions",
    "Trainer",
    "TrainingDiverged",
    "TrainingOptions",
    "cache_evaluation",
    "check_changes",
    "classify",
    "dynamic_evaluation",
    "evaluate",
    "evaluation_batches",
    "gradient_mean_squares",
    "load_language_model_options",
    "loss_figures",
    "perplexity",
    "prepare_language_model",
    "prepare_training",
    "resume_language_model",
    "resume_training",
    "tag",
    "task_of",
]
