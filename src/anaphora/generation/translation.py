"""Translating sentences with an encoder-decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anaphora.data import DataError, WordTokenizer, located, pad
from anaphora.distributed import ALONE, Processes, shared
from anaphora.generation.beam_search import Hypothesis, beam_search
from anaphora.models import EncoderDecoder


@dataclass(frozen=True)
class Translation:
    """A translated sentence.

    Attributes:
        text: The words, separated by spaces.
        hypothesis: The result of the search.

    >>> Translation("ein Hund", Hypothesis(np.array([5, 7]), -1.5, -0.5, True)).text
    'ein Hund'
    """

    text: str
    hypothesis: Hypothesis


def translate(
    model: EncoderDecoder,
    tokenizers: Mapping[str, WordTokenizer],
    sentences: Sequence[str],
    beam_size: int = 5,
    length_penalty: float = 1.0,
    batch_size: int = 50,
    no_repeat_ngram: int = 0,
    processes: Processes = ALONE,
) -> list[Translation]:
    """Translate sentences, batched by length.

    An unknown word of the translation is replaced by the source word with the highest attention
    weight, if the model has attention (Luong et al. 2015). The maximum length of a translation is
    twice that of the longest sentence of its batch plus ten, including the end.

    Args:
        model: The model.
        tokenizers: Word tokenizers, as "source" and "target".
        sentences: Sentences without a line end.
        beam_size: K, as for `beam_search`.
        length_penalty: As for `beam_search`.
        batch_size: Sentences per batch.
        no_repeat_ngram: As for `beam_search`.
        processes: The processes that call this function together, and share out the batches; all
            return all translations.

    Raises:
        DataError: a sentence has a line end, or a word that is not in the vocabulary, which has no
            ``<unk>``.
        ValueError: as for `beam_search`.

    >>> tokenizers = {"source": WordTokenizer.fit("a b"), "target": WordTokenizer.fit("c d e")}
    >>> model = EncoderDecoder(3, 4, hidden_size=2, end_id=tokenizers["target"].start_id)
    >>> len(translate(model, tokenizers, ["a b a", "b"]))
    2
    """
    source_tokenizer, target_tokenizer = tokenizers["source"], tokenizers["target"]
    ids = []
    for number, sentence in enumerate(sentences, start=1):
        with located(f"sentence {number:,}"):
            if "\n" in sentence:
                raise DataError(
                    "it has a line end, which ends a sentence; give its lines one by one"
                )
            ids.append(source_tokenizer.encode(sentence + "\n"))
    order = np.argsort([len(sentence) for sentence in ids], kind="stable")

    def translated(rows: list[int]) -> list[Translation]:
        source, lengths = pad([ids[row] for row in rows])
        longest = 2 * len(source) + 10
        best = beam_search(
            model, source, lengths, beam_size, longest, length_penalty, no_repeat_ngram
        )
        texts = [
            " ".join(_spell(one[0], target_tokenizer, source_tokenizer.tokens(sentences[row])))
            for row, one in zip(rows, best, strict=True)
        ]
        return [Translation(text, one[0]) for text, one in zip(texts, best, strict=True)]

    batches = [order[k : k + batch_size].tolist() for k in range(0, len(order), batch_size)]
    found: dict[int, Translation] = {}
    for rows, translations in shared(processes, batches, translated):
        found.update(zip(rows, translations, strict=True))
    return [found[row] for row in range(len(sentences))]


def _spell(
    hypothesis: Hypothesis, tokenizer: WordTokenizer, source_words: Sequence[str]
) -> list[str]:
    """The words of a hypothesis; unknown ones become the source word with the highest weight."""
    words = [tokenizer.words[id] for id in hypothesis.ids]
    if hypothesis.weights is not None and source_words:
        places = hypothesis.weights[:, : len(source_words)].argmax(axis=1)
        for n, id in enumerate(hypothesis.ids):
            if id == tokenizer.unknown_id:
                words[n] = source_words[places[n]]
    return words
