"""Whole models, built from `anaphora.nn` layers."""

from anaphora.data import SpelledBatch
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.models.encoder_decoder import EncoderDecoder
from anaphora.models.language_model import LanguageModel, load_language_model
from anaphora.models.saved import SavedModel
from anaphora.models.sequence_tagger import SequenceTagger
from anaphora.models.sequences import SequenceClassifier, SequenceRegressor
from anaphora.models.session import LanguageModelSession
from anaphora.models.vector_to_sequence import VectorToSequence

__all__ = [
    "ConditionalLanguageModel",
    "Decoder",
    "EncoderDecoder",
    "LanguageModel",
    "LanguageModelSession",
    "SavedModel",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "SpelledBatch",
    "VectorToSequence",
    "load_language_model",
]
