"""The task "translate": a sentence for a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anaphora import metrics
from anaphora.data import (
    DataError,
    PairCodec,
    WordTokenizer,
    is_table,
    read_pairs,
    read_sources,
    split_words,
)
from anaphora.distributed import Processes
from anaphora.generation import translate
from anaphora.models import EncoderDecoder
from anaphora.models.body import EncoderDecoderBody
from anaphora.options import COUNT, SIZE, option
from anaphora.training.evaluation import Evaluation
from anaphora.training.examples import (
    evaluation_data,
    example_of_table,
    example_task,
    line_inputs,
    split_of,
)
from anaphora.training.measures import Measure, TranslationMeasure
from anaphora.training.options import (
    SentenceOptions,
    TaskOptions,
    check_format,
    data_option,
)
from anaphora.training.task import Answer, EvaluationData, Paths

Example = tuple[str, str]  # a sentence, and its translation


@dataclass(kw_only=True)
class TranslatorOptions(SentenceOptions, EncoderDecoderBody, TaskOptions):
    """All options for training an encoder-decoder.

    >>> TranslatorOptions.make(tied=False).attention
    'multiplicative'
    """

    source_column: str | None = data_option(None, "Column of the sources, in tables.", reading=True)
    target_column: str | None = data_option(
        None,
        "Column of the translations, or of the numbers (several: price,area), in tables.",
        reading=True,
    )
    beam_size: int = option(5, "Beam size of the search.", SIZE, section="prediction")
    bleu: bool = option(
        True, "Translate the files, and compute BLEU and chrF.", section="evaluation"
    )

    no_repeat_ngram: int = option(
        0,
        "Length of the n-grams that may not repeat in a translation; 0 for no limit.",
        COUNT,
        section="prediction",
    )

    presets = {  # noqa: RUF012 - it is never changed
        "default": {
            "minimum_count": 2,
            "hidden_size": 256,
            "bidirectional": True,
            "dropout": 0.3,
            "initialization": "0.1",
            "forget_bias": 1.0,
            "tied": True,
            "batch_size": 64,
            "learning_rate": 0.002,
            "schedule": "cosine",
            "max_steps": 5000,
            "evaluate_every": 500,
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_format(self.format, ("table",))


def _read(options: TranslatorOptions, paths: Paths) -> list[Example]:
    if not paths:
        raise DataError(
            "no files to translate: give two files, the source and the target, or a table with a "
            "column of each"
        )
    columns = options.source_column, options.target_column
    return read_pairs(paths, *columns, options.encoding, options.format)


def _fit(options: TranslatorOptions, training: list[Example], held_out: list[Example]) -> PairCodec:
    lines = [line for pair in training for line in pair]
    split: Any = split_of(options, lines)

    def fit_tokenizer(lines: Sequence[str]) -> WordTokenizer:
        limits = options.vocabulary_size, options.minimum_count
        return WordTokenizer.fit(lines, *limits, options.lowercase, split)

    return PairCodec.fit(training, held_out, fit_tokenizer=fit_tokenizer)


def _resolved(options: TranslatorOptions, codec: PairCodec) -> TranslatorOptions:
    return dataclasses.replace(options, split=codec.words("source").split)


def _inputs(options: TranslatorOptions, path: str) -> Iterator[tuple[str, Any]]:
    if is_table(path, options.format):
        return read_sources(path, options.source_column, options.encoding, options.format)
    return line_inputs(options, path)


def _predict(
    options: TranslatorOptions, model: EncoderDecoder, sentences: Sequence[str]
) -> Iterable[Any]:
    return translate(
        model, model.codec, sentences, options.beam_size, no_repeat_ngram=options.no_repeat_ngram
    )


def _to_answer(
    options: TranslatorOptions, model: EncoderDecoder, sentence: str, found: Any
) -> Answer:
    best = None if found is None else found.hypothesis
    record: dict[str, Any] = {
        "source": sentence,
        "translation": "" if found is None else found.text,
        "log_probability": None if best is None else best.log_probability,
        "score": None if best is None else best.score,
    }
    return Answer(record, record["translation"])


def _measure_of(options: TranslatorOptions, model: Any, codec: Any) -> Measure | None:
    if options.monitor not in ("bleu", "chrf"):
        return None
    metrics.bleu(["a"], ["a"])  # fails before training if a package is missing
    return TranslationMeasure(model, codec["target"])


def _evaluation(
    options: TranslatorOptions, model: EncoderDecoder, files: Paths, batch_size: int | None
) -> EvaluationData:
    data = evaluation_data(_read, None, lambda *_: None, options, model, files, batch_size)
    if not options.bleu:
        return data
    try:
        metrics.bleu(["a"], ["a"])
    except ImportError as error:
        notice = f"no BLEU and chrF: {error}, or omit them with --no-bleu"
        return data._replace(notices=[notice])

    def figures(result: Evaluation, processes: Processes) -> dict[str, float]:
        pairs = [pair for pair in _read(options, files) if split_words(pair[0])]
        sources, references = ([pair[side] for pair in pairs] for side in (0, 1))
        found = translate(model, model.codec, sources, options.beam_size, processes=processes)
        texts = [one.text for one in found]
        lower = options.lowercase  # the model writes lower case
        return {
            "bleu": metrics.bleu(texts, references, lowercase=lower),
            "chrf": metrics.chrf(texts, references, lowercase=lower),
        }

    return data._replace(figures=figures)


TRANSLATE = example_task(
    name="translate",
    model=EncoderDecoder,
    options=TranslatorOptions,
    files="source and target, or tables of pairs",
    unit="words",
    read_examples=_read,
    columns=("source_column", "target_column"),
    fit=_fit,
    evaluation=_evaluation,
    measure_of=_measure_of,
    resolve=_resolved,
    inputs=_inputs,
    predict=_predict,
    to_answer=_to_answer,
    is_empty=lambda sentence: not split_words(sentence),
    example_file=lambda options, files: (
        example_of_table(files, options.format) or "YOUR_SENTENCES.txt"
    ),
)
"""Translates sentences."""
