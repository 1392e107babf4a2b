"""Tokenizers: characters, words and byte pairs, with one interface."""

from anaphora.data.tokenizers.base import VOCABULARIES, Tokenizer
from anaphora.data.tokenizers.bpe import BPETokenizer
from anaphora.data.tokenizers.character import CharacterTokenizer
from anaphora.data.tokenizers.word import WordTokenizer, is_tokenized, split_words

__all__ = [
    "VOCABULARIES",
    "BPETokenizer",
    "CharacterTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "is_tokenized",
    "split_words",
]
