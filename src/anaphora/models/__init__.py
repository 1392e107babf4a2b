"""Whole models, built from `anaphora.nn` layers."""

from anaphora.models.language_model import LanguageModel, load_language_model
from anaphora.models.saved import SavedModel
from anaphora.models.sequence_tagger import SequenceTagger, SpelledBatch
from anaphora.models.sequences import SequenceClassifier, SequenceRegressor
from anaphora.models.session import LanguageModelSession

__all__ = [
    "LanguageModel",
    "LanguageModelSession",
    "SavedModel",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "SpelledBatch",
    "load_language_model",
]
