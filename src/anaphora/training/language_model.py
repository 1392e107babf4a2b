"""The task "language-model": predicting the next token of a text."""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from anaphora.artifact import opener_within
from anaphora.data import (
    Batches,
    BPETokenizer,
    CharacterTokenizer,
    DataError,
    Source,
    Tokenizer,
    UnknownShare,
    WordTokenizer,
    batchify,
    count_id,
    cover,
    encode_to_file,
    is_table,
    open_ids,
    open_source,
    sentence_batches,
    standard_library_source,
)
from anaphora.data.tokenizers.bpe import require_tokenizers
from anaphora.distributed import Processes, helpers, spread, world
from anaphora.models import LanguageModel
from anaphora.models.body import LanguageModelBody
from anaphora.models.quantization import check_trainable
from anaphora.options import FACTOR, SHARE, SIZE, option
from anaphora.training.adaptation import cache_evaluation, dynamic_evaluation
from anaphora.training.evaluation import Evaluation, evaluate, report_loss
from anaphora.training.options import (
    StreamTrainingOptions,
    TaskOptions,
    TextOptions,
    check_format,
)
from anaphora.training.presets import PRESETS
from anaphora.training.task import Adapt, EvaluationData, Notify, Paths, Task, TrainingData

Ids = NDArray[Any]

evaluation_option = functools.partial(option, section="evaluation")

_DEFAULT_BPE_VOCABULARY = 4096
_LONGEST_SENTENCE = 256  # tokens per window of an evaluation
_UNITS = {"char": "characters", "word": "words", "bpe": "byte pairs"}


@dataclass(kw_only=True)
class LanguageModelOptions(TextOptions, LanguageModelBody, TaskOptions, StreamTrainingOptions):
    """All options for training a language model.

    >>> options = LanguageModelOptions.make("zaremba-small", epochs=1)
    >>> options.cell, options.hidden_size, options.window
    ('lstm', 200, 20)
    >>> LanguageModelOptions.from_config(options.to_config()) == options
    True
    """

    cache: bool = evaluation_option(
        False, "Interpolate with a neural cache of the tokens after similar recent states."
    )
    cache_window: int = evaluation_option(500, "Steps that the cache holds.", SIZE)
    cache_theta: float = evaluation_option(
        1.0, "How strongly the cache prefers similar states.", FACTOR
    )
    cache_weight: float = evaluation_option(0.1, "Weight of the cache in each prediction.", SHARE)
    dynamic_evaluation: float = evaluation_option(
        0.0,
        "Learning rate of dynamic evaluation, which trains on each window of the text after "
        "predicting it; 0 for none.",
        FACTOR,
    )
    dynamic_decay: float = evaluation_option(
        0.0, "Decay of dynamic evaluation towards the trained weights, per update.", FACTOR
    )
    dynamic_window: int = evaluation_option(5, "Steps per window of dynamic evaluation.", SIZE)

    presets = PRESETS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dynamic_decay > 1:
            raise ValueError(f"dynamic_decay is {self.dynamic_decay}; expected 0 to 1")
        for switch in ("cache", "dynamic_evaluation"):
            part = f"{switch.partition('_')[0]}_"
            for name, field in self.fields("evaluation").items():
                given = name.startswith(part) and getattr(self, name) != field.default
                if given and not getattr(self, switch):
                    raise ValueError(f"{name} is for {switch}, which is off: give {switch} too")
        if self.cache and self.dynamic_evaluation:
            raise ValueError("cache and dynamic_evaluation cannot be combined; omit one")
        check_format(self.format, ("table",))


def _check(options: LanguageModelOptions) -> None:
    if options.level == "bpe":
        require_tokenizers()


