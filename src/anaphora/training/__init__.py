"""Training: the loop, its options, evaluation, checkpoints and logs."""

from anaphora.training.batches import DrawnBatches, SequenceBatches, SignalBatches
from anaphora.training.callbacks import Callback, MetricsFile, TensorBoard
from anaphora.training.evaluation import Evaluation, evaluate, perplexity
from anaphora.training.language_model import (
    LanguageModelOptions,
    evaluation_batches,
    load_language_model_options,
    prepare_language_model,
    resume_language_model,
)
from anaphora.training.options import ModelOptions, TextOptions, TrainingOptions
from anaphora.training.presets import PRESETS
from anaphora.training.trainer import Progress, Trainer, TrainingDiverged

__all__ = [
    "PRESETS",
    "Callback",
    "DrawnBatches",
    "Evaluation",
    "LanguageModelOptions",
    "MetricsFile",
    "ModelOptions",
    "Progress",
    "SequenceBatches",
    "SignalBatches",
    "TensorBoard",
    "TextOptions",
    "Trainer",
    "TrainingDiverged",
    "TrainingOptions",
    "evaluate",
    "evaluation_batches",
    "load_language_model_options",
    "perplexity",
    "prepare_language_model",
    "resume_language_model",
]
