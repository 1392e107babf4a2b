"""Training a classifier of texts or of series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from anaphora import ops, schema
from anaphora.data import (
    CharacterTokenizer,
    DataError,
    Tokenizer,
    WordTokenizer,
    check_labels,
    is_table,
    located,
    moments,
    read_columns,
    read_labelled,
    read_series,
    standardized,
    uncompressed_name,
)
from anaphora.data.batches import SequenceBatches, side_by_side
from anaphora.models import SequenceClassifier
from anaphora.models.sequences import POOLINGS
from anaphora.tensor import Array, no_grad
from anaphora.training.evaluation import check_scores
from anaphora.training.options import (
    ExampleOptions,
    RecurrentOptions,
    TextOptions,
    option,
    same_as,
)
from anaphora.training.task import Column, ExampleTask, Paths, TaskOptions, check_names, numbers_of

Example = tuple[Any, str]  # a text, or a series [T, I]; and its label

_SERIES = (".ts", ".npy")
_PREDICTION_BATCH = 256


@dataclass(frozen=True)
class LabelledOptions(ExampleOptions):
    """How texts with labels are read.

    >>> LabelledOptions(level="word", column="body", label_column="stars").split
    'whitespace'
    """

    level: str = option("char", "What a token is.", ("char", "word"))
    split: str = same_as(TextOptions, "split")
    column: str | None = same_as(TextOptions, "column")
    label_column: str | None = option(None, "Take the label from this column.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level != "word" and (self.lowercase or self.split != "whitespace"):
            raise ValueError(f"lowercase and split are for level 'word', not for {self.level!r}")


@dataclass(frozen=True)
class ClassifierShape(RecurrentOptions):
    """The shape of a classifier.

    >>> ClassifierShape().pooling
    'last'
    """

    pooling: str = option("last", "What a sequence is judged by.", POOLINGS)


@dataclass(frozen=True)
class ClassifierOptions(TaskOptions):
    """All options of a training of a classifier.

    >>> ClassifierOptions.make(hidden_size=64).model.hidden_size
    64
    """

    text: LabelledOptions
    model: ClassifierShape

    defaults = {  # noqa: RUF012 - it is never changed
        "minimum_count": 2,
        "validation_share": 0.1,
        "hidden_size": 128,
        "dropout": 0.3,
        "forget_bias": 1.0,
        "pooling": "mean",
        "learning_rate": 0.004,
        "schedule": "cosine",
        "max_steps": 2000,
        "evaluate_every": 200,
    }
    sizes = ("vocabulary_size", "input_size", "num_classes")


class _OfTexts(TypedDict):
    classes: list[str]
    tokenizer: dict[str, Any]


class _OfSeries(TypedDict):
    classes: list[str]
    mean: list[float]
    scale: list[float]


@dataclass(frozen=True)
class ClassifierVocabulary:
    """What the numbers of a classifier stand for.

    Attributes:
        classes: The labels, sorted.
        tokenizer: Of texts; None for series.
        mean: Of each channel of series, by which they are standardised; None for texts.
        scale: The deviation of each channel.

    >>> ClassifierVocabulary(("no", "yes"), CharacterTokenizer.fit("ab")).encode("ba").tolist()
    [1, 0]
    """

    classes: tuple[str, ...]
    tokenizer: Tokenizer | None = None
    mean: Array | None = None
    scale: Array | None = None

    def encode(self, example: Any) -> Array:
        """A text as ids [T], or a series standardised [T, I].

        Raises:
            DataError: the text has what the vocabulary lacks; the series has other channels or a
                value that is far out of the range of the training; or one was given for the other.
        """
        if isinstance(example, str) != (self.tokenizer is not None):
            wanted, came = ("texts", "a series") if self.tokenizer else ("series", "a text")
            raise DataError(f"the classifier is one of {wanted}, but {came} was given to it")
        if self.tokenizer is not None:
            return self.tokenizer.encode(example)
        assert self.mean is not None
        assert self.scale is not None
        if example.shape[1] != len(self.mean):
            raise DataError(
                f"a series has {example.shape[1]} channels; those of the training have "
                f"{len(self.mean)}"
            )
        return standardized(example, self.mean, self.scale)

    def to_dict(self) -> dict[str, Any]:
        """All that `from_dict` needs, for a JSON file."""
        if self.tokenizer is not None:
            return {"classes": list(self.classes), "tokenizer": self.tokenizer.to_dict()}
        assert self.mean is not None
        assert self.scale is not None
        moments = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        return {"classes": list(self.classes), **moments}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClassifierVocabulary:
        """What `to_dict` described.

        Raises:
            ValueError: the data is damaged; the message names the field.
        """
        of_series = "tokenizer" not in data and ("mean" in data or "scale" in data)
        description = schema.convert(data, _OfSeries if of_series else _OfTexts)
        check_names("classes", description["classes"], least=2)
        classes = tuple(description["classes"])
        if not of_series:
            return cls(classes, Tokenizer.from_dict(data["tokenizer"]))
        mean, scale = (np.array(description[name], np.float64) for name in ("mean", "scale"))
        if len(mean) != len(scale) or not len(mean):
            raise ValueError(
                f"mean has {len(mean)} numbers and scale {len(scale)}; expected one of each for "
                "every channel"
            )
        if not (scale > 0).all():
            channel = int((scale > 0).argmin())
            raise ValueError(f"scale[{channel}] is {scale[channel]}; expected a number above 0")
        return cls(classes, None, mean, scale)


class ClassifyTask(ExampleTask):
    """A class for each text or series.

    >>> ClassifyTask().name
    'classify'
    """

    name = "classify"
    kind = SequenceClassifier.task
    model_type = SequenceClassifier
    options = ClassifierOptions
    unit = "sequences"
    rows = "sequences"

    def check(self, options: ClassifierOptions) -> None:  # noqa: D102
        shape = options.model.to_dict()
        self.model({**shape, "embedding_size": None, "input_size": 1, "num_classes": 2})

    def read_files(self, options: LabelledOptions, paths: Paths) -> list[Example]:  # noqa: D102
        if not paths:
            raise DataError(
                "nothing was given to classify: name .csv or .tsv files, a folder with a .txt file "
                "for each class, or series as .ts files"
            )
        are_series = {_holds_series(path) for path in paths}
        if are_series == {True}:
            encoding = options.encoding
            return [example for path in paths for example in _labelled_series(path, encoding)]
        if are_series == {False}:
            more = options.column, options.label_column, options.encoding
            return [example for path in paths for example in read_labelled(path, *more)]
        raise DataError("both texts and series were given; a classifier is of one or the other")

    def check_files(self, given: Mapping[str, Any], paths: Paths) -> None:  # noqa: D102
        if any(map(is_table, paths)):
            return
        for name in ("column", "label_column"):
            if given.get(name) is not None:
                raise ValueError(f"{name} is for .csv and .tsv files, and none was given")

    def fit(  # noqa: D102
        self, options: ClassifierOptions, training: list[Example], held_out: list[Example]
    ) -> ClassifierVocabulary:
        classes = tuple(sorted({label for _, label in [*training, *held_out]}))
        check_labels(dict.fromkeys(classes, "the files"))  # each may be consistent in itself
        if len(classes) < 2:
            raise DataError(f"all examples have the label {classes[0]!r}; wanted two or more")
        inputs = [example for example, _ in training]
        if not isinstance(inputs[0], str):
            _refuse_text_options(options.text)
            channels = sorted({series.shape[1] for series in inputs})
            if len(channels) > 1:
                raise DataError(
                    f"there are series of {channels[0]} and of {channels[-1]} channels; give files "
                    "whose series have the same channels"
                )
            return ClassifierVocabulary(classes, None, *moments(np.concatenate(inputs)))
        text, chunks = options.text, [f"{example}\n" for example in inputs]
        limits = text.vocabulary_size, text.minimum_count
        if text.level == "char":
            tokenizer: Tokenizer = CharacterTokenizer.fit(inputs, *limits)
        else:
            split: Any = text.split
            tokenizer = WordTokenizer.fit(chunks, *limits, text.lowercase, split)
        return ClassifierVocabulary(classes, tokenizer)

    def encode(  # noqa: D102
        self, vocabulary: ClassifierVocabulary, examples: list[Example]
    ) -> dict[str, Array]:
        inputs = []
        for example, _ in examples:
            name = f"the text {_shorten(example)}" if isinstance(example, str) else "the series"
            with located(name):
                inputs.append(vocabulary.encode(example))
        return {
            "inputs": np.concatenate(inputs),
            "lengths": np.array([len(sequence) for sequence in inputs]),
            "targets": numbers_of((label for _, label in examples), vocabulary.classes, "label"),
        }

    def columns(self, vocabulary: ClassifierVocabulary) -> dict[str, Column]:  # noqa: D102
        sizes = self.sizes(vocabulary)
        return {
            "inputs": Column("steps", sizes.get("vocabulary_size"), sizes.get("input_size")),
            "lengths": Column("sequences", of="steps"),
            "targets": Column("sequences", below=len(vocabulary.classes)),
        }

    def example_batches(  # noqa: D102
        self,
        vocabulary: ClassifierVocabulary,
        arrays: Mapping[str, Array],
        batch_size: int,
        dtype: str,
    ) -> SequenceBatches:
        inputs = arrays["inputs"]
        inputs = inputs.astype(dtype) if inputs.dtype.kind == "f" else inputs
        sequences = np.split(inputs, np.cumsum(arrays["lengths"])[:-1])
        return SequenceBatches(sequences, arrays["targets"], batch_size)

    def sizes(self, vocabulary: ClassifierVocabulary) -> dict[str, Any]:  # noqa: D102
        if vocabulary.tokenizer is not None:
            size = {"vocabulary_size": vocabulary.tokenizer.vocabulary_size}
        else:
            assert vocabulary.mean is not None
            size = {"input_size": len(vocabulary.mean)}
        return {"num_classes": len(vocabulary.classes), **size}

    def vocabulary(self, data: Mapping[str, Any]) -> ClassifierVocabulary:  # noqa: D102
        return ClassifierVocabulary.from_dict(data)

    def read_inputs(  # noqa: D102
        self, options: LabelledOptions, path: str
    ) -> Iterator[tuple[str, Any]]:
        if _holds_series(path):
            for number, series in enumerate(read_series(path, options.encoding)[0], start=1):
                yield f"{path}, series {number:,}", series
        elif not is_table(path):
            yield from super().read_inputs(options, path)
        elif options.column is None:
            raise DataError(f"{path} is a table: say with --column which column holds the texts")
        else:
            for place, (text,) in read_columns(path, [options.column], options.encoding):
                yield place, text.strip("\n")

    def unknown_tokens(  # noqa: D102
        self, vocabulary: ClassifierVocabulary, one: Any
    ) -> Counter[str]:
        vocabulary.encode(one)
        tokenizer = vocabulary.tokenizer
        return Counter() if tokenizer is None else tokenizer.unknown_tokens([one])

    def unknown_share(  # noqa: D102
        self,
        vocabulary: ClassifierVocabulary,
        examples: list[Example],
        arrays: Mapping[str, Array],
    ) -> tuple[Counter[str], int, int]:
        tokenizer = vocabulary.tokenizer
        if tokenizer is None:
            return Counter(), 0, 0
        end = "" if tokenizer.level == "char" else "\n"  # a word must not run into the next text
        unknown = tokenizer.unknown_tokens(f"{text}{end}" for text, _ in examples)
        count = int(np.count_nonzero(arrays["inputs"] == tokenizer.unknown_id))
        return unknown, count, len(arrays["inputs"])

    def describe_data(  # noqa: D102
        self, options: ClassifierOptions, vocabulary: ClassifierVocabulary, folder: Path
    ) -> str:
        training, validation = self.counts(folder, "targets")
        read = (
            f"a vocabulary of {vocabulary.tokenizer.vocabulary_size:,}"
            if vocabulary.tokenizer is not None
            else f"{0 if vocabulary.mean is None else len(vocabulary.mean)} channels"
        )
        return (
            f"{training:,} examples to train on, {validation:,} to validate on, "
            f"{len(vocabulary.classes)} classes, {read}"
        )


def classify(
    model: SequenceClassifier, vocabulary: ClassifierVocabulary, examples: Sequence[Any]
) -> Iterator[dict[str, float]]:
    """Yield for each text or series the probability of each class, the likeliest first.

    Args:
        model: A classifier that is ready to evaluate.
        vocabulary: Its vocabulary.
        examples: Texts, or series [T, I].

    Raises:
        DataError: as `ClassifierVocabulary.encode`.
        ValueError: the model's scores are not finite.

    >>> vocabulary = ClassifierVocabulary(("no", "yes"), CharacterTokenizer.fit("ab"))
    >>> model = SequenceClassifier(num_classes=2, hidden_size=3, vocabulary_size=2).eval()
    >>> (probabilities,) = classify(model, vocabulary, ["abba"])
    >>> sorted(probabilities), round(sum(probabilities.values()), 3)
    (['no', 'yes'], 1.0)
    """
    dtype = model.options["dtype"]
    for start in range(0, len(examples), _PREDICTION_BATCH):
        inputs = []
        part = examples[start : start + _PREDICTION_BATCH]
        for number, example in enumerate(part, start=start + 1):
            with located(f"example {number:,}"):
                inputs.append(vocabulary.encode(example))
        if vocabulary.tokenizer is None:
            inputs = [series.astype(dtype) for series in inputs]
        with no_grad(), np.errstate(over="ignore", invalid="ignore"):
            shares = ops.softmax(model.scores(side_by_side(inputs))).data
        check_scores("classify", shares)
        for row in shares:
            order = np.argsort(-row, kind="stable")
            yield {vocabulary.classes[k]: float(row[k]) for k in order}


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _holds_series(path: Any) -> bool:
    return uncompressed_name(path).lower().endswith(_SERIES)


def _labelled_series(path: Any, encoding: str) -> list[Example]:
    series, classes = read_series(path, encoding)
    if classes is None:
        raise DataError(
            f"{path} has no classes; to train or to evaluate, give each series its own after a "
            "last colon, and list them: @classLabel true a b. anaphora predict reads series without"
        )
    if isinstance(classes[0], float):
        raise DataError(
            f"{path} has numbers as targets (@targetLabel true), and classify needs classes; "
            "anaphora.estimators.RecurrentRegressor learns numbers. If these are names of classes, "
            "list them: @classLabel true 1 2"
        )
    return list(zip(series, map(str, classes), strict=True))


def _refuse_text_options(options: LabelledOptions) -> None:
    """Series have no tokens and no columns: options of texts are a misunderstanding."""
    plain = ClassifierOptions.make().text
    for name in sorted(options.names() - {"validation_share", "encoding"}):
        if getattr(options, name) != getattr(plain, name):
            raise ValueError(f"{name} is for texts, but the files hold series")