def _read(
    options: LanguageModelOptions,
    texts: Paths,
    validation_texts: Paths,
    folder: Path,
    notify: Notify,
    adapt: Adapt,
) -> tuple[Tokenizer, dict[str, str | None]]:
    more = options.column, options.pattern, options.encoding, options.format
    validation: Source | None = None
    if texts:
        source = open_source(texts, *more)
    else:
        source, validation = standard_library_source()
    if validation_texts:
        validation = open_source(validation_texts, *more)
    notify(f"reading {source.name}")
    tokenizer = adapt(lambda: fit_tokenizer(options, source))
    ids = encode_to_file(source, tokenizer, folder / "train.npy")
    if options.level == "word" and count_id(ids, tokenizer.unknown_id):
        unknown: Counter[str] = Counter()
        for found in spread(tokenizer.unknown_tokens, source.pieces(helpers())):
            unknown.update(found)
        if unknown:  # not only the <unk> that the text itself contains
            notify(_on_unknown(unknown, tokenizer.vocabulary_size, len(ids)))
    if validation is not None:
        notify(f"reading {validation.name}")
        try:
            encode_to_file(validation, tokenizer, folder / "validation.npy")
        except DataError as error:
            raise DataError(f"the validation text {validation.name}: {error}") from error
    names = {"texts": source.name, "validation_texts": validation.name if validation else None}
    return tokenizer, names


def _on_unknown(unknown: Counter[str], vocabulary_size: int, tokens: int) -> str:
    """The notice about words that the limits of the vocabulary made unknown."""
    types, count = len(unknown), unknown.total()
    return (
        f"the vocabulary has {vocabulary_size:,} entries; {types:,} rarer words become unknown: "
        f"{count:,} of the {tokens:,} tokens ({count / tokens:.2%}); --minimum-count 1 without "
        "--vocabulary-size keeps all words"
    )


def _open(options: LanguageModelOptions, tokenizer: Tokenizer, folder: Path) -> TrainingData:
    ids, validation_ids = _open_ids(folder, options, tokenizer)
    batches: Batches
    if options.batching == "sentences":
        batches = _sentences(options, tokenizer, ids, options.batch_size, options.window)
    else:
        batches = batchify(ids, options.batch_size, options.window)
    validation = None
    if len(validation_ids):
        size = max(1, min(options.evaluation_batch_size, len(validation_ids) - 1))
        validation = evaluation_batches(options, tokenizer, validation_ids, size)
    unknown = count_id(validation_ids, tokenizer.unknown_id)
    also = f" ({unknown:,} unknown)" if unknown else ""
    description = (
        f"{len(ids):,} {_UNITS[options.level]} to train on, {len(validation_ids):,} to "
        f"validate on{also}, a vocabulary of {tokenizer.vocabulary_size:,}"
    )
    return TrainingData(batches, validation, description)


def _evaluation(
    options: LanguageModelOptions, model: LanguageModel, texts: Paths, batch_size: int | None
) -> EvaluationData:
    tokenizer = model.codec
    column = options.column if any(is_table(path, options.format) for path in texts) else None
    source = open_source(texts, column, options.pattern, options.encoding, options.format)
    with contextlib.ExitStack() as stack:
        temporary = TemporaryDirectory(prefix="anaphora-", ignore_cleanup_errors=True)
        ids = encode_to_file(source, tokenizer, Path(stack.enter_context(temporary), "ids.npy"))
        weakref.finalize(ids, stack.pop_all().close)  # the ids stay on the disk
    evaluate_model = _adaptive(options, model, batch_size or 1)
    if options.dynamic_evaluation and options.batching == "stream":
        batches: Batches = cover(ids, 1, options.dynamic_window, tokenizer.start_id)
    else:
        batches = evaluation_batches(options, tokenizer, ids, min(batch_size or 1, len(ids)))
    characters = sum(len(chunk) for chunk in source)
    count = count_id(ids, tokenizer.unknown_id)
    unknown = UnknownShare(tokenizer.unknown_tokens(source), count, len(ids))

    def figures(result: Evaluation, processes: Processes) -> dict[str, Any]:
        bits: float | None = result.loss * result.tokens / characters / math.log(2)
        if options.level == "char":
            bits = result.bits_per_token  # the first character may not be predicted
        if unknown.tokens:
            bits = None  # the characters of unknown tokens were not predicted
        return {"bits_per_character": bits, "characters": characters}

    return EvaluationData(batches, source.name, unknown, figures, evaluate_model)


