"""Tokenizers: characters, words and byte pairs, behind one interface."""

from anaphora.text.tokenizers.base import Tokenizer
from anaphora.text.tokenizers.bpe import BPETokenizer
from anaphora.text.tokenizers.character import CharacterTokenizer
from anaphora.text.tokenizers.word import WordTokenizer, split_words

__all__ = ["BPETokenizer", "CharacterTokenizer", "Tokenizer", "WordTokenizer", "split_words"]
