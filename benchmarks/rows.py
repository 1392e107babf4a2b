"""All measured work, in the order of the table."""

from __future__ import annotations

from benchmarks.crf import CRFStep
from benchmarks.ctc import CTCStep
from benchmarks.inference import (
    Block,
    ExportedBlock,
    Forward,
    InInt8,
    Sampling,
    StreamingStep,
)
from benchmarks.models import (
    AdamUpdate,
    BatchNorm,
    ClassifierStep,
    Convolution,
    EncoderDecoderStep,
    LinearNorm,
    SelfAttention,
)
from benchmarks.operations import OPERATIONS
from benchmarks.processes import FirstStep, Import, PeakMemory
from benchmarks.training import (
    EmbeddingStep,
    InBfloat16,
    LanguageModelStep,
    Layer,
    Recurrence,
)
from benchmarks.work import Work

_SMALL = LanguageModelStep("language model step, zaremba-small", V=10_000, H=200, T=20, B=20)
_MEDIUM = LanguageModelStep(
    "language model step, zaremba-medium", V=10_000, H=650, T=35, B=20, dropout=0.5
)
_CHARACTERS = LanguageModelStep("character model step, 2 x 128", V=65, H=128, T=50, B=50)
_LARGE_CHARACTERS = LanguageModelStep("character model step, 2 x 512", V=65, H=512, T=50, B=50)
_RAGGED = Layer("ragged LSTM, T 50 B 50 H 128", "lstm", T=50, B=50, H=128, ragged=True)
_PEEPHOLE = Layer("peephole LSTM, T 35 B 20 H 200", "peephole_lstm", T=35, B=20, H=200)
_LARGE_LSTM = Layer("LSTM layer, T 50 B 50 H 512", "lstm", T=50, B=50, H=512)
_LARGE_GRU = Layer("GRU layer, T 50 B 50 H 512", "gru", T=50, B=50, H=512)
_STREAMING = StreamingStep("streaming step, 2 x 128", H=128)
_LARGE_STREAMING = StreamingStep("streaming step, 2 x 1024", H=1024, streams=True)
_SAMPLING = Sampling("sampled character, 2 x 512, B 1", V=65, H=512, B=1)
_LARGE_SAMPLING = Sampling("sampled character, 2 x 512, B 32", V=65, H=512, B=32)

