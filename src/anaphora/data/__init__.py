"""From text to tokens, ids and batches."""

from anaphora.data.batches import (
    IGNORE_INDEX,
    Batch,
    Batches,
    SentenceBatches,
    StreamBatches,
    batchify,
    cover,
    sentence_batches,
    split_sentences,
)
from anaphora.data.corpus import encode_to_file, open_ids
from anaphora.data.encodings import check_encoding, uncompressed_name
from anaphora.data.errors import DataError, located
from anaphora.data.frames import Frames
from anaphora.data.held_out import held_out_in_proportion
from anaphora.data.labelled import check_labels, read_labelled
from anaphora.data.pairs import PairBatch, PairBatches, pad, pair_batches
from anaphora.data.series import moments, read_series, standardized
from anaphora.data.sources import (
    Source,
    SourceFile,
    is_table,
    open_source,
    read_columns,
    read_lines,
    standard_library_source,
    stream_lines,
)
from anaphora.data.tagged import read_conllu
from anaphora.data.tokenizers import (
    BPETokenizer,
    CharacterTokenizer,
    Tokenizer,
    WordTokenizer,
    split_words,
)

__all__ = [
    "IGNORE_INDEX",
    "BPETokenizer",
    "Batch",
    "Batches",
    "CharacterTokenizer",
    "DataError",
    "Frames",
    "PairBatch",
    "PairBatches",
    "SentenceBatches",
    "Source",
    "SourceFile",
    "StreamBatches",
    "Tokenizer",
    "WordTokenizer",
    "batchify",
    "check_encoding",
    "check_labels",
    "cover",
    "encode_to_file",
    "held_out_in_proportion",
    "is_table",
    "located",
    "moments",
    "open_ids",
    "open_source",
    "pad",
    "pair_batches",
    "read_columns",
    "read_conllu",
    "read_labelled",
    "read_lines",
    "read_series",
    "sentence_batches",
    "split_sentences",
    "split_words",
    "standard_library_source",
    "standardized",
    "stream_lines",
    "uncompressed_name",
]
