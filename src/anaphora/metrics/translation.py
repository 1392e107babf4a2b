"""BLEU and chrF of translations, computed by sacrebleu (extra ``translation``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu(
    predicted: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
) -> float:
    """The corpus BLEU of translations, 0 to 100, as sacrebleu counts it.

    Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation"; Post
    2018, "A call for clarity in reporting BLEU scores".

    Args:
        predicted: The translations, plain text.
        references: One reference for each, or several sets of references.
        tokenize: "13a" (the usual one), "intl", "char", "zh", "ja-mecab", or "none" for text that
            is tokenized already.
        lowercase: Compare in lower case.

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: the numbers of translations and references differ, or there are none.

    >>> round(bleu(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
    53.73
    """
    sets = _reference_sets("bleu", predicted, references)
    metrics = _sacrebleu("bleu")
    # force: no warning about text that looks tokenized
    metric = metrics.BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    return float(metric.corpus_score(list(predicted), sets).score)


def chrf(
    predicted: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    *,
    word_order: int = 0,
    lowercase: bool = False,
) -> float:
    """The corpus chrF of translations, 0 to 100: F2 of their character n-grams.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; ``word_order=2`` is
    chrF++ (Popović 2017).

    Args:
        predicted: The translations, plain text.
        references: One reference for each, or several sets of references.
        word_order: The maximum length of n-grams of words, which are counted too.
        lowercase: Compare in lower case.

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: as for `bleu`.

    >>> round(chrf(["the cat sat on the mat"], ["the cat sat on a mat"]), 2)
    72.08
    """
    sets = _reference_sets("chrf", predicted, references)
    metric = _sacrebleu("chrf").CHRF(word_order=word_order, lowercase=lowercase)
    return float(metric.corpus_score(list(predicted), sets).score)


def _reference_sets(
    owner: str, predicted: Sequence[str], references: Sequence[str] | Sequence[Sequence[str]]
) -> list[list[str]]:
    """The sets of references, each with one for every translation."""
    if isinstance(predicted, str):
        raise ValueError(f"{owner}: predicted is one text; expected a list of translations")
    if not predicted:
        raise ValueError(f"{owner}: there is no translation")
    single = all(isinstance(one, str) for one in references)
    given: Sequence[Any] = [references] if single else references
    sets = [list(one) for one in given]
    for number, one in enumerate(sets):
        if len(one) != len(predicted):
            raise ValueError(
                f"{owner}: {len(predicted)} translations, but {len(one)} references in set "
                f"{number}; expected one for each"
            )
    return sets


def _sacrebleu(owner: str) -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise ImportError(f'{owner} needs an extra: pip install "anaphora[translation]"') from error
    return sacrebleu.metrics
