"""Models, built from `anaphora.nn` layers."""

from anaphora.models.body import Body
from anaphora.models.decoder import ConditionalLanguageModel, Decoder
from anaphora.models.encoder_decoder import EncoderDecoder
from anaphora.models.forecaster import Forecaster, ForecasterSession
from anaphora.models.language_model import LanguageModel
from anaphora.models.saved import SavedModel, load, quantize
from anaphora.models.sequence_session import SequenceSession, TaggerSession
from anaphora.models.sequences import SequenceClassifier, SequenceRegressor, SequenceTagger
from anaphora.models.session import LanguageModelSession
from anaphora.models.vector_to_sequence import VectorToSequence

__all__ = [
    "Body",
    "ConditionalLanguageModel",
    "Decoder",
    "EncoderDecoder",
    "Forecaster",
    "ForecasterSession",
    "LanguageModel",
    "LanguageModelSession",
    "SavedModel",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceSession",
    "SequenceTagger",
    "TaggerSession",
    "VectorToSequence",
    "load",
    "quantize",
]
