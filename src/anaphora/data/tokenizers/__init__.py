"""Tokenizers: characters, words and byte pairs, with one interface."""

from anaphora.data.tokenizers.base import Tokenizer
from anaphora.data.tokenizers.bpe import BPETokenizer
from anaphora.data.tokenizers.character import CharacterTokenizer
from anaphora.data.tokenizers.word import WordTokenizer, split_words

__all__ = ["BPETokenizer", "CharacterTokenizer", "Tokenizer", "WordTokenizer", "split_words"]