def _adaptive(
    options: LanguageModelOptions, model: LanguageModel, batch_size: int
) -> Callable[..., Evaluation]:
    """The function that evaluates a model, with the adaptation that the options choose."""
    name = "cache" if options.cache else "dynamic_evaluation"
    if (options.cache or options.dynamic_evaluation) and batch_size > 1:
        raise ValueError(
            f"{name} reads the text as one stream, but batch_size is {batch_size}: omit it"
        )
    if options.cache:
        return functools.partial(
            cache_evaluation,
            window=options.cache_window,
            theta=options.cache_theta,
            weight=options.cache_weight,
        )
    if options.dynamic_evaluation:
        check_trainable("dynamic_evaluation", model)
        return functools.partial(
            dynamic_evaluation,
            learning_rate=options.dynamic_evaluation,
            decay=options.dynamic_decay,
        )
    return evaluate


def _report(options: LanguageModelOptions, record: Mapping[str, Any], short: bool = False) -> str:
    if options.level == "char":
        unit = "char" if short else "character"
        bits = record["loss"] / math.log(2)
        return f"{bits:.3f} bits/{unit}" if short else f"{bits:.3f} bits per {unit}"
    return report_loss(record, short)


def fit_tokenizer(options: TextOptions, chunks: Iterable[str]) -> Tokenizer:
    """Build the vocabulary that the options describe; processes that help count the tokens.

    Raises:
        DataError: the text is empty, or an option is out of range.
    """
    pieces: list[Any] = chunks.pieces(helpers()) if isinstance(chunks, Source) else [chunks]
    limits = options.vocabulary_size, options.minimum_count
    if options.level == "char":
        counts = spread(CharacterTokenizer.count, pieces)
        return CharacterTokenizer.of_counts(counts, *limits)
    if options.level == "bpe":
        return BPETokenizer.fit(chunks, options.vocabulary_size or _DEFAULT_BPE_VOCABULARY)
    how: Any = options.lowercase, options.split, options.sentence_start
    words = spread(functools.partial(_count_words, how), pieces)
    return WordTokenizer.of_counts(words, *limits, *how)


def _count_words(how: Any, chunks: Iterable[str]) -> Counter[str]:
    return WordTokenizer.count(chunks, *how)


def evaluation_batches(
    options: TextOptions, tokenizer: Tokenizer, ids: Ids, batch_size: int
) -> Batches:
    """Batches of a text in which every token counts once.

    >>> tokenizer = CharacterTokenizer.fit("ab")
    >>> ids = tokenizer.encode("abbaab")
    >>> evaluation_batches(TextOptions(), tokenizer, ids, batch_size=2).tokens
    5
    """
    if options.batching == "sentences":
        return _sentences(options, tokenizer, ids, batch_size, _LONGEST_SENTENCE)
    return cover(ids, batch_size, max(1, 1024 // batch_size), tokenizer.start_id)


def _sentences(
    options: TextOptions, tokenizer: Tokenizer, ids: Ids, batch_size: int, window: int
) -> Batches:
    end = tokenizer.start_id
    assert end is not None
    start = None if options.sentence_start else end
    return sentence_batches(ids, end, batch_size, window, start)


def _open_ids(folder: Path, options: TextOptions, tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    """The ids to train on and to validate on."""
    opener = opener_within(folder.parent)
    checked = tokenizer if world().is_main else None  # one process reads all ids, for all
    ids = open_ids(folder / "train.npy", checked, opener)
    if (folder / "validation.npy").exists():
        return ids, open_ids(folder / "validation.npy", checked, opener)
    count = int(len(ids) * options.validation_share)
    kept = len(ids) - (count if count > 1 else 0)  # a single token has no context
    return ids[:kept], ids[kept:]


LANGUAGE_MODEL = Task(
    name="language-model",
    model=LanguageModel,
    options=LanguageModelOptions,
    files="files, folders, or - for standard input; without any, the source of Python's standard "
    "library",
    unit="tokens",
    rows="streams",
    check=_check,
    columns=("column",),
    read=_read,
    open=_open,
    evaluation=_evaluation,
    report=_report,
)
"""Predicts the next token of a text."""
