"""Modules: they own parameters and call operations; nothing numerical happens here."""

from typing import TYPE_CHECKING

from anaphora import foreign_names
from anaphora.nn.attention import AdditiveAttention, Attention, Memory, MultiplicativeAttention
from anaphora.nn.crf import CRF, TagConstraints, tag_constraints
from anaphora.nn.kinds import LayerKind
from anaphora.nn.layers import Conv1d, Dropout, Embedding, LayerNorm, Linear, Sequential
from anaphora.nn.module import LoadResult, Module
from anaphora.nn.recurrent import GRU, LSTM, RNN, Recurrent
from anaphora.nn.session import Framing, Session
from anaphora.tensor import Parameter

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Attention",
    "Conv1d",
    "Dropout",
    "Embedding",
    "Framing",
    "LayerKind",
    "LayerNorm",
    "Linear",
    "LoadResult",
    "Memory",
    "Module",
    "MultiplicativeAttention",
    "Parameter",
    "Recurrent",
    "Sequential",
    "Session",
    "TagConstraints",
    "tag_constraints",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.nn")
