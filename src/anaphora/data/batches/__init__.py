"""All kinds of batches: of texts, sequences with targets, pairs and signals."""

from anaphora.data.batches.base import IGNORE_INDEX, Batch, Batches, BucketedBatches, pad
from anaphora.data.batches.pairs import PairBatch, PairBatches, pair_batches
from anaphora.data.batches.sequences import (
    SampledBatches,
    SequenceBatches,
    SignalBatches,
    SpelledBatch,
    side_by_side,
)
from anaphora.data.batches.text import (
    SentenceBatches,
    StreamBatches,
    batchify,
    cover,
    sentence_batches,
    split_sentences,
)

__all__ = [
    "IGNORE_INDEX",
    "Batch",
    "Batches",
    "BucketedBatches",
    "PairBatch",
    "PairBatches",
    "SampledBatches",
    "SentenceBatches",
    "SequenceBatches",
    "SignalBatches",
    "SpelledBatch",
    "StreamBatches",
    "batchify",
    "cover",
    "pad",
    "pair_batches",
    "sentence_batches",
    "side_by_side",
    "split_sentences",
]
