"""Codecs, which convert examples to arrays and back, one class for each kind of examples."""

from anaphora.data.codecs.base import Codec, Column, UnknownShare
from anaphora.data.codecs.classifier import ClassifierCodec
from anaphora.data.codecs.pairs import PairCodec, TargetCodec
from anaphora.data.codecs.regressor import RegressorCodec
from anaphora.data.codecs.sequences import SequenceCodec
from anaphora.data.codecs.tagger import TaggerCodec

__all__ = [
    "ClassifierCodec",
    "Codec",
    "Column",
    "PairCodec",
    "RegressorCodec",
    "SequenceCodec",
    "TaggerCodec",
    "TargetCodec",
    "UnknownShare",
]
