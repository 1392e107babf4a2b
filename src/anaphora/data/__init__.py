"""From files to records, tokens, ids and batches."""

from anaphora.data.batches import (
    IGNORE_INDEX,
    Batch,
    Batches,
    BucketedBatches,
    PairBatch,
    PairBatches,
    SampledBatches,
    SentenceBatches,
    SequenceBatches,
    SignalBatches,
    SpelledBatch,
    StreamBatches,
    batchify,
    cover,
    pad,
    pair_batches,
    sentence_batches,
    side_by_side,
    split_sentences,
)
from anaphora.data.codec import (
    ClassifierCodec,
    Codec,
    Column,
    PairCodec,
    TaggerCodec,
    TargetCodec,
    UnknownShare,
)
from anaphora.data.corpus import encode_to_file, open_ids
from anaphora.data.encodings import check_encoding, uncompressed_name
from anaphora.data.errors import DataError, located
from anaphora.data.files import SourceFile
from anaphora.data.formats import FORMATS, Format, format_of, kind_of
from anaphora.data.frames import Frames
from anaphora.data.labelled import check_labels, read_labelled
from anaphora.data.pairs import read_pairs
from anaphora.data.series import moments, read_series, standardized
from anaphora.data.sources import (
    Source,
    open_source,
    read_lines,
    standard_library_source,
    stream_lines,
)
from anaphora.data.splits import stratified_split
from anaphora.data.tables import column_names, is_table, read_columns
from anaphora.data.tagged import read_conllu, read_tagged
from anaphora.data.tokenizers import (
    BPETokenizer,
    CharacterTokenizer,
    Tokenizer,
    WordTokenizer,
    split_words,
)

__all__ = [
    "FORMATS",
    "IGNORE_INDEX",
    "BPETokenizer",
    "Batch",
    "Batches",
    "BucketedBatches",
    "CharacterTokenizer",
    "ClassifierCodec",
    "Codec",
    "Column",
    "DataError",
    "Format",
    "Frames",
    "PairBatch",
    "PairBatches",
    "PairCodec",
    "SampledBatches",
    "SentenceBatches",
    "SequenceBatches",
    "SignalBatches",
    "Source",
    "SourceFile",
    "SpelledBatch",
    "StreamBatches",
    "TaggerCodec",
    "TargetCodec",
    "Tokenizer",
    "UnknownShare",
    "WordTokenizer",
    "batchify",
    "check_encoding",
    "check_labels",
    "column_names",
    "cover",
    "encode_to_file",
    "format_of",
    "is_table",
    "kind_of",
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
    "read_pairs",
    "read_series",
    "read_tagged",
    "sentence_batches",
    "side_by_side",
    "split_sentences",
    "split_words",
    "standard_library_source",
    "standardized",
    "stratified_split",
    "stream_lines",
    "uncompressed_name",
]