ROWS: list[Work] = [
    _SMALL,
    _MEDIUM,
    _CHARACTERS,
    _LARGE_CHARACTERS,
    Layer("LSTM layer, T 50 B 50 H 128", "lstm", T=50, B=50, H=128),
    Layer("GRU layer, T 50 B 50 H 128", "gru", T=50, B=50, H=128),
    Layer("RNN tanh layer, T 50 B 50 H 128", "rnn", T=50, B=50, H=128),
    Layer("LSTM layer, T 100 B 32 H 64", "lstm", T=100, B=32, H=64),
    Layer("GRU layer, T 100 B 32 H 64", "gru", T=100, B=32, H=64),
    Layer("RNN tanh layer, T 100 B 32 H 64", "rnn", T=100, B=32, H=64),
    _RAGGED,
    Layer("LSTM layer, T 35 B 20 H 200", "lstm", T=35, B=20, H=200),
    _PEEPHOLE,
    Recurrence("recurrence alone, T 50 B 50 H 512", T=50, B=50, H=512),
    Recurrence("recurrence alone, T 50 B 50 H 1024", T=50, B=50, H=1024),
    InBfloat16("bfloat16: zaremba-small", _SMALL),
    InBfloat16("bfloat16: zaremba-medium", _MEDIUM),
    InBfloat16("bfloat16: characters, 2 x 128", _CHARACTERS),
    InBfloat16("bfloat16: characters, 2 x 512", _LARGE_CHARACTERS),
    InBfloat16("bfloat16: LSTM, T 50 B 50 H 512", _LARGE_LSTM),
    InBfloat16("bfloat16: GRU, T 50 B 50 H 512", _LARGE_GRU),
    InBfloat16("bfloat16: peephole, T 35 B 20 H 200", _PEEPHOLE),
    InBfloat16("bfloat16: ragged, T 50 B 50 H 128", _RAGGED),
    CRFStep("CRF step, T 40 B 32 C 17", T=40, B=32, C=17),
    CRFStep("CRF decoding, T 40 B 32 C 17", T=40, B=32, C=17, decodes=True),
    EncoderDecoderStep("encoder-decoder step, H 256", S=25, T=20, B=32, V=8_000, H=256),
    ClassifierStep("classifier step, GRU H 128", T=40, B=32, V=8_000, E=100, H=128),
    LinearNorm("linear and layer norm, N 700 H 650", N=700, H=650),
    Convolution("convolution, T 200 B 16 K 5", T=200, B=16, I=40, O=128, K=5),
    Convolution("convolution, T 100 B 32 K 3", T=100, B=32, I=128, O=128, K=3),
    Convolution("convolution, T 16000 K 400 by 160", T=16_000, B=8, I=1, O=64, K=400, stride=160),
    BatchNorm("batch norm, T 200 B 16 I 128", T=200, B=16, I=128),
    BatchNorm("batch norm, T 400 B 64 I 32", T=400, B=64, I=32),
    BatchNorm("batch norm, T 50 B 32 I 512", T=50, B=32, I=512),
    SelfAttention("attention, T 100 B 16 E 256, 8 heads", T=100, B=16, E=256, heads=8),
    *OPERATIONS,
    AdamUpdate("Adam, 5 million numbers", n=5_000_000),
    EmbeddingStep("embedding with Adam, V 20000 E 200", V=20_000, E=200, N=700),
    EmbeddingStep("... lazy rows, V 20000 E 200", V=20_000, E=200, N=700, lazy=True),
    CTCStep("CTC step, T 150 B 16 V 30", T=150, B=16, V=30, S=20),
    Forward("LSTM forward, T 50 B 50 H 128", "lstm", T=50, B=50, I=128, H=128),
    Forward("LSTM forward, T 200 B 1 H 256", "lstm", T=200, B=1, I=64, H=256),
    Forward("... in both directions, H 256", "lstm", T=200, B=1, I=64, H=256, both=True),
    Forward("GRU forward, T 400 B 1 H 128, both", "gru", T=400, B=1, I=40, H=128, both=True),
    Forward("LSTM forward, T 100 B 8 H 512, both", "lstm", T=100, B=8, I=512, H=512, both=True),
    Forward("LSTM forward, T 30 B 64 H 650", "lstm", T=30, B=64, I=300, H=650),
    Forward("GRU forward, T 50 B 50 H 128", "gru", T=50, B=50, I=128, H=128),
    Forward("RNN forward, T 100 B 16 H 64", "rnn", T=100, B=16, I=64, H=64),
    *(Block(f"block of samples, LSTM H {H}", "lstm", H) for H in (8, 16, 20, 32, 40, 64)),
    *(Block(f"block of samples, GRU H {H}", "gru", H) for H in (8, 16, 20, 32, 40, 64)),
    *(
        ExportedBlock(f"exported to C, {cell.upper()} H {H}{in_8_bits}", cell, H, weights)
        for in_8_bits, weights in (("", "float32"), (", int8", "int8"))
        for cell in ("lstm", "gru")
        for H in (8, 16, 20, 32, 40, 64, 128)
    ),
    _STREAMING,
    _LARGE_STREAMING,
    _SAMPLING,
    _LARGE_SAMPLING,
    InInt8("int8: LSTM step, 2 x 128", _STREAMING),
    InInt8("int8: LSTM step, 2 x 1024", _LARGE_STREAMING),
    InInt8("int8: character, 2 x 512, B 1", _SAMPLING),
    InInt8("int8: character, 2 x 512, B 32", _LARGE_SAMPLING),
    PeakMemory("peak memory, zaremba-medium", _MEDIUM),
    PeakMemory("... beyond model, zaremba-medium", _MEDIUM, beyond_start=True),
    Import("import"),
    FirstStep("start to first step, 2 x 128", _CHARACTERS),
]
