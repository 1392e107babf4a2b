"""Modules: they own parameters and call operations; nothing numerical happens here."""

from typing import TYPE_CHECKING

from anaphora import foreign_names
from anaphora.nn import init as init
from anaphora.nn.activations import (
    ELU,
    GELU,
    GLU,
    CosineSimilarity,
    Flatten,
    Identity,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from anaphora.nn.attention import AdditiveAttention, Attention, Memory, MultiplicativeAttention
from anaphora.nn.cells import GRUCell, LSTMCell, RecurrentCell, RNNCell
from anaphora.nn.containers import ModuleDict, ModuleList, ParameterDict, ParameterList
from anaphora.nn.crf import CRF, TagConstraints, tag_constraints
from anaphora.nn.kinds import LayerKind
from anaphora.nn.layers import Conv1d, Dropout, Embedding, Highway, LayerNorm, Linear, Sequential
from anaphora.nn.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    CTCLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from anaphora.nn.module import HookHandle, LoadResult, Module
from anaphora.nn.multihead_attention import MultiheadAttention
from anaphora.nn.normalization import BatchNorm1d, GroupNorm, RMSNorm
from anaphora.nn.pooling import AvgPool1d, MaxPool1d
from anaphora.nn.recurrent import GRU, LSTM, RNN, Recurrent
from anaphora.nn.reset_before import ResetBeforeGRU
from anaphora.nn.session import Framing, Session
from anaphora.nn.steps import KINDS, LayerNormLSTM, MogrifierLSTM, NestedLSTM, StepKind
from anaphora.tensor import Buffer, Parameter

__all__ = [
    "CRF",
    "ELU",
    "GELU",
    "GLU",
    "GRU",
    "KINDS",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Attention",
    "AvgPool1d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "Buffer",
    "CTCLoss",
    "Conv1d",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "Framing",
    "GRUCell",
    "GroupNorm",
    "Highway",
    "HookHandle",
    "HuberLoss",
    "Identity",
    "L1Loss",
    "LSTMCell",
    "LayerKind",
    "LayerNorm",
    "LayerNormLSTM",
    "LeakyReLU",
    "Linear",
    "LoadResult",
    "LogSoftmax",
    "MSELoss",
    "MaxPool1d",
    "Memory",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MogrifierLSTM",
    "MultiheadAttention",
    "MultiplicativeAttention",
    "NLLLoss",
    "NestedLSTM",
    "PReLU",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RMSNorm",
    "RNNCell",
    "ReLU",
    "Recurrent",
    "RecurrentCell",
    "ResetBeforeGRU",
    "Sequential",
    "Session",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "StepKind",
    "TagConstraints",
    "Tanh",
    "tag_constraints",
]

if not TYPE_CHECKING:  # type checkers should see the real attributes only
    __getattr__ = foreign_names.module_getattr("anaphora.nn")
